"""The memory store: responses of one process, bounded in bytes, what was not used lately first to go.

Law: what is counted is what is held; every way out (expiry, eviction, invalidation, replacement) goes through one door.
A look-up takes no lock and only notes the use; the order of use is brought up to date when room is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from cachetools import LRUCache

from ..core.http import Stored

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

_T = TypeVar("_T")

DEFAULT_BYTES: Final = 64 * 1024 * 1024
SPAN: Final = 16.0
"""Seconds within which what ends is looked through together."""
_ROOM: Final = 256
"""Bytes a key that a set may take; one that grows takes half as many at most."""


class Bounds(msgspec.Struct, frozen=True):
    """What one rule may hold: responses, and bytes."""

    max_responses: int
    max_bytes: int


class _Partition(LRUCache[bytes, Stored]):
    """One rule's responses, oldest first; a used one goes to the end once when its turn to leave comes."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds.max_responses)
        self.max_responses = bounds.max_responses
        self.max_bytes = bounds.max_bytes
        self.bytes = 0


class MemoryStore:
    """Responses by key, in each rule's order, by the names they depend on and by when they end (`SPAN` seconds each).

    Keys are digests that hold the rule, so that no two rules have one.
    """

    def __init__(self, bounds: Mapping[int, Bounds], max_bytes: int, lock: threading.RLock) -> None:
        self._bounds = bounds
        self._max_bytes = max_bytes
        self.lock = lock
        self._live: dict[bytes, Stored] = {}
        self._partitions: dict[int, _Partition] = {}
        self._by_name: dict[str, set[bytes]] = {}
        self._ending: dict[float, set[bytes]] = {}
        self.size = self.responses = 0
        """What the stored responses are charged for, and how many there are."""
        self.stored = self.evicted = self.expired = self.invalidated = 0

    def get(self, partition: int, key: bytes, now: float) -> Stored | None:  # noqa: ARG002 - the contract's: see above
        """The response under this key if it is fresh."""
        stored = self._live.get(key)
        if stored is None:
            return None
        if now >= stored.expires:
            if now >= stored.expires + stored.kept:
                self._expire(key, stored)
            return None
        if not stored.used:
            stored.used = True
        return stored

    def stale(self, partition: int, key: bytes, now: float) -> Stored | None:  # noqa: ARG002 - as above
        """The response under this key if it is there at all, fresh or stale."""
        stored = self._live.get(key)
        if stored is None:
            return None
        if now >= stored.expires + stored.kept:
            self._expire(key, stored)
            return None
        stored.used = True
        return stored

    def put(self, partition: int, key: bytes, stored: Stored, now: float) -> bool:
        """Store a response, unless a newer one is there or it is too large; whether it was stored."""
        with self.lock:
            responses = self._partitions.get(partition)
            if responses is None:
                responses = self._partitions[partition] = _Partition(self._bounds[partition])
            size, end = stored.size, stored.expires + stored.kept
            if size > min(responses.max_bytes, self._max_bytes) or now >= end:
                return False
            there = self._live.get(key)
            if there is not None:
                if there.generation > stored.generation:
                    return False
                self._drop(key, there)
            while len(responses) >= responses.max_responses or responses.bytes + size > responses.max_bytes:
                self._evict(responses)
            while self.size + size > self._max_bytes:
                # The rule that holds most gives way, so that a busy one cannot push out all others.
                self._evict(max(self._partitions.values(), key=lambda one: one.bytes))
            responses[key] = self._live[key] = stored
            stored.partition = partition
            responses.bytes += size
            self.size += size
            self.responses += 1
            self.stored += 1
            for name in stored.names:
                self._by_name.setdefault(name, set()).add(key)
            self._ending.setdefault(end // SPAN, set()).add(key)
            return True

    def discard(self, partition: int, key: bytes, stored: Stored) -> None:
        """Take back this very response."""
        with self.lock:
            if self._live.get(key) is stored and stored.partition == partition:
                self._drop(key, stored)

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        """Drop all responses that depend on one of the names, and on one that begins with `within`; how many."""
        dropped = 0
        with self.lock:
            for name in names:
                if name not in self._by_name:
                    continue
                for key in tuple(self._by_name[name]):
                    stored = self._live[key]
                    if within and not any(own.startswith(within) for own in stored.names):
                        continue
                    self._drop(key, stored)
                    dropped += 1
            self.invalidated += dropped
        return dropped

    def items(self) -> list[tuple[int, bytes, Stored]]:
        """All there are, by partition and key."""
        with self.lock:
            return [
                (partition, key, self._live[key])
                for partition, responses in self._partitions.items()
                for key in responses
            ]

    def drop(self, partition: int | None, key: bytes | None = None) -> int:
        """Drop what lies under this partition and key (None: any); how many there were."""
        with self.lock:
            gone = [
                one
                for place, responses in self._partitions.items()
                if partition in (None, place)
                for one in (list(responses) if key is None else [key] if key in responses else [])
            ]
            for one in gone:
                self._drop(one, self._live[one])
            self.invalidated += len(gone)
        return len(gone)

    def clear(self) -> int:
        """Drop everything; how many there were."""
        with self.lock:
            dropped = self.responses
            self._partitions.clear()
            self._live.clear()
            self._by_name.clear()
            self._ending.clear()
            self.size = self.responses = 0
            self.invalidated += dropped
        return dropped

    def sweep(self, now: float) -> None:
        """Free what has expired."""
        with self.lock:
            for span in [span for span in self._ending if span <= now // SPAN]:
                for key in tuple(self._ending[span]):
                    stored = self._live[key]
                    if now >= stored.expires + stored.kept:
                        self._drop(key, stored)
                        self.expired += 1

    def _evict(self, responses: _Partition) -> None:
        key, stored = responses.popitem()
        while stored.used:
            stored.used = False
            responses[key] = stored
            key, stored = responses.popitem()
        self._forget(responses, key, stored)
        self.evicted += 1

    def _expire(self, key: bytes, stored: Stored) -> None:
        with self.lock:
            if self._live.get(key) is stored:
                self._drop(key, stored)
                self.expired += 1

    def _drop(self, key: bytes, stored: Stored) -> None:
        responses = self._partitions[stored.partition]
        del responses[key]
        self._forget(responses, key, stored)

    def _forget(self, responses: _Partition, key: bytes, stored: Stored) -> None:
        """The one door out: bytes, count and indexes follow the responses."""
        del self._live[key]
        size = stored.size
        responses.bytes -= size
        self.size -= size
        self.responses -= 1
        for name in stored.names:
            _take_out(self._by_name, name, key)
        _take_out(self._ending, (stored.expires + stored.kept) // SPAN, key)


def _take_out(index: dict[_T, set[bytes]], name: _T, key: bytes) -> None:
    keys = index.get(name)
    if keys is None:
        return  # it is out: a response may depend on one name twice
    keys.discard(key)
    left = len(keys)
    if not left:
        del index[name]
    elif not left & (left - 1) and keys.__sizeof__() > _ROOM * (left + 4):
        index[name] = set(keys)  # it never gets smaller by itself; looked at whenever half of it has left
