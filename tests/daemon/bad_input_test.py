# SPDX-License-Identifier: Apache-2.0
"""Requests that are wrong: each gets a fitting answer, and the daemon answers the next one."""
import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

ID = "00112233445566778899aabbccddeeff"


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Cairnd("--limits.modules", "10", "--limits.addresses", "100", "--limits.body", "100K").start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__()

    def tearDown(self):
        self.assertEqual(self.daemon.get("/healthz").body, b"ok\n")
        self.assertEqual(self.daemon.get("/readyz").body, b"ready\n")

    def expect(self, answer, status, code, words=""):
        self.assertEqual((answer.status, answer.code), (status, code), answer.body)
        self.assertIn(words, answer.message)
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_symbolize_names_the_element(self):
        for body, words in (
                ("", "empty"), ("{", "line 1"), ("[1]", "object"), ("nul", "not JSON"), ("{}", "modules"),
                ({"modules": 1}, "modules"), ({"modules": [1]}, "modules[0]"), ({"modules": [{}]}, "modules[0]"),
                ({"modules": [{"file_id": ID}, {"file_id": ID[:-1]}]}, "modules[1].file_id"),
                ({"modules": [{"build_id": "xyz"}]}, "modules[0].build_id"),
                ({"modules": [{"file_id": ID, "addresses": [1, "0x2", "zz"]}]}, "modules[0].addresses[2]"),
                ({"modules": [{"file_id": ID, "addresses": [-5]}]}, "modules[0].addresses[0]"),
                ({"modules": [{"file_id": ID, "addresses": [1.25]}]}, "modules[0].addresses[0]"),
                ({"modules": [{"file_id": ID, "addresses": ["0x11111111111111111"]}]}, "modules[0].addresses[0]"),
                ({"modules": [{"file_id": ID, "address_kind": "x"}]}, "modules[0].address_kind"),
                ({"modules": [], "demangle": 1}, "demangle"), ({"modules": [], "wait_ms": "x"}, "wait_ms")):
            with self.subTest(body):
                self.expect(self.daemon.post_json("/v1/symbolize", body), 400, "invalid", words)

    def test_unknown_members_are_ignored(self):
        modules = self.daemon.symbolize({"modules": [{"file_id": ID, "addresses": [], "colour": {"a": [None]}}], "x": 1})
        self.assertEqual(modules[0]["status"], "unknown")

    def test_limits_of_counts(self):
        many = {"modules": [{"file_id": ID}] * 11}
        self.expect(self.daemon.post_json("/v1/symbolize", many), 413, "too_large", "limits.modules")
        many = {"modules": [{"file_id": ID, "addresses": [1] * 101}]}
        self.expect(self.daemon.post_json("/v1/symbolize", many), 413, "too_large", "limits.addresses")
        self.expect(self.daemon.post_json("/v1/symbolize", "{\"x\":" + "[" * 65), 413, "too_large", "nested")

    def test_body_over_the_limit_is_413_before_bytes(self):
        head = b"POST /v1/symbolize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 102401\r\n\r\n"
        received = self.daemon.raw(head)
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received)
        self.assertIn(b'"too_large"', received)

    def test_chunked_body_over_the_limit_is_413(self):
        head = b"POST /v1/symbolize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        received = self.daemon.raw(head + b"19001\r\n" + b" " * 0x19001 + b"\r\n")
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received[:200])

    def test_wrong_content_type_is_415(self):
        for path in ("/v1/symbolize", "/v1/uploads"):
            for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/jsonx"}):
                self.expect(self.daemon.request("POST", path, b"{}", headers), 415, "unsupported_media_type")
        with_charset = {"Content-Type": "application/json; charset=utf-8"}
        self.assertEqual(self.daemon.request("POST", "/v1/symbolize", b'{"modules":[]}', with_charset).status, 200)

    def test_malformed_protobuf_is_400(self):
        for body in (b"\x0a\xff", b"\x0a\x02\x0a\x05", b"\xff" * 20, b"\x0a\x00", b"\x10\x09"):
            answer = self.daemon.request("POST", "/v1/symbolize", body, {"Content-Type": "application/x-protobuf"})
            self.expect(answer, 400, "invalid")

    def test_unknown_paths_and_methods(self):
        self.expect(self.daemon.get("/"), 404, "not_found")
        self.expect(self.daemon.get("/v1/files/x/y"), 404, "not_found")
        answer = self.daemon.get("/v1/symbolize")
        self.expect(answer, 405, "method_not_allowed")
        self.assertIn("POST", answer.headers["allow"])

    def test_ids_of_no_form_and_of_nothing(self):
        self.expect(self.daemon.get("/v1/files/xyz"), 400, "invalid", "xyz")
        self.expect(self.daemon.get("/v1/files/" + ID), 404, "not_found", ID)
        self.expect(self.daemon.get("/v1/files/abcd"), 404, "not_found")
        self.expect(self.daemon.get("/v1/jobs/x"), 400, "invalid")
        self.expect(self.daemon.get("/v1/jobs/999"), 404, "not_found")
        for query in ("limit=0", "limit=1001", "limit=x", "after=zz"):
            self.expect(self.daemon.get("/v1/files?" + query), 400, "invalid")

    def test_malformed_http_is_400(self):
        for data in (b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\1\2\3\r\n\r\n"):
            self.assertRegex(self.daemon.raw(data)[:12], rb"^HTTP/1.1 (400|505)")

    def test_client_that_stops_in_the_middle(self):
        head = b"POST /v1/symbolize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"mod"
        for _ in range(20):
            self.daemon.raw(head, half_close=True, timeout=5)
            with socket.create_connection(("127.0.0.1", self.daemon.port)) as sock:
                sock.sendall(head)

    def test_many_at_once(self):
        failures = []

        def ask():
            conn = self.daemon.connection()
            for _ in range(50):
                answer = self.daemon.post_json("/v1/symbolize", {"modules": [{"file_id": ID, "addresses": [1]}]}, conn)
                if answer.status != 200:
                    failures.append(answer.body)
            conn.close()

        threads = [threading.Thread(target=ask) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


if __name__ == "__main__":
    unittest.main(verbosity=1)
