"""`python -m tests.benchmarks.records`: a million records on SQLite and PostgreSQL, each question against 5 ms."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, Select, event, func, select

from dedup_middleware.records import analytics, engines, open_ledger
from dedup_middleware.records.gathering import Gathering
from dedup_middleware.records.schema import executions
from dedup_middleware.records.sql import SqlLedger

from ..records_kit import NOW, Postgres, completed, upgrade

MARK = 5.0
"""Milliseconds that 95 of a hundred may not exceed."""
RULES = 20
DAYS = 7

_COUNT = "WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {number})"
_EXECUTIONS = """
INSERT INTO dedup_executions (rule, fingerprint, method, route, execution_count, collapsed, cache_hits, duplicates,
    errors, total_duration, bytes_saved, first_execution, last_execution, last_trace_id, created_at, updated_at)
{count}
SELECT 'rule-' || (i % {rules}), {fingerprint}, 'GET', '/things/{{id}}', 1 + i % 7, i % 3,
    CASE WHEN i % 4 = 0 THEN (i * 7919) % 10007 ELSE 0 END,
    i % 3 + CASE WHEN i % 4 = 0 THEN (i * 7919) % 10007 ELSE 0 END,
    0, 0.25 * (1 + i % 7), 1000 * (i % 3), {now} - i, {now} - i % 86400, {fingerprint}, {now} - i, {now} - i % 604800
