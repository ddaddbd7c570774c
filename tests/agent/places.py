#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where executables may be that cairn-agent has to find: in another mount namespace, in another root, in another PID namespace, deleted,
replaced by another of the same name, in a memfd, in a library that is opened late, under a PID that another program had a moment ago.
In each case the stack is followed to main in the file that runs, by its own build ID.

Skipped (77) with the agent's own words where it is not permitted to run; single cases where the machine does not permit them.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import live
from otlp_live import BIN, stop
from stream_live import wait_for

AGENT = os.path.join(BIN, "cairn-agent")
CLONE3 = 435
WITHOUT_MAP_FILES = ["setpriv", "--bounding-set=-checkpoint_restore,-sys_admin", "--inh-caps=-checkpoint_restore,-sys_admin"]
PLT = ["bottom", "compare", "main"]  # in this order, others between


def sample(folder, pid, *arguments, before=()):
    path = os.path.join(folder, "out.pb.gz")
    run = subprocess.run([*before, AGENT, "-o", path, "--pid", str(pid), "--samples-per-second", "200", "--once", "1500ms", *arguments],
                         capture_output=True, text=True, check=False)
    if run.returncode == 1 and re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied", run.stderr):
        print(f"skipped: {run.stderr.strip()}")
        sys.exit(77)
    assert run.returncode == 0, run.stderr
    return live.read_pprof(path)


def goes_through(names, wanted):
    rest = iter(names)
    return all(name in rest for name in wanted)


def check_samples(what, profile, executable, name, wanted):
    """Nearly all samples of the program go through the functions wanted, in the file that is called `name`, by its build ID."""
    samples, mappings = profile
    table = live.symbols(executable)
    total = good = 0
    for stack, value in samples:
        own = [function for function in (live.function_of(table, frame.replace(name, os.path.basename(executable), 1), executable) for frame in stack
                                         if frame.startswith(name + "+")) if function]
        total += value
        good += value if goes_through(own, wanted) else 0
    return live.check(total >= 10 and good >= 0.95 * total and mappings.get(name) == live.build_id(executable),
                      f"{what}: {good} of {total} stacks through {', '.join(wanted)}; build ID {mappings.get(name, list(mappings))}")


def child_of(process):
    """The PID here of the only child; None when it does not come."""
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    found = []

    def look():
        if process.poll() is None:
            with open(path, encoding="ascii") as file:
                found[:] = [int(word) for word in file.read().split()]
        return found or process.poll() is not None

    wait_for(look, 20)
    return found[0] if found else None


def runs(pid, name):
    """It has become that program."""
    def look():
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                return file.read().strip() == name[:15]
        except OSError:
            return False

    return wait_for(look, 20)


def check_roots(folder, static):
    """Another root, another mount namespace, another PID namespace; by map_files, and without its capabilities by the path in that root."""
    root = os.path.join(folder, "root")
    hidden = os.path.join(folder, "hidden")
    os.makedirs(os.path.join(root, "bin"))
    os.makedirs(hidden)
    shutil.copy(static, os.path.join(root, "bin/inside"))
    cases = [("another root", ["chroot", root, "/bin/inside", "plt", "spin"], "inside", False),
             ("another mount namespace", ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {hidden} && cp {static} {hidden}/beneath && exec {hidden}/beneath plt spin"],
              "beneath", False),
             ("other namespaces and root", ["unshare", "-m", "-p", "--fork", "--kill-child", f"--root={root}", "/bin/inside", "plt", "spin"], "inside", True)]
    ok = True
    for what, command, name, is_child in cases:
        program = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            pid = child_of(program) if is_child else program.pid
            if pid is None or not runs(pid, name):
                print(f"        {what}: not permitted here: {program.stderr.read().decode().strip() if program.poll() is not None else ''}")
                continue
            ok &= check_samples(what, sample(folder, pid), static, name, PLT)
            ok &= check_samples(what + ", without CAP_CHECKPOINT_RESTORE", sample(folder, pid, before=WITHOUT_MAP_FILES), static, name, PLT)
        finally:
            stop(program)
    return ok


