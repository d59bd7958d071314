"""What an attacker tried, and what must not happen."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

import dedup_middleware.body as bodies
from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule, engine, flights
from dedup_middleware.core import callers
from dedup_middleware.core.http import response_size
from dedup_middleware.core.names import is_credential
from dedup_middleware.flight import Flight
from dedup_middleware.nesting import inside

from .kit import (
    Call,
    FakeClock,
    GatedApp,
    SlowCall,
    SteppedApp,
    VirtualTime,
    all_of,
    call,
    chunk,
    get,
    head,
    make_scope,
    make_table,
    open_flight,
    settle,
    until,
)

Make = Callable[..., Dedup]
EVERYTHING = "/{path:path}"
PAIR = tuple[bytes, bytes]
SESSION: PAIR = (b"cookie", b"sid=1")
FACTORIES: list[Any] = [None, *filter(None, [getattr(asyncio, "eager_task_factory", None)])]

every_factory = pytest.mark.parametrize(
    "factory", FACTORIES, ids=["eager" if factory else "plain" for factory in FACTORIES]
)


def use(factory: Any) -> None:
    """Make the running loop's tasks with a factory."""
    asyncio.get_running_loop().set_task_factory(factory)


class Record:
    """An app with one row: the first GET has read it and waits; a write changes it."""

    def __init__(self, on_write: Callable[[Any], None] = lambda _: None) -> None:
        self.value = b"old"
        self.gate = asyncio.Event()
        self.reads = 0
        self.on_write = on_write

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        value = b"done"
        if scope["method"] == "POST":
            self.on_write(scope)
            self.value = b"new"
        else:
            self.reads += 1
            value = self.value
            if self.reads == 1:
                await self.gate.wait()
        await send(head())
        await send(chunk(value, more=False))


async def read_after_write(
    make_dedup: Make, record: Record, reads: list[PAIR], writes: list[PAIR], *rules: Rule
) -> bytes:
    """What a caller reads after its own write, while an older read is under way."""
    app = DedupMiddleware(record, dedup=make_dedup(*rules))
    older = call(app, "/list", headers=reads)
    await settle()
    await get(app, "/add", "POST", writes)
    newer = call(app, "/list", headers=reads)
    await settle()
    record.gate.set()
    await older.done()
    return (await newer.done()).body


# -- reads after writes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        [],
        [(b"x-csrf-token", b"t")],
        [(b"dpop", b"proof")],
        [(b"cookie", b"csrf=t")],
        [(b"x-forwarded-for", b"192.0.2.9")],
    ],
    ids=["nothing", "csrf", "dpop", "cookie", "address"],
)
@pytest.mark.parametrize("richer", ["write", "read"])
async def test_a_caller_never_reads_what_was_before_its_own_write_that_carried_more_or_less(
    make_dedup: Make, extra: list[PAIR], richer: str
) -> None:
    reads = [SESSION, *extra] if richer == "read" else [SESSION]
    writes = [SESSION, *extra] if richer == "write" else [SESSION]

    assert await read_after_write(make_dedup, Record(), reads, writes) == b"new"


def _append(scope: Any) -> None:
    scope["headers"].append((b"authorization", b"added by the app"))


def _replace(scope: Any) -> None:
    scope["headers"][:] = [(b"authorization", b"put there by the app")]


@pytest.mark.parametrize("change", [_append, _replace])
async def test_an_app_that_writes_into_its_headers_does_not_hide_who_wrote(
    make_dedup: Make, change: Callable[[Any], None]
) -> None:
    alice = [(b"authorization", b"alice")]

    assert await read_after_write(make_dedup, Record(change), alice, alice) == b"new"


async def test_an_app_that_replaces_its_host_does_not_hide_what_it_changed(make_dedup: Make) -> None:
    record = Record(_replace)
    record.gate.set()
    app = DedupMiddleware(record, dedup=make_dedup(Rule("/row", ttl=60)))
    await get(app, "/row")
    await get(app, "/row", "POST")

    assert (await get(app, "/row")).body == b"new"


