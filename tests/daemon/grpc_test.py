# SPDX-License-Identifier: Apache-2.0
"""cairn.v1.Symbolizer/Symbolize of a real cairnd by Debian's python3-grpcio; curl and h2load where they are installed.

    usage: grpc_test.py        exit 77 when python3-grpcio is not installed
"""
import concurrent.futures
import gzip
import importlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

try:
    import grpc
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(__file__))
from cairnd import *  # noqa: E402,F403

METHOD = "/cairn.v1.Symbolizer/Symbolize"
NO_LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
ID = "00112233445566778899aabbccddeeff"
Code = grpc.StatusCode


def load_pb(folder):
    subprocess.run(["protoc", "-I", os.path.join(SOURCE_DIR, "proto"), "--python_out", folder, "cairn/v1/symbolize.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("cairn.v1.symbolize_pb2")


class Base(unittest.TestCase):
    flags = []

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="cairn-grpc-")
        cls.pb = load_pb(cls.folder)
        cls.daemon = Cairnd(*cls.flags).start()
        cls.channel = cls.open()

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.daemon.__exit__()
        shutil.rmtree(cls.folder)

    @classmethod
    def open(cls, *options):
        return grpc.insecure_channel("127.0.0.1:%d" % cls.daemon.grpc_port, options=NO_LIMITS + list(options))

    def stub(self, channel=None):
        return (channel or self.channel).unary_unary(METHOD, self.pb.SymbolizeRequest.SerializeToString, self.pb.SymbolizeResponse.FromString)

    def raw_stub(self, method=METHOD):
        return self.channel.unary_unary(method, lambda b: b, lambda b: b)

    def question(self, addresses=(1,), file_id=ID, **members):
        request = self.pb.SymbolizeRequest(**members)
        request.modules.add(file_id=bytes.fromhex(file_id), addresses=addresses)
        return request

    def fails(self, code, call, *args, **options):
        with self.assertRaises(grpc.RpcError) as raised:
            call(*args, **options)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        return raised.exception.details()

    def metric(self, name):
        for line in self.daemon.get("/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return 0.0

    def check_resident(self, limit):
        if b"__asan_init" not in read(CAIRND):  # which keeps 256 MiB of freed memory
            self.assertLess(self.metric("process_resident_memory_bytes"), limit)


class Symbolize(Base):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = compile_sample(cls.folder)
        content = read(path)
        cls.file_id = file_id(content)
        cls.daemon.wait_job(cls.daemon.upload(content)["job_id"])
        cls.addresses = text_addresses(path)

    def test_answer_is_that_of_http(self):
        request = self.question(self.addresses, self.file_id)
        response = self.stub()(request)
        self.assertEqual(len(response.modules[0].result_status), len(self.addresses))
        self.assertGreater(len(response.modules[0].frames), len(self.addresses))
        http = self.daemon.request("POST", "/v1/symbolize", request.SerializeToString(), {"Content-Type": "application/x-protobuf"})
        self.assertEqual(response.SerializeToString(), self.pb.SymbolizeResponse.FromString(http.body).SerializeToString())

    def test_gzip_and_deflate(self):
        request = self.question(self.addresses, self.file_id)
        plain = self.stub()(request)
        self.assertEqual(self.stub()(request, compression=grpc.Compression.Gzip), plain)
        self.fails(Code.UNIMPLEMENTED, self.stub(), request, compression=grpc.Compression.Deflate)

    def test_many_at_once_over_one_connection(self):
        stub, request = self.stub(), self.question(self.addresses[:50], self.file_id)
        expected = stub(request)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for future in [stub.future(request) for _ in range(400)]:
                self.assertEqual(future.result(), expected)
            self.assertTrue(all(r == expected for r in pool.map(lambda _: stub(request), range(400))))

    def test_malformed_message_is_invalid_argument(self):
        for message in (b"\x0a\xff", b"\xff" * 20, b"\x10\x09"):
            self.assertTrue(self.fails(Code.INVALID_ARGUMENT, self.raw_stub(), message))

    def test_unknown_method_is_unimplemented(self):
        self.fails(Code.UNIMPLEMENTED, self.raw_stub("/cairn.v1.Symbolizer/None"), b"")

    def test_message_of_64_mib_is_read_and_one_byte_more_is_refused(self):
        # Unknown member 15, so that the message is valid whatever its length.
        def message(size):
            for varint in (3, 4):
                rest = size - 1 - varint
                length = bytes((rest >> 7 * i & 127) | (128 if i < varint - 1 else 0) for i in range(varint))
                if rest < 1 << 7 * varint:
                    return b"\x7a" + length + bytes(rest)
        exactly = message(64 << 20)
        self.assertEqual(len(exactly), 64 << 20)
        self.assertEqual(len(self.pb.SymbolizeResponse.FromString(self.raw_stub()(exactly)).modules), 0)
        before = self.metric("cairn_net_body_too_large_total")
        details = self.fails(Code.RESOURCE_EXHAUSTED, self.raw_stub(), message((64 << 20) + 1))
        self.assertIn("67108865 bytes", details)
        # Past the limit only once it is unpacked: 65 KiB on the wire.
        self.fails(Code.RESOURCE_EXHAUSTED, self.raw_stub(), bytes((64 << 20) + 1), compression=grpc.Compression.Gzip)
        self.check_resident(400e6)

    def test_keepalive_pings_of_the_client_are_answered(self):
        channel = self.open(("grpc.keepalive_time_ms", 200), ("grpc.keepalive_timeout_ms", 2000), ("grpc.http2.max_pings_without_data", 0),
                            ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.min_time_between_pings_ms", 100))
        stub = self.stub(channel)
        stub(self.question())
        time.sleep(1.5)
        stub(self.question())
        channel.close()

    def test_other_content_types_on_the_path_are_415(self):
        for kind in ("application/json", "application/grpcx", "application/grpc-web"):
            answer = self.daemon.request("POST", METHOD, b"{}", {"Content-Type": kind})
            self.assertEqual((answer.status, answer.code), (415, "unsupported_media_type"))
        answer = self.daemon.request("POST", METHOD, b"", {"Content-Type": "application/grpc"})
        self.assertEqual(answer.status, 505)

    def test_metrics_know_the_path(self):
        self.stub()(self.question())
        text = self.daemon.get("/metrics").body.decode()
        self.assertIn('cairn_http_requests_total{path="/cairn.v1.Symbolizer/Symbolize",status="200"}', text)

    @unittest.skipUnless(shutil.which("h2load"), "h2load (nghttp2-client) is not installed")
    def test_h2load(self):
        body = self.question(self.addresses[:20], self.file_id).SerializeToString()
        path = os.path.join(self.folder, "message")
        with open(path, "wb") as file:
            file.write(b"\0" + struct.pack(">I", len(body)) + body)
        out = subprocess.run(["h2load", "-n", "5000", "-c", "8", "-m", "16", "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers",
                              "http://127.0.0.1:%d%s" % (self.daemon.grpc_port, METHOD)], capture_output=True, text=True, timeout=120).stdout
        print(out)
        self.assertIn("5000 succeeded, 0 failed, 0 errored, 0 timeout", out)
        self.assertIn("5000 2xx, 0 3xx, 0 4xx, 0 5xx", out)


class Pending(Base):
    """A worker that never ends: its file's symbols stay pending, and answers are held for wait_ms."""

    @classmethod
    def setUpClass(cls):
        cls.hang = tempfile.mkdtemp(prefix="cairn-hang-")
        worker = os.path.join(cls.hang, "worker")
        with open(worker, "w") as file:
            file.write("#!/bin/sh\nexec sleep 600\n")
        os.chmod(worker, 0o755)
        cls.flags = ["--worker.path", worker, "--drain", "5s", "--queue", "8"]
        super().setUpClass()
        cls.daemon.upload(b"whatever", file_id=file_id(b"whatever"))

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.hang)

    def test_deadline_and_cancel_end_a_call_that_waits(self):
        begin = time.monotonic()
        self.fails(Code.DEADLINE_EXCEEDED, self.stub(), self.question(file_id=file_id(b"whatever"), wait_ms=20000), timeout=0.5)
        self.assertLess(time.monotonic() - begin, 5)
        short = self.stub()(self.question(file_id=file_id(b"whatever"), wait_ms=300), timeout=10)
        self.assertEqual(short.modules[0].status, self.pb.MODULE_STATUS_PENDING)
        call = self.stub().future(self.question(file_id=file_id(b"whatever"), wait_ms=20000))
        time.sleep(0.3)
        call.cancel()
        end = time.monotonic() + 5
        while self.metric("cairn_net_requests_open") > 1 and time.monotonic() < end:  # 1: this one
            time.sleep(0.05)
        self.assertEqual(self.metric("cairn_net_requests_open"), 1)

    def test_only_so_many_answers_are_held(self):
        calls, begin = [], time.monotonic()
        for _ in range(20):
            calls.append(self.stub().future(self.question(file_id=file_id(b"whatever"), wait_ms=4000)))
            time.sleep(0.05)
        time.sleep(0.5)
        self.assertEqual(sum(call.done() for call in calls), 12)
        self.assertTrue(all(call.result().modules[0].status == self.pb.MODULE_STATUS_PENDING for call in calls))
        self.assertGreater(time.monotonic() - begin, 3.5)

    def test_drain_answers_the_call_in_flight(self):
        stub = self.stub()
        late = stub.future(self.question(file_id=file_id(b"whatever"), wait_ms=30000))
        time.sleep(0.5)
        self.assertFalse(late.done())
        begin = time.monotonic()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertLess(time.monotonic() - begin, 4.5)
        self.assertEqual(late.result().modules[0].status, self.pb.MODULE_STATUS_PENDING)
        self.assertIn(self.fails_code(stub), (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED))
        self.restart()

    @unittest.skipUnless(shutil.which("nghttp"), "nghttp (nghttp2-client) is not installed")
    def test_drain_says_goaway(self):
        message = self.question(file_id=file_id(b"whatever"), wait_ms=30000).SerializeToString()
        path = os.path.join(self.folder, "message")
        with open(path, "wb") as file:
            file.write(b"\0" + struct.pack(">I", len(message)) + message)
        client = subprocess.Popen(["nghttp", "-nv", "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers",
                                   "http://127.0.0.1:%d%s" % (self.daemon.grpc_port, METHOD)], stdout=subprocess.PIPE, text=True)
        time.sleep(0.7)
        self.assertEqual(self.daemon.stop(), 0)
        out = re.sub("\x1b\\[[0-9;]*m", "", client.communicate(timeout=10)[0])
        print(out)
        received = out[out.index("send HEADERS"):]
        self.assertRegex(received, r"recv GOAWAY frame[^\n]*\n *\(last_stream_id=\d+, error_code=NO_ERROR\(0x00\)")
        self.assertLess(received.index("recv GOAWAY"), received.index("grpc-status: 0"))
        self.restart()

    def restart(self):
        self.channel.close()
        self.daemon.start()
        type(self).channel = self.open()

    def fails_code(self, stub):
        try:
            stub(self.question(), timeout=2)
        except grpc.RpcError as error:
            return error.code()
        return Code.OK


class Memory(Base):
    flags = ["--limits.buffered", "32M"]

    def test_open_calls_cannot_hold_more_than_the_limit(self):
        """A call whose message has come and whose end has not holds what the message is unpacked: 3 MiB from one
        piece of 3 KiB. (In more pieces the check between them would see it.)"""
        go, release = threading.Event(), threading.Event()
        stub = self.channel.stream_unary(METHOD, lambda b: b, lambda b: b)

        def one(i):
            go.wait(20)
            time.sleep(0.03 * i)
            yield bytes(3 << 20)
            release.wait(20)

        calls = [stub.future(one(i), compression=grpc.Compression.Gzip) for i in range(40)]
        time.sleep(1)  # all heads are there, nothing is held yet
        go.set()
        end = time.monotonic() + 15
        while time.monotonic() < end and sum(c.done() for c in calls) < 20:
            time.sleep(0.1)
        refused = [c.code() for c in calls if c.done()]
        release.set()
        self.assertGreaterEqual(len(refused), 20, refused)
        self.check_resident(200e6)
        self.assertTrue(all(code in (Code.UNAVAILABLE, Code.UNKNOWN) for code in refused), refused)
        for call in calls:
            call.exception(timeout=20)
        self.stub()(self.question(), wait_for_ready=True, timeout=20)


class Tls(Base):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("openssl"):
            raise unittest.SkipTest("openssl is not installed")
        folder = tempfile.mkdtemp(prefix="cairn-tls-")
        cls.certs = folder

        def openssl(*args):
            subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cairn test CA", "-keyout", "ca.key", "-out", "ca.pem")
        with open(os.path.join(folder, "ext"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        for name in ("server", "client"):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", name + ".key", "-out", name + ".csr")
            openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out",
                    name + ".pem")
        cls.flags = ["--tls.cert", cls.file("server.pem"), "--tls.key", cls.file("server.key"), "--tls.client_ca", cls.file("ca.pem")]
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.certs)

    @classmethod
    def file(cls, name):
        return os.path.join(cls.certs, name)

    @classmethod
    def open(cls, *options):
        return cls.secure(read(cls.file("client.key")), read(cls.file("client.pem")))

    @classmethod
    def secure(cls, key, cert):
        credentials = grpc.ssl_channel_credentials(read(cls.file("ca.pem")), key, cert)
        return grpc.secure_channel("localhost:%d" % cls.daemon.grpc_port, credentials, options=NO_LIMITS)

    def curl(self, *args):
        return subprocess.run(["curl", "-sS", "-m", "10", "--cacert", self.file("ca.pem"), *args, "https://localhost:%d/healthz" % self.daemon.port],
                              capture_output=True, text=True)

    def test_grpc_with_a_client_certificate(self):
        self.assertEqual(len(self.stub()(self.question()).modules), 1)

    def test_grpc_without_one_is_refused(self):
        channel = self.secure(None, None)
        self.fails(Code.UNAVAILABLE, self.stub(channel), self.question(), timeout=5)
        channel.close()

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_alpn_by_curl(self):
        mine = ["--cert", self.file("client.pem"), "--key", self.file("client.key"), "-w", "%{http_version}"]
        self.assertEqual(self.curl("--http2", *mine).stdout, "ok\n2")
        self.assertEqual(self.curl("--http1.1", *mine).stdout, "ok\n1.1")
        self.assertNotEqual(self.curl().returncode, 0)

    def test_plain_bytes_are_no_request(self):
        try:
            answer = self.daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", timeout=5)
        except ConnectionResetError:
            answer = b""
        self.assertNotIn(b"HTTP/", answer)


class TlsSettings(unittest.TestCase):
    def start(self, *flags):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([CAIRND, "--data-dir", folder + "/data", "--store.map_max", "16G", *flags], capture_output=True, text=True, timeout=30)
            return done.returncode, done.stderr

    def test_half_of_a_pair_is_wrong_usage(self):
        for flags, words in ((("--tls.cert", "x"), "tls.key is missing"), (("--tls.key", "x"), "tls.cert is missing"),
                             (("--tls.client_ca", "x"), "tls.client_ca needs")):
            status, text = self.start(*flags)
            self.assertEqual(status, 2, text)
            self.assertIn(words, text)

    def test_files_that_are_not_there_are_named(self):
        status, text = self.start("--tls.cert", "/nonexistent/cert.pem", "--tls.key", "/nonexistent/key.pem", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
        self.assertEqual(status, 1, text)
        self.assertIn("/nonexistent/cert.pem", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
