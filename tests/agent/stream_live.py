#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent into a real cairnd by the stream: totals, labels, names that come later, a server that is killed and restarted with
nothing lost, the spool across restarts of the agent, a queue that overflows, filters, records.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import live
from otlp_live import BIN, free_port, start_daemon, stop

AGENT = os.path.join(BIN, "cairn-agent")
LOAD = os.path.join(BIN, "load")
UPLOAD_RATE = 16384
# Counters of stacks that are not whole (docs/agent.md).
CUTS = ("no_process", "no_mapping", "no_table", "no_stack", "no_info", "no_register", "read", "progress", "frames", "frame_pointer", "compat",
        "no_user_regs", "no_kernel_stack")


class Agent:
    """One run; end() gives the exit status and what it logged as {event: {key: value}}."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen([AGENT, *arguments], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.text = ""

    def wait_line(self, pattern, seconds=60):
        """Reads its log until a line matches."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            line = self.process.stderr.readline()
            self.text += line
            if re.search(pattern, line):
                return line
            if not line:
                break
        if re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied", self.text):
            print(f"skipped: {self.text.strip()}")
            sys.exit(77)
        raise AssertionError(f"no line {pattern}: {self.text}")

    def end(self, number=None):
        if number:
            self.process.send_signal(number)
        self.text += self.process.communicate(timeout=120)[1]
        events = {}
        for line in self.text.splitlines():
            match = re.match(r"\S+Z (?:info|warn) (\S+) (.*)", line)
            if match:
                events[match.group(1)] = dict(re.findall(r"(\w+)=(\"[^\"]*\"|\S+)", match.group(2)))
        return self.process.returncode, events


def get(http, path, **query):
    with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return answer.read().decode()


def folded(http, **query):
    return [(line.rsplit(" ", 1)[0], int(line.rsplit(" ", 1)[1])) for line in get(http, "/v1/profiles", format="folded", **query).splitlines()]


def total(http, **query):
    return sum(value for _, value in folded(http, **query))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def spooled(folder):
    return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".spool")) if os.path.isdir(folder) else 0


def check_window(http, grpc, full, stripped):
    """One window: everything arrives, with its labels; stacks that are cut are said by reason."""
    program = subprocess.Popen([stripped, "plt", "spin"], env={**os.environ, "OTEL_SERVICE_NAME": "shop",
                                                                  "OTEL_RESOURCE_ATTRIBUTES": "team=blue%20sky,service.name=no"})
    too_deep = subprocess.Popen([full, "deep", "spin", "3000"])
    try:
        agent = Agent("--collector", f"127.0.0.1:{grpc}", "--once", "3s", "--samples-per-second", "100", "--labels", "room=north", "--report-interval", "1s")
        agent.wait_line(" start ")
        code, events = agent.end()
        records = int(events["samples"]["records"])
        ok = live.check(code == 0 and records > 50, f"a window is sent: {records} samples, exit {code}")
        ok &= live.check(total(http) == records, f"{total(http)} samples arrived")
        ok &= live.check(total(http, filter="room=north") == records, "all have the label of --labels")
        mine = total(http, filter=f"process.pid={program.pid}")
        ok &= live.check(mine > 0, f"{mine} samples of the program")
        for label in ("service.name=shop", "team=blue sky", f"process.executable.name={os.path.basename(stripped)}", f"process.executable.path={stripped}"):
            ok &= live.check(total(http, filter=label) >= mine, f"label {label}")
        listed = json.loads(get(http, "/v1/agents"))["agents"][0]
        ok &= live.check(listed["version"].startswith("cairn-agent") and int(listed["samples"]) == records and int(listed["memory_bytes"]) > 1 << 20
                         and int(listed["bpf_map_bytes"]) > 1 << 16 and int(listed["cpu_user_ns"]) > 0, f"GET /v1/agents: {listed}")
        cut = {name: events["counters"][name] for name in CUTS if name in events["counters"]}

        def shown():
            return {loss["reason"]: loss["samples"] for loss in json.loads(get(http, "/v1/agents"))["agents"][0]["cut"]}

        ok &= live.check(len(cut) > 0 and wait_for(lambda: shown() == cut), f"GET /v1/agents: stacks that are cut by reason, as the agent counts them: {shown()}, {cut}")
        return ok
    finally:
        stop(program)
        stop(too_deep)


