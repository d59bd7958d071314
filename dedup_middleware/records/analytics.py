"""Analytics: what the ledger says about a window of time, as plain functions over it.

Law: each answer is one or two statements over indexed tables, bounded in rows; times are seconds since the epoch, a
window runs from `since` (included; a day before `until`) to `until` (not included; now).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Integer, Select, desc, func, literal_column, select

from ..core.status import OUTCOMES
from . import histogram, schema
from .answers import (
    Audit,
    AuditPage,
    Cell,
    Change,
    Heatmap,
    Latencies,
    Latency,
    Memory,
    MemoryPoint,
    Operation,
    Operations,
    Percentiles,
    Point,
    Rates,
    Reason,
    RuleRates,
    Series,
    Trend,
    Trends,
    Window,
)
from .reading import execution_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from . import Execution, Ledger

DAY: Final = 86_400.0
MAX_LIMIT: Final = 20_000
POINTS: Final = 200
"""So many points a rule a series has at most, unless a step is asked for."""
_STEPS: Final = (60, 300, 900, 3600, 6 * 3600, 86_400)

Order = Literal["duplicates", "executions"]


async def find(ledger: Ledger, fingerprint: str, *, rule: str | None = None) -> list[Execution]:
    """The records of one fingerprint (32 hex digits), under one rule or any."""
    table = schema.executions
    statement = select(table).where(table.c.fingerprint == fingerprint)
    return [
        execution_of(row) for row in await ledger.rows(_under(statement, table, rule).order_by(table.c.rule))
    ]


async def operations(
    ledger: Ledger,
    *,
    rule: str | None = None,
    since: float | None = None,
    until: float | None = None,
    order: Order = "duplicates",
    limit: int = 20,
    offset: int = 0,
) -> Operations:
    """What was asked for most often without a forward of its own (or, by `executions`, was executed most often).

    The window chooses the operations that were last seen in it, all there are without one; their counts are those
    since they were first seen.
    """
    limit, offset = _page(limit, offset)
    table = schema.executions
    column, some = (
        (table.c.duplicates, schema.DUPLICATED)
        if order == "duplicates"
        else (table.c.execution_count, schema.REPEATED)
    )
    statement = _under(select(table).where(some), table, rule)
    if since is not None:
        statement = statement.where(table.c.updated_at >= since)
    if until is not None:
        statement = statement.where(table.c.updated_at < until)
    rows = await ledger.rows(statement.order_by(desc(column)).limit(limit + 1).offset(offset))
    found = [_operation(execution_of(row)) for row in rows[:limit]]
    return Operations(offset=offset, limit=limit, more=len(rows) > limit, items=found)


def _operation(one: Execution) -> Operation:
    return Operation(
        rule=one.rule,
        key=one.fingerprint,
        method=one.method,
        route=one.route,
        tags=one.tags,
        executions=one.execution_count,
        collapsed=one.collapsed,
        hits=one.cache_hits,
        duplicates=one.duplicates,
        errors=one.errors,
        total=one.total_duration,
        average=one.average_duration,
        hit_rate=one.hit_rate,
        saved=one.saved,
        bytes_saved=one.bytes_saved,
        first=one.first_execution if one.first_execution is not None else one.created_at,
        last=max(one.last_execution or 0.0, one.updated_at),
        trace_id=one.last_trace_id,
    )


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
    window = _window(since, until)
    limit, offset = _page(limit, offset)
    table = schema.reasons
    statement = select(
        table.c.rule, table.c.outcome, table.c.reason, func.sum(table.c.number), func.sum(table.c.saved)
    ).group_by(table.c.rule, table.c.outcome, table.c.reason)
    by_rule: dict[str, list[tuple[str, str, int, float]]] = {}
    for label, outcome, reason, number, saved in await ledger.rows(_within(statement, table, window, rule)):
        by_rule.setdefault(label, []).append((outcome, reason, int(number), float(saved)))
    found = sorted(
        (_rates(label, rows) for label, rows in by_rule.items()), key=lambda one: (-one.requests, one.rule)
    )
    every = _rates("", _added(by_rule.values()))
    return Rates(
        since=window.since,
        until=window.until,
        offset=offset,
        limit=limit,
        more=len(found) > offset + limit,
        total=every,
        items=found[offset : offset + limit],
    )


def _added(rows: Iterable[Iterable[tuple[str, str, int, float]]]) -> list[tuple[str, str, int, float]]:
    total: dict[tuple[str, str], tuple[int, float]] = {}
    for one in rows:
        for outcome, reason, number, saved in one:
            before = total.get((outcome, reason), (0, 0.0))
            total[outcome, reason] = (before[0] + number, before[1] + saved)
    return [(*key, *sums) for key, sums in total.items()]


def _rates(rule: str, rows: Sequence[tuple[str, str, int, float]]) -> RuleRates:
    number = dict.fromkeys(map(str, OUTCOMES), 0)
    for outcome, _, count, _ in rows:
        number[outcome] = number.get(outcome, 0) + count  # another version may know more of them
    requests = sum(number.values())
    return RuleRates(
        rule=rule,
        requests=requests,
        outcomes=number,
        duplicates=number["hit"] + number["collapsed"],
        hit_rate=_share(number["hit"] + number["collapsed"], requests),
        collapse_rate=_share(number["collapsed"], requests),
        bypass_rate=_share(number["bypassed"], requests),
        saved=sum(row[3] for row in rows),
        reasons=[
            Reason(outcome=outcome, reason=reason, requests=count, share=_share(count, requests), saved=saved)
            for outcome, reason, count, saved in sorted(rows, key=lambda row: (-row[2], row[0], row[1]))
        ],
    )


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
    window = _window(since, until)
    limit, offset = _page(limit, offset)
    table = schema.latencies
    statement = select(table.c.rule, table.c.kind, table.c.bucket, func.sum(table.c.number)).group_by(
        table.c.rule, table.c.kind, table.c.bucket
    )
    by_rule: dict[str, dict[str, dict[int, int]]] = {}
    total: dict[str, dict[int, int]] = {"with": {}, "without": {}}
    for label, kind, number, count in await ledger.rows(_within(statement, table, window, rule)):
        counts = by_rule.setdefault(label, {"with": {}, "without": {}})
        counts[kind][number] = int(count)
        total[kind][number] = total[kind].get(number, 0) + int(count)
    found = sorted(
        (_latency(label, counts) for label, counts in by_rule.items()),
        key=lambda one: (-one.requests, one.rule),
    )
    return Latencies(
        since=window.since,
        until=window.until,
        offset=offset,
        limit=limit,
        more=len(found) > offset + limit,
        total=_latency("", total),
        items=found[offset : offset + limit],
    )


def _latency(rule: str, counts: Mapping[str, Mapping[int, int]]) -> Latency:
    return Latency(
        rule=rule,
        requests=sum(counts["with"].values()),
        with_dedup=_percentiles(counts["with"]),
        without_dedup=_percentiles(counts["without"]),
    )


def _percentiles(counts: Mapping[int, int]) -> Percentiles:
    return Percentiles(*(histogram.quantile(counts, share) for share in (0.5, 0.95, 0.99)))


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
    window = _window(since, until, 7 * DAY)
    table = schema.minutes
    local = table.c.minute + _whole(60 * int(offset_minutes))
    hour = ((local // _whole(3600)) % _whole(24)).label("hour")
    weekday = ((local // _whole(86_400) + _whole(3)) % _whole(7)).label("weekday")  # 1970 began on a Thursday
    statement = select(
        table.c.rule, weekday, hour, func.sum(_requests()), func.sum(_duplicates()), func.sum(table.c.saved)
    ).group_by(table.c.rule, weekday, hour)
    rows = await ledger.rows(_within(statement, table, window, rule).order_by(table.c.rule, weekday, hour))
    return Heatmap(
        since=window.since,
        until=window.until,
        offset_minutes=offset_minutes,
        cells=[
            Cell(
                rule=label,
                weekday=day,
                hour=at,
                requests=int(number),
                duplicates=int(duplicates),
                saved=float(saved),
            )
            for label, day, at, number, duplicates, saved in rows
        ],
    )


async def trend(
    ledger: Ledger, *, rule: str | None = None, since: float | None = None, until: float | None = None
) -> Trends:
    """The window against the one of the same length before it, in all and rule by rule."""
    window = _window(since, until)
    past = await _totals(ledger, Window(2 * window.since - window.until, window.since), rule)
    present = await _totals(ledger, window, rule)
    none = (0, 0, 0.0)
    return Trends(
        since=window.since,
        until=window.until,
        total=_trend("", _sum(present), _sum(past)),
        items=[
            _trend(label, present.get(label, none), past.get(label, none))
            for label in dict.fromkeys([*present, *past])
        ],
    )


_Total = tuple[int, int, float]
"""Requests, duplicates, seconds saved."""


async def _totals(ledger: Ledger, window: Window, rule: str | None) -> dict[str, _Total]:
    table = schema.minutes
    number = func.sum(_requests())
    statement = select(table.c.rule, number, func.sum(_duplicates()), func.sum(table.c.saved)).group_by(
        table.c.rule
    )
    rows = await ledger.rows(_within(statement, table, window, rule).order_by(desc(number), table.c.rule))
    return {
        label: (int(requests), int(duplicates), float(saved)) for label, requests, duplicates, saved in rows
    }


def _sum(totals: Mapping[str, _Total]) -> _Total:
    found = list(totals.values())
    return sum(one[0] for one in found), sum(one[1] for one in found), sum(one[2] for one in found)


def _trend(rule: str, now: _Total, before: _Total) -> Trend:
    return Trend(
        rule=rule,
        requests=_change(now[0], before[0]),
        duplicates=_change(now[1], before[1]),
        hit_rate=_change(_share(now[1], now[0]), _share(before[1], before[0])),
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
    window = _window(since, until)
    limit, offset = _page(limit, offset)
    wide = max(60, step // 60 * 60) if step is not None else _step(window)
    table = schema.minutes
    at = (table.c.minute // _whole(wide)).label("at")
    counts = [func.sum(table.c[outcome]) for outcome in schema.OUTCOMES]
    statement = select(at, table.c.rule, func.sum(table.c.saved), *counts).group_by(at, table.c.rule)
    page = _within(statement, table, window, rule).order_by(at, table.c.rule).limit(limit + 1).offset(offset)
    rows = await ledger.rows(page)
    return Series(
        since=window.since,
        until=window.until,
        step=wide,
        offset=offset,
        limit=limit,
        more=len(rows) > limit,
        items=[
            Point(
                at=float(int(when) * wide),
                rule=label,
                requests=dict(zip(schema.OUTCOMES, map(int, numbers), strict=True)),
                duplicates=int(numbers[0] + numbers[1]),
                saved=float(saved),
            )
            for when, label, saved, *numbers in rows[:limit]
        ],
    )


async def memory(ledger: Ledger, *, since: float | None = None, until: float | None = None) -> Memory:
    """What stores held (the largest of the processes, at most in a step), and what left them, over time."""
    window = _window(since, until)
    wide = _step(window)
    table = schema.memory
    at = (table.c.minute // _whole(wide)).label("at")
    columns = [
        func.max(table.c.bytes),
        func.max(table.c.responses),
        *(func.sum(table.c[name]) for name in ("evicted", "expired", "invalidated")),
    ]
    statement = _within(select(at, *columns).group_by(at), table, window, None)
    return Memory(
        since=window.since,
        until=window.until,
        step=wide,
        items=[
            MemoryPoint(float(int(row[0]) * wide), *(int(number) for number in row[1:]))
            for row in await ledger.rows(statement.order_by(at))
        ],
    )


async def audits(ledger: Ledger, *, limit: int = 100, offset: int = 0) -> AuditPage:
    """The audit log, the youngest first."""
    limit, offset = _page(limit, offset)
    table = schema.audit
    total = (await ledger.rows(select(func.count()).select_from(table)))[0][0]
    columns = [table.c[name] for name in Audit.__struct_fields__]
    rows = await ledger.rows(select(*columns).order_by(desc(table.c.id)).limit(limit).offset(offset))
    return AuditPage(total=total, offset=offset, limit=limit, items=[Audit(*row) for row in rows])


def _window(since: float | None, until: float | None, length: float = DAY) -> Window:
    end = time.time() if until is None else until
    return Window(end - length if since is None else since, end)


def _step(window: Window) -> int:
    length = window.until - window.since
    return next((step for step in _STEPS if length / step <= POINTS), _STEPS[-1])


def _page(limit: int, offset: int) -> tuple[int, int]:
    return max(1, min(limit, MAX_LIMIT)), max(0, offset)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _requests() -> Any:
    table = schema.minutes
    return table.c.hit + table.c.collapsed + table.c.forwarded + table.c.bypassed


def _duplicates() -> Any:
    return schema.minutes.c.hit + schema.minutes.c.collapsed


def _whole(number: int) -> Any:
    """A number in the statement's text: as a parameter it would not be the same in a list of columns and a group."""
    return literal_column(str(number), Integer)


def _under(statement: Select[Any], table: Any, rule: str | None) -> Select[Any]:
    return statement if rule is None else statement.where(table.c.rule == rule)


def _within(statement: Select[Any], table: Any, window: Window, rule: str | None) -> Select[Any]:
    within = statement.where(table.c.minute >= int(window.since), table.c.minute < int(window.until))
    return _under(within, table, rule)
