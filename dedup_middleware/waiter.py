"""A waiter: one who waits for a flight, at its own pace.

Law: it takes only what is there and waits for nothing else; that its client leaves concerns it alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from types import coroutine
from typing import Any, Protocol

import msgspec

from .core.unseen import Unseen


class Awaited(Protocol):
    """What a waiter asks of its flight."""

    loop: asyncio.AbstractEventLoop
    chunks: list[bytes]
    base: int
    head: Any
    complete: bool
    released: bool
    returned: bool
    asleep: set[Waiter]

    @property
    def end(self) -> int:
        """The place after the last chunk."""

    def advance(self, reader: Waiter) -> None:
        """The reader has used its chunk."""

    def left(self, waiter: Waiter) -> None:
        """One waits no more; idempotent."""


class FlightAbandonedError(Exception):
    """The flight ended without a response that its waiters may use; they join one successor."""


class WaiterGoneError(Exception):
    """The waiter's client has left."""


class WaiterCutError(Exception):
    """The waiter held up others for too long."""


@coroutine
def turn() -> Generator[None, None, None]:
    """Let everything run that was ready before, as `asyncio.sleep(0)` does, in one step less."""
    yield


class Waiter(Unseen, msgspec.Struct, eq=False, weakref=True):
    """One who waits for a flight: a place in its body, and a future while there is nothing to take.

    `listen` tells when its client has gone, or at once that it can't, in `context`, its own.
    """

    flight: Awaited
    leader: bool
    position: int
    listen: Callable[[], Awaitable[bool]] | None
    context: Context | None
    moved_at: float = 0.0
    held_for: float = 0.0
    cut: bool = False
    gone: bool = False
    _future: asyncio.Future[None] | None = None
    _watchman: asyncio.Task[None] | None = None

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
            if self.gone:
                raise WaiterGoneError
        return flight.head

    async def next(self) -> bytes | None:
        """The next chunk, or None after the last.

        Raises:
            FlightAbandonedError: when the forward ended before its body did.
            WaiterGoneError, WaiterCutError: when the client has left, or was too slow.
        """
        flight = self.flight
        while True:
            if self.cut:
                raise WaiterCutError
            if self.position < flight.end:
                return flight.chunks[self.position - flight.base]
            if flight.complete:
                return None
            if flight.returned:
                raise FlightAbandonedError
            await self._change()
            if self.gone:
                raise WaiterGoneError

    def _change(self) -> asyncio.Future[None]:
        """Done when something has changed."""
        if self.gone:
            raise WaiterGoneError
        self._future = future = self.flight.loop.create_future()
        self.flight.asleep.add(self)
        return future

    def wake(self) -> None:
        """Something has changed."""
        future = self._future
        if future is not None:
            self._future = None
            if not future.done():
                future.set_result(None)

    def watch(self) -> None:
        """Notice when the client leaves."""
        if self.listen is not None and self.context is not None and self._watchman is None:
            # Not every task factory takes a context: the old ones don't.
            self._watchman = self.context.run(self.flight.loop.create_task, self._watching(self.listen))

    async def _watching(self, listen: Callable[[], Awaitable[bool]]) -> None:
        if await listen():
            self.gone = True
            self.flight.asleep.discard(self)
            self.wake()

    def leave(self) -> None:
        """Wait no more; idempotent."""
        if self._watchman is not None:
            self._watchman.cancel()
            self._watchman = None
        if self._future is not None:
            self.flight.asleep.discard(self)
        self.flight.left(self)
