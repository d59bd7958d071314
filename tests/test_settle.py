"""Settle: who may use a response and for how long, row by row with the section that says so.

RFC 9111 where no other is named; "rule" is what a rule says beside it (docs/rules.md), "law" what no rule allows.
"""

from __future__ import annotations

from typing import Any

import pytest

from dedup_middleware import Rule
from dedup_middleware.core.answer import read_answer
from dedup_middleware.core.settle import REVALIDATABLE, Keep, Pass, Settlement, ShareOnly, settle

WALL = 1_700_000_000.0
DATE = b"Tue, 14 Nov 2023 22:13:20 GMT"
A_SECOND_LATER = b"Tue, 14 Nov 2023 22:13:21 GMT"
A_MINUTE_LATER = b"Tue, 14 Nov 2023 22:14:20 GMT"
A_MINUTE_BEFORE = b"Tue, 14 Nov 2023 22:12:20 GMT"
A_DAY_BEFORE = b"Mon, 13 Nov 2023 22:13:20 GMT"
A_YEAR_BEFORE = b"Mon, 14 Nov 2022 22:13:20 GMT"

CAUTIOUS = Rule(ttl="origin", vary="origin")
SHARED = Rule.shared_cache()
MINUTE = Rule(ttl=60)
COLLAPSE = Rule()

Fields = dict[str, Any]
ETAG = {"etag": '"a"'}
COOKIE = {"set-cookie": "a=b"}


def settled(
    rule: Rule,
    fields: Fields,
    *,
    status: int = 200,
    method: str = "GET",
    one: bool = False,
    authorized: bool = False,
    delay: float = 0.0,
) -> Settlement:
    """What becomes of a response with these fields; a list of values is several lines."""
    pairs = [
        (name.encode(), line if isinstance(line, bytes) else line.encode())
        for name, value in fields.items()
        for line in (value if isinstance(value, list) else [value])
    ]
    answer = read_answer(status, pairs, method)
    return settle(
        rule,
        method,
        answer,
        one_identity=lambda: one,
        authorized=authorized,
        ranged=status == 206,
        wall=WALL,
        delay=delay,
    )


def kept(rule: Rule, fields: Fields, **more: Any) -> Keep:
    found = settled(rule, fields, **more)
    assert isinstance(found, Keep), found
    return found


def control(*directives: str) -> Fields:
    return {"cache-control": ", ".join(directives)}


def named(row: Any) -> str | None:
    return row if isinstance(row, str) else None


# -- how long it is fresh --------------------------------------------------------------------------------------------


LIFETIMES: list[tuple[str, Fields, float, float]] = [
    ("4.2.1 max-age", control("max-age=60"), 60, 0),
    ("4.2.1 s-maxage before max-age", control("max-age=60", "s-maxage=10"), 10, 0),
    ("4.2.1 s-maxage may be the longer", control("s-maxage=100", "max-age=1"), 100, 0),
    (
        "4.2.1 max-age before Expires",
        control("max-age=60") | {"expires": A_SECOND_LATER, "date": DATE},
        60,
        0,
    ),
    ("4.2.1 Expires less Date", {"expires": A_MINUTE_LATER, "date": DATE}, 60, 0),
    ("4.2.1 Expires less an older Date", {"expires": A_MINUTE_LATER, "date": A_MINUTE_BEFORE}, 60, 60),
    ("4.2.1 Expires where Date is missing", {"expires": A_MINUTE_LATER}, 60, 0),
    ("4.2.1 Expires where Date is none", {"expires": A_MINUTE_LATER, "date": "yesterday"}, 60, 0),
    ("4.2.1 of several the smallest", control("max-age=60", "max-age=5", "max-age=30"), 5, 0),
    ("4.2.1 over several lines", {"cache-control": ["max-age=60", "max-age=5"]}, 5, 0),
    ("5.2 names in any case", control("MAX-AGE=60"), 60, 0),
    ("5.2 an argument may be quoted", control('max-age="60"'), 60, 0),
    ("5.2.3 an unknown directive is ignored", control("max-age=60", "x-unknown=no-store"), 60, 0),
    ("1.2.2 a huge number is 2^31", control("max-age=99999999999999999999"), 2**31, 0),
    ("4.2.3 the Age it came with", control("max-age=60") | {"age": "20"}, 40, 20),
    ("4.2.3 the age by its Date", control("max-age=100") | {"date": A_MINUTE_BEFORE}, 40, 60),
    ("4.2.3 the larger of both", control("max-age=100") | {"date": A_MINUTE_BEFORE, "age": "70"}, 30, 70),
    ("4.2.3 a Date ahead is no negative age", control("max-age=60") | {"date": A_MINUTE_LATER}, 60, 0),
    ("5.1 an Age that is none counts as none", control("max-age=60") | {"age": "x"}, 60, 0),
    ("5.1 of several Ages the first", control("max-age=60") | {"age": ["20", "5"]}, 40, 20),
]


