"""python-echo: a game server in Python with nothing but the standard library.

It listens on PORT, sends every message back, answers "whoami" with what it knows of the session,
and exits 0 on SIGTERM. The WebSocket part (RFC 6455) is written out by hand.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import os
import signal
import struct
import sys
from urllib.parse import unquote

MAX_MESSAGE = 64 * 1024  # longest message, over all its fragments
MAX_HEAD = 16 * 1024
MAX_CONNECTIONS = 100  # players a session may have
SEND_TIMEOUT = 10  # seconds; a client that takes nothing for this long is gone
FAREWELL = 1  # seconds for the close frames of a stop
CLOSE_TIMEOUT = 2  # seconds, for the other half of the closing handshake

CONTINUE, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Closing(Exception):
    """An end with a code to tell the other side."""

    def __init__(self, code, reason=""):
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class Socket:
    """One upgraded connection."""

    def __init__(self, reader, writer, headers):
        self.reader, self.writer, self.headers = reader, writer, headers
        self.closed = False

    async def read_frame(self, room):
        first, second = await self.reader.readexactly(2)
        final, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
        control = opcode >= 0x8
        if first & 0x70:
            raise Closing(1002, "reserved bits")
        if not second & 0x80:
            raise Closing(1002, "client frames must be masked")
        if control and (length > 125 or not final):
            raise Closing(1002, "bad control frame")
        if length == 126:
            (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
        # Checked before reading: the length is the client's claim.
        if not control and length > room:
            raise Closing(1009, "message too long")
        mask = await self.reader.readexactly(4)
        masked = await self.reader.readexactly(length)
        # One big XOR is a hundred times faster than a loop over bytes.
        key = (mask * (length // 4 + 1))[:length]
        plain = int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")
        return final, opcode, plain.to_bytes(length, "big")

    async def read(self):
        """The next whole message as (opcode, bytes); pings are answered on the way."""
        kind, message = None, b""
        while True:
            final, opcode, payload = await self.read_frame(MAX_MESSAGE - len(message))
            if opcode == PING:
                await self.send(PONG, payload)
                continue
            if opcode == PONG:
                continue
            if opcode == CLOSE:
                raise answer_close(payload)
            if opcode == CONTINUE:
                if kind is None:
                    raise Closing(1002, "nothing to continue")
            elif opcode in (TEXT, BINARY):
                if kind is not None:
                    raise Closing(1002, "message within a message")
                kind = opcode
            else:
                raise Closing(1002, "unknown opcode")
            message += payload
            if final:
                if kind == TEXT and not is_utf8(message):
                    raise Closing(1007, "not UTF-8")
                return kind, message

    async def send(self, opcode, payload):
        if self.closed:
            raise ConnectionError("closed")
        self.closed = opcode == CLOSE
        length = len(payload)
        if length < 126:
            head = struct.pack(">BB", 0x80 | opcode, length)
        elif length <= 0xFFFF:
            head = struct.pack(">BBH", 0x80 | opcode, 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, length)
        self.writer.write(head + payload)
        await asyncio.wait_for(self.writer.drain(), SEND_TIMEOUT)

    async def close(self, code, reason):
        """Sends the close frame, then reads out what is under way so that no reset overtakes it."""
        if not self.closed:
            await self.send(CLOSE, struct.pack(">H", code) + reason.encode())
        if self.writer.can_write_eof():
            self.writer.write_eof()

        async def drain():
            while await self.reader.read(65536):
                pass

        await asyncio.wait_for(drain(), CLOSE_TIMEOUT)


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def answer_close(payload):
    """The close to send back: the same code, if it is one that may be sent."""
    if not payload:
        return Closing(1000)
    if len(payload) == 1 or not is_utf8(payload[2:]):
        return Closing(1002, "bad close frame")
    (code,) = struct.unpack(">H", payload[:2])
    known = (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code < 5000
    return Closing(code) if known else Closing(1002, "bad close code")


def session_id(headers):
    """Known at start, or written to the session file at the claim of a warm instance, or told by
    the gateway with each player."""
    if os.environ.get("SESSION_ID"):
        return os.environ["SESSION_ID"]
    try:
        with open(os.environ.get("SPAWNPOINT_SESSION_FILE", ""), encoding="utf-8") as file:
            return json.load(file)["session_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return headers.get("x-session-id", "")


def whoami(headers):
    return json.dumps({
        "session_id": session_id(headers),
        "player_id": unquote(headers.get("x-player-id", "")),
        "fleet": os.environ.get("SPAWNPOINT_FLEET", ""),
        "instance": os.environ.get("SPAWNPOINT_INSTANCE", ""),
        "pid": os.getpid(),
    }).encode()


def has(headers, name, wanted):
    return wanted in (part.strip().lower() for part in headers.get(name, "").split(","))


def respond(status, body=b"", extra=""):
    return (f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n{extra}\r\n").encode() + body


def handshake(head):
    """The response to a request head, and its headers if it was a WebSocket handshake."""
    request, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    if not has(headers, "upgrade", "websocket"):
        return respond("200 OK", b"python-echo\n"), None  # handy as a readiness path
    key = headers.get("sec-websocket-key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if not request.startswith("GET ") or not has(headers, "connection", "upgrade") or len(nonce) != 16:
        return respond("400 Bad Request", b"not a WebSocket handshake\n"), None
    if headers.get("sec-websocket-version") != "13":
        return respond("426 Upgrade Required", b"version 13 only\n", "Sec-WebSocket-Version: 13\r\n"), None
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    accept = base64.b64encode(digest).decode()
    return (f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n").encode(), headers


class Server:
    def __init__(self):
        self.sockets = set()
        self.connections = 0
        self.messages = 0
        self.stopping = False

    async def serve(self, reader, writer):
        try:
            # No timeout before the first byte: the gateway may keep its probe's socket for the
            # first player of a warm instance.
            response, headers = handshake((await reader.readuntil(b"\r\n\r\n"))[:-4])
            writer.write(response)
            await asyncio.wait_for(writer.drain(), SEND_TIMEOUT)
            if headers is not None:
                await self.play(Socket(reader, writer, headers))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # gone, or never spoke HTTP
        finally:
            writer.close()

    async def play(self, socket):
        if self.stopping or len(self.sockets) >= MAX_CONNECTIONS:
            await socket.close(1013, "full or stopping")
            return
        self.sockets.add(socket)
        self.connections += 1
        try:
            while True:
                opcode, message = await socket.read()
                self.messages += 1
                if opcode == TEXT and message == b"whoami":
                    message = whoami(socket.headers)
                await socket.send(opcode, message)
        except Closing as end:
            await socket.close(end.code, end.reason)
        finally:
            self.sockets.discard(socket)

    async def stop(self):
        self.stopping = True
        farewells = [socket.send(CLOSE, struct.pack(">H", 1001) + b"shutdown")
                     for socket in self.sockets if not socket.closed]
        # All at once: one player who takes nothing must not use up the grace.
        try:
            await asyncio.wait_for(asyncio.gather(*farewells, return_exceptions=True), FAREWELL)
        except asyncio.TimeoutError:
            pass

    def write_results(self):
        path = os.environ.get("SPAWNPOINT_RESULTS_FILE")
        if not path:
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"connections": self.connections, "messages": self.messages}, file)
        except OSError as error:
            print(f"results: {error}", file=sys.stderr)


async def main():
    stop = asyncio.Event()
    # Before listening: from then on a SIGTERM is a stop, never a crash.
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    game = Server()
    port = int(os.environ.get("PORT") or 8080)
    listener = await asyncio.start_server(game.serve, "0.0.0.0", port, limit=MAX_HEAD)
    print(f"python-echo listening on 0.0.0.0:{listener.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    listener.close()
    await game.stop()
    game.write_results()


if __name__ == "__main__":
    asyncio.run(main())
