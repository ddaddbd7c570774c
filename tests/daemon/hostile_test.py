#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that senders of profiles can do wrong, at once, beside two that do it right: those lose nothing and wait for nobody, each fault has its status
and its counter, and memory stays where it was. What single faults do is tested where docs/grpc.md says. Exit 77 without python3-grpcio."""
import gzip
import os
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
try:
    import grpc
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)
from agent_client import *  # noqa: E402,F403
import otlp_encode  # noqa: E402

EXPORT = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
STREAM = "/cairn.v1.Agent/Stream"
DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS = 1, 4
ROUNDS = 40


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """A literal header field without indexing (RFC 7541, 6.2.2), under 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def head(path, *more):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]
    return b"".join(field(n, v) for n, v in [*fields, *more])


def export(number, count=10):
    start = time.time_ns() - 5 * 10**9
    sample = {"frames": [{"attributes": [("profile.frame.type", "cpython")], "lines": [("f", "", "a.py", 1, 2, 0)]}],
              "timestamps": [start + i for i in range(count)]}
    profile = {"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"), "period": 50_000_000, "time": start + number,
               "duration": 10**9, "samples": [sample]}
    return [{"attributes": [("service.name", "s%d" % number)], "profiles": [profile]}]


class Hostile(unittest.TestCase):
    def setUp(self):
        self.daemon = Cairnd("--profiles.unread", "1s")
        self.daemon.__enter__()
        self.addCleanup(self.daemon.__exit__)
        self.faults = []

    # ---- raw HTTP/2

    def dial(self, *settings):
        sock = socket.create_connection(("127.0.0.1", self.daemon.grpc_port), timeout=20)
        self.addCleanup(sock.close)
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *s) for s in settings)))
        return sock

    def is_ended(self, sock, data):
        """Sends until the daemon ends the connection; True when it did."""
        try:
            sock.sendall(data)
            while sock.recv(65536):
                pass
            return True
        except (ConnectionResetError, BrokenPipeError):
            return True
        except socket.timeout:
            return False

    def rapid_reset(self):
        data = b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, head(EXPORT)) + frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", 8))
                        for i in range(5000))
        return self.is_ended(self.dial(), data)

    def endless_continuation(self):
        return self.is_ended(self.dial(), frame(HEADERS, 0, 1, head(EXPORT)) + b"".join(
            frame(CONTINUATION, 0, 1, field("x-%d" % i, "y" * 100)) for i in range(10000)))

    def window_of_nothing(self):
        """Gives no credit and asks all the same: a head that is never read is all that this costs."""
        sock = self.dial((4, 0))
        sock.sendall(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/cairn.v1.None/None")) for i in range(200)))
        return True

    def message_of_4_gib(self):
        """Is answered, a status without a message, from the length alone; the counter of what is too large tells which."""
        sock = self.dial()
        sock.sendall(frame(HEADERS, END_HEADERS, 1, head(EXPORT)) + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"))
        with sock.makefile("rb") as file:
            while True:
                start = file.read(9)
                file.read(int.from_bytes(start[:3], "big"))
                if start[3] == HEADERS:
                    return bool(start[4] & END_STREAM)

    # ---- gRPC and HTTP

    def status(self, path, message, **options):
        with grpc.insecure_channel("127.0.0.1:%d" % self.daemon.grpc_port, options=[("grpc.max_send_message_length", -1)]) as channel:
            try:
                channel.unary_unary(path, request_serializer=lambda b: b, response_deserializer=lambda b: b)(message, timeout=60, **options)
            except grpc.RpcError as e:
                return e.code().name
        return "OK"

    def gzip_bombs(self):
        zeros = bytes(65 << 20)
        answer = self.daemon.request("POST", "/v1development/profiles", gzip.compress(zeros),
                                     {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"})
        return (answer.status, self.status(EXPORT, zeros, compression=grpc.Compression.Gzip),
                self.status(STREAM, zeros, compression=grpc.Compression.Gzip)) == (413, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED")

    def lengths_that_lie(self):
        huge = b"\xff" * 9 + b"\x01"  # 2^64 - 1
        messages = [b"\x0a" + huge, b"\x12" + huge + b"x", b"\x12\x7f", b"\x12\x05\x0a\xff\xff\xff\x7f", b"\x0a\x04\x12\x02\x12\x7f" + b"\x12\x00"]
        for message in messages:
            if self.status(EXPORT, message) not in ("INVALID_ARGUMENT", "OK"):
                return False
        return self.status(EXPORT, messages[0]) == "INVALID_ARGUMENT" and self.status(STREAM, messages[0]) == "INVALID_ARGUMENT"

    def every_version_cut(self):
        for version in otlp_encode.VERSIONS:
            whole = otlp_encode.encode(version, export(999))
            for length in range(1, len(whole), 7):
                answer = self.daemon.request("POST", "/v1development/profiles", whole[:length], {"Content-Type": "application/x-protobuf"})
                if answer.status not in (200, 400):
                    return False
        return True

    def wrong_content_types(self):
        answers = [self.daemon.request("POST", "/v1development/profiles", b"x", {"Content-Type": t}).status for t in ("text/plain", "application/grpc-web")]
        return answers == [415, 415] and self.daemon.request("POST", EXPORT, b"x", {"Content-Type": "application/json"}).status == 415

    def counts_before_traces(self):
        stream = Stream(self.daemon.grpc_port).send(hello(b"c" * 16), samples(1))
        need = stream.take("need")
        stream.close()
        return list(need.traces) == [1, 2]

    def clocks_in_the_future(self):
        stream = Stream(self.daemon.grpc_port).send(hello(b"f" * 16), definitions(), samples(1, base_time_unix_nano=2**63))
        told = stream.take("acknowledgement").rejected_future
        stream.close()
        return told == 3

    # ---- those that do it right

    def honest_otlp(self):
        with grpc.insecure_channel("127.0.0.1:%d" % self.daemon.grpc_port) as channel:
            call = channel.unary_unary(EXPORT, request_serializer=lambda b: b, response_deserializer=lambda b: b)
            for i in range(ROUNDS):
                begun = time.monotonic()
                call(otlp_encode.encode("1.10", export(i)), timeout=60)
                self.slowest = max(self.slowest, time.monotonic() - begun)

    def honest_stream(self):
        stream = Stream(self.daemon.grpc_port).send(hello(), definitions())
        for i in range(1, ROUNDS + 1):
            stream.send(samples(i, 10))
            if list(stream.take("acknowledgement").sequences) != [i]:
                raise AssertionError(i)
        if stream.end()[0] != grpc.StatusCode.OK:
            raise AssertionError("the end")

    def run_one(self, what):
        try:
            if what() is False:
                self.faults.append(what.__name__)
        except Exception as e:  # noqa: B902: told by the test
            self.faults.append("%s: %r" % (what.__name__, e))

    def test_nobody_else_is_disturbed(self):
        self.slowest = 0
        before = metric(self.daemon, "process_resident_memory_bytes")
        silent = [socket.create_connection(("127.0.0.1", port)) for port in (self.daemon.port, self.daemon.grpc_port) for _ in range(500)]
        hostile = [self.rapid_reset, self.endless_continuation, self.window_of_nothing, self.message_of_4_gib, self.gzip_bombs, self.lengths_that_lie,
                   self.every_version_cut, self.wrong_content_types, self.counts_before_traces, self.clocks_in_the_future]
        for sock in silent:
            self.addCleanup(sock.close)
        threads = [threading.Thread(target=self.run_one, args=(what,)) for what in [self.honest_otlp, self.honest_stream, *hostile]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(self.faults, [])
        self.assertFalse([t for t in threads if t.is_alive()])
        grown = metric(self.daemon, "process_resident_memory_bytes") - before
        print("beside all that: slowest Export %.2f s, memory grew by %.1f MB" % (self.slowest, grown / 1e6))
        self.assertLess(grown, 400 << 20)
        for counter in ("net_bad_requests", "net_body_too_large", "otlp_rejected_requests", "agent_malformed", "agent_needs_samples", "agent_rejected_future"):
            self.assertGreater(metric(self.daemon, "cairn_%s_total" % counter), 0, counter)
        lines = self.daemon.get("/v1/profiles?format=folded&group_by=service").body.decode().splitlines()
        honest = {l.split(";")[0]: int(l.rsplit(" ", 1)[1]) for l in lines if re.match(r"service=s\d+;", l) and not l.startswith("service=s999;")}
        self.assertEqual(honest, {"service=s%d" % i: 10 for i in range(ROUNDS)})
        self.assertEqual(sum(int(l.rsplit(" ", 1)[1]) for l in lines if l.startswith("service=web;")), 10 * ROUNDS)


if __name__ == "__main__":
    unittest.main()
