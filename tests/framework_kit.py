"""The kit of the frameworks: one small app, built with each of them, and the line of the docs that wraps it.

Each app of `tests/frameworks/` has the same routes and leaves what it does to one `Work`, which has the gates.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from dedup_middleware import Dedup, DedupMiddleware

from .kit import Call, Message, Pairs, eventually, make_scope, settle

PAGE = Path(__file__).parent.parent / "docs" / "frameworks.md"
NAMES = ("Starlette", "FastAPI", "Litestar", "Quart", "Django", "Falcon", "BlackSheep", "Sanic")
LINES = dict(
    re.findall(
        r"^\| (\w+)[^|`]*(?:`asgi.py`\) )?\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
)


async def watch(dedup: Dedup) -> None:
    """What the table's timer does for flights that last: see to it that a client's leaving is noticed."""
    await settle()
    for flight in dedup.flights.under_way.values():
        flight.look(flight.loop.time())
    await settle()


class Work:
    """What an app's handlers do: they say so in `log`, and wait where a gate is shut."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.second = asyncio.Event()
        self.after_open = asyncio.Event()
        self.after_open.set()

    def shut(self) -> None:
        """From now on the handlers of /plain wait for `open`."""
        self.open.clear()

    def count(self, what: str) -> int:
        return self.log.count(what)

    def note(self, what: str) -> None:
        self.log.append(what)

    async def run(self, what: str = "run") -> str:
        """A handler's work: its number among those like it."""
        self.note(what)
        number = self.count(what)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        self.note(f"{what} ended")
        return f"{what} {number}"

    async def chunks(self) -> AsyncIterator[bytes]:
        """A stream whose second chunk is made when `second` is open."""
        self.note("stream")
        yield b"one,"
        await self.second.wait()
        self.note("chunk two")
        yield b"two"

    async def after(self) -> None:
        """What an app does when it has answered."""
        await self.after_open.wait()
        self.note("background")


class Framework(msgspec.Struct, frozen=True):
    """One of them, and in what it differs.

    `template` is the route that it leaves in the scope, `hears` that `http.disconnect` cancels a handler,
    `background` that it runs work after a response, `lifespan` that it takes the scope of that name.
    """

    name: str
    build: Callable[[Work], Any]
    template: str | None = None
    hears: bool = False
    background: bool = True
    lifespan: bool = True

    def __str__(self) -> str:
        return self.name


def load(name: str) -> Framework:
    found: Framework = importlib.import_module(f"tests.frameworks.{name.lower()}_app").FRAMEWORK
    return found


def wrapped(framework: Framework, work: Work, dedup: Dedup) -> Any:
    """The framework's app with the line of the docs, whose `DedupMiddleware` has this engine."""
    app = framework.build(work)
    given: dict[str, Any] = {
        "DedupMiddleware": functools.partial(DedupMiddleware, dedup=dedup),
        "app": app,
        "get_asgi_application": lambda: app,
    }
    exec(LINES[framework.name], given)
    return given["application"] if framework.name == "Django" else given["app"]


class Lifespan:
    """An app's lifespan as a server runs it: what it sent, and the state that it left."""

    def __init__(self, app: Any) -> None:
        self.sent: list[Message] = []
        self.state: dict[str, Any] = {}
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.task = asyncio.ensure_future(app(scope, self._said.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def say(self, what: str) -> None:
        """Startup or shutdown; returns when the app has answered, or has ended without an answer."""
        answers = len(self.sent)
        self._said.put_nowait({"type": f"lifespan.{what}"})
        await eventually(lambda: len(self.sent) > answers or self.task.done())


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Lifespan]:
    """The app between startup and shutdown; one without a lifespan is run without, as servers do."""
    lifespan = Lifespan(app)
    await lifespan.say("startup")
    try:
        yield lifespan
    finally:
        if not lifespan.task.done():
            await lifespan.say("shutdown")
        await asyncio.wait([lifespan.task])
        lifespan.task.exception()


def without_ours(messages: list[Message]) -> Iterator[Message]:
    """Messages as the bare app would send them: header names in lower case, without Cache-Status and Age."""
    for message in messages:
        if message["type"] != "http.response.start":
            yield {
                "type": message["type"],
                "body": message.get("body", b""),
                "more": message.get("more_body", False),
            }
            continue
        fields = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
        ours = (b"cache-status", b"age")
        yield {"status": message["status"], "fields": [pair for pair in fields if pair[0] not in ours]}


class Ask(Call):
    """A request as servers treat it: after its last byte, `receive` says `http.disconnect`."""

    async def _send(self, message: Message) -> None:
        await super()._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._gone.set()

    async def end(self) -> str | None:
        """Wait for the app's return; the name of what it raised."""
        await asyncio.wait([self.task])
        error = self.task.exception()
        return None if error is None else type(error).__name__


class Site:
    """An app between startup and shutdown, whose requests carry the lifespan's state as a server's do."""

    def __init__(self, app: Any, work: Work, lifespan: Lifespan | None = None) -> None:
        self.app = app
        self.work = work
        self.state = lifespan.state if lifespan is not None else {}

    def ask(self, target: str, method: str = "GET", headers: Pairs = (), **more: Any) -> Ask:
        """Send a request and do not wait for it."""
        return Ask(self.app, make_scope(target, method, headers, state=dict(self.state), **more))

    async def get(self, target: str, method: str = "GET", headers: Pairs = (), **more: Any) -> Ask:
        """Send a request and wait for its answer."""
        asked = self.ask(target, method, headers, **more)
        await asked.end()
        return asked


@asynccontextmanager
async def site(framework: Framework, dedup: Dedup | None = None) -> AsyncIterator[Site]:
    """The framework's app with the line of the docs; without an engine the bare app."""
    work = Work()
    app = framework.build(work) if dedup is None else wrapped(framework, work, dedup)
    async with running(app) as lifespan:
        yield Site(app, work, lifespan)


async def bare(framework: Framework, target: str) -> tuple[list[Message], str | None]:
    """What the app answers without us, and the name of what it raises."""
    async with site(framework) as plain:
        asked = plain.ask(target)
        error = await asked.end()
        return list(without_ours(asked.messages)), error
