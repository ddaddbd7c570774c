#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent under a storm of more than 10,000 short-lived processes a minute, with 5,000 threads, and with CPUs that come: stacks are whole, nothing is lost, work is bounded.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import live  # noqa: E402

PROCESSES = 3000
PER_MINUTE_MIN = 10000
LOAD_MAX = 8  # of each CPU, above which the storm may be slower: it is the machine's doing then
THREADS = 5000
MAPS_AND_MEMORY_MAX = 120 << 20
SHARE_MIN = 0.9  # of a storm's stacks; the rest was inside of exec or exit


def start_agent(folder, *arguments):
    """Runs it with the window; returns when it samples, which it says."""
    agent = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin/cairn-agent")
    path = os.path.join(folder, "out.pb.gz")
    process = subprocess.Popen([agent, "-o", path, *arguments], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied", line):
            print(f"skipped: {line.strip()}")
            process.wait()
            sys.exit(77)
        if " start " in line:
            break
    return process, path


def finish(process, path):
    """(samples, counters, CPU seconds, peak resident bytes)"""
    _, status, usage = os.wait4(process.pid, 0)
    words = process.stderr.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise AssertionError(f"cairn-agent: exit {process.returncode}: {words}")
    counters = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)\b", words)}
    samples, _ = live.read_pprof(path)
    return samples, counters, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def named(samples, executable):
    table = live.symbols(executable)
    names = [([live.function_of(table, frame, executable) or frame for frame in stack], value) for stack, value in samples]
    # The compiler may have made a copy for the only value that is passed.
    return [([name.replace(".constprop.0", "") for name in stack], value) for stack, value in names]


def check_storm(folder, executable):
    tiny = os.path.join(folder, "tiny")
    subprocess.run(["gcc", "-O2", "-fomit-frame-pointer", "-static", "-nostdlib", "-fno-stack-protector", "-fno-optimize-sibling-calls", "-fno-ipa-sra",
                    "-Wl,--build-id", "-o", tiny, os.path.join(live.HERE, "programs/tiny.c")], check=True)
    agent, path = start_agent(folder, "--once", "8s", "--samples-per-second", "200")
    begin = time.monotonic()
    # The storm, not what else runs here, is to be seen: it goes first.
    subprocess.run([executable, "storm", str(PROCESSES), tiny], check=True, preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
    seconds = time.monotonic() - begin
    samples, counters, cpu, _ = finish(agent, path)
    rate, load = PROCESSES * 60 / seconds, os.getloadavg()[0] / os.cpu_count()
    stacks = [(stack, value) for stack, value in named(samples, tiny) if "short_life" in stack or "work" in stack]
    total = sum(value for _, value in stacks)
    whole = sum(value for stack, value in stacks if stack[-4:-1] == ["work", "short_life", "_start"])
    for stack, value in stacks:
        if stack[-4:-1] != ["work", "short_life", "_start"]:
            print(f"        {value} of {stack}")
    print(f"        {PROCESSES} processes in {seconds:.1f} s ({rate:.0f} a minute); agent {cpu:.2f} s of CPU with its start; "
          f"{counters.get('complete_permille')} permille of all stacks complete")
    ok = live.check(rate >= PER_MINUTE_MIN or load > LOAD_MAX, f"storm: {rate:.0f} a minute at a load of {load:.1f} of each CPU")
    ok &= live.check(total >= 10 and whole >= SHARE_MIN * total, f"storm: {whole} of {total} stacks from work through short_life to _start")
    ok &= live.check(counters.get("no_process", 0) <= 0.1 * counters["records"], f"storm: no_process {counters.get('no_process', 0)} of {counters['records']}")
    ok &= live.check(counters.get("ring_full", 0) == 0 and counters["lost_process_events"] == 0 and counters["dropped"] == 0, "storm: nothing lost")
    # What was taken by the kernel half came out, sample by sample: nothing was lost in silence.
    written = sum(value for _, value in samples)
    return ok & live.check(counters["samples"] == counters["records"] == written, f"storm: {counters['samples']} samples taken, {written} written")


def check_threads(folder, executable):
    program = subprocess.Popen([executable, "many", str(THREADS)], stdout=subprocess.PIPE, text=True)
    try:
        if program.stdout.readline().strip() != "ready":
            print(f"        {THREADS} threads are not permitted here")
            return True
        agent, path = start_agent(folder, "--once", "4s", "--samples-per-second", "200", "--pid", str(program.pid))
        samples, counters, cpu, peak = finish(agent, path)
    finally:
        program.kill()
        program.wait()
    stacks = [(stack, value) for stack, value in named(samples, executable) if "busy_thread" in stack]
    total = sum(value for _, value in stacks)
    print(f"        agent {cpu:.2f} s of CPU with its start, peak resident {peak / 1e6:.0f} MB, tables {counters['table_bytes'] / 1e6:.1f} MB")
    ok = live.check(total >= 10 and counters["complete_permille"] >= live.COMPLETE_PERMILLE_MIN,
                    f"{THREADS} threads: {total} samples of busy_thread, {counters['complete_permille']} permille complete")
    ok &= live.check(peak + counters["table_bytes"] < MAPS_AND_MEMORY_MAX, f"{THREADS} threads: memory is bounded")
    return ok & live.check(counters.get("ring_full", 0) == 0, f"{THREADS} threads: nothing lost")


def check_cpus(folder, executable):
    """CPUs that come and go, as a made-up list says: only those in it are sampled."""
    if os.cpu_count() < 2:
        print("        one CPU only: nothing can come or go")
        return True
    place = os.path.join(folder, "devices/system/cpu")
    os.makedirs(place)
    online = os.path.join(place, "online")
    with open(online, "w", encoding="ascii") as file:
        file.write("0\n")
    for name in ("on-zero", "on-one"):
        os.link(executable, os.path.join(folder, name))
    spinners = [subprocess.Popen(["taskset", "-c", str(cpu), os.path.join(folder, name), "leaf", "spin"]) for cpu, name in enumerate(("on-zero", "on-one"))]
    try:
        samples, counters, _, _ = finish(*start_agent(folder, "--once", "1500ms", "--samples-per-second", "100", "--sysfs", folder))
        here, there = (sum(value for stack, value in samples if stack[-1] == name) for name in ("on-zero", "on-one"))
        ok = live.check(here > 0 and there == 0 and counters["cpus"] == 1, f"one CPU listed: {here} samples of its program, {there} of the other's")
        agent, path = start_agent(folder, "--once", "5s", "--samples-per-second", "100", "--sysfs", folder)
        with open(online, "w", encoding="ascii") as file:
            file.write("0-1\n")
        samples, counters, _, _ = finish(agent, path)
        there = sum(value for stack, value in samples if stack[-1] == "on-one")
        return ok & live.check(there > 0 and counters["cpus_come"] == 1, f"another comes: {there} samples of its program, cpus_come {counters['cpus_come']}")
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def main():
    with tempfile.TemporaryDirectory() as folder:
        executable = live.build(folder, "stacks", "gcc", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-fno-ipa-sra",
                                "-Wl,--build-id")
        ok = check_storm(folder, executable)
        ok &= check_threads(folder, executable)
        ok &= check_cpus(folder, executable)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
