# SPDX-License-Identifier: Apache-2.0
"""A kernel's debug package by the release that agents say, out of a repository made here."""
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
from repository import *  # noqa: E402,F403
import otlp_encode  # noqa: E402


KERNEL = os.path.join(BINARY_DIR, "fixtures-kernel")
VMLINUX, MODULE = os.path.join(KERNEL, "vmlinux"), os.path.join(KERNEL, "module.ko")


def kernel_file_id(kernel_build_id):
    """FNV-1a 128 over the build ID's digits, as agents make a kernel's file ID."""
    value = 0x6c62272e07bb014262b821756295c58d
    for digit in kernel_build_id.encode():
        value = (value ^ digit) * ((1 << 88) + 0x13b) % (1 << 128)
    return "%032x" % value


class KernelRelease(RepositoryTest):
    def kernel_packages(self, name="linux-image-6.1.0-9-test-dbg", release="6.1.0-9-test"):
        """A kernel's debug package, and a module in it: no Build-Ids, and files that no build ID names."""
        return build_id(VMLINUX), self.make_package_of(name, {
            "usr/lib/debug/boot/vmlinux-" + release: VMLINUX,
            "usr/lib/debug/lib/modules/%s/kernel/net/tiny.ko" % release: MODULE}, "Source: linux\n")

    def send_kernel_frame(self, daemon, kernel_build_id, attributes):
        mapping = {"name": "vmlinux", "attributes": [("process.executable.build_id.gnu", kernel_build_id),
                                                     ("process.executable.build_id.htlhash", kernel_file_id(kernel_build_id))]}
        sample = {"frames": [{"mapping": mapping, "address": 0, "attributes": [("profile.frame.type", "kernel")]}],
                  "timestamps": [time.time_ns() - 10**9]}
        message = otlp_encode.encode("1.10", [{"attributes": attributes, "profiles": [
            {"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"), "period": 50000000, "time": time.time_ns(),
             "duration": 10**9, "samples": [sample]}]}])
        self.assertEqual(daemon.request("POST", "/v1development/profiles", message, {"Content-Type": "application/x-protobuf"}).status, 200)

    def wait_for_stack(self, daemon, wanted):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            shown = daemon.get("/v1/profiles?format=folded").body.decode()
            if shown == wanted:
                return
            time.sleep(0.1)
        self.fail(shown)

    def test_a_kernel_by_the_release_that_the_sender_says(self):
        kernel_build_id, package = self.kernel_packages()
        self.publish(packages=[package, self.binary])
        daemon = self.daemon()
        self.send_kernel_frame(daemon, kernel_build_id, [("host.name", "h"), ("os.kernel.release", "6.1.0-9-test")])
        self.wait_for_stack(daemon, "startup_64 1\n")
        asked = daemon.get("/v1/files/" + kernel_build_id).json["asked"]
        self.assertTrue(any(a["answer"] == "found" and "linux-image-6.1.0-9-test-dbg 1.0-1" in a["reason"] for a in asked), asked)

    def test_a_kernel_by_the_release_in_the_description_of_its_host(self):
        kernel_build_id, package = self.kernel_packages("linux-image-unsigned-6.1.0-8-test-dbgsym", "6.1.0-8-test")
        self.publish(packages=[package, self.binary])
        daemon = self.daemon()
        self.send_kernel_frame(daemon, kernel_build_id, [("os.description", "Ubuntu 22.04 (Jammy) (Linux h 6.1.0-8-test #1 SMP x86_64)")])
        self.wait_for_stack(daemon, "startup_64 1\n")

    def test_a_kernel_and_then_its_module_by_the_release_that_our_own_agent_says(self):
        try:
            import grpc  # noqa: F401
        except ImportError:
            self.skipTest("python3-grpcio is not installed")
        from agent_client import INSTANCE, Stream, pb, samples
        kernel_build_id, package = self.kernel_packages()
        self.publish(packages=[package, self.binary])
        daemon = self.daemon()
        stream = Stream(daemon.grpc_port)
        self.addCleanup(stream.close)
        stream.send(pb.AgentEnvelope(hello=pb.Hello(instance=INSTANCE, version="test 1", host_name="h1", kernel="6.1.0-9-test", machine="x86_64", cpus=2)))
        stacks = []
        # The module is seen when the kernel is known: the same package, of which by then only what was seen was built.
        for number, (name, file, oracle_file) in enumerate((("vmlinux", VMLINUX, VMLINUX), ("tiny", MODULE, os.path.join(KERNEL, "module.linked"))), 1):
            some_id = build_id(file)
            address, truth = self.first_with_inlined(oracle_file)
            text = self.symbol(VMLINUX, "_text") if name == "vmlinux" else 0
            d = pb.Definitions(first_string=3 * number, strings=[name, "main", "from_kallsyms"], first_frame=number, frame_kind=[1], frame_executable=[number],
                               frame_address=[address - text], first_trace=number, trace_depth=[1], trace_shared=[0], trace_frame=[number],
                               first_thread=number, thread_process=[number], thread_id=[42 + number], thread_name=[3 * number + 1])
            d.executables.add(number=number, file_id=bytes.fromhex(kernel_file_id(some_id)), build_id=bytes.fromhex(some_id), name=name, kernel=True)
            d.lines.add(frame=number, function=3 * number + 2)
            d.processes.add(number=number, pid=41 + number, service=3 * number)
            d.types.add(number=1, type="samples", unit="count", period_type="cpu", period_unit="nanoseconds", period=50000000)
            stream.send(pb.AgentEnvelope(definitions=d), samples(number, 1, thread=[number], trace=[number]))
            self.assertEqual(list(stream.take("acknowledgement").sequences), [number])
            stacks.append(truth)
            self.wait_for_stack(daemon, "".join("%s %d\n" % (s, stacks.count(s)) for s in sorted(set(stacks))))
        self.assertEqual(self.server.asked["/debian/" + package[2]], 1)

    def symbol(self, path, name):
        out = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
        return next(int(line.split()[0], 16) for line in out.splitlines() if line.split()[-1] == name)

    def first_with_inlined(self, path):
        """The first address of a tiny_ function that has an inlined call, and its stack by llvm-symbolizer."""
        out = subprocess.run(["nm", "-n", "--defined-only", path], check=True, capture_output=True, text=True).stdout
        symbols = [line.split() for line in out.splitlines()]
        for (low, _, name), (high, _, _) in zip(symbols, symbols[1:]):
            if not name.startswith("tiny_"):
                continue
            addresses = list(range(int(low, 16), int(high, 16)))
            for address, frames in zip(addresses, oracle(path, addresses)):
                if len(frames) > 1:
                    return address, ";".join(f[0] for f in reversed(frames))
        self.fail("no inlined call in " + path)

    def test_a_kernel_of_another_build_is_not_taken_for_it(self):
        _, package = self.kernel_packages("linux-image-6.1.0-7-test-dbg", "6.1.0-7-test")
        self.publish(packages=[package, self.binary])
        daemon = self.daemon()
        other = "ab" * 20
        self.send_kernel_frame(daemon, other, [("os.kernel.release", "6.1.0-7-test")])
        end = time.monotonic() + 60
        while time.monotonic() < end:
            daemon.get("/v1/profiles?format=folded")
            found = daemon.get("/v1/files/" + other)
            if found.status == 200 and any(job["state"] != "queued" and job["state"] != "running" for job in found.json.get("jobs", [])):
                break
            time.sleep(0.1)
        self.assertEqual(daemon.get("/v1/profiles?format=folded").body.decode(), "vmlinux+0x0 1\n")


if __name__ == "__main__":
    unittest.main()
