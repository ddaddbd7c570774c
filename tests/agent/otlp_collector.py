#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent --protocol otlp to a collector that is not ours (python3-grpcio, messages by protoc): ticks, off-CPU time and probes as
profiles of their own; a collector that hangs, asks for a pause, refuses, rejects a part, or is away; --probability. And what cairnd makes of the three kinds.

Skipped (77) where python3-grpcio is not installed, or with the agent's own words where it is not permitted to run.
"""

import datetime
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "profiles"))

try:
    import grpc
except ImportError:
    print("skipped: python3-grpcio is not installed")
    sys.exit(77)

import live  # noqa: E402
import otlp_encode  # noqa: E402
from otlp_live import free_port, start_daemon, stop  # noqa: E402
from stream_live import Agent, spooled, total, wait_for  # noqa: E402

SERVICE = "opentelemetry.proto.collector.profiles.v1development.ProfilesService"
HZ = 100


def field(number, value):
    """One protobuf field, of a number or of bytes shorter than 128."""
    if isinstance(value, int):
        out = bytes([number << 3])
        while value >= 0x80:
            out += bytes([value & 0x7F | 0x80])
            value >>= 7
        return out + bytes([value])
    return bytes([number << 3 | 2, len(value)]) + value


def retry_info(code, milliseconds):
    """google.rpc.Status with RetryInfo."""
    duration = field(1, milliseconds // 1000) + field(2, milliseconds % 1000 * 1000000)
    return field(1, code) + field(3, field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, field(1, duration)))


class Collector:
    """A gRPC server; answer(request, context, number of the call) may be changed while it runs."""

    def __init__(self, port=0):
        self.pb = otlp_encode.module("1.10")
        self.calls = []  # (time, [profile_id])
        self.taken = {}  # profile_id: (resource, profile, dictionary), of requests that were answered with success
        self.answer = lambda request, context, number: self.pb.ExportResponse()
        handler = grpc.unary_unary_rpc_method_handler(self.export, request_deserializer=self.pb.ExportRequest.FromString,
                                                      response_serializer=lambda message: message.SerializeToString())
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def export(self, request, context):
        profiles = [(r, p) for r in request.resource_profiles for s in r.scope_profiles for p in s.profiles]
        ids = [p.profile_id for _, p in profiles]
        self.calls.append((time.monotonic(), ids))
        answer = self.answer(request, context, len(self.calls))
        for resource, profile in profiles:
            self.taken[profile.profile_id] = (resource, profile, request.dictionary)
        return answer

    def profiles(self, sample_type):
        """[(resource, profile, dictionary)] of a type."""
        return [(r, p, d) for r, p, d in self.taken.values() if d.string_table[p.sample_type.type_strindex] == sample_type]

    def value(self, sample_type):
        return sum(sum(s.values) for _, p, _ in self.profiles(sample_type) for s in p.samples)

    def samples(self):
        """Ticks and probe hits count themselves."""
        return self.value("samples") + self.value("events")

    def stop(self):
        self.server.stop(None).wait()


def attributes(resource):
    return {a.key: a.value.string_value or a.value.int_value for a in resource.resource.attributes}


def frames(sample, dictionary):
    """[(file name, address, {attribute of the file: value})], leaf first."""
    out = []
    for index in dictionary.stack_table[sample.stack_index].location_indices:
        location = dictionary.location_table[index]
        mapping = dictionary.mapping_table[location.mapping_index]
        of_file = {dictionary.string_table[dictionary.attribute_table[i].key_strindex]: dictionary.attribute_table[i].value.string_value
                   for i in mapping.attribute_indices}
        out.append((dictionary.string_table[mapping.filename_strindex], location.address, of_file))
    return out


def function(table, address):
    return next((name for low, size, name in table if low <= address < low + size), None)


def beat(executable):
    return subprocess.Popen([executable, "beat"])


def check_zero_entries(dictionary):
    d = dictionary
    tables = (d.mapping_table, d.location_table, d.function_table, d.link_table, d.attribute_table, d.stack_table)
    return all(len(t) > 0 and t[0].ByteSize() == 0 for t in tables) and d.string_table[0] == ""


def check_kinds(executable):
    collector = Collector()
    program = beat(executable)
    try:
        agent = Agent("--protocol", "otlp", "--collector", f"127.0.0.1:{collector.port}", "--once", "3s", "--pid", str(program.pid), "--samples-per-second",
                      str(HZ), "--off-cpu-threshold", "1", "--uprobe", f"{executable}:beat", "--labels", "room=north", "--report-interval", "1s")
        agent.wait_line(" start ")
        code, events = agent.end()
    finally:
        stop(program)
        collector.stop()
    counters = {key: int(value) for key, value in events["counters"].items()}
    table, build = live.symbols(executable), live.build_id(executable)
    ok = live.check(code == 0, f"three kinds are sent: exit {code}, {events['collector']}")
    kinds = {}
    for resource, profile, dictionary in collector.taken.values():
        words = tuple(dictionary.string_table[i] for i in (profile.sample_type.type_strindex, profile.sample_type.unit_strindex,
                                                           profile.period_type.type_strindex, profile.period_type.unit_strindex)) + (profile.period,)
        kinds.setdefault(words, []).append((resource, profile, dictionary))
        ok &= check_zero_entries(dictionary) or live.check(False, "entry 0 of a table is not the zero value")
    wanted = {("off_cpu", "nanoseconds", "", "", 0), ("events", "count", "", "", 0)}
    if counters.get("samples", 0) > 0:
        wanted.add(("samples", "count", "cpu", "nanoseconds", 10**9 // HZ))
    ok &= live.check(set(kinds) == wanted, f"each kind is a profile of its own type: {sorted(kinds)}")
    ok &= live.check(collector.value("events") == counters["probe_hits"] > 0, f"{collector.value('events')} events of {counters['probe_hits']} probe hits")
    ok &= live.check(collector.value("samples") == counters.get("samples", 0), f"{collector.value('samples')} ticks of {counters.get('samples', 0)}")
    slept = collector.value("off_cpu")
    ok &= live.check(10**9 < slept < 20 * 10**9, f"{slept / 1e9:.2f} s off CPU in a window of about 3 s")
    for words, leaf in ((("off_cpu", "nanoseconds", "", "", 0), None), (("events", "count", "", "", 0), "beat")):
        for resource, profile, dictionary in kinds.get(words, []):
            who = attributes(resource)
            ok &= who["process.pid"] == program.pid and who["room"] == "north" or live.check(False, f"resource {who}")
            ok &= len(profile.profile_id) == 16 and profile.time_unix_nano > 0 or live.check(False, "profile_id, time")
        through = whole = 0
        for _, profile, dictionary in kinds.get(words, []):
            for sample in profile.samples:
                own = [function(table, address) for file, address, of_file in frames(sample, dictionary)
                       if file == os.path.basename(executable) and of_file.get("process.executable.build_id.gnu") == build]
                whole += sum(sample.values)
                through += sum(sample.values) if "main" in own and "beat" in own and (leaf is None or own[0] == leaf) else 0
        ok &= live.check(whole > 0 and through >= 0.95 * whole, f"{words[0]}: {through} of {whole} {words[1]} through beat to main, with the file's build ID")
    return ok


def check_cairnd(folder, executable):
    http, grpc_port = free_port(), free_port()
    daemon = start_daemon(folder, http, grpc_port)
    program = beat(executable)
    try:
        ok, hits, slept = True, 0, 0
        for protocol in ("otlp", "cairn"):
            agent = Agent("--protocol", protocol, "--collector", f"127.0.0.1:{grpc_port}", "--once", "2s", "--pid", str(program.pid), "--off-cpu-threshold", "1",
                          "--uprobe", f"{executable}:beat")
            agent.wait_line(" start ")
            code, events = agent.end()
            new, hits = int(events["counters"]["probe_hits"]), hits + int(events["counters"]["probe_hits"])
            ok &= live.check(code == 0 and new > 0 and total(http, type="events") == hits, f"cairnd by {protocol}: {new} probe hits, {total(http, type='events')} events in all")
            more, slept = total(http, type="off_cpu") - slept, total(http, type="off_cpu")
            ok &= live.check(5 * 10**8 < more < 20 * 10**9, f"cairnd by {protocol}: {more / 1e9:.2f} s off CPU")
        return ok
    finally:
        stop(program)
        stop(daemon, signal.SIGTERM)


def check_hang(folder, executable):
    """It takes requests and does not answer: sampling goes on, what waits is bounded, what has no room is lost and counted."""
    collector = Collector()
    awake = threading.Event()
    collector.answer = lambda request, context, number: awake.wait(300) and None or collector.pb.ExportResponse()
    program = subprocess.Popen([executable, "leaf", "spin"])
    agent = Agent("--protocol", "otlp", "--collector", f"127.0.0.1:{collector.port}", "--samples-per-second", "1000", "--pid", str(program.pid),
                  "--report-interval", "100ms", "--queue", "64K", "--labels", f"padding={'x' * 4000}")
    try:
        agent.wait_line(" start ")
        first = agent.wait_line(r"collector .* lost=[1-9].*no answer in 10 s")
        agent.wait_line(r"collector .* lost=[1-9].*no answer in 10 s")  # more is lost; it lives
        code, events = agent.end(signal.SIGTERM)
    finally:
        awake.set()
        stop(program)
        collector.stop()
    records, lost = int(events["samples"]["records"]), int(events["collector"]["lost_queue"])
    ok = live.check(code == 1 and 0 < lost <= records, f"a hanging collector: {lost} of {records} samples lost and counted, exit {code}")
    queued = int(dict(word.split("=", 1) for word in first.split() if "=" in word)["queue_bytes"])
    ok &= live.check(queued <= 3 * (64 << 10), f"{queued} bytes waited: --queue and what was under way")
    # Ticks of a program that spins: were the loop to stand still for 10 s, the ring would overflow or they would be missing.
    return ok & live.check(int(events["counters"].get("ring_full", 0)) == 0 and records > 1000, f"{records} samples taken meanwhile, none lost in the kernel")


def check_spool(folder, executable):
    """It hangs, then goes away, comes back: all that was sampled is there, once by profile_id, and the loop did not wait for it."""
    collector = Collector()
    port, awake = collector.port, threading.Event()
    collector.answer = lambda request, context, number: awake.wait(300) and context.abort(grpc.StatusCode.UNAVAILABLE, "asleep")
    spool = os.path.join(folder, "spool")
    program = subprocess.Popen([executable, "leaf", "spin"])
    agent = Agent("--protocol", "otlp", "--collector", f"127.0.0.1:{port}", "--samples-per-second", str(HZ), "--pid", str(program.pid),
                  "--report-interval", "300ms", "--spool", spool)
    try:
        agent.wait_line(" start ")
        ok = live.check(wait_for(lambda: spooled(os.path.join(spool, "otlp")) > 10000, 120), "the spool fills while the collector hangs")
        collector.stop()
        awake.set()
        collector = Collector(port)
        ok &= live.check(wait_for(lambda: spooled(os.path.join(spool, "otlp")) == 0 and len(collector.taken) > 0, 120), "it empties when one is there again")
        code, events = agent.end(signal.SIGTERM)
    finally:
        awake.set()
        stop(program)
        collector.stop()
    records = int(events["samples"]["records"])
    ok &= live.check(code == 0 and collector.samples() == records > 0, f"{collector.samples()} of {records} samples are there, exit {code}: {events['collector']}")
    longest = max((p.duration_nano for _, p, _ in collector.profiles("samples")), default=0)
    return ok & live.check(0 < longest < 5 * 10**9, f"the loop did not wait for it: the longest window lasted {longest / 1e9:.2f} s")


def check_answers(executable):
    """A pause that is asked for is kept; a refusal and a partial success are counted and not repeated."""
    collector = Collector()

    def answer(request, context, number):
        if number == 1:
            context.set_trailing_metadata((("grpc-status-details-bin", retry_info(14, 3000)),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back later")
        if number == 3:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not this one")
        if number == 4:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        if number == 5:
            context.set_trailing_metadata((("grpc-status-details-bin", retry_info(8, 500)),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much at once")
        response = collector.pb.ExportResponse()
        if number == 7:
            response.partial_success.rejected_profiles = 2
            response.partial_success.error_message = "two are\nodd"
        return response

    collector.answer = answer
    program = subprocess.Popen([executable, "leaf", "spin"])
    agent = Agent("--protocol", "otlp", "--collector", f"127.0.0.1:{collector.port}", "--samples-per-second", str(HZ), "--pid", str(program.pid),
                  "--report-interval", "300ms")
    try:
        agent.wait_line(" start ")
        ok = live.check(wait_for(lambda: len(collector.calls) >= 10, 120), f"{len(collector.calls)} calls")
        code, events = agent.end(signal.SIGTERM)
    finally:
        stop(program)
        collector.stop()
    calls, said = collector.calls, events["collector"]
    ids = [tuple(call[1]) for call in calls]
    ok &= live.check(ids[1] == ids[0] and calls[1][0] - calls[0][0] >= 3, f"RetryInfo of 3 s: the same request comes again after {calls[1][0] - calls[0][0]:.2f} s")
    ok &= live.check(ids[5] == ids[4] and calls[5][0] - calls[4][0] >= 0.5, "RESOURCE_EXHAUSTED with RetryInfo is tried again")
    ok &= live.check(ids.count(ids[2]) == 1 and ids.count(ids[3]) == 1, "INVALID_ARGUMENT, and RESOURCE_EXHAUSTED without RetryInfo, are not")
    ok &= live.check(ids.count(ids[6]) == 1 and said["rejected_profiles"] == "2", "a partial success is not repeated, and counted")
    refused, records = int(said["refused"]), int(events["samples"]["records"])
    ok &= live.check(said["retries"] == "2" and refused > 0 and collector.samples() + refused == records,
                     f"{collector.samples()} taken, {refused} refused of {records}; {said}")
    return ok & live.check(code == 0, f"exit {code}")


def log_time(line):
    """Of a line of the agent's log, in nanoseconds since 1970."""
    when = datetime.datetime.strptime(line.split(" ", 1)[0], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    return round(when.timestamp() * 1000) * 10**6


def check_probability(executable):
    """Half of the intervals are sampled, at random: while the agent says that it does not sample, no sample is taken."""
    collector = Collector()
    program = subprocess.Popen([executable, "leaf", "spin"])
    agent = Agent("--protocol", "otlp", "--collector", f"127.0.0.1:{collector.port}", "--samples-per-second", str(HZ), "--pid", str(program.pid),
                  "--report-interval", "100ms", "--probability", "50", "--probability-interval", "1s", "--verbose")
    turns = []
    try:
        # Begins sampling; each turn is the other way than the one before it.
        while len(turns) < 5:
            line = agent.wait_line(r" probability sampling=(yes|no)", 120)
            turns.append((log_time(line), "sampling=yes" in line))
        code, events = agent.end(signal.SIGTERM)
    finally:
        stop(program)
        collector.stop()
    ok = live.check(code == 0 and all(a[1] != b[1] for a, b in zip(turns, turns[1:])), f"five turns in {(turns[-1][0] - turns[0][0]) / 1e9:.1f} s, exit {code}")
    lengths = [(b[0] - a[0]) / 1e9 for a, b in zip(turns, turns[1:])]
    ok &= live.check(min(lengths) > 0.8, f"an interval lasts a second, or several that were drawn alike: {lengths}")
    windows = [(p.time_unix_nano, p.time_unix_nano + p.duration_nano, sum(sum(s.values) for s in p.samples)) for _, p, _ in collector.profiles("samples")]
    counted = {True: 0, False: 0}
    for (begin, sampling), (end, _) in zip(turns, turns[1:]):
        # A window that began while it was sampled may end a moment after the turn.
        counted[sampling] += sum(value for start, stop_ns, value in windows if start >= begin + 3 * 10**8 and stop_ns <= end)
    return ok & live.check(counted[True] > 20 and counted[False] == 0, f"{counted[True]} samples while it samples, {counted[False]} while it does not")


def main():
    with tempfile.TemporaryDirectory() as folder:
        executable = live.build(folder, "stacks", "gcc", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-fno-ipa-sra", "-Wl,--build-id")
        ok = check_kinds(executable)
        ok &= check_cairnd(folder, executable)
        ok &= check_answers(executable)
        ok &= check_probability(executable)
        ok &= check_spool(folder, executable)
        ok &= check_hang(folder, executable)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
