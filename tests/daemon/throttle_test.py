#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What senders of profiles are told while the disk does not keep up: OTLP's throttling over gRPC (UNAVAILABLE with google.rpc.RetryInfo) and
HTTP (503 with Retry-After), `pace` on a stream; what is waiting stays bounded, others are served, and once the disk answers again the totals are
exactly what was acknowledged. Exit 77 without python3-grpcio."""
import base64
import concurrent.futures
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
try:
    import grpc
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)
from google.protobuf import any_pb2, duration_pb2  # noqa: E402
from agent_client import *  # noqa: E402,F403
import otlp_encode  # noqa: E402

HOLD = os.path.join(BINARY_DIR, "tests", "daemon", "hold_writer")
EXPORT = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
PATH = "/v1development/profiles"
SAMPLES = 200
CLIENTS = 12


def message(number):
    """An export of SAMPLES samples, each of a stack of its own, so that a batch takes some memory."""
    start = time.time_ns() - 5 * 10**9
    samples_ = [{"frames": [{"attributes": [("profile.frame.type", "cpython")], "lines": [("f%d" % i, "", "a.py", 1, 2, 0)]}],
                 "timestamps": [start + i]} for i in range(SAMPLES)]
    profile = {"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"), "period": 50_000_000, "time": start,
               "duration": 10**9, "samples": samples_}
    return otlp_encode.encode("1.10", [{"attributes": [("service.name", "s%d" % number)], "profiles": [profile]}])


def retry_delay(call):
    """Seconds of google.rpc.RetryInfo in the status of a call (google.rpc.Status: 3 details; RetryInfo: 1 retry_delay)."""
    raw = dict(call.trailing_metadata())["grpc-status-details-bin"]
    assert raw[0] == 0x08 and raw[1] == call.code().value[0], raw
    assert raw[2] == 0x1a and raw[3] == len(raw) - 4, raw
    detail = any_pb2.Any.FromString(raw[4:])
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo", detail
    assert detail.value[0] == 0x0a and detail.value[1] == len(detail.value) - 2
    return duration_pb2.Duration.FromString(detail.value[2:]).ToMilliseconds() / 1000


class Throttle(unittest.TestCase):
    def start(self, *flags):
        daemon = Cairnd(*flags)
        daemon.__enter__()
        self.addCleanup(daemon.__exit__)
        return daemon

    def hold(self, daemon):
        """The disk stops to answer; the returned function lets it go on."""
        holder = subprocess.Popen([HOLD, os.path.join(daemon.data_dir, "data", "profiles")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), b"held\n")

        def release():
            if holder.poll() is None:
                holder.stdin.close()
                self.assertEqual(holder.wait(10), 0)
                holder.stdout.close()

        self.addCleanup(release)
        return release

    def total(self, daemon):
        body = daemon.get("/v1/profiles?format=folded").body.decode()
        return sum(int(line.rsplit(" ", 1)[1]) for line in body.splitlines())

    def test_a_full_queue_is_503_with_retry_after(self):
        daemon = self.start("--profiles.queue", "1K")
        release = self.hold(daemon)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            answers = [pool.submit(daemon.request, "POST", PATH, message(i), {"Content-Type": "application/x-protobuf"})
                       for i in range(CLIENTS)]
            # One batch is always let in; the others are refused while it waits, and the daemon serves everybody else.
            wait_for(lambda: sum(a.done() for a in answers) == CLIENTS - 1)
            self.assertEqual(metric(daemon, "cairn_profiles_queue_batches"), 1)
            self.assertEqual(daemon.get("/healthz").status, 200)
            self.assertEqual(daemon.post_json("/v1/symbolize", {"modules": []}).status, 200)
            release()
            answers = [a.result() for a in answers]
        taken = [a for a in answers if a.status == 200]
        refused = [a for a in answers if a.status != 200]
        self.assertEqual((len(taken), len(refused)), (1, CLIENTS - 1))
        for answer in refused:
            self.assertEqual(answer.status, 503)
            self.assertEqual(answer.headers["retry-after"], "1")
            # google.rpc.Status in the format of the request
            self.assertEqual(answer.headers["content-type"], "application/x-protobuf")
            self.assertIn(b"are waiting to be written", answer.body)
        self.assertEqual(metric(daemon, "cairn_profiles_busy_total"), CLIENTS - 1)
        self.assertEqual(self.total(daemon), SAMPLES)

    def test_a_full_queue_is_unavailable_with_retry_info(self):
        daemon = self.start("--profiles.queue", "1K")
        release = self.hold(daemon)
        with grpc.insecure_channel("127.0.0.1:%d" % daemon.grpc_port) as channel:
            export = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)
            messages = [message(i) for i in range(CLIENTS)]
            calls = [export.future(m, timeout=60) for m in messages]
            wait_for(lambda: sum(c.done() for c in calls) == CLIENTS - 1)
            refused = [(i, c) for i, c in enumerate(calls) if c.done()]
            for _, call in refused:
                self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE, call.details())
                self.assertEqual(retry_delay(call), 1)
            release()
            first = [c for c in calls if c not in [r for _, r in refused]][0]
            self.assertEqual(first.code(), grpc.StatusCode.OK)
            self.assertEqual(self.total(daemon), SAMPLES)
            # As the protocol says: again after the delay. Nothing was counted of what was refused, everything of what was taken.
            for i, _ in refused:
                export(messages[i], timeout=60)
        self.assertEqual(self.total(daemon), CLIENTS * SAMPLES)

    def test_requests_that_are_being_read_are_bounded_too(self):
        one = message(0)
        daemon = self.start("--profiles.reading", str(len(one) * 5 // 2), "--threads", "1")
        release = self.hold(daemon)
        headers = {"Content-Type": "application/x-protobuf"}
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            answers = [pool.submit(daemon.request, "POST", PATH, message(i), headers) for i in range(CLIENTS)]
            wait_for(lambda: sum(a.done() for a in answers) >= CLIENTS - 2)
            with grpc.insecure_channel("127.0.0.1:%d" % daemon.grpc_port) as channel:
                export = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)
                call = export.future(one + one + one, timeout=60)
                self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE)
                self.assertEqual(retry_delay(call), 1)
            release()
            answers = [a.result() for a in answers]
        self.assertTrue(all(a.headers["retry-after"] == "1" for a in answers if a.status == 503))
        taken = sum(a.status == 200 for a in answers)
        self.assertEqual(taken + sum(a.status == 503 for a in answers), CLIENTS)
        self.assertIn(taken, (1, 2))
        self.assertEqual(self.total(daemon), taken * SAMPLES)
        self.assertGreater(metric(daemon, "cairn_http_refused_busy_total"), 0)

    def test_past_the_memory_of_all_requests_is_503_with_retry_after(self):
        daemon = self.start("--limits.buffered", "1M")
        answer = daemon.request("POST", PATH, b"\0" * (2 << 20), {"Content-Type": "application/x-protobuf"})
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "1"))
        with grpc.insecure_channel("127.0.0.1:%d" % daemon.grpc_port) as channel:
            export = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)
            call = export.future(b"\0" * (2 << 20), timeout=60)
            self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE, call.details())
            self.assertEqual(retry_delay(call), 1)
        self.assertEqual(metric(daemon, "cairn_net_refused_memory_total"), 2)

    def test_what_is_past_a_limit_for_good_is_not_to_be_tried_again(self):
        daemon = self.start("--limits.message", "64K")
        answer = daemon.request("POST", PATH, b"\0" * 100000, {"Content-Type": "application/x-protobuf"})
        self.assertEqual((answer.status, answer.headers.get("retry-after")), (413, None))
        with grpc.insecure_channel("127.0.0.1:%d" % daemon.grpc_port) as channel:
            export = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)
            call = export.future(b"\0" * 100000, timeout=60)
            self.assertEqual(call.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, call.details())
            self.assertNotIn("grpc-status-details-bin", dict(call.trailing_metadata()))

    def test_a_stream_is_paced_and_loses_nothing(self):
        daemon = self.start("--profiles.queue", "1K")
        release = self.hold(daemon)
        stream = Stream(daemon.grpc_port)
        self.addCleanup(stream.close)
        blocker = Stream(daemon.grpc_port)  # its batch fills the queue
        self.addCleanup(blocker.close)
        blocker.send(hello(b"b" * 16), definitions(), samples(1, 100))
        wait_for(lambda: metric(daemon, "cairn_profiles_queue_batches") == 1)
        stream.send(hello(), definitions(), *[samples(i, 100) for i in range(1, 51)])
        pace = stream.take("pace")
        self.assertIn("does not keep up", pace.reason)
        self.assertGreater(metric(daemon, "cairn_agent_busy_total"), 0)
        self.assertEqual(metric(daemon, "cairn_agent_acknowledged_total"), 0)
        release()
        got = []
        while len(got) < 50:
            got += stream.take("acknowledgement").sequences
        self.assertEqual(sorted(got), list(range(1, 51)))
        self.assertEqual(list(blocker.take("acknowledgement").sequences), [1])
        self.assertEqual(stream.end()[0], grpc.StatusCode.OK)
        self.assertEqual(self.total(daemon), 51 * 100)


if __name__ == "__main__":
    unittest.main()