async def test_a_write_never_parses_a_waiters_credentials_twice(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def count(name: str) -> bool:
        parsed.append(name)
        return is_credential(name)

    gate = GatedApp()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await gate(scope, receive, send)
        else:
            await send(head())
            await send(chunk(more=False))

    app = DedupMiddleware(inner, dedup=make_dedup(Rule(EVERYTHING, identity="shared", methods=["GET"])))
    waiting = [
        call(app, f"/{flight}", headers=[(b"cookie", b"sid=%d" % waiter)])
        for flight in range(3)
        for waiter in range(10)
    ]
    await settle()
    monkeypatch.setattr(callers, "is_credential", count)
    for write in range(3):
        await get(app, "/x", "POST", [(b"cookie", b"sid=writer")])
        own = 2 * (write + 1)  # before the head goes out, and when the app is over
        assert len(parsed) <= 30 + own  # each has one field that is no cookie: Host
    assert len(parsed) >= 30
    gate.gate.set()
    await all_of(waiting)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("int", "7", "007"),
        ("float", "1.5", "1.50"),
        ("uuid", "0b0e1c2a-0000-4000-8000-00000000000f", "0B0E1C2A-0000-4000-8000-00000000000F"),
    ],
)
async def test_another_spelling_of_a_typed_parameter_never_leaves_the_old_response(
    make_dedup: Make, kind: str, one: str, other: str
) -> None:
    record = Record()
    record.gate.set()
    dedup = make_dedup(
        Rule(f"/chat/{{port:{kind}}}", ttl=60, tags=["chat:{port}"], methods=["GET"]),
        Rule(f"/chat/{{port:{kind}}}/send", methods=["POST"], invalidates=["chat:{port}"]),
    )
    app = DedupMiddleware(record, dedup=dedup)
    await get(app, f"/chat/{one}")
    await get(app, f"/chat/{other}/send", "POST")

    assert (await get(app, f"/chat/{one}")).body == b"new"


@pytest.mark.parametrize(
    "host", [b"example.test:80", b"example.test:443", b"example.test.", b"EXAMPLE.test.:80", b"example.test:"]
)
async def test_another_spelling_of_the_host_never_leaves_the_old_response(
    make_dedup: Make, host: bytes
) -> None:
    record = Record()
    record.gate.set()
    app = DedupMiddleware(record, dedup=make_dedup(Rule("/row", ttl=60)))
    await get(app, "/row")
    await get(app, "/row", "POST", [(b"host", host)])

    assert (await get(app, "/row")).body == b"new"


async def test_another_port_is_another_target(make_dedup: Make) -> None:
    record = Record()
    record.gate.set()
    app = DedupMiddleware(record, dedup=make_dedup(Rule("/row", ttl=60)))
    await get(app, "/row")
    await get(app, "/row", "POST", [(b"host", b"example.test:8080")])

    assert (await get(app, "/row")).body == b"old"


# -- functions -----------------------------------------------------------------------------------------------------


async def test_a_stored_value_never_outlives_the_invalidation_of_this_callers_tag(make_dedup: Make) -> None:
    dedup, value = make_dedup(), ["old"]

    async def read() -> str:
        return value[0]

    assert await dedup.call("row", read, ttl=60, tags=["a"]) == "old"
    assert await dedup.call("row", read, ttl=60, tags=["b"]) == "old"
    value[0] = "new"
    await dedup.invalidate("b")

    assert await dedup.call("row", read, ttl=60, tags=["b"]) == "new"
    await dedup.aclose()


async def test_a_flight_never_takes_newcomers_after_the_invalidation_of_a_followers_tag(
    make_dedup: Make,
) -> None:
    dedup, value, gate = make_dedup(), ["old"], asyncio.Event()

    async def read() -> str:
        seen = value[0]
        await gate.wait()
        return seen

    leader = asyncio.ensure_future(dedup.call("row", read, ttl=60, tags=["a"]))
    await settle()
    follower = asyncio.ensure_future(dedup.call("row", read, ttl=60, tags=["b"]))
    await settle()
    value[0] = "new"
    await dedup.invalidate("b")
    newcomer = asyncio.ensure_future(dedup.call("row", read, ttl=60, tags=["b"]))
    await settle()
    gate.set()

    assert list(await asyncio.gather(leader, follower, newcomer)) == ["old", "old", "new"]
    assert await dedup.call("row", read, ttl=60, tags=["b"]) == "new"
    await dedup.aclose()


