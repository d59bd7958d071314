"""Running: a thread with an event loop of its own, which others may wake and end.

Law: it never holds up the end of a process, and nobody waits for it longer than asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Run:
    """One thread at work when it is its turn; `closing` says that it should end."""

    def __init__(
        self,
        work: Callable[[Run], Awaitable[None]],
        failed: Callable[[Exception], None],
        turn: threading.Lock,
    ) -> None:
        self.closing = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._work = work
        self._failed = failed
        self._turn = turn
        self._woken = asyncio.Event()
        self._thread = threading.Thread(target=self._live, name="dedup-recorder", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    async def pause(self, seconds: float) -> None:
        """Wait until somebody wakes it, so long at most; by the thread itself."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()

    def wake(self) -> None:
        """From any thread; one that has not begun yet looks by itself."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._woken.set)

    def end(self) -> None:
        """From any thread: it should end when its work is done."""
        self.closing = True
        self.wake()

    async def ended(self, until: float) -> None:
        """Wait for its end, until so much on the monotonic clock, while the caller's loop goes on."""
        while self.is_alive and time.monotonic() < until:  # noqa: ASYNC110 - a thread's end
            await asyncio.sleep(0.005)

    def join(self, until: float) -> None:
        """The same, where no event loop runs."""
        self._thread.join(max(0.0, until - time.monotonic()))

    def _live(self) -> None:
        with self._turn:  # another one that is told to end may still be at it
            try:
                asyncio.run(self._begin())
            except Exception as error:  # noqa: BLE001 - whatever the work raises: the next event begins anew
                self._failed(error)

    async def _begin(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._work(self)
