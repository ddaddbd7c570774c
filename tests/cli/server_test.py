#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line programs and a real cairnd: symbols in, names out, and the store looked at."""
import base64
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

from programs import SOURCE_DIR, UPLOAD, ProgramTest, cairn, run, tool

sys.path.insert(0, os.path.join(SOURCE_DIR, "tests", "daemon"))
from cairnd import Cairnd  # noqa: E402


class Server(ProgramTest):
    def setUp(self):
        super().setUp()
        self.cairnd = Cairnd()
        self.cairnd.__enter__()
        self.addCleanup(self.cairnd.__exit__)

    def url(self):
        return f"http://127.0.0.1:{self.cairnd.port}"

    def upload(self, *arguments, status=0, stderr=""):
        return self.expect(run(UPLOAD, "--url", self.url(), "--wait", *arguments), status, stderr)

    def symbolize(self, *arguments, status=0, stderr="", **more):
        return self.expect(cairn("symbolize", "--url", self.url(), *arguments, **more), status, stderr)

    def ids(self, path):
        """File ID and build ID."""
        return cairn("fileid", path).stdout[:32], re.search(r"Build ID: (\w+)", run("readelf", "-n", path).stdout)[1]

    def store(self, command, status=0, stderr=""):
        return self.expect(cairn("store", command, "--data-dir", os.path.join(self.cairnd.data_dir, "data")), status, stderr)

    def test_a_pair_is_uploaded_and_symbolized_under_all_its_ids(self):
        binary, _ = self.split()
        self.assertIn("2 sent", self.upload(binary).stdout)
        file_id, build_id = self.ids(binary)
        address = hex(self.functions("_ZN4shop5totalEiPKc")[0])
        text = self.symbolize(file_id, address).stdout
        self.assertRegex(text, rf"^{address}\n    shop::total\(int, char const\*\)\+0x0 at \S+sample\.cc:\d+:\d+\n$")
        base64url = base64.urlsafe_b64encode(bytes.fromhex(file_id)).decode().rstrip("=")
        self.assertEqual(self.symbolize(base64url, address).stdout, text)
        self.assertEqual(self.symbolize(build_id, address).stdout, text)
        self.assertEqual(self.symbolize(build_id, input=f"{address}\n\n").stdout, text)
        self.assertIn("    shop::total+0x0", self.symbolize("--demangle", "short", file_id, address).stdout)
        self.assertIn('"status":"ok"', self.symbolize("--json", file_id, address).stdout)
        again = self.upload(binary)
        self.assertIn("0 sent (0 B), 2 already there", again.stdout)

    def test_inlined_frames_and_offsets_in_the_file(self):
        self.upload(self.sample)
        file_id, _ = self.ids(self.sample)
        texts = self.symbolize(file_id, *map(hex, self.functions("plain"))).stdout
        self.assertRegex(texts, r"    shop::price\(int\) at \S+sample\.cc:\d+:\d+ \(inlined\)\n    plain\+0x")
        segments = run("readelf", "-lW", self.sample).stdout
        foff, vaddr = next((int(l.split()[1], 16), int(l.split()[2], 16)) for l in segments.splitlines() if " R E " in l)
        entry = self.functions("plain")[0]
        by_offset = self.symbolize("--file-offset", file_id, hex(entry - vaddr + foff)).stdout
        self.assertEqual(by_offset.splitlines()[1:], self.symbolize(file_id, hex(entry)).stdout.splitlines()[1:])

    def test_what_nobody_knows_has_a_reason(self):
        self.symbolize("00" * 16, "10", status=1, stderr=f"{'00' * 16}: unknown")
        self.symbolize("00" * 20, "10", status=1, stderr=f"{'00' * 20}: unknown")
        self.upload(self.sample)
        self.assertRegex(self.symbolize(self.ids(self.sample)[0], "1").stdout, r"^0x1\n    \?\? \((out_of_range|no_symbol)\)\n$")

    def test_a_profile_of_nothing_is_told(self):
        result = self.expect(cairn("profile", "--url", self.url(), "--filter", "service=none"), 0, "cairn profile: no samples")
        self.assertEqual(result.stdout, "")

    def test_a_file_keeps_its_name_whatever_its_debug_file_is_called(self):
        binary, debug = self.split()
        os.rename(debug, self.path("a.debug"))  # before "app" in any order of names
        for path in binary, self.path("a.debug"):
            run(UPLOAD, "--url", self.url(), "--wait", path)
        answer = self.cairnd.get(f"/v1/files/{self.ids(binary)[0]}").json
        self.assertEqual((answer["name"], answer["entries"][0]["kind"]), ("app", "dwarf"))

    def test_lines_without_a_function_are_told_from_a_name(self):
        with open(self.path("a.s"), "w", encoding="ascii") as file:
            file.write('.file 1 "lone.s"\n.text\n.loc 1 7\n nop\n.loc 1 8\n nop\n nop\n nop\n')
        tool("as", self.path("a.s"), "-o", self.path("a.o"))
        tool("ld", "--build-id=sha1", "-e", "0", self.path("a.o"), "-o", self.path("lone"))
        self.upload(self.path("lone"))
        low = re.search(r" \.text +PROGBITS +([0-9a-f]+)", run("readelf", "-SW", self.path("lone")).stdout)[1]
        text = self.symbolize(self.ids(self.path("lone"))[0], hex(int(low, 16) + 1)).stdout
        self.assertRegex(text, r"\n    \?\? at \S*lone\.s:8\n$")

    def test_a_build_id_of_32_digits_is_found_after_no_file_has_it(self):
        tool("g++", "-O2", "-g", "-Wl,--build-id=0x00112233445566778899aabbccddeeff", self.sample + ".cc", "-o", self.path("md5"))
        self.upload(self.path("md5"))
        self.assertIn("plain", self.symbolize("00112233445566778899aabbccddeeff", hex(self.functions("plain")[-1])).stdout)

    def test_a_package_is_unpacked_by_the_server(self):
        root = self.path("root")
        os.makedirs(os.path.join(root, "DEBIAN"))
        os.makedirs(os.path.join(root, "usr", "bin"))
        shutil.copy(self.sample, os.path.join(root, "usr", "bin"))
        with open(os.path.join(root, "DEBIAN", "control"), "w", encoding="ascii") as file:
            file.write("Package: sample\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@example.org>\nDescription: x\n")
        tool("dpkg-deb", "--root-owner-group", "-b", root, self.path("sample.deb"))
        self.assertIn("sent    package", self.upload(self.path("sample.deb")).stdout)
        self.assertIn("plain", self.symbolize(self.ids(self.sample)[0], hex(self.functions("plain")[-1])).stdout)

    def split_dwarf(self, compiler, *flags):
        """A program of two units, stripped, its debug file beside it, their other halves in o/: what llvm-symbolizer says of it as it was, by address."""
        os.makedirs(self.path("o"))
        for unit in "ab":
            with open(self.path(f"{unit}.cc"), "w", encoding="ascii") as file:
                file.write(f"static inline __attribute__((always_inline)) int inner_{unit}(int x) {{ return x * x + {ord(unit)}; }}\n"
                           f"__attribute__((noinline)) int outer_{unit}(int x) {{ return inner_{unit}(x) + inner_{unit}(x + 1); }}\n" +
                           ("int outer_a(int);\nint main(int c, char **) { return outer_a(c) + outer_b(c); }\n" if unit == "b" else ""))
            tool(compiler, "-O1", "-gsplit-dwarf", *flags, "-c", self.path(f"{unit}.cc"), "-o", self.path("o", f"{unit}.o"))
        program, debug = self.path("prog"), self.path("prog.debug")
        tool(compiler, "-Wl,--build-id=sha1", self.path("o", "a.o"), self.path("o", "b.o"), "-o", program)
        lines = [line.split() for line in run("nm", "-S", program).stdout.splitlines()]
        addresses = [hex(a) for f in lines if len(f) == 4 and "outer_" in f[3] for a in range(int(f[0], 16), int(f[0], 16) + int(f[1], 16))]
        blocks = run("llvm-symbolizer-19", "--obj=" + program, *addresses).stdout.split("\n\n")
        truth = {a: list(zip(b.split("\n")[0::2], (place.rsplit(":", 2)[-2] for place in b.split("\n")[1::2]))) for a, b in zip(addresses, blocks)}
        self.assertTrue(all(any(f"inner_{unit}" in frames[0][0] for frames in truth.values()) for unit in "ab"))
        tool("objcopy", "--only-keep-debug", program, debug)
        tool("strip", program)
        return program, truth

    def chains(self, program, addresses):
        module = {"build_id": self.ids(program)[1], "addresses": list(addresses)}
        results = self.cairnd.symbolize({"modules": [module]})[0]["results"]
        return {a: [(f["function"], str(f.get("line", 0))) for f in r["frames"]] for a, r in zip(addresses, results)}

    def test_dwo_files_are_found_beside_their_program(self):
        for compiler, flags in (("g++", ["-gdwarf-4"]), ("g++", ["-gdwarf-5"]), ("clang++-19", ["-gdwarf-4"]), ("clang++-19", ["-gdwarf-5"])):
            with self.subTest(compiler=compiler, flags=flags):
                program, truth = self.split_dwarf(compiler, *flags)
                self.assertIn("3 sent", self.upload(self.folder).stdout)
                self.assertEqual(self.chains(program, truth), truth)
            for name in os.listdir(self.folder):
                shutil.rmtree(self.path(name)) if name == "o" else os.unlink(self.path(name))

    def test_a_dwp_is_found_beside_its_program(self):
        program, truth = self.split_dwarf("clang++-19", "-gdwarf-5")
        tool("llvm-dwp-19", "-e", self.path("prog.debug"), "-o", program + ".dwp")
        shutil.rmtree(self.path("o"))
        self.assertIn("3 sent", self.upload(self.folder).stdout)
        self.assertEqual(self.chains(program, truth), truth)

    def test_dwo_files_that_come_after_their_program(self):
        program, truth = self.split_dwarf("g++", "-gdwarf-5")
        os.rename(self.path("o"), self.path("elsewhere"))
        self.upload("--debug", self.path("prog.debug"), program, stderr="2 of its 2 .dwo files were not found")
        self.assertFalse(any("inner" in frames[0][0] for frames in self.chains(program, truth).values()))
        entry = self.cairnd.get(f"/v1/files/{self.ids(program)[0]}").json["entries"][0]
        self.assertEqual(entry["kind"], "dwarf")
        os.rename(self.path("elsewhere"), self.path("o"))
        self.assertIn("1 sent", self.upload("--debug", self.path("prog.debug"), program).stdout)
        self.assertEqual(self.chains(program, truth), truth)

    def test_a_file_that_cannot_be_built_is_told(self):
        with open(self.path("broken.deb"), "wb") as file:
            file.write(b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\ngarbage")
        result = run(UPLOAD, "--url", self.url(), "--wait", self.path("broken.deb"))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"broken\.deb: job \w+ failed: ")

    def test_an_upload_survives_kill_9_and_restart(self):
        big = self.path("big")
        shutil.copy(self.sample, big)
        with open(big, "ab") as file:
            file.write(os.urandom(64 << 20))
        url = self.url()
        with subprocess.Popen([UPLOAD, "--url", url, "--wait", big], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 30
            # An offset only upload-symbols has made: before its first answer a server that is not there is an error at once.
            while not self.begun(big).json.get("offset") and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            self.cairnd.kill()
            time.sleep(0.3)
            self.cairnd.flags += ["--http", url.split("//")[1]]
            self.cairnd.start()
            output, errors = process.communicate(timeout=120)
            self.assertEqual((process.returncode, errors), (0, ""), output)
        self.assertIn("plain", self.symbolize(self.ids(big)[0], hex(self.functions("plain")[-1])).stdout)
        self.store("check")

    def begun(self, path):
        """What the server says of this content: it finds the session that upload-symbols began, or begins it."""
        with open(path, "rb") as file:
            return self.cairnd.begin(file.read())

    def test_the_store_is_checked_beside_a_running_server_and_alone(self):
        self.upload(self.sample)
        for _ in range(2):
            values = dict(line.split(": ") for line in self.store("check").stdout.splitlines())
            self.assertEqual((values["files"], values["tables"], values["faults"]), ("1", "1", "0"))
            values = dict(line.split(": ") for line in self.store("stat").stdout.splitlines())
            self.assertEqual((values["files"], values["tables"]), ("1", "1"))
            self.assertGreater(int(values["file_bytes"]), 0)
            if self.cairnd.process:
                self.cairnd.stop()

    def test_a_damaged_table_is_a_fault(self):
        self.upload(self.sample)
        self.cairnd.stop()
        data = os.path.join(self.cairnd.data_dir, "data")
        damaged = 0
        for folder, _, names in os.walk(data):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "r+b") as file:
                    content = file.read()
                    at = content.find(b"CAIRNTAB")
                    if at >= 0:
                        file.seek(at + 600)
                        file.write(bytes([content[at + 600] ^ 0xff]))
                        damaged += 1
        self.assertEqual(damaged, 1)
        result = cairn("store", "check", "--data-dir", data)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertRegex(result.stderr, r"table")
        self.assertIn("faults", result.stderr.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
