"""Flights: one forward under way inside one event loop, which several waiters may share.

Law 1: the work belongs to the flight's own task; no waiter's cancellation, slowness or leaving reaches another waiter.
Law 2: a flight leaves the table by identity, never by key, and it leaves before it is cancelled.
Law 3: a flight that ends early ends as an error, never as a short body.

Nothing here knows of HTTP: a head is an object, a body a sequence of chunks of bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context, copy_context
from typing import Any, Final, Protocol

import msgspec

from .body import Body, Budget
from .core.unseen import Unseen
from .waiter import Waiter
from .work import NO_WORK, Terms, Work

NAME: Final = "dedup_middleware flight"
"""What the task of a flight is called."""
GRACE: Final = 3.0
"""Seconds between a deserted flight's disconnect and its cancellation."""
_OF_ALL: Final = asyncio.BaseEventLoop
BACKGROUND: Final = 0.2
"""Seconds for which a flight that was seen to have landed waits for its work's return, before that is late."""

Key = Hashable
Loop = asyncio.AbstractEventLoop


class Table(Protocol):
    """What a flight asks of the table that knows it."""

    def leave(self, flight: Flight) -> None:
        """Newcomers no longer find the flight."""

    def forget(self, flight: Flight) -> None:
        """The flight is over."""


