"""The recorder: gathers what happened and writes it behind, about once a second, in a thread of its own.

Law: no request waits for it. While the ledger fails, what happens is added up within bounds, what finds no room is
counted, one warning a minute says so, and when the ledger is back everything goes on by itself.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import secrets
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
from . import Ledger, RowRefusedError, SchemaError
from .gathering import Gathering

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stores import Store
    from ..telemetry import CountKey, Telemetry
    from .gathering import Chunk

EVERY: Final = 1.0
"""Seconds between two looks at what is to be written."""
CLOSING: Final = 3.0
"""Seconds for which an end waits until what was gathered is written."""
PATIENCE: Final = 10.0
"""The longest pause, in seconds, before a failing ledger is tried again."""
TRIMMING: Final = 60.0
"""Seconds between two looks at what is too old or too much."""


class Source(Protocol):
    """What is read of an engine."""

    telemetry: Telemetry
    recording: bool

    @property
    def store(self) -> Store:
        """The store in use."""

    def hits_lately(self) -> list[tuple[str, bytes, int, int]]:
        """Hits since this was last asked."""

    def subscribe(self, listener: Callable[[Event], object], *kinds: type[Event]) -> Subscription:
        """Hear what happens."""


class _Flush(Event, frozen=True, kw_only=True, tag="records.flush"):
    """A mark in the queue of events: who waits wants all before it written."""

    done: Any


class _Run:
    """One thread that writes: its loop, and whether it shall end."""

    def __init__(self) -> None:
        self.closing = False
        self.thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def begin(self) -> None:
        """In the thread's own loop."""
        self._loop = asyncio.get_running_loop()

    async def pause(self, seconds: float) -> None:
        """Wait until somebody wakes it, so long at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()

    def wake(self) -> None:
        """From any thread; one that has not begun yet looks by itself."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._woken.set)


