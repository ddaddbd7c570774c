# SPDX-License-Identifier: Apache-2.0
"""A kernel's debug package by the release that agents say, out of a repository made here."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
from repository import *  # noqa: E402,F403
import otlp_encode  # noqa: E402


class KernelRelease(RepositoryTest):
    def kernel_packages(self, name="linux-image-6.1.0-9-test-dbg", release="6.1.0-9-test"):
        """A kernel's debug package: no Build-Ids, and files that no build ID names."""
        kernel = os.path.join(BINARY_DIR, "fixtures-kernel")
        return build_id(os.path.join(kernel, "vmlinux")), self.make_package(
            name, "usr/lib/debug/boot/vmlinux-" + release, os.path.join(kernel, "vmlinux"), "Source: linux\n")

    def send_kernel_frame(self, daemon, kernel_build_id, attributes):
        value = 0x6c62272e07bb014262b821756295c58d
        for digit in kernel_build_id.encode():  # FNV-1a 128, as agents make a kernel's file ID
            value = (value ^ digit) * ((1 << 88) + 0x13b) % (1 << 128)
        mapping = {"name": "vmlinux", "attributes": [("process.executable.build_id.gnu", kernel_build_id),
                                                     ("process.executable.build_id.htlhash", "%032x" % value)]}
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
