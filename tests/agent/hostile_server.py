#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn-agent and servers that mean no good, all at once, each with an agent of its own: bytes that are no HTTP/2, headers, interim answers and
messages without end, messages that are too large, wishes for everything at once, absurd acknowledgements, a server that never reads,
one that reads a byte at a time, one that refuses everything, one that hangs up at once. Each agent goes on sampling (beside one that
writes to a file), stays within its memory, counts what it lost, comes back again and again with pauses, and ends when it is told to.

Skipped (77) with the agent's own words where it is not permitted to run.
"""

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import live
from otlp_live import BIN, stop
from stream_live import Agent, wait_for

MEMORY_MORE_MAX = 64 << 20  # peak resident beyond that of the agent without a server
# AddressSanitizer keeps what was freed.
IS_SANITIZED = "libasan" in subprocess.run(["ldd", os.path.join(BIN, "cairn-agent")], capture_output=True, text=True, check=False).stdout
PAUSE = 0.05            # between pieces of a flood: machines have other things to do
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS_200 = b"\x88"  # of HPACK's static table
CLOSED = (OSError, EOFError)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header that is not indexed, both parts shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def packed(number, values):
    return field(number, b"".join(varint(value) for value in values))


def grpc_message(payload):
    return b"\0" + struct.pack(">I", len(payload)) + payload


class Connection:
    """The server's end of one connection; what the agent sends is read (or not) by read_on."""

    def __init__(self, sock):
        self.sock, self.stream, self.received, self.lock = sock, None, 0, threading.Lock()
        # What the agent's flow control lets us send, for those that keep to it.
        self.windows, self.first_window, self.granted = {0: 65535}, 65535, threading.Condition()

    def send(self, data):
        with self.lock:
            self.sock.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def begin(self, settings=b""):
        """Preface and settings, and the call's head."""
        self.take(24)
        self.send(frame(SETTINGS, 0, 0, settings))
        while self.stream is None:
            self.read_frame()

    def read_frame(self):
        head = self.take(9)
        payload = self.take(int.from_bytes(head[:3], "big"))
        stream = int.from_bytes(head[5:], "big")
        with self.granted:
            if head[3] == HEADERS:
                self.stream = stream
                self.windows[stream] = self.first_window
            if head[3] == WINDOW_UPDATE:
                self.windows[stream] = self.windows.get(stream, 0) + int.from_bytes(payload, "big")
                self.granted.notify_all()
            for at in range(0, len(payload) if head[3] == SETTINGS else 0, 6):
                name, value = struct.unpack(">HI", payload[at:at + 6])
                self.first_window = value if name == 4 else self.first_window
        if head[3] == SETTINGS and not head[4] & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        if head[3] == DATA and payload:
            self.received += len(payload)
            more = struct.pack(">I", len(payload))
            self.send(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, self.stream, more))
        return head[3], payload

    def read_on(self):
        """Reads without end, in the background."""
        def loop():
            try:
                while True:
                    self.read_frame()
            except CLOSED:
                with self.granted:
                    self.windows.clear()
                    self.granted.notify_all()

        threading.Thread(target=loop, daemon=True).start()

    def answer(self):
        self.send(frame(HEADERS, END_HEADERS, self.stream, STATUS_200 + literal(b"content-type", b"application/grpc")))

    def message(self, payload):
        data = grpc_message(payload)
        for at in range(0, len(data), 16384):
            piece = data[at:at + 16384]
            with self.granted:
                self.granted.wait_for(lambda: not self.windows or min(self.windows[0], self.windows[self.stream]) >= len(piece))
                if not self.windows:
                    raise EOFError
                self.windows[0] -= len(piece)
                self.windows[self.stream] -= len(piece)
            self.send(frame(DATA, 0, self.stream, piece))

    def status(self, code, words=b""):
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, self.stream, STATUS_200 + literal(b"content-type", b"application/grpc")
                        + literal(b"grpc-status", str(code).encode()) + literal(b"grpc-message", words)))


def garbage(connection):
    connection.take(24)
    while True:
        connection.send(random.randbytes(65536))
        time.sleep(PAUSE)


def headers_without_end(connection):
    connection.begin()
    connection.read_on()
    connection.send(frame(HEADERS, 0, connection.stream, STATUS_200))
    piece = b"".join(literal(b"x-%06d" % i, b"y" * 100) for i in range(100))
    while True:
        connection.send(frame(CONTINUATION, 0, connection.stream, piece) * 8)
        time.sleep(PAUSE)


def interim_answers_without_end(connection):
    connection.begin()
    connection.read_on()
    interim = frame(HEADERS, END_HEADERS, connection.stream, literal(b":status", b"103") + literal(b"link", b"x" * 100))
    while True:
        connection.send(interim * 2000)
        time.sleep(PAUSE)


def pings_without_end(connection):
    connection.begin()
    connection.read_on()
    while True:
        connection.send(frame(PING, 0, 0, b"8 bytes.") * 5000)
        time.sleep(PAUSE)


def messages_without_end(connection):
    connection.begin()
    connection.read_on()
    connection.answer()
    while True:
        connection.message(field(6, field(1, 7)) * 100)  # DebugRequest
        time.sleep(PAUSE / 10)


def too_large(connection):
    connection.begin()
    connection.read_on()
    connection.answer()
    connection.send(frame(DATA, 0, connection.stream, b"\0\xff\xff\xff\xff" + b"z" * 16000))
    time.sleep(600)


