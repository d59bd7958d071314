"""Assess: may a stored response answer this request, and what is to be done where it may not (RFC 9111 s.4)?

Law: pure; a closed union; a stale response answers only where nobody forbids it and somebody allows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from . import fields
from .http import values
from .status import Reason

if TYPE_CHECKING:
    from .http import Headers, StoredResponse


class Wants(msgspec.Struct, frozen=True):
    """What a request's Cache-Control asks of a cache (RFC 9111 s.5.2.1); seconds, None where it does not say."""

    no_store: bool = False
    validated: bool = False
    max_age: int | None = None
    min_fresh: int = 0
    max_stale: int = 0
    stale_if_error: int = 0
    only_if_cached: bool = False


NOTHING_WANTED: Final = Wants()


def wants(headers: Headers) -> Wants:
    """A request's directives; Pragma counts where there is no Cache-Control (RFC 9111 s.5.4)."""
    lines = values(headers, b"cache-control")
    if not lines:
        pragma = fields.directives(values(headers, b"pragma"))
        return Wants(validated=True) if b"no-cache" in pragma else NOTHING_WANTED
    said = fields.directives(lines)
    max_age = said.seconds(b"max-age")
    return Wants(
        no_store=b"no-store" in said,
        validated=b"no-cache" in said or max_age == 0,
        max_age=max_age,
        min_fresh=said.seconds(b"min-fresh") or 0,
        max_stale=said.seconds(b"max-stale") or 0,
        stale_if_error=said.seconds(b"stale-if-error") or 0,
        only_if_cached=b"only-if-cached" in said,
    )


class Serve(msgspec.Struct, frozen=True):
    """The stored response answers; `refresh`: it is stale or soon will be, and is fetched anew meanwhile."""

    reason: Reason
    refresh: bool = False


class Ask(msgspec.Struct, frozen=True):
    """The app is asked; `alone`: what is under way already is too old for this request."""

    reason: Reason
    alone: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """Nobody is asked: the request wants only what is stored (RFC 9111 s.5.2.1.7)."""


Verdict = Serve | Ask | Refuse
FRESH: Final = Serve("fresh")
AHEAD: Final = Serve("fresh", refresh=True)
MISS: Final = Ask("miss")


def assess(stored: StoredResponse | None, asked: Wants, now: float) -> Verdict:
    """What becomes of a request for which this response is stored, fresh or stale, or none."""
    verdict = _reused(stored, asked, now) if stored is not None else _asked(asked)
    return Refuse() if asked.only_if_cached and isinstance(verdict, Ask) else verdict


def _asked(asked: Wants) -> Ask:
    return Ask("request", alone=True) if asked.validated else MISS


def _reused(stored: StoredResponse, asked: Wants, now: float) -> Verdict:
    if asked.validated:
        return Ask("request", alone=True)
    age = stored.initial_age + now - stored.stored_at
    if asked.max_age is not None and age > asked.max_age and not (asked.max_stale and now >= stored.expires):
        return Ask("request")
    left = stored.expires - now
    if left >= asked.min_fresh and left > 0:
        return FRESH if now < stored.refresh_at else AHEAD
    if left > 0:
        return Ask("request")
    if not stored.rigid:
        if asked.max_stale and -left <= asked.max_stale:
            return Serve("max-stale")
        # One that names an age or a freshness, and no staleness, wants none (s.5.2.1.1, s.5.2.1.3).
        willing = asked.max_stale or (asked.max_age is None and not asked.min_fresh)
        if willing and now < stored.expires + stored.stale_while_revalidate:
            return Serve("stale-while-revalidate", refresh=True)
    return Ask("stale")


def stands_in(stored: StoredResponse, asked: Wants, now: float) -> bool:
    """Whether a stale response may answer instead of an error (RFC 5861 s.4, RFC 9111 s.4.2.4, s.5.2.1.4)."""
    return (
        not stored.rigid
        and not asked.validated
        and now < stored.expires + max(stored.stale_if_error, asked.stale_if_error)
    )


def is_enough(age: float, lifetime: float, asked: Wants) -> bool:
    """Whether a response that another request's forward brought is young and fresh enough for this one."""
    return (asked.max_age is None or age <= asked.max_age) and lifetime >= asked.min_fresh
