"""Statistics: every request counts once, under one outcome and one reason; what `dedup.stats()` says of it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule
from dedup_middleware.core.rules import SHARED_CACHE
from dedup_middleware.core.status import OUTCOMES, REASONS

from .kit import (
    Call,
    FakeClock,
    GatedApp,
    Message,
    SlowCall,
    SteppedApp,
    VirtualTime,
    all_of,
    call,
    chunk,
    get,
    head,
    make_scope,
    requests,
    settle,
)

Make = Callable[..., Dedup]


def counted(dedup: Dedup) -> Counter[tuple[str, str]]:
    """How many requests there were, by outcome and reason."""
    total: Counter[tuple[str, str]] = Counter()
    for (outcome, reason, _, _), number in dedup.telemetry.counts.items():
        total[outcome, reason] += number
    return total


# -- one request -------------------------------------------------------------------------------------------------


class Odd:
    """Nothing that could be told apart from another one."""


class Session(dict[str, object]):
    """A session as a middleware outside of us leaves it in the scope."""


def many(number: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-%d" % n, b"") for n in range(number)]


def refuse(scope: Any) -> str:
    raise LookupError("who?")


QUERY: dict[str, Any] = {"method": "QUERY"}
BODY = [(b"transfer-encoding", b"chunked")]
NONCE = [(b"content-security-policy", b"script-src 'nonce-r4nd0m'")]
SHARED: dict[str, Any] = dict(SHARED_CACHE)
FRESH = [(b"cache-control", b"max-age=60")]
ONE: list[tuple[str, str, dict[str, Any], dict[str, Any], tuple[int, list[tuple[bytes, bytes]]]]] = [
    # outcome, reason, the default rule, the request, the answer's status and fields
    ("forwarded", "miss", {}, {}, (200, [])),
    ("forwarded", "miss", {"ttl": 60}, {"method": "HEAD"}, (200, [])),
    ("forwarded", "not-collapsed", {"collapse": False}, {}, (200, [])),
    ("forwarded", "set-cookie", {}, {}, (200, [(b"set-cookie", b"a=1")])),
    ("forwarded", "personal-field", {}, {}, (200, [(b"authentication-info", b"x")])),
    ("forwarded", "no-store", {}, {}, (200, [(b"cache-control", b"no-store")])),
    ("forwarded", "no-cache", {}, {}, (200, [(b"cache-control", b"max-age=0")])),
    ("forwarded", "private", {"identity": "shared"}, {}, (200, [(b"cache-control", b"private")])),
    ("forwarded", "nonce", {"identity": "shared"}, {}, (200, NONCE)),
    ("forwarded", "vary", {}, {}, (200, [(b"vary", b"*")])),
    ("forwarded", "refusal", {}, {}, (403, [])),
    ("forwarded", "partial", {"ttl": 60}, {"headers": [(b"if-none-match", b'"a"')]}, (304, [])),
    ("forwarded", "stream", {}, {}, (200, [(b"content-type", b"text/event-stream")])),
    ("forwarded", "too-large", {"max_response_body": 5}, {}, (200, [(b"content-length", b"6")])),
    ("forwarded", "server-error", {"share_errors": False}, {}, (500, [])),
    ("forwarded", "authorization", SHARED, {"headers": [(b"authorization", b"x")]}, (200, FRESH)),
    ("forwarded", "no-freshness", SHARED, {}, (302, [])),
    ("forwarded", "miss", SHARED, {"headers": [(b"cache-control", b"no-cache")]}, (200, FRESH)),
    ("bypassed", "no-store", SHARED, {"headers": [(b"cache-control", b"no-store")]}, (200, FRESH)),
    ("bypassed", "only-if-cached", SHARED, {"headers": [(b"cache-control", b"only-if-cached")]}, (504, [])),
    ("bypassed", "method", {}, {"method": "POST"}, (200, [])),
    ("bypassed", "method", {}, {"method": "BREW"}, (500, [])),
    ("bypassed", "method", {}, {"method": "OPTIONS"}, (200, [])),
    ("bypassed", "off", {"mode": "off"}, {}, (200, [])),
    ("bypassed", "target", {}, {"target": "/a//b"}, (200, [])),
    ("bypassed", "target", {}, {"target": "/a?b=\x00"}, (200, [])),
    ("bypassed", "upgrade", {}, {"headers": [(b"upgrade", b"h2c")]}, (200, [])),
    ("bypassed", "precondition", {}, {"headers": [(b"if-match", b'"a"')]}, (412, [])),
    ("bypassed", "duplicate-field", {}, {"headers": [(b"content-type", b"a/b")] * 2}, (200, [])),
    ("bypassed", "too-many-headers", {}, {"headers": many(5000)}, (431, [])),
    ("bypassed", "request-body", {}, {"headers": BODY, "body": b"x"}, (200, [])),
    ("bypassed", "body-too-large", {"max_request_body": 5}, {**QUERY, "body": b"123456"}, (200, [])),
    ("bypassed", "body-length", {}, {**QUERY, "headers": [(b"content-length", b"x")]}, (400, [])),
    (
        "bypassed",
        "credential",
        {"identity": ["cookie:id"]},
        {"headers": [(b"authorization", b"x")]},
        (200, []),
    ),
    ("bypassed", "identity", {"identity": refuse}, {}, (200, [])),
    ("bypassed", "user", {}, {"user": Odd()}, (200, [])),
    ("bypassed", "session", {}, {"session": {"a": Odd()}}, (200, [])),
    ("bypassed", "state", {}, {"state": {"a": Odd()}}, (200, [])),
    ("bypassed", "certificate", {}, {"extensions": {"tls": {"a": Odd()}}}, (200, [])),
    ("bypassed", "unencodable", {}, {"path": "/\udc80", "raw_path": b"/%80"}, (200, [])),
]


@pytest.mark.parametrize(
    ("outcome", "reason", "rule", "request_", "answer"),
    ONE,
    ids=[f"{number}-{outcome}-{reason}" for number, (outcome, reason, *_) in enumerate(ONE)],
)
async def test_a_request_by_itself_counts_once(
    outcome: str,
    reason: str,
    rule: dict[str, Any],
    request_: dict[str, Any],
    answer: tuple[int, list[tuple[bytes, bytes]]],
    make_dedup: Make,
) -> None:
    dedup = make_dedup(default=Rule(**rule))
    one = await get(
        DedupMiddleware(GatedApp(lambda *_: (*answer, b"123456"), opened=True), dedup=dedup), **request_
    )
    assert one.status == answer[0]
    assert counted(dedup) == {(outcome, reason): 1}


# -- several -----------------------------------------------------------------------------------------------------


class World:
    """What a script needs; `sent` is how many requests it made."""

    def __init__(self, make: Make, time: VirtualTime, clock: FakeClock) -> None:
        self.make = make
        self.time = time
        self.clock = clock
        self.dedup = make()
        self.sent = 0

    def use(self, bare: Any, *rules: Rule, **settings: Any) -> Any:
        self.dedup = self.make(*rules, **settings)
        return DedupMiddleware(bare, dedup=self.dedup)

    def calls(self, app: Any, number: int = 1, target: str = "/", **more: Any) -> list[Call]:
        self.sent += number
        return [call(app, target, **more) for _ in range(number)]


async def ended(calls: list[Call]) -> list[BaseException | None]:
    """What became of them."""
    return [
        end if isinstance(end, BaseException) else None
        for end in await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    ]


class Unsendable(Call):
    """A client whose server fails to send."""

    async def _send(self, message: Message) -> None:
        raise OSError("gone")


Script = Callable[[World], Awaitable[None]]
SEVERAL: list[tuple[dict[tuple[str, str], int], Script]] = []


def counts(expected: dict[tuple[str, str], int]) -> Callable[[Script], Script]:
    def add(script: Script) -> Script:
        SEVERAL.append((expected, script))
        return script

    return add


FORWARDED, COLLAPSED, HIT = ("forwarded", "miss"), ("collapsed", "in-flight"), ("hit", "fresh")


@counts({FORWARDED: 1, COLLAPSED: 4, HIT: 2, ("hit", "not-modified"): 1})
async def a_stampede_and_what_comes_after(world: World) -> None:
    bare = GatedApp(lambda *_: (200, [(b"etag", b'"a"')], b"x"))
    app = world.use(bare, Rule("/", ttl=60))
    calls = world.calls(app, 5)
    await settle()
    bare.gate.set()
    await ended(calls)
    await ended(world.calls(app) + world.calls(app, method="HEAD"))
    await ended(world.calls(app, headers=[(b"if-none-match", b'"a"')]))


@counts(
    {
        FORWARDED: 1,
        ("hit", "range"): 1,
        ("stale", "max-stale"): 1,
        ("stale", "stale-if-error"): 1,
        ("revalidated", "stale"): 1,
        ("forwarded", "stale"): 1,
        ("stale", "stale-while-revalidate"): 1,
    }
)
async def what_is_stored_and_grows_old(world: World) -> None:
    tagged = [
        (b"cache-control", b"max-age=60, stale-while-revalidate=10, stale-if-error=90"),
        (b"etag", b'"a"'),
    ]
    answers = iter([(200, tagged), (503, []), (304, tagged), (200, tagged), (304, tagged)])
    app = world.use(GatedApp(lambda *_: (*next(answers), b"x"), opened=True), default=Rule(**SHARED))
    await ended(world.calls(app))
    await ended(world.calls(app, headers=[(b"range", b"bytes=0-0")]))
    world.clock.advance(75)
    await ended(world.calls(app, headers=[(b"cache-control", b"max-stale=60")]))
    for seconds in (0, 0, 75):
        world.clock.advance(seconds)
        await ended(world.calls(app))
    world.clock.advance(65)
    await ended(world.calls(app))
    await settle()


@counts({FORWARDED: 1, ("forwarded", "request"): 1})
async def a_fresh_response_and_one_who_wants_another(world: World) -> None:
    app = world.use(GatedApp(lambda *_: (200, FRESH, b"x"), opened=True), default=Rule(**SHARED))
    await ended(world.calls(app))
    await ended(world.calls(app, headers=[(b"cache-control", b"no-cache")]))


@counts({("forwarded", "failed"): 1, COLLAPSED: 3})
async def an_app_that_raises(world: World) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    assert [type(end) for end in await ended(world.calls(world.use(failing), 4))] == [
        *(ValueError, ForwardFailed, ForwardFailed, ForwardFailed)
    ]


@counts({("forwarded", "failed"): 1, ("forwarded", "unshared-error"): 3})
async def an_app_that_raises_once_and_shares_no_errors(world: World) -> None:
    runs = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        runs.append(scope)
        await asyncio.sleep(0)
        if len(runs) == 1:
            raise ValueError
        await send(head())
        await send(chunk(b"a", more=False))

    await ended(world.calls(world.use(failing, default=Rule(share_errors=False)), 4))


@counts({("forwarded", "server-error"): 1, ("forwarded", "unshared-error"): 3})
async def an_app_that_answers_an_error_once_and_shares_none(world: World) -> None:
    statuses = [503]

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send(head(statuses.pop() if statuses else 200))
        await send(chunk(b"a", more=False))

    await ended(world.calls(world.use(failing, default=Rule(share_errors=False)), 4))


@counts({("forwarded", "failed"): 4})
async def an_app_that_raises_and_shares_no_errors(world: World) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError

    await ended(world.calls(world.use(failing, default=Rule(share_errors=False)), 4))


@counts({("forwarded", "failed"): 1, COLLAPSED: 3})
async def an_app_that_raises_in_the_body(world: World) -> None:
    bare = SteppedApp(head(), chunk(b"a"), ValueError())
    calls = world.calls(world.use(bare), 4)
    await settle()
    bare.finish()
    assert all(await ended(calls))


@counts({("forwarded", "failed"): 1, COLLAPSED: 3})
async def an_app_that_forgets_to_answer(world: World) -> None:
    calls = world.calls(world.use(SteppedApp()), 4)
    assert sum(end is not None for end in await ended(calls)) == 3


@counts({FORWARDED: 1, COLLAPSED: 3})
async def an_app_that_answers_500(world: World) -> None:
    bare = GatedApp(lambda *_: (500, [], b""))
    calls = world.calls(world.use(bare), 4)
    await settle()
    bare.gate.set()
    await ended(calls)


@counts({FORWARDED: 1, COLLAPSED: 3})
async def a_leader_and_a_follower_that_are_cancelled_before_the_head(world: World) -> None:
    bare = GatedApp()
    calls = world.calls(world.use(bare), 4)
    await settle()
    for victim in calls[:2]:
        victim.cancel()
    await settle()
    bare.gate.set()
    ends = await ended(calls)
    assert [type(end) for end in ends[:2]] == [asyncio.CancelledError] * 2
    assert ends[2:] == [None, None]


@counts({FORWARDED: 1, COLLAPSED: 3})
async def a_leader_and_a_follower_that_are_cancelled_in_the_body(world: World) -> None:
    bare = SteppedApp(head(), chunk(b"a"), chunk(b"b", more=False))
    calls = world.calls(world.use(bare), 4)
    await settle()
    bare.step(2)
    await settle()
    for victim in calls[:2]:
        victim.cancel()
    bare.finish()
    await ended(calls)


@counts({FORWARDED: 1})
async def a_leader_that_is_cancelled_while_the_app_works_in_the_background(world: World) -> None:
    bare = SteppedApp(head(), chunk(b"a", more=False), None)
    (leader,) = world.calls(world.use(bare))
    await settle()
    bare.step(2)
    await settle()
    assert leader.complete
    leader.cancel()
    bare.finish()
    await ended([leader])


@counts({FORWARDED: 1, COLLAPSED: 3})
async def clients_that_leave_before_the_head(world: World) -> None:
    bare = GatedApp()
    calls = world.calls(world.use(bare), 4)
    await world.time.go(0.1)
    for victim in calls[:2]:
        victim.disconnect()
    await settle()
    bare.gate.set()
    await ended(calls)


@counts({FORWARDED: 1, COLLAPSED: 3})
async def clients_that_all_leave(world: World) -> None:
    calls = world.calls(world.use(GatedApp()), 4)
    await world.time.go(0.1)
    for one in calls:
        one.disconnect()
    await world.time.go(10)
    await ended(calls)


@counts({FORWARDED: 1, COLLAPSED: 1})
async def a_leader_and_a_follower_whose_sends_fail(world: World) -> None:
    bare = GatedApp()
    app = world.use(bare)
    world.sent += 2
    calls: list[Call] = [Unsendable(app, make_scope()) for _ in range(2)]
    await settle()
    bare.gate.set()
    assert [type(end) for end in await ended(calls)] == [OSError, OSError]


@counts({FORWARDED: 1, HIT: 2})
async def hits_whose_sends_fail_or_are_cancelled(world: World) -> None:
    app = world.use(GatedApp(opened=True), Rule("/", ttl=60))
    await ended(world.calls(app))
    world.sent += 1
    assert type((await ended([Unsendable(app, make_scope())]))[0]) is OSError
    (stalled,) = world.calls(app, stalled=True)
    await settle()
    stalled.cancel()
    assert type((await ended([stalled]))[0]) is asyncio.CancelledError


@counts({("forwarded", "too-large"): 2, FORWARDED: 1, COLLAPSED: 1})
async def a_body_that_outgrows_the_limit_with_a_reader_that_is_cut(world: World) -> None:
    bare = SteppedApp(head(), *[chunk(b"12345") for _ in range(10)], chunk(more=False))
    app = world.use(bare, default=Rule(max_response_body=10))
    (leader,) = world.calls(app)
    world.sent += 1
    slow = SlowCall(app, make_scope())
    await settle()
    bare.finish()
    await world.time.go(30)
    slow.take_all()
    assert type((await ended([leader, slow]))[1]) is ForwardFailed
    await ended(world.calls(app, 2))


@counts({("forwarded", "set-cookie"): 3, ("forwarded", "hit-for-miss"): 1})
async def a_pass_and_what_its_mark_does(world: World) -> None:
    fields = [(b"set-cookie", b"a=1")]
    bare = GatedApp(lambda _, run: (200, fields if run < 4 else [], b""))
    app = world.use(bare)
    calls = world.calls(app, 2)
    await settle()
    bare.gate.set()
    await ended(calls)
    await ended(world.calls(app))
    await ended(world.calls(app))


@counts({("forwarded", "nested"): 1, FORWARDED: 1})
async def a_request_from_inside(world: World) -> None:
    inner: list[Call] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if not inner:
            inner.extend(world.calls(app))
            await inner[0].done()
        await send(head())
        await send(chunk(more=False))

    app = world.use(bare)
    await ended(world.calls(app))


@counts({FORWARDED: 2, ("forwarded", "max-wait"): 2})
async def a_flight_without_a_head_and_its_successor(world: World) -> None:
    bare = GatedApp()
    calls = world.calls(world.use(bare, default=Rule(max_wait=5)), 4)
    await world.time.go(11)
    bare.gate.set()
    await ended(calls)


@counts({FORWARDED: 1, ("bypassed", "too-many-flights"): 2})
async def more_flights_than_there_may_be(world: World) -> None:
    bare = GatedApp()
    app = world.use(bare)
    world.dedup.flights.max_flights = 1
    calls = world.calls(app) + world.calls(app, 2, "/other")
    await settle()
    bare.gate.set()
    await ended(calls)


@counts({("bypassed", "disabled"): 2, FORWARDED: 1, HIT: 1})
async def the_kill_switch(world: World) -> None:
    app = world.use(GatedApp(opened=True), Rule("/", ttl=60))
    world.dedup.enabled = False
    await ended(world.calls(app) + world.calls(app, method="POST"))
    world.dedup.enabled = True
    await ended(world.calls(app))
    await ended(world.calls(app))


@counts({("bypassed", "invalidates"): 2, ("bypassed", "method"): 2})
async def requests_that_write_and_fail(world: World) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError

    app = world.use(failing, Rule("/w", methods=["POST"], invalidates=["a"]))
    calls = world.calls(app, 2, "/w", method="POST") + world.calls(app, 2, method="DELETE")
    await settle(1)
    calls[0].cancel()
    calls[2].cancel()
    assert all(await ended(calls))


@counts({("bypassed", "disconnected"): 3})
async def clients_that_leave_while_their_body_is_read(world: World) -> None:
    class Uploading(Call):
        async def _receive(self) -> Message:
            await self._gone.wait()
            if self.scope["path"] == "/broken":
                raise OSError("gone")
            return {"type": "http.disconnect"}

    app = world.use(GatedApp(opened=True))
    world.sent += 3
    left, broken, cancelled = (
        Uploading(app, make_scope(target, "QUERY")) for target in ("/", "/broken", "/")
    )
    await settle()
    left.disconnect()
    broken.disconnect()
    cancelled.cancel()
    assert [type(end) for end in await ended([left, broken, cancelled])] == [
        *(type(None), OSError, asyncio.CancelledError)
    ]


@counts({("bypassed", "event-loop"): 1})
async def another_kind_of_event_loop(world: World) -> None:
    world.sent += 1
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await send(chunk(more=False))

    def run() -> None:  # in a thread without a running loop, as under trio
        steps = app(make_scope(), send, send)
        with pytest.raises(StopIteration):
            steps.send(None)

    app = world.use(bare)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(messages) == 2


@counts({("forwarded", "session"): 1, FORWARDED: 1})
async def an_answer_that_changes_the_session(world: World) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["seen"] = 1
        await send(head())
        await send(chunk(more=False))

    app = world.use(bare)
    await ended(world.calls(app, session=Session()))
    await ended(world.calls(app, session=Session(seen=1)))


@counts({FORWARDED: 2, COLLAPSED: 4})
async def requests_that_regroup_by_vary(world: World) -> None:
    gate = asyncio.Event()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await send(head(headers=[(b"vary", b"accept")]))
        await send(chunk(dict(scope["headers"]).get(b"accept", b""), more=False))

    app = world.use(bare, Rule("/", vary=[], identity="shared"))
    calls = [one for kind in (b"a", b"b") for one in world.calls(app, 3, headers=[(b"accept", kind)])]
    await settle()
    gate.set()
    await ended(calls)
    assert [one.body for one in calls] == [b"a"] * 3 + [b"b"] * 3


@counts({FORWARDED: 2, COLLAPSED: 2, HIT: 1, ("bypassed", "disabled"): 1, ("forwarded", "failed"): 1})
async def functions(world: World) -> None:
    dedup = world.dedup
    world.sent += 7

    async def read() -> int:
        await asyncio.sleep(0)
        return 1

    async def failing() -> int:
        await asyncio.sleep(0)
        raise ValueError

    assert [*await asyncio.gather(*(dedup.call("a", read, ttl=5) for _ in range(2)))] == [1, 1]
    await dedup.call("a", read)
    ends = await asyncio.gather(dedup.call("b", failing), dedup.call("b", failing), return_exceptions=True)
    assert [type(end) for end in ends] == [ValueError, ForwardFailed]
    dedup.enabled = False
    await dedup.call("a", read)
    dedup.enabled = True
    await dedup.call("a", read)


@counts({FORWARDED: 2, COLLAPSED: 1, ("forwarded", "nested"): 1, ("bypassed", "too-many-flights"): 1})
async def functions_that_are_cancelled_nested_or_too_many(world: World) -> None:
    dedup = world.dedup
    world.sent += 5
    gate = asyncio.Event()

    async def read() -> int:
        await gate.wait()
        return 1

    async def nested() -> int:
        return await dedup.call("b", read)

    calls = [asyncio.ensure_future(dedup.call("a", read)) for _ in range(2)]
    await settle()
    for one in calls:
        one.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    gate.set()
    await settle()
    assert await dedup.call("b", nested) == 1
    dedup.flights.max_flights = 0
    assert await dedup.call("c", read) == 1


@pytest.mark.parametrize(
    ("expected", "script"), SEVERAL, ids=[script.__name__.replace("_", " ") for _, script in SEVERAL]
)
async def test_every_request_counts_once_whatever_becomes_of_it(
    expected: dict[tuple[str, str], int],
    script: Script,
    virtual_time: VirtualTime,
    make_dedup: Make,
    clock: FakeClock,
) -> None:
    world = World(make_dedup, virtual_time, clock)
    await script(world)
    assert counted(world.dedup) == expected
    assert counted(world.dedup).total() == world.sent


def test_the_scripts_come_by_every_outcome_and_reason() -> None:
    """`expired` waits for stale responses: what has expired is gone, and a miss."""
    told = {(outcome, reason) for outcome, reason, *_ in ONE}.union(*(expected for expected, _ in SEVERAL))
    assert {outcome for outcome, _ in told} == set(OUTCOMES)
    assert {reason for _, reason in told} == set(REASONS)


# -- what stats() says -------------------------------------------------------------------------------------------


async def test_stats_tell_what_happened_and_what_is_held(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make
) -> None:
    dedup = make_dedup(
        Rule("/git/{repo}", ttl=60, tags=["git:{repo}"], name="git"),
        Rule("/few/{x}", ttl=60, max_responses=2),
    )
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, "/git/a") for _ in range(3)]
    await settle()
    clock.advance(2)
    assert dedup.stats().flights == 1
    assert sum(dedup.stats().requests.values()) == 0, "what is under way has no outcome yet"
    bare.gate.set()
    await all_of(calls)
    await get(app, "/git/a")
    await get(app, "/git/b")
    for number in range(5):
        await get(app, f"/few/{number}")
    await get(app, "/else", method="POST")
    assert await dedup.invalidate("git:b") == 1

    stats = dedup.stats()
    assert stats.flights == 0
    assert stats.requests == requests(hit=1, collapsed=2, forwarded=7, bypassed=1)
    assert stats.duplicates == 3
    assert stats.hit_rate == 3 / 11
    assert (stats.stored, stats.evicted, stats.expired, stats.invalidated) == (7, 3, 0, 1)
    assert stats.responses == 3
    assert stats.bytes == dedup.store.size > 3 * 1000
    assert stats.saved == 2 * 2.0 + 2.0
    assert set(stats.rules) == {"git", "/few/{x}", "default"}
    assert stats.rules["git"].requests == requests(hit=1, collapsed=2, forwarded=2, bypassed=0)
    assert stats.rules["git"].hit_rate == 3 / 5
    assert stats.rules["git"].saved == 6.0
    assert stats.rules["/few/{x}"].hit_rate == 0.0
    assert stats.rules["default"].requests == requests(hit=0, collapsed=0, forwarded=0, bypassed=1)

    await virtual_time.go(200)
    stats = dedup.stats()
    assert (stats.expired, stats.responses, stats.bytes) == (3, 0, 0)
    assert dedup.clear() == 0


async def test_the_hit_rate_is_the_share_of_all_requests_under_the_rule(make_dedup: Make) -> None:
    """Those that the rule had to send on untouched count too: they are why a rate is low."""
    dedup = make_dedup(Rule("/", ttl=60, identity=["cookie:id"], name="mine"))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    assert dedup.stats().hit_rate == 0.0
    for _ in range(4):
        await get(app)
    assert dedup.stats().rules["mine"].hit_rate == 3 / 4
    for _ in range(2):
        await get(app, headers=[(b"authorization", b"Basic eA==")])
    assert dedup.stats().rules["mine"].hit_rate == 3 / 6
    await get(app, "/other")
    assert dedup.stats().rules["mine"].hit_rate == 3 / 6
    assert dedup.stats().hit_rate == 3 / 7


async def test_stats_are_one_frozen_value_that_can_be_sent(make_dedup: Make) -> None:
    dedup = make_dedup()
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
    stats = dedup.stats()
    with pytest.raises(AttributeError, match="immutable"):
        stats.flights = 5  # type: ignore[misc] # that is the mistake
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
    assert stats.requests["forwarded"] == 1
    assert dedup.stats().requests["forwarded"] == 2
    assert msgspec.json.decode(msgspec.json.encode(stats), type=type(stats)) == stats


async def test_a_reader_that_is_slow_saves_no_more_than_the_forward_took(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make
) -> None:
    bare = GatedApp()
    dedup = make_dedup()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app), call(app, stalled=True)]
    await settle()
    clock.advance(1)
    bare.gate.set()
    await calls[0].done()
    clock.advance(100)
    calls[1].reading.set()
    await calls[1].done()
    assert dedup.stats().saved == 1.0


def test_counts_from_several_threads_are_not_lost(make_thread_engine: Dedup) -> None:
    telemetry = make_thread_engine.telemetry
    start = threading.Barrier(4)

    def count() -> None:
        start.wait()
        for number in range(20_000):
            telemetry.count("hit", "fresh", f"rule {number % 3}", "GET", 0.5)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    stats = make_thread_engine.stats()
    assert stats.requests["hit"] == 80_000
    assert stats.saved == 40_000.0


@pytest.fixture
def make_thread_engine() -> Dedup:
    return Dedup()
