# SPDX-License-Identifier: Apache-2.0
"""How a file is found in package repositories and what is fetched for it: Contents indices, control parts, supplements, and by whom it was seen."""
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "profiles"))
from repository import *  # noqa: E402,F403
import otlp_encode  # noqa: E402

TYPE = "profile.frame.type"
DEBUG = "Depends: sample (= 1.0-1)\nSection: debug\n"


def debug_path(some_id):
    return "usr/lib/debug/.build-id/%s/%s.debug" % (some_id[:2], some_id[2:])


class Find(RepositoryTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.debug = os.path.join(cls.folder, "debug")
        cls.stripped = os.path.join(cls.folder, "stripped")

    def debug_package(self, name="sample-dbg", fields=DEBUG, **more):
        return self.make_package(name, debug_path(self.id), self.debug, fields, **more)

    def ask_until(self, daemon, words, **ids):
        """Until the reason has these words."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            module = self.ask(daemon, **ids)
            if words in module.get("reason", ""):
                return module
            time.sleep(0.1)
        self.fail(module)

    # ---- which package has it

    def test_contents_index_names_what_the_packages_index_does_not(self):
        package = self.debug_package()
        contents = "usr/bin/sample  utils/sample\n%s      debug/other,debug/sample-dbg\nusr/lib/debug/.build-id/zz/zz.debug x\n" % debug_path(self.id)
        for ending in (".xz", ".lz4"):
            with self.subTest(ending):
                self.server.files.clear()
                self.server.sent.clear()
                self.publish(base="x", packages=[self.binary, package], ending=ending, by_hash=ending == ".xz", contents=contents)
                self.check(self.ask(self.daemon(base="x")))
                self.assertEqual([s for p, s, _ in self.server.sent if p == "/x/" + package[2]], [200])  # at once, and whole

    def test_control_part_by_a_range_request(self):
        self.server.polite = True
        for packing in ("zstd", "xz"):
            with self.subTest(packing):
                self.server.files.clear()
                self.server.sent.clear()
                package = self.debug_package(packing=packing)
                stranger = self.make_package("stranger-dbg", debug_path("ab" * 20), self.debug, DEBUG)
                self.publish(base="x", packages=[self.binary, stranger, package], contents="")
                folder = tempfile.mkdtemp(prefix="cairn-test-")
                self.addCleanup(shutil.rmtree, folder)
                daemon = self.daemon(base="x", data_dir=folder)
                self.check(self.ask(daemon))
                self.wait_idle(daemon)
                self.assertEqual([s for p, s, _ in self.server.sent if p == "/x/" + package[2]], [206, 200])
                self.assertEqual([s for p, s, _ in self.server.sent if p == "/x/" + stranger[2]], [206])
                self.assertLessEqual(max(n for _, s, n in self.server.sent if s == 206), 16384)
        self.ask(daemon, build_id="cd" * 20)  # nothing is read twice
        daemon.stop()
        daemon.start()
        self.ask(daemon, build_id="ce" * 20)
        self.assertEqual([s for p, s, _ in self.server.sent if p == "/x/" + stranger[2]], [206])

    def test_server_without_ranges_gives_small_packages_whole_and_of_large_ones_the_reason(self):
        padding = os.path.join(self.work, "padding")
        with open(padding, "wb") as file:
            file.write(os.urandom(2 << 20))
        large = self.make_package_of("large-dbg", {debug_path("ab" * 20): self.debug, "usr/share/padding": padding}, DEBUG)
        self.publish(base="x", packages=[self.binary, large, self.debug_package()])
        daemon = self.daemon(base="x")
        self.check(self.ask(daemon))
        module = self.ask(daemon, build_id="cd" * 20)
        self.assertEqual(module["status"], "unknown")
        self.assertIn("not all debug packages say theirs", module["reason"])
        self.assertIn("large", module["reason"])

    def test_control_parts_that_are_none(self):
        whole = self.debug_package()
        cases = {"no archive": b"<html>" + b"x" * len(whole[1]), "cut off": whole[1][:100], "no tar": whole[1][:132] + b"\0" * 2000 + whole[1][2132:]}
        for name, content in cases.items():
            with self.subTest(name):
                self.server.files.clear()
                self.publish(base="x", packages=[self.binary, whole])
                self.server.files["/x/" + whole[2]] = content
                daemon = self.daemon(base="x")
                module = self.ask(daemon)
                self.assertEqual(module["status"], "unknown")
                self.assertIn("not all debug packages say theirs", module["reason"])
                asked = dict(self.server.asked)
                for i in range(5):
                    self.ask(daemon, build_id="%02x" % i * 20)
                self.assertEqual(self.server.asked, asked)  # no retry storm

    def test_index_that_promises_what_the_package_has_not(self):
        other = "ab" * 20
        package = self.make_package("sample-dbgsym", debug_path(self.id), self.debug, DEBUG + "Build-Ids: %s\n" % other)
        self.publish(base="x", packages=[self.binary, package])
        daemon = self.daemon(base="x")
        self.ask(daemon, build_id=other)
        module = self.ask_until(daemon, "none of the files that its index promises", build_id=other)
        self.assertEqual(module["status"], "failed", module)

    def test_debug_file_of_another_build_under_the_name_of_this_one(self):
        other = "ab" * 20
        package = self.make_package("sample-dbgsym", debug_path(other), self.debug, DEBUG + "Build-Ids: %s\n" % other)
        self.publish(base="x", packages=[self.binary, package])
        daemon = self.daemon(base="x")
        self.ask(daemon, build_id=other)
        module = self.ask_until(daemon, "none of the files that its index promises", build_id=other)
        self.assertEqual(module["status"], "failed", module)
        self.assertEqual(daemon.get("/v1/files/" + self.id).json["entries"], [])  # and it is not taken for what it is, either

    # ---- what of it

    def two_programs(self):
        """A package with two programs and its -dbgsym: (packages, [(path, build ID, file ID), ..])."""
        made, binaries, debugs = [], {}, {}
        for name, flag in (("one", "-DONE"), ("two", "-falign-functions=32")):
            path = compile_sample(self.work, flag, name=name)
            stripped, debug = path + ".stripped", path + ".debug"
            subprocess.run(["objcopy", "--strip-all", path, stripped], check=True)
            subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
            some_id = build_id(path)
            binaries["usr/bin/" + name], debugs[debug_path(some_id)] = stripped, debug
            made.append((path, some_id, file_id(read(stripped))))
        ids = "Build-Ids: %s\n" % " ".join(m[1] for m in made)
        return [self.make_package_of("pair", binaries, ""), self.make_package_of("pair-dbgsym", debugs, "Depends: pair (= 1.0-1)\n" + ids)], made

    def check_program(self, module, path):
        self.assertEqual(module["status"], "ok", module)
        self.assertEqual([chain(r) for r in module["results"]], oracle(path, self.addresses_of(path)))

    def addresses_of(self, path):
        return text_addresses(path, 20)

    def ask_program(self, daemon, path, **ids):
        return daemon.symbolize({"modules": [dict(ids, addresses=self.addresses_of(path))], "wait_ms": 60000})[0]

    def test_only_what_was_seen_is_built_and_the_next_one_without_another_fetch(self):
        packages, (one, two) = self.two_programs()
        self.assertNotEqual(one[1], two[1])
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x")
        self.check_program(self.ask_program(daemon, one[0], build_id=one[1]), one[0])
        self.wait_idle(daemon)
        self.assertEqual(daemon.get("/v1/files/" + two[2]).json["status"], "no_symbols")  # who it is, is known
        self.assertEqual(daemon.get("/v1/files/" + two[2]).json["build_id"], two[1])
        asked = dict(self.server.asked)
        self.check_program(self.ask_program(daemon, two[0], file_id=two[2]), two[0])  # by its file ID alone
        self.assertEqual(self.server.asked, asked)
        jobs = [daemon.get("/v1/jobs/%d" % i).json for i in range(1, 4)]
        self.assertEqual([j["tables"] for j in jobs if j["name"].startswith("pair-dbgsym")], [1, 1])

    def test_package_is_forgotten_after_a_while(self):
        packages, (one, two) = self.two_programs()
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x", flags=("--sources.keep_packages", "1s"))
        self.check_program(self.ask_program(daemon, one[0], build_id=one[1]), one[0])
        self.wait_idle(daemon)
        time.sleep(1.1)
        self.check_program(self.ask_program(daemon, two[0], build_id=two[1]), two[0])
        self.assertEqual(self.server.asked["/x/" + packages[1][2]], 2)

    def test_one_fetch_and_one_job_however_many_files_of_it_are_asked_for(self):
        packages, (one, two) = self.two_programs()
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x")
        self.ask(daemon, build_id="cd" * 20)  # the index is there
        self.server.gate.clear()
        threads = [threading.Thread(target=self.ask_program, args=(daemon, m[0]), kwargs={"build_id": m[1]}) for m in (one, two) for _ in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while "/x/" + packages[1][2] not in self.server.asked and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        self.server.gate.set()
        for thread in threads:
            thread.join()
        for path, some_id, _ in (one, two):
            self.check_program(self.ask_program(daemon, path, build_id=some_id), path)
        self.assertEqual([self.server.asked["/x/" + p[2]] for p in packages], [1, 1])
        self.assertEqual(daemon.get("/v1/jobs/1").json["tables"], 2)

    # ---- dwz

    def dwz_packages(self, apart=False):
        """As dh_dwz and dh_strip make them: what two programs share in .dwz/<triplet>/pair.debug, compressed debug files by build ID."""
        common = "usr/lib/debug/.dwz/x86_64-linux-gnu/pair.debug"
        programs = [compile_sample(self.work, *flags, name=name) for name, flags in (("one", ("-DONE",)), ("two", ("-falign-functions=32",)))]
        made, binaries, debugs, shared = [], {}, {}, os.path.join(self.work, "common")
        for path in programs:
            shutil.copy(path, path + ".dwz")
        subprocess.run(["dwz", "-m", shared, "-M", "/" + common, *[p + ".dwz" for p in programs]], check=True)
        for path in programs:
            some_id, debug, stripped = build_id(path), path + ".debug", path + ".stripped"
            subprocess.run(["objcopy", "--only-keep-debug", "--compress-debug-sections", path + ".dwz", debug], check=True)
            subprocess.run(["strip", "--remove-section=.comment", "--remove-section=.note", path + ".dwz", "-o", stripped], check=True)
            subprocess.run(["objcopy", "--add-gnu-debuglink=" + debug, stripped], check=True)
            self.assertIn(".gnu_debugaltlink", subprocess.run(["readelf", "-SW", debug], capture_output=True, text=True).stdout)
            binaries["usr/bin/" + os.path.basename(path)], debugs[debug_path(some_id)] = stripped, debug
            made.append((path, some_id, file_id(read(stripped))))
        ids = "Auto-Built-Package: debug-symbols\nBuild-Ids: %s\n" % " ".join(m[1] for m in made)
        depends = "Depends: pair (= 1.0-1)\n"
        if apart:
            return [self.make_package_of("pair", binaries, ""), self.make_package_of("programs-dbgsym", debugs, depends + ids),
                    self.make_package_of("pair-dbgsym", {common: shared}, "")], made
        debugs[common] = shared
        return [self.make_package_of("pair", binaries, ""), self.make_package_of("pair-dbgsym", debugs, depends + ids)], made

    def test_dwz_supplement_in_the_package(self):
        packages, (one, two) = self.dwz_packages()
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x")
        self.assertEqual(daemon.symbolize({"modules": [{"build_id": one[1], "addresses": [1]}]})[0]["status"], "pending")
        self.check_program(self.ask_program(daemon, one[0], build_id=one[1]), one[0])
        self.wait_idle(daemon)
        self.check_program(self.ask_program(daemon, two[0], file_id=two[2]), two[0])

    def test_dwz_supplement_in_another_package(self):
        packages, (one, _) = self.dwz_packages(apart=True)
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x")
        self.check_program(self.ask_program(daemon, one[0], build_id=one[1]), one[0])
        self.assertEqual(self.server.asked["/x/" + packages[2][2]], 1)

    def test_dwz_supplement_that_nobody_has(self):
        packages, (one, _) = self.dwz_packages(apart=True)
        self.publish(base="x", packages=packages[:2])
        daemon = self.daemon(base="x")
        module = self.ask_program(daemon, one[0], build_id=one[1])
        self.assertEqual(module["status"], "ok")  # lines, and names as far as they are here
        self.wait_idle(daemon)
        reason = daemon.get("/v1/jobs/1").json["reason"]
        self.assertIn("pair.debug", reason)
        self.assertIn("no repository has pair-dbgsym", reason)

    def test_dwz_supplement_from_debuginfod(self):
        _, (one, _) = self.dwz_packages()
        shared = os.path.join(self.work, "common")
        self.server.files = {"/buildid/%s/debuginfo" % one[1]: read(one[0] + ".debug"), "/buildid/%s/executable" % one[1]: read(one[0] + ".stripped"),
                             "/buildid/%s/debuginfo" % build_id(shared): read(shared)}
        daemon = Cairnd("--sources.debuginfod", self.server.url, "--sources.directories", "/nonexistent").start()
        self.addCleanup(daemon.__exit__)
        self.check_program(self.ask_program(daemon, one[0], build_id=one[1]), one[0])

    def arm64_packages(self):
        """`sample` for another machine, of the same name and version: (packages, path, build ID, file ID)."""
        path, source = os.path.join(self.work, "arm"), os.path.join(self.work, "arm.c")
        with open(source, "w") as file:
            file.write("volatile int sum;\nstatic inline int square(int x) {\n\tsum = x;\n\treturn sum * x;\n}\n__attribute__((noinline)) int twice(int x) {\n\treturn square(x) * 2;\n}\n"
                       "void _start(void) {\n\tfor (volatile int i = 0;; i = twice(i))\n\t\t;\n}\n")
        subprocess.run(["clang-19", "--target=aarch64-linux-gnu", "-g", "-O2", "-ffreestanding", "-nostdlib", "-static", "-fuse-ld=lld-19",
                        "-Wl,--build-id=sha1", source, "-o", path], check=True)
        stripped, debug, some_id = path + ".stripped", path + ".debug", build_id(path)
        subprocess.run(["llvm-objcopy-19", "--strip-all", path, stripped], check=True)
        subprocess.run(["llvm-objcopy-19", "--only-keep-debug", path, debug], check=True)
        packages = [self.make_package("sample", "usr/bin/sample", stripped, ""),
                    self.make_package("sample-dbgsym", debug_path(some_id), debug, "Depends: sample (= 1.0-1)\nBuild-Ids: %s\n" % some_id)]
        return [tuple(part.replace("amd64", "arm64") if isinstance(part, str) else part for part in p) for p in packages], path, some_id, file_id(read(stripped))

    def test_packages_of_another_architecture_with_the_same_names(self):
        packages, path, some_id, identity = self.arm64_packages()
        self.publish(base="x", others={"arm64": packages})
        daemon = self.daemon(base="x", flags=("--sources.architectures", "amd64 arm64"))
        out = subprocess.run(["nm", "-S", "--defined-only", path], check=True, capture_output=True, text=True).stdout
        low, size = next((int(line.split()[0], 16), int(line.split()[1], 16)) for line in out.splitlines() if line.endswith(" twice"))
        addresses = list(range(low, low + size, 4))
        truth = oracle(path, addresses)
        self.assertTrue(any(len(frames) > 1 for frames in truth), "no inlined call is in it")
        module = daemon.symbolize({"modules": [{"build_id": some_id, "addresses": addresses}], "wait_ms": 60000})[0]
        self.assertEqual([chain(r) for r in module["results"]], truth)
        self.wait_idle(daemon)
        module = daemon.symbolize({"modules": [{"file_id": identity, "addresses": addresses}]})[0]
        self.assertEqual([chain(r) for r in module["results"]], truth)
        self.assertFalse([p for p in self.server.asked if "/pool/" in p and "arm64" not in p])  # and nothing of the other
        self.check(self.ask(daemon))

    def test_packages_of_other_architectures_are_not_looked_at_unasked(self):
        packages, _, some_id, _ = self.arm64_packages()
        self.publish(base="x", others={"arm64": packages})
        daemon = self.daemon(base="x")
        self.assertEqual(self.ask(daemon, build_id=some_id)["status"], "unknown")
        self.assertFalse([p for p in self.server.asked if "arm64" in p])

    def test_split_dwarf_in_the_debug_package(self):
        path, debug, stripped, packed = (os.path.join(self.work, name) for name in ("one", "one.debug", "one.stripped", "packed"))
        subprocess.run(["g++", "-gdwarf-4", "-gsplit-dwarf", "-O1", "-fPIE", "-pie", "-Wl,--build-id=sha1",
                        os.path.abspath(os.path.join(SOURCE_DIR, "tests/daemon/sample.cc")), "-o", path], cwd=self.work, check=True)
        subprocess.run(["dwp", "-e", path, "-o", packed], cwd=self.work, check=True)
        subprocess.run(["objcopy", "--strip-all", path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
        some_id = build_id(path)
        dbgsym = self.make_package_of("one-dbgsym", {debug_path(some_id): debug, "usr/lib/debug/usr/bin/one.dwp": packed},
                                      "Depends: one (= 1.0-1)\nBuild-Ids: %s\n" % some_id)
        self.publish(base="x", packages=[self.make_package("one", "usr/bin/one", stripped, ""), dbgsym])
        module = self.ask_program(self.daemon(base="x"), path, build_id=some_id)
        self.assertTrue(any(len(r["frames"]) > 1 for r in module["results"]), "no inlined call is in it")
        self.check_program(module, path)  # the judge reads the .dwo files

    # ---- file IDs alone

    def test_file_id_of_an_installed_program_is_enough(self):
        self.publish(base="x")
        tree = os.path.join(self.work, "usr", "bin")
        os.makedirs(tree)
        shutil.copy(self.stripped, os.path.join(tree, "sample"))
        daemon = self.daemon(base="x", flags=("--sources.installed", os.path.join(self.work, "usr")))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            module = self.ask(daemon, file_id=self.file_id)
            if module.get("symbols", {}).get("kind") == "dwarf":
                break
            time.sleep(0.05)
        self.check(module)
        self.assertEqual(module["symbols"], {"source": "package", "kind": "dwarf"})
        self.assertNotIn("/x/" + self.binary[2], self.server.asked)  # the file is here: its package is not needed
        said = {a["source"].split()[0]: a["answer"] for a in daemon.get("/v1/files/" + self.file_id).json["asked"]}
        self.assertEqual(said["installed"], "found")
        self.assertEqual(said["apt"], "found")

    def test_file_ids_asked_for_at_once_wait_for_one_look_at_what_is_installed(self):
        packages, made = self.two_programs()
        self.publish(base="x", packages=packages)
        daemon = self.daemon(base="x", flags=("--sources.installed", self.work))
        modules = [{"file_id": m[2], "addresses": [1]} for m in made]
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answers = daemon.symbolize({"modules": modules})
            if all(a.get("symbols", {}).get("kind") == "dwarf" for a in answers):
                break
            time.sleep(0.1)
        self.assertEqual([a.get("symbols") for a in answers], [{"source": "package", "kind": "dwarf"}] * 2, answers)

    def test_file_id_that_nobody_knows_says_why(self):
        self.publish(base="x")
        daemon = self.daemon(base="x", flags=("--sources.installed", self.work))
        module = self.ask(daemon, file_id="ab" * 16)
        self.assertEqual(module["status"], "unknown")
        self.assertIn("no program or library that was seen of this machine has this ID", module["reason"])
        self.assertIn("know files by build ID, and nobody said that of this file ID: send the build ID, too, or run `cairn sync PACKAGE`", module["reason"])
        self.assertIn("apt %s/test.sources: not looked for" % self.work, module["reason"])

    def test_file_id_alone_after_its_package_was_synced(self):
        """What the reason of an unknown file ID says to do, done."""
        self.publish(base="x")
        daemon = self.daemon(base="x", flags=("--sources.installed", self.work))
        self.assertIn("`cairn sync PACKAGE`", self.ask(daemon, file_id=self.file_id)["reason"])
        done = self.cairn_sync(daemon, "sample")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.check(self.ask(daemon, wait_ms=0, file_id=self.file_id))

    # ---- indices over time

    def test_unchanged_release_is_asked_for_conditionally(self):
        self.server.polite = True
        self.publish(base="x")
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(base="x", data_dir=folder)
        self.ask(daemon, build_id="cd" * 20)
        daemon.stop()
        daemon.start()
        self.check(self.ask(daemon))
        self.assertEqual([s for p, s, _ in self.server.sent if p.endswith("InRelease")], [200, 304])
        self.assertEqual(self.server.asked[self.index_path], 1)

    def test_index_is_not_used_beyond_its_time(self):
        self.publish(base="x", until=3)
        daemon = self.daemon(base="x")
        self.assertEqual(self.ask(daemon, build_id="cd" * 20)["status"], "unknown")
        for i in range(100):  # each of them unknown to it, until the index is over
            module = self.ask(daemon, build_id="%040x" % (i + 1))
            if "expired" in module["reason"]:
                break
            time.sleep(0.1)
        self.assertIn("Release: it expired on", module["reason"])
        module = self.ask(daemon)
        self.assertEqual((module["status"], self.said(daemon)["answer"]), ("unknown", "failed"), module)
        self.assertEqual(self.server.asked["/x/dists/stable/InRelease"], 1)

    def test_older_release_is_refused(self):
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        self.publish(base="x", packages=[self.binary])
        daemon = self.daemon(base="x", data_dir=folder)
        self.ask(daemon, build_id="cd" * 20)
        daemon.stop()
        self.publish(base="x", since=-3600)
        daemon.start()
        self.assertEqual(self.ask(daemon)["status"], "unknown")
        self.assertIn("older than the one before", self.said(daemon)["reason"])

    def test_contents_index_of_another_hash_leaves_the_index_before(self):
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        self.publish(base="x")
        daemon = self.daemon(base="x", data_dir=folder)
        self.ask(daemon, build_id="cd" * 20)
        daemon.stop()
        self.publish(base="x", packages=[self.binary, self.debug_package()], contents="x" * 100 + "\n", since=-30)
        self.server.files["/x/dists/stable/main/Contents-amd64.xz"] = b"nonsense" * 10
        daemon.start()
        self.check(self.ask(daemon))  # by the old index

    # ---- what is here already

    def debug_tree(self):
        """The debug file alone, in a folder."""
        folder = os.path.join(self.work, "debug", ".build-id", self.id[:2])
        os.makedirs(folder)
        shutil.copy(self.debug, os.path.join(folder, self.id[2:] + ".debug"))
        return "--sources.directories", os.path.join(self.work, "debug")

    def test_binary_package_for_debug_info_that_is_here(self):
        flags = self.debug_tree()
        self.publish(base="x")
        daemon = self.daemon(base="x", flags=flags)
        self.check(self.ask(daemon, build_id=self.id, file_id=self.file_id))
        self.wait_idle(daemon)
        self.assertIn("of which only the binaries are fetched: sample", self.said(daemon)["reason"])
        self.assertEqual([self.server.asked.get("/x/" + p[2]) for p in (self.binary, self.dbgsym)], [1, None])
        self.check(self.ask(daemon, wait_ms=0, file_id=self.file_id))

    # ---- by itself

    def check_sample_has_its_lines(self, send, flags=(), **repository):
        """From a repository that has the program's debug package; @send: daemon -> None, one sample an address. Nobody reads the profile before."""
        self.publish(**repository)
        daemon = self.daemon(flags=flags)
        send(daemon)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            file = daemon.get("/v1/files/" + self.file_id)
            if file.status == 200 and any(e["kind"] == "dwarf" for e in file.json["entries"]) and file.json.get("segments"):
                break
            time.sleep(0.1)
        shown, wanted = self.folded(daemon), {}
        for frames in self.truth:
            stack = ";".join(f[0] for f in reversed(frames))
            wanted[stack] = wanted.get(stack, 0) + 1
        self.assertEqual(shown, wanted)

    def test_sample_of_a_stripped_program_has_its_lines_in_the_next_read(self):
        self.check_sample_has_its_lines(self.publish_sample)

    def test_sample_of_a_program_whose_debug_info_is_here_and_whose_file_is_not(self):
        """Its addresses are file offsets: the load segments come from the binary package."""
        self.check_sample_has_its_lines(self.publish_sample, flags=self.debug_tree())
        self.assertNotIn("/debian/" + self.dbgsym[2], self.server.asked)

    def test_sample_of_a_stream_has_its_lines_in_the_next_read(self):
        try:
            import grpc  # noqa: F401
        except ImportError:
            self.skipTest("python3-grpcio is not installed")
        self.check_sample_has_its_lines(self.stream_sample)

    def test_sample_has_its_lines_from_a_ddeb(self):
        """Ubuntu's form of a -dbgsym package."""
        stanza, content, path = self.dbgsym
        ddeb = path[:-len("deb")] + "ddeb"
        self.check_sample_has_its_lines(self.publish_sample, packages=[self.binary, (stanza.replace(path, ddeb), content, ddeb)])
        self.assertEqual(self.server.asked["/debian/" + ddeb], 1)

    def test_random_ids_of_one_agent_use_up_no_others_budget(self):
        self.publish(base="x")
        daemon = self.daemon(base="x", flags=("--sources.ids_per_hour", "3"))
        mappings = [{"name": "random", "attributes": [("process.executable.build_id.gnu", "%040x" % i)]} for i in range(1, 30)]
        samples = [{"frames": [{"mapping": m, "address": 1, "attributes": [(TYPE, "native")]}], "timestamps": [time.time_ns() - 10**9]} for m in mappings]
        model = [{"attributes": [("service.name", "flood")], "profiles": [{"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"),
                  "period": 50_000_000, "time": time.time_ns(), "duration": 10**9, "samples": samples}]}]
        self.assertEqual(self.post_profiles(daemon, otlp_encode.encode("1.10", model), "127.0.0.2"), 200)
        self.wait_idle(daemon)
        self.assertEqual(sum(bool(self.asked(daemon, "%040x" % i)) for i in range(1, 30)), 3)
        self.publish_sample(daemon)  # from 127.0.0.1
        self.wait_idle(daemon)
        self.assertTrue(self.asked(daemon, self.id))
        self.assertEqual(sum(bool(self.asked(daemon, "%040x" % i)) for i in range(1, 30)), 3)  # by nobody else, either

    def asked(self, daemon, some_id):
        answer = daemon.get("/v1/files/" + some_id)
        return answer.status == 200 and answer.json["asked"]

    def post_profiles(self, daemon, message, source):
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, source_address=(source, 0))
        connection.request("POST", "/v1development/profiles", message, {"Content-Type": "application/x-protobuf"})
        status = connection.getresponse().status
        connection.close()
        return status

    def stream_sample(self, daemon):
        """As publish_sample, by cairn.v1.Agent/Stream: addresses as linked."""
        from agent_client import Stream, hello, pb
        n, steps = len(self.addresses), [b - a for a, b in zip([0] + self.addresses, self.addresses)]
        d = pb.Definitions(first_string=1, strings=["shop", "main"], first_frame=1, frame_kind=[pb.FRAME_KIND_NATIVE] * n, frame_executable=[1] * n,
                           frame_address=steps, first_trace=1, trace_depth=[1] * n, trace_shared=[0] * n, trace_frame=range(1, n + 1),
                           first_thread=1, thread_process=[1], thread_id=[43], thread_name=[2])
        d.executables.add(number=1, file_id=bytes.fromhex(self.file_id), build_id=bytes.fromhex(self.id), name="sample")
        d.processes.add(number=1, pid=42, service=1)
        d.types.add(number=1, type="samples", unit="count", period_type="cpu", period_unit="nanoseconds", period=50_000_000)
        samples = pb.Samples(type=1, base_time_unix_nano=time.time_ns() - 60 * 10**9, period_ns=50_000_000, cpu_run=[0, n], thread=[1] * n,
                             trace=range(1, n + 1), time_step=[1] * n, time_rest=[0] * n)
        stream = Stream(daemon.grpc_port)
        self.addCleanup(stream.close)
        stream.send(hello(), pb.AgentEnvelope(definitions=d), pb.AgentEnvelope(sequence=1, samples=samples))
        self.assertEqual(list(stream.take("acknowledgement").sequences), [1])

    def publish_sample(self, daemon):
        """One native sample an address, of the stripped program as an eBPF profiler sees it: file ID, build ID, file offsets."""
        out = subprocess.run(["readelf", "-lW", self.stripped], check=True, capture_output=True, text=True).stdout
        offset, vaddr, _, _, size = next([int(x, 16) for x in line.split()[1:6]] for line in out.splitlines()
                                         if line.split()[:1] == ["LOAD"] and " R E " in line)
        mapping = {"start": 0x7f0000000000, "limit": 0x7f0000000000 + size, "offset": offset, "name": "sample", "attributes": [
            ("process.executable.build_id.htlhash", self.file_id), ("process.executable.build_id.gnu", self.id)]}
        now = time.time_ns() - 10**9
        samples = [{"frames": [{"mapping": mapping, "address": a - vaddr + 0x7f0000000000, "attributes": [(TYPE, "native")]}],
                    "timestamps": [now + i]} for i, a in enumerate(self.addresses)]
        model = [{"attributes": [("service.name", "shop")], "profiles": [{"sample_type": ("samples", "count"), "period_type": ("cpu", "nanoseconds"),
                  "period": 50_000_000, "time": time.time_ns(), "duration": 10**9, "samples": samples}]}]
        answer = daemon.request("POST", "/v1development/profiles", otlp_encode.encode("1.10", model), {"Content-Type": "application/x-protobuf"})
        self.assertEqual(answer.status, 200, answer.body)

    def folded(self, daemon):
        out = {}
        for line in daemon.get("/v1/profiles?format=folded").body.decode().splitlines():
            stack, value = line.rsplit(" ", 1)
            out[stack] = out.get(stack, 0) + int(value)
        return out

    # ---- ahead of need

    def cairn_sync(self, daemon, *arguments):
        return subprocess.run([CAIRN, "sync", "--url", "http://127.0.0.1:%d" % daemon.port, *arguments], capture_output=True, text=True)

    def test_sync_brings_a_program_and_its_debug_package_once(self):
        self.publish(base="x", packages=[self.binary, self.dbgsym, self.make_package("other", "usr/bin/other", self.stripped, "")])
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(base="x", data_dir=folder)
        dry = self.cairn_sync(daemon, "--dry-run", "sampl?")
        self.assertEqual((dry.returncode, dry.stderr), (0, ""))
        self.assertEqual([line.split()[-2] for line in dry.stdout.splitlines()[:-1]], ["sample", "sample-dbgsym"])
        self.assertTrue(dry.stdout.endswith("to fetch\n"), dry.stdout)
        self.assertFalse([p for p in self.server.asked if "/pool/" in p])
        done = self.cairn_sync(daemon, "sampl?")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines()[:-1]], ["done", "done"])
        self.check(self.ask(daemon, wait_ms=0, file_id=self.file_id))
        self.assertNotIn("debug package", dry.stdout + done.stdout)
        daemon.stop()
        daemon.start()
        again = self.cairn_sync(daemon, "sample-dbgsym")
        self.assertEqual((again.returncode, again.stdout.count("it was there")), (0, 2), again.stdout)
        self.assertEqual(sum(n for p, n in self.server.asked.items() if "/pool/" in p), 2)
        self.assertIn("2 packages", self.cairn_sync(daemon, "--status").stdout)
        for arguments in ["--dry-run", "other"], ["other"]:
            self.assertIn("other 1", line := self.cairn_sync(daemon, *arguments).stdout.splitlines()[0])
            self.assertTrue(line.endswith(": no index names a debug package of this version"), line)

    def test_sync_that_was_stopped_goes_on(self):
        self.publish(base="x")
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(base="x", data_dir=folder)
        dbgsym = self.server.files.pop("/x/" + self.dbgsym[2])
        failed = self.cairn_sync(daemon, "sample*")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("404", failed.stdout)
        self.assertIn("1 of 2 packages failed", failed.stderr)
        daemon.stop()
        self.server.files["/x/" + self.dbgsym[2]] = dbgsym
        daemon.start()
        self.assertEqual(self.cairn_sync(daemon, "sample*").returncode, 0)
        self.assertEqual(self.server.asked["/x/" + self.binary[2]], 1)
        self.check(self.ask(daemon, wait_ms=0))

    def test_sync_of_nothing_says_so(self):
        self.publish(base="x")
        daemon = self.daemon(base="x")
        for arguments, words in ((("nobody",), "no package of the repositories matches nobody"), (("x" * 300,), "longer than")):
            out = self.cairn_sync(daemon, *arguments)
            self.assertEqual(out.returncode, 1)
            self.assertIn(words, out.stderr)
            self.assertEqual(len(out.stderr.splitlines()), 1)
        with Cairnd() as alone:
            out = self.cairn_sync(alone, "x")
            self.assertIn("no package repositories are configured", out.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
