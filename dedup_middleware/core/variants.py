"""Variants: by which request fields the responses under one key are told apart (RFC 9111 s.4.1).

Law: what a response's Vary names and the key does not hold tells variants apart, or nobody else gets the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .fields import is_token, names_listed
from .settle import MOST_FIELDS, Keep
from .surroundings import Part

if TYPE_CHECKING:
    from .answer import Answer
    from .fingerprint import Fingerprinter
    from .settle import ShareOnly

_HIDDEN: Final = frozenset({Part.HIDDEN, Part.COOKIE})


def told_apart(
    reader: Fingerprinter, shown: frozenset[bytes], settlement: Keep | ShareOnly
) -> frozenset[bytes]:
    """The fields by which variants are told apart from now on; `shown` are those so far.

    Those that any response has named; but where the app's own Vary is trusted, what the newest stored one names, so
    that it answers whatever it fits (RFC 9111 s.4, s.4.1), and what the app has seen of that is hidden otherwise.
    """
    named = reader.unkeyed(settlement.vary)
    if reader.reading.trusting and isinstance(settlement, Keep):
        return named | {name for name in shown if reader.reading.part(name) in _HIDDEN}
    return shown | named


def hidden_in(reader: Fingerprinter, head: Answer) -> frozenset[bytes]:
    """The fields of Vary that the app has not seen: they are shown to it from now on, whoever its answer is for."""
    named = frozenset(filter(is_token, names_listed(head.vary))) - {b"*"} if head.vary else frozenset()
    if len(named) > MOST_FIELDS:
        return frozenset()
    return frozenset(name for name in reader.unkeyed(named) if reader.reading.part(name) in _HIDDEN)
