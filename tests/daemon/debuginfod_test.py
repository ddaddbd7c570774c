# SPDX-License-Identifier: Apache-2.0
"""Debian's own debuginfod over a folder of packages, on loopback: what it serves is fetched, built and answered."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

if not shutil.which("debuginfod") or not shutil.which("bsdtar"):
    print("debuginfod or bsdtar is not installed (Debian: debuginfod libarchive-tools)", file=sys.stderr)
    sys.exit(77)


def make_package(folder, name, files):
    """A .deb of {path in it: file}."""
    root = os.path.join(folder, name + ".root")
    os.makedirs(os.path.join(root, "DEBIAN"))
    with open(os.path.join(root, "DEBIAN/control"), "w") as file:
        file.write("Package: %s\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n" % name)
    for path, source in files.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        shutil.copy(source, os.path.join(root, path))
    package = os.path.join(folder, "packages", name + "_1_amd64.deb")
    os.makedirs(os.path.dirname(package), exist_ok=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, package], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)


class RealDebuginfod(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cairn-debuginfod-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = compile_sample(self.folder)
        self.id = build_id(self.path)
        stripped, debug = self.path + ".stripped", self.path + ".dbg"
        subprocess.run(["objcopy", "--strip-all", self.path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", self.path, debug], check=True)
        self.file_id = file_id(read(stripped))
        make_package(self.folder, "sample", {"usr/bin/sample": stripped})
        make_package(self.folder, "sample-dbgsym", {"usr/lib/debug/.build-id/%s/%s.debug" % (self.id[:2], self.id[2:]): debug})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DEBUGINFOD")}
        environment["HOME"] = self.folder
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.server = subprocess.Popen(["debuginfod", "-p", str(self.port), "-d", os.path.join(self.folder, "db"), "-U",
                                        os.path.join(self.folder, "packages")], stdout=self.log, stderr=self.log, env=environment)
        self.addCleanup(self.stop_server)
        self.wait_for_scan()

    def stop_server(self):
        self.server.terminate()
        self.server.wait()
        self.log.close()

    def wait_for_scan(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                opener.open("http://127.0.0.1:%d/buildid/%s/debuginfo" % (self.port, self.id)).read()
                opener.open("http://127.0.0.1:%d/buildid/%s/executable" % (self.port, self.id)).read()
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        self.fail("debuginfod found nothing: " + read(self.log.name).decode(errors="replace"))

    def test_symbols_of_a_package_come_through_it(self):
        addresses = text_addresses(self.path, 100)
        url = "http://127.0.0.1:%d" % self.port
        with Cairnd("--sources.debuginfod", url, "--sources.directories", "/nonexistent") as daemon:
            module = daemon.symbolize({"modules": [{"build_id": self.id, "addresses": addresses}], "wait_ms": 60000})[0]
            self.assertEqual(module["status"], "ok", module)
            self.assertEqual([chain(r) for r in module["results"]], oracle(self.path, addresses))
            self.assertEqual(module["symbols"]["source"], "debuginfod")
            module = daemon.symbolize({"modules": [{"file_id": self.file_id, "addresses": addresses}]})[0]
            self.assertEqual(module["status"], "ok", module)
            nobody = daemon.symbolize({"modules": [{"build_id": "ab" * 20, "addresses": [1]}], "wait_ms": 60000})[0]
            self.assertEqual(nobody["status"], "unknown")
            self.assertIn("404", nobody["reason"])


if __name__ == "__main__":
    unittest.main(verbosity=1)
