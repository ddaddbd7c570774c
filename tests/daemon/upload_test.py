# SPDX-License-Identifier: Apache-2.0
"""The upload protocol: asked before bytes, chunks, resume after a broken connection and after kill -9, checksum, limits."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403


class Upload(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-sample-")
        cls.path = compile_sample(cls.folder)
        cls.content = read(cls.path)
        cls.ids = {"file_id": file_id(cls.content), "build_id": build_id(cls.path)}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.daemon = Cairnd("--limits.upload", "64M").start()
        self.addCleanup(self.daemon.__exit__)

    def test_session_counts_up_and_refuses_other_offsets(self):
        begun = self.daemon.begin(self.content, **self.ids)
        self.assertEqual(begun.status, 201)
        self.assertEqual((begun.json["status"], begun.json["offset"], begun.json["chunk_max"]), ("open", 0, CHUNK))
        upload = begun.json["upload_id"]
        self.assertEqual(self.daemon.chunk(upload, 0, self.content[:1000]).json, {"offset": 1000})
        for offset in (0, 999, 1001, 10 ** 9):
            answer = self.daemon.chunk(upload, offset, self.content[1000:1100])
            self.assertEqual((answer.status, answer.code, answer.json["offset"]), (409, "offset_mismatch", 1000))
        state = self.daemon.get("/v1/uploads/" + upload).json
        self.assertEqual((state["offset"], state["size"], state["role"]), (1000, len(self.content), "executable"))
        again = self.daemon.begin(self.content, **self.ids)
        self.assertEqual((again.status, again.json["upload_id"], again.json["offset"]), (200, upload, 1000))
        early = self.daemon.finish(upload)
        self.assertEqual((early.status, early.code, early.json["offset"]), (409, "incomplete", 1000))
        self.assertEqual(self.daemon.chunk(upload, 1000, self.content[1000:]).json["offset"], len(self.content))
        done = self.daemon.finish(upload)
        self.assertEqual(done.status, 202)
        self.assertEqual((done.json["file_id"], done.json["build_id"]), (self.ids["file_id"], self.ids["build_id"]))
        self.assertEqual(self.daemon.finish(upload).json, done.json)  # the answer was lost: the same again
        self.assertEqual(self.daemon.wait_job(done.json["job_id"])["state"], "done")

    def test_what_the_server_has_is_not_sent_again_unless_forced(self):
        job = self.daemon.upload(self.content, **self.ids)["job_id"]
        self.assertEqual(self.daemon.wait_job(job)["state"], "done")
        answer = self.daemon.begin(self.content, **self.ids)
        self.assertEqual((answer.status, answer.json["status"]), (200, "exists"))
        self.assertEqual(answer.json["symbols"], {"source": "upload", "kind": "dwarf"})
        self.assertTrue(answer.json["reason"])
        debug = self.daemon.begin(b"another file", "debug", build_id=self.ids["build_id"])
        self.assertEqual(debug.json["status"], "exists")
        other = self.daemon.begin(self.content + b"x", file_id=file_id(self.content + b"x"),
                                  build_id=self.ids["build_id"])
        self.assertEqual(other.json["status"], "open")  # another runtime file of the build ID: its segments count
        forced = self.daemon.begin(self.content, force=True, **self.ids)
        self.assertEqual((forced.status, forced.json["status"]), (201, "open"))

    def test_wrong_checksum_ends_the_session_and_leaves_no_job(self):
        begun = self.daemon.begin(self.content, sha256="00" * 32).json
        self.daemon.chunk(begun["upload_id"], 0, self.content)
        answer = self.daemon.finish(begun["upload_id"])
        self.assertEqual((answer.status, answer.code), (422, "checksum_mismatch"))
        self.assertEqual(self.daemon.get("/v1/uploads/" + begun["upload_id"]).status, 404)
        self.assertEqual(self.daemon.get("/v1/jobs/1").status, 404)

    def test_wrong_file_id_ends_the_session(self):
        begun = self.daemon.begin(self.content, file_id="11" * 16).json
        self.daemon.chunk(begun["upload_id"], 0, self.content)
        answer = self.daemon.finish(begun["upload_id"])
        self.assertEqual((answer.status, answer.code), (422, "checksum_mismatch"))

    def test_abort_forgets(self):
        upload = self.daemon.begin(self.content).json["upload_id"]
        self.assertEqual(self.daemon.request("DELETE", "/v1/uploads/" + upload).json, {})
        self.assertEqual(self.daemon.request("DELETE", "/v1/uploads/" + upload).status, 404)
        self.assertEqual(self.daemon.chunk(upload, 0, b"x").status, 404)
        self.assertEqual(self.daemon.finish(upload).status, 404)

    def test_size_is_checked_before_any_byte(self):
        answer = self.daemon.begin(b"", size=(64 << 20) + 1)
        self.assertEqual((answer.status, answer.code), (413, "too_large"))
        self.assertIn("limits.upload", answer.message)

    def test_chunk_past_the_promised_size_is_refused(self):
        begun = self.daemon.begin(self.content[:100]).json
        answer = self.daemon.chunk(begun["upload_id"], 0, self.content[:101])
        self.assertEqual((answer.status, answer.code), (400, "invalid"))
        self.assertEqual(self.daemon.get("/v1/uploads/" + begun["upload_id"]).json["offset"], 0)

    def test_chunk_of_4_mib_is_taken_and_one_byte_more_refused_before_bytes(self):
        content = os.urandom(CHUNK + 1)
        upload = self.daemon.begin(content).json["upload_id"]
        head = "PUT /v1/uploads/%s?offset=0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (upload, CHUNK + 1)
        self.assertTrue(self.daemon.raw(head.encode()).startswith(b"HTTP/1.1 413 "))  # no byte of the body was sent
        self.assertEqual(self.daemon.chunk(upload, 0, content[:CHUNK]).json, {"offset": CHUNK})
        self.assertEqual(self.daemon.chunk(upload, CHUNK, content[CHUNK:]).json, {"offset": CHUNK + 1})

    def test_broken_connection_leaves_no_trace_of_its_chunk(self):
        upload = self.daemon.begin(self.content, **self.ids).json["upload_id"]
        self.daemon.chunk(upload, 0, self.content[:5000])
        head = "PUT /v1/uploads/%s?offset=5000 HTTP/1.1\r\nHost: x\r\nContent-Length: 6000\r\n\r\n" % upload
        self.daemon.raw(head.encode() + self.content[5000:8000], half_close=True)
        state = self.daemon.get("/v1/uploads/" + upload).json
        self.assertEqual(state["offset"], 5000)
        self.assertEqual(self.daemon.wait_job(self.daemon.upload(self.content, **self.ids)["job_id"])["state"], "done")

    def test_upload_goes_on_after_kill_9(self):
        upload = self.daemon.begin(self.content, **self.ids).json["upload_id"]
        self.daemon.chunk(upload, 0, self.content[:7000])
        self.daemon.kill()
        self.daemon.start()
        begun = self.daemon.begin(self.content, **self.ids).json
        self.assertEqual((begun["upload_id"], begun["offset"]), (upload, 7000))
        done = self.daemon.upload(self.content, **self.ids)
        self.daemon.kill()  # acknowledged: the job must be there
        self.daemon.start()
        self.assertEqual(self.daemon.wait_job(done["job_id"])["state"], "done")
        self.assertEqual(self.daemon.get("/v1/files/" + self.ids["file_id"]).json["status"], "ok")

    def test_content_that_is_no_binary_fails_with_a_reason(self):
        for content in (b"#!/bin/sh\necho hello\n", b"\x7fELF", self.content[:300], b"\0" * 9000):
            with self.subTest(content[:8]):
                job = self.daemon.wait_job(self.daemon.upload(content, file_id=file_id(content))["job_id"])
                self.assertEqual(job["state"], "failed", job)
                self.assertTrue(job["reason"])
                self.assertRegex(self.daemon.stderr(), r" warn job id=%s end=failed files=0 ms=\d+ file_id=%s build_id= name=\"sample\" reason=\"%s\"\n" %
                                 (job["job_id"], file_id(content), re.escape(job["reason"])))
                module = self.daemon.symbolize({"modules": [{"file_id": file_id(content), "addresses": [1]}]})[0]
                self.assertEqual(module["status"], "failed")
                self.assertIn(job["reason"], module["reason"])

    def test_package_that_is_none_fails_with_a_reason(self):
        job = self.daemon.wait_job(self.daemon.upload(b"!<arch>\nnot really", "package")["job_id"])
        self.assertEqual(job["state"], "failed", job)
        self.assertTrue(job["reason"])

    def test_package_brings_its_binaries_and_their_debug_files(self):
        root = os.path.join(self.folder, "package")
        identity = self.ids["build_id"]
        debug = os.path.join(root, "usr/lib/debug/.build-id", identity[:2])
        for folder in (os.path.join(root, "DEBIAN"), os.path.join(root, "usr/bin"), debug):
            os.makedirs(folder, exist_ok=True)
        with open(os.path.join(root, "DEBIAN/control"), "w") as file:
            file.write("Package: sample\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n")
        stripped = os.path.join(root, "usr/bin/sample")
        subprocess.run(["objcopy", "--strip-all", self.path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", self.path, os.path.join(debug, identity[2:] + ".debug")], check=True)
        package = os.path.join(self.folder, "sample.deb")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, package], check=True, stdout=subprocess.DEVNULL)
        content = read(package)
        job = self.daemon.wait_job(self.daemon.upload(content, "package", name="sample.deb")["job_id"])
        self.assertEqual((job["state"], job["kind"]), ("done", "package"), job)
        addresses = text_addresses(self.path, 50)
        module = self.daemon.symbolize({"modules": [{"file_id": file_id(read(stripped)), "addresses": addresses}]})[0]
        self.assertEqual(module["status"], "ok", module)
        self.assertEqual([chain(r) for r in module["results"]], oracle(self.path, addresses))

    def test_malformed_requests_name_what_is_wrong(self):
        good = {"role": "debug", "name": "x", "size": 5, "sha256": "00" * 32}
        for change, words in (({"role": "kernel"}, "role"), ({"role": 1}, "role"), ({"name": 5}, "name"),
                              ({"name": "a" * 256}, "name"), ({"name": "a\nb"}, "name"), ({"size": 0}, "size"),
                              ({"size": "5"}, "size"), ({"size": -1}, "size"), ({"sha256": "00"}, "sha256"),
                              ({"sha256": None}, "sha256"), ({"file_id": "12"}, "file_id"),
                              ({"build_id": "1"}, "build_id")):
            answer = self.daemon.post_json("/v1/uploads", dict(good, **change))
            self.assertEqual((answer.status, answer.code), (400, "invalid"), change)
            self.assertIn(words, answer.message)
        for path in ("/v1/uploads/12", "/v1/uploads/" + "g" * 32):
            self.assertEqual(self.daemon.get(path).status, 400)
        upload = self.daemon.begin(self.content).json["upload_id"]
        for query in ("", "?offset=", "?offset=x", "?offset=-1", "?offset=99999999999999999999999"):
            answer = self.daemon.request("PUT", "/v1/uploads/" + upload + query, b"x")
            self.assertEqual((answer.status, answer.code), (400, "invalid"), query)
        self.assertEqual(self.daemon.chunk(upload, 0, b"").status, 400)

    def frames(self, identity, addresses):
        """Of each address the frames; what is told about the symbols is left out."""
        module = self.daemon.symbolize({"modules": [{"file_id": identity, "addresses": addresses}]})[0]
        self.assertEqual(module["status"], "ok", module)
        return [result["frames"] for result in module["results"]]

    def done(self, content, role="executable", **members):
        begun = self.daemon.upload(content, role, **members)
        self.assertNotEqual(begun.get("status"), "exists", begun)
        job = self.daemon.wait_job(begun["job_id"])
        self.assertEqual(job["state"], "done", job)
        return job.get("reason", "")

    def test_split_dwarf_before_and_after_its_program(self):
        sample = os.path.join(SOURCE_DIR, "tests/daemon/sample.cc")
        program, packed = os.path.join(self.folder, "split"), os.path.join(self.folder, "split.dwp")
        subprocess.run(["g++", "-gdwarf-4", "-gsplit-dwarf", "-O1", "-fPIE", "-pie", "-Wl,--build-id=sha1", sample, "-o", program],
                       cwd=self.folder, check=True)
        dwo = next(os.path.join(self.folder, name) for name in os.listdir(self.folder) if name.endswith(".dwo"))
        subprocess.run(["dwp", dwo, "-o", packed], check=True)
        archive = os.path.join(self.folder, "split.a")
        subprocess.run(["ar", "rcS", archive, dwo], check=True)
        whole = compile_sample(self.folder, "-gdwarf-4", name="whole")
        addresses = text_addresses(whole)
        self.done(read(whole), file_id=file_id(read(whole)))
        want = self.frames(file_id(read(whole)), addresses)
        self.assertTrue(any(len(frames) > 1 for frames in want), "the sample has inlined calls")
        for split in packed, archive:
            for split_first in True, False:
                with self.subTest(split=split, split_first=split_first), Cairnd() as self.daemon:
                    ids = {"file_id": file_id(read(program)), "build_id": build_id(program)}
                    halves = [lambda: self.done(read(split), "split", build_id=ids["build_id"]), lambda: self.done(read(program), **ids)]
                    reason = (halves if split_first else halves[::-1])[0]()
                    self.assertIn("kept for the files that need it" if split_first else "split DWARF is missing", reason)
                    if not split_first:
                        self.assertTrue(all(len(frames) == 1 for frames in self.frames(ids["file_id"], addresses)))
                    reason = (halves if split_first else halves[::-1])[1]()
                    self.assertEqual(reason, "")
                    self.assertEqual(self.frames(ids["file_id"], addresses), want)
                    again = self.daemon.begin(read(split), "split", build_id=ids["build_id"])
                    self.assertEqual((again.json["status"], again.json["reason"]), ("exists", "the same bytes are kept"))

    def test_a_repaired_file_is_taken_in_place_of_a_damaged_one(self):
        text = subprocess.run(["readelf", "-SW", self.path], check=True, capture_output=True, text=True).stdout
        foff, size = (int(word, 16) for word in re.search(r" \.debug_info +PROGBITS +\w+ (\w+) (\w+)", text).groups())
        damaged = bytearray(self.content)
        damaged[foff + size // 2:foff + size] = b"\xff" * (size - size // 2)
        self.assertTrue(self.done(bytes(damaged), file_id=file_id(bytes(damaged)), build_id=self.ids["build_id"]))
        again = self.daemon.begin(bytes(damaged), file_id=file_id(bytes(damaged)), build_id=self.ids["build_id"])
        self.assertEqual(again.json["status"], "exists")
        self.assertEqual(self.done(self.content, **self.ids), "")
        self.assertEqual(self.daemon.begin(self.content, **self.ids).json["status"], "exists")


if __name__ == "__main__":
    unittest.main(verbosity=1)
