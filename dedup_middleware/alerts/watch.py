"""The watch: looks at the engine's counts once in a while, and tells when an alert is raised or over.

Law: it lives in a thread of its own and only reads; no request knows of it. Its thread begins with the first request.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from ..events import AlertRaised, ExecutionCompleted
from .delivery import Delivery
from .delivery import Engine as Delivering
from .level import Level, sentence
from .measure import Measure, Reading, requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.decide import RuleBook
    from ..events import Event, Listener, Subscription
    from ..inventory import UnderWay
    from ..stores import Store
    from .alert import Alert
    from .level import Turn
    from .measure import Found

INTERVAL: Final = 1.0
"""Seconds between two looks."""


class Engine(Delivering, Protocol):
    """What the watch asks of the engine."""

    @property
    def book(self) -> RuleBook:
        """The rules in force."""

    @property
    def store(self) -> Store:
        """The store in use."""

    @property
    def ledger_failures(self) -> int:
        """Writes to the ledger that failed so far."""

    def under_way(self) -> list[UnderWay]:
        """The flights under way."""

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Subscription:
        """Hear of these events."""


class Watch:
    """Evaluates the alerts of one engine, every `INTERVAL` seconds or when it is told to `tick`."""

    def __init__(self, engine: Engine, alerts: Sequence[Alert], version: str) -> None:
        self.alerts = tuple(alerts)
        self._engine = engine
        self._delivery = Delivery(engine, self.alerts, version)
        self._lock = threading.Lock()
        self._last_evicted = 0
        self._stop: threading.Event | None = None
        self._subscription: Subscription | None = None
        self._unknown: set[str] = {alert.rule for alert in self.alerts if alert.rule is not None}
        self._begin()

    def _begin(self) -> None:
        """Nothing is raised, and what was counted so far is not counted."""
        self._levels = [Level(alert) for alert in self.alerts]
        self.measures = [Measure(alert) for alert in self.alerts]
        self._tables = [one.fingerprints for one in self.measures if one.fingerprints is not None]
        reading = self._read()
        for measure in self.measures:
            measure.take(reading)

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look; at once where it has begun already."""
        if self._stop is not None:
            return
        with self._lock:
            if self._stop is None:
                if self._tables and self._subscription is None:
                    self._subscription = self._engine.subscribe(self._hear, ExecutionCompleted)
                self._stop = threading.Event()
                threading.Thread(
                    target=_run,
                    args=(weakref.ref(self), self._stop, INTERVAL),
                    name="dedup-alerts",
                    daemon=True,
                ).start()

    def stop(self) -> None:
        """Look no more; what is to be delivered gets one more try. It may be started again, and then begins anew."""
        with self._lock:
            if self._stop is None:
                return
            self._stop.set()
            self._stop = None
            if self._subscription is not None:
                self._subscription.close()
                self._subscription = None
            self._delivery.close()
            self._begin()

    def restart(self) -> None:
        """After a fork: the thread stayed behind, and so did what was raised; it begins when the engine is used."""
        self._lock = threading.Lock()
        self._stop = None
        self._delivery.reset()
        self._begin()

    # -- what it does -------------------------------------------------------------------------------------------

    @property
    def raised(self) -> tuple[str, ...]:
        """The names of the alerts that are raised now."""
        return tuple(
            alert.name for alert, level in zip(self.alerts, self._levels, strict=True) if level.raised
        )

    @property
    def lost(self) -> int:
        """Alerts that a callback or a webhook did not get."""
        return self._delivery.lost

    def tick(self) -> None:
        """Look once."""
        reading = self._read()
        self._look_for_rules(reading)
        for alert, measure, level in zip(self.alerts, self.measures, self._levels, strict=True):
            found = measure.take(reading)
            turn = level.step(found.value, reading.at)
            if turn is not None:
                self._delivery.tell(alert, _event(alert, found, level.value, turn), turn)

    def failed(self, error: Exception) -> None:
        """Tell, once a minute, that it could not look."""
        self._engine.telemetry.warn("alerts", "alerts were not evaluated: %s", type(error).__qualname__)

    def _read(self) -> Reading:
        engine = self._engine
        watched = {alert.watch for alert in self.alerts}
        return Reading(
            engine.clock(),
            requests(engine.telemetry.tallies.copy().values()),
            engine.telemetry.store_failures,
            engine.ledger_failures,
            self._evicted() if "evictions" in watched else 0,
            engine.under_way() if "flight-age" in watched else (),
        )

    def _evicted(self) -> int:
        with contextlib.suppress(Exception):  # a store that fails is the business of another alert
            self._last_evicted = self._engine.store.evicted
        return self._last_evicted

    def _hear(self, event: Event) -> None:
        if isinstance(event, ExecutionCompleted):
            now = self._engine.clock()
            for table in self._tables:
                table.add(event.rule, event.key, now)

    def _look_for_rules(self, reading: Reading) -> None:
        """A rule that there is none of is told once, when requests have come: marks are read with the first."""
        if self._unknown and reading.requests:
            known = {label for label, _ in reading.requests} | set(self._engine.book.labels)
            for rule in self._unknown - known:
                self._engine.telemetry.warn(
                    f"alert {rule}", "an alert watches the rule %r, and there is none of that name yet", rule
                )
            self._unknown = set()


def _event(alert: Alert, found: Found, value: float, turn: Turn) -> AlertRaised:
    return AlertRaised(
        at=time.time(),
        alert=alert.name,
        message=sentence(alert, found, value, turn),
        value=value,
        threshold=alert.threshold,
        rule=found.rule,
        over=turn == "over",
    )


def _run(reference: weakref.ref[Watch], stop: threading.Event, interval: float) -> None:
    """Until it is stopped, or the engine is gone."""
    while not stop.wait(interval):
        watch = reference()
        if watch is None:
            return
        try:
            watch.tick()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do better
            watch.failed(error)
        del watch
