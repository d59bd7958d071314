"""The HTTP cache around an app: directives of requests, HEAD, ranges, variants, callers, what else a write changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from dedup_middleware import Dedup, Rule

from .cache_kit import DATE, WALL, Answer, Site, error, named, ok, status_of, unchanged
from .kit import Call, FakeClock, settle, until

MakeDedup = Callable[..., Dedup]
Pairs = list[tuple[bytes, bytes]]

ORIGIN = Rule("/x", ttl="origin", vary="origin")
SHARED = Rule.shared_cache("/x")
HEEDING = Rule("/x", ttl="origin", vary="origin", honor_request_directives=True)
NUMBER = Rule("/x", ttl=60, honor_request_directives=True)
FIRST = ok(cache_control="max-age=60")
SECOND = ok(b"two", cache_control="max-age=60")
YOURS = ok(b"yours", cache_control="no-store")


def says(directives: str) -> Pairs:
    return [(b"cache-control", directives.encode())]


async def many(site: Site, *requests: Pairs, runs: int, **more: Any) -> list[Call]:
    """Ask all at once while the origin is held, until it has run so often; then let it answer."""
    site.origin.hold()
    calls = [site.call(headers=headers, **more) for headers in requests]
    await until(lambda: site.origin.runs == runs)
    await settle()
    site.origin.release()
    return [await one.done() for one in calls]


# -- directives of requests (RFC 9111 s.5.2.1) -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", [HEEDING, SHARED, NUMBER], ids=["origin", "shared", "number"])
@pytest.mark.parametrize(
    ("directives", "body", "told"),
    [
        ("max-age=30", b"one", "dedup; hit; ttl=40"),
        ("max-age=19", b"two", "dedup; fwd=request; stored; ttl=60"),
        ("min-fresh=40", b"one", "dedup; hit; ttl=40"),
        ("min-fresh=41", b"two", "dedup; fwd=request; stored; ttl=60"),
        ("no-cache", b"two", "dedup; fwd=request; stored; ttl=60"),
        ("max-age=0", b"two", "dedup; fwd=request; stored; ttl=60"),
        ("only-if-cached", b"one", "dedup; hit; ttl=40"),
        ("max-stale", b"one", "dedup; hit; ttl=40"),
        ("no-store", b"two", ""),
        ("x-unknown", b"one", "dedup; hit; ttl=40"),
    ],
)
async def test_a_request_gets_what_it_asks_for_of_a_fresh_response(
    directives: str, body: bytes, told: str, rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, FIRST, SECOND)
    await site.get()
    site.advance(20)

    answer = await site.get(headers=says(directives))

    assert (answer.body, status_of(answer)) == (body, told)


async def test_without_the_switch_no_request_directive_punches_through(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, ORIGIN, FIRST, SECOND)
    await site.get()

    for directives in ("no-cache", "max-age=0"):
        assert (await site.get(headers=says(directives))).body == b"one"


@pytest.mark.parametrize("stored", [False, True])
async def test_only_if_cached_is_answered_with_504_where_nothing_may_answer_and_asks_nobody(
    stored: bool, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, FIRST)
    if stored:
        await site.get()
        site.advance(61)
    site.origin.hold()
    under_way = site.call()
    await until(lambda: site.origin.runs == 1 + stored)

    answer = await site.get(headers=says("only-if-cached"))

    assert (answer.status, answer.body, status_of(answer)) == (504, b"", "dedup; detail=only-if-cached")
    assert site.origin.runs == 1 + stored
    assert site.said("bypassed") == 1
    site.origin.release()
    await under_way.done()
    assert (await site.get(headers=says("only-if-cached"))).body == b"one"


@pytest.mark.parametrize("rule", [HEEDING, SHARED, NUMBER], ids=["origin", "shared", "number"])
@pytest.mark.parametrize(
    ("directives", "fields"),
    [
        ("only-if-cached, no-store", []),
        ("only-if-cached", [(b"if-match", b'"a"')]),
        ("only-if-cached", [(b"if-unmodified-since", DATE.encode())]),
        ("only-if-cached", [(b"transfer-encoding", b"chunked")]),
    ],
)
async def test_only_if_cached_asks_nobody_where_the_request_would_be_bypassed_either(
    directives: str, fields: Pairs, rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.5.2.1.7
    site = Site(make_dedup, clock, rule, FIRST)
    headers = [*says(directives), *fields]

    answer = await site.get(
        headers=headers, body=b"x" if fields[:1] == [(b"transfer-encoding", b"chunked")] else b""
    )

    assert (answer.status, answer.body, status_of(answer)) == (504, b"", "dedup; detail=only-if-cached")
    assert (site.origin.runs, site.said("bypassed")) == (0, 1)


async def test_only_if_cached_that_is_not_heeded_bypasses_as_ever(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, ORIGIN, FIRST)

    assert (await site.get(headers=[*says("only-if-cached"), (b"if-match", b'"a"')])).body == b"one"


async def test_a_request_that_says_no_store_is_alone_and_leaves_nothing_behind(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, FIRST)
    answers = await many(site, says("no-store"), says("no-store"), says("no-store"), runs=3)

    assert all(one.header(b"cache-status") is None for one in answers)
    assert site.dedup.store.responses == 0
    assert site.dedup.stats().rules["/x"].requests["bypassed"] == 3


@pytest.mark.parametrize("directives", ["no-cache", "max-age=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("after", "told"), [(None, "uri-miss"), (10, "request"), (61, "stale")])
async def test_cache_status_says_request_only_where_what_is_stored_is_fresh(
    after: float | None, told: str, method: str, directives: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9211 s.2.2
    site = Site(make_dedup, clock, SHARED, FIRST)
    if after is not None:
        await site.get()
        site.advance(after)

    answer = await site.get(method=method, headers=says(directives))

    assert status_of(answer).startswith(f"dedup; fwd={told}")


@pytest.mark.parametrize("rule", [ORIGIN, NUMBER], ids=["origin", "number"])
async def test_what_a_write_has_overtaken_is_not_said_to_be_stored(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9211 s.2.5
    site = Site(make_dedup, clock, rule, FIRST)
    site.origin.hold()
    read = site.call()
    await until(lambda: site.origin.runs == 1)
    site.dedup.clear()
    site.origin.release()

    assert status_of(await read.done()) == "dedup; fwd=uri-miss"
    assert site.dedup.store.responses == 0


async def test_a_request_that_wants_validation_joins_nobody_and_nobody_waits_for_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # What is under way began before the request came: its response may be older than the request allows.
    site = Site(make_dedup, clock, SHARED, FIRST, SECOND, ok(b"three"))
    first, again, third = await many(site, [], says("no-cache"), [], runs=2)

    assert (first.body, again.body, third.body) == (b"one", b"two", b"one")
    assert status_of(third) == "dedup; fwd=uri-miss; collapsed"


@pytest.mark.parametrize(
    ("directives", "alone"),
    [
        ("max-age=5", True),
        ("max-age=100", False),
        ("min-fresh=100", True),
        ("min-fresh=40", False),
        ("max-stale", False),
        ("stale-if-error=5", False),
    ],
)
async def test_a_follower_gets_anothers_response_only_where_it_is_young_and_fresh_enough(
    directives: str, alone: bool, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4: the response has come 10 s old, and is fresh for 50 s more
    old = ok(cache_control="max-age=60", age="10")
    site = Site(make_dedup, clock, SHARED, old, SECOND)
    site.origin.hold()
    leader = site.call()
    await until(lambda: site.origin.runs == 1)
    follower = site.call(headers=says(directives))
    await settle()
    site.origin.release()
    await leader.done()
    await follower.done()

    assert follower.body == (b"two" if alone else b"one")
    assert site.origin.runs == 1 + alone


async def test_a_follower_that_wants_it_younger_is_not_given_what_stands_in_for_an_error(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, FIRST, error(503), SECOND)
    await site.get()
    site.advance(100)

    plain, strict = await many(site, [], says("max-age=50"), runs=2)

    assert (plain.body, strict.body) == (b"one", b"two")


@pytest.mark.parametrize(
    ("directives", "body"), [("max-stale=40", b"one"), ("max-stale=39", b"two"), ("max-stale", b"one")]
)
@pytest.mark.parametrize("rule", [HEEDING, SHARED], ids=["origin", "shared"])
async def test_a_request_may_take_a_stale_response_and_is_told_how_stale_it_is(
    directives: str, body: bytes, rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, FIRST, SECOND)
    await site.get()
    site.advance(100)

    answer = await site.get(headers=says(directives))

    assert answer.body == body
    if body == b"one":
        assert status_of(answer) == "dedup; hit; ttl=-40; detail=max-stale"
        assert answer.header(b"age") == b"100"
        assert (site.said("stale"), site.origin.runs) == (1, 1)


async def test_pragma_is_heeded_where_there_is_no_cache_control(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.5.4
    site = Site(make_dedup, clock, SHARED, FIRST, SECOND)
    await site.get()
    pragma = (b"pragma", b"no-cache")

    assert (await site.get(headers=[pragma, *says("max-age=60")])).body == b"one"
    assert (await site.get(headers=[pragma])).body == b"two"


async def test_a_request_with_directives_that_hits_is_conditional_like_any_other(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(cache_control="max-age=60", etag='"a"'))
    await site.get()

    answer = await site.get(headers=[*says("max-age=30"), (b"if-none-match", b'"a"')])

    assert (answer.status, answer.body, status_of(answer)) == (304, b"", "dedup; hit; ttl=60")


# -- HEAD (RFC 9111 s.4, s.4.3.5) ------------------------------------------------------------------------------------


HELD = ok(cache_control="max-age=60", etag='"a"', content_length="3", x_a="1")


async def test_a_head_is_answered_from_a_stored_get(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, SHARED, HELD)
    await site.get()

    answer = await site.get(method="HEAD")

    assert (answer.body, answer.header(b"content-length"), status_of(answer)) == (
        b"",
        b"3",
        "dedup; hit; ttl=60",
    )


@pytest.mark.parametrize(("seconds", "body"), [(9, b"one"), (8, b"two")])
async def test_max_stale_counts_the_time_that_a_response_was_stale_before_it_came(
    seconds: int, body: bytes, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.5.2.1.2: 5 s late when it came, 4 s here
    site = Site(make_dedup, clock, SHARED, ok(b"one", cache_control="max-age=60", age="65"), ok(b"two"))
    await site.get()
    site.advance(4)

    answer = await site.get(headers=[(b"cache-control", b"max-stale=%d" % seconds)])

    assert answer.body == body
    if body == b"one":
        assert status_of(answer) == "dedup; hit; ttl=-9; detail=max-stale"


@pytest.mark.parametrize("directives", ["max-age=100", "only-if-cached", "max-stale"])
async def test_a_head_with_directives_is_answered_from_a_stored_get_too(
    directives: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, HELD)
    await site.get()

    answer = await site.get(method="HEAD", headers=says(directives))

    assert status_of(answer) == "dedup; hit; ttl=60"


async def test_a_head_within_the_window_is_answered_at_once_and_the_get_is_fetched_anew(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(cache_control="max-age=10, stale-while-revalidate=30", etag='"a"')
    site = Site(make_dedup, clock, SHARED, first, SECOND)
    await site.get()
    site.advance(11)

    answer = await site.get(method="HEAD")
    await settle()

    assert (answer.status, answer.body, status_of(answer)[:19]) == (200, b"", "dedup; hit; ttl=-1;")
    assert [scope["method"] for scope in site.origin.scopes] == ["GET", "GET"]
    assert (await site.get()).body == b"two"


async def stale_then_head(
    make_dedup: MakeDedup, clock: FakeClock, rule: Rule, answer: Answer, **more: Any
) -> Site:
    site = Site(make_dedup, clock, rule, HELD, answer)
    await site.get()
    site.advance(61)
    await site.get(method="HEAD", **more)
    return site


@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
@pytest.mark.parametrize(
    "fields",
    [
        {"etag": '"a"', "content_length": "3"},
        {"content_length": "3"},
        {"etag": '"a"'},
        {},
        {"content_length": "x"},
    ],
    ids=str,
)
async def test_a_heads_answer_that_agrees_brings_the_stored_response_up_to_date(
    fields: dict[str, str], rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    fresh = ok(b"", cache_control="max-age=30", x_a="2", age="5", **fields)
    site = await stale_then_head(make_dedup, clock, rule, fresh)

    answer = await site.get()

    assert (answer.body, answer.header(b"x-a"), answer.header(b"age")) == (b"one", b"2", b"5")
    assert status_of(answer) == "dedup; hit; ttl=25"
    assert (site.origin.runs, site.dedup.store.responses) == (2, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"etag": '"b"'},
        {"content_length": "4"},
        {"content_length": " 4"},
        {"content_length": "3" * 5000},
        {"last_modified": DATE},
        {"etag": '"a"', "cache_control": "no-store"},
    ],
    ids=str,
)
async def test_a_heads_answer_that_does_not_agree_drops_the_stored_response(
    fields: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    answer = ok(b"", **{"cache_control": "max-age=30", **fields})
    site = await stale_then_head(make_dedup, clock, SHARED, answer)

    assert site.dedup.store.responses == 0


@pytest.mark.parametrize("status", [203, 301, 404, 503])
async def test_where_a_head_is_told_200_a_stored_other_status_is_out_of_date(
    status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.5; neither names a validator or a length that could tell them apart
    site = Site(
        make_dedup, clock, ORIGIN, error(status, cache_control="max-age=10, stale-if-error=60"), FIRST
    )
    await site.get()
    site.advance(11)
    assert site.dedup.store.responses == 1
    await site.get(method="HEAD")

    assert (await site.get()).body == b"one"


@pytest.mark.parametrize("status", [404, 500, 204])
async def test_a_heads_other_status_says_nothing_of_the_stored_response(
    status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale_then_head(make_dedup, clock, ORIGIN, error(status, etag='"b"'))

    assert site.dedup.store.responses == 1


async def test_a_heads_answer_that_came_before_an_invalidation_brings_nothing_up_to_date(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 7
    site = Site(make_dedup, clock, ORIGIN, HELD, ok(b"", etag='"a"', cache_control="max-age=99"))
    await site.get()
    site.advance(61)
    site.origin.hold()
    one = site.call(method="HEAD")
    await until(lambda: site.origin.runs == 2)
    site.dedup.clear()
    site.origin.release()
    await one.done()

    assert site.dedup.store.responses == 0


async def test_a_head_updates_the_variant_that_it_asks_for_and_no_other(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    def answer(body: bytes) -> Answer:
        return ok(body, cache_control="max-age=60", vary="accept", etag='"a"')

    site = Site(make_dedup, clock, ORIGIN, answer(b"html"), answer(b"json"), answer(b""))
    html, json = [(b"accept", b"text/html")], [(b"accept", b"application/json")]
    await site.get(headers=html)
    await site.get(headers=json)
    site.advance(61)

    await site.get(method="HEAD", headers=json)

    answered = await site.get(headers=json)
    assert (answered.body, status_of(answered)) == (b"json", "dedup; hit; ttl=60")
    site.origin.then(unchanged())
    assert status_of(await site.get(headers=html)).startswith("dedup; fwd=stale; fwd-status=304")


async def test_a_heads_date_is_that_by_which_a_client_asks_from_then_on(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.2: where there is no Last-Modified, the Date of what is stored, which a HEAD's 200 has renewed
    later = "Tue, 14 Nov 2023 22:14:21 GMT"
    site = Site(
        make_dedup,
        clock,
        SHARED,
        ok(cache_control="max-age=60", date=DATE),
        ok(cache_control="max-age=60", date=later),
    )
    await site.get()
    site.advance(61)
    await site.get(method="HEAD")

    answers = [
        await site.get(headers=[(b"if-modified-since", asked.encode())])
        for asked in (DATE, "Tue, 14 Nov 2023 22:14:20 GMT", later)
    ]

    assert [one.status for one in answers] == [200, 200, 304]
    assert {one.header(b"date") for one in answers} == {later.encode()}
    assert site.origin.runs == 2


async def test_what_a_head_has_renewed_is_not_as_old_as_its_date(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.5; the Date is the stored one's where the HEAD's 200 has none
    site = Site(
        make_dedup, clock, SHARED, ok(cache_control="max-age=60", date=DATE), ok(cache_control="max-age=60")
    )
    await site.get()
    site.advance(61)
    await site.get(method="HEAD")

    answer = await site.get()
    assert (answer.header(b"age"), status_of(answer)) == (b"0", "dedup; hit; ttl=60")


@pytest.mark.parametrize("last", [error(503), None], ids=["fails", "agrees"])
async def test_a_head_that_ran_without_a_hidden_cookie_says_nothing_of_that_cookies_variant(
    last: Answer | None, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.5: only what could have been chosen for that request, and that is what the app has seen of it
    def answer(whose: str) -> Answer:
        return ok(whose.encode(), cache_control="max-age=60", vary="cookie", etag=f'"{whose}"', x_for=whose)

    nobodys, anns = answer("nobody"), answer("ann")
    ann = [(b"cookie", b"a=1")]
    site = Site(make_dedup, clock, SHARED, nobodys, anns, nobodys, last or anns)
    await site.get()
    await site.get(headers=ann)
    site.advance(61)
    await site.get(method="HEAD", headers=ann)
    site.origin.then(YOURS)

    assert [request.get(b"cookie") for request in site.origin.requests] == [None, b"a=1", None, b"a=1"]
    assert (await site.get(headers=ann)).body == (b"yours" if last else b"ann")
    assert (await site.get()).header(b"x-for") == b"nobody"


async def test_a_head_whose_app_has_seen_a_cookie_says_nothing_of_what_is_for_all(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 1: that it names no Vary any more does not make what it has seen everybody's
    ann = [(b"cookie", b"a=1")]
    page = ok(b"page", cache_control="max-age=60", etag='"a"')
    site = Site(make_dedup, clock, SHARED, ok(vary="cookie"))
    await site.get(method="HEAD", headers=ann)
    site.origin.then(page)
    await site.get()
    site.advance(61)
    site.origin.then(ok(cache_control="max-age=60", etag='"a"', x_for="ann"), YOURS)
    await site.get(method="HEAD", headers=ann)

    assert site.origin.requests[-1][b"cookie"] == b"a=1"
    assert (await site.get()).body == b"yours"


# -- ranges (RFC 9110 s.14, RFC 9111 s.3.3) --------------------------------------------------------------------------


WHOLE = ok(b"0123456789", cache_control="max-age=60", etag='"a"', content_length="10")


def part(of: str, *more: tuple[bytes, bytes]) -> Pairs:
    return [(b"range", f"bytes={of}".encode()), *more]


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        (part("2-4"), 206, b"234"),
        (part("-3"), 206, b"789"),
        (part("8-"), 206, b"89"),
        (part("20-"), 416, b""),
        (part("2-4", (b"if-range", b'"a"')), 206, b"234"),
        (part("2-4", (b"if-range", b'"b"')), 200, b"0123456789"),
        (part("2-4", (b"if-range", b'W/"a"')), 200, b"0123456789"),
        (part("2-4", (b"if-none-match", b'"a"')), 304, b""),
        ([(b"range", b"lines=1-2")], 200, b"0123456789"),
    ],
)
@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_a_part_is_answered_from_a_stored_whole(
    asked: Pairs, status: int, body: bytes, rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, WHOLE)
    await site.get()
    site.advance(5)

    answer = await site.get(headers=asked)

    assert (answer.status, answer.body) == (status, body)
    assert status_of(answer) == "dedup; hit; ttl=55"
    assert answer.header(b"age") == b"5"
    assert (site.origin.runs, site.said("hit")) == (1, 1)


async def test_a_part_of_a_number_rules_response_is_the_apps_to_answer(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(
        make_dedup, clock, Rule("/x", ttl=60), WHOLE, (206, {"content-range": "bytes 2-4/10"}, b"234")
    )
    await site.get()

    assert (await site.get(headers=part("2-4"))).status == 206
    assert site.origin.runs == 2


async def test_no_hit_tells_of_a_second_that_is_over_however_long_its_response_took_to_come(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    """The seconds of its age and those for which it has been here end at different moments."""
    site = Site(make_dedup, clock, SHARED, ok(cache_control="max-age=10"))
    site.origin.hold()
    slow = site.call()
    await settle()
    site.advance(0.75)
    site.origin.release()
    assert status_of(await slow.done()) == "dedup; fwd=uri-miss; stored; ttl=9"

    told = []
    for seconds in (0.5, 0.625, 0.125, 0.5):  # 0.5, 1.125, 1.25 and 1.75 after it came
        site.advance(seconds)
        hit = await site.get()
        told.append((status_of(hit), hit.header(b"age")))

    assert told == [
        ("dedup; hit; ttl=9", b"1"),
        ("dedup; hit; ttl=8", b"1"),
        ("dedup; hit; ttl=8", b"2"),
        ("dedup; hit; ttl=8", b"2"),
    ]


@pytest.mark.parametrize("ttl", [60, "origin"])
async def test_a_precondition_of_a_method_that_may_write_is_never_withheld_from_the_app(
    ttl: int | str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.13.1.2: where it does not hold, the app answers 412
    rule = Rule("/x", ttl=ttl, methods=["POST", "QUERY"], collapse=True)
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=60", etag='"a"'), error(412))
    await site.get(method="POST", body=b"1")

    answer = await site.get(method="POST", headers=[(b"if-none-match", b"*")], body=b"1")

    assert (answer.status, site.origin.requests[1].get(b"if-none-match")) == (412, b"*")
    assert site.origin.bodies[1] == b"1"
    site.origin.then(ok(cache_control="max-age=60", etag='"a"'))
    await site.get(method="QUERY", body=b"1")
    answer = await site.get(method="QUERY", headers=[(b"if-none-match", b"*")], body=b"1")
    assert (answer.status, site.origin.runs) == (304, 3)


@pytest.mark.parametrize("rule", [SHARED, Rule("/x", ttl=60)], ids=["shared", "ttl"])
async def test_no_form_of_a_date_keeps_a_client_from_its_304(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.5.6.7: a recipient accepts all three
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=60", last_modified=DATE))

    for _ in range(2):  # from the app, which does not see the date, and from the store
        for form in (DATE, "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"):
            for age in (0, 61):
                site.advance(age)
                asked = [(b"if-modified-since", form.encode())]
                assert (await site.get(headers=asked)).status == 304


@pytest.mark.parametrize(("asked", "status"), [("2-4", 304), ("3-4", 304), ("4-5", 206)])
async def test_a_range_of_what_the_client_has_already_is_answered_by_a_304(
    asked: str, status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.2: of a stored 206 too, where it has what is asked for; RFC 9110 s.13.2.2: before the Range
    fields = {"cache-control": "max-age=60", "etag": '"a"'}
    site = Site(make_dedup, clock, SHARED, (206, fields | {"content-range": "bytes 2-4/10"}, b"234"))
    await site.get(headers=part("2-4"))
    site.origin.then((206, fields | {"content-range": "bytes 4-5/10", "etag": '"b"'}, b"45"))

    answer = await site.get(headers=part(asked, (b"if-none-match", b'"a"')))

    assert answer.status == status
    assert (answer.header(b"content-range") is None) == (answer.body == b"") == (status == 304)
    assert site.origin.runs == (1 if status == 304 else 2)


async def test_a_stored_part_answers_ranges_within_it_and_no_other(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.3.3: nothing partial is put together here
    partial = (206, {"cache-control": "max-age=60", "content-range": "bytes 2-4/10", "etag": '"a"'}, b"234")
    site = Site(make_dedup, clock, SHARED, partial, partial, WHOLE)
    first = await site.get(headers=part("2-4"))
    again = await site.get(headers=part("2-4"))
    within = await site.get(headers=part("3-4"))
    other = await site.get(headers=part("4-5"))
    whole = await site.get()

    assert [one.status for one in (first, again, within, other, whole)] == [206, 206, 206, 206, 200]
    assert status_of(again) == status_of(within) == "dedup; hit; ttl=60"
    assert (within.body, within.header(b"content-range")) == (b"34", b"bytes 3-4/10")
    # RFC 9211 s.2.2: a part was there, and not all that was asked for; at first there was nothing
    assert status_of(first) == "dedup; fwd=uri-miss; stored; ttl=60"
    assert status_of(other) == status_of(whole) == "dedup; fwd=partial; stored; ttl=60"
    assert (whole.body, site.origin.runs) == (b"0123456789", 3)
    assert (await site.get(headers=part("0-1"))).body == b"01"  # of the whole, which is stored by now


@pytest.mark.parametrize("asked", [[], part("3-4")], ids=["plain", "Range"])
async def test_a_stored_part_never_answers_a_head(
    asked: Pairs, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.14.2: a Range is of a GET alone
    partial = (206, {"cache-control": "max-age=60", "content-range": "bytes 2-4/10", "etag": '"a"'}, b"234")
    site = Site(make_dedup, clock, SHARED, partial, WHOLE)
    await site.get(headers=part("2-4"))

    assert (await site.get(method="HEAD", headers=asked)).status == 200
    assert site.origin.runs == 2


async def test_a_part_that_need_not_say_what_it_is_answers_nobody_without_the_same_if_range(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.15.3.7: who sends If-Range knows the type
    bare = {"cache-control": "max-age=60", "content-range": "bytes 2-4/10", "etag": '"a"'}
    site = Site(
        make_dedup, clock, SHARED, (206, bare, b"234"), (206, {**bare, "content-type": "a/b"}, b"234")
    )
    await site.get(headers=part("2-4", (b"if-range", b'"a"')))

    assert (await site.get(headers=part("2-4"))).header(b"content-type") == b"a/b"
    assert (await site.get(headers=part("3-4"))).header(b"content-type") == b"a/b"


@pytest.mark.parametrize("fields", [{}, {"cache_control": "max-age=60"}])
async def test_requests_for_different_ranges_never_share_what_the_app_answers(
    fields: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, *((206, dict(fields), b"%d" % n) for n in range(3)))

    answers = await many(site, part("0-1"), part("1-2"), [], runs=3)

    assert {one.body for one in answers} == {b"0", b"1", b"2"}


async def test_a_stale_whole_gives_no_part_but_within_its_window(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(b"0123456789", cache_control="max-age=10, stale-while-revalidate=5", etag='"a"')
    site = Site(make_dedup, clock, ORIGIN, first, ok(b"abcdefghij", cache_control="max-age=10"))
    await site.get()
    site.advance(12)

    within = await site.get(headers=part("0-1"))
    await settle()

    assert (within.status, within.body) == (206, b"01")
    assert status_of(within) == "dedup; hit; ttl=-2; detail=stale-while-revalidate"
    # The whole was fetched anew, unconditionally of the range.
    assert (site.origin.runs, b"range" in site.origin.requests[1]) == (2, False)
    assert (await site.get(headers=part("0-1"))).body == b"ab"
    site.advance(20)
    site.origin.then((206, {"content-range": "bytes 0-1/10"}, b"xy"))
    assert (await site.get(headers=part("0-1"))).body == b"xy"
    assert site.origin.requests[2][b"range"] == b"bytes=0-1"


def dated(after: float, status: int, body: bytes, **fields: str) -> Answer:
    """What was made so many seconds after the test began."""
    date = format_datetime(datetime.fromtimestamp(WALL + after, UTC), usegmt=True)
    return status, {"cache-control": "max-age=1000", "date": date, **named(fields)}, body


OLD_PART = dated(0, 206, b"AAAA", etag='"a"', content_range="bytes 0-3/10")
NEW_PART = dated(20, 206, b"BBBBBB", etag='"b"', content_range="bytes 0-5/10")
OLD_WHOLE, NEW_WHOLE = (dated(0, 200, b"A" * 10, etag='"a"'), dated(20, 200, b"B" * 10, etag='"b"'))
FIRST_PART, LONGER_PART = part("0-3"), part("0-5")


@pytest.mark.parametrize(
    ("first", "old", "second", "new", "expected"),
    [
        (FIRST_PART, OLD_PART, [], NEW_WHOLE, (206, b"BBBB")),
        (FIRST_PART, dated(0, 416, b"", content_range="bytes */3"), [], NEW_WHOLE, (206, b"BBBB")),
        (FIRST_PART, OLD_WHOLE, [], NEW_WHOLE, (206, b"BBBB")),
        (FIRST_PART, OLD_PART, [], dated(20, 404, b"gone"), (404, b"gone")),
        (FIRST_PART, OLD_PART, LONGER_PART, NEW_PART, (206, b"BBBB")),
        ([], OLD_WHOLE, LONGER_PART, NEW_PART, (206, b"BBBB")),
        ([], OLD_WHOLE, FIRST_PART, dated(20, 416, b"", content_range="bytes */0"), (416, b"")),
        ([], OLD_WHOLE, FIRST_PART, NEW_WHOLE, (200, b"B" * 10)),
        ([], OLD_WHOLE, LONGER_PART, NEW_WHOLE, (206, b"BBBB")),
        # the Date counts, not when it came
        (FIRST_PART, NEW_PART, [], OLD_WHOLE, (206, b"BBBBBB")),
        (FIRST_PART, NEW_WHOLE, LONGER_PART, OLD_PART, (200, b"B" * 10)),
        # which came last, where neither has a later Date
        (FIRST_PART, OLD_PART, [], dated(0, 200, b"B" * 10), (206, b"BBBB")),
        ([], OLD_WHOLE, FIRST_PART, dated(0, 206, b"B", content_range="bytes 0-3/10"), (206, b"B")),
    ],
)
@pytest.mark.parametrize("rule", [HEEDING, SHARED], ids=["cautious", "shared"])
async def test_of_several_responses_that_may_answer_a_range_the_most_recent_does(
    first: Pairs,
    old: Answer,
    second: Pairs,
    new: Answer,
    expected: tuple[int, bytes],
    rule: Rule,
    make_dedup: MakeDedup,
    clock: FakeClock,
) -> None:
    # RFC 9111 s.4: MUST use the most recent one, by its Date
    site = Site(make_dedup, clock, rule, old, new)
    await site.get(headers=first)
    site.advance(25)
    await site.get(headers=[*second, *says("no-cache")])
    site.advance(5)

    for more in ([], says("max-age=900")):
        answer = await site.get(headers=[*FIRST_PART, *more])
        assert (answer.status, answer.body) == expected
        assert status_of(answer).startswith("dedup; hit")
    assert (site.origin.runs, site.said("hit")) == (2, 2)


@pytest.mark.parametrize("rule", [HEEDING, SHARED], ids=["cautious", "shared"])
async def test_an_older_whole_answers_nobody_once_a_range_has_brought_a_more_recent_one(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.14.2: a Range may be ignored; RFC 9111 s.4: the most recent one, also where nobody asks for a part
    site = Site(make_dedup, clock, rule, OLD_WHOLE, NEW_WHOLE)
    await site.get()
    site.advance(25)
    await site.get(headers=[*FIRST_PART, *says("no-cache")])

    for method, headers, expected in (
        ("GET", [], (200, b"B" * 10)),
        ("HEAD", [], (200, b"")),
        ("GET", [(b"if-none-match", b'"b"')], (304, b"")),
        ("GET", [(b"if-none-match", b'"a"')], (200, b"B" * 10)),
    ):
        answer = await site.get(method=method, headers=headers)
        assert (answer.status, answer.body) == expected
    assert (site.origin.runs, site.said("hit")) == (2, 4)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", {"etag": '"b"'}),
        ("GET", {"etag": '"b"', "cache_control": "no-store"}),
    ],
)
async def test_the_whole_that_a_range_has_brought_answers_nobody_once_another_was_told_something_else(
    method: str, said: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.5; what is not stored shows all the same that what is stored is out of date
    site = Site(make_dedup, clock, SHARED, OLD_WHOLE, dated(0, 200, b"", **said), NEW_WHOLE)
    await site.get(headers=FIRST_PART)
    await site.get(method=method, headers=says("no-cache"))

    assert [(await site.get()).body for _ in range(2)] == [b"B" * 10] * 2


async def test_the_whole_that_a_range_has_brought_is_not_asked_for_again(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, OLD_WHOLE)
    await site.get(headers=FIRST_PART)

    assert (await site.get()).body == b"A" * 10
    assert (await site.get(headers=LONGER_PART)).status == 206
    assert site.origin.runs == 1


async def test_of_a_ranges_own_response_and_an_older_whole_that_is_renewed_meanwhile_its_own_answers(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    whole = dated(0, 200, b"A" * 10, cache_control="max-age=10, stale-while-revalidate=600", etag='"a"')
    site = Site(make_dedup, clock, HEEDING, whole, NEW_PART)
    await site.get()
    site.advance(25)
    await site.get(headers=[*FIRST_PART, *says("no-cache")])

    answer = await site.get(headers=FIRST_PART)
    await settle()

    assert (answer.body, site.origin.runs) == (b"BBBBBB", 2)


# -- variants (RFC 9111 s.4.1) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_variants_stand_side_by_side_and_each_is_confirmed_for_itself(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, FIRST)
    seen: list[tuple[bytes, bytes | None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = dict(scope["headers"])
        language = fields.get(b"accept-language", b"-")
        asked = fields.get(b"if-none-match")
        seen.append((language, asked))
        etag = b'"' + language + b'"'
        headers = [(b"cache-control", b"max-age=10"), (b"vary", b"Accept-Language"), (b"etag", etag)]
        status = 304 if asked == etag else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": language if status == 200 else b""})

    site.app.app = app
    languages = [b"de", b"en", b"-", b"fr"]

    async def ask() -> list[Call]:
        calls = [
            site.call(headers=[(b"accept-language", language)] if language != b"-" else [])
            for language in languages
            for _ in range(5)
        ]
        return [await one.done() for one in calls]

    for asked in (None, True):
        seen.clear()
        answers = await ask()
        assert [one.body for one in answers] == [language for language in languages for _ in range(5)]
        if asked:  # a first round may find the fields out by trying
            assert sorted(seen) == sorted((language, b'"%b"' % language) for language in languages)
        assert site.dedup.store.responses == 4
        answers = await ask()
        assert {status_of(one) for one in answers} == {"dedup; hit; ttl=10"}
        site.advance(11)


class Negotiator:
    """An app whose small page varies by language, whose large one by encoding too; the small one's end may wait."""

    def __init__(self) -> None:
        self.runs: list[bytes] = []
        self.ends = asyncio.Event()
        self.ends.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        page = dict(scope["headers"])[b"accept-language"]
        self.runs.append(page)
        vary = b"accept-language" if page == b"small" else b"accept-language, accept-encoding"
        headers = [(b"cache-control", b"max-age=60"), (b"vary", vary)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if page == b"small":
            await self.ends.wait()
        await send({"type": "http.response.body", "body": page})


SMALL: Pairs = [(b"accept-language", b"small"), (b"accept-encoding", b"gzip")]
LARGE: Pairs = [(b"accept-language", b"large"), (b"accept-encoding", b"gzip")]


@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_responses_that_name_different_fields_do_not_cost_one_another_their_hits(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, FIRST)
    site.app.app = app = Negotiator()

    for _ in range(3):
        assert [(await site.get(headers=who)).body for who in (SMALL, LARGE)] == [b"small", b"large"]

    assert app.runs == [b"small", b"large"]


async def test_a_flight_is_not_missed_because_another_response_named_other_fields_meanwhile(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, FIRST)
    site.app.app = app = Negotiator()
    for who in (LARGE, SMALL):
        await site.get(headers=who)
    site.dedup.keeper.clear()
    app.runs.clear()
    app.ends.clear()

    first = site.call(headers=SMALL)
    await until(lambda: first.started)
    await site.get(headers=LARGE)
    second = site.call(headers=SMALL)
    await until(lambda: second.started)
    app.ends.set()

    assert [(await one.done()).body for one in (first, second)] == [b"small", b"small"]
    assert app.runs == [b"small", b"large"]


def of(a: str, b: str) -> Pairs:
    return [(b"x-a", a.encode()), (b"x-b", b.encode())]


async def test_fields_that_are_named_again_bring_back_no_older_response(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4: of several that fit, the most recent
    by_a, by_b = (
        ok(body, cache_control="max-age=600", vary=vary) for body, vary in ((b"old", "x-a"), (b"new", "x-b"))
    )
    site = Site(make_dedup, clock, SHARED, by_a, by_b, ok(b"other", cache_control="max-age=600", vary="x-a"))
    for who in (of("1", "0"), of("2", "1"), of("3", "2")):
        await site.get(headers=who)
        site.advance(1)

    answer = await site.get(headers=of("1", "1"))

    assert (answer.body, site.origin.runs) == (b"new", 3)
    assert (await site.get(headers=of("1", "0"))).body == b"old"


async def test_a_response_without_vary_does_not_hide_behind_those_that_name_some(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    by_a = ok(b"old", cache_control="max-age=600", vary="x-a")
    site = Site(make_dedup, clock, SHARED, by_a, ok(b"for all", cache_control="max-age=600"), by_a)
    for who in (of("1", "0"), of("2", "0")):
        await site.get(headers=who)
        site.advance(1)
    await site.get(headers=[*of("3", "0"), (b"cache-control", b"no-cache")])

    assert [(await site.get(headers=of(a, "0"))).body for a in "123"] == [b"for all", b"for all", b"old"]


async def test_an_older_response_does_not_come_back_when_the_one_that_took_its_place_is_gone(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = ok(b"old", cache_control="max-age=9000", vary="x-a")
    site = Site(make_dedup, clock, HEEDING, old, ok(b"for all", cache_control="max-age=10"), ok(b"newest"))
    await site.get(headers=of("1", "1"))
    await site.get(headers=[*of("1", "1"), (b"cache-control", b"no-cache")])
    site.advance(3700)  # when nothing is left of it

    assert (await site.get(headers=of("1", "1"))).body == b"newest"


async def test_an_older_response_does_not_come_back_when_a_newer_one_is_refused(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = ok(b"old", cache_control="max-age=600", vary="x-a")
    new = ok(b"new", cache_control="max-age=10", vary="x-b", etag='"new"')
    site = Site(
        make_dedup, clock, SHARED, old, new, ok(b"not to be kept", cache_control="no-store"), ok(b"newest")
    )
    for who in (of("1", "0"), of("2", "1")):
        await site.get(headers=who)
        site.advance(1)
    site.advance(10)

    assert (await site.get(headers=of("1", "1"))).body == b"not to be kept"
    assert (await site.get(headers=of("1", "1"))).body == b"newest"


async def test_an_error_that_names_no_field_hides_no_stored_variant(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    html, json, text = ([(b"accept", kind)] for kind in (b"text/html", b"application/json", b"text/plain"))
    stored = ok(cache_control="max-age=60", vary="accept")
    site = Site(make_dedup, clock, ORIGIN, stored, stored, error())
    for headers in (html, json, text):
        await site.get(headers=headers)

    assert [status_of(await site.get(headers=headers))[:10] for headers in (html, json)] == ["dedup; hit"] * 2


async def test_a_variant_that_is_not_stored_is_a_vary_miss(make_dedup: MakeDedup, clock: FakeClock) -> None:
    # RFC 9211 s.2.2
    site = Site(make_dedup, clock, SHARED, ok(cache_control="max-age=10", vary="accept"))
    await site.get(headers=[(b"accept", b"a")])

    answer = await site.get(headers=[(b"accept", b"b")])

    assert status_of(answer) == "dedup; fwd=vary-miss; stored; ttl=10"


# -- who asks (RFC 9111 s.3.5) ---------------------------------------------------------------------------------------


ALICE: Pairs = [(b"authorization", b"Bearer alice")]
BOB: Pairs = [(b"authorization", b"Bearer bob")]


class Greeter:
    """An app that greets who asks, and says what it is told to."""

    def __init__(self, control: bytes) -> None:
        self.control = control
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fields = dict(scope["headers"])
        self.seen.append(fields)
        await self.gate.wait()
        body = b"hello " + fields.get(b"authorization", b"nobody")
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", self.control)]}
        )
        await send({"type": "http.response.body", "body": body})


def greeting(
    control: str, make_dedup: MakeDedup, clock: FakeClock, rule: Rule = SHARED
) -> tuple[Site, Greeter]:
    site = Site(make_dedup, clock, rule, FIRST)
    greeter = Greeter(control.encode())
    site.app.app = greeter
    return site, greeter


@pytest.mark.parametrize(
    "control", ["max-age=60", "max-age=60, proxy-revalidate", "", "max-age=60, x=public"]
)
async def test_two_users_answers_are_never_mixed_one_by_one(
    control: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site, _ = greeting(control, make_dedup, clock)

    for _ in range(3):
        for who, name in ((ALICE, b"Bearer alice"), (BOB, b"Bearer bob"), ([], b"nobody")):
            assert (await site.get(headers=who)).body == b"hello " + name

    assert site.dedup.store.responses == bool(control)  # nobody's, where it says how long


async def test_two_users_answers_are_never_mixed_at_once(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site, greeter = greeting("max-age=60", make_dedup, clock)
    greeter.gate.clear()
    names = [b"Bearer %d" % number for number in range(20)] * 3
    calls = [site.call(headers=[(b"authorization", name)]) for name in names]
    await until(lambda: len(greeter.seen) > 0)
    await settle()
    greeter.gate.set()

    assert [(await one.done()).body for one in calls] == [b"hello " + name for name in names]


@pytest.mark.parametrize("permit", ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"])
async def test_what_the_app_permits_to_share_is_for_all_and_what_nobody_asked_for_by_name_for_nobody_else(
    permit: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.3.5: the app has said so itself; but to one who is somebody a stranger's answer is none.
    site, greeter = greeting(permit, make_dedup, clock)
    other, stranger = greeting(permit, make_dedup, clock)

    bodies = [(await site.get(headers=who)).body for who in (ALICE, BOB, [], BOB, [])]
    reverse = [(await other.get(headers=who)).body for who in ([], ALICE, [], BOB)]

    alice, nobody = b"hello Bearer alice", b"hello nobody"
    assert (bodies, len(greeter.seen)) == ([alice] * 5, 1)
    assert (reverse, len(stranger.seen)) == ([nobody, alice, alice, alice], 2)  # the most recent


async def test_the_app_sees_authorization_and_no_other_credential(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site, greeter = greeting("max-age=60", make_dedup, clock)
    others = [(b"cookie", b"session=1"), (b"x-api-key", b"k"), (b"proxy-authorization", b"p")]

    await site.get(headers=[*ALICE, *others])

    assert greeter.seen[0].get(b"authorization") == b"Bearer alice"
    assert not greeter.seen[0].keys() & {name for name, _ in others}


async def test_a_cookie_tells_nobody_apart(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site, greeter = greeting("max-age=60", make_dedup, clock)

    for cookie in (b"session=1", b"session=2"):
        assert (await site.get(headers=[(b"cookie", cookie)])).body == b"hello nobody"

    assert len(greeter.seen) == 1


async def test_private_is_shared_with_nobody_where_callers_are_not_told_apart(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site, _ = greeting("private, max-age=60", make_dedup, clock)

    assert [(await site.get(headers=who)).body for who in (ALICE, BOB)] == [
        b"hello Bearer alice",
        b"hello Bearer bob",
    ]
    assert site.dedup.store.responses == 0


async def test_the_cautious_profile_stores_for_each_caller_apart_private_responses_too(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site, greeter = greeting("private, max-age=60", make_dedup, clock, ORIGIN)

    for _ in range(3):
        for who, name in ((ALICE, b"Bearer alice"), (BOB, b"Bearer bob"), ([], b"nobody")):
            assert (await site.get(headers=who)).body == b"hello " + name

    assert len(greeter.seen) == 3


# -- cookies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "control", "shared"),
    [
        (SHARED, "public, max-age=60", True),
        (SHARED, "max-age=60", True),
        (SHARED, "s-maxage=60", True),
        (SHARED, "no-cache, max-age=60", False),
        (SHARED, "max-age=0", False),
        (SHARED, "public, max-age=0, stale-while-revalidate=60", False),
        (SHARED, "private, max-age=60", False),
        (ORIGIN, "public, max-age=60", False),
        (Rule("/x", ttl="origin", share_cookies=True), "max-age=60", True),
        (Rule.shared_cache("/x", share_cookies=False), "public, max-age=60", False),
    ],
)
async def test_a_response_that_sets_a_cookie_is_shared_only_where_it_says_so_and_the_rule_says_so(
    rule: Rule, control: str, shared: bool, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, ok(cache_control=control, set_cookie="theme=dark"))

    answers = await many(site, *[[]] * 4, runs=1)
    answers.append(await site.get())

    assert {one.header(b"set-cookie") for one in answers} == {b"theme=dark"}
    assert site.origin.runs == (1 if shared else 5)


async def test_a_response_that_is_fresh_by_a_guess_alone_shares_no_cookie(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = "Mon, 14 Nov 2022 22:13:20 GMT"
    plain = Site(make_dedup, clock, SHARED, ok(last_modified=old))
    setting = Site(make_dedup, clock, SHARED, ok(last_modified=old, set_cookie="sid=1"))

    for _ in range(2):
        await plain.get()
        await setting.get()

    assert (plain.origin.runs, setting.origin.runs) == (1, 2)


# -- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "runs"),
    [
        (SHARED, 1),
        (Rule("/x", ttl="origin", vary="origin", ignore_language_order=True), 1),
        (Rule.shared_cache("/x", ignore_language_order=False), 2),
        (ORIGIN, 2),
    ],
)
async def test_languages_of_one_weight_in_another_order_are_one_variant_where_the_rule_says_so(
    rule: Rule, runs: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.12.5.4
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=60", vary="accept-language"))

    for said in (b"de, en, fr;q=0.5", b"en, de, fr;q=0.5", b"fr;q=0.5, en, de"):
        await site.get(headers=[(b"accept-language", said)])
    assert site.origin.runs == runs

    await site.get(headers=[(b"accept-language", b"en, fr, de;q=0.5")])
    assert site.origin.runs == runs + 1


@pytest.mark.parametrize(
    ("rule", "name", "runs"),
    [
        (SHARED, b"x-colours", 1),
        (Rule("/x", ttl="origin", vary="origin", ignore_field_spelling=True), b"x-colours", 1),
        (Rule.shared_cache("/x", ignore_field_spelling=False), b"x-colours", 3),
        (ORIGIN, b"x-colours", 3),
        (SHARED, b"user-agent", 3),
    ],
)
async def test_a_field_of_unknown_grammar_is_one_however_it_is_spelled_where_the_rule_says_so(
    rule: Rule, name: bytes, runs: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.1; what is known to be no list never is one (RFC 9110 s.5.5)
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=60", vary=name.decode()))

    await site.get(headers=[(name, b"red, blue")])
    await site.get(headers=[(name, b"red,blue")])
    await site.get(headers=[(name, b"red"), (name, b"blue")])
    assert site.origin.runs == runs

    await site.get(headers=[(name, b"blue, red")])
    assert site.origin.runs == runs + 1


# -- an entity tag of ours -------------------------------------------------------------------------------------------


TAGGING = Rule("/x", ttl=60, add_etag=True)


async def test_a_response_without_an_entity_tag_is_given_one_that_is_the_same_in_every_process(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    tags = []
    for secret in ("one", "another"):
        site = Site(make_dedup, clock, TAGGING, ok(content_type="text/plain"), secret=secret)
        await site.get()
        tags.append((await site.get()).header(b"etag"))

    assert tags == [b'"9fce11211e4d22cfb5ed74dfb0e070e5"'] * 2


async def test_the_tag_tells_bodies_types_and_codings_apart_and_answers_conditional_requests(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    tags = set()
    answers = [ok(), ok(b"two"), ok(content_type="text/plain"), ok(content_encoding="gzip"), ok(x_a="1")]
    for answer in answers:
        site = Site(make_dedup, clock, TAGGING, answer)
        await site.get()
        tag = (await site.get()).header(b"etag") or b""
        tags.add(tag)
        assert (await site.get(headers=[(b"if-none-match", tag)])).status == 304
        assert (await site.get(headers=[(b"if-none-match", b'"x"')])).status == 200

    assert len(tags) == 4


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', "no tag"])
async def test_the_apps_own_entity_tag_stays_and_stays_the_only_one(
    etag: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, TAGGING, ok(etag=etag))
    await site.get()

    assert (await site.get()).header(b"etag") == etag.encode()


async def test_a_tag_of_ours_is_never_shown_to_the_app_however_often_its_response_is_confirmed(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(cache_control="max-age=10", last_modified=DATE)
    site = Site(make_dedup, clock, Rule("/x", ttl="origin", add_etag=True), first, unchanged())
    await site.get()

    for _ in range(3):
        site.advance(11)
        assert (await site.get()).body == b"one"
        assert (await site.get()).header(b"etag")

    assert all(b"if-none-match" not in seen for seen in site.origin.requests)
    assert all(seen[b"if-modified-since"] == DATE.encode() for seen in site.origin.requests[1:])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("control", ["max-age=10", 'max-age=10, private="content-type"'])
async def test_a_tag_of_ours_is_that_of_the_type_that_the_app_has_said_last_and_still_not_shown_to_it(
    control: str, method: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    fields = {"cache_control": "max-age=10", "last_modified": DATE}
    html = {"cache_control": control, "content_type": "text/html"}
    site = Site(
        make_dedup,
        clock,
        Rule("/x", ttl="origin", add_etag=True, identity="shared", vary=[]),
        ok(b"one", content_type="text/plain", **fields),
        unchanged(**html) if method == "GET" else ok(b"", **html),
        unchanged(),
    )
    await site.get()
    first = await site.get()
    site.advance(11)
    confirmed = await site.get(method=method)
    second = await site.get()
    site.advance(11)
    again = await site.get()

    shown = b"text/html" if control == "max-age=10" else None
    tags = [one.header(b"etag") for one in (first, second, again)]
    assert [one.header(b"content-type") for one in (first, second)] == [b"text/plain", shown]
    assert tags[0] != tags[1]
    assert tags[1] == tags[2] or shown is None
    assert status_of(second).startswith("dedup; hit")
    assert site.origin.runs == 3
    assert all(b"if-none-match" not in seen for seen in site.origin.requests)
    if method == "GET":
        assert confirmed.header(b"etag") not in (None, tags[0])


async def test_the_apps_own_tag_takes_the_place_of_ours_when_it_comes_with_a_304(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(cache_control="max-age=10", last_modified=DATE)
    told = unchanged(cache_control="max-age=10", last_modified=DATE, etag='W/"a"')
    site = Site(make_dedup, clock, Rule("/x", ttl="origin", add_etag=True), first, told)
    await site.get()
    for _ in range(2):
        site.advance(11)
        assert (await site.get()).header(b"etag") == b'W/"a"'

    assert (await site.get()).header(b"etag") == b'W/"a"'
    assert [seen.get(b"if-none-match") for seen in site.origin.requests] == [None, None, b'W/"a"']


async def test_a_head_of_the_app_without_a_tag_agrees_with_what_has_one_of_ours(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(cache_control="max-age=10", last_modified=DATE)
    site = Site(make_dedup, clock, Rule("/x", ttl="origin", add_etag=True), first)
    await site.get()
    tag = (await site.get()).header(b"etag")
    site.advance(11)
    await site.get(method="HEAD")

    answer = await site.get()

    assert (answer.body, answer.header(b"etag"), status_of(answer)) == (b"one", tag, "dedup; hit; ttl=10")


async def test_what_says_that_a_range_is_not_there_gets_no_tag_of_its_own_bytes(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.8.8.3: it would be taken for the tag of the whole
    fields = named({"content_range": "bytes */3", "cache_control": "max-age=10"})
    site = Site(make_dedup, clock, Rule("/x", ttl="origin", add_etag=True), (416, fields, b""))
    await site.get(headers=part("5-"))

    hit = await site.get(headers=part("5-"))

    assert (hit.status, hit.header(b"etag"), status_of(hit)) == (416, None, "dedup; hit; ttl=10")


@pytest.mark.parametrize(
    "more",
    [
        {"cache_control": 'max-age=10, no-cache="vary"'},
        {"cache_control": 'max-age=10, private="Vary"'},
        {"cache_control": "max-age=10", "connection": "Vary"},
    ],
    ids=str,
)
async def test_no_variant_answers_all_after_a_304_because_its_vary_was_left_out(
    more: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(b"de", etag='"de"', vary="Accept-Language", **more)
    site = Site(make_dedup, clock, SHARED, first, first)
    german = [(b"accept-language", b"de")]
    await site.get(headers=german)
    site.advance(11)
    site.origin.then(unchanged(etag='"de"'), ok(b"en", vary="Accept-Language"))
    await site.get(headers=german)

    assert (await site.get(headers=[(b"accept-language", b"en")])).body == b"en"


async def test_no_connection_takes_from_a_304_what_it_says_of_its_use(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.7.6.1: Cache-Control is never a connection's
    told = unchanged(etag='"a"', connection="cache-control", cache_control="no-store")
    site = Site(make_dedup, clock, SHARED, ok(cache_control="max-age=10", etag='"a"'), told, YOURS)
    await site.get()
    site.advance(11)
    await site.get()

    assert (await site.get()).body == b"yours"


# -- lifetimes that differ -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [Rule("/x{n}", ttl=100, ttl_jitter=0.2), Rule("/x{n}", ttl="origin", ttl_jitter=0.2)]
)
async def test_a_lifetime_is_shortened_by_a_share_of_its_own_up_to_the_jitter(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=100"))
    for number in range(100):
        await site.get(f"/x{number}")

    lifetimes = [stored.expires - clock.now for _, _, stored in site.dedup.store.items()]

    assert len(lifetimes) == 100
    assert all(80 <= seconds <= 100 for seconds in lifetimes)
    assert len(set(lifetimes)) > 90


async def test_without_jitter_every_lifetime_is_the_same(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, Rule("/x{n}", ttl=100), ok())
    for number in range(10):
        await site.get(f"/x{number}")

    assert {stored.expires - clock.now for _, _, stored in site.dedup.store.items()} == {100}


# -- what is told ----------------------------------------------------------------------------------------------------


async def test_cache_status_carries_the_key_on_every_answer_where_the_rule_asks_for_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9211 s.2.7
    first = ok(cache_control="max-age=10, stale-while-revalidate=9, stale-if-error=99", etag='"a"')
    site = Site(make_dedup, clock, Rule("/x", ttl="origin", cache_status_key=True), first, unchanged())
    lines = [status_of(one) for one in await many(site, [], [], runs=1)]
    lines.append(status_of(await site.get()))
    site.advance(15)
    lines.append(status_of(await site.get()))
    await settle()
    site.advance(20)
    lines.append(status_of(await site.get()))
    site.origin.then(error(503))
    site.advance(20)
    lines += [status_of(one) for one in await many(site, [], [], runs=4)]

    (key,) = {line.partition('; key="')[2] for line in lines}
    assert len(bytes.fromhex(key.removesuffix('"'))) == 16
    assert [line.partition("; key=")[0] for line in lines] == [
        "dedup; fwd=uri-miss; stored; ttl=10",
        "dedup; fwd=uri-miss; collapsed",
        "dedup; hit; ttl=10",
        "dedup; hit; ttl=-5; detail=stale-while-revalidate",
        "dedup; fwd=stale; fwd-status=304; stored; ttl=10",
        "dedup; fwd=stale; fwd-status=503; detail=stale-if-error",
        "dedup; fwd=stale; collapsed; detail=stale-if-error",
    ]


async def test_variants_have_keys_of_their_own_and_a_digest_says_nothing_of_the_request(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    rule = Rule.shared_cache("/x", cache_status_key=True)
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=60", vary="accept"))
    keys = [
        status_of(await site.get(headers=[(b"accept", value)])).partition('; key="')[2]
        for value in (b"a", b"b", b"a")
    ]

    assert keys[0] == keys[2] != keys[1]


async def test_cdn_cache_control_stands_for_cache_control_and_both_go_out_as_they_came(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9213 s.2.2
    first = ok(cache_control="no-store", cdn_cache_control="max-age=600")
    site = Site(make_dedup, clock, SHARED, first)
    answers = [await site.get(), await site.get()]

    assert status_of(answers[1]) == "dedup; hit; ttl=600"
    assert {(one.header(b"cache-control"), one.header(b"cdn-cache-control")) for one in answers} == {
        (b"no-store", b"max-age=600")
    }
    cautious = Site(make_dedup, clock, ORIGIN, first)
    await cautious.get()
    assert cautious.dedup.store.responses == 0


# -- what else a write changes (RFC 9111 s.4.4, RFC 9875) ------------------------------------------------------------


SITE = Rule("/{path:path}", ttl="origin", vary="origin")
LASTS = "max-age=600"


async def written(site: Site, method: str = "POST", status: int = 200, **fields: str) -> None:
    """Another client's write to /w, which answers so; a caller's own closes its flights, whatever it names."""
    before = site.origin.answers
    site.origin.then((status, {name.replace("_", "-"): value for name, value in fields.items()}, b""))
    await site.get("/w", method, client="192.0.2.77")
    site.origin.then(*before)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "REPORT", "MKCOL"])
@pytest.mark.parametrize("status", [200, 201, 204, 303])
@pytest.mark.parametrize("field", ["location", "content_location"])
async def test_a_write_drops_what_its_response_points_to(
    field: str, status: int, method: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS))
    for target in ("/a", "/b", "/w"):
        await site.get(target)

    await written(site, method, status, **{field: "/a"})

    told = {target: "hit" in status_of(await site.get(target)) for target in ("/a", "/b", "/w")}
    assert told == {"/a": False, "/b": True, "/w": False}


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_write_that_failed_points_to_nothing(
    status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS))
    await site.get("/a")
    await site.get("/w")

    await written(site, status=status, location="/a", cache_group_invalidation='"g"')

    assert "hit" in status_of(await site.get("/a"))
    assert ("hit" in status_of(await site.get("/w"))) is (status < 500)


@pytest.mark.parametrize(
    "elsewhere", ["http://other.test/a", "https://example.test/a", "//example.test:8080/a"]
)
async def test_a_write_drops_nothing_of_another_origin(
    elsewhere: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS))
    await site.get("/a")
    await site.get("/a", headers=[(b"host", b"other.test")])

    await written(site, location=elsewhere)

    for host in (b"example.test", b"other.test"):
        assert "hit" in status_of(await site.get("/a", headers=[(b"host", host)]))


async def test_blanks_around_what_a_write_names_are_no_part_of_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.5.5
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS, cache_groups='\t"g" '))
    await site.get("/a")

    await written(site, cache_group_invalidation='\t"g" ')

    assert "hit" not in status_of(await site.get("/a"))


async def test_a_response_belongs_to_the_groups_that_it_names_and_a_write_drops_a_group_of_its_own_origin(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS, cache_groups='"g", "h"'))
    await site.get("/a")
    await site.get("/a", headers=[(b"host", b"other.test")])
    site.origin.then(ok(cache_control=LASTS, cache_groups='"i"'))
    await site.get("/b")

    await written(site, cache_group_invalidation='"x", "g"')

    assert "hit" not in status_of(await site.get("/a"))
    assert "hit" in status_of(await site.get("/b"))
    assert "hit" in status_of(await site.get("/a", headers=[(b"host", b"other.test")]))


async def test_a_safe_request_drops_no_group(make_dedup: MakeDedup, clock: FakeClock) -> None:
    # RFC 9875 s.3: on unsafe requests only
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS, cache_groups='"g"'))
    await site.get("/a")
    site.origin.then(ok(cache_control=LASTS, cache_group_invalidation='"g"', location="/a"))
    await site.get("/b")

    assert "hit" in status_of(await site.get("/a"))


@pytest.mark.parametrize("fields", [{"location": "/a"}, {"cache_group_invalidation": '"g"'}], ids=str)
async def test_flights_of_what_a_write_points_to_take_no_newcomers_and_store_nothing(
    fields: dict[str, Any], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 7; a flight belongs to a group from its head on
    site = Site(make_dedup, clock, SITE, ok(cache_control=LASTS))
    gate = asyncio.Event()
    old = {"cache-control": LASTS, "cache-groups": '"g"'}
    inner = site.origin

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/a" or inner.runs:
            await inner(scope, receive, send)
            return
        inner.requests.append(dict(scope["headers"]))
        headers = [(name.encode(), value.encode()) for name, value in old.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"old"})

    site.app.app = app
    before = site.call("/a")
    await before.head_sent.wait()
    await written(site, **fields)
    site.origin.then(ok(b"new", cache_control=LASTS))

    after = site.call("/a")
    await settle()
    gate.set()
    await before.done()
    await after.done()

    assert (before.body, after.body) == (b"old", b"new")
    assert (await site.get("/a")).body == b"new"


async def test_what_is_read_between_a_writes_head_and_its_end_is_dropped_at_its_end(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 7: a framework may commit after the last byte
    site = Site(make_dedup, clock, SITE, ok(b"old", cache_control=LASTS))
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] != "POST":
            await site.origin(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 201, "headers": [(b"location", b"/a")]})
        await send({"type": "http.response.body"})
        await gate.wait()
        site.origin.then(ok(b"new", cache_control=LASTS))

    site.app.app = app
    write = site.call("/w", "POST")
    await write.head_sent.wait()
    assert (await site.get("/a")).body == b"old"
    gate.set()
    await write.done()

    assert (await site.get("/a")).body == b"new"
