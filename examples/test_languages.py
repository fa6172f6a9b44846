"""Runs game servers in three languages as fleets of one real `spawnpoint up`, and plays each through the gateway in the same way.

    python3 -m unittest examples/test_languages.py

Standard library only. Needs a built `spawnpoint` and `spice`, and Go; without one of them the tests are skipped unless CI is set.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from urllib.parse import urlsplit

from examples.test_examples import HERE, TEXT, Client
from examples.test_notebook import Child, Visit, binary, free_port

LANGUAGES = ("python", "go", "rust")


class Languages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        program = binary()
        missing = [name for name, there in (("spawnpoint", program), ("go", shutil.which("go"))) if not there]
        if missing:
            if os.environ.get("CI"):
                raise AssertionError(f"no {' and '.join(missing)} here; nothing may be left out in CI")
            raise unittest.SkipTest(f"no {' and '.join(missing)} here")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        built = str(pathlib.Path(directory.name, "go-echo"))
        subprocess.run(["go", "build", "-o", built, "."], cwd=HERE / "go-echo", check=True, env={**os.environ, "CGO_ENABLED": "0"})
        commands = {"python": [sys.executable, str(HERE / "python-echo" / "server.py")], "go": [built], "rust": ["spice"]}
        fleets = (f'[[fleet]]\nname = "{name}"\nrun.command = {json.dumps(commands[name])}\n' for name in LANGUAGES)
        pathlib.Path(directory.name, "spawnpoint.toml").write_text("\n".join(fleets))
        ports = []
        while len(ports) < 3:
            ports.append(free_port(ports))
        flags = ["--config", "spawnpoint.toml", "--state-dir", "state", "--port", ports[0], "--admin-port", ports[1], "--sdk-port", ports[2]]
        cls.up = Child([str(program), "up", *map(str, flags)], {"HOME": directory.name}, rf"http://localhost:{ports[0]}\b", directory.name)
        cls.addClassCleanup(cls.finish)
        cls.port = ports[0]
        cls.api = Visit(("127.0.0.1", ports[0]), f"127.0.0.1:{ports[0]}")

    @classmethod
    def finish(cls):
        assert cls.up.stop() == 0, cls.up.log

    def start(self, fleet, player):
        body = json.dumps({"player_id": player, "fleet": fleet}).encode()
        return self.api.json("POST", "/api/new-game?wait=20", body)

    def connect(self, game):
        address = urlsplit(game["wsUrl"])
        client = Client(address.port, path=f"{address.path}?{address.query}", host=address.netloc)
        self.addCleanup(client.close)
        self.assertIn(b" 101 ", client.head.split(b"\r\n")[0])
        return client

    def test_one_life_in_each_language(self):
        for fleet in LANGUAGES:
            with self.subTest(fleet):
                game = self.start(fleet, "ann")
                self.assertEqual((game["fleet"], game["ready"], game["protocol"]), (fleet, True, "websocket"))
                client = self.connect(game)
                client.send('{"t":"hello"}')
                opcode, answer = client.receive()
                self.assertEqual(opcode, TEXT)
                if fleet != "rust":  # the others are echoes
                    self.assertEqual(answer.decode(), '{"t":"hello"}')
                path = f"/api/match/{game['session_id']}/end"
                ended = self.api.json("POST", path, json.dumps({"token": game["token"]}).encode())
                self.assertEqual((ended["ended"], ended["reason"]), (True, "ended_by_client"))

    def test_two_players_have_two_servers_and_each_answers(self):
        games = [self.start(fleet, player) for fleet in ("python", "go") for player in ("ben", "eve")]
        views = [self.api.json("GET", f"/api/sessions/{game['session_id']}") for game in games]
        self.assertEqual(len({view["instance"]["id"] for view in views}), 4)
        clients = [self.connect(game) for game in games]
        for number, client in enumerate(clients):
            client.send(f"hello {number}")
        for number, client in enumerate(clients):
            self.assertEqual(client.receive(), (TEXT, f"hello {number}".encode()))


if __name__ == "__main__":
    unittest.main()
