# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line programs share: running them, and small programs to point them at."""
import os
import shutil
import subprocess
import tempfile
import unittest

BINARY_DIR = os.environ.get("CAIRN_BINARY_DIR", "build/dev")
SOURCE_DIR = os.environ.get("CAIRN_SOURCE_DIR", ".")
CAIRN = os.path.join(BINARY_DIR, "bin", "cairn")
UPLOAD = os.path.join(BINARY_DIR, "bin", "upload-symbols")

# Inlined functions with external linkage: binutils gives those without a linkage name their caller's at some addresses.
SAMPLE = r"""
#include <cstdio>
namespace shop {
template <typename T> struct box { T value; T get() const; };
template <typename T> inline __attribute__((always_inline)) T box<T>::get() const
{
	return value * 3 + (T)__builtin_expect(value > 7, 0);
}
inline __attribute__((always_inline)) int price(int n)
{
	box<int> b{n};
	return b.get() + n / 3;
}
__attribute__((noinline)) int total(int a, const char *text)
{
	int sum = 0;
	for (int i = 0; i < a; i++)
		sum += price(i) ^ text[i & 3];
	return sum;
}
}
extern "C" __attribute__((noinline)) int plain(int a)
{
	return shop::price(a) * 2;
}
int main(int argc, char **argv)
{
	std::printf("%d %d\n", shop::total(argc, argv[0]), plain(argc));
}
"""


def run(program, *arguments, **more):
    """Text in and out; bytes where @more says text=False."""
    return subprocess.run([program, *arguments], capture_output=True, check=False, **{"text": True, "timeout": 120, **more})


def cairn(*arguments, **more):
    return run(CAIRN, *arguments, **more)


def tool(*command, stdin=None):
    subprocess.run(command, check=True, capture_output=True, input=stdin)


class ProgramTest(unittest.TestCase):
    """A folder of its own for each test, with the sample compiled once for all."""

    folder = None
    shared = None

    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="cairn-cli-shared-")
        cls.sample = os.path.join(cls.shared, "sample")
        with open(cls.sample + ".cc", "w", encoding="ascii") as file:
            file.write(SAMPLE)
        tool("g++", "-O2", "-g", "-Wl,--build-id=sha1", cls.sample + ".cc", "-o", cls.sample)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cairn-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def split(self, name="app", link=True):
        """The sample stripped, and its debug file beside it: paths of both."""
        binary, debug = self.path(name), self.path(name + ".debug")
        tool("objcopy", "--only-keep-debug", self.sample, debug)
        shutil.copy(self.sample, binary)
        tool("strip", binary)
        if link:
            tool("objcopy", "--add-gnu-debuglink=" + debug, binary)
        return binary, debug

    def expect(self, result, status, stderr=""):
        """The exit status, and what standard error says: nothing, or one line with @stderr in it."""
        self.assertEqual(result.returncode, status, (result.stdout[-2000:], result.stderr))
        if stderr:
            self.assertIn(stderr, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        else:
            self.assertEqual(result.stderr, "")
        return result

    def functions(self, *names):
        """Every address of the named functions of the sample, by nm."""
        found = []
        for line in run("nm", "-S", self.sample).stdout.splitlines():
            fields = line.split()
            if len(fields) == 4 and fields[3] in names:
                low = int(fields[0], 16)
                found += range(low, low + int(fields[1], 16))
        self.assertTrue(found)
        return found
