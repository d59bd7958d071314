"""A burst as the page draws it: one row a request, built from the spans that the middleware made.

A row says who answered it: its own flight, another's (collapsed into it), or the store. Under `work` stands what
really ran; under `shared` what the request asked of `dedup.call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .recorder import Seen
from .work import Step

if TYPE_CHECKING:
    from .burst import Answer, Refresh
    from .recorder import Value


class Recorded(msgspec.Struct, frozen=True):
    """What a server remembers of some traces."""

    spans: list[Seen]
    steps: list[Step]


class Piece(msgspec.Struct, frozen=True):
    """A stretch of time inside a row: milliseconds since the burst began."""

    name: str
    start: float
    end: float
    outcome: str = ""


class Row(msgspec.Struct, frozen=True):
    id: str
    page: int
    operation: str
    target: str
    status: int
    outcome: str
    reason: str
    rule: str
    cache_status: str
    bytes: int
    start: float
    first_byte: float
    end: float
    flight: str
    """The id of the forward that its answer came from; empty when there is none."""
    leader: str
    """The row that opened this flight; empty when it is this one, or was no part of this burst."""
    followers: int
    stored: bool
    waited: float | None
    saved: float | None
    age: float | None
    """Seconds."""
    server: float | None
    """Milliseconds that the server itself took, by the request's span; the rest is the way there and the queue."""
    work: list[Piece]
    shared: list[Piece]


class Timeline(msgspec.Struct, frozen=True):
    middleware: bool
    pages: int
    traces: list[str]
    rows: list[Row]
    milliseconds: float
    executions: int
    outcomes: dict[str, int]


def draw(refreshes: list[Refresh], recorded: Recorded, *, middleware: bool) -> Timeline:
    answers = [answer for refresh in refreshes for answer in refresh.answers]
    began = min(answer.start for answer in answers)
    own: dict[str, list[Seen]] = {}
    for span in recorded.spans:
        own.setdefault(span.request_id, []).append(span)
    steps: dict[str, list[Step]] = {}
    known = {answer.id for answer in answers}
    for step in recorded.steps:
        if step.request_id in known and step.start >= began:
            steps.setdefault(step.request_id, []).append(step)
    leaders = {
        _text(span, "dedup.flight"): answer.id
        for answer in answers
        for span in own.get(answer.id, [])
        if _is_forward(span)
    }
    rows = [
        _row(answer, own.get(answer.id, []), steps.get(answer.id, []), leaders, began) for answer in answers
    ]
    outcomes: dict[str, int] = {}
    for row in rows:
        outcomes[row.outcome] = outcomes.get(row.outcome, 0) + 1
    return Timeline(
        middleware=middleware,
        pages=len(refreshes),
        traces=[refresh.trace for refresh in refreshes],
        rows=rows,
        milliseconds=max(row.end for row in rows),
        executions=sum(map(len, steps.values())),
        outcomes=outcomes,
    )


def _row(answer: Answer, spans: list[Seen], steps: list[Step], leaders: dict[str, str], began: int) -> Row:
    request = next((span for span in spans if _is_request(span)), None)
    forward = next((span for span in spans if _is_forward(span)), None)
    flight = _text(request, "dedup.flight") or _text(forward, "dedup.flight")
    leader = leaders.get(flight, "")
    return Row(
        id=answer.id,
        page=answer.page,
        operation=answer.operation,
        target=answer.target,
        status=answer.status,
        outcome=_text(request, "dedup.outcome") or answer.outcome,
        reason=_text(request, "dedup.reason"),
        rule=_text(request, "dedup.rule"),
        cache_status=answer.cache_status,
        bytes=answer.bytes,
        start=_since(began, answer.start),
        first_byte=_since(began, answer.first_byte),
        end=_since(began, answer.end),
        flight=flight,
        leader="" if leader == answer.id else leader,
        followers=int(_number(forward, "dedup.followers") or 0),
        stored="stored" in [part.strip() for part in answer.cache_status.split(";")],
        waited=_number(request, "dedup.waited"),
        saved=_number(request, "dedup.saved"),
        age=_number(request, "dedup.age"),
        server=round((request.end - request.start) / 1e6, 3) if request else None,
        work=[Piece(step.name, _since(began, step.start), _since(began, step.end)) for step in steps],
        shared=[
            Piece(span.name, _since(began, span.start), _since(began, span.end), _text(span, "dedup.outcome"))
            for span in spans
            if _is_function(span)
        ],
    )


def _is_request(span: Seen) -> bool:
    return "dedup.outcome" in span.attributes and "http.request.method" in span.attributes


def _is_function(span: Seen) -> bool:
    return "dedup.outcome" in span.attributes and "http.request.method" not in span.attributes


def _is_forward(span: Seen) -> bool:
    """A request's flight; a function's has no method."""
    return span.name.startswith("forward ") and "http.request.method" in span.attributes


def _text(span: Seen | None, name: str) -> str:
    value: Value = span.attributes.get(name, "") if span else ""
    return str(value)


def _number(span: Seen | None, name: str) -> float | None:
    value = span.attributes.get(name) if span else None
    return float(value) if isinstance(value, (int, float)) else None


def _since(began: int, time: int) -> float:
    return round((time - began) / 1e6, 3)
