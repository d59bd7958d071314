"""Telemetry: outcomes as metrics, spans and log lines; the only room that knows OpenTelemetry, and its API alone.

Law: a hit pays for an integer, no more, unless a tracer records; nothing here can fail or hold up a request.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from .attributes import known, place, result, title
from .instruments import SCOPE_NAME, CountKey, Gauges, Instruments, instruments
from .spans import Trace, end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.status import Outcome, Reason
    from .attributes import Attributes

__all__ = [
    "DEBUG",
    "CountKey",
    "Gauges",
    "MeterProvider",
    "Span",
    "Telemetry",
    "Trace",
    "Tracer",
    "TracerProvider",
    "flights_log",
    "log",
    "parts_log",
    "requests_log",
]

log: Final = logging.getLogger("dedup_middleware")
log.addHandler(logging.NullHandler())
requests_log: Final = log.getChild("requests")
"""Hits and collapses, at DEBUG."""
flights_log: Final = log.getChild("flights")
"""Failed forwards that others waited for, at WARNING."""
parts_log: Final = log.getChild("parts")
"""Failures of our own parts, at WARNING, at most once a minute a kind."""

DEBUG: Final = logging.DEBUG

_RECHECK: Final = 1.0
"""Seconds between looks for a tracer provider that was set after the start."""
_REPEAT: Final = 60.0
"""Seconds between two log lines of one kind about our own parts."""

Seconds = tuple[tuple[str, float], ...]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _harmless(
    method: Callable[Concatenate[Telemetry, _P], _R],
) -> Callable[Concatenate[Telemetry, _P], _R | None]:
    """A processor, exporter or log handler that raises costs a line a minute, and no request."""

    @functools.wraps(method)
    def guarded(self: Telemetry, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no fault of the request
            self.warn("telemetry", "telemetry: %s failed with %s", method.__name__, type(error).__qualname__)
            return None

    return guarded


class Telemetry:
    """Counts, histograms, spans and log lines of one engine."""

    def __init__(
        self,
        version: str,
        gauges: Gauges,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self.counts: dict[CountKey, int] = {}
        self.saved: dict[tuple[Outcome, str], float] = {}
        self.gauges = gauges
        self._version = version
        self._tracer_provider = tracer_provider
        self.found: Tracer | None = None
        self.look_again = float("-inf")
        self._logged: dict[str, float] = {}
        self._waits: list[tuple[float, str]] = []
        self._instruments = self._join(meter_provider) or Instruments(metrics.NoOpMeter(SCOPE_NAME))

    @_harmless
    def _join(self, provider: MeterProvider | None) -> Instruments:
        found = instruments(self._version, provider)
        found.add(self)
        return found

    # -- metrics ------------------------------------------------------------------------------------------------

    def count(self, outcome: Outcome, reason: Reason, label: str, method: str, saved: float = 0.0) -> None:
        """One request more; `saved` are the seconds of the forward that it did not need.

        From any thread: nothing between reading and writing a number lets another thread in.
        """
        self.tally((outcome, reason, label, known(method)), (outcome, label), saved)

    @staticmethod
    def keys(
        outcome: Outcome, reason: Reason, label: str, method: str
    ) -> tuple[CountKey, tuple[Outcome, str]]:
        """The keys for `tally`."""
        return (outcome, reason, label, known(method)), (outcome, label)

    def tally(self, key: CountKey, where: tuple[Outcome, str], saved: float) -> None:
        """`count` for one who has the keys ready."""
        try:
            self.counts[key] += 1
        except KeyError:
            self.counts.setdefault(key, 0)
            self.counts[key] += 1
        if saved:
            try:
                self.saved[where] += saved
            except KeyError:
                self.saved.setdefault(where, 0.0)
                self.saved[where] += saved

    @_harmless
    def record_forward(self, seconds: float, followers: int, label: str, method: str) -> None:
        """A forward is over."""
        attributes = place(label, method)
        self._instruments.forward_duration.record(seconds, attributes)
        if followers:
            self._instruments.flight_followers.record(followers, attributes)

    def record_wait(self, seconds: float, label: str, later: Callable[[Callable[[], None]], object]) -> None:
        """A follower has its last byte; recorded `later`, when those that were woken with it have theirs."""
        self._waits.append((seconds, label))
        if len(self._waits) == 1:
            later(self._record_waits)

    @_harmless
    def _record_waits(self) -> None:
        waits, self._waits = self._waits, []
        for seconds, label in waits:
            self._instruments.wait_duration.record(seconds, {"dedup.rule": label})

    @_harmless
    def record_store(self, seconds: float, operation: str) -> None:
        """A store operation that is not on a hit's way: `invalidate` or `sweep`."""
        self._instruments.store_operation.record(seconds, {"dedup.operation": operation})

    @_harmless
    def store_failed(self, operation: str, error: str) -> None:
        """A store operation raised."""
        self.warn("store", "the store failed to %s (%s): requests go on without it", operation, error)
        attributes = {"dedup.operation": operation, "error.type": error}
        self._instruments.store_operation.record(0.0, attributes)

    # -- spans --------------------------------------------------------------------------------------------------

    def tracer(self, now: float) -> Tracer | None:
        """The tracer, or None as long as no SDK is there."""
        if self.found is None and now >= self.look_again:
            self.look_again = now + _RECHECK
            self._find_tracer()
        return self.found

    @_harmless
    def _find_tracer(self) -> None:
        provider = self._tracer_provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            tracer = provider.get_tracer(SCOPE_NAME, self._version)
            if not isinstance(tracer, trace.NoOpTracer):
                self.found = tracer

    @_harmless
    def start_request(self, tracer: Tracer, outcome: Outcome, label: str, method: str, started: int) -> Span:
        """The span of a request that will have others below it; named anew when its outcome is known."""
        name = title(outcome, place(label, method))
        return tracer.start_span(name, kind=SpanKind.INTERNAL, start_time=started)

    @_harmless
    def start_forward(
        self, tracer: Tracer, parent: Span | None, label: str, method: str, key: object
    ) -> Trace:
        """The span of a forward, child of its leader's request."""
        above = None if parent is None else trace.set_span_in_context(parent)
        attributes = place(label, method, key)
        return Trace(tracer.start_span(title("forward", attributes), above, SpanKind.INTERNAL, attributes))

    @_harmless
    def enter(self, span: Span) -> otel_context.Context:
        """Make a span current in this task; the answer is for `leave`, where the task outlives the span."""
        before = otel_context.get_current()
        otel_context.attach(trace.set_span_in_context(span))
        return before

    @_harmless
    def leave(self, span: Span, before: otel_context.Context) -> None:
        """What was current before is current again; by value, so that no token meets a different Context."""
        if trace.get_current_span() is span:
            otel_context.attach(before)

    @_harmless
    def head(self, forward: Trace) -> None:
        """The forward's response has begun."""
        forward.span.add_event("head")

    @_harmless
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

    @_harmless
    def tell(
        self,
        tracer: Tracer,
        started: int,
        outcome: Outcome,
        reason: Reason,
        label: str,
        method: str,
        key: object = None,
        *,
        status: int = 0,
        route: str | None = None,
        flight: str | None = None,
        link: SpanContext | None = None,
        head_at: int | None = None,
        error: str | None = None,
        span: Span | None = None,
        seconds: Seconds = (),
    ) -> None:
        """A request is over: its span is made, or ended where it has one already because it led.

        `link` is the forward that the answer came from; `seconds` are `waited`, `saved` and `age`.
        """
        attributes = place(label, method, key, route, flight)
        attributes["dedup.outcome"] = outcome
        attributes["dedup.reason"] = reason
        for what, value in seconds:
            attributes[f"dedup.{what}"] = round(value, 6)
        error = result(attributes, status, error)
        name = title(outcome, attributes)
        if span is not None:
            if link is not None:
                span.add_link(link)
            if head_at is not None:
                span.add_event("head", None, head_at)
            end(span, name, attributes, error)
            return
        links = None if link is None else [Link(link)]
        span = tracer.start_span(name, None, SpanKind.INTERNAL, attributes, links, started)
        if head_at is not None:
            span.add_event("head", None, head_at)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    @_harmless
    def hit(
        self,
        tracer: Tracer,
        started: int,
        reason: Reason,
        tally: tuple[CountKey, tuple[Outcome, str]],
        key: bytes,
        status: int,
        route: str | None,
        flight: str | None,
        link: SpanContext | None,
        saved: float,
        age: float,
    ) -> None:
        """`tell` for a hit, without detours."""
        (_, _, label, method), _ = tally
        attributes: Attributes = {
            "dedup.outcome": "hit",
            "dedup.reason": reason,
            "dedup.rule": label,
            "dedup.key": key.hex(),
            "dedup.saved": round(saved, 6),
            "dedup.age": round(age, 6),
            "http.request.method": method,
        }
        if route is not None:
            attributes["http.route"] = route
        links = None
        if flight is not None and link is not None:
            attributes["dedup.flight"] = flight
            links = (Link(link),)
        error = result(attributes, status, None)
        span = tracer.start_span(
            title("hit", attributes), None, SpanKind.INTERNAL, attributes, links, started
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    # -- log ----------------------------------------------------------------------------------------------------

    @_harmless
    def debug(self, outcome: Outcome, reason: Reason, label: str, seconds: Seconds = ()) -> None:
        """A request that needed no forward of its own; ask `requests_log.isEnabledFor(DEBUG)` before."""
        extra: dict[str, object] = {f"dedup_{name}": round(value, 6) for name, value in seconds}
        extra |= {"dedup_outcome": outcome, "dedup_reason": reason, "dedup_rule": label}
        requests_log.debug("%s under %s: %s", outcome, label, reason, extra=extra)

    @_harmless
    def failed(self, what: str, error: str, label: str, followers: int, forward: Trace | None) -> None:
        """A forward that others waited for ended badly: one line a flight, however many they were."""
        extra = {
            "dedup_rule": label,
            "dedup_error": error,
            "dedup_followers": followers,
            "dedup_trace": forward and forward.trace_id,
        }
        flights_log.warning("a shared %s failed with %s", what, error, extra=extra)

    def warn(self, kind: str, message: str, *args: object) -> None:
        """A warning about our own parts, at most once a minute a kind."""
        now = time.monotonic()
        if now - self._logged.get(kind, float("-inf")) >= _REPEAT:
            self._logged[kind] = now
            with contextlib.suppress(Exception):
                parts_log.warning(message, *args, extra={"dedup_kind": kind})
