# SPDX-License-Identifier: Apache-2.0
"""The fetcher against a server that misbehaves in every way that we thought of. Loopback only."""
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import unittest

PROBE = sys.argv.pop()
BODY = bytes(i * 7 % 251 for i in range(300000))
RACE = 64 << 20
for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hits, sent = {}, {}
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def do_GET(self):
        if self.path.startswith("http://"):  # we are the proxy
            self.path = "/" + self.path.split("/", 3)[3]
        with self.lock:
            hit = self.hits[self.path] = self.hits.get(self.path, 0) + 1
        getattr(self, "do_" + self.path.split("/")[1].split("?")[0], lambda _: self.send(404, b"no"))(hit)

    def do_ok(self, _):
        self.send(200, BODY, ETag='"one"')

    def do_conditional(self, _):
        if self.headers.get("If-None-Match") == '"one"':
            self.send(304, ETag='"one"')
        else:
            self.send(200, BODY, ETag='"one"')

    def do_slowstart(self, _):
        time.sleep(0.6)
        self.send(200, BODY)

    def do_stall(self, _):
        self.send(200, BODY[:100], Content_Length=str(len(BODY)))
        time.sleep(4)
        self.close_connection = True

    def do_500(self, _):
        self.send(500, b"broken")

    def do_flaky(self, hit):
        self.send(500 if hit < 3 else 200, BODY)

    def do_403(self, _):
        self.send(403, b"no")

    def do_gone(self, _):
        self.send(410, b"no")

    def do_html(self, _):
        self.send(200, b"<html>please log in</html>", Content_Type="text/html; charset=utf-8")

    def do_loop(self, hit):
        self.send(302, Location="/loop?%d" % hit)

    def do_nowhere(self, _):
        self.send(302, Location="file:///etc/passwd")

    def do_nolocation(self, _):
        self.send(302)

    def do_moved(self, _):
        self.send(301, Location="/ok")

    def do_inside(self, _):
        self.send(302, Location="http://127.0.0.1:%d/ok" % self.server.server_port)

    def do_large(self, _):
        self.send(200, BODY * 20)

    def do_short(self, _):
        self.send(200, BODY[:1000], Content_Length=str(len(BODY)))
        self.close_connection = True

    def do_resume(self, hit):
        """Breaks off twice; knows ranges."""
        Handler.seen_range = self.headers.get("Range")
        start = int(Handler.seen_range[6:].split("-")[0]) if Handler.seen_range else 0
        headers = {"ETag": '"v"', "Content_Length": str(len(BODY) - start)}
        if Handler.seen_range:
            assert self.headers.get("If-Range") == '"v"'
            headers["Content_Range"] = "bytes %d-%d/%d" % (start, len(BODY) - 1, len(BODY))
        self.send(206 if Handler.seen_range else 200, BODY[start:] if hit == 3 else BODY[start:start + 100000], **headers)
        self.close_connection = True

    def do_changed(self, hit):
        """Breaks off, then has another file: no resume."""
        self.send(200, BODY[:1000] if hit == 1 else BODY[::-1], ETag='"%d"' % hit, Content_Length=str(len(BODY)))
        self.close_connection = True

    def do_wrongrange(self, hit):
        if hit == 1:
            self.send(200, BODY[:1000], ETag='"v"', Content_Length=str(len(BODY)))
            self.close_connection = True
        else:
            self.send(206, BODY[5:], Content_Range="bytes 5-%d/%d" % (len(BODY) - 1, len(BODY)))

    def do_range(self, _):
        first, last = map(int, self.headers["Range"][6:].split("-"))
        self.send(206, BODY[first:last + 1], Content_Range="bytes %d-%d/%d" % (first, last, len(BODY)))

    def do_morerange(self, _):
        first = int(self.headers["Range"][6:].split("-")[0])
        self.send(206, BODY[first:], Content_Range="bytes %d-%d/%d" % (first, len(BODY) - 1, len(BODY)))

    def do_endless(self, _):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(BODY)
        except OSError:
            pass

    def do_bighead(self, _):
        self.send_response(200)
        for i in range(2000):
            self.send_header("X-%d" % i, "a" * 100)
        self.end_headers()
        self.close_connection = True

    def do_later(self, hit):
        self.send(503 if hit == 1 else 200, BODY, Retry_After="1")

    def do_muchlater(self, _):
        self.send(429, b"", Retry_After="7200")

    def do_garbage(self, _):
        self.wfile.write(b"\x00\x01 what is this\r\n\r\n")
        self.close_connection = True

    def do_empty(self, _):
        self.send(200)

    def do_race(self, _):
        """/race/NAME/DELAY/AFTER/RATE: RACE bytes, the first after DELAY seconds; after AFTER bytes 20 pieces of RATE bytes a second, or a
        stall. `sent` counts what the connection took."""
        name, delay, after, rate = self.path.split("/")[2:]
        time.sleep(float(delay))
        self.send_response(200)
        self.send_header("Content-Length", str(RACE))
        self.end_headers()
        self.close_connection = True
        Handler.sent[name] = 0
        try:
            while Handler.sent[name] < RACE:
                slow = Handler.sent[name] >= int(after)
                piece = min(int(rate) if slow else 1 << 16, RACE - Handler.sent[name])
                self.wfile.write(bytes(piece))
                Handler.sent[name] += piece
                if slow:
                    time.sleep(0.05 if piece else 20)
        except OSError:
            pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # they hang up on us: that is what we want
            super().handle_error(request, client_address)


