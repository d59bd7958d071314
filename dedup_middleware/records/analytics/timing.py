"""Timing: how long requests took, with the middleware and without it.

Law: percentiles come from histograms that add up, and are within a tenth of the true ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from .. import histogram, schema
from ..answers import Latencies, Latency, Percentiles
from .windows import SHAPES, most_first, page, total, window, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .. import Ledger


async def latency(
    ledger: Ledger,
    *,
    rule: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 100,
    offset: int = 0,
) -> Latencies:
    """How long requests took, and how long they would have taken, each by a forward of its own.

    From histograms (within a tenth). How long hits take is known from about one a second.
    """
    asked = window(since, until)
    by_rule: dict[str, dict[str, dict[int, int]]] = {}
    every: dict[str, dict[int, int]] = {"with": {}, "without": {}}
    rows = await ledger.rows(_statement(ruled=rule is not None), asked.parameters(rule))
    for label, kind, bucket, count in rows:
        by_rule.setdefault(label, {"with": {}, "without": {}})[kind][bucket] = count
        every[kind][bucket] = every[kind].get(bucket, 0) + count
    return Latencies(
        since=asked.since,
        until=asked.until,
        total=_latency("", every),
        **most_first((_latency(label, counts) for label, counts in by_rule.items()), *page(limit, offset)),
    )


@lru_cache(SHAPES)
def _statement(*, ruled: bool) -> Any:
    table = schema.latencies
    by = (table.c.rule, table.c.kind, table.c.bucket)
    return within(select(*by, total(table.c.number)).group_by(*by), table, ruled=ruled)


def _latency(rule: str, counts: Mapping[str, Mapping[int, int]]) -> Latency:
    return Latency(
        rule=rule,
        requests=sum(counts["with"].values()),
        with_dedup=_percentiles(counts["with"]),
        without_dedup=_percentiles(counts["without"]),
    )


def _percentiles(counts: Mapping[int, int]) -> Percentiles:
    return Percentiles(*(histogram.quantile(counts, share) for share in (0.5, 0.95, 0.99)))
