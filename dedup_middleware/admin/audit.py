"""The audit log: every change and every refusal, whoever caused it.

Law: bounded, and no flood of refusals pushes a change out; the same thing again within a minute counts up one line.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from ..forking import after_fork
from ..telemetry import log
from .table import Entry, Table

if TYPE_CHECKING:
    from collections.abc import Callable


audit_log: Final = log.getChild("audit")
"""Who did what to what, and how it ended: changes at INFO, refusals at WARNING."""

KEPT: Final = 1000
"""Changes that are kept in memory, and refusals."""
_MINUTE: Final = 60.0
_MAX_TEXT: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Audit:
    """Two bounded rings, the log `dedup_middleware.audit`, and a ledger's table where there is one.

    A repeat is logged and kept in the table at the 10th, 100th, 1000th time...
    """

    def __init__(self, clock: Callable[[], float] = time.time, table: Table | None = None) -> None:
        self._clock = clock
        self._table = table
        self._lock = threading.Lock()
        self._rings: dict[bool, deque[Entry]] = {True: deque(maxlen=KEPT), False: deque(maxlen=KEPT)}
        after_fork(self, Audit._forked)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def changed(self, who: str, what: str, target: str, result: str) -> None:
        """Something was changed, or was to be."""
        self._add(logging.INFO, Entry(self._clock(), text(who), what, text(target), text(result)))

    def refused(self, who: str, target: str, result: str) -> None:
        """Somebody was refused."""
        self._add(logging.WARNING, Entry(self._clock(), text(who), "refused", text(target), text(result)))

    def entries(self) -> list[Entry]:
        """All that are kept, the latest first."""
        with self._lock:
            found = [*self._rings[False], *self._rings[True]]
        return sorted(found, key=lambda entry: entry.at)[::-1]

    async def stored(self, offset: int, limit: int) -> tuple[int, list[Entry]] | None:
        """How many entries the ledger's table has, and a page of them; None where there is none that answers."""
        return None if self._table is None else await self._table.page(offset, limit)

    def _add(self, level: int, entry: Entry) -> None:
        ring = self._rings[level == logging.WARNING]
        with self._lock:
            place = _repeated(ring, entry)
            if place is None:
                ring.append(entry)
            else:
                entry = msgspec.structs.replace(entry, at=ring[place].at, times=ring[place].times + 1)
                ring[place] = entry
        if entry.times == 10 ** (len(str(entry.times)) - 1):
            self._tell(level, entry)

    def _tell(self, level: int, entry: Entry) -> None:
        extra = {f"dedup_{name}": value for name, value in msgspec.structs.asdict(entry).items()}
        try:
            audit_log.log(
                level, "%s: %s %s: %s", entry.who, entry.what, entry.target, entry.result, extra=extra
            )
            if self._table is not None:
                self._table.add(entry)
        except Exception as error:  # noqa: BLE001 - law 9: a log or a ledger that fails changes no answer
            log.debug("the audit log failed with %s", type(error).__qualname__)


def _repeated(ring: deque[Entry], entry: Entry) -> int | None:
    """The place of the same entry within the last minute, among the last 50."""
    for place in range(-1, -min(len(ring), 50) - 1, -1):
        other = ring[place]
        if entry.at - other.at >= _MINUTE:
            return None
        if (other.who, other.what, other.target, other.result) == (
            entry.who,
            entry.what,
            entry.target,
            entry.result,
        ):
            return place
    return None


def text(value: str) -> str:
    """One line of bounded length, without what would move a terminal's cursor."""
    line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value[: _MAX_TEXT + 1])
    return line if len(line) <= _MAX_TEXT else f"{line[:_MAX_TEXT]}…"