def check_restart(folder, http, grpc, daemon, stripped):
    """The server is killed while samples come, is away for longer than memory is used, and comes back: nothing is lost."""
    before = total(http)
    spool = os.path.join(folder, "spool")
    program = subprocess.Popen([stripped, "plt", "spin"])
    agent = Agent("--collector", f"127.0.0.1:{grpc}", "--samples-per-second", "100", "--report-interval", "300ms", "--spool", spool)
    try:
        agent.wait_line(" start ")
        ok = live.check(wait_for(lambda: total(http) > before + 20), "samples arrive")
        stop(daemon)
        ok &= live.check(wait_for(lambda: spooled(spool) > 1000), "the spool fills while the server is away")
        daemon = start_daemon(folder, http, grpc)
        ok &= live.check(wait_for(lambda: spooled(spool) == 0), "the spool is empty when the server has been back for a while")
        code, events = agent.end(signal.SIGTERM)
        records = int(events["samples"]["records"])
        ok &= live.check(code == 0 and total(http) == before + records, f"{total(http) - before} of {records} samples are there, exit {code}")
        return ok, daemon
    finally:
        stop(program)
        if agent.process.poll() is None:
            agent.process.kill()


def check_agent_restart(folder, http, grpc, daemon, stripped):
    """Server away, agent ended and another one started: what the first has spooled arrives by the second."""
    before = total(http)
    spool = os.path.join(folder, "spool2")
    program = subprocess.Popen([stripped, "plt", "spin"])
    try:
        stop(daemon)
        first = Agent("--collector", f"127.0.0.1:{grpc}", "--pid", str(program.pid), "--once", "2s", "--samples-per-second", "100", "--spool", spool)
        first.wait_line(" start ")
        code, events = first.end()
        records = int(events["samples"]["records"])
        ok = live.check(code == 0 and records > 0 and spooled(spool) > 0, f"{records} samples are in the spool, exit {code}")
        daemon = start_daemon(folder, http, grpc)
        second = Agent("--collector", f"127.0.0.1:{grpc}", "--pid", "1", "--spool", spool)
        second.wait_line(" start ")
        ok &= live.check(wait_for(lambda: total(http, filter=f"process.pid={program.pid}") == records), f"another agent sends them: {total(http) - before}")
        second.end(signal.SIGTERM)
        return ok, daemon
    finally:
        stop(program)


def check_overflow(folder, stripped):
    """Nobody listens, and there is no spool: what has no room is lost, and said."""
    program = subprocess.Popen([stripped, "plt", "spin"])
    try:
        agent = Agent("--collector", f"127.0.0.1:{free_port()}", "--samples-per-second", "1000", "--queue", "64K", "--report-interval", "100ms", "--pid", str(program.pid))
        agent.wait_line(" start ")
        line = agent.wait_line(r"collector connected=no .* lost=[1-9]")
        code, events = agent.end(signal.SIGTERM)
        records, lost = int(events["samples"]["records"]), int(events["collector"]["lost_queue"])
        return live.check(code == 1 and lost == records and "Connection refused" in line, f"{lost} of {records} samples lost, exit {code}")
    finally:
        stop(program)


def check_record(folder, http, grpc):
    path = os.path.join(folder, "record")
    agent = Agent("--record", path, "--once", "1500ms", "--samples-per-second", "100", "--report-interval", "300ms")
    agent.wait_line(" start ")
    code, events = agent.end()
    records = int(events["samples"]["records"])
    before = total(http)
    out = subprocess.run([LOAD, "--replay", path, "--address", f"127.0.0.1:{grpc}"], capture_output=True, text=True, check=False)
    ok = live.check(code == 0 and out.returncode == 0 and f"acknowledged={records}\n" in out.stdout and "needs=0\n" in out.stdout,
                    f"a record of {records} samples is replayed: {out.stderr.strip()}")
    return ok & live.check(total(http) == before + records, "and all of it is there")


def check_filters(folder, http, grpc, stripped):
    program = subprocess.Popen([stripped, "plt", "spin"], env={**os.environ, "OTEL_SERVICE_NAME": "filtered"})
    ok = True
    try:
        for flags, kept in ((["--comm", "nobody,stacks-b*", "--with-label", "service.name=filtered"], True), (["--container", "ffff"], False)):
            path = os.path.join(folder, "filtered.record")
            agent = Agent("--record", path, "--once", "1s", "--samples-per-second", "50", *flags)
            agent.wait_line(" start ")
            _, events = agent.end()
            sent, out = int(events["collector"]["samples"]), int(events["samples"]["not_asked_for"])
            records = int(events["samples"]["records"])
            ok &= live.check(sent + out == records and (sent > 0) == kept, f"{' '.join(flags)}: {sent} kept, {out} left out")
    finally:
        stop(program)
    return ok