def build(folder, name, *flags):
    """A program with a build ID of its own."""
    return live.build(folder, name, "gcc", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", *flags, f"-Wl,--build-id=0x{os.urandom(16).hex()}")


def check_deleted(folder):
    first, second = build(folder, "first", "-DFIRST"), build(folder, "second", "-DSECOND")
    path = os.path.join(folder, "program")
    shutil.copy(first, path)
    old = subprocess.Popen([path, "plt", "spin"])
    assert runs(old.pid, "program")
    ok = True
    try:
        os.unlink(path)
        ok &= check_samples("deleted", sample(folder, old.pid), first, "program", PLT)
        # Another file of that name: both run.
        shutil.copy(second, path + ".new")
        os.rename(path + ".new", path)
        new = subprocess.Popen([path, "leaf", "spin"])
        assert runs(new.pid, "program")
        try:
            ok &= check_samples("replaced, the old one", sample(folder, old.pid), first, "program", PLT)
            _, mappings = sample(folder, old.pid, before=WITHOUT_MAP_FILES)
            ok &= live.check("program" not in mappings, "replaced, without CAP_CHECKPOINT_RESTORE: the old one is not taken for the new one")
            ok &= check_samples("replaced, the new one, without CAP_CHECKPOINT_RESTORE", sample(folder, new.pid, before=WITHOUT_MAP_FILES), second, "program",
                                ["bottom", "leaf_case", "main"])
            ok &= check_samples("replaced, the new one", sample(folder, new.pid), second, "program", ["bottom", "leaf_case", "main"])
        finally:
            stop(new)
    finally:
        stop(old)
    return ok


MEMFD = """import os, sys
fd = os.memfd_create("unnamed", 0)
with open(sys.argv[1], "rb") as file:
    os.write(fd, file.read())
os.execve(fd, ["unnamed", "plt", "spin"], dict(os.environ))
"""


def check_memfd(folder, static):
    program = subprocess.Popen([sys.executable, "-c", MEMFD, static])
    try:
        if not wait_for(lambda: "memfd:" in os.readlink(f"/proc/{program.pid}/exe"), 20):
            print("        a memfd cannot be run here")
            return True
        profile = sample(folder, program.pid)
        name = next((name for name, build in profile[1].items() if build == live.build_id(static)), "no file with its build ID")
        return check_samples("memfd", profile, static, name, PLT)
    finally:
        stop(program)


def check_dlopen(folder):
    """The library comes while the agent runs."""
    source = os.path.join(live.HERE, "programs/late.c")
    flags = ["-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-Wl,--build-id"]
    library, program = os.path.join(folder, "liblate.so"), os.path.join(folder, "late")
    subprocess.run(["gcc", *flags, "-DLIBRARY", "-shared", "-fPIC", "-o", library, source], check=True)
    subprocess.run(["gcc", *flags, "-o", program, source, "-ldl"], check=True)
    running = subprocess.Popen([program, library], stdout=subprocess.PIPE, text=True)
    path = os.path.join(folder, "late.pb.gz")
    try:
        assert running.stdout.readline() == "ready\n"
        agent = subprocess.Popen([AGENT, "-o", path, "--once", "4s", "--pid", str(running.pid), "--samples-per-second", "200"], stderr=subprocess.PIPE, text=True)
        while " start " not in agent.stderr.readline():
            assert agent.poll() is None, agent.stderr.read()
        running.send_signal(signal.SIGUSR1)
        agent.stderr.read()
        assert agent.wait() == 0
    finally:
        stop(running)
    samples, mappings = live.read_pprof(path)
    of_library, of_program = live.symbols(library), live.symbols(program)
    names = [([live.function_of(of_library, frame, library) or live.function_of(of_program, frame, program) for frame in stack], value) for stack, value in samples]
    total = sum(value for _, value in names)
    good = sum(value for stack, value in names if goes_through(stack, ["spin", "inside", "load", "main"]))
    return live.check(total > 10 and good > 0.8 * total and mappings.get("liblate.so") == live.build_id(library),
                      f"a library opened late: {good} of {total} stacks from it to main")


def start_as(pid, path, *arguments):
    """Starts a program under a PID that is free; False where that is not permitted, None where the PID is taken."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = ctypes.c_int(pid)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size
    numbers = (ctypes.c_uint64 * 10)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1)
    child = libc.syscall(CLONE3, numbers, ctypes.sizeof(numbers))
    if child == 0:
        try:
            os.execv(path, [path, *arguments])
        finally:
            os._exit(127)
    if child < 0:
        return None if ctypes.get_errno() == 17 else False
    return child == pid


def check_pid_reuse(folder):
    """One program ends, another begins with its number while the agent runs: the second one's stacks are those of the second file."""
    first, second = build(folder, "one", "-DONE"), build(folder, "other", "-DOTHER")
    path = os.path.join(folder, "reuse.pb.gz")
    one = subprocess.Popen([first, "leaf", "spin"])
    pid, started = one.pid, False
    try:
        agent = subprocess.Popen([AGENT, "-o", path, "--once", "5s", "--pid", str(pid), "--samples-per-second", "200"], stderr=subprocess.PIPE, text=True)
        while " start " not in agent.stderr.readline():
            assert agent.poll() is None, agent.stderr.read()
        time.sleep(1)
        stop(one)
        started = start_as(pid, second, "plt", "spin")
        agent.stderr.read()
        assert agent.wait() == 0
    finally:
        if started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not started:
        print("        a PID cannot be chosen here" if started is False else "        the PID was taken by another process meanwhile")
        return True
    samples, mappings = live.read_pprof(path)
    good = {}
    for executable, wanted in ((first, ["bottom", "leaf_case", "main"]), (second, PLT)):
        table, name = live.symbols(executable), os.path.basename(executable)
        mine = [([live.function_of(table, frame, executable) for frame in stack], value) for stack, value in samples if stack[-1] == name]
        good[name] = sum(value for stack, value in mine if goes_through(stack, wanted)), sum(value for _, value in mine)
    return live.check(all(whole >= 0.9 * total and total > 5 for whole, total in good.values()) and
                      mappings.get("one") == live.build_id(first) and mappings.get("other") == live.build_id(second),
                      f"a PID used again: whole stacks of each program's: {good}")


def main():
    if os.geteuid() != 0:
        print("skipped: only root makes namespaces and changes roots")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        static = build(folder, "static", "-static")
        ok = check_roots(folder, static)
        ok &= check_deleted(folder)
        ok &= check_memfd(folder, static)
        ok &= check_dlopen(folder)
        ok &= check_pid_reuse(folder)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
