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
    max_stale: int | None = None
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
        max_stale=said.seconds(b"max-stale"),
        stale_if_error=said.seconds(b"stale-if-error") or 0,
        only_if_cached=b"only-if-cached" in said,
    )


class Serve(msgspec.Struct, frozen=True):
    """The stored response answers; `refresh`: it is stale or soon will be, and is fetched anew meanwhile."""

    reason: Reason
    refresh: bool = False


class Ask(msgspec.Struct, frozen=True):
    """The app is asked; `alone`: what is under way already is too old for this request.

    The reason is `request` where a fresh response was there, which the request's directives refuse (RFC 9211 s.2.2).
    """

    reason: Reason
    alone: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """Nobody is asked: the request wants only what is stored (RFC 9111 s.5.2.1.7)."""


Verdict = Serve | Ask | Refuse
FRESH: Final = Serve("fresh")
AHEAD: Final = Serve("fresh", refresh=True)
STANDS_IN: Final = Serve("stale-if-error")
MISS: Final = Ask("miss")
PARTIAL: Final = Ask("partial")
"""A part is stored, and not all that the request asks for (RFC 9211 s.2.2)."""
_MISS_ALONE: Final = Ask("miss", alone=True)


def assess(stored: StoredResponse | None, asked: Wants, now: float) -> Verdict:
    """What becomes of a request for which this response is stored, fresh or stale, or none."""
    if stored is None:
        verdict: Verdict = _MISS_ALONE if asked.validated else MISS
    else:
        verdict = _reused(stored, asked, now)
    return Refuse() if asked.only_if_cached and isinstance(verdict, Ask) else verdict


def _reused(stored: StoredResponse, asked: Wants, now: float) -> Verdict:
    late = now - stored.expires
    if asked.validated:
        return Ask("request" if late < 0 else "stale", alone=True)
    enough = is_enough(_age(stored, now), -late, asked)
    if late < 0:
        if not enough:
            return Ask("request")
        return FRESH if now < stored.refresh_at else AHEAD
    if enough and not stored.rigid and _bears(asked, late):
        if asked.max_stale is not None:
            return Serve("max-stale")
        if late < stored.stale_while_revalidate:
            return Serve("stale-while-revalidate", refresh=True)
    return Ask("stale")


def stands_in(stored: StoredResponse, asked: Wants, now: float) -> bool:
    """Whether a stale response may answer instead of an error (RFC 5861 s.4, RFC 9111 s.4.2.4).

    What a request would not have had from the store it does not get so either (s.5.2.1), but for the staleness that it
    takes with its own stale-if-error.
    """
    if stored.rigid or asked.validated:
        return False
    late = now - stored.expires
    return is_enough(_age(stored, now), -late, asked) and (
        late < asked.stale_if_error or (late < stored.stale_if_error and _bears(asked, late))
    )


def is_enough(age: float, left: float, asked: Wants) -> bool:
    """Whether a response of this age, fresh for so much longer, is young and fresh enough (s.5.2.1.1, s.5.2.1.3)."""
    return (asked.max_age is None or age <= asked.max_age) and (
        not asked.min_fresh or left >= asked.min_fresh
    )


def _bears(asked: Wants, late: float) -> bool:
    """Whether a request takes what has been stale for so long, where the response or the rule allows it.

    One that says how stale it may be takes nothing staler, one that names an age alone nothing stale (s.5.2.1.1,
    s.5.2.1.2).
    """
    return asked.max_age is None if asked.max_stale is None else late <= asked.max_stale


def _age(stored: StoredResponse, now: float) -> float:
    return stored.initial_age + now - stored.stored_at
