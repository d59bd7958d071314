"""Records: what ran, how often it was asked for again, and since when; written behind, read by people and pages.

Law: a request pays a counter or a place in a queue; the database can be slow, full, locked or gone, and only records
are lost, and counted. No value of a URL, no body, no address, no credential is stored: rule labels, templates, digests.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec

from ..core.errors import ConfigurationError
from .places import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .gathering import Chunk
    from .sql import SqlLedger

__all__ = ["Execution", "Ledger", "LedgerError", "Place", "RowRefusedError", "SchemaError", "open_ledger"]


REFUSED: Final = "refused"
"""What a line of the audit log says was done where somebody was refused."""
DROPPED: Final = "invalidated"
"""What it says where code, or a request that writes, invalidated something."""
COMMON: Final = (DROPPED, REFUSED)
"""Of these lines there may be any number; all others are what people changed."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """The record of what one fingerprint cost under one rule, and what it did not cost again.

    Times are seconds since the epoch, durations seconds. `execution_count` are forwards (or runs of a function),
    `collapsed` and `cache_hits` the requests that needed none of their own, `duplicates` both of these.
    `cache_hit_rate` is the share of all that came from the store, `hit_rate` that of the duplicates (0 to 1); `saved`
    is what the duplicates would have cost at the average. `tags` are kept only where `records_detail` asks for them.
    """

    id: int
    rule: str
    fingerprint: str
    method: str | None
    route: str | None
    execution_count: int
    collapsed: int
    cache_hits: int
    duplicates: int
    errors: int
    total_duration: float
    average_duration: float
    cache_hit_rate: float
    hit_rate: float
    saved: float
    bytes_saved: int
    first_execution: float | None
    last_execution: float | None
    last_trace_id: str | None
    created_at: float
    updated_at: float
    tags: tuple[str, ...] = ()


class LedgerError(RuntimeError):
    """The ledger can't be used as it is; the sentence says what to do."""


class SchemaError(LedgerError):
    """The ledger's tables are not those of this version; the sentence names the command that makes them so."""


class RowRefusedError(LedgerError):
    """The database refuses these rows whenever they come: trying again is no use."""


@runtime_checkable
class Ledger(Protocol):
    """Where records go. Its methods may be awaited in any event loop."""

    async def prepare(self) -> None:
        """See that the tables are those of this version.

        Raises:
            SchemaError: where they are not.
        """

    async def write(self, chunk: Chunk) -> None:
        """Add what a chunk holds to what is there, all of it or nothing; a chunk that comes again adds nothing.

        Raises:
            RowRefusedError: where it can't be stored at all; anything else is worth another try.
        """

    async def rows(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """The rows that a statement of SQLAlchemy selects; parameters that it has no place for are ignored."""

    async def trim(self, now: float) -> int:
        """Drop some of what is too old or too much; how many rows went."""

    async def aclose(self) -> None:
        """Close what this loop's use has opened; a closed ledger may be used again."""

    def forked(self) -> None:
        """In a child process: what the parent has opened is the parent's."""


def open_ledger(url: str) -> SqlLedger:
    """The ledger at a URL: `sqlite:///file.db`, `postgresql://user:password@host/database`.

    `?max_age=30d` and `?max_rows=1000000` bound what is kept.

    Raises:
        ConfigurationError: for a URL that is none of a ledger, and where the extra is not installed.
    """
    place = place_of(url)
    needed = {"sqlalchemy": "records", "alembic": "records", **dict.fromkeys(place.drivers, place.extra)}
    for module, extra in needed.items():
        try:
            importlib.import_module(module)
        except ImportError:
            raise ConfigurationError(
                "Dedup.records",
                url,
                f"python -m pip install 'dedup-middleware[{extra}]'",
                why=f"{module} is not installed",
            ) from None
    from .sql import SqlLedger  # noqa: PLC0415 - importing the package must load no database

    return SqlLedger(place)
