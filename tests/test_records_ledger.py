"""One contract for every ledger: SQLite and PostgreSQL keep the same records, add up the same way, lose nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine, event, func, select

from dedup_middleware.records import Execution, Ledger, RowRefusedError, analytics, open_ledger, schema
from dedup_middleware.records.gathering import CHUNK, Gathering
from dedup_middleware.records.sql import SqlLedger

from .records_kit import MINUTE, NOW, Holding, chunk, collapsed, completed

pytestmark = pytest.mark.slow


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    opened = open_ledger(ledger_url)
    yield opened
    await opened.aclose()


async def count(ledger: Ledger, table: Any) -> int:
    return int((await ledger.rows(select(func.count()).select_from(table)))[0][0])


async def test_a_sql_ledger_is_a_ledger(ledger: SqlLedger) -> None:
    assert isinstance(ledger, Ledger)


async def test_what_was_gathered_comes_back_as_a_record(ledger: SqlLedger) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.completed(completed(route="/git/{repo}", trace_id="t1"))
        gathering.collapsed(collapsed())
        gathering.collapsed(collapsed())
        gathering.hits("a", "k1", 5, 500)
        gathering.tags("a", "k1", ("git:x",))

    await ledger.write(chunk(fill))

    (record,) = await analytics.find(ledger, "k1")
    assert record == Execution(
        id=record.id,
        rule="a",
        fingerprint="k1",
        method="GET",
        route="/git/{repo}",
        execution_count=1,
        collapsed=2,
        cache_hits=5,
        duplicates=7,
        errors=0,
        total_duration=0.25,
        average_duration=0.25,
        cache_hit_rate=5 / 8,
        hit_rate=7 / 8,
        saved=1.75,
        bytes_saved=700,
        first_execution=NOW - 0.25,
        last_execution=NOW - 0.25,
        last_trace_id="t1",
        created_at=NOW,
        updated_at=NOW,
        tags=("git:x",),
    )


async def test_what_comes_again_adds_up_and_the_youngest_word_stays(ledger: SqlLedger) -> None:
    await ledger.write(chunk(lambda g: g.completed(completed(route="/x", trace_id="t1"))))
    await ledger.write(
        chunk(
            lambda g: g.completed(completed(at=NOW + 60, duration=0.75, error="500")), number=2, at=NOW + 60
        )
    )
    await ledger.write(
        chunk(lambda g: g.completed(completed(at=NOW - 60, trace_id="t0")), writer="late", at=NOW - 60)
    )
    await ledger.write(chunk(lambda g: g.hits("a", "k1", 1, 10), number=3, at=NOW + 90))

    (record,) = await analytics.find(ledger, "k1")
    assert (record.execution_count, record.errors, record.cache_hits) == (3, 1, 1)
    assert record.total_duration == pytest.approx(1.25)
    assert record.average_duration == pytest.approx(1.25 / 3)
    assert record.first_execution == NOW - 60.25
    assert record.last_execution == NOW + 60 - 0.75
    assert (record.created_at, record.updated_at) == (NOW, NOW + 90)
    assert (record.route, record.last_trace_id) == ("/x", "t0")


async def test_one_fingerprint_under_two_rules_is_two_records(ledger: SqlLedger) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.completed(completed())
        gathering.completed(completed(rule="b"))

    await ledger.write(chunk(fill))

    assert [record.rule for record in await analytics.find(ledger, "k1")] == ["a", "b"]
    assert [record.rule for record in await analytics.find(ledger, "k1", rule="b")] == ["b"]
    assert await analytics.find(ledger, "k2") == []


async def test_the_rollup_adds_up_minute_by_minute(ledger: SqlLedger) -> None:
    for number in (1, 2):
        await ledger.write(chunk(lambda g: g.requests("a", MINUTE, "hit", "fresh", 3, 0.5), number=number))
    await ledger.write(chunk(lambda g: g.requests("a", MINUTE + 60, "hit", "fresh", 1, 0.25), number=3))
    await ledger.write(chunk(lambda g: g.completed(completed()), number=4))
    await ledger.write(chunk(lambda g: g.completed(completed()), number=5))
    await ledger.write(chunk(lambda g: g.memory(MINUTE, size=10, responses=3, evicted=1), number=6))
    await ledger.write(chunk(lambda g: g.memory(MINUTE, size=7, responses=4, evicted=2), number=7))

    assert [tuple(row) for row in await ledger.rows(select(schema.minutes).order_by("minute"))] == [
        ("a", MINUTE, 6, 0, 0, 0, 0, 0, 1.0),
        ("a", MINUTE + 60, 1, 0, 0, 0, 0, 0, 0.25),
    ]
    assert [tuple(row) for row in await ledger.rows(select(schema.reasons).order_by("minute"))] == [
        ("a", MINUTE, "hit", "fresh", 6, 1.0),
        ("a", MINUTE + 60, "hit", "fresh", 1, 0.25),
    ]
    assert {tuple(row) for row in await ledger.rows(select(schema.latencies))} == {
        ("a", MINUTE, "with", 71, 2),
        ("a", MINUTE, "without", 71, 2),
    }
    assert [tuple(row) for row in await ledger.rows(select(schema.memory))] == [(MINUTE, 10, 4, 3, 0, 0)]


async def test_a_chunk_that_comes_again_adds_nothing(ledger: SqlLedger) -> None:
    """Where only the answer to a commit was lost, the recorder sends the same chunk again."""
    once = chunk(lambda g: g.completed(completed()))
    await ledger.write(once)
    await ledger.write(once)
    await ledger.write(chunk(lambda g: g.completed(completed()), writer="another"))

    (record,) = await analytics.find(ledger, "k1")
    assert record.execution_count == 2


@contextmanager
def sent() -> Iterator[list[str]]:
    """What is sent to a database meanwhile, but for what begins and ends a transaction."""
    statements: list[str] = []

    def heard(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", heard)


async def test_a_chunk_is_one_statement_where_each_is_a_round_trip(ledger: SqlLedger) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.completed(completed())
        gathering.requests("a", MINUTE, "hit", "fresh", 3, 0.5)
        gathering.memory(MINUTE, size=10, responses=3, evicted=1)

    await ledger.write(chunk(fill))
    with sent() as statements:
        await ledger.write(chunk(fill, number=2))

    assert len(statements) == (1 if ledger.place.file is None else 7)
    assert (await analytics.find(ledger, "k1"))[0].execution_count == 2


@pytest.mark.parametrize("number", [0, 1, 2**53 + 1, 2**62])
async def test_counts_and_durations_come_back_exactly(ledger: SqlLedger, number: int) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.completed(completed(duration=0.1 + 0.2, at=NOW + 0.123456))
        gathering.requests("a", MINUTE, "hit", "fresh", number, 1e-300)

    await ledger.write(chunk(fill))

    (row,) = await ledger.rows(select(schema.minutes))
    assert (row.hit, row.saved) == (number, 1e-300)
    (record,) = await analytics.find(ledger, "k1")
    assert (record.total_duration, record.first_execution) == (0.1 + 0.2, NOW + 0.123456 - (0.1 + 0.2))


async def test_a_question_is_one_statement(ledger: SqlLedger) -> None:
    await ledger.prepare()
    with sent() as statements:
        await analytics.operations(ledger)
        await analytics.series(ledger, rule="a", since=NOW, until=NOW + 60)

    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


async def test_a_chunk_is_written_whole_or_not_at_all(ledger: SqlLedger) -> None:
    good = chunk(lambda g: g.completed(completed()))
    reason = {"rule": "a", "minute": 0, "outcome": "hit", "reason": "fresh", "number": None, "saved": 0.0}
    bad = msgspec.structs.replace(good, rows={**good.rows, "reasons": [reason]})

    with pytest.raises(RowRefusedError):
        await ledger.write(bad)

    assert await count(ledger, schema.executions) == 0
    await ledger.write(good)
    assert await count(ledger, schema.executions) == 1


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "é" * 600, "'; DROP TABLE dedup_minutes; --", "🦆"])
async def test_any_text_of_an_app_can_be_recorded(ledger: SqlLedger, text: str) -> None:
    def fill(gathering: Gathering) -> None:
        gathering.completed(completed(rule=text, route=text, method=text))
        gathering.requests(text, MINUTE, "hit", "fresh", 1, 0.0)
        gathering.tags(text, "k1", (text,))

    await ledger.write(chunk(fill))

    (record,) = await analytics.find(ledger, "k1")
    assert record.execution_count == 1
    assert len(record.rule) <= 500
    assert await count(ledger, schema.minutes) == 1


async def test_a_large_batch_is_written_in_chunks_that_add_up(ledger: SqlLedger) -> None:
    gathering = Gathering()
    for number in range(3 * CHUNK + 10):
        gathering.completed(completed(f"k{number}", flight=number))
    chunks = gathering.take("w", 1, NOW)
    assert [one.number for one in chunks] == list(range(1, len(chunks) + 1))
    assert {one.size for one in chunks[:-1]} == {CHUNK}
    for one in chunks:
        await ledger.write(one)

    assert await count(ledger, schema.executions) == 3 * CHUNK + 10


async def test_a_ledger_serves_several_event_loops(ledger_url: str) -> None:
    ledger = open_ledger(ledger_url)
    failed: list[BaseException] = []

    async def use(writer: str) -> None:
        for number in range(1, 6):
            await ledger.write(chunk(lambda g: g.completed(completed()), writer=writer, number=number))
        assert await count(ledger, schema.executions) == 1
        await ledger.aclose()

    def run(writer: str) -> None:
        try:
            asyncio.run(use(writer))
        except BaseException as error:  # noqa: BLE001 - it is asserted below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(f"w{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    assert not failed
    assert (await analytics.find(ledger, "k1"))[0].execution_count == 15
    await ledger.aclose()


WRITER = """
import asyncio, sys
from dedup_middleware.records import open_ledger
from tests.records_kit import chunk, completed, collapsed
async def main(url, writer):
    ledger = open_ledger(url)
    for number in range(1, 31):
        def fill(gathering):
            for key in range(20):
                gathering.completed(completed(f"k{key}", flight=key))
                gathering.collapsed(collapsed(f"k{key}", flight=key))
            gathering.requests("a", 1800000000, "hit", "fresh", 10, 0.5)
        one = chunk(fill, writer=writer, number=number)
        while True:
            try:
                await ledger.write(one)
                break
            except Exception:
                await asyncio.sleep(0.01)  # the other process wrote
    await ledger.aclose()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_write_at_once_lose_nothing(ledger: SqlLedger, ledger_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, ledger_url, f"w{number}"]) for number in range(2)
    ]
    assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0]

    found = (await analytics.operations(ledger)).items
    assert len(found) == 20
    assert {(one.executions, one.collapsed, one.bytes_saved) for one in found} == {(60, 60, 6000)}
    (row,) = await ledger.rows(select(schema.minutes))
    assert (row.hit, row.saved) == (600, 30.0)