def check_names(folder, http, grpc, daemon, full, stripped):
    """All samples so far had no names; then the server is restarted and gets the symbols."""
    mine = {"filter": f"process.executable.path={stripped}"}  # other tests may run beside this one
    bare = [stack for stack, _ in folded(http, **mine) if "stacks-bare+0x" in stack]
    ok = live.check(len(bare) > 0 and not any("bottom" in stack for stack in bare), f"{len(bare)} stacks without names")
    stop(daemon, signal.SIGTERM)
    daemon = start_daemon(folder, http, grpc)
    subprocess.run([os.path.join(BIN, "upload-symbols"), "--url", f"http://127.0.0.1:{http}", "--wait", "--debug", full, stripped], check=True,
                   capture_output=True, timeout=120)
    stacks = [(stack, value) for stack, value in folded(http, **mine) if "bottom" in stack]
    left = [stack for stack, _ in folded(http, **mine) if "stacks-bare+0x" in stack and "main" not in stack and "_start" not in stack]
    ok &= live.check(sum(value for _, value in stacks) > 0 and not left, f"{len(stacks)} stacks have names, {len(left)} have none {left[:2]}")
    return ok, daemon


def check_upload(folder, http, grpc):
    """The server asks for symbols, and the agent sends them: names without anybody's doing. What is excluded stays here."""
    asked = os.path.join(folder, "asked-for")
    secret = os.path.join(folder, "secret-one")
    for name, path in (("-DASKED", asked), ("-DSECRET", secret)):
        live.build(folder, os.path.basename(path), "gcc", "-g", "-O1", name, f"-Wl,--build-id=0x{os.urandom(8).hex()}")
    programs = [subprocess.Popen([path, "plt", "spin"]) for path in (asked, secret)]
    pids = ",".join(str(program.pid) for program in programs)
    agent = Agent("--collector", f"127.0.0.1:{grpc}", "--samples-per-second", "100", "--report-interval", "300ms", "--pid", pids, "--upload-symbols",
                  "--upload-url", f"http://127.0.0.1:{http}", "--upload-exclude", "/nowhere/*,secret-*", "--upload-rate", str(UPLOAD_RATE))
    begun = time.monotonic()
    try:
        agent.wait_line(" start ")
        ok = live.check(wait_for(lambda: any("main;plt" in stack for stack, _ in folded(http, filter=f"process.pid={programs[0].pid}"))),
                        "a file that the server asked for was sent: its samples have names")
        took, size = time.monotonic() - begun, os.path.getsize(asked)
        ok &= live.check(took >= size / UPLOAD_RATE - 1, f"{size} bytes at {UPLOAD_RATE} a second took {took:.1f} s and more")
        code, events = agent.end(signal.SIGTERM)
        uploads = events["uploads"]
        ok &= live.check(code == 0 and int(uploads["sent"]) > 0 and int(uploads["excluded"]) == 1, f"uploads: {uploads}")
        files = [file["name"] for file in json.loads(get(http, "/v1/files"))["files"] if file.get("entries") or file.get("status") == "ok"]
        bare = folded(http, filter=f"process.pid={programs[1].pid}")
        ok &= live.check(not any("main;plt" in stack for stack, _ in bare), f"the excluded one has no names ({len(bare)} stacks; {len(files)} files)")
        return ok
    finally:
        for program in programs:
            stop(program)
        if agent.process.poll() is None:
            agent.process.kill()


def check_taken(http, grpc, stripped):
    """What the server is told was taken counts samples of every kind: stacks that are cut are a share of all of them."""
    program = subprocess.Popen([stripped, "plt", "spin"])
    try:
        agent = Agent("--collector", f"127.0.0.1:{grpc}", "--once", "2s", "--off-cpu-threshold", "1")
        code, events = agent.end()
        if code and "off-CPU profiling needs" in agent.text:
            return True
        counters = {name: int(events["counters"].get(name, 0)) for name in ("samples", "off_cpu_samples")}

        def taken():
            return int(json.loads(get(http, "/v1/agents"))["agents"][0]["samples_taken"])

        return live.check(code == 0 and counters["off_cpu_samples"] > 0 and wait_for(lambda: taken() == sum(counters.values()), 20),
                          f"GET /v1/agents: {taken()} samples taken, of {counters}")
    finally:
        stop(program)


def main():
    with tempfile.TemporaryDirectory() as folder:
        full = live.build(folder, "stacks-full", "gcc", "-g", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-Wl,--build-id")
        stripped = os.path.join(folder, "stacks-bare")
        subprocess.run(["strip", "-o", stripped, full], check=True)
        http, grpc = free_port(), free_port()
        daemon = start_daemon(folder, http, grpc)
        try:
            ok = check_window(http, grpc, full, stripped)
            good, daemon = check_restart(folder, http, grpc, daemon, stripped)
            ok &= good
            good, daemon = check_agent_restart(folder, http, grpc, daemon, stripped)
            ok &= good
            ok &= check_overflow(folder, stripped)
            ok &= check_record(folder, http, grpc)
            ok &= check_filters(folder, http, grpc, stripped)
            ok &= check_upload(folder, http, grpc)
            good, daemon = check_names(folder, http, grpc, daemon, full, stripped)
            ok &= good
            ok &= check_taken(http, grpc, stripped)
        finally:
            stop(daemon, signal.SIGTERM)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
