"""Statistics: what happened so far, as one frozen value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .core.status import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .stores import Store
    from .telemetry import Tally


class RuleStats(msgspec.Struct, frozen=True):
    """One rule's requests by outcome, its hit rate (0 to 1) and the seconds of forwards that did not run."""

    requests: dict[str, int]
    hit_rate: float
    saved: float


class Stats(msgspec.Struct, frozen=True):
    """What happened since the start, and what is held now.

    Calls of `dedup.call` count like requests. `duplicates` are those answered without a forward of their own;
    `hit_rate` is their share (0 to 1) of all, bypassed ones too; `saved` the seconds of the forwards that they did not
    need. `bytes` and `responses` are what the store holds, `flights` those under way.
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
        duplicates=_answered(total),
        stored=store.stored,
        evicted=store.evicted,
        expired=store.expired,
        invalidated=store.invalidated,
        bytes=store.size,
        responses=store.responses,
        hit_rate=_hit_rate(total),
        saved=sum(seconds.values()),
        rules={
            label: RuleStats(requests, _hit_rate(requests), seconds[label])
            for label, requests in by_rule.items()
        },
    )


def _answered(requests: Mapping[str, int]) -> int:
    return requests["hit"] + requests["collapsed"]


def _hit_rate(requests: Mapping[str, int]) -> float:
    number = sum(requests.values())
    return _answered(requests) / number if number else 0.0
