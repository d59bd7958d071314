"""Commanding: `python -m dedup_middleware records upgrade|downgrade`.

Law: an upgrade or a downgrade happens as a whole or not at all, and the answer is one sentence.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..core import masks
from . import LedgerError, open_ledger


def migrate(direction: str, url: str, to: str) -> str:
    """Change the tables of the ledger at a URL; what became of them, in one sentence.

    Raises:
        ConfigurationError: for a URL that is none of a ledger.
        LedgerError: where it can't be done; nothing has changed then.
    """
    ledger: Any = open_ledger(url)
    file = ledger.place.file

    async def work() -> tuple[str | None, str | None]:
        try:
            if direction == "downgrade" and file is not None and not file.exists():
                raise LedgerError("there is no such file")  # and looking into it would make one
            before = await ledger.version()
            if direction == "downgrade" and before is None and to != "base":
                raise LedgerError("it has no tables")
            await ledger.migrate(direction, to)
            return before, await ledger.version()
        finally:
            await ledger.aclose()

    try:
        before, after = asyncio.run(work())
    except Exception as error:  # noqa: BLE001 - whatever a database raises
        raise LedgerError(
            f"{masks.setting('', url)}: the {direction} to {to} failed, nothing has changed ({_said(error)})"
        ) from None
    return f"the ledger's tables are {_at(after)} now; they were {_at(before)}"


def _at(version: str | None) -> str:
    return f"at {version}" if version else "none"


def _said(error: Exception) -> str:
    """The innermost cause, for people: without a statement and its values."""
    original = getattr(error, "orig", None)
    if isinstance(error, LedgerError):
        return str(error)
    return " ".join(f"{type(original or error).__qualname__}: {original or error}".split())[:300]
