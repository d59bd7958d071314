"""The soak's connections: as little HTTP/1.1 as uvicorn speaks, with every way to leave."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque

import msgspec

from .served import KEEP_ALIVE

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SMALL = 16 * 1024
"""Bytes that a slow reader's socket takes."""
IDLE = KEEP_ALIVE / 3
"""Seconds after which a connection is not used again: the server may be about to close it."""


class BrokenError(Exception):
    """The answer broke off, or is none."""


class Head(msgspec.Struct, frozen=True):
    """An answer's head."""

    status: int
    headers: dict[bytes, bytes]


class Pool:
    """Connections to one server, kept and used again."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: deque[tuple[float, Connection]] = deque()

    async def take(self) -> Connection:
        old = time.monotonic() - IDLE
        while self._idle and self._idle[0][0] < old:
            self._idle.popleft()[1][1].close()
        while self._idle:
            _, (reader, writer) = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def give_back(self, connection: Connection) -> None:
        self._idle.append((time.monotonic(), connection))

    async def slow(self) -> Connection:
        """One that takes little at a time; never given back."""
        plain = socket.socket(proto=socket.IPPROTO_TCP)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=plain, limit=SMALL)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1][1].close()


def ask(connection: Connection, method: str, target: str, headers: dict[str, str], port: int) -> None:
    """Send a request."""
    lines = [f"{method} {target} HTTP/1.1", f"host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append("content-length: 0")
    connection[1].write("\r\n".join([*lines, "", ""]).encode("latin-1"))


async def read_head(connection: Connection) -> Head:
    """The answer's head."""
    try:
        data = await connection[0].readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise BrokenError(f"no head: {error}") from error
    first, *lines = data[:-4].split(b"\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    return Head(int(first.split(b" ", 2)[1]), headers)


async def read_body(connection: Connection, head: Head, pause: float = 0.0) -> bytes:
    """The whole body; with pauses in between for a slow reader."""
    reader = connection[0]
    try:
        if b"content-length" in head.headers:
            return await reader.readexactly(int(head.headers[b"content-length"]))
        chunks: list[bytes] = []
        while size := int(await reader.readline(), 16):
            chunks.append(await _exactly(reader, size, pause))
            await reader.readline()
        await reader.readline()
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise BrokenError(f"not whole: {error}") from error
    return b"".join(chunks)


async def _exactly(reader: asyncio.StreamReader, size: int, pause: float) -> bytes:
    if not pause:
        return await reader.readexactly(size)
    parts = []
    while size:
        parts.append(part := await reader.readexactly(min(size, SMALL)))
        size -= len(part)
        await asyncio.sleep(pause)
    return b"".join(parts)


def leave(connection: Connection, way: str) -> None:
    """Close the connection (FIN), or reset it (RST)."""
    _, writer = connection
    if way == "RST":
        option = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        writer.transport.abort()
    else:
        writer.close()
