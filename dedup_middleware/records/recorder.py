"""The recorder: gathers what happened and writes it behind, about once a second, in a thread of its own.

Law: no request waits for it. While the ledger fails, what happens is added up within bounds, what finds no room is
counted, one warning a minute says so, and when the ledger is back everything goes on by itself.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
import weakref
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..events import (
    Event,
    ExecutionCollapsed,
    ExecutionCompleted,
    ResponseServed,
    ResponseStored,
    Subscription,
)
from .collecting import Collecting, Counts
from .gathering import Gathering
from .running import Run
from .writing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Ledger
    from .gathering import Chunk

EVERY: Final = 1.0
"""Seconds between two looks at what is to be written."""
CLOSING: Final = 3.0
"""Seconds for which an end waits until what was gathered is written."""
PATIENCE: Final = 10.0
"""The longest pause, in seconds, before a failing ledger is tried again."""
TRIMMING: Final = 60.0
"""Seconds between two looks at what is too old or too much."""


class Source(Counts, Protocol):
    """What is read of an engine."""

    recording: bool

    def subscribe(self, listener: Callable[[Event], object], *kinds: type[Event]) -> Subscription:
        """Hear what happens."""


class _Flush(Event, frozen=True, kw_only=True, tag="records.flush"):
    """A mark in the queue of events: who waits wants all before it written."""

    done: Any


class Recorder:
    """Writes one engine's records to a ledger.

    `dropped` counts what found no room or was refused, `failures` the writes that failed; `trouble` says in one
    sentence what is wrong now, or is None.
    """

    def __init__(self, source: Source, ledger: Ledger, *, detail: frozenset[str]) -> None:
        self.ledger = ledger
        self._source = source
        self._every = EVERY
        self._patience = PATIENCE
        self._begin_anew()
        source.recording = True
        kinds: list[type[Event]] = [ExecutionCompleted, ExecutionCollapsed, ResponseServed, _Flush]
        self._subscription = source.subscribe(self._hear, *kinds, *([ResponseStored] if detail else []))
        atexit.register(_close_at_exit, weakref.ref(self))

    def _begin_anew(self) -> None:
        self._gathering = Gathering()
        self._collecting = Collecting(self._source)
        self._writing = Writing(self.ledger, self._warn)
        self._waiting: list[Future[bool]] = []
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._turn = threading.Lock()
        self._run: Run | None = None

    @property
    def dropped(self) -> int:
        """What is in no record: for want of room here, in the queue of events, or because the database refused it."""
        return self._gathering.dropped + self._subscription.dropped + self._writing.refused

    @property
    def waiting(self) -> int:
        """Rows that wait to be written."""
        return len(self._gathering) + self._writing.waiting

    @property
    def failures(self) -> int:
        """Writes that failed."""
        return self._writing.failures

    @property
    def trouble(self) -> str | None:
        """What is wrong now."""
        return self._writing.trouble

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write; nothing where it has begun."""
        if self.is_running:
            return
        with self._starting:
            if not self.is_running:
                self._run = Run(self._live, lambda error: self._writing.failed("run", error), self._turn)

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that writes."""
        run = self._run
        return run is not None and run.is_alive

    def forked(self) -> None:
        """In a child process: what waited is the parent's to write, threads and connections are left behind.

        It begins again when the engine is used.
        """
        self.ledger.forked()
        self._begin_anew()
        self._collecting.skip()

    def flush(self) -> Future[bool]:
        """Write what happened until now; True when it is written, False where the ledger fails."""
        done: Future[bool] = Future()
        self.start()
        self._subscription.put(_Flush(at=time.time(), done=done))
        return done

    async def settle(self) -> bool:
        """Wait, some seconds at most, until what happened until now is written; whether it is."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.wrap_future(self.flush()), CLOSING)
        return False

    async def aclose(self) -> None:
        """Write what happened until now, for some seconds at most, and rest until something happens again."""
        ends = time.monotonic() + CLOSING
        await self.settle()
        if (run := self._stop()) is not None:
            await run.ended(ends)

    def close(self, seconds: float = CLOSING) -> None:
        """The same, where no event loop runs."""
        ends = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, RuntimeError):
            self.flush().result(seconds)
        if (run := self._stop()) is not None:
            run.join(ends)

    def _stop(self) -> Run | None:
        with self._starting:
            run, self._run = self._run, None
        if run is not None:
            run.end()
        return run

    # -- hearing: in the listener's thread ----------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        with self._lock:
            match event:
                case ExecutionCompleted():
                    self._gathering.completed(event)
                case ExecutionCollapsed():
                    self._gathering.collapsed(event)
                case ResponseServed():
                    self._collecting.sampled(event.rule, event.duration)
                case ResponseStored():
                    self._gathering.tags(event.rule, event.key, event.tags)
                case _Flush():
                    self._waiting.append(event.done)
                    if (run := self._run) is not None:
                        run.wake()
                    return
        self.start()  # again, after a rest

    # -- writing: in the recorder's own thread ------------------------------------------------------------------

    async def _live(self, run: Run) -> None:
        collecting = asyncio.create_task(self._collect_on())
        try:
            await self._write_on(run)
        finally:
            collecting.cancel()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.ledger.aclose(), CLOSING)

    async def _collect_on(self) -> None:
        """While a write takes long, what is counted still goes to its own minute."""
        while True:
            await asyncio.sleep(self._every)
            self.collect()

    def collect(self) -> None:
        """Take note of what was only counted."""
        with self._lock:
            self._collecting.collect(self._gathering, int(time.time() // 60 * 60))

    async def _write_on(self, run: Run) -> None:
        pause = self._every
        trimmed = time.monotonic()
        while True:
            waiting, self._waiting = self._waiting, []
            written = await self._writing.write(self._take)
            for done in waiting:
                with contextlib.suppress(InvalidStateError):  # nobody waits any more
                    done.set_result(written)
            if run.closing and not self._waiting:
                return
            pause = self._every if written else min(self._patience, pause * 2)
            if written and time.monotonic() - trimmed >= TRIMMING:
                trimmed = time.monotonic()
                await self._writing.trim(lambda: run.closing or bool(self._waiting))
            if not self._waiting:
                await run.pause(pause)

    def _take(self, writer: str, number: int) -> list[Chunk]:
        self.collect()
        with self._lock:
            return self._gathering.take(writer, number, time.time())

    def _warn(self, what: str, said: str) -> None:
        self._source.telemetry.warn(
            "ledger",
            "the ledger failed to %s (%s): requests go on, %d rows wait, %d observations were dropped",
            what,
            said,
            self.waiting,
            self.dropped,
        )


def _close_at_exit(recorder: weakref.ref[Recorder]) -> None:
    found = recorder()
    if found is not None and found.is_running:
        found.close()
