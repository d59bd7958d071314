"""Canonical bodies: two JSON texts that every parser reads alike count as one body, and nothing else does.

Law: on any doubt (another charset, duplicate names, a number's spelling, depth, what does not parse) a body is itself,
byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from .names import is_secret

Digest = Callable[[bytes], bytes]
"""A few bytes that tell encoded parts apart."""

encode: Final = msgspec.msgpack.Encoder(order="sorted").encode
"""MessagePack: every part carries its type and length, so that no boundary can be shifted."""

_JSON_TYPE = re.compile(
    rb'application/(?:[a-z0-9!#$&^_.+-]+\+)?json[ \t]*(?:;[ \t]*charset="?utf-?8"?[ \t]*)?', re.IGNORECASE
)


class _DuplicateNameError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateNameError
    return members


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def is_json(content_type: bytes | None, content_encoding: bytes | None) -> bool:
    """Whether a body of this type is read as JSON in UTF-8 (RFC 8259 s.8.1)."""
    return (
        content_encoding is None
        and content_type is not None
        and _JSON_TYPE.fullmatch(content_type) is not None
    )


def parse(body: bytes) -> Any:
    """A JSON text as plain data in which every number is the bytes that spell it.

    Raises:
        ValueError: where parsers could disagree (RecursionError: where they could give up).
    """
    return json.loads(
        body.decode("utf-8"),
        parse_int=str.encode,
        parse_float=str.encode,
        parse_constant=_no_constant,
        object_pairs_hook=_object,
    )


def canonical(body: bytes, ignored: tuple[str, ...] = ()) -> bytes | None:
    """The canonical form of a JSON text without its ignored top-level members, or None where only the bytes count.

    Member order, white space and string escapes vanish; a number keeps its own spelling (1.0 is not 1).
    """
    try:
        data = parse(body)
        if ignored and isinstance(data, dict):
            data = {name: value for name, value in data.items() if not is_ignored(name, ignored)}
        return encode(data)
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        return None


def is_ignored(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a query or body field is left out of the key; a secret never is."""
    return any(fnmatchcase(name, pattern) for pattern in patterns) and not is_secret(name)


def plain(value: Any, depth: int = 0) -> Any:
    """Plain data in a form that `encode` tells apart (a tuple is not a list, 1 is not True).

    Raises:
        TypeError: for anything but None, bool, int, float, str, bytes, list, tuple, dict with text keys.
    """
    kind = type(value)
    if value is None or kind in (bool, str, bytes, float):
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else ["int", str(value)]
    if depth < 20 and kind in (list, tuple):
        return [kind.__name__, [plain(item, depth + 1) for item in value]]
    if depth < 20 and kind is dict and all(type(key) is str for key in value):
        return ["dict", {key: plain(item, depth + 1) for key, item in value.items()}]
    raise TypeError(kind.__name__)
