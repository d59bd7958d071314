"""What one request's response may be for another: what is said to be for all (RFC 9111 s.3.5), and parts (s.3.3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from dedup_middleware import Dedup, Rule
from dedup_middleware.keeping import MOST_BESIDE

from .cache_kit import Answer, Site, ok, status_of, unchanged
from .kit import FakeClock, Pairs, settle, until

MakeDedup = Callable[..., Dedup]

SHARED = Rule.shared_cache("/x")
CAUTIOUS = Rule("/x", ttl="origin", vary="origin")
ALICE: list[tuple[bytes, bytes]] = [(b"authorization", b"Bearer alice")]
BOB: list[tuple[bytes, bytes]] = [(b"authorization", b"Bearer bob")]
FOR_ALL = ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"]
NOT_FOR_ALL = [
    "max-age=60",
    "max-age=60, immutable",
    "max-age=60, proxy-revalidate",
    "public, no-store",
    "private, public, max-age=60",
    "public, no-cache",
    "public, max-age=0",
    'max-age=60, x="public"',
]


def part(asked: str, *more: tuple[bytes, bytes]) -> Pairs:
    return [(b"range", b"bytes=" + asked.encode()), *more]


def held(body: bytes, span: str, control: str = "max-age=60", **fields: str) -> Answer:
    """A 206 that says which bytes it holds."""
    return 206, {"cache-control": control, "content-range": f"bytes {span}", **fields}, body


YOURS = ok(b"yours", cache_control="no-store")


# -- what is for all (RFC 9111 s.3.5) --------------------------------------------------------------------------------


@pytest.mark.parametrize("control", NOT_FOR_ALL)
async def test_without_the_apps_word_nobody_gets_what_one_with_authorization_got(
    control: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"alice's", cache_control=control, etag='"a"'), YOURS)
    await site.get(headers=ALICE)

    for who in ([], BOB, part("0-1")):
        assert (await site.get(headers=who)).body == b"yours"


@pytest.mark.parametrize("control", FOR_ALL)
async def test_what_is_for_all_answers_a_request_without_authorization_wherever_the_field_stood(
    control: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    for order in permutations([*ALICE, (b"content-type", b"a/b"), (b"x-forwarded-proto", b"http")]):
        site = Site(make_dedup, clock, SHARED, ok(b"for all", cache_control=control), YOURS)
        await site.get(headers=order)

        answer = await site.get(headers=[pair for pair in order if pair[0] != b"authorization"])

        assert (answer.body, status_of(answer)) == (b"for all", "dedup; hit; ttl=60")
        assert site.origin.runs == 1


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("/x?b", {}),
        ("/x", {"headers": [(b"x-forwarded-host", b"other")]}),
        ("/x", {"headers": [(b"content-type", b"other")]}),
        ("/x", {"scheme": "https"}),
    ],
    ids=["query", "host", "content type", "scheme"],
)
async def test_it_answers_no_request_that_differs_in_anything_else(
    target: str, more: dict[str, Any], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"for all", cache_control=FOR_ALL[0]), YOURS)
    await site.get(headers=ALICE)

    assert (await site.get(target, **more)).body == b"yours"


@pytest.mark.parametrize("named", ["cookie", "authorization", "x-a, authorization", "x-a", "*"])
async def test_it_answers_no_request_of_another_variant(
    named: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    hers = ok(b"for all", cache_control=FOR_ALL[0], vary=named)
    site = Site(make_dedup, clock, SHARED, hers, hers, YOURS)
    site.origin.then(hers, hers, YOURS)
    who = [*ALICE, (b"cookie", b"a=1"), (b"x-a", b"1")]
    await site.get(headers=who)
    ran = site.origin.runs  # twice where the app has to see a cookie that was hidden from it
    site.origin.then(YOURS)

    assert (await site.get(headers=[(b"x-a", b"2"), (b"cookie", b"a=2")])).body == b"yours"
    assert site.origin.runs == ran + 1


@pytest.mark.parametrize("vary", [{}, {"vary": "x-a"}], ids=["plain", "variants"])
async def test_of_a_strangers_own_response_and_one_that_is_for_all_the_most_recent_answers(
    vary: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4
    older, newer = (
        ok(body, cache_control=FOR_ALL[0], etag=f'"{body.decode()}"', **vary) for body in (b"1", b"2")
    )
    for first, second in (([], ALICE), (ALICE, [])):
        site = Site(make_dedup, clock, SHARED, older, newer, YOURS)
        await site.get(headers=first)
        site.advance(5)
        await site.get(headers=[*second, (b"cache-control", b"no-cache")])
        site.advance(5)

        for method, body in (("GET", b"2"), ("GET", b"2"), ("HEAD", b"")):
            for wanted in ([], [(b"cache-control", b"max-age=50")]):
                answer = await site.get(method=method, headers=wanted)
                assert (answer.body, answer.header(b"etag"), answer.header(b"age")) == (body, b'"2"', b"5")
        assert (await site.get(headers=BOB)).header(b"etag") == (b'"2"' if second else b'"1"')
        assert site.origin.runs == 2


async def test_what_answers_a_stranger_after_what_was_for_all_is_stale_is_the_strangers_own(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"own", cache_control=FOR_ALL[0]), YOURS)
    await site.get()
    site.origin.then(ok(b"for all", cache_control="public, max-age=5"))
    await site.get(headers=ALICE)
    assert (await site.get()).body == b"for all"
    site.advance(6)

    assert (await site.get()).body == b"own"
    assert site.origin.runs == 2


async def test_a_field_that_is_for_the_one_who_asked_alone_goes_to_nobody_else(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    control = 'public, max-age=60, private="x-balance", no-cache="set-cookie"'
    hers = ok(b"for all", cache_control=control, x_balance="1", set_cookie="a=1")
    site = Site(make_dedup, clock, SHARED, hers)
    first = await site.get(headers=ALICE)

    answer = await site.get()

    assert (first.header(b"x-balance"), first.header(b"set-cookie")) == (b"1", b"a=1")
    assert (answer.header(b"x-balance"), answer.header(b"set-cookie"), answer.body) == (
        None,
        None,
        b"for all",
    )
    assert site.origin.runs == 1


async def test_stale_it_answers_nobody_without_authorization_and_is_not_fetched_anew_for_them(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # A background forward with the stranger's fields would end under the key of those who are somebody.
    hers = ok(b"hers", cache_control="public, max-age=10, stale-while-revalidate=60", etag='"a"')
    site = Site(make_dedup, clock, SHARED, hers, YOURS)
    await site.get(headers=ALICE)
    site.advance(11)

    assert (await site.get()).body == b"yours"
    assert (await site.get(headers=[(b"cache-control", b"max-stale")])).body == b"yours"
    assert all(b"if-none-match" not in request for request in site.origin.requests)
    answer = await site.get(headers=BOB)
    await settle()
    assert (answer.body, site.origin.runs) == (b"hers", 4)
    assert "stale-while-revalidate" in status_of(answer)
    assert site.origin.requests[3][b"authorization"] == b"Bearer bob"


async def test_ahead_of_time_it_is_fetched_anew_by_one_with_authorization_only(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    rule = Rule.shared_cache("/x", refresh_ahead=5)
    site = Site(make_dedup, clock, rule, ok(b"hers", cache_control="public, max-age=10"))
    await site.get(headers=ALICE)
    site.advance(8)

    assert (await site.get()).body == b"hers"
    await settle()
    assert site.origin.runs == 1
    await site.get(headers=BOB)
    await settle()
    assert [request.get(b"authorization") for request in site.origin.requests] == [
        b"Bearer alice",
        b"Bearer bob",
    ]


async def test_a_confirmation_that_takes_the_word_back_takes_it_from_all(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    hers = ok(b"hers", cache_control="public, max-age=10", etag='"a"')
    site = Site(make_dedup, clock, SHARED, hers, unchanged(cache_control="max-age=60", etag='"a"'), YOURS)
    await site.get(headers=ALICE)
    site.advance(11)
    assert (await site.get(headers=ALICE)).body == b"hers"

    assert [(await site.get(headers=who)).body for who in ([], BOB)] == [b"yours", b"yours"]


async def test_a_write_drops_it_for_all(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"hers", cache_control=FOR_ALL[0]), ok(), YOURS)
    await site.get(headers=ALICE)
    await site.get(method="POST")

    assert (await site.get()).body == b"yours"


async def test_requests_with_and_without_authorization_share_no_flight(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # What the head will say is not known when they come together.
    site = Site(make_dedup, clock, SHARED, ok(b"hers", cache_control=FOR_ALL[0]), YOURS)
    site.origin.hold()
    hers = site.call(headers=ALICE)
    await until(lambda: site.origin.runs == 1)
    stranger = site.call()
    await until(lambda: site.origin.runs == 2)
    site.origin.release()

    assert ((await hers.done()).body, (await stranger.done()).body) == (b"hers", b"yours")


async def test_a_stranger_who_wants_only_what_is_stored_gets_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, ok(b"for all", cache_control=FOR_ALL[0]))
    await site.get(headers=ALICE)
    site.advance(5)

    answers = [
        await site.get(headers=[(b"cache-control", wanted)])
        for wanted in (b"only-if-cached", b"only-if-cached, max-age=4")
    ]

    assert [one.status for one in answers] == [200, 504]


@pytest.mark.parametrize(
    "rule", [CAUTIOUS, Rule("/x", ttl="origin", identity="shared")], ids=["own", "shared"]
)
async def test_only_under_identity_origin_one_request_is_answered_for_another_so(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, rule, ok(b"hers", cache_control=FOR_ALL[0]), YOURS)
    await site.get(headers=[*ALICE, (b"cookie", b"a=1")])

    answer = await site.get()

    # With identity="shared" the app never saw who asked: there it is one response from the start.
    assert answer.body == (b"yours" if rule is CAUTIOUS else b"hers")
    assert not site.dedup.keeper.beside


# -- parts (RFC 9111 s.3.3) ------------------------------------------------------------------------------------------


async def test_a_callers_part_is_nobody_elses(make_dedup: MakeDedup, clock: FakeClock) -> None:
    site = Site(make_dedup, clock, CAUTIOUS, held(b"alice", "0-4/10"), held(b"bob", "1-3/10"))
    await site.get(headers=part("0-4", *ALICE))

    assert (await site.get(headers=part("1-3", *BOB))).body == b"bob"
    assert (
        await site.get(headers=part("1-3"))
    ).body == b"bob"  # the app's next answer, to one from the same address
    assert (await site.get(headers=part("1-3", *ALICE))).body == b"lic"


@pytest.mark.parametrize(
    ("control", "first", "second", "body"),
    [
        ("public, max-age=60", ALICE, [], b"lic"),
        ("public, max-age=60", ALICE, BOB, b"lic"),
        ("max-age=60", ALICE, [], b"yours"),
        ("max-age=60", ALICE, BOB, b"yours"),
        ("public, max-age=60", [], ALICE, b"yours"),
    ],
)
async def test_a_part_is_for_those_for_whom_a_whole_would_be(
    control: str, first: Pairs, second: Pairs, body: bytes, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = Site(make_dedup, clock, SHARED, held(b"alice", "0-4/10", control), YOURS)
    await site.get(headers=part("0-4", *first))

    assert (await site.get(headers=part("1-3", *second))).body == body


async def test_a_part_answers_no_request_without_a_range_and_no_head(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    for control, who in (("max-age=60", []), ("public, max-age=60", ALICE)):
        site = Site(make_dedup, clock, SHARED, held(b"01234", "0-4/5", control), YOURS)
        await site.get(headers=part("0-4", *who))

        assert (await site.get()).body == b"yours"
        assert (await site.get(method="HEAD")).status == 200
        assert site.origin.runs == 3


@pytest.mark.parametrize("rule", [CAUTIOUS, SHARED], ids=["cautious", "shared"])
async def test_a_part_that_if_range_asked_for_answers_only_who_asks_so(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.15.3.7: to them alone it may leave out what kind of thing it is
    site = Site(make_dedup, clock, rule, held(b"01234", "0-4/10", etag='"a"'), YOURS)
    asked = part("0-4", (b"if-range", b'"a"'))
    await site.get(headers=asked)

    assert (await site.get(headers=asked)).body == b"01234"
    for plain in (part("0-4"), part("1-3"), []):
        assert (await site.get(headers=plain)).body == b"yours"


async def test_a_range_is_cut_from_the_newest_part_that_holds_it(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    old, new = held(b"01234", "0-4/10", etag='"a"'), held(b"abcd", "1-4/10", etag='"b"')
    site = Site(make_dedup, clock, SHARED, old, new)
    await site.get(headers=part("0-4"))
    await site.get(headers=part("1-5"))

    answers = [await site.get(headers=part(asked)) for asked in ("2-3", "0-1")]

    assert [(one.body, one.header(b"etag")) for one in answers] == [(b"bc", b'"b"'), (b"01", b'"a"')]
    assert site.origin.runs == 2


async def test_of_one_target_a_few_parts_are_looked_at(make_dedup: MakeDedup, clock: FakeClock) -> None:
    # Law 10
    site = Site(make_dedup, clock, SHARED, *(held(b"0123", f"{n}0-{n}3/99") for n in range(1, 8)))
    for n in range(1, 8):
        await site.get(headers=part(f"{n}0-{n}3"))
    site.origin.then(held(b"x", "0-0/1", "no-store"))

    found = [(await site.get(headers=part(f"{n}1-{n}2"))).body == b"12" for n in range(1, 8)]

    assert found == [False] * (7 - MOST_BESIDE) + [True] * MOST_BESIDE
    assert {len(others) for others in site.dedup.keeper.beside.young.values()} == {MOST_BESIDE}


async def test_several_ranges_in_one_answer_are_stored_for_those_who_ask_the_same(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    several: Answer = (
        206,
        {"cache-control": "max-age=60", "content-type": "multipart/byteranges; boundary=x"},
        b"--x\r\nContent-Range: bytes 0-1/9\r\n\r\n01\r\n--x--\r\n",
    )
    site = Site(make_dedup, clock, SHARED, several, YOURS)
    await site.get(headers=part("0-1,4-4"))

    assert status_of(await site.get(headers=part("0-1,4-4"))).startswith("dedup; hit")
    assert (await site.get(headers=part("0-1"))).body == b"yours"
