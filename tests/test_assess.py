"""Assess: what a stored response is worth to a request, fresh, stale or not there, row by row with its section."""

from __future__ import annotations

from typing import Any

import pytest

from dedup_middleware.core.assess import (
    FRESH,
    MISS,
    NOTHING_WANTED,
    Ask,
    Refuse,
    Serve,
    Verdict,
    Wants,
    assess,
    is_enough,
    stands_in,
    wants,
)
from dedup_middleware.core.http import Head, StoredResponse

CAME = 1000.0
HUGE = 2**31


def asked(*lines: str) -> Wants:
    return wants([(b"host", b"example.test"), *((b"Cache-Control", line.encode()) for line in lines)])


def stored(
    fresh_for: float = 60.0, *, age: float = 0.0, while_revalidate: float = 0.0, rigid: bool = False
) -> StoredResponse:
    return StoredResponse(
        head=Head(200, []),
        body=b"",
        stored_at=CAME,
        expires=CAME + fresh_for,
        names=(),
        generation=1,
        seconds=1.0,
        initial_age=age,
        kept=3600,
        stale_while_revalidate=while_revalidate,
        rigid=rigid,
    )


# -- what a request says (s.5.2.1, s.5.4) ----------------------------------------------------------------------------


SAID: list[tuple[list[str], Wants]] = [
    ([], NOTHING_WANTED),
    ([""], NOTHING_WANTED),
    (["max-age=5"], Wants(max_age=5)),
    (["max-age=5, max-age=9"], Wants(max_age=5)),
    (["max-age=9", "MAX-AGE=5"], Wants(max_age=5)),
    (["max-age=0"], Wants(max_age=0, validated=True)),
    (["max-age=x"], Wants(max_age=0, validated=True)),
    (["max-age"], Wants(max_age=0, validated=True)),
    ([f"max-age={10**30}"], Wants(max_age=HUGE)),
    (["no-cache"], Wants(validated=True)),
    (["no-store"], Wants(no_store=True)),
    (["min-fresh=5"], Wants(min_fresh=5)),
    (["min-fresh=x"], Wants(min_fresh=HUGE)),
    (["max-stale=5"], Wants(max_stale=5)),
    (["max-stale"], Wants(max_stale=HUGE)),
    (["max-stale=0"], Wants(max_stale=0)),
    (["max-stale=x"], Wants(max_stale=0)),
    (["stale-if-error=5"], Wants(stale_if_error=5)),
    (["only-if-cached, max-stale=9"], Wants(only_if_cached=True, max_stale=9)),
    (["no-transform, x-y=5"], Wants()),
]


@pytest.mark.parametrize(
    ("lines", "meant"), SAID, ids=lambda item: ";".join(item) if isinstance(item, list) else ""
)
def test_a_request_says_what_it_wants_in_cache_control(lines: list[str], meant: Wants) -> None:
    assert asked(*lines) == meant


def test_pragma_counts_only_where_there_is_no_cache_control() -> None:
    # s.5.4
    pragma = (b"pragma", b"x, No-Cache")

    assert wants([pragma]) == Wants(validated=True)
    assert wants([(b"pragma", b"x")]) is NOTHING_WANTED
    assert wants([pragma, (b"cache-control", b"max-age=5")]) == Wants(max_age=5)
    assert wants([pragma, (b"cache-control", b"")]) == NOTHING_WANTED


def test_a_request_without_directives_wants_nothing_and_costs_nothing() -> None:
    assert wants([(b"host", b"example.test")]) is NOTHING_WANTED


# -- what becomes of it ----------------------------------------------------------------------------------------------


SWR = {"while_revalidate": 30.0}

