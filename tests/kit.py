"""The test kit: a clock that stands still, raw ASGI clients that leave and stall, apps with gates."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from dedup_middleware.core.status import OUTCOMES
from dedup_middleware.flight import Flight
from dedup_middleware.flights import FlightTable
from dedup_middleware.work import Terms, Work

Message = MutableMapping[str, Any]
Pairs = Iterable[tuple[bytes, bytes]]
HOST = (b"host", b"example.test")


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def open_flight(table: FlightTable, key: bytes = b"key", max_bytes: int = 1000) -> Flight:
    """A flight that depends on nothing, in the table, for nobody's request."""
    loop = asyncio.get_running_loop()
    terms = Terms(max_wait=30.0, max_followers=10, max_bytes=max_bytes)
    flight = table.open(loop, key, terms, Work(), table.clock(), listed=True)
    assert flight is not None
    return flight


def make_table(clock: Callable[[], float], failed: Callable[[Exception], None] = print) -> FlightTable:
    """A table by itself."""
    return FlightTable(clock, threading.RLock(), max_flights=10, failed=failed)


def make_scope(
    target: str = "/", method: str = "GET", headers: Pairs = (), *, client: str = "192.0.2.1", **more: Any
) -> dict[str, Any]:
    """An http scope as a server makes it: every bytes object fresh."""
    path, _, query = target.partition("?")
    lines = [HOST, *headers] if not any(name.lower() == b"host" for name, _ in headers) else list(headers)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in lines],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


def _heard(task: asyncio.Future[Any]) -> None:
    """An error that a test does not ask for: told by the collector, it would come in the midst of another test.

    To print its traceback then breaks whatever is being compiled (Python 3.11, `ast.parse` within `ast.parse`).
    """
    if not task.cancelled():
        task.exception()


class Call:
    """One request under way: what the server saw, and what its client can do to it; without a body it says nothing."""

    def __init__(
        self, app: Any, scope: dict[str, Any], body: bytes | None = b"", *, stalled: bool = False
    ) -> None:
        self.scope = scope
        self.messages: list[Message] = []
        self.reading = asyncio.Event()
        if not stalled:
            self.reading.set()
        self.head_sent = asyncio.Event()
        self._body = body
        self._gone = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))
        self.task.add_done_callback(_heard)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head_sent.set()
        else:
            await self.reading.wait()
        if not self._gone.is_set():
            self.messages.append(message)

    def disconnect(self) -> None:
        """The client goes away; the server's task goes on (uvicorn, hypercorn, granian)."""
        self._gone.set()

    def cancel(self) -> None:
        """The server cancels the request's task (daphne, gunicorn, shutdown)."""
        self.task.cancel()

    async def done(self) -> Call:
        """Wait for the app's return; what it raised is raised here."""
        await self.task
        return self

    @property
    def started(self) -> bool:
        return bool(self.messages) and self.messages[0]["type"] == "http.response.start"

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.messages[0]["headers"])

    def header(self, name: bytes) -> bytes | None:
        """All lines of a field joined by a comma, or None."""
        lines = [value for key, value in self.headers if key.lower() == name]
        return b", ".join(lines) if lines else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        """Whether the response looks complete to its client."""
        return self.started and len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


def call(
    app: Any, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b"", **more: Any
) -> Call:
    """Send a request and do not wait for it."""
    stalled = more.pop("stalled", False)
    return Call(app, make_scope(target, method, headers, **more), body, stalled=stalled)


async def get(
    app: Any, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b"", **more: Any
) -> Call:
    """Send a request and wait for its answer."""
    return await call(app, target, method, headers, body, **more).done()


async def all_of(calls: Iterable[Call]) -> list[Call]:
    """Wait for each of these answers; what an app raised is raised here."""
    return [await one.done() for one in calls]


async def together(app: Any, bare: GatedApp, count: int, target: str = "/") -> list[Call]:
    """So many requests for the same thing, all under way before `bare`, the app inside, may answer."""
    calls = [call(app, target) for _ in range(count)]
    await settle()
    bare.gate.set()
    return await all_of(calls)


