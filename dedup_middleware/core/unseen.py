"""Unseen: structs that hold what is nobody's to read in a log.

Law: neither a repr nor a pretty printer tells what they hold: requests, credentials, bodies.
"""

from __future__ import annotations

from typing import Any


class Unseen:
    """For structs: by their repr they are a class and a place in memory, and no more."""

    __slots__ = ()
    __repr__ = object.__repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Nothing, for pretty printers that know structs."""
        return []
