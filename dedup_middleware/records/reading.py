"""Reading: rows into records. What can be derived is derived here, so that no two figures disagree."""

from __future__ import annotations

from typing import Any

import msgspec

from . import Execution


def execution_of(row: Any) -> Execution:
    """A row of the executions' table as a record."""
    requests = row.execution_count + row.collapsed + row.cache_hits
    average = row.total_duration / row.execution_count if row.execution_count else 0.0
    return Execution(
        id=row.id,
        rule=row.rule,
        fingerprint=row.fingerprint,
        method=row.method,
        route=row.route,
        execution_count=row.execution_count,
        collapsed=row.collapsed,
        cache_hits=row.cache_hits,
        duplicates=row.duplicates,
        errors=row.errors,
        total_duration=row.total_duration,
        average_duration=average,
        cache_hit_rate=row.cache_hits / requests if requests else 0.0,
        hit_rate=row.duplicates / requests if requests else 0.0,
        saved=row.duplicates * average,
        bytes_saved=row.bytes_saved,
        first_execution=row.first_execution,
        last_execution=row.last_execution,
        last_trace_id=row.last_trace_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        tags=tuple(msgspec.json.decode(row.tags)) if row.tags else (),
    )
