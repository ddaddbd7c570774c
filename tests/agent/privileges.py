#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent with one capability less each, and as nobody with just those that it asks for: what is missing is said in a line.

Skipped (77) where it may not run at all.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import live

BIN = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin")
NEEDED = ["bpf", "perfmon", "sys_ptrace"]
WISHED = ["checkpoint_restore", "dac_read_search", "syslog"]


def run(folder, names, nobody):
    """Exit status, standard error of a short window with exactly these capabilities."""
    some = ",".join(["-all"] + ["+" + name for name in names])
    who = ["--reuid=65534", "--regid=65534", "--clear-groups"] if nobody else []
    out = subprocess.run(["setpriv", *who, f"--inh-caps={some}", f"--ambient-caps={some}", f"--bounding-set={some}", os.path.join(folder, "cairn-agent"),
                          "--once", "300ms", "-o", os.path.join(folder, "out")], capture_output=True, text=True, check=False, timeout=120, cwd=folder)
    return out.returncode, out.stderr


def main():
    if os.geteuid() != 0:
        print("skipped: only root can take capabilities away")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        for name in ("cairn-agent", "cairn-unwind"):
            shutil.copy(os.path.join(BIN, name), folder)
        code, text = run(folder, NEEDED + WISHED, True)
        if code != 0 and re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied|setpriv", text):
            print(f"skipped: {text.strip()}")
            return 77
        ok = live.check(code == 0 and "warn privilege" not in text, f"nobody with {' '.join(NEEDED + WISHED)}: exit {code}")
        for name in NEEDED:
            code, text = run(folder, [other for other in NEEDED + WISHED if other != name], False)
            ok &= live.check(code == 1 and text.count("\n") == 1 and f"CAP_{name.upper()} (" in text, f"without {name}: {text.strip()}")
        for name in WISHED:
            os.path.exists(os.path.join(folder, "out")) and os.unlink(os.path.join(folder, "out"))
            code, text = run(folder, [other for other in NEEDED + WISHED if other != name], True)
            ok &= live.check(code == 0 and f"CAP_{name.upper()} is missing" in text, f"without {name} it runs, and says what it cannot do: exit {code}")
        code, text = run(folder, [], True)
        ok &= live.check(code == 1 and all(f"CAP_{name.upper()}" in text for name in NEEDED), f"without any: {text.strip()}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
