"""A row's own world: its app, its engine, its clock, and the address below which one server reaches it.

Law: nothing is shared between two worlds but the server, so that any number of them run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from time import asctime, gmtime, strftime
from typing import Any, Literal, Self, TypeVar

import uvicorn

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule
from tests.kit import FakeClock, settle

from .case import At, Case, Reply, Value
from .client import PATIENCE, Client

T = TypeVar("T")
Shape = Literal["one", "several"]
"""How the app sends a body: in one event with its length declared, or in several without."""
SHAPES: tuple[Shape, ...] = ("one", "several")
EPOCH = 1_800_000_000
"""What the calendar says when a row starts."""


class ScriptedError(Exception):
    """What an app raises as its script says."""


def unscripted(record: logging.LogRecord) -> bool:
    """Whether the server's log is about an error that no script told the app to raise."""
    return record.exc_info is None or not isinstance(record.exc_info[1], (ScriptedError, ForwardFailed))


def date(at: At) -> str:
    """A date as a field has it."""
    seconds = EPOCH + at.seconds
    if at.form == "rfc850":
        return strftime("%A, %d-%b-%y %H:%M:%S GMT", gmtime(seconds))
    return asctime(gmtime(seconds)) if at.form == "asctime" else formatdate(seconds, usegmt=True)


def text(value: Value) -> str:
    """A value as it is sent."""
    return date(value) if isinstance(value, At) else value


@dataclass(frozen=True)
class Seen:
    """A request as it reached the app."""

    method: str
    fields: list[tuple[str, str]]
    content: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class World:
    """One run of one row: `wrap` makes the middleware around its app, or leaves the app bare."""

    def __init__(self, row: Case, profile: str, shape: Shape) -> None:
        self.row = row
        self.shape = shape
        self.prefix = ""
        self.clock = FakeClock()
        self.started = self.clock.now
        self.seen: list[Seen] = []
        self.entered = self.inside = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.over = asyncio.Event()
        self.dedup: Dedup | None = None
        self.app: Any = self._perform
        if profile == "naive":
            self.app = Naive(self._perform)
        elif profile != "bare":
            self.dedup = Dedup(default=rule(profile, row), clock=self.clock, secret="conformance")
            self.dedup.wall = lambda: EPOCH + self.clock.now - self.started
            self.app = DedupMiddleware(self._perform, dedup=self.dedup)

    def reply(self, run: int) -> Reply:
        """The answer of a run; the last one of the script stays."""
        return self.row.script[min(run, len(self.row.script)) - 1]

    def body(self, run: int) -> bytes:
        """The body of a run's answer, whatever the method."""
        told = self.reply(run).body
        return (f"{self.row.id}, run {run}." if told is None else told).encode("latin-1")

    def fields(self, run: int) -> list[tuple[str, str]]:
        """The fields of a run's answer."""
        return [(name.lower(), self.placed(value)) for name, value in self.reply(run).fields]

    def placed(self, value: Value) -> str:
        """A value as it is sent; `{here}` in it is the path of this world."""
        return text(value).replace("{here}", self.prefix)

    async def enter(self, scope: Any, receive: Any, send: Any) -> None:
        """A request comes in."""
        self.entered += 1
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1

    @property
    def is_idle(self) -> bool:
        table = self.dedup.flights if self.dedup is not None else None
        return not self.inside and (table is None or table.is_empty)

    async def _perform(self, scope: Any, receive: Any, send: Any) -> None:
        content = b""
        more = True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        self.seen.append(Seen(scope["method"], lines, content))
        run = len(self.seen)
        reply = self.reply(run)
        await self.gate.wait()
        self.clock.advance(reply.takes)
        if reply.trouble == "raises":
            raise ScriptedError("as the script says")
        if reply.trouble == "hangs":
            await self.over.wait()
            raise ScriptedError("at last, as the script says")
        await self._send(scope["method"], run, send)

    async def _send(self, method: str, run: int, send: Any) -> None:
        reply = self.reply(run)
        body = b"" if reply.status in (204, 304) else self.body(run)
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.fields(run)]
        if self.shape == "one" and reply.status not in (204, 304):
            lines.append((b"content-length", b"%d" % len(body)))
        if method == "HEAD":
            body = b""
        await send({"type": "http.response.start", "status": reply.status, "headers": lines})
        size = len(body) if self.shape == "one" else max(1, len(body) // 3)
        pieces = [body[at : at + size] for at in range(0, len(body), size or 1)] or [b""]
        if reply.trouble == "breaks":
            await send({"type": "http.response.body", "body": pieces[0][:5], "more_body": True})
            raise ScriptedError("in the middle, as the script says")
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces) and self.shape == "one"
            await send({"type": "http.response.body", "body": piece, "more_body": not last})
        if self.shape == "several":
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def rule(profile: str, row: Case) -> Rule:
    """The rule of a profile, with the row's own fields."""
    if profile == "shared":
        return Rule.shared_cache(**row.rule)
    return Rule(**{"ttl": "origin", "vary": "origin", **row.rule})


class Naive:
    """A cache that knows no rule: whatever was answered first on a path answers forever. Rows must tell it apart."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._kept: dict[str, list[Any]] = {}
        self._asking = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD", "QUERY") and path not in self._kept:
            async with self._asking:
                if path not in self._kept:
                    await self._first(scope, receive, send)
                    return
        if path not in self._kept:
            await self._first(scope, receive, send)
            return
        head, *rest = self._kept[path]
        told = [*head["headers"], (b"age", b"0"), (b"cache-status", b"dedup; hit; ttl=1")]
        await send({**head, "headers": told})
        for message in rest:
            await send({**message, "body": b""} if scope["method"] == "HEAD" else message)

    async def _first(self, scope: Any, receive: Any, send: Any) -> None:
        sent: list[Any] = []

        async def keep(message: Any) -> None:
            sent.append(message)
            await send(message)

        await self._app(scope, receive, keep)
        if scope["method"] != "HEAD":  # its length would be of a body that it does not have
            self._kept[scope["path"]] = sent


class Arena:
    """One uvicorn on a port of its own, in a thread of its own, for every world there is."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self.worlds: dict[str, World] = {}
        self.port = 0
        self._named = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="arena", daemon=True)
        self._listening = socket.socket(proto=socket.IPPROTO_TCP)  # told TCP, asyncio sends without delay
        self._log = logging.getLogger("uvicorn.error")
        # uvicorn adds a Date to every response unless told not to: rows say themselves when the app sends one.
        config = uvicorn.Config(
            self._dispatch,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            date_header=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._listening.bind(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread.start()
        self._log.addFilter(unscripted)
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stop())
        self._log.removeFilter(unscripted)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listening.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the arena's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def client(self) -> Client:
        """A client of its own connection."""
        return Client(self.port, self._patience)

    def admit(self, world: World) -> None:
        """Give a world its path."""
        self._named += 1
        world.prefix = f"/w{self._named}"
        self.worlds[world.prefix] = world

    def dismiss(self, world: World) -> None:
        """Take it away again."""
        del self.worlds[world.prefix]

    async def _start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        while not self._server.started:
            assert not self._serving.done()
            await asyncio.sleep(0.001)  # sockets: nothing in this loop could tell

    async def _stop(self) -> None:
        self._server.should_exit = True
        assert self._serving is not None
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving
        await settle()  # what was closed tells its transport so

    async def _dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        await self.worlds["/" + scope["path"].split("/")[1]].enter(scope, receive, send)