# -- retention ---------------------------------------------------------------------------------------------------------


async def filled(ledger: SqlLedger) -> None:
    for number in range(1, 11):
        at = NOW + number * 60

        def fill(gathering: Gathering, number: int = number, at: float = at) -> None:
            gathering.completed(completed(f"k{number}", at=at))
            gathering.requests("a", int(at), "hit", "fresh", 1, 0.0)
            gathering.memory(int(at), size=1, responses=1)

        await ledger.write(chunk(fill, number=number, at=at))
        await ledger.note(at=at, who="me", what="switch", target=None, result="done")


async def test_what_is_too_old_goes(ledger_url: str) -> None:
    ledger = open_ledger(f"{ledger_url}{'&' if '?' in ledger_url else '?'}max_age=5m")
    await filled(ledger)
    now = NOW + 600 + 1

    while await ledger.trim(now):
        pass

    for table, left in (
        (schema.executions, 5),
        (schema.minutes, 5),
        (schema.reasons, 5),
        (schema.latencies, 10),
        (schema.memory, 5),
        (schema.audit, 5),
        (schema.writers, 1),
    ):
        assert await count(ledger, table) == left, table.name
    assert {record.key for record in (await analytics.operations(ledger, order="executions")).items} == set()
    assert not await analytics.find(ledger, "k5")
    assert await analytics.find(ledger, "k6")
    await ledger.aclose()


