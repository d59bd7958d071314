"""Refresh: a stale or soon stale response answers at once, and one background forward fetches it anew."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.refresh import PAUSE

from .cache_kit import Answer, Site, error, ok, status_of, unchanged
from .kit import FakeClock, VirtualTime, chunk, get, head, no_task_for_flights, settle, until
from .telemetry_kit import Metrics, Seen, context

MakeDedup = Callable[..., Dedup]
Pairs = list[tuple[bytes, bytes]]

ORIGIN = Rule("/x", ttl="origin", vary="origin")
SHARED = Rule.shared_cache("/x")
WINDOW = "max-age=10, stale-while-revalidate=30"
FIRST = ok(cache_control=WINDOW, etag='"a"')
SECOND = ok(b"two", cache_control=WINDOW, etag='"b"')


async def stale(
    make_dedup: MakeDedup, clock: FakeClock, rule: Rule = ORIGIN, *answers: Answer, **settings: Any
) -> Site:
    """A site whose response turned stale a second ago, within its window."""
    site = Site(make_dedup, clock, rule, FIRST, *(answers or (SECOND,)), **settings)
    await site.get()
    site.advance(11)
    return site


# -- stale-while-revalidate (RFC 5861 s.3) ---------------------------------------------------------------------------


WINDOWS: list[tuple[str, Rule, Answer]] = [
    ("the response's", ORIGIN, FIRST),
    ("the rule's", Rule("/x", ttl="origin", stale_while_revalidate=30), ok(cache_control="max-age=10")),
    ("the rule's by a number", Rule("/x", ttl=10, stale_while_revalidate=30), ok()),
]


@pytest.mark.parametrize(("window", "rule", "first"), WINDOWS, ids=[row[0] for row in WINDOWS])
async def test_within_its_window_a_stale_response_answers_at_once_and_is_fetched_anew_once(
    window: str, rule: Rule, first: Answer, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, first, SECOND)
    await site.get()
    site.advance(11)
    site.origin.hold()

    answers = await asyncio.gather(*(site.get() for _ in range(1000)))
    answers += [await site.get() for _ in range(10)]
    await settle()

    assert site.origin.runs == 2
    assert {(one.status, one.body, one.header(b"age")) for one in answers} == {(200, b"one", b"11")}
    assert {status_of(one) for one in answers} == {"dedup; hit; ttl=-1; detail=stale-while-revalidate"}
    assert site.said("stale") == 1010
    site.origin.release()
    await settle()
    fresh = await site.get()
    assert (fresh.body, status_of(fresh)) == (b"two", "dedup; hit; ttl=10")
    assert site.origin.runs == 2


async def test_no_stale_hit_goes_unrecorded_or_saves_nothing(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, ORIGIN, FIRST, SECOND)
    site.dedup.recording = True
    site.origin.hold()
    first = site.call()
    await until(lambda: site.origin.runs == 1)
    site.advance(2)
    site.origin.release()
    await first.done()
    site.advance(11)

    assert "detail=stale-while-revalidate" in status_of(await site.get())
    assert [hits for _, _, hits, _ in site.dedup.hits_lately()] == [1]
    assert site.dedup.stats().saved == 2


async def test_the_background_forward_is_conditional_and_its_confirmation_makes_the_response_fresh(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged())

    await site.get()
    await settle()

    assert site.origin.requests[1][b"if-none-match"] == b'"a"'
    assert status_of(await site.get()) == "dedup; hit; ttl=10"
    assert (site.origin.runs, site.dedup.store.responses) == (2, 1)


HEEDING = Rule("/x", ttl="origin", vary="origin", honor_request_directives=True)
NUMBER = Rule("/x", ttl=10, stale_while_revalidate=30, honor_request_directives=True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "fields",
    [
        [(b"cache-control", b"only-if-cached")],
        [(b"Cache-Control", b"stale-if-error=5"), (b"Pragma", b"no-cache")],
        [(b"cache-control", b"x-unknown=1")],
    ],
)
@pytest.mark.parametrize("rule", [HEEDING, SHARED, NUMBER], ids=["origin", "shared", "number"])
async def test_a_background_forward_wants_nothing_of_what_the_request_before_it_wanted_of_a_cache(
    rule: Rule, fields: list[tuple[bytes, bytes]], method: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.5.2.1: directives are those of one request, and this one is nobody's
    site = await stale(make_dedup, clock, rule)

    answer = await site.get(method=method, headers=fields)
    await settle()

    assert status_of(answer) == "dedup; hit; ttl=-1; detail=stale-while-revalidate"
    assert site.origin.scopes[1]["method"] == "GET"
    names = {name.lower() for name in site.origin.requests[1]}
    assert not names & {b"cache-control", b"pragma"}
    fresh = await site.get()
    assert (fresh.body, status_of(fresh)) == (b"two", "dedup; hit; ttl=10")


async def test_a_background_forward_has_the_directives_by_which_responses_are_told_apart(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.1
    answers = [ok(body, cache_control=WINDOW, vary="cache-control") for body in (b"one", b"two")]
    site = Site(make_dedup, clock, HEEDING, *answers)
    headers = [(b"cache-control", b"stale-if-error=5")]
    await site.get(headers=headers)
    site.advance(11)

    await site.get(headers=headers)
    await settle()

    assert site.origin.requests[1][b"cache-control"] == b"stale-if-error=5"
    assert (await site.get(headers=headers)).body == b"two"


async def test_past_its_window_a_stale_response_waits_for_the_app(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.advance(29)

    answer = await site.get()

    assert (answer.body, status_of(answer)) == (b"two", "dedup; fwd=stale; stored; ttl=10")


async def test_a_request_past_the_window_joins_the_background_forward_that_is_under_way(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # What comes must be fresh for longer than it took to come: its delay is part of its age (RFC 9111 s.4.2.3).
    site = await stale(make_dedup, clock, ORIGIN, ok(b"two", cache_control="max-age=100"))
    site.origin.hold()
    await site.get()
    await until(lambda: site.origin.runs == 2)
    site.advance(60)
    late = [site.call() for _ in range(20)]
    await settle()
    site.origin.release()
    answers = [await one.done() for one in late]

    assert site.origin.runs == 2
    assert {one.body for one in answers} == {b"two"}
    assert site.said("collapsed") == 20


async def test_a_stale_request_starts_no_background_forward_where_one_for_somebody_is_under_way(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # One that wants nothing stale leads; the others are answered at once, and it fetches for them.
    site = await stale(make_dedup, clock, SHARED)
    site.origin.hold()
    strict = site.call(headers=[(b"cache-control", b"max-age=100")])
    await until(lambda: site.origin.runs == 2)

    answers = [await site.get() for _ in range(5)]

    assert {one.body for one in answers} == {b"one"}
    site.origin.release()
    assert (await strict.done()).body == b"two"
    assert site.origin.runs == 2


# Neither is a 429, by which the app says that it is asked too often (RFC 6585 s.4), news of what is stored.
@pytest.mark.parametrize("failure", [error(500), error(503), error(429), ValueError("broken")], ids=repr)
@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_a_background_forward_that_fails_concerns_nobody_and_is_tried_again_after_a_pause(
    rule: Rule,
    failure: Answer,
    make_dedup: MakeDedup,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = await stale(make_dedup, clock, rule, failure)

    for tries in range(1, 4):
        for answer in [await site.get() for _ in range(5)]:
            await settle()
            assert (answer.status, answer.body) == (200, b"one")
        assert site.origin.runs == 1 + tries
        site.advance(PAUSE)
    site.origin.then(SECOND)
    await site.get()
    await settle()

    assert (await site.get()).body == b"two"
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bool(told) is (isinstance(failure, ValueError) and rule is SHARED)


async def test_a_background_forward_that_failed_holds_nothing_until_the_collector_comes_by(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    """Its error's traceback holds the flight, and that what was stored."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if dedup.stats().stored:
            await gate.wait()
            raise ValueError("it failed")
        await send(head())
        await send(chunk(b"one", more=False))

    dedup = make_dedup(Rule("/x", ttl=10, stale_while_revalidate=30))
    site = DedupMiddleware(app, dedup=dedup)
    await get(site, "/x")
    clock.advance(11)
    gc.disable()
    try:
        await get(site, "/x")
        flights = [weakref.ref(flight) for flight in dedup.flights.under_way.values()]
        gate.set()
        await settle()
        assert [flight() for flight in flights] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("answer", [error(418), error(403), ok(b"two", cache_control="no-store")], ids=repr)
