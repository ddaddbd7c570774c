#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Code without a file, made by a Python program: what its /tmp/perf-PID.map names has that name, also from a PID namespace with a root of its
own; what nobody names is marked with the runtime. Frame pointers lead on to the caller.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import os
import platform
import subprocess
import sys
import tempfile

import live
from otlp_live import stop
from places import child_of, sample
from stream_live import wait_for

# `inner` spins; `outer` calls it. Both keep a frame pointer. Written behind each other on a page of their own.
PROGRAM = """import ctypes, mmap, os, sys
inner = bytes.fromhex("554889e5ebfe")                  # push rbp; mov rbp, rsp; 1: jmp 1b
outer = bytes.fromhex("554889e5e8f0ffffff5dc3")        # push rbp; mov rbp, rsp; call inner (16 before the end of this); pop rbp; ret
outer = outer[:5] + (-(16 + 9)).to_bytes(4, "little", signed=True) + outer[9:]
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page[0:len(inner)] = inner
page[16:16 + len(outer)] = outer
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
if sys.argv[1] == "named":
    with open("/tmp/perf-%d.map" % os.getpid(), "w") as file:
        file.write("%x 10 jit_inner\\n%x 10 jit outer (int)\\n" % (start, start + 16))
print("ready", flush=True)
ctypes.CFUNCTYPE(None)(start + 16)()
"""


def check_frames(what, folder, pid, inner, outer):
    samples, _ = sample(folder, pid)
    total = sum(value for _, value in samples)
    # Some were in the kernel at that moment.
    good = sum(value for stack, value in samples if [inner, outer] in (stack[i:i + 2] for i in range(len(stack))))
    return live.check(total > 10 and good >= 0.9 * total, f"{what}: {good} of {total} stacks go from {inner} to {outer}")


def main():
    if platform.machine() != "x86_64":
        print("skipped: the program is x86-64's")
        return 77
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        for kind, inner, outer in (("named", "jit_inner", "jit outer (int)"), ("bare", "[cpython]", "[cpython]")):
            program = subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, text=True)
            path = f"/tmp/perf-{program.pid}.map"
            try:
                assert program.stdout.readline() == "ready\n"
                ok &= check_frames(kind, folder, program.pid, inner, outer)
            finally:
                stop(program)
                if os.path.exists(path):
                    os.unlink(path)
        # Its number is another one in its namespace, and its /tmp is not ours.
        command = f"mount -t tmpfs none /tmp && exec {sys.executable} -c '{PROGRAM}' named"
        program = subprocess.Popen(["unshare", "-m", "-p", "--fork", "--kill-child", "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            pid = child_of(program)
            if pid is None or program.stdout.readline() != "ready\n":
                stop(program)
                print(f"        namespaces are not permitted here: {program.stderr.read().strip()}")
            else:
                ok &= live.check(wait_for(lambda: not os.path.exists(f"/tmp/perf-{pid}.map")), "its map is not in our /tmp")
                ok &= check_frames("named, in namespaces of its own", folder, pid, "jit_inner", "jit outer (int)")
        finally:
            if program.poll() is None:
                stop(program)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