@pytest.mark.parametrize(("section", "fields", "left", "age"), LIFETIMES, ids=named)
@pytest.mark.parametrize("rule", [CAUTIOUS, SHARED], ids=["cautious", "shared"])
def test_what_a_response_says_of_its_freshness_is_how_long_it_is_fresh(
    rule: Rule, section: str, fields: Fields, left: float, age: float
) -> None:
    found = kept(rule, fields)

    assert (found.lifetime, found.age, found.passed) == (left, age, None)


def test_the_time_a_response_took_to_come_counts_into_its_age() -> None:
    # s.4.2.3: corrected_age_value = age_value + response_delay
    fields = control("max-age=60") | {"age": "20"}

    assert kept(CAUTIOUS, fields, delay=5.5).age == 25.5
    assert kept(CAUTIOUS, fields, delay=5.5).lifetime == 34.5


AT_ONCE_STALE: list[tuple[str, Fields]] = [
    ("4.2.1 max-age=0", control("max-age=0")),
    ("4.2.1 s-maxage=0", control("s-maxage=0", "max-age=60")),
    ("4.2.1 an argument that is no number", control("max-age=a")),
    ("4.2.1 no argument", control("max-age")),
    ("1.2.2 a negative number", control("max-age=-1")),
    ("1.2.2 a number with a fraction", control("max-age=60.5")),
    ("5.3 an Expires that is no date", {"expires": "0"}),
    ("5.3 an Expires before its Date", {"expires": A_MINUTE_BEFORE, "date": DATE}),
    ("5.2.2.4 no-cache, whatever max-age", control("no-cache", "max-age=60")),
    ("4.2.3 it came older than it may be", control("max-age=60") | {"age": "61"}),
]


@pytest.mark.parametrize(("section", "fields"), AT_ONCE_STALE, ids=named)
def test_what_is_stale_at_once_is_stored_to_be_validated_and_is_nobody_elses_before(
    section: str, fields: Fields
) -> None:
    assert settled(CAUTIOUS, fields) == Pass("no-cache")

    found = kept(CAUTIOUS, fields | ETAG)

    assert (found.lifetime, found.kept - found.late, found.passed) == (0, REVALIDATABLE, "no-cache")


def test_what_no_request_can_have_validated_is_not_stored_for_that() -> None:
    # RFC 9110 s.13.1.2: a POST with If-None-Match is told 412
    rule = Rule("/x", ttl="origin", vary="origin", methods=["POST"], collapse=True)

    assert settled(rule, ETAG, method="POST") == ShareOnly(frozenset())
    assert settled(rule, control("no-cache") | ETAG, method="POST") == Pass("no-cache")
    assert kept(rule, control("max-age=60") | ETAG, method="POST").kept == 0


GUESSED: list[tuple[str, Fields, float]] = [
    ("4.2.2 a tenth of its age", {"date": DATE, "last-modified": A_DAY_BEFORE}, 8640),
    ("4.2.2 a day at most", {"date": DATE, "last-modified": A_YEAR_BEFORE}, 86_400),
    ("4.2.2 without a Date since it came", {"last-modified": A_DAY_BEFORE}, 8640),
    ("4.2.2 modified ahead of its Date", {"date": DATE, "last-modified": A_MINUTE_LATER}, 0),
    ("4.2.2 a Last-Modified that is no date", {"date": DATE, "last-modified": "long ago"}, 0),
    ("4.2.2 no Last-Modified", {"date": DATE} | ETAG, 0),
    ("4.2.2 its age counts", {"date": A_MINUTE_BEFORE, "last-modified": A_DAY_BEFORE}, 8574),
]


