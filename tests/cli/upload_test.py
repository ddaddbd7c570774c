#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`upload-symbols` against a server that misbehaves on purpose: docs/http-api.md's uploads, played by this test."""
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import unittest

from programs import UPLOAD, ProgramTest, run, tool

CHUNK = 4 << 20


class Server:
    """Keeps what was uploaded. `faults` are functions that are called with each request until one returns True: it has
    answered, or broken the connection."""

    def __init__(self):
        self.sessions, self.files, self.requests, self.faults, self.begun = {}, {}, [], [], []
        self.lock = threading.Lock()
        self.jobs = {}
        self.port = None
        self.start()

    def start(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body, **headers):
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with outer.lock:
                    outer.requests.append(f"{self.command} {self.path}")
                    for fault in list(outer.faults):
                        if fault(self):
                            # The test may be further by now, with faults of its own.
                            if fault in outer.faults:
                                outer.faults.remove(fault)
                            return
                    outer.handle(self)

            do_GET = do_POST = do_PUT = do

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", self.port or 0), Handler)
        self.port = self.httpd.server_address[1]
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def handle(self, request):
        if request.path == "/v1/uploads":
            return self.begin(request, json.loads(request.body))
        match = re.fullmatch(r"/v1/jobs/(\w+)", request.path)
        if match:
            return request.answer(200, self.jobs[match[1]])
        match = re.fullmatch(r"/v1/uploads/(\w+)(/finish|\?offset=(\d+))", request.path)
        session = self.sessions.get(match[1])
        if not session:
            return request.answer(404, {"error": {"code": "not_found", "message": "no such upload"}})
        if match[3] is None:
            return self.finish(request, match[1], session)
        if int(match[3]) != len(session["data"]):
            return request.answer(409, {"error": {"code": "offset_mismatch", "message": "elsewhere"}, "offset": len(session["data"])})
        assert 0 < len(request.body) <= CHUNK
        session["data"] += request.body
        return request.answer(200, {"offset": len(session["data"])})

    def begin(self, request, wish):
        self.begun.append(wish)
        if wish["sha256"] in self.files and not wish["force"]:
            return request.answer(200, {"status": "exists", "file_id": wish.get("file_id"), "job_id": "j" + wish["sha256"][:8]})
        upload_id = wish["sha256"][:16]
        status = 200 if upload_id in self.sessions else 201
        session = self.sessions.setdefault(upload_id, {"data": b"", "wish": wish})
        return request.answer(status, {"status": "open", "upload_id": upload_id, "offset": len(session["data"]), "chunk_max": CHUNK})

    def finish(self, request, upload_id, session):
        wish = session["wish"]
        if len(session["data"]) < wish["size"]:
            return request.answer(409, {"error": {"code": "incomplete", "message": "more"}, "offset": len(session["data"])})
        assert hashlib.sha256(session["data"]).hexdigest() == wish["sha256"]
        self.files[wish["sha256"]] = session["data"]
        del self.sessions[upload_id]
        job = "j" + wish["sha256"][:8]
        self.jobs.setdefault(job, {"job_id": job, "state": "done"})
        return request.answer(202, {"job_id": job})


def read(path):
    with open(path, "rb") as file:
        return file.read()


def drop(request):
    """Breaks the connection without an answer."""
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True
    return True


def only(kind, fault):
    """@fault on the first request of that kind ("PUT", "/finish"): all others pass it by."""
    return lambda request: kind in f"{request.command} {request.path}" and fault(request)


def refuse(status, code, **headers):
    return lambda request: request.answer(status, {"error": {"code": code, "message": "because"}}, **headers) or True


