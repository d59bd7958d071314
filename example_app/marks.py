"""What the comparison has to reach. A mark that is missed makes `--once` exit with 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from .measure import Comparison


class Mark(msgspec.Struct, frozen=True):
    name: str
    wanted: str
    measured: str
    met: bool


def judge(comparison: Comparison) -> list[Mark]:
    with_ = comparison.with_
    slowest_gain = min(comparison.faster.items(), key=lambda item: item[1])
    hits = with_.hits.p95 if with_.hits else math.nan
    marks = [
        Mark(
            "duplicates removed in one burst",
            "at least 90 %",
            percent(comparison.duplicates_removed),
            comparison.duplicates_removed >= 0.9,
        ),
        Mark(
            "duplicate executions among identical concurrent requests",
            "none",
            str(with_.burst.duplicates),
            with_.burst.duplicates == 0,
        ),
        Mark(
            "hit rate over the refreshes",
            "over 80 %",
            percent(with_.refreshes.hit_rate),
            with_.refreshes.hit_rate > 0.8,
        ),
        Mark(
            "hit rate of the chat history",
            "over 90 %",
            percent(with_.refreshes.hit_rates["chat"]),
            with_.refreshes.hit_rates["chat"] > 0.9,
        ),
        Mark(
            "every operation's p50 is faster",
            "at least 50 %",
            f"{percent(slowest_gain[1])} ({slowest_gain[0]})",
            slowest_gain[1] >= 0.5,
        ),
        Mark("a hit's p95", "under 10 ms", f"{hits:.2f} ms", hits < 10),
        _memory(with_.resident),
        _stale(comparison),
        _failed(comparison),
    ]
    if comparison.wait_for_ready:
        marks.append(
            Mark("a chat miss", "within 200 ms", f"{with_.chat_miss:.0f} ms", with_.chat_miss <= 200)
        )
    return marks


def percent(part: float) -> str:
    return f"{part * 100:.1f} %"


def _memory(resident: int | None) -> Mark:
    if resident is None:
        return Mark("resident memory", "under 200 MB", "this system doesn't say", met=True)
    return Mark("resident memory", "under 200 MB", f"{resident / 1e6:.0f} MB", resident < 200e6)


def _stale(comparison: Comparison) -> Mark:
    writes = comparison.with_.writes
    if writes is None:
        return Mark("stale answers after a write, under load", "none", "not checked", met=False)
    checked = sum(writes.reads.values())
    told = f"{writes.stale} in {checked} reads after {sum(writes.writes.values())} writes"
    proven = all(writes.reads.values()) and all(writes.writes.values())
    return Mark("stale answers after a write, under load", "none", told, writes.stale == 0 and proven)


def _failed(comparison: Comparison) -> Mark:
    loads = [load for side in (comparison.without, comparison.with_) for load in (side.burst, side.refreshes)]
    writes = comparison.with_.writes
    failed = sum(load.failed for load in loads) + (writes.failed if writes else 0)
    return Mark("requests that failed", "none", str(failed), failed == 0)
