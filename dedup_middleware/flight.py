"""Flights: one forward under way inside one event loop, which several waiters may share.

Law 1: the work belongs to the flight's own task; no waiter's cancellation, slowness or leaving reaches another waiter.
Law 2: a flight leaves the table by identity, never by key, and it leaves before it is cancelled.
Law 3: a flight that ends early ends as an error, never as a short body.

Nothing here knows of HTTP: a head is an object, a body a sequence of chunks of bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import Context, copy_context
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec

from .body import Body, Budget, Reader

GRACE: Final = 3.0
"""Seconds between a deserted flight's disconnect and its cancellation."""
BACKGROUND: Final = 0.25
"""Seconds for which a landed flight waits for its work's return before `on_late` is called."""

Key = Hashable
Loop = asyncio.AbstractEventLoop


class Table(Protocol):
    """What a flight asks of the table that knows it."""

    clock: Callable[[], float]
    tasks: set[asyncio.Task[None]]
    opened: int
    budget: Budget

    def leave(self, flight: Flight) -> None:
        """Newcomers no longer find the flight."""

    def forget(self, flight: Flight) -> None:
        """The flight is over."""


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

    # How every flight begins; what only some come to have costs the others nothing.
    asked: Any = None
    stored_names: tuple[str, ...] = ()
    listed = False
    current = True
    head: Any = None
    head_at: float | None = None
    took: float | None = None
    complete = False
    released = False
    returned = False
    error: BaseException | None = None
    error_type: str | None = None
    followers = 0
    place: int | None = None
    label = ""
    follows_origin = False
    watching = False
    task: asyncio.Task[None] | None = None
    trace: Any = None
    on_outgrown: Callable[[], None] | None = None
    on_release: Callable[[], bool] | None = None
    landed_at: float | None = None
    on_late: Callable[[], None] | None = None
    _gone: asyncio.Event | None = None
    _returns: tuple[asyncio.Future[None], ...] = ()

    def __init__(
        self,
        table: Table,
        loop: Loop,
        key: Key,
        limits: Limits,
        names: Callable[[], Iterable[str]],
        *,
        runs_on: bool,
    ) -> None:
        self._table = table
        self.loop = loop
        self.key = key
        self.limits = limits
        self._names = names
        self.runs_on = runs_on
        self.generation = table.opened
        self.opened_at = table.clock()
        self.started = loop.time()
        self.body = Body(loop, table.clock, limits.max_bytes, table.budget)
        self.waiters: set[Waiter] = set()
        self.callers: list[Any] = []
        self.waits_for: list[Flight] = []

    @cached_property
    def names(self) -> set[str]:
        """What it depends on; asked for only where something is invalidated while it is under way."""
        return set(self._names())

    # -- what the forward does ----------------------------------------------------------------------------------

    def launch(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the work in a task of the flight's own, in a copy of the caller's context."""
        task = self.loop.create_task(self._run(work))
        if not self.returned:  # as an eager task may have already
            self.task = task
            self._table.tasks.add(task)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the leader's to raise: here it would end the loop
            self.error = error
            self.error_type = type(error).__qualname__
        finally:
            self.returned = True
            self._table.forget(self)
            if not self.complete:  # else all have been woken
                self._finish()
            for future in self._returns:
                _release_future(future)
            self.body.end_of_work()
            # No cycle may keep the body alive until the collector comes by.
            self.task = self.on_outgrown = self.on_release = self.on_late = None

    def open_head(self, head: Any) -> None:
        """The head is known: those who wait for it go on."""
        self.head = head
        self.head_at = self._table.clock()
        self._wake()

    async def write(self, chunk: bytes, *, last: bool) -> None:
        """Add a chunk; it may wait for slow readers."""
        body = self.body
        if body.keeping and body.outgrows(chunk):
            self.stop_keeping()
            if self.on_outgrown is not None and not body.budget.spent:
                self.on_outgrown()
        await body.add(chunk)
        if last:
            self.complete = True
            self.landed_at = self.loop.time()
            self._finish()
        else:
            self._wake()
            # The readers run before the app goes on, so that a chunk leaves when it is made.
            await asyncio.sleep(0)

    def stop_keeping(self) -> None:
        """No newcomers, nothing to store: hold only what someone has yet to read."""
        self.close()
        self.body.stop_keeping()

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
            self._returns = (*self._returns, future)
            await future

    def _finish(self) -> None:
        if self._gone is not None:
            self._gone.set()
        self._wake()

    def _wake(self) -> None:
        for waiter in self.waiters:
            waiter.wake()

    def _release(self) -> None:
        """No head in time: a response that is ready goes out, or else the leader stays, the others join a successor."""
        if self.on_release is not None and self.on_release():
            return
        self.close()
        self.released = True
        self._wake()

    # -- who waits ----------------------------------------------------------------------------------------------

    def board(self, *, leader: bool, listen: Callable[[], Awaitable[None]] | None = None) -> Waiter:
        """A new waiter; `listen` returns when its client has gone."""
        waiter = Waiter(self, listen, leader=leader)
        self.waiters.add(waiter)
        self.body.join(waiter)
        if not leader:
            self.followers += 1
        if self.watching:
            waiter.watch()
        return waiter

    def look(self, now: float) -> None:
        """What the table's watch does for a flight that is not over after `WATCH_AFTER`; `now` is the loop's time."""
        if not self.watching:
            self.watching = True
            for waiter in self.waiters:
                waiter.watch()
        if self.head is None and not self.released and now - self.started >= self.limits.max_wait:
            self._release()
        if self.on_late is not None and self.landed_at is not None and now - self.landed_at >= BACKGROUND:
            late, self.on_late = self.on_late, None
            late()

    def _left(self, waiter: Waiter) -> None:
        self.waiters.discard(waiter)
        self.body.leave(waiter)
        if self.waiters or self.complete or self.returned or self.runs_on:
            return
        self.close()
        if self._gone is not None:
            self._gone.set()
        if self.task is not None:
            self.loop.call_later(GRACE, self._cancel_deserted, context=Context())

    def _cancel_deserted(self) -> None:
        if self.task is not None and not self.complete and not self.runs_on:
            self.task.cancel()


def _release_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Waiter(Reader):
    """One who waits for a flight: a place in its body, and a future while there is nothing to take."""

    gone = False
    _future: asyncio.Future[None] | None = None
    _watchman: asyncio.Task[None] | None = None

    def __init__(self, flight: Flight, listen: Callable[[], Awaitable[None]] | None, *, leader: bool) -> None:
        super().__init__(flight.body)
        self.flight = flight
        self.leader = leader
        self._listen = listen
        self._context = copy_context()

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
        """The next chunk, or None after the last.

        Raises:
            FlightAbandonedError: when the forward ended before its body did.
            WaiterGoneError, WaiterCutError: when the client has left, or was too slow.
        """
        flight = self.flight
        body = flight.body
        while True:
            if self.cut:
                raise WaiterCutError
            if self.position < body.end:
                return body[self.position]
            if flight.complete:
                return None
            if flight.returned:
                raise FlightAbandonedError
            await self._change()

    async def _change(self) -> None:
        if self.gone:
            raise WaiterGoneError
        self._future = self.flight.loop.create_future()
        await self._future
        if self.gone:
            raise WaiterGoneError

    def wake(self) -> None:
        """Something has changed."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    def watch(self) -> None:
        """Notice when the client leaves."""
        if self._listen is not None and self._watchman is None:
            watching = self._watching(self._listen)
            self._watchman = self.flight.loop.create_task(watching, context=self._context)

    async def _watching(self, listen: Callable[[], Awaitable[None]]) -> None:
        await listen()
        self.gone = True
        self.wake()

    def leave(self) -> None:
        """Wait no more; idempotent."""
        if self._watchman is not None:
            self._watchman.cancel()
            self._watchman = None
        self.flight._left(self)  # noqa: SLF001 - its flight's other half
