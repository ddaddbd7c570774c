# SPDX-License-Identifier: Apache-2.0
"""Symbols that nobody uploaded: folders and debuginfod servers. Loopback only; the servers are ours, and misbehave."""
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY", "DEBUGINFOD_URLS"):
    os.environ.pop(name, None)


class Debuginfod(http.server.ThreadingHTTPServer):
    """Answers from `files` {path: bytes | (status, body, headers)}, counts what it is asked, waits for `gate`. With `polite` it knows
    ranges and ETags. `sent`: (path, status, bytes of the body)."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.gate, self.lock = {}, {}, threading.Event(), threading.Lock()
        self.gate.set()
        self.polite, self.sent = False, []
        self.url = "http://127.0.0.1:%d" % self.server_port
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self):
        self.gate.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def politely(self, body):
        tag, wanted = '"%s"' % hashlib.sha1(body).hexdigest(), self.headers.get("Range")
        if self.headers.get("If-None-Match") == tag:
            return 304, b"", {"ETag": tag}
        if not wanted:
            return 200, body, {"ETag": tag}
        first, last = wanted[len("bytes="):].split("-")
        first, last = int(first), min(int(last or len(body)), len(body) - 1)
        return 206, body[first:last + 1], {"ETag": tag, "Content-Range": "bytes %d-%d/%d" % (first, last, len(body))}

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked[self.path] = server.asked.get(self.path, 0) + 1
        server.gate.wait(30)
        answer = server.files.get(self.path, (404, b"not found", {}))
        status, body, headers = (200, answer, {}) if isinstance(answer, bytes) else answer
        if server.polite and status == 200:
            status, body, headers = self.politely(body)
        with server.lock:
            server.sent.append((self.path, status, len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Sources(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-sources-")
        cls.use_program(cls, cls.folder)

    def use_program(self, folder, *flags):
        """What the servers and folders of a test have."""
        self.path = compile_sample(folder, *flags)
        self.id = build_id(self.path)
        self.stripped, self.debug = os.path.join(folder, "stripped"), os.path.join(folder, "sample.debug")
        subprocess.run(["objcopy", "--strip-all", self.path, self.stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", self.path, self.debug], check=True)
        self.addresses = text_addresses(self.path, 50)
        self.truth = oracle(self.path, self.addresses)
        self.file_id = file_id(read(self.stripped))
        self.paths = ["/buildid/%s/debuginfo" % self.id, "/buildid/%s/executable" % self.id]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.server = Debuginfod()
        self.addCleanup(self.server.close)
        self.tree = tempfile.mkdtemp(prefix="cairn-tree-")
        self.addCleanup(shutil.rmtree, self.tree)

    def daemon(self, *flags, data_dir=None):
        daemon = Cairnd("--sources.debuginfod", self.server.url, "--sources.directories", self.tree, *flags, data_dir=data_dir).start()
        self.addCleanup(daemon.__exit__)
        return daemon

    def ask(self, daemon, wait_ms=0, **ids):
        return daemon.symbolize({"modules": [dict(ids, addresses=self.addresses)], "wait_ms": wait_ms})[0]

    def ask_until(self, daemon, status, **ids):
        """Without wait_ms: `pending` until it is something else."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            module = self.ask(daemon, **ids)
            if module["status"] != "pending":
                break
            self.assertGreater(module["retry_after_s"], 0)
            time.sleep(0.05)
        self.assertEqual(module["status"], status, module)
        return module

    def check(self, module):
        self.assertEqual(module["status"], "ok", module)
        self.assertEqual([chain(r) for r in module["results"]], self.truth)

    def check_by_file_id(self, daemon):
        """When the executable's job, which is about the build ID, is over."""
        end = time.monotonic() + 30
        while daemon.get("/v1/files/" + self.file_id).status != 200:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.check(self.ask(daemon, wait_ms=25000, file_id=self.file_id))

    def said(self, daemon, some_id, source):
        answer = daemon.get("/v1/files/" + some_id)
        self.assertEqual(answer.status, 200, answer.body)
        found = [a for a in answer.json["asked"] if a["source"].startswith(source)]
        self.assertEqual(len(found), 1, answer.json)
        self.assertRegex(found[0]["asked_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertGreaterEqual(found[0]["next_at"], found[0]["asked_at"])
        return found[0]

    def serve(self):
        self.server.files = {self.paths[0]: read(self.debug), self.paths[1]: read(self.stripped)}

    # ---- debuginfod

    def test_pending_while_it_is_fetched_then_answered_by_itself(self):
        self.serve()
        daemon = self.daemon()
        self.server.gate.clear()
        module = self.ask(daemon, build_id=self.id)
        self.assertEqual(module["status"], "pending", module)
        self.server.gate.set()
        self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))
        module = self.ask(daemon, build_id=self.id)
        self.assertEqual(module["symbols"], {"source": "debuginfod", "kind": "dwarf"})
        self.check(self.ask(daemon, file_id=self.file_id))  # the executable came along
        said = self.said(daemon, self.id, "debuginfod")
        self.assertEqual(said["answer"], "found")
        self.assertGreaterEqual(said["bytes"], len(read(self.debug)) + len(read(self.stripped)))
        self.assertEqual(daemon.get("/v1/jobs/" + said["job_id"]).json["state"], "done")

    def test_one_fetch_however_many_ask(self):
        self.serve()
        daemon = self.daemon()
        self.server.gate.clear()
        threads = [threading.Thread(target=self.ask, args=(daemon,), kwargs={"build_id": self.id, "wait_ms": 20000}) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        self.server.gate.set()
        for thread in threads:
            thread.join()
        self.check(self.ask(daemon, build_id=self.id))
        self.assertEqual(self.server.asked, {self.paths[0]: 1, self.paths[1]: 1})

    def test_debug_info_without_the_executable_is_taken(self):
        self.server.files = {self.paths[0]: read(self.debug)}
        self.check(self.ask(self.daemon(), wait_ms=60000, build_id=self.id))

    def test_no_is_remembered_over_a_restart_and_dropped_by_an_upload(self):
        folder = tempfile.mkdtemp(prefix="cairn-test-")
        self.addCleanup(shutil.rmtree, folder)
        daemon = self.daemon(data_dir=folder)
        module = self.ask_until(daemon, "unknown", build_id=self.id)
        self.assertIn("it does not have it (404)", module["reason"])
        self.assertGreater(module["retry_after_s"], 3600)
        said = self.said(daemon, self.id, "debuginfod")
        self.assertEqual((said["answer"], said["source"]), ("not_found", "debuginfod " + self.server.url))
        self.assertEqual(sum(self.server.asked.values()), 2)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(self.ask_until(daemon, "unknown", build_id=self.id)["reason"].count("404"), 1)
        self.assertEqual(sum(self.server.asked.values()), 2)  # not asked again
        job = daemon.upload(read(self.path), file_id=file_id(read(self.path)), build_id=self.id)["job_id"]
        self.assertEqual(daemon.wait_job(job)["state"], "done")
        self.check(self.ask(daemon, build_id=self.id))

    def test_no_is_over_after_a_while(self):
        daemon = self.daemon("--sources.negative", "1s")
        self.ask_until(daemon, "unknown", build_id=self.id)
        self.serve()
        time.sleep(1.1)
        self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))

    def test_every_kind_of_nonsense_has_a_reason_and_no_retry_storm(self):
        other = compile_sample(self.tree, "-DOTHER", "-O0", name="other")
        content = read(other)
        os.unlink(other)
        self.assertNotEqual(content, read(self.path))
        cases = {
            "html": ((200, b"<html>log in</html>", {"Content-Type": "text/html"}), "refused", "HTML"),
            "another build": (content, "refused", "a file of another build"),
            "no ELF": (b"hello world, I am no program, but long enough to be looked at......", "refused", "ELF"),
            "empty": (b"", "refused", "empty"),
            "elsewhere": ((302, b"", {"Location": "gopher://x/"}), "refused", "redirected"),
            "forbidden": ((403, b"", {}), "refused", "403"),
            "500": ((500, b"", {}), "failed", "500"),
        }
        daemon = self.daemon()
        for i, (name, (answer, want, words)) in enumerate(cases.items()):
            with self.subTest(name):
                some = "%02x" % i * 20
                paths = ["/buildid/%s/debuginfo" % some, "/buildid/%s/executable" % some]
                self.server.files = {path: answer for path in paths}
                self.server.asked.clear()
                self.ask_until(daemon, "unknown", build_id=some)
                said = self.said(daemon, some, "debuginfod")
                self.assertEqual(said["answer"], want, said)
                self.assertIn(words, said["reason"])
                self.assertLessEqual(sum(self.server.asked.values()), 4)
                asked = dict(self.server.asked)
                for _ in range(5):
                    self.ask_until(daemon, "unknown", build_id=some)
                self.assertEqual(self.server.asked, asked)
        self.assertEqual(daemon.get("/v1/jobs/1").status, 404)  # nothing half was kept

    def test_nobody_listens(self):
        self.server.close()
        self.server = Debuginfod()
        daemon = Cairnd("--sources.debuginfod", "http://127.0.0.1:1", "--sources.directories", self.tree).start()
        self.addCleanup(daemon.__exit__)
        module = self.ask(daemon, wait_ms=60000, build_id=self.id)
        self.assertEqual(module["status"], "unknown")
        self.assertEqual(self.said(daemon, self.id, "debuginfod")["answer"], "failed")

    def test_public_servers_are_not_told_private_ids(self):
        daemon = Cairnd("--sources.debuginfod", "http://debuginfod.invalid", "--sources.directories", self.tree).start()
        self.addCleanup(daemon.__exit__)
        self.ask(daemon, wait_ms=60000, build_id=self.id)
        said = self.said(daemon, self.id, "debuginfod")
        self.assertEqual((said["answer"], said["bytes"]), ("refused", 0))
        self.assertIn("may be private", said["reason"])

    def test_random_ids_have_a_budget(self):
        daemon = self.daemon("--sources.ids_per_hour", "3")
        modules = [{"build_id": "%040x" % i, "addresses": [1]} for i in range(100, 110)]
        answers = daemon.symbolize({"modules": modules})
        self.assertEqual(sorted(m["status"] for m in answers), ["pending"] * 3 + ["unknown"] * 7)
        refused = [m for m in answers if m["status"] == "unknown"]
        self.assertIn("sources.ids_per_hour", refused[0]["reason"])
        time.sleep(1)
        self.assertEqual(len(self.server.asked), 6)  # two paths for each of three

    def test_ids_that_nobody_named_are_not_asked_for(self):
        daemon = self.daemon()
        self.assertEqual(daemon.get("/v1/files/" + self.id).status, 404)
        self.assertEqual(daemon.get("/v1/files").status, 200)
        time.sleep(3)
        self.assertEqual(self.server.asked, {})

    def test_file_id_alone_says_why_it_cannot_be_asked(self):
        daemon = self.daemon()
        module = self.ask(daemon, wait_ms=60000, file_id=self.file_id)
        self.assertEqual(module["status"], "unknown")
        self.assertIn("know files by build ID, and nobody said that of this file ID: send the build ID, too;", module["reason"])
        self.assertEqual(self.server.asked, {})

    def test_stripped_upload_gets_its_debug_info(self):
        self.server.files = {self.paths[0]: read(self.debug)}
        daemon = self.daemon()
        daemon.wait_job(daemon.upload(read(self.stripped), file_id=self.file_id, build_id=self.id)["job_id"])
        self.check(self.ask(daemon, wait_ms=60000, file_id=self.file_id))

    def test_names_of_dynsym_serve_until_the_lines_are_here(self):
        path = compile_sample(self.tree, "-rdynamic", name="dynamic")
        debug, stripped = path + ".dbg", path + ".stripped"
        subprocess.run(["objcopy", "--strip-all", path, stripped], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
        content, build, identity = read(stripped), build_id(path), file_id(read(stripped))
        self.server.files = {"/buildid/%s/debuginfo" % build: read(debug)}
        for name in (path, debug, stripped):
            os.unlink(name)
        daemon = self.daemon()
        self.file_id = identity
        daemon.wait_job(daemon.upload(content, file_id=identity, build_id=build)["job_id"])
        end = time.monotonic() + 60
        while time.monotonic() < end:
            module = self.ask(daemon, file_id=self.file_id)
            self.assertEqual(module["status"], "ok")  # names at once, lines when they are here
            if module["symbols"]["kind"] == "dwarf":
                break
            time.sleep(0.05)
        self.assertEqual(module["symbols"], {"source": "debuginfod", "kind": "dwarf"})

    def test_stop_while_it_fetches_is_quick_and_clean(self):
        self.serve()
        daemon = self.daemon()
        self.server.gate.clear()
        self.ask(daemon, build_id=self.id)
        time.sleep(0.3)
        started = time.monotonic()
        self.assertEqual(daemon.stop(), 0)
        self.assertLess(time.monotonic() - started, 10)
        self.server.gate.set()
        daemon.start()
        self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))  # being stopped is no answer

    def test_none_asks_nobody(self):
        self.serve()
        daemon = self.daemon("--sources", "none")
        self.assertEqual(self.ask(daemon, build_id=self.id)["status"], "unknown")
        time.sleep(3)
        self.assertEqual(self.server.asked, {})

    # ---- several servers at once

    def two_servers(self, *files):
        """A daemon that asks self.server and self.other, which has files, too."""
        self.other = Debuginfod()
        self.addCleanup(self.other.close)
        self.server.files, self.other.files = files
        return Cairnd("--sources.debuginfod", self.server.url + " " + self.other.url, "--sources.directories", self.tree)

    def start(self, daemon):
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def answers(self, daemon):
        """What each of the two said, when both have."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            asked = {a["source"]: a for a in daemon.get("/v1/files/" + self.id).json["asked"]}
            if len(asked) == 3:  # and the folder
                return asked["debuginfod " + self.server.url], asked["debuginfod " + self.other.url]
            time.sleep(0.05)
        self.fail(asked)

    def until_asked(self, *servers):
        end = time.monotonic() + 30
        while not all(server.asked for server in servers):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def both(self):
        return {self.paths[0]: read(self.debug), self.paths[1]: read(self.stripped)}

    def counter(self, daemon, name):
        lines = daemon.get("/metrics").body.decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + " "))

    def test_server_that_stalls_holds_nobody_up(self):
        for stalled in (0, 1):
            with self.subTest(stalled):
                daemon = self.two_servers(self.both(), self.both())
                gates = self.server.gate, self.other.gate
                for gate in gates:
                    gate.clear()
                for server in self.server, self.other:
                    server.asked.clear()
                daemon = self.start(daemon)
                began = time.monotonic()
                self.ask(daemon, build_id=self.id)
                self.until_asked(self.server, self.other)
                gates[1 - stalled].set()
                self.check(self.ask(daemon, wait_ms=25000, build_id=self.id))
                said = self.answers(daemon)
                self.assertLess(time.monotonic() - began, 20)  # a stall is given up after 30 s
                self.assertEqual([a["answer"] for a in said], ["cancelled" if i == stalled else "found" for i in range(2)])
                self.assertIn("another source was first", said[stalled]["reason"])
                self.assertEqual(said[stalled]["next_at"], said[stalled]["asked_at"])
                while self.counter(daemon, "cairn_fetch_cancelled_total") == 0:  # its thread drops it when it comes to it
                    self.assertLess(time.monotonic() - began, 20)
                    time.sleep(0.02)
                self.assertEqual([self.counter(daemon, "cairn_%s_total" % n) for n in ("sources_cancelled", "fetch_cancelled", "fetch_failed")],
                                 [1, 1, 0])
                self.assertEqual(daemon.stop(), 0)
                gates[stalled].set()

    def test_two_that_have_it_make_one_job(self):
        daemon = self.two_servers(self.both(), self.both())
        self.server.gate.clear()
        self.other.gate.clear()
        daemon = self.start(daemon)
        self.ask(daemon, build_id=self.id)
        self.until_asked(self.server, self.other)  # neither has answered: they are asked at the same time
        self.server.gate.set()
        self.other.gate.set()
        self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))
        self.assertEqual(sorted(a["answer"] for a in self.answers(daemon)), ["cancelled", "found"])
        self.check(self.ask(daemon, file_id=self.file_id))  # with the executable
        self.assertEqual([daemon.get("/v1/jobs/%d" % i).status for i in (1, 2)], [200, 404])

    def test_one_that_has_it_not_ends_nothing(self):
        daemon = self.two_servers({}, self.both())
        self.other.gate.clear()
        daemon = self.start(daemon)
        self.assertEqual(self.ask(daemon, build_id=self.id)["status"], "pending")
        end = time.monotonic() + 30
        while not any(a["answer"] == "not_found" and self.server.url in a["source"] for a in self.asked_of(daemon)):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.assertEqual(self.ask(daemon, build_id=self.id)["status"], "pending")
        self.other.gate.set()
        self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))
        self.assertEqual([a["answer"] for a in self.answers(daemon)], ["not_found", "found"])

    def asked_of(self, daemon):
        answer = daemon.get("/v1/files/" + self.id)
        return answer.json["asked"] if answer.status == 200 else []

    def test_executable_here_and_debug_info_there(self):
        for slow in (0, 1):
            with self.subTest(slow):
                daemon = self.two_servers({self.paths[1]: read(self.stripped)}, {self.paths[0]: read(self.debug)})
                servers = self.server, self.other
                servers[slow].gate.clear()
                daemon = self.start(daemon)
                self.ask(daemon, build_id=self.id)
                if slow:  # the executable alone ends nothing
                    end = time.monotonic() + 30
                    while not any(a["answer"] == "found" for a in self.asked_of(daemon)):
                        self.assertLess(time.monotonic(), end)
                        time.sleep(0.02)
                    servers[slow].gate.set()
                self.check(self.ask(daemon, wait_ms=25000, build_id=self.id))
                if slow:
                    self.assertEqual([a["answer"] for a in self.answers(daemon)], ["found", "found"])
                    self.check_by_file_id(daemon)
                self.assertEqual(daemon.stop(), 0)
                servers[slow].gate.set()

    def test_executable_of_one_that_was_given_up_is_not_lost(self):
        daemon = self.two_servers({self.paths[0]: read(self.debug)}, self.both())
        self.server.gate.clear()
        self.other.gate.clear()
        daemon = self.start(daemon)
        self.ask(daemon, build_id=self.id)
        self.until_asked(self.server, self.other)
        self.server.gate.set()
        end = time.monotonic() + 30
        while self.other.asked.get(self.paths[1], 0) == 0:  # the other was given up, and then asked for what the first has not
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        self.other.gate.set()
        self.check(self.ask(daemon, wait_ms=25000, build_id=self.id))
        said = self.answers(daemon)
        self.assertEqual([(a["answer"], a["reason"]) for a in said],
                         [("found", "it sent debug info, and no executable"), ("found", "it sent the executable")])
        self.assertEqual(self.other.asked, {self.paths[0]: 1, self.paths[1]: 1})
        self.check_by_file_id(daemon)

    # ---- the runtime file

    def use_offsets(self):
        """The addresses of a program, as file offsets, that are not as linked."""
        folder = tempfile.mkdtemp(prefix="cairn-sources-")
        self.addCleanup(shutil.rmtree, folder)
        self.use_program(folder, "-no-pie")
        out = subprocess.run(["readelf", "-lW", self.stripped], check=True, capture_output=True, text=True).stdout
        offset, vaddr = next([int(x, 16) for x in line.split()[1:3]] for line in out.splitlines()
                             if line.split()[:1] == ["LOAD"] and " R E " in line)
        self.assertNotEqual(offset, vaddr)
        return [a - vaddr + offset for a in self.addresses]

    def test_file_offsets_have_the_runtime_file_fetched_though_debug_info_is_here(self):
        offsets = self.use_offsets()
        self.put_debug(os.path.join(self.tree, ".build-id"))
        for by_file_id in (False, True):
            with self.subTest(by_file_id):
                self.server.files, self.server.asked = {self.paths[1]: read(self.stripped)}, {}
                daemon = self.daemon()
                if not by_file_id:
                    self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))
                    self.assertEqual(self.server.asked, {})
                ids = {"build_id": self.id, "file_id": self.file_id} if by_file_id else {"build_id": self.id}
                module = daemon.symbolize({"modules": [dict(ids, address_kind="file_offset", addresses=offsets)], "wait_ms": 60000})[0]
                self.check(module)
                self.assertEqual(self.server.asked, {self.paths[1]: 1})
                self.check(self.ask(daemon, file_id=self.file_id))

    def test_file_offsets_of_a_runtime_file_that_nobody_has_say_so(self):
        offsets = self.use_offsets()
        self.put_debug(os.path.join(self.tree, ".build-id"))
        daemon = self.daemon()
        module = daemon.symbolize({"modules": [{"build_id": self.id, "address_kind": "file_offset", "addresses": offsets}], "wait_ms": 60000})[0]
        self.assertEqual(module["status"], "unknown")
        self.assertIn("the runtime file, whose load segments would say what they mean, is not known; ", module["reason"])
        self.assertIn("debuginfod %s: " % self.server.url, module["reason"])
        self.assertIn("404", module["reason"])
        self.assertEqual(self.server.asked, {self.paths[1]: 1})

    # ---- folders

    def put_debug(self, folder):
        folder = os.path.join(folder, self.id[:2])
        os.makedirs(folder)
        shutil.copy(self.debug, os.path.join(folder, self.id[2:] + ".debug"))

    def test_build_id_tree(self):
        for folder in (".build-id", ""):
            with self.subTest(folder):
                self.put_debug(os.path.join(self.tree, folder))
                daemon = self.daemon()
                self.check(self.ask(daemon, wait_ms=60000, build_id=self.id))
                self.assertEqual(self.said(daemon, self.id, "directory")["answer"], "found")
                self.assertEqual(self.server.asked, {})  # nearer sources first, and one is enough
                shutil.rmtree(os.path.join(self.tree, folder, self.id[:2]))

    def test_build_tree_is_found_by_file_id_and_build_id(self):
        os.makedirs(os.path.join(self.tree, "a/b"))
        shutil.copy(self.stripped, os.path.join(self.tree, "a/b/sample"))
        shutil.copy(self.debug, os.path.join(self.tree, "a/sample.debug"))
        daemon = self.daemon()
        self.check(self.ask(daemon, wait_ms=60000, file_id=self.file_id))
        self.check(self.ask(daemon, build_id=self.id))

    def test_file_that_appears_later_makes_no_void(self):
        daemon = self.daemon()
        self.ask_until(daemon, "unknown", build_id=self.id)
        os.makedirs(os.path.join(self.tree, "new"))
        shutil.copy(self.path, os.path.join(self.tree, "new/sample"))
        end = time.monotonic() + 30
        while time.monotonic() < end:
            module = self.ask(daemon, wait_ms=10000, build_id=self.id)
            if module["status"] == "ok":
                break
            time.sleep(0.2)
        self.check(module)

    def test_odd_things_in_a_folder_do_no_harm(self):
        os.mkfifo(os.path.join(self.tree, "fifo"))
        os.symlink("/", os.path.join(self.tree, "root"))
        os.symlink(".", os.path.join(self.tree, "loop"))
        with open(os.path.join(self.tree, "half"), "wb") as file:
            file.write(read(self.path)[:200])
        with open(os.path.join(self.tree, "empty"), "wb"):
            pass
        folder = os.path.join(self.tree, ".build-id", self.id[:2])
        os.makedirs(folder)
        os.symlink("/dev/zero", os.path.join(folder, self.id[2:] + ".debug"))
        daemon = self.daemon()
        self.ask_until(daemon, "unknown", build_id=self.id)
        self.assertEqual(self.said(daemon, self.id, "directory")["answer"], "not_found")


if __name__ == "__main__":
    unittest.main(verbosity=1)
