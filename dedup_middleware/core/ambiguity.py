"""Ambiguity: could a cache and an app read one target differently? Then it is not shared.

Law: on a doubt, it is ambiguous.
"""

from __future__ import annotations

import re

from .http import MOST_BYTES
from .paths import BAD_PATH

_BAD_RAW_PATH = re.compile(
    rb"[\x00-\x20\x7f\\]|//|%2f|%5c|%[01][0-9a-f]|%7f|(?:^|/)(?:\.|%2e){1,2}(?:/|;|$)", re.IGNORECASE
)
_PLAIN_PATH = re.compile(rb"(?:/[\w~-][\w.~-]*)+")
"""Most paths, of which none is ambiguous: found out in a third of the time."""
_BAD_QUERY = re.compile(rb"[\x00-\x20\x7f]")


def ambiguous(path: str, raw_path: bytes | None) -> bool:
    """Whether a cache and an app could read this path differently (absolute form, dot segments, encoded slashes...).

    What is too long to be read is not looked through.
    """
    if len(path) > MOST_BYTES:
        return True
    if raw_path is not None:
        if type(raw_path) is not bytes:
            return True  # an outer layer's, which has rewritten the target
        if _PLAIN_PATH.fullmatch(raw_path) is None and (
            not raw_path.startswith(b"/") or _BAD_RAW_PATH.search(raw_path) is not None
        ):
            return True
        if raw_path == path.encode("utf-8", "surrogatepass"):
            return False  # nothing is encoded: what was searched is the path
    return not path.startswith("/") or BAD_PATH.search(path) is not None


def ambiguous_query(query: bytes) -> bool:
    """Whether a query holds what no URI does (control characters, spaces), is no bytes (another layer's) or long."""
    return type(query) is not bytes or len(query) > MOST_BYTES or _BAD_QUERY.search(query) is not None