class Recorder:
    """Writes one engine's records to a ledger.

    `dropped` counts what found no room or was refused, `failures` the writes that failed; `trouble` says in one
    sentence what is wrong now, or is None.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        *,
        detail: frozenset[str] = frozenset(),
        now: Callable[[], float] = time.time,
        every: float = EVERY,
        patience: float = PATIENCE,
    ) -> None:
        self.ledger = ledger
        self.failures = 0
        self.trouble: str | None = None
        self._source = source
        self._detail = detail
        self._now = now
        self._every = every
        self._patience = patience
        self._run: _Run | None = None
        self._starting = threading.Lock()
        self._begin_anew()
        source.recording = True
        kinds: list[type[Event]] = [ExecutionCompleted, ExecutionCollapsed, ResponseServed, _Flush]
        self._subscription = source.subscribe(self._hear, *kinds, *([ResponseStored] if detail else []))
        atexit.register(_close_at_exit, weakref.ref(self))

    def _begin_anew(self) -> None:
        self._gathering = Gathering()
        self._lock = threading.Lock()
        self._writer = secrets.token_hex(16)
        self._number = 0
        self._chunks: list[Chunk] = []
        self._refused = 0
        self._turn = threading.Lock()
        self._waiting: list[Future[bool]] = []
        self._counted: dict[CountKey, tuple[int, float]] = {}
        self._left = (0, 0, 0)
        self._samples: dict[str, float] = {}
        self._unsampled: dict[tuple[str, int], tuple[int, float]] = {}

    @property
    def dropped(self) -> int:
        """What is in no record: for want of room here, in the queue of events, or because the database refused it."""
        return self._gathering.dropped + self._subscription.dropped + self._refused

    @property
    def waiting(self) -> int:
        """Rows that wait to be written."""
        return len(self._gathering) + sum(chunk.size for chunk in self._chunks)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write; nothing where it has begun."""
        if self.is_running:
            return
        with self._starting:
            if not self.is_running:
                run = _Run()
                run.thread = threading.Thread(
                    target=self._work, args=(run,), name="dedup-recorder", daemon=True
                )
                run.thread.start()
                self._run = run

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that writes."""
        run = self._run
        return run is not None and run.thread is not None and run.thread.is_alive()

    def forked(self) -> None:
        """In a child process: what waited is the parent's to write, threads and connections are left behind."""
        self._starting = threading.Lock()
        self.ledger.forked()
        started, self._run = self._run, None
        self._begin_anew()
        for key, tally in self._source.telemetry.tallies.copy().items():
            self._counted[key] = (tally.number, tally.saved)
        self._source.hits_lately()
        if started is not None:
            self.start()

    def flush(self) -> Future[bool]:
        """Write what happened until now; True when it is written, False where the ledger fails."""
        done: Future[bool] = Future()
        self.start()
        self._subscription.put(_Flush(at=self._now(), done=done))
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
        thread = self._stop()
        while thread is not None and thread.is_alive() and time.monotonic() < ends:  # noqa: ASYNC110 - a thread's end
            await asyncio.sleep(0.005)

    def close(self, seconds: float = CLOSING) -> None:
        """The same, where no event loop runs."""
        ends = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, RuntimeError):
            self.flush().result(seconds)
        thread = self._stop()
        if thread is not None:
            thread.join(max(0.0, ends - time.monotonic()))

    def _stop(self) -> threading.Thread | None:
        with self._starting:
            run, self._run = self._run, None
        if run is None:
            return None
        run.closing = True
        run.wake()
        return run.thread

    # -- hearing: in the listener's thread ----------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        match event:
            case ExecutionCompleted():
                with self._lock:
                    self._gathering.completed(event)
            case ExecutionCollapsed():
                with self._lock:
                    self._gathering.collapsed(event)
            case ResponseServed():
                self._samples[event.rule] = event.duration
            case ResponseStored():
                with self._lock:
                    self._gathering.tags(event.rule, event.key, event.tags)
            case _Flush():
                self._waiting.append(event.done)
                if (run := self._run) is not None:
                    run.wake()
                return
        self.start()  # again, after a rest

    # -- gathering what is counted ------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take note of what was only counted."""
        minute = int(self._now() // 60 * 60)
        with self._lock:
            self._collect_requests(minute)
            for rule, key, number, size in self._source.hits_lately():
                self._gathering.hits(rule, key.hex(), number, size)
            self._collect_memory(minute)

    def _collect_requests(self, minute: int) -> None:
        for key, tally in self._source.telemetry.tallies.copy().items():
            number, saved = tally.number, tally.saved
            known, known_saved = self._counted.get(key, (0, 0.0))
            if number == known:
                continue
            self._counted[key] = (number, saved)
            more, more_saved = number - known, saved - known_saved
            self._gathering.requests(tally.label, minute, tally.outcome, tally.reason, more, more_saved)
            if tally.outcome == "hit":
                before = self._unsampled.get((tally.label, minute), (0, 0.0))
                self._unsampled[tally.label, minute] = (before[0] + more, before[1] + more_saved)
        for (rule, at), (number, saved) in list(self._unsampled.items()):
            # How long hits take is sampled; those of a rule that has no sample yet wait for its first one.
            if rule in self._samples:
                del self._unsampled[rule, at]
                self._gathering.hit_latency(rule, at, number, self._samples[rule], saved / number)
        while len(self._unsampled) > 1000:
            del self._unsampled[next(iter(self._unsampled))]

    def _collect_memory(self, minute: int) -> None:
        try:
            store = self._source.store
            left = (store.evicted, store.expired, store.invalidated)
            size, responses = store.size, store.responses
        except Exception:  # noqa: BLE001 - whatever a store raises: whoever uses it tells of it
            return
        # A store that failed was replaced by an empty one, which counts from 0.
        more = [now - before if now >= before else now for now, before in zip(left, self._left, strict=True)]
        self._left = left
        if responses or any(more):
            evicted, expired, invalidated = more
            self._gathering.memory(
                minute,
                size=size,
                responses=responses,
                evicted=evicted,
                expired=expired,
                invalidated=invalidated,
            )

    # -- writing: in the recorder's own thread ------------------------------------------------------------------

    def _work(self, run: _Run) -> None:
        with self._turn:  # one that is told to end may still be at it
            try:
                asyncio.run(self._live(run))
            except Exception as error:  # noqa: BLE001 - the next event begins anew
                self._failed("run", error)

    async def _live(self, run: _Run) -> None:
        run.begin()
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

    async def _write_on(self, run: _Run) -> None:
        pause = self._every
        trimmed = time.monotonic()
        while True:
            waiting, self._waiting = self._waiting, []
            written = await self._write()
            for done in waiting:
                with contextlib.suppress(InvalidStateError):  # nobody waits any more
                    done.set_result(written)
            if run.closing and not self._waiting:
                return
            pause = self._every if written else min(self._patience, pause * 2)
            if written and time.monotonic() - trimmed >= TRIMMING:
                trimmed = time.monotonic()
                await self._trim(run)
            if not self._waiting:
                await run.pause(pause)

    async def _write(self) -> bool:
        """Write all that waits; whether it is written."""
        try:
            self.collect()
            await self.ledger.prepare()
            while True:
                if not self._chunks:
                    with self._lock:
                        self._chunks = self._gathering.take(self._writer, self._number + 1, self._now())
                    if not self._chunks:
                        break
                while self._chunks:
                    await self._write_one(self._chunks[0])
                    self._number = self._chunks.pop(0).number
        except Exception as error:  # noqa: BLE001 - law 9: whatever a database raises
            self._failed("write", error)
            return False
        self.trouble = None
        return True

    async def _write_one(self, chunk: Chunk) -> None:
        try:
            await self.ledger.write(chunk)
        except RowRefusedError as error:
            self._refused += chunk.size
            self._failed("take", error)

    async def _trim(self, run: _Run) -> None:
        try:
            while await self.ledger.trim(self._now()):
                await asyncio.sleep(0.1)  # others write too
                if run.closing or self._waiting:
                    break
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("trim", error)

    def _failed(self, what: str, error: Exception) -> None:
        self.failures += 1
        said = str(error) if isinstance(error, SchemaError) else type(error).__qualname__
        self.trouble = f"the ledger failed to {what} ({said})"
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
