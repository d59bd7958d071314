"""The recorder: the last bursts, alerts and invalidations, and what streams tell of them.

Law: it hears events in a thread of its own and keeps so many of each; whoever reads too slowly loses what is gone.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import msgspec

from ..events import AlertRaised, Event, ExecutionCollapsed, ExecutionCompleted, ResponseInvalidated
from ..forking import OwnLock, after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from .audit import Audit

KINDS: Final = (ExecutionCompleted, ExecutionCollapsed, ResponseInvalidated, AlertRaised)
KEPT: Final = 100
"""Bursts, alerts and invalidations that are kept."""
MAX_BARS: Final = 300
"""Followers of one burst that are kept one by one."""
_TOLD: Final = 500
_OPEN: Final = 1000
_PATIENCE: Final = 1.0
"""Seconds that a burst waits for its last followers after its forward is over."""


def _named(event: ResponseInvalidated) -> str:
    """What somebody asked to drop, as the audit log says it."""
    if event.rule is not None:
        return f"rule {event.rule}"
    if event.key is not None:
        return f"key {event.key}"
    if event.tags:
        return f"tags {', '.join(event.tags[:20])}"
    return "its own target" if event.by == "request" else "all"


class Follower(msgspec.Struct, frozen=True):
    """A request that another's forward answered: at this time, after `waited` seconds."""

    at: float
    waited: float
    saved: float
    trace_id: str | None = None


class Burst(msgspec.Struct, frozen=True):
    """One flight that answered more than its leader; the first followers one by one, `joined` is how many there were.

    `started` is in seconds since the epoch.
    """

    flight: int
    rule: str
    key: str
    started: float
    duration: float
    status: int
    error: str | None
    trace_id: str | None
    joined: int
    followers: list[Follower]


class Told(msgspec.Struct, frozen=True):
    """One thing that streams tell."""

    number: int
    kind: str
    data: bytes


class _Open(msgspec.Struct):
    followers: list[Follower]
    joined: int = 0
    completed: ExecutionCompleted | None = None
    since: float = 0.0


class Recorder:
    """A listener to events."""

    def __init__(self, audit: Audit, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._clock = clock
        self._own = OwnLock()
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._told: deque[Told] = deque(maxlen=_TOLD)
        self._looked = clock() - _PATIENCE
        self.number = 0
        self.bursts: deque[Burst] = deque(maxlen=KEPT)
        self.alerts: deque[AlertRaised] = deque(maxlen=KEPT)
        self.invalidations: deque[ResponseInvalidated] = deque(maxlen=KEPT)
        after_fork(self, Recorder._forked)

    def _forked(self) -> None:
        """In a child process: the flights under way are the parent's."""
        self._open.clear()

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        with self._own.lock:
            match event:
                case ExecutionCollapsed():
                    self._followed(event)
                case ExecutionCompleted():
                    self._completed(event)
                case AlertRaised():
                    self.alerts.append(event)
                    self._tell("alert", event)
                case ResponseInvalidated():
                    self.invalidations.append(event)
                    self._tell("invalidated", event)
            self._close_late()
        # An administrator's own change is there already.
        if isinstance(event, ResponseInvalidated) and event.by != "administrator":
            self._audit.dropped(event.by, _named(event), f"{event.dropped} dropped")

    def since(self, number: int) -> list[Told]:
        """What was told after this number, as far as it is kept."""
        with self._own.lock:
            self._close_late()
            missed = self.number - number
            return list(self._told)[-missed:] if missed > 0 else []

    def recent(self) -> tuple[list[Burst], list[AlertRaised], list[ResponseInvalidated]]:
        """All that is kept, the latest first."""
        with self._own.lock:
            self._close_late()
            return list(self.bursts)[::-1], list(self.alerts)[::-1], list(self.invalidations)[::-1]

    def _tell(self, kind: str, value: msgspec.Struct) -> None:
        self.number += 1
        self._told.append(Told(self.number, kind, msgspec.json.encode(value)))

    def _flight(self, flight: int) -> _Open:
        found = self._open.get(flight)
        if found is None:
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)
            found = self._open[flight] = _Open([])
        return found

    def _followed(self, event: ExecutionCollapsed) -> None:
        flight = self._flight(event.flight)
        flight.joined += 1
        if len(flight.followers) < MAX_BARS:
            flight.followers.append(Follower(event.at, event.waited, event.saved, event.trace_id))
        self._close_if_whole(event.flight, flight)

    def _completed(self, event: ExecutionCompleted) -> None:
        if event.followers or event.flight in self._open:
            flight = self._flight(event.flight)
            flight.completed, flight.since = event, self._clock()
            self._close_if_whole(event.flight, flight)

    def _close_if_whole(self, number: int, flight: _Open) -> None:
        if flight.completed is not None and flight.joined >= flight.completed.followers:
            self._close(number, flight)

    def _close_late(self) -> None:
        """Followers that left, or are slow to read, hold up no burst."""
        now = self._clock()
        if now - self._looked < _PATIENCE / 4:
            return
        self._looked = now
        late = now - _PATIENCE
        for number, flight in list(self._open.items()):
            if flight.completed is not None and flight.since <= late:
                self._close(number, flight)

    def _close(self, number: int, flight: _Open) -> None:
        del self._open[number]
        done = flight.completed
        if done is None or not flight.followers:
            return
        burst = Burst(
            flight=number,
            rule=done.rule,
            key=done.key,
            started=done.at - done.duration,
            duration=done.duration,
            status=done.status,
            error=done.error,
            trace_id=done.trace_id,
            joined=flight.joined,
            followers=flight.followers,
        )
        self.bursts.append(burst)
        self._tell("burst", burst)
