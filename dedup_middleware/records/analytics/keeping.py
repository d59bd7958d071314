"""Keeping: what the stores held, and what people did to them.

Law: a figure of several processes is the largest of what they held, and the sum of what left them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import desc, func, select

from .. import schema
from ..answers import Audit, AuditPage, Memory, MemoryPoint
from .windows import SHAPES, page, stride, total, whole, window, within

if TYPE_CHECKING:
    from .. import Ledger


async def memory(ledger: Ledger, *, since: float | None = None, until: float | None = None) -> Memory:
    """What stores held (the largest of the processes, at most in a step), and what left them, over time."""
    asked = window(since, until)
    wide = stride(asked)
    rows = await ledger.rows(_steps(wide), asked.parameters(None))
    return Memory(
        since=asked.since,
        until=asked.until,
        step=wide,
        items=[MemoryPoint(float(at * wide), *figures) for at, *figures in rows],
    )


@lru_cache(SHAPES)
def _steps(wide: int) -> Any:
    table = schema.memory
    at = (table.c.minute // whole(wide)).label("at")
    held = (func.max(table.c[name]) for name in ("bytes", "responses"))
    left = (total(table.c[name]) for name in ("evicted", "expired", "invalidated"))
    return within(select(at, *held, *left).group_by(at), table).order_by(at)


async def audits(ledger: Ledger, *, limit: int = 100, offset: int = 0) -> AuditPage:
    """The audit log, the youngest first."""
    limit, offset = page(limit, offset)
    ((number,),) = await ledger.rows(_number())
    rows = await ledger.rows(_lines(limit, offset))
    return AuditPage(total=number, offset=offset, limit=limit, items=[Audit(*row) for row in rows])


@lru_cache(1)
def _number() -> Any:
    return select(func.count()).select_from(schema.audit)


@lru_cache(SHAPES)
def _lines(limit: int, offset: int) -> Any:
    table = schema.audit
    columns = [table.c[name] for name in Audit.__struct_fields__]
    return select(*columns).order_by(desc(table.c.id)).limit(whole(limit)).offset(whole(offset))
