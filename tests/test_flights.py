"""Flights: who leads, who follows, who goes alone; how a flight ends, and what it must never do to anybody."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import (
    Call,
    GatedApp,
    Message,
    SteppedApp,
    VirtualTime,
    all_of,
    call,
    chunk,
    get,
    head,
    make_scope,
    no_task_for_flights,
    settle,
    until,
)

Make = Callable[..., Dedup]
STATUS = b"cache-status"
MISS = b"dedup; fwd=uri-miss"
COLLAPSED = b"dedup; fwd=uri-miss; collapsed"


class CustomBaseError(BaseException):
    pass


@pytest.fixture(autouse=True)
def a_deadlock_fails(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("virtual_time")


def detail(reason: str) -> bytes:
    return b"dedup; fwd=uri-miss; detail=" + reason.encode()


async def ended(one: Call) -> BaseException | None:
    return (await asyncio.gather(one.task, return_exceptions=True))[0]


# -- max_wait ----------------------------------------------------------------------------------------------------


async def test_a_flight_without_a_head_never_keeps_its_followers_past_max_wait(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(max_wait=30)))
    calls = [call(app) for _ in range(5)]
    await virtual_time.go(29.9)
    assert bare.runs == 1
    await virtual_time.go(0.2)
    assert bare.runs == 2, "the followers join one successor"
    await virtual_time.go(29.7)
    late = call(app)
    await settle()
    assert bare.runs == 2, "newcomers join the successor too"
    await virtual_time.go(0.4)
    # The successor's three followers have waited twice: each alone. The one who came late has waited once.
    assert bare.runs == 2 + 3 + 1
    bare.gate.set()
    for one in await all_of([*calls, late]):
        assert one.complete
    assert calls[0].body == b"run 1", "the leader stays with its flight"
    assert calls[0].header(STATUS) == MISS
    (second,) = [one for one in calls[1:] if one.body == b"run 2"]
    alone = [one for one in calls[1:] if one is not second]
    assert [one.header(STATUS) for one in alone] == [detail("max-wait")] * 3
    assert len({one.body for one in [*calls, late]}) == 6


async def test_an_app_that_never_returns_never_blocks_its_key_for_good(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(max_wait="5s")))
    stuck = call(app)
    await virtual_time.go(6)
    late = call(app)
    await settle()
    assert bare.runs == 2
    late.cancel()
    stuck.disconnect()
    await virtual_time.go(3.2)
    assert stuck.task.done(), "a flight without waiters is cancelled"
    assert isinstance(await ended(late), asyncio.CancelledError)
    await ended(stuck)


async def test_an_app_that_never_returns_after_its_answer_never_keeps_followers_or_key(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"done", more=False), None)
    for ttl in (0, 600):
        dedup = make_dedup(default=Rule(ttl=ttl))
        app = DedupMiddleware(bare, dedup=dedup)
        leader, follower = call(app), call(app)
        await settle()
        bare.step(2)
        assert (await follower.done()).body == b"done"
        await virtual_time.go(40)
        assert not leader.task.done()
        assert leader.complete
        runs = bare.runs
        again = call(app)
        await settle()
        assert bare.runs == runs + (not ttl), "stored it is, or it left the table as it landed"
        again.cancel()
        await asyncio.gather(again.task, return_exceptions=True)
        await virtual_time.go(4)
        bare.step()
        await leader.done()


# -- who may join ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_a_flight_never_takes_more_than_max_followers(make_dedup: Make, most: int) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(max_followers=most)))
    calls = [call(app) for _ in range(12)]
    await settle()
    assert bare.runs == 12 // (most + 1)
    bare.gate.set()
    bodies = [one.body for one in await all_of(calls)]
    assert bodies == [b"run %d" % (number // (most + 1) + 1) for number in range(12)]


async def test_an_old_flight_that_ends_never_takes_the_new_ones_place(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False))
    app = DedupMiddleware(bare, dedup=make_dedup())
    old = call(app)
    await settle()
    bare.step()
    await virtual_time.go(1.1)
    new = call(app)
    await settle()
    assert bare.runs == 2
    bare.step()  # the old run was first in line for the permit
    await old.done()
    assert not new.started
    joining = call(app)
    await settle()
    assert bare.runs == 2
    bare.finish()
    assert (await joining.done()).header(STATUS) == COLLAPSED
    await new.done()


async def test_a_newcomer_in_the_tick_in_which_the_last_waiter_left_never_joins_a_dying_flight(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    first, second = call(app), call(app)
    await settle()
    first.cancel()
    await settle()
    third = call(app)
    await settle()
    assert bare.runs == 1, "one who leaves does not close a flight that others wait for"
    second.cancel()
    third.cancel()
    newcomer = call(app)
    await virtual_time.go(3.1)
    bare.gate.set()
    assert (await newcomer.done()).complete
    assert newcomer.body == b"run %d" % bare.runs
    for one in (first, second, third):
        assert isinstance(await ended(one), asyncio.CancelledError)


async def test_too_many_flights_send_requests_to_the_app_by_itself(make_dedup: Make) -> None:
    dedup = make_dedup()
    dedup.flights.max_flights = 2
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, f"/{number % 4}") for number in range(8)]
    await settle()
    assert (bare.runs, len(dedup.flights.under_way)) == (2 + 4, 2)
    bare.gate.set()
    told = [one.header(STATUS) for one in await all_of(calls)]
    assert told == [MISS, MISS, None, None, COLLAPSED, COLLAPSED, None, None]


async def test_a_leader_that_finds_no_room_to_ask_again_hears_the_flight_that_it_left_out(
    make_dedup: Make,
) -> None:
    dedup = make_dedup(default=Rule(vary=["accept"]))
    dedup.flights.max_flights = 1
    end = asyncio.Event()

    async def varied(scope: Any, receive: Any, send: Any) -> None:
        await send(head(200, [(b"vary", b"x")]))
        if b"x" not in dict(scope["headers"]):
            await end.wait()
            raise ValueError("late")
        await send(chunk(b"read", more=False))

    leader = call(DedupMiddleware(varied, dedup=dedup), headers=[(b"x", b"1")])
    await settle()
    assert leader.body == b"read"
    assert not leader.task.done(), "its call returns when the app's have"
    end.set()
    assert isinstance(await ended(leader), ValueError)


async def test_a_bypass_after_a_wait_never_loses_the_request_that_was_heard_meanwhile(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    dedup = make_dedup(default=Rule(max_wait=1))
    dedup.flights.max_flights = 1
    heard: list[Message] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())
        if len(heard) == 1:
            await receive()
        await send(head())
        await send(chunk(b"read", more=False))

    app = DedupMiddleware(reading, dedup=dedup)
    leader, follower = call(app), call(app)
    await virtual_time.go(
        1.1
    )  # the follower was watched, its flight has no head, and there is no room for another
    await until(follower.task.done)
    assert [message["type"] for message in heard] == ["http.request"] * 2
    assert follower.body == b"read"
    leader.disconnect()
    await virtual_time.go(0.2)
    await leader.done()


# -- hit-for-miss ------------------------------------------------------------------------------------------------


async def test_a_hundred_requests_for_an_answer_that_cannot_be_shared_never_queue(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp(lambda _, run: (200, [(b"set-cookie", b"id=%d" % run)], b"run %d" % run))
    app = DedupMiddleware(bare, dedup=make_dedup())
    first = [call(app) for _ in range(100)]
    await settle()
    assert bare.runs == 1
    bare.gate.set()
    await first[0].done()
    bare.gate.clear()
    await settle()
    assert bare.runs == 100, "on their own, all at once"
    second = [call(app) for _ in range(100)]
    await settle()
    assert bare.runs == 200, "the mark keeps the next from queueing"
    bare.gate.set()
    told = [(await one.done()).header(b"set-cookie") for one in [*first, *second]]
    assert len(set(told)) == 200, "nobody has another's cookie"
    assert first[0].header(STATUS) == detail("set-cookie")
    bare.gate.clear()
    await virtual_time.go(2.1)
    third = [call(app) for _ in range(100)]
    await settle()
    assert bare.runs == 201, "the mark is short"
    bare.gate.set()
    await all_of(third)


async def test_a_shareable_answer_under_a_mark_clears_it_and_is_stored(make_dedup: Make) -> None:
    bare = GatedApp(
        lambda _, run: (200, [(b"cache-control", b"no-store")] if run < 3 else [], b"%d" % run), opened=True
    )
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    told = [(await get(app)).header(STATUS) for _ in range(4)]
    assert told == [
        detail("no-store"),
        detail("no-store"),
        b"dedup; fwd=uri-miss; stored; ttl=60",
        b"dedup; hit; ttl=60",
    ]
    assert bare.runs == 3


async def test_after_a_shareable_answer_the_next_never_go_alone_for_an_old_mark(make_dedup: Make) -> None:
    bare = GatedApp(
        lambda _, run: (200, [(b"cache-control", b"no-store")] if run == 1 else [], b"%d" % run), opened=True
    )
    app = DedupMiddleware(bare, dedup=make_dedup())
    assert [(await get(app)).header(STATUS) for _ in range(2)] == [detail("no-store"), detail("hit-for-miss")]
    await all_of([call(app) for _ in range(5)])
    assert bare.runs == 3


async def test_a_mark_is_renewed_by_each_answer_that_cannot_be_shared(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp(lambda _, run: (401, [], b"no"), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup())
    for _ in range(5):
        await get(app)
        await virtual_time.go(1.5)
    bare.gate.clear()
    runs = bare.runs
    calls = [call(app) for _ in range(10)]
    await settle()
    assert bare.runs == runs + 10
    bare.gate.set()
    await all_of(calls)


NOT_FOR_OTHERS: list[tuple[int, list[tuple[bytes, bytes]], str]] = [
    (200, [(b"set-cookie", b"sid=1")], "set-cookie"),
    (200, [(b"cache-control", b"private, no-store")], "no-store"),
    (200, [(b"cache-control", b"no-cache")], "no-cache"),
    (200, [(b"cache-control", b"max-age=0")], "no-cache"),
    (200, [(b"vary", b"*")], "vary"),
    (200, [(b"content-type", b"text/event-stream; charset=utf-8")], "stream"),
    (200, [(b"content-type", b"application/x-ndjson")], "stream"),
    (200, [(b"content-type", b"application/jsonl")], "stream"),
    (200, [(b"content-type", b"application/json-seq; charset=utf-8")], "stream"),
    (200, [(b"content-length", b"1048577")], "too-large"),
    (200, [(b"clear-site-data", b'"cookies"')], "personal-field"),
    (200, [(b"surrogate-control", b"no-store")], "no-store"),
    *((status, [], "refusal") for status in (401, 403, 407, 429)),
]


@pytest.mark.parametrize(("status", "headers", "reason"), NOT_FOR_OTHERS)
async def test_what_only_the_leader_may_have_never_gives_a_follower_a_byte(
    make_dedup: Make, status: int, headers: list[tuple[bytes, bytes]], reason: str
) -> None:
    bare = SteppedApp(
        head(status, [*headers, (b"x-secret", b"leader's")]), chunk(b"leader's "), chunk(b"own", more=False)
    )
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, *followers = [call(app) for _ in range(5)]
    await settle()
    bare.step(2)
    await settle()
    assert leader.body == b"leader's "
    assert bare.runs == 5, "the others go on as soon as the head is there"
    assert not any(one.messages for one in followers)
    bare.finish()
    for one in (leader, *followers):
        assert (await one.done()).body == b"leader's own"
    assert leader.header(STATUS) == detail(reason)


async def test_a_changed_session_is_never_shared(make_dedup: Make) -> None:
    async def login(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        scope["session"]["logged_in"] = True
        await send(head())
        await send(chunk(b"welcome", more=False))

    app = DedupMiddleware(login, dedup=make_dedup(default=Rule(ttl=60)))
    sessions: list[dict[str, Any]] = [{"id": 1} for _ in range(3)]
    calls = await all_of([call(app, session=session) for session in sessions])
    assert all(session == {"id": 1, "logged_in": True} for session in sessions)
    assert calls[0].header(STATUS) == detail("session")
    assert COLLAPSED not in {one.header(STATUS) for one in calls}


# -- Vary --------------------------------------------------------------------------------------------------------


def by_language(scope: Any, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    language = dict(scope["headers"]).get(b"accept-language", b"none")
    return 200, [(b"vary", b"Accept-Language")], b"%b, run %d" % (language, run)


@pytest.mark.parametrize("ttl", [0, 60])
async def test_followers_that_differ_in_a_vary_field_never_share_and_regroup_by_variant(
    make_dedup: Make, ttl: int
) -> None:
    bare = GatedApp(by_language)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=ttl, vary=[])))
    languages = [b"de", b"fr", b"de", b"it", b"fr", b"it", b"de"] * 3

    def ask() -> list[Call]:
        return [call(app, headers=[(b"accept-language", language)]) for language in languages]

    calls = ask()
    await settle()
    assert bare.runs == 1
    assert b"accept-language" not in dict(bare.scopes[0]["headers"]), "hidden: nothing says that it matters"
    bare.gate.set()
    await all_of(calls)
    assert [one.body.split(b",")[0] for one in calls] == languages, "each has its own language"
    assert bare.runs == 1 + 3, "one flight a variant; the leader's first run saw no language"
    bare.gate.clear()
    calls = ask()
    await settle()
    assert bare.runs == (4 if ttl else 4 + 3), "the Vary list is remembered"
    bare.gate.set()
    await all_of(calls)
    assert [one.body.split(b",")[0] for one in calls] == languages
    assert bare.runs == (4 if ttl else 7)
    assert {one.header(STATUS) for one in calls} == ({b"dedup; hit; ttl=60"} if ttl else {MISS, COLLAPSED})


async def test_a_call_that_left_its_run_for_another_variant_and_failed_there_never_ends_before_its_run(
    make_dedup: Make,
) -> None:
    """Outer layers close what the app still uses when the call ends."""
    gates, over, runs = [asyncio.Event() for _ in range(2)], list[int](), [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs[0] += 1
        number = runs[0]
        await asyncio.sleep(0)
        await send(head(200, [(b"vary", b"x-a")]))
        await send(chunk(b"part"))
        await gates[number - 1].wait()
        await send(chunk(b"", more=False))
        over.append(number)

    site = DedupMiddleware(app, dedup=make_dedup(default=Rule(ttl=60, vary=[])))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def broken(message: Message) -> None:
        raise OSError("the client has gone")

    async def kept(message: Message) -> None:
        sent.append(message)

    first = asyncio.ensure_future(site(make_scope("/a", headers=[(b"x-a", b"1")]), receive, broken))
    others = [
        asyncio.ensure_future(site(make_scope("/a", headers=[(b"x-a", b"1")]), receive, kept))
        for _ in range(7)
    ]
    await settle()
    gates[1].set()
    await settle()
    assert 2 in over
    assert not first.done(), "its own run is not over"
    gates[0].set()
    with pytest.raises(OSError, match="gone"):
        await first
    await asyncio.gather(*others)
    assert sorted(over) == [1, 2]


async def test_an_answer_for_nobodys_language_goes_only_to_those_who_sent_none(make_dedup: Make) -> None:
    bare = GatedApp(by_language)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary=[])))
    calls = [call(app), call(app, headers=[(b"accept-language", b"de")]), call(app)]
    await settle()
    bare.gate.set()
    assert [one.body for one in await all_of(calls)] == [b"none, run 1", b"de, run 2", b"none, run 1"]


async def test_a_vary_on_what_the_key_holds_already_changes_nothing(make_dedup: Make) -> None:
    bare = GatedApp(by_language)
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app, headers=[(b"accept-language", one)]) for one in (b"de", b"fr", b"de", b"fr")]
    await settle()
    assert bare.runs == 2
    bare.gate.set()
    assert [one.body for one in await all_of(calls)] == [b"de, run 1", b"fr, run 2"] * 2


async def test_an_app_that_names_another_field_each_time_never_sends_a_request_round_for_ever(
    make_dedup: Make,
) -> None:
    bare = GatedApp(lambda _, run: (200, [(b"vary", b"x-%d" % run)], b"run %d" % run), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary=[])))
    headers = [(b"x-%d" % number, b"1") for number in range(20)]
    one = await get(app, headers=headers)
    assert one.complete
    assert bare.runs <= 6


async def test_the_leaders_call_lasts_until_each_of_its_forwards_has_returned(make_dedup: Make) -> None:
    bare = SteppedApp(head(200, [(b"vary", b"accept-language")]), chunk(b"x", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary=[])))
    one = call(app, headers=[(b"accept-language", b"de")])
    await settle()
    bare.step(1)
    await settle()
    assert bare.runs == 2
    bare.step(4)  # the steps of both runs but one's end
    await settle()
    assert (bare.ended, one.complete, one.task.done()) == (1, True, False)
    bare.finish()
    await one.done()


# -- nested ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Rule(), Rule(ttl=60)])
async def test_an_app_that_asks_itself_never_waits_for_itself(
    virtual_time: VirtualTime, make_dedup: Make, rule: Rule
) -> None:
    started = virtual_time._clock.now
    depths: list[int] = []

    async def asking(scope: Any, receive: Any, send: Any) -> None:
        depths.append(1)
        body = b"bottom" if len(depths) == 4 else (await get(app)).body + b"+"
        await send(head())
        await send(chunk(body, more=False))

    app = DedupMiddleware(asking, dedup=make_dedup(default=rule))
    calls = [call(app) for _ in range(5)]
    assert [one.body for one in await all_of(calls)] == [b"bottom+++"] * 5
    assert len(depths) == 4
    assert virtual_time._clock.now - started < 1, "nor for max_wait"


async def test_two_routes_that_ask_each_other_never_deadlock(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    started = virtual_time._clock.now
    runs: list[str] = []

    async def asking(scope: Any, receive: Any, send: Any) -> None:
        runs.append(scope["path"])
        other = "/b" if scope["path"] == "/a" else "/a"
        body = b"end" if len(runs) > 2 else (await get(app, other)).body
        await send(head())
        await send(chunk(body, more=False))

    app = DedupMiddleware(asking, dedup=make_dedup())
    assert [one.body for one in await all_of([call(app, "/a"), call(app, "/b")])] == [b"end"] * 2
    assert virtual_time._clock.now - started < 1, "nor wait for max_wait"


async def test_a_nested_request_may_use_the_store(make_dedup: Make) -> None:
    runs: list[str] = []

    async def asking(scope: Any, receive: Any, send: Any) -> None:
        runs.append(scope["path"])
        inner = (await get(app, "/part")).body if scope["path"] == "/page" else b"part"
        await send(head())
        await send(chunk(inner, more=False))

    app = DedupMiddleware(asking, dedup=make_dedup(Rule("/part", ttl=60)))
    for _ in range(3):
        assert (await get(app, "/page")).body == b"part"
    assert runs.count("/part") == 1


# -- deserted flights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "QUERY", "OPTIONS"])
async def test_a_deserted_flight_is_left_alone_by_newcomers_told_and_only_then_cancelled(
    method: str, virtual_time: VirtualTime, make_dedup: Make
) -> None:
    heard: list[Message] = []
    cancelled: list[float] = []
    clock = virtual_time._clock

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())
        heard.append(await receive())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(clock.now)
            raise

    dedup = make_dedup(Rule("/", methods=[method]))
    app = DedupMiddleware(waiting, dedup=dedup)
    calls = [call(app, "/", method), call(app, "/", method)]
    await virtual_time.go(0.2)
    calls[0].disconnect()
    await virtual_time.go(60.0 - 31.0)
    assert [message["type"] for message in heard] == ["http.request"], (
        "one still waits: the app hears nothing"
    )
    left = clock.now
    calls[1].disconnect()
    await settle()
    assert heard[1] == {"type": "http.disconnect"}
    newcomer = call(app, "/", method)
    await settle()
    assert len(heard) == 3, "it left the table before it was cancelled"
    assert len(dedup.flights.under_way) == 2
    await virtual_time.go(2.9)
    assert not cancelled
    await virtual_time.go(0.2)
    assert cancelled == [pytest.approx(left + 3)]
    for one in calls:
        await ended(one)
    newcomer.cancel()
    await ended(newcomer)
    await virtual_time.go(3.1)


async def test_a_deserted_app_that_ends_in_time_is_never_cancelled(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False))
    one = call(DedupMiddleware(bare, dedup=make_dedup()))
    await virtual_time.go(0.2)
    one.disconnect()
    await virtual_time.go(2.9)
    bare.finish()
    await one.done()
    assert (bare.ended, bare.cancelled) == (1, 0)


async def test_a_request_whose_client_left_is_never_reported_as_a_failure_of_the_app(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp()
    one = call(DedupMiddleware(bare, dedup=make_dedup()))
    await virtual_time.go(0.2)
    one.disconnect()
    await virtual_time.go(3.2)
    # Nobody cancelled this call: a server would log its CancelledError as an exception in the application.
    assert await ended(one) is None
    assert not one.messages


@pytest.mark.parametrize(
    ("rule", "method", "steps"),
    [
        (Rule(methods=["GET"], ttl=60), "GET", 1),
        (Rule(methods=["POST"], collapse=True), "POST", 0),
        (Rule(methods=["POST"], collapse=True), "POST", 1),
    ],
    ids=["will be stored", "may write, before its head", "may write, after its head"],
)
async def test_a_flight_that_must_run_on_hears_nothing_and_stays_joinable_without_waiters(
    virtual_time: VirtualTime, make_dedup: Make, rule: Rule, method: str, steps: int
) -> None:
    bare = SteppedApp(head(), chunk(b"kept", more=False))
    dedup = make_dedup(Rule("/x", **{name: getattr(rule, name) for name in ("methods", "ttl", "collapse")}))
    app = DedupMiddleware(bare, dedup=dedup)
    one = call(app, "/x", method)
    await virtual_time.go(0.2)
    hearing = asyncio.ensure_future(bare.receive())
    await settle()
    hearing = asyncio.ensure_future(bare.receive())
    bare.step(steps)
    await settle()
    one.cancel()
    assert isinstance(await ended(one), asyncio.CancelledError)
    await virtual_time.go(0.9 if steps else 25)
    assert not hearing.done()
    late = call(app, "/x", method)
    await settle()
    assert bare.runs == 1
    bare.finish()
    assert (await late.done()).body == b"kept"
    await virtual_time.go(10)
    assert (bare.runs, bare.cancelled) == (1, 0)
    assert dedup.store.responses == (1 if rule.ttl else 0)


async def test_a_flight_that_nobody_waits_for_is_stored_all_the_same(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"a"), chunk(b"b", more=False))
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=600)))
    one = call(app)
    await settle()
    bare.step()
    await settle()
    one.cancel()
    await ended(one)
    await virtual_time.go(40)
    bare.finish()
    await settle()
    again = await get(app)
    assert (again.body, bare.runs) == (b"ab", 1)


async def test_a_deserted_flight_that_lands_in_time_is_never_cancelled_in_its_background_work(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False), None)
    one = call(DedupMiddleware(bare, dedup=make_dedup()))
    await virtual_time.go(0.2)
    one.disconnect()
    await virtual_time.go(2)
    bare.step(2)
    await virtual_time.go(20)
    assert (bare.ended, bare.cancelled) == (0, 0)
    bare.step()
    await one.done()


async def test_a_landed_flight_is_never_cancelled(virtual_time: VirtualTime, make_dedup: Make) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup())
    one = call(app)
    await virtual_time.go(0.2)
    bare.step(2)
    await settle()
    one.disconnect()
    await virtual_time.go(60)
    assert not one.task.done()
    bare.step()
    await one.done()
    assert (bare.ended, bare.cancelled) == (1, 0)


# -- landing and storing -----------------------------------------------------------------------------------------


async def test_no_newcomer_ever_finds_neither_flight_nor_stored_response(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"once", more=False), None)
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app)]
    for turn in range(60):
        if turn in (20, 25):
            bare.step()
        if turn == 40:
            await virtual_time.go(0.4)
            assert dedup.store.responses == 1, "stored before the app's end, after a quarter of a second"
        if turn == 50:
            bare.step()
        calls.append(call(app))
        await asyncio.sleep(0)
    for one in await all_of(calls):
        assert one.body == b"once"
    assert bare.runs == 1


async def test_a_landed_flight_answers_newcomers_at_once_before_it_is_stored(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"landed", more=False), None)
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    leader = call(app)
    await settle()
    bare.step(2)
    await virtual_time.go(0.2)
    assert dedup.store.responses == 0
    newcomer = await get(app)
    assert (newcomer.body, newcomer.header(STATUS)) == (b"landed", COLLAPSED)
    bare.finish()
    await leader.done()
    assert (await get(app)).header(STATUS) == b"dedup; hit; ttl=60"


@pytest.mark.parametrize("rule", [Rule(ttl="origin"), Rule.shared_cache()], ids=["cautious", "shared"])
async def test_a_landed_flight_answers_no_newcomer_with_what_says_nothing_of_its_freshness(
    rule: Rule, make_dedup: Make
) -> None:
    """It is stored to be validated, and no later request may have it before (RFC 9111 s.4)."""
    bare = SteppedApp(head(200, [(b"etag", b'"a"')]), chunk(b"landed", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    leader, follower = call(app), call(app)
    await settle()
    bare.step(2)
    await settle()
    assert (leader.body, follower.body, bare.runs) == (b"landed", b"landed", 1)

    newcomer = call(app)
    await settle()

    assert (newcomer.started, bare.runs) == (False, 2)
    bare.finish()
    await all_of([leader, follower, newcomer])


async def test_an_immediate_repeat_is_a_hit(make_dedup: Make) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    repeats: list[Call] = []

    class Eager(Call):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            if message["type"] == "http.response.body":
                repeats.append(await get(app))

    await Eager(app, make_scope()).done()
    assert [one.body for one in repeats] == [b"run 1"]
    assert bare.runs == 1


@pytest.mark.parametrize("seconds", [0.2, 0.4], ids=["before it is stored", "after it was stored early"])
async def test_an_error_after_the_body_never_leaves_a_stored_response(
    virtual_time: VirtualTime, make_dedup: Make, seconds: float
) -> None:
    error = ValueError("a middleware that ended a broken body cleanly")
    bare = SteppedApp(head(), chunk(b"half", more=False), error)
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    leader, follower = call(app), call(app)
    await settle()
    bare.step(2)
    await virtual_time.go(seconds)
    assert dedup.store.responses == (1 if seconds > 0.25 else 0)
    bare.step()
    assert await ended(leader) is error
    assert (await follower.done()).body == b"half"
    assert dedup.store.responses == 0
    again = call(app)
    await settle()
    assert bare.runs == 2
    bare.finish()
    assert await ended(again) is error


async def test_an_error_never_takes_back_a_newer_response_than_its_own(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False), ValueError("late"))
    dedup = make_dedup(default=Rule(ttl=1))
    app = DedupMiddleware(bare, dedup=dedup)
    old = call(app)
    await settle()
    bare.step(2)
    await virtual_time.go(2)
    bare.script = (*bare.script[:2],)
    new = call(app)
    await settle()
    bare._permits.release()
    bare._permits.release()
    await settle()
    assert bare.runs == 2
    bare.finish()
    assert isinstance(await ended(old), ValueError)
    await new.done()
    assert dedup.store.responses == 1


async def test_background_work_holds_up_the_leaders_call_and_no_follower(make_dedup: Make) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, follower = call(app), call(app)
    await settle()
    bare.step(2)
    await follower.done()
    await settle()
    assert leader.complete
    assert not leader.task.done()
    bare.step()
    await leader.done()


# -- failed forwards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, GeneratorExit, CustomBaseError, asyncio.CancelledError])
async def test_no_way_to_end_ever_leaves_a_key_taken_or_a_follower_waiting(
    make_dedup: Make, error: type[BaseException]
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a task that ends so says so
    dedup = make_dedup()
    bare = SteppedApp(error)
    app = DedupMiddleware(bare, dedup=dedup)
    leader, follower = call(app), call(app)
    await settle()
    bare.finish()
    raised = await ended(follower)
    assert isinstance(raised, ForwardFailed)
    assert raised.error_type == error.__name__
    assert type(await ended(leader)) is error
    assert dedup.flights.is_empty
    again = call(app)
    await ended(again)
    assert bare.runs == 2


async def test_a_loop_that_shuts_down_leaves_no_flight_behind(make_dedup: Make) -> None:
    dedup = make_dedup()
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app) for _ in range(3)]
    await settle()
    mine = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not mine]
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(results) == 4
    assert all(one.task.done() for one in calls)
    assert dedup.flights.is_empty


async def test_a_failed_forward_is_logged_once_for_its_flight(
    make_dedup: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bare = SteppedApp(ValueError("the password is hunter2"))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app) for _ in range(10)]
    await settle()
    with caplog.at_level(logging.INFO):
        bare.finish()
        for one in calls:
            await ended(one)
    ours = [record for record in caplog.records if record.name.startswith("dedup_middleware")]
    assert len(ours) == 1
    assert "ValueError" in ours[0].getMessage()
    assert "hunter2" not in ours[0].getMessage()


@pytest.mark.parametrize("script", [[head(500), chunk(b"oops", more=False)], [ValueError]])
async def test_without_share_errors_nobody_gets_anothers_error(
    make_dedup: Make, script: list[Message | type[BaseException]]
) -> None:
    bare = SteppedApp(*script)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(share_errors=False)))
    calls = [call(app) for _ in range(5)]
    await settle()
    assert bare.runs == 1
    bare.finish()
    for one in calls:
        assert not isinstance(await ended(one), ForwardFailed)
    assert bare.runs == 5


async def test_a_follower_never_waits_for_ever_when_our_own_telemetry_fails(
    virtual_time: VirtualTime, make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the exporter is broken")

    bare = GatedApp()
    for name in ("record_forward", "record_wait", "count"):
        dedup = make_dedup()
        monkeypatch.setattr(dedup.telemetry, name, broken)
        calls = [call(DedupMiddleware(bare, dedup=dedup)) for _ in range(3)]
        await settle()
        bare.gate.set()
        await virtual_time.go(1)
        assert all(one.task.done() for one in calls)
        assert all(one.complete for one in calls)
        for one in calls:
            await ended(one)
        bare.gate.clear()


async def test_a_server_whose_send_fails_never_ends_the_leaders_call_before_the_app(make_dedup: Make) -> None:
    class Broken(Call):
        async def _send(self, message: Message) -> None:
            raise OSError("the client has gone")

    bare = SteppedApp(head(), chunk(b"a"), chunk(b"b", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader = Broken(app, make_scope())
    follower = call(app)
    await settle()
    bare.step(2)
    await settle()
    assert not leader.task.done(), "the app still works with the leader's session and state"
    bare.step()
    assert (await follower.done()).body == b"ab"
    assert not leader.task.done()
    bare.step()
    assert isinstance(await ended(leader), OSError)


# -- what the app hears and sees ---------------------------------------------------------------------------------


async def test_an_app_never_hears_of_its_leaders_leaving_while_others_wait(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False), None)
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, follower = call(app), call(app)
    await settle()
    assert await bare.receive() == {"type": "http.request", "body": b"", "more_body": False}
    hearing = asyncio.ensure_future(bare.receive())
    await virtual_time.go(0.2)
    leader.disconnect()
    await virtual_time.go(20)
    assert not hearing.done()
    bare.step(2)
    await follower.done()
    assert await hearing == {"type": "http.disconnect"}, "as a server says it once the response is complete"
    bare.finish()
    await leader.done()


@pytest.mark.parametrize("pieces", [1, 2, 5])
async def test_a_body_in_pieces_reaches_the_app_whole_and_shares_with_the_same_in_one(
    make_dedup: Make, pieces: int
) -> None:
    body = b'{"jobs": [1, 2, 3], "name": "x"}'
    bare = GatedApp()
    heard: list[bytes] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        heard.append(message["body"])
        await bare(scope, receive, send)

    app = DedupMiddleware(reading, dedup=make_dedup(Rule("/jobs", methods=["POST"], collapse=True)))
    headers = [(b"content-type", b"application/json; charset=utf-8")]
    whole = call(app, "/jobs", "POST", headers, body)
    await settle()
    size = -(-len(body) // pieces)
    waiting = [body[start : start + size] for start in range(0, len(body), size)]
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    task = asyncio.ensure_future(app(make_scope("/jobs", "POST", headers), receive, send))
    await settle()
    bare.gate.set()
    await whole.done()
    await task
    assert heard == [body]
    assert sent[-1]["body"] == whole.body == b"run 1"


async def test_what_the_app_finds_out_about_its_route_is_there_for_outer_layers(make_dedup: Make) -> None:
    endpoint = object()

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        scope["route"], scope["endpoint"], scope["path_params"] = "/jobs/{id}", endpoint, {"id": "7"}
        scope["headers"].clear()
        scope["client"] = ("0.0.0.0", 1)
        await send(head())
        seen.append({name: leader.scope.get(name) for name in ("route", "endpoint", "path_params")})
        await send(chunk(more=False))

    seen: list[dict[str, Any]] = []
    app = DedupMiddleware(routed, dedup=make_dedup())
    headers = [(b"accept", b"*/*")]
    leader, follower = call(app, "/jobs/7", headers=headers), call(app, "/jobs/7", headers=headers)
    before = dict(leader.scope)
    await all_of([leader, follower])
    assert seen == [{"route": "/jobs/{id}", "endpoint": endpoint, "path_params": {"id": "7"}}], "at the head"
    assert {name: leader.scope[name] for name in before} == before, "nothing of the leader's own is touched"
    assert leader.scope["headers"] == [(b"host", b"example.test"), *headers]
    assert "route" not in follower.scope


async def test_what_followers_could_not_get_is_never_offered_to_the_app(make_dedup: Make) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup())
    names = [
        f"http.response.{name}"
        for name in ("pathsend", "zerocopysend", "trailers", "push", "debug", "early_hint")
    ]
    await get(app, extensions={name: {} for name in names})
    assert bare.scopes[0]["extensions"] == {"http.response.early_hint": {}}
    await get(app, "/none")
    assert "extensions" not in bare.scopes[1]


async def test_early_hints_reach_the_leader_and_do_not_open_the_response(make_dedup: Make) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    bare = SteppedApp(hint, head(), chunk(b"x", more=False))
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, follower = call(app), call(app)
    await settle()
    bare.finish()
    await all_of([leader, follower])
    assert leader.messages[0] == hint
    assert [message["type"] for message in follower.messages] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("leaves", [True, False], ids=["its call is over", "its send fails"])
async def test_early_hints_for_a_leader_that_is_gone_fail_no_follower(make_dedup: Make, leaves: bool) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    bare = SteppedApp(hint, head(), chunk(b"x", more=False))
    heard: list[str] = []

    class Gone(Call):
        async def _send(self, message: Message) -> None:
            heard.append(message["type"])
            raise OSError("gone")

    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, follower = Gone(app, make_scope()), call(app)
    await settle()
    if leaves:
        leader.cancel()
        await settle()
    bare.finish()

    assert (await follower.done()).body == b"x"
    assert heard == ([] if leaves else [hint["type"], "http.response.start"])
    assert isinstance(await ended(leader), asyncio.CancelledError if leaves else OSError)


async def test_a_follower_never_gets_the_fields_of_the_leaders_exchange(make_dedup: Make) -> None:
    headers = [
        (b"x-request-id", b"leader"),
        (b"Server-Timing", b"db;dur=1"),
        (b"traceresponse", b"00-x"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"x-kept", b"1"),
        (b"location", b"/kept"),
    ]
    bare = SteppedApp(head(201, headers), chunk(b"x", more=False))
    app = DedupMiddleware(bare, dedup=make_dedup())
    leader, follower = call(app), call(app)
    await settle()
    bare.finish()
    await all_of([leader, follower])
    assert leader.headers == [*headers, (STATUS, MISS)]
    assert follower.headers == [
        (b"x-kept", b"1"),
        (b"location", b"/kept"),
        (STATUS, COLLAPSED),
        (b"age", b"0"),
    ]


async def test_a_forward_never_sees_the_context_of_a_follower_nor_changes_the_leaders(
    make_dedup: Make,
) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(who.get())
        who.set("the app")
        await asyncio.sleep(0)
        await send(head())
        await send(chunk(more=False))

    wrapped = DedupMiddleware(app, dedup=make_dedup())

    async def asking(name: str) -> str:
        who.set(name)
        await get(wrapped)
        return who.get()

    assert [*await asyncio.gather(asking("leader"), asking("follower"))] == ["leader", "follower"]
    assert seen == ["leader"]


# -- other loops -------------------------------------------------------------------------------------------------


def test_without_an_asyncio_loop_every_request_reaches_the_app_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Driven by hand, as trio drives coroutines: nothing here may ask asyncio for anything."""
    bare: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bare.append((await receive())["body"])
        await send(head())
        await send(chunk(b"plain", more=False))

    wrapped = DedupMiddleware(app, default=Rule(ttl=60))
    for method, body in (("GET", b""), ("GET", b""), ("QUERY", b"q")):
        sent: list[Message] = []

        async def receive(body: bytes = body) -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        with pytest.raises(StopIteration):
            wrapped(make_scope("/", method), receive, send).send(None)
        assert sent == [head(), chunk(b"plain", more=False)]
    assert bare == [b"", b"", b"q"]
    assert len(caplog.records) == 1
    assert [*wrapped.dedup.telemetry.counts.values()] == [2, 1]
    assert {reason for _, reason, *_ in wrapped.dedup.telemetry.counts} == {"event-loop"}


