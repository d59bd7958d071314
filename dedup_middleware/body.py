"""A flight's body: chunks as they come, read by several at their own pace.

Law: what is held for readers is bounded; a slow one holds up others only for so long, and then it is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

STALL: Final = 10.0
"""Seconds without progress after which a reader that holds up others is cut."""
MAX_HOLD: Final = 5.0
"""Seconds in all for which slow readers may hold up a flight."""


class Reader:
    """A place in a body."""

    def __init__(self, body: Body) -> None:
        self.position = body.base
        self.moved_at = 0.0
        self.cut = False


class Body:
    """Chunks from `base` on.

    While it is `keeping` it keeps all of them, up to the limit in bytes; after that only what someone has yet to
    read, and the writer waits for the slowest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], limit: int) -> None:
        self.clock = clock
        self.limit = limit
        self.chunks: list[bytes] = []
        self._added_at: list[float] = []
        self.base = 0
        self.total = 0
        self.held = 0
        self.keeping = True
        self.readers: set[Reader] = set()
        self._loop = loop
        self._room: asyncio.Future[None] | None = None
        self._held_for = 0.0

    async def add(self, chunk: bytes) -> None:
        """Add a chunk; wait only where readers would otherwise hold more than the limit."""
        if not self.keeping and chunk:
            await self._await_room(len(chunk))
        self.chunks.append(chunk)
        self._added_at.append(self.clock())
        self.total += len(chunk)
        self.held += len(chunk)

    def __getitem__(self, position: int) -> bytes:
        return self.chunks[position - self.base]

    @property
    def end(self) -> int:
        """The place after the last chunk."""
        return self.base + len(self.chunks)

    def whole(self) -> bytes:
        """All of it, while it is keeping."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    def stop_keeping(self) -> None:
        """Hold from now on only what someone has yet to read."""
        self.keeping = False
        self._trim()

    def advance(self, reader: Reader) -> None:
        """The reader has used its chunk."""
        reader.position += 1
        reader.moved_at = self.clock()
        if not self.keeping:
            self._trim()

    def leave(self, reader: Reader) -> None:
        """The reader needs nothing any more."""
        self.readers.discard(reader)
        if not self.keeping:
            self._trim()

    def _trim(self) -> None:
        taken = min((reader.position for reader in self.readers), default=self.end) - self.base
        if taken > 0:
            self.held -= sum(map(len, self.chunks[:taken]))
            del self.chunks[:taken]
            del self._added_at[:taken]
            self.base += taken
            self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _await_room(self, size: int) -> None:
        self._trim()
        while self.chunks and self.held + size > self.limit:
            self._room = self._loop.create_future()
            alone = len(self.readers) == 1
            started = self.clock()
            timer = None if alone else self._loop.call_later(self._patience(started), self._make_room)
            try:
                await self._room
            finally:
                self._room = None
                if timer is not None:
                    timer.cancel()
            if not alone:
                self._held_for += self.clock() - started
                if self.chunks:
                    self._cut_slowest()
            self._trim()

    def _slowest(self) -> Reader:
        return min(self.readers, key=lambda reader: reader.position)

    def _patience(self, now: float) -> float:
        # A reader stalls from when there is something for it to take; the slowest one's place is the first.
        stalls_since = max(self._slowest().moved_at, self._added_at[0])
        return max(0.0, min(MAX_HOLD - self._held_for, stalls_since + STALL - now))

    def _cut_slowest(self) -> None:
        if len(self.readers) > 1 and self._patience(self.clock()) <= 0:
            slowest = self._slowest()
            slowest.cut = True
            self.readers.discard(slowest)
