# SPDX-License-Identifier: Apache-2.0
"""`go tool pprof` on the file of `cairn profile --format pprof`. Debian's golang-go is 450 MB: scripts/install-deps pprof."""
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import otlp_test  # noqa: E402
from otlp_test import Cairnd, Client, cairn_profile, model, otlp_encode  # noqa: E402

GO = shutil.which("go") or "/usr/lib/go-1.19/bin/go"


class Pprof(unittest.TestCase):
    setUpClass = classmethod(otlp_test.Symbols.setUpClass.__func__)
    tearDownClass = classmethod(otlp_test.Symbols.tearDownClass.__func__)
    mapping, samples = otlp_test.Symbols.mapping, otlp_test.Symbols.samples

    def test_top_and_raw_accept_the_file_and_nothing_vanishes(self):
        path = os.path.join(self.folder, "p.pb.gz")
        with Cairnd() as daemon:
            daemon.wait_job(daemon.upload(self.content, file_id=self.file_id, build_id=self.build_id)["job_id"])
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model(self.samples())))
            cairn_profile(daemon, "--format", "pprof", "-o", path)
        self.check_pprof(path, 2 * len(self.addresses))

    def test_comments_say_why_frames_have_no_symbols(self):
        path = os.path.join(self.folder, "p.pb.gz")
        with Cairnd() as daemon:
            with Client(daemon) as client:
                client.export(otlp_encode.encode("1.10", model(self.samples())))
            cairn_profile(daemon, "--format", "pprof", "-o", path)
        comments = subprocess.run([GO, "tool", "pprof", "-comments", path], capture_output=True, text=True, check=True,
                                  env={**os.environ, "HOME": self.folder}).stdout
        self.assertRegex(comments, r"(?m)^sample: %d frames without symbols: nothing was uploaded under this ID$" % len(self.addresses))

    def check_pprof(self, path, total):
        env = {**os.environ, "HOME": self.folder, "PPROF_TMPDIR": self.folder, "PPROF_BINARY_PATH": self.folder}
        top = subprocess.run([GO, "tool", "pprof", "-top", "-nodecount=100", path], capture_output=True, text=True, env=env, check=True)
        self.assertIn("Type: samples", top.stdout)
        self.assertRegex(top.stdout, r"of %d total" % total)
        self.assertIn("sample::innermost(int) (inline)", top.stdout)
        # It neither looks for local binaries nor complains of what it misses.
        self.assertNotRegex(top.stderr, r"(?i)local symbolization|error|missing|unsymbolized")
        raw = subprocess.run([GO, "tool", "pprof", "-raw", path], capture_output=True, text=True, env=env, check=True)
        counts = [int(x) for x in re.findall(r"(?m)^ +(\d+): (?:\d+ )+$", raw.stdout)]
        self.assertEqual(sum(counts), total, raw.stdout)
        self.assertRegex(raw.stdout, r"(?m)^\d+: 0x0/0xffffffffffffffff/0x0 sample %s \[FN\]\[FL\]\[LN\]\[IN\]$" % self.build_id)


if __name__ == "__main__":
    if not os.path.exists(GO):
        print("no go: scripts/install-deps pprof")
        sys.exit(77)
    unittest.main()
