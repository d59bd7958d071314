"""A function, run once in a flight's own task for all who call for its value.

Law: a value is stored only where nothing that it depends on was invalidated while it was computed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from .core.http import StoredValue, value_size
from .core.rules import Rule
from .core.unseen import Unseen
from .events import ExecutionCompleted, ExecutionStarted, ResponseStored, tags_in
from .flight import Flight
from .nesting import inside
from .telemetry import where
from .work import Work

if TYPE_CHECKING:
    import asyncio
    import threading

    from .core.http import Stored
    from .events import Events
    from .flights import FlightTable
    from .stores import Store
    from .telemetry import Telemetry

PARTITION: Final = -1
"""Where the store has what functions returned."""


class Engine(Protocol):
    """What calls need of the engine."""

    lock: threading.RLock
    store: Store
    flights: FlightTable
    telemetry: Telemetry
    events: Events
    clock: Callable[[], float]

    @property
    def enabled(self) -> bool:
        """Whether anything is shared."""

    def in_use(self) -> None:
        """Somebody uses the engine."""

    def digest(self, data: bytes) -> bytes:
        """The engine's keyed digest."""

    def put(self, partition: int, key: bytes, stored: Stored, loop: asyncio.AbstractEventLoop) -> bool:
        """Store, and see to it that what expires is freed; whether it was stored."""

    def note(self, label: str, key: bytes, stored: Stored) -> None:
        """A stored value has its first hit since hits were recorded."""

    def store_failed(self, operation: str, error: Exception) -> None:
        """The store raised: the work is done as if nothing was stored."""


class Function(Work, Unseen, msgspec.Struct, eq=False):
    """One run of a function for a flight, its work."""

    dedup: Engine
    key: bytes
    fn: Callable[[], Awaitable[Any]]
    rule: Rule
    label: str
    depends_on: tuple[str, ...]
    flight: Flight = cast("Flight", None)

    def names(self) -> tuple[str, ...]:
        """What the value depends on."""
        return self.depends_on

    def start(self) -> Awaitable[Any]:
        """Its call."""
        dedup, flight, events = self.dedup, self.flight, self.dedup.events
        inside.set(flight)
        if flight.trace is not None:
            dedup.telemetry.enter(flight.trace.span)
        if events.heard:
            events.publish(
                ExecutionStarted(
                    at=time.time(), rule=self.label, key=self.key.hex(), flight=flight.generation
                )
            )
        return self.fn()

    def done(self, result: Any) -> None:
        """Its value is the flight's head."""
        flight = self.flight
        if self.rule.ttl:
            self._store(result)
        flight.complete = True
        flight.close()
        flight.open_head((result,))

    def over(self, error: str | None) -> None:
        """Tell of it."""
        flight = self.flight
        if error is not None and flight.followers:
            self.dedup.telemetry.failed("call", error, self.label, flight.followers, flight.trace)
        self._tell(error)

    def _store(self, value: Any) -> None:
        dedup, flight, events = self.dedup, self.flight, self.dedup.events
        now, ttl, names = dedup.clock(), float(self.rule.ttl), tuple(flight.names)
        stored = StoredValue(
            value,
            now,
            now + ttl,
            names,
            flight.generation,
            now - flight.opened_at,
            label=self.label,
            size=value_size(value, names),
        )
        if flight.trace is not None:
            stored.flight, stored.link = flight.trace.flight, flight.trace.link
        with dedup.lock:  # no invalidation between the look and the put
            done = flight.current and dedup.put(PARTITION, self.key, stored, flight.loop)
        if done and events.heard:
            events.publish(
                ResponseStored(
                    at=time.time(),
                    rule=self.label,
                    key=self.key.hex(),
                    bytes=stored.size,
                    ttl=ttl,
                    tags=tags_in(names),
                )
            )

    def _tell(self, error: str | None) -> None:
        dedup, flight = self.dedup, self.flight
        seconds = dedup.clock() - flight.opened_at
        dedup.telemetry.record_forward(seconds, flight.followers, where(self.label, ""))
        if dedup.events.heard:
            dedup.events.publish(
                ExecutionCompleted(
                    at=time.time(),
                    rule=self.label,
                    key=self.key.hex(),
                    flight=flight.generation,
                    duration=seconds,
                    followers=flight.followers,
                    error=error,
                    trace_id=flight.trace_id,
                )
            )
        if flight.trace is not None:
            dedup.telemetry.end_forward(
                flight.trace, self.label, "", flight.key, flight.followers, error=error
            )
