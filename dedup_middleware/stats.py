"""Statistics: what happened so far, as one frozen value.

Law: summed up from counts alone when somebody asks; each request counts once, and figures agree with one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .core.status import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .stores import Store
    from .telemetry import Tally


REUSED: Final = tuple(outcome for outcome in OUTCOMES if outcome not in ("forwarded", "bypassed"))
"""Outcomes that count for the hit rate: the response had been there, or was another's."""


class RuleStats(msgspec.Struct, frozen=True):
    """One rule's requests by outcome, its hit rate (0 to 1) and the seconds of forwards that did not run."""

    requests: dict[str, int]
    hit_rate: float
    saved: float


class Stats(msgspec.Struct, frozen=True):
    """What happened since the start, and what is held now.

    Calls of `dedup.call` count like requests. `duplicates` are those answered without a forward of their own, `saved`
    the seconds of the forwards that they did not need; `hit_rate` is the share (0 to 1) of these and of the revalidated
    ones in all, bypassed ones too. `bytes` and `responses` are what the store holds, `flights` those under way.
    """

    flights: int
    requests: dict[str, int]
    duplicates: int
    stored: int
    evicted: int
    expired: int
    invalidated: int
    bytes: int
    responses: int
    hit_rate: float
    saved: float
    rules: dict[str, RuleStats]


def make_stats(tallies: Iterable[Tally], flights: int, store: Store) -> Stats:
    """Sum up the tallies."""
    by_rule: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    for tally in tallies:
        if tally.number:
            requests = by_rule.setdefault(tally.label, dict.fromkeys(OUTCOMES, 0))
            requests[tally.outcome] += tally.number
            seconds[tally.label] = seconds.get(tally.label, 0.0) + tally.saved
    total: dict[str, int] = {
        outcome: sum(requests[outcome] for requests in by_rule.values()) for outcome in OUTCOMES
    }
    return Stats(
        flights=flights,
        requests=total,
        duplicates=reused(total) - total.get("revalidated", 0),
        stored=store.stored,
        evicted=store.evicted,
        expired=store.expired,
        invalidated=store.invalidated,
        bytes=store.size,
        responses=store.responses,
        hit_rate=hit_rate(total),
        saved=sum(seconds.values()),
        rules={
            label: RuleStats(requests, hit_rate(requests), seconds[label])
            for label, requests in by_rule.items()
        },
    )


def reused(requests: Mapping[str, int]) -> int:
    """How many of these requests, counted by outcome, count for the hit rate."""
    return sum(requests[outcome] for outcome in REUSED)


def hit_rate(requests: Mapping[str, int]) -> float:
    """Their share, 0 to 1."""
    number = sum(requests.values())
    return reused(requests) / number if number else 0.0
