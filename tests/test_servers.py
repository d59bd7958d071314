"""Flights under a real uvicorn, over real sockets: clients that leave by FIN or RST, keep alive, and read slowly."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import h11
import pytest
import uvicorn

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .kit import BODY, WHOLE, GatedApp, SteppedApp, chunk, eventually, head

PARSERS = ["h11", *(["httptools"] if importlib.util.find_spec("httptools") else [])]
COLLAPSED = b"dedup; fwd=uri-miss; collapsed"

pytestmark = pytest.mark.parametrize("parser", PARSERS)


@contextlib.asynccontextmanager
async def serving(app: Any, parser: str) -> AsyncIterator[int]:
    """A uvicorn on a port of its own."""
    config = uvicorn.Config(app, http=parser, ws="none", lifespan="off", loop="asyncio", log_config=None)
    server = uvicorn.Server(config)
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # told TCP, asyncio sends without delay
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        await eventually(lambda: server.started or task.done())
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class Client:
    """One connection; it asks, reads, and leaves as it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, port: int, buffer: int | None = None) -> Client:
        plain = socket.socket(proto=socket.IPPROTO_TCP)
        if buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        limit = 2**16 if buffer is None else buffer
        return cls(*await asyncio.open_connection(sock=plain, limit=limit))

    def ask(self, target: str = "/", method: str = "GET") -> None:
        request = h11.Request(method=method, target=target, headers=[("host", "example.test")])
        self.writer.write(self.http.send(request) or b"")
        self.writer.write(self.http.send(h11.EndOfMessage()) or b"")

    async def event(self) -> Any:
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self.reader.read(65536))

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """One whole response; one that breaks off is a RemoteProtocolError."""
        response = await self.event()
        assert isinstance(response, h11.Response)
        body = b""
        while not isinstance(event := await self.event(), h11.EndOfMessage):
            body += event.data
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return response.status_code, dict(response.headers), body

    def leave(self, way: str = "FIN") -> None:
        if way == "RST":
            plain = self.writer.get_extra_info("socket")
            plain.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            )
            self.writer.transport.abort()
        else:
            self.writer.close()


async def crowd(port: int, count: int, target: str = "/busy") -> list[Client]:
    clients = [await Client.connect(port) for _ in range(count)]
    for one in clients:
        one.ask(target)
    return clients