@pytest.mark.parametrize(("section", "fields", "left"), GUESSED, ids=named)
def test_freshness_is_guessed_only_where_the_rule_asks_for_it(
    section: str, fields: Fields, left: float
) -> None:
    assert kept(SHARED, fields).lifetime == left
    assert kept(SHARED, fields).passed is None
    assert kept(CAUTIOUS, fields).lifetime == 0


GUESSABLE = (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)


@pytest.mark.parametrize("status", [*GUESSABLE, 206, 302, 307, 400, 418, 500, 503, 599])
def test_freshness_is_guessed_for_the_statuses_that_allow_it_or_where_the_response_is_public(
    status: int,
) -> None:
    # RFC 9110 s.15.1, RFC 9111 s.4.2.2; 206 is left out: nothing partial is guessed about
    fields: Fields = {"date": DATE, "last-modified": A_DAY_BEFORE}

    found = settled(SHARED, fields, status=status)

    assert isinstance(found, Keep) is (status in GUESSABLE)
    assert kept(SHARED, fields | control("public"), status=status).lifetime == 8640
    if status not in GUESSABLE:
        assert found == (ShareOnly(frozenset()) if status >= 500 else Pass("no-freshness"))


@pytest.mark.parametrize("status", [200, 206, 302, 307, 400, 404, 410, 418, 500, 503, 599])
@pytest.mark.parametrize("fields", [control("max-age=60"), {"expires": A_MINUTE_LATER, "date": DATE}])
def test_any_final_status_with_explicit_freshness_is_stored(status: int, fields: Fields) -> None:
    # s.3: "a status code that is final", "an explicit expiration time"
    assert kept(CAUTIOUS, fields, status=status).lifetime == 60


# -- what forbids it -------------------------------------------------------------------------------------------------


FRESH = control("max-age=60")