class Flight(Body, Unseen, msgspec.Struct, eq=False, weakref=True):
    """One forward: its head and body as they come, and those who wait for them.

    `current` turns False when an invalidation concerns the flight: newcomers open another one, and its result is
    not stored. `generation` numbers flights in the order of their opening, so that an older one's result never
    replaces a newer one's. One that is not `joinable` takes no newcomers, though it may stand in the table for a
    while. One that `runs_on` does so when nobody waits any more, and so does one that is `to_store` while its body may
    be. `place` numbers the app whose it is.
    """

    table: Table
    loop: Loop
    key: Key
    terms: Terms
    work: Work
    generation: int
    opened_at: float
    started: float
    clock: Callable[[], float]
    limit: int
    budget: Budget
    listed: bool
    runs_on: bool
    place: int | None
    chunks: list[bytes] = []
    readers: set[Waiter] = set()
    base: int = 0
    total: int = 0
    keeping: bool = True
    asleep: set[Waiter] = set()
    callers: list[Any] = []
    waits_for: list[Flight] = []
    followers: int = 0
    current: bool = True
    head: Any = None
    head_at: float | None = None
    took: float | None = None
    complete: bool = False
    joinable: bool = True
    released: bool = False
    returned: bool = False
    error: BaseException | None = None
    error_type: str | None = None
    trace: Any = None
    task: asyncio.Task[None] | None = None
    disowned: bool = False
    watching: bool = False
    to_store: bool = False
    landed_at: float | None = None
    _names: set[str] | None = None
    _is_late: bool = False
    _gone: asyncio.Event | None = None
    _returns: tuple[asyncio.Future[None], ...] = ()
    _room: asyncio.Future[None] | None = None
    _writing: asyncio.Lock | None = None
    _places: dict[int, int] = {}
    _added_at: list[float] = []
    _held_for: float = 0.0
    _freed: int = 0

    @property
    def label(self) -> str:
        """What flights of its kind are called."""
        return self.terms.label

    @property
    def trace_id(self) -> str | None:
        """The trace in which it is recorded, in hex, if it is."""
        return None if self.trace is None else self.trace.trace_id

    @property
    def waiters(self) -> set[Waiter]:
        """Those who wait for it: the readers of its body."""
        return self.readers

    @property
    def names(self) -> set[str]:
        """What it depends on; asked for only where something is invalidated while it is under way."""
        if self._names is None:
            self._names = set(self.work.names())
        return self._names

    # -- what the forward does ----------------------------------------------------------------------------------

    def launch(self) -> None:
        """Run its work in a task of the flight's own, in a copy of the caller's context.

        Where the loop makes no task of it, that is what the work has raised.
        """
        work = self.work
        work.flight = self
        running = self._run(work)
        try:
            if _takes_names(self.loop):
                task = self.loop.create_task(running, name=NAME)  # a number would cost as much as the task
            else:
                task = self.loop.create_task(running)
        except Exception as error:  # noqa: BLE001 - whatever the loop's task factory raises
            running.close()
            self._failed(error)
            self._over()
            return
        if not self.returned:  # as an eager task may have already
            self.task = task

    async def _run(self, work: Work) -> None:
        try:
            error_type: str | None = None
            try:
                work.done(await work.start())
            except BaseException as error:
                error_type = type(error).__qualname__
                raise
            finally:
                work.over(error_type)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the leader's to raise: here it would end the loop
            self._failed(error)
        finally:
            self._over()

    def never_ran(self) -> None:
        """Its task is done; where that was cancelled before its first step, nothing else has ended the flight."""
        if not self.returned:
            self._failed(asyncio.CancelledError())
            self._over()

    def _failed(self, error: BaseException) -> None:
        self.error_type = type(error).__qualname__
        if not self.disowned:
            self.error = error

    def _over(self) -> None:
        self.returned = True
        self.table.forget(self)
        if not self.complete:  # else all have been woken
            self._finish()
        for future in self._returns:
            _release_future(future)
        self.end_of_work()
        self.task, self.work = None, NO_WORK  # no cycle may keep the body alive until the collector comes by

    def open_head(self, head: Any) -> None:
        """The head is known: those who wait for it go on."""
        self.head = head
        self.head_at = self.clock()
        if self.asleep:
            self._wake()

    def land(self, chunk: bytes) -> bool:
        """Add the last chunk at once; False where it has to wait for slow readers, as `write` does."""
        if self.keep(chunk):
            self.complete = True
            if self.asleep or self._gone is not None:
                self._finish()
        return self.complete

    async def write(self, chunk: bytes, *, last: bool) -> None:
        """Add a chunk; it may wait for slow readers."""
        if not self.keep(chunk):
            if self.keeping:
                self.stop_keeping()
                if not self.budget.spent:
                    self.work.outgrown()
            await self.add(chunk)
            if self.returned:
                return  # before there was room for it: what is there stays without an end
        if last:
            self.complete = True
            self._finish()
        else:
            self._wake()
            # The readers run before the app goes on, so that a chunk leaves when it is made.
            await asyncio.sleep(0)

    def stop_keeping(self) -> None:
        """No newcomers, nothing to store: hold only what someone has yet to read."""
        self.close()
        Body.stop_keeping(self)
        if self.to_store:
            self.to_store = False
            self._end_deserted()

    def close(self) -> None:
        """Take no more followers, and leave the table."""
        if self.listed:
            self.table.leave(self)

    async def deserted(self) -> None:
        """Wait until nobody waits any more, or the response is complete: what an app hears as `http.disconnect`."""
        if self._gone is None:
            self._gone = asyncio.Event()
            if self.complete or self.returned or (not self.waiters and not self._goes_on):
                self._gone.set()
        await self._gone.wait()

    def disown(self) -> None:
        """Its leader's call is over, so that nobody is left to raise its error, whose traceback holds the flight."""
        self.disowned, self.error = True, None

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
        if self.asleep:
            asleep, self.asleep = self.asleep, set()
            for waiter in asleep:
                waiter.wake()

    def _release(self) -> None:
        """No head in time: a response that is ready goes out, or else the leader stays, the others join a successor."""
        goes_out = False
        try:
            goes_out = self.work.release()
        finally:
            if not goes_out:
                self.close()
                self.released = True
                self._wake()

    # -- who waits ----------------------------------------------------------------------------------------------

    def board(self, *, leader: bool, listen: Callable[[], Awaitable[bool]] | None = None) -> Waiter:
        """A new waiter; `listen` tells when its client has gone."""
        waiter = Waiter(self, leader, self.base, listen, None if listen is None else copy_context())
        self.join(waiter)
        if not leader:
            self.followers += 1
        if self.watching:
            waiter.watch()
        return waiter

    def look(self, now: float) -> None:
        """What the table's watch does for a flight that is not over after `WATCH_AFTER`; `now` is the loop's time."""
        if self.task is not None and self.task.done():
            self.never_ran()  # or else it would have ended by itself
            return
        if not self.watching:
            self.watching = True
            for waiter in self.waiters:
                waiter.watch()
        if self.head is None and not self.released and now - self.started >= self.terms.max_wait:
            self._release()
        if self.complete and not self._is_late:
            if self.landed_at is None:
                self.landed_at = now
            elif now - self.landed_at >= BACKGROUND:
                self._is_late = True
                try:
                    self.work.late()
                finally:
                    self.stop_keeping()  # background work may take hours: the body is not held for it

    def left(self, waiter: Waiter) -> None:
        """One waits no more; idempotent."""
        self.leave(waiter)
        self._end_deserted()

    @property
    def _goes_on(self) -> bool:
        """Whether it does when nobody waits any more."""
        return self.runs_on or self.to_store

    def _end_deserted(self) -> None:
        if self.complete or self.readers or self.returned or self._goes_on:
            return
        self.close()
        if self._gone is not None:
            self._gone.set()
        self.loop.call_later(GRACE, self._cancel_deserted, context=Context())

    def _cancel_deserted(self) -> None:
        if self.task is not None and not self.complete and not self._goes_on:
            self.task.cancel()


def _takes_names(loop: Loop) -> bool:
    """Whether a loop's tasks may be given names: one that is no asyncio's own, or a factory, need not know of them."""
    return (
        getattr(loop.create_task, "__func__", None) is _OF_ALL.create_task
        and getattr(loop.get_task_factory, "__func__", None) is _OF_ALL.get_task_factory
        and loop.get_task_factory() is None
    )


def _release_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
