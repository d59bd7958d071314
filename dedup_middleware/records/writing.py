"""Writing: chunks go to the ledger one after another, each until it is there or is refused.

Law: whatever a database raises ends here: it is counted, told in one sentence, and tried again by whoever calls.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final

from . import Ledger, RowRefusedError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gathering import Chunk

    Take = Callable[[str, int], list[Chunk]]

_BETWEEN: Final = 0.1
"""Seconds between two portions that are trimmed: others write too."""


class Writing:
    """One writer of a ledger, and what it could not write.

    `failures` counts what failed, `refused` rows that the database takes at no time; `trouble` says in one sentence
    what is wrong now, or is None.
    """

    def __init__(self, ledger: Ledger, warn: Callable[[str, str], None]) -> None:
        self.failures = 0
        self.refused = 0
        self.trouble: str | None = None
        self._ledger = ledger
        self._warn = warn
        self._writer = secrets.token_hex(16)
        self._number = 0
        self._chunks: list[Chunk] = []

    @property
    def waiting(self) -> int:
        """Rows that are taken and not written."""
        return sum(chunk.size for chunk in self._chunks)

    async def write(self, take: Take) -> bool:
        """Write what waits and all that can be taken now (by a writer, from a number on); whether it is written.

        What comes in the meantime is for the next time: else a load without end would never let it rest.
        """
        try:
            await self._ledger.prepare()
            await self._write_taken()
            self._chunks = take(self._writer, self._number + 1)
            await self._write_taken()
        except Exception as error:  # noqa: BLE001 - law 9: whatever a database raises
            self.failed("write", error)
            return False
        self.trouble = None
        return True

    async def _write_taken(self) -> None:
        while self._chunks:
            await self._write(self._chunks[0])
            self._number = self._chunks.pop(0).number

    async def _write(self, chunk: Chunk) -> None:
        try:
            await self._ledger.write(chunk)
        except RowRefusedError as error:
            self.refused += chunk.size
            self.failed("take", error)

    async def trim(self, stop: Callable[[], bool]) -> None:
        """Drop what is too old or too much, in portions, until nothing is or somebody says stop."""
        try:
            while await self._ledger.trim(time.time()):
                await asyncio.sleep(_BETWEEN)
                if stop():
                    break
        except Exception as error:  # noqa: BLE001 - as above
            self.failed("trim", error)

    def failed(self, what: str, error: Exception) -> None:
        """Count it, and tell of it."""
        self.failures += 1
        said = str(error) if isinstance(error, SchemaError) else type(error).__qualname__
        self.trouble = f"the ledger failed to {what} ({said})"
        self._warn(what, said)