FORBIDDEN: list[tuple[str, Rule, Fields, dict[str, Any], str]] = [
    ("5.2.2.5 no-store", CAUTIOUS, control("no-store", "max-age=60"), {}, "no-store"),
    ("5.2.2.5 in any case", CAUTIOUS, control("No-Store", "max-age=60"), {}, "no-store"),
    ("5.2.2.5 on any line", CAUTIOUS, {"cache-control": ["max-age=60", "no-store"]}, {}, "no-store"),
    ("5.2.2.5 whatever the rule's ttl", MINUTE, control("no-store"), {}, "no-store"),
    ("5.2.2.5 nor is it shared", COLLAPSE, control("no-store"), {}, "no-store"),
    (
        "5.2.2.3 must-understand, unknown",
        CAUTIOUS,
        control("must-understand", "max-age=60"),
        {"status": 299},
        "no-store",
    ),
    (
        "5.2.2.3 both, unknown",
        CAUTIOUS,
        control("must-understand", "no-store", "max-age=60"),
        {"status": 418},
        "no-store",
    ),
    ("9213-3.1 CDN-Cache-Control: no-store", MINUTE, FRESH | {"cdn-cache-control": "no-store"}, {}, "no-store"),
    *(
        (f"5.2.2.3 {status} to a CDN: {said}", SHARED, {"cdn-cache-control": said}, {"status": status}, "no-store")
        for status, said in (
            (200, "no-store, max-age=60"),
            (299, "must-understand, no-store, max-age=60"),
            (299, "must-understand, max-age=60"),
            (200, "no-store;must-understand, max-age=60"),
            (200, "must-understand=?0, no-store, max-age=60"),
        )
    ),
    (
        "law Surrogate-Control knows no must-understand",
        SHARED,
        FRESH | {"surrogate-control": "must-understand, no-store"},
        {},
        "no-store",
    ),
    (
        "5.2.2.3 understood by a CDN, not by Cache-Control",
        CAUTIOUS,
        control("no-store") | {"cdn-cache-control": "must-understand, no-store"},
        {},
        "no-store",
    ),
    ("law Surrogate-Control: no-store", CAUTIOUS, FRESH | {"surrogate-control": "no-store"}, {}, "no-store"),
    ("5.2.2.7 private", CAUTIOUS, control("private", "max-age=60"), {}, "private"),
    ("5.2.2.7 whatever the rule's ttl", MINUTE, control("private"), {}, "private"),
    ("3.5 Authorization", SHARED, FRESH, {"authorized": True}, "authorization"),
    (
        "3.5 proxy-revalidate is no permission",
        SHARED,
        control("max-age=60", "proxy-revalidate"),
        {"authorized": True},
        "authorization",
    ),
    ("law Set-Cookie", CAUTIOUS, control("max-age=60", "public") | COOKIE, {}, "set-cookie"),
    ("7.3 Set-Cookie, nothing said", SHARED, COOKIE, {}, "set-cookie"),
    ("7.3 Set-Cookie, fresh by a guess", SHARED, COOKIE | {"last-modified": A_YEAR_BEFORE}, {}, "set-cookie"),
    ("7.3 Set-Cookie, max-age=0", SHARED, COOKIE | control("max-age=0") | ETAG, {}, "set-cookie"),
    ("7.3 Set-Cookie, s-maxage=0", SHARED, COOKIE | control("s-maxage=0", "max-age=60"), {}, "set-cookie"),
    ("7.3 Set-Cookie, Expires: 0", SHARED, COOKIE | {"expires": "0"}, {}, "set-cookie"),
    ("7.3 Set-Cookie, no-cache", SHARED, COOKIE | control("no-cache", "max-age=60") | ETAG, {}, "set-cookie"),
    *(
        (f"7.3 Set-Cookie, public but {said}", SHARED, COOKIE | control("public", said) | ETAG, {}, "set-cookie")
        for said in (
            "max-age=0",
            "max-age=0, must-revalidate",
            "max-age=0, stale-while-revalidate=60",
            "s-maxage=0, max-age=60",
            "max-age=x",
        )
    ),
    ("7.3 public but Expires: 0", SHARED, COOKIE | control("public") | {"expires": "0"}, {}, "set-cookie"),
    ("7.3 Set-Cookie, must-revalidate", SHARED, COOKIE | control("must-revalidate") | ETAG, {}, "set-cookie"),
    (
        "7.3 Set-Cookie, no-store that is not meant",
        SHARED,
        COOKIE | control("must-understand", "no-store", "max-age=60"),
        {},
        "set-cookie",
    ),
    (
        "7.3 Set-Cookie, private to one caller",
        Rule(ttl="origin", share_cookies=True),
        COOKIE | control("private", "max-age=60"),
        {"one": True},
        "set-cookie",
    ),
    ("7.3 Set-Cookie, to Authorization", SHARED, COOKIE | FRESH, {"authorized": True}, "authorization"),
    (
        "9213-2.2 Set-Cookie, a lifetime that does not count",
        SHARED,
        COOKIE | FRESH | {"cdn-cache-control": "must-revalidate"},
        {},
        "set-cookie",
    ),
    (
        "9213-2.2 Set-Cookie, private to a CDN",
        SHARED,
        COOKIE | FRESH | {"cdn-cache-control": "private, max-age=60"},
        {},
        "private",
    ),
    (
        "rule share_cookies",
        Rule.shared_cache(share_cookies=False),
        COOKIE | control("public", "max-age=60"),
        {},
        "set-cookie",
    ),
    ("7.3 Set-Cookie2, no-cache", SHARED, control("no-cache") | {"set-cookie2": "a=b"}, {}, "personal-field"),
    ("law Clear-Site-Data", CAUTIOUS, FRESH | {"clear-site-data": '"cache"'}, {}, "personal-field"),
    ("law Set-Cookie, rule's ttl", MINUTE, control("public") | COOKIE, {}, "set-cookie"),
    (
        "law another personal field beside a public cookie",
        SHARED,
        control("max-age=60", "public") | {"set-cookie": "a=b", "x-csrf-token": "c"},
        {},
        "personal-field",
    ),
    ("law a personal field", CAUTIOUS, FRESH | {"x-csrf-token": "c"}, {}, "personal-field"),
    ("4.1 Vary: *", CAUTIOUS, FRESH | {"vary": "*"}, {}, "vary"),
    ("4.1 * among others", SHARED, FRESH | {"vary": ["accept", "a, *"]}, {}, "vary"),
    ("4.1 a Vary that names no field", SHARED, FRESH | {"vary": "a b"}, {}, "vary"),
    ("law a nonce", CAUTIOUS, FRESH | {"content-security-policy": "script-src 'nonce-a'"}, {}, "nonce"),
    ("law a stream", CAUTIOUS, FRESH | {"content-type": "text/event-stream"}, {}, "stream"),
    ("law too large", CAUTIOUS, FRESH | {"content-length": "1048577"}, {}, "too-large"),
    ("rule share_errors", Rule(ttl="origin", share_errors=False), {}, {"status": 503}, "server-error"),
    ("4.3.4 a 304 that nobody asked for", CAUTIOUS, FRESH, {"status": 304}, "partial"),
    ("4.3.4 the same, rule's ttl", MINUTE, {}, {"status": 304}, "partial"),
    ("law a refusal", CAUTIOUS, {}, {"status": 401}, "refusal"),
    ("law a refusal, though guessed", SHARED, control("public"), {"status": 429}, "refusal"),
    ("law a refusal, rule's ttl", MINUTE, FRESH, {"status": 403}, "refusal"),
    ("3 no freshness", CAUTIOUS, {}, {"status": 302}, "no-freshness"),
    ("5.2.2.4 no-cache, nothing to validate", CAUTIOUS, control("no-cache"), {}, "no-cache"),
    ("5.2.2.4 no-cache at ttl 0", COLLAPSE, control("no-cache"), {}, "no-cache"),
    ("4.2.1 max-age=0 at ttl 0", COLLAPSE, control("max-age=0"), {}, "no-cache"),
    ("4.3.5 a HEAD of what is stale at once", CAUTIOUS, control("no-cache") | ETAG, {"method": "HEAD"}, "no-cache"),
    ("4.3.5 a HEAD with max-age=0", CAUTIOUS, control("max-age=0"), {"method": "HEAD"}, "no-cache"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "rule", "fields", "more", "reason"), FORBIDDEN, ids=named)