class Upload(ProgramTest):
    def setUp(self):
        super().setUp()
        self.server = Server()
        self.addCleanup(lambda: self.server.stop())

    def upload(self, *arguments, status=0, stderr=""):
        return self.expect(run(UPLOAD, "--url", self.server.url(), *arguments), status, stderr)

    def stored(self, *paths):
        for path in paths:
            with open(path, "rb") as file:
                data = file.read()
            self.assertEqual(self.server.files.get(hashlib.sha256(data).hexdigest()), data, path)

    def big(self, size=9 << 20):
        """An executable of several chunks: the loader does not mind what stands behind."""
        path = self.path("big")
        shutil.copy(self.sample, path)
        with open(path, "ab") as file:
            file.write(os.urandom(size))
        return path

    def test_usage(self):
        self.assertTrue(self.expect(run(UPLOAD, "--help"), 0).stdout.startswith("usage: upload-symbols "))
        self.assertRegex(self.expect(run(UPLOAD, "--version"), 0).stdout, r"^upload-symbols \d")
        self.expect(run(UPLOAD), 2, "upload-symbols: a path is missing")
        self.expect(run(UPLOAD, "--nonsense"), 2, "upload-symbols: unrecognized option")
        self.expect(run(UPLOAD, "-j", "0", "x"), 2, "-j takes a number from 1 to 64")
        self.expect(run(UPLOAD, "--url", "ftp://x", self.sample), 2, '--url takes an http:// or https:// address, not "ftp://x"')

    def test_one_file(self):
        result = self.upload(self.sample)
        self.stored(self.sample)
        self.assertRegex(result.stdout, r"^sent    executable [0-9a-f]{32}  " + self.sample + r"\n1 sent \([\d.]+ kB\), 0 already there, 0 failed in [\d.]+ s\n$")
        wish = self.server.begun[0]
        with open(self.sample, "rb") as file:
            data = file.read()
        self.assertEqual(wish["file_id"], hashlib.sha256(data[:4096] + data[-4096:] + len(data).to_bytes(8, "big")).hexdigest()[:32])
        self.assertEqual((wish["role"], wish["name"], wish["size"]), ("executable", "sample", len(data)))
        self.assertRegex(wish["build_id"], "^[0-9a-f]{40}$")

    def test_a_file_name_with_control_characters_is_sent_without_them(self):
        path = self.path("new\nline\x7f")
        shutil.copy(self.sample, path)
        self.upload(path)
        self.stored(path)
        self.assertEqual(self.server.begun[0]["name"], "new?line?")

    def test_what_the_server_has_is_not_sent_again(self):
        self.upload(self.sample)
        before = len(self.server.requests)
        result = self.upload(self.sample)
        self.assertEqual(self.server.requests[before:], ["POST /v1/uploads"])
        self.assertIn("exists  executable", result.stdout)
        self.assertIn("0 sent (0 B), 1 already there, 0 failed", result.stdout)
        self.assertIn("1 sent", self.upload("--force", self.sample).stdout)

    def test_a_pair_goes_together_with_the_executables_id(self):
        binary, debug = self.split(link=False)
        self.upload("-j", "1", debug, binary)
        self.stored(binary, debug)
        self.assertEqual([w["role"] for w in self.server.begun], ["executable", "debug"])
        self.assertEqual(self.server.begun[0]["file_id"], self.server.begun[1]["file_id"])
        self.assertEqual(self.server.begun[0]["build_id"], self.server.begun[1]["build_id"])

    def test_the_debug_file_is_found_by_link(self):
        binary, debug = self.split()
        self.upload(binary)
        self.stored(binary, debug)

    def test_the_debug_file_can_be_named(self):
        binary, debug = self.split(link=False)
        os.mkdir(self.path("sub"))
        shutil.move(debug, self.path("sub", "x"))
        self.upload("--debug", self.path("sub", "x"), binary)
        self.stored(binary, self.path("sub", "x"))

    def test_a_debug_file_of_another_binary_is_refused(self):
        binary, _ = self.split(link=False)
        tool("g++", "-O0", "-g", "-Wl,--build-id=sha1", self.sample + ".cc", "-o", self.path("other"))
        self.upload("--debug", self.path("other"), binary, status=1, stderr="build ID")
        self.assertEqual(self.server.requests, [])
        self.upload("--debug", self.path("other"), binary, self.sample, status=1, stderr="--debug goes with one executable; there are 2")

    def test_a_debug_file_alone_is_sent_without_a_file_id(self):
        _, debug = self.split(link=False)
        self.upload(debug)
        self.stored(debug)
        self.assertNotIn("file_id", self.server.begun[0])

    def test_a_stripped_binary_without_debug_file_is_warned_of(self):
        binary, debug = self.split(link=False)
        os.unlink(debug)
        result = self.upload(binary, stderr=f"warning: {binary}: looks stripped, and no debug file was found")
        self.assertIn("1 without symbols", result.stdout)
        self.stored(binary)

    def test_a_link_to_the_wrong_debug_file_is_warned_of(self):
        binary, debug = self.split()
        with open(debug, "ab") as file:
            file.write(b"x")
        result = run(UPLOAD, "--url", self.server.url(), binary)
        self.assertEqual(result.returncode, 0)
        self.assertIn("CRC", result.stderr)
        self.stored(binary)

    def test_folders_are_searched_and_other_files_passed_over(self):
        os.makedirs(self.path("a", "b"))
        binary, debug = self.split(link=False)
        shutil.move(binary, self.path("a", "b", "app"))
        shutil.move(debug, self.path("a", "app.debug"))
        shutil.copy(self.sample, self.path("a", "sample"))
        os.link(self.path("a", "sample"), self.path("a", "same-inode"))
        os.symlink("sample", self.path("a", "symlink"))
        os.symlink(".", self.path("a", "loop"))
        os.mkfifo(self.path("a", "fifo"))
        with open(self.path("a", "notes.txt"), "w", encoding="ascii") as file:
            file.write("hello\n")
        tool("g++", "-g", "-c", self.sample + ".cc", "-o", self.path("a", "sample.o"))
        with open(self.path("a", "package.deb"), "wb") as file:
            file.write(b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n")
        result = self.upload(self.path("a"))
        self.stored(self.path("a", "b", "app"), self.path("a", "app.debug"), self.path("a", "sample"), self.path("a", "package.deb"))
        self.assertEqual(len(self.server.files), 4)
        self.assertEqual(sorted(w["role"] for w in self.server.begun), ["debug", "executable", "executable", "package"])
        self.assertIn("2 other files passed over", result.stdout)

    def test_a_path_that_is_nothing_of_ours_is_refused(self):
        self.upload(self.sample + ".cc", status=1, stderr="sample.cc: neither an ELF program, a debug file, a kernel, a .deb nor a folder")
        self.upload("/nonexistent", status=1, stderr="stat /nonexistent: No such file or directory")
        os.mkdir(self.path("empty"))
        result = run(UPLOAD, "--url", self.server.url(), self.path("empty"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("no ELF programs, debug files or packages in it", result.stderr)

    def test_one_wrong_path_does_not_stop_the_rest(self):
        result = run(UPLOAD, "--url", self.server.url(), self.sample + ".cc", self.sample, "/nonexistent")
        self.assertEqual(result.returncode, 1)
        self.assertIn("sample.cc: neither an ELF program", result.stderr)
        self.assertIn("stat /nonexistent: No such file", result.stderr)
        self.assertIn("2 of 3 files failed", result.stderr)
        self.assertIn("1 sent", result.stdout)
        self.stored(self.sample)

    def test_many_warnings_of_one_kind_are_counted(self):
        os.mkdir(self.path("a"))
        for i in range(7):
            tool("gcc", "-s", "-Wl,--build-id=sha1", f"-DN={i}", "-x", "c", "-", "-o", self.path("a", f"p{i}"), stdin=b"int main(void) { return N; }")
        result = run(UPLOAD, "--url", self.server.url(), self.path("a"))
        self.assertEqual(result.stderr.count("looks stripped"), 3)
        self.assertIn("in all, 7 executables look stripped, and no debug file was found (--verbose lists them)", result.stderr)
        result = run(UPLOAD, "--url", self.server.url(), "--verbose", self.path("a"))
        self.assertEqual(result.stderr.count("looks stripped"), 7)
        self.assertNotIn("in all", result.stderr)

    def test_a_supplement_goes_first_wherever_it_lies(self):
        os.makedirs(self.path("a", "z"))
        names = []
        for i in range(3):
            names.append(self.path("a", f"p{i}"))
            tool("g++", f"-O{i + 1}", "-g", "-Wl,--build-id=sha1", self.sample + ".cc", "-o", names[-1])
        tool("dwz", "-m", self.path("a", "z", "common"), "-M", self.path("a", "z", "common"), *names)
        self.upload("-j", "4", self.path("a"))
        self.assertEqual([w["role"] for w in self.server.begun], ["supplement"] + 3 * ["executable"])
        finished = [r for r in self.server.requests if "/finish" in r or r == "POST /v1/uploads"]
        self.assertIn("/finish", finished[1], "nothing begins before the supplement is there")
        self.server.begun.clear()
        self.upload("--force", names[1])
        self.assertEqual([w["role"] for w in self.server.begun], ["supplement", "executable"], "found as the file names it")
        self.assertIn("build_id", self.server.begun[0])

    def split_dwarf(self):
        os.makedirs(self.path("o"))
        for name, text in (("a", "int twice(int); int main(int c, char **v) { return twice(c); }"), ("b", "int twice(int x) { return 2 * x; }")):
            with open(self.path(f"{name}.c"), "w", encoding="ascii") as file:
                file.write(text)
            tool("gcc", "-gdwarf-4", "-gsplit-dwarf", "-c", self.path(f"{name}.c"), "-o", self.path("o", f"{name}.o"))
        tool("gcc", "-Wl,--build-id=sha1", self.path("o", "a.o"), self.path("o", "b.o"), "-o", self.path("prog"))
        return self.path("prog")

    def test_dwo_files_go_before_their_program_as_one_archive(self):
        program = self.split_dwarf()
        self.upload(program)
        split, executable = self.server.begun
        self.assertEqual((split["role"], executable["role"]), ("split", "executable"))
        self.assertEqual(split["build_id"], executable["build_id"])
        archive = self.path("archive.a")
        with open(archive, "wb") as file:
            file.write(self.server.files[split["sha256"]])
        self.assertEqual(subprocess.run(["ar", "p", archive, "0"], capture_output=True, check=True).stdout,
                         read(self.path("o", "a.dwo")))
        self.upload(program)
        self.assertEqual(len(self.server.files), 2, "the same archive every time")
        os.unlink(self.path("o", "b.dwo"))
        self.upload("--force", program, stderr="prog: 1 of its 2 .dwo files were not found")

    def test_a_dwp_goes_before_its_program_and_not_alone(self):
        program = self.split_dwarf()
        tool("dwp", "-e", program, "-o", program + ".dwp")
        self.upload(program)
        self.stored(program + ".dwp", program)
        self.assertEqual([w["role"] for w in self.server.begun], ["split", "executable"])
        self.upload(program + ".dwp", status=1, stderr="prog.dwp: split DWARF goes with its program: name that")

    def test_a_damaged_file_in_a_folder_does_not_stop_the_rest(self):
        os.mkdir(self.path("a"))
        with open(self.sample, "rb") as file:
            data = file.read()
        with open(self.path("a", "cut"), "wb") as file:
            file.write(data[:1000])
        shutil.copy(self.sample, self.path("a", "whole"))
        result = run(UPLOAD, "--url", self.server.url(), self.path("a"))
        self.assertEqual(result.returncode, 1)
        self.assertIn(self.path("a", "cut"), result.stderr)
        self.assertIn("1 sent", result.stdout)
        self.assertIn("1 failed", result.stdout)
        self.stored(self.path("a", "whole"))

    def test_a_dry_run_talks_to_nobody(self):
        binary, debug = self.split()
        result = self.upload("--dry-run", binary)
        self.assertEqual(self.server.requests, [])
        self.assertIn("would send  executable", result.stdout)
        self.assertIn("would send  debug", result.stdout)
        self.assertIn(debug, result.stdout)
        self.assertIn("2 files, ", result.stdout)

    def test_large_files_go_in_chunks(self):
        path = self.big()
        self.upload(path)
        self.stored(path)
        puts = [r for r in self.server.requests if r.startswith("PUT")]
        self.assertEqual([int(r.split("=")[1]) for r in puts], [0, CHUNK, 2 * CHUNK])

    def test_a_broken_connection_goes_on_where_it_was(self):
        path = self.big()
        self.server.faults = [only(f"offset={CHUNK}", drop), only("/finish", drop)]
        self.upload(path)
        self.stored(path)
        puts = [int(r.split("=")[1]) for r in self.server.requests if r.startswith("PUT")]
        self.assertEqual(puts, [0, CHUNK, CHUNK, 2 * CHUNK], "nothing that had arrived is sent again")

    def test_an_answer_that_is_lost_is_no_loss(self):
        path = self.big()

        def take_and_drop(request):
            self.server.sessions[request.path.split("/")[3].split("?")[0]]["data"] += request.body
            return drop(request)

        self.server.faults = [only(f"offset={CHUNK}", take_and_drop)]
        self.upload(path)
        self.stored(path)

    def test_an_offset_that_the_server_corrects(self):
        path = self.big()

        def take_twice(request):
            """As if another client had sent the same piece meanwhile."""
            session = self.server.sessions[request.path.split("/")[3].split("?")[0]]
            session["data"] += request.body
            return request.answer(409, {"error": {"code": "offset_mismatch", "message": "x"}, "offset": len(session["data"])}) or True

        self.server.faults = [only("offset=0", take_twice)]
        self.upload(path)
        self.stored(path)

    def test_a_session_that_is_gone_is_begun_again(self):
        path = self.big()

        def forget(request):
            self.server.sessions.clear()
            return False

        def forget_once(request):
            forget(request)
            self.server.faults.remove(forget_once_only)
            return False

        forget_once_only = only(f"offset={CHUNK}", forget_once)
        self.server.faults = [forget_once_only]
        self.upload(path)
        self.stored(path)

    def test_a_busy_server_is_asked_again(self):
        self.server.faults = [refuse(503, "busy", Retry_After="1"), only("PUT", refuse(503, "busy"))]
        self.upload(self.sample)
        self.stored(self.sample)

    def test_a_server_that_restarts_is_waited_for(self):
        path = self.big()
        stopped = threading.Event()

        def restart():
            stopped.wait()
            self.server.stop()
            threading.Event().wait(0.5)
            self.server.start()

        def stop(request):
            stopped.set()
            return drop(request)

        self.server.faults = [only(f"offset={CHUNK}", stop)]
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            self.upload(path)
        finally:
            stopped.set()
            thread.join()
        self.stored(path)

    def test_a_refusal_is_told_and_not_repeated(self):
        for status, code in (413, "too_large"), (400, "invalid"), (507, "no_space"):
            self.server.requests.clear()
            self.server.faults = [refuse(status, code)]
            result = run(UPLOAD, "--url", self.server.url(), self.sample)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{self.sample}: {self.server.url()}/v1/uploads: {status} {code}: because", result.stderr)
            self.assertEqual(len(self.server.requests), 1)

    def test_a_server_that_never_gets_further_is_given_up(self):
        stuck = only("PUT", lambda request: request.answer(409, {"error": {}, "offset": 0}) or True)
        self.server.faults = [stuck] * 100
        result = run(UPLOAD, "--url", self.server.url(), self.sample)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the server gets no further than byte 0", result.stderr)

    def test_answers_that_make_no_sense(self):
        nonsense = [{}, {"status": "open", "upload_id": "../x", "offset": 0}, {"status": "open", "upload_id": "x", "offset": -1},
                    {"status": "open", "upload_id": "x", "offset": 1 << 40}, {"status": "open", "upload_id": "x"},
                    {"status": "open", "upload_id": "x" * 100, "offset": 0}, []]
        for body in nonsense:
            with self.subTest(body=body):
                self.server.faults = [lambda request, body=body: request.answer(201, body) or True] * 20
                result = run(UPLOAD, "--url", self.server.url(), self.sample)
                self.assertEqual(result.returncode, 1)
                self.assertIn("an answer without a sensible", result.stderr)

    def test_nobody_there_fails_at_once(self):
        result = run(UPLOAD, "--url", "http://127.0.0.1:1", self.sample, timeout=5)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is cairnd running?", result.stderr)

    def test_wait_waits_for_the_job_and_tells_its_failure(self):
        with open(self.sample, "rb") as file:
            job = "j" + hashlib.sha256(file.read()).hexdigest()[:8]
        self.server.jobs[job] = {"state": "running", "progress": 0.5}

        def end(state, request):
            self.server.jobs[job] = {"state": state, "reason": "worker: killed by signal 11"}
            return False

        polls = []

        def poll(request):
            polls.append(request.path)
            return end("done", request) if len(polls) == 3 else False

        self.server.faults = [only("/v1/jobs/", poll)]
        self.upload("--wait", self.sample)
        self.assertEqual(len(polls), 3)
        self.server.faults = []
        end("failed", None)
        result = run(UPLOAD, "--url", self.server.url(), "--wait", self.sample)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{self.sample}: job {job} failed: worker: killed by signal 11", result.stderr)

    def test_progress_is_shown_on_a_terminal(self):
        path = self.big(20 << 20)
        ours, theirs = os.openpty()
        with subprocess.Popen([UPLOAD, "--url", self.server.url(), path], stdout=subprocess.PIPE, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while piece := os.read(ours, 4096):
                    shown += piece
            except OSError:  # the other end is closed
                pass
            process.stdout.read()
            self.assertEqual(process.wait(), 0)
        os.close(ours)
        self.assertRegex(shown, rb"\r0 of 1 files, [\d.]+ k?M?B of 21\.0 MB, [\d.]+ k?M?B/s\x1b\[K")
        self.assertTrue(shown.endswith(b"\r\x1b[K"), "the line is gone in the end")

    def test_many_files_in_parallel(self):
        os.mkdir(self.path("many"))
        for i in range(30):
            shutil.copy(self.sample, self.path("many", f"f{i}"))
            with open(self.path("many", f"f{i}"), "ab") as file:
                file.write(b"%d" % i)
        result = self.upload("-j", "8", self.path("many"))
        self.assertEqual(len(self.server.files), 30)
        self.assertIn("30 sent", result.stdout)


if __name__ == "__main__":
    unittest.main()
