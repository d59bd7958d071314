"""The memory store: responses of one process, bounded in bytes, what was not used lately first to go.

Law: what is counted is what is held; every way out (expiry, eviction, invalidation, replacement) goes through one door.
A look-up takes no lock and only notes the use; the order of use is brought up to date when room is needed.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec
from cachetools import Cache, LRUCache

from ..core.http import Stored

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

DEFAULT_BYTES: Final = 64 * 1024 * 1024


class Bounds(msgspec.Struct, frozen=True):
    """What one rule may hold: responses, and bytes."""

    max_responses: int
    max_bytes: int


class _Partition(LRUCache[bytes, Stored]):
    """One rule's responses, oldest first; a used one goes to the end once when its turn to leave comes."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds.max_bytes, getsizeof=_size)
        self.max_responses = bounds.max_responses

    def peek(self, key: bytes) -> Stored | None:
        """What stands under the key, without counting as a use."""
        return Cache.__getitem__(self, key) if key in self else None


def _size(stored: Stored) -> int:
    return stored.size


class MemoryStore:
    """Responses by rule and key, with an index of the names they depend on and a heap of when they expire."""

    def __init__(self, bounds: Mapping[int, Bounds], max_bytes: int, lock: threading.RLock) -> None:
        self._bounds = bounds
        self._max_bytes = max_bytes
        self.lock = lock
        self._live: dict[bytes, Stored] = {}
        self._partitions: dict[int, _Partition] = {}
        self._by_name: dict[str, set[tuple[int, bytes]]] = {}
        self._expiries: list[tuple[float, int, int, bytes, int]] = []
        self._order = count()
        self._bytes = 0
        self.responses = 0
        """How many there are."""
        self.stored = self.evicted = self.expired = self.invalidated = 0

    @property
    def size(self) -> int:
        """What the stored responses are charged for."""
        return self._bytes

    def get(self, partition: int, key: bytes, now: float) -> Stored | None:
        """The response under this key if it is fresh."""
        stored = self._live.get(key)
        if stored is None:
            return None
        if now >= stored.expires:
            if now >= stored.expires + stored.kept:
                self._expire(partition, key, stored)
            return None
        if not stored.used:
            stored.used = True
        return stored

    def stale(self, partition: int, key: bytes, now: float) -> Stored | None:
        """The response under this key if it is there at all, fresh or stale."""
        stored = self._live.get(key)
        if stored is None:
            return None
        if now >= stored.expires + stored.kept:
            self._expire(partition, key, stored)
            return None
        stored.used = True
        return stored

    def put(self, partition: int, key: bytes, stored: Stored, now: float) -> bool:
        """Store a response, unless a newer one is there or it is too large; whether it was stored."""
        with self.lock:
            responses = self._partitions.get(partition)
            if responses is None:
                responses = self._partitions[partition] = _Partition(self._bounds[partition])
            if stored.size > min(responses.maxsize, self._max_bytes) or now >= stored.expires + stored.kept:
                return False
            there = self._live.get(key)
            if there is not None:
                if there.generation > stored.generation:
                    return False
                self._drop(partition, key)
            while (
                len(responses) >= responses.max_responses
                or responses.currsize + stored.size > responses.maxsize
            ):
                self._evict(partition)
            while self._bytes + stored.size > self._max_bytes:
                # The rule that holds most gives way, so that a busy one cannot push out all others.
                self._evict(max(self._partitions, key=lambda index: self._partitions[index].currsize))
            responses[key] = self._live[key] = stored
            self._bytes += stored.size
            self.responses += 1
            self.stored += 1
            for name in stored.names:
                self._by_name.setdefault(name, set()).add((partition, key))
            # Not the response itself: the heap must not keep alive what was evicted.
            heapq.heappush(
                self._expiries,
                (stored.expires + stored.kept, next(self._order), partition, key, stored.generation),
            )
            if len(self._expiries) > 2 * self.responses + 64:
                self._rebuild_expiries()
            return True

    def discard(self, partition: int, key: bytes, stored: Stored) -> None:
        """Take back this very response."""
        with self.lock:
            if self._peek(partition, key) is stored:
                self._drop(partition, key)

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        """Drop all responses that depend on one of the names, and on one that begins with `within`; how many."""
        dropped = 0
        with self.lock:
            for name in names:
                if name not in self._by_name:
                    continue
                for partition, key in tuple(self._by_name[name]):
                    if within and not any(own.startswith(within) for own in self._live[key].names):
                        continue
                    self._drop(partition, key)
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
                (place, one)
                for place, responses in self._partitions.items()
                if partition in (None, place)
                for one in (list(responses) if key is None else [key] if key in responses else [])
            ]
            for place, one in gone:
                self._drop(place, one)
            self.invalidated += len(gone)
        return len(gone)

    def clear(self) -> int:
        """Drop everything; how many there were."""
        with self.lock:
            dropped = self.responses
            self._partitions.clear()
            self._live.clear()
            self._by_name.clear()
            self._expiries.clear()
            self._bytes = self.responses = 0
            self.invalidated += dropped
        return dropped

    def sweep(self, now: float) -> None:
        """Free what has expired."""
        with self.lock:
            while self._expiries and self._expiries[0][0] <= now:
                until, _, partition, key, generation = heapq.heappop(self._expiries)
                if self._is_there(until, partition, key, generation):
                    self._drop(partition, key)
                    self.expired += 1

    def _evict(self, partition: int) -> None:
        responses = self._partitions[partition]
        key, stored = responses.popitem()
        while stored.used:
            stored.used = False
            responses[key] = stored
            key, stored = responses.popitem()
        self._forget(partition, key, stored)
        self.evicted += 1

    def _expire(self, partition: int, key: bytes, stored: Stored) -> None:
        with self.lock:
            if self._peek(partition, key) is stored:
                self._drop(partition, key)
                self.expired += 1

    def _drop(self, partition: int, key: bytes) -> None:
        del self._partitions[partition][key]
        self._forget(partition, key, self._live[key])

    def _forget(self, partition: int, key: bytes, stored: Stored) -> None:
        """The one door out: bytes, count and index follow the responses."""
        del self._live[key]
        self._bytes -= stored.size
        self.responses -= 1
        for name in stored.names:
            keys = self._by_name[name]
            keys.discard((partition, key))
            if not keys:
                del self._by_name[name]

    def _rebuild_expiries(self) -> None:
        self._expiries = [item for item in self._expiries if self._is_there(item[0], *item[2:])]
        heapq.heapify(self._expiries)

    def _is_there(self, until: float, partition: int, key: bytes, generation: int) -> bool:
        stored = self._peek(partition, key)
        return (
            stored is not None and stored.generation == generation and stored.expires + stored.kept == until
        )

    def _peek(self, partition: int, key: bytes) -> Stored | None:
        responses = self._partitions.get(partition)
        return None if responses is None else responses.peek(key)