def test_what_forbids_a_response_to_others_leaves_it_to_the_leader(
    section: str, rule: Rule, fields: Fields, more: dict[str, Any], reason: Any
) -> None:
    assert settled(rule, fields, **more) == Pass(reason)


ALLOWED: list[tuple[str, Rule, Fields, dict[str, Any]]] = [
    (
        "5.2.2.3 understood, whatever no-store",
        CAUTIOUS,
        control("must-understand", "no-store", "max-age=60"),
        {},
    ),
    ("5.2.2.3 understood by itself", CAUTIOUS, control("must-understand", "max-age=60"), {"status": 404}),
    *(
        (f"5.2.2.3 understood in CDN-Cache-Control, {told}", rule, fields | {"cdn-cache-control": said}, {})
        for told, rule, fields, said in (
            ("targeted", SHARED, {}, "must-understand, no-store, max-age=60"),
            ("over lines", SHARED, {}, ["no-store, max-age=60", "must-understand"]),
            ("which only forbids here", CAUTIOUS, FRESH, "must-understand, no-store, max-age=5"),
        )
    ),
    ("5.2.2.7 private to one caller", CAUTIOUS, control("private", "max-age=60"), {"one": True}),
    ("rule share_errors, no error", Rule(ttl="origin", share_errors=False), FRESH, {"status": 499}),
    ("5.2.2.7 private of a field", CAUTIOUS, control('private="x-a"', "max-age=60"), {}),
    ("3.5 public", SHARED, control("public", "max-age=60"), {"authorized": True}),
    ("3.5 s-maxage", SHARED, control("s-maxage=60"), {"authorized": True}),
    ("3.5 must-revalidate", SHARED, control("must-revalidate", "max-age=60"), {"authorized": True}),
    *(
        (f"7.3 {told}, {name}", SHARED, fields | {name: value}, {})
        for told, fields in (
            ("public", control("public", "max-age=60")),
            ("max-age", control("max-age=60")),
            ("s-maxage", control("s-maxage=60")),
            ("max-age, private of a field", control('private="x-a"', "max-age=60")),
            ("Expires", {"expires": A_MINUTE_LATER, "date": DATE}),
            ("CDN-Cache-Control", {"cdn-cache-control": "max-age=60", "cache-control": "private"}),
        )
        for name, value in (("set-cookie", "a=b"), ("set-cookie2", "a=b"), ("clear-site-data", '"cache"'))
    ),
    (
        "7.3 public, to Authorization",
        SHARED,
        control("public", "max-age=60") | COOKIE,
        {"authorized": True},
    ),
    (
        "7.3 public, a shared lifetime above 0",
        SHARED,
        control("public", "max-age=0", "s-maxage=60") | COOKIE,
        {},
    ),
    ("rule share_cookies", Rule(ttl="origin", share_cookies=True), FRESH | COOKIE, {}),
    (
        "5.2.2.4 a cookie that no-cache takes out",
        CAUTIOUS,
        control('no-cache="set-cookie"', "max-age=60") | COOKIE,
        {},
    ),
    ("law a refusal with its own freshness", CAUTIOUS, FRESH, {"status": 403}),
]


