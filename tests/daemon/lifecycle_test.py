# SPDX-License-Identifier: Apache-2.0
"""Start, configuration, errors at start, signals, drain, the systemd datagram."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403


def run(*arguments, timeout=30, **options):
    return subprocess.run([CAIRND, *arguments], capture_output=True, text=True, timeout=timeout, **options)


class Lifecycle(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cairn-life-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.small = ["--data-dir", os.path.join(self.folder, "data"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                      "--store.map_max", "1G"]

    def fails(self, status, words, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.returncode, status, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.startswith("cairnd: ")]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn(words, lines[0])
        self.assertNotIn("ready", result.stdout)

    def config(self, text):
        path = os.path.join(self.folder, "c.conf")
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_help_lists_every_key_of_file_and_documentation(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        flags = set(re.findall(r"^\s*--([a-z_.-]+)", result.stdout, re.M))
        documented = set(re.findall(r"^\| `([a-z_.]+)` \|", read(SOURCE_DIR + "/docs/configuration.md").decode(), re.M))
        in_file, section = set(), ""
        for line in read(SOURCE_DIR + "/daemon/cairnd.conf").decode().splitlines():
            head, key = re.fullmatch(r"\[(\w+)\]", line), re.match(r"#?([a-z_.]+) = ", line)
            if head:
                section = head.group(1) + "."
            elif key:
                in_file.add(section + key.group(1))
        flags.discard("config")
        self.assertEqual({f.replace("data-dir", "data_dir") for f in flags}, documented)
        self.assertEqual(in_file, documented)

    def test_documentation_gives_every_default_as_it_is(self):
        defaults = dict(re.findall(r"^\s*--([a-z_.-]+) [A-Z]+ .*?\(default: ([^)]+)\)$", run("--help").stdout, re.M))
        documented = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^|`:]+)", read(SOURCE_DIR + "/docs/configuration.md").decode(), re.M))
        self.assertGreater(len(defaults), 40)
        for key, default in defaults.items():
            if not key.startswith(("http", "grpc")):
                self.assertEqual(documented[key].split(",")[0].strip(), default, key)

    def test_example_file_is_taken(self):
        daemon = Cairnd("--config", SOURCE_DIR + "/daemon/cairnd.conf")
        with daemon:
            self.assertEqual(daemon.get("/readyz").status, 200)

    def test_wrong_usage_is_2_and_says_what(self):
        self.fails(2, "data_dir")
        self.fails(2, "nonsense", *self.small, "--nonsense", "1")
        self.fails(2, "limits.body", *self.small, "--limits.body", "many")
        self.fails(2, "limits.modules", *self.small, "--limits.modules", "0")
        self.fails(2, "log.level", *self.small, "--log.level", "loud")
        self.fails(2, "extra", *self.small, "extra")
        for address in ("nonsense", "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80"):
            self.fails(2, "http: listen on '%s'" % address, *self.small, "--http", address)
            self.fails(2, "grpc: listen on '%s'" % address, *self.small, "--grpc", address)
        self.assertFalse(os.path.exists(self.small[1]), "wrong usage makes no folder")
        self.fails(2, "--config", "--config")
        self.fails(1, "no.conf", "--config", self.folder + "/no.conf", *self.small)

    def test_wrong_configuration_names_file_and_line(self):
        self.fails(2, "c.conf:2", "--config", self.config("queue = 5\nqeue = 6\n"), *self.small)
        self.fails(2, "c.conf:3", "--config", self.config("# x\n[limits]\nbody = huge\n"), *self.small)

    def test_flag_wins_over_file(self):
        path = self.config("queue = 5\n[limits]\nmodules = 1\n")
        two = {"modules": [{"build_id": "aa"}] * 2}
        with Cairnd("--config", path) as daemon:
            self.assertEqual(daemon.post_json("/v1/symbolize", two).status, 413)
        with Cairnd("--config", path, "--limits.modules", "2") as daemon:
            self.assertEqual(daemon.post_json("/v1/symbolize", two).status, 200)

    def test_port_taken(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            address = "127.0.0.1:%d" % sock.getsockname()[1]
            self.fails(1, address, *self.small[:2], "--http", address, *self.small[4:])

    def test_data_dir_of_another_cairnd(self):
        with Cairnd() as daemon:
            self.fails(1, os.path.join(daemon.data_dir, "data"), "--data-dir", os.path.join(daemon.data_dir, "data"),
                       *self.small[2:])

    def test_data_dir_that_cannot_be(self):
        path = os.path.join(self.folder, "file")
        open(path, "w").close()
        self.fails(1, path, "--data-dir", path, *self.small[2:])
        if os.getuid() != 0:
            self.fails(1, "/proc/nothing", "--data-dir", "/proc/nothing", *self.small[2:])

    def test_worker_that_is_not_there(self):
        self.fails(1, "/nowhere/cairn-worker", *self.small, "--worker.path", "/nowhere/cairn-worker")

    def test_both_addresses_may_be_one(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        address = "127.0.0.1:%d" % port
        with Cairnd("--http", address, "--grpc", address) as daemon:
            self.assertEqual((daemon.port, daemon.grpc_port), (port, port))
            self.assertEqual(daemon.get("/healthz").status, 200)

    def test_grpc_address_answers_http_too(self):
        with Cairnd() as daemon:
            daemon.port = daemon.grpc_port
            self.assertEqual(daemon.get("/healthz").body, b"ok\n")

    def test_closed_standard_streams_do_not_lend_their_numbers_to_the_store(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        daemon = Cairnd()
        self.addCleanup(shutil.rmtree, daemon.data_dir, True)
        arguments = ["--data-dir", daemon.data_dir, "--http", "127.0.0.1:%d" % port, "--grpc", "127.0.0.1:0",
                     "--store.map_max", "16G"]
        process = subprocess.Popen([CAIRND] + arguments, preexec_fn=lambda: os.closerange(0, 3))
        self.addCleanup(process.kill)
        daemon.port = port
        for _ in range(1000):
            try:
                if daemon.get("/readyz").status == 200:
                    break
            except OSError:
                time.sleep(0.02)
        self.assertEqual([os.readlink("/proc/%d/fd/%d" % (process.pid, fd)) for fd in range(3)], ["/dev/null"] * 3)
        job = daemon.wait_job(daemon.upload(b"no binary")["job_id"])  # a worker has its own three
        self.assertIn("not an ELF file", job["reason"])
        process.terminate()
        self.assertEqual(process.wait(60), 0)

    def test_sigterm_and_sigint_end_with_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = Cairnd()
            with daemon:
                daemon.process.send_signal(number)
                self.assertEqual(daemon.process.wait(60), 0, daemon.stderr())
                daemon.process.stdout.close()
                daemon.process = None

    def test_sigterm_lets_a_request_in_flight_finish(self):
        with Cairnd() as daemon:
            head = b"POST /v1/symbolize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
            with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
                sock.sendall(head + b'{"modu')
                time.sleep(0.3)
                daemon.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                sock.sendall(b'les":[]}')
                received = b""
                while True:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    received += piece
            self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)
            self.assertTrue(received.endswith(b'{"modules":[]}'), received)
            self.assertEqual(daemon.process.wait(30), 0)
            with self.assertRaises(OSError):
                daemon.get("/healthz")
            daemon.process.stdout.close()
            daemon.process = None

    def test_sigterm_while_a_worker_runs_leaves_its_job_queued(self):
        hanging = os.path.join(self.folder, "worker")
        with open(hanging, "w") as file:
            file.write("#!/bin/sh\nexec sleep 600\n")
        os.chmod(hanging, 0o755)
        with Cairnd("--worker.path", hanging, "--drain", "1s") as daemon:
            job = daemon.upload(b"whatever", file_id=file_id(b"whatever"))["job_id"]
            end = time.monotonic() + 20
            while daemon.get("/v1/jobs/" + job).json["state"] != "running" and time.monotonic() < end:
                time.sleep(0.05)
            module = {"modules": [{"file_id": file_id(b"whatever"), "addresses": [1]}]}
            self.assertEqual(daemon.symbolize(module)[0]["status"], "pending")
            held = []
            waiter = threading.Thread(target=lambda: held.append(daemon.symbolize(dict(module, wait_ms=60000))))
            waiter.start()
            time.sleep(0.5)
            begun = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - begun, 20)
            waiter.join(10)
            self.assertEqual(held[0][0]["status"], "pending")  # what was held went out
            daemon.flags = ["--worker.path", "/bin/false", "--ingest.attempts", "1"]
            daemon.start()
            state = daemon.wait_job(job)
            self.assertEqual(state["state"], "failed")

    def test_wait_ends_with_its_time(self):
        hanging = os.path.join(self.folder, "worker")
        with open(hanging, "w") as file:
            file.write("#!/bin/sh\nexec sleep 600\n")
        os.chmod(hanging, 0o755)
        with Cairnd("--worker.path", hanging) as daemon:
            daemon.upload(b"whatever", file_id=file_id(b"whatever"))
            begun = time.monotonic()
            module = daemon.symbolize({"modules": [{"file_id": file_id(b"whatever"), "addresses": [1]}],
                                       "wait_ms": 700})[0]
            self.assertEqual(module["status"], "pending")
            self.assertGreater(module["retry_after_s"], 0)
            self.assertTrue(0.6 < time.monotonic() - begun < 10)

    def test_systemd_is_told(self):
        path = os.path.join(self.folder, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sock.settimeout(30)
            process = subprocess.Popen([CAIRND, *self.small], env=dict(os.environ, NOTIFY_SOCKET=path),
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.assertEqual(sock.recv(100), b"READY=1")
            process.terminate()
            self.assertEqual(sock.recv(100), b"STOPPING=1")
            self.assertEqual(process.wait(30), 0)
            process.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=1)