async def test_a_value_that_a_follower_tagged_is_not_kept_past_that_tags_invalidation(
    make_dedup: Make,
) -> None:
    dedup, gate, runs = make_dedup(), asyncio.Event(), [0]

    async def read() -> int:
        runs[0] += 1
        await gate.wait()
        return runs[0]

    leader = asyncio.ensure_future(dedup.call("row", read, ttl=60, tags=["a"]))
    await settle()
    follower = asyncio.ensure_future(dedup.call("row", read, ttl=60, tags=["b"]))
    await settle()
    gate.set()
    assert list(await asyncio.gather(leader, follower)) == [1, 1]
    assert await dedup.call("row", read, ttl=60, tags=["a"]) == 1
    assert await dedup.call("row", read, ttl=60, tags=["b"]) == 1
    await dedup.invalidate("b")

    assert await dedup.call("row", read, ttl=60, tags=["a"]) == 2
    await dedup.aclose()


# -- eager tasks ---------------------------------------------------------------------------------------------------


@every_factory
async def test_a_stream_is_never_cut_by_a_disconnect_that_nobody_sent(make_dedup: Make, factory: Any) -> None:
    use(factory)
    dedup = make_dedup()

    async def pieces() -> Any:
        for number in range(3):
            yield b"piece %d;" % number

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(pieces())(scope, receive, send)

    app = DedupMiddleware(inner, dedup=dedup)
    for answer in [await get(app, "/s"), *await asyncio.gather(*(get(app, "/s") for _ in range(3)))]:
        assert answer.complete
        assert answer.body == b"piece 0;piece 1;piece 2;"
    await settle()
    assert not dedup.flights.under_way


@every_factory
async def test_an_app_never_hears_a_disconnect_while_its_leader_waits(make_dedup: Make, factory: Any) -> None:
    use(factory)
    heard: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])
        second = asyncio.ensure_future(receive())
        await settle()
        heard.append(second.done())
        second.cancel()
        await send(head())
        await send(chunk(b"whole", more=False))

    app = DedupMiddleware(inner, dedup=make_dedup())

    assert (await get(app, "/")).body == b"whole"
    assert heard == ["http.request", False]


@every_factory
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_no_task_is_left_of_requests_and_calls(
    make_dedup: Make, factory: Any, waits: bool, fails: bool
) -> None:
    use(factory)
    dedup = make_dedup()

    async def work() -> int:
        if waits:
            await asyncio.sleep(0)
        if fails:
            raise LookupError
        return 1

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await work()
        await send(head())
        await send(chunk(b"1", more=False))

    app = DedupMiddleware(inner, dedup=dedup)
    for number in range(5):
        with contextlib.suppress(LookupError):
            assert (await get(app, f"/{number}")).body == b"1"
        with contextlib.suppress(LookupError):
            assert await dedup.call(number, work) == 1
    await settle()
    assert dedup.flights.is_empty


@every_factory
@pytest.mark.parametrize("front", ["call", "request"])
async def test_two_that_need_each_other_never_wait_for_each_other(
    make_dedup: Make, factory: Any, front: str
) -> None:
    use(factory)
    dedup, runs = make_dedup(), {"a": 0, "b": 0}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        me = scope["path"].strip("/")
        runs[me] += 1
        if sum(runs.values()) < 4:
            await need("b" if me == "a" else "a")
        await send(head())
        await send(chunk(me.encode(), more=False))

    app = DedupMiddleware(inner, dedup=dedup)

    async def need(name: str) -> str:
        if front == "request":
            return (await get(app, f"/{name}")).body.decode()

        async def fn() -> str:
            runs[name] += 1
            if sum(runs.values()) < 4:
                await need("b" if name == "a" else "a")
            return name

        return await dedup.call(name, fn)

    first = asyncio.ensure_future(need("a"))
    try:
        await until(first.done, 500)
        assert first.result() == "a"
    finally:
        await dedup.aclose()
        await asyncio.gather(first, return_exceptions=True)


# -- bodies --------------------------------------------------------------------------------------------------------

