#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent on this machine's kernel: BPF is loaded, programs of known stacks are sampled, and the pprof is read back.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
COMPLETE_PERMILLE_MIN = 990
STOPS = 4  # Go interrupts its threads: where one stands when it is stopped is chance, and not always where it can be compared


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, value


def packed(data):
    at, values = 0, []
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
    return values


def read_pprof(path):
    """[([frame name, leaf first], value)], {mapping name: build id}"""
    with gzip.open(path) as file:
        data = file.read()
    strings, functions, locations, samples, mappings = [], {}, {}, [], {}
    raw_mappings = []
    for number, value in fields(data):
        if number == 6:
            strings.append(value.decode())
        elif number == 5:
            function = dict(fields(value))
            functions[function[1]] = function.get(2, 0)
        elif number == 4:
            lines = [dict(fields(line)) for key, line in fields(value) if key == 4]
            locations[dict(fields(value))[1]] = [line[1] for line in lines]
        elif number == 3:
            raw_mappings.append(dict(fields(value)))
        elif number == 2:
            sample = dict(fields(value))
            samples.append((packed(sample[1]), packed(sample[2])[0]))
    for mapping in raw_mappings:
        mappings[strings[mapping.get(5, 0)]] = strings[mapping.get(6, 0)]
    named = [([strings[functions[f]] for where in stack for f in locations[where]], value) for stack, value in samples]
    return named, mappings


def read_locations(path):
    """[(mapping name, address, function name)] of a pprof file."""
    with gzip.open(path) as file:
        data = file.read()
    strings, functions, mappings, found = [], {}, {}, []
    for number, value in fields(data):
        if number == 6:
            strings.append(value.decode())
        elif number == 5:
            function = dict(fields(value))
            functions[function[1]] = function.get(2, 0)
        elif number == 3:
            mapping = dict(fields(value))
            mappings[mapping[1]] = mapping.get(5, 0)
    for number, value in fields(data):
        if number == 4:
            location = dict(fields(value))
            line = dict(fields(location[4])) if 4 in location else {}
            found.append((strings[mappings.get(location.get(2, 0), 0)], location.get(3, 0), strings[functions.get(line.get(1, 0), 0)]))
    return found


def run_agent(folder, *arguments):
    path = os.path.join(folder, "out.pb.gz")
    agent = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin/cairn-agent")
    run = subprocess.run([agent, "-o", path, *arguments], capture_output=True, text=True, check=False)
    if run.returncode == 1 and re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied", run.stderr):
        print(f"skipped: {run.stderr.strip()}")
        sys.exit(77)
    if run.returncode != 0:
        raise AssertionError(f"cairn-agent: exit {run.returncode}: {run.stderr}")
    counters = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)\b", run.stderr)}
    samples, mappings = read_pprof(path)
    return samples, mappings, counters


def symbols(executable):
    """[(address, size, name)] of an executable's functions."""
    text = subprocess.run(["nm", "-S", "--defined-only", executable], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines()]
    return [(int(row[0], 16), int(row[1], 16), row[3]) for row in rows if len(row) == 4 and row[2] in "tTwW"]


def function_of(table, frame, executable):
    match = re.fullmatch(re.escape(os.path.basename(executable)) + r"\+0x([0-9a-f]+)", frame)
    if not match:
        return None
    address = int(match.group(1), 16)
    return next((name for low, size, name in table if low <= address < low + size), frame)


def build(folder, name, *command):
    executable = os.path.join(folder, name)
    subprocess.run([*command, "-o", executable, os.path.join(HERE, "programs/stacks.c"), "-lpthread"], check=True)
    return executable


def build_id(executable):
    text = subprocess.run(["readelf", "-n", executable], capture_output=True, text=True, check=False).stdout
    return re.search(r"Build ID: ([0-9a-f]+)", text).group(1)


def check(condition, what):
    print(("ok      " if condition else "FAILED  ") + what)
    return bool(condition)


def segments(path):
    """[(file offset, size, address)] of a file's PT_LOADs."""
    text = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=False).stdout
    return [tuple(int(cell, 16) for cell in row) for row in re.findall(r"LOAD\s+(0x[0-9a-f]+) (0x[0-9a-f]+) 0x[0-9a-f]+ (0x[0-9a-f]+)", text)]


