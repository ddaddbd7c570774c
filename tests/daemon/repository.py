# SPDX-License-Identifier: Apache-2.0
"""What the tests of package repositories share: a repository made here, with a key made here and -dbgsym packages as debhelper makes them."""
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403
from sources_test import Debuginfod as Server  # noqa: E402: files, counts, a gate

if not shutil.which("gpgv") or not shutil.which("gpg"):
    print("gpgv or gpg is not installed (Debian: gpgv gnupg)", file=sys.stderr)
    sys.exit(77)

PACK = {"": lambda b: b, ".gz": gzip.compress, ".xz": lzma.compress,
        ".lz4": lambda b: subprocess.run(["lz4", "-qc"], input=b, capture_output=True, check=True).stdout,
        ".zst": lambda b: subprocess.run(["zstd", "-qc"], input=b, capture_output=True, check=True).stdout}


def date(offset_s):
    return time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + offset_s))


class RepositoryTest(unittest.TestCase):
    """A key, a program `sample` with its -dbgsym package, a server; publish() makes a repository of packages."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-apt-")
        cls.path = compile_sample(cls.folder)
        cls.id = build_id(cls.path)
        stripped, debug = os.path.join(cls.folder, "stripped"), os.path.join(cls.folder, "debug")
        subprocess.run(["objcopy", "--strip-all", cls.path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", "--compress-debug-sections", cls.path, debug], check=True)
        cls.file_id = file_id(read(stripped))
        cls.addresses = text_addresses(cls.path, 50)
        cls.truth = oracle(cls.path, cls.addresses)
        cls.binary = cls.make_package("sample", "usr/bin/sample", stripped, "")
        cls.dbgsym = cls.make_package("sample-dbgsym", "usr/lib/debug/.build-id/%s/%s.debug" % (cls.id[:2], cls.id[2:]), debug,
                                      "Source: sample\nAuto-Built-Package: debug-symbols\nDepends: sample (= 1.0-1)\nBuild-Ids: %s\n" % cls.id)
        cls.home = os.path.join(cls.folder, "gnupg")
        os.mkdir(cls.home, 0o700)
        cls.gpg("--quick-gen-key", "--passphrase", "", "Test <test@example.org>", "ed25519", "sign", "never")
        cls.keyring = os.path.join(cls.folder, "keyring.gpg")
        with open(cls.keyring, "wb") as file:
            file.write(cls.gpg("--export"))

    @classmethod
    def tearDownClass(cls):
        subprocess.run(["gpgconf", "--homedir", cls.home, "--kill", "all"], check=False)
        shutil.rmtree(cls.folder)

    @classmethod
    def gpg(cls, *arguments, content=None):
        return subprocess.run(["gpg", "--homedir", cls.home, "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments],
                              input=content, capture_output=True, check=True).stdout

    @classmethod
    def make_package(cls, name, path, source, fields, **more):
        return cls.make_package_of(name, {path: source}, fields, **more)

    @classmethod
    def make_package_of(cls, name, files, fields, version="1.0-1", packing="xz"):
        """Of {path in it: file}: its stanza in Packages, its bytes, its name in the pool. With DEBIAN/md5sums, as dh_md5sums makes them."""
        root = tempfile.mkdtemp(dir=cls.folder)
        os.chmod(root, 0o755)
        os.makedirs(os.path.join(root, "DEBIAN"))
        control = "Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x <x@example.org>\n%sDescription: x\n" % (name, version, fields)
        sums = ""
        for path, source in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            shutil.copy(source, os.path.join(root, path))
            sums += "%s  %s\n" % (hashlib.md5(read(source)).hexdigest(), path)
        for member, text in (("control", control), ("md5sums", sums)):
            with open(os.path.join(root, "DEBIAN", member), "w") as file:
                file.write(text)
        package = os.path.join(cls.folder, "%s_%s_amd64.deb" % (name, version))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Z" + packing, "-b", root, package], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(root)
        content = read(package)
        os.unlink(package)
        stanza = control + "Filename: pool/%s\nSize: %d\nSHA256: %s\n" % (
            os.path.basename(package), len(content), hashlib.sha256(content).hexdigest())
        return stanza, content, "pool/" + os.path.basename(package)

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        self.work = tempfile.mkdtemp(prefix="cairn-apt-")
        self.addCleanup(shutil.rmtree, self.work)

    def publish(self, base="debian", suite="stable", packages=None, ending=".xz", by_hash=False, until=86400, damage=None, contents=None, since=-60,
                others=None):
        """Makes the files of a repository. @damage changes the signed Release file, @contents is a Contents index; @others: {architecture: packages}
        beside amd64."""
        packages = [self.binary, self.dbgsym] if packages is None else packages
        index = PACK[ending]("\n".join(stanza for stanza, _, _ in packages).encode())
        digest = hashlib.sha256(index).hexdigest()
        release = "Origin: test\nSuite: %s\nDate: %s\nValid-Until: %s\n%sArchitectures: amd64\nComponents: main\nSHA256:\n %s %d main/binary-amd64/Packages%s\n" % (
            suite, date(since), date(until), "Acquire-By-Hash: yes\n" if by_hash else "", digest, len(index), ending)
        other_files = {}
        for architecture, some in (others or {}).items():
            path, content = "main/binary-%s/Packages%s" % (architecture, ending), PACK[ending]("\n".join(stanza for stanza, _, _ in some).encode())
            release += " %s %d %s\n" % (hashlib.sha256(content).hexdigest(), len(content), path)
            other_files[path] = content
            packages = packages + some
        packed = PACK[ending](contents.encode()) if contents is not None else b""
        if contents is not None:
            release += " %s %d main/Contents-amd64%s\n" % (hashlib.sha256(packed).hexdigest(), len(packed), ending)
        signed = self.gpg("--clearsign", "--digest-algo", "SHA512", "--output", "-", content=release.encode())
        place = "/%s/dists/%s/" % (base, suite)
        files = {place + "InRelease": damage(signed) if damage else signed}
        self.index_path = place + ("main/binary-amd64/by-hash/SHA256/" + digest if by_hash else "main/binary-amd64/Packages" + ending)
        files[self.index_path] = index
        files.update({place + path: content for path, content in other_files.items()})
        if contents is not None:
            files[place + ("main/by-hash/SHA256/" + hashlib.sha256(packed).hexdigest() if by_hash else "main/Contents-amd64" + ending)] = packed
        for _, content, path in packages:
            files["/%s/%s" % (base, path)] = content
        self.server.files.update(files)

    def daemon(self, base="debian", data_dir=None, text=None, name="test.sources", flags=()):
        text = text or "# a comment\nTypes: deb deb-src\nURIs: %s/%s/\nSuites: stable\nComponents: main\nSigned-By: %s\n" % (
            self.server.url, base, self.keyring)
        sources = os.path.join(self.work, name)
        with open(sources, "w") as file:
            file.write(text)
        daemon = Cairnd("--sources.apt", sources, "--sources.directories", "/nonexistent", *flags, data_dir=data_dir).start()
        self.addCleanup(daemon.__exit__)
        return daemon

    def ask(self, daemon, wait_ms=60000, **ids):
        module = daemon.symbolize({"modules": [dict(ids or {"build_id": self.id}, addresses=self.addresses)], "wait_ms": wait_ms})[0]
        return module

    def check(self, module):
        self.assertEqual(module["status"], "ok", module)
        self.assertEqual([chain(r) for r in module["results"]], self.truth)

    def said(self, daemon):
        end = time.monotonic() + 30
        while time.monotonic() < end:  # lines may be here a moment before what was said is written down
            found = [a for a in daemon.get("/v1/files/" + self.id).json["asked"] if a["source"].startswith("apt ")]
            if found:
                return found[0]
            time.sleep(0.05)
        self.fail("apt was not asked")

    def wait_idle(self, daemon):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            queued = re.search(r"^cairn_sources_queued (\d+)", daemon.get("/metrics").body.decode(), re.M).group(1)
            jobs = [daemon.get("/v1/jobs/%d" % i) for i in range(1, 9)]
            if queued == "0" and all(j.status == 404 or j.json["state"] in ("done", "failed") for j in jobs):
                return
            time.sleep(0.05)
        self.fail("it does not come to rest")
