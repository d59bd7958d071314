"""The keeper: the store in use, kept clean, and replaced where it fails.

Law: a store that fails costs only its own help (requests go on), but what should be gone is gone: where dropping fails,
an empty store takes its place.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Final

from ..core.memo import Memo

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from ..core.http import Stored
    from ..telemetry import Telemetry
    from . import Store

SWEEP_SECONDS: Final = 30.0
"""How often expired responses are looked for, while there are any."""


class Keeper:
    """Holds the store; `make` gives an empty one. Look-ups go to `store` itself, guarded by who asks.

    `beside` tells under a request's key which other requests' responses may answer it too, if they are still stored,
    and whether those asked for a part.
    """

    def __init__(self, make: Callable[[], Store], clock: Callable[[], float], telemetry: Telemetry) -> None:
        self.make = make
        self.store = make()
        self.beside: Memo[bytes, tuple[tuple[bytes, bool], ...]] = Memo(10_000)
        self._clock = clock
        self._telemetry = telemetry
        self._sweeper: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    def find(self, partition: int, key: bytes, now: float, *, stale: bool) -> Stored | None:
        """What lies under a key, fresh or (`stale`) at all; a store that raises has nothing."""
        try:
            store = self.store
            return store.stale(partition, key, now) if stale else store.get(partition, key, now)
        except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises, the request is answered
            self.failed("get", error)
            return None

    def put(self, partition: int, key: bytes, stored: Stored, loop: asyncio.AbstractEventLoop) -> bool:
        """Store, and see to it that what expires is freed; whether it was stored."""
        try:
            done = self.store.put(partition, key, stored, self._clock())
        except Exception as error:  # noqa: BLE001 - law 9: the answer is on its way already
            self.failed("put", error)
            return False
        if done:
            self._sweep_later(loop)
        return done

    def take_back(self, partition: int, key: bytes, stored: Stored) -> None:
        """Discard what turned out not to be whole."""
        try:
            self.store.discard(partition, key, stored)
        except Exception as error:  # noqa: BLE001 - law 8 comes first
            self.start_anew("discard", error)

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        """Drop what depends on one of the names, and on one that begins with `within`; how many there were."""
        try:
            return self.store.invalidate(names, within) if within else self.store.invalidate(names)
        except Exception as error:  # noqa: BLE001 - law 7 comes first
            return self.start_anew("invalidate", error)

    def drop(self, partition: int | None, key: bytes | None = None) -> int:
        """Drop what lies under this partition and key (None: any); how many there were."""
        try:
            return self.store.drop(partition, key)
        except Exception as error:  # noqa: BLE001 - as above
            return self.start_anew("drop", error)

    def clear(self) -> int:
        """Drop everything; how many there were."""
        try:
            return self.store.clear()
        except Exception as error:  # noqa: BLE001 - as above
            return self.start_anew("clear", error)

    def is_empty(self) -> bool:
        """Whether there is nothing to drop; on a doubt there is."""
        try:
            return not self.store.responses
        except Exception:  # noqa: BLE001 - whoever drops will hear of it
            return False

    def failed(self, operation: str, error: Exception) -> None:
        """Tell, once a minute, that requests go without the store."""
        self._telemetry.store_failed(operation, type(error).__qualname__)

    def start_anew(self, operation: str, error: Exception) -> int:
        """What should have gone may still be there: an empty store takes the place of the one that failed."""
        self.failed(operation, error)
        self.renew()
        return 0

    def renew(self) -> None:
        """An empty store takes the place of the one in use, and counts on from there."""
        before, store = self.store, self.make()
        with suppress(Exception):  # one that fails may not even count
            store.stored, store.evicted = before.stored, before.evicted
            store.expired, store.invalidated = before.expired, before.invalidated
        self.store = store

    def stop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Sweep no more in this loop (None: in whichever it is)."""
        if self._sweeper is not None and loop in (None, self._sweeper[0]):
            if loop is not None:
                self._sweeper[1].cancel()
            self._sweeper = None

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeper is not None:
            if self._sweeper[0].is_running():
                return
            self._sweeper[1].cancel()  # that loop is over, or stands still for who knows how long
        self._sweeper = (
            loop,
            loop.call_later(SWEEP_SECONDS, _sweep, weakref.ref(self), loop, context=Context()),
        )

    def sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Free what has expired, and come back as long as there is more to expire."""
        self._sweeper = None
        started = self._clock()
        try:
            self.store.sweep(started)
            if not self.store.responses:
                return
        except Exception as error:  # noqa: BLE001 - law 9: the next sweep may do better
            self.failed("sweep", error)
        finally:
            self._telemetry.record_store(self._clock() - started, "sweep")
        self._sweep_later(loop)


def _sweep(keeper: weakref.ref[Keeper], loop: asyncio.AbstractEventLoop) -> None:
    there = keeper()
    if there is not None:  # a timer of the loop alone must not hold all that is stored
        there.sweep(loop)
