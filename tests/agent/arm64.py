#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent for arm64 compiles: its BPF object by clang, its C by gcc's checks with Debian's cross compiler and headers.

Libraries' headers are this machine's, after arm64's own. Skipped (77) where the cross compiler or its headers are missing.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

HEADERS = "/usr/aarch64-linux-gnu/include"
GCC = "aarch64-linux-gnu-gcc"


def run(what, *command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"FAILED  {what}\n{result.stderr}")
    return result.returncode == 0


def main():
    root, binary = os.environ["CAIRN_SOURCE_DIR"], os.environ["CAIRN_BINARY_DIR"]
    if not shutil.which(GCC) or not os.path.exists(os.path.join(HEADERS, "asm/ptrace.h")):
        print("skipped: no gcc-aarch64-linux-gnu, or no libc6-dev-arm64-cross")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        ok = run("sample.bpf.c", "clang", "-target", "bpf", "-D__aarch64__", "-g", "-O2", "-Wall", "-Werror", "-I" + root, "-I" + HEADERS, "-c",
                 os.path.join(root, "agent/sample.bpf.c"), "-o", os.path.join(folder, "sample.bpf.o"))
    sources = [path for path in sorted(glob.glob(os.path.join(root, "agent/**/*.c"), recursive=True)) if not path.endswith(".bpf.c")]
    for path in sources:
        ok &= run(os.path.relpath(path, root), GCC, "-fsyntax-only", "-std=gnu17", "-D_GNU_SOURCE", '-DCAIRN_VERSION="0"', "-Wall", "-Wextra", "-Wconversion",
                  "-Wsign-conversion", "-Werror", "-I" + root, "-I" + binary, "-isystem", os.path.join(binary, "agent"), "-idirafter", "/usr/include",
                  "-idirafter", "/usr/include/x86_64-linux-gnu", path)
    print(f"{len(sources)} files of C and one of BPF, for arm64")
    return 0 if ok and len(sources) > 20 else 1


if __name__ == "__main__":
    sys.exit(main())
