"""Flights: one forward under way inside one event loop, which several waiters may share.

Law 1: the work belongs to the flight's own task; no waiter's cancellation, slowness or leaving reaches another waiter.
Law 2: a flight leaves the table by identity, never by key, and it leaves before it is cancelled.
Law 3: what is held for readers is bounded, and a flight that ends early ends as an error, never as a short body.

Nothing here knows of HTTP: a head is an object, a body a sequence of chunks of bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import threading

JOIN_WINDOW: Final = 1.0
"""Seconds after its head in which a flight still takes followers."""
STALL: Final = 10.0
"""Seconds without progress after which a reader that holds up others is cut."""
MAX_HOLD: Final = 5.0
"""Seconds in all for which slow readers may hold up a flight."""
GRACE: Final = 3.0
"""Seconds between a deserted flight's disconnect and its cancellation."""
WATCH_AFTER: Final = 0.05
"""Seconds of waiting after which clients are watched for leaving: shorter flights need no watchman."""

Key = Hashable
Loop = asyncio.AbstractEventLoop


class FlightAbandonedError(Exception):
    """The flight ended without a response that its waiters may use; they join one successor."""


class WaiterGoneError(Exception):
    """The waiter's client has left."""


class WaiterCutError(Exception):
    """The waiter held up others for too long."""


class Limits(msgspec.Struct, frozen=True):
    """A flight's bounds: seconds without a head, followers, bytes held."""

    max_wait: float
    max_followers: int
    max_bytes: int


