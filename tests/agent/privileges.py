#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent with one capability less each, and as nobody with just those that it asks for: what is missing is said in a line.
So is what this kernel or this machine cannot do, before anything is sampled.

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


# What cannot be, and the line that says so at the start; {} is the folder.
CANNOT = [
    (["--once", "300ms", "-o", "{}/out", "--no-btf", "--off-cpu-threshold", "1"], r"off-CPU profiling needs the kernel's BTF \(.+\)"),
    (["--once", "300ms", "-o", "{}/out", "--uprobe", "/nonexistent:f"], r"probe /nonexistent:f: No such file or directory"),
    (["--once", "300ms", "-o", "{}/out", "--uprobe", "{}/cairn-agent:no_such_function"], r"probe .+: no such function in it, or this kernel has no uprobes \(CONFIG_UPROBE_EVENTS\)"),
    (["--once", "300ms", "-o", "{}/out", "--uprobe", "nonsense"], r"probe nonsense: neither PATH:SYMBOL nor PATH\+0xOFFSET"),
    (["--once", "1h", "-o", "{}/none/out"], r".+/none/out: No such file or directory"),
    (["--once", "1h", "--record", "{}/none/out"], r".+/none/out: No such file or directory"),
    (["--spool", "{}/none/spool"], r".+/none/spool: No such file or directory"),
    (["--protocol", "otlp", "--spool", "{}/none/spool"], r".+/none/spool: No such file or directory"),
    (["--collector", "nonsense"], r"'nonsense': not of the form host:port or \[v6\]:port"),
    (["--protocol", "otlp", "--collector", "h:99999"], r"'h:99999': not of the form host:port or \[v6\]:port"),
    (["--tls-ca", "{}/none.pem"], r"tls: .*none\.pem.*"),
    (["--upload-symbols", "--upload-program", "{}/none"], r".+/none, which --upload-symbols needs: No such file or directory"),
]


def check_messages(folder):
    ok = True
    for flags, words in CANNOT:
        out = subprocess.run([os.path.join(folder, "cairn-agent"), *(flag.replace("{}", folder) for flag in flags)], capture_output=True, text=True, check=False, timeout=120)
        last = out.stderr.splitlines()[-1:] or [""]
        ok &= live.check(out.returncode == 1 and re.fullmatch("cairn-agent: " + words, last[0]) and " start " not in out.stderr, f"{' '.join(flags[-2:])}: {last[0]}")
    lonely = os.path.join(folder, "lonely")
    os.mkdir(lonely)
    shutil.copy(os.path.join(BIN, "cairn-agent"), lonely)
    out = subprocess.run([os.path.join(lonely, "cairn-agent"), "--once", "300ms", "-o", os.path.join(folder, "out")], capture_output=True, text=True, check=False, timeout=120)
    return ok & live.check(out.returncode == 1 and re.search(r"^cairn-agent: .+/cairn-unwind, which makes unwind tables: No such file or directory$", out.stderr, re.M),
                           f"without its helper: {out.stderr.strip()[-200:]}")


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
        ok &= check_messages(folder)
        code, text = run(folder, [], True)
        ok &= live.check(code == 1 and all(f"CAP_{name.upper()}" in text for name in NEEDED), f"without any: {text.strip()}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
