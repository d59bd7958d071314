"""Databases that are killed, locked, full and slow while requests go on: none fails, and it recovers by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from dedup_middleware import Dedup, DedupMiddleware
from dedup_middleware.records import Ledger, analytics, open_ledger
from dedup_middleware.records.recorder import Recorder
from dedup_middleware.records.sql import SqlLedger

from .kit import GatedApp, eventually, get
from .records_kit import Holding, Postgres, upgrade

pytestmark = pytest.mark.slow

Make = Callable[[str | Ledger], "Load"]


class Load:
    """An app that is asked again and again while its ledger has its troubles."""

    def __init__(self, records: str | Ledger) -> None:
        self.dedup = Dedup(records=records, secret="s")
        assert self.dedup.recorder is not None
        self.recorder: Recorder = self.dedup.recorder
        self.recorder._every, self.recorder._patience = 0.05, 0.2
        self.app = DedupMiddleware(GatedApp(opened=True), dedup=self.dedup)
        self.requests = 0

    async def ask(self, number: int = 20) -> None:
        """Requests, each of them answered."""
        for _ in range(number):
            self.requests += 1
            assert (await get(self.app, f"/{self.requests}")).status == 200

    async def until(self, condition: Callable[[], object]) -> None:
        """Ask on until something is so."""

        async def asking() -> None:
            while not condition():
                await self.ask(1)
                await asyncio.sleep(0.02)  # a load, no flood: the recorder's thread wants its share of Python

        await asyncio.wait_for(asking(), 60)

    async def recorded(self) -> tuple[int, int]:
        """Requests in the rollup, and executions."""
        await eventually(lambda: self.recorder.trouble is None)
        assert await self.recorder.settle()
        ledger = self.dedup.ledger
        assert ledger is not None
        rates = await analytics.rates(ledger)
        from sqlalchemy import func, select

        from dedup_middleware.records import schema

        (row,) = await ledger.rows(select(func.sum(schema.executions.c.execution_count)))
        return rates.total.requests, int(row[0])


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr("dedup_middleware.records.engines.BUSY", 0.1)
    made: list[Load] = []

    def make(records: str | Ledger) -> Load:
        made.append(Load(records))
        return made[-1]

    yield make
    for load in made:
        await load.dedup.aclose()


async def test_a_locked_database_loses_nothing(make: Make, tmp_path: Path) -> None:
    load = make(f"sqlite:///{tmp_path}/dedup.db")
    await load.ask()
    await load.recorder.settle()
    other = sqlite3.connect(tmp_path / "dedup.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    await load.until(lambda: load.recorder.failures > 2)
    assert "OperationalError" in (load.recorder.trouble or "")
    other.execute("ROLLBACK")
    other.close()

    assert await load.recorded() == (load.requests, load.requests)
    assert load.recorder.dropped == 0


async def test_a_full_disk_loses_nothing_that_has_room_to_wait(make: Make, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dedup.db"
    upgrade(url)
    ledger = open_ledger(url)
    pages = [40]

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages[0]}")

    event.listen(ledger._engines._engine, "begin", limit)  # type: ignore[attr-defined] # SQLite's
    load = make(ledger)

    await load.until(lambda: load.recorder.failures > 2)
    assert "OperationalError" in (load.recorder.trouble or "")
    pages[0] = 1_000_000

    assert await load.recorded() == (load.requests, load.requests)


async def test_a_file_that_can_t_be_written_is_told_and_recovers(make: Make, tmp_path: Path) -> None:
    """The folder is gone for a while."""
    folder = tmp_path / "data"
    folder.mkdir()
    load = make(f"sqlite:///{folder}/dedup.db")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()

    await load.until(lambda: load.recorder.failures > 2)
    folder.mkdir()

    assert await load.recorded() == (load.requests, load.requests)


async def test_a_database_whose_tables_go_while_it_is_used_is_told_and_recovers(
    make: Make, ledger_url: str
) -> None:
    load = make(ledger_url)
    await load.ask()
    await load.recorder.settle()
    ledger = load.dedup.ledger
    assert isinstance(ledger, SqlLedger)
    await ledger.migrate("downgrade", "base")

    await load.until(lambda: load.recorder.failures > 2)
    assert "records upgrade --url" in (load.recorder.trouble or "")
    before = load.requests
    upgrade(ledger_url)

    requests, _ = await load.recorded()
    assert 0 < requests <= load.requests
    assert before <= load.requests


async def test_a_slow_database_only_delays_records(make: Make, postgres: Postgres) -> None:
    """Somebody holds the tables for a while."""
    load = make(postgres.emptied())
    await load.ask()
    await load.recorder.settle()
    ledger = load.dedup.ledger
    assert isinstance(ledger, SqlLedger)
    other = Holding(ledger, "LOCK TABLE dedup_executions")
    await other.begin()
    await load.ask(50)
    flushed = load.recorder.flush()
    await load.ask(50)
    assert not flushed.done()
    await other.end()

    assert await load.recorded() == (load.requests, load.requests)
    assert load.recorder.dropped == 0


async def test_connections_that_are_cut_are_opened_again(make: Make, postgres: Postgres) -> None:
    load = make(postgres.emptied())
    for _ in range(3):
        await load.ask()
        await load.recorder.settle()
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'dedup-middleware' AND pid <> pg_backend_pid()"
        )

    assert await load.recorded() == (load.requests, load.requests)


async def test_a_killed_server_that_comes_back_has_everything(make: Make) -> None:
    with tempfile.TemporaryDirectory(prefix="dedup-pg-") as folder:
        server = await asyncio.to_thread(Postgres, folder)
        try:
            load = make(server.emptied())
            await load.ask()
            await load.recorder.settle()
            pid = server.server.get_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

            await load.until(lambda: load.recorder.failures > 2)
            assert load.recorder.trouble is not None
            await asyncio.to_thread(server.start_again)

            assert await load.recorded() == (load.requests, load.requests)
            assert load.recorder.dropped == 0
            await load.dedup.aclose()
        finally:
            await asyncio.to_thread(server.stop)


async def test_a_start_without_the_database_is_a_start(make: Make, tmp_path: Path) -> None:
    load = make("postgresql://user:hunter2@127.0.0.1:9/nowhere")
    await load.until(lambda: load.recorder.failures > 1)

    assert load.recorder.trouble is not None
    assert "hunter2" not in load.recorder.trouble
