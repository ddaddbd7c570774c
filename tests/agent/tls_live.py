#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent to a cairnd under TLS, by the stream and by OTLP: a server that is trusted, one that is not, another name, a certificate of
the agent's own that is wanted, TLS where there is none. What is refused is said in one line, and nothing is sent.

Skipped (77) where openssl is not installed, or with the agent's own words where it is not permitted to run.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import live
from otlp_live import BIN, free_port, stop
from stream_live import Agent, wait_for


def make_certificates(folder):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    with open(os.path.join(folder, "names"), "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for authority in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}", "-keyout", authority + ".key", "-out", authority + ".pem")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", name + ".key", "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", name + ".pem")
    return lambda name: os.path.join(folder, name)


class Daemon:
    """A cairnd whose ports are under TLS."""

    def __init__(self, folder, *flags):
        self.port, self.grpc = free_port(), free_port()
        self.log = open(os.path.join(folder, "log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([os.path.join(BIN, "cairnd"), "--data-dir", os.path.join(folder, "data"), "--http", f"127.0.0.1:{self.port}",
                                         "--grpc", f"127.0.0.1:{self.grpc}", *flags], stdout=subprocess.DEVNULL, stderr=self.log)


def curl(at, port, path, *arguments):
    run = subprocess.run(["curl", "-sS", "-m", "20", "--cacert", at("ca.pem"), *arguments, f"https://localhost:{port}{path}"], capture_output=True, text=True, check=False)
    return run.stdout if run.returncode == 0 else ""


def run_agent(port, pid, *arguments, host="127.0.0.1"):
    """Exit status, its last line, samples taken, of one window."""
    agent = Agent("--collector", f"{host}:{port}", "--once", "1s", "--pid", str(pid), "--samples-per-second", "200", *arguments)
    agent.wait_line(" start ")
    code, events = agent.end()
    return code, agent.text.splitlines()[-1], int(events["samples"]["records"])


def total(at, port, *arguments):
    return sum(int(line.rsplit(" ", 1)[1]) for line in curl(at, port, "/v1/profiles?format=folded", *arguments).splitlines())


def check_trust(folder, at, pid):
    daemon = Daemon(folder, "--tls.cert", at("server.pem"), "--tls.key", at("server.key"))
    port = daemon.port
    try:
        assert wait_for(lambda: curl(at, port, "/readyz").strip() == "ready"), "cairnd does not become ready"
        ok, sent = True, 0
        for protocol in ("cairn", "otlp"):
            say = ["--protocol", protocol]
            for host in ("127.0.0.1", "localhost"):
                code, line, records = run_agent(daemon.grpc, pid, *say, "--tls-ca", at("ca.pem"), host=host)
                sent += records
                ok &= live.check(code == 0 and records > 0 and total(at, port) == sent, f"{protocol}: trusted as {host}: {records} samples arrive, exit {code}")
            refusals = [("an authority that we do not trust", ["--tls-ca", at("other.pem")], r"tls: the certificate is refused: .+"),
                        ("none that the system trusts", ["--tls"], r"tls: the certificate is refused: .+"),
                        ("another name", ["--tls-ca", at("ca.pem"), "--tls-name", "elsewhere.example"], r"tls: the certificate is refused: hostname mismatch"),
                        ("no TLS", [], r".+")]
            for what, arguments, words in refusals:
                code, line, records = run_agent(daemon.grpc, pid, *say, *arguments)
                ok &= live.check(code == 1 and re.fullmatch(rf"cairn-agent: {records} samples are lost: 127\.0\.0\.1:{daemon.grpc}: {words}", line), f"{protocol}: {what}: {line}")
        return ok & live.check(total(at, port) == sent, "nothing of those arrived")
    finally:
        stop(daemon.process, signal.SIGTERM)


def check_client(folder, at, pid):
    """The server wants a certificate of ours."""
    daemon = Daemon(folder, "--tls.cert", at("server.pem"), "--tls.key", at("server.key"), "--tls.client_ca", at("ca.pem"))
    port, mine = daemon.port, ("--cert", at("client.pem"), "--key", at("client.key"))
    try:
        assert wait_for(lambda: curl(at, port, "/readyz", *mine).strip() == "ready"), "cairnd does not become ready"
        code, line, records = run_agent(daemon.grpc, pid, "--tls-ca", at("ca.pem"), "--tls-cert", at("client.pem"), "--tls-key", at("client.key"))
        ok = live.check(code == 0 and records > 0 and total(at, port, *mine) == records, f"with a certificate of ours: {records} samples arrive, exit {code}")
        code, line, _ = run_agent(daemon.grpc, pid, "--tls-ca", at("ca.pem"))
        return ok & live.check(code == 1 and "samples are lost: 127.0.0.1" in line, f"without: {line}")
    finally:
        stop(daemon.process, signal.SIGTERM)


def main():
    if not shutil.which("openssl") or not shutil.which("curl"):
        print("skipped: openssl or curl is not installed")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        at = make_certificates(folder)
        executable = live.build(folder, "stacks", "gcc", "-O2", "-Wl,--build-id")
        program = subprocess.Popen([executable, "leaf", "spin"])
        try:
            for name in ("one", "two"):
                os.mkdir(at(name))
            ok = check_trust(at("one"), at, program.pid)
            ok &= check_client(at("two"), at, program.pid)
        finally:
            stop(program)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