PIECE = 1024
PIECES = 40


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small budget for all bodies."""
    monkeypatch.setattr(flights, "MAX_BUFFERED", 8 * PIECE)
    monkeypatch.setattr(bodies, "SPENT_LIMIT", 2 * PIECE)


def piece(path: str, number: int) -> bytes:
    return (path.encode() + b" %d|" % number).ljust(PIECE, b".")


def whole(path: str) -> bytes:
    return b"".join(piece(path, number) for number in range(PIECES))


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await send(head())
    for number in range(PIECES):
        await send(chunk(piece(scope["path"], number), more=number < PIECES - 1))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("readers", [1, 2], ids=["alone", "two-each"])
async def test_bodies_of_many_slow_readers_never_hold_more_than_the_budget(
    make_dedup: Make, readers: int
) -> None:
    dedup = make_dedup()
    budget = dedup.flights.budget
    app = DedupMiddleware(stream, dedup=dedup)
    slow = [SlowCall(app, make_scope(f"/{number}")) for number in range(20) for _ in range(readers)]
    await settle(4 * PIECES)
    opened = list(dedup.flights.under_way.values())
    assert len(opened) == 20
    bound = budget.limit + 20 * (bodies.SPENT_LIMIT + PIECE)
    for _ in range(PIECES):
        assert budget.used <= bound
        assert budget.used == sum(flight.held for flight in opened)
        for one in slow:
            one.take()
        await settle()
    for one in slow:
        one.take_all()
    for one in slow:
        await one.done()
        assert one.complete
        assert one.body == whole(one.scope["path"])
    await settle()
    assert budget.used == 0


async def _lands(dedup: Dedup) -> None:
    app = DedupMiddleware(stream, dedup=dedup)
    for one in [call(app, "/a"), call(app, "/a")]:
        assert (await one.done()).body == whole("/a")


async def _stays_kept(dedup: Dedup) -> None:
    inner = GatedApp()
    app = DedupMiddleware(inner, dedup=dedup)
    stalled = [call(app, "/k", stalled=True) for _ in range(3)]
    await settle()
    inner.gate.set()
    await settle()
    for one in stalled:
        one.reading.set()
        assert (await one.done()).body == b"run 1"


async def _fails(dedup: Dedup) -> None:
    inner = SteppedApp(head(), *(chunk(piece("/f", n)) for n in range(12)), LookupError())
    app = DedupMiddleware(inner, dedup=dedup)
    ones: list[Call] = [SlowCall(app, make_scope("/f")), SlowCall(app, make_scope("/f"))]
    inner.finish()
    await settle(50)
    for one in ones:
        assert isinstance(one, SlowCall)
        one.take_all()
    ends = await asyncio.gather(*(one.task for one in ones), return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ends)


async def _is_left(dedup: Dedup, how: str, personal: bool, pieces: int) -> None:
    """The readers leave, and the app goes on without them."""
    fields = [(b"set-cookie", b"a=1")] if personal else []
    script = [chunk(piece("/l", number)) for number in range(pieces)]
    inner = SteppedApp(head(200, fields), *script, chunk(piece("/l", 99), more=False))
    app = DedupMiddleware(inner, dedup=dedup)
    one = call(app, "/l")
    await settle()
    inner.step(3)
    await until(lambda: len(one.messages) == 3)
    if how == "cancel":
        one.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
    else:
        one.disconnect()
        for flight in list(dedup.flights.under_way.values()):
            flight.look(flight.started)
        await settle()
    inner.finish()
    await until(lambda: inner.ended == 1)
    await asyncio.gather(one.task, return_exceptions=True)


async def _loses_a_slow_reader(dedup: Dedup) -> None:
    app = DedupMiddleware(stream, dedup=dedup)
    quick, slow = call(app, "/c"), SlowCall(app, make_scope("/c"))
    assert (await quick.done()).body == whole("/c")
    slow.take_all()
    with pytest.raises(Exception, match="SlowReader"):
        await slow.done()
    assert not slow.complete


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("limit", [1 << 20, 4 * PIECE], ids=["kept", "outgrown"])
@pytest.mark.parametrize(
    "story",
    [
        _lands,
        _stays_kept,
        _fails,
        lambda dedup: _is_left(dedup, "cancel", False, 8),
        lambda dedup: _is_left(dedup, "cancel", True, 8),
        lambda dedup: _is_left(dedup, "cancel", True, 30),
        lambda dedup: _is_left(dedup, "disconnect", False, 8),
        lambda dedup: _is_left(dedup, "disconnect", True, 8),
        _loses_a_slow_reader,
    ],
    ids=[
        "landed",
        "stalled",
        "failed",
        "cancelled",
        "cancelled-personal",
        "cancelled-long",
        "disconnected",
        "disconnected-personal",
        "cut",
    ],
)
async def test_the_budget_never_counts_what_is_over(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch, story: Callable[[Dedup], Any], limit: int
) -> None:
    monkeypatch.setattr(bodies, "MAX_HOLD", 0.0)  # a reader that holds up another one is cut at once
    monkeypatch.setattr(bodies, "OWN_HOLD", 0.0)
    dedup = make_dedup(Rule(EVERYTHING, max_response_body=limit))
    await story(dedup)
    await settle()
    assert not dedup.flights.under_way
    assert dedup.flights.budget.used == 0


@pytest.mark.parametrize("ttl", [0, 60])
async def test_background_work_however_long_never_holds_the_body_that_was_sent(
    ttl: int, virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x" * 1000, more=False), None)
    dedup = make_dedup(Rule(EVERYTHING, ttl=ttl))
    app = DedupMiddleware(bare, dedup=dedup)
    one = call(app, "/x")
    slow = SlowCall(app, make_scope("/x"))
    await settle()
    bare.step(2)
    await settle()
    assert dedup.flights.budget.used == 1000
    await virtual_time.go(0.5)
    assert dedup.flights.budget.used == 1000, "one has yet to read it"
    slow.take_all()
    await slow.done()

    assert len(dedup.flights.under_way) == 1
    assert dedup.flights.budget.used == 0
    assert dedup.store.responses == (1 if ttl else 0)
    bare.finish()
    assert (await one.done()).body == slow.body == b"x" * 1000


class CountingReader:
    """A reader that counts how often somebody looks where it stands."""

    looks = 0
    moved_at = 0.0
    held_for = 0.0
    cut = False

    def __init__(self) -> None:
        self.position = 0

    @property
    def position(self) -> int:
        CountingReader.looks += 1
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        self._position = value


async def _looks(readers: int) -> int:
    body = open_flight(make_table(FakeClock()), max_bytes=1 << 20)
    all_readers = [CountingReader() for _ in range(readers)]
    for reader in all_readers:
        body.join(reader)
    body.stop_keeping()
    CountingReader.looks = 0
    for _ in range(20):
        await body.add(b"x" * 100)
        for reader in all_readers:
            body.advance(reader)
        assert body.held == 0
    return CountingReader.looks


async def test_trimming_a_stream_never_looks_at_all_readers_for_each_of_them() -> None:
    few, many = await _looks(20), await _looks(200)

    assert many <= 10 * few + 200


def test_the_charge_of_a_response_never_leaves_out_what_its_names_hold() -> None:
    names = [f"tag:{number}" for number in range(10)]
    charged = response_size([], b"", names) - response_size([], b"", ())
    key = bytes(16)
    slot = sys.getsizeof(dict.fromkeys(range(10_000))) / 10_000
    held = sum(sys.getsizeof({key}) + sys.getsizeof(name) + slot for name in names)

    assert charged >= held


# -- what is left behind -------------------------------------------------------------------------------------------


@every_factory
async def test_a_task_left_behind_never_keeps_the_body_nor_counts_as_nested(
    make_dedup: Make, factory: Any
) -> None:
    use(factory)
    dedup, seen, left = make_dedup(), list[Flight | None](), list[asyncio.Future[Any]]()
    go, gate, runs = asyncio.Event(), asyncio.Event(), [0]

    async def later() -> list[bytes | None]:
        await go.wait()
        answers = await asyncio.gather(*(get(app, "/slow") for _ in range(3)))
        return [answer.header(b"cache-status") for answer in answers]

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            runs[0] += 1
            await gate.wait()
        else:
            seen.append(inside.get())
            left.append(asyncio.ensure_future(later()))
        await send(head())
        await send(chunk(b"x" * 1000, more=False))

    app = DedupMiddleware(inner, dedup=dedup)
    await get(app, "/start")
    await settle()
    assert seen[0] is not None
    assert seen[0].chunks == []
    assert dedup.flights.budget.used == 0

    go.set()
    await settle()
    gate.set()
    statuses = await left[0]
    assert runs == [1]
    assert sum(b"collapsed" in (status or b"") for status in statuses) == 2


# -- shutdown ------------------------------------------------------------------------------------------------------


class Life:
    """A server's side of an app's lifespan."""

    def __init__(self, app: Any) -> None:
        self.told: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: list[str] = []
        self.task = asyncio.ensure_future(
            app({"type": "lifespan", "asgi": {"version": "3.0"}}, self.told.get, self._send)
        )
        self.told.put_nowait({"type": "lifespan.startup"})

    async def _send(self, message: Any) -> None:
        self.heard.append(message["type"])

    async def shut_down(self) -> None:
        self.told.put_nowait({"type": "lifespan.shutdown"})
        await self.task
        assert self.heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def living(inner: Any) -> Any:
    """An app with a lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await inner(scope, receive, send)

    return app


