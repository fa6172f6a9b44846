"""Runs each example as a real process and speaks WebSocket to it over a real socket.

    python3 -m unittest examples/test_examples.py

Standard library only. The Go example is built with `go build`; without Go its tests are skipped
unless CI is set, where leaving anything out is a failure.
"""

import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
GRACE = 10  # seconds the platform gives after SIGTERM, by default
PATIENCE = 30  # seconds; only keeps a failure from hanging
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = base64.b64encode(b"0123456789abcdef").decode()


class Process:
    def __init__(self, command, env):
        clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # stderr joins stdout: Go logs to one, Python prints to the other.
        self.child = subprocess.Popen(command, env={**clean, "PORT": "0", **env}, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.child.stdout.readline()
        found = re.search(r"listening on .*:(\d+)$", line.strip())
        if not found:
            self.child.kill()
            raise AssertionError(f"no port in {line!r}: {self.child.stdout.read()}")
        self.port = int(found[1])

    def terminate(self):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(PATIENCE)

    def close(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


class Client:
    """A WebSocket client that can also misbehave."""

    def __init__(self, port, headers=(), first=b"", path="/", host="x"):
        self.tcp = socket.create_connection(("127.0.0.1", port), PATIENCE)
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", *headers, "", ""]
        self.tcp.sendall("\r\n".join(lines).encode() + first)
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.exactly(1)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            chunk = self.tcp.recv(count - len(data))
            if not chunk:
                raise EOFError("closed")
            data += chunk
        return data

    def send(self, payload, opcode=TEXT, final=True, masked=True):
        self.tcp.sendall(frame(payload, opcode, final, masked))

    def receive(self):
        first, second = self.exactly(2)
        assert first & 0x70 == 0 and second & 0x80 == 0, "servers never mask"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.exactly(2))
            assert length > 125, "not the shortest form"
        elif length == 127:
            (length,) = struct.unpack(">Q", self.exactly(8))
            assert length > 0xFFFF, "not the shortest form"
        return first & 0x0F, self.exactly(length)

    def close_code(self):
        opcode, payload = self.receive()
        assert opcode == CLOSE, (opcode, payload)
        return struct.unpack(">H", payload[:2])[0]

    def is_shut(self):
        try:
            return self.tcp.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.tcp.close()


def frame(payload, opcode=TEXT, final=True, masked=True):
    payload = payload.encode() if isinstance(payload, str) else payload
    head = bytes([(0x80 if final else 0) | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) <= 0xFFFF:
        head += struct.pack(">BH", bit | 126, len(payload))
    else:
        head += struct.pack(">BQ", bit | 127, len(payload))
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class EchoContract:
    """What both examples do; mixed into one test case per language."""

    command = None

    def start(self, **env):
        process = Process(self.command, env)
        self.addCleanup(process.close)
        return process

    def client(self, process, *headers, first=b""):
        client = Client(process.port, headers, first)
        self.addCleanup(client.close)
        return client

    def test_handshake(self):
        client = self.client(self.start())
        expected = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        self.assertTrue(client.head.startswith(b"HTTP/1.1 101 "), client.head)
        self.assertIn(b"Sec-WebSocket-Accept: " + expected + b"\r\n", client.head)

    def test_plain_get_and_bad_handshakes(self):
        process = self.start()
        for request, status in (
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b" 200 "),
            ("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b" 400 "),
            (f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 8\r\n\r\n", b" 426 "),
        ):
            with socket.create_connection(("127.0.0.1", process.port), PATIENCE) as tcp:
                tcp.sendall(request.encode())
                self.assertIn(status, tcp.recv(4096).split(b"\r\n")[0])

    def test_echo_of_every_length_form(self):
        client = self.client(self.start())
        for size in (0, 1, 125, 126, 1000, 65535, 65536):
            for opcode in (TEXT, BINARY):
                client.send(b"x" * size, opcode)
                self.assertEqual(client.receive(), (opcode, b"x" * size))

    def test_first_frame_in_the_segment_of_the_handshake(self):
        client = self.client(self.start(), first=frame("early"))
        self.assertEqual(client.receive(), (TEXT, b"early"))

    def test_fragments_with_a_ping_between(self):
        client = self.client(self.start())
        client.send("He", TEXT, final=False)
        client.send("you there?", PING)
        client.send("llo ", 0, final=False)
        client.send("\N{CRAB}", 0)
        self.assertEqual(client.receive(), (PONG, b"you there?"))
        self.assertEqual(client.receive(), (TEXT, "Hello \N{CRAB}".encode()))

    def test_close_is_returned_with_its_code(self):
        process = self.start()
        for payload, code in ((struct.pack(">H", 1000) + b"bye", 1000), (b"", 1000), (struct.pack(">H", 4001), 4001),
                              (struct.pack(">H", 1005), 1002), (b"\x03", 1002)):
            client = self.client(process)
            client.send(payload, CLOSE)
            self.assertEqual(client.close_code(), code)
            self.assertTrue(client.is_shut())

    def test_wrong_frames_are_refused(self):
        process = self.start()
        cases = {
            "unmasked": (frame("x", masked=False), 1002),
            "reserved bits": (bytes([0xF1]) + frame("x")[1:], 1002),
            "unknown opcode": (frame("x", 3), 1002),
            "nothing to continue": (frame("x", 0), 1002),
            "fragmented ping": (frame("x", PING, final=False), 1002),
            "long ping": (frame("x" * 126, PING), 1002),
            "message in message": (frame("x", final=False) + frame("y"), 1002),
            "not UTF-8": (frame(b"\xff\xfe"), 1007),
            "too long": (frame("x" * 65537), 1009),
            "claims 2^63 bytes": (b"\x81\xff" + b"\x80" + b"\0" * 7 + b"\0\0\0\0", 1009),
            "too long in parts": (frame("x" * 60000, final=False) + frame("x" * 60000, 0), 1009),
        }
        for name, (data, code) in cases.items():
            with self.subTest(name):
                client = self.client(process)
                client.tcp.sendall(data)
                self.assertEqual(client.close_code(), code)
        self.assertEqual(self.echo(self.client(process), "still here"), (TEXT, b"still here"))

    def echo(self, client, text):
        client.send(text)
        return client.receive()

    def test_whoami_from_the_environment_and_the_headers(self):
        process = self.start(SESSION_ID="s-1", SPAWNPOINT_FLEET="echo", SPAWNPOINT_INSTANCE="i-7")
        client = self.client(process, "X-Player-Id: %F0%9F%A6%80%20bob%2Fx", "X-Session-Id: s-1")
        opcode, text = self.echo(client, "whoami")
        self.assertEqual(opcode, TEXT)
        self.assertEqual(json.loads(text), {"session_id": "s-1", "player_id": "\N{CRAB} bob/x", "fleet": "echo",
                                            "instance": "i-7", "pid": process.child.pid})

    def test_whoami_of_a_warm_instance_comes_from_the_session_file(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "session.json")
            process = self.start(SPAWNPOINT_SESSION_FILE=str(path))
            client = self.client(process, "X-Session-Id: told")
            self.assertEqual(json.loads(self.echo(client, "whoami")[1])["session_id"], "told")
            path.write_text(json.dumps({"version": 1, "session_id": "claimed"}))
            self.assertEqual(json.loads(self.echo(client, "whoami")[1])["session_id"], "claimed")

    def test_sigterm_closes_writes_results_and_exits_zero(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "results.json")
            process = self.start(SPAWNPOINT_RESULTS_FILE=str(path))
            idle = socket.create_connection(("127.0.0.1", process.port), PATIENCE)
            self.addCleanup(idle.close)
            client = self.client(process)
            self.echo(client, "one")
            self.assertEqual(process.terminate(), 0)
            self.assertEqual(client.close_code(), 1001)
            self.assertEqual(json.loads(path.read_text()), {"connections": 1, "messages": 1})

    def test_sigterm_does_not_wait_for_a_player_who_reads_nothing(self):
        process = self.start()
        deaf = self.client(process)
        deaf.tcp.settimeout(1)
        with self.assertRaises(TimeoutError):  # until the server's buffers are full too
            while True:
                deaf.send("x" * 65536)
        process.child.send_signal(signal.SIGTERM)
        self.assertEqual(process.child.wait(GRACE), 0)


class PythonEcho(EchoContract, unittest.TestCase):
    command = [sys.executable, str(HERE / "python-echo" / "server.py")]


class GoEcho(EchoContract, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("go"):
            if os.environ.get("CI"):
                raise AssertionError("go is missing; nothing may be left out in CI")
            raise unittest.SkipTest("go is not installed")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        binary = pathlib.Path(directory.name, "go-echo")
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "go-echo", check=True)
        cls.command = [str(binary)]


if __name__ == "__main__":
    unittest.main()
