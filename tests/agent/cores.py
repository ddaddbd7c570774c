#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Core dumps of fixture programs, unwound by the agent's unwinder and by eu-stack: every thread, every frame.

A program is built in several ways and dumps core at the bottom of a stack. The dump is made by the kernel; where its
core_pattern pipes dumps away, the test is skipped with that reason.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["leaf", "deep", "aligned", "plt", "signal", "fault", "threads"]
C_BUILDS = {
    "O2": ["gcc", "-O2", "-fomit-frame-pointer"],
    "O0-fp": ["gcc", "-O0", "-fno-omit-frame-pointer"],
    "Os-lazy": ["gcc", "-Os", "-fomit-frame-pointer", "-Wl,-z,lazy", "-fcf-protection=none"],
    "O3-clang": ["clang", "-O3", "-fomit-frame-pointer"],
    "static": ["gcc", "-O2", "-fomit-frame-pointer", "-static"],
    "static-pie": ["gcc", "-O2", "-fomit-frame-pointer", "-static-pie"],
    "no-pie": ["gcc", "-O2", "-fomit-frame-pointer", "-no-pie"],
    "debug-frame": ["gcc", "-O2", "-g", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"],
}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def dump(folder, command):
    """Runs @command until it dumps core; the dump's path."""
    for name in os.listdir(folder):
        if name.startswith("core"):
            os.unlink(os.path.join(folder, name))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    subprocess.run(command, cwd=folder, check=False, stderr=subprocess.DEVNULL,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited if hard == -1 else (hard, hard)))
    cores = [name for name in os.listdir(folder) if name.startswith("core")]
    return os.path.join(folder, cores[0]) if cores else None


DUMPS = 3


def eu_stack(core, executable):
    """{tid: [(address, is a return address)]}"""
    run = subprocess.run(["eu-stack", "-a", "-n", "0", "--core", core, "--executable", executable], capture_output=True,
                         text=True, check=False)
    threads, frames = {}, None
    for line in run.stdout.splitlines():
        thread = re.match(r"TID (\d+):", line)
        if thread:
            frames = threads.setdefault(int(thread.group(1)), [])
            continue
        frame = re.match(r"#\d+\s+0x([0-9a-f]+)( - 1)?", line)
        if frame:
            frames.append((int(frame.group(1), 16), bool(frame.group(2))))
    return threads


def ours(program, core):
    run = subprocess.run([program, core], capture_output=True, text=True, check=True)
    threads, ends, frames, tid = {}, {}, None, 0
    for line in run.stdout.splitlines():
        if line.startswith("TID "):
            tid = int(line.split()[1])
            frames = threads.setdefault(tid, [])
        elif line.startswith("END "):
            ends[tid] = line.split()[1]
        else:
            frames.append(int(line, 16))
    return threads, ends


def compare(what, program, core, executable):
    """(equal, frames); equal is None when all that differs is that eu-stack gave up early on a thread that we follow to its end."""
    theirs, (mine, ends) = eu_stack(core, executable), ours(program, core)
    bad = short = 0
    if not theirs or set(theirs) != set(mine):
        print(f"{what}: threads {sorted(theirs)} by eu-stack, {sorted(mine)} here")
        return False, 0
    for tid, frames in theirs.items():
        expected = [address - 1 if is_return else address for address, is_return in frames]
        if mine[tid] != expected or ends[tid] != "complete":
            bad += 1
            short += ends[tid] == "complete" and mine[tid][:len(expected)] == expected
            at = next((i for i, pair in enumerate(zip(mine[tid], expected)) if pair[0] != pair[1]), min(len(mine[tid]), len(expected)))
            print(f"{what}: thread {tid} ends {ends[tid]}: {len(mine[tid])} frames, eu-stack {len(expected)}; first difference at {at}: "
                  f"{[hex(a) for a in mine[tid][at:at + 2]]} {[hex(a) for a in expected[at:at + 2]]}")
    return None if bad and bad == short else bad == 0, sum(len(frames) for frames in theirs.values())


def main():
    program = os.path.join(os.environ["CAIRN_BINARY_DIR"], "tests/agent/core-stack")
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        pattern = file.read().strip()
    if pattern.startswith("|") or "/" in pattern:
        skip(f"core_pattern {pattern} takes dumps away")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        skip("core dumps are limited to 0 bytes (ulimit -Hc)")
    if not shutil.which("eu-stack"):
        skip("eu-stack (Debian package elfutils) is not installed")
    results, frames = [], 0
    with tempfile.TemporaryDirectory() as folder:
        def try_case(what, executable, arguments):
            # Where a thread stands when another one aborts is chance, and at some places eu-stack stops: dump once more then.
            for _ in range(DUMPS):
                core = dump(folder, [executable] + arguments)
                if not core:
                    print(f"{what}: no core dump")
                    return False, 0
                equal, count = compare(what, program, core, executable)
                if equal is not None:
                    return equal, count
            return False, 0

        for name, command in C_BUILDS.items():
            executable = os.path.join(folder, f"stacks-{name}")
            subprocess.run(command + ["-o", executable, os.path.join(HERE, "programs/stacks.c"), "-lpthread"], check=True)
            results += [try_case(f"{name} {case}", executable, [case]) for case in CASES]
        for name, options in {"O2": ["-O2", "-fomit-frame-pointer"], "O0": ["-O0"]}.items():
            executable = os.path.join(folder, f"throw-{name}")
            subprocess.run(["g++"] + options + ["-o", executable, os.path.join(HERE, "programs/throw.cc"), "-lpthread"], check=True)
            results.append(try_case(f"c++ {name}", executable, []))
        if shutil.which("rustc"):
            executable = os.path.join(folder, "recurse")
            subprocess.run(["rustc", "-C", "opt-level=2", "-o", executable, os.path.join(HERE, "programs/recurse.rs")], check=True)
            results.append(try_case("rust", executable, []))
    frames = sum(count for _, count in results)
    good = sum(1 for ok, _ in results if ok)
    print(f"{good} of {len(results)} dumps equal, {frames} frames")
    return 0 if good == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
