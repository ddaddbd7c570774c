#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Containers and pods as cairn-agent sees them on this machine: programs in cgroups (version 1 and 2) with the paths that docker and
Kubernetes give them, one in a root with the downward API's files. Their labels at a cairnd, and the agent's filters by them.

Skipped (77) where no cgroup can be made, or with the agent's own words where it is not permitted to run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

import live
from otlp_live import free_port, start_daemon, stop
from stream_live import Agent, total

POD_UID = "5d1a8c7e-0b3f-4e2d-9a6c-1f2e3d4c5b6a"


def mounts(kind):
    with open("/proc/mounts", encoding="utf-8") as file:
        return [fields[1] for fields in (line.split() for line in file) if fields[2] == kind]


class Cgroup:
    """A cgroup below one of the machine's hierarchies, for as long as it lasts; made with the folders on the way to it."""

    def __init__(self, top, path):
        self.folders = []
        for name in path.split("/"):
            top = os.path.join(top, name)
            if not os.path.isdir(top):
                os.mkdir(top)
                self.folders.append(top)
        self.path = top

    def take(self, pid):
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(pid))

    def remove(self):
        for folder in reversed(self.folders):
            try:
                os.rmdir(folder)
            except OSError as error:
                print(f"        {folder}: {error.strerror}")


def make_cgroup(kind, path):
    """None where that is not permitted, with the reason told."""
    reason = "not mounted"
    for top in mounts(kind):
        try:
            return Cgroup(top, path)
        except OSError as error:
            reason = f"{top}: {error.strerror}"
    print(f"        {kind}: {reason}")
    return None


def make_root(folder, static):
    """A root with the downward API's files, as the kubelet lays them out."""
    root = os.path.join(folder, "root")
    info = os.path.join(root, "etc/podinfo")
    os.makedirs(os.path.join(info, "..2026_11_21"))
    os.makedirs(os.path.join(root, "bin"))
    shutil.copy(static, os.path.join(root, "bin/web"))
    os.symlink("..2026_11_21", os.path.join(info, "..data"))
    for name, text in (("name", "web-7f"), ("namespace", "shop"), ("labels", 'app="web"\ntier="front"\n')):
        with open(os.path.join(info, "..2026_11_21", name), "w", encoding="ascii") as file:
            file.write(text)
        os.symlink(f"..data/{name}", os.path.join(info, name))
    return root


def check_labels(http, grpc, pids, expected):
    agent = Agent("--collector", f"127.0.0.1:{grpc}", "--once", "2s", "--pid", ",".join(map(str, pids)), "--samples-per-second", "200")
    agent.wait_line(" start ")
    code, _ = agent.end()
    ok = live.check(code == 0, f"a window of {len(pids)} programs, exit {code}")
    for pid, labels in expected.items():
        mine = total(http, filter=f"process.pid={pid}")
        for label in labels:
            found = total(http, filter=label)
            ok &= live.check(0 < mine == found, f"{label}: {found} samples, of the program {mine}")
    return ok


def check_filter(pids, flags, wanted, folder):
    """Only samples of the program wanted are kept: those left out are counted, and the record has one PID's."""
    agent = Agent("--record", os.path.join(folder, "record"), "--once", "1500ms", "--pid", ",".join(map(str, pids)), "--samples-per-second", "200", *flags)
    agent.wait_line(" start ")
    code, events = agent.end()
    kept, out = int(events["collector"]["samples"]), int(events["samples"]["not_asked_for"])
    return live.check(code == 0 and kept > 0 and out > 0, f"{' '.join(flags)}: {kept} samples kept, {out} left out") & check_kept(folder, wanted)


def check_kept(folder, wanted):
    """Replays the record into a cairnd of its own."""
    http, grpc = free_port(), free_port()
    data = tempfile.mkdtemp(dir=folder)
    daemon = start_daemon(data, http, grpc)
    try:
        load = os.path.join(os.environ["CAIRN_BINARY_DIR"], "bin/load")
        subprocess.run([load, "--replay", os.path.join(folder, "record"), "--address", f"127.0.0.1:{grpc}"], check=True, capture_output=True)
        everything, mine = total(http), total(http, filter=f"process.pid={wanted}")
        return live.check(0 < mine == everything, f"        {mine} of {everything} are of the program that was asked for")
    finally:
        stop(daemon, signal.SIGTERM)


def main():
    if os.geteuid() != 0:
        print("skipped: only root makes cgroups")
        return 77
    docker_id, pod_id = os.urandom(32).hex(), os.urandom(32).hex()
    slices = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + POD_UID.replace("-", "_") + ".slice"
    groups = [make_cgroup("cgroup", f"docker/{docker_id}"), make_cgroup("cgroup2", f"{slices}/cri-containerd-{pod_id}.scope")]
    if not any(groups):
        print("skipped: no cgroup can be made here")
        return 77
    programs = []
    with tempfile.TemporaryDirectory() as folder:
        static = live.build(folder, "static", "gcc", "-O2", "-static", "-Wl,--build-id")
        root = make_root(folder, static)
        http, grpc = free_port(), free_port()
        daemon = start_daemon(folder, http, grpc)
        try:
            programs = [subprocess.Popen(command) for command in
                        ([static, "leaf", "spin"], ["chroot", root, "/bin/web", "leaf", "spin"], [static, "leaf", "spin"])]
            for group, program in zip(groups, programs):
                if group:
                    group.take(program.pid)
            pids = [program.pid for program in programs]
            expected, filters = {}, []
            if groups[0]:
                expected[pids[0]] = [f"container.id={docker_id}", "container.runtime.name=docker"]
                filters += [(["--container", docker_id[:12]], pids[0]), (["--with-label", "container.runtime.name=dock*"], pids[0])]
            if groups[1]:
                expected[pids[1]] = [f"container.id={pod_id}", "container.runtime.name=containerd", f"k8s.pod.uid={POD_UID}", "k8s.pod.name=web-7f",
                                     "k8s.namespace.name=shop", "k8s.pod.label.app=web", "k8s.pod.label.tier=front"]
                filters += [(["--container", pod_id], pids[1]), (["--with-label", "k8s.pod.label.tier=front"], pids[1])]
            ok = check_labels(http, grpc, pids, expected)
            for flags, wanted in filters:
                ok &= check_filter(pids, flags, wanted, folder)
        finally:
            for program in programs:
                stop(program)
            stop(daemon, signal.SIGTERM)
            for group in groups:
                if group:
                    group.remove()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
