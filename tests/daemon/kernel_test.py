#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kernel frames as agents send them, from the upload of a kernel to the profile: fixtures/kernel's tiny kernel and module.

Truth: llvm-symbolizer on vmlinux, and on module.linked, which has the layout of a loaded module; file IDs by FNV-1a computed here."""
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
try:
    import grpc  # noqa: F401
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)
from agent_client import *  # noqa: E402,F403
import otlp_encode  # noqa: E402

KERNEL = os.path.join(BINARY_DIR, "fixtures-kernel")
UPLOAD = os.path.join(BINARY_DIR, "bin", "upload-symbols")
PATH = "/v1development/profiles"
TYPE = "profile.frame.type"


def fixture(name):
    return os.path.join(KERNEL, name)


def kernel_id(build_id_hex):
    """What agents send for a kernel: FNV-1a 128 over the build ID's hex digits."""
    value = 0x6c62272e07bb014262b821756295c58d
    for digit in build_id_hex.encode():
        value = (value ^ digit) * ((1 << 88) + 0x13b) % (1 << 128)
    return "%032x" % value


def code(path):
    """Every address of the functions of vmlinux.c and module.c."""
    out = subprocess.run(["nm", "-n", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    symbols = [line.split() for line in out.splitlines()]
    found = []
    for (low, kind, name), (high, _, _) in zip(symbols, symbols[1:]):
        if kind in "tT" and re.match("tiny_|do_softirq|startup_64|kernel_log", name):
            found += range(int(low, 16), min(int(high, 16), int(low, 16) + 200))
    return found[::3]


def symbol(path, name):
    out = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in out.splitlines() if line.split()[-1] == name)


class Image:
    """A kernel or module: its name, IDs, where its text is linked, and truth by address."""

    def __init__(self, name, file, oracle_file, text):
        self.name, self.build_id, self.text = name, build_id(fixture(file)), text
        self.file_id = kernel_id(self.build_id)
        self.addresses = code(fixture(oracle_file))
        # The outermost name is llvm-symbolizer's by ELF symbol, whose .cold part is the function to us.
        self.chains = [[(f[0].removesuffix(".cold"), *f[1:]) for f in c] for c in oracle(fixture(oracle_file), self.addresses)]
        padding = [i for i, c in enumerate(self.chains) if not c[0][0]]  # between functions
        for i in reversed(padding):
            del self.addresses[i], self.chains[i]

    def stacks(self):
        out = {}
        for c in self.chains:
            stack = ";".join(f[0] for f in reversed(c))
            out[stack] = out.get(stack, 0) + 1
        return out


VMLINUX = Image("vmlinux", "vmlinux", "vmlinux", symbol(fixture("vmlinux"), "_text"))
MODULE = Image("tiny", "module.ko", "module.linked", 0)


def otlp(image, ids=("htlhash", "gnu")):
    attributes = [("process.executable.build_id." + kind, {"htlhash": image.file_id, "gnu": image.build_id}[kind]) for kind in ids]
    start = time.time_ns() - 10**9
    samples_ = [{"frames": [{"mapping": {"name": image.name, "attributes": attributes}, "address": a - image.text,
                             "attributes": [(TYPE, "kernel")], "lines": [("from_kallsyms", "", "", 0, 0, 0)]}],
                 "timestamps": [start + i]} for i, a in enumerate(image.addresses)]
    return otlp_encode.encode("1.10", [{"attributes": [("service.name", "shop")], "profiles": [
        {"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"), "period": 50000000, "time": time.time_ns(),
         "duration": 10**9, "samples": samples_}]}])


def stream(image, with_build_id=True):
    """The same by our own agent's messages."""
    count = len(image.addresses)
    steps = [a - b for a, b in zip(image.addresses, [image.text] + image.addresses)]
    d = pb.Definitions(first_string=1, strings=["web", "main", "from_kallsyms"], first_frame=1, frame_kind=[1] * count,
                       frame_executable=[1] * count, frame_address=steps, first_trace=1, trace_depth=[1] * count,
                       trace_shared=[0] * count, trace_frame=range(1, count + 1), first_thread=1, thread_process=[1], thread_id=[43],
                       thread_name=[2])
    d.executables.add(number=1, file_id=bytes.fromhex(image.file_id), build_id=bytes.fromhex(image.build_id) if with_build_id else b"",
                      name=image.name, kernel=True)
    for frame in range(1, count + 1):
        d.lines.add(frame=frame, function=3)
    d.processes.add(number=1, pid=42, service=1)
    d.types.add(number=1, type="samples", unit="count", period_type="cpu", period_unit="nanoseconds", period=50000000)
    return [hello(), pb.AgentEnvelope(definitions=d), samples(1, count, trace=range(1, count + 1))]


def upload(daemon, *paths, status=0):
    run = subprocess.run([UPLOAD, "--url", "http://127.0.0.1:%d" % daemon.port, "--wait", *map(fixture, paths)], capture_output=True, text=True)
    assert run.returncode == status, run.stdout + run.stderr
    return run.stdout + run.stderr


def shown(daemon):
    out = subprocess.run([CAIRN, "profile", "--url", "http://127.0.0.1:%d" % daemon.port], check=True, capture_output=True, text=True).stdout
    return {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in out.splitlines()}


def leaves(node, out):
    """{(function, file, line, inlined)} of a flame graph's tree."""
    out.add((node.get("name"), node.get("file", ""), node.get("line", 0), node.get("inlined", False)))
    for child in node.get("children", []):
        leaves(child, out)
    return out


