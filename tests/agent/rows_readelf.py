#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every row of call frame information of real files, as unwind-rows and as readelf --debug-dump=frames-interp read it.

Equal means: the same function, address, CFA, and places of rbp and the return address. The one licence: where readelf says
`exp` we say `exp` too or, counted and bounded, `unsupported`. A file that this machine does not have is left out; libc and
libstdc++ must be there.
"""

import os
import re
import subprocess
import sys

MUST = ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"]
MAY = ["/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/python3", "/lib64/ld-linux-x86-64.so.2",
       "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so"]
UNSUPPORTED_SHARE_MAX = 0.001  # of rows, where readelf has no plain rule


def rust_libraries():
    folder = "/usr/lib/x86_64-linux-gnu"
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if re.fullmatch(r"libstd-[0-9a-f]+\.so", name)]


def readelf_rows(path):
    """{(section, function, address): (cfa, rbp, ra)}; the last row of an address counts."""
    # Exit 1 is a warning, as when the debug file that .gnu_debuglink names is not there.
    run = subprocess.run(["readelf", "-W", "--debug-dump=frames-interp", "--debug-dump=no-follow-links", path],
                         capture_output=True, text=True, check=False)
    rows, firsts, functions = {}, {}, []
    section, cie, function, end, columns = None, None, None, 0, None
    for line in run.stdout.splitlines():
        line = re.sub(r"\br\d+ \((\w+)\)", r"=\1", line)
        if line.startswith("Contents of the"):
            section = line.split()[3]
        elif " FDE " in line:
            name, low, high = re.search(r" cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)", line).groups()
            function, end, columns = int(low, 16), int(high, 16), None
            functions.append((section, function, int(name, 16), end))
        elif " CIE " in line:
            function, columns, cie = None, None, int(line.split()[0], 16)
        elif line.lstrip().startswith("LOC"):
            columns = line.split()
        elif columns and re.match(r"^[0-9a-f]{16} ", line):
            cells = dict(zip(columns, line.split()))
            address, row = int(cells["LOC"], 16), (cells["CFA"], cells.get("rbp", "u"), cells.get("ra", "u"))
            if function is None:
                firsts[(section, cie)] = row
            elif address < end:
                rows[(section, function, address)] = row
    for section, function, cie, end in functions:  # one without instructions is as its CIE says
        if function < end and (section, function, function) not in rows:
            rows[(section, function, function)] = firsts[(section, cie)]
    return rows


def our_rows(program, path):
    run = subprocess.run([program, path], capture_output=True, text=True, check=True)
    rows = {}
    for line in run.stdout.splitlines():
        section, function, low, _, cfa, rbp, ra = line.split()
        rows[(section, int(function, 16), int(low, 16))] = (cfa, rbp, ra)
    return rows


def equal(ours, theirs):
    """True, False, or None: unsupported here, and not plain there."""
    cfa, rbp, ra = theirs
    if ours[0] == "stop":
        return ra == "u"
    if ours[0] == "unsupported":
        plain = re.fullmatch(r"r\w+[+-]\d+", cfa) and re.fullmatch(r"u|c[+-]\d+", rbp) and re.fullmatch(r"c[+-]\d+", ra)
        return False if plain else None
    if ours[1] == "undefined":
        ours = (ours[0], "u", ours[2])
    return ours == (cfa, rbp, ra)


def check(program, path):
    theirs, ours = readelf_rows(path), our_rows(program, path)
    different, unsupported = [], 0
    # readelf prints a row where an advance of 0 bytes changes nothing more; addresses are what counts.
    for key, value in theirs.items():
        mine = ours.get(key)
        same = False if mine is None else equal(mine, value)
        if same is None:
            unsupported += 1
        elif not same:
            different.append((key, value, mine))
    extra = [key for key in ours if key not in theirs]
    print(f"{path}: {len(theirs)} rows, {len(different)} different, {len(extra)} only here, {unsupported} unsupported")
    for key, value, mine in different[:5]:
        print(f"  {key[0]} {key[1]:x} at {key[2]:x}: readelf {value}, here {mine}")
    for key in extra[:5]:
        print(f"  {key[0]} {key[1]:x} at {key[2]:x}: only here")
    ok = theirs and not different and not extra and unsupported <= UNSUPPORTED_SHARE_MAX * len(theirs)
    table = subprocess.run([program, "--table", path], capture_output=True, text=True, check=True).stdout
    print(f"  {table.strip()}")
    if " different=0 " not in table:
        ok = False
    return bool(ok)


def main():
    program = os.path.join(os.environ["CAIRN_BINARY_DIR"], "tests/agent/unwind-rows")
    files = MUST + [path for path in MAY + rust_libraries() if os.path.exists(path)] + sys.argv[1:]
    results = [check(program, path) for path in files]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
