#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Core dumps of fixture programs, unwound by the agent's unwinder and by eu-stack: every thread, every frame.

A program is built in several ways and dumps core at the bottom of a stack. The dump is made by the kernel; where its
core_pattern pipes dumps away, the test is skipped with that reason.
"""

import bisect
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["leaf", "cold", "deep", "aligned", "plt", "signal", "fault", "threads"]
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


# musl's own code has no call frame information: what is compared is the program's, up to main, which musl called.
MUSL_BUILDS = {"musl-static": ["-static"], "musl": []}
MUSL_CASES = {"leaf": 3, "cold": 4, "deep": 502, "aligned": 4}
# Go: nobody but gdb unwinds it through signals.
GO_BUILDS = {"go": {"CGO_ENABLED": "0"}, "go-pie": {"CGO_ENABLED": "0", "GOFLAGS": "-buildmode=pie"}, "go-cgo": {"CGO_ENABLED": "1"},
             "go-cgo-pie": {"CGO_ENABLED": "1", "GOFLAGS": "-buildmode=pie"}}


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


DUMPS = 5


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


def compare_prefix(what, program, core, executable, least):
    """(equal, frames) of the first thread's innermost frames, as far as both go, and at least @least of them."""
    theirs, (mine, _) = eu_stack(core, executable), ours(program, core)
    tid = next(iter(theirs), 0)
    expected = [address - 1 if is_return else address for address, is_return in theirs.get(tid, [])][:least]
    equal = len(expected) == least and mine.get(tid, [])[:least] == expected
    if not equal:
        print(f"{what}: {[hex(a) for a in mine.get(tid, [])[:least]][:6]}, eu-stack {[hex(a) for a in expected][:6]}")
    return equal, len(expected)


def gdb_functions(core, executable):
    """{tid: [function, innermost first]} without inlined ones; None where a signal came."""
    run = subprocess.run(["gdb", "-batch", "-nx", "-ex", "set backtrace past-main on", "-ex", "set backtrace limit 1000", "-ex", "thread apply all bt", executable, core],
                         capture_output=True, text=True, check=False)
    threads, frames = {}, None
    for line in run.stdout.splitlines():
        thread = re.match(r"Thread \d+ \((?:LWP |.*LWP )(\d+)\)", line)
        if thread:
            frames = threads.setdefault(int(thread.group(1)), [])
        frame = re.match(r"#\d+\s+(?:0x[0-9a-f]+ in )?(\S+)", line)
        if frame and frames is not None:
            frames.append("<signal>" if frame.group(1) == "<signal" else frame.group(1))
    return threads


def go_bias(core, executable):
    """Where a position-independent program was loaded."""
    if "DYN" not in subprocess.run(["readelf", "-h", executable], capture_output=True, text=True, check=True).stdout:
        return 0
    text = subprocess.run(["eu-readelf", "-n", core], capture_output=True, text=True, check=True).stdout
    linked = min(int(vaddr, 16) for vaddr in re.findall(r"LOAD\s+0x[0-9a-f]+ 0x([0-9a-f]+)", subprocess.run(
        ["readelf", "-lW", executable], capture_output=True, text=True, check=True).stdout))
    return -linked + min(int(low, 16) for low, path in re.findall(r"([0-9a-f]+)-[0-9a-f]+ [0-9a-f]+ \d+ +(\S+)", text) if path == executable)


def nm(executable):
    text = subprocess.run(["nm", "-n", executable], capture_output=True, text=True, check=True).stdout
    return [(int(row[0], 16), row[2]) for row in (line.split(None, 2) for line in text.splitlines()) if len(row) == 3 and row[1] in "tT"]


def compare_go(what, program, core, executable, bias):
    """(equal, frames): functions of the thread that fell, against gdb's, from the first signal frame to main or goexit."""
    theirs, (mine, ends) = gdb_functions(core, executable), ours(program, core)
    table = nm(executable)

    def name(address):
        at = bisect.bisect_right(table, (address - bias, "\x7f")) - 1
        return re.sub(r"\.abi0$", "", table[at][1]) if at >= 0 and address - bias < table[-1][0] else None
    good, frames = True, 0
    for tid, stack in mine.items():
        names = [name(address) for address in stack]
        expected = [re.sub(r"\.abi0$", "", f) for f in theirs.get(tid, [])]
        # gdb lists inlined functions too, goes on past a stack's first function, and does not go back to the goroutine from where
        # C begins: ours must be found in its order until there.
        rest = iter(expected)
        known = [n for n in names if n and not n.startswith("runtime.sigreturn")]
        if "runtime.asmcgocall" in expected:
            known = known[:known.index("runtime.asmcgocall")]
        found = all(any(n == other for other in rest) for n in known)
        frames += len(names)
        if not found or ends[tid] != "complete":
            good = False
            print(f"{what}: thread {tid} ends {ends[tid]}: {known[:8]} .. {known[-4:]}; gdb {expected[:8]} .. {expected[-4:]}")
    deepest = max(([name(address) for address in stack] for stack in mine.values()), key=len, default=[])
    if deepest.count("main.recurse") != 51 or deepest[-1] != "runtime.goexit":
        good = False
        print(f"{what}: {deepest.count('main.recurse')} frames of main.recurse, the last is {deepest[-1:]}")
    return good, frames


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
        if shutil.which("musl-gcc"):
            for name, options in MUSL_BUILDS.items():
                executable = os.path.join(folder, f"stacks-{name}")
                subprocess.run(["musl-gcc", "-O2", "-DTRAP", "-fomit-frame-pointer"] + options + ["-o", executable, os.path.join(HERE, "programs/stacks.c")],
                               check=True)
                results += [compare_prefix(f"{name} {case}", program, dump(folder, [executable, case]), executable, least) for case, least in MUSL_CASES.items()]
        if shutil.which("go") and shutil.which("gdb"):
            for name, settings in GO_BUILDS.items():
                executable = os.path.join(folder, name)
                environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": os.path.join(folder, "gocache"), "GOFLAGS": "", **settings}
                source = "cgo.go" if "cgo" in name else "recurse.go"
                build = subprocess.run(["go", "build", "-o", executable, os.path.join(HERE, "programs", source)], env=environment, check=False)
                if build.returncode:
                    print(f"{name}: not built here")
                    continue
                os.environ["GOTRACEBACK"] = "crash"
                core = dump(folder, [executable, "abort"])
                results.append(compare_go(name, program, core, executable, go_bias(core, executable)))
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