def side_by_side(apps: list[SteppedApp]) -> Any:
    """One app for all of them: the target is the app's place in the list."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await apps[int(scope["path"][1:])](scope, receive, send)

    return app


def followers(dedup: Dedup) -> list[int]:
    return [flight.followers for flight in dedup.flights.under_way.values()]


async def test_a_stampede_over_sockets_never_runs_the_app_twice_and_leaves_every_connection_usable(
    parser: str,
) -> None:
    bare = GatedApp()
    dedup = Dedup()
    async with serving(DedupMiddleware(bare, dedup=dedup), parser) as port:
        clients = await crowd(port, 50)
        for burst in (1, 2, 3):
            await eventually(lambda: followers(dedup) == [49])
            bare.gate.set()
            for one in clients:
                status, headers, body = await one.answer()
                assert (status, body) == (200, b"run %d" % burst)
                assert headers[b"cache-status"] in (b"dedup; fwd=uri-miss", COLLAPSED)
            await eventually(lambda: dedup.flights.is_empty)
            bare.gate.clear()
            if burst < 3:
                for one in clients:
                    one.ask("/busy")
        for one in clients:
            one.leave()
    assert bare.runs == 3


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_a_leader_that_hangs_up_never_costs_the_others_their_answer(
    parser: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the head, after it, after one chunk and after two."""
    monkeypatch.setattr("dedup_middleware.flight.GRACE", 0.0)
    apps = [SteppedApp(head(), *BODY) for _ in range(4)]
    dedup = Dedup(default=Rule(max_wait=600))

    async def leave(port: int, steps: int, bare: SteppedApp) -> None:
        leader = await Client.connect(port)
        leader.ask(f"/{steps}")
        await eventually(lambda: bare.runs == 1)
        clients = await crowd(port, 10, f"/{steps}")
        await eventually(lambda: followers(dedup) == [10])
        bare.step(steps)
        await eventually(lambda: bare.began == steps)
        (flight,) = dedup.flights.under_way.values()
        leader.leave(way)
        await eventually(lambda: len(flight.waiters) == 10 or any(one.gone for one in flight.waiters))
        bare.finish()
        for one in clients:
            status, headers, body = await one.answer()
            assert (status, headers[b"cache-status"], body) == (200, COLLAPSED, WHOLE)
            one.leave()
        await eventually(lambda: dedup.flights.is_empty)

    async with serving(DedupMiddleware(side_by_side(apps), dedup=dedup), parser) as port:
        for steps, bare in enumerate(apps):
            await leave(port, steps, bare)
    assert [(bare.runs, bare.cancelled) for bare in apps] == [(1, 0)] * 4


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_when_all_hang_up_the_app_is_told_then_cancelled_and_no_error_is_logged(
    parser: str, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dedup_middleware.flight.GRACE", 0.01)
    heard: list[str] = []
    cancelled = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    dedup = Dedup()
    async with serving(DedupMiddleware(endless, dedup=dedup), parser) as port:
        clients = await crowd(port, 5)
        await eventually(lambda: followers(dedup) == [4])
        for one in clients:
            one.leave(way)
        await eventually(cancelled.is_set)
        await eventually(lambda: dedup.flights.is_empty)
    assert heard == ["http.request", "http.disconnect"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_reads_nothing_never_holds_up_the_others(parser: str) -> None:
    pieces = [bytes([number]) * 65536 for number in range(16)]
    bare = SteppedApp(head(), *(chunk(one) for one in pieces), chunk(more=False))
    dedup = Dedup()
    async with serving(DedupMiddleware(bare, dedup=dedup), parser) as port:
        slow = await Client.connect(port, buffer=4096)
        slow.ask("/busy")
        await eventually(lambda: bare.runs == 1)
        clients = await crowd(port, 5)
        await eventually(lambda: followers(dedup) == [5])
        bare.finish()
        for one in clients:
            assert (await one.answer())[2] == b"".join(pieces)
            one.leave()
        assert bare.ended == 1
        assert (await slow.answer())[2] == b"".join(pieces)
        slow.leave()
    assert bare.runs == 1


@pytest.mark.parametrize("declared", [False, True], ids=["chunked", "content-length"])
async def test_a_download_alone_feels_its_readers_backpressure_and_loses_no_byte(
    parser: str, declared: bool
) -> None:
    cap, size, pieces = 1024 * 1024, 64 * 1024, 512
    made, sent = hashlib.sha256(), 0
    dedup = Dedup()
    most = 0

    async def download(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent, most
        (flight,) = dedup.flights.under_way.values()
        await send(head(200, [(b"content-length", b"%d" % (size * pieces))] if scope["query_string"] else []))
        for number in range(pieces):
            piece = number.to_bytes(4, "big") * (size // 4)
            made.update(piece)
            await send(chunk(piece, more=number + 1 < pieces))
            sent += 1
            most = max(most, flight.held)

    async with serving(DedupMiddleware(download, dedup=dedup), parser) as port:
        one = await Client.connect(port, buffer=65536)
        one.ask("/?declared" if declared else "/")
        await eventually(lambda: most + size > cap)
        assert sent < pieces / 2, "the app waits"
        taken = hashlib.sha256()
        assert isinstance(await one.event(), h11.Response)
        while not isinstance(event := await one.event(), h11.EndOfMessage):
            taken.update(event.data)
        one.leave()
    assert taken.digest() == made.digest()
    assert most <= cap


@pytest.mark.parametrize("declared", [False, True], ids=["chunked", "content-length"])
@pytest.mark.parametrize("ending", [ValueError, None], ids=["raises", "returns"])
async def test_a_response_that_breaks_off_never_looks_complete_on_the_wire(
    parser: str, ending: type[Exception] | None, declared: bool
) -> None:
    """Before the head, after it, after one chunk and after two."""
    length = [(b"content-length", b"%d" % len(WHOLE))] if declared else []
    apps = [SteppedApp(*[head(200, length), *BODY[:2]][:sent], ending) for sent in range(4)]
    dedup = Dedup(default=Rule(ttl=60))
    async with serving(DedupMiddleware(side_by_side(apps), dedup=dedup), parser) as port:
        for sent, bare in enumerate(apps):
            clients = await crowd(port, 4, f"/{sent}")
            await eventually(lambda: followers(dedup) == [3])
            bare.finish()
            for one in clients:
                if sent == 0:
                    assert (await one.answer())[0] == 500
                else:
                    with pytest.raises(h11.RemoteProtocolError):
                        await one.answer()
                one.leave()
            await eventually(lambda: dedup.flights.is_empty)
    assert ([bare.runs for bare in apps], dedup.store.responses) == ([1] * 4, 0)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answers_without_a_body_never_break_the_framing_of_the_next(
    parser: str, method: str, status: int
) -> None:
    bare = SteppedApp(
        head(status, [(b"content-length", b"5")] if method == "HEAD" else []), chunk(more=False)
    )
    dedup = Dedup()
    async with serving(DedupMiddleware(bare, dedup=dedup), parser) as port:
        clients = [await Client.connect(port) for _ in range(5)]
        for one in clients:
            one.ask("/", method)
        await eventually(lambda: followers(dedup) == [4])
        bare.finish()
        for one in clients:
            assert (await one.answer())[::2] == (status, b"")
        for one in clients:
            one.ask("/", method)
            assert (await one.answer())[::2] == (status, b"")
            one.leave()


async def test_a_request_pipelined_behind_its_twin_never_waits_for_itself(parser: str) -> None:
    bare = GatedApp(opened=True)
    async with serving(DedupMiddleware(bare), parser) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: example.test\r\n\r\n" * 3)
        read = b""
        while read.count(b"run ") < 3:
            piece = await reader.read(65536)
            assert piece, "the connection stays open"
            read += piece
        writer.close()
    assert bare.runs == 3
