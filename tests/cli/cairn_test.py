#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cairn` as a person at a prompt has it: what goes in, what comes out, what it says when it cannot."""
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
import unittest

from programs import CAIRN, ProgramTest, cairn, run, tool

COMMANDS = [["fileid"], ["table"], ["table", "build"], ["table", "lookup"], ["table", "stat"], ["addr2line"], ["verify"],
            ["symbolize"], ["profile"], ["agents"], ["sync"], ["store"], ["store", "check"], ["store", "stat"]]
NAMES = ("main", "plain", "_ZN4shop5totalEiPKc")


class Usage(ProgramTest):
    def test_every_command_has_help(self):
        for command in [[], *COMMANDS]:
            with self.subTest(command=command):
                result = self.expect(cairn(*command, "--help"), 0)
                self.assertTrue(result.stdout.startswith("usage: cairn " + " ".join(command)))

    def test_the_lists_of_commands_are_complete(self):
        self.assertEqual(re.findall(r"^  (\w+) ", cairn("--help").stdout, re.MULTILINE), ["fileid", "table", "addr2line", "verify", "symbolize", "profile", "sync", "store", "agents"])
        self.assertEqual(re.findall(r"^  (\w+) ", cairn("table", "--help").stdout, re.MULTILINE), ["build", "lookup", "stat"])
        self.assertEqual(re.findall(r"^  (\w+) ", cairn("store", "--help").stdout, re.MULTILINE), ["check", "stat"])

    def test_version(self):
        self.assertRegex(self.expect(cairn("--version"), 0).stdout, r"^cairn \d+\.\d+\.\d+\n$")

    def test_wrong_usage_exits_2_with_one_line(self):
        cases = {
            (): "cairn: a command is missing",
            ("nonsense",): 'cairn: there is no command "nonsense"',
            ("table",): "cairn table: a command is missing",
            ("table", "nonsense"): 'there is no command "nonsense"',
            ("fileid",): "a file is missing",
            ("fileid", "--nonsense"): "cairn fileid: unrecognized option '--nonsense'",
            ("table", "build", "x"): "it takes one file and -o TABLE",
            ("table", "build", "-o", "x"): "it takes one file and -o TABLE",
            ("table", "build", "-j", "0", "a", "-o", "b"): "-j takes a number",
            ("table", "build", "-j", "65", "a", "-o", "b"): "-j takes a number",
            ("table", "lookup"): "it takes one table",
            ("table", "lookup", "--demangle", "some", "x"): "--demangle takes full, short or none",
            ("table", "stat", "a", "b"): "it takes one table",
            ("addr2line", "--nonsense"): "unrecognized option",
            ("addr2line", "-e"): "option requires an argument",
            ("verify",): "it takes one file",
            ("verify", "--samples", "x", "a"): "--samples takes a number",
            ("symbolize",): "an ID is missing",
            ("symbolize", "--wait", "61", "00"): "--wait takes 1 to 60 seconds",
            ("store", "check"): "it takes --data-dir DIR",
            ("store", "stat"): "it takes --data-dir DIR",
        }
        for arguments, message in cases.items():
            with self.subTest(arguments=arguments):
                self.expect(cairn(*arguments), 2, message)

    def test_closed_standard_streams_do_not_lend_their_numbers_to_files(self):
        with subprocess.Popen([CAIRN, "addr2line", "-e", self.sample], stdin=subprocess.PIPE,
                              preexec_fn=lambda: os.closerange(1, 3)) as process:
            for _ in range(500):  # until the file has been read
                found = [os.path.realpath(f"/proc/{process.pid}/fd/{fd}") for fd in (1, 2)]
                if found == ["/dev/null"] * 2 or process.poll() is not None:
                    break
                time.sleep(0.01)
            self.assertEqual(found, ["/dev/null"] * 2)
            process.stdin.write(b"0\n")
            process.stdin.close()
            self.assertEqual(process.wait(), 1, "an answer that cannot be written is a failure")

    def test_a_full_disk_behind_standard_output_is_told(self):
        for command in (["--help"], ["fileid", self.sample], ["--version"]):
            with self.subTest(command=command), open("/dev/full", "w", encoding="ascii") as full:
                result = subprocess.run([CAIRN, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(result.returncode, 1)
                self.assertIn("write standard output: No space left on device", result.stderr)


class FileId(ProgramTest):
    def test_prints_the_id_of_each_file(self):
        with open(self.sample, "rb") as file:
            data = file.read()
        want = hashlib.sha256(data[:4096] + data[-4096:] + len(data).to_bytes(8, "big")).hexdigest()[:32]
        result = self.expect(cairn("fileid", self.sample, self.sample), 0)
        self.assertEqual(result.stdout, f"{want}  {self.sample}\n" * 2)

    def test_goes_on_after_a_file_that_is_not_there(self):
        result = self.expect(cairn("fileid", "/nonexistent", self.sample), 1, "open /nonexistent: No such file or directory")
        self.assertEqual(len(result.stdout.splitlines()), 1)

    def test_refuses_a_folder(self):
        self.expect(cairn("fileid", self.folder), 1, f"{self.folder}: not a regular file")


class Table(ProgramTest):
    def build(self, *arguments, status=0, stderr=""):
        return self.expect(cairn("table", "build", *arguments), status, stderr)

    def lookup(self, table, text, *flags, status=0, stderr=""):
        result = self.expect(cairn("table", "lookup", *flags, table, input=text), status, stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def read(self, name):
        with open(name, "rb") as file:
            return file.read()

    def test_the_same_input_gives_the_same_bytes_with_any_number_of_threads(self):
        tables = []
        for threads in "1", "2", "7":
            result = self.build("-j", threads, self.sample, "-o", self.path(threads))
            self.assertRegex(result.stdout, r"^\S+: [\d.]+ kB, \d+ functions, \d+ inlined calls, \d+ rows from dwarf,symtab in [\d.]+ s\n$")
            tables.append(self.read(self.path(threads)))
        self.assertEqual(tables[0], tables[1])
        self.assertEqual(tables[0], tables[2])
        self.assertEqual(sorted(os.listdir(self.folder)), ["1", "2", "7"], "no temporary file is left")

    def test_a_stripped_binary_gets_its_lines_from_the_debug_file(self):
        binary, debug = self.split()
        os.mkdir(self.path("elsewhere"))
        lone = self.path("elsewhere", "app")
        shutil.copy(binary, lone)
        self.build(binary, "-o", self.path("by-link"))
        self.build("--debug", debug, lone, "-o", self.path("named"))
        self.assertEqual(self.read(self.path("by-link")), self.read(self.path("named")))
        address = hex(self.functions("plain")[0])
        frames = self.lookup(self.path("named"), address)[0]["frames"]
        self.assertTrue(frames[-1]["file"].endswith("sample.cc"))
        self.build(lone, "-o", self.path("without"), status=1, stderr="neither DWARF nor function symbols")

    def test_a_line_of_no_function_has_no_such_member(self):
        with open(self.path("line.s"), "w", encoding="ascii") as file:
            file.write("\t.text\n\tnop\n\tret\n")
        tool("gcc", "-g", "-nostdlib", "-shared", self.path("line.s"), "-o", self.path("line.so"))
        sections = subprocess.run(["readelf", "-SW", self.path("line.so")], check=True, capture_output=True, text=True).stdout
        address = "0x" + re.search(r" \.text +PROGBITS +0*([0-9a-f]+)", sections).group(1)
        self.build(self.path("line.so"), "-o", self.path("t"))
        frames = self.lookup(self.path("t"), address)[0]["frames"]
        self.assertEqual(frames, [{"file": self.path("line.s"), "line": 2, "inlined": False}])

    def test_build_says_what_and_where(self):
        binary, _ = self.split(link=False)
        other = self.path("other")
        with open(self.path("other.c"), "w", encoding="ascii") as file:
            file.write("int main(void) { return 0; }\n")
        tool("gcc", "-g", "-Wl,--build-id=sha1", self.path("other.c"), "-o", other)
        with open(self.path("text"), "w", encoding="ascii") as file:
            file.write("hello\n")
        open(self.path("empty"), "w", encoding="ascii").close()
        out = self.path("out")
        self.build("/nonexistent", "-o", out, status=1, stderr="/nonexistent: No such file")
        self.build(self.path("text"), "-o", out, status=1, stderr=self.path("text"))
        self.build(self.path("empty"), "-o", out, status=1, stderr=self.path("empty"))
        self.build("--debug", other, binary, "-o", out, status=1, stderr="build ID")
        self.build("--debug", "/nonexistent", binary, "-o", out, status=1, stderr="/nonexistent")
        self.build(self.sample, "-o", "/nonexistent/out", status=1, stderr="/nonexistent/out")
        self.assertFalse(os.path.exists(out))

    def test_build_writes_through_links_and_never_replaces_what_is_no_file(self):
        pipe, link, real = self.path("pipe"), self.path("link"), self.path("real")
        self.build(self.sample, "-o", real)
        want = self.read(real)
        os.truncate(real, 0)
        os.symlink("real", link)
        self.build(self.sample, "-o", link)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(self.read(real), want)
        os.mkfifo(pipe)
        with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as cat:
            self.build(self.sample, "-o", pipe)
            self.assertEqual(cat.communicate()[0], want)
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))
        self.build(self.sample, "-o", self.folder, status=1, stderr=f"open {self.folder}: Is a directory")
        os.symlink("/dev/full", self.path("link-to-full"))
        self.build(self.sample, "-o", self.path("link-to-full"), status=1, stderr="No space left on device")
        self.assertTrue(os.path.islink(self.path("link-to-full")))

    def test_lookup_answers_each_line_in_order(self):
        self.build(self.sample, "-o", self.path("t"))
        addresses = self.functions(*NAMES)
        answers = self.lookup(self.path("t"), "\n".join(map(hex, addresses)))
        self.assertEqual([answer["address"] for answer in answers], list(map(hex, addresses)))
        names = set()
        for answer in answers:
            self.assertTrue(answer["frames"])
            for frame in answer["frames"]:
                self.assertEqual(frame["inlined"], frame is not answer["frames"][-1])
                self.assertEqual("offset" in frame, not frame["inlined"])
                names.add((frame["symbol"], frame["function"]))
        self.assertIn(("_ZN4shop5totalEiPKc", "shop::total(int, char const*)"), names)
        self.assertIn(("_ZN4shop5priceEi", "shop::price(int)"), names)
        self.assertIn(("_ZNK4shop3boxIiE3getEv", "shop::box<int>::get() const"), names)
        self.assertIn(("plain", "plain"), names)

    def test_lookup_demangles_as_asked(self):
        self.build(self.sample, "-o", self.path("t"))
        address = hex(self.functions("_ZN4shop5totalEiPKc")[0])
        for style, want in ("short", "shop::total"), ("none", "_ZN4shop5totalEiPKc"), ("full", "shop::total(int, char const*)"):
            frame = self.lookup(self.path("t"), address, "--demangle", style)[0]["frames"][-1]
            self.assertEqual((frame["function"], frame["symbol"]), (want, "_ZN4shop5totalEiPKc"))

    def test_lookup_agrees_with_llvm_symbolizer(self):
        self.build(self.sample, "-o", self.path("t"))
        addresses = self.functions(*NAMES)
        asked = "\n".join(map(hex, addresses))
        reference = run("llvm-symbolizer-19", "--output-style=JSON", "-e", self.sample, input=asked)
        for ours, line in zip(self.lookup(self.path("t"), asked), reference.stdout.splitlines()):
            theirs = [(f["FunctionName"], f["FileName"], f["Line"], f["Column"]) for f in json.loads(line)["Symbol"]]
            self.assertEqual([(f["function"], f["file"], f.get("line", 0), f.get("column", 0)) for f in ours["frames"]], theirs, ours)

    def test_lookup_takes_what_people_type(self):
        self.build(self.sample, "-o", self.path("t"))
        address = self.functions("plain")[0]
        text = f"{address:x}\n0X{address:X}\r\n\n  0x{address:016x}\t\n{address:x}"
        self.assertEqual([a["address"] for a in self.lookup(self.path("t"), text)], [hex(address)] * 4)
        self.assertEqual(self.lookup(self.path("t"), ""), [])
        self.assertEqual(self.lookup(self.path("t"), "0\nffffffffffffffff\n"),
                         [{"address": "0x0", "frames": []}, {"address": "0xffffffffffffffff", "frames": []}])

    def test_lookup_names_the_line_that_is_no_address(self):
        self.build(self.sample, "-o", self.path("t"))
        for bad in "xyz", "0x", "-1", "10000000000000000", "1 2":
            answers = self.lookup(self.path("t"), f"10\n\n{bad}\n20\n", status=1, stderr=f'line 3: "{bad}" is not an address')
            self.assertEqual([a["address"] for a in answers], ["0x10"], "what stood before it is answered")
        self.lookup(self.path("t"), "1" * 2000, status=1, stderr="line 1 is longer than an address can be")

    def test_lookup_of_many_addresses_equals_lookup_of_few(self):
        """Batches end in the middle of reads and the other way round."""
        self.build(self.sample, "-o", self.path("t"))
        some = self.functions(*NAMES)
        want = {a["address"]: a for a in self.lookup(self.path("t"), "\n".join(map(hex, some)))}
        many = [some[i * 7919 % len(some)] for i in range(300000)]
        answers = self.lookup(self.path("t"), "\n".join(map(hex, many)))
        self.assertEqual(len(answers), len(many))
        for address, answer in zip(many, answers):
            self.assertEqual(answer, want[hex(address)])

    def test_lookup_answers_before_the_input_ends(self):
        self.build(self.sample, "-o", self.path("t"))
        with subprocess.Popen([CAIRN, "table", "lookup", self.path("t")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for address in self.functions("plain")[:3]:
                process.stdin.write(b"%x\n" % address)
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["address"], hex(address))
            process.stdin.close()
            self.assertEqual(process.wait(), 0)

    def test_lookup_tells_when_its_output_is_full(self):
        self.build(self.sample, "-o", self.path("t"))
        with open("/dev/full", "w", encoding="ascii") as full:
            result = subprocess.run([CAIRN, "table", "lookup", self.path("t")], input="10\n", stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((result.returncode, result.stderr), (1, "cairn table lookup: write standard output: No space left on device\n"))

    def test_stat_prints_names_and_values(self):
        self.build(self.sample, "-o", self.path("t"))
        values = dict(line.split(": ", 1) for line in self.expect(cairn("table", "stat", self.path("t")), 0).stdout.splitlines())
        self.assertEqual(values["sha256"], hashlib.sha256(self.read(self.path("t"))).hexdigest())
        self.assertEqual(int(values["total_bytes"]), os.path.getsize(self.path("t")))
        self.assertEqual(values["sources"], "dwarf,symtab")
        notes = run("readelf", "-n", self.sample).stdout
        self.assertEqual(values["build_id"], re.search(r"Build ID: (\w+)", notes)[1])
        self.assertGreater(int(values["functions"]), 2)

    def test_a_file_that_is_no_table_or_damaged_is_told(self):
        self.build(self.sample, "-o", self.path("t"))
        data = bytearray(self.read(self.path("t")))
        data[len(data) // 2] ^= 0x55
        with open(self.path("damaged"), "wb") as file:
            file.write(data)
        with open(self.path("short"), "wb") as file:
            file.write(data[:100])
        for command in "stat", "lookup":
            self.expect(cairn("table", command, self.sample, input=""), 1, self.sample)
            self.expect(cairn("table", command, "/dev/null", input=""), 1, "/dev/null: not a regular file")
            self.expect(cairn("table", command, self.path("short"), input=""), 1, self.path("short"))
        self.expect(cairn("table", "stat", self.path("damaged")), 1, self.path("damaged"))


class Verify(ProgramTest):
    def test_the_sample_passes(self):
        result = self.expect(cairn("verify", self.sample), 0)
        self.assertIn("differences: 0", result.stdout)

    def test_a_pair_passes(self):
        binary, debug = self.split()
        self.expect(cairn("verify", "--debug", debug, "--samples", "100", "--seed", "7", binary), 0)

    def test_another_files_table_does_not(self):
        tool("g++", "-O0", "-g", self.sample + ".cc", "-o", self.path("other"))
        self.expect(cairn("table", "build", self.path("other"), "-o", self.path("t")), 0)
        result = self.expect(cairn("verify", "--table", self.path("t"), self.sample), 1, "differences")
        self.assertRegex(result.stdout, r"0x[0-9a-f]+")

    def test_a_file_that_is_not_there(self):
        self.expect(cairn("verify", "/nonexistent"), 1, "/nonexistent")


class Addr2line(ProgramTest):
    """Against binutils' own, byte for byte, but for discriminators."""

    def same(self, flags, addresses, path=None, **more):
        path = path or self.sample
        theirs = run("addr2line", *flags, "-e", path, *addresses, **more)
        ours = run(CAIRN, "addr2line", *flags, "-e", path, *addresses, **more)
        self.assertEqual(ours.stderr, "")
        self.assertEqual(ours.returncode, theirs.returncode)
        self.assertEqual(ours.stdout, re.sub(r" \(discriminator \d+\)", "", theirs.stdout))
        return ours.stdout

    def test_every_address_with_every_set_of_flags(self):
        addresses = list(map(hex, self.functions(*NAMES)))
        for flags in [], ["-f"], ["-a"], ["-i"], ["-s"], ["-p"], ["-aif"], ["-aipf"], ["-aifC"], ["-Caifps"], ["-fs"], ["-ipa"], \
                ["-C", "-f", "-p"], ["--addresses", "--functions", "--inlines", "--demangle", "--pretty-print", "--basenames"], \
                ["--demangle=gnu-v3", "-fi", "-r"], ["-R", "-b", "elf64-x86-64", "-if"]:
            with self.subTest(flags=flags):
                text = self.same(flags, addresses)
                self.assertIn("sample.cc:", text)
        self.assertIn(" (inlined by) ", self.same(["-ip"], addresses))

    def test_what_nobody_knows(self):
        for flags in [], ["-f"], ["-aif"], ["-aifp"], ["-fCps"]:
            self.same(flags, ["0", "1", "ffffffffffffffff", "0xffffffff", ",", "zz", ""])
        self.assertEqual(self.same(["-f"], ["0"]), "??\n??:0\n")

    def test_addresses_from_standard_input(self):
        text = "".join(f"{a:x}\n" for a in self.functions("plain")) + "nonsense\n0x0\n" + "1" * 250 + "\n"
        self.same(["-aif"], [], input=text)
        self.same(["-aif"], [], input="")

    def test_an_answer_comes_before_the_next_question(self):
        """As perf does: an address, then a comma, and the answer to the comma ends the first."""
        with subprocess.Popen([CAIRN, "addr2line", "-e", self.sample, "-a", "-i", "-f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for address in self.functions("plain")[:3]:
                process.stdin.write(b"%016x\n,\n" % address)
                process.stdin.flush()
                self.assertEqual(process.stdout.readline(), b"0x%016x\n" % address)
                lines = []
                while (line := process.stdout.readline()) != b"0x0000000000000000\n":
                    lines.append(line)
                self.assertEqual(lines[-2], b"plain\n")
                self.assertEqual([process.stdout.readline(), process.stdout.readline()], [b"??\n", b"??:0\n"])
            process.stdin.close()
            self.assertEqual(process.wait(), 0)

    def test_offsets_in_a_section(self):
        line = next(l for l in run("readelf", "-SW", self.sample).stdout.splitlines() if " .text " in l)
        fields = line.split("]")[1].split()
        vaddr, size = int(fields[2], 16), int(fields[4], 16)
        offsets = [hex(a - vaddr) for a in self.functions("plain")]
        self.same(["-aif", "-j", ".text"], offsets + [hex(size), hex(size + 100)])
        self.expect(cairn("addr2line", "-j", ".nonsense", "-e", self.sample, "0"), 1, "cannot find section .nonsense")

    def test_a_debug_file_by_link(self):
        binary, _ = self.split()
        self.same(["-aif"], list(map(hex, self.functions("plain", "main"))), binary)

    def test_32_bit_addresses_are_short(self):
        with open(self.path("a.s"), "w", encoding="ascii") as file:
            file.write(".globl _start\n.type _start,@function\n_start: nop\n nop\n.size _start, .-_start\n")
        tool("as", "--32", "-g", self.path("a.s"), "-o", self.path("a.o"))
        tool("ld", "-m", "elf_i386", self.path("a.o"), "-o", self.path("a"))
        entry = re.search(r"Entry point address:\s+(\S+)", run("readelf", "-h", self.path("a")).stdout)[1]
        self.assertIn("0x" + entry[2:].zfill(8), self.same(["-a"], [entry, "1"], self.path("a")))

    def test_a_table_instead_of_the_file(self):
        addresses = list(map(hex, self.functions("plain")))
        self.expect(cairn("table", "build", self.sample, "-o", self.path("t")), 0)
        self.assertEqual(cairn("addr2line", "-aif", "-e", self.path("t"), *addresses).stdout, self.same(["-aif"], addresses))
        self.expect(cairn("addr2line", "-j", ".text", "-e", self.path("t"), "0"), 1, "a table has no sections")

    def test_a_out_is_the_default_and_a_missing_file_is_told(self):
        shutil.copy(self.sample, self.path("a.out"))
        result = cairn("addr2line", "-f", hex(self.functions("plain")[0]), cwd=self.folder)
        self.assertIn("sample.cc:", self.expect(result, 0).stdout)
        self.expect(cairn("addr2line", "-e", "/nonexistent", "0"), 1, "open /nonexistent: No such file or directory")

    def test_perf_can_use_it(self):
        version = run(CAIRN, "addr2line", "--version")
        self.assertRegex(version.stdout, r"^cairn addr2line \d")


class Offline(ProgramTest):
    """What symbolize and store say when there is nobody and nothing."""

    def test_symbolize_without_a_server(self):
        result = self.expect(cairn("symbolize", "--url", "http://127.0.0.1:1", "00" * 16, "10"), 1, "is cairnd running?")
        self.assertIn("http://127.0.0.1:1/v1/symbolize", result.stderr)

    def test_symbolize_refuses_what_makes_no_sense(self):
        self.expect(cairn("symbolize", "xyz", "10"), 1, '"xyz" is neither a file ID nor a build ID')
        self.expect(cairn("symbolize", "00" * 16, "10", "ten"), 1, '"ten" is not an address')
        self.expect(cairn("symbolize", "--url", "ftp://x", "00" * 16, "10"), 1, "no http:// or https:// address")

    def test_store_without_a_store(self):
        for command in "check", "stat":
            self.expect(cairn("store", command, "--data-dir", self.path("nothing")), 1, self.path("nothing"))


if __name__ == "__main__":
    unittest.main()
