#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent --protocol otlp to a cairnd: samples of a stripped program arrive, and have names once its symbols are uploaded.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import live

BIN = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def agent(*arguments):
    run = subprocess.run([os.path.join(BIN, "cairn-agent"), "--protocol", "otlp", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if run.returncode == 1 and re.search(r"missing capabilities|this kernel|Operation not permitted|Permission denied", run.stderr):
        print(f"skipped: {run.stderr.strip()}")
        sys.exit(77)
    return run


def start_daemon(folder, http, grpc):
    daemon = subprocess.Popen([os.path.join(BIN, "cairnd"), "--data-dir", os.path.join(folder, "data"), "--http", f"127.0.0.1:{http}",
                               "--grpc", f"127.0.0.1:{grpc}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=5).read()
            return daemon
        except OSError:
            time.sleep(0.1)
    daemon.kill()
    raise AssertionError("cairnd does not become ready")


def folded(http):
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/v1/profiles?format=folded", timeout=30) as answer:
        return answer.read().decode().splitlines()


def samples_of(http):
    """Of the program without names."""
    return sum(int(line.rsplit(" ", 1)[1]) for line in folded(http) if "stacks-bare+0x" in line)


def stop(process, number=signal.SIGKILL):
    process.send_signal(number)
    return process.wait(timeout=30)


def check_samples(folder, http, grpc):
    full = live.build(folder, "stacks-full", "gcc", "-g", "-O2", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls", "-Wl,--build-id")
    stripped = os.path.join(folder, "stacks-bare")
    subprocess.run(["strip", "-o", stripped, full], check=True)
    daemon = start_daemon(folder, http, grpc)
    program = subprocess.Popen([stripped, "plt", "spin"])
    try:
        time.sleep(0.3)
        once = agent("--collector", f"127.0.0.1:{grpc}", "--once", "2s", "--pid", str(program.pid), "--samples-per-second", "100")
        ok = live.check(once.returncode == 0, f"one window is sent: {once.stderr.strip()[-300:]}")
        mine = [line for line in folded(http) if "stacks-bare+0x" in line]
        ok &= live.check(len(mine) > 0, f"{len(mine)} stacks arrived without names")
        first = samples_of(http)
        # A running agent sends what it has when it is told to end.
        running = subprocess.Popen([os.path.join(BIN, "cairn-agent"), "--protocol", "otlp", "--collector", f"127.0.0.1:{grpc}", "--pid",
                                    str(program.pid), "--samples-per-second", "100"], stderr=subprocess.DEVNULL)
        for _ in range(600):
            if samples_of(http) > first:
                break
            time.sleep(0.2)
        ok &= live.check(stop(running, signal.SIGTERM) == 0, "SIGTERM ends it with 0")
        # The server is restarted between samples and symbols.
        stop(daemon, signal.SIGTERM)
        daemon = start_daemon(folder, http, grpc)
        upload = subprocess.run([os.path.join(BIN, "upload-symbols"), "--url", f"http://127.0.0.1:{http}", "--wait", "--debug", full, stripped],
                                capture_output=True, text=True, check=False, timeout=120)
        ok &= live.check(upload.returncode == 0, f"symbols are uploaded {upload.stderr.strip()[-200:]}")
        lines = folded(http)
        named = [line for line in lines if re.search(r"main;plt;.*compare;bottom", line)]
        bare = [line for line in lines if "stacks-bare+0x" in line and not re.search(r"_start|main", line)]
        ok &= live.check(len(named) > 0 and not bare, f"{len(named)} stacks have names, {len(bare)} have none")
        total = sum(int(line.rsplit(" ", 1)[1]) for line in named)
        ok &= live.check(total > first, f"all windows are there: {total} samples, {first} of them of the first")
    finally:
        stop(program)
        stop(daemon, signal.SIGTERM)
    return ok


def check_away(grpc):
    """Nobody listens."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        away = agent("--collector", f"127.0.0.1:{grpc}", "--once", "1s", "--pid", str(busy.pid), "--samples-per-second", "100")
    finally:
        stop(busy)
    last = away.stderr.splitlines()[-1:]
    return live.check(away.returncode == 1 and re.fullmatch(r"cairn-agent: \d+ samples are lost: 127\.0\.0\.1:\d+: Connection refused", last[0]), f"nobody listens: {last}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        http, grpc = free_port(), free_port()
        ok = check_away(grpc)
        ok &= check_samples(folder, http, grpc)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
