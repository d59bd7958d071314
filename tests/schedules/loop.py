"""An event loop on virtual time, whose ready queue is shuffled.

Law: one seed, one schedule; time moves only when nothing can run, and where nothing ever could, it says so.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from typing import Final

START: Final = 1000.0
"""The time at which every loop begins, in seconds."""
PATIENCE: Final = 600.0
"""Seconds after which a world that is still busy is stuck."""
TURNS: Final = 50_000
"""Handles after which a world that is still busy is stuck, whether time moves or not."""
_TOGETHER: Final = 1e-6
"""Timers that are so close are due together, whatever rounding says."""


class StuckError(Exception):
    """Nothing is left that could wake anybody, or timers alone run for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one handle at a time, any of those that are ready; `shuffle=None` keeps asyncio's own order."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, shuffle: random.Random | None) -> None:
        super().__init__()
        self._shuffle = shuffle
        self._now = START
        self._turns = 0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:
            self._jump()
        self._fall_due()
        if self._ready:
            handle = self._take()
            self._turns += 1
            if self._turns > TURNS:
                raise StuckError(f"still busy after {TURNS} turns")
            if not handle.cancelled():
                handle._run()

    def _jump(self) -> None:
        """Go to the next timer, since nothing can run before it."""
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)
        if not self._scheduled:
            raise StuckError("nothing is left that could wake anybody")
        self._now = max(self._now, self._scheduled[0].when())
        if self._now > START + PATIENCE:
            raise StuckError(f"still busy after {PATIENCE:.0f} s")

    def _fall_due(self) -> None:
        while self._scheduled and self._scheduled[0].when() <= self._now + _TOGETHER:
            self._ready.append(heapq.heappop(self._scheduled))

    def _take(self) -> asyncio.Handle:
        if self._shuffle is None or len(self._ready) == 1:
            return self._ready.popleft()
        place = int(self._shuffle.random() * len(self._ready))
        handle = self._ready[place]
        del self._ready[place]
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are left where they are until they are due."""

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def forgive(self) -> None:
        """Let a stuck loop's tasks end: time begins anew."""
        for timer in self._scheduled:
            timer.cancel()
        self._now, self._turns = START, 0
