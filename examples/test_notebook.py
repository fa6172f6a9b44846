"""Runs the notebook alone and behind a real `spawnpoint up`, below a path and on a host name of its own.

    python3 -m unittest examples/test_notebook.py

Standard library only. Needs a built `spawnpoint` (SPAWNPOINT_BIN, or the newest under the target directory); without one the tests
behind it are skipped unless CI is set.
"""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from urllib.parse import urlsplit

HERE = pathlib.Path(__file__).resolve().parent
SERVER = HERE / "notebook" / "server.py"
PATIENCE = 30  # seconds; only keeps a failure from hanging
PORTS = range(10_000, 19_000)  # below those that systems give to outgoing connections
KEY = base64.b64encode(b"0123456789abcdef").decode()
BIG = 20 * 1024 * 1024


def binary():
    if os.environ.get("SPAWNPOINT_BIN"):
        return pathlib.Path(os.environ["SPAWNPOINT_BIN"])
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    built = [p for p in (target / profile / "spawnpoint" for profile in ("debug", "release")) if p.is_file()]
    return max(built, key=lambda p: p.stat().st_mtime, default=None)


def free_port(taken):
    start = os.getpid() * 7 % len(PORTS)
    for i in range(len(PORTS)):
        port = PORTS[(start + i) % len(PORTS)]
        if port not in taken:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass
    raise AssertionError("no free port")


class Child:
    """A process whose output is read until a line says that it is there."""

    def __init__(self, command, env, said, cwd=None):
        clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.child = subprocess.Popen(command, env={**clean, **env}, cwd=cwd, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log = ""
        for line in self.child.stdout:
            self.log += line
            found = re.search(said, line)
            if found:
                self.found = found
                return
        self.child.wait()
        raise AssertionError(f"{command} never said {said!r}:\n{self.log}")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.log += self.child.stdout.read()
        code = self.child.wait(PATIENCE)
        self.child.stdout.close()
        return code


class Visit:
    """Requests of one player at one door: where to connect, which Host to name, what goes before each path."""

    def __init__(self, address, host, prefix="", headers=()):
        self.address, self.host, self.prefix, self.headers = address, host, prefix, dict(headers)

    def connect(self):
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def open(self, method, path, body=None, headers=()):
        connection = self.connect()
        connection.putrequest(method, self.prefix + path, skip_host=True, skip_accept_encoding=True)
        wanted = {"Host": self.host, **self.headers, **dict(headers)}
        if isinstance(body, bytes):
            wanted["Content-Length"] = str(len(body))
        for name, value in wanted.items():
            connection.putheader(name, value)
        connection.endheaders(body, encode_chunked=wanted.get("Transfer-Encoding") == "chunked")
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=()):
        connection, response = self.open(method, path, body, headers)
        try:
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=()):
        status, _, text = self.ask(method, path, body, headers)
        assert status in (200, 201), (status, text)
        return json.loads(text)

    def kernel(self, headers=()):
        tcp = socket.create_connection(self.address, PATIENCE)
        lines = [f"GET {self.prefix}/kernel HTTP/1.1", f"Host: {self.host}", "Connection: Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}",
                 *(f"{name}: {value}" for name, value in {**self.headers, **dict(headers)}.items()), "", ""]
        tcp.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = tcp.recv(1)
            assert byte, head
            head += byte
        return tcp, int(head.split(b" ")[1])


