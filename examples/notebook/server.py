"""notebook: an HTTP game server in Python with nothing but the standard library.

A small notebook, one server for each session: cells that are evaluated over a WebSocket, files that are uploaded, a clock that
streams, and a cookie of its own. It has no login: the gateway has checked who comes, and says so in X-Player-Id. It works at the
root of a host and below a path alike, because every absolute link begins with X-Forwarded-Prefix.
"""

import ast
import base64
import binascii
import hashlib
import html
import json
import os
import signal
import struct
import threading
import time
import urllib.request
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

MAX_CONNECTIONS = 100
MAX_UPLOAD = 1 << 30  # bytes; they are counted and hashed, not kept
MAX_FILES = 1000
MAX_CELL = 500  # characters
MAX_NAMES = 100  # variables of one notebook
MAX_NUMBER = 10**30
MAX_SLEEP = 600  # seconds
TICK = 0.5  # seconds between events
QUIET = 60  # seconds; an unused connection is closed, long after the gateway has given it up
CHUNK = 64 * 1024
BUSY = 30  # seconds that one word of "busy" holds
PLAIN = "text/plain; charset=utf-8"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Notebook of {player}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}}
input{{font:inherit;width:24rem}}pre{{background:#f0f0f0;padding:.5rem;min-height:3rem}}</style></head>
<body data-base="{base}">
<h1>Notebook of <span id="player">{player}</span></h1>
<p>Visit <span id="visits">{visits}</span>, tick <span id="tick">-</span>. <a id="files" href="{base}/files">Files</a></p>
<form id="cell"><input id="code" placeholder="x = 6 * 7" autofocus autocomplete="off"> <button>Run</button></form>
<pre id="output"></pre>
<p><input id="file" type="file"> <span id="uploaded"></span></p>
<script>
// On a host of its own a cookie says who comes. Below a path there is none: the page passes the token of its own address on.
const token = new URLSearchParams(location.search).get('token');
const here = (path) => document.body.dataset.base + path + (token ? `?token=${{token}}` : '');
const show = (id, text) => {{ document.getElementById(id).textContent = text; }};
if (token) for (const link of document.links) link.href += `?token=${{token}}`;
new EventSource(here('/events')).onmessage = (event) => show('tick', event.data);
const kernel = new WebSocket(new URL(here('/kernel'), location.href.replace(/^http/, 'ws')));
kernel.onmessage = (event) => {{ document.getElementById('output').textContent += event.data + '\\n'; }};
kernel.onclose = (event) => show('tick', `the kernel has gone (${{event.code}}): reload`);
document.getElementById('cell').onsubmit = (event) => {{
  event.preventDefault();
  const code = document.getElementById('code');
  kernel.send(code.value);
  code.value = '';
}};
document.getElementById('file').onchange = async (event) => {{
  const [file] = event.target.files;
  const answer = await fetch(here(`/files/${{encodeURIComponent(file.name)}}`), {{ method: 'PUT', body: file }});
  show('uploaded', answer.ok ? `${{(await answer.json()).bytes}} bytes` : `failed: ${{answer.status}}`);
}};
</script></body></html>
"""


class Notebook:
    """What one session keeps. Whoever is in the session shares it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.names, self.files = {}, {}
        self.cells = 0

    def run(self, source):
        """Evaluates one cell: an expression of numbers, `name = expression`, or `sleep(seconds)`."""
        with self.lock:
            self.cells += 1
        try:
            if len(source) > MAX_CELL:
                raise ValueError("too long")
            statement = ast.parse(source.strip(), mode="exec").body
            if len(statement) != 1:
                raise ValueError("one statement, please")
            return self.statement(statement[0])
        except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
            return f"{type(error).__name__}: {error}"

    def statement(self, node):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = self.value(node.value)
            with self.lock:
                if len(self.names) >= MAX_NAMES and node.targets[0].id not in self.names:
                    raise ValueError("too many names")
                self.names[node.targets[0].id] = value
            return f"{node.targets[0].id} = {value}"
        if not isinstance(node, ast.Expr):
            raise ValueError("expressions and assignments only")
        if isinstance(node.value, ast.Call):
            return self.sleep(node.value)
        return str(self.value(node.value))

    def sleep(self, call):
        """Long work while nobody touches anything: `busy` keeps the session from being culled as idle."""
        if getattr(call.func, "id", "") != "sleep" or len(call.args) != 1 or call.keywords:
            raise ValueError("sleep(seconds) is the only function")
        left = min(float(self.value(call.args[0])), MAX_SLEEP)
        slept = left
        while left > 0:
            say_busy()
            time.sleep(min(left, BUSY / 2))
            left -= BUSY / 2
        return f"slept {slept:g} s"

    def value(self, node):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            value = node.value
        elif isinstance(node, ast.Name):
            with self.lock:
                if node.id not in self.names:
                    raise ValueError(f"{node.id} is not defined")
                value = self.names[node.id]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = -self.value(node.operand)
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            value = OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
        else:
            raise ValueError("numbers, names and + - * / // % only")
        if abs(value) > MAX_NUMBER:
            raise ValueError("too large")
        return value


OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


def say_busy():
    """Tells the platform that a quiet worker is alive; without one there is nobody to tell."""
    url, token = os.environ.get("SPAWNPOINT_URL"), os.environ.get("SPAWNPOINT_TOKEN")
    if not url or not token:
        return
    body = json.dumps({"status": "busy", "ttl": BUSY}).encode()
    request = urllib.request.Request(f"{url}/v1/activity", body, {"Authorization": f"Bearer {token}"}, method="POST")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except OSError as error:
        print(f"busy was not heard: {error}", flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # with kept connections
    timeout = QUIET
    disable_nagle_algorithm = True

    # --- what is asked ----------------------------------------------------------------------------
    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/":
            self.page()
        elif path == "/files":
            self.listing()
        elif path == "/old-files":
            self.redirect("/files")
        elif path == "/events":
            self.events()
        elif path == "/kernel":
            self.kernel()
        elif path == "/whoami":
            self.json(self.whoami())
        elif path == "/healthz":
            self.reply(200, b"ok\n")
        else:
            self.reply(404, b"there is nothing here\n")

    do_HEAD = do_GET

    def do_PUT(self):
        """Counts an upload, whatever its size, without keeping it."""
        name = unquote(urlsplit(self.path).path.removeprefix("/files/"))
        if not self.path.startswith("/files/") or not name or len(name) > 255:
            self.close_connection = True  # what follows is not read
            return self.reply(404, b"PUT /files/<name>\n")
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.body():
                digest.update(chunk)
                size += len(chunk)
        except ValueError as error:
            self.close_connection = True
            return self.reply(413 if "large" in str(error) else 400, f"{error}\n".encode())
        with self.server.notebook.lock:
            if len(self.server.notebook.files) >= MAX_FILES:
                return self.reply(507, b"too many files\n")
            self.server.notebook.files[name] = size
        self.json({"name": name, "bytes": size, "sha256": digest.hexdigest()}, 201)

    def do_POST(self):
        """A form of the file list: forgets them and goes back there."""
        for _ in self.body():
            pass
        if urlsplit(self.path).path != "/forget":
            return self.reply(404, b"there is nothing here\n")
        with self.server.notebook.lock:
            self.server.notebook.files.clear()
        self.redirect("/files")

    # --- answers ----------------------------------------------------------------------------------
    @property
    def base(self):
        """What every absolute link begins with: empty on a host of its own."""
        return self.headers.get("X-Forwarded-Prefix", "").rstrip("/")

    @property
    def player(self):
        return unquote(self.headers.get("X-Player-Id", "somebody"))

    def page(self):
        try:
            visits = int(SimpleCookie(self.headers.get("Cookie", ""))["visits"].value) + 1
        except (KeyError, ValueError, CookieError):
            visits = 1
        text = PAGE.format(player=html.escape(self.player), base=html.escape(self.base), visits=visits)
        cookie = f"visits={visits}; Path={self.base or '/'}; SameSite=Lax"
        self.reply(200, text.encode(), "text/html; charset=utf-8", [("Set-Cookie", cookie), ("Cache-Control", "no-store")])

    def listing(self):
        with self.server.notebook.lock:
            files = sorted(self.server.notebook.files.items())
        rows = "".join(f"<li>{html.escape(name)}: {size} bytes</li>" for name, size in files)
        base = html.escape(self.base)
        text = (f'<!doctype html><meta charset="utf-8"><title>Files</title><h1>Files</h1><ul>{rows}</ul>'
                f'<form method="post" action="{base}/forget"><button>Forget</button></form><p><a id="home" href="{base}/">Back</a></p>')
        self.reply(200, text.encode(), "text/html; charset=utf-8")

    def whoami(self):
        query = parse_qs(urlsplit(self.path).query)
        seen = ("Host", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Cookie", "Authorization", "Referer")
        return {"player_id": self.player, "session_id": self.headers.get("X-Session-Id"), "pid": os.getpid(), "query": query,
                "headers": {name: self.headers.get(name) for name in seen}}

    def json(self, value, status=200):
        self.reply(status, json.dumps(value).encode() + b"\n", "application/json")

    def redirect(self, path):
        self.reply(303, b"", headers=[("Location", self.base + quote(path))])

    def reply(self, status, body, kind=PLAIN, headers=()):
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        """The request's body in pieces: of a known length, or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            yield from self.chunks()
            return
        left = int(self.headers.get("Content-Length") or 0)
        if left > MAX_UPLOAD:
            raise ValueError("too large")
        while left > 0:
            piece = self.rfile.read(min(left, CHUNK))
            if not piece:
                raise ValueError("the body is cut short")
            left -= len(piece)
            yield piece

    def chunks(self):
        total = 0
        while size := int(self.rfile.readline(32).split(b";")[0], 16):
            total += size
            if total > MAX_UPLOAD:
                raise ValueError("too large")
            while size > 0:
                piece = self.rfile.read(min(size, CHUNK))
                if not piece:
                    raise ValueError("the body is cut short")
                size -= len(piece)
                yield piece
            self.rfile.readline(8)
        while self.rfile.readline(1024).strip():
            pass

    def events(self):
        """Server-sent events until the reader goes away or the server stops."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        tick = 0
        while not self.server.stopping.is_set():
            tick += 1
            self.wfile.write(f"data: {tick}\n\n".encode())
            self.server.stopping.wait(TICK)

    def kernel(self):
        """Cells over a WebSocket (RFC 6455): one text frame each way for each."""
        self.close_connection = True
        key = self.headers.get("Sec-WebSocket-Key", "")
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except (ValueError, binascii.Error):
            valid = False
        if self.headers.get("Upgrade", "").lower() != "websocket" or not valid:
            return self.reply(400, b"this is a WebSocket\n")
        accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", base64.b64encode(accept).decode())):
            self.send_header(name, value)
        self.end_headers()
        self.connection.settimeout(None)  # somebody may think for long
        while True:
            opcode, payload = self.frame()
            if opcode == 0x1:
                self.send_frame(0x1, self.server.notebook.run(payload.decode(errors="replace")).encode())
            elif opcode == 0x9:
                self.send_frame(0xA, payload)
            elif opcode != 0xA:  # a Close, or something that this small server does not take
                return self.send_frame(0x8, struct.pack(">H", 1000 if opcode == 0x8 else 1003))

    def frame(self):
        first, second = self.exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.exactly(2))
        # Whole, masked and short frames are all that this kernel needs.
        if not first & 0x80 or not second & 0x80 or length > 4 * MAX_CELL:
            return -1, b""
        mask, data = self.exactly(4), self.exactly(length)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    def exactly(self, count):
        data = self.rfile.read(count)
        if len(data) < count:
            raise ConnectionError("the other side has gone")
        return data

    def send_frame(self, opcode, payload):
        head = bytes([0x80 | opcode])
        head += bytes([len(payload)]) if len(payload) < 126 else struct.pack(">BH", 126, len(payload))
        self.wfile.write(head + payload)

    def log_message(self, form, *args):
        print(f"{self.player}: {form % args}", flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address):
        super().__init__(address, Handler)
        self.notebook = Notebook()
        self.stopping = threading.Event()
        self.places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request, client_address):
        if not self.places.acquire(blocking=False):
            return self.shutdown_request(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request, client_address):
        pass  # a reader who goes away in the middle of an answer is no error


def main():
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8080"))))

    def stop(*_):
        server.stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
    path = os.environ.get("SPAWNPOINT_RESULTS_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"cells": server.notebook.cells, "files": len(server.notebook.files)}, file)


if __name__ == "__main__":
    main()
