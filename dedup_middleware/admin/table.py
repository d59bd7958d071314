"""The audit log's table: written behind, in a thread of its own, where the ledger has one.

Law: whoever causes an entry waits for nothing; what a failing ledger does not take is counted, and is in the log.
Refusals, and what code invalidates, leave room for what people change.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import queue
import threading
import weakref
from typing import Any, Final, Protocol, cast

import msgspec

from ..forking import OwnLock
from ..records import COMMON
from ..telemetry import parts_log

MAX_WAITING: Final = 2000
MAX_COMMON: Final = 1000
"""Entries that wait when only what people changed may still join them."""
_CLOSING: Final = 3.0
_PATIENCE: Final = 10.0
_LOOKS: Final = 100


class Entry(msgspec.Struct, frozen=True):
    """Who did what to which target, and with what result; `times` counts repeats in one minute."""

    at: float
    who: str
    what: str
    target: str
    result: str
    times: int = 1


class Notes(Protocol):
    """What a ledger offers that has such a table."""

    async def note(self, *, at: float, who: str, what: str, target: str | None, result: str) -> None:
        """Add a line."""

    async def aclose(self) -> None:
        """Close what this loop's use has opened."""


class Table:
    """Writes entries to a ledger, and reads them; `dropped` counts those that it did not take."""

    def __init__(self, ledger: Notes) -> None:
        self.dropped = 0
        self._ledger = ledger
        self._process = 0
        self._ended = False
        self._own = OwnLock()

    def add(self, entry: Entry) -> None:
        """From any thread, and never for long."""
        if self._ended:  # what a listener tells late starts no thread that nobody ends
            self.dropped += 1
            return
        if self._process != os.getpid():  # the first entry, or the first of a forked process
            self._start()
        if self._waiting.qsize() >= (MAX_COMMON if entry.what in COMMON else MAX_WAITING):
            self.dropped += 1
        else:
            self._waiting.put(entry)

    async def page(self, offset: int, limit: int) -> tuple[int, list[Entry]] | None:
        """How many entries there are, and some of them, the latest first; None where the ledger does not say."""
        analytics: Any = importlib.import_module("dedup_middleware.records.analytics")
        try:
            async with asyncio.timeout(_PATIENCE):
                for _ in range(_LOOKS):  # so that what was done just now is there
                    if self._process != os.getpid() or not self._waiting.unfinished_tasks:
                        break
                    await asyncio.sleep(0.01)
                found = await analytics.audits(self._ledger, limit=limit, offset=offset)
        except Exception as error:  # noqa: BLE001 - whatever a database raises
            parts_log.warning("the ledger failed to give the audit log (%s)", type(error).__qualname__)
            return None
        return found.total, [
            Entry(one.at, one.who, one.what, one.target or "", one.result) for one in found.items
        ]

    def end(self) -> threading.Thread | None:
        """Write what waits, and end; nobody waits for it. Gives the thread that does it, if there is one."""
        self._ended = True
        if self._process != os.getpid():
            return None
        self._process = 0
        self._waiting.put(None)
        return self._thread

    def _start(self) -> None:
        with self._own.lock:
            if self._process == os.getpid():
                return
            self._waiting: queue.Queue[Entry | None] = queue.Queue()  # `add` bounds it; the end always fits
            self._thread = threading.Thread(
                target=self._run, args=(self._waiting,), name="dedup-audit", daemon=True
            )
            self._process = os.getpid()
            self._thread.start()
            atexit.register(_end_at_exit, weakref.ref(self))

    def _run(self, waiting: queue.Queue[Entry | None]) -> None:
        with asyncio.Runner() as runner:
            while (entry := waiting.get()) is not None:
                try:
                    runner.run(self._write(entry))
                except Exception as error:  # noqa: BLE001 - whatever a database raises
                    self.dropped += 1
                    parts_log.warning(
                        "the ledger took no entry of the audit log (%s)", type(error).__qualname__
                    )
                finally:
                    waiting.task_done()
            runner.run(self._ledger.aclose())

    async def _write(self, entry: Entry) -> None:
        result = entry.result if entry.times == 1 else f"{entry.result} ({entry.times} times)"
        async with asyncio.timeout(_PATIENCE):
            await self._ledger.note(
                at=entry.at, who=entry.who, what=entry.what, target=entry.target, result=result
            )


def _end_at_exit(table: weakref.ref[Table]) -> None:
    found = table()
    if found is not None and (thread := found.end()) is not None:
        thread.join(_CLOSING)


def table_of(ledger: object) -> Table | None:
    """The ledger's table, where it has one."""
    return Table(cast("Notes", ledger)) if callable(getattr(ledger, "note", None)) else None
