"""Analytics: what the ledger says, compared with figures added up by hand, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dedup_middleware.records import analytics, histogram, open_ledger
from dedup_middleware.records.analytics import windows
from dedup_middleware.records.gathering import Gathering
from dedup_middleware.records.sql import SqlLedger

from .records_kit import MINUTE, NOW, chunk, collapsed, completed

pytestmark = pytest.mark.slow

HOUR = 3600
DAY = 86_400


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    """Two rules over two days, to be counted by hand."""
    opened = open_ledger(ledger_url)
    gathering = Gathering()
    gathering.requests("a", MINUTE, "hit", "fresh", 60, 30.0)
    gathering.requests("a", MINUTE, "collapsed", "in-flight", 20, 10.0)
    gathering.requests("a", MINUTE + 60, "forwarded", "miss", 15, 0.0)
    gathering.requests("a", MINUTE + 60, "forwarded", "set-cookie", 5, 0.0)
    gathering.requests("b", MINUTE + HOUR, "bypassed", "method", 25, 0.0)
    gathering.requests("b", MINUTE + HOUR, "hit", "fresh", 25, 5.0)
    gathering.requests("a", MINUTE - DAY, "hit", "fresh", 40, 20.0)
    gathering.requests("a", MINUTE - DAY, "forwarded", "miss", 40, 0.0)
    for number in range(5):
        for _ in range(number + 1):
            gathering.completed(
                completed(f"k{number}", rule="ab"[number % 2], at=NOW + 60 * number, flight=number)
            )
        for _ in range(10 * number):
            gathering.collapsed(
                collapsed(f"k{number}", rule="ab"[number % 2], at=NOW + 60 * number, flight=number)
            )
    gathering.memory(MINUTE, size=1000, responses=10, evicted=2, expired=1, invalidated=3)
    gathering.memory(MINUTE + 60, size=4000, responses=5, evicted=1)
    for one in gathering.take("w", 1, NOW):
        await opened.write(one)
    yield opened
    await opened.aclose()


SPAN: dict[str, Any] = {"since": NOW, "until": NOW + DAY}


async def test_the_most_duplicated_operations_come_first_page_by_page(ledger: SqlLedger) -> None:
    first = await analytics.operations(ledger, limit=2)
    second = await analytics.operations(ledger, limit=2, offset=2)

    assert [(one.key, one.duplicates, one.executions) for one in first.items] == [
        ("k4", 40, 5),
        ("k3", 30, 4),
    ]
    assert [one.key for one in second.items] == ["k2", "k1"]
    assert (first.more, second.more) == (True, False)
    top = first.items[0]
    assert (top.rule, top.average, top.saved, top.bytes_saved) == ("a", 0.25, 10.0, 4000)
    assert top.hit_rate == 40 / 45


async def test_what_runs_again_and_again_is_found_too(ledger: SqlLedger) -> None:
    found = await analytics.operations(ledger, order="executions", rule="a")

    assert [(one.key, one.executions) for one in found.items] == [("k4", 5), ("k2", 3)]


async def test_a_window_chooses_the_operations_that_were_seen_in_it(ledger: SqlLedger) -> None:
    assert len((await analytics.operations(ledger, since=NOW, until=NOW + 1)).items) == 4
    assert (await analytics.operations(ledger, since=NOW + 1)).items == []
    assert (await analytics.operations(ledger, until=NOW)).items == []


async def test_rates_are_shares_of_all_requests_with_their_reasons(ledger: SqlLedger) -> None:
    rates = await analytics.rates(ledger, **SPAN)

    a, b = rates.items
    assert (a.rule, a.requests, a.duplicates, a.saved) == ("a", 100, 80, 40.0)
    assert (a.hit_rate, a.collapse_rate, a.bypass_rate) == (0.8, 0.2, 0.0)
    assert a.outcomes == {
        "hit": 60,
        "stale": 0,
        "revalidated": 0,
        "collapsed": 20,
        "forwarded": 20,
        "bypassed": 0,
    }
    assert [(one.outcome, one.reason, one.requests, one.share) for one in a.reasons] == [
        ("hit", "fresh", 60, 0.6),
        ("collapsed", "in-flight", 20, 0.2),
        ("forwarded", "miss", 15, 0.15),
        ("forwarded", "set-cookie", 5, 0.05),
    ]
    assert (b.hit_rate, b.bypass_rate) == (0.5, 0.5)
    assert (rates.total.rule, rates.total.requests, rates.total.duplicates) == ("", 150, 105)
    assert (rates.total.reasons[0].reason, rates.total.reasons[0].requests) == ("fresh", 85)


async def test_what_is_stale_or_confirmed_by_the_app_counts_as_a_duplicate_wherever_rates_are(
    ledger: SqlLedger,
) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.requests("c", MINUTE, "stale", "stale-while-revalidate", 30, 3.0)
        gathering.requests("c", MINUTE, "revalidated", "stale", 20, 1.0)
        gathering.requests("c", MINUTE, "forwarded", "stale", 50, 0.0)

    await ledger.write(chunk(fill, number=2))

    (rates,) = (await analytics.rates(ledger, rule="c", **SPAN)).items
    assert (rates.requests, rates.duplicates, rates.hit_rate, rates.collapse_rate) == (100, 50, 0.5, 0.0)
    assert (rates.outcomes["stale"], rates.outcomes["revalidated"]) == (30, 20)
    (trend,) = (await analytics.trend(ledger, rule="c", **SPAN)).items
    assert (trend.requests.now, trend.duplicates.now, trend.hit_rate.now) == (100, 50, 0.5)
    (point,) = (await analytics.series(ledger, rule="c", **SPAN)).items
    assert (point.rule, point.duplicates, sum(point.requests.values())) == ("c", 50, 100)
    (cell,) = (await analytics.heatmap(ledger, rule="c", **SPAN)).cells
    assert (cell.requests, cell.duplicates, cell.saved) == (100, 50, 4.0)


async def test_an_operation_counts_since_it_was_first_seen_whichever_window_asks(ledger: SqlLedger) -> None:
    later = chunk(lambda gathering: gathering.hits("a", "k4", 7, 70), number=2, at=NOW + DAY)
    await ledger.write(later)

    (one,) = (await analytics.operations(ledger, since=NOW + HOUR)).items

    assert (one.key, one.hits, one.duplicates) == ("k4", 7, 47)
    assert (one.since, one.last) == (NOW + 240 - 0.25, NOW + DAY)


async def test_rates_of_one_rule_and_page_by_page(ledger: SqlLedger) -> None:
    only = await analytics.rates(ledger, rule="b", **SPAN)
    page = await analytics.rates(ledger, limit=1, offset=1, **SPAN)

    assert [one.rule for one in only.items] == ["b"]
    assert ([one.rule for one in page.items], page.more, page.total.requests) == (["b"], False, 150)


async def test_latency_with_and_without_is_within_a_tenth(ledger: SqlLedger) -> None:
    found = await analytics.latency(ledger, **SPAN)

    assert found.total.requests == 15 + 100
    assert found.total.with_dedup.p50 == pytest.approx(0.2, rel=0.1)
    assert found.total.with_dedup.p95 == pytest.approx(0.25, rel=0.1)
    assert found.total.without_dedup.p50 == pytest.approx(0.25, rel=0.1)
    assert [one.rule for one in found.items] == ["a", "b"]


async def test_the_heatmap_knows_weekdays_and_hours(ledger: SqlLedger) -> None:
    """NOW is a Friday, 08:00 UTC."""
    found = await analytics.heatmap(ledger, since=NOW - 2 * DAY, until=NOW + DAY)

    assert [(one.rule, one.weekday, one.hour, one.requests, one.duplicates) for one in found.cells] == [
        ("a", 3, 8, 80, 40),
        ("a", 4, 8, 100, 80),
        ("b", 4, 9, 50, 25),
    ]


@pytest.mark.parametrize(("ahead", "weekday", "hour"), [(16 * 60, 5, 0), (-9 * 60, 3, 23), (330, 4, 13)])
async def test_the_heatmap_in_another_place_s_time(
    ledger: SqlLedger, ahead: int, weekday: int, hour: int
) -> None:
    found = await analytics.heatmap(ledger, rule="a", offset_minutes=ahead, **SPAN)

    assert [(one.weekday, one.hour, one.requests) for one in found.cells] == [(weekday, hour, 100)]


async def test_a_window_that_ends_now_holds_the_minute_that_has_just_begun(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "time", SimpleNamespace(time=lambda: MINUTE + 60.4))
    found = await analytics.rates(ledger)

    assert found.total.requests == 100


async def test_the_trend_compares_with_the_window_before(ledger: SqlLedger) -> None:
    found = await analytics.trend(ledger, **SPAN)

    a, b = found.items
    assert (a.rule, a.requests.now, a.requests.before, a.requests.change) == ("a", 100, 80, 0.25)
    assert (a.hit_rate.now, a.hit_rate.before) == (0.8, 0.5)
    assert (b.rule, b.requests.before, b.requests.change) == ("b", 0, None)
    assert found.total.saved.change == pytest.approx(1.25)


async def test_a_series_has_requests_by_outcome_in_steps(ledger: SqlLedger) -> None:
    minutes = await analytics.series(ledger, rule="a", since=NOW, until=NOW + HOUR)
    hours = await analytics.series(ledger, step=HOUR, **SPAN)

    assert minutes.step == 60
    assert [(one.at, sum(one.requests.values()), one.duplicates, one.saved) for one in minutes.items] == [
        (NOW, 80, 80, 40.0),
        (NOW + 60, 20, 0, 0.0),
    ]
    assert hours.step == HOUR
    assert [(one.at, one.rule, one.requests["hit"]) for one in hours.items] == [
        (NOW, "a", 60),
        (NOW + HOUR, "b", 25),
    ]


@pytest.mark.parametrize(("length", "step"), [(HOUR, 60), (DAY, 900), (7 * DAY, HOUR), (365 * DAY, DAY)])
async def test_a_series_chooses_a_step_that_a_page_can_draw(
    ledger: SqlLedger, length: int, step: int
) -> None:
    assert (await analytics.series(ledger, since=NOW - length, until=NOW)).step == step


async def test_memory_over_time(ledger: SqlLedger) -> None:
    found = await analytics.memory(ledger, **SPAN)

    (point,) = found.items
    assert msgspec.structs.astuple(point) == (NOW, 4000, 10, 3, 1, 3)


Question = Callable[..., Awaitable[Any]]
QUESTIONS: list[Question] = [
    analytics.operations,
    analytics.rates,
    analytics.latency,
    analytics.heatmap,
    analytics.trend,
    analytics.series,
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: one.__name__)
async def test_an_answer_is_plain_json_and_an_unknown_rule_an_empty_one(
    ledger: SqlLedger, question: Question
) -> None:
    answer = await question(ledger, rule="'; --")
    some = await question(ledger)

    assert not getattr(answer, "items", None)
    assert not getattr(answer, "cells", None)
    assert msgspec.json.decode(msgspec.json.encode(some), type=type(some)) == some


@pytest.mark.parametrize("seconds", [1e-7, 1e-6, 5e-5, 0.001, 0.0123, 0.5, 1.0, 29.9, 3000.0])
def test_a_bucket_s_middle_is_within_a_tenth(seconds: float) -> None:
    assert histogram.middle(histogram.bucket(seconds)) == pytest.approx(max(seconds, 1e-6), rel=0.1)


def test_buckets_end_somewhere() -> None:
    assert histogram.bucket(-1.0) == histogram.bucket(0.0) == 0
    assert histogram.bucket(1e9) == histogram.bucket(math.inf) == histogram.LAST


def test_quantiles_of_counts() -> None:
    counts = {10: 50, 20: 45, 30: 4, 40: 1}

    assert [histogram.quantile(counts, share) for share in (0.5, 0.95, 0.99, 1.0)] == [
        histogram.middle(number) for number in (10, 20, 30, 40)
    ]
    assert histogram.quantile({}, 0.5) is None
