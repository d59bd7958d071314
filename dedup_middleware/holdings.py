"""Holdings: what the engine holds (stored responses, flights under way, marks), and how it is dropped.

Law: whatever drops goes through here: store and flights in one step, under one lock, so that nothing older is served
once it has returned; and listeners hear of it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .core.callers import Caller
from .core.effects import origin_of
from .core.memo import Memo
from .core.targets import address_name
from .events import ResponseInvalidated, tags_in
from .flights import FlightTable
from .stores.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .core.http import Scope
    from .core.variants import Lists
    from .events import Events
    from .stores import Store
    from .telemetry import Telemetry


class Holdings:
    """The flights, the store's keeper, and what is remembered of responses for a while.

    `make` gives an empty store that uses the lock. `variants` tells which fields responses' Vary named, `passes` and
    `outgrown` until when requests under a key don't wait for one another.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        telemetry: Telemetry,
        events: Events,
        make: Callable[[threading.RLock], Store],
        max_flights: int,
    ) -> None:
        self.lock = threading.RLock()
        self.flights = FlightTable(clock, self.lock, max_flights, telemetry.flight_failed)
        self.keeper = Keeper(lambda: make(self.lock), clock, telemetry)
        self.variants: Memo[bytes, Lists] = Memo(10_000)
        self.passes: Memo[bytes, float] = Memo(10_000)
        self.outgrown: Memo[bytes, float] = Memo(10_000)
        self._events = events

    @property
    def is_idle(self) -> bool:
        """Whether nothing is stored, and nothing under way that could be: then nothing is out of date."""
        return not self.flights.under_way and self.keeper.is_empty()

    @property
    def calm(self) -> int | None:
        """A number that stays the same until something is asked of the app; None while something is under way."""
        return None if self.flights.under_way else self.flights.opened

    def drop_tags(self, tags: Sequence[str], by: str) -> int:
        """Drop what carries one of the tags; how many stored responses there were."""
        names = [f"tag:{tag}" for tag in tags]
        with self.lock:
            self.flights.invalidate(names)
            dropped = self.keeper.invalidate(names)
        self._tell(by, dropped, tags=tags)
        return dropped

    def drop_rule(self, label: str, labels: Sequence[str], by: str) -> int:
        """Drop what the rules of this label stored (`labels` are those of all rules, in their order)."""
        with self.lock:
            self.flights.invalidate_where(lambda flight: flight.label == label)
            dropped = sum(self.keeper.drop(ordinal) for ordinal, name in enumerate(labels) if name == label)
        self._tell(by, dropped, rule=label)
        return dropped

    def drop_key(self, key: str, by: str) -> int:
        """Drop what is stored under a fingerprint's digest, in hex."""
        digest = bytes.fromhex(key)
        with self.lock:
            self.flights.invalidate_where(lambda flight: flight.key == digest)
            dropped = self.keeper.drop(None, digest)
        self._tell(by, dropped, key=key)
        return dropped

    def drop_all(self, by: str) -> int:
        """Drop every stored response and every mark, and close every flight."""
        with self.lock:
            self.flights.invalidate_all()
            self.passes.clear()
            self.outgrown.clear()
            self.variants.clear()
            dropped = self.keeper.clear()
        if dropped:
            self._tell(by, dropped)
        return dropped

    def wrote(self, scope: Scope, names: Sequence[str], groups: Sequence[str] = ()) -> None:
        """An unsafe request may have changed its target: nothing older is served, its caller reads its own write.

        `groups` are names of which only those on the request's own origin are meant (RFC 9875 s.3).
        """
        with self.lock:
            if self.flights.under_way:
                self.flights.invalidate(names)
            dropped = self.keeper.invalidate(names)
            if groups:
                within = origin_of(scope)
                self.flights.invalidate(groups, within)
                dropped += self.keeper.invalidate(groups, within)
        if dropped and self._events.heard:
            self._tell("request", dropped, tags=tags_in((*names, *groups)))
        if self.flights.under_way:
            self.flights.invalidate_for(address_name(scope), Caller.of(scope).may_be)

    def forked(self) -> None:
        """In a child process: flights are the parent's, and what its threads held or were changing stays as it was."""
        self.lock = threading.RLock()
        self.flights.lock = self.lock
        self.flights.reset()
        self.keeper.store = self.keeper.make()
        self.keeper.stop(None)

    def _tell(
        self,
        by: str,
        dropped: int,
        *,
        tags: Iterable[str] = (),
        rule: str | None = None,
        key: str | None = None,
    ) -> None:
        if self._events.heard:
            self._events.publish(
                ResponseInvalidated(
                    at=time.time(), by=by, dropped=dropped, tags=tuple(tags), rule=rule, key=key
                )
            )
