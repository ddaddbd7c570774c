#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every address of every fixture: our chains against llvm-symbolizer 19's, as llvm_chains.py judges.

    accuracy.py BUILD_CHAINS FIXTURES [NAME...]

bench/compare --matrix prints the same by kind of file, as a table.
"""
import concurrent.futures
import os
import subprocess
import sys
import tempfile
from collections import Counter

sys.dont_write_bytecode = True
from llvm_chains import Symbols, chains, judge, symbolize, without_symbols

# Where llvm-symbolizer cannot judge the file itself: the file with the same code to ask instead, or None.
ORACLES = {
    "c-gcc-zlib-gnu": "c-gcc-dw5-O2",  # it reads no .zdebug sections
    "minidebug": "minidebug-whole",  # the symbols as they were
    "minidebug-shared": "minidebug-shared-whole",
    "dwz-alone": "stl-gcc-O2",
    "module-stripped.ko": "module.linked",
    "rust-low": None,  # it takes dropped code at [0, size) for code at these addresses
}
# What dwz made of a fixture has that fixture's code; llvm-symbolizer reads no supplements.
DWZ = "dwz-", "dwz4-", "dwzsup-"
# A relocatable file is judged by its linked copy (fixtures/link_as_laid_out), a packed kernel by what was packed.
LAID_OUT, PACKED = (".o", ".ko"), ("vmlinuz",)
SHOWN = int(os.environ.get("SHOWN", "5"))


def origin(name):
    return next((name.removeprefix(prefix) for prefix in DWZ if name.startswith(prefix)), None)


def compare(program, folder, name, debug):
    path = os.path.join(folder, name)
    oracle = os.path.join(folder, ORACLES.get(name) or origin(name) or debug or name)
    if oracle.endswith(LAID_OUT):
        oracle = os.path.splitext(oracle)[0] + ".linked"
    path_of_symbols = oracle if name.endswith(LAID_OUT) or name.startswith(PACKED) else path
    with tempfile.TemporaryDirectory() as scratch:
        addresses, bare = os.path.join(scratch, "addresses"), os.path.join(scratch, "bare")
        ours = subprocess.run([program, path, os.path.join(folder, debug) if debug else "-", addresses],
                              capture_output=True, text=True)
        if ours.returncode != 0 or "Sanitizer" in ours.stderr:
            return name, 0, Counter(), [ours.stderr.strip()]
        without_symbols(oracle, bare)
        listed = open(addresses).read().split()
        ours, theirs, bares = chains(ours.stdout), symbolize(oracle, addresses), symbolize(bare, addresses)
    if not len(ours) == len(theirs) == len(bares) == len(listed):
        return name, 0, Counter(), [f"{len(listed)} addresses, {len(ours)} chains of ours, {len(theirs)} of llvm's"]
    symbols = Symbols({path_of_symbols, oracle})
    problems, kinds = [], Counter(frames=sum(map(len, ours)))
    for address, mine, llvm, llvm_dwarf in zip(listed, ours, theirs, bares):
        kind = judge(symbols, int(address, 16), mine, llvm, llvm_dwarf)
        if kind:
            kinds[kind] += 1
        if kind == "wrong":
            problems.append(f"{address}: ours {mine}\n    llvm {llvm}")
    return name, len(listed), kinds, problems


def manifest(folder):
    with open(os.path.join(folder, "manifest")) as file:
        lines = [line.split() for line in file]
    return [(f[0], f[1] if len(f) > 1 else None) for f in lines]


def main():
    program, folder, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
    fixtures = [f for f in manifest(folder) if (not wanted or f[0] in wanted) and ORACLES.get(f[0], f[0])]
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


if __name__ == "__main__":
    main()
