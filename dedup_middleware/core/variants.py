"""Variants: by which request fields the responses under one key are told apart (RFC 9111 s.4.1).

Law: what a response's Vary names and the key does not hold tells variants apart, or nobody else gets the response.

The fields that one response has named are a list; the responses under one key may have named several.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from .fields import is_token, names_listed
from .settle import MOST_FIELDS, Keep
from .surroundings import Part

if TYPE_CHECKING:
    from .answer import Answer
    from .fingerprint import Fingerprinter
    from .settle import ShareOnly

_HIDDEN: Final = frozenset({Part.HIDDEN, Part.COOKIE})
MOST_LISTS: Final = 4
"""How many lists of fields are remembered under one key."""

Lists = tuple[frozenset[bytes], ...]


def told_apart(
    reader: Fingerprinter, shown: frozenset[bytes], settlement: Keep | ShareOnly
) -> frozenset[bytes]:
    """The fields by which a response is told apart from others; `shown` are those by which its request was.

    Those that any response has named; but where the app's own Vary is trusted, what this one names if it is stored, so
    that it answers whatever it fits (RFC 9111 s.4, s.4.1), and what the app has seen of that is hidden otherwise.
    """
    named = reader.unkeyed(settlement.vary)
    if reader.reading.trusting and isinstance(settlement, Keep):
        return named | _hidden_of(reader, shown)
    return shown | named


def listed(reader: Fingerprinter, lists: Lists, vary: frozenset[bytes]) -> Lists:
    """The lists under a key, the newest first, after a response that is told apart by `vary`.

    There is one; but where the app's own Vary is trusted, each response answers whatever fits its own one. Only those
    count for which the app saw the same fields that are hidden otherwise, the most so far: others know nothing of them.
    """
    if not reader.reading.trusting:
        return (vary,)
    seen = _hidden_of(reader, vary)
    if lists and not _hidden_of(reader, lists[0]) <= seen:
        return lists
    return (vary, *islice((one for one in lists if one != vary and seen <= one), MOST_LISTS - 1))


def _hidden_of(reader: Fingerprinter, names: frozenset[bytes]) -> set[bytes]:
    return {name for name in names if reader.reading.part(name) in _HIDDEN}


def hidden_in(reader: Fingerprinter, head: Answer) -> frozenset[bytes]:
    """The fields of Vary that the app has not seen: they are shown to it from now on, whoever its answer is for."""
    named = frozenset(filter(is_token, names_listed(head.vary))) - {b"*"} if head.vary else frozenset()
    if len(named) > MOST_FIELDS:
        return frozenset()
    return frozenset(name for name in reader.unkeyed(named) if reader.reading.part(name) in _HIDDEN)