async def test_what_is_too_much_goes_the_oldest_first(ledger_url: str) -> None:
    ledger = open_ledger(f"{ledger_url}{'&' if '?' in ledger_url else '?'}max_rows=3")
    await filled(ledger)

    while await ledger.trim(NOW + 700):
        pass

    assert await count(ledger, schema.executions) == 3
    assert await count(ledger, schema.minutes) == 3
    assert await analytics.find(ledger, "k8")
    assert not await analytics.find(ledger, "k7")
    await ledger.aclose()


@pytest.mark.parametrize("what", ["refused", "invalidated"])
async def test_no_flood_pushes_what_people_change_out_of_the_audit_log(ledger_url: str, what: str) -> None:
    ledger = open_ledger(f"{ledger_url}{'&' if '?' in ledger_url else '?'}max_rows=3")
    for number, done in enumerate(["switch off", "switch on", *[what] * 10]):
        await ledger.note(at=NOW + number, who="me", what=done, target="all", result=str(number))

    while await ledger.trim(NOW + 100):
        pass

    left = [(line.what, line.result) for line in (await analytics.audits(ledger)).items]
    assert left == [(what, "11"), (what, "10"), (what, "9"), ("switch on", "1"), ("switch off", "0")]
    await ledger.aclose()


# -- how it is read ----------------------------------------------------------------------------------------------------