def eu_stacks_of(pid):
    """The stopped process's stacks, one a thread, as the agent would write them; [] where eu-stack has no word."""
    text = subprocess.run(["eu-stack", "-a", "-n", "0", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    mapped = []
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        for low, high, offset, path in re.findall(r"([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ \d+\s+(/\S+)", file.read()):
            mapped.append((int(low, 16), int(high, 16), int(offset, 16), path, segments(path)))
    stacks = []
    for thread in text.split("TID ")[1:]:
        frames = []
        for word, call in re.findall(r"#\d+\s+0x([0-9a-f]+)( - 1)?", thread):
            address = int(word, 16) - (1 if call else 0)
            low, _, offset, path, loads = next((m for m in mapped if m[0] <= address < m[1]), (0, 0, 0, "?", []))
            foff = address - low + offset
            vaddr = next((a + foff - f for f, a, size in ((row[0], row[1], row[2]) for row in loads) if f <= foff < f + size), 0)
            frames.append(f"{os.path.basename(path)}+0x{vaddr:x}")
        stacks.append(frames)
    return stacks


STOPPED = {"equal": 0, "different": 0}


def compare_stopped(name, stopped, samples, inner=lambda frame: True):
    """The program stays in what its innermost frame of @inner called: all that called that is in each sample as it is when it is stopped."""
    def outer(stack):
        at = next((i for i, frame in enumerate(stack) if frame.startswith(name + "+") and inner(frame)), None)
        return None if at is None else stack[at + 1:]
    expected = next(filter(None, (outer(stack) for stack in stopped)), None)
    for stack, value in samples:
        found = outer(stack[:-1])
        if expected and found is not None:
            equal = found == expected
            STOPPED["equal" if equal else "different"] += value
            if not equal:
                at = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), min(len(found), len(expected)))
                print(f"        {name}: {len(found)} and {len(expected)} frames, from {at}: {found[at:at + 2]}, eu-stack {expected[at:at + 2]}")


def sample_case(folder, executable, case, depth, *arguments):
    """Samples one spinning program; the named functions of its own in each stack, and the counters."""
    program = subprocess.Popen([executable, case, "spin", str(depth)])
    time.sleep(0.3)
    try:
        samples, mappings, counters = run_agent(folder, "--once", "1500ms", "--pid", str(program.pid), "--samples-per-second", "997", *arguments)
        program.send_signal(signal.SIGSTOP)
        compare_stopped(os.path.basename(executable), eu_stacks_of(program.pid), samples)
    finally:
        program.kill()
        program.wait()
    table = symbols(executable)
    stacks = [([name for name in (function_of(table, frame, executable) for frame in stack) if name], stack[-1], value)
              for stack, value in samples]
    return stacks, mappings, counters


