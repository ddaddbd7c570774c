#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cold parts, clones and renamed functions (fixtures/src/pieces.cc): each address of each symbol has that symbol, shown as the function it is of.

    kept_symbols.py CAIRN FIXTURES

What is there is readelf's word (names, extents), what is shown c++filt's for the name without suffixes. The offset counts from the symbol.
"""
import functools
import json
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from llvm_chains import readelf

# Of each program: what the compiler must have made, or the fixture shows nothing.
WANTED = {
    "pieces-cold": [".cold", ".constprop.0", ".constprop.0.cold"],
    "pieces-dw4-cold": [".cold", ".constprop.0", ".constprop.0.cold"],
    "pieces-lto": [".cold", ".part.0", ".part.0.cold"],
    "pieces-lto-max": [".lto_priv.0", ".lto_priv.0.cold", ".part.0.lto_priv.0.cold"],
    "cxx-clang19-cold": [".__part.1"],
}


SUFFIXES = re.compile(r"(\.(cold|part|constprop|isra|lto_priv|__part)(\.\d+)?)+$")


def made_by_compiler(path):
    """{name: (low, high)} of the sized symbols with a suffix, and of those that these are made of."""
    sized = {}
    for line in readelf("-sW", path):
        field = line.split()
        if len(field) == 8 and field[3] in ("FUNC", "NOTYPE") and field[6].isdigit() and int(field[2], 0):
            sized[field[7]] = (int(field[1], 16), int(field[1], 16) + int(field[2], 0))
    made = [name for name in sized if SUFFIXES.search(name)]
    wanted = {*made, *(name for name in sized if any(other.startswith(name + ".") for other in made))}
    return {name: sized[name] for name in wanted}


@functools.cache
def shown(name):
    return subprocess.run(["c++filt", SUFFIXES.sub("", name)], capture_output=True, text=True, check=True).stdout.strip()


def check(cairn, path):
    symbols = made_by_compiler(path)
    missing = [suffix for suffix in WANTED[os.path.basename(path)] if not any(re.search(r"[^.]+" + re.escape(suffix) + "$", name) for name in symbols)]
    assert not missing, f"{path}: nothing ends in {missing}"
    asked = [(address, name) for name, (low, high) in sorted(symbols.items()) for address in range(low, high)]
    with tempfile.TemporaryDirectory() as folder:
        table = os.path.join(folder, "table")
        subprocess.run([cairn, "table", "build", path, "-o", table], check=True, capture_output=True)
        answer = subprocess.run([cairn, "table", "lookup", table], input="".join(f"{a:#x}\n" for a, _ in asked), check=True, capture_output=True,
                                text=True).stdout.splitlines()
    assert len(answer) == len(asked), path
    inlined, bad = 0, 0
    for (address, name), line in zip(asked, answer):
        frames = json.loads(line)["frames"]
        inlined += len(frames) > 1 and ".cold" in name
        wanted = (name, shown(name), address - symbols[name][0])
        last = frames[-1] if frames else {}
        symbol = last.get("symbol", last.get("function"))
        mine = (name if name in last.get("aliases", []) else symbol, last.get("function"), int(last.get("offset", "-1"), 0))
        if mine != wanted:
            bad += 1
            if bad <= 5:
                print(f"{path}: {address:#x}: {mine}, not {wanted}")
    return len(asked), inlined, bad


def main():
    cairn, folder = sys.argv[1:3]
    total = inlined = bad = 0
    for name in WANTED:
        counts = check(cairn, os.path.join(folder, name))
        total, inlined, bad = total + counts[0], inlined + counts[1], bad + counts[2]
    print(f"{total} addresses, {inlined} in inlined calls of cold parts, {bad} differences")
    sys.exit(1 if bad or inlined < 20 else 0)


if __name__ == "__main__":
    main()