async def test_one_apps_shutdown_never_cancels_the_flights_of_another(make_dedup: Make) -> None:
    dedup, mine, other = make_dedup(), GatedApp(), GatedApp()
    stopping = DedupMiddleware(living(mine), dedup=dedup)
    staying = DedupMiddleware(living(other), dedup=dedup)
    life = Life(stopping)
    await settle()
    lost = call(stopping, "/x")
    kept = [call(staying, "/x"), call(staying, "/x")]
    value = asyncio.ensure_future(dedup.call("k", other.gate.wait))
    await settle()
    await life.shut_down()
    with pytest.raises(asyncio.CancelledError):
        await lost.done()
    other.gate.set()

    assert [(await one.done()).body for one in kept] == [b"run 1", b"run 1"]
    assert await value is True


async def test_a_function_that_runs_for_nobody_never_outlives_the_app_that_closes_what_it_uses(
    make_dedup: Make,
) -> None:
    dedup, heard = make_dedup(), []
    life = Life(DedupMiddleware(living(GatedApp()), dedup=dedup))

    async def rows() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            heard.extend(life.heard)

    left = asyncio.ensure_future(dedup.call("rows", rows, ttl=60))
    await settle()
    left.cancel()
    await settle()
    await life.shut_down()

    assert heard == ["lifespan.startup.complete"], "it ended before the app was told to"


