"""The last spans of a server process, kept in memory for the page's timeline; the oldest go first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from .work import REQUEST_ID

if TYPE_CHECKING:
    from opentelemetry.context import Context

KEPT = 5000

Value = str | int | float | bool


class Seen(msgspec.Struct, frozen=True):
    """One ended span: times are Unix time in nanoseconds, ids are hex."""

    trace: str
    span: str
    parent: str | None
    name: str
    start: int
    end: int
    attributes: dict[str, Value]
    links: list[str]
    """The spans it links to."""
    request_id: str


class Recorder(SpanProcessor):
    def __init__(self) -> None:
        self._spans: deque[Seen] = deque(maxlen=KEPT)
        self._open: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  the SDK's signature
        if len(self._open) < KEPT:
            self._open[span.get_span_context().span_id] = REQUEST_ID.get()

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None or span.start_time is None or span.end_time is None:
            return
        attributes = {
            name: value
            for name, value in (span.attributes or {}).items()
            if isinstance(value, (str, int, float, bool))
        }
        seen = Seen(
            trace=f"{context.trace_id:032x}",
            span=f"{context.span_id:016x}",
            parent=f"{span.parent.span_id:016x}" if span.parent else None,
            name=span.name,
            start=span.start_time,
            end=span.end_time,
            attributes=attributes,
            links=[f"{link.context.span_id:016x}" for link in span.links],
            request_id=self._open.pop(context.span_id, ""),
        )
        self._spans.append(seen)

    def of(self, traces: set[str]) -> list[Seen]:
        return [seen for seen in list(self._spans) if seen.trace in traces]
