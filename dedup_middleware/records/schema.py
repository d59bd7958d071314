"""The tables: SQLAlchemy Core, the same for SQLite and PostgreSQL.

Law: all counts add up, so that any number of processes can write; times are seconds since the epoch. The migrations
make exactly these tables, and a test compares.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text, text

OUTCOMES: Final = ("hit", "collapsed", "forwarded", "bypassed")
"""Each a column of the minutes; an outcome that a version brings needs a migration, and a test compares."""
HEAD: Final = "0001"
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
Index(
    "dedup_executions_duplicates",
    executions.c.duplicates,
    sqlite_where=DUPLICATED,
    postgresql_where=DUPLICATED,
)
Index(
    "dedup_executions_rule_duplicates",
    executions.c.rule,
    executions.c.duplicates,
    sqlite_where=DUPLICATED,
    postgresql_where=DUPLICATED,
)
Index(
    "dedup_executions_repeated",
    executions.c.execution_count,
    sqlite_where=REPEATED,
    postgresql_where=REPEATED,
)
Index("dedup_executions_updated", executions.c.updated_at)

minutes: Final = Table(
    "dedup_minutes",
    metadata,
    Column("rule", _RULE, primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    *(Column(outcome, BigInteger, nullable=False) for outcome in OUTCOMES),
    Column("saved", Double, nullable=False),
    Index("dedup_minutes_minute", "minute"),
    sqlite_with_rowid=False,
)

reasons: Final = Table(
    "dedup_reasons",
    metadata,
    Column("rule", _RULE, primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("outcome", String(32), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("saved", Double, nullable=False),
    Index("dedup_reasons_minute", "minute"),
    sqlite_with_rowid=False,
)

latencies: Final = Table(
    "dedup_latencies",
    metadata,
    Column("rule", _RULE, primary_key=True),
    Column("minute", BigInteger, primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Index("dedup_latencies_minute", "minute"),
    sqlite_with_rowid=False,
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
