#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every address of every fixture: our chains against llvm-symbolizer 19's.

    accuracy.py BUILD_CHAINS FIXTURES [NAME...]

(file, line, column) of every frame must be equal, and the number of frames. Names must be llvm's; for the outermost frame, where
LLVM prefers .symtab's name and of several picks one, also any other symbol's of the address, or DWARF's own, which is what
LLVM says when the symbol table is taken away.

Known of llvm-symbolizer 19, counted apart, all of them only where DWARF has no word:
    file    it gives the STT_FILE symbol's name, without line, as the file of a symbol
    beyond  it takes a sizeless symbol on past its section's end (_init over .plt), or past a sized function around it
Anything else fails.
"""
import bisect
import concurrent.futures
import os
import subprocess
import sys
import tempfile
from collections import Counter

LLVM = os.environ.get("LLVM_SYMBOLIZER", "llvm-symbolizer-19")
# Where llvm-symbolizer cannot judge the file itself: the file with the same code to ask instead, or None.
ORACLES = {
    "c-gcc-zlib-gnu": "c-gcc-dw5-O2",  # it reads no .zdebug sections
    "rust-low": None,  # it takes dropped code at [0, size) for code at these addresses
}
SHOWN = int(os.environ.get("SHOWN", "5"))


def chains(text):
    """[[(function, place)...]...], one list an address."""
    result = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if len(lines) >= 2:
            result.append(list(zip(lines[0::2], lines[1::2])))
    return result


class Symbols:
    """The code symbols, file symbols and code sections of some files, by readelf."""

    def __init__(self, paths):
        self.files, self.sections, found = set(), [], set()
        for path in paths:
            for line in readelf("-SW", path):
                field = line.replace("[ ", "[").split()
                if len(field) > 8 and field[0][0] == "[" and "X" in field[7]:
                    low = int(field[3], 16)
                    self.sections.append((low, low + int(field[5], 16)))
            for line in readelf("-sW", path):
                field = line.split()
                if len(field) < 8 or not field[0].endswith(":"):
                    continue
                if field[3] == "FILE":
                    self.files.add(field[7])
                if field[3] in ("FUNC", "NOTYPE", "IFUNC") and field[6].isdigit():
                    low, size = int(field[1], 16), int(field[2], 0)
                    found.add((low, low + size if size else 0, field[7].split("@")[0]))
        self.code = sorted(found)
        self.lows = [low for low, _, _ in self.code]

    def _end(self, low):
        return next((high for start, high in self.sections if start <= low < high), 0)

    def names_at(self, address):
        """Of sized symbols that hold the address, and of the nearest sizeless ones below it up to their section's end."""
        end = bisect.bisect_right(self.lows, address)
        nearest = self.lows[end - 1] if end else None
        return {name for low, high, name in self.code[:end]
                if address < high or (high == 0 and low == nearest and address < self._end(low))}

    def is_sized_at(self, address):
        return any(low <= address < high for low, high, _ in self.code)


def readelf(option, path):
    return subprocess.run(["readelf", option, path], capture_output=True, text=True, check=True).stdout.splitlines()


def symbolize(oracle, addresses):
    with open(addresses) as stdin:
        return chains(subprocess.run([LLVM, "--obj=" + oracle, "--functions=linkage", "--inlines", "--no-demangle"],
                                     stdin=stdin, capture_output=True, text=True, check=True).stdout)


def judge(symbols, address, mine, llvm, llvm_dwarf):
    """None, or what differs: "file" and "beyond" are llvm's (see above), "wrong" is ours."""
    (function, place), (llvm_function, llvm_place) = mine[-1], llvm[-1]
    kind = None
    if llvm_place != place and place == "??:0:0" and llvm_place.endswith(":0:0") and llvm_place[:-4] in symbols.files:
        llvm_place, kind = place, "file"
    if [p for _, p in mine] != [p for _, p in llvm[:-1]] + [llvm_place] or [f for f, _ in mine[:-1]] != [f for f, _ in llvm[:-1]]:
        return "wrong"
    names = symbols.names_at(address)
    if function == "??":
        if llvm_function == "??":
            return kind
        return "beyond" if not symbols.is_sized_at(address) else "wrong"
    return kind if function in names | {llvm_function, llvm_dwarf[-1][0]} else "wrong"


def compare(program, folder, name, debug):
    path = os.path.join(folder, name)
    oracle = os.path.join(folder, ORACLES.get(name, debug or name))
    with tempfile.TemporaryDirectory() as scratch:
        addresses, bare = os.path.join(scratch, "addresses"), os.path.join(scratch, "bare")
        ours = subprocess.run([program, path, os.path.join(folder, debug) if debug else "-", addresses],
                              capture_output=True, text=True)
        if ours.returncode != 0 or "Sanitizer" in ours.stderr:
            return name, 0, Counter(), [ours.stderr.strip()]
        subprocess.run(["llvm-objcopy-19", "--remove-section=.symtab", "--remove-section=.strtab", oracle, bare], check=True)
        listed = open(addresses).read().split()
        ours, theirs, bares = chains(ours.stdout), symbolize(oracle, addresses), symbolize(bare, addresses)
    if not len(ours) == len(theirs) == len(bares) == len(listed):
        return name, 0, Counter(), [f"{len(listed)} addresses, {len(ours)} chains of ours, {len(theirs)} of llvm's"]
    symbols = Symbols({path, oracle})
    problems, kinds = [], Counter()
    for address, mine, llvm, llvm_dwarf in zip(listed, ours, theirs, bares):
        kind = judge(symbols, int(address, 16), mine, llvm, llvm_dwarf)
        if kind:
            kinds[kind] += 1
        if kind == "wrong":
            problems.append(f"{address}: ours {mine}\n    llvm {llvm}")
    return name, len(listed), kinds, problems


def main():
    program, folder, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(os.path.join(folder, "manifest")) as manifest:
        fixtures = [line.split() for line in manifest]
    fixtures = [(f[0], f[1] if len(f) > 1 else None) for f in fixtures
                if (not wanted or f[0] in wanted) and ORACLES.get(f[0], f[0])]
    total = bad = 0
    explained = Counter()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, count, kinds, problems in pool.map(lambda f: compare(program, folder, *f), fixtures):
            total += count
            bad += len(problems)
            explained += kinds
            if problems:
                print(f"{name}: {len(problems)} of {count} addresses differ")
                for problem in problems[:SHOWN]:
                    print(f"  {problem}")
    print(f"{len(fixtures)} fixtures, {total} addresses, {bad} differences; of llvm-symbolizer: file {explained['file']}, "
          f"beyond {explained['beyond']}")
    sys.exit(1 if bad or total == 0 else 0)


main()
