"""Stores: where responses live between the request that caused them and those that they will answer.

Law: what a store says that it has dropped answers nobody; it decides nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..core.http import Stored


class Store(Protocol):
    """What the engine asks of a store; times are seconds of the engine's clock.

    After `invalidate` returns, nothing that depends on one of the names is served. Every method may be called from
    any thread.
    """

    stored: int
    evicted: int
    expired: int
    invalidated: int

    @property
    def size(self) -> int:
        """What the stored responses are charged for."""

    @property
    def responses(self) -> int:
        """How many there are."""

    def get(self, partition: int, key: bytes, now: float) -> Stored | None:
        """The response under this key if it is fresh."""

    def stale(self, partition: int, key: bytes, now: float) -> Stored | None:
        """The response under this key if it is there at all, fresh or stale."""

    def put(self, partition: int, key: bytes, stored: Stored, now: float) -> bool:
        """Store a response, unless a newer one is there or it is too large; whether it was stored."""

    def discard(self, partition: int, key: bytes, stored: Stored) -> None:
        """Take back this very response."""

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        """Drop all responses that depend on one of the names, and on one that begins with `within`; how many."""

    def items(self) -> list[tuple[int, bytes, Stored]]:
        """All there are, by partition and key."""

    def drop(self, partition: int | None, key: bytes | None = None) -> int:
        """Drop what lies under this partition and key (None: any); how many there were."""

    def clear(self) -> int:
        """Drop everything; how many there were."""

    def sweep(self, now: float) -> None:
        """Free what has expired."""
