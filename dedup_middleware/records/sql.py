"""The SQL ledger: SQLite or PostgreSQL, one statement for both.

Law: a chunk is added whole and once, whoever else writes; what is read is read in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from . import COMMON, RowRefusedError, schema
from .adding import Adding, AtOnce, InTurn
from .engines import engines_for
from .migrating import creates, migrate, standing, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Executable, Row, Table

    from .engines import Work
    from .gathering import Chunk
    from .places import Place

T = TypeVar("T")

_TRIM_ROWS: Final = 2000
_PARTS: Final[tuple[tuple[Any, ...], ...]] = (
    (schema.executions, schema.executions.c.updated_at),
    (schema.minutes, schema.minutes.c.minute),
    (schema.reasons, schema.reasons.c.minute),
    (schema.latencies, schema.latencies.c.minute),
    (schema.memory, schema.memory.c.minute),
    *((schema.audit, schema.audit.c.at, schema.audit.c.what == what) for what in COMMON),
    (schema.audit, schema.audit.c.at, schema.audit.c.what.not_in(COMMON)),
    (schema.writers, schema.writers.c.at),
)
"""What is bounded for itself: a table, the age of its rows, and which rows, if not all."""


class SqlLedger:
    """A ledger in a database; it may be used in any event loop."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engines = engines_for(place)
        self._ready = False
        self._add: Adding = InTurn() if place.file is not None else AtOnce()

    async def aclose(self) -> None:
        """Close what this loop has opened; a closed ledger may be used again."""
        await self._engines.aclose()

    def forked(self) -> None:
        """In a child process: what the parent has opened is the parent's."""
        self._engines.forked()

    async def run(self, work: Work[T]) -> T:
        """Do something in one transaction that writes."""
        return await self._engines.do(work, writes=True)

    # -- tables -------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """See that the tables are those of this version; a new SQLite file gets them.

        Raises:
            SchemaError: where they are not.
        """
        if not self._ready:
            await self.standing()
            if self.place.file is not None:
                await self.run(creates)
            self._ready = True

    async def standing(self) -> None:
        """The same, but nothing is made."""
        await self._engines.do(lambda connection: standing(connection, self.place))

    async def version(self) -> str | None:
        """The migration at which the tables are; None where there are none."""
        return await self._engines.do(version)

    async def migrate(self, direction: str, to: str) -> None:
        """Upgrade or downgrade the tables."""
        self._ready = False
        await self.run(lambda connection: migrate(connection, direction, to))

    # -- writing ------------------------------------------------------------------------------------------------

    async def write(self, chunk: Chunk) -> None:
        """Add what a chunk holds, all of it or nothing; a chunk that comes again adds nothing.

        Raises:
            RowRefusedError: where the database refuses the rows as such.
        """
        try:
            await self._engines.do(
                lambda connection: self._add(connection, chunk), writes=self._add.transaction
            )
        except StatementError as error:
            if isinstance(error, (DataError, IntegrityError)) or type(error) is StatementError:
                raise RowRefusedError(type(error).__name__) from error
            self._ready = False  # perhaps the tables are not there any more
            raise

    async def note(self, *, at: float, who: str, what: str, target: str | None, result: str) -> None:
        """Add a line to the audit log."""
        await self.prepare()
        line = {"at": at, "who": who[:200], "what": what[:200], "target": target and target[:500]}
        await self.run(
            lambda connection: connection.execute(schema.audit.insert(), {**line, "result": result[:200]})
        )

    # -- reading ------------------------------------------------------------------------------------------------

    async def rows(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """The rows that a statement selects; parameters that it has no place for are ignored."""
        await self.prepare()
        return await self._engines.do(lambda connection: connection.execute(statement, parameters).fetchall())

    # -- keeping it small ---------------------------------------------------------------------------------------

    async def trim(self, now: float) -> int:
        """Drop some of what is too old or too much, in short transactions; how many rows went."""
        gone = 0
        for table, age, *which in _PARTS:
            gone += await self._trim(table, age, which, now - self.place.max_age)
        return gone

    async def _trim(self, table: Table, age: Any, which: list[Any], oldest: float) -> int:
        key = list(table.primary_key)

        def look(connection: Connection) -> list[Row[Any]]:
            number = connection.execute(select(func.count()).select_from(table).where(*which)).scalar_one()
            old = select(*key).where(age < oldest, *which).order_by(age).limit(_TRIM_ROWS)
            found = list(connection.execute(old))
            surplus = min(_TRIM_ROWS, number - len(found) - self.place.max_rows)
            if surplus > 0 and len(found) < _TRIM_ROWS:
                kept = select(*key).where(age >= oldest, *which).order_by(age).limit(surplus)
                found += connection.execute(kept)
            return found

        found = await self._engines.do(look)
        if found:
            statement = delete(table).where(*(column == bindparam(f"_{column.name}") for column in key))
            names = [f"_{column.name}" for column in key]
            rows = [dict(zip(names, row, strict=True)) for row in sorted(map(tuple, found))]
            await self.run(lambda connection: connection.execute(statement, rows))
        return len(found)