def cell(tcp, text):
    mask = b"\x37\xfa\x21\x3d"
    data = text.encode()
    tcp.sendall(bytes([0x81, 0x80 | len(data)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
    _, length = tcp.recv(2, socket.MSG_WAITALL)
    if length == 126:
        (length,) = struct.unpack(">H", tcp.recv(2, socket.MSG_WAITALL))
    return tcp.recv(length, socket.MSG_WAITALL).decode()


class Doors:
    """What a player can do, whichever way they come."""

    prefix = ""

    def test_the_page_its_links_and_its_own_cookie(self):
        visit = self.visit
        status, headers, text = visit.ask("GET", "/", headers={"Accept": "text/html"})
        page = text.decode()
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(f'href="{self.prefix}/files"', page)
        self.assertEqual(headers["Set-Cookie"], f"visits=1; Path={self.prefix or '/'}; SameSite=Lax")
        own = visit.headers.get("Cookie", "")
        _, headers, _ = visit.ask("GET", "/", headers={"Cookie": f"visits=1; {own}".strip("; ")})
        self.assertTrue(headers["Set-Cookie"].startswith("visits=2; "), "it came back untouched")
        status, headers, _ = visit.ask("GET", "/old-files")
        self.assertEqual((status, headers["Location"]), (303, f"{self.prefix}/files"))
        self.assertEqual(visit.ask("HEAD", "/files")[0], 200)
        self.assertEqual(visit.ask("GET", "/nothing")[0], 404)

    def test_an_upload_of_a_known_length_and_one_in_pieces(self):
        data = os.urandom(1024) * (BIG // 1024)
        expected = {"bytes": BIG, "sha256": hashlib.sha256(data).hexdigest()}
        answer = self.visit.json("PUT", "/files/whole%20thing.bin", data)
        self.assertEqual(answer, {"name": "whole thing.bin", **expected})
        pieces = (data[i:i + 100_000] for i in range(0, BIG, 100_000))
        answer = self.visit.json("PUT", "/files/pieces.bin", pieces, {"Transfer-Encoding": "chunked"})
        self.assertEqual(answer, {"name": "pieces.bin", **expected})
        _, _, listed = self.visit.ask("GET", "/files")
        self.assertIn(f"whole thing.bin: {BIG} bytes".encode(), listed)
        status, headers, _ = self.visit.ask("POST", "/forget", b"")
        self.assertEqual((status, headers["Location"]), (303, f"{self.prefix}/files"))
        self.assertNotIn(b"pieces.bin", self.visit.ask("GET", "/files")[2])

    def test_the_clock_streams(self):
        connection, response = self.visit.open("GET", "/events")
        self.addCleanup(connection.close)
        self.assertEqual(response.headers["Content-Type"], "text/event-stream")
        for tick in (1, 2, 3):
            self.assertEqual((response.readline(), response.readline()), (f"data: {tick}\n".encode(), b"\n"))

    def test_cells_are_evaluated(self):
        tcp, status = self.visit.kernel()
        self.addCleanup(tcp.close)
        self.assertEqual(status, 101)
        other, _ = self.visit.kernel()  # a second kernel of the same player leaves the first alone
        self.addCleanup(other.close)
        self.assertEqual(cell(other, "y = 3"), "y = 3")
        for code, answer in (("x = 6 * 7", "x = 42"), ("x + y", "45"), ("1 / 0", "ZeroDivisionError: division by zero"),
                             ("__import__('os')", "ValueError: sleep(seconds) is the only function"), ("sleep(0.01)", "slept 0.01 s"),
                             ("9" * 40, "ValueError: too large"), ("x" * 100, f"ValueError: {'x' * 100} is not defined")):
            self.assertEqual(cell(tcp, code), answer)


class Alone(Doors, unittest.TestCase):
    def setUp(self):
        process = Child([sys.executable, str(SERVER)], {"PORT": "0"}, r"listening on .*:(\d+)$")
        self.addCleanup(process.stop)
        self.visit = Visit(("127.0.0.1", int(process.found[1])), "x")

    def test_sigterm_writes_results_and_exits_zero(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "results.json")
            process = Child([sys.executable, str(SERVER)], {"PORT": "0", "SPAWNPOINT_RESULTS_FILE": str(path)}, r"listening on .*:(\d+)$")
            visit = Visit(("127.0.0.1", int(process.found[1])), "x")
            stream, _ = visit.open("GET", "/events")
            self.addCleanup(stream.close)
            tcp, _ = visit.kernel()
            self.addCleanup(tcp.close)
            cell(tcp, "1")
            self.assertEqual(process.stop(), 0)
            self.assertEqual(json.loads(path.read_text()), {"cells": 1, "files": 0})


class Behind:
    """One `spawnpoint up` for all tests of a door."""

    @classmethod
    def setUpClass(cls):
        program = binary()
        if program is None:
            if os.environ.get("CI"):
                raise AssertionError("spawnpoint is not built; nothing may be left out in CI")
            raise unittest.SkipTest("spawnpoint is not built")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        ports = []
        while len(ports) < 3:
            ports.append(free_port(ports))
        command = json.dumps([sys.executable, str(SERVER)])
        pathlib.Path(directory.name, "spawnpoint.toml").write_text(
            f'[[fleet]]\nname = "notebook"\nrun.command = {command}\nprotocol = "http"\nready = {{ http = "/healthz" }}\nwarm = 1\n')
        flags = ["--config", "spawnpoint.toml", "--state-dir", "state", "--port", ports[0], "--admin-port", ports[1], "--sdk-port", ports[2]]
        cls.up = Child([str(program), "up", *map(str, flags)], {"HOME": directory.name, "SPAWNPOINT_LOG": "debug"},
                       rf"http://localhost:{ports[0]}\b", directory.name)
        cls.addClassCleanup(cls.finish)
        cls.address = ("127.0.0.1", ports[0])
        cls.api = Visit(cls.address, f"localhost:{ports[0]}")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if cls.api.ask("GET", "/readyz")[0] == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, cls.up.log
            time.sleep(0.05)

    @classmethod
    def finish(cls):
        code = cls.up.stop()
        assert code == 0, cls.up.log
        assert not re.search(r"v4\.public\.|token=[^&\s]{8}", cls.up.log), f"a token is in the log:\n{cls.up.log}"

    def new(self, api=None):
        body = json.dumps({"player_id": self.id()}).encode()
        return (api or self.api).json("POST", "/api/new-game?wait=20", body)


class BelowAPath(Behind, Doors, unittest.TestCase):
    def setUp(self):
        api = Visit(self.address, f"127.0.0.1:{self.address[1]}")
        self.connection = self.new(api)
        self.prefix = f"/session/{self.connection['session_id']}"
        url = urlsplit(self.connection["url"])
        self.assertEqual((url.netloc, url.path), (api.host, f"{self.prefix}/"))
        self.visit = Visit(self.address, api.host, self.prefix, {"Authorization": f"Bearer {self.connection['token']}"})

    def test_every_request_brings_the_token_and_the_game_never_sees_it(self):
        token = self.connection["token"]
        bare = Visit(self.address, self.visit.host, self.prefix)
        self.assertEqual(bare.ask("GET", "/")[0], 401)
        seen = bare.json("GET", f"/whoami?a=1&token={token}&b=2", headers={"Authorization": "Bearer its-own", "X-Player-Id": "root",
                                                                         "Referer": f"http://x/?token={token}"})
        self.assertNotIn(token, json.dumps(seen))
        self.assertEqual((seen["player_id"], seen["session_id"]), (self.id(), self.connection["session_id"]))
        self.assertEqual(seen["query"], {"a": ["1"], "b": ["2"]})
        headers = seen["headers"]
        self.assertEqual((headers["Authorization"], headers["X-Forwarded-Prefix"]), ("Bearer its-own", self.prefix))
        status, headers, _ = bare.ask("GET", f"/?token={token}")
        self.assertEqual(status, 200)
        self.assertFalse([c for c in headers.get_all("Set-Cookie") if token in c], "no cookie of ours below a path")


class OnItsOwnHost(Behind, Doors, unittest.TestCase):
    def setUp(self):
        self.connection = self.new()
        url = urlsplit(self.connection["url"])
        self.assertEqual((url.netloc, url.path), (f"{self.connection['session_id']}.{self.api.host}", "/"))
        self.stranger = Visit(self.address, url.netloc)
        status, headers, _ = self.stranger.ask("GET", f"/?{url.query}")
        self.assertEqual((status, headers["Location"]), (303, "/"))
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        self.assertTrue({"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes), attributes)
        self.assertFalse([a for a in attributes if a.lower().startswith("domain")])
        self.visit = Visit(self.address, url.netloc, headers={"Cookie": cookie})

    def test_the_cookie_is_ours_alone(self):
        seen = self.visit.json("GET", "/whoami", headers={"Cookie": f"mine=1; {self.visit.headers['Cookie']}"})
        self.assertEqual(seen["headers"]["Cookie"], "mine=1")
        self.assertEqual(seen["player_id"], self.id())
        self.assertIsNone(seen["headers"]["X-Forwarded-Prefix"])
        status, _, page = self.stranger.ask("GET", "/", headers={"Accept": "text/html"})
        self.assertEqual(status, 401)
        self.assertIn(b"token is needed", page)

    def test_nothing_else_lives_there_and_no_other_page_gets_in(self):
        for path in ("/play", "/api/fleets"):
            status, _, text = self.visit.ask("GET", path)
            self.assertEqual((status, text), (404, b"there is nothing here\n"), "the notebook's own answer")
        self.assertEqual(self.visit.ask("GET", "/healthz")[2], b"ok\n")
        sibling = f"http://01890a5d-ac96-774b-bcce-b302099a8057.{self.api.host}"
        for origin in (sibling, f"http://{self.api.host}", "null"):
            self.assertEqual(self.visit.ask("PUT", "/files/x", b"1", {"Origin": origin})[0], 403)
            tcp, status = self.visit.kernel({"Origin": origin})
            tcp.close()
            self.assertEqual(status, 403)
        self.assertEqual(self.visit.ask("PUT", "/files/x", b"1", {"Origin": f"http://{self.visit.host}"})[0], 201)
        # And its own page is a stranger to the API.
        status, _, _ = self.api.ask("POST", "/api/new-game", b'{"player_id":"x"}', {"Origin": f"http://{self.visit.host}"})
        self.assertEqual(status, 403)

    def test_all_requests_reach_one_instance_and_another_session_another(self):
        pids = {self.visit.json("GET", "/whoami")["pid"] for _ in range(5)}
        self.assertEqual(len(pids), 1)
        body = json.dumps({"player_id": f"{self.id()} 2"}).encode()
        other = self.api.json("POST", "/api/new-game?wait=20", body)
        visit = Visit(self.address, urlsplit(other["url"]).netloc, headers={"Authorization": f"Bearer {other['token']}"})
        self.assertNotIn(visit.json("GET", "/whoami")["pid"], pids)
        stolen = Visit(self.address, visit.host, headers=self.visit.headers)
        self.assertEqual(stolen.ask("GET", "/whoami")[0], 403, "a cookie of another session")


if __name__ == "__main__":
    unittest.main()