async def test_a_shutdown_never_hangs_on_an_app_that_swallows_its_cancellation(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "GRACE", 0.01)
    end = asyncio.Event()
    swallowed: list[int] = []

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                swallowed.append(1)
        await send(head())
        await send(chunk(b"late", more=False))

    app = DedupMiddleware(living(stubborn), dedup=make_dedup())
    life = Life(app)
    await settle()
    one = call(app, "/x")
    await settle()
    await asyncio.wait_for(life.shut_down(), 30)
    assert swallowed == [1]
    end.set()

    assert (await one.done()).body == b"late"


async def test_the_error_of_a_forward_that_a_vary_left_behind_is_never_swallowed(make_dedup: Make) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        flavor = dict(scope["headers"]).get(b"x-flavor")
        await send(head(200, [(b"vary", b"x-flavor")]))
        await send(chunk(flavor or b"none", more=False))
        if flavor is None:
            raise LookupError("after the answer")

    app = DedupMiddleware(inner, dedup=make_dedup(Rule(EVERYTHING, vary=[])))
    one = call(app, "/", headers=[(b"x-flavor", b"a")])
    with pytest.raises(LookupError, match="after the answer"):
        await one.done()
    assert one.body == b"a"


# -- a second look ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [Rule("/api/x", identity="shared", vary=[]), Rule.shared_cache("/api/x")], ids=str
)
async def test_who_asks_again_for_another_variant_asks_as_the_client_did(
    rule: Rule, make_dedup: Make
) -> None:
    async def page(request: Request) -> Response:
        return Response(request.cookies.get("a", "none"), headers={"vary": "Cookie"})

    routed = Starlette(routes=[Mount("/api", routes=[Route("/x", page)])])

    answer = await get(
        DedupMiddleware(routed, dedup=make_dedup(rule)), "/api/x", headers=[(b"cookie", b"a=1")]
    )

    assert (answer.status, answer.body) == (200, b"1")


