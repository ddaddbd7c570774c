#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/lint on small made trees: it must see each kind of fault, and pass a tree without one."""

import os
import subprocess
import sys
import tempfile
import unittest

LINT = os.path.join(os.environ["CAIRN_SOURCE_DIR"], "scripts", "lint")
SPDX = "// SPDX-License-Identifier: Apache-2.0\n"

SOUND = {
    "base/err.h": "#include <stddef.h>\n",
    "base/codec.c": '#include "base/err.h"\n#include <zstd.h>\n',
    "fileid/fileid.h": '#include "base/err.h"\n',
    "store/store.h": '#include "base/err.h"\n#include "fileid/fileid.h"\n',
    "store/store.c": '#include "store/store.h"\n\n#include <lmdb.h>\n',
    "symbolizer/table/table.h": '#include "base/err.h"\n',
    "symbolizer/build/build.h": '#include "base/err.h"\n',
    "symbolizer/build/elf.h": "#include <gelf.h>\n",
    "symbolizer/build/elf.c": '#include "symbolizer/build/elf.h"\n#include "symbolizer/table/table.h"\n',
    "ingest/protocol.h": '#include "base/err.h"\n',
    "ingest/spawn.h": '#include "base/err.h"\n',
    "proto/symbolize.c": '#include <pb_decode.h>\n#include "cairn/v1/symbolize.pb.h"\n',
    "worker/main.c": '#include "symbolizer/table/table.h"\n#include "ingest/protocol.h"\n#include <archive.h>\n',
    "daemon/main.c": '#include "store/store.h"\n#include <sys/stat.h>\n',
    "tests/store/store_test.c": '#include "store/store.h"\n#include <lmdb.h>\n#include <criterion/criterion.h>\n',
}


def run(what, files, *arguments):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write(text if text.startswith("!") else SPDX + text)
        return subprocess.run([sys.executable, LINT, what, "--root", root, *arguments], capture_output=True, text=True, check=False)


class Includes(unittest.TestCase):
    def check(self, path, text, want):
        """One fault in an otherwise sound tree: exactly one line, which says it."""
        result = run("includes", {**SOUND, path: text})
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertEqual(len(result.stdout.splitlines()), 1, result.stdout)
        self.assertIn(want, result.stdout)

    def test_a_sound_tree_passes(self):
        result = run("includes", SOUND)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def test_an_edge_upwards_is_found(self):
        self.check("base/a.c", '#include "store/store.h"\n', "base/a.c:2: base may not include store (store/store.h)")

    def test_an_edge_to_a_neighbour_is_found(self):
        self.check("store/a.c", '#include "symbolizer/table/table.h"\n', "store may not include symbolizer/table")

    def test_table_api_and_daemon_may_not_include_build(self):
        for folder in ["symbolizer/table", "api", "daemon"]:
            with self.subTest(folder=folder):
                self.check(f"{folder}/a.c", '#include "symbolizer/build/build.h"\n', f"{folder} may not include symbolizer/build")

    def test_worker_may_include_the_protocol_and_nothing_else_of_ingest(self):
        self.check("worker/a.c", '#include "ingest/spawn.h"\n', "worker may not include ingest (ingest/spawn.h)")

    def test_nobody_includes_a_program(self):
        files = {**SOUND, "cli/cli.h": ""}
        result = run("includes", {**files, "api/a.c": '#include "cli/cli.h"\n'})
        self.assertIn("api may not include cli", result.stdout)

    def test_the_product_may_not_include_tests(self):
        files = {**SOUND, "tests/maker.h": ""}
        result = run("includes", {**files, "fileid/a.c": '#include "tests/maker.h"\n'})
        self.assertIn("fileid may not include tests/maker.h", result.stdout)

    def test_a_path_that_is_not_from_the_root_is_found(self):
        self.check("store/a.c", '#include "store.h"\n', '"store.h" is no file of ours')

    def test_generated_code_stays_with_proto(self):
        self.check("api/a.c", '#include "cairn/v1/symbolize.pb.h"\n', "it is proto's own")

    def test_a_library_outside_of_its_home_is_found(self):
        self.check("ingest/a.c", "#include <lmdb.h>\n", "<lmdb.h> may be included in store only")

    def test_every_library_has_a_home(self):
        for header in ["libelf.h", "gelf.h", "libdwarf/libdwarf.h", "dwarf.h", "event2/event.h", "nghttp2/nghttp2.h",
                       "openssl/ssl.h", "pb.h", "pb_encode.h", "curl/curl.h", "archive.h", "bpf/libbpf.h", "seccomp.h",
                       "jansson.h", "libiberty/demangle.h", "http_parser.h", "xxhash.h", "zlib.h", "lzma.h", "libdeflate.h"]:
            with self.subTest(header=header):
                self.check("fileid/a.c", f"#include <{header}>\n", "may be included in")

    def test_criterion_is_for_tests(self):
        self.check("store/a.c", "#include <criterion/criterion.h>\n", "may be included in tests only")

    def test_a_library_without_a_home_is_found(self):
        self.check("base/a.c", "#include <rocksdb/c.h>\n", "<rocksdb/c.h> is of no library that has a home")

    def test_a_library_that_a_header_brings_along_is_found(self):
        self.check("cli/a.c", '#include "symbolizer/build/elf.h"\n', "cli/a.c: brings in <gelf.h> by way of symbolizer/build/elf.h")

    def test_it_is_found_behind_two_headers(self):
        files = {**SOUND, "symbolizer/build/outer.h": '#include "symbolizer/build/elf.h"\n'}
        result = run("includes", {**files, "worker/a.c": '#include "symbolizer/build/outer.h"\n'})
        self.assertIn("brings in <gelf.h> by way of symbolizer/build/outer.h > symbolizer/build/elf.h", result.stdout)

    def test_spaces_do_not_hide_and_comments_do_not_count(self):
        self.check("base/a.c", '  #  include   "store/store.h"\n', "base/a.c:2")
        result = run("includes", {**SOUND, "base/a.c": '/* #include "store/store.h"\n#include <lmdb.h> */\n// #include <lmdb.h>\n'})
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_an_empty_tree_is_no_success(self):
        result = run("includes", {})
        self.assertEqual(result.returncode, 1)
        self.assertIn("no source files", result.stdout)


