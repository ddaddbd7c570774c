# SPDX-License-Identifier: Apache-2.0
"""A package repository made here, with a key made here and -dbgsym packages as debhelper makes them, served on loopback."""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from repository import *  # noqa: E402,F403


class Apt(RepositoryTest):
    def test_from_nothing_to_lines(self):
        self.publish()
        daemon = self.daemon()
        self.assertEqual(self.ask(daemon, wait_ms=0)["status"], "pending")
        self.check(self.ask(daemon))
        self.assertEqual(self.ask(daemon)["symbols"], {"source": "package", "kind": "dwarf"})
        said = self.said(daemon)
        self.assertEqual(said["answer"], "found")
        self.assertIn("sample-dbgsym 1.0-1", said["reason"])
        self.wait_idle(daemon)
        self.check(self.ask(daemon, file_id=self.file_id))  # the binary package came along
        self.assertEqual(self.server.asked["/debian/" + self.dbgsym[2]], 1)
        entries = daemon.get("/v1/files/" + self.id).json["entries"]
        self.assertIn("sample-dbgsym 1.0-1", "".join(e["provenance"] for e in entries))

    def test_every_packing_and_by_hash(self):
        for ending in PACK:
            with self.subTest(ending or "plain"):
                self.server.files.clear()
                self.publish(ending=ending, by_hash=ending == ".xz")
                self.check(self.ask(self.daemon()))

    def test_one_line_form(self):
        self.publish()
        self.check(self.ask(self.daemon(name="test.list", text="deb-src http://127.0.0.1:1/x y z\n# deb http://127.0.0.1:1/x y z\n"
                                        "deb [arch=amd64 signed-by=%s] %s/debian stable main # why\nnonsense\n" % (self.keyring, self.server.url))))

    def test_debug_archive_beside(self):
        self.publish(packages=[self.binary])
        self.publish(base="debian-debug", suite="stable-debug", packages=[self.dbgsym])
        daemon = self.daemon()
        self.check(self.ask(daemon))
        self.wait_idle(daemon)
        self.check(self.ask(daemon, file_id=self.file_id))

    def test_debug_archive_of_security_updates(self):
        self.publish(base="debian-security", suite="stable-security", packages=[self.binary])
        self.publish(base="debian-security-debug", suite="stable-security-debug", packages=[self.dbgsym])
        daemon = self.daemon(name="test.list", text="deb [signed-by=%s] %s/debian-security stable-security main\n" % (self.keyring, self.server.url))
        self.assertEqual(self.ask(daemon, wait_ms=0)["status"], "pending")
        self.check(self.ask(daemon))
        self.wait_idle(daemon)
        self.check(self.ask(daemon, file_id=self.file_id))
        self.assertEqual([self.server.asked["/debian-security/" + self.binary[2]], self.server.asked["/debian-security-debug/" + self.dbgsym[2]]], [1, 1])

    def test_debug_archive_in_a_sources_file_of_its_own(self):
        """As Ubuntu's, which is on another host and is named by whoever wants it."""
        stanza, content, path = self.dbgsym
        ddeb = path[:-len("deb")] + "ddeb"
        self.publish(base="ubuntu", packages=[self.binary])
        self.publish(base="ddebs", packages=[(stanza.replace(path, ddeb), content, ddeb)])
        places = []
        for base in "ubuntu", "ddebs":
            places.append(os.path.join(self.work, base + ".list"))
            with open(places[-1], "w") as file:
                file.write("deb [signed-by=%s] %s/%s stable main\n" % (self.keyring, self.server.url, base))
        daemon = Cairnd("--sources.apt", " ".join(places), "--sources.directories", "/nonexistent").start()
        self.addCleanup(daemon.__exit__)
        self.check(self.ask(daemon))
        self.wait_idle(daemon)
        self.check(self.ask(daemon, file_id=self.file_id))
        self.assertEqual(self.server.asked["/ubuntu/" + self.binary[2]], 1)

    def test_debug_archive_that_does_not_exist_is_told_and_no_failure(self):
        self.publish()
        daemon = self.daemon()
        module = self.ask(daemon, build_id="cd" * 20)
        self.assertIn("no package of 1 repositories names this build ID (a debug archive beside was not to be had", module["reason"])
        self.assertGreater(module["retry_after_s"], 3600)

    def test_index_is_read_once_and_only_when_somebody_asks(self):
        self.publish(base="x")
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(base="x", data_dir=folder)
        time.sleep(0.5)
        self.assertEqual(self.server.asked, {})
        other = "cd" * 20
        module = self.ask(daemon, build_id=other)
        self.assertEqual(module["status"], "unknown")
        self.assertIn("no package of 1 repositories", module["reason"])
        self.assertFalse([p for p in self.server.asked if other in p])  # no build ID leaves the house
        daemon.stop()
        daemon.start()
        self.check(self.ask(daemon))
        self.assertEqual(self.server.asked[self.index_path], 1)
        self.assertEqual(self.server.asked["/x/dists/stable/InRelease"], 2)

    def refused(self, words, answer="failed"):
        daemon = self.daemon(base="x")
        module = self.ask(daemon)
        self.assertEqual(module["status"], "unknown", module)
        self.assertIn(words, module["reason"])
        self.assertEqual(self.said(daemon)["answer"], answer)
        asked = dict(self.server.asked)
        for _ in range(5):
            self.ask(daemon)
        self.assertEqual(self.server.asked, asked)  # no retry storm
        self.assertEqual(daemon.get("/v1/jobs/1").status, 404)

    def test_changed_after_signing(self):
        self.publish(base="x", damage=lambda signed: signed.replace(b"Origin: test", b"Origin: evil"))
        self.refused("a bad signature")

    def test_key_that_nobody_knows(self):
        self.publish(base="x")
        subprocess.run(["gpg", "--homedir", self.work, "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Other <o@example.org>",
                        "ed25519", "sign", "never"], check=True, capture_output=True)
        other = os.path.join(self.work, "other.gpg")
        with open(other, "wb") as file:
            file.write(subprocess.run(["gpg", "--homedir", self.work, "--export"], check=True, capture_output=True).stdout)
        subprocess.run(["gpgconf", "--homedir", self.work, "--kill", "all"], check=False)
        self.keyring = other
        self.refused("a key that the keyring does not have")

    def test_unsigned(self):
        self.publish(base="x", damage=lambda signed: signed.split(b"\n\n", 1)[1].split(b"-----BEGIN PGP SIG")[0])
        self.refused("no good signature")

    def test_text_around_the_signed_one_counts_for_nothing(self):
        self.publish(base="x", damage=lambda signed: b"SHA256:\n %s 5 main/binary-amd64/Packages\n\n" % (b"0" * 64) + signed)
        self.check(self.ask(self.daemon(base="x")))

    def test_expired(self):
        self.publish(base="x", until=-5)
        self.refused("it expired on")

    def test_index_of_another_hash(self):
        self.publish(base="x")
        content = self.server.files[self.index_path]
        self.server.files[self.index_path] = content[:-1] + bytes([content[-1] ^ 1])
        self.refused("its SHA-256 is not as promised")

    def test_index_of_another_size(self):
        self.publish(base="x")
        self.server.files[self.index_path] = self.server.files[self.index_path][:-1]
        self.refused("were promised")

    def test_index_cut_off_before_it_was_signed(self):
        whole = PACK[".xz"]
        PACK[".xz"] = lambda b: whole(b)[:-20]
        try:
            self.publish(base="x")
        finally:
            PACK[".xz"] = whole
        self.refused("Packages.xz")

    def test_nothing_there(self):
        self.refused("404")

    def test_500_and_html_and_redirects(self):
        for answer, words in (((500, b"", {}), "500"), ((200, b"<html></html>", {"Content-Type": "text/html"}), "signature"),
                              ((302, b"", {"Location": "/x/dists/stable/InRelease"}), "redirected more than")):
            with self.subTest(words):
                self.server.files = {"/x/dists/stable/InRelease": answer}
                self.refused(words)

    def test_nonsense_in_place_of_an_index_and_of_a_package(self):
        html = (200, b"<html>log in</html>", {"Content-Type": "text/html"})
        for name, answer, of_index, of_package in (("html", html, ("failed", "were promised"), ("refused", "were promised")),
                                                   ("redirects", None, ("failed", "redirected more than"), ("failed", "redirected more than")),
                                                   ("forbidden", (403, b"", {}), ("failed", "403"), ("failed", "403")),
                                                   ("500", (500, b"", {}), ("failed", "500"), ("failed", "500"))):
            for of, (want, words) in (("index", of_index), ("package", of_package)):
                with self.subTest(name + " for the " + of):
                    self.server.files.clear()
                    self.server.asked.clear()
                    self.publish(base="x")
                    path = self.index_path if of == "index" else "/x/" + self.dbgsym[2]
                    self.server.files[path] = answer or (302, b"", {"Location": path})
                    self.refused(words, answer=want)
                    self.assertLessEqual(self.server.asked[path], 5)  # four tries, or four redirects

    def test_slow_repository_holds_up_no_folder(self):
        self.publish(base="x")
        tree = os.path.join(self.work, "tree")
        os.mkdir(tree)
        shutil.copy(self.path, os.path.join(tree, "sample"))
        self.server.gate.clear()
        daemon = self.daemon(base="x", flags=("--sources.directories", tree))
        others = [{"build_id": "%02x" % i * 20, "addresses": [1]} for i in range(20)]
        daemon.symbolize({"modules": others})
        end = time.monotonic() + 20
        while not self.server.asked:  # it is being asked, and does not answer
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.check(self.ask(daemon, wait_ms=20000))
        module = daemon.symbolize({"modules": others[:1]})[0]
        self.assertEqual(module["status"], "pending")
        self.assertIn("asking apt", module["reason"])
        self.assertEqual(sum(self.server.asked.values()), 1)

    def test_package_that_is_not_as_promised(self):
        self.publish(base="x")
        self.server.files["/x/" + self.dbgsym[2]] = self.binary[1]
        self.refused("promised", answer="refused")

    def test_package_that_is_gone(self):
        self.publish(base="x")
        del self.server.files["/x/" + self.dbgsym[2]]
        self.refused("404")

    def test_new_index_makes_no_void(self):
        self.publish(base="x", packages=[self.binary])
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(base="x", data_dir=folder)
        self.assertEqual(self.ask(daemon)["status"], "unknown")
        self.publish(base="x")
        daemon.stop()
        daemon.start()
        self.ask(daemon, build_id="ef" * 20)  # makes it look at the repository
        self.check(self.ask(daemon))

    def test_sources_file_that_is_missing_is_told_at_start(self):
        result = subprocess.run([CAIRND, "--data-dir", os.path.join(self.work, "data"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                                 "--store.map_max", "16G", "--sources.apt", "/nonexistent/file"], capture_output=True, text=True)
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (1, 1), result.stderr)
        self.assertIn("sources.apt: /nonexistent/file", result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
