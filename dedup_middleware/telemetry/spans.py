"""Spans: what others link to, and how one ends.

Law: what is not sampled is not told of; a span that was started ends, whatever else fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode

if TYPE_CHECKING:
    from .attributes import Attributes


class Trace:
    """One forward's span, as much of it as others link to: nothing where it is not sampled."""

    __slots__ = ("context", "flight", "span")

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        sampled = context.is_valid and context.trace_flags.sampled
        self.span = span
        self.context: SpanContext | None = context if sampled else None
        self.flight: str | None = trace.format_span_id(context.span_id) if sampled else None

    @property
    def trace_id(self) -> str | None:
        """The trace in hex."""
        return None if self.context is None else trace.format_trace_id(self.context.trace_id)


def end(span: Span, name: str, attributes: Attributes, error: str | None) -> None:
    """Name it by its outcome, say how it went, and end it."""
    try:
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(attributes)
            if error is not None:
                span.set_status(Status(StatusCode.ERROR))
    finally:
        span.end()
