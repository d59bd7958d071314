"""What a soak has to show: no wrong answer, memory that stays, and nothing left when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

import msgspec

MIB = 1024 * 1024
GROWTH = 4 * MIB
"""What resident memory may still gain after the first quarter, beyond what the bare app's gains."""
SHORT = 120.0
"""Seconds below which memory is still filling, and growth says nothing."""


class Sample(msgspec.Struct, frozen=True):
    """One moment: what the server's process holds, and what its engine holds."""

    at: float
    process: dict[str, Any]
    engine: dict[str, Any]
    bare: dict[str, Any]
    """The process of the bare app."""


def faults(before: Sample, samples: Sequence[Sample], after: Sample, emptied: Mapping[str, Any]) -> list[str]:
    """Every leftover and every growth, one sentence each."""
    return [*_growth(samples), *_leftovers(before, after), *_not_emptied(emptied)]


def growth_of(samples: Sequence[Sample], which: Literal["process", "bare"] = "process") -> int | None:
    """Resident bytes gained since the second quarter, a median each; None where that can't be said."""
    known = [getattr(sample, which)["resident"] for sample in samples]
    if not samples or samples[-1].at < SHORT or None in known:
        return None
    quarter = len(known) // 4
    return int(median(known[-quarter:]) - median(known[quarter : 2 * quarter]))


def _growth(samples: Sequence[Sample]) -> list[str]:
    growth, bare = growth_of(samples), growth_of(samples, "bare")
    if growth is None or bare is None or growth - max(0, bare) <= GROWTH:
        return []
    return [
        f"resident memory grew by {growth / MIB:.1f} MiB after the first quarter, the bare app's by {bare / MIB:.1f}"
    ]


def _leftovers(before: Sample, after: Sample) -> list[str]:
    found = [
        f"{after.process[name]} {name} at the end, {before.process[name]} at the start"
        for name in ("tasks", "files", "sockets")
        if before.process[name] is not None and after.process[name] > before.process[name]
    ]
    found += [
        f"{name.replace('_', ' ')} at the end: {after.engine[name]}"
        for name in ("flights", "listed", "buffered")
        if after.engine[name]
    ]
    return found


def _not_emptied(emptied: Mapping[str, Any]) -> list[str]:
    return [
        f"{emptied[name]} {name} held after everything was dropped"
        for name in ("bytes", "responses")
        if emptied[name]
    ]


def render_latencies(bare: Mapping[str, Any], with_: Mapping[str, Any]) -> str:
    """A table: each kind of request and outcome beside the same kind on the bare app."""
    titles = f"{'number':>9} {'p50':>8} {'p99':>8} {'bare p50':>9} {'bare p99':>9}"
    lines = [f"{'milliseconds, as the clients saw them':<38} {titles}"]
    for name, figures in with_.items():
        reference = bare.get(f"{name.partition(', ')[0]}, bypassed", {"p50": 0.0, "p99": 0.0})
        lines.append(
            f"/{name:<37} {figures['number']:>9,} {figures['p50']:>8.2f} {figures['p99']:>8.2f}"
            f" {reference['p50']:>9.2f} {reference['p99']:>9.2f}"
        )
    return "\n".join(lines)
