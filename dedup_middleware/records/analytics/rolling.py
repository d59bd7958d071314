"""Rolling: requests over time, from the rollup by the minute.

Law: the database adds the minutes up, to no more rows than an answer has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, desc, func, select

from .. import schema
from ..answers import Cell, Change, Heatmap, Point, Series, Trend, Trends
from ..outcomes import COLUMNS, SPARING
from .windows import DAY, MAX_LIMIT, SHAPES, Window, page, share, stride, total, whole, window, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .. import Ledger

_TABLE: Final = schema.minutes
_REQUESTS: Final[Any] = sum((_TABLE.c[name] for name in COLUMNS[1:]), _TABLE.c[COLUMNS[0]])
_DUPLICATES: Final[Any] = sum((_TABLE.c[name] for name in SPARING[1:]), _TABLE.c[SPARING[0]])


async def heatmap(
    ledger: Ledger,
    *,
    rule: str | None = None,
    since: float | None = None,
    until: float | None = None,
    offset_minutes: int = 0,
) -> Heatmap:
    """Requests and duplicates by rule, weekday (0 is Monday) and hour of the day, a week unless a window is given.

    Days and hours are UTC's, or those of a place that is `offset_minutes` ahead of it.
    """
    asked = window(since, until, 7 * DAY)
    statement = _hours(offset_minutes, ruled=rule is not None)
    return Heatmap(
        since=asked.since,
        until=asked.until,
        offset_minutes=offset_minutes,
        cells=[
            Cell(
                rule=label, weekday=weekday, hour=hour, requests=requests, duplicates=duplicates, saved=saved
            )
            for label, weekday, hour, requests, duplicates, saved in await ledger.rows(
                statement, asked.parameters(rule)
            )
        ],
    )


@lru_cache(SHAPES)
def _hours(ahead: int, *, ruled: bool) -> Any:
    local = _TABLE.c.minute + whole(60 * ahead)
    hour = ((local // whole(3600)) % whole(24)).label("hour")
    weekday = ((local // whole(86_400) + whole(3)) % whole(7)).label("weekday")  # 1970 began on a Thursday
    by = (_TABLE.c.rule, weekday, hour)
    statement = select(*by, total(_REQUESTS), total(_DUPLICATES), func.sum(_TABLE.c.saved)).group_by(*by)
    return within(statement, _TABLE, ruled=ruled).order_by(*by)


async def trend(
    ledger: Ledger, *, rule: str | None = None, since: float | None = None, until: float | None = None
) -> Trends:
    """The window against the one of the same length before it, in all and rule by rule."""
    asked = window(since, until)
    past = await _totals(ledger, Window(2 * asked.since - asked.until, asked.since), rule)
    present = await _totals(ledger, asked, rule)
    none = (0, 0, 0.0)
    return Trends(
        since=asked.since,
        until=asked.until,
        total=_trend("", _sum(present), _sum(past)),
        items=[
            _trend(label, present.get(label, none), past.get(label, none))
            for label in dict.fromkeys([*present, *past])
        ],
    )


_Total = tuple[int, int, float]
"""Requests, duplicates, seconds saved."""


async def _totals(ledger: Ledger, asked: Window, rule: str | None) -> dict[str, _Total]:
    rows = await ledger.rows(_by_rule(ruled=rule is not None), asked.parameters(rule))
    return {label: (requests, duplicates, saved) for label, requests, duplicates, saved in rows}


@lru_cache(SHAPES)
def _by_rule(*, ruled: bool) -> Any:
    rule, requests = _TABLE.c.rule, total(_REQUESTS)
    statement = select(rule, requests, total(_DUPLICATES), func.sum(_TABLE.c.saved)).group_by(rule)
    return within(statement, _TABLE, ruled=ruled).order_by(desc(requests), rule)


def _sum(totals: Mapping[str, _Total]) -> _Total:
    found = list(totals.values())
    return sum(one[0] for one in found), sum(one[1] for one in found), sum(one[2] for one in found)


def _trend(rule: str, now: _Total, before: _Total) -> Trend:
    return Trend(
        rule=rule,
        requests=_change(now[0], before[0]),
        duplicates=_change(now[1], before[1]),
        hit_rate=_change(share(now[1], now[0]), share(before[1], before[0])),
        saved=_change(now[2], before[2]),
    )


def _change(now: float, before: float) -> Change:
    return Change(now=now, before=before, change=(now - before) / before if before else None)


async def series(
    ledger: Ledger,
    *,
    rule: str | None = None,
    since: float | None = None,
    until: float | None = None,
    step: int | None = None,
    limit: int = MAX_LIMIT,
    offset: int = 0,
) -> Series:
    """Requests by outcome over time, rule by rule; a step is a number of seconds, in whole minutes."""
    asked = window(since, until)
    limit, offset = page(limit, offset)
    wide = max(60, step // 60 * 60) if step is not None else stride(asked)
    statement = _steps(wide, ruled=rule is not None, limit=limit, offset=offset)
    rows = await ledger.rows(statement, asked.parameters(rule))
    return Series(
        since=asked.since,
        until=asked.until,
        step=wide,
        offset=offset,
        limit=limit,
        more=len(rows) > limit,
        items=[
            Point(
                at=float(at * wide),
                rule=label,
                requests=dict(zip(COLUMNS, counts, strict=True)),
                duplicates=sum(counts[: len(SPARING)]),
                saved=saved,
            )
            for at, label, saved, *counts in rows[:limit]
        ],
    )


@lru_cache(SHAPES)
def _steps(wide: int, *, ruled: bool, limit: int, offset: int) -> Any:
    at, rule = (_TABLE.c.minute // whole(wide)).label("at"), _TABLE.c.rule
    counts = (total(_TABLE.c[outcome]) for outcome in COLUMNS)
    by = (at,) if ruled else (at, rule)  # a text that is always the same needs no sorting
    label = bindparam("rule", type_=rule.type) if ruled else rule
    statement = select(at, label, func.sum(_TABLE.c.saved), *counts).group_by(*by).order_by(*by)
    return within(statement, _TABLE, ruled=ruled).limit(whole(limit + 1)).offset(whole(offset))
