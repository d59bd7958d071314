"""Levels and measures: when an alert is raised and over, and what is counted; all without a thread or an engine."""

from __future__ import annotations

from typing import Any

import pytest

from dedup_middleware import Alert
from dedup_middleware.alerts import measure
from dedup_middleware.alerts.level import Level, sentence
from dedup_middleware.alerts.measure import Fingerprints, Found, Measure, Reading, Window, requests
from dedup_middleware.inventory import UnderWay
from dedup_middleware.telemetry import Tally

pytestmark = pytest.mark.slow

Steps = list[tuple[float, float | None, str | None]]


def walk(alert: Alert, steps: Steps) -> list[tuple[float, float | None, str | None]]:
    level = Level(alert)
    return [(at, value, level.step(value, at)) for at, value, _ in steps]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        pytest.param(
            {"above": 10, "calm": 0, "repeat": 0},
            [(0, 10, None), (1, 11, "raised"), (2, 50, None), (3, 10, None), (4, 9, "over"), (5, 9, None)],
            id="above the threshold, over below a lower one",
        ),
        pytest.param(
            {"watch": "hit-rate", "below": 0.5, "calm": 0, "repeat": 0},
            [(0, 0.5, None), (1, 0.49, "raised"), (2, 0.52, None), (3, 0.6, "over")],
            id="below the threshold, over above a higher one",
        ),
        pytest.param(
            {"above": 10, "after": 5, "calm": 0, "repeat": 0},
            [(0, 11, None), (4, 11, None), (5, 11, "raised")],
            id="only after it held for a time",
        ),
        pytest.param(
            {"above": 10, "after": 5, "calm": 0, "repeat": 0},
            [(0, 11, None), (4, 10, None), (5, 11, None), (9, 11, None), (10, 11, "raised")],
            id="a dip begins the time anew",
        ),
        pytest.param(
            {"above": 10, "calm": 60, "repeat": 0},
            [
                (0, 11, "raised"),
                (30, 0, None),
                (60, 11, None),
                (90, 0, None),
                (149, 0, None),
                (150, 0, "over"),
            ],
            id="over only after it was calm for a time",
        ),
        pytest.param(
            {"above": 10, "calm": 0, "repeat": 100},
            [
                (0, 11, "raised"),
                (99, 11, None),
                (100, 10, "again"),
                (199, 11, None),
                (200, 11, "again"),
                (201, 0, "over"),
            ],
            id="told again while it is raised",
        ),
        pytest.param(
            {"watch": "hit-rate", "below": 0.5, "calm": 10, "repeat": 0},
            [(0, None, None), (1, 0.1, "raised"), (2, None, None), (12, None, "over"), (13, None, None)],
            id="nothing to measure raises nothing and ends it",
        ),
        pytest.param(
            {"watch": "store-failures", "calm": 0, "repeat": 0},
            [(0, 0, None), (1, 1, "raised"), (2, 0, "over")],
            id="the first failure",
        ),
    ],
)
def test_an_alert_is_raised_and_over(fields: dict[str, Any], steps: Steps) -> None:
    alert = Alert("x", **{"watch": "evictions", **fields})
    assert walk(alert, steps) == steps