async def test_the_audit_log_gives_the_youngest_first_page_by_page(ledger: SqlLedger) -> None:
    for number in range(5):
        await ledger.note(at=NOW + number, who="me", what="switch", target="x" * 900, result=str(number))

    page = await analytics.audits(ledger, limit=2, offset=1)

    assert (page.total, [line.result for line in page.items]) == (5, ["3", "2"])
    assert page.items[0].target == "x" * 500


async def plan(ledger: SqlLedger, statement: str) -> str:
    lines: list[str] = []

    def explain(connection: Connection) -> None:
        if ledger.place.file is None:
            connection.exec_driver_sql("ANALYZE")
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the tables are small
        explained = "EXPLAIN QUERY PLAN " if ledger.place.file is not None else "EXPLAIN "
        lines.extend(str(tuple(row)) for row in connection.exec_driver_sql(explained + statement))

    await ledger.run(explain)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (
            "SELECT * FROM dedup_executions WHERE fingerprint = 'k7'",
            "dedup_executions_fingerprint_rule",
        ),
        (
            "SELECT * FROM dedup_executions WHERE duplicates > 0 ORDER BY duplicates DESC LIMIT 20",
            "dedup_executions_duplicates",
        ),
        (
            "SELECT * FROM dedup_executions WHERE duplicates > 0 AND rule = 'b' ORDER BY duplicates DESC LIMIT 20",
            "dedup_executions_rule_duplicates",
        ),
        (
            "SELECT * FROM dedup_executions WHERE execution_count > 1 ORDER BY execution_count DESC LIMIT 20",
            "dedup_executions_repeated",
        ),
        (
            "SELECT id FROM dedup_executions WHERE updated_at < 5 ORDER BY updated_at",
            "dedup_executions_updated",
        ),
        (
            "SELECT sum(hit) FROM dedup_minutes WHERE rule = 'b' AND minute >= 9 AND minute < 2000000000",
            "PRIMARY KEY",
        ),
        ("SELECT sum(hit) FROM dedup_minutes WHERE minute >= 9 AND minute < 99", "dedup_minutes_minute"),
    ],
)
async def test_the_questions_of_the_pages_use_an_index(ledger: SqlLedger, statement: str, index: str) -> None:
    def fill(gathering: Gathering) -> None:
        for number in range(400):
            gathering.completed(completed(f"k{number}", rule="ab"[number % 2], at=NOW + 60 * number))
            gathering.requests("ab"[number % 2], MINUTE + 60 * number, "hit", "fresh", 1, 0.0)
            if number < 40:
                gathering.collapsed(collapsed(f"k{number}", rule="ab"[number % 2], at=NOW + 60 * number))

    gathering = Gathering()
    fill(gathering)
    for one in gathering.take("w", 1, NOW):
        await ledger.write(one)
    if ledger.place.file is None:
        index = index.replace("PRIMARY KEY", "dedup_minutes_pkey")

    assert index in await plan(ledger, statement)


async def test_a_database_that_hangs_holds_nobody_up_for_long(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer that never ends keeps the row, or the whole file."""
    await ledger.write(chunk(lambda g: g.completed(completed())))
    other = Holding(ledger, "UPDATE dedup_executions SET method = 'POST'")
    await other.begin()
    monkeypatch.setattr("dedup_middleware.records.engines.ANSWER", 0.3)
    started = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017 - each database has its own
        await ledger.write(chunk(lambda g: g.completed(completed()), number=2))
    assert time.monotonic() - started < 20
    monkeypatch.undo()
    await other.end()

    await ledger.write(chunk(lambda g: g.completed(completed()), number=2))
    assert (await analytics.find(ledger, "k1"))[0].execution_count == 2
