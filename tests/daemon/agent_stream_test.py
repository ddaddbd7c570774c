#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn.v1.Agent/Stream with a client that we did not write (python3-grpcio; messages by protoc and python3-protobuf): samples in and acknowledged,
`need`, restarts, wrong use, 1,000 silent streams; GET /v1/agents and `cairn agents`.
Exit 77 without python3-grpcio."""
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
try:
    import grpc
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)
from agent_client import *  # noqa: E402,F403


class AgentStream(unittest.TestCase):
    def setUp(self):
        self.daemon = Cairnd()
        self.daemon.__enter__()
        self.addCleanup(lambda: self.daemon.__exit__())

    def stream(self, **options):
        stream = Stream(self.daemon.grpc_port, **options)
        self.addCleanup(stream.close)
        return stream

    def test_samples_are_acknowledged_listed_and_stored(self):
        for compression in (None, grpc.Compression.Gzip):
            stream = self.stream(compression=compression)
            stream.send(hello())
            self.assertEqual(stream.take("welcome").samples_max, 65536)
            first = 1 if compression is None else 11
            stream.send(definitions(), samples(first), samples(first + 1, 500))
            got = []
            while len(got) < 2:
                got += stream.take("acknowledgement").sequences
            self.assertEqual(sorted(got), [first, first + 1])
            self.assertEqual(stream.end()[0], grpc.StatusCode.OK)
        self.assertEqual(self.daemon.get("/v1/agents").json["agents"][0]["samples"], "1006")
        self.daemon.stop()
        self.assertEqual(stored(self.daemon), 1006)

    def test_agents_say_who_they_are(self):
        stream = self.stream().send(hello(), pb.AgentEnvelope(status=pb.Status(
            time_unix_nano=time.time_ns(), cpu_user_ns=1500000000, memory_bytes=20000000, samples=77,
            losses=[pb.Loss(reason="queue_full", count=5)], cut=[pb.Loss(reason="no_table", count=7)])))
        stream.take("welcome")
        wait_for(lambda: self.daemon.get("/v1/agents").json["agents"][:1] and "lost" in self.daemon.get("/v1/agents").json["agents"][0])
        agent = self.daemon.get("/v1/agents").json["agents"][0]
        self.assertEqual((agent["host"], agent["version"], agent["kernel"], agent["cpus"], agent["streams"]), ("h1", "test 1", "6.1", 2, 1))
        self.assertEqual((agent["memory_bytes"], agent["cpu_user_ns"], agent["samples_taken"]), ("20000000", "1500000000", "77"))
        self.assertEqual(agent["lost"], [{"reason": "queue_full", "samples": "5"}])
        self.assertEqual(agent["cut"], [{"reason": "no_table", "samples": "7"}])
        out = subprocess.run([CAIRN, "agents", "--url", "http://127.0.0.1:%d" % self.daemon.port], capture_output=True, text=True)
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertRegex(out.stdout.splitlines()[1], r"^h1 +stream +test 1 +6\.1 +1 +0 +5 +9\.09% +1\.5s +20\.0 MB ")
        out = subprocess.run([CAIRN, "agents", "--reasons", "--url", "http://127.0.0.1:%d" % self.daemon.port], capture_output=True, text=True)
        self.assertEqual(out.stdout.splitlines()[2:4], ["  lost: queue_full 5", "  cut: no_table 7"])
        stream.close()
        wait_for(lambda: self.daemon.get("/v1/agents").json["agents"][0]["streams"] == 0)

    def test_agents_are_known_after_a_restart(self):
        stream = self.stream().send(hello(), definitions(), samples(1, 100), pb.AgentEnvelope(status=pb.Status(
            time_unix_nano=time.time_ns(), memory_bytes=20000000, samples=100, losses=[pb.Loss(reason="queue_full", count=5)],
            cut=[pb.Loss(reason="r%d" % i, count=1) for i in range(30)])))
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])

        def agent():
            return self.daemon.get("/v1/agents").json["agents"][0]

        wait_for(lambda: "lost" in agent())
        stream.end()
        wait_for(lambda: agent()["streams"] == 0)
        before = agent()
        self.assertEqual((before["samples"], before["connects"]), ("100", 1))
        self.assertEqual((len(before["cut"]), before["cut"][-1]), (24, {"reason": "other", "samples": "7"}))  # past the limit they are one
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assertEqual(agent(), before)
        # An agent is written when it comes and goes, so that a crash takes nothing of that; it is the same one when it comes again.
        self.stream().send(hello()).take("welcome")
        other = self.stream().send(hello(b"o" * 16), definitions(), samples(1))
        self.assertEqual(list(other.take("acknowledgement").sequences), [1])  # and what was handed in before is durable
        self.daemon.kill()
        self.daemon.start()
        agents = {a["instance"]: a for a in self.daemon.get("/v1/agents").json["agents"]}
        self.assertEqual({i: (a["connects"], a["streams"]) for i, a in agents.items()}, {INSTANCE.hex(): (2, 0), (b"o" * 16).hex(): (1, 0)})
        kept = agents[INSTANCE.hex()]
        for member in ("host", "version", "kernel", "cpus", "samples", "first_seen_unix_ms", "memory_bytes", "lost", "cut"):
            self.assertEqual(kept[member], before[member], member)

    def test_unknown_numbers_are_asked_for_and_nothing_is_lost(self):
        stream = self.stream().send(hello(), samples(1))
        need = stream.take("need")
        self.assertEqual((need.sequence, list(need.traces), list(need.threads), list(need.types)), (1, [1, 2], [1], [1]))
        stream.send(definitions(), samples(1))
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])

    def test_a_restarted_server_counts_a_resend_once_and_asks_again(self):
        stream = self.stream().send(hello(), definitions(), samples(1), samples(2))
        got = []
        while len(got) < 2:
            got += stream.take("acknowledgement").sequences
        self.daemon.kill()
        self.daemon.start()
        stream = self.stream().send(hello(), samples(2))  # as if its acknowledgement had been lost
        self.assertEqual(stream.take("need").sequence, 2)
        stream.send(definitions(), samples(2), samples(3))
        got, duplicates = [], 0
        while len(got) < 2:
            acknowledgement = stream.take("acknowledgement")
            got += acknowledgement.sequences
            duplicates += acknowledgement.duplicates
        self.assertEqual((sorted(got), duplicates), ([2, 3], 1))
        stream.end()
        self.daemon.stop()
        self.assertEqual(stored(self.daemon), 9)

    def test_symbols_that_are_not_here_are_asked_for(self):
        stream = self.stream().send(hello(), definitions())
        files = stream.take("want_symbols").files
        self.assertEqual([(f.file_id, f.build_id, f.name) for f in files], [(b"e" * 16, b"b" * 20, "prog")])
        self.assertEqual(self.daemon.get("/v1/files/" + (b"e" * 16).hex()).json["name"], "prog")

    def test_wrong_use_has_a_status_and_a_place(self):
        cases = [
            ([samples(1)], "INVALID_ARGUMENT", "no hello"),
            ([hello(b"short")], "INVALID_ARGUMENT", "instance of 5 bytes"),
            ([hello(), hello()], "INVALID_ARGUMENT", "second hello"),
            ([hello(), definitions(), samples(0)], "INVALID_ARGUMENT", "without a sequence"),
            ([hello(), definitions(), samples(9, 3, thread=[1])], "INVALID_ARGUMENT", "envelope 9: samples: thread"),
            ([hello(), definitions(), samples(9, 65537)], "RESOURCE_EXHAUSTED", "more than 65536 samples"),
            ([hello(), pb.AgentEnvelope(definitions=pb.Definitions(first_trace=1, trace_depth=[5000], trace_shared=[0]))],
             "RESOURCE_EXHAUSTED", "5000 frames"),
            ([hello(), pb.AgentEnvelope(definitions=pb.Definitions(first_string=1, strings=["x" * (5 << 20)]))],
             "RESOURCE_EXHAUSTED", ""),
        ]
        for envelopes, code, words in cases:
            with self.subTest(words=words):
                got, details = self.stream().send(*envelopes).status()
                self.assertEqual(got.name, code, details)
                self.assertIn(words, details)
        self.assertGreaterEqual(metric(self.daemon, "cairn_agent_malformed_total"), 5)
        self.assertGreaterEqual(metric(self.daemon, "cairn_agent_past_limit_total"), 2)

    def test_a_clock_in_the_future_is_told_and_not_stored(self):
        stream = self.stream().send(hello(), definitions(), samples(1, base_time_unix_nano=time.time_ns() + 3600 * 10**9))
        acknowledgement = stream.take("acknowledgement")
        self.assertEqual((list(acknowledgement.sequences), acknowledgement.rejected_future), ([1], 3))
        stream.end()
        self.daemon.stop()
        self.assertEqual(stored(self.daemon), 0)

    def test_too_many_envelopes_are_paced_and_all_taken(self):
        stream = self.stream().send(hello(), definitions(), *[samples(i + 1, 1) for i in range(5000)])
        got, paces = 0, []
        while got < 5000:
            envelope = next(stream.call)
            got += len(envelope.acknowledgement.sequences)
            if envelope.HasField("pace"):
                paces.append(envelope.pace.envelopes_per_second)
        self.assertIn(2000, paces)
        self.assertGreater(metric(self.daemon, "cairn_agent_paced_total"), 0)

    def test_silent_streams_cost_little_and_disturb_nobody(self):
        # 10 connections with 100 streams each.
        channels = [grpc.insecure_channel("127.0.0.1:%d" % self.daemon.grpc_port, options=[("grpc.use_local_subchannel_pool", 1)])
                    for _ in range(10)]
        before = metric(self.daemon, "process_resident_memory_bytes")
        idle = queue.Queue()
        calls = [c.stream_stream("/cairn.v1.Agent/Stream")(iter(idle.get, None)) for c in channels for _ in range(100)]
        wait_for(lambda: metric(self.daemon, "cairn_agent_streams_open") == 1000, 60)
        stream = self.stream().send(hello(), definitions(), samples(1))
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])
        grown = metric(self.daemon, "process_resident_memory_bytes") - before
        print("1,000 silent streams: %.1f MB" % (grown / 1e6))
        self.assertLess(grown, 100 << 20)
        for call in calls:
            call.cancel()
            idle.put(None)
        for channel in channels:
            channel.close()
        wait_for(lambda: metric(self.daemon, "cairn_agent_streams_open") <= 1, 60)

    def test_a_client_that_never_reads_is_not_read_and_then_broken_off(self):
        daemon = Cairnd("--profiles.unread", "2s")
        daemon.__enter__()
        self.addCleanup(daemon.__exit__)
        # Without these the library reads megabytes ahead of its user.
        mute = Stream(daemon.grpc_port, options=[("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)])
        self.addCleanup(mute.close)
        before = metric(daemon, "process_resident_memory_bytes")
        # Each of these is answered by a `need` of 1,000 numbers, 2 kB, which nobody takes.
        mute.send(hello(b"m" * 16), *[samples(i + 1, 1000, trace=range(1, 1001)) for i in range(1500)])
        wait_for(lambda: metric(daemon, "cairn_agent_unread_total") == 1)
        asked = metric(daemon, "cairn_agent_needs_samples_total")
        self.assertLess(asked, 400)
        self.assertLess(metric(daemon, "process_resident_memory_bytes") - before, 40 << 20)
        self.assertLess(metric(daemon, "cairn_net_buffered_bytes"), 4 << 20)
        stream = Stream(daemon.grpc_port).send(hello(), definitions(), samples(1))
        self.addCleanup(stream.close)
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])
        self.assertEqual(metric(daemon, "cairn_agent_streams_open"), 2)
        self.assertEqual(metric(daemon, "cairn_agent_needs_samples_total"), asked)
        wait_for(lambda: metric(daemon, "cairn_agent_unread_ended_total") == 1)
        self.assertEqual(metric(daemon, "cairn_agent_streams_open"), 1)
        self.assertEqual(list(stream.send(samples(2)).take("acknowledgement").sequences), [2])
        self.assertIn(mute.status()[0], (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED))

    def test_a_stop_ends_the_stream_after_its_acknowledgements(self):
        stream = self.stream().send(hello(), definitions(), samples(1))
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])
        begun = time.monotonic()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertLess(time.monotonic() - begun, 8)
        self.assertEqual(stream.status()[0], grpc.StatusCode.UNAVAILABLE)

    def test_a_record_is_replayed_as_another_instance(self):
        record = os.path.join(self.daemon.data_dir, "record")
        subprocess.run([LOAD, "--record", record, "--samples", "3000", "--traces", "500"], check=True, capture_output=True)
        for _ in range(2):
            out = subprocess.run([LOAD, "--address", "127.0.0.1:%d" % self.daemon.grpc_port, "--replay", record], check=True,
                                 capture_output=True, text=True).stdout
            self.assertIn("acknowledged=3000\n", out)
            self.assertIn("needs=0\n", out)
        for duplicates in (0, 1):
            out = subprocess.run([LOAD, "--address", "127.0.0.1:%d" % self.daemon.grpc_port, "--replay", record, "--keep-times"],
                                 check=True, capture_output=True, text=True).stdout
            self.assertIn("duplicate_reports=%d\n" % duplicates, out)
        self.daemon.stop()
        self.assertEqual(stored(self.daemon), 9000)


if __name__ == "__main__":
    unittest.main()
