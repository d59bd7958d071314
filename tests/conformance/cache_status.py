"""Cache-Status as the structured field that it is (RFC 9211, RFC 9651): a list of items with parameters.

Law: strict, so that what a lenient reader would forgive fails here.
"""

from __future__ import annotations

import re

Parameters = dict[str, bool | int | str]

_KEY = r"[a-z*][a-z0-9_.*-]*"
_TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_INTEGER = r"-?[0-9]{1,15}"
_PARAMETER = re.compile(rf"; *({_KEY})(?:=({_STRING}|{_INTEGER}|{_TOKEN}|\?[01]))?")
_NAME = re.compile(rf"{_TOKEN}|{_STRING}")
_TYPES = {
    "hit": bool,
    "fwd": str,
    "fwd-status": int,
    "ttl": int,
    "stored": bool,
    "collapsed": bool,
    "key": str,
}
_FWD = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}


def _bare(text: str | None) -> bool | int | str:
    if text is None or text == "?1":
        return True
    if text == "?0":
        return False
    if re.fullmatch(_INTEGER, text):
        return int(text)
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def parse(line: str) -> list[tuple[str, Parameters]]:
    """The members of the list, each with its parameters.

    Raises:
        ValueError: for what is no list of items in the grammar, and for parameters that RFC 9211 gives another type.
    """
    members: list[tuple[str, Parameters]] = []
    at = 0
    while True:
        name = _NAME.match(line, at)
        if name is None:
            raise ValueError(f"no item at {line[at:]!r} of {line!r}")
        at = name.end()
        parameters: Parameters = {}
        while matched := _PARAMETER.match(line, at):
            parameters[matched[1]] = _bare(matched[2])
            at = matched.end()
        members.append((str(_bare(name[0])), parameters))
        if at == len(line):
            break
        comma = re.compile(r"[ \t]*,[ \t]*").match(line, at)
        if comma is None:
            raise ValueError(f"neither a comma nor the end at {line[at:]!r} of {line!r}")
        at = comma.end()
    for _, parameters in members:
        for key, value in parameters.items():
            if not isinstance(value, _TYPES.get(key, object)) or (key == "ttl" and value is True):
                raise ValueError(f"{key} is {value!r} in {line!r}")
        if parameters.get("fwd", "miss") not in _FWD:
            raise ValueError(f"no such reason: {line!r}")
        if "hit" in parameters and "fwd" in parameters:
            raise ValueError(f"both hit and fwd: {line!r}")
    return members