@pytest.mark.parametrize(("section", "rule", "fields", "more"), ALLOWED, ids=named)
def test_what_a_response_allows_is_stored(
    section: str, rule: Rule, fields: Fields, more: dict[str, Any]
) -> None:
    assert kept(rule, fields, **more).lifetime == 60


@pytest.mark.parametrize(
    ("said", "stripped"),
    [
        ('no-cache="x-a"', {b"x-a"}),
        ('private="X-A, x-b"', {b"x-a", b"x-b"}),
        ('no-cache="x-a", private="x-b"', {b"x-a", b"x-b"}),
        ("no-cache=x-a", {b"x-a"}),
        ("max-age=1", set()),
    ],
)
@pytest.mark.parametrize("rule", [CAUTIOUS, MINUTE, COLLAPSE], ids=["origin", "minute", "collapse"])
def test_fields_that_no_cache_or_private_names_go_to_the_leader_alone(
    rule: Rule, said: str, stripped: set[bytes]
) -> None:
    # s.5.2.2.4, s.5.2.2.7: the qualified forms limit the directive to those fields
    found = settled(rule, control(said, "max-age=60") if "max-age" not in said else control(said))

    assert isinstance(found, (Keep, ShareOnly))
    assert found.stripped == stripped


@pytest.mark.parametrize("names", ["accept", "Accept, accept-language", ["accept", "accept-language"]])
@pytest.mark.parametrize("rule", [CAUTIOUS, MINUTE, COLLAPSE], ids=["origin", "minute", "collapse"])
def test_the_fields_that_vary_names_are_told(rule: Rule, names: Any) -> None:
    # s.4.1
    found = settled(rule, FRESH | {"vary": names})

    assert isinstance(found, (Keep, ShareOnly))
    assert found.vary == ({b"accept"} if names == "accept" else {b"accept", b"accept-language"})


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_and_what_is_made_for_one_answer_are_shared_and_not_stored(method: str) -> None:
    nonce = {"content-security-policy": "script-src 'nonce-a'"} if method == "GET" else {}

    for rule in (CAUTIOUS, MINUTE):
        assert settled(rule, FRESH | nonce, method=method, one=True) == ShareOnly(frozenset())


def test_a_server_error_without_freshness_is_shared_with_all_who_wait_and_not_stored() -> None:
    for rule in (CAUTIOUS, SHARED, MINUTE, COLLAPSE):
        assert settled(rule, {}, status=503) == ShareOnly(frozenset())


def test_a_response_that_says_nothing_and_cannot_be_validated_is_shared_and_not_stored() -> None:
    assert settled(CAUTIOUS, {}) == ShareOnly(frozenset())


# -- CDN-Cache-Control (RFC 9213) ------------------------------------------------------------------------------------


TARGETED: list[tuple[str, Fields, float]] = [
    ("2.2 it stands for Cache-Control", control("max-age=5") | {"cdn-cache-control": "max-age=60"}, 60),
    ("2.2 and for its prohibitions", control("no-store") | {"cdn-cache-control": "max-age=60"}, 60),
    ("2.2 and for Expires", {"expires": A_SECOND_LATER, "cdn-cache-control": "max-age=60"}, 60),
    ("2.2 where it parses", control("max-age=5") | {"cdn-cache-control": "max-age=60;;"}, 5),
    ("2.2 where it says something", control("max-age=5") | {"cdn-cache-control": ""}, 5),
    ("2.1 a value of another type", control("max-age=5") | {"cdn-cache-control": "max-age=(60)"}, 0),
    ("2.1 over several lines", {"cdn-cache-control": ["max-age=60", "must-revalidate"]}, 60),
]


