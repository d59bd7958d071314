"""Gathering: what happened, added up by what it is stored under, until it is written.

Law: bounded: when so much waits that nothing new fits, what is known already is still added up, and the rest is dropped
and counted. Nothing here awaits, reads a clock or knows a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from .histogram import bucket
from .outcomes import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..events import ExecutionCollapsed, ExecutionCompleted

MAX_EXECUTIONS: Final = 10_000
"""Fingerprints that wait to be written."""
MAX_ROLLUPS: Final = 20_000
"""Rows of the time series that wait to be written."""
CHUNK: Final = 500
"""Rows that are written in one transaction."""
_FLIGHTS: Final = 4096
_LONGEST: Final = 500

Kind = Literal["with", "without"]
Table = Literal["executions", "minutes", "reasons", "latencies", "memory"]


class Chunk(msgspec.Struct, frozen=True):
    """Rows that are written together; who wrote it and its number say whether it was written before."""

    writer: str
    number: int
    at: float
    rows: dict[Table, list[dict[str, Any]]]

    @property
    def size(self) -> int:
        """How many rows it holds."""
        return sum(map(len, self.rows.values()))


class _Sum(msgspec.Struct):
    """What is added to one execution record."""

    executions: int = 0
    collapsed: int = 0
    hits: int = 0
    errors: int = 0
    duration: float = 0.0
    bytes_saved: int = 0
    first: float | None = None
    last: float | None = None
    trace_id: str | None = None
    method: str | None = None
    route: str | None = None
    tags: str | None = None


class _Requests(msgspec.Struct):
    number: int = 0
    saved: float = 0.0


class _Flight(msgspec.Struct):
    bytes: int | None = None
    collapsed: int = 0


def clean(text: str, longest: int = _LONGEST) -> str:
    """A text as every database takes it: no NUL, no half of a surrogate pair, not too long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:longest]


