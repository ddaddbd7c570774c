# SPDX-License-Identifier: Apache-2.0
"""cairnd by @grpc/grpc-js: tests/daemon/grpc-js/client.js. Its versions are pinned by package-lock.json; npm installs them.

    usage: grpc_js_test.py NET_TESTD      exit 77 where node or npm is missing, or npm cannot install
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

HERE = os.path.dirname(os.path.abspath(__file__))
TESTD = sys.argv[1]
MODULES = os.path.join(BINARY_DIR, "grpc-js")


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def install():
    """Into the build folder; again only when the lock file has changed."""
    if not shutil.which("node") or not shutil.which("npm"):
        skip("node or npm is not installed (Debian: nodejs, npm)")
    os.makedirs(MODULES, exist_ok=True)
    lock, done = read(os.path.join(HERE, "grpc-js/package-lock.json")), os.path.join(MODULES, "installed")
    if not os.path.exists(done) or read(done) != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(HERE, "grpc-js", name), MODULES)
        try:
            npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=MODULES, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            skip("npm ci took more than 180 s")
        if npm.returncode:
            skip("npm ci cannot install @grpc/grpc-js: " + npm.stderr.strip().splitlines()[-1])
        with open(done, "wb") as file:
            file.write(lock)
    shutil.copy(os.path.join(HERE, "grpc-js/client.js"), MODULES)


class GrpcJs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-grpc-js-")
        cls.environment = dict(os.environ, PROTO_DIR=os.path.abspath(os.path.join(SOURCE_DIR, "proto")))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def start(self, *checks, **environment):
        return subprocess.Popen(["node", "client.js", *checks], cwd=MODULES, env=dict(self.environment, **environment), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def run_checks(self, *checks, **environment):
        out = self.start(*checks, **environment).communicate(timeout=120)[0]
        print(out, end="")
        self.assertEqual([line.split(":")[0] for line in out.splitlines() if line.startswith("ok")], ["ok " + c for c in checks], out)

    def test_unary_gzip_limits_errors_keepalive(self):
        path = compile_sample(self.folder)
        with Cairnd() as daemon:
            daemon.wait_job(daemon.upload(read(path))["job_id"])
            self.run_checks("unary", "gzip", "concurrent", "errors", "keepalive", "limit", CAIRND="127.0.0.1:%d" % daemon.grpc_port,
                            FILE_ID=file_id(read(path)), ADDRESSES=json.dumps([str(a) for a in text_addresses(path)]))

    def test_deadline_and_drain(self):
        worker = os.path.join(self.folder, "worker")
        with open(worker, "w") as file:
            file.write("#!/bin/sh\nexec sleep 600\n")
        os.chmod(worker, 0o755)
        with Cairnd("--worker.path", worker, "--drain", "5s") as daemon:
            daemon.upload(b"whatever", file_id=file_id(b"whatever"))
            environment = {"PENDING": "127.0.0.1:%d" % daemon.grpc_port, "PENDING_ID": file_id(b"whatever")}
            self.run_checks("deadline", **environment)
            client = self.start("drain", **environment)
            self.assertEqual(client.stdout.readline(), "waiting\n")
            self.assertEqual(daemon.stop(), 0)
            out = client.communicate(timeout=30)[0]
            print(out, end="")
            self.assertTrue(out.startswith("ok drain"), out)

    def test_tls(self):
        cert, key = os.path.join(self.folder, "cert.pem"), os.path.join(self.folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
        with Cairnd("--tls.cert", cert, "--tls.key", key) as daemon:
            self.run_checks("tls", TLS="localhost:%d" % daemon.grpc_port, CA=cert)

    def test_streams(self):
        testd = subprocess.Popen([TESTD, "1", "127.0.0.1:0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.run_checks("bidirectional", "flood", TESTD="127.0.0.1:" + testd.stdout.readline().strip())
        finally:
            testd.stdin.close()
            testd.wait(20)
            testd.stdout.close()


if __name__ == "__main__":
    install()
    unittest.main(argv=sys.argv[:1], verbosity=1)
