"""Executions, minutes, reasons, latencies, memory, writers, audit log."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "dedup_executions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("rule", sa.String(500), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("method", sa.String(32)),
        sa.Column("route", sa.String(500)),
        sa.Column("tags", sa.Text),
        sa.Column("execution_count", sa.BigInteger, nullable=False),
        sa.Column("collapsed", sa.BigInteger, nullable=False),
        sa.Column("cache_hits", sa.BigInteger, nullable=False),
        sa.Column("duplicates", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("total_duration", sa.Double, nullable=False),
        sa.Column("bytes_saved", sa.BigInteger, nullable=False),
        sa.Column("first_execution", sa.Double),
        sa.Column("last_execution", sa.Double),
        sa.Column("last_trace_id", sa.String(32)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index(
        "dedup_executions_fingerprint_rule", "dedup_executions", ["fingerprint", "rule"], unique=True
    )
    duplicated, repeated = sa.text("duplicates > 0"), sa.text("execution_count > 1")
    for name, columns, where in (
        ("dedup_executions_duplicates", ["duplicates"], duplicated),
        ("dedup_executions_rule_duplicates", ["rule", "duplicates"], duplicated),
        ("dedup_executions_repeated", ["execution_count"], repeated),
    ):
        op.create_index(name, "dedup_executions", columns, sqlite_where=where, postgresql_where=where)
    op.create_index("dedup_executions_updated", "dedup_executions", ["updated_at"])
    op.create_table(
        "dedup_minutes",
        sa.Column("rule", sa.String(500), primary_key=True),
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hit", sa.BigInteger, nullable=False),
        sa.Column("collapsed", sa.BigInteger, nullable=False),
        sa.Column("forwarded", sa.BigInteger, nullable=False),
        sa.Column("bypassed", sa.BigInteger, nullable=False),
        sa.Column("saved", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("dedup_minutes_minute", "dedup_minutes", ["minute"])
    op.create_table(
        "dedup_reasons",
        sa.Column("rule", sa.String(500), primary_key=True),
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.String(32), primary_key=True),
        sa.Column("reason", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("saved", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("dedup_reasons_minute", "dedup_reasons", ["minute"])
    op.create_table(
        "dedup_latencies",
        sa.Column("rule", sa.String(500), primary_key=True),
        sa.Column("minute", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("dedup_latencies_minute", "dedup_latencies", ["minute"])
    op.create_table(
        "dedup_memory",
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("responses", sa.BigInteger, nullable=False),
        sa.Column("evicted", sa.BigInteger, nullable=False),
        sa.Column("expired", sa.BigInteger, nullable=False),
        sa.Column("invalidated", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "dedup_writers",
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("dedup_writers_at", "dedup_writers", ["at"])
    op.create_table(
        "dedup_audit",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("what", sa.String(200), nullable=False),
        sa.Column("target", sa.String(500)),
        sa.Column("result", sa.String(200), nullable=False),
    )
    op.create_index("dedup_audit_at", "dedup_audit", ["at"])


def downgrade() -> None:
    """Drop the tables, and all that is in them."""
    for name in ("audit", "writers", "memory", "latencies", "reasons", "minutes", "executions"):
        op.drop_table(f"dedup_{name}")
