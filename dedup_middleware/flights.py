"""The table of flights: which a newcomer may join, and which depend on a name.

Law: one synchronous step finds or opens; a flight is joined only in its own event loop, and leaves by identity.
Names are indexed when the first invalidation looks for them: most flights are over by then.
"""

from __future__ import annotations

import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from .body import Budget
from .flight import Flight, Key, Loop

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable, Iterable

    from .work import Terms, Work

JOIN_WINDOW: Final = 1.0
"""Seconds after its head in which a flight still takes followers."""
MAX_MARKS: Final = 10_000
"""Invalidations remembered while anything is under way."""
MAX_BUFFERED: Final = 64 * 1024 * 1024
"""Bytes that the bodies of all flights may keep together; past that they hold only what somebody has yet to read."""
WATCH_AFTER: Final = 0.1
"""Seconds between looks at the flights under way: one that is over by then needs no timer and no watchman."""


class FlightTable:
    """The flights `under_way` by their generation: those that newcomers may join by key, all by what they depend on.

    One table serves every event loop; a flight is joined only in its own. The lock guards the dicts, no more.
    `failed` hears what a look at a flight raised.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        lock: threading.RLock,
        max_flights: int,
        failed: Callable[[Exception], None],
    ) -> None:
        self.clock = clock
        self.lock = lock
        self.max_flights = max_flights
        self._failed = failed
        self.opened = 0
        self.budget = Budget(MAX_BUFFERED)
        self._marks: dict[int, int] = {}
        self._floor = 0
        self.under_way: dict[int, Flight] = {}
        self._watches: dict[Loop, asyncio.TimerHandle] = {}
        self._listed: dict[tuple[Loop, Key], Flight] = {}
        self._by_name: dict[str, set[Flight]] = {}
        self._indexed = 0  # the generation up to which flights stand in it

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way, listed or named."""
        return not (self.under_way or self._listed or self._by_name)

    def find(self, loop: Loop, key: Key) -> Flight | None:
        """The flight that a newcomer may join now, or None; one that is full or too far on leaves the table."""
        flight = self._listed.get((loop, key))
        if flight is None:
            return None
        late = (
            flight.head_at is not None and not flight.complete and self.clock() - flight.head_at > JOIN_WINDOW
        )
        if late or not flight.joinable or flight.followers >= flight.terms.max_followers:
            self.leave(flight)
            return None
        return flight

    def open(
        self,
        loop: Loop,
        key: Key,
        terms: Terms,
        work: Work,
        opened_at: float,
        *,
        listed: bool,
        runs_on: bool = False,
        place: int | None = None,
    ) -> Flight | None:
        """A new flight, or None where there are too many; `opened_at` is the clock's now."""
        with self.lock:
            if len(self.under_way) >= self.max_flights:
                self._drop_dead_loops()
                if len(self.under_way) >= self.max_flights:
                    return None
            self.opened = number = self.opened + 1
            flight = Flight(
                self,
                loop,
                key,
                terms,
                work,
                number,
                opened_at,
                loop.time(),
                self.clock,
                terms.max_bytes,
                self.budget,
                listed,
                runs_on,
                place,
            )
            self.under_way[number] = flight
            if listed:
                self._listed[loop, key] = flight
            if loop not in self._watches:
                self._drop_dead_watches()
                self._watch(loop)
            return flight

    def _watch(self, loop: Loop) -> None:
        # In a context of nobody: that of the request which happens to be first would live as long as there are any.
        # And weakly: what is under way holds the table; a timer of the loop alone must not.
        self._watches[loop] = loop.call_later(WATCH_AFTER, _look, weakref.ref(self), loop, context=Context())

    def look(self, loop: Loop) -> None:
        """Look at the flights of a loop that have been under way for a while, as long as there are any."""
        del self._watches[loop]
        now = loop.time()
        under_way = [flight for flight in list(self.under_way.values()) if flight.loop is loop]
        if under_way:
            self._watch(loop)
        for flight in under_way:
            if now - flight.started >= WATCH_AFTER:
                try:
                    flight.look(now)
                except Exception as error:  # noqa: BLE001 - what goes wrong with one flight's work harms no other
                    self._failed(error)

    def move(self, flight: Flight, key: Key) -> None:
        """The flight answers to another key from now on (its response names a Vary)."""
        with self.lock:
            if flight.listed:
                self.leave(flight)
                there = self._listed.get((flight.loop, key))
                if there is not None and not there.joinable:
                    self.leave(there)
                    there = None
                if there is None:
                    self._listed[flight.loop, key] = flight
                    flight.listed = True
            flight.key = key

    def add_name(self, flight: Flight, name: str) -> None:
        """The flight depends on one more name."""
        with self.lock:
            if name not in flight.names and not flight.returned:
                flight.names.add(name)
                if flight.generation <= self._indexed:
                    self._by_name.setdefault(name, set()).add(flight)

    def leave(self, flight: Flight) -> None:
        """Newcomers no longer find the flight: by identity, never by key alone."""
        if flight.listed:
            with self.lock:
                self._unlist(flight)

    def _unlist(self, flight: Flight) -> None:
        flight.listed = False
        place = (flight.loop, flight.key)
        if self._listed.get(place) is flight:
            del self._listed[place]

    def forget(self, flight: Flight) -> None:
        """The flight is over."""
        with self.lock:
            if flight.listed:
                self._unlist(flight)
            self.under_way.pop(flight.generation, None)
            if self._marks and not self.under_way:
                self._marks.clear()
            if flight.generation <= self._indexed:
                self._unname(flight)

    def _unname(self, flight: Flight) -> None:
        for name in flight.names:
            flights = self._by_name.get(name)
            if flights is not None:
                flights.discard(flight)
                if not flights:
                    del self._by_name[name]

    def _named(self, name: str) -> Iterable[Flight]:
        """The flights that depend on a name."""
        for flight in reversed(self.under_way.values()):
            if flight.generation <= self._indexed:
                break
            for one in flight.names:
                self._by_name.setdefault(one, set()).add(flight)
        self._indexed = self.opened
        return self._by_name.get(name, ())

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        """Close every flight that depends on one of the names (and on one that begins with `within`).

        Its result is not stored. How many there were.
        """
        closed = 0
        with self.lock:
            if self.under_way:
                names = list(names)
                self._remember(names, within)
            for name in names:
                for flight in self._named(name):
                    if within and not any(own.startswith(within) for own in flight.names):
                        continue
                    closed += flight.current
                    self._overtake(flight)
        return closed

    def _remember(self, names: Iterable[str], within: str) -> None:
        """That the names were invalidated, for flights which learn later that they depend on them."""
        for name in names:
            self._marks[_mark(name, within)] = self.opened
        if len(self._marks) > MAX_MARKS:  # then all that are under way count as concerned
            self._marks.clear()
            self._floor = self.opened

    def depends(self, flight: Flight, names: Iterable[str], origin: str) -> bool:
        """The flight depends on more names, as has become known; those of `origin` begin so.

        Where one of them was invalidated since the flight was opened, its result is out of date, and who has joined it
        since came too late: False.
        """
        holds = True
        with self.lock:
            for name in names:
                if name in flight.names:
                    continue  # its invalidation has found the flight
                self.add_name(flight, name)
                since = max(self._floor, *(self._marks.get(_mark(name, one), 0) for one in ("", origin)))
                if since >= flight.generation:
                    self._overtake(flight)
                    holds = False
        return holds

    def invalidate_for(self, name: str, is_same: Callable[[Any], bool]) -> None:
        """Close the flights under one name that somebody waits or waited for of whom `is_same` says so.

        Where the origin itself says how long its responses hold, their results are stored all the same.
        """
        with self.lock:
            for flight in self._named(name):
                if any(map(is_same, (flight.work.caller, *flight.callers))):
                    if flight.terms.follows_origin:
                        self.leave(flight)
                    else:
                        self._overtake(flight)

    def _overtake(self, flight: Flight) -> None:
        """What the flight computes is out of date, and so is what it waits for, begun before or after it was."""
        ahead, seen = [flight], set()
        while ahead:
            one = ahead.pop()
            if one not in seen:
                seen.add(one)
                one.current = False
                self.leave(one)
                ahead += one.waits_for

    def invalidate_where(self, concerns: Callable[[Flight], bool]) -> None:
        """Close the flights that an invalidation concerns."""
        with self.lock:
            for flight in list(self.under_way.values()):
                if concerns(flight):
                    self._overtake(flight)

    def invalidate_all(self) -> None:
        """Close every flight; no result is stored."""
        with self.lock:
            for flight in list(self.under_way.values()):
                flight.current = False
                self.leave(flight)

    def reset(self) -> None:
        """Forget everything: after a fork, the flights are the parent's."""
        self.under_way, self._watches, self._listed = {}, {}, {}
        self._by_name, self._marks = {}, {}
        self.budget = Budget(MAX_BUFFERED)

    def _drop_dead_loops(self) -> None:
        for flight in [flight for flight in list(self.under_way.values()) if flight.loop.is_closed()]:
            self.forget(flight)

    def _drop_dead_watches(self) -> None:
        dead = [loop for loop in list(self._watches) if loop.is_closed()]
        for loop in dead:
            del self._watches[loop]
        if dead:  # what such a loop has left under way it was to look at once more
            self._drop_dead_loops()


def _mark(name: str, within: str) -> int:
    """By what an invalidation is remembered: of clients' paths, however long, their hashes; of one both count."""
    return hash((name, within))


def _look(table: weakref.ref[FlightTable], loop: Loop) -> None:
    there = table()
    if there is not None:
        there.look(loop)
