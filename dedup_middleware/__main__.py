"""The command line: what is installed, and is this configuration right.

It prints, and nothing else in the package does. A wrong configuration is one sentence on standard error and
exit status 1.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import fields

from . import ConfigurationError, Dedup, Rule, __version__, config
from .core.errors import printable
from .records import LedgerError, opening
from .records.commanding import migrate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What each extra of this version brings by itself (a test compares it with pyproject.toml).
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "otel": ("opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"),
    "records": ("alembic", "sqlalchemy"),
    "admin": ("limits",),
    "postgres": ("asyncpg", "greenlet", "alembic", "sqlalchemy"),
    "example": (
        "uvicorn",
        "limits",
        "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry-sdk",
        "alembic",
        "sqlalchemy",
    ),
}

_ALWAYS = {"path", "methods", "ttl", "identity"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dedup_middleware",
        description="Without a command: print the version and which extras are installed.",
    )
    parser.add_argument("--version", action="version", version=f"dedup-middleware {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="validate a TOML configuration and print its rules in the order in which they are tried",
        description="Validate a TOML configuration. Exit status 0: it is right, and its rules are printed "
        "in the order in which they are tried. 1: it is not, and one sentence says why.",
    )
    check.add_argument("file", metavar="FILE.toml", type=Path, help="the configuration")
    _add_records(commands)
    chosen = parser.parse_args(arguments)
    if chosen.command == "check":
        return _check(chosen.file)
    if chosen.command == "records":
        return _records(chosen.direction, chosen.url, chosen.to)
    return _installed()


def _add_records(commands: Any) -> None:
    records = commands.add_parser(
        "records",
        help="upgrade or downgrade the tables of a ledger",
        description="Upgrade or downgrade the tables of a ledger. Exit status 0: it is done. "
        "1: it is not, nothing has changed, and one sentence says why.",
    )
    directions = records.add_subparsers(dest="direction", metavar="DIRECTION", required=True)
    for direction, told, to in (
        ("upgrade", "to what this version needs", "head"),
        ("downgrade", "by one revision, with all that its tables hold", "-1"),
    ):
        command = directions.add_parser(direction, help=f"{direction} {told}")
        command.add_argument("--url", required=True, help="the ledger, as in records=")
        command.add_argument("--to", default=to, metavar="REVISION", help=f"a revision (default: {to})")


def _records(direction: str, url: str, to: str) -> int:
    try:
        print(migrate(direction, url, to))
    except (ConfigurationError, LedgerError) as error:
        print(str(error).removeprefix("Dedup."), file=sys.stderr)
        return 1
    return 0


def _installed() -> int:
    print(f"dedup-middleware {__version__} on {platform.python_implementation()} {platform.python_version()}")
    width = max(map(len, EXTRAS))
    for extra, distributions in EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            print(
                f"  {extra:<{width}}  missing {', '.join(missing)}: "
                f"python -m pip install 'dedup-middleware[{extra}]'"
            )
        else:
            print(f"  {extra:<{width}}  present ({', '.join(f'{n} {v}' for n, v in versions.items())})")
    return 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check(file: Path) -> int:
    """A ledger is not opened: whoever checks a configuration is not always who may make its file."""
    try:
        settings = config.load(file)
        if "records" in settings:
            settings["records"] = opening.unopened(settings["records"], settings.get("secret"))
        dedup = Dedup(**settings)
    except (ConfigurationError, OSError, UnicodeDecodeError) as error:
        print(_sentence(file, error), file=sys.stderr)
        return 1
    rules = [*dedup.rules, dedup.default]
    print(
        f"{printable(str(file))} is right. The first rule that matches wins; what none matches takes the default."
    )
    _print_table(rules)
    return 0


def _sentence(file: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return printable(f"{file}: {error.strerror or error}")
    sentence = printable(" ".join(str(error).split()))
    name = printable(str(file))
    return sentence if name in sentence else f"{name}: {sentence}"


def _print_table(rules: Sequence[Rule]) -> None:
    """One line a rule, the last one the default; a field that no rule sets has no column."""
    columns = [
        field.name
        for field in fields(rules[0])
        if field.name in _ALWAYS
        or (field.name != "name" and any(getattr(rule, field.name) != field.default for rule in rules))
    ]
    lines = [["rule", *columns]]
    for number, rule in enumerate(rules, 1):
        name = "default" if number == len(rules) else rule.name or str(number)
        values = {column: getattr(rule, column) for column in columns}
        # An empty vary says something (nothing more); the other empty lists say nothing.
        cells = [
            "[]" if column == "vary" and value == () else _cell(value) for column, value in values.items()
        ]
        lines.append([printable(cell) for cell in (name, *cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}s"
    if isinstance(value, tuple):
        return ",".join(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