def test_loops_that_are_over_are_never_kept() -> None:
    wrapped = DedupMiddleware(GatedApp(opened=True))
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def one() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await get(wrapped)

    for _ in range(20):
        asyncio.run(one())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 2, "a test client makes a loop a request"


def test_a_flight_is_never_joined_from_another_loop() -> None:

    both = threading.Barrier(2, timeout=10)
    runs: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.append(threading.get_ident())
        both.wait()
        await send(head())
        await send(chunk(b"x", more=False))

    wrapped = DedupMiddleware(app)

    async def two() -> None:
        for one in [call(wrapped) for _ in range(2)]:
            assert (await one.done()).body == b"x"

    threads = [threading.Thread(target=asyncio.run, args=(two(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(runs)) == len(runs) == 2
    assert wrapped.dedup.flights.is_empty


# -- what published packages got wrong ---------------------------------------------------------------------------


async def test_a_head_never_empties_the_get_that_follows(make_dedup: Make) -> None:
    bare = GatedApp(lambda scope, _: (200, [], b"" if scope["method"] == "HEAD" else b"body"), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    assert (await get(app, method="HEAD")).body == b""
    assert (await get(app)).body == b"body"
    stored = await get(app, method="HEAD")
    assert (stored.status, stored.body, stored.header(STATUS)) == (200, b"", b"dedup; hit; ttl=60")


async def test_a_head_and_a_get_at_once_never_share_a_flight(make_dedup: Make) -> None:
    bare = GatedApp(lambda scope, _: (200, [], b"" if scope["method"] == "HEAD" else b"body"))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app, method=method) for method in ("HEAD", "GET", "HEAD", "GET")]
    await settle()
    assert bare.runs == 2
    bare.gate.set()
    assert [one.body for one in await all_of(calls)] == [b"", b"body"] * 2


async def test_a_request_for_a_range_never_shortens_a_whole_one(make_dedup: Make) -> None:
    def ranged(scope: Any, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        part = any(name == b"range" for name, _ in scope["headers"])
        return (206, [(b"content-range", b"bytes 0-1/10")], b"01") if part else (200, [], b"0123456789")

    bare = GatedApp(ranged)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    calls = [
        call(app, headers=[(b"range", b"bytes=0-1")]),
        call(app),
        call(app, headers=[(b"range", b"bytes=0-1")]),
    ]
    await settle()
    bare.gate.set()
    assert [one.status for one in await all_of(calls)] == [206, 200, 206]
    assert (await get(app)).body == b"0123456789"


async def test_an_app_that_raised_is_asked_again_by_the_retry(make_dedup: Make) -> None:
    runs: list[int] = []

    async def flaky(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ConnectionError("first time")
        await send(head(201, [(b"location", b"/jobs/1")]))
        await send(chunk(b"made", more=False))

    app = DedupMiddleware(flaky, dedup=make_dedup(Rule("/jobs", methods=["POST"], collapse=True)))
    with pytest.raises(ConnectionError):
        await get(app, "/jobs", "POST", body=b"{}")
    retry = await get(app, "/jobs", "POST", body=b"{}")
    assert (retry.status, retry.header(b"location"), retry.body) == (201, b"/jobs/1", b"made")


async def test_identical_posts_both_run_unless_a_rule_says_that_they_are_safe(make_dedup: Make) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/safe", methods=["POST"], collapse=True)))
    calls = [call(app, path, "POST", body=b"{}") for path in ("/safe", "/safe", "/other", "/other")]
    await settle()
    assert bare.runs == 3
    bare.gate.set()
    await all_of(calls)


async def test_a_flight_that_is_drained_before_its_work_began_leaves_nobody_waiting(make_dedup: Make) -> None:
    dedup, bare = make_dedup(), GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app) for _ in range(2)]
    await asyncio.sleep(0)  # the leader has launched a flight, whose task's turn comes next
    await dedup.aclose()
    assert dedup.flights.is_empty
    errors = [await ended(one) for one in calls]
    assert [type(error) for error in errors] == [asyncio.CancelledError, ForwardFailed]
    assert bare.runs == 0


# -- a loop that makes no task -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["request", "function"])
async def test_where_the_loop_makes_no_task_the_leader_hears_it_and_the_key_is_free_again(
    way: str, make_dedup: Make
) -> None:
    dedup = make_dedup()
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    async def value() -> bytes:
        return b"value"

    async def ask() -> object:
        return await (dedup.call("key", value) if way == "function" else get(app))

    with no_task_for_flights():
        for _ in range(2):
            with pytest.raises(OSError, match="no task"):
                await ask()
            assert dedup.flights.is_empty
    assert await ask()


@contextmanager
def old_task_factory() -> Iterator[None]:
    """One of before Python 3.11: it takes a coroutine, and nothing else."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work: asyncio.Task(work, loop=loop))
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def test_under_an_old_task_factory_no_follower_fails_and_no_client_leaves_unnoticed(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp(opened=False)
    app = DedupMiddleware(bare, dedup=make_dedup())
    with old_task_factory():
        gone = [call(app, "/gone"), call(app, "/x")]
        await virtual_time.go(0.2)
        late = call(app, "/x")
        await settle()
        for one in gone:
            one.disconnect()
        await settle()

        assert [len(flight.readers) for flight in app.dedup.flights.under_way.values()] == [0, 1]
        bare.gate.set()
        assert (await late.done()).complete
        await all_of(gone)


async def test_under_an_old_task_factory_a_stale_response_stands_in_for_an_app_that_hangs(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=10, stale_if_error=600, max_wait=2)))
    await get(app, "/x")
    bare.gate.clear()
    await virtual_time.go(20)
    with old_task_factory():
        one = call(app, "/x")
        await virtual_time.go(3)

        assert (one.complete, bare.runs) == (True, 2)
        bare.gate.set()
        await one.done()
