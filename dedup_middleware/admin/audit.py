"""The audit log: every change and every refusal, whoever caused it.

Law: bounded, and no flood of refusals, nor of what code invalidates, pushes out what people changed; the same thing
again in the same minute counts up one line, and strangers, however many they are, make so many lines a minute.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from ..forking import OwnLock
from ..records import COMMON, DROPPED, REFUSED
from ..telemetry import log
from .table import Entry, Table

if TYPE_CHECKING:
    from collections.abc import Callable

_Place: TypeAlias = tuple[str, str, str, str, float]

audit_log: Final = log.getChild("audit")
"""Who did what to what, and how it ended: changes at INFO, refusals at WARNING."""

KEPT: Final = 1000
"""Changes that are kept in memory, what code invalidated, and refusals."""
_CHANGED: Final = "changed"
STRANGERS: Final = 100
"""Refusals of strangers in one minute that have an entry of their own; all others of that minute share one."""
_OTHERS: Final = f"more than {STRANGERS} different refusals in a minute"
_MINUTE: Final = 60.0
_MAX_TEXT: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Audit:
    """Three bounded rings, the log `dedup_middleware.audit`, and a ledger's table where there is one.

    A repeat is logged and kept in the table at the 10th, 100th, 1000th time...
    """

    def __init__(self, clock: Callable[[], float] = time.time, table: Table | None = None) -> None:
        self._clock = clock
        self._table = table
        self._own = OwnLock()
        self._rings: dict[str, OrderedDict[_Place, Entry]] = {
            kind: OrderedDict() for kind in (_CHANGED, *COMMON)
        }
        self._minute = 0.0
        self._strangers = 0

    def changed(self, who: str, what: str, target: str, result: str) -> None:
        """Somebody changed something."""
        self._add(Entry(self._clock(), text(who), what, text(target), text(result)))

    def dropped(self, by: str, target: str, result: str) -> None:
        """Code, or a request that writes, invalidated something."""
        self._add(Entry(self._clock(), text(by), DROPPED, text(target), text(result)))

    def refused(self, who: str, target: str, result: str, *, is_stranger: bool = False) -> None:
        """Somebody was refused; of strangers there may be any number."""
        entry = Entry(self._clock(), text(who), REFUSED, text(target), text(result))
        self._add(entry, is_stranger=is_stranger)

    def entries(self) -> list[Entry]:
        """All that are kept, the latest first."""
        with self._own.lock:
            found = [entry for ring in self._rings.values() for entry in ring.values()]
        return sorted(found, key=lambda entry: entry.at)[::-1]

    async def stored(self, offset: int, limit: int) -> tuple[int, list[Entry]] | None:
        """How many entries the ledger's table has, and a page of them; None where there is none that answers."""
        return None if self._table is None else await self._table.page(offset, limit)

    def _add(self, entry: Entry, *, is_stranger: bool = False) -> None:
        ring = self._rings[entry.what if entry.what in COMMON else _CHANGED]
        with self._own.lock:
            if is_stranger and _place(entry) not in ring:
                entry = self._bounded(entry)
            place = _place(entry)
            if (first := ring.get(place)) is not None:
                entry = msgspec.structs.replace(entry, at=first.at, times=first.times + 1)
            elif len(ring) >= KEPT:
                ring.popitem(last=False)
            ring[place] = entry
        if entry.times == 10 ** (len(str(entry.times)) - 1):
            self._tell(entry)

    def _bounded(self, entry: Entry) -> Entry:
        """A stranger's new entry, or the one that the others of this minute share."""
        minute = entry.at // _MINUTE
        if minute != self._minute:
            self._minute, self._strangers = minute, 0
        self._strangers += 1
        if self._strangers <= STRANGERS:
            return entry
        return Entry(entry.at, "unknown", REFUSED, "anything", _OTHERS)

    def _tell(self, entry: Entry) -> None:
        level = logging.WARNING if entry.what == REFUSED else logging.INFO
        extra = {f"dedup_{name}": value for name, value in msgspec.structs.asdict(entry).items()}
        try:
            audit_log.log(
                level, "%s: %s %s: %s", entry.who, entry.what, entry.target, entry.result, extra=extra
            )
            if self._table is not None:
                self._table.add(entry)
        except Exception as error:  # noqa: BLE001 - law 9: a log or a ledger that fails changes no answer
            log.debug("the audit log failed with %s", type(error).__qualname__)


def _place(entry: Entry) -> _Place:
    """Where an entry is kept: the same thing in the same minute has the same place."""
    return entry.who, entry.what, entry.target, entry.result, entry.at // _MINUTE


def text(value: str) -> str:
    """One line of bounded length, without what would move a terminal's cursor."""
    line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value[: _MAX_TEXT + 1])
    return line if len(line) <= _MAX_TEXT else f"{line[:_MAX_TEXT]}…"