class KernelFrames(unittest.TestCase):
    def setUp(self):
        self.daemon = Cairnd()
        self.daemon.start()
        self.addCleanup(self.daemon.__exit__)

    def send(self, message):
        answer = self.daemon.request("POST", PATH, message, {"Content-Type": "application/x-protobuf"})
        self.assertEqual((answer.status, answer.body), (200, b""))

    def stream(self, *envelopes):
        call = Stream(self.daemon.grpc_port)
        call.send(*envelopes)
        self.assertEqual(list(call.take("acknowledgement").sequences), [1])
        call.end()

    def check_places(self, image):
        tree = self.daemon.get("/v1/profiles?format=json").json
        seen = {(name, line) for name, _, line, _ in leaves(tree, set())}
        files = {file for _, file, _, _ in leaves(tree, set()) if file}
        self.assertTrue(files and all(f in ("/fixtures/module.c", "/fixtures/vmlinux.c") for f in files), files)
        self.assertTrue(any(inlined for _, _, _, inlined in leaves(tree, set())))
        for chain_ in image.chains:
            self.assertIn(chain_[0][0], {name for name, _ in seen})

    def test_a_kernel_by_otlp_with_both_ids_and_each_alone(self):
        upload(self.daemon, "vmlinux")
        for ids in (("htlhash", "gnu"), ("htlhash",), ("gnu",)):
            self.send(otlp(VMLINUX, ids))
        self.assertEqual(shown(self.daemon), {stack: 3 * n for stack, n in VMLINUX.stacks().items()})
        self.assertTrue(any(";" in stack for stack in VMLINUX.stacks()), "no inlined call is in it")
        self.check_places(VMLINUX)

    def test_a_module_by_otlp_packed_and_with_its_debug_file(self):
        self.assertIn("2 sent", upload(self.daemon, "module-stripped.ko.xz", "module.ko.debug"))
        for ids in (("htlhash",), ("gnu",)):
            self.send(otlp(MODULE, ids))
        self.assertEqual(shown(self.daemon), {stack: 2 * n for stack, n in MODULE.stacks().items()})
        self.check_places(MODULE)

    def test_the_agents_own_stream(self):
        upload(self.daemon, "vmlinux", "module.ko")
        self.stream(*stream(VMLINUX))
        self.assertEqual(shown(self.daemon), VMLINUX.stacks())

    def test_the_agents_own_stream_a_module_by_its_file_id_alone(self):
        upload(self.daemon, "module.ko")
        self.stream(*stream(MODULE, with_build_id=False))
        self.assertEqual(shown(self.daemon), MODULE.stacks())

    def test_names_of_the_sender_give_way_when_symbols_come(self):
        self.send(otlp(VMLINUX))
        self.assertEqual(shown(self.daemon), {"from_kallsyms": len(VMLINUX.addresses)})
        self.assertIn("looks stripped", upload(self.daemon, "vmlinuz-zstd"))
        self.assertEqual(shown(self.daemon), {"from_kallsyms": len(VMLINUX.addresses)})
        file = self.daemon.get("/v1/files/" + VMLINUX.file_id).json
        self.assertEqual((file["build_id"], file["kernel_text"]), (VMLINUX.build_id, hex(VMLINUX.text)))
        upload(self.daemon, "vmlinux")
        self.assertEqual(shown(self.daemon), VMLINUX.stacks())

    def test_addresses_as_linked_under_the_kernels_id(self):
        upload(self.daemon, "vmlinuz-lz4", "vmlinux")
        answer = self.daemon.symbolize({"modules": [{"file_id": VMLINUX.file_id, "addresses": [hex(a) for a in VMLINUX.addresses]}]})[0]
        self.assertEqual([chain(result) for result in answer["results"]], VMLINUX.chains)

    def test_a_debug_file_alone_makes_the_kernels_id_known(self):
        upload(self.daemon, "module.ko.debug")
        self.send(otlp(MODULE, ("htlhash",)))
        self.assertEqual(shown(self.daemon), MODULE.stacks())

    def test_packages_as_distributions_make_them(self):
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "root")
            places = {"vmlinuz-xz": "boot/vmlinuz-6.1.0", "module-stripped.ko.zst": "lib/modules/6.1.0/kernel/net/tiny.ko.zst",
                      "vmlinux": "usr/lib/debug/boot/vmlinux-6.1.0", "module.ko": "usr/lib/debug/lib/modules/6.1.0/kernel/net/tiny.ko",
                      "Image.gz": "boot/Image.gz"}
            os.makedirs(os.path.join(root, "DEBIAN"))
            with open(os.path.join(root, "DEBIAN/control"), "w") as file:
                file.write("Package: linux-image\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n")
            for name, place in places.items():
                to = os.path.join(root, place)
                os.makedirs(os.path.dirname(to), exist_ok=True)
                with open(to, "wb") as file:
                    file.write(read(fixture(name)))
            package = os.path.join(folder, "linux-image.deb")
            subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, package], check=True, capture_output=True)
            upload(self.daemon, package)
        for image in (VMLINUX, MODULE):
            self.send(otlp(image, ("htlhash",)))
        wanted = VMLINUX.stacks()
        for stack, count in MODULE.stacks().items():
            wanted[stack] = wanted.get(stack, 0) + count
        self.assertEqual(shown(self.daemon), wanted)

    def test_what_lies_packed_and_is_no_kernel_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "program.xz")
            with open(path, "wb") as out:
                subprocess.run(["xz", "-c", CAIRND], stdout=out, check=True)
            self.assertIn("neither a Linux kernel nor a module", upload(self.daemon, path, status=1))
            job = self.daemon.upload(read(path))  # a client that does not look
            self.assertIn("neither a Linux kernel nor a module", self.daemon.wait_job(job["job_id"])["reason"])


if __name__ == "__main__":
    unittest.main()