class Flight:
    """One forward: its head and body as they come, and those who wait for them.

    `current` turns False when an invalidation concerns the flight: newcomers open another one, and its result is
    not stored. `generation` numbers flights in the order of their opening, so that an older one's result never
    replaces a newer one's.
    """

    __slots__ = (
        "_deserted_at",
        "_gone",
        "_held_for",
        "_overdue",
        "_returns",
        "_room",
        "_table",
        "_watch",
        "base",
        "chunks",
        "complete",
        "current",
        "error",
        "error_type",
        "followers",
        "generation",
        "head",
        "head_at",
        "held",
        "keeping",
        "key",
        "limits",
        "listed",
        "loop",
        "names",
        "on_outgrown",
        "opened_at",
        "released",
        "returned",
        "runs_on",
        "stored_names",
        "task",
        "total",
        "trace",
        "waiters",
        "waits_for",
        "watching",
    )

    def __init__(
        self, table: FlightTable, loop: Loop, key: Key, limits: Limits, names: Iterable[str], *, runs_on: bool
    ) -> None:
        self._table = table
        self.loop = loop
        self.key = key
        self.limits = limits
        self.names = set(names)
        self.stored_names: tuple[str, ...] = ()
        self.runs_on = runs_on
        self.listed = False
        self.current = True
        self.generation = table.opened
        self.opened_at = table.clock()
        self.head: Any = None
        self.head_at: float | None = None
        self.chunks: list[bytes] = []
        self.base = 0
        self.total = 0
        self.held = 0
        self.keeping = True
        self.complete = False
        self.released = False
        self.returned = False
        self.error: BaseException | None = None
        self.error_type: str | None = None
        self.followers = 0
        self.waiters: set[Waiter] = set()
        self.waits_for: list[Flight] = []
        self.watching = False
        self.task: asyncio.Task[None] | None = None
        self.trace: Any = None
        self.on_outgrown: Callable[[], None] | None = None
        self._gone: asyncio.Event | None = None
        self._returns: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None
        self._held_for = 0.0
        self._overdue = loop.call_later(limits.max_wait, self._release)
        self._watch: asyncio.TimerHandle | None = loop.call_later(WATCH_AFTER, self._start_watching)

    # -- what the forward does ----------------------------------------------------------------------------------

    def launch(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the work in a task of the flight's own, in a copy of the caller's context."""
        self.task = self.loop.create_task(self._run(work))
        self._table.tasks.add(self.task)
        self.task.add_done_callback(self._table.tasks.discard)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BaseException as error:
            self.error = error
            self.error_type = type(error).__qualname__
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
        finally:
            self.returned = True
            self.close()
            self._table.forget(self)
            self._overdue.cancel()
            if self._watch is not None:
                self._watch.cancel()
            self._finish()
            for future in self._returns:
                _release_future(future)

    def open_head(self, head: Any) -> None:
        """The head is known: those who wait for it go on."""
        self.head = head
        self.head_at = self._table.clock()
        self._overdue.cancel()
        self._wake()

    async def write(self, chunk: bytes, *, last: bool) -> None:
        """Add a chunk; wait only where readers would otherwise hold more than the limit."""
        if not self.keeping and chunk:
            await self._await_room(len(chunk))
        self.chunks.append(chunk)
        self.total += len(chunk)
        self.held += len(chunk)
        if self.keeping and self.total > self.limits.max_bytes:
            self.stop_keeping()
            if self.on_outgrown is not None:
                self.on_outgrown()
        if last:
            self.complete = True
            self._finish()
        else:
            self._wake()
            # The readers run before the app goes on, so that a chunk leaves when it is made.
            await asyncio.sleep(0)

    def stop_keeping(self) -> None:
        """Hold from now on only what someone has yet to read: no newcomers, nothing to store."""
        self.keeping = False
        self.close()
        self._trim()

    def close(self) -> None:
        """Take no more followers."""
        self._table.leave(self)

    async def deserted(self) -> None:
        """Wait until nobody waits any more, or the response is complete: what an app hears as `http.disconnect`."""
        if self._gone is None:
            self._gone = asyncio.Event()
            if self.complete or self.returned or (not self.waiters and not self.runs_on):
                self._gone.set()
        await self._gone.wait()

    async def joined(self) -> None:
        """Wait until the forward's call has returned or raised (its background work included)."""
        if not self.returned:
            future = self.loop.create_future()
            self._returns.append(future)
            await future

    def _finish(self) -> None:
        if self._gone is not None:
            self._gone.set()
        self._wake()

    def _wake(self) -> None:
        for waiter in self.waiters:
            waiter.wake()

    def _release(self) -> None:
        """No head in time: the leader stays, the others join a successor."""
        self.close()
        self.released = True
        self._wake()

    # -- what readers hold --------------------------------------------------------------------------------------

    def _trim(self) -> None:
        taken = min((waiter.position for waiter in self.waiters), default=self.base + len(self.chunks))
        if taken > self.base:
            self.held -= sum(map(len, self.chunks[: taken - self.base]))
            del self.chunks[: taken - self.base]
            self.base = taken
            if self._room is not None and not self._room.done():
                self._room.set_result(None)

    async def _await_room(self, size: int) -> None:
        self._trim()
        while self.chunks and self.held + size > self.limits.max_bytes:
            self._room = self.loop.create_future()
            alone = len(self.waiters) == 1
            started = self._table.clock()
            timer = (
                None if alone else self.loop.call_later(self._patience(started), _release_future, self._room)
            )
            try:
                await self._room
            finally:
                self._room = None
                if timer is not None:
                    timer.cancel()
            if not alone:
                self._held_for += self._table.clock() - started
                self._cut_slowest()
            self._trim()

    def _slowest(self) -> Waiter:
        return min(self.waiters, key=lambda waiter: waiter.position)

    def _patience(self, now: float) -> float:
        return max(0.0, min(MAX_HOLD - self._held_for, self._slowest().moved_at + STALL - now))

    def _cut_slowest(self) -> None:
        if len(self.waiters) > 1 and self._patience(self._table.clock()) <= 0:
            slowest = self._slowest()
            slowest.cut = True
            self.waiters.discard(slowest)

    # -- who waits ----------------------------------------------------------------------------------------------

    def board(self, *, leader: bool, listen: Callable[[], Awaitable[None]] | None = None) -> Waiter:
        """A new waiter; `listen` returns when its client has gone."""
        waiter = Waiter(self, listen, leader=leader)
        self.waiters.add(waiter)
        if not leader:
            self.followers += 1
        if self.watching:
            waiter.watch()
        return waiter

    def _start_watching(self) -> None:
        self._watch = None
        self.watching = True
        for waiter in self.waiters:
            waiter.watch()

    def _left(self, waiter: Waiter) -> None:
        self.waiters.discard(waiter)
        if not self.keeping:
            self._trim()
        if self.waiters or self.complete or self.returned or self.runs_on:
            return
        self.close()
        if self._gone is not None:
            self._gone.set()
        if self.task is not None:
            self.loop.call_later(GRACE, self._cancel_deserted)

    def _cancel_deserted(self) -> None:
        if self.task is not None and not self.complete and not self.runs_on:
            self.task.cancel()


def _release_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Waiter:
    """One who waits for a flight: a place in its body, and a future while there is nothing to take."""

    __slots__ = ("_future", "_listen", "_watchman", "cut", "flight", "gone", "leader", "moved_at", "position")

    def __init__(self, flight: Flight, listen: Callable[[], Awaitable[None]] | None, *, leader: bool) -> None:
        self.flight = flight
        self.leader = leader
        self.position = flight.base
        self.moved_at = flight.opened_at
        self.cut = False
        self.gone = False
        self._listen = listen
        self._future: asyncio.Future[None] | None = None
        self._watchman: asyncio.Task[None] | None = None

    async def head(self) -> Any:
        """The flight's head, or None where the app ended without one.

        Raises:
            FlightAbandonedError: to followers, when no head came in time.
            WaiterGoneError: when the client has left.
        """
        flight = self.flight
        while flight.head is None and not flight.returned:
            if flight.released and not self.leader:
                raise FlightAbandonedError
            await self._change()
        return flight.head

    async def next(self) -> bytes | None:
        """The next chunk, or None after the last; the one before counts as taken now.

        Raises:
            FlightAbandonedError: when the forward ended before its body did.
            WaiterGoneError, WaiterCutError: when the client has left, or was too slow.
        """
        flight = self.flight
        while True:
            if self.cut:
                raise WaiterCutError
            if self.position - flight.base < len(flight.chunks):
                return flight.chunks[self.position - flight.base]
            if flight.complete:
                return None
            if flight.returned:
                raise FlightAbandonedError
            await self._change()

    def took(self) -> None:
        """The chunk is sent: the place moves on."""
        self.position += 1
        if not self.flight.keeping:
            self.moved_at = self.flight._table.clock()  # noqa: SLF001 - one module, one thing
            self.flight._trim()  # noqa: SLF001

    async def _change(self) -> None:
        if self.gone:
            raise WaiterGoneError
        self._future = self.flight.loop.create_future()
        try:
            await self._future
        finally:
            self._future = None
        if self.gone:
            raise WaiterGoneError

    def wake(self) -> None:
        """Something has changed."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def watch(self) -> None:
        """Notice when the client leaves."""
        if self._listen is not None and self._watchman is None:
            self._watchman = self.flight.loop.create_task(self._watching(self._listen))

    async def _watching(self, listen: Callable[[], Awaitable[None]]) -> None:
        await listen()
        self.gone = True
        self.wake()

    def leave(self) -> None:
        """Wait no more; idempotent."""
        if self._watchman is not None:
            self._watchman.cancel()
            self._watchman = None
        self.flight._left(self)  # noqa: SLF001


class FlightTable:
    """The flights under way: those that newcomers may join by key, and all of them by the names they depend on.

    One table serves every event loop; a flight is joined only in its own. The lock guards the dicts, no more.
    """

    def __init__(self, clock: Callable[[], float], lock: threading.RLock, max_flights: int) -> None:
        self.clock = clock
        self.lock = lock
        self.max_flights = max_flights
        self.opened = 0
        self.under_way: set[Flight] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._listed: dict[tuple[Loop, Key], Flight] = {}
        self._by_name: dict[str, set[Flight]] = {}

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
        if late or flight.followers >= flight.limits.max_followers:
            self.leave(flight)
            return None
        return flight

    def open(
        self,
        loop: Loop,
        key: Key,
        limits: Limits,
        names: Iterable[str],
        *,
        listed: bool,
        runs_on: bool = False,
    ) -> Flight | None:
        """A new flight, or None where there are too many."""
        with self.lock:
            if len(self.under_way) >= self.max_flights:
                self._drop_dead_loops()
                if len(self.under_way) >= self.max_flights:
                    return None
            self.opened += 1
            flight = Flight(self, loop, key, limits, names, runs_on=runs_on)
            self.under_way.add(flight)
            for name in flight.names:
                self._by_name.setdefault(name, set()).add(flight)
            if listed:
                self._listed[loop, key] = flight
                flight.listed = True
            return flight

    def move(self, flight: Flight, key: Key) -> None:
        """The flight answers to another key from now on (its response names a Vary)."""
        with self.lock:
            if flight.listed:
                self.leave(flight)
                if (flight.loop, key) not in self._listed:
                    self._listed[flight.loop, key] = flight
                    flight.listed = True
            flight.key = key

    def add_name(self, flight: Flight, name: str) -> None:
        """The flight depends on one more name."""
        if name not in flight.names and not flight.returned:
            with self.lock:
                flight.names.add(name)
                self._by_name.setdefault(name, set()).add(flight)

    def leave(self, flight: Flight) -> None:
        """Newcomers no longer find the flight: by identity, never by key alone."""
        with self.lock:
            if flight.listed:
                flight.listed = False
                if self._listed.get((flight.loop, flight.key)) is flight:
                    del self._listed[flight.loop, flight.key]

    def forget(self, flight: Flight) -> None:
        """The flight is over."""
        with self.lock:
            self.leave(flight)
            self.under_way.discard(flight)
            for name in flight.names:
                flights = self._by_name.get(name)
                if flights is not None:
                    flights.discard(flight)
                    if not flights:
                        del self._by_name[name]

    def invalidate(self, names: Iterable[str]) -> int:
        """Close every flight that depends on one of the names; its result is not stored. How many there were."""
        closed = 0
        with self.lock:
            for name in names:
                for flight in self._by_name.get(name, ()):
                    closed += flight.current
                    flight.current = False
                    self.leave(flight)
        return closed

    def invalidate_all(self) -> None:
        """Close every flight; no result is stored."""
        with self.lock:
            for flight in list(self.under_way):
                flight.current = False
                self.leave(flight)

    def reset(self) -> None:
        """Forget everything: after a fork, the flights are the parent's."""
        self.under_way, self.tasks, self._listed, self._by_name = set(), set(), {}, {}

    def _drop_dead_loops(self) -> None:
        for flight in [flight for flight in self.under_way if flight.loop.is_closed()]:
            self.forget(flight)