@pytest.mark.parametrize(("section", "fields", "left"), TARGETED, ids=named)
def test_cdn_cache_control_stands_for_cache_control_where_the_rule_heeds_it(
    section: str, fields: Fields, left: float
) -> None:
    assert kept(SHARED, fields | ETAG).lifetime == left


def test_cdn_cache_control_is_not_heeded_by_itself_but_for_its_no_store() -> None:
    fields = control("max-age=5") | {"cdn-cache-control": "max-age=60"}

    assert kept(CAUTIOUS, fields).lifetime == 5
    assert settled(CAUTIOUS, fields | {"cdn-cache-control": "no-store"}) == Pass("no-store")


# -- what may be done with it when it is stale -----------------------------------------------------------------------


OWN: dict[str, Any] = {"stale_while_revalidate": 30, "stale_if_error": 300}

WINDOWS: list[tuple[str, Rule, Fields, tuple[float, float, bool]]] = [
    ("5861-3 the response's", CAUTIOUS, control("max-age=60", "stale-while-revalidate=9"), (9, 0, False)),
    ("5861-4 the response's", CAUTIOUS, control("max-age=60", "stale-if-error=9"), (0, 9, False)),
    ("5861 none is said", CAUTIOUS, FRESH, (0, 0, False)),
    ("5861 one that is no number", CAUTIOUS, control("max-age=60", "stale-if-error=x"), (0, 0, False)),
    ("rule its own", Rule(ttl="origin", **OWN), FRESH, (30, 300, False)),
    ("rule its own, by a number", Rule(ttl=60, **OWN), {}, (30, 300, False)),
    ("rule the response's is not heard", MINUTE, control("stale-if-error=9"), (0, 0, False)),
    ("rule the preset's day", SHARED, FRESH, (0, 86_400, False)),
    ("4.2.4 must-revalidate", Rule(ttl="origin", **OWN), control("max-age=60", "must-revalidate"), (0, 0, True)),
    ("4.2.4 proxy-revalidate", SHARED, control("max-age=60", "proxy-revalidate"), (0, 0, True)),
    ("4.2.4 s-maxage", SHARED, control("s-maxage=60", "stale-if-error=9"), (0, 0, True)),
    ("4.2.4 no-cache", SHARED, control("no-cache", "stale-if-error=9") | ETAG, (0, 0, True)),
    ("4.2.4 a number's must-revalidate", Rule(ttl=60, **OWN), control("must-revalidate"), (0, 0, True)),
    ("4.2.4 a number's proxy-revalidate", Rule(ttl=60, **OWN), control("proxy-revalidate"), (0, 0, True)),
    ("rule never was fresh", Rule(ttl="origin", **OWN), control("max-age=0") | ETAG, (0, 0, False)),
    ("5861 says so itself", CAUTIOUS, control("max-age=0", "stale-while-revalidate=9"), (9, 0, False)),
]  # fmt: skip


@pytest.mark.parametrize(("section", "rule", "fields", "windows"), WINDOWS, ids=named)
def test_the_windows_of_a_stale_response_are_the_responses_or_the_rules_and_may_be_forbidden(
    section: str, rule: Rule, fields: Fields, windows: tuple[float, float, bool]
) -> None:
    found = kept(rule, fields)

    assert (found.stale_while_revalidate, found.stale_if_error, found.rigid) == windows


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (Rule(ttl="origin", **OWN), 503),
        (Rule(ttl=60, negative_ttl=5, **OWN), 503),
        (Rule(ttl=60, negative_ttl=5, **OWN), 404),
    ],
    ids=["origin", "number", "a number's 404"],
)
def test_a_rules_windows_keep_no_error_for_longer_than_it_is_fresh(rule: Rule, status: int) -> None:
    found = kept(rule, FRESH, status=status)

    assert (found.stale_while_revalidate, found.stale_if_error, found.kept) == (0, 0, 0)


