"""`explain(response=...)`: why a response may be stored, shared or neither, by the very decision that requests meet."""

from __future__ import annotations

from typing import Any

import pytest

from dedup_middleware import Dedup, Rule
from dedup_middleware.core.account import ResponseAccount

SHARED = Rule.shared_cache()
DATE = "Sun, 01 Jan 2023 00:00:00 GMT"
NOW = 1_672_531_200.0
TENTH = {"last-modified": "Sat, 31 Dec 2022 00:00:00 GMT"}


def told(
    headers: dict[str, str], rule: Rule = SHARED, status: int = 200, asked: dict[str, str] | None = None
) -> ResponseAccount:
    dedup = Dedup(default=rule)
    dedup.wall = lambda: NOW
    response = dedup.explain("GET", "/x", headers=asked or {}, response=(status, headers)).response
    assert response is not None
    return response


@pytest.mark.parametrize(
    ("headers", "more", "decision", "reason", "lifetime", "because"),
    [
        ({"cache-control": "max-age=60"}, {}, "keep", None, 60, [("max-age", "RFC 9111 s.4.2.1")]),
        (
            {"cache-control": "s-maxage=9, max-age=60"},
            {},
            "keep",
            None,
            9,
            [("s-maxage", "RFC 9111 s.4.2.1")],
        ),
        (
            {"cdn-cache-control": "max-age=5", "cache-control": "max-age=60"},
            {},
            "keep",
            None,
            5,
            [("CDN-Cache-Control", "RFC 9213 s.2.2")],
        ),
        (
            {"date": DATE, "expires": "Sun, 01 Jan 2023 00:00:30 GMT"},
            {},
            "keep",
            None,
            30,
            [("Expires", "RFC 9111 s.5.3")],
        ),
        ({"date": DATE, **TENTH}, {}, "keep", None, 8640, [("a tenth", "RFC 9111 s.4.2.2")]),
        ({"etag": '"a"'}, {}, "keep", None, 0, [("to be validated", "RFC 9111 s.4.3")]),
        ({"content-type": "text/plain"}, {}, "share", None, 0, [("nothing says", "RFC 9111 s.3")]),
        ({}, {"rule": Rule(ttl=7)}, "keep", None, 7, [("the rule's ttl", "rule")]),
        (
            {},
            {"rule": Rule(ttl=7, negative_ttl=3), "status": 404},
            "keep",
            None,
            3,
            [("the rule's negative_ttl", "rule")],
        ),
        (
            {"cdn-cache-control": "public", "etag": '"a"', "cache-control": "max-age=60"},
            {},
            "keep",
            None,
            0,
            [("to be validated", "RFC 9111 s.4.3")],
        ),
        (
            {"content-length": "901"},
            {"rule": Rule(ttl=7, max_bytes=2000), "status": 404},
            "share",
            None,
            0,
            [("nothing says", "RFC 9111 s.3")],
        ),
        (
            {"content-length": "901"},
            {"rule": Rule(ttl=7, max_bytes=2000)},
            "share",
            None,
            0,
            [("longer than max_bytes", "rule")],
        ),
        (
            {"cache-control": "max-age=60, public"},
            {"asked": {"authorization": "Bearer a"}},
            "keep",
            None,
            60,
            [("for all, those without Authorization too", "RFC 9111 s.3.5")],
        ),
        (
            {"cache-control": "max-age=60", "content-range": "bytes 0-1/4"},
            {"asked": {"range": "bytes=0-1"}, "status": 206},
            "keep",
            None,
            60,
            [("a part answers what lies wholly in it", "RFC 9111 s.3.3")],
        ),
        (
            {"cache-control": "no-cache", "etag": '"a"'},
            {},
            "validate",
            "no-cache",
            0,
            [("after it was validated", "RFC 9111 s.5.2.2.4"), ("never served stale", "RFC 9111 s.4.2.4")],
        ),
        (
            {"cache-control": "max-age=0, stale-while-revalidate=9, stale-if-error=8"},
            {},
            "validate",
            "no-cache",
            0,
            [("while it is renewed", "RFC 5861 s.3"), ("instead of an error", "RFC 5861 s.4")],
        ),
        (
            {"cache-control": 'max-age=60, no-cache="x-a"', "vary": "accept, x-b"},
            {},
            "keep",
            None,
            60,
            [("told apart by accept, x-b", "RFC 9111 s.4.1"), ("gets x-a", "RFC 9111 s.5.2.2.4")],
        ),
        (
            {"cache-control": "max-age=60", "set-cookie": "a=b"},
            {},
            "keep",
            None,
            60,
            [("so is what it sets", "RFC 9111 s.7.3")],
        ),
        (
            {"last-modified": TENTH["last-modified"], "set-cookie": "a=b"},
            {},
            "pass",
            "set-cookie",
            0,
            [("sets a cookie", "RFC 9111 s.7.3")],
        ),
        ({"cache-control": "no-store"}, {}, "pass", "no-store", 0, [("no-store", "RFC 9111 s.5.2.2.5")]),
        (
            {"cache-control": "max-age=60"},
            {"asked": {"authorization": "x"}},
            "pass",
            "authorization",
            0,
            [("Authorization", "RFC 9111 s.3.5")],
        ),
        (
            {"cache-control": "max-age=60", "content-range": "bytes 0-1/4"},
            {"status": 206},
            "pass",
            "partial",
            0,
            [("did not ask for", "RFC 9110 s.15.3.7")],
        ),
        ({}, {"status": 302}, "pass", "no-freshness", 0, [("no freshness", "RFC 9111 s.3")]),
    ],
)
def test_an_account_tells_the_decision_and_the_sections_behind_it(
    headers: dict[str, str],
    more: dict[str, Any],
    decision: str,
    reason: str | None,
    lifetime: float,
    because: list[tuple[str, str]],
) -> None:
    response = told(headers, **more)

    assert (response.decision, response.reason, response.lifetime) == (decision, reason, lifetime)
    for words, section in because:
        assert any(words in why and by.startswith(section) for why, by in response.because), response.because


def test_a_request_without_a_response_has_no_account() -> None:
    assert Dedup(default=SHARED).explain("GET", "/x").response is None
