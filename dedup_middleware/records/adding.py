"""Adding: how a chunk's rows go into the tables, as statements that are made once.

Law: a chunk is added whole and once: who wrote it and its number are claimed first, and nothing is added without this.
All counts add up, so that any number of processes may write at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from sqlalchemy import JSON, Table, Text, bindparam, case, cast, column, exists, func, select
from sqlalchemy.dialects import postgresql, sqlite

from . import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from .gathering import Chunk

TABLES: Final[Mapping[str, Table]] = {
    "executions": schema.executions,
    "minutes": schema.minutes,
    "reasons": schema.reasons,
    "latencies": schema.latencies,
    "memory": schema.memory,
}
_MOST: Final = frozenset({"bytes", "responses"})
_YOUNGEST: Final = frozenset({"method", "route", "tags", "last_trace_id"})


class Adding(Protocol):
    """Adds a chunk."""

    transaction: bool
    """Whether it needs one around it; what is one statement is one."""

    def __call__(self, connection: Connection, chunk: Chunk) -> object:
        """Add it, unless it is there."""


class InTurn:
    """One statement after another, where a round trip costs nothing: SQLite."""

    transaction = True

    def __init__(self) -> None:
        self._claim = _claim(sqlite.insert)
        self._adds = {name: _summing(sqlite.insert(table), table) for name, table in TABLES.items()}

    def __call__(self, connection: Connection, chunk: Chunk) -> None:
        """Add it, unless it is there."""
        if connection.execute(self._claim, _claimed(chunk)).rowcount:
            for name, rows in chunk.rows.items():
                connection.execute(self._adds[name], rows)


class AtOnce:
    """All in one statement, and so in one round trip: PostgreSQL. The rows of a table are one JSON text."""

    transaction = False

    def __init__(self) -> None:
        claimed = _claim(postgresql.insert).returning(schema.writers.c.number).cte("claimed")
        self._statement = select(func.count()).select_from(claimed)
        for name, table in TABLES.items():
            self._statement = self._statement.add_cte(_given(name, table, claimed).cte(f"add_{name}"))

    def __call__(self, connection: Connection, chunk: Chunk) -> None:
        """Add it, unless it is there."""
        rows = {name: msgspec.json.encode(chunk.rows.get(name, ())).decode() for name in TABLES}  # type: ignore[call-overload] # they are the names
        connection.execute(self._statement, _claimed(chunk) | rows)


def _claimed(chunk: Chunk) -> dict[str, Any]:
    return {"writer": chunk.writer, "number": chunk.number, "at": chunk.at}


def _claim(insert: Any) -> Any:
    """Gives a row only where the number is a new one.

    Where only the answer to a commit was lost, the chunk comes again, and is there already.
    """
    table = schema.writers
    statement = insert(table).values(
        {name: bindparam(name, type_=table.c[name].type) for name in _names(table)}
    )
    return statement.on_conflict_do_update(
        index_elements=["writer"],
        set_={"number": statement.excluded.number, "at": statement.excluded.at},
        where=table.c.number < statement.excluded.number,
    )


def _given(name: str, table: Table, claimed: Any) -> Any:
    """An insert of the rows that stand in a parameter, if the chunk is claimed."""
    columns = [column(one.name, one.type) for one in table.columns if one.name != "id"]
    text = cast(bindparam(name, type_=Text()), JSON())
    rows = (
        func.json_to_recordset(text)
        .table_valued(*columns, name=f"given_{name}")
        .render_derived(with_types=True)
    )
    statement = postgresql.insert(table).from_select(
        [one.name for one in columns], select(rows).where(exists(select(claimed.c.number)))
    )
    return _summing(statement, table)


def _summing(statement: Any, table: Table) -> Any:
    """The insert, when it adds to the row that is there."""
    new, old = statement.excluded, table.c
    keys = (
        ["fingerprint", "rule"]
        if table is schema.executions
        else [column.name for column in table.primary_key]
    )
    changes: dict[str, Any] = {}
    for name in _names(table):
        if name in {*keys, "id", "created_at"}:
            continue
        if name in _YOUNGEST:
            changes[name] = func.coalesce(new[name], old[name])
        elif name == "first_execution":
            changes[name] = _extreme(old[name], new[name], old[name] <= new[name])
        elif name in {"last_execution", "updated_at"} or (table is schema.memory and name in _MOST):
            changes[name] = _extreme(old[name], new[name], old[name] >= new[name])
        else:
            changes[name] = old[name] + new[name]
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _extreme(old: Any, new: Any, keep: Any) -> Any:
    return case((keep, old), else_=func.coalesce(new, old))
