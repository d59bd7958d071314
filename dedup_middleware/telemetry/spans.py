"""Spans: of requests, of forwards, and what others link to.

Law: what is not sampled is not told of; no span is named by a path; nothing here can fail a request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from ..core.names import NOISE
from .attributes import Attributes, place, result, title
from .guard import Warns, failed, harmless
from .instruments import SCOPE_NAME, Tally

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ..core.http import Headers, StoredResponse
    from ..core.status import Outcome, Reason
    from .told import Told


_CARRIED: Final = frozenset(NOISE) | {b"baggage"}
"""Request fields that may carry a trace's context, in whichever form the propagator reads."""
_INTERNAL: Final = SpanKind.INTERNAL
_RECHECK: Final = 1.0
"""Seconds between looks for a tracer provider that was set after the start."""


class Trace:
    """One forward's span, as much of it as others link to: nothing where it is not sampled.

    `link` is made once for all who link to it.
    """

    __slots__ = ("context", "flight", "link", "span")

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        sampled = context.is_valid and context.trace_flags.sampled
        self.span = span
        self.context: SpanContext | None = context if sampled else None
        self.flight: str | None = trace.format_span_id(context.span_id) if sampled else None
        self.link: Link | None = Link(context) if sampled else None

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


def above(headers: Headers | None) -> Context | None:
    """What a request's span stands below: the current span, else what the request's trace fields say."""
    if not headers or _CARRIED.isdisjoint(next(zip(*headers))):  # noqa: B905 - pairs, by the ASGI specification
        return None
    return _extracted(headers)


def _extracted(headers: Headers) -> Context | None:
    if trace.get_current_span().get_span_context().is_valid:
        return None
    carried = [pair for pair in headers if pair[0] in _CARRIED]
    return propagate.extract({name.decode("latin-1"): value.decode("latin-1") for name, value in carried})


@lru_cache(maxsize=1024)
def _hit(
    reason: Reason, label: str, method: str, route: str | None, status: int
) -> tuple[str, Attributes, str | None]:
    """A hit's name, what its attributes have in common with others', and its error."""
    attributes = place(label, method, None, route)
    attributes |= {"dedup.outcome": "hit", "dedup.reason": reason}
    error = result(attributes, status, None)
    return title("hit", attributes), attributes, error


_ToldOfHits = tuple[Tally, int, str, Attributes, tuple[Link, ...] | None, str | None]
"""What the spans of a stored response's hits have in common, which is all but when they were.

The tally and the status that it is made for; then name, attributes, links and error.
"""


def _hits(tally: Tally, status: int, key: bytes, stored: StoredResponse) -> _ToldOfHits:
    """Made once, as long as nobody asks otherwise."""
    name, common, error = _hit(tally.reason, tally.label, tally.method, stored.route, status)
    attributes = {**common, "dedup.key": key.hex(), "dedup.saved": round(stored.seconds, 6), "dedup.age": 0.0}
    links = None
    if stored.flight is not None:
        attributes["dedup.flight"] = stored.flight
        links = (stored.link,)
    stored.told = told = (tally, status, name, attributes, links, error)
    return told


