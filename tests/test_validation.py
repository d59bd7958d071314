"""Validation: a stale response is confirmed once for all who wait, and stands in for an error where it may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .cache_kit import DATE, Answer, Site, error, named, ok, status_of, unchanged
from .kit import Call, FakeClock, SteppedApp, VirtualTime, call, chunk, get, head, settle, until
from .telemetry_kit import Seen

MakeDedup = Callable[..., Dedup]

ORIGIN = Rule("/x", ttl="origin", vary="origin")
SHARED = Rule.shared_cache("/x")
FIRST = ok(cache_control="max-age=10", etag='"a"')


async def stale(
    make_dedup: MakeDedup, clock: FakeClock, rule: Rule, *answers: Answer, first: Answer = FIRST
) -> Site:
    """A site whose response turned stale a second ago."""
    site = Site(make_dedup, clock, rule, first, *answers)
    await site.get()
    site.advance(11)
    return site


@pytest.mark.parametrize("answered", [304, 503])
async def test_who_is_cancelled_after_its_last_byte_is_told_as_it_was_answered(
    make_dedup: MakeDedup, clock: FakeClock, answered: int
) -> None:
    """By the server, while the app's background work goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = b"if-none-match" not in dict(scope["headers"])
        await send(head(200 if first else answered, [(b"etag", b'"a"'), (b"cache-control", b"max-age=10")]))
        await send(chunk(b"one" if first else b"", more=False))
        if not first:
            await background.wait()

    background = asyncio.Event()
    dedup = make_dedup(SHARED)
    site = DedupMiddleware(app, dedup=dedup)
    await get(site, "/x")
    clock.advance(11)
    one = call(site, "/x")
    await settle()
    assert (one.status, one.body) == (200, b"one")
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one.done()

    outcome = ("revalidated", "stale") if answered == 304 else ("stale", "stale-if-error")
    assert {key[:2] for key in dedup.telemetry.counts} == {("forwarded", "miss"), outcome}
    background.set()


# -- one conditional forward -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [ORIGIN, SHARED], ids=["cautious", "shared"])
async def test_a_thousand_requests_for_a_stale_response_make_one_conditional_forward(
    rule: Rule, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, rule, unchanged(etag='"a"', cache_control="max-age=20"))
    site.origin.hold()
    calls = [site.call() for _ in range(1000)]
    await until(lambda: site.origin.runs == 2)
    await settle()
    site.origin.release()
    answers = await asyncio.gather(*(one.done() for one in calls))

    assert site.origin.runs == 2
    assert site.origin.requests[1][b"if-none-match"] == b'"a"'
    assert {(one.status, one.body, one.header(b"cache-control")) for one in answers} == {
        (200, b"one", b"max-age=20")
    }
    assert status_of(answers[0]) == "dedup; fwd=stale; fwd-status=304; stored; ttl=20"
    assert {status_of(one) for one in answers[1:]} == {"dedup; fwd=stale; collapsed"}
    assert (site.said("revalidated"), site.said("collapsed")) == (1, 999)
    assert status_of(await site.get()) == "dedup; hit; ttl=20"


