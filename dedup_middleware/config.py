"""Configuration: TOML, URLs and environment into settings, each refused with its place where it cannot be.

Law: a file, a keyword and a mark say the same thing with the same names, and are refused with the same sentence.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from .alerts import Alert
from .core.checks import NOT_YET, check_fields
from .core.errors import ConfigurationError
from .core.http import RESPONSE_OVERHEAD
from .core.rules import SHARED_CACHE, Rule
from .records.opening import details, ledger_of
from .stores.memory import DEFAULT_BYTES
from .telemetry import parts_log

if TYPE_CHECKING:
    from .records import Ledger

FILE_FIELDS: Final = ("alert", "default", "enabled", "records", "records_detail", "rule", "secret", "store")
_ON: Final = frozenset({"", "1", "true", "on", "yes"})
_OFF: Final = frozenset({"0", "false", "off", "no"})
_STORES: Final = f"memory:// or memory://?max_bytes=N (one, N from {RESPONSE_OVERHEAD} on)"
_COMING_STORES: Final = frozenset({"redis", "rediss", "valkey", "unix", "file", "disk", "sqlite"})


def memory_bytes(url: object) -> int:
    """The byte bound of a memory store's URL."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts is not None and parts.scheme in _COMING_STORES:
        raise ConfigurationError("Dedup.store", url, f"{_STORES} ({parts.scheme}:// is {NOT_YET})")
    if parts is None or parts.scheme != "memory" or parts.netloc or parts.path or parts.fragment:
        raise ConfigurationError("Dedup.store", url, _STORES)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    size = options.pop("max_bytes", str(DEFAULT_BYTES))
    if options or len(pairs) > 1 or not re.fullmatch(r"[0-9]{1,18}", size) or int(size) < RESPONSE_OVERHEAD:
        raise ConfigurationError("Dedup.store", url, _STORES)
    return int(size)


def checked_rules(rules: object) -> tuple[Rule, ...]:
    """Rules as given by keyword."""
    if isinstance(rules, (str, bytes, Rule)) or not isinstance(rules, Iterable):
        raise ConfigurationError("Dedup.rules", rules, "a list of rules")
    checked = tuple(rules)
    for index, rule in enumerate(checked):
        if not isinstance(rule, Rule):
            raise ConfigurationError(f"Dedup.rules[{index}]", rule, "a Rule")
    return checked


def checked_default(rule: object) -> Rule:
    """The rule for what no other matches."""
    if rule is None:
        return Rule()
    if not isinstance(rule, Rule):
        raise ConfigurationError("Dedup.default", rule, "a Rule")
    if rule.path != Rule().path:
        raise ConfigurationError("Dedup.default.path", rule.path, "nothing: the default takes every path")
    if not all(rule.shares(method) for method in rule.methods or ()):
        raise ConfigurationError(
            "Dedup.default.methods",
            list(rule.methods or ()),
            "safe methods: the default rule is for them alone",
        )
    return rule


def secret_bytes(secret: object) -> bytes:
    """What keys the digests: as given, else from the environment, else random for this process."""
    if secret is None:
        given = os.environ.get("DEDUP_SECRET")
        return given.encode() if given else secrets.token_bytes(32)
    if not isinstance(secret, (str, bytes)) or not secret:
        raise ConfigurationError("Dedup.secret", "***", "a text or bytes that are not empty")
    return secret.encode() if isinstance(secret, str) else secret


def ledger(records: object, detail: object, secret: object) -> tuple[Ledger | None, frozenset[str]]:
    """Where records go, and what they hold beyond what they always do."""
    asked = details(detail)
    if records is None and asked:
        raise ConfigurationError("Dedup.records_detail", sorted(asked), "only beside records")
    return (None if records is None else ledger_of(records, secret)), asked


def enabled_by_environment(value: str | None) -> bool:
    """What DEDUP_ENABLED says; a value that nobody knows switches off, and a log line says so."""
    word = "" if value is None else value.strip().lower()
    if word not in _ON | _OFF:
        parts_log.warning("DEDUP_ENABLED=%r is no known value: deduplication is off", value)
    return word in _ON


def load(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a TOML file, as keywords of `Dedup`."""
    if not isinstance(file, (str, os.PathLike)):
        raise ConfigurationError("Dedup.config", file, "the path of a TOML file")
    path = Path(file)
    place = f"{path.name}: "
    try:
        table = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigurationError(str(path), file, "a TOML file that can be read", why=why) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(str(path), file, "a TOML file", why=str(error)) from None
    except RecursionError:
        raise ConfigurationError(str(path), file, "a TOML file", why="nested too deep") from None
    check_fields(place, table, FILE_FIELDS)
    rules = table.pop("rule", [])
    if not isinstance(rules, list):
        raise ConfigurationError(f"{place}rule", rules, "[[rule]] tables")
    settings: dict[str, Any] = {"rules": [_rule(f"{place}rule[{i}].", item) for i, item in enumerate(rules)]}
    if "alert" in table:
        alerts = table.pop("alert")
        if not isinstance(alerts, list):
            raise ConfigurationError(f"{place}alert", alerts, "[[alert]] tables")
        settings["alerts"] = [_alert(f"{place}alert[{i}].", item) for i, item in enumerate(alerts)]
    if "default" in table:
        settings["default"] = _rule(f"{place}default.", table.pop("default"))
    return {**settings, **table}


def _rule(place: str, table: object) -> Rule:
    fields = _fields(place, table, "a rule")
    if "preset" in fields:
        if fields["preset"] != "shared-cache":
            raise ConfigurationError(f"{place}preset", fields["preset"], '"shared-cache"')
        fields = {**SHARED_CACHE, **{name: value for name, value in fields.items() if name != "preset"}}
    try:
        return Rule(**fields)
    except ConfigurationError as error:
        raise error.elsewhere("Rule.", place) from None


def _alert(place: str, table: object) -> Alert:
    fields = _fields(place, table, "an alert")
    try:
        return Alert(**fields)
    except ConfigurationError as error:
        raise error.elsewhere("Alert.", place) from None


def _fields(place: str, table: object, what: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigurationError(place.removesuffix("."), table, f"a table of the fields of {what}")
    return table


def header_pairs(headers: Iterable[tuple[str, str]] | Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Header fields as ASGI has them."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def example_scope(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] | Mapping[str, str],
    client: str,
    scheme: str,
    root_path: str,
) -> dict[str, Any]:
    """The ASGI scope of a request that somebody asks about."""
    path, _, query = target.partition("?")
    lines = header_pairs(headers)
    if not any(name == b"host" for name, _ in lines):
        lines.insert(0, (b"host", b"localhost"))
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": scheme,
        "path": unquote(path),
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": root_path,
        "headers": lines,
        "client": (client, 0),
        "server": ("localhost", 80),
    }