def everything_at_once(connection):
    """It needs all numbers there are, time and again, and would like the symbols of files by the thousands."""
    connection.begin()
    connection.read_on()
    connection.answer()
    everything = [packed(number, range(20000)) for number in range(1, 9)]
    files = b"".join(field(1, field(1, random.randbytes(16)) + field(3, b"libc.so.6")) for _ in range(20000))
    while True:
        connection.message(field(1, field(2, 1 << 20) + field(4, 0)))
        connection.message(field(3, b"".join(everything)))
        connection.message(field(3, field(9, 1)))
        connection.message(field(5, files))
        for sequence in range(1, 200):
            connection.message(field(3, field(10, sequence) + packed(4, range(100))))
        time.sleep(PAUSE)


def absurd_acknowledgements(connection):
    connection.begin()
    connection.read_on()
    connection.answer()
    while True:
        connection.message(field(2, packed(1, [random.getrandbits(64) for _ in range(5000)]) + field(2, 1 << 63) + field(3, (1 << 64) - 1)))
        connection.message(field(4, field(1, 0xFFFFFFFF) + field(2, b"\x1b[31m" * 100)))
        connection.message(random.randbytes(1))
        time.sleep(PAUSE)


def never_reads(connection):
    time.sleep(600)


def a_byte_at_a_time(connection):
    connection.begin(struct.pack(">HI", 4, 1))  # SETTINGS_INITIAL_WINDOW_SIZE
    connection.answer()
    while True:
        connection.take(1)
        time.sleep(PAUSE)


def refuses_everything(connection):
    connection.begin()
    connection.status(3, b"no")
    connection.read_on()
    time.sleep(600)


def hangs_up(connection):
    connection.sock.shutdown(socket.SHUT_RDWR)


def otlp_messages_without_end(connection):
    connection.begin()
    connection.read_on()
    connection.answer()
    while True:
        connection.message(field(1, field(1, 1) + field(2, b"\n" * 100)))
        time.sleep(PAUSE)


class Server:
    def __init__(self, behave, protocol="cairn"):
        self.name, self.protocol, self.connections = behave.__name__ + ("" if protocol == "cairn" else " (otlp)"), protocol, 0
        self.behave = behave
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(16)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            sock, _ = self.socket.accept()
            self.connections += 1
            threading.Thread(target=self.talk, args=(sock,), daemon=True).start()

    def talk(self, sock):
        with sock:
            try:
                self.behave(Connection(sock))
            except CLOSED:
                pass


def peak_memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def start(folder, server, pid):
    arguments = ["--record", os.path.join(folder, "control")] if server is None else \
        ["--collector", f"127.0.0.1:{server.port}", "--protocol", server.protocol, "--queue", "64K"]
    if server and server.behave is everything_at_once:
        arguments += ["--upload-symbols", "--upload-url", "http://127.0.0.1:1"]
    agent = Agent(*arguments, "--pid", str(pid), "--samples-per-second", "200", "--report-interval", "100ms")
    agent.wait_line(" start ")
    return agent


def check(server, agent, memory, control_memory, control_records):
    code, events = agent.end()
    said, records = events["collector"], int(events["samples"]["records"])
    lost = sum(int(said[key]) for key in ("lost_queue", "lost_spool", "refused"))
    what = f"{server.name}: exit {code}, {records} samples, {control_records} beside it, {lost} lost, {said['failures']} failures, " \
           f"{server.connections} connections, {memory >> 20} MB"
    # Refusals of single reports were counted long before the end.
    ok = live.check(code in (0, 1) and records >= control_records / 2 and lost > 0 and (memory < control_memory + MEMORY_MORE_MAX or IS_SANITIZED), what)
    if server.behave is everything_at_once:
        # It keeps to the protocol, so the agent stays; what is asked for again and again is given up.
        ok &= live.check(int(said["refused"]) > 0 and int(events["uploads"]["dropped"]) > 0 and int(events["uploads"]["sent"]) == 0,
                         f"{server.name}: {said['refused']} samples given up; wishes for files: {events['uploads']}")
    else:
        ok &= live.check(int(said["failures"]) > 0 and server.connections >= 2, f"{server.name}: it is told and comes again")
    # 250 ms, 500 ms, .. 30 s with jitter: eleven attempts take over a minute.
    return ok & live.check(server.connections <= 25, f"{server.name}: pauses between attempts grow")


def main():
    servers = [Server(behave) for behave in (garbage, headers_without_end, interim_answers_without_end, pings_without_end, messages_without_end, too_large,
                                             everything_at_once, absurd_acknowledgements, never_reads, a_byte_at_a_time, refuses_everything, hangs_up)]
    servers += [Server(behave, "otlp") for behave in (garbage, headers_without_end, never_reads, hangs_up, otlp_messages_without_end)]
    with tempfile.TemporaryDirectory() as folder:
        executable = live.build(folder, "stacks", "gcc", "-O2", "-Wl,--build-id")
        program = subprocess.Popen([executable, "leaf", "spin"])
        agents = []
        try:
            for server in servers:
                agents.append(start(folder, server, program.pid))
            control = start(folder, None, program.pid)
            # Some are given up after a minute without an acknowledgement only.
            def early():
                return [(server.name, server.connections) for server in servers if server.connections < 2 and server.behave is not everything_at_once]

            ok = live.check(wait_for(lambda: not early(), 240), f"all have come again: {early()}")
            control_memory = peak_memory(control.process.pid)
            _, events = control.end(signal.SIGTERM)
            control_records = int(events["samples"]["records"])
            ok &= live.check(control_records > 200, f"an agent without a server took {control_records} samples meanwhile")
            memory = [peak_memory(agent.process.pid) for agent in agents]
            for agent in agents:
                agent.process.send_signal(signal.SIGTERM)
            for server, agent, peak in zip(servers, agents, memory):
                ok &= check(server, agent, peak, control_memory, control_records)
        finally:
            stop(program)
            for agent in agents:
                if agent.process.poll() is None:
                    agent.process.kill()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