async def test_both_validators_are_asked_about_and_the_clients_own_never_reach_the_app(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.1
    modified = "Mon, 13 Nov 2023 22:13:20 GMT"
    first = ok(cache_control="max-age=10", etag='W/"a"', last_modified=modified)
    site = await stale(make_dedup, clock, ORIGIN, unchanged(), first=first)

    answer = await site.get(headers=[(b"if-none-match", b'"z"'), (b"if-modified-since", b"x")])

    seen = site.origin.requests[1]
    assert (seen[b"if-none-match"], seen[b"if-modified-since"]) == (b'W/"a"', modified.encode())
    assert (answer.status, answer.body) == (200, b"one")


@pytest.mark.parametrize("listed", [{"vary": ["if-none-match"]}, {"identity": ["if-none-match"]}], ids=str)
async def test_a_rule_that_names_a_validator_has_the_app_judge_no_clients_own(
    listed: dict[str, Any], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    """Its 304 would be taken for one about what is stored."""
    rule = Rule("/x", ttl="origin", **listed)
    site = await stale(make_dedup, clock, rule, ok(b"two", cache_control="max-age=10", etag='"b"'))

    answer = await site.get(headers=[(b"if-none-match", b'"b"')])

    assert [value for name, value in site.origin.scopes[1]["headers"] if name == b"if-none-match"] == [b'"a"']
    assert (answer.status, status_of(answer)) == (304, "dedup; fwd=stale; stored; ttl=10")


@pytest.mark.parametrize("ttl", [10, "origin"])
async def test_no_validator_is_put_to_a_method_that_would_answer_it_by_a_412(
    ttl: int | str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.13.1.2
    rule = Rule("/x", ttl=ttl, methods=["POST"], collapse=True, stale_if_error=60)
    site = Site(make_dedup, clock, rule, ok(cache_control="max-age=10", etag='"a"', last_modified=DATE))
    await site.get(method="POST", body=b"query")
    site.advance(11)
    site.origin.then(ok(b"two"))

    answer = await site.get(method="POST", body=b"query")

    assert (answer.status, answer.body) == (200, b"two")
    assert site.origin.requests[1].keys().isdisjoint({b"if-none-match", b"if-modified-since"})
    assert site.origin.bodies[1] == b"query"


async def test_a_client_that_has_what_was_confirmed_gets_its_own_304(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged(etag='"a"'))

    answer = await site.get(headers=[(b"if-none-match", b'"a"')])

    assert (answer.status, answer.body, answer.header(b"etag")) == (304, b"", b'"a"')
    assert status_of(answer) == "dedup; fwd=stale; fwd-status=304; stored; ttl=10"


async def test_a_confirmation_updates_the_fields_that_it_carries_and_no_field_of_the_body(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.3.2, s.4.3.4
    first = ok(cache_control="max-age=10", etag='"a"', content_length="3", content_encoding="x", x_a="1")
    confirmed = unchanged(etag='"a"', x_a="2", x_b="3", content_length="0", content_encoding="gzip")
    site = await stale(make_dedup, clock, ORIGIN, confirmed, first=first)

    for answer in (await site.get(), await site.get()):
        assert answer.body == b"one"
        fields = [answer.header(name) for name in (b"x-a", b"x-b", b"content-length", b"content-encoding")]
        assert fields == [b"2", b"3", b"3", b"x"]


async def test_a_confirmation_takes_no_boundary_from_parts_that_stand_in_one_body(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9110 s.15.3.7.2: the type of such a body is not the representation's, of which a 304 speaks
    kind = "Multipart/Byteranges; boundary=b"
    fields = named({"content_type": kind, "cache_control": "max-age=10", "etag": '"a"'})
    confirmed = unchanged(content_type="text/plain", etag='"a"', x="new")
    site = Site(make_dedup, clock, SHARED, (206, fields, b"--b..."), confirmed)
    two = [(b"range", b"bytes=0-1,4-5")]
    await site.get(headers=two)
    site.advance(11)

    answers = [await site.get(headers=two) for _ in range(2)]

    assert site.origin.runs == 2
    assert [(one.header(b"content-type"), one.header(b"x")) for one in answers] == [
        (kind.encode(), b"new")
    ] * 2


@pytest.mark.parametrize(
    ("confirmed", "ttl", "age"),
    [
        (unchanged(), 10, b"0"),
        (unchanged(cache_control="max-age=3"), 3, b"0"),
        (unchanged(age="4"), 6, b"4"),
    ],
)
async def test_freshness_and_age_begin_anew_with_the_confirmation(
    confirmed: Answer, ttl: int, age: bytes, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.4; the stored Date says nothing of when it was confirmed
    first = ok(cache_control="max-age=10", etag='"a"', date="Tue, 14 Nov 2023 22:13:20 GMT", age="0")
    site = await stale(make_dedup, clock, ORIGIN, confirmed, first=first)
    site.advance(100)
    await site.get()

    hit = await site.get()

    assert status_of(hit) == f"dedup; hit; ttl={ttl}"
    assert hit.header(b"age") == age


async def test_another_response_takes_the_place_of_the_stale_one(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.3
    site = await stale(make_dedup, clock, ORIGIN, ok(b"two", cache_control="max-age=5", etag='"b"'))

    answers = [await site.get(), await site.get()]

    assert [one.body for one in answers] == [b"two", b"two"]
    assert [status_of(one) for one in answers] == ["dedup; fwd=stale; stored; ttl=5", "dedup; hit; ttl=5"]
    assert (site.said("forwarded"), site.said("revalidated")) == (2, 0)


async def test_a_new_answer_to_a_validation_loses_none_of_its_fields(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Only what was stored for all, and is so no more, goes without another caller's cookie
    site = await stale(make_dedup, clock, SHARED, ok(b"two", cache_control="no-store", set_cookie="a=1"))

    answer = await site.get()

    assert (answer.body, answer.header(b"set-cookie")) == (b"two", b"a=1")


async def test_what_must_be_validated_each_time_is_confirmed_for_each_request_by_itself(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4, s.5.2.2.4: what may not be reused may not be collapsed either
    site = Site(make_dedup, clock, ORIGIN, ok(cache_control="no-cache", etag='"a"'), unchanged())
    await site.get()
    site.origin.hold()
    calls = [site.call() for _ in range(5)]
    await until(lambda: site.origin.runs == 6)
    site.origin.release()
    answers = await asyncio.gather(*(one.done() for one in calls))

    assert {one.body for one in answers} == {b"one"}
    assert all(seen[b"if-none-match"] == b'"a"' for seen in site.origin.requests[1:])
    assert site.said("revalidated") == 5


# -- a 304 that fits nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"etag": '"b"'}, {"etag": 'W/"b"'}, {"last_modified": "x"}], ids=str)
async def test_a_304_about_another_response_is_asked_again_without_validators(
    fields: dict[str, str], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.3.4
    again = ok(b"two", cache_control="max-age=5", etag='"b"')
    site = await stale(make_dedup, clock, ORIGIN, unchanged(**fields), again)

    answer = await site.get()

    assert (answer.status, answer.body) == (200, b"two")
    assert site.origin.runs == 3
    assert b"if-none-match" in site.origin.requests[1]
    assert b"if-none-match" not in site.origin.requests[2]
    assert site.origin.scopes[1] is site.origin.scopes[2]
    assert (await site.get()).body == b"two"


async def test_asked_again_the_app_gets_the_body_again_and_a_scope_that_nobody_has_routed_yet(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    answers = iter([(200, b"one", b'"a"'), (304, b"", b'"z"'), (200, b"two", b'"b"')])
    seen: list[tuple[bytes, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(((await receive())["body"], "route" in scope))
        scope["route"] = object()
        status, body, etag = next(answers)
        await send(head(status, [(b"etag", etag), (b"cache-control", b"max-age=10")]))
        await send(chunk(body, more=False))

    wrapped = DedupMiddleware(app, dedup=make_dedup(ORIGIN))
    await get(wrapped, "/x", "QUERY", body=b"question")
    clock.advance(11)

    answer = await get(wrapped, "/x", "QUERY", body=b"question")

    assert answer.body == b"two"
    assert seen == [(b"question", False)] * 3


async def test_an_app_is_not_asked_again_once_a_stored_response_stood_in(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its 304 fitted nothing, and its background work outlasted max_wait."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(b"if-none-match" in dict(scope["headers"]))
        await send(head(304 if asked[-1] else 200, fields if len(asked) == 1 else [(b"etag", b'"b"')]))
        await send(chunk(b"" if asked[-1] else b"one", more=False))
        if asked[-1]:
            await background.wait()

    asked: list[bool] = []
    background = asyncio.Event()
    fields = [(b"etag", b'"a"'), (b"cache-control", b"max-age=10, stale-if-error=60")]
    site = DedupMiddleware(app, dedup=make_dedup(Rule("/x", ttl="origin", max_wait=5)))
    await get(site, "/x")
    clock.advance(11)
    one = call(site, "/x")
    await virtual_time.go(6)
    assert (one.body, status_of(one)) == (b"one", "dedup; fwd=stale; detail=stale-if-error")

    background.set()
    await one.done()

    assert asked == [False, True]
    assert not caplog.records


async def test_a_304_that_nobody_asked_for_the_second_time_is_the_apps_own_and_is_nobody_elses(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged(etag='"z"'))

    answers = [await site.get(), await site.get()]

    assert [(one.status, one.body) for one in answers] == [(304, b""), (304, b"")]
    # What it stood for is gone, and so nothing is asked about any more.
    assert [b"if-none-match" in seen for seen in site.origin.requests] == [False, True, False, False]


# -- instead of an error ---------------------------------------------------------------------------------------------


HANG = TimeoutError("a stand-in for an app that hangs: see `failing`")
FAILURES: list[Answer] = [error(500), error(502), error(503), error(504), ValueError("broken"), HANG]


async def failing(site: Site, time: VirtualTime, failure: Answer, **more: Any) -> Call:
    """Ask while the app fails in this way; one that hangs ends when the answer is out."""
    site.origin.then(failure if failure is not HANG else ok(b"late", cache_control="max-age=60"))
    if failure is not HANG:
        return await site.get(**more)
    site.origin.hold()
    one = site.call(**more)
    await time.go(site.dedup.rules[0].max_wait + 1)  # type: ignore[operator] # a checked rule has seconds
    if one.complete:
        assert not one.task.done()  # its own call into the app is not over
    site.origin.release()
    return await one.done()


WINDOWS: list[tuple[str, Rule, str, list[tuple[bytes, bytes]]]] = [
    ("the response's", ORIGIN, "max-age=10, stale-if-error=60", []),
    ("the rule's", Rule("/x", ttl="origin", stale_if_error=60), "max-age=10", []),
    ("the rule's by a number", Rule("/x", ttl=10, stale_if_error=60), "", []),
    ("the preset's", SHARED, "max-age=10", []),
    (
        "the request's",
        Rule("/x", ttl="origin", honor_request_directives=True),
        "max-age=10",
        [(b"cache-control", b"stale-if-error=60")],
    ),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize(
    ("window", "rule", "control", "headers"),
    WINDOWS,
    ids=[row[0] for row in WINDOWS],
)
async def test_within_its_window_a_stored_response_stands_in_for_an_error(
    window: str,
    rule: Rule,
    control: str,
    headers: list[tuple[bytes, bytes]],
    failure: Answer,
    virtual_time: VirtualTime,
    make_dedup: MakeDedup,
    clock: FakeClock,
) -> None:
    # RFC 5861 s.4, RFC 9111 s.4.2.4
    site = await stale(make_dedup, clock, rule, first=ok(cache_control=control, etag='"a"'))

    answer = await failing(site, virtual_time, failure, headers=headers)

    assert (answer.status, answer.body) == (200, b"one")
    assert int(answer.header(b"age") or b"") >= 11
    told = f"; fwd-status={failure[0]}" if isinstance(failure, tuple) else ""
    assert status_of(answer) == f"dedup; fwd=stale{told}; detail=stale-if-error"
    assert site.said("stale") == 1
    site.origin.then(ok(b"two", cache_control="max-age=10"))
    assert (await site.get()).body == b"two"


FORBIDDEN = [
    "must-revalidate",
    "proxy-revalidate",
    "s-maxage=10",
    "must-revalidate, stale-if-error=60",
    "no-cache, stale-if-error=60",
]


@pytest.mark.parametrize("failure", [error(503), ValueError("broken"), HANG], ids=repr)
@pytest.mark.parametrize("directive", FORBIDDEN)
async def test_where_the_response_forbids_it_nothing_stands_in_whatever_the_rule_and_the_request_say(
    directive: str, failure: Answer, virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.2.4, s.5.2.2.2, s.5.2.2.8, s.5.2.2.10
    first = ok(cache_control=f"max-age=10, {directive}", etag='"a"')
    site = await stale(make_dedup, clock, SHARED, first=first)
    headers = [(b"cache-control", b"stale-if-error=60")]

    if isinstance(failure, ValueError):
        with pytest.raises(ValueError, match="broken"):
            await failing(site, virtual_time, failure, headers=headers)
    else:
        answer = await failing(site, virtual_time, failure, headers=headers)
        assert answer.body == (b"late" if failure is HANG else b"broken")
    assert site.said("stale") == 0


@pytest.mark.parametrize("failure", [error(503), ValueError("broken"), HANG], ids=repr)
async def test_past_its_window_nothing_stands_in(
    failure: Answer, virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    first = ok(cache_control="max-age=10, stale-if-error=5", etag='"a"')
    site = await stale(make_dedup, clock, ORIGIN, first=first)
    site.advance(4)

    if isinstance(failure, ValueError):
        with pytest.raises(ValueError, match="broken"):
            await failing(site, virtual_time, failure)
    else:
        assert (await failing(site, virtual_time, failure)).body in (b"late", b"broken")


async def test_an_app_that_hangs_past_the_window_is_waited_for(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # The window is measured when the answer would go out, not when the request came.
    rule = Rule("/x", ttl="origin", max_wait=30, stale_if_error=5)
    site = await stale(make_dedup, clock, rule)

    assert (await failing(site, virtual_time, HANG)).body == b"late"


@pytest.mark.parametrize("status", [400, 401, 404, 410, 501, 505])
async def test_what_is_no_such_error_is_the_apps_answer(
    status: int, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, SHARED, error(status))

    answer = await site.get()

    assert (answer.status, answer.body) == (status, b"broken")


async def test_all_who_wait_get_what_stands_in_and_each_is_told_so(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, SHARED, error(503))
    site.origin.hold()
    calls = [site.call() for _ in range(50)]
    await until(lambda: site.origin.runs == 2)
    await settle()
    site.origin.release()
    answers = await asyncio.gather(*(one.done() for one in calls))

    assert site.origin.runs == 2
    assert {(one.status, one.body, one.header(b"age")) for one in answers} == {(200, b"one", b"11")}
    assert {status_of(one) for one in answers[1:]} == {"dedup; fwd=stale; collapsed; detail=stale-if-error"}
    assert site.said("stale") == 50


HEEDING = Rule("/x", ttl="origin", honor_request_directives=True)
LENIENT, STRICT = [(b"cache-control", b"stale-if-error=60")], [(b"cache-control", b"max-age=60")]


async def behind(
    site: Site, time: VirtualTime, failure: Answer, *requests: list[tuple[bytes, bytes]]
) -> list[Call]:
    """Ask all at once while the app fails in this way, the first one first; a hanging one ends when all is out."""
    site.origin.then(failure if failure is not HANG else ok(b"late", cache_control="max-age=10"))
    site.origin.hold()
    calls = [site.call(headers=headers) for headers in requests]
    await until(lambda: site.origin.runs == 2)
    await settle()
    if failure is HANG:
        await time.go(site.dedup.rules[0].max_wait + 1)  # type: ignore[operator] # a checked rule has seconds
    site.origin.release()
    await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    return calls


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_what_one_request_takes_instead_of_an_error_its_followers_do_not_have_to(
    failure: Answer, virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # RFC 9111 s.4.2.4: it says stale-if-error=0, and only the first one allows it nevertheless
    first = ok(cache_control="max-age=10, stale-if-error=0", etag='"a"')
    site = await stale(make_dedup, clock, HEEDING, first=first)

    leader, *others, last = await behind(site, virtual_time, failure, LENIENT, [], [], STRICT, LENIENT)

    assert [one.body for one in (leader, last)] == [b"one", b"one"]
    expected = b"late" if failure is HANG else b"broken" if isinstance(failure, tuple) else b""
    assert [one.body for one in others] == [expected] * 3
    assert site.origin.runs == 3  # they asked together
    assert site.said("stale") == 2


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_one_that_wants_nothing_stale_keeps_nobody_else_from_what_stands_in(
    failure: Answer, virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, SHARED)

    leader, *others = await behind(site, virtual_time, failure, [(b"cache-control", b"max-age=10")], [], [])

    assert leader.body != b"one"
    ttl = -1 - (site.dedup.rules[0].max_wait + 1 if failure is HANG else 0)  # type: ignore[operator] # as above
    told = f"dedup; hit; ttl={ttl:.0f}; detail=stale-if-error"
    assert [(one.body, status_of(one)) for one in others] == [(b"one", told)] * 2
    assert (site.origin.runs, site.said("stale")) == (2, 2)


async def test_one_for_whom_nothing_stands_in_waits_with_others_twice_at_most(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, SHARED, error(503))
    site.origin.hold()
    calls = [site.call(), site.call(headers=[(b"cache-control", b"max-age=10")])]
    await until(lambda: site.origin.runs == 2)
    for runs in (3, 5):  # the second time the strict one asks, too
        await settle()
        site.origin.release()
        site.origin.hold()
        calls.append(site.call())  # is there before the strict one has heard
        await until(lambda: site.origin.runs == runs)  # noqa: B023 - waited for here
    await settle()
    site.origin.release()
    bodies = [(await one.done()).body for one in calls]

    assert bodies == [b"one", b"broken", b"one", b"one"]
    assert site.origin.runs == 5


async def test_an_app_that_breaks_off_within_its_body_is_an_error_though_something_could_have_stood_in(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    # Law 8: its head was out
    bare = SteppedApp(head(200), chunk(b"half"), ValueError("broken"))
    site = await stale(make_dedup, clock, SHARED)
    broken = DedupMiddleware(bare, dedup=site.dedup)
    broken._place = site.app._place  # the same app, as far as keys go
    bare.finish()
    one = call(broken, "/x")

    with pytest.raises(ValueError, match="broken"):
        await one.done()

    assert not one.complete
    assert one.body == b"half"


LATE: dict[str, list[Any]] = {
    "answers": [head(200, [(b"cache-control", b"max-age=60")]), chunk(b"late", more=False)],
    "answers at length": [head(200), *[chunk(b"x" * 100_000)] * 30, chunk(b"", more=False)],
    "fails": [ValueError("late")],
    "begins and fails": [head(200), chunk(b"late"), ValueError("late")],
    "says nothing": [],
    "confirms": [head(304), chunk(b"", more=False)],
    "confirms another": [head(304, [(b"etag", b'"z"')]), chunk(b"", more=False)],
    "breaks the protocol": [chunk(b"late"), head(200), head(200)],
}


@pytest.mark.parametrize("kind", LATE)
async def test_an_app_that_goes_on_after_a_stored_response_stood_in_harms_nobody(
    kind: str,
    virtual_time: VirtualTime,
    make_dedup: MakeDedup,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = await stale(make_dedup, clock, SHARED)
    bare = SteppedApp(None, *LATE[kind])
    app = DedupMiddleware(bare, dedup=site.dedup)
    app._place = site.app._place
    calls = [call(app, "/x") for _ in range(3)]
    await virtual_time.go(31)
    assert [one.body for one in calls] == [b"one"] * 3
    assert calls[1].task.done()
    bare.finish()
    for one in calls:
        await one.done()

    assert all(
        [message["type"] for message in one.messages] == ["http.response.start", "http.response.body"]
        for one in calls
    )
    assert bare.runs == 1
    assert site.dedup.store.responses == 1
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == ("fails" in kind)
    site.origin.then(ok(b"two", cache_control="max-age=10"))
    assert (await site.get()).body == b"two"


# -- whose call it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["disconnect", "cancel"])
async def test_a_leader_that_leaves_takes_the_confirmation_from_nobody(
    way: str, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged())
    site.origin.hold()
    leader, follower = site.call(), site.call()
    await until(lambda: site.origin.runs == 2)
    await settle()
    getattr(leader, way)()
    await settle()
    site.origin.release()

    assert (await follower.done()).body == b"one"
    await asyncio.gather(leader.task, return_exceptions=True)
    assert status_of(await site.get()) == "dedup; hit; ttl=10"


async def test_a_confirmation_that_nobody_waits_for_is_cancelled_and_the_stored_response_stays(
    virtual_time: VirtualTime, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    site = await stale(make_dedup, clock, ORIGIN, unchanged())
    site.origin.hold()
    leader = site.call()
    await until(lambda: site.origin.runs == 2)
    await virtual_time.go(0.2)
    leader.disconnect()
    await virtual_time.go(5)
    await leader.done()

    assert site.origin.cancelled == 1
    assert not leader.messages
    site.origin.release()
    assert (await site.get()).body == b"one"
    assert site.origin.requests[2][b"if-none-match"] == b'"a"'


# -- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "headers", "outcome", "reason", "status"),
    [
        (unchanged(), [], "revalidated", "stale", 200),
        (unchanged(), [(b"if-none-match", b'"a"')], "revalidated", "stale", 304),
        (unchanged(), [(b"cache-control", b"no-cache")], "revalidated", "stale", 200),
        (error(503), [], "stale", "stale-if-error", 200),
        (ok(b"two", cache_control="max-age=5"), [], "forwarded", "stale", 200),
        (ok(b"two", cache_control="no-store"), [], "forwarded", "no-store", 200),
        (error(404), [(b"cache-control", b"max-age=1")], "forwarded", "stale", 404),
        (ok(b"two"), [(b"cache-control", b"max-stale")], "stale", "max-stale", 200),
        (
            ok(b"two"),
            [(b"cache-control", b"max-stale"), (b"if-none-match", b'"a"')],
            "stale",
            "max-stale",
            304,
        ),
        (ok(b"two"), [(b"cache-control", b"max-stale"), (b"range", b"bytes=0-0")], "stale", "max-stale", 206),
        (ok(b"two"), [(b"cache-control", b"only-if-cached")], "bypassed", "only-if-cached", 504),
    ],
)
async def test_outcome_and_reason_are_told_once_in_spans_and_numbers(
    answer: Answer,
    headers: list[tuple[bytes, bytes]],
    outcome: str,
    reason: str,
    status: int,
    make_dedup: MakeDedup,
    clock: FakeClock,
) -> None:
    seen = Seen()
    site = Site(make_dedup, clock, SHARED, FIRST, answer, tracer_provider=seen.provider)
    await site.get()
    before = len(seen.spans)
    site.advance(11)

    answered = await site.get(headers=headers)

    assert answered.status == status
    assert site.dedup.stats().rules["/x"].requests[outcome] == 1 + (outcome == "forwarded")
    (span,) = [one for one in seen.spans[before:] if not one.name.startswith("forward ")]
    assert span.attributes is not None
    told = {name: span.attributes[f"dedup.{name}"] for name in ("outcome", "reason", "rule")}
    assert told == {"outcome": outcome, "reason": reason, "rule": "/x"}
    assert span.attributes["http.response.status_code"] == status
    assert span.name.startswith(f"{outcome} ")
    forwards = [one for one in seen.spans[before:] if one.name.startswith("forward ")]
    assert len(forwards) == (reason not in ("max-stale", "only-if-cached"))
