"""Answers: what analytics give, as frozen values whose JSON is their schema.

Law: durations are seconds, times seconds since the epoch, rates and shares 0 to 1; a rule that is "" is all rules.
"""

from __future__ import annotations

import msgspec


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list; `more` says whether there is more after it."""

    offset: int
    limit: int
    more: bool


class _Spanning(_Page, frozen=True, kw_only=True):
    since: float
    until: float


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: what ran under one fingerprint, how often it was answered without running, and what that saved.

    All counts are those since `since`, when it was first seen, whichever window it was asked for with.
    """

    rule: str
    key: str
    method: str | None
    route: str | None
    tags: tuple[str, ...]
    executions: int
    collapsed: int
    hits: int
    duplicates: int
    errors: int
    total: float
    average: float
    hit_rate: float
    saved: float
    bytes_saved: int
    since: float
    last: float
    trace_id: str | None


class Operations(_Page, frozen=True, kw_only=True):
    """Operations, those with the most duplicates (or executions) first."""

    items: list[Operation]


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests had one outcome for one reason, and which share of all these are."""

    outcome: str
    reason: str
    requests: int
    share: float
    saved: float


class RuleRates(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's requests, by outcome and by reason."""

    rule: str
    requests: int
    outcomes: dict[str, int]
    duplicates: int
    hit_rate: float
    collapse_rate: float
    bypass_rate: float
    saved: float
    reasons: list[Reason]


class Rates(_Spanning, frozen=True, kw_only=True):
    """How requests were answered."""

    total: RuleRates
    items: list[RuleRates]


class Percentiles(msgspec.Struct, frozen=True):
    """Durations that a half, 95 and 99 of a hundred requests did not exceed; None where there was none."""

    p50: float | None
    p95: float | None
    p99: float | None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long requests took, and would have taken with a forward of their own each."""

    rule: str
    requests: int
    with_dedup: Percentiles
    without_dedup: Percentiles


class Latencies(_Spanning, frozen=True, kw_only=True):
    """Latencies, of all and rule by rule."""

    total: Latency
    items: list[Latency]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's requests in one hour of a weekday (0 is Monday)."""

    rule: str
    weekday: int
    hour: int
    requests: int
    duplicates: int
    saved: float


class Heatmap(msgspec.Struct, frozen=True, kw_only=True):
    """When duplicates come: cells that have requests."""

    since: float
    until: float
    offset_minutes: int
    cells: list[Cell]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure now and before; `change` is the part by which it grew (0.5: by half), None where there was none."""

    now: float
    before: float
    change: float | None


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's figures against those of the window before."""

    rule: str
    requests: Change
    duplicates: Change
    hit_rate: Change
    saved: Change


class Trends(msgspec.Struct, frozen=True, kw_only=True):
    """The window against the one before."""

    since: float
    until: float
    total: Trend
    items: list[Trend]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's requests by outcome, in the step that begins at a time."""

    at: float
    rule: str
    requests: dict[str, int]
    duplicates: int
    saved: float


class Series(_Spanning, frozen=True, kw_only=True):
    """Requests over time, in steps of so many seconds."""

    step: int
    items: list[Point]


class MemoryPoint(msgspec.Struct, frozen=True):
    """What the fullest store held at most in a step, and what left the stores in it."""

    at: float
    bytes: int
    responses: int
    evicted: int
    expired: int
    invalidated: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Stores over time, in steps of so many seconds."""

    since: float
    until: float
    step: int
    items: list[MemoryPoint]


class Audit(msgspec.Struct, frozen=True):
    """Who did what to what, when, and what came of it."""

    at: float
    who: str
    what: str
    target: str | None
    result: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the audit log, the youngest first."""

    total: int
    offset: int
    limit: int
    items: list[Audit]
