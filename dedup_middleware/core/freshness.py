"""Freshness: how long a response is fresh, how old it came, and what it allows when it is stale (RFC 9111 s.4.2).

Law: arithmetic alone; what is said wrongly counts as stale, and nothing makes a response younger than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import fields

if TYPE_CHECKING:
    from .answer import Answer
    from .fields import Directives

HEURISTICALLY_CACHEABLE: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses whose freshness may be guessed (RFC 9110 s.15.1; 206 is left out: nothing partial is guessed about)."""
ERRORS: Final = frozenset({500, 502, 503, 504})
"""Statuses for which a stale response may stand in (RFC 5861 s.4)."""
_HEURISTIC_SHARE: Final = 10
_HEURISTIC_MOST: Final = 86_400.0


def explicit_lifetime(answer: Answer, said: Directives, expires: bytes | None, wall: float) -> float | None:
    """The freshness lifetime that a response states, in seconds: s-maxage, max-age, Expires (RFC 9111 s.4.2.1).

    None where it states none; 0 for what is not in the grammar. `wall` is when it came, in seconds of the epoch.
    """
    for name in (b"s-maxage", b"max-age"):
        seconds = said.seconds(name)
        if seconds is not None:
            return float(seconds)
    if expires is None:
        return None
    until = fields.http_date(expires, wall)
    return 0.0 if until is None else max(0.0, until - _date(answer, wall))


def heuristic_lifetime(answer: Answer, wall: float) -> float:
    """A tenth of the time since it was last modified, a day at most (RFC 9111 s.4.2.2); 0 where that is not known."""
    if answer.last_modified is None:
        return 0.0
    modified = fields.http_date(answer.last_modified, wall)
    if modified is None:
        return 0.0
    return min(_HEURISTIC_MOST, max(0.0, (_date(answer, wall) - modified) / _HEURISTIC_SHARE))


def initial_age(answer: Answer, wall: float, delay: float) -> float:
    """How old a response was when it came, in seconds (RFC 9111 s.4.2.3); `delay` is how long it took to come."""
    apparent = 0.0 if answer.date is None else max(0.0, int(wall) - _date(answer, int(wall)))
    return max(apparent, (answer.age or 0) + delay)


def _date(answer: Answer, wall: float) -> float:
    """When it was made: its Date, or when it came (RFC 9110 s.6.6.1)."""
    made = fields.http_date(answer.date, wall) if answer.date is not None else None
    return wall if made is None else float(made)