def function(lines, name="long_one"):
    """A function of @lines lines, from its signature to its closing brace."""
    return f"static int {name}(void)\n{{\n" + "\tint a;\n" * (lines - 3) + "}\n"


class Sizes(unittest.TestCase):
    def test_100_lines_pass_and_101_do_not(self):
        result = run("sizes", {"base/a.c": function(100)})
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        result = run("sizes", {"base/a.c": "\n" + function(20, "short_one") + "\n" + function(101)})
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout, "base/a.c:24: long_one has 101 lines, more than 100\n")

    def test_a_signature_of_two_lines_counts(self):
        text = "static int\nlong_one(int a,\n\tint b)\n{\n" + "\tint c;\n" * 97 + "}\n"
        result = run("sizes", {"base/a.c": text})
        self.assertIn("base/a.c:2: long_one has 102 lines", result.stdout)

    def test_braces_in_strings_and_comments_do_not_count(self):
        text = "static int f(void)\n{\n" + '\tputs("\\"}");\n/*\n}\n*/\n' * 30 + "}\n"
        result = run("sizes", {"base/a.c": text})
        self.assertIn("f has 123 lines", result.stdout)

    def test_800_lines_pass_and_801_do_not(self):
        result = run("sizes", {"base/a.c": "\n" * 799})
        self.assertEqual(result.returncode, 0, result.stdout)
        result = run("sizes", {"base/a.c": "\n" * 800})
        self.assertEqual(result.stdout, "base/a.c: 801 lines, more than 800\n")

    def test_a_missing_licence_line_is_found(self):
        result = run("sizes", {"base/a.h": "!int a;\n"})
        self.assertEqual(result.stdout, "base/a.h:1: the first line is no SPDX line\n")


class Programs(unittest.TestCase):
    def test_a_program_with_libelf_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "a.out")
            source = "#include <libelf.h>\nint main(void) { return (int)elf_version(EV_CURRENT); }\n"
            subprocess.run([os.environ.get("CC", "cc"), "-x", "c", "-", "-o", program, "-lelf"], input=source, text=True, check=True)
            result = subprocess.run([sys.executable, LINT, "programs", program], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is linked with libelf.so.1", result.stdout)

    def test_a_program_without_it_passes(self):
        result = subprocess.run([sys.executable, LINT, "programs", "/bin/true"], capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout), (0, ""))

    def test_a_program_that_is_not_there_is_a_failure(self):
        result = subprocess.run([sys.executable, LINT, "programs", "/nonexistent"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("ldd fails", result.stdout)


if __name__ == "__main__":
    unittest.main()