class GatedApp:
    """An app whose runs wait for a gate before they answer; it keeps every scope that it saw."""

    def __init__(
        self,
        answer: Callable[[MutableMapping[str, Any], int], tuple[int, Pairs, bytes]] | None = None,
        *,
        opened: bool = False,
    ) -> None:
        self.scopes: list[MutableMapping[str, Any]] = []
        self.gate = asyncio.Event()
        if opened:
            self.gate.set()
        self.entered = asyncio.Event()
        self._answer = answer or (lambda _, run: (200, [(b"content-type", b"text/plain")], b"run %d" % run))

    @property
    def runs(self) -> int:
        return len(self.scopes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        run = self.runs
        self.entered.set()
        await self.gate.wait()
        status, headers, body = self._answer(scope, run)
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def settle(turns: int = 20) -> None:
    """Let everything that can run now run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], turns: int = 10_000) -> None:
    """Let the loop turn until a condition holds; fail when it never does."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


async def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for what sockets, threads and processes do: how long they take is the machine's affair.

    What the loop itself does is waited for with `until`.
    """
    for _ in _looks(condition, seconds):
        await asyncio.sleep(0.001)  # nothing in this loop could tell


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """`eventually`, where no loop runs."""
    for _ in _looks(condition, seconds):
        time.sleep(0.001)  # as above


def _looks(condition: Callable[[], object], seconds: float) -> Iterator[None]:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the condition never held"
        yield


Sender = Callable[[Message], Awaitable[None]]


def head(status: int = 200, headers: Pairs = ()) -> Message:
    """The message that opens a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def chunk(body: bytes = b"", *, more: bool = True) -> Message:
    """A message of a response's body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


BODY = [chunk(b"one,"), chunk(b"two,"), chunk(b"three", more=False)]
WHOLE = b"one,two,three"


Step = Message | BaseException | type[BaseException] | Callable[[], Any] | None


class SteppedApp:
    """An app that does one step of its script each time it is told to.

    A step sends a message, raises an error, calls a function, or (None) only goes on. `began` counts the steps that
    were let through, over all runs; `cancelled` the runs that were cancelled, `ended` all that are over.
    """

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.scopes: list[MutableMapping[str, Any]] = []
        self.began = 0
        self.ended = 0
        self.cancelled = 0
        self.receive: Any = None
        self._permits = asyncio.Semaphore(0)
        self._free = False

    @property
    def runs(self) -> int:
        return len(self.scopes)

    def step(self, count: int = 1) -> None:
        """Let so many steps through."""
        for _ in range(count):
            self._permits.release()

    def finish(self) -> None:
        """Let every step of this and all later runs through."""
        self._free = True
        self.step(1000)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.receive = receive
        try:
            for step in self.script:
                if not self._free:
                    await self._permits.acquire()
                self.began += 1
                if isinstance(step, (BaseException, type)):
                    raise step
                if callable(step):
                    step()
                elif step is not None:
                    await send(dict(step))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1


class SlowCall(Call):
    """A client that takes one message of the body each time it is told to."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes = b"") -> None:
        self.permits = asyncio.Semaphore(0)
        super().__init__(app, scope, body)

    def take(self, count: int = 1) -> None:
        """Take so many messages."""
        for _ in range(count):
            self.permits.release()

    def take_all(self) -> None:
        """Read as fast as it comes from now on."""
        self.take(100_000)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.permits.acquire()
        await super()._send(message)


def requests(**numbers: int) -> dict[str, int]:
    """Requests by outcome as statistics tell them: these, and none of the others."""
    return {**dict.fromkeys(OUTCOMES, 0), **numbers}


def _running_loop() -> Any:
    return asyncio.get_running_loop()


@contextmanager
def no_task_for_flights() -> Iterator[None]:
    """The loop's task factory raises where it is to run a flight's work."""

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        if work.__qualname__ == "Flight._run":
            raise OSError("no task")
        return asyncio.Task(work, loop=loop, **more)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


class VirtualTime:
    """The running loop on the fake clock, which moves when told, and by itself when all that is left is a timer.

    Where not even a timer is left, or timers alone have run for minutes, the test has found a deadlock and fails.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._loop = _running_loop()
        self._select = self._loop._selector.select
        self._jumped = 0.0
        self._loop.time = clock
        self._loop._selector.select = self._wait

    def _wait(self, timeout: float | None) -> Any:
        if timeout is None or self._jumped > 300:
            self.restore()
            raise AssertionError("deadlock: nothing is left that could wake anybody")
        if timeout > 0:
            self._jumped += timeout
            self._clock.advance(timeout)
        return self._select(0)

    async def go(self, seconds: float) -> None:
        """Let time pass and everything that is due by then run, timer by timer."""
        end = self._clock.now + seconds
        while self._clock.now < end:
            await settle()
            due = [timer.when() for timer in self._loop._scheduled if not timer.cancelled()]
            self._clock.now = max(self._clock.now, min([end, *due]))
        await settle()

    def restore(self) -> None:
        """Give the loop its own time back."""
        self._loop._selector.select = self._select
        del self._loop.time