def test_a_value_that_swings_across_both_thresholds_is_told_once() -> None:
    level = Level(Alert("x", "evictions", above=10, calm=60))
    turns = [level.step(value, at) for at in range(0, 3000, 10) for value in [20 if at // 10 % 2 else 0]]

    assert [turn for turn in turns if turn] == ["raised"]


@pytest.mark.parametrize(
    ("fields", "found", "turn", "text"),
    [
        (
            {"watch": "executions", "above": 10},
            Found(14, "git", "3f2a", 2),
            "raised",
            (
                "x: executions of one fingerprint under git within 60 s: 14, above 10, fingerprint 3f2a, "
                "and 2 more above it"
            ),
        ),
        (
            {"watch": "hit-rate", "below": 0.5, "rule": "git", "window": "5m"},
            Found(0.6249, "git"),
            "over",
            "x: hit rate under git within 300 s: 62.5%, no longer below 50.0%",
        ),
        (
            {"watch": "bypasses", "above": 100, "reason": "credential"},
            Found(120),
            "again",
            "x: bypassed requests because of credential within 60 s: 120, still above 100",
        ),
        (
            {"watch": "flight-age", "above": 30},
            Found(31.25, "git", "3f2a"),
            "raised",
            "x: the oldest flight's age under git: 31.2 s, above 30.0 s, fingerprint 3f2a",
        ),
    ],
)
def test_a_person_reads_one_sentence(fields: dict[str, Any], found: Found, turn: Any, text: str) -> None:
    assert sentence(Alert("x", **fields), found, found.value or 0.0, turn) == text


def test_a_rate_that_is_not_measured_any_more_is_not_said_to_have_left_the_threshold() -> None:
    alert = Alert("x", "hit-rate", below=0.5)

    assert (
        sentence(alert, Found(None), 0.1, "over")
        == "x: hit rate within 60 s: too few requests to tell, no longer known to be below 50.0%"
    )


# -- windows ---------------------------------------------------------------------------------------------------------


def test_a_window_knows_what_came_within_it() -> None:
    window = Window(60)
    grown = [window.grown(float(at), at, 2 * at) for at in range(0, 181, 10)]

    assert grown[:3] == [(0, 0), (10, 20), (20, 40)]
    assert grown[6:] == [(60, 120)] * 13


def test_a_window_is_bounded_however_often_it_is_asked() -> None:
    window = Window(86_400)
    grown = (0, 0)
    for at in range(200_000):
        grown = window.grown(at / 2, at, 0)

    assert len(window._samples) <= measure.SAMPLES + 2
    assert 2 * 86_400 <= grown[0] <= 2 * 86_400 * (1 + 2 / measure.SAMPLES)


def test_what_was_counted_before_the_first_look_is_not_counted() -> None:
    assert Window(60).grown(0, 1000, 2000) == (0, 0)


def test_a_count_that_begins_anew_does_not_fall_below_nothing() -> None:
    window = Window(60)
    window.grown(0, 1000, 0)

    assert [window.grown(10, 5, 0), window.grown(20, 7, 0)] == [(5, 0), (7, 0)]


def tallies(*kinds: tuple[str, str, str, int]) -> list[Tally]:
    found = []
    for outcome, reason, label, number in kinds:
        tally = Tally(outcome, reason, label, "GET")  # type: ignore[arg-type] # plain text for the closed lists
        tally.number = number
        found.append(tally)
    return found


def reading(
    at: float, *kinds: tuple[str, str, str, int], flights: list[UnderWay] | None = None, **more: int
) -> Reading:
    given = {"store_failures": 0, "ledger_failures": 0, "evicted": 0, **more}
    return Reading(at, requests(tallies(*kinds)), flights=flights or [], **given)


MIXED = (
    ("hit", "fresh", "git", 30),
    ("hit", "not-modified", "git", 10),
    ("collapsed", "in-flight", "git", 20),
    ("forwarded", "miss", "git", 20),
    ("bypassed", "credential", "git", 20),
    ("bypassed", "credential", "chat", 5),
    ("bypassed", "off", "chat", 95),
)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"watch": "hit-rate", "below": 0.5}, 0.3),
        ({"watch": "hit-rate", "below": 0.5, "rule": "git"}, 0.6),
        ({"watch": "hit-rate", "below": 0.5, "rule": "chat"}, 0.0),
        ({"watch": "hit-rate", "below": 0.5, "rule": "nothing"}, None),
        ({"watch": "hit-rate", "below": 0.5, "minimum": 201}, None),
        ({"watch": "collapse-ratio", "below": 0.5}, 0.1),
        ({"watch": "collapse-ratio", "above": 0.5, "rule": "git"}, 0.2),
        ({"watch": "bypasses", "above": 1, "reason": "credential"}, 25),
        ({"watch": "bypasses", "above": 1, "reason": "credential", "rule": "git"}, 20),
        ({"watch": "bypasses", "above": 1, "reason": "off", "rule": "git"}, 0),
        ({"watch": "store-failures"}, 3),
        ({"watch": "ledger-failures"}, 4),
        ({"watch": "evictions", "above": 1}, 5),
    ],
)
def test_each_kind_measures_what_its_name_says(fields: dict[str, Any], value: float | None) -> None:
    one = Measure(Alert("x", **fields))
    one.take(reading(0))

    found = one.take(reading(30, *MIXED, store_failures=3, ledger_failures=4, evicted=5)).value
    assert found == (value if value is None else pytest.approx(value))


# -- fingerprints ----------------------------------------------------------------------------------------------------


def test_the_fingerprint_with_most_executions_is_found() -> None:
    alert = Alert("x", "executions", above=2, window=60)
    table = Fingerprints(60)
    for key, number in (("a", 2), ("b", 5), ("c", 3), ("d", 1)):
        for _ in range(number):
            table.add("git", key, 0)
    table.add("chat", "b", 0)

    assert table.most(alert, 1) == Found(5, "git", "b", 1)
    assert table.most(Alert("x", "executions", above=2, rule="chat"), 1) == Found(1, "chat", "b", 0)
    assert table.most(Alert("x", "executions", above=2, rule="none"), 1) == Found(0)


def test_what_ran_before_the_window_is_forgotten() -> None:
    alert = Alert("x", "executions", above=2, window=60)
    table = Fingerprints(60)
    for at in range(0, 120, 10):
        table.add("git", "a", at)

    assert table.most(alert, 110).value == 6
    assert table.most(alert, 150).value == 2
    assert table.most(alert, 170) == Found(0)
    assert not table._totals
    assert not table._slices


def test_ten_thousand_others_do_not_hide_one_that_runs_again_and_again() -> None:
    alert = Alert("x", "executions", above=20, window=60)
    table = Fingerprints(60)
    for number in range(5 * measure.MAX_FINGERPRINTS):
        table.add("git", f"other {number}", number / 1000)
        if number % 500 == 0:
            table.add("git", "again", number / 1000)
        assert len(table._totals) <= measure.MAX_FINGERPRINTS
    held = sum(len(counted) for _, counted in table._slices)

    assert table.most(alert, 50) == Found(100, "git", "again", 0)
    assert held <= measure.MAX_FINGERPRINTS + 12
    assert table.most(alert, 200) == Found(0)


# -- flights ---------------------------------------------------------------------------------------------------------


def flight(rule: str, seconds: float, *, landed: bool = False) -> UnderWay:
    return UnderWay(1, rule, f"key of {rule}", seconds, 1, 0, 0, landed, True, None, ())


def test_the_oldest_flight_that_has_not_landed_counts() -> None:
    flights = [flight("git", 40), flight("chat", 35), flight("ide", 90, landed=True)]

    def oldest(**fields: Any) -> Found:
        return Measure(Alert("x", "flight-age", above=30, **fields)).take(reading(0, flights=flights))

    assert oldest() == Found(40, "git", "key of git", 1)
    assert oldest(rule="chat") == Found(35, "chat", "key of chat", 0)
    assert oldest(rule="ide") == Found(0)
