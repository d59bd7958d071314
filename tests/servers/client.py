"""Clients on real sockets, one connection each: they ask, read, and leave as they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h11

Pairs = Iterable[tuple[str, str]]


PATIENCE = float(os.environ.get("PLAYS_PATIENCE", "20"))
"""Seconds after which a test gives up."""


SILENCE = 0.2
"""Seconds after which a response that should stay open is believed to."""


class BrokenError(Exception):
    """The response broke off."""


@dataclass
class Answer:
    """A response as it comes in; one that is there is whole."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    hints: list[dict[str, str]] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)


def texts(pairs: Any) -> dict[str, str]:
    return {_text(name).lower(): _text(value) for name, value in pairs}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


class Client:
    """What both protocols have in common: a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, buffer: int | None = None, tls: ssl.SSLContext | None = None) -> Client:
        plain = socket.socket(proto=socket.IPPROTO_TCP)  # told TCP, asyncio sends without delay
        if buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        limit = 2**16 if buffer is None else buffer
        name = "localhost" if tls is not None else None
        return cls(*await asyncio.open_connection(sock=plain, limit=limit, ssl=tls, server_hostname=name))

    async def _read(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(65536)

    async def ask(
        self, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes | None = None
    ) -> None:
        raise NotImplementedError

    async def head(self) -> Answer:
        """The response's head; its body is yet to come."""
        raise NotImplementedError

    async def chunk(self) -> bytes | None:
        """Some more of the body, or None when the response is whole."""
        raise NotImplementedError

    async def answer(self) -> Answer:
        """One whole response."""
        answer = await self.head()
        answer.body = await self.rest()
        return answer

    async def rest(self) -> bytes:
        """What is left of the body."""
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        return b"".join(parts)

    async def upto(self, body: bytes) -> None:
        """Read exactly this much of the body."""
        read = b""
        while len(read) < len(body):
            part = await self.chunk()
            assert part is not None, f"the response was over after {read!r}"
            read += part
        assert read == body

    async def fate(self, expected: str) -> str:
        """How the response ends: its status when it is whole, "cut", or "open"; that one is not waited for long."""
        try:
            async with asyncio.timeout(SILENCE if expected == "open" else PATIENCE):
                return str((await self.answer()).status)
        except BrokenError:
            return "cut"
        except TimeoutError:
            return "open"

    def leave(self, way: str = "FIN") -> None:
        """Close the connection, reset it, or the third way: close half of it, in HTTP/2 reset the stream."""
        plain = self.writer.get_extra_info("socket")
        if way == "RST":
            option = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            self.writer.transport.abort()
        elif way != "FIN":
            plain.shutdown(socket.SHUT_WR)
        else:
            self.writer.close()

    async def gone(self) -> None:
        """Leave, whatever is yet to be read or written, and wait until the socket is closed."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class H1(Client):
    """HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.http = h11.Connection(h11.CLIENT)
        self.seen = Answer()

    async def ask(
        self, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes | None = None
    ) -> None:
        fields = [("host", "localhost"), *headers]
        if body is not None:
            fields.append(("content-length", str(len(body))))
        self.begin(h11.Request(method=method, target=target, headers=fields))
        if body:
            self.begin(h11.Data(body))
        self.begin(h11.EndOfMessage())

    def expect(self) -> None:
        """A GET was written past h11: its answer is the next one."""
        self.http.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
        self.http.send(h11.EndOfMessage())

    def begin(self, event: Any) -> None:
        self.writer.write(self.http.send(event) or b"")

    async def _event(self) -> Any:
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                data = await self._read()
                if not data and self.http.their_state is h11.SEND_RESPONSE:
                    raise BrokenError("closed before the head")
                self.http.receive_data(data)
        except (h11.RemoteProtocolError, ConnectionError) as error:
            raise BrokenError(str(error)) from error
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise BrokenError("closed")
        return event

    async def head(self) -> Answer:
        self.seen = Answer()
        while isinstance(event := await self._event(), h11.InformationalResponse):
            self.seen.hints.append(texts(event.headers))
        self.seen.status, self.seen.headers = event.status_code, texts(event.headers)
        return self.seen

    async def chunk(self) -> bytes | None:
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self.seen.trailers = texts(event.headers)
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return None


class H2(Client):
    """HTTP/2, one stream after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        config = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.seen = Answer()
        self.stream = 0
        self._flush()
        self._events: list[Any] = []

    def _flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def ask(
        self, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes | None = None
    ) -> None:
        self.stream = self.http.get_next_available_stream_id()
        secure = self.writer.get_extra_info("ssl_object") is not None
        fields = [
            (":method", method),
            (":scheme", "https" if secure else "http"),
            (":authority", "localhost"),
            (":path", target),
            *headers,
        ]
        if body is not None:
            fields.append(("content-length", str(len(body))))
        self.http.send_headers(self.stream, fields, end_stream=not body)
        left = body or b""
        while left:
            room = min(self.http.local_flow_control_window(self.stream), self.http.max_outbound_frame_size)
            if room == 0:
                await self._receive()
                continue
            self.http.send_data(self.stream, left[:room], end_stream=len(left) <= room)
            left = left[room:]
            self._flush()
        self._flush()

    async def _receive(self) -> None:
        try:
            data = await self._read()
        except ConnectionError as error:
            raise BrokenError(str(error)) from error
        if not data:
            raise BrokenError("closed")
        self._events += self.http.receive_data(data)
        self._flush()

    async def _event(self) -> Any:
        """The next thing of the response; what else the server says is not of interest."""
        while True:
            while not self._events:
                await self._receive()
            event = self._events.pop(0)
            if isinstance(event, h2.events.ConnectionTerminated):
                if self.stream > (event.last_stream_id or 0) or event.error_code:
                    raise BrokenError(f"GOAWAY {event.error_code}")
            elif isinstance(event, h2.events.PushedStreamReceived):
                self.seen.pushed.append(texts(event.headers)[":path"])
            elif getattr(event, "stream_id", None) != self.stream:
                continue
            elif isinstance(event, h2.events.StreamReset):
                raise BrokenError(f"RST_STREAM {event.error_code}")
            else:
                return event

    async def head(self) -> Answer:
        self.seen = Answer()
        while not isinstance(event := await self._event(), h2.events.ResponseReceived):
            if isinstance(event, h2.events.InformationalResponseReceived):
                self.seen.hints.append(texts(event.headers))
        self.seen.headers = texts(event.headers)
        self.seen.status = int(self.seen.headers.pop(":status"))
        return self.seen

    async def chunk(self) -> bytes | None:
        while True:
            event = await self._event()
            if isinstance(event, h2.events.DataReceived):
                self.http.acknowledge_received_data(event.flow_controlled_length or 0, self.stream)
                self._flush()
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h2.events.TrailersReceived):
                self.seen.trailers = texts(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                return None

    def leave(self, way: str = "FIN") -> None:
        if way == "half-close or RST_STREAM":
            self.http.reset_stream(self.stream, h2.errors.ErrorCodes.CANCEL)
            self._flush()
        else:
            super().leave(way)
