"""Selectors: what `vary`, `ignore`, `identity` and tags may name.

Law: what could leave a credential out of the key is refused; each refusal says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .checks import is_async, texts
from .errors import ConfigurationError
from .names import NEVER_DROPPED, is_credential, is_secret

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME: Final = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+")
"""A token without `*`: who writes one means any name, and no item of `vary` or `identity` is a pattern."""
_ALWAYS_COUNTS: Final = (
    "no field on which a response always depends: its host, its range, how its body is to be read"
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TAG_PARAMETER = re.compile(r"\{([^{}]*)\}")


class Anonymous:
    """The type of `ANONYMOUS`: what an identity function returns for a caller who is nobody in particular."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANONYMOUS"


ANONYMOUS: Final = Anonymous()

Identity = str | Sequence[str] | Callable[[Mapping[str, Any]], str | bytes | Anonymous]


def check_parameters(place: str, templates: Sequence[str], parameters: frozenset[str]) -> None:
    """Tags may name parameters of the path, and no others."""
    for template in templates:
        for name in _TAG_PARAMETER.findall(template):
            if name not in parameters:
                known = ", ".join(sorted(f"{{{p}}}" for p in parameters)) or "none in this path"
                raise ConfigurationError(place, template, f"parameters of the path: {known}")
        if re.search(r"[{}]", _TAG_PARAMETER.sub("", template)):
            raise ConfigurationError(place, template, "a text with {parameters} of the path")


def vary_of(value: object) -> tuple[str, ...] | str | None:
    """What `vary` names, in the form that the engine reads."""
    if value is None:
        return None
    if value == "origin":
        return "origin"
    allowed = (
        '"origin", or a list of field names, "client", "cookie:NAME", "state:NAME", "scope:NAME", none with a * in it; '
        '"*" for everything, with "-NAME" for the fields that it should leave out'
    )
    given = texts("Rule.vary", value, allowed)
    items = []
    for item in given:
        kind, colon, name = item.partition(":")
        if not colon or kind not in ("cookie", "state", "scope"):
            name = item.removeprefix("-")
        if item != "*" and not _NAME.fullmatch(name):
            raise ConfigurationError("Rule.vary", item, allowed)
        if item.startswith("-") and "*" not in given:
            raise ConfigurationError("Rule.vary", item, '"-NAME" only beside "*"')
        if item.startswith("-") and name.lower().encode() in NEVER_DROPPED:
            raise ConfigurationError("Rule.vary", item, _ALWAYS_COUNTS)
        items.append(item if ":" in item else item.lower())
    return tuple(items)


def ignore_of(value: object) -> tuple[str, ...]:
    """What `ignore` names, in the form that the engine reads: anything but a credential."""
    items = texts("Rule.ignore", value)
    for item in items:
        kind, _, pattern = item.partition(":")
        if (
            kind not in ("query", "body", "header", "state", "scope")
            or not pattern
            or _SURROGATE.search(pattern) is not None  # which nothing can encode
            or (kind == "header" and not TOKEN.fullmatch(pattern))
        ):
            raise ConfigurationError(
                "Rule.ignore",
                item,
                '"query:NAME", "body:NAME", "header:NAME", "state:NAME" or "scope:NAME"; NAME may hold *',
            )
        if kind == "header" and pattern.lower().encode() in NEVER_DROPPED:
            raise ConfigurationError("Rule.ignore", item, _ALWAYS_COUNTS)
        if (kind == "header" and is_credential(pattern.lower())) or (
            kind in ("query", "body") and is_secret(pattern)
        ):
            raise ConfigurationError(
                "Rule.ignore",
                item,
                "no credential: leaving one out of the key would give one caller's response to another",
            )
    return tuple(item.lower() if item.startswith("header:") else item for item in items)


def identity_of(value: object) -> Identity:
    """What `identity` names, in the form that the engine reads."""
    allowed = '"separate", "credentials", "shared", "origin", a list of credentials, or a function'
    if isinstance(value, str):
        if value not in ("separate", "credentials", "shared", "origin"):
            raise ConfigurationError("Rule.identity", value, allowed)
        return value
    if callable(value):
        if is_async(value):
            raise ConfigurationError("Rule.identity", value, f"{allowed} (not an async one)")
        return value
    items = texts("Rule.identity", value, allowed)
    if not items:
        raise ConfigurationError(
            "Rule.identity", [], 'a list that names something ("shared" means one response for all)'
        )
    for item in items:
        kind, colon, name = item.partition(":")
        text = name if colon and kind in ("cookie", "header") else item
        if not _NAME.fullmatch(text):
            raise ConfigurationError(
                "Rule.identity",
                item,
                '"cookie:NAME", "header:NAME", "user", "session", "certificate" or "client"; NAME without *',
            )
    return tuple(
        item if item.startswith("cookie:") else item.removeprefix("header:").lower() for item in items
    )
