"""Operating: the records of single operations.

Law: a record counts since its operation was first seen; a window chooses records, it does not cut their counts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from sqlalchemy import bindparam, desc, select

from .. import Execution, schema
from ..answers import Operation, Operations
from .windows import SHAPES, page, share, under, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import Ledger

Order = Literal["duplicates", "executions"]

_TABLE: Final = schema.executions
_COLUMNS: Final = [
    _TABLE.c[name]
    for name in (
        "rule",
        "fingerprint",
        "method",
        "route",
        "tags",
        "execution_count",
        "collapsed",
        "cache_hits",
        "duplicates",
        "errors",
        "total_duration",
        "bytes_saved",
        "first_execution",
        "last_execution",
        "last_trace_id",
        "created_at",
        "updated_at",
    )
]


async def find(ledger: Ledger, fingerprint: str, *, rule: str | None = None) -> list[Execution]:
    """The records of one fingerprint (32 hex digits), under one rule or any."""
    statement = _found(ruled=rule is not None)
    return [
        _execution(row) for row in await ledger.rows(statement, {"fingerprint": fingerprint, "rule": rule})
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

    The window chooses the operations that were last seen in it, all there are without one. Their counts are not those
    of the window: each counts since its own `since`, when it was first seen.
    """
    limit, offset = page(limit, offset)
    statement = _ranked(
        order, rule is not None, since is not None, until is not None, limit=limit, offset=offset
    )
    rows = await ledger.rows(statement, {"rule": rule, "since": since, "until": until})
    return Operations(
        offset=offset, limit=limit, more=len(rows) > limit, items=[_operation(row) for row in rows[:limit]]
    )


@lru_cache(SHAPES)
def _found(*, ruled: bool) -> Any:
    fingerprint = _TABLE.c.fingerprint == bindparam("fingerprint", type_=_TABLE.c.fingerprint.type)
    statement = select(_TABLE.c.id, *_COLUMNS).where(fingerprint)
    return under(statement, _TABLE, ruled=ruled).order_by(_TABLE.c.rule)


@lru_cache(SHAPES)
def _ranked(order: Order, ruled: bool, begins: bool, ends: bool, *, limit: int, offset: int) -> Any:
    most, some = (
        (_TABLE.c.duplicates, schema.DUPLICATED)
        if order == "duplicates"
        else (_TABLE.c.execution_count, schema.REPEATED)
    )
    statement = under(select(*_COLUMNS).where(some), _TABLE, ruled=ruled)
    seen = _TABLE.c.updated_at
    if begins:
        statement = statement.where(seen >= bindparam("since", type_=seen.type))
    if ends:
        statement = statement.where(seen < bindparam("until", type_=seen.type))
    # Of those with as many each page knows the same order; both indexes end in the id, or sort a few by it.
    return statement.order_by(desc(most), desc(_TABLE.c.id)).limit(whole(limit + 1)).offset(whole(offset))


def _operation(row: Sequence[Any]) -> Operation:
    rule, key, method, route, tags, runs, collapsed, hits, duplicates, errors, *rest = row
    duration, bytes_saved, first, last, trace_id, created, updated = rest
    average, hit_rate, saved = _derived(runs, duplicates, duration)
    return Operation(
        rule=rule,
        key=key,
        method=method,
        route=route,
        tags=_tags(tags),
        executions=runs,
        collapsed=collapsed,
        hits=hits,
        duplicates=duplicates,
        errors=errors,
        total=duration,
        average=average,
        hit_rate=hit_rate,
        saved=saved,
        bytes_saved=bytes_saved,
        since=created if first is None else first,
        last=updated if last is None else max(last, updated),
        trace_id=trace_id,
    )


def _execution(row: Sequence[Any]) -> Execution:
    number, rule, key, method, route, tags, runs, collapsed, hits, duplicates, errors, *rest = row
    duration, bytes_saved, first, last, trace_id, created, updated = rest
    average, hit_rate, saved = _derived(runs, duplicates, duration)
    return Execution(
        id=number,
        rule=rule,
        fingerprint=key,
        method=method,
        route=route,
        execution_count=runs,
        collapsed=collapsed,
        cache_hits=hits,
        duplicates=duplicates,
        errors=errors,
        total_duration=duration,
        average_duration=average,
        cache_hit_rate=share(hits, runs + duplicates),
        hit_rate=hit_rate,
        saved=saved,
        bytes_saved=bytes_saved,
        first_execution=first,
        last_execution=last,
        last_trace_id=trace_id,
        created_at=created,
        updated_at=updated,
        tags=_tags(tags),
    )


def _derived(runs: int, duplicates: int, duration: float) -> tuple[float, float, float]:
    """What a run takes, the share of duplicates and what they would have cost: made here alone, so that all agree."""
    average = duration / runs if runs else 0.0
    return average, share(duplicates, runs + duplicates), duplicates * average


def _tags(text: str | None) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(text)) if text else ()
