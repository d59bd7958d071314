"""Rating: how requests were answered, and why.

Law: every request is counted once, under one outcome and one reason; rates are shares of all of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from .. import schema
from ..answers import Rates, Reason, RuleRates
from ..outcomes import COLUMNS, SPARING
from .windows import SHAPES, most_first, page, share, total, window, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .. import Ledger

_Counted = tuple[str, str, int, float]
"""Outcome, reason, requests, seconds saved."""


async def rates(
    ledger: Ledger,
    *,
    rule: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 100,
    offset: int = 0,
) -> Rates:
    """How requests were answered, rule by rule (those with the most requests first), with the reasons."""
    asked = window(since, until)
    by_rule: dict[str, list[_Counted]] = {}
    for label, *counted in await ledger.rows(_statement(ruled=rule is not None), asked.parameters(rule)):
        by_rule.setdefault(label, []).append((counted[0], counted[1], counted[2], counted[3]))
    return Rates(
        since=asked.since,
        until=asked.until,
        total=_rates("", _added(by_rule.values())),
        **most_first((_rates(label, rows) for label, rows in by_rule.items()), *page(limit, offset)),
    )


@lru_cache(SHAPES)
def _statement(*, ruled: bool) -> Any:
    table = schema.reasons
    by = (table.c.rule, table.c.outcome, table.c.reason)
    statement = select(*by, total(table.c.number), func.sum(table.c.saved)).group_by(*by)
    return within(statement, table, ruled=ruled)


def _added(rows: Iterable[Iterable[_Counted]]) -> list[_Counted]:
    sums: dict[tuple[str, str], tuple[int, float]] = {}
    for one in rows:
        for outcome, reason, number, saved in one:
            before = sums.get((outcome, reason), (0, 0.0))
            sums[outcome, reason] = (before[0] + number, before[1] + saved)
    return [(*key, *added) for key, added in sums.items()]


def _rates(rule: str, rows: Sequence[_Counted]) -> RuleRates:
    number = dict.fromkeys(COLUMNS, 0)
    for outcome, _, count, _ in rows:
        number[outcome] = number.get(outcome, 0) + count  # another version may know more of them
    requests = sum(number.values())
    duplicates = sum(number[outcome] for outcome in SPARING)
    return RuleRates(
        rule=rule,
        requests=requests,
        outcomes=number,
        duplicates=duplicates,
        hit_rate=share(duplicates, requests),
        collapse_rate=share(number["collapsed"], requests),
        bypass_rate=share(number["bypassed"], requests),
        saved=sum(row[3] for row in rows),
        reasons=[
            Reason(outcome=outcome, reason=reason, requests=count, share=share(count, requests), saved=saved)
            for outcome, reason, count, saved in sorted(rows, key=lambda row: (-row[2], row[0], row[1]))
        ],
    )