class Gathering:
    """What waits to be written. Used by one thread at a time; `dropped` counts what found no room."""

    def __init__(self, max_executions: int = MAX_EXECUTIONS, max_rollups: int = MAX_ROLLUPS) -> None:
        self.dropped = 0
        self._max_executions = max_executions
        self._max_rollups = max_rollups
        self._executions: dict[tuple[str, str], _Sum] = {}
        self._requests: dict[tuple[str, int, str, str], _Requests] = {}
        self._latencies: dict[tuple[str, int, Kind, int], int] = {}
        self._memory: dict[int, dict[str, int]] = {}
        self._flights: dict[int, _Flight] = {}

    def __len__(self) -> int:
        return self._rollups + len(self._executions)

    @property
    def _rollups(self) -> int:
        return len(self._requests) + len(self._latencies) + len(self._memory)

    # -- adding up ----------------------------------------------------------------------------------------------

    def completed(self, event: ExecutionCompleted) -> None:
        """A forward, or a function's run, is over."""
        minute = int(event.at // 60 * 60)
        self._latency(event.rule, minute, "with", event.duration, 1)
        self._latency(event.rule, minute, "without", event.duration, 1)
        flight = self._flight(event.flight)
        flight.bytes = event.bytes
        found = self._execution(event.rule, event.key)
        if found is not None:
            found.executions += 1
            found.errors += event.error is not None
            found.duration += event.duration
            found.bytes_saved += flight.collapsed * event.bytes
            began = event.at - event.duration
            found.first = began if found.first is None else min(found.first, began)
            found.last = began if found.last is None else max(found.last, began)
            found.trace_id = event.trace_id or found.trace_id
            found.method = event.method or found.method
            found.route = event.route or found.route

    def collapsed(self, event: ExecutionCollapsed) -> None:
        """A request was answered by another one's forward."""
        minute = int(event.at // 60 * 60)
        self._latency(event.rule, minute, "with", event.waited, 1)
        self._latency(event.rule, minute, "without", event.saved, 1)
        flight = self._flight(event.flight)
        flight.collapsed += 1
        found = self._execution(event.rule, event.key)
        if found is not None:
            found.collapsed += 1
            found.bytes_saved += flight.bytes or 0  # a flight that runs on tells its bytes at its end

    def hits(self, rule: str, key: str, number: int, bytes_saved: int) -> None:
        """So many requests were answered from the store."""
        if number and (found := self._execution(rule, key, number)) is not None:
            found.hits += number
            found.bytes_saved += bytes_saved

    def tags(self, rule: str, key: str, tags: Iterable[str]) -> None:
        """What a stored response carries: values of URLs, where somebody asked for these."""
        found = self._execution(rule, key)
        if found is not None:
            kept = [clean(tag, 200) for tag in tags][:16]
            found.tags = msgspec.json.encode(kept).decode()

    def requests(self, rule: str, minute: int, outcome: str, reason: str, number: int, saved: float) -> None:
        """So many requests had this outcome for this reason, and saved so many seconds."""
        key = (clean(rule), minute, outcome, reason)
        found = self._requests.get(key)
        if found is None:
            if self._rollups >= self._max_rollups:
                self.dropped += number
                return
            found = self._requests[key] = _Requests()
        found.number += number
        found.saved += saved

    def hit_latency(self, rule: str, minute: int, number: int, took: float, saved: float) -> None:
        """So many hits took `took` seconds each, and saved `saved` seconds each."""
        self._latency(rule, minute, "with", took, number)
        self._latency(rule, minute, "without", saved, number)

    def memory(self, minute: int, *, size: int, responses: int, **counts: int) -> None:
        """What the store holds now, and what left it since this was last told."""
        found = self._memory.setdefault(minute, {"bytes": 0, "responses": 0})
        found["bytes"] = max(found["bytes"], size)
        found["responses"] = max(found["responses"], responses)
        for name, number in counts.items():
            found[name] = found.get(name, 0) + number
        while len(self._memory) > self._max_rollups // 10:
            del self._memory[next(iter(self._memory))]
            self.dropped += 1

    def _execution(self, rule: str, key: str, number: int = 1) -> _Sum | None:
        place = (clean(rule), key)
        found = self._executions.get(place)
        if found is None:
            if len(self._executions) >= self._max_executions:
                self.dropped += number
                return None
            found = self._executions[place] = _Sum()
        return found

    def _latency(self, rule: str, minute: int, kind: Kind, seconds: float, number: int) -> None:
        key = (clean(rule), minute, kind, bucket(seconds))
        if key not in self._latencies and self._rollups >= self._max_rollups:
            self.dropped += number
            return
        self._latencies[key] = self._latencies.get(key, 0) + number

    def _flight(self, number: int) -> _Flight:
        found = self._flights.pop(number, None) or _Flight()
        self._flights[number] = found  # the youngest lie last
        if len(self._flights) > _FLIGHTS:
            del self._flights[next(iter(self._flights))]
        return found

    # -- taking -------------------------------------------------------------------------------------------------

    def take(self, writer: str, number: int, at: float) -> list[Chunk]:
        """All that waits, in chunks numbered from `number` on; nothing waits after that."""
        tables: dict[Table, list[dict[str, Any]]] = {
            "executions": [
                _execution_row(place, self._executions[place], at) for place in sorted(self._executions)
            ],
            "minutes": _minute_rows(self._requests),
            "reasons": [
                {
                    **_named(key, "rule", "minute", "outcome", "reason"),
                    "number": found.number,
                    "saved": found.saved,
                }
                for key, found in sorted(self._requests.items(), key=lambda item: item[0])
            ],
            "latencies": [
                {**_named(key, "rule", "minute", "kind", "bucket"), "number": count}
                for key, count in sorted(self._latencies.items())
            ],
            "memory": [
                {"evicted": 0, "expired": 0, "invalidated": 0, **counts, "minute": minute}
                for minute, counts in sorted(self._memory.items())
            ],
        }
        for rows in (self._executions, self._requests, self._latencies, self._memory):
            rows.clear()
        return [Chunk(writer, number + place, at, rows) for place, rows in enumerate(_portions(tables))]


def _named(key: tuple[Any, ...], *names: str) -> dict[str, Any]:
    return dict(zip(names, key, strict=True))


def _minute_rows(requests: dict[tuple[str, int, str, str], _Requests]) -> list[dict[str, Any]]:
    """Requests by rule and minute: what the reasons add up to."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for (rule, minute, outcome, _), found in sorted(requests.items(), key=lambda item: item[0]):
        row = rows.setdefault(
            (rule, minute), {"rule": rule, "minute": minute, **dict.fromkeys(COLUMNS, 0), "saved": 0.0}
        )
        row[outcome] += found.number
        row["saved"] += found.saved
    return list(rows.values())


def _execution_row(place: tuple[str, str], found: _Sum, at: float) -> dict[str, Any]:
    return {
        "rule": place[0],
        "fingerprint": place[1],
        "method": found.method and clean(found.method, 32),
        "route": found.route and clean(found.route),
        "tags": found.tags,
        "execution_count": found.executions,
        "collapsed": found.collapsed,
        "cache_hits": found.hits,
        "duplicates": found.collapsed + found.hits,
        "errors": found.errors,
        "total_duration": found.duration,
        "bytes_saved": found.bytes_saved,
        "first_execution": found.first,
        "last_execution": found.last,
        "last_trace_id": found.trace_id,
        "created_at": at,
        "updated_at": at,
    }


def _portions(tables: dict[Table, list[dict[str, Any]]]) -> Iterator[dict[Table, list[dict[str, Any]]]]:
    """The rows in portions of a chunk's size, always in the same order: two writers then never block each other."""
    portion: dict[Table, list[dict[str, Any]]] = {}
    room = CHUNK
    for table, rows in tables.items():
        start = 0
        while start < len(rows):
            taken = rows[start : start + room]
            portion[table] = taken
            start += len(taken)
            room -= len(taken)
            if not room:
                yield portion
                portion, room = {}, CHUNK
    if portion:
        yield portion
