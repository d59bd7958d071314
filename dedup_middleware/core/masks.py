"""Masks: what is shown of values that may hold secrets.

Law: a password, a token and their kin never stand in clear in an error, an explanation or a page; names may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from .names import is_secret

_OWN: Final = frozenset({"refresh_ahead"})
"""Settings of our own that only sound like a secret."""
MASK: Final = "***"
_USER_INFORMATION: Final = re.compile(r"//[^/?#]*@")
_WORD: Final = re.compile(r"[\w-]+")
_INNER: Final = re.compile(r"[?&#;]([^?&#;=]*)=")


def pair(text: str) -> str:
    """One pair of a query; some parsers read several where there is a semicolon, and a value may hold a URL."""
    name, equals, value = text.partition("=")
    names = [piece.partition("=")[0] for piece in text.split(";")] + _INNER.findall(unquote_plus(value))
    hidden = any(is_secret(unquote_plus(one)) for one in names) or _USER_INFORMATION.search(
        unquote_plus(value)
    )
    return name + equals + (MASK if value and hidden else value)


def reference(text: str) -> str:
    """A URI reference: without user information (RFC 3986 s.3.2.1), and without secrets in path, query or fragment."""
    shown = _USER_INFORMATION.sub(f"//{MASK}@", text)
    before, hash_, fragment = shown.partition("#")
    path, mark, query = before.partition("?")
    path = ";".join([path.partition(";")[0], *map(pair, path.split(";")[1:])])
    return path + mark + _pairs(query) + hash_ + _pairs(fragment)


def _pairs(text: str) -> str:
    return "&".join(map(pair, text.split("&")))


def setting(place: str, value: Any) -> Any:
    """A setting's value as an error may show it; the last word of its place is its name."""
    words = _WORD.findall(place)
    if words and is_secret(words[-1]) and words[-1] not in _OWN:
        return MASK
    if isinstance(value, str):
        return _url(value)
    if isinstance(value, Mapping):
        return {name: setting(str(name), item) for name, item in value.items()}
    if type(value) in (list, tuple):  # what inherits from them need not be made from its items
        return type(value)(setting("", item) for item in value)
    return value


def _url(text: str) -> str:
    """A URL of a store, a database or anything else: no user, no password, and no query but the memory store's own."""
    if "://" not in text:
        return text
    shown = re.sub(r"//.*@", f"//{MASK}@", text, flags=re.DOTALL)  # greedy: a password may hold anything
    return reference(shown) if shown.startswith("memory:") else re.sub(r"(?s)[?#].*", f"?{MASK}", shown)
