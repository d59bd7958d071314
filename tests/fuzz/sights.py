"""What an app can tell of a request under a rule, and what nobody can: sights and twins.

Law: judged by the documented words alone. Two requests with one key have one sight; a request and its twin have one
key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from dedup_middleware import Rule
from dedup_middleware.core.callers import cookie_pairs
from dedup_middleware.core.canonical import is_json
from dedup_middleware.core.names import ADDRESS_FIELDS, NOISE, OVERRIDES, RELOAD, is_credential, is_secret

from .requests import Scope

_FRAME = (
    b"host transfer-encoding range if-range "
    b"content-type content-encoding content-language content-location etag last-modified"
).split()
_TARGET = ("method", "scheme", "http_version", "server", "root_path", "path", "raw_path", "query_string")


def exactly(value: Any) -> str:
    """A text that is the same only for data that nobody can tell apart; the order of members does not count."""
    if value is None or type(value) in (str, bytes, int):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{exactly(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}[" + ",".join(map(exactly, value)) + "]"
    return repr(value)


def listed(items: object) -> tuple[str, ...]:
    return items if isinstance(items, tuple) else ()


def sworn(rule: Rule, kind: str, name: str) -> bool:
    """Whether the rule's `ignore` names it."""
    patterns = (item.partition(":") for item in rule.ignore)
    return any(one == kind and fnmatchcase(name, pattern) for one, _, pattern in patterns)


def connected(scope: Scope) -> set[bytes]:
    """The fields that Connection names."""
    lines = [value for name, value in scope["headers"] if name.lower() == b"connection"]
    return {token.strip().lower() for line in lines for token in line.split(b",")}


# -- sights ----------------------------------------------------------------------------------------------------------


def sight(rule: Rule, seen: Scope, scope: Scope, body: bytes) -> dict[str, str]:
    """What counts of the scope that the app saw, and of the body: not noise, not framing, not what was sworn."""
    by_function = callable(rule.identity)
    told: dict[str, Any] = {name: seen.get(name) for name in _TARGET}
    told["query_string"] = _query(rule, seen["query_string"])
    connection = connected(scope)
    counted = [(pair[0], pair[1]) for pair in seen["headers"] if _counts(rule, pair[0], pair[1], connection)]
    told["headers"] = repr(
        sorted(counted, key=lambda pair: pair[0])
    )  # fields of different names have no order
    if seen.get("client") and not (by_function and "client" not in listed(rule.vary)):
        told["client"] = seen["client"][0]
    if not by_function:
        told["user"], told["auth"] = seen.get("user"), seen.get("auth") or None
        told["session"] = seen.get("session") or None
        told["tls"] = (seen.get("extensions") or {}).get("tls")
    for name, value in (seen.get("state") or {}).items():
        if f"state:{name}" in listed(rule.vary) or not sworn(rule, "state", name):
            told[f"state:{name}"] = value
    for name in seen.keys() - {
        *_TARGET,
        "headers",
        "client",
        "user",
        "auth",
        "session",
        "extensions",
        "state",
    }:
        if f"scope:{name}" in listed(rule.vary) or not sworn(rule, "scope", name):
            told[f"scope:{name}"] = seen[name]
    told["body"] = _body(rule, scope, body)
    return {name: exactly(value) for name, value in told.items()}


def _counts(rule: Rule, wire_name: bytes, value: bytes, connection: set[bytes]) -> bool:
    name = wire_name.lower()
    text = name.decode("latin-1")
    if name in _FRAME or text in listed(rule.vary) or text in listed(rule.identity):
        return True
    if name == b"content-length":
        return False
    if is_credential(text) or name in ADDRESS_FIELDS:
        return not callable(rule.identity)
    if name in (b"cache-control", b"pragma") and rule.stores:
        if rule.vary == "origin":
            return not rule.honor_request_directives  # then the app does not see it
        return RELOAD.fullmatch(value) is None or name in connection
    if sworn(rule, "header", text):
        return False
    if name in NOISE:
        return NOISE[name].fullmatch(value) is None or name in connection
    return rule.vary != "origin" or name in OVERRIDES or b"_" in name


def _query(rule: Rule, query: bytes) -> Any:
    """The fields of a query as parsers read them that split at `&`, and at `;` too."""
    if not any(item.startswith("query:") for item in rule.ignore):
        return query
    return [
        [pair for pair in pieces if _asks(rule, pair)]
        for pieces in (query.split(b"&"), re.split(b"[&;]", query))
    ]


def _asks(rule: Rule, pair: bytes) -> bool:
    name = unquote_plus(pair.partition(b"=")[0].decode("latin-1"))
    return bool(pair) and (not sworn(rule, "query", name) or is_secret(name))


class _Number(str):
    """A number as it is spelled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Members(list[tuple[str, Any]]):
    """An object's members in their order."""