class Spans(Warns):
    """The spans of one engine; whoever inherits them says how it warns."""

    def __init__(self, version: str, tracer_provider: TracerProvider | None) -> None:
        self._version = version
        self._tracer_provider = tracer_provider
        self.found: Tracer | None = None
        self.look_again = float("-inf")
        self.quiet_until = float("-inf")  # before then nobody wants to hear of a hit: no tracer, no log

    def tracer(self, now: float) -> Tracer | None:
        """The tracer, or None as long as no SDK is there."""
        if self.found is None and now >= self.look_again:
            self.look_again = now + _RECHECK
            self._find_tracer()
        return self.found

    @harmless
    def _find_tracer(self) -> None:
        provider = self._tracer_provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            tracer = provider.get_tracer(SCOPE_NAME, self._version)
            if not isinstance(tracer, trace.NoOpTracer):
                self.found = tracer

    @harmless
    def start_request(
        self,
        tracer: Tracer,
        outcome: Outcome,
        label: str,
        method: str,
        started: int,
        headers: Headers | None = None,
    ) -> Span:
        """The span of a request that will have others below it; named anew when its outcome is known."""
        name = title(outcome, place(label, method))
        return tracer.start_span(name, above(headers), SpanKind.INTERNAL, start_time=started)

    @harmless
    def start_forward(
        self, tracer: Tracer, parent: Span | None, label: str, method: str, key: object
    ) -> Trace:
        """The span of a forward, child of its leader's request."""
        above = None if parent is None else trace.set_span_in_context(parent)
        attributes = place(label, method, key)
        return Trace(tracer.start_span(title("forward", attributes), above, SpanKind.INTERNAL, attributes))

    @harmless
    def enter(self, span: Span) -> otel_context.Context:
        """Make a span current in this task; the answer is for `leave`, where the task outlives the span."""
        before = otel_context.get_current()
        otel_context.attach(trace.set_span_in_context(span))
        return before

    @harmless
    def leave(self, span: Span, before: otel_context.Context) -> None:
        """What was current before is current again; by value, so that no token meets a different Context."""
        if trace.get_current_span() is span:
            otel_context.attach(before)

    @harmless
    def start_alert(self, now: float, alert: str, attributes: Attributes) -> Span | None:
        """A short span around an alert's log line, so that the one leads to the other; what it says is its event."""
        tracer = self.tracer(now)
        if tracer is None:
            return None
        span = tracer.start_span(f"alert {alert}", None, SpanKind.INTERNAL, attributes)
        span.add_event("dedup.alert", attributes)
        return span

    @harmless
    def end_alert(self, span: Span) -> None:
        """The alert is told."""
        span.end()

    @harmless
    def head(self, forward: Trace) -> None:
        """The forward's response has begun."""
        forward.span.add_event("head")

    @harmless
    def end_forward(
        self,
        forward: Trace,
        label: str,
        method: str,
        key: object,
        followers: int,
        *,
        status: int = 0,
        route: str | None = None,
        error: str | None = None,
    ) -> None:
        """A forward is over."""
        attributes = place(label, method, key, route, forward.flight)
        attributes["dedup.followers"] = followers
        error = result(attributes, status, error)
        end(forward.span, title("forward", attributes), attributes, error)

    @harmless
    def tell(
        self,
        tracer: Tracer,
        started: int,
        told: Told,
        headers: Headers | None = None,
        span: Span | None = None,
    ) -> None:
        """A request is over: its span is made, or ended where it has one already because it led."""
        attributes = place(told.label, told.method, told.key, told.route, told.flight)
        attributes["dedup.outcome"] = told.outcome
        attributes["dedup.reason"] = told.reason
        for what, value in told.seconds():
            attributes[f"dedup.{what}"] = value
        error = result(attributes, told.status, told.error)
        name = title(told.outcome, attributes)
        if span is not None:
            if told.link is not None:
                span.add_link(told.link.context)
            if told.head_at is not None:
                span.add_event("head", None, told.head_at)
            end(span, name, attributes, error)
            return
        links = None if told.link is None else (told.link,)
        span = tracer.start_span(name, above(headers), SpanKind.INTERNAL, attributes, links, started)
        if told.head_at is not None:
            span.add_event("head", None, told.head_at)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def hit(
        self,
        tracer: Tracer,
        started: int,
        tally: Tally,
        key: bytes,
        status: int,
        stored: StoredResponse,
        age: float,
        headers: Headers,
    ) -> None:
        """`tell` for a hit, without detours: all but the SDK's own work is next to nothing."""
        try:
            told: _ToldOfHits = stored.told or _hits(tally, status, key, stored)
            of, answered, name, common, links, error = told
            if of is not tally or answered != status:
                _, _, name, common, links, error = _hits(tally, status, key, stored)
            attributes = common.copy()
            attributes["dedup.age"] = (age * 1e6 + 0.5) // 1 / 1e6  # `round`, without a call
            span = tracer.start_span(name, above(headers), _INTERNAL, attributes, links, started)
            if error is not None:
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        except Exception as failure:  # noqa: BLE001 - as `harmless`, without another call on the way
            failed(self, "hit", failure)
