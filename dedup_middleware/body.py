"""A flight's body: chunks as they come, read by several at their own pace.

Law: what is held for readers is bounded; a slow one holds up others only for so long, and then it is cut.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

STALL: Final = 10.0
"""Seconds without progress after which a reader that holds up others is cut."""
MAX_HOLD: Final = 5.0
"""Seconds in all for which slow readers may hold up a flight."""
OWN_HOLD: Final = 1.0
"""Seconds beyond that for which each reader may hold it up until it has caught up: a quick one gets its turn."""
TURN: Final = 0.1
"""Seconds of `OWN_HOLD` that a reader gets at a time."""
TICK: Final = 0.001
"""Seconds that count as none: rounding may leave that much of a wait, and a coarse clock would not see it pass."""


MAX_CHUNKS: Final = 65_536
"""Chunks that a body may keep, however small they are."""
SPENT_LIMIT: Final = 64 * 1024
"""Bytes that a body may hold for its readers while the budget of all is spent."""


class Budget:
    """Bytes that all bodies under way hold together; past `limit` none keeps more than it must."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def spent(self) -> bool:
        """Whether there is none left."""
        return self.used > self.limit


class Reader(Protocol):
    """A place in a body: the number of the chunk that it takes next, from the body's `base` on.

    It has not moved since `moved_at`, held up others for `held_for` seconds, and is `cut` when that was too long.
    """

    position: int
    moved_at: float
    held_for: float
    cut: bool


class Body:
    """Chunks from `base` on: what a flight holds, which has these fields.

    While it is `keeping` it keeps all of them, up to the limit in bytes; after that only what someone has yet to
    read, and the writer waits for the slowest. Where readers stand (`_places`), and since when each chunk waits for the
    slowest (`_added_at`), is counted from then on. Of several tasks that write one waits for room, the others for their
    turn (`_writing`). Nothing is added or stored any more when the work has `returned`.
    """

    if not TYPE_CHECKING:  # mypy would look for the fields here
        __slots__ = ()
    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    limit: int
    budget: Budget
    chunks: list[bytes]
    readers: set[Any]
    base: int
    total: int
    keeping: bool
    returned: bool
    _room: asyncio.Future[None] | None
    _writing: asyncio.Lock | None
    _places: dict[int, int]
    _added_at: list[float]
    _held_for: float
    _freed: int

    def keep(self, chunk: bytes) -> bool:
        """Add a chunk at once; False where it can't be kept: too many bytes, too many chunks, or no budget."""
        size, budget = len(chunk), self.budget
        total = self.total + size
        if (
            total > self.limit
            or not self.keeping
            or len(self.chunks) >= MAX_CHUNKS
            or budget.used > budget.limit
        ):
            return False
        self.chunks.append(chunk)
        self.total = total
        budget.used += size  # no call in between: other threads count here too
        return True

    async def add(self, chunk: bytes) -> None:
        """Add a chunk where it is not keeping; wait only where readers would otherwise hold more than the limit."""
        if self._writing is None:
            self._writing = asyncio.Lock()
        async with self._writing:
            if chunk:
                await self._await_room(len(chunk))
            if self.returned:  # meanwhile: nobody reads it, and nobody would let go of it
                return
            self.chunks.append(chunk)
            self._added_at.append(self.clock())
            size = len(chunk)
            self.total += size
            self.budget.used += size  # as above

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self.total - self._freed

    @property
    def end(self) -> int:
        """The place after the last chunk."""
        return self.base + len(self.chunks)

    def whole(self) -> bytes:
        """All of it, while it is keeping."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    def stop_keeping(self) -> None:
        """Hold from now on only what someone has yet to read."""
        if self.keeping:
            self.keeping = False
            self._places = {}
            self._added_at = [self.clock()] * len(self.chunks)
            for reader in self.readers:
                self._stand(reader.position)
            self._trim()

    def end_of_work(self) -> None:
        """Nothing will be added or stored any more."""
        if not self.readers:
            self._let_go()
        elif self.total > SPENT_LIMIT:
            self.stop_keeping()

    def join(self, reader: Reader) -> None:
        """One more reads."""
        self.readers.add(reader)
        if not self.keeping:
            self._stand(reader.position)

    def advance(self, reader: Reader) -> None:
        """The reader has used its chunk."""
        place = reader.position
        reader.position += 1
        if self.keeping:
            return
        reader.moved_at = self.clock()
        if reader.position == self.base + len(self.chunks):
            reader.held_for = 0.0
        if reader in self.readers:
            self._stand(place + 1)
            self._leave_place(place)

    def leave(self, reader: Reader) -> None:
        """The reader needs nothing any more."""
        if reader in self.readers:
            self.readers.discard(reader)
            if not self.readers and (self.returned or not self.keeping):
                self._let_go()
            elif not self.keeping:
                self._leave_place(reader.position)

    def _stand(self, place: int) -> None:
        self._places[place] = self._places.get(place, 0) + 1

    def _leave_place(self, place: int) -> None:
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]
            if place == self.base:
                self._trim()

    def _let_go(self) -> None:
        """Nobody reads: hold nothing."""
        if not self.keeping:
            self._places.clear()
            self._added_at.clear()
        if self.chunks:
            self.base += len(self.chunks)
            self.chunks.clear()
            self.budget.used -= self.total - self._freed
            self._freed = self.total
            if self._room is not None:
                self._make_room()

    def _trim(self) -> None:
        """Let go of what all have read; the first place where somebody stands is the new base."""
        taken = 0
        while taken < len(self.chunks) and self.base + taken not in self._places:
            taken += 1
        if taken:
            freed = sum(map(len, self.chunks[:taken]))
            self._freed += freed
            self.budget.used -= freed
            del self.chunks[:taken]
            del self._added_at[:taken]
            self.base += taken
            self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    @property
    def _bound(self) -> int:
        return min(self.limit, SPENT_LIMIT) if self.budget.spent else self.limit

    async def _await_room(self, size: int) -> None:
        self._trim()
        while self.chunks and self.held + size > self._bound:
            self._room = self.loop.create_future()
            alone = len(self.readers) == 1
            started = self.clock()
            timer = None if alone else self.loop.call_later(self._patience(started), self._make_room)
            try:
                await self._room
            finally:
                self._room = None
                if timer is not None:
                    timer.cancel()
            if not alone:
                spent = self.clock() - started
                self._held_for += spent
                if self.chunks and self.readers:
                    self._slowest().held_for += spent
                    self._cut_slowest()
            self._trim()

    def _slowest(self) -> Reader:
        slowest: Reader = min(self.readers, key=lambda reader: reader.position)
        return slowest

    def _patience(self, now: float) -> float:
        # A reader stalls from when there is something for it to take; the slowest one's place is the first.
        slowest = self._slowest()
        stalls_since = max(slowest.moved_at, self._added_at[0])
        turn = min(TURN, OWN_HOLD - slowest.held_for)
        left = max(turn, min(MAX_HOLD - self._held_for, stalls_since + STALL - now))
        return left if left > TICK else 0.0

    def _cut_slowest(self) -> None:
        if len(self.readers) > 1 and self._patience(self.clock()) <= 0:
            slowest = self._slowest()
            slowest.cut = True
            self.leave(slowest)
