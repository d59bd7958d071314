"""Telemetry: outcomes as metrics and spans, by the OpenTelemetry API alone.

Law: a hit pays for an integer, no more, unless a tracer records; nothing here can fail or hold up a request.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from .core.status import Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

log: Final = logging.getLogger("dedup_middleware")
log.addHandler(logging.NullHandler())

__all__ = [
    "Attributes",
    "Gauges",
    "MeterProvider",
    "Span",
    "Telemetry",
    "Trace",
    "TracerProvider",
    "log",
    "span_name",
]

SCOPE_NAME: Final = "dedup_middleware"
Attributes = dict[str, str | int | float]
CountKey = tuple[Outcome, Reason, str, str]
KNOWN_METHODS: Final = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())
_RECHECK: Final = 1.0
"""Seconds between looks for a tracer provider that was set after the start."""
_REPEAT: Final = 60.0
"""Seconds between two log lines of one kind about our own parts."""


class Gauges:
    """What the observable instruments read, set by the engine; each a function that only reads."""

    __slots__ = ("bytes", "evictions", "flights")

    def __init__(
        self, flights: Callable[[], int], bytes_: Callable[[], int], evictions: Callable[[], int]
    ) -> None:
        self.flights = flights
        self.bytes = bytes_
        self.evictions = evictions


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


class Telemetry:
    """Counts, histograms and spans of one engine."""

    def __init__(
        self,
        version: str,
        gauges: Gauges,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self.counts: dict[CountKey, int] = {}
        self.saved: dict[tuple[Outcome, str], float] = {}
        self._version = version
        self._tracer_provider = tracer_provider
        self._tracer: trace.Tracer | None = None
        self._look_again = 0.0
        self._logged: dict[str, float] = {}
        meter = metrics.get_meter(SCOPE_NAME, version, meter_provider)
        self.forward_duration = meter.create_histogram(
            "dedup.forward.duration", "s", "How long forwards took"
        )
        self.wait_duration = meter.create_histogram("dedup.wait.duration", "s", "How long followers waited")
        self.flight_followers = meter.create_histogram(
            "dedup.flight.followers", "{request}", "Followers a flight"
        )
        self.store_operation = meter.create_histogram(
            "dedup.store.operation.duration", "s", "How long invalidations and sweeps took"
        )
        meter.create_observable_counter(
            "dedup.requests", [self._observe_requests], "{request}", "Requests by outcome and reason"
        )
        meter.create_observable_counter(
            "dedup.saved.duration", [self._observe_saved], "s", "Seconds of forwards that did not run"
        )
        meter.create_observable_up_down_counter(
            "dedup.flights.active", [_reading(gauges.flights)], "{flight}", "Flights under way"
        )
        meter.create_observable_up_down_counter(
            "dedup.store.size", [_reading(gauges.bytes)], "By", "Bytes that stored responses are charged for"
        )
        meter.create_observable_counter(
            "dedup.evictions",
            [_reading(gauges.evictions)],
            "{response}",
            "Stored responses evicted by capacity",
        )

    # -- counts -------------------------------------------------------------------------------------------------

    def count(self, outcome: Outcome, reason: Reason, label: str, method: str, saved: float = 0.0) -> None:
        """One request more; `saved` are the seconds of the forward that it did not need."""
        key = (outcome, reason, label, method if method in KNOWN_METHODS else "_OTHER")
        try:
            self.counts[key] += 1
        except KeyError:
            self.counts[key] = 1
        if saved:
            saved_key = (outcome, label)
            self.saved[saved_key] = self.saved.get(saved_key, 0.0) + saved

    def _observe_requests(self, _: CallbackOptions) -> Iterable[Observation]:
        for (outcome, reason, label, method), number in list(self.counts.items()):
            yield Observation(number, _labels(outcome, reason, label, method))

    def _observe_saved(self, _: CallbackOptions) -> Iterable[Observation]:
        for (outcome, label), seconds in list(self.saved.items()):
            yield Observation(seconds, {"dedup.outcome": outcome, "dedup.rule": label})

    def record_forward(self, seconds: float, followers: int, label: str, method: str | None) -> None:
        """A forward is over."""
        attributes: Attributes = {"dedup.rule": label}
        if method is not None:
            attributes["http.request.method"] = method if method in KNOWN_METHODS else "_OTHER"
        self.forward_duration.record(seconds, attributes)
        self.flight_followers.record(followers, attributes)

    def record_wait(self, seconds: float, label: str) -> None:
        """A follower has its last byte."""
        self.wait_duration.record(seconds, {"dedup.rule": label})

    def record_store(self, seconds: float, operation: str) -> None:
        """A store operation that is not on a hit's way."""
        self.store_operation.record(seconds, {"dedup.operation": operation})

    # -- spans --------------------------------------------------------------------------------------------------

    def tracer(self, now: float) -> trace.Tracer | None:
        """The tracer, or None as long as no SDK is there."""
        if self._tracer is None and now >= self._look_again:
            self._look_again = now + _RECHECK
            provider = self._tracer_provider or trace.get_tracer_provider()
            if not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
                self._tracer = provider.get_tracer(SCOPE_NAME, self._version)
        return self._tracer

    @staticmethod
    def start_request(tracer: trace.Tracer, name: str, started: int) -> Span:
        """The span of a request that will lead; named anew when its outcome is known."""
        return tracer.start_span(name, kind=SpanKind.INTERNAL, start_time=started)

    @staticmethod
    def start_forward(tracer: trace.Tracer, name: str, parent: Span, attributes: Attributes) -> Trace:
        """The span of a forward, child of its leader's request."""
        context = trace.set_span_in_context(parent)
        return Trace(tracer.start_span(name, context, SpanKind.INTERNAL, attributes))

    @staticmethod
    def enter_forward(forward: Trace) -> None:
        """The forward's span is current in the flight's own context, which ends with its task."""
        otel_context.attach(trace.set_span_in_context(forward.span))

    @staticmethod
    def request_span(
        tracer: trace.Tracer,
        name: str,
        started: int,
        attributes: Attributes,
        link: SpanContext | None = None,
        head_at: int | None = None,
        error: bool = False,
    ) -> None:
        """The span of a request that needed no forward of its own, made when it is over."""
        links = None if link is None else [Link(link)]
        span = tracer.start_span(name, None, SpanKind.INTERNAL, attributes, links, started)
        if head_at is not None:
            span.add_event("head", timestamp=head_at)
        if error:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    @staticmethod
    def end(span: Span, name: str, attributes: Attributes, error: str | None = None) -> None:
        """A leader's or a forward's span is over."""
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(attributes)
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    # -- log ----------------------------------------------------------------------------------------------------

    def warn(self, kind: str, message: str, *args: object, **extra: object) -> None:
        """A warning about our own parts, at most once a minute a kind."""
        now = time.monotonic()
        if now - self._logged.get(kind, -_REPEAT) >= _REPEAT:
            self._logged[kind] = now
            log.warning(message, *args, extra={"dedup_kind": kind, **extra})


def span_name(outcome: str, route: str | None, label: str, method: str) -> str:
    """`{outcome} {route}`: http.route, else the rule's name, else the method; never a raw path."""
    return f"{outcome} {route or (label if label != DEFAULT_LABEL else method)}"


DEFAULT_LABEL: Final = "default"


def _labels(outcome: Outcome, reason: Reason, label: str, method: str) -> Mapping[str, str]:
    labels = {"dedup.outcome": outcome, "dedup.reason": reason, "dedup.rule": label}
    return {**labels, "http.request.method": method} if method else labels


def _reading(read: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(read())

    return observe
