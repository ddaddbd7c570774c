# SPDX-License-Identifier: Apache-2.0
"""Starts a real cairnd on free ports in a fresh data directory, and speaks HTTP to it. Standard library only."""
import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

BINARY_DIR = os.environ.get("CAIRN_BINARY_DIR", "build/dev")
SOURCE_DIR = os.environ.get("CAIRN_SOURCE_DIR", ".")
CAIRND = os.path.join(BINARY_DIR, "bin", "cairnd")
CAIRN = os.path.join(BINARY_DIR, "bin", "cairn")
CHUNK = 4 << 20


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["error"]["code"]

    @property
    def message(self):
        return self.json["error"]["message"]


class Cairnd:
    """One data directory; start() and stop() or kill() as often as wanted."""

    def __init__(self, *flags, data_dir=None):
        self.own_dir = data_dir is None
        self.data_dir = data_dir or tempfile.mkdtemp(prefix="cairn-test-")
        self.flags = list(flags)
        if not any(flag.startswith("--sources") for flag in flags):
            self.flags += ["--sources", "none"]  # a test asks nobody outside
        else:
            for name in ("apt", "installed"):
                if "--sources." + name not in flags:
                    self.flags += ["--sources." + name, ""]  # not the machine's own
        self.process = None
        self.stderr_path = os.path.join(self.data_dir, "stderr.log")

    def start(self):
        stderr = open(self.stderr_path, "ab")
        # An address space of 1 TiB is not to be had under sanitizers' tools; 16 GiB is enough for every test.
        self.process = subprocess.Popen(
            [CAIRND, "--data-dir", os.path.join(self.data_dir, "data"), "--http", "127.0.0.1:0", "--grpc",
             "127.0.0.1:0", "--store.map_max", "16G"] + self.flags,
            stdout=subprocess.PIPE, stderr=stderr)
        stderr.close()
        line = self.process.stdout.readline().decode()
        match = re.fullmatch(r"cairnd ready http=127\.0\.0\.1:(\d+) grpc=127\.0\.0\.1:(\d+)\n", line)
        if not match:
            raise RuntimeError("cairnd did not start: %r\n%s" % (line, self.stderr()))
        self.port, self.grpc_port = int(match.group(1)), int(match.group(2))
        return self

    def stderr(self):
        with open(self.stderr_path, errors="replace") as file:
            return file.read()

    def stop(self, timeout=60):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        self.process.stdout.close()
        self.process = None
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            if self.process:
                status = self.stop()
                if status != 0:
                    raise RuntimeError("cairnd ended with %d:\n%s" % (status, self.stderr()))
            log = self.stderr()
            if re.search(r"(ERROR|WARNING): \w+Sanitizer|runtime error:", log):
                raise RuntimeError("cairnd:\n" + log)
        finally:
            if self.own_dir:
                shutil.rmtree(self.data_dir, ignore_errors=True)

    def connection(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, connection=None):
        conn = connection or self.connection()
        conn.request(method, path, body=body, headers=headers or {})
        response = conn.getresponse()
        answer = Answer(response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read())
        if not connection:
            conn.close()
        return answer

    def get(self, path):
        return self.request("GET", path)

    def post_json(self, path, value, connection=None):
        body = value if isinstance(value, (bytes, str)) else json.dumps(value)
        return self.request("POST", path, body, {"Content-Type": "application/json"}, connection)

    def symbolize(self, request):
        answer = self.post_json("/v1/symbolize", request)
        assert answer.status == 200, answer.body
        return answer.json["modules"]

    def raw(self, data, half_close=False, timeout=10):
        """Sends bytes on a connection of its own and returns all that comes back until the server closes or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while True:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    received += piece
                    if b"\r\n\r\n" in received:
                        head, rest = received.split(b"\r\n\r\n", 1)
                        length = re.search(rb"(?i)content-length: (\d+)", head)
                        if length and len(rest) >= int(length.group(1)):
                            break
            except socket.timeout:
                pass
            return received

    # ---- uploads

    def begin(self, content, role="executable", **members):
        request = {"role": role, "name": "sample", "size": len(content),
                   "sha256": hashlib.sha256(content).hexdigest()}
        request.update(members)
        return self.post_json("/v1/uploads", request)

    def chunk(self, upload_id, offset, content):
        return self.request("PUT", "/v1/uploads/%s?offset=%d" % (upload_id, offset), content,
                            {"Content-Type": "application/octet-stream"})

    def finish(self, upload_id):
        return self.request("POST", "/v1/uploads/%s/finish" % upload_id)

    def upload(self, content, role="executable", **members):
        """A whole upload; returns the finish answer's JSON, or that of "exists"."""
        answer = self.begin(content, role, **members)
        assert answer.status in (200, 201), answer.body
        begun = answer.json
        if begun["status"] == "exists":
            return begun
        offset = begun["offset"]
        while offset < len(content):
            answer = self.chunk(begun["upload_id"], offset, content[offset:offset + CHUNK])
            assert answer.status == 200, answer.body
            offset = answer.json["offset"]
        answer = self.finish(begun["upload_id"])
        assert answer.status == 202, answer.body
        return answer.json

    def wait_job(self, job_id, timeout=120):
        """Until the job is done or failed; returns its JSON."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            answer = self.get("/v1/jobs/" + job_id)
            assert answer.status == 200, answer.body
            if answer.json["state"] in ("done", "failed"):
                return answer.json
            time.sleep(0.05)
        raise RuntimeError("job %s did not end: %s" % (job_id, answer.body))


def file_id(content):
    head, tail = content[:4096], content[-4096:]
    return hashlib.sha256(head + tail + struct.pack(">Q", len(content))).digest()[:16].hex()


def base64url(hex_id):
    return base64.urlsafe_b64encode(bytes.fromhex(hex_id)).decode().rstrip("=")


def build_id(path):
    out = subprocess.run(["readelf", "-n", path], check=True, capture_output=True, text=True).stdout
    return re.search(r"Build ID: ([0-9a-f]+)", out).group(1)


def compile_sample(folder, *flags, name="sample"):
    """tests/daemon/sample.cc as an executable with debug info; returns its path."""
    path = os.path.join(folder, name)
    subprocess.run(["g++", "-g", "-O1", "-fPIE", "-pie", "-Wl,--build-id=sha1", *flags, "-o", path,
                    os.path.join(SOURCE_DIR, "tests/daemon/sample.cc")], check=True)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def text_addresses(path, count=None):
    """Addresses within the functions of sample.cc, by nm: every byte of each."""
    out = subprocess.run(["nm", "-S", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    addresses = []
    for line in out.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tTwW" and ("sample" in fields[3] or fields[3] == "main"):
            start, size = int(fields[0], 16), int(fields[1], 16)
            addresses += range(start, start + size)
    addresses.sort()
    if count and len(addresses) > count:
        addresses = addresses[::len(addresses) // count]
    return addresses


def oracle(path, addresses):
    """llvm-symbolizer's chains: for each address a list of (function, file, line, column), innermost first."""
    out = subprocess.run(["llvm-symbolizer-19", "--output-style=JSON", "--obj=" + path],
                         input="\n".join(hex(a) for a in addresses), check=True, capture_output=True, text=True).stdout
    return [[(s["FunctionName"], s["FileName"], s["Line"], s["Column"]) for s in json.loads(line)["Symbol"]]
            for line in out.splitlines()]


def chain(result):
    """A result of /v1/symbolize in the oracle's form."""
    return [(f["function"], f.get("file", ""), f.get("line", 0), f.get("column", 0)) for f in result.get("frames", [])]


def mark(word):
    """The line of sample.cc that carries `// MARK word`."""
    with open(os.path.join(SOURCE_DIR, "tests/daemon/sample.cc")) as file:
        for number, line in enumerate(file, 1):
            if line.rstrip().endswith("// MARK " + word):
                return number
    raise RuntimeError("no mark " + word)


if not os.path.exists(CAIRND):
    print("no " + CAIRND, file=sys.stderr)
    sys.exit(1)