class Fetch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.base = "http://127.0.0.1:%d/" % cls.server.server_port

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def setUp(self):
        Handler.hits.clear()

    def probe(self, lines, *options):
        out = subprocess.run([PROBE, *options], input="".join(line + "\n" for line in lines), capture_output=True, text=True,
                             timeout=90)
        self.assertEqual((out.returncode, out.stderr), (0, ""))
        return [json.loads(line) for line in out.stdout.splitlines()]

    def line(self, path, limit=1 << 20, threads=1, etag="-", start=0, length=0, html=0):
        url = path if "://" in path else self.base + path
        return "%s %d %d %s %d %d %d" % (url, limit, threads, etag, start, length, html)

    def one(self, path, **more):
        return self.probe([self.line(path, **more)])[0]

    def check_body(self, result, body=BODY):
        self.assertEqual((result["answer"], result["bytes"], result["sha256"]),
                         ("ok", len(body), hashlib.sha256(body).hexdigest()), result)

    def hits(self, path):
        return Handler.hits.get("/" + path, 0)

    def test_a_good_answer(self):
        result = self.one("ok")
        self.check_body(result)
        self.assertEqual((result["attempts"], result["etag"], result["status"]), (1, '"one"', 200))
        self.check_body(self.one("empty"), b"")

    def test_one_transfer_however_many_ask(self):
        results = self.probe([self.line("slowstart", threads=20)])
        self.assertEqual(len(results), 20)
        for result in results:
            self.check_body(result)
        self.assertEqual(self.hits("slowstart"), 1)

    def test_cancelled_by_some_goes_on_for_the_others(self):
        results = self.probe([self.line("slowstart", threads=4)], "cancel=2")
        self.assertEqual([r["answer"] for r in results], ["cancelled"] * 2 + ["ok"] * 2)
        self.check_body(results[3])
        self.assertEqual(self.hits("slowstart"), 1)

    def test_cancelled_by_all_ends_at_once_and_is_no_failure_of_the_host(self):
        results = self.probe([self.line("stall", threads=2), self.line("slowstart", threads=3)], "cancel=2", "breaker=1")
        self.assertEqual([(r["answer"], r["status"]) for r in results[:4]], [("cancelled", 0)] * 4)
        self.assertIn("not wanted any more", results[0]["reason"])
        self.assertLess(max(r["ms"] for r in results[:2]), 900)  # before the stall is one
        self.assertLessEqual(self.hits("stall"), 1)  # no retry; none where the giving up was quicker than the connection
        self.check_body(results[4])  # the host was not short-circuited

    def race(self, *paths):
        url = "|".join(self.base + "race/" + path for path in paths)
        for _ in range(3):  # on a busy machine who leads may seem slow
            results = self.probe([self.line(url, limit=RACE, threads=len(paths))], "stall=15000")
            if all(Handler.sent[path[0]] < RACE // 2 for path, r in zip(paths, results) if r["answer"] != "ok"):
                break
        self.assertEqual(sorted(r["answer"] for r in results), ["cancelled"] * (len(paths) - 1) + ["ok"], results)
        winner = next(r for r in results if r["answer"] == "ok")
        self.assertEqual(winner["bytes"], RACE)
        return paths[results.index(winner)][0], winner

    def test_of_several_fast_ones_that_race_only_one_sends_it_all(self):
        winner, _ = self.race(*["%s/0/%d/0" % (name, RACE) for name in "ab"])
        # What it may have beside the first, and what lies in the buffers of its connection.
        self.assertLess(Handler.sent["b" if winner == "a" else "a"], RACE // 2)

    def test_stalled_transfer_holds_up_no_other_of_its_host(self):
        results = self.probe([self.line(self.base + "stall|" + self.base + "ok", threads=2)], "stall=15000")
        self.check_body(results[1])
        self.assertEqual(results[0]["answer"], "cancelled")

    def test_one_that_leads_and_then_stalls_or_dribbles_holds_nobody(self):
        for rate in (0, 1000):
            with self.subTest(rate):
                # b begins when a leads, and is held until a has been slow for a while; then it overtakes.
                winner, result = self.race("a/0/%d/%d" % (16 << 20, rate), "b/0.3/%d/0" % RACE)
                self.assertEqual(winner, "b")
                self.assertGreater(result["ms"], 1000)

    def test_conditional(self):
        self.check_body(self.one("conditional"))
        result = self.one("conditional", etag='"one"')
        self.assertEqual((result["answer"], result["status"], result["bytes"]), ("not_modified", 304, 0))

    def test_not_found_is_asked_once(self):
        for path, status in (("none", 404), ("gone", 410)):
            result = self.one(path)
            self.assertEqual((result["answer"], result["status"], self.hits(path)), ("not_found", status, 1))

    def test_forbidden_is_asked_once(self):
        self.assertEqual((self.one("403")["answer"], self.hits("403")), ("refused", 1))

    def test_500_is_tried_a_few_times_with_pauses(self):
        result = self.one("500")
        self.assertEqual((result["answer"], result["status"], result["attempts"], self.hits("500")), ("failed", 500, 4, 4))
        self.assertIn("500", result["reason"])
        self.assertGreaterEqual(result["ms"], (50 + 100 + 200) / 2 - 10)
        self.check_body(self.one("flaky"))

    def test_stalled_ends_and_says_so(self):
        results = self.probe([self.line("stall")])
        self.assertEqual((results[0]["answer"], results[0]["bytes"] < 101), ("failed", True), results)
        self.assertLess(results[0]["ms"], 20000)

    def test_html_instead_of_a_file_is_refused(self):
        result = self.one("html", html=1)
        self.assertEqual((result["answer"], self.hits("html")), ("refused", 1))
        self.assertIn("HTML", result["reason"])
        self.assertEqual(self.one("html")["answer"], "ok")

    def test_endless_redirects_end(self):
        result = self.one("loop")
        self.assertEqual(result["answer"], "refused")
        self.assertIn("redirected more than 4 times", result["reason"])
        self.assertEqual(sum(Handler.hits.values()), 5)

    def test_redirect_on_a_connection_that_was_used_before(self):
        """No socket is made then by which to see that the configured address is a private one, too."""
        for result in self.probe([self.line("ok"), self.line("moved")]):
            self.check_body(result)

    def test_redirects_are_followed_to_http_only(self):
        self.check_body(self.one("moved"))
        for path in ("nowhere", "nolocation"):
            self.assertEqual(self.one(path)["answer"], "refused", path)

    def test_body_shorter_than_promised_is_not_a_file(self):
        result = self.one("short")
        self.assertEqual((result["answer"], self.hits("short")), ("failed", 4))

    def test_broken_download_is_resumed(self):
        result = self.one("resume")
        self.check_body(result)
        self.assertEqual((result["attempts"], result["wire_bytes"]), (3, len(BODY)))

    def test_changed_file_starts_again(self):
        self.check_body(self.one("changed"), BODY[::-1])

    def test_wrong_range_is_refused(self):
        result = self.one("wrongrange")
        self.assertEqual(result["answer"], "refused")
        self.assertIn("another range", result["reason"])

    def test_ranges(self):
        result = self.one("range", start=1000, length=500)
        self.check_body(result, BODY[1000:1500])
        self.assertEqual(result["is_range"], 1)
        self.check_body(self.one("morerange", start=1000, length=500), BODY[1000:1500])
        whole = self.one("ok", start=1000, length=500)  # it knows no ranges
        self.check_body(whole)
        self.assertEqual(whole["is_range"], 0)

    def test_limits_hold_announced_or_not(self):
        result = self.one("ok", limit=299999)
        self.assertEqual((result["answer"], result["wire_bytes"] <= 299999), ("refused", True))
        self.assertIn("limit is 299999", result["reason"])
        self.check_body(self.one("ok", limit=300000))
        result = self.one("endless", limit=500000)
        self.assertEqual(result["answer"], "refused")
        self.assertIn("500000", result["reason"])
        self.assertLess(result["wire_bytes"], 2000000)
        self.assertEqual(self.one("bighead")["answer"], "refused")

    def test_retry_after_is_obeyed(self):
        result = self.one("later")
        self.check_body(result)
        self.assertGreaterEqual(result["ms"], 1000)
        result = self.one("muchlater")
        self.assertEqual((result["answer"], result["retry_after_ms"], self.hits("muchlater")), ("failed", 7200000, 1))

    def test_garbage_fails(self):
        self.assertEqual(self.one("garbage")["answer"], "failed")

    def test_nobody_listens(self):
        result = self.one("http://127.0.0.1:1/x")
        self.assertEqual((result["answer"], result["status"]), ("failed", 0))

    def test_broken_host_is_left_alone_and_tried_again(self):
        path = self.line("500")
        first, second = self.probe([path, self.line("500?b")], "breaker=3")
        self.assertEqual((first["answer"], second["answer"]), ("failed", "failed"))
        self.assertIn("left alone", second["reason"])
        self.assertGreater(second["retry_after_ms"], 0)
        self.assertEqual((sum(Handler.hits.values())), 3)

    def test_hourly_limit(self):
        first, second = self.probe([self.line("ok"), self.line("ok?2")], "hourly=200000")
        self.check_body(first)
        self.assertEqual((second["answer"], self.hits("ok?2")), ("failed", 0))
        self.assertIn("hourly_bytes", second["reason"])

    def test_rate_limit(self):
        result = self.probe([self.line("large", limit=1 << 24)], "rate=3000000")[0]
        self.check_body(result, BODY * 20)
        self.assertGreater(result["ms"], 900)

    def test_proxy_of_the_environment_and_no_way_into_the_house_behind_it(self):
        os.environ["http_proxy"] = self.base
        try:
            self.check_body(self.one("http://symbols.example.org/ok"))
            result = self.one("http://symbols.example.org/inside")
            self.assertEqual(result["answer"], "refused")
            self.assertIn("private address", result["reason"])
            self.assertEqual(self.hits("ok"), 1)
        finally:
            del os.environ["http_proxy"]
        self.check_body(self.one("inside"))  # the configured address is itself a private one

    def test_other_schemes_are_refused(self):
        for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://"):
            self.assertIn("no http or https URL", self.one(url)["error"])


if __name__ == "__main__":
    unittest.main(verbosity=1)
