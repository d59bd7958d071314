"""A bounded memo of two generations: cheap to read, forgets what was not asked for lately.

Law: never holds more than twice `capacity` answers, and losing one only costs its computation.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """A dict that, when full, keeps the previous generation for one more round.

    Single dict operations only, so that threads may share it: the worst of a race is a lost answer.
    """

    __slots__ = ("__weakref__", "capacity", "cleared", "old", "young")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.young: dict[K, V] = {}
        self.old: dict[K, V] = {}
        self.cleared = 0
        """How many times it was cleared: what was worked out before that must not be remembered any more."""

    def get(self, key: K) -> V | None:
        """The remembered answer, or None."""
        value = self.young.get(key)
        if value is None:
            cleared = self.cleared
            value = self.old.get(key)
            if value is not None:
                self.put(key, value)
                if self.cleared != cleared:  # by another thread: what was forgotten stays so
                    self.discard(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember an answer."""
        if len(self.young) >= self.capacity:
            self.old = self.young
            self.young = {}
        self.young[key] = value

    def discard(self, key: K) -> None:
        """Forget an answer, if it is remembered."""
        self.young.pop(key, None)
        self.old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.cleared += 1
        self.young = {}
        self.old = {}

    def __len__(self) -> int:
        return len(self.young) + len(self.old)