@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_what_a_background_forward_shows_to_be_out_of_date_answers_nobody_any_more(
    rule: Rule, answer: Answer, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.3: a full response is what there is now, though it may not be stored
    site = await stale(make_dedup, clock, rule, answer)
    assert (await site.get()).body == b"one"
    await settle()

    assert site.dedup.store.responses == 0
    assert not status_of(await site.get()).startswith("dedup; hit")
    assert site.origin.runs == 3


async def test_a_background_forward_that_hangs_holds_up_nobody(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.origin.hold()
    await site.get()
    await virtual_time.go(25)
    assert (await site.get()).body == b"one"
    await virtual_time.go(10)  # past the window, and past max_wait of the one that hangs
    late = site.call()
    await until(lambda: site.origin.runs == 3)
    site.origin.release()

    assert (await late.done()).body == b"two"


async def test_a_background_forward_without_a_head_ends_after_max_wait(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Nobody waits for it, so nobody could give up: its app hears of it, and is cancelled 3 s later.
    site = await stale(make_dedup, clock)
    site.origin.hold()
    await site.get()
    await virtual_time.go(32)
    assert (site.origin.runs, site.origin.cancelled) == (2, 0)

    await virtual_time.go(2)

    assert site.origin.cancelled == 1
    assert site.dedup.flights.is_empty


@pytest.mark.parametrize(
    "fields",
    [[(b"content-type", b"text/event-stream")], [(b"cache-control", b"max-age=10")]],
    ids=["events", "long"],
)
async def test_a_background_forward_that_brings_nothing_to_store_never_runs_on_for_nobody(
    fields: Pairs, virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    ended: list[float] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(head(200, fields))
        try:
            while True:
                await send(chunk(b"x" * 60))
                await asyncio.sleep(0.1)
        finally:
            ended.append(clock.now)

    site = await stale(make_dedup, clock, Rule("/x", ttl="origin", vary="origin", max_response_body=100))
    site.app.app = endless
    await site.get()
    began = clock.now

    await virtual_time.go(5)

    assert ended == [pytest.approx(began + 3, abs=0.3)]
    assert site.dedup.flights.is_empty


async def test_a_background_forward_that_somebody_has_joined_ends_when_they_have_gone_on(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.origin.hold()
    await site.get()
    await virtual_time.go(29.5)  # past the window
    joined = site.call()
    await until(lambda: site.origin.runs == 2)
    await virtual_time.go(1)
    await until(lambda: site.origin.runs == 3)  # its successor
    await virtual_time.go(3)

    assert site.origin.cancelled == 1
    site.origin.release()
    assert (await joined.done()).body == b"two"


async def test_the_client_that_started_a_background_forward_may_leave(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.origin.hold()
    one = site.call()
    await one.done()
    one.disconnect()
    await virtual_time.go(5)
    site.origin.release()
    await settle()

    assert site.origin.cancelled == 0
    assert (await site.get()).body == b"two"


async def test_the_background_forward_of_a_query_has_its_body(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, ORIGIN, FIRST, SECOND)
    await site.get(method="QUERY", body=b"question")
    site.advance(11)

    await site.get(method="QUERY", body=b"question")
    await settle()

    assert site.origin.bodies == [b"question", b"question"]
    assert (await site.get(method="QUERY", body=b"question")).body == b"two"


async def test_where_there_are_too_many_flights_the_stale_response_answers_all_the_same(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.dedup.flights.max_flights = 0

    assert (await site.get()).body == b"one"
    assert site.origin.runs == 1
    site.dedup.flights.max_flights = 100
    site.advance(PAUSE)
    await site.get()
    await settle()
    assert (await site.get()).body == b"two"


async def test_a_background_forward_is_a_trace_of_its_own_and_what_it_stored_links_to_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    seen = Seen()
    site = await stale(make_dedup, clock, ORIGIN, tracer_provider=seen.provider)
    first = seen.one("forward ")
    with seen.tracer.start_as_current_span("server"):
        await site.get()
    await settle()
    await site.get()

    (span,) = seen.named("stale ")
    (hit,) = seen.named("hit ")
    second = seen.named("forward ")[-1]
    assert span.attributes is not None
    assert span.attributes["dedup.reason"] == "stale-while-revalidate"
    assert [link.context.span_id for link in span.links] == [context(first).span_id]
    assert [link.context.span_id for link in hit.links] == [context(second).span_id]
    assert context(second).trace_id != context(first).trace_id


# -- before it is stale ----------------------------------------------------------------------------------------------


AHEAD = [
    Rule("/x", ttl=10, refresh_ahead=3),
    Rule("/x", ttl="origin", refresh_ahead=3),
    Rule.shared_cache("/x", refresh_ahead=3),
]


@pytest.mark.parametrize("rule", AHEAD, ids=["number", "origin", "shared"])
async def test_a_hit_in_the_last_seconds_starts_one_background_forward_and_is_a_plain_hit(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(
        make_dedup, clock, rule, ok(cache_control="max-age=10"), ok(b"two", cache_control="max-age=10")
    )
    await site.get()
    site.advance(6.9)
    await site.get()
    await settle()
    assert site.origin.runs == 1
    site.advance(0.1)
    site.origin.hold()

    answers = [await site.get() for _ in range(100)]
    await settle()

    assert site.origin.runs == 2
    assert {one.body for one in answers} == {b"one"}
    assert {status_of(one) for one in answers} == {"dedup; hit; ttl=3"}
    site.origin.release()
    await settle()
    site.advance(5)  # the first would be stale by now
    fresh = await site.get()
    assert (fresh.body, status_of(fresh)) == (b"two", "dedup; hit; ttl=5")
    assert (site.said("hit"), site.origin.runs) == (102, 2)


@pytest.mark.parametrize(
    ("first", "own", "other"),
    [
        (ok(cache_control="public, max-age=10"), [(b"authorization", b"Bearer alice")], []),
        (
            (206, {"cache-control": "max-age=10", "content-range": "bytes 2-5/10", "etag": '"a"'}, b"2345"),
            [(b"range", b"bytes=2-5")],
            [(b"range", b"bytes=3-4")],
        ),
    ],
    ids=["for all", "a part"],
)
async def test_nobody_renews_what_is_stored_for_a_request_other_than_its_own(
    first: Answer, own: Pairs, other: Pairs, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # It would run as it was asked for last, and its answer would lie under the key of what was asked for at first.
    site = Site(make_dedup, clock, AHEAD[2], first)
    await site.get(headers=own)
    site.advance(8)

    answered = await site.get(headers=other)
    await settle()
    assert (status_of(answered), site.origin.runs) == ("dedup; hit; ttl=2", 1)

    await site.get(headers=own)
    await settle()
    assert [request.get(own[0][0]) for request in site.origin.requests] == [own[0][1]] * 2


async def test_a_popular_response_never_misses(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, AHEAD[0], ok())
    await site.get()

    for _ in range(100):
        site.advance(1)
        assert status_of(await site.get()).startswith("dedup; hit; ttl=")
        await settle()

    assert site.origin.runs < 20
    assert site.said("forwarded") == 1


async def test_a_refresh_ahead_that_fails_leaves_the_fresh_response(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    for failure in (ValueError("broken"), error(503)):
        site = Site(make_dedup, clock, AHEAD[0], ok(), failure)
        await site.get()
        site.advance(8)
        await site.get()
        await settle()
        assert site.origin.runs == 2
        assert (await site.get()).body == b"one"


async def test_a_head_in_the_last_seconds_does_not_keep_a_get_from_starting_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, AHEAD[0], ok(), ok(b"two"))
    await site.get()
    site.advance(8)
    await site.get(method="HEAD")
    await site.get()
    await settle()

    assert site.origin.runs == 2


# -- invalidation wins -----------------------------------------------------------------------------------------------


TAGGED = Rule("/x", ttl="origin", stale_while_revalidate=30, stale_if_error=300, tags=["x"])


async def write(site: Site) -> None:
    before = site.origin.answers
    site.origin.then(ok(b"written"))
    await site.get(method="POST")
    site.origin.then(*before)


DROPS: dict[str, Callable[[Site], Any]] = {
    "invalidate": lambda site: site.dedup.invalidate("x"),
    "a write": write,
    "clear": lambda site: asyncio.sleep(0, site.dedup.clear()),
}


class Reading:
    """The app, whose second GET has chosen its answer and waits before it gives it; all others answer at once."""

    def __init__(self, site: Site) -> None:
        self.origin = site.origin
        self.gate = asyncio.Event()
        site.app.app = self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        waits = scope["method"] == "GET" and self.origin.runs == 1

        async def send_late(message: Any) -> None:
            if waits:
                await self.gate.wait()
            await send(message)

        await self.origin(scope, receive, send_late)


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("fresh", [False, True], ids=["while stale", "ahead"])
@pytest.mark.parametrize(
    "answer", [unchanged(), ok(b"old", cache_control="max-age=60"), error(503)], ids=repr
)
async def test_what_a_background_forward_began_before_an_invalidation_is_neither_served_nor_stored_after_it(
    answer: Answer, fresh: bool, drop: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 7
    rule = Rule("/x", ttl=10, refresh_ahead=3, tags=["x"]) if fresh else TAGGED
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=10", etag='"a"'), answer)
    await site.get()
    site.advance(8 if fresh else 11)
    reading = Reading(site)
    await site.get()
    await until(lambda: site.origin.runs == 2)
    await DROPS[drop](site)
    site.origin.then(ok(b"new", cache_control="max-age=60"))

    after = await site.get()
    reading.gate.set()
    await settle()

    assert after.body == b"new"
    assert (await site.get()).body == b"new"


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("answer", [unchanged(), error(503)], ids=repr)
async def test_a_revalidation_under_way_takes_no_newcomer_after_an_invalidation_and_stores_nothing(
    answer: Answer, drop: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    rule = Rule("/x", ttl="origin", stale_if_error=300, tags=["x"])
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=10", etag='"a"'), answer)
    await site.get()
    site.advance(11)
    reading = Reading(site)
    before = site.call()
    await until(lambda: site.origin.runs == 2)
    await DROPS[drop](site)
    site.origin.then(ok(b"new", cache_control="max-age=60"))

    after = await site.get()
    reading.gate.set()
    await before.done()

    assert after.body == b"new"
    # What was confirmed answers who asked before; what was dropped stands in for no error any more.
    assert before.body == (b"one" if answer == unchanged() else b"broken")
    assert (await site.get()).body == b"new"
    assert site.dedup.store.responses == 1


async def test_switched_off_during_a_background_forward_nothing_is_served_or_stored_any_more(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    site.origin.hold()
    await site.get()
    await until(lambda: site.origin.runs == 2)
    site.dedup.enabled = False
    site.origin.release()
    await settle()
    site.origin.then(ok(b"three"))

    bare = await site.get()
    assert (bare.body, bare.header(b"cache-status")) == (b"three", None)
    site.dedup.enabled = True
    assert site.dedup.store.responses == 0
    assert status_of(await site.get()).startswith("dedup; fwd=uri-miss")


async def test_what_was_dropped_on_its_way_to_a_slow_client_is_not_fetched_anew_and_never_stands_in(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    rule = Rule("/x", ttl=10, refresh_ahead=3, stale_if_error=60, tags=["x"])
    site = Site(make_dedup, clock, rule, ok(), error())
    await site.get()
    site.advance(8)
    site.origin.hold()
    slow = site.call(stalled=True)
    await slow.head_sent.wait()

    assert await site.dedup.invalidate("x") == 1
    slow.reading.set()
    assert (await slow.done()).body == b"one"
    after = site.call()
    await settle()
    site.origin.release()

    assert ((await after.done()).status, after.body) == (503, b"broken")
    assert site.origin.runs == 2, "for this one, not in the background"


async def test_switched_off_during_a_revalidation_its_waiters_are_answered_and_nothing_is_stored(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged())
    site.advance(40)
    site.origin.hold()
    calls = [site.call() for _ in range(3)]
    await until(lambda: site.origin.runs == 2)
    await settle()
    site.dedup.enabled = False
    site.origin.release()

    assert {(await one.done()).body for one in calls} == {b"one"}
    assert site.dedup.store.responses == 0


async def test_closing_the_engine_ends_a_background_forward(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = await stale(make_dedup, clock)
    site.origin.hold()
    await site.get()
    await until(lambda: site.origin.runs == 2)

    await site.dedup.aclose()

    assert site.origin.cancelled == 1
    assert (site.dedup.stats().flights, site.dedup.store.size) == (0, 0)


async def test_a_refresh_that_the_loop_makes_no_task_of_is_tried_again(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock)
    with no_task_for_flights():
        assert (await site.get()).body == b"one"
        assert site.dedup.flights.is_empty
    site.advance(PAUSE)
    await site.get()
    await settle()
    assert (await site.get()).body == b"two"


async def test_a_get_in_the_background_is_told_as_such_though_a_head_was_answered(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    metrics = Metrics()
    site = await stale(make_dedup, clock, SHARED, meter_provider=metrics.provider)

    assert "hit" in status_of(await site.get(method="HEAD"))
    await settle()

    assert [scope["method"] for scope in site.origin.scopes] == ["GET", "GET"]
    forwards = metrics.read()["dedup.forward.duration"]
    assert [(dict(point)["http.request.method"], count) for point, (count, _) in forwards.items()] == [
        ("GET", 2)
    ]