FROM numbers
"""
_MINUTES = """
INSERT INTO dedup_minutes (rule, minute, hit, stale, revalidated, collapsed, forwarded, bypassed, saved)
{count}
SELECT 'rule-' || r.i, {now} - 60 * (n.i + 1), 1 + n.i % 100, n.i % 3, n.i % 2, n.i % 10, n.i % 7, 0, 0.25
FROM numbers n CROSS JOIN (SELECT i FROM numbers WHERE i < {rules}) r
"""


class Figure(msgspec.Struct, frozen=True):
    """One question to one database: milliseconds at the median and at 95 of a hundred, and the plan it had."""

    database: str
    what: str
    p50: float
    p95: float
    plan: str

    @property
    def ok(self) -> bool:
        """Whether the mark is met."""
        return self.p95 <= MARK


def fill(connection: Connection, records: int, minutes: int) -> None:
    """Make the records in the database itself."""
    sqlite = connection.dialect.name == "sqlite"
    fingerprint = "printf('%032x', i * 2654435761)" if sqlite else "md5(i::text)"
    text = _EXECUTIONS.format(
        count=_COUNT.format(number=records), fingerprint=fingerprint, rules=RULES, now=int(NOW)
    )
    connection.exec_driver_sql(text if sqlite else text.replace("i * 7919", "i::bigint * 7919"))
    connection.exec_driver_sql(
        _MINUTES.format(count=_COUNT.format(number=max(minutes, RULES)), rules=RULES, now=int(NOW))
    )
    connection.exec_driver_sql("ANALYZE")


async def measure(
    ledger: SqlLedger, database: str, records: int, rounds: int, told: Callable[[str], None]
) -> list[Figure]:
    """Ask each question so many times, with another key each time."""
    chance = random.Random(1)
    fingerprints = [
        row.fingerprint
        for row in await ledger.rows(_some(chance.sample(range(1, records), min(records - 1, rounds))))
    ]
    numbers = iter(range(1, 10**9))

    async def upsert() -> None:
        gathering = Gathering()
        gathering.completed(completed(chance.choice(fingerprints), rule=f"rule-{chance.randrange(RULES)}"))
        for chunk in gathering.take("benchmark", next(numbers), NOW):
            await ledger.write(chunk)

    async def day() -> None:
        rule = f"rule-{chance.randrange(RULES)}"
        await analytics.series(ledger, rule=rule, since=NOW - 86_400, until=NOW)

    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "upsert of one record": upsert,
        "find by fingerprint": lambda: analytics.find(ledger, chance.choice(fingerprints)),
        "top 20 duplicates": lambda: analytics.operations(ledger),
        "top 20 duplicates of one rule": lambda: analytics.operations(
            ledger, rule=f"rule-{chance.randrange(RULES)}"
        ),
        "one rule's day": day,
    }
    figures = []
    for what, ask in questions.items():
        told(f"{database}: {what}")
        for _ in range(5):
            await ask()
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - started) * 1000)
        times.sort()
        p95 = times[math.ceil(0.95 * len(times)) - 1]
        figures.append(Figure(database, what, times[len(times) // 2], p95, await plan_of(ledger, ask)))
    return figures


def _some(numbers: Sequence[int]) -> Select[tuple[str]]:
    return select(executions.c.fingerprint).where(executions.c.id.in_(numbers))


async def plan_of(ledger: SqlLedger, ask: Callable[[], Awaitable[object]]) -> str:
    """How the database goes about the statements of a question: which indexes it names."""
    statements: list[tuple[str, object]] = []

    def heard(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if "dedup_executions" in statement or "dedup_minutes" in statement:
            statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", heard)
    await ask()
    event.remove(Engine, "before_cursor_execute", heard)
    lines: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if ledger.place.file is not None else "EXPLAIN "

    def ask_for_it(connection: Connection) -> None:
        for statement, parameters in statements:
            if "INSERT INTO" in statement:
                continue
            rows = connection.exec_driver_sql(explain + statement, parameters)  # type: ignore[arg-type] # as it was sent
            lines.extend(" ".join(map(str, row)) for row in rows)

    await ledger.run(ask_for_it)
    told = [line.strip() for line in lines if "dedup_" in line]
    return told[0] if told else "its unique index decides (ON CONFLICT)"


@contextmanager
def databases(only: str | None, keep: Path | None) -> Iterator[dict[str, str]]:
    """The URLs of ledgers: in a folder that stays, where one is named, else in one that goes."""
    with ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dedup-benchmark-")))
        keep.mkdir(exist_ok=True)
        found = {}
        if only in (None, "sqlite"):
            found["SQLite"] = f"sqlite:///{keep.absolute()}/dedup.db"
        if only in (None, "postgresql"):
            server = Postgres(str(keep / "postgresql"), "stop")
            stack.callback(server.stop)
            found["PostgreSQL"] = server.url
        for url in found.values():
            upgrade(url)
        yield found


async def run(url: str, name: str, records: int, rounds: int, told: Callable[[str], None]) -> list[Figure]:
    """Fill one database, unless it is full, and measure it."""
    ledger = open_ledger(url)
    try:
        engines.ANSWER = 3600.0  # type: ignore[misc] # filling takes its time
        started = time.perf_counter()
        if not (await ledger.rows(select(func.count()).select_from(executions)))[0][0]:
            told(f"{name}: {records:,} records")
            minutes = max(RULES, DAYS * 1440 * records // 1_000_000)
            await ledger.run(lambda connection: fill(connection, records, minutes))
            told(f"{name}: filled in {time.perf_counter() - started:.0f} s")
        await ledger.aclose()
        engines.ANSWER = 10.0  # type: ignore[misc] # as ever
        return await measure(ledger, name, records, rounds, told)
    finally:
        await ledger.aclose()


def render(figures: Sequence[Figure]) -> str:
    """The table."""
    lines = [f"{'database':<12}{'question':<32}{'p50 ms':>8}{'p95 ms':>8}  {'5 ms':<8}plan"]
    lines += [
        f"{one.database:<12}{one.what:<32}{one.p50:>8.2f}{one.p95:>8.2f}  {'ok' if one.ok else 'MISSED':<8}{one.plan}"
        for one in figures
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.records", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--rounds", type=int, default=400, help="times that each is asked (default: 400)")
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="one database alone")
    parser.add_argument("--smoke", action="store_true", help="only show that it works")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the databases there, and use those there"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a mark is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    chosen = parser.parse_args(arguments)
    records, rounds = (2000, 5) if chosen.smoke else (chosen.records, chosen.rounds)

    def told(what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)

    figures: list[Figure] = []
    with databases(chosen.only, chosen.keep) as urls:
        for name, url in urls.items():
            figures += asyncio.run(run(url, name, records, rounds, told))
    print(render(figures))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 1 if chosen.strict and not all(one.ok for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
