"""Opening: a `records=` setting into a ledger, refused at the start where it can't be.

Law: what is known to be wrong when the process starts is told then; a database that is only away is not waited for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Final

from ..core.errors import ConfigurationError
from . import Ledger, SchemaError, open_ledger

DETAILS: Final = ("tags",)
PATIENCE: Final = 2.0
"""Seconds for which a start waits to hear of a database how its tables are."""


def details(value: object) -> frozenset[str]:
    """What `records_detail` asks for."""
    allowed = f"a list of {', '.join(DETAILS)}"
    if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, set, frozenset)):
        raise ConfigurationError("Dedup.records_detail", value, allowed)
    for item in value:
        if item not in DETAILS:
            raise ConfigurationError("Dedup.records_detail", item, allowed)
    return frozenset(value)


def ledger_of(records: object, secret: object) -> Ledger:
    """The ledger that a setting names.

    Raises:
        ConfigurationError: for what names none, without a secret, and where the tables are not those of this version.
    """
    ledger = unopened(records, secret)
    if ledger is not records:
        error = _standing(ledger)
        if error is not None:
            raise ConfigurationError("Dedup.records", records, str(error))
    return ledger


def unopened(records: object, secret: object) -> Ledger:
    """The same, but no file is made and no database is asked.

    Raises:
        ConfigurationError: for what names none, and without a secret.
    """
    given = records if isinstance(records, Ledger) else None
    ledger = given or open_ledger(records)  # type: ignore[arg-type] # whatever it is, it is checked there
    if secret is None and not os.environ.get("DEDUP_SECRET"):
        raise ConfigurationError(
            "Dedup.records",
            records if given is None else type(given).__name__,
            "only beside a secret (secret=... or DEDUP_SECRET): without one, fingerprints mean nothing after a restart",
        )
    return ledger


def _standing(ledger: Ledger) -> SchemaError | None:
    """What is wrong with the tables, if it can be known soon; in a thread, for an event loop may run in this one."""
    found: list[SchemaError] = []

    async def look() -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await ledger.standing()  # type: ignore[attr-defined] # those made from a URL have it
        except SchemaError as error:
            found.append(error)
        except Exception:  # noqa: BLE001 - the recorder tells of it, and goes on trying
            return
        finally:
            await ledger.aclose()

    def run() -> None:
        asyncio.run(look())

    thread = threading.Thread(target=run, name="dedup-ledger", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else None