def check_language(folder, name, inner, *command):
    """A program of another language that spins below @inner: every sample, from its caller on, as eu-stack sees the stopped process."""
    executable = os.path.join(folder, name)
    built = subprocess.run([executable if word == "OUT" else word for word in command], capture_output=True, text=True, check=False,
                           env={**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOCACHE": os.path.join(folder, "gocache")})
    if built.returncode:
        print(f"        {name}: not built here: {built.stderr.strip()[-200:]}")
        return True
    table, before = symbols(executable), dict(STOPPED)
    equal = different = 0
    for _ in range(STOPS):
        program = subprocess.Popen([executable, "spin"])
        time.sleep(0.5)
        try:
            samples, _, _ = run_agent(folder, "--once", "1500ms", "--pid", str(program.pid), "--samples-per-second", "997")
            program.send_signal(signal.SIGSTOP)
            stopped = eu_stacks_of(program.pid)
        finally:
            program.kill()
            program.wait()
        compare_stopped(name, stopped, samples, lambda frame: re.search(inner, function_of(table, frame, executable) or ""))
        equal, different = (STOPPED[key] - before[key] for key in ("equal", "different"))
        if equal >= 20 or different:
            break
    return check(equal >= 20 and different == 0, f"{name}: {equal} samples equal to eu-stack on the stopped process ({max(map(len, stopped), default=0)} frames), {different} different")


def check_languages(folder):
    source = {name: os.path.join(HERE, "programs", name) for name in ("recurse.go", "recurse.rs", "throw.cc")}
    ok = check_language(folder, "c++", r"derived3run", "g++", "-O2", "-fomit-frame-pointer", "-o", "OUT", source["throw.cc"], "-lpthread")
    if shutil.which("go"):
        ok &= check_language(folder, "go", r"^main\.bottom$", "go", "build", "-o", "OUT", source["recurse.go"])
        ok &= check_language(folder, "go-pie", r"^main\.bottom$", "go", "build", "-buildmode=pie", "-o", "OUT", source["recurse.go"])
    if shutil.which("rustc"):
        ok &= check_language(folder, "rust", r"7recurse7recurse", "rustc", "-C", "opt-level=2", "-o", "OUT", source["recurse.rs"])
    return ok


def share(stacks, wanted):
    total = sum(value for _, _, value in stacks)
    return sum(value for names, _, value in stacks if wanted(names)) / total if total else 0


def check_programs(folder):
    # Nothing that would merge or drop frames: what is expected is the program as written.
    as_written = ["-fno-inline", "-fno-optimize-sibling-calls", "-fno-ipa-sra"]
    executable = build(folder, "stacks-O2", "gcc", "-O2", "-fomit-frame-pointer", *as_written, "-Wl,--build-id")
    plain = build(folder, "stacks-clang", "clang", "-O1", "-fomit-frame-pointer", "-no-pie", "-Wl,--build-id")
    expected = {
        "leaf": lambda n: n[:3] == ["bottom", "leaf_case", "main"],
        "deep": lambda n: n[0] == "bottom" and n.count("deep") >= 901 and "main" in n,
        "aligned": lambda n: n[:4] == ["bottom", "dynamic", "aligned", "main"],
        "plt": lambda n: n[:2] == ["bottom", "compare"] and "main" in n,
        "signal": lambda n: n[0] == "bottom" and "handler" in n and "in_signal" in n and "main" in n,
    }
    ok = True
    for path in (executable, plain):
        for case, wanted in expected.items():
            stacks, mappings, counters = sample_case(folder, path, case, 900)
            part = share(stacks, wanted)
            ok &= check(part >= 0.95 and counters["complete_permille"] >= COMPLETE_PERMILLE_MIN,
                        f"{os.path.basename(path)} {case}: {part:.3f} of {counters['records']} stacks as written, {counters['complete_permille']} permille complete")
            ok &= check(mappings.get(os.path.basename(path)) == build_id(path), f"{os.path.basename(path)} {case}: build ID")
    return ok


def check_debug_file(folder):
    """A stripped program without call frame information but in its separate debug file, which the debug link names."""
    debug = build(folder, "apart.debug", "gcc", "-O2", "-g", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-inline",
                  "-fno-optimize-sibling-calls", "-fno-ipa-sra", "-Wl,--build-id")
    executable = os.path.join(folder, "apart")
    subprocess.run(["strip", "-o", executable, debug], check=True)
    subprocess.run(["objcopy", "--only-keep-debug", debug], check=True)
    subprocess.run(["objcopy", "--add-gnu-debuglink=" + debug, executable], check=True)
    ok = True
    for found in (True, False):
        if not found:
            os.unlink(debug)
            os.utime(executable)
        program = subprocess.Popen([executable, "aligned", "spin"])
        time.sleep(0.3)
        try:
            samples, _, counters = run_agent(folder, "--once", "1s", "--pid", str(program.pid), "--samples-per-second", "200")
        finally:
            program.kill()
            program.wait()
        if found:
            table = symbols(debug)
            stacks = [([name for name in (function_of(table, frame, executable) for frame in stack) if name], stack[-1], value) for stack, value in samples]
            part = share(stacks, lambda n: n[:4] == ["bottom", "dynamic", "aligned", "main"])
            ok &= check(part >= 0.95 and counters["debug_files"] == 1, f"debug file: {part:.3f} of {counters['records']} stacks as written, {counters['debug_files']} read")
        else:
            ok &= check(counters["debug_files"] == 0 and counters["complete_permille"] < 500, f"without it: {counters['complete_permille']} permille complete")
    return ok


def check_compat(folder):
    """32-bit and x32 programs: counted, without user frames, and nothing else suffers."""
    ok = True
    for name, option in (("i386", "-m32"), ("x32", "-mx32")):
        executable = os.path.join(folder, name)
        built = subprocess.run(["gcc", option, "-DSPIN", "-O2", "-static", "-nostdlib", "-fno-stack-protector", "-fno-pie", "-no-pie", "-fomit-frame-pointer",
                                "-o", executable, os.path.join(HERE, "programs/tiny.c")], capture_output=True, text=True, check=False)
        if built.returncode:
            print(f"        {name}: skipped: not built here: {built.stderr.strip().splitlines()[-1]}")
            continue
        try:
            program = subprocess.Popen([executable])
        except OSError as error:
            print(f"        {name}: skipped: this kernel does not run it: {error}")
            continue
        try:
            samples, _, counters = run_agent(folder, "--once", "1s", "--pid", str(program.pid), "--samples-per-second", "200", "--verbose")
        finally:
            program.kill()
            program.wait()
        total = sum(value for _, value in samples)
        if name == "i386":
            ok &= check(total > 0 and counters.get("compat", 0) >= 0.9 * total, f"i386: {counters.get('compat', 0)} of {total} samples counted as compat")
        else:
            ok &= check(total > 0 and counters.get("refused", 0) >= 1, f"x32: {total} samples, {counters.get('refused', 0)} executables refused")
    return ok


def check_stopped():
    return check(STOPPED["different"] == 0 and STOPPED["equal"] >= 1000, f"{STOPPED['equal']} samples equal to eu-stack on the stopped process, {STOPPED['different']} different")


def check_kernel(folder, *arguments):
    """A program that lives in the kernel: kernel frames by name, then its user frames."""
    program = subprocess.Popen(["dd", "if=/dev/urandom", "of=/dev/null", "bs=1M"], stderr=subprocess.DEVNULL)
    time.sleep(0.2)
    try:
        samples, _, counters = run_agent(folder, "--once", "1500ms", "--pid", str(program.pid), "--samples-per-second", "100", *arguments)
    finally:
        program.kill()
        program.wait()
    total = sum(value for _, value in samples)
    named = sum(value for stack, value in samples if any("read" in frame and "+0x" not in frame for frame in stack)
                and any(frame.startswith("libc.so") for frame in stack) and stack[-1] == "dd")
    what = " ".join(arguments) or "with task registers"
    ok = check(total and named / total >= 0.9, f"kernel and user frames of dd {what}: {named} of {total}")
    way = "user_regs_stack" if arguments else "user_regs_btf"
    if not arguments and not os.path.exists("/sys/kernel/btf/vmlinux"):
        way = "user_regs_stack"
    return ok & check(counters.get(way, 0) > 0, f"{way} counted: {counters.get(way, 0)}")


def check_whole_system(folder, executable):
    """Two programs that begin after the agent, one that was there before: all are found."""
    before = subprocess.Popen([executable, "leaf", "spin"])
    agent = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin/cairn-agent")
    path = os.path.join(folder, "whole.pb.gz")
    run = subprocess.Popen([agent, "--once", "4s", "-o", path], stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    late = os.path.join(folder, "late-exec")
    os.link(executable, late)
    after = subprocess.Popen(["sh", "-c", f"exec {late} plt spin"])
    run.wait()
    for program in (before, after):
        program.kill()
        program.wait()
    samples, _ = read_pprof(path)
    ok = True
    for comm, case in ((os.path.basename(executable)[:15], "leaf_case"), ("late-exec", "compare")):
        # One file, two names: the first that was seen stands for both.
        table = symbols(executable)
        names = [[function_of(table, frame.replace("late-exec+", os.path.basename(executable) + "+"), executable) for frame in stack]
                 for stack, _ in samples if stack[-1] == comm]
        good = sum(1 for stack in names if case in stack and "main" in stack)
        ok &= check(good > 0, f"whole system: {comm}: {good} of {len(names)} different stacks through {case} to main")
    return ok


def main():
    with tempfile.TemporaryDirectory() as folder:
        ok = check_programs(folder)
        if shutil.which("eu-stack"):
            ok &= check_languages(folder)
            ok &= check_stopped()
        ok &= check_debug_file(folder)
        ok &= check_compat(folder)
        ok &= check_kernel(folder)
        ok &= check_kernel(folder, "--no-task-regs")
        ok &= check_whole_system(folder, os.path.join(folder, "stacks-O2"))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
