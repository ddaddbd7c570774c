#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gRPC server against a client that we did not write: Debian's python3-grpcio.

usage: grpc_test.py NET_TESTD [tls]       exit 77 when python3-grpcio is not installed
"""
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

try:
    import grpc
except ImportError:
    print("python3-grpcio is not installed: skipped")
    sys.exit(77)

same = lambda b: b
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Stubs:
    def __init__(self, channel):
        for name in ("Echo", "Small", "Fail", "Sleep", "Thread", "None"):
            setattr(self, name, channel.unary_unary(f"/test.Test/{name}", same, same))
        self.Flood = channel.unary_stream("/test.Test/Flood", same, same)
        self.Chat = channel.stream_stream("/test.Test/Chat", same, same)
        self.EchoTwice = channel.stream_unary("/test.Test/Echo", same, same)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def check(name, condition, what=""):
    print(("ok   " if condition else "FAIL ") + name, what if not condition else "")
    if not condition:
        sys.exit(1)


def chat_without_half_close(s):
    """Each answer comes before the client has said its next word."""
    ready = threading.Semaphore(0)

    def say():
        for i in range(100):
            yield b"%d" % i
            ready.acquire()

    got = []
    for answer in s.Chat(say()):
        got.append(answer)
        ready.release()
    check("chat answers each message before the half-close", got == [b"%d" % i for i in range(100)])


def run(channel, testd):
    s = Stubs(channel)
    check("unary", s.Echo(b"hello") == b"hello")
    check("unary, empty message", s.Echo(b"") == b"")
    big = bytes(range(256)) * (50 << 12)
    check("unary, 50 MiB", s.Echo(big) == big)
    check("unary, 50 MiB with gzip", s.Echo(big, compression=grpc.Compression.Gzip) == big)
    check("deflate is unimplemented", code_of(lambda: s.Echo(b"x" * 100, compression=grpc.Compression.Deflate))[0] == grpc.StatusCode.UNIMPLEMENTED)
    code, text = code_of(lambda: s.Echo(b"x" * (65 << 20)))
    check("65 MiB is too much", code == grpc.StatusCode.RESOURCE_EXHAUSTED, (code, text))
    check("100 bytes are taken", s.Small(b"x" * 100) == b"x" * 100)
    code, text = code_of(lambda: s.Small(b"x" * 101))
    check("101 bytes are too much", code == grpc.StatusCode.RESOURCE_EXHAUSTED and "101 bytes" in text, (code, text))
    check("a gzip bomb is too much", code_of(lambda: s.Small(b"x" * 20000, compression=grpc.Compression.Gzip))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED)
    code, text = code_of(lambda: s.Fail(b"x"))
    check("status and message", code == grpc.StatusCode.FAILED_PRECONDITION and text == "5% n\u00e4h\n", (code, text))
    code, text = code_of(lambda: getattr(s, "None")(b"x"))
    check("unknown method", code == grpc.StatusCode.UNIMPLEMENTED and "/test.Test/None" in text, (code, text))
    check("timer", s.Sleep(b"50") == b"slept")
    begin = time.monotonic()
    check("deadline", code_of(lambda: s.Sleep(b"5000", timeout=0.3))[0] == grpc.StatusCode.DEADLINE_EXCEEDED)
    check("deadline in time", time.monotonic() - begin < 2)
    check("from another thread", s.Thread(b"") == b"thread")
    check("two messages in a unary call", code_of(lambda: s.EchoTwice(iter([b"a", b"b"])))[0] == grpc.StatusCode.INTERNAL)
    check("no message in a unary call", code_of(lambda: s.EchoTwice(iter([])))[0] == grpc.StatusCode.INTERNAL)
    chat_without_half_close(s)
    words = [b"w" * (i * 37 % 5000) for i in range(2000)]
    check("chat of 2,000 messages", list(s.Chat(iter(words))) == words)
    check("flood of 2,000 x 10,000 bytes", sum(len(m) for m in s.Flood(b"2000")) == 20000000)
    slow = 0
    for i, message in enumerate(s.Flood(b"500")):
        slow += len(message)
        if i % 50 == 0:
            time.sleep(0.02)
    check("flood to a slow reader", slow == 5000000)
    cancelled = s.Flood(b"100000")
    next(cancelled)
    cancelled.cancel()
    check("after a cancel", s.Echo(b"still here") == b"still here")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        futures = [s.Echo.future(b"%d" % i) for i in range(3000)]
        check("3,000 at once", all(f.result() == b"%d" % i for i, f in enumerate(futures)))
    begin = time.monotonic()
    for i in range(2000):
        s.Echo(b"x" * 100)
    print(f"     {2000 / (time.monotonic() - begin):.0f} sequential calls/s")
    # The server stops while a call is open: it is finished within the grace time, and later ones are UNAVAILABLE.
    late = s.Sleep.future(b"300")
    time.sleep(0.1)
    testd.stdin.close()
    check("a call that has begun is finished at stop", late.result() == b"slept")
    testd.wait(5)
    check("after the stop", code_of(lambda: s.Echo(b"x", timeout=2))[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))
    channel.close()


def certificate(folder):
    """A self-signed one for localhost; files of certificate and key."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def curl(*args):
    return subprocess.run(["curl", "-sS", "-m", "10", *args], capture_output=True).stdout


def main():
    tls = sys.argv[2:] == ["tls"]
    if tls and not (shutil.which("openssl") and shutil.which("curl")):
        print("openssl or curl is not installed: skipped")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        cert, key = certificate(folder) if tls else ("", "")
        testd = subprocess.Popen([sys.argv[1], "2", "127.0.0.1:0"] + ([cert, key] if tls else []), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        try:
            port = testd.stdout.readline().strip()
            if tls:
                port = testd.stdout.readline().strip()
                base = ["--cacert", cert, f"https://localhost:{port}/hello"]
                check("curl, HTTP/1.1 by ALPN", curl("--http1.1", "-w", "%{http_version}", *base) == b"hello\n1.1")
                check("curl, HTTP/2 by ALPN", curl("--http2", "-w", "%{http_version}", *base) == b"hello\n2")
                check("curl, without ALPN", curl("--no-alpn", "-w", "%{http_version}", *base) == b"hello\n1.1")
                check("curl, TLS 1.1 is refused", curl("--tls-max", "1.1", *base) == b"")
                check("curl, 20 MB", len(curl("--cacert", cert, f"https://localhost:{port}/stream?n=20000000")) == 20000000)
                zeros = os.path.join(folder, "zeros")
                with open(zeros, "wb") as file:
                    file.truncate(50000000)
                for version in ("--http1.1", "--http2"):
                    answer = curl(version, "--cacert", cert, "-T", zeros, f"https://localhost:{port}/count")
                    check("curl, upload of 50 MB " + version, answer.startswith(b"50000000 "), answer)
                    answer = curl(version, "--cacert", cert, "-X", "POST", "-T", zeros, f"https://localhost:{port}/auth")
                    check("curl, refusal before the body " + version, b"unauthorized" in answer, answer)
                with open(cert, "rb") as file:
                    credentials = grpc.ssl_channel_credentials(file.read())
                channel = grpc.secure_channel(f"localhost:{port}", credentials, options=OPTIONS)
            else:
                channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
            run(channel, testd)
            print(testd.stdout.read().strip())
            return testd.returncode
        finally:
            testd.kill()


sys.exit(main())