def test_an_error_that_is_kept_stands_in_for_no_other_one() -> None:
    # RFC 5861 s.4: stale content may be used to mitigate errors; an old error mitigates nothing
    windows = control("max-age=60", "stale-while-revalidate=9", "stale-if-error=9")
    found = kept(CAUTIOUS, windows, status=503)

    assert (found.stale_while_revalidate, found.stale_if_error) == (9, 0)


def test_what_came_stale_has_used_up_some_of_its_windows() -> None:
    # RFC 5861 s.3, RFC 9111 s.5.2.1.2: they are counted from the end of its freshness
    windows = control("max-age=60", "stale-while-revalidate=9", "stale-if-error=20")
    found = kept(CAUTIOUS, windows | {"age": "65"})

    assert (found.late, found.stale_while_revalidate, found.stale_if_error, found.kept) == (5, 9, 20, 20)
    assert settled(CAUTIOUS, windows | {"age": "80"}) == Pass("no-cache")


KEPT: list[tuple[str, Rule, Fields, float]] = [
    ("4.3.1 an entity tag", CAUTIOUS, FRESH | ETAG, REVALIDATABLE),
    ("4.3.1 a Last-Modified", CAUTIOUS, FRESH | {"last-modified": A_DAY_BEFORE}, REVALIDATABLE),
    ("4.3.1 nothing to validate", CAUTIOUS, FRESH, 0),
    ("5.2.1.2 max-stale may come", Rule(ttl="origin", honor_request_directives=True), FRESH, REVALIDATABLE),
    ("5.2.1.2 but not for this one", Rule(ttl="origin", honor_request_directives=True), control("s-maxage=60"), 0),
    ("5861 the longest window", CAUTIOUS, control("max-age=60", "stale-if-error=99999") | ETAG, 99_999),
    ("rule a number validates nothing", MINUTE, ETAG, 0),
    ("rule its windows", Rule(ttl=60, **OWN), {}, 300),
]  # fmt: skip


@pytest.mark.parametrize(("section", "rule", "fields", "seconds"), KEPT, ids=named)
def test_a_stale_response_is_kept_as_long_as_it_may_be_of_use(
    section: str, rule: Rule, fields: Fields, seconds: float
) -> None:
    assert kept(rule, fields).kept == seconds


def test_an_error_is_not_kept_to_be_validated() -> None:
    assert kept(CAUTIOUS, FRESH | ETAG, status=404).kept == 0


# -- a number of seconds ---------------------------------------------------------------------------------------------


NEGATIVE = Rule(ttl=60, negative_ttl=5)


@pytest.mark.parametrize(
    ("rule", "status", "fields", "lifetime"),
    [
        *((MINUTE, status, {}, 60) for status in (200, 203, 204, 300, 301, 308)),
        *((NEGATIVE, status, {}, 5) for status in (404, 410, 500, 503)),
        (MINUTE, 200, control("max-age=1"), 60),
        (MINUTE, 200, control("no-cache"), 60),
        (MINUTE, 200, control("s-maxage=0") | {"expires": "0"}, 60),
        (MINUTE, 200, {"age": "20"}, 60),
    ],
)
def test_a_number_is_how_long_whatever_the_response_says(
    rule: Rule, status: int, fields: Fields, lifetime: float
) -> None:
    found = kept(rule, fields, status=status)

    assert (found.lifetime, found.age) == (lifetime, int(fields.get("age", 0)))


@pytest.mark.parametrize(("rule", "status"), [(MINUTE, 404), (MINUTE, 500), (NEGATIVE, 302), (NEGATIVE, 418)])
def test_a_number_stores_no_other_status(rule: Rule, status: int) -> None:
    assert settled(rule, {}, status=status) == ShareOnly(frozenset())


def test_without_a_ttl_a_response_is_shared_and_a_304_is_an_answer_like_any_other() -> None:
    assert settled(COLLAPSE, FRESH | ETAG) == ShareOnly(frozenset())
    assert settled(COLLAPSE, {}, status=304) == ShareOnly(frozenset())


def test_a_status_that_forbids_nothing_asks_nobody_who_the_callers_are() -> None:
    def asked() -> bool:
        raise AssertionError("not asked where nothing depends on it")

    answer = read_answer(200, [(b"cache-control", b"max-age=60")], "GET")

    assert isinstance(settle(CAUTIOUS, "GET", answer, one_identity=asked, wall=WALL), Keep)
