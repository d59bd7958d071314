"""Places: the URL of a ledger, read and checked.

Law: what a URL can't mean is refused with one sentence, and its password stands in none.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from ..core.checks import duration
from ..core.errors import ConfigurationError

ALLOWED: Final = (
    "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE, with ?max_age=30d (above 0) and "
    "max_rows=1000000 (from 1 on) where wanted, for PostgreSQL host, port and sslmode too"
)
DEFAULT_AGE: Final = 30 * 86400.0
DEFAULT_ROWS: Final = 1_000_000
_POSTGRES_OPTIONS: Final = {"host": "host", "port": "port", "sslmode": "ssl"}


class Place(msgspec.Struct, frozen=True):
    """A ledger's place: the URL as SQLAlchemy reads it, what drives it, and how much is kept there."""

    url: str
    drivers: tuple[str, ...]
    extra: str
    max_age: float = DEFAULT_AGE
    max_rows: int = DEFAULT_ROWS
    file: Path | None = None

    def __repr__(self) -> str:
        return f"Place({self.drivers[0]})"  # the URL may hold a password


def place_of(url: object) -> Place:
    """Read a ledger's URL.

    Raises:
        ConfigurationError: for anything else.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        port = parts.port if parts is not None else None
    except ValueError:
        parts = port = None
    if parts is None or parts.fragment or parts.scheme not in {"sqlite", "postgresql"} or port == 0:
        raise ConfigurationError("Dedup.records", url, ALLOWED)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    max_age = _age(options.pop("max_age", None))
    rows = options.pop("max_rows", str(DEFAULT_ROWS))
    if max_age is None or len(pairs) != len(dict(pairs)) or not re.fullmatch(r"[1-9][0-9]{0,11}", rows):
        raise ConfigurationError("Dedup.records", url, ALLOWED)
    if parts.scheme == "sqlite":
        if parts.netloc or options or len(parts.path) < 2 or parts.path.endswith(("/", "/:memory:")):
            raise ConfigurationError("Dedup.records", url, ALLOWED)
        file = Path(parts.path[1:]).absolute()  # whatever the process does later
        if not file.parent.is_dir() or file.is_dir():
            raise ConfigurationError("Dedup.records", url, "a file in a folder that exists")
        return Place(f"sqlite:///{file}", ("sqlite3",), "records", max_age, int(rows), file)
    if (
        set(options) - set(_POSTGRES_OPTIONS)
        or len(parts.path) < 2
        or not (parts.netloc or "host" in options)
    ):
        raise ConfigurationError("Dedup.records", url, ALLOWED)
    query = urlencode({_POSTGRES_OPTIONS[name]: value for name, value in options.items()})
    return Place(
        f"postgresql+asyncpg://{parts.netloc}{parts.path}" + (f"?{query}" if query else ""),
        ("asyncpg", "greenlet"),
        "postgres",
        max_age,
        int(rows),
    )


def _age(text: str | None) -> float | None:
    if text is None:
        return DEFAULT_AGE
    try:
        return duration("Dedup.records", text) or None
    except ConfigurationError:
        return None
