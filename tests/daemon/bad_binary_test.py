# SPDX-License-Identifier: Apache-2.0
"""Binaries that are wrong, sent to a real cairnd: each job's reason names the place, the sound parts stand, and the daemon answers on."""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

# Offsets in an ELF header of 64 bits.
E_MACHINE, E_SHOFF, E_SHNUM = 18, 40, 60
SH_FLAGS, SH_OFFSET, SH_SIZE = 8, 24, 32
SHF_COMPRESSED, ELFCOMPRESS_ZLIB = 0x800, 1


class BadBinary(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-bad-")
        cls.path = compile_sample(cls.folder, "-gdwarf-5")
        cls.content = read(cls.path)
        cls.address = text_addresses(cls.path)[0]
        cls.daemon = Cairnd("--ingest.worker_memory", "512M", "--ingest.deadline", "60s").start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__()
        shutil.rmtree(cls.folder)

    def tearDown(self):
        self.assertEqual(self.daemon.get("/healthz").body, b"ok\n")
        self.assertEqual(self.daemon.get("/readyz").body, b"ready\n")

    def section(self, name):
        """Where its header, and where its bytes are."""
        out = subprocess.run(["readelf", "-SW", self.path], check=True, capture_output=True, text=True).stdout
        number, foff, size = re.search(r"\[ *(\d+)\] " + re.escape(name) + r" +\w+ +\w+ (\w+) (\w+)", out).groups()
        header = struct.unpack_from("<Q", self.content, E_SHOFF)[0] + 64 * int(number)
        return header, int(foff, 16), int(size, 16)

    def changed(self, foff, data):
        content = bytearray(self.content)
        content[foff:foff + len(data)] = data
        # The file ID covers both ends and the size: a tail of its own keeps these files apart.
        return bytes(content) + struct.pack("<QI", foff, zlib.crc32(data))

    def job(self, content, role="executable", **members):
        if role == "executable":
            members.setdefault("file_id", file_id(content))
        return self.daemon.wait_job(self.daemon.upload(content, role, **members)["job_id"])

    def frames(self, content):
        module = self.daemon.symbolize({"modules": [{"file_id": file_id(content), "addresses": [self.address]}]})[0]
        return module["results"][0]["frames"] if module["status"] == "ok" else module["status"]

    def fails(self, content, words, **members):
        job = self.job(content, **members)
        self.assertEqual(job["state"], "failed", job)
        self.assertIn(words, job["reason"])
        if "role" not in members:
            self.assertEqual(self.frames(content), "failed")

    def loses_lines_only(self, content, words):
        """The job is done, says what it left out and where, and the ELF symbols answer."""
        job = self.job(content)
        self.assertEqual(job["state"], "done", job)
        self.assertRegex(job.get("reason", ""), words)
        about = self.daemon.get("/v1/files/" + file_id(content)).json
        self.assertEqual(about["jobs"][0]["reason"], job["reason"])
        frames = self.frames(content)
        self.assertTrue(frames[-1]["function"], frames)
        return frames

    def test_truncated(self):
        for size in (10, 63, 64, 5000, len(self.content) - 1):
            with self.subTest(size):
                self.fails(self.content[:size], "binary: ")

    def test_empty_is_refused_before_a_session(self):
        answer = self.daemon.begin(b"")
        self.assertEqual((answer.status, answer.code), (400, "invalid"))
        self.assertIn("size", answer.message)

    def test_text(self):
        self.fails(b"#!/bin/sh\nexit 0\n" * 400, "binary: not an ELF file")

    def test_absurd_section_counts(self):
        self.fails(self.changed(E_SHNUM, b"\xff\xfe"), "section headers at 0x")
        header = struct.unpack_from("<Q", self.content, E_SHOFF)[0]
        content = bytearray(self.changed(header + SH_SIZE, struct.pack("<Q", 1 << 60)))  # the count is in section 0 when e_shnum is 0
        content[E_SHNUM:E_SHNUM + 2] = b"\0\0"
        self.fails(bytes(content), "sections")

    def test_sections_past_the_end(self):
        header, _, _ = self.section(".debug_info")
        self.fails(self.changed(header + SH_OFFSET, struct.pack("<Q", 1 << 40)), ".debug_info")

    def test_wrong_machine_of_a_debug_file(self):
        stripped, debug = os.path.join(self.folder, "stripped"), os.path.join(self.folder, "debug")
        subprocess.run(["objcopy", "--strip-all", self.path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", self.path, debug], check=True)
        ids = {"build_id": build_id(self.path)}
        self.assertEqual(self.job(read(stripped), **ids)["state"], "done")
        content = bytearray(read(debug))
        content[E_MACHINE:E_MACHINE + 2] = struct.pack("<H", 183)
        job = self.job(bytes(content), "debug", force=True, **ids)
        self.assertIn("machine", job["reason"], job)

    def test_debug_file_of_another_build_id(self):
        other = compile_sample(self.folder, "-DOTHER", "-O2", name="other")
        debug = os.path.join(self.folder, "other.debug")
        subprocess.run(["objcopy", "--only-keep-debug", other, debug], check=True)
        self.fails(read(debug), "build ID", role="debug", build_id="00" * 20)

    def test_decompression_bomb(self):
        header, foff, size = self.section(".debug_info")
        flags = struct.unpack_from("<Q", self.content, header + SH_FLAGS)[0]
        for claim in 1 << 50, 1 << 31, 1000:
            with self.subTest(claim):
                bomb = bytearray(self.content)
                struct.pack_into("<Q", bomb, header + SH_FLAGS, flags | SHF_COMPRESSED)
                packed = struct.pack("<IIQQ", ELFCOMPRESS_ZLIB, 0, claim, 1) + zlib.compress(b"\0" * 400000)
                self.assertLess(len(packed), size)
                bomb[foff:foff + len(packed)] = packed
                bomb += struct.pack("<Q", claim)
                if claim > 1 << 32:
                    self.fails(bytes(bomb), ".debug_info")
                else:
                    self.loses_lines_only(bytes(bomb), r"\.debug_info")

    def test_damaged_dwarf_names_the_place_and_leaves_the_rest(self):
        _, info, _ = self.section(".debug_info")
        _, line, _ = self.section(".debug_line")
        for foff, data, words in ((info + 4, b"\x63", r"\.debug_info\+0x\w+: a unit of DWARF version 99"),
                                  (info, b"\xff\xff\xff\x7f", r"\.debug_info\+0x\w+: a unit of 0x7fffffff bytes"),
                                  (line + 4, b"\x63", r"\.debug_line\+0x\w+: a line table of version 99")):
            with self.subTest(words):
                self.loses_lines_only(self.changed(foff, data), words)

    def test_any_byte_of_the_debug_sections_set_to_ones(self):
        """Sampled: the unit tests change every byte."""
        for name in ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".symtab":
            _, foff, size = self.section(name)
            for at in range(0, size, size // 3 + 1):
                with self.subTest(name, at=at):
                    job = self.job(self.changed(foff + at, b"\xff\xff\xff\xff"))
                    self.assertIn(job["state"], ("done", "failed"))
                    self.assertNotRegex(job.get("reason", ""), "crash|killed|deadline|memory")


if __name__ == "__main__":
    unittest.main(verbosity=1)