async def test_a_write_drops_what_a_second_run_for_another_variant_stored(make_dedup: Make) -> None:
    runs = 0

    async def stripping(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        runs += 1
        scope["path"] = scope["path"][4:]
        await send(head(200, [(b"vary", b"cookie")]))
        await send(chunk(b"%d" % runs, more=False))

    app = DedupMiddleware(stripping, dedup=make_dedup(Rule("/api/x", ttl=60, identity="shared", vary=[])))
    before = await get(app, "/api/x", headers=[(b"cookie", b"a=1")])
    await call(app, "/api/x", "POST").done()

    after = await get(app, "/api/x", headers=[(b"cookie", b"a=1")])

    assert (before.body, after.body) == (b"2", b"4")


@pytest.mark.parametrize(
    "field", ["no-store", "private", "no-cache", "max-age=0", "max-age=60", "set-cookie"]
)
async def test_a_hidden_field_that_vary_names_is_shown_even_where_the_answer_is_for_one_alone(
    field: str, make_dedup: Make
) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        said = (b"set-cookie", b"n=1") if field == "set-cookie" else (b"cache-control", field.encode())
        await send(head(200, [(b"vary", b"Cookie"), said]))
        await send(chunk(dict(scope["headers"]).get(b"cookie", b"nobody"), more=False))

    for rule in (Rule.shared_cache("/x"), Rule("/x", ttl=60, identity="shared", vary=[])):
        app = DedupMiddleware(page, dedup=make_dedup(rule))
        for who in (b"sid=alice", b"sid=alice", b"sid=bob"):
            assert (await get(app, "/x", headers=[(b"cookie", who)])).body == who
        assert (await get(app, "/x")).body == b"nobody"


async def test_what_is_sent_after_the_apps_return_is_heard_by_nobody_and_counted_nowhere(
    make_dedup: Make,
) -> None:
    late: list[asyncio.Task[None]] = []

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send(head())

        async def rest() -> None:
            await asyncio.sleep(0)
            await send(chunk(b"x" * 1000, more=True))
            await send(chunk(b"x" * 1000, more=False))

        late.append(asyncio.create_task(rest()))

    dedup = make_dedup(Rule(EVERYTHING, ttl=60))
    app = DedupMiddleware(hasty, dedup=dedup)
    one, other = call(app, "/x"), call(app, "/x")
    await settle()
    await asyncio.gather(*late)

    with pytest.raises(ForwardFailed):
        await other.done()
    await one.done()
    assert one.body == b""
    assert (dedup.flights.budget.used, dedup.store.responses) == (0, 0)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_an_exit_in_a_handler_is_the_requests_own_to_raise(
    error: BaseException, make_dedup: Make
) -> None:
    async def quits(scope: Any, receive: Any, send: Any) -> None:
        raise error

    app = DedupMiddleware(quits, dedup=make_dedup())
    raised: list[BaseException] = []

    async def guarded(scope: Any, receive: Any, send: Any) -> None:  # as servers run an app
        try:
            await app(scope, receive, send)
        except BaseException as failure:  # noqa: BLE001 - whatever it is
            raised.append(failure)

    one, other = call(guarded, "/x"), call(guarded, "/x")
    await one.done()
    await other.done()

    assert error in raised
    assert sorted(type(failure).__name__ for failure in raised) == sorted(
        [type(error).__name__, "ForwardFailed"]
    )


@pytest.mark.parametrize(
    "lines", [[b"5", b"6"], [b"9, 9"], [b"+5"], [b"9" * 30], [b"five"]], ids=lambda lines: repr(lines)[:20]
)
async def test_a_length_that_no_body_can_have_is_stored_by_nobody(
    lines: list[bytes], make_dedup: Make
) -> None:
    # RFC 9110 s.8.6
    async def odd(scope: Any, receive: Any, send: Any) -> None:
        await send(head(200, [(b"content-length", line) for line in lines]))
        await send(chunk(b"12345", more=False))

    dedup = make_dedup(Rule(EVERYTHING, ttl=60))
    await get(DedupMiddleware(odd, dedup=dedup), "/x")

    assert dedup.store.responses == 0


async def test_a_number_is_no_body(make_dedup: Make) -> None:
    async def odd(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await send({"type": "http.response.body", "body": 5, "more_body": False})

    with pytest.raises(TypeError):
        await get(DedupMiddleware(odd, dedup=make_dedup()), "/x")