VERDICTS: list[tuple[str, dict[str, Any], str, float, Verdict]] = [
    ("4.2 fresh", {}, "", 59.9, FRESH),
    ("4.2 stale from its end on", {}, "", 60, Ask("stale")),
    ("4.2 never fresh", {"fresh_for": 0}, "", 0, Ask("stale")),
    ("5.2.1.4 no-cache", {}, "no-cache", 1, Ask("request", alone=True)),
    ("5.2.1.4 no-cache of a stale one", SWR, "no-cache", 61, Ask("stale", alone=True)),
    ("5.2.1.1 max-age=0", {}, "max-age=0", 0, Ask("request", alone=True)),
    ("5.2.1.1 young enough", {}, "max-age=5", 5, FRESH),
    ("5.2.1.1 too old", {}, "max-age=5", 5.1, Ask("request")),
    ("5.2.1.1 too old as it came", {"age": 10}, "max-age=5", 0, Ask("request")),
    ("5.2.1.1 wants nothing stale", SWR, "max-age=100", 61, Ask("stale")),
    ("5.2.1.1 but for max-stale", {}, "max-age=100, max-stale=10", 61, Serve("max-stale")),
    ("5.2.1.1 which lets nothing be older: fresh", {}, "max-age=5, max-stale=10", 20, Ask("request")),
    ("5.2.1.1 which lets nothing be older: stale", {}, "max-age=5, max-stale=10", 61, Ask("stale")),
    ("5.2.1.1 nor within its window", SWR, "max-age=5, max-stale=10", 61, Ask("stale")),
    ("5.2.1.1 too old and stale", {}, "max-age=5", 61, Ask("stale")),
    ("5.2.1.3 fresh for long enough", {}, "min-fresh=10", 50, FRESH),
    ("5.2.1.3 not for long enough", {}, "min-fresh=10", 50.1, Ask("request")),
    ("5.2.1.3 wants nothing stale", SWR, "min-fresh=10", 61, Ask("stale")),
    ("5.2.1.3 whatever max-stale says", SWR, "min-fresh=10, max-stale=20", 61, Ask("stale")),
    ("5.2.1.2 stale within max-stale", {}, "max-stale=10", 70, Serve("max-stale")),
    ("5.2.1.2 staler", {}, "max-stale=10", 70.1, Ask("stale")),
    ("5.2.1.2 however stale", {}, "max-stale", 3000, Serve("max-stale")),
    ("4.2.4 forbidden by the response", {"rigid": True}, "max-stale", 61, Ask("stale")),
    ("5861-3 stale while it is fetched", SWR, "", 60, Serve("stale-while-revalidate", refresh=True)),
    ("5861-3 at its last moment", SWR, "", 89.9, Serve("stale-while-revalidate", refresh=True)),
    ("5861-3 past the window", SWR, "", 90, Ask("stale")),
    ("5.2.1.2 nothing staler in a window, either", SWR, "max-stale=5", 70, Ask("stale")),
    ("5.2.1.2 beside max-age, either", SWR, "max-age=100, max-stale=5", 70, Ask("stale")),
    ("5.2.1.2 none at all", SWR, "max-stale=0", 70, Ask("stale")),
    ("5861-3 max-stale needs no fetch", SWR, "max-stale=50", 70, Serve("max-stale")),
    ("4.2.4 forbidden by the response", SWR | {"rigid": True}, "", 61, Ask("stale")),
    ("5.2.1.7 fresh", {}, "only-if-cached", 1, FRESH),
    ("5.2.1.7 stale", {}, "only-if-cached", 61, Refuse()),
    ("5.2.1.7 stale and willing", {}, "only-if-cached, max-stale", 61, Serve("max-stale")),
    ("5.2.1.7 stale while it is fetched", SWR, "only-if-cached", 61, Serve("stale-while-revalidate", refresh=True)),
    ("5.2.1.7 too old", {}, "only-if-cached, max-age=5", 6, Refuse()),
    ("5.2.1.7 with no-cache", {}, "only-if-cached, no-cache", 1, Refuse()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "response", "directives", "after", "verdict"),
    VERDICTS,
    ids=lambda item: item if isinstance(item, str) else None,
)
def test_what_is_stored_answers_where_the_request_and_the_response_allow_it(
    section: str, response: dict[str, Any], directives: str, after: float, verdict: Verdict
) -> None:
    assert assess(stored(**response), asked(directives), CAME + after) == verdict


