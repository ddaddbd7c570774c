#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Samples by the agent's stream and by OTLP while cairnd is killed with SIGKILL again and again: in the end the totals are exactly what the
client was told, nothing is lost and nothing counted twice; the peak of cairnd's memory is printed.

CAIRN_SAMPLES says how many (200000), CAIRN_KILLS how often (8), CAIRN_SEED repeats a run; the full run is 1000000 and 20.
"""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

SAMPLES = int(os.environ.get("CAIRN_SAMPLES", "200000"))
KILLS = int(os.environ.get("CAIRN_KILLS", "8"))
SEED = int(os.environ.get("CAIRN_SEED", str(int(time.time()))))
LOAD = os.path.join(BINARY_DIR, "bin", "load")
TOTAL = os.path.join(BINARY_DIR, "bin", "samples_total")
SECONDS = float(os.environ.get("CAIRN_SECONDS", "12"))  # that the load takes without kills


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def peak(daemon):
    with open("/proc/%d/status" % daemon.process.pid) as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1)) * 1024


def run(protocol, rng):
    # The port stays the same over all restarts: the client only knows it.
    daemon = Cairnd("--log.level", "warn", "--grpc", "127.0.0.1:%d" % free_port())
    daemon.start()
    try:
        load = subprocess.Popen([LOAD, "--address", "127.0.0.1:%d" % daemon.grpc_port, "--protocol", protocol, "--samples", str(SAMPLES),
                                 "--rate", str(int(SAMPLES / SECONDS)), "--seed", str(SEED), "--report-ms", "1000", "--gzip", "1"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        peaks, kills, began = [], 0, time.monotonic()
        # The load's rate makes it last at least SECONDS: all kills fall before its end.
        for moment in sorted(rng.uniform(0.05, 0.8) * SECONDS for _ in range(KILLS)):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            if load.poll() is not None:
                break
            peaks.append(peak(daemon))
            daemon.kill()
            kills += 1
            daemon.start()
        out, err = load.communicate(timeout=300)
        assert load.returncode == 0, (out, err, daemon.stderr())
        told = dict(line.split("=") for line in out.splitlines())
        peaks.append(peak(daemon))
        assert daemon.stop() == 0, daemon.stderr()
        total = subprocess.run([TOTAL, os.path.join(daemon.data_dir, "data")], capture_output=True, text=True, check=True).stdout
        print(protocol, out.replace("\n", " "))
        print("stored:", total.strip(), "kills:", kills, "peak of cairnd: %.1f MB" % (max(peaks) / 1e6))
        assert kills == KILLS, "only %d kills: the load was over" % kills
        assert int(told["acknowledged"]) == SAMPLES, told
        assert int(told["rejected_future"]) == int(told["rejected_old"]) == 0, told
        lines = total.split()
        assert len(lines) == 2 and lines[0] == "samples:count:cpu:nanoseconds:50000000", total
        assert int(lines[1]) == SAMPLES, "%s were acknowledged, %s are stored" % (told["acknowledged"], lines[1])
    finally:
        if daemon.process:
            daemon.kill()
    shutil.rmtree(daemon.data_dir)


def main():
    print("seed %d, %d samples, %d kills" % (SEED, SAMPLES, KILLS))
    rng = random.Random(SEED)
    for protocol in sys.argv[1:]:
        run(protocol, rng)


if __name__ == "__main__":
    main()
