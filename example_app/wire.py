"""A lean HTTP/1.1 client over asyncio streams.

A general client spends several milliseconds of processor time on a request, more than a hit takes; on a small
machine the table would show the client. This one knows just what uvicorn sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

import msgspec

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""Says "not sampled", so that a trace viewer shows the page refreshes and does not drown in what else is asked."""


class Reply(msgspec.Struct, frozen=True):
    """An answer and when what happened: Unix time in nanoseconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    start: int
    first_byte: int
    end: int

    @property
    def milliseconds(self) -> float:
        return (self.end - self.start) / 1e6


class Client:
    """One origin, connections kept and reused; as many at once as requests are under way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: deque[Connection] = deque()

    async def open(self, count: int) -> None:
        """Connect ahead of a burst, so that it measures requests and not handshakes."""
        self._idle += await asyncio.gather(*(self._connect() for _ in range(count - len(self._idle))))

    async def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        lines = [f"{method} {target} HTTP/1.1", f"host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        reader, writer = connection = self._kept() or await self._connect()
        whole = False
        try:
            start = time.time_ns()
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            head = await reader.readuntil(b"\r\n\r\n")
            first_byte = time.time_ns()
            status, answered = _head(head)
            content = await _body(reader, answered)
            end = time.time_ns()
            whole = answered.get("connection") != "close"
        finally:
            if whole:
                self._idle.append(connection)
            else:
                writer.close()
        return Reply(status, answered, content, start, first_byte, end)

    async def get(self, target: str) -> Reply:
        return await self.request("GET", target, UNTRACED)

    async def post(self, target: str, value: object) -> Reply:
        return await self.request("POST", target, UNTRACED, msgspec.json.encode(value))

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        while self._idle:
            reader, writer = self._idle.popleft()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self.port)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return int(first.split(" ", 2)[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read()
    chunks: list[bytes] = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)
