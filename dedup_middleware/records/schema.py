"""The tables: SQLAlchemy Core, the same for SQLite and PostgreSQL.

Law: all counts add up, so that any number of processes can write; times are seconds since the epoch. The migrations
make exactly these tables, and a test compares.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text, text

from .outcomes import COLUMNS

HEAD: Final = "0002"
"""The migration that makes these tables."""
VERSION_TABLE: Final = "dedup_schema"

metadata: Final = MetaData()
_RULE: Final = String(500)

executions: Final = Table(
    "dedup_executions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("rule", _RULE, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("method", String(32)),
    Column("route", String(500)),
    Column("tags", Text),
    Column("execution_count", BigInteger, nullable=False),
    Column("collapsed", BigInteger, nullable=False),
    Column("cache_hits", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("total_duration", Double, nullable=False),
    Column("bytes_saved", BigInteger, nullable=False),
    Column("first_execution", Double),
    Column("last_execution", Double),
    Column("last_trace_id", String(32)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
DUPLICATED: Final = text("duplicates > 0")
REPEATED: Final = text("execution_count > 1")
Index("dedup_executions_fingerprint_rule", executions.c.fingerprint, executions.c.rule, unique=True)
Index("dedup_executions_updated", executions.c.updated_at)
for _name, _columns, _some in (
    ("duplicates", ["duplicates"], DUPLICATED),
    ("rule_duplicates", ["rule", "duplicates"], DUPLICATED),
    ("repeated", ["execution_count"], REPEATED),
):
    Index(
        f"dedup_executions_{_name}",
        *(executions.c[column] for column in _columns),
        sqlite_where=_some,
        postgresql_where=_some,
    )


def _rollup(name: str, *columns: Column[Any]) -> Table:
    """Rows of one rule and one minute (the second at which it begins)."""
    return Table(
        name,
        metadata,
        Column("rule", _RULE, primary_key=True),
        Column("minute", BigInteger, primary_key=True, autoincrement=False),
        *columns,
        Index(f"{name}_minute", "minute"),
        sqlite_with_rowid=False,
    )


minutes: Final = _rollup(
    "dedup_minutes",
    *(Column(outcome, BigInteger, nullable=False) for outcome in COLUMNS),
    Column("saved", Double, nullable=False),
)

reasons: Final = _rollup(
    "dedup_reasons",
    Column("outcome", String(32), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("saved", Double, nullable=False),
)

latencies: Final = _rollup(
    "dedup_latencies",
    Column("kind", String(8), primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

memory: Final = Table(
    "dedup_memory",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("responses", BigInteger, nullable=False),
    Column("evicted", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("invalidated", BigInteger, nullable=False),
)

writers: Final = Table(
    "dedup_writers",
    metadata,
    Column("writer", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Index("dedup_writers_at", "at"),
)

audit: Final = Table(
    "dedup_audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", String(200), nullable=False),
    Column("what", String(200), nullable=False),
    Column("target", String(500)),
    Column("result", String(200), nullable=False),
    Index("dedup_audit_at", "at"),
)
