"""Analytics over HTTP: the functions of the ledger as JSON and as CSV.

Law: the database is asked within a bounded time and in pages; a table is written piece by piece, never as a whole.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import io
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import asdict, replace
from starlette.responses import StreamingResponse

from ..records import answers
from ..telemetry import parts_log
from . import shapes
from .problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.responses import Response

    from .visit import Visit

MAX_ROWS: Final = 100_000
"""Rows of one CSV file."""
_PIECE: Final = 1000
_ROWS: Final = 200
_PATIENCE: Final = 10.0


class Kind(msgspec.Struct, frozen=True):
    """One function of the ledger; one that is `paged` takes a page, of the others' `rows` a page is cut."""

    name: str
    summary: str
    takes: type[shapes.Strict]
    gives: Any
    rows: str = "items"
    paged: bool = True


KINDS: Final = (
    Kind("operations", "Most duplicated operations", shapes.RankedWindow, answers.Operations),
    Kind("rates", "Hit, collapse and bypass rates by rule, with reasons", shapes.Window, answers.Rates),
    Kind("latency", "Latency with and without, by rule: p50, p95, p99", shapes.Window, answers.Latencies),
    Kind("series", "Requests by outcome over time", shapes.SteppedWindow, answers.Series),
    Kind(
        "heatmap",
        "Requests and duplicates by rule and hour of the week",
        shapes.LocalWindow,
        answers.Heatmap,
        rows="cells",
        paged=False,
    ),
    Kind("trend", "A window against the one before it", shapes.WideWindow, answers.Trends, paged=False),
    Kind("memory", "What the store held, and what left it", shapes.MemoryWindow, answers.Memory, paged=False),
)


def told(kind: Kind) -> Callable[[Visit, Any], Awaitable[Any]]:
    """The operation that gives one kind as JSON."""

    async def run(visit: Visit, asked: Any) -> Any:
        return await _ask(visit, kind, asked)

    return run


def table(kind: Kind) -> Callable[[Visit, Any], Awaitable[Response]]:
    """The operation that gives one kind as CSV: every row from `offset` on, as many as a file holds."""

    async def run(visit: Visit, asked: Any) -> Response:
        first = await _ask(visit, kind, replace(asked, limit=_PIECE))  # a refusal comes before the head
        return StreamingResponse(
            _lines(visit, kind, asked, first),
            headers={"content-disposition": f'attachment; filename="dedup-{kind.name}.csv"'},
            media_type="text/csv",
        )

    return run


async def _ask(visit: Visit, kind: Kind, asked: Any) -> Any:
    ledger = visit.api.dedup.ledger
    if ledger is None:
        raise Problem(404, "There is no ledger to read: the engine keeps none without records=.")
    function = getattr(importlib.import_module("dedup_middleware.records.analytics"), kind.name)
    given = asdict(asked)
    offset, limit = given["offset"], given["limit"]
    if not kind.paged:
        del given["offset"], given["limit"]
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await function(ledger, **given)
    except Exception as error:  # noqa: BLE001 - whatever a database raises
        parts_log.warning("the ledger failed to give %s (%s)", kind.name, type(error).__qualname__)
        raise Problem(503, "The ledger does not answer now.", {"retry-after": "5"}) from None
    if not kind.paged:
        found = replace(found, **{kind.rows: getattr(found, kind.rows)[offset : offset + limit]})
    return found


async def _lines(visit: Visit, kind: Kind, asked: Any, page: Any) -> AsyncIterator[str]:
    columns: list[str] | None = None
    offset = asked.offset
    if hasattr(page, "since"):  # one that ends with each page's now would shift under the offset
        asked = replace(asked, since=page.since, until=page.until)
    while True:
        rows = [_flat(msgspec.to_builtins(row)) for row in getattr(page, kind.rows)]
        if columns is None:
            columns = list(dict.fromkeys(name for row in rows for name in row))
            yield _csv([columns])
        for start in range(0, len(rows), _ROWS):  # the loop goes on in between
            yield _csv([_cell(row.get(name)) for name in columns] for row in rows[start : start + _ROWS])
            await asyncio.sleep(0)
        offset += len(rows)
        if len(rows) < _PIECE or offset - asked.offset >= MAX_ROWS:
            return
        try:
            page = await _ask(visit, kind, replace(asked, offset=offset, limit=_PIECE))
        except Problem as problem:  # the head is out: the download breaks off, and is not taken for the whole
            raise RuntimeError(f"a table broke off at row {offset}: {problem.sentence}") from None


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, (list, tuple)):
        value = msgspec.json.encode(value).decode()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
