# SPDX-License-Identifier: Apache-2.0
"""A client of cairn.v1.Agent/Stream that we did not write (python3-grpcio, messages by protoc and python3-protobuf), and messages for it.
Needs grpc: whoever imports this has looked whether it is there."""
import importlib
import os
import queue
import re
import subprocess
import sys
import tempfile
import time

import grpc

from cairnd import *  # noqa: F403

GENERATED = tempfile.mkdtemp(prefix="cairn-agent-")
subprocess.run(["protoc", "-I", os.path.join(SOURCE_DIR, "proto"), "--python_out", GENERATED, "cairn/v1/agent.proto"], check=True)
sys.path.insert(0, GENERATED)
pb = importlib.import_module("cairn.v1.agent_pb2")
shutil.rmtree(GENERATED)
TOTAL = os.path.join(BINARY_DIR, "bin", "samples_total")
LOAD = os.path.join(BINARY_DIR, "bin", "load")
INSTANCE = bytes(range(16))


class Stream:
    """One call; send() and take()."""

    def __init__(self, port, compression=None, options=()):
        self.channel = grpc.insecure_channel("127.0.0.1:%d" % port, options=options)
        method = self.channel.stream_stream("/cairn.v1.Agent/Stream", pb.AgentEnvelope.SerializeToString, pb.ServerEnvelope.FromString)
        self.out = queue.Queue()
        self.call = method(iter(self.out.get, None), compression=compression)

    def send(self, *envelopes):
        for envelope in envelopes:
            self.out.put(envelope)
        return self

    def take(self, kind):
        """The next answer of that kind; others are passed over."""
        for envelope in self.call:
            if envelope.WhichOneof("body") == kind:
                return getattr(envelope, kind)
        raise AssertionError("the stream ended without " + kind)

    def end(self):
        """Half-closes; the status and its message."""
        self.out.put(None)
        return self.status()

    def status(self):
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            pass
        result = self.call.code(), self.call.details()
        self.channel.close()
        return result

    def close(self):
        self.call.cancel()
        self.out.put(None)
        self.channel.close()


def hello(instance=INSTANCE, **members):
    return pb.AgentEnvelope(hello=pb.Hello(instance=instance, version="test 1", host_name="h1", kernel="6.1", machine="x86_64", cpus=2,
                                           labels=[pb.Label(key="team", value="blue")], **members))


def definitions():
    d = pb.Definitions(first_string=1, strings=["web", "main", "f", "g"], first_frame=1, frame_kind=[2, 2], frame_executable=[0, 0],
                       frame_address=[0, 0], first_trace=1, trace_depth=[2, 1], trace_shared=[0, 1], trace_frame=[1, 2],
                       first_thread=1, thread_process=[1], thread_id=[43], thread_name=[2])
    d.executables.add(number=1, file_id=b"e" * 16, build_id=b"b" * 20, name="prog",
                      segments=[pb.LoadSegment(offset=0x1000, vaddr=0x2000, size=0x3000, executable=True)])
    for frame in (1, 2):
        d.lines.add(frame=frame, function=2 + frame, line=frame)
    d.processes.add(number=1, pid=42, service=1)
    d.types.add(number=1, type="samples", unit="count", period_type="cpu", period_unit="nanoseconds", period=50000000)
    return pb.AgentEnvelope(definitions=d)


def samples(sequence, count=3, **members):
    now = time.time_ns() - 60 * 10**9
    body = dict(type=1, base_time_unix_nano=now, period_ns=50000000, cpu_run=[1, count], thread=[1] * count,
                trace=[1 + i % 2 for i in range(count)], time_step=[1] * count, time_rest=[7] * count)
    body.update(members)
    return pb.AgentEnvelope(sequence=sequence, samples=pb.Samples(**body))


def stored(daemon):
    """The total of the store; the daemon is stopped for it."""
    out = subprocess.run([TOTAL, os.path.join(daemon.data_dir, "data")], capture_output=True, text=True, check=True).stdout
    return int(out.split()[-1]) if out else 0


def metric(daemon, name):
    return int(re.search(r"^%s (\d+)$" % name, daemon.get("/metrics").body.decode(), re.M).group(1))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen within %d s" % seconds)
        time.sleep(0.05)
