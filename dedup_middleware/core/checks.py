"""Checks of settings: durations, whole numbers, texts, and which fields there are.

Law: what cannot be is refused with its place, its value and what is allowed; nothing is accepted and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import Any, Final

from . import masks
from .errors import ConfigurationError

NOT_YET: Final = "not available in this version"

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST: Final = 1_000_000_000
"""Seconds, some thirty years: more is a slip, and no timer takes every number."""


def is_async(function: object) -> bool:
    """Whether calling it gives a coroutine: a function, or an object whose call is one."""
    called = getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called, but what that does
    return iscoroutinefunction(function) or iscoroutinefunction(called)


def check_fields(place: str, fields: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse what is not a field, with the one that it looks like."""
    for field, value in fields.items():
        if field not in allowed:
            # What a mistyped name holds may be a secret.
            shown = value if isinstance(value, (int, float)) else masks.MASK
            near = get_close_matches(field, allowed, 1)
            meant = f"perhaps {near[0]} is meant; " if near else ""
            raise ConfigurationError(f"{place}{field}", shown, f"{meant}only the fields {', '.join(allowed)}")


def duration(place: str, value: object, also: str = "") -> float:
    """Seconds as a setting has them: a number, or a text such as "1h30m"; `also` names what else is allowed there.

    Raises:
        ConfigurationError: for anything else.
    """
    allowed = f'{also}0, seconds, or a text such as "5m"'
    seconds = value
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        if len({unit for _, unit in parts}) == len(parts):  # "5m5m" is a slip
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST:
        return float(seconds)
    too_long = isinstance(seconds, (int, float)) and seconds > _LONGEST
    raise ConfigurationError(place, value, f"at most {_LONGEST} seconds" if too_long else allowed)


def whole(place: str, value: object) -> None:
    """Refuse what is not a whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(place, value, "a whole number from 0 on")


def truth(place: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if type(value) is not bool:
        raise ConfigurationError(place, value, "true or false")


def share(place: str, value: object, most: float) -> float:
    """A part of the whole, from 0 to `most`.

    Raises:
        ConfigurationError: for anything else.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    raise ConfigurationError(place, value, f"a number from 0 to {most}")


def texts(place: str, value: object, allowed: str = "a list of texts") -> tuple[str, ...]:
    """A list of texts that are not empty.

    Raises:
        ConfigurationError: for anything else.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, set, frozenset)):
        raise ConfigurationError(place, value, allowed)
    for item in value:
        if not isinstance(item, str) or not item:
            raise ConfigurationError(place, item, allowed)
    return tuple(value)