def _body(rule: Rule, scope: Scope, body: bytes) -> Any:
    """A body as any parser of JSON reads it, or its bytes where parsers differ."""
    if not reads_json(scope):
        return body
    try:
        data = spelled(body)
        other = _read_by_another(body)
    except (ValueError, RecursionError):
        return body
    return [_without(rule, _dicts(data)), _without(rule, other)]


def reads_json(scope: Scope) -> bool:
    """Whether the request says that its body is JSON in UTF-8, as it stands."""
    types = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    encodings = [value for name, value in scope["headers"] if name.lower() == b"content-encoding"]
    return is_json(types[0] if len(types) == 1 else None, encodings[0] if encodings else None)


def spelled(body: bytes) -> Any:
    """JSON with numbers as they are spelled and members in their order.

    Raises:
        ValueError: for duplicate names, and for what is no JSON.
    """
    return json.loads(
        body.decode(),
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=_refuse,
        object_pairs_hook=_distinct,
    )


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _distinct(pairs: list[tuple[str, Any]]) -> _Members:
    if len(dict(pairs)) < len(pairs):
        raise ValueError(pairs)
    return _Members(pairs)


def _dicts(data: Any) -> Any:
    if isinstance(data, _Members):
        return {name: _dicts(value) for name, value in data}
    return [_dicts(item) for item in data] if isinstance(data, list) else data


def _read_by_another(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "refused"  # lone surrogates, numbers that no float holds


def _without(rule: Rule, data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return {name: value for name, value in data.items() if not sworn(rule, "body", name) or is_secret(name)}


# -- twins -----------------------------------------------------------------------------------------------------------


def twins(rule: Rule, scope: Scope, body: bytes) -> Iterator[tuple[str, Scope, bytes]]:
    """Requests that say the same in other words."""
    headers = scope["headers"]
    named = {
        *listed(rule.vary),
        *listed(rule.identity),
        *(name.decode("latin-1") for name in connected(scope)),
    }
    yield "names in capitals", {**scope, "headers": [(name.upper(), value) for name, value in headers]}, body
    yield (
        "fresh objects",
        {**scope, "headers": [[bytes(bytearray(part)) for part in pair] for pair in headers]},
        body,
    )
    yield "keys in another order", dict(reversed(scope.items())), body
    empty: Scope = {"state": {}, "session": None, "extensions": {}, "user": None, "auth": None}
    yield "empty parts", {**empty, **scope}, body
    if scope["client"]:
        yield "another port", {**scope, "client": (scope["client"][0], 1)}, body
    if len(headers) < 250:
        more = {b"x-request-id": b"other", b"b3": b"0", b"sentry-trace": b"0" * 32 + b"-" + b"1" * 16}
        fresh = [pair for pair in more.items() if pair[0].decode() not in named]
        yield "more noise", {**scope, "headers": [*fresh, *headers, *fresh]}, body
        if rule.stores and "cache-control" not in named:
            yield "a reload", {**scope, "headers": [*headers, (b"cache-control", b"max-age=0")]}, body
        if rule.stores and "if-none-match" not in named:
            yield "a validator", {**scope, "headers": [*headers, (b"if-none-match", b'"x"')]}, body
    if sworn(rule, "query", "utm_x"):
        query = scope["query_string"]
        yield (
            "a sworn query field",
            {**scope, "query_string": query + b"&utm_x=1" if query else b"utm_x=2"},
            body,
        )
    lines = [tidy_cookies(value) if name.lower() == b"cookie" else value for name, value in headers]
    if [value for _, value in headers] == lines and all(lines):
        with_one = [
            (name, value + b"; _ga=x" if name.lower() == b"cookie" else value) for name, value in headers
        ]
        yield "a cookie of analytics", {**scope, "headers": with_one}, body
    if reads_json(scope):
        yield "other JSON", scope, respelled(body)


def tidy_cookies(line: bytes) -> bytes | None:
    """The line as it is spelled after a cookie was left out; None where nothing ever is."""
    return None if b'"' in line else b"; ".join(text for _, text in cookie_pairs(line))


def respelled(body: bytes) -> bytes:
    """The same JSON: members in reverse, escapes for all letters, other white space; itself where parsers differ."""
    try:
        return b"\r\n " + _respelled(spelled(body)).encode() + b"\t"
    except (ValueError, RecursionError):
        return body


def _respelled(data: Any) -> str:
    if isinstance(data, _Number):
        return str(data)
    if isinstance(data, str):
        units = data.encode("utf-16-be", "surrogatepass")
        return '"' + "".join(f"\\u{units[at]:02X}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'
    if isinstance(data, _Members):
        return (
            "{ "
            + " ,\n".join(f"{_respelled(name)}:\t{_respelled(value)}" for name, value in reversed(data))
            + "}"
        )
    if isinstance(data, list):
        return "[" + " , ".join(map(_respelled, data)) + "\n]"
    return json.dumps(data)
