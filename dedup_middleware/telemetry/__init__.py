"""Telemetry: outcomes as metrics, spans and log lines; the only room that knows OpenTelemetry, and its API alone.

Law: a hit pays for an integer, no more, unless a tracer records; nothing here can fail or hold up a request.
"""

from __future__ import annotations

import contextlib
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, Tracer, TracerProvider

from .attributes import Attributes, known, place
from .guard import failed, harmless
from .instruments import SCOPE_NAME, CountKey, Gauges, Instruments, Tally, instruments
from .spans import Spans, Trace
from .told import Told

if TYPE_CHECKING:
    from ..core.status import Outcome, Reason
    from ..events import AlertRaised

__all__ = [
    "DEBUG",
    "CountKey",
    "Gauges",
    "MeterProvider",
    "Span",
    "Tally",
    "Telemetry",
    "Told",
    "Trace",
    "Tracer",
    "TracerProvider",
    "alerts_log",
    "flights_log",
    "log",
    "parts_log",
    "requests_log",
    "where",
]

log: Final = logging.getLogger("dedup_middleware")
log.addHandler(logging.NullHandler())
requests_log: Final = log.getChild("requests")
"""Hits and collapses, at DEBUG."""
flights_log: Final = log.getChild("flights")
"""Failed forwards that others waited for, at WARNING."""
alerts_log: Final = log.getChild("alerts")
"""Alerts: raised at WARNING, over at INFO."""
parts_log: Final = log.getChild("parts")
"""Failures of our own parts, at WARNING, at most once a minute a kind."""

DEBUG: Final = logging.DEBUG

where: Final = lru_cache(maxsize=1024)(place)
"""A histogram's attributes; an instrument only reads them."""
_REPEAT: Final = 60.0
"""Seconds between two log lines of one kind about our own parts."""


class Telemetry(Spans):
    """Counts, histograms, spans and log lines of one engine."""

    def __init__(
        self,
        version: str,
        gauges: Gauges,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
    ) -> None:
        self.tallies: dict[CountKey, Tally] = {}
        self.gauges = gauges
        super().__init__(version, tracer_provider)
        self.store_failures = 0
        self._logged: dict[str, float] = {}
        self._instruments = self._join(meter_provider) or Instruments(metrics.NoOpMeter(SCOPE_NAME))

    @harmless
    def _join(self, provider: MeterProvider | None) -> Instruments:
        found = instruments(self._version, provider)
        found.add(self)
        return found

    # -- metrics ------------------------------------------------------------------------------------------------

    def count(self, outcome: Outcome, reason: Reason, label: str, method: str, saved: float = 0.0) -> None:
        """One request more; `saved` are the seconds of the forward that it did not need."""
        key = (outcome, reason, label, method)
        tally = self.tallies.get(key) or self.tally(*key)
        tally.number += 1
        if saved:
            tally.saved += saved

    def tally(self, outcome: Outcome, reason: Reason, label: str, method: str) -> Tally:
        """Where such requests are counted."""
        key = (outcome, reason, label, known(method))
        return self.tallies.get(key) or self.tallies.setdefault(key, Tally(*key))

    @property
    def counts(self) -> dict[CountKey, int]:
        """Requests so far by outcome, reason, rule and method."""
        return {key: tally.number for key, tally in self.tallies.copy().items() if tally.number}

    def record_forward(self, seconds: float, followers: int, attributes: Attributes) -> None:
        """A forward is over; its attributes are `where` it was made."""
        told = self._instruments
        try:
            told.record(told.forward_duration, seconds, attributes)
            if followers:
                told.record(told.flight_followers, followers, attributes)
        except Exception as error:  # noqa: BLE001 - as `harmless`, without another call on every request's way
            failed(self, "record_forward", error)

    @harmless
    def record_wait(self, seconds: float, label: str) -> None:
        """A follower has its last byte."""
        told = self._instruments
        told.record(told.wait_duration, seconds, where(label, ""))

    @harmless
    def record_store(self, seconds: float, operation: str) -> None:
        """A store operation that is not on a hit's way: `invalidate` or `sweep`."""
        self._instruments.store_operation.record(seconds, {"dedup.operation": operation})

    @harmless
    def store_failed(self, operation: str, error: str) -> None:
        """A store operation raised."""
        self.store_failures += 1
        self.warn("store", "the store failed to %s (%s): requests go on without it", operation, error)
        attributes = {"dedup.operation": operation, "error.type": error}
        self._instruments.store_operation.record(0.0, attributes)

    # -- log ----------------------------------------------------------------------------------------------------

    @harmless
    def debug(self, told: Told) -> None:
        """A request that needed no forward of its own; ask `requests_log.isEnabledFor(DEBUG)` before."""
        extra: dict[str, object] = {f"dedup_{name}": value for name, value in told.seconds()}
        extra |= {"dedup_outcome": told.outcome, "dedup_reason": told.reason, "dedup_rule": told.label}
        requests_log.debug("%s under %s: %s", told.outcome, told.label, told.reason, extra=extra)

    @harmless
    def failed(self, what: str, error: str, label: str, followers: int, forward: Trace | None) -> None:
        """A forward that others waited for ended badly: one line a flight, however many they were."""
        extra = {
            "dedup_rule": label,
            "dedup_error": error,
            "dedup_followers": followers,
            "dedup_trace": forward and forward.trace_id,
        }
        flights_log.warning("a shared %s failed with %s", what, error, extra=extra)

    @harmless
    def alert(self, now: float, event: AlertRaised, turn: str) -> None:
        """An alert is raised, raised again or over: one log line, inside of a short span where a tracer records."""
        values: Attributes = {"alert": event.alert, "turn": turn}
        values |= {"value": round(event.value, 6), "threshold": event.threshold}
        if event.rule is not None:
            values["rule"] = event.rule
        span = self.start_alert(now, event.alert, {f"dedup.{name}": value for name, value in values.items()})
        before = None if span is None else self.enter(span)
        try:
            level = logging.INFO if event.over else logging.WARNING
            extra = {f"dedup_{name}": value for name, value in values.items()}
            alerts_log.log(level, "%s", event.message, extra=extra)
        finally:
            if span is not None:
                if before is not None:
                    self.leave(span, before)
                self.end_alert(span)

    def listener_failed(self, error: Exception) -> None:
        """A listener to events raised."""
        self.warn("listener", "a listener to events failed with %s", type(error).__qualname__)

    def flight_failed(self, error: Exception) -> None:
        """What a flight's work does when it is late raised."""
        self.warn("flight", "a flight that is late could not be helped (%s)", type(error).__qualname__)

    def warn(self, kind: str, message: str, *args: object) -> None:
        """A warning about our own parts, at most once a minute a kind."""
        now = time.monotonic()
        if now - self._logged.get(kind, float("-inf")) >= _REPEAT:
            self._logged[kind] = now
            with contextlib.suppress(Exception):
                parts_log.warning(message, *args, extra={"dedup_kind": kind})
