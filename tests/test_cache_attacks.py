"""Attacks on HTTP caching: what a hostile or careless origin says must not reach who it is not for, or pile up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.settle import MOST_FIELDS
from dedup_middleware.core.variants import MOST_LISTS
from dedup_middleware.flight import GRACE

from .cache_kit import Answer, Site, error, ok, status_of, unchanged
from .kit import FakeClock, Pairs, VirtualTime, call, settle

MakeDedup = Callable[..., Dedup]

SHARED = Rule.shared_cache("/x")
UNSHARING = Rule.shared_cache("/x", share_cookies=False)
CAUTIOUS = Rule("/x", ttl="origin", vary="origin")
ALICE: list[tuple[bytes, bytes]] = [(b"authorization", b"Bearer alice")]
BOB: list[tuple[bytes, bytes]] = [(b"authorization", b"Bearer bob")]
YOURS = ok(b"yours", cache_control="no-store")


def part(asked: str, *more: tuple[bytes, bytes]) -> Pairs:
    return [(b"range", b"bytes=" + asked.encode()), *more]


# -- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["public, max-age=60", "max-age=60"])
async def test_what_became_of_a_range_that_cannot_be_had_answers_no_other_request(
    control: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    none_such: Answer = (416, {"cache-control": control, "content-range": "bytes */5"}, b"nope")
    site = Site(make_dedup, clock, SHARED, none_such, YOURS)
    await site.get(headers=part("9-", *ALICE))

    for who in ([], BOB, part("0-1"), part("0-1", *BOB)):
        assert (await site.get(headers=who)).body == b"yours"
    assert (await site.get(method="HEAD")).status == 200


async def test_what_a_part_has_become_answers_no_request_for_the_whole(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    tail: Answer = (206, {"cache-control": "max-age=5", "content-range": "bytes 3-4/5"}, b"34")
    none_such: Answer = (416, {"cache-control": "max-age=600", "content-range": "bytes */2"}, b"")
    site = Site(make_dedup, clock, SHARED, tail, none_such, YOURS)
    await site.get(headers=part("3-4"))
    site.advance(6)
    await site.get(headers=part("3-4"))

    assert (await site.get()).body == b"yours"


async def test_a_head_with_a_range_is_not_answered_by_a_part(make_dedup: MakeDedup, clock: FakeClock) -> None:
    # RFC 9110 s.14.2: a Range means something in a GET only
    head: Answer = (206, {"cache-control": "max-age=60", "content-range": "bytes 0-1/5"}, b"01")
    site = Site(make_dedup, clock, SHARED, head, ok(b"01234", cache_control="max-age=60"))
    await site.get(headers=part("0-1"))

    answer = await site.get(method="HEAD", headers=part("0-1"))

    assert (answer.status, answer.header(b"content-range")) == (200, None)


async def test_what_varies_on_range_answers_no_other_range(make_dedup: MakeDedup, clock: FakeClock) -> None:
    # RFC 9111 s.4.1
    fields = {"cache-control": "max-age=60", "content-range": "bytes 0-4/10", "vary": "Range"}
    site = Site(make_dedup, clock, SHARED, (206, fields, b"01234"), YOURS)
    await site.get(headers=part("0-4"))
    assert (await site.get(headers=part("1-2"))).body == b"yours"

    site = Site(make_dedup, clock, SHARED, ok(b"01234", cache_control="max-age=60", vary="Range"), YOURS)
    await site.get()
    assert (await site.get(headers=part("1-2"))).body == b"yours"


async def test_parts_of_equal_bytes_share_no_entity_tag_of_ours(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.15.3.7.3: parts with the same strong validator may be joined
    rule = Rule.shared_cache("/x", add_etag=True)
    fields = {"cache-control": "max-age=60", "content-range": "bytes 0-3/12"}
    site = Site(make_dedup, clock, rule, (206, fields, b"same"))
    await site.get(headers=part("0-3"))

    hit = await site.get(headers=part("0-3"))

    assert (hit.status, hit.header(b"etag")) == (206, None)


# -- a 304 that says who may have it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_304_that_says_no_store_takes_back_what_is_stored_an_error_too(
    status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.5.2.2.5: not even within its windows
    held = error(status, cache_control="max-age=10, stale-while-revalidate=60", etag='"a"')
    site = Site(make_dedup, clock, SHARED, held, unchanged(cache_control="no-store"), ok(b"two"))
    await site.get()
    site.advance(11)

    confirmed = await site.get(headers=[(b"cache-control", b"no-cache")])

    assert (confirmed.status, confirmed.body) == (status, b"broken")
    assert (await site.get()).body == b"two"


@pytest.mark.parametrize("said", [{"cache_control": "private"}, {"cache_control": "no-store"}, {"vary": "*"}])
async def test_what_a_304_forbids_to_share_is_gone(
    said: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = ok(
        b"old", cache_control="public, max-age=10, stale-while-revalidate=600, stale-if-error=600", etag='"a"'
    )
    site = Site(make_dedup, clock, SHARED, old, unchanged(etag='"a"', **said), YOURS)
    await site.get(headers=ALICE)
    site.advance(11)
    await site.get(headers=ALICE)  # while it is fetched anew
    await settle()
    site.advance(2)

    for who in (BOB, [], ALICE):
        assert (await site.get(headers=who)).body == b"yours"
    site.origin.then(error())
    assert (await site.get(headers=BOB)).status == 503


async def test_a_caller_who_reloads_what_turned_private_keeps_it_from_all_others(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = ok(b"old", cache_control="public, max-age=100", etag='"a"')
    site = Site(make_dedup, clock, SHARED, old, unchanged(cache_control="private", etag='"a"'), YOURS)
    await site.get(headers=ALICE)
    await site.get(headers=[*ALICE, (b"cache-control", b"no-cache")])

    for who in (BOB, []):
        assert (await site.get(headers=who)).body == b"yours"


async def test_a_cookie_that_comes_with_a_304_costs_nobody_what_is_stored(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old = ok(b"old", cache_control="max-age=10", etag='"a"')
    hers = unchanged(etag='"a"', set_cookie="sid=alice")
    site = Site(make_dedup, clock, CAUTIOUS, old, hers, unchanged(etag='"a"'))
    await site.get()
    site.advance(11)

    first = await site.get()
    site.advance(3)
    second = await site.get()

    assert first.header(b"set-cookie") == b"sid=alice"
    assert (second.body, second.header(b"set-cookie")) == (b"old", None)
    assert b"if-none-match" in site.origin.requests[2]


@pytest.mark.parametrize(("rule", "cookie"), [(SHARED, b"sid=1"), (UNSHARING, None)])
async def test_a_cookie_that_comes_with_a_304_is_for_all_only_where_the_rule_shares_cookies(
    rule: Rule, cookie: bytes | None, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.4: the fields of a 304 are those of the response that it updates
    old = ok(b"old", cache_control="max-age=10", etag='"a"')
    says = {"cache_control": "max-age=10", "etag": '"a"'}
    site = Site(make_dedup, clock, rule, old, unchanged(**says, set_cookie="sid=1"), unchanged(**says))
    await site.get()
    site.advance(11)

    first, second = await site.get(), await site.get()

    assert first.header(b"set-cookie") == b"sid=1"
    assert (second.body, second.header(b"set-cookie")) == (b"old", cookie)


async def test_a_stored_cookie_that_is_no_longer_public_reaches_nobody_else(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    banner = ok(b"old", cache_control="public, max-age=10", etag='"a"', set_cookie="banner=1")
    site = Site(make_dedup, clock, SHARED, banner, unchanged(cache_control="no-cache", etag='"a"'), YOURS)
    await site.get()
    site.advance(11)

    answer = await site.get(headers=[(b"cookie", b"sid=bob")])

    assert (answer.body, answer.header(b"set-cookie")) == (b"old", None)
    assert (await site.get()).body == b"yours"


# -- a HEAD's update --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "name"),
    [('max-age=60, no-cache="set-cookie"', "set_cookie"), ('max-age=60, private="x-balance"', "x_balance")],
)
async def test_a_heads_update_stores_no_field_that_is_one_callers(
    control: str, name: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    page = ok(b"page", cache_control="max-age=60", etag='"a"')
    site = Site(
        make_dedup, clock, SHARED, page, ok(b"page", cache_control=control, etag='"a"', **{name: "7"})
    )
    await site.get()
    site.advance(61)
    await site.get(method="HEAD")

    hit = await site.get()

    assert site.origin.runs == 2
    assert hit.header(name.replace("_", "-").encode()) is None


async def test_a_head_that_says_vary_drops_what_was_stored_for_all(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    english = ok(b"english", cache_control="max-age=60", etag='"a"')
    told = ok(cache_control="max-age=60", etag='"a"', vary="accept-language")
    site = Site(make_dedup, clock, SHARED, english, told, YOURS)
    await site.get(headers=[(b"accept-language", b"en")])
    site.advance(61)
    await site.get(method="HEAD", headers=[(b"accept-language", b"en")])

    assert (await site.get(headers=[(b"accept-language", b"de")])).body == b"yours"


async def test_a_group_that_a_head_names_is_one_of_the_stored_responses(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9875 s.2
    page = ok(b"page", cache_control="max-age=60", etag='"a"')
    told = ok(b"page", cache_control="max-age=60", etag='"a"', cache_groups='"g"')
    site = Site(make_dedup, clock, SHARED, page, told, YOURS)
    await site.get()
    site.advance(61)
    await site.get(method="HEAD")

    assert await site.dedup.invalidate("g") == 1
    assert (await site.get()).body == b"yours"


# -- cookies, and words that are none ---------------------------------------------------------------------------------


async def test_what_a_head_renews_while_it_is_fetched_anew_is_fetched_anew_again(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    page = ok(b"page", cache_control="max-age=10, stale-while-revalidate=600", etag='"a"')
    site = Site(make_dedup, clock, SHARED, page)
    gate = asyncio.Event()

    async def slow_once(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET" and site.origin.runs == 1:
            await gate.wait()
        await site.origin(scope, receive, send)

    site.app.app = slow_once
    await site.get()
    site.advance(11)
    await site.get()  # stale, and fetched anew by a run that waits
    await settle()
    await site.get(method="HEAD", headers=[(b"cache-control", b"no-cache")])
    gate.set()
    await settle()
    ran = site.origin.runs
    site.advance(15)

    assert "stale-while-revalidate" in status_of(await site.get())
    await settle()

    assert site.origin.runs == ran + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x-{}", "x-{}-token"], ids=["plain", "credential"])
@pytest.mark.parametrize(
    "rule",
    [Rule("/x", ttl=5, vary=[], identity="shared"), Rule("/x", vary=[], identity="shared"), SHARED],
    ids=["number", "collapse", "shared"],
)
async def test_an_app_whose_vary_names_ever_more_fields_makes_no_list_grow_without_end(
    rule: Rule, name: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, ok())
    for number in range(MOST_FIELDS + 40):
        site.origin.then(ok(cache_control="max-age=5", vary=name.format(number)))
        assert (await site.get()).body == b"one"
        site.advance(6)

    (lists,) = site.dedup.variants.young.values()
    assert len(lists) <= MOST_LISTS
    assert all(len(names) <= MOST_FIELDS for names in lists)


async def test_a_vary_of_more_fields_than_are_remembered_is_one_requests_own(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    many = ", ".join(f"x-{number}" for number in range(MOST_FIELDS + 1))
    site = Site(make_dedup, clock, SHARED, ok(cache_control="max-age=60", vary=many))

    assert status_of(await site.get()) == "dedup; fwd=uri-miss; detail=vary"
    assert not len(site.dedup.variants)


@pytest.mark.parametrize("identity", ["origin", "shared"])
async def test_a_cookie_that_the_app_has_once_seen_tells_callers_apart_though_vary_is_named_no_more(
    identity: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    rule = Rule("/x", ttl="origin", vary="origin", identity=identity)
    nobodys = ok(b"nobody's", cache_control="max-age=1", vary="Cookie")
    site = Site(make_dedup, clock, rule, nobodys)
    await site.get()
    site.origin.then(ok(b"alice's", cache_control="max-age=60"))
    await site.get(headers=[(b"cookie", b"sid=alice")])
    site.advance(2)
    site.origin.then(YOURS)

    for who in ([(b"cookie", b"sid=bob")], []):
        assert (await site.get(headers=who)).body == b"yours"


@pytest.mark.parametrize(
    "control",
    ["max-age=60, x must-revalidate", "max-age=60, x=(must-revalidate)", 'max-age=60, x="must-revalidate'],
)
async def test_what_is_not_in_the_grammar_permits_nothing(
    control: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"alice's", cache_control=control), YOURS)
    await site.get(headers=ALICE)

    for who in ([], BOB):
        assert (await site.get(headers=who)).body == b"yours"


async def test_public_that_is_said_to_be_false_permits_nothing(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9651 s.3.3.6
    site = Site(make_dedup, clock, SHARED, ok(b"alice's", cdn_cache_control="max-age=60, public=?0"), YOURS)
    await site.get(headers=ALICE)

    for who in ([], BOB):
        assert (await site.get(headers=who)).body == b"yours"


# -- a background forward that does not end --------------------------------------------------------------------------


class Stalls:
    """An app that answers its first request, and of all others hangs before the head or after the first chunk."""

    def __init__(self, window: int, *, after_head: bool) -> None:
        self.control = f"max-age=10, stale-while-revalidate={window}, stale-if-error=600".encode()
        self.after_head = after_head
        self.runs = self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        start = {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", self.control)]}
        if self.runs == 1:
            await send(start)
            await send({"type": "http.response.body", "body": b"one", "more_body": False})
            return
        try:
            if self.after_head:
                await send(start)
                await send({"type": "http.response.body", "body": b"t", "more_body": True})
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


def behind(app: Stalls, make_dedup: MakeDedup) -> DedupMiddleware:
    return DedupMiddleware(app, dedup=make_dedup(Rule("/x", ttl="origin", vary="origin", max_wait=5)))


async def test_while_a_background_forward_stalls_in_its_body_there_is_no_other_one(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    app = Stalls(600, after_head=True)
    site = behind(app, make_dedup)
    await call(site, "/x").done()
    await virtual_time.go(11)

    for _ in range(30):
        assert (await call(site, "/x").done()).body == b"one"
        await virtual_time.go(3)

    assert (app.runs, len(site.dedup.flights.under_way)) == (2, 1)
    await site.dedup.aclose()
    assert app.cancelled == 1


async def test_a_background_forward_that_hangs_ends_though_somebody_joined_and_was_helped(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    app = Stalls(1, after_head=False)
    site = behind(app, make_dedup)
    await call(site, "/x").done()
    await virtual_time.go(10.5)
    await call(site, "/x").done()  # stale, and fetched anew
    await virtual_time.go(1)
    joined = call(site, "/x")

    await virtual_time.go(5 + GRACE + 1)

    assert status_of(await joined.done()).endswith("detail=stale-if-error")
    assert app.runs == 2
    assert app.cancelled == app.runs - 1
    assert site.dedup.flights.is_empty
