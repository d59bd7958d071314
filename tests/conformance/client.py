"""A client that sees every line of a response's head as it came, and may send any.

Law: nothing is merged, sorted or judged; what breaks off is said to be broken.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11

PATIENCE = 30.0
"""Seconds after which a response that does not come fails the row."""
HOST = "example.test"
HEAD = 256 * 1024
"""Bytes that the head of a response may have."""


@dataclass(frozen=True)
class Answer:
    """A response as it came."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def values(self, name: str) -> list[str]:
        """The lines of a field, in order."""
        return [value for key, value in self.fields if key.lower() == name]


class Client:
    """One connection, kept alive for as long as both sides can."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self._port = port
        self._patience = patience
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)

    async def ask(
        self, method: str, target: str, fields: list[tuple[str, str]], content: bytes = b""
    ) -> Answer:
        """Send one request and read the whole response."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        # h11 reads the response; it is told of a request of this method, but the bytes sent are ours.
        self._http.send(h11.Request(method=method, target=target, headers=[("host", HOST)]))
        self._http.send(h11.EndOfMessage())
        self._writer.write(_request(method, target, fields, content))
        async with asyncio.timeout(self._patience):
            return await self._answer(self._reader)

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head: h11.Response | None = None
        body = b""
        try:
            while not isinstance(event := await self._event(reader), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
            whole = True
        except (h11.RemoteProtocolError, ConnectionError):
            whole = False
        if whole and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.leave()
        if head is None:
            return Answer(0, [], body, whole=False)
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        return Answer(head.status_code, lines, body, whole)

    async def _event(self, reader: asyncio.StreamReader) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await reader.read(65536))
        return event

    def leave(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def _request(method: str, target: str, fields: list[tuple[str, str]], content: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in fields):
        lines.append(f"Host: {HOST}")
    lines += [f"{name}: {value}" for name, value in fields]
    if content:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
