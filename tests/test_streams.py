"""Streams: read while they are written, by fast and slow clients, and never passed off as whole when they are not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule
from dedup_middleware.flight import Flight

from .kit import (
    Call,
    FakeClock,
    Message,
    Pairs,
    SlowCall,
    SteppedApp,
    VirtualTime,
    call,
    chunk,
    get,
    head,
    make_scope,
    settle,
    until,
)

Make = Callable[..., Dedup]
TEN = [b"chunk %d;" % number for number in range(10)]
STATUS = b"cache-status"

pytestmark = pytest.mark.usefixtures("virtual_time")  # a deadlock fails


def stream(chunks: Sequence[bytes], headers: Pairs = ()) -> list[Message]:
    return [head(200, headers), *(chunk(one) for one in chunks[:-1]), chunk(chunks[-1], more=False)]


def under_way(dedup: Dedup) -> Flight:
    (flight,) = dedup.flights.under_way.values()
    return flight


async def ended(one: Call) -> BaseException | None:
    return (await asyncio.gather(one.task, return_exceptions=True))[0]


# -- read while it is written ------------------------------------------------------------------------------------


async def test_followers_never_wait_for_the_second_chunk_to_get_the_first(make_dedup: Make) -> None:
    bare = SteppedApp(*stream(TEN))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app) for _ in range(100)]
    await settle()
    bare.step()
    for number, piece in enumerate(TEN):
        bare.step()
        await settle()
        assert [one.messages[-1]["body"] for one in calls] == [piece] * 100
        assert [len(one.messages) for one in calls] == [number + 2] * 100
    for one in calls:
        await one.done()
        assert one.messages[1:] == stream(TEN)[1:], "chunk by chunk as the app sent it"
        assert one.complete
    assert bare.runs == 1


async def test_a_chunk_never_waits_for_an_app_that_does_not_pause(make_dedup: Make) -> None:
    received: list[list[int]] = []

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        for number, piece in enumerate(TEN):
            await send(chunk(piece, more=number < 9))
            received.append([len(one.messages) - 1 for one in calls])

    app = DedupMiddleware(hasty, dedup=make_dedup())
    calls = [call(app) for _ in range(5)]
    for one in calls:
        assert (await one.done()).body == b"".join(TEN)
    assert received[:9] == [[number] * 5 for number in range(1, 10)], "before the app makes the next"


@pytest.mark.parametrize("sent", range(11))
async def test_a_follower_that_comes_in_the_middle_misses_nothing(make_dedup: Make, sent: int) -> None:
    bare = SteppedApp(*stream(TEN), None)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    leader = call(app)
    await settle()
    bare.step(1 + sent)
    await settle()
    follower = call(app)
    await settle()
    assert follower.body == b"".join(TEN[:sent])
    bare.finish()
    for one in (leader, follower):
        assert (await one.done()).body == b"".join(TEN)
    assert bare.runs == 1


async def test_a_newcomer_past_the_join_window_never_reads_an_old_stream(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(*stream(TEN))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app)]
    await settle()
    await virtual_time.go(20)
    calls.append(call(app))  # a flight without a head has no age
    bare.step(2)
    await virtual_time.go(1)
    calls.append(call(app))
    await settle()
    assert bare.runs == 1
    await virtual_time.go(0.01)
    calls.append(call(app))
    await settle()
    calls.append(call(app))
    await settle()
    assert bare.runs == 2, "one successor, which takes the key"
    bare.finish()
    for one in calls:
        assert (await one.done()).body == b"".join(TEN)


# -- slow readers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [0, 1], ids=["leader", "follower"])
async def test_one_slow_reader_costs_the_others_nothing_within_the_cap(make_dedup: Make, slow: int) -> None:
    dedup = make_dedup()
    bare = SteppedApp(*stream(TEN))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, stalled=number == slow) for number in range(5)]
    await settle()
    flight = under_way(dedup)
    bare.finish()
    for number, one in enumerate(calls):
        if number != slow:
            await until(lambda one=one: one.complete)  # type: ignore[misc] # mypy infers no lambda with a default
            assert one.body == b"".join(TEN)
    assert bare.ended == 1, "the app is done, whoever reads slowly"
    assert len(calls[slow].messages) == 1
    assert flight.held == len(b"".join(TEN))
    calls[slow].reading.set()
    assert (await calls[slow].done()).body == b"".join(TEN)


async def test_a_big_download_never_holds_more_than_the_cap_and_loses_no_byte(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    cap, size, pieces = 1024 * 1024, 64 * 1024, 1024
    dedup = make_dedup()
    sent, taken = hashlib.sha256(), hashlib.sha256()
    ahead = most_ahead = most_held = 0
    flight: Flight | None = None

    async def download(scope: Any, receive: Any, send: Any) -> None:
        nonlocal ahead, most_ahead, most_held, flight
        flight = under_way(dedup)
        await send(head())
        for number in range(pieces):
            piece = number.to_bytes(4, "big") * (size // 4)
            sent.update(piece)
            await send(chunk(piece))
            ahead += size
            most_ahead = max(most_ahead, ahead)
            most_held = max(most_held, flight.held)
        await send(chunk(more=False))

    class Counting(SlowCall):
        async def _send(self, message: Message) -> None:
            nonlocal ahead
            await super()._send(message)
            taken.update(message.get("body", b""))
            ahead -= len(message.get("body", b""))
            message["body"] = b""

    one = Counting(DedupMiddleware(download, dedup=dedup), make_scope())
    await virtual_time.go(100)  # a reader that is alone is never cut
    assert flight is not None
    assert cap - size <= flight.held <= cap
    while not one.task.done():
        one.permits.release()
        await settle(4)
        most_held = max(most_held, flight.held)
    await one.done()
    assert taken.digest() == sent.digest()
    assert one.complete
    assert most_held <= cap
    assert most_ahead <= cap + size, "real backpressure: what is sent and not taken, with the chunk in hand"


CAPPED = Rule(max_response_body=100)
LONG = [b"%02d" % number * 25 for number in range(20)]  # 20 chunks of 50 bytes


def readers(app: object, count: int, slow: int) -> list[SlowCall]:
    """So many clients, all but one of which take whatever comes."""
    calls = [SlowCall(app, make_scope()) for _ in range(count)]
    for number, one in enumerate(calls):
        if number != slow:
            one.take_all()
    return calls


async def assert_cut(one: SlowCall) -> None:
    """It hears of it when its own send returns, and its response never looks whole."""
    one.take_all()
    error = await ended(one)
    assert isinstance(error, ForwardFailed)
    assert error.error_type == "SlowReader"
    assert not one.complete


@pytest.mark.parametrize("slow", [0, 1], ids=["leader", "follower"])
async def test_a_reader_that_takes_nothing_never_holds_up_the_others_past_the_stall(
    virtual_time: VirtualTime, make_dedup: Make, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    monkeypatch.setattr("dedup_middleware.body.MAX_HOLD", 1000.0)
    dedup = make_dedup(default=CAPPED)
    bare = SteppedApp(*stream(LONG))
    calls = readers(DedupMiddleware(bare, dedup=dedup), 4, slow)
    await settle()
    flight = under_way(dedup)
    bare.finish()
    await virtual_time.go(9.9)
    assert bare.ended == 0
    assert flight.held <= 100
    await virtual_time.go(0.2)
    assert bare.ended == 1
    for one in calls:
        if one is not calls[slow]:
            assert (await one.done()).body == b"".join(LONG)
    await assert_cut(calls[slow])


async def test_a_reader_that_trickles_never_holds_up_the_others_past_max_hold(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(*stream(LONG))
    calls = readers(DedupMiddleware(bare, dedup=make_dedup(default=CAPPED)), 3, slow=2)
    await settle()
    bare.finish()
    for seconds in (2, 2, 0.9):
        await virtual_time.go(seconds)
        calls[2].take()
        await settle()
        assert bare.ended == 0
    await virtual_time.go(0.2)
    for one in calls[:2]:
        assert (await one.done()).body == b"".join(LONG)
    await assert_cut(calls[2])


async def test_a_reader_that_had_nothing_to_take_is_never_cut_for_it(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(*stream(LONG))
    calls = readers(DedupMiddleware(bare, dedup=make_dedup(default=CAPPED)), 2, slow=1)
    await settle()
    bare.step(2)
    calls[1].take()
    await virtual_time.go(15)
    assert [len(one.messages) for one in calls] == [2, 2], "both have all there is"
    bare.finish()
    await virtual_time.go(1)
    calls[1].take_all()
    for one in calls:
        assert (await one.done()).body == b"".join(LONG)


async def test_a_slow_reader_that_leaves_sets_the_others_free(make_dedup: Make) -> None:
    bare = SteppedApp(*stream(LONG))
    calls = readers(DedupMiddleware(bare, dedup=make_dedup(default=CAPPED)), 3, slow=1)
    await settle()
    bare.finish()
    await settle(50)
    assert bare.ended == 0
    calls[1].cancel()
    for one in (calls[0], calls[2]):
        assert (await one.done()).body == b"".join(LONG)
    assert isinstance(await ended(calls[1]), asyncio.CancelledError)


# -- under, at and over the cap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("size", [0, 99, 100, 101, 1000])
async def test_a_body_of_unknown_length_is_stored_only_up_to_the_cap_and_served_whole_at_any_size(
    make_dedup: Make, size: int, pieces: int
) -> None:
    body = bytes(number % 251 for number in range(size))
    cut = [size * part // pieces for part in range(pieces + 1)]
    bare = SteppedApp(*stream([body[cut[part] : cut[part + 1]] for part in range(pieces)]))
    dedup = make_dedup(default=Rule(ttl=60, max_response_body=100))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app) for _ in range(3)]
    await settle()
    bare.finish()
    assert [(await one.done()).body for one in calls] == [body] * 3
    assert (bare.runs, dedup.store.responses) == (1, 1 if size <= 100 else 0)
    again = await get(app)
    assert again.body == body
    assert bare.runs == (1 if size <= 100 else 2)


async def test_a_body_that_outgrew_the_cap_takes_nobody_on_board_any_more(make_dedup: Make) -> None:
    dedup = make_dedup(default=CAPPED)
    bare = SteppedApp(*stream(LONG))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app), call(app)]
    await settle()
    bare.step(1 + 2)
    await settle()
    calls.append(call(app))
    await settle()
    assert bare.runs == 1
    bare.step()
    await settle()
    calls.append(call(app))
    await settle()
    assert bare.runs == 2
    bare.finish()
    for one in calls:
        assert (await one.done()).body == b"".join(LONG)


def by_run(*bodies: Sequence[Message | BaseException | type[BaseException] | None]) -> Any:
    """An app that answers each run with its own script."""
    runs: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        for message in bodies[min(len(runs), len(bodies)) - 1]:
            if isinstance(message, (BaseException, type)):
                raise message
            if message is not None:
                await send(dict(message))

    app.runs = runs  # type: ignore[attr-defined] # functions may carry attributes
    return app


@pytest.mark.parametrize("leaves_at", [1, 4], ids=["before", "after"])
async def test_a_body_that_outgrew_what_can_be_stored_never_runs_on_for_nobody(
    leaves_at: int, virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), *[chunk(b"x" * 60)] * 5, None)
    dedup = make_dedup(Rule(ttl=60, max_response_body=100))
    one = call(DedupMiddleware(bare, dedup=dedup))
    await settle()
    bare.step(leaves_at)
    await settle()
    one.cancel()
    assert isinstance(await ended(one), asyncio.CancelledError)
    hearing = asyncio.ensure_future(bare.receive())
    assert (await hearing)["type"] == "http.request"
    hearing = asyncio.ensure_future(bare.receive())
    bare.step(4 - leaves_at)
    await settle()

    assert hearing.done(), "its app hears of it"
    await virtual_time.go(2.9)
    assert bare.cancelled == 0
    await virtual_time.go(0.2)
    assert bare.cancelled == 1
    assert dedup.flights.is_empty


async def test_a_call_that_may_change_something_runs_on_however_long_its_body_is(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), *[chunk(b"x" * 60)] * 5, chunk(more=False))
    dedup = make_dedup(Rule(methods=["POST"], ttl=60, collapse=True, max_response_body=100))
    one = call(DedupMiddleware(bare, dedup=dedup), method="POST")
    await settle()
    bare.step(4)
    await settle()
    one.cancel()
    await ended(one)
    await virtual_time.go(10)
    bare.finish()
    await settle()

    assert (bare.ended, bare.cancelled) == (1, 0)


async def test_outgrowing_keeps_later_requests_from_queueing_for_a_minute(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(*stream(LONG))
    app = DedupMiddleware(bare, dedup=make_dedup(default=CAPPED))
    first = call(app)
    bare.step(len(bare.script))
    await first.done()
    await virtual_time.go(59)
    calls = [call(app) for _ in range(5)]
    await settle()
    assert bare.runs == 6
    bare.step(5 * len(bare.script))
    assert {(await one.done()).header(STATUS) for one in calls} == {b"dedup; fwd=uri-miss; detail=too-large"}
    await virtual_time.go(61)
    calls = [call(app) for _ in range(5)]
    await settle()
    assert bare.runs == 7
    bare.finish()
    await asyncio.gather(*(one.done() for one in calls))


@pytest.mark.parametrize(
    ("second", "clears"),
    [
        (stream([b"small"]), True),
        ([head(), chunk(b"small"), None], False),
        ([head(), chunk(b"small"), ValueError], False),
        ([head(200, [(b"content-length", b"50")]), chunk(b"small", more=False)], False),
        (stream(LONG), False),
    ],
    ids=["complete", "unfinished", "broken", "shorter than declared", "too large again"],
)
async def test_only_a_complete_body_under_the_cap_clears_the_mark_of_one_that_outgrew_it(
    make_dedup: Make, second: list[Message | type[BaseException] | None], clears: bool
) -> None:
    bare = by_run([*stream(LONG)], second, [*stream([b"third"])])
    app = DedupMiddleware(bare, dedup=make_dedup(default=CAPPED))
    await get(app)
    marked = call(app)
    error = await ended(marked)
    assert (error is None) == (ValueError not in second)
    assert marked.header(STATUS) == b"dedup; fwd=uri-miss; detail=too-large"
    third = await get(app)
    assert third.header(STATUS) == (
        b"dedup; fwd=uri-miss" if clears else b"dedup; fwd=uri-miss; detail=too-large"
    )


async def test_what_will_most_likely_outgrow_the_cap_again_does_not_say_that_it_is_stored(
    make_dedup: Make,
) -> None:
    pieces = [b"x" * 100, b"x"]
    headers: Pairs = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        for message in stream(pieces, headers):
            await send(message)

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60, max_response_body=100)))
    told = [(await get(app)).header(STATUS) for _ in range(2)]
    pieces, headers = [b"x"], [(b"content-length", b"1")]
    told += [(await get(app)).header(STATUS) for _ in range(2)]

    assert told == [
        b"dedup; fwd=uri-miss; stored; ttl=60",  # nobody knows how long it will be
        b"dedup; fwd=uri-miss; detail=too-large",
        b"dedup; fwd=uri-miss; stored; ttl=60",
        b"dedup; hit; ttl=60",
    ]


@pytest.mark.parametrize(
    ("rule", "store"),
    [
        (Rule(ttl=60, max_bytes=3000), "memory://"),
        (Rule.shared_cache(max_bytes=3000), "memory://"),
        (Rule(ttl=60), "memory://?max_bytes=3000"),
    ],
    ids=["max_bytes", "by the origin", "the store"],
)
@pytest.mark.parametrize("length", [900, 1901])
async def test_what_there_is_no_room_for_does_not_say_that_it_is_stored(
    make_dedup: Make, rule: Rule, store: str, length: int
) -> None:
    headers = [(b"content-length", b"%d" % length), (b"cache-control", b"max-age=60")]
    bare = SteppedApp(*stream([b"x" * length], headers))
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule, store=store))
    calls = [call(app) for _ in range(2)]
    bare.step(len(bare.script))
    first, second = [(await one.done()).header(STATUS) for one in calls]

    assert bare.runs == 1, "all who wait have it"
    assert first == b"dedup; fwd=uri-miss" + (b"; stored; ttl=60" if length == 900 else b"")
    assert second == b"dedup; fwd=uri-miss; collapsed"
    assert app.dedup.stats().stored == (length == 900)
    assert app.dedup.explain(response=(200, {"content-length": "1901"})).response.decision == "share"  # type: ignore[union-attr] # it was asked about


async def test_a_minute_later_it_says_so_again(make_dedup: Make, clock: FakeClock) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        for message in stream([b"x" * 100, b"x"], []):
            await send(message)

    rule = Rule(ttl=60, max_response_body=100, collapse=False)  # no look-up lets go of the mark before
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    told = [(await get(app)).header(STATUS) for _ in range(2)]
    clock.now += 61
    told.append((await get(app)).header(STATUS))

    assert told == [
        b"dedup; fwd=uri-miss; stored; ttl=60",
        b"dedup; fwd=uri-miss; detail=too-large",
        b"dedup; fwd=uri-miss; stored; ttl=60",
    ]


async def test_nor_does_it_where_something_stale_lies_under_its_key(
    make_dedup: Make, clock: FakeClock
) -> None:
    pieces = [b"x"]

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        for message in stream(pieces, []):
            await send(message)

    rule = Rule(ttl=60, max_response_body=100, stale_if_error=3600)
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    told = [(await get(app)).header(STATUS)]
    pieces = [b"x" * 100, b"x"]
    clock.now += 61
    told += [(await get(app)).header(STATUS) for _ in range(2)]

    assert told == [
        b"dedup; fwd=uri-miss; stored; ttl=60",
        b"dedup; fwd=stale; stored; ttl=60",
        b"dedup; fwd=stale; detail=too-large",
    ]


# -- a truncated response is an error for all --------------------------------------------------------------------


@pytest.mark.parametrize("sent", range(11), ids=lambda sent: f"after {sent} messages")
@pytest.mark.parametrize("ending", [ValueError, None], ids=["raises", "returns"])
@pytest.mark.parametrize("declared", [False, True], ids=["chunked", "content-length"])
async def test_a_response_that_breaks_off_never_looks_complete_to_anybody(
    make_dedup: Make, sent: int, ending: type[BaseException] | None, declared: bool
) -> None:
    length = [(b"content-length", b"%d" % sum(map(len, TEN)))] if declared else []
    dedup = make_dedup(default=Rule(ttl=60))
    bare = SteppedApp(*stream(TEN, length)[:sent], ending)
    app = DedupMiddleware(bare, dedup=dedup)
    leader, *followers = calls = [call(app) for _ in range(20)]
    await settle()
    bare.finish()
    assert type(await ended(leader)) is (ending or type(None))
    for one in followers:
        error = await ended(one)
        assert isinstance(error, ForwardFailed)
        assert error.error_type == ("IncompleteResponse" if ending is None else "ValueError")
    for one in calls:
        assert not one.complete
        assert len(one.messages) == sent
        assert one.body == b"".join(TEN[: max(0, sent - 1)])
    assert (bare.runs, dedup.store.responses) == (1, 0)
    late = call(app)
    assert type(await ended(late)) is (ending or type(None))
    assert bare.runs == 2, "nothing was stored"


@pytest.mark.parametrize("readers", [1, 2])
async def test_an_end_that_waits_for_room_when_the_apps_call_is_over_never_makes_the_rest_look_whole(
    readers: int, make_dedup: Make
) -> None:
    late: list[asyncio.Task[None]] = []

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        for size in (400, 400, 200):
            await send(chunk(b"x" * size))
        late.append(asyncio.create_task(send(chunk(b"x" * 300, more=False))))
        await settle()

    dedup = make_dedup(Rule(max_response_body=1000))
    app = DedupMiddleware(hasty, dedup=dedup)
    slow = [SlowCall(app, make_scope()) for _ in range(readers)]
    await settle(100)
    assert late
    for one in slow:
        one.take()  # now there is room
    await settle()
    for one in slow:
        one.take_all()

    for one, error in [(one, await ended(one)) for one in slow]:
        assert (len(one.body), one.complete) == (1000, False)
        assert isinstance(error, ForwardFailed if one is not slow[0] else type(None))
    await asyncio.gather(*late)
    assert dedup.flights.budget.used == 0
    assert dedup.outgrown.young, "only a complete body clears the mark"


@pytest.mark.parametrize("pieces", [[b"0123456789"], [b"01234", b"56789"], [b"0123456789", b""]])
@pytest.mark.parametrize("declared", [b"9", b"11", b"0", b"1000"])
async def test_a_body_of_another_length_than_declared_is_never_stored_nor_whole_for_followers(
    make_dedup: Make, declared: bytes, pieces: list[bytes]
) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    script = stream(pieces, [(b"Content-Length", declared)])
    bare = SteppedApp(*script)
    app = DedupMiddleware(bare, dedup=dedup)
    leader, *followers = [call(app) for _ in range(5)]
    await settle()
    bare.finish()
    await leader.done()
    assert leader.messages[1:] == script[1:], "the leader has what the bare app sent; its server judges"
    for one in followers:
        assert isinstance(await ended(one), ForwardFailed)
        assert not one.complete
    assert dedup.store.responses == 0


# -- with nothing to share, the app's own ------------------------------------------------------------------------

BODY = "http.response.body"
SHAPES: dict[str, list[Message]] = {
    "one body message": [head(200, [(b"content-type", b"text/plain")]), chunk(b"hello", more=False)],
    "many body messages": stream(TEN),
    "empty messages in between": [head(), chunk(), chunk(b"a"), chunk(), chunk(b"b"), chunk(more=False)],
    "an empty body": [head(200, [(b"content-length", b"0")]), chunk(more=False)],
    "no content": [head(204), chunk(more=False)],
    "not modified": [head(304, [(b"etag", b'"x"')]), chunk(more=False)],
    "a body of a HEAD": [head(200, [(b"content-length", b"5")]), chunk(more=False)],
    "missing keys": [{"type": "http.response.start", "status": 200}, {"type": BODY}],
    "a missing body": [head(), {"type": BODY, "more_body": True}, {"type": BODY, "body": b"x"}],
    "a memoryview": [head(), {"type": BODY, "body": memoryview(b"view")}],
    "a bytearray": [head(), {"type": BODY, "body": bytearray(b"array")}],
    "headers in tuples of lists": [
        {"type": "http.response.start", "status": 200, "headers": ([b"a", b"1"], [b"b", b"2"])},
        chunk(b"x", more=False),
    ],
    "repeated fields in their order": [
        head(200, [(b"link", b"<a>"), (b"X-Mixed", b"1"), (b"link", b"<b>"), (b"vary", b"accept")]),
        chunk(b"x", more=False),
    ],
    "cookies": [head(200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), chunk(b"x", more=False)],
    "fields of one exchange": [
        head(200, [(b"x-request-id", b"7"), (b"server-timing", b"db;dur=1"), (b"connection", b"close")]),
        chunk(b"x", more=False),
    ],
    "an age": [head(200, [(b"age", b"7"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]), chunk(more=False)],
    "server-sent events": [head(200, [(b"content-type", b"text/event-stream")]), *stream(TEN)[1:]],
    "a redirect": [head(307, [(b"location", b"/there")]), chunk(more=False)],
    "an error": [head(500), chunk(b"oops", more=False)],
    "an unknown status": [head(599), chunk(b"?", more=False)],
    "a body never finished": [head(), chunk(b"x")],
    "a head alone": [head()],
    "nothing": [],
}


def plain(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    """Messages with every default in its place, and without the field that the package adds."""
    seen: list[tuple[Any, ...]] = []
    for message in messages:
        if message["type"] == "http.response.start":
            pairs = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            seen.append((message["status"], [pair for pair in pairs if pair[0] != STATUS]))
        else:
            seen.append((bytes(message.get("body", b"")), message.get("more_body", False)))
    return seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "QUERY"])
@pytest.mark.parametrize("rule", [Rule(), Rule(ttl=60), Rule(ttl=60, identity="shared", vary=[])])
async def test_a_request_that_shares_nothing_gets_what_the_bare_app_sends(
    make_dedup: Make, rule: Rule, method: str, shape: str
) -> None:
    bare = by_run([*SHAPES[shape]])
    wrapped = await get(DedupMiddleware(bare, dedup=make_dedup(default=rule)), method=method)
    assert plain(wrapped.messages) == plain((await get(bare, method=method)).messages)
    if wrapped.started:
        added = [pair for pair in wrapped.headers if pair[0] == STATUS]
        assert len(added) == 1
        assert wrapped.headers[-1] == added[0]


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_switched_off_engine_passes_the_very_messages(make_dedup: Make, shape: str) -> None:
    bare = by_run([*SHAPES[shape]])
    one = await get(DedupMiddleware(bare, dedup=make_dedup(enabled=False)))
    assert one.messages == (await get(bare)).messages


@pytest.mark.parametrize("after", range(4))
async def test_an_error_reaches_the_server_as_the_app_raised_it(make_dedup: Make, after: int) -> None:
    error = ValueError("the app's own")
    script = [head(), chunk(b"a"), chunk(more=False)][:after]
    one = call(DedupMiddleware(by_run([*script, error]), dedup=make_dedup()))
    assert await ended(one) is error
    assert plain(one.messages) == plain(script)


@pytest.mark.parametrize(
    "script",
    [
        [chunk(b"a body without a head")],
        [head(), head()],
        [head(), chunk(more=False), chunk(b"more than all")],
        [head(), chunk(more=False), head()],
        [{"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [{"type": "websocket.accept"}],
    ],
)
async def test_a_message_out_of_place_is_an_error_of_the_app_never_sent_on(
    make_dedup: Make, script: list[Message]
) -> None:
    one = call(DedupMiddleware(by_run([*script]), dedup=make_dedup()))
    assert isinstance(await ended(one), RuntimeError)
    assert plain(one.messages) == plain(script[:-1])


async def test_what_an_app_changes_after_it_sent_it_changes_nobodys_answer(make_dedup: Make) -> None:
    async def reusing(scope: Any, receive: Any, send: Any) -> None:
        headers = [[bytearray(b"x-one"), bytearray(b"1")]]
        buffer = bytearray(b"first")
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": BODY, "body": buffer, "more_body": True})
        buffer[:] = b"other"
        headers[0][1][:] = b"2"
        headers.clear()
        await send({"type": BODY, "body": memoryview(buffer), "more_body": False})
        buffer[:] = b"third"

    app = DedupMiddleware(reusing, dedup=make_dedup(default=Rule(ttl=60)))
    calls = [call(app, stalled=number == 1) for number in range(3)]
    await settle()
    calls[1].reading.set()
    for one in [*calls, call(app)]:
        await one.done()
        assert (one.header(b"x-one"), one.body) == (b"1", b"firstother")


async def test_what_an_outer_layer_does_to_one_answer_shows_in_no_other(make_dedup: Make) -> None:
    bare = SteppedApp(*stream(TEN, [(b"x-one", b"1")]))
    bare.finish()
    inner = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def spoil(message: Message) -> None:
            await send({name: value[:] if name == "headers" else value for name, value in message.items()})
            if "headers" in message:
                message["headers"][0] = (b"x-one", b"spoiled")
                message["headers"].append((b"x-more", b"1"))
            message.clear()

        await inner(scope, receive, spoil)

    for one in [*[call(outer) for _ in range(3)], call(outer)]:
        await one.done()
        assert (one.header(b"x-one"), one.header(b"x-more")) == (b"1", None)
        assert one.body == b"".join(TEN)
