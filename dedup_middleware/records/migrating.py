"""Migrating: which tables a database has, and how it gets those of this version.

Law: tables change only by the command, but a new SQLite file gets them on first use; what does not fit is refused with
the command that mends it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, text

from ..core import masks
from ..forking import OwnLock
from . import SchemaError
from .schema import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .places import Place

FOLDER: Final = Path(__file__).parent / "migrations"


def version(connection: Connection) -> str | None:
    """The migration at which a database is; None where it was never upgraded."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return str(found) if found else None


def standing(connection: Connection, place: Place) -> None:
    """Whether this version can use the tables.

    Raises:
        SchemaError: where it can't.
    """
    found = version(connection)
    if found == HEAD or (place.file is not None and is_new(connection)):
        return
    shown = masks.setting("", place.url).replace("+asyncpg", "")
    if found is not None and found > HEAD:
        raise SchemaError(
            f"the ledger's tables are at {found}, and this version knows {HEAD}: downgrade them with the newer "
            f"version's `python -m dedup_middleware records downgrade --to {HEAD} --url {shown}`"
        )
    raise SchemaError(
        f"the ledger's tables are {f'at {found}' if found else 'missing'}, and this version needs {HEAD}: "
        f"`python -m dedup_middleware records upgrade --url {shown}`"
    )


def is_new(connection: Connection) -> bool:
    """Whether there is no table at all."""
    return not inspect(connection).get_table_names()


def creates(connection: Connection) -> None:
    """Make the tables in a new file; another process may have been quicker."""
    if is_new(connection):
        migrate(connection, "upgrade", "head")


def migrate(connection: Connection, direction: str, to: str) -> None:
    """Upgrade or downgrade, in the transaction that the connection is in; one process at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dedup_schema'))"))
    command: Any = importlib.import_module("alembic.command")
    config = importlib.import_module("alembic.config").Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    with _alembic.lock:
        getattr(command, direction)(config, to)


_alembic: Final = OwnLock()
"""Alembic keeps what it is at in globals: one thread at a time."""
