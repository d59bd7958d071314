"""Hits since the last look: which stored responses had any, and how many.

Law: a stored response tells of its first hit only; the others are one integer of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.http import StoredResponse

if TYPE_CHECKING:
    from ..core.http import Stored


class Hits:
    """The stored responses, and values of functions, that were hit since the last look."""

    def __init__(self) -> None:
        self._lately: list[tuple[str, bytes, Stored]] = []

    def add(self, label: str, key: bytes, stored: Stored) -> None:
        """A stored response has its first hit since then."""
        self._lately.append((label, key, stored))

    def take(self) -> list[tuple[str, bytes, int, int]]:
        """Rule, key, how many hits, and the bytes that they sent again."""
        lately, self._lately = self._lately, []
        found = []
        for label, key, stored in lately:
            stored.noted = False  # before it is read: a hit in between is noted again
            hits = stored.hits
            body = len(stored.body) if isinstance(stored, StoredResponse) else 0
            found.append((label, key, hits - stored.recorded, (hits - stored.recorded) * body))
            stored.recorded = hits
        return found
