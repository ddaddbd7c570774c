#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stripped Go programs (fixtures/go): our chains against the recorded ones, all of them. go_truth.py CAIRN FIXTURES_GO"""
import glob
import json
import lzma
import os
import re
import subprocess
import sys
import tempfile


def chains(cairn, binary, addresses):
    with tempfile.TemporaryDirectory() as folder:
        path, table = os.path.join(folder, "binary"), os.path.join(folder, "table")
        with open(path, "wb") as out:
            out.write(binary)
        subprocess.run([cairn, "table", "build", path, "-o", table], check=True, capture_output=True)
        answer = subprocess.run([cairn, "table", "lookup", "--demangle", "none", table], input="".join(a + "\n" for a in addresses),
                                check=True, capture_output=True, text=True).stdout
        # The reference reads no .gopclntab: that is no difference.
        verified = subprocess.run([cairn, "verify", path], check=False, capture_output=True, text=True)
        assert verified.returncode == 0 and re.search(r"^go: [1-9]", verified.stdout, re.MULTILINE), (verified.stdout, verified.stderr)
    return [[part for f in json.loads(line)["frames"] for part in (f["symbol"], f"{f.get('file', '?')}:{f.get('line', 0)}")]
            for line in answer.splitlines()]


def main():
    cairn, folder = sys.argv[1:3]
    total = bad = inlined = 0
    for truth in sorted(glob.glob(os.path.join(folder, "*.truth"))):
        with open(truth) as lines:
            wanted = [line.rstrip("\n").split("\t") for line in lines]
        with lzma.open(truth.removesuffix(".truth") + ".xz") as packed:
            binary = packed.read()
        assert b".symtab\0" not in binary and b".debug_info\0" not in binary, truth
        ours = chains(cairn, binary, [line[0] for line in wanted])
        assert len(ours) == len(wanted), truth
        for line, mine in zip(wanted, ours):
            total += 1
            inlined += len(line) > 3
            if line[1:] != mine:
                bad += 1
                if bad <= 5:
                    print(f"{truth}: {line[0]}: ours {mine}\n    recorded {line[1:]}")
    print(f"{total} addresses, {inlined} in inlined calls, {bad} differences")
    sys.exit(1 if bad or inlined < 500 else 0)


if __name__ == "__main__":
    main()