@pytest.mark.parametrize(
    ("directives", "verdict"),
    [
        ("", MISS),
        ("max-age=5, min-fresh=5, max-stale=5", MISS),
        ("no-cache", Ask("miss", alone=True)),
        ("max-age=0", Ask("miss", alone=True)),
        ("only-if-cached", Refuse()),
        ("only-if-cached, no-cache", Refuse()),
    ],
)
def test_where_nothing_is_stored_the_app_is_asked_unless_the_request_forbids_it(
    directives: str, verdict: Verdict
) -> None:
    assert assess(None, asked(directives), CAME) == verdict


def test_a_fresh_response_whose_time_to_be_refreshed_has_come_answers_and_is_fetched_anew() -> None:
    response = stored()
    response.refresh_at = CAME + 50

    assert assess(response, NOTHING_WANTED, CAME + 49) is FRESH
    assert assess(response, NOTHING_WANTED, CAME + 50) == Serve("fresh", refresh=True)
    assert assess(response, asked("min-fresh=20"), CAME + 50) == Ask("request")


# -- instead of an error (RFC 5861 s.4) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "directives", "rigid", "after", "allowed"),
    [
        (30, "", False, 61, True),
        (30, "", False, 89.9, True),
        (30, "", False, 90, False),
        (0, "", False, 61, False),
        (0, "stale-if-error=30", False, 61, True),
        (0, "stale-if-error=30", False, 90, False),
        (10, "stale-if-error=30", False, 85, True),
        (30, "stale-if-error=10", False, 85, True),
        (30, "stale-if-error=30", True, 61, False),
        (30, "no-cache", False, 61, False),
        (30, "max-age=0, stale-if-error=30", False, 61, False),
        (30, "max-age=5", False, 61, False),
        (30, "max-age=100", False, 61, False),
        (30, "max-age=100, max-stale=5", False, 64, True),
        (30, "max-age=100, max-stale=5", False, 66, False),
        (30, "max-age=5, max-stale=5", False, 64, False),
        (30, "max-stale=5", False, 64, True),
        (30, "max-stale=5", False, 66, False),
        (30, "min-fresh=5", False, 61, False),
        (30, "min-fresh=5, max-stale", False, 61, False),
        (0, "max-age=100, stale-if-error=30", False, 61, True),
        (0, "max-stale=5, stale-if-error=30", False, 70, True),
        (30, "max-stale=5, stale-if-error=9", False, 70, False),
        (0, "max-age=5, stale-if-error=30", False, 61, False),
        (0, "min-fresh=5, stale-if-error=30", False, 61, False),
        (0, "max-age=5", False, 10, False),
        (0, "min-fresh=55", False, 10, False),
        (0, "max-age=20, min-fresh=5", False, 10, True),
        (0, "", False, 10, True),  # it is fresh: a refresh before its time has failed
    ],
)
def test_a_stored_response_stands_in_for_an_error_within_the_longer_window_and_never_where_forbidden(
    window: float, directives: str, rigid: bool, after: float, allowed: bool
) -> None:
    response = stored(rigid=rigid)
    response.stale_if_error = window

    assert stands_in(response, asked(directives), CAME + after) is allowed


# -- of another request's forward ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "lifetime", "directives", "enough"),
    [
        (0, 60, "", True),
        (0, 60, "max-age=0", True),
        (1, 60, "max-age=0", False),
        (5, 60, "max-age=5", True),
        (6, 60, "max-age=5", False),
        (0, 60, "min-fresh=60", True),
        (0, 59, "min-fresh=60", False),
        (0, 0, "max-stale", True),
    ],
)
def test_what_anothers_forward_brought_is_enough_where_it_is_as_young_and_fresh_as_was_asked(
    age: float, lifetime: float, directives: str, enough: bool
) -> None:
    # s.4: a cache may collapse requests where it may reuse the response for each of them
    assert is_enough(age, lifetime, asked(directives)) is enough
