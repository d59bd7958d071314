"""Settle: who may use a response, and for how long? Decided on its head, before a follower gets a byte.

Law: pure; a closed union of small frozen structs; what a response forbids, no rule allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from . import fields, freshness
from .conditional import CONDITIONAL
from .names import CLIENT_STATE, PERSONAL_FIELDS
from .status import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .answer import Answer
    from .fields import Directives
    from .rules import Rule

_NONE: Final[frozenset[bytes]] = frozenset()

STORABLE: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Statuses that a rule's own ttl stores."""
REFUSALS: Final = frozenset({401, 403, 407, 429})
UNDERSTOOD: Final = frozenset(
    {200, 203, 204, 206, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 451, 501}
)
"""Statuses whose caching the package knows, as must-understand asks (RFC 9111 s.5.2.2.3)."""
_PERMITS: Final = (b"public", b"s-maxage", b"must-revalidate")
_RIGID: Final = (b"must-revalidate", b"proxy-revalidate", b"s-maxage")
MOST_FIELDS: Final = 256
"""Fields by which the responses under one key are told apart; what would need more is nobody else's."""
REVALIDATABLE: Final = 3600.0
"""Seconds for which a stale response is kept to be revalidated, or for requests that say max-stale."""


@final
class Keep(msgspec.Struct, frozen=True):
    """All who wait may use the response, and it may be stored.

    It is fresh for `lifetime` seconds from now on, or stale for `late` seconds already, and `age` seconds old. When it
    is stale it is worth keeping for `kept` seconds: to be revalidated, or to be served stale while it is
    (`stale_while_revalidate`) or instead of an error (`stale_if_error`). `rigid` forbids serving it stale at all
    (RFC 9111 s.4.2.4). `stripped` are fields that only the leader gets. `passed` is why nobody but the leader may use
    it before it is validated; None: all may. It is `ranged` where a Range was asked for: what is stored of the
    whole, or of another part, may answer the same.
    """

    lifetime: float
    vary: frozenset[bytes]
    age: float = 0.0
    kept: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    rigid: bool = False
    stripped: frozenset[bytes] = _NONE
    passed: Reason | None = None
    late: float = 0.0
    ranged: bool = False


@final
class ShareOnly(msgspec.Struct, frozen=True):
    """All who wait may use the response, without the fields that are `stripped`; it is not stored."""

    vary: frozenset[bytes]
    stripped: frozenset[bytes] = _NONE


@final
class Pass(msgspec.Struct, frozen=True):
    """Only the request that led may use the response."""

    reason: Reason


Settlement = Keep | ShareOnly | Pass


def settle(
    rule: Rule,
    method: str,
    answer: Answer,
    *,
    one_identity: Callable[[], bool] = bool,
    authorized: bool = False,
    ranged: bool = False,
    room: int | None = None,
    wall: float = 0.0,
    delay: float = 0.0,
) -> Settlement:
    """Who may use this response (RFC 9111 s.3, s.4)?

    `one_identity` says that all who may wait for it are one caller (by default they are not); `authorized` that the
    request carried an Authorization which the key does not hold (s.3.5), `ranged` that the app saw a Range. A body of
    more than `room` bytes is not stored. `wall` is the time in seconds of the epoch, `delay` how long the head took to
    come, in seconds.
    """
    if answer.length is not None and answer.length > rule.max_response_body:
        return Pass("too-large")
    said = _NOTHING_SAID
    expires, varied, stripped = answer.expires, _NONE, _NONE
    if not answer.plain:
        if answer.surrogate and b"no-store" in fields.directives(answer.surrogate):
            return Pass("no-store")
        if answer.targeted and _forbids(fields.directives(answer.targeted), answer.status):
            return Pass("no-store")
        if answer.streams:
            return Pass("stream")
        if answer.control or answer.targeted:
            said = fields.directives(answer.control)
            if rule.targeted_cache_control and answer.targeted:
                targeted = fields.targeted_directives(answer.targeted)
                if targeted is not None:  # it stands for Cache-Control and Expires (RFC 9213 s.2.2)
                    said, expires = targeted, None
            if _forbids(said, answer.status):
                return Pass("no-store")
            if said.bare(b"private") and not one_identity():
                return Pass("private")
            stripped = said.names(b"no-cache") | said.names(b"private")
        if answer.personal is not None:
            reason = _personal(rule, answer, said, expires, stripped, wall)
            if reason is not None:
                return Pass(reason)
        if answer.vary:
            varied = fields.names_listed(answer.vary)
            # One that is itself for the leader alone tells nobody apart once a 304 has confirmed the rest.
            if (
                b"*" in varied
                or b"vary" in stripped
                or len(varied) > MOST_FIELDS
                or not all(map(fields.is_token, varied))
            ):
                return Pass("vary")
        if answer.nonce and not one_identity():
            return Pass("nonce")
    if answer.status >= 500 and not rule.share_errors:
        return Pass("server-error")
    if rule.ttl == "origin":
        if answer.status == 206 and not ranged:
            return Pass("partial")  # a part that nobody asked for
        if authorized and not any(name in said for name in _PERMITS):
            return Pass("authorization")
        settled = _by_origin(rule, method, answer, said, expires, varied, stripped, wall, delay)
    else:
        settled = _by_rule(rule, method, answer, said, varied, stripped)
    if isinstance(settled, Keep) and room is not None and answer.length is not None and answer.length > room:
        return ShareOnly(varied, stripped) if settled.passed is None else Pass(settled.passed)
    return settled


_NOTHING_SAID: Final = fields.directives(())
_SHARE_ONLY: Final = ShareOnly(_NONE)


def _forbids(said: Directives, status: int) -> bool:
    """Whether directives forbid storing; must-understand, where it is understood, stands for no-store (s.5.2.2.3)."""
    if b"must-understand" in said:
        return status not in UNDERSTOOD
    return b"no-store" in said


def _personal(
    rule: Rule,
    answer: Answer,
    said: Directives,
    expires: bytes | None,
    stripped: frozenset[bytes],
    wall: float,
) -> Reason | None:
    """Why a response with fields that belong to one caller is not for others."""
    personal = {name.lower() for name, _ in answer.headers} & PERSONAL_FIELDS - stripped
    if rule.share_cookies and _is_for_all(answer, said, expires, wall):
        personal -= CLIENT_STATE
    if not personal:
        return None
    return "set-cookie" if b"set-cookie" in personal else "personal-field"


def _is_for_all(answer: Answer, said: Directives, expires: bytes | None, wall: float) -> bool:
    """Whether a response states itself that it may be reused for anybody: public, or a lifetime (RFC 9111 s.7.3).

    A lifetime of 0 is what apps write against reuse, beside public too, and without public so is no-cache.
    """
    if b"no-store" in said or said.bare(b"private"):
        return False
    lifetime = freshness.explicit_lifetime(answer, said, expires, wall)
    if lifetime == 0:
        return False
    return b"public" in said or (lifetime is not None and not said.bare(b"no-cache"))


def _by_rule(
    rule: Rule,
    method: str,
    answer: Answer,
    said: Directives,
    varied: frozenset[bytes],
    stripped: frozenset[bytes],
) -> Settlement:
    """A number of seconds: it overrides max-age, s-maxage, Expires and no-cache, and nothing else."""
    status = answer.status
    if said and rule.ttl == 0 and (said.bare(b"no-cache") or said.seconds(b"max-age") == 0):
        return Pass("no-cache")
    if status in REFUSALS:
        return Pass("refusal")
    if status == 304 and rule.stores:
        return Pass("partial")
    lifetime = while_revalidate = if_error = 0.0
    rigid = b"must-revalidate" in said or b"proxy-revalidate" in said
    if status in STORABLE:
        lifetime = float(rule.ttl)
        if not rigid:
            while_revalidate, if_error = float(rule.stale_while_revalidate), float(rule.stale_if_error)
    elif status in (404, 410) or status >= 500:  # such an answer is kept for so long, and no longer
        lifetime = float(rule.negative_ttl)
    if lifetime == 0 or method == "HEAD" or answer.nonce:
        return ShareOnly(varied, stripped) if varied or stripped else _SHARE_ONLY
    return Keep(
        lifetime,
        varied,
        answer.age or 0,
        max(while_revalidate, if_error),
        while_revalidate,
        if_error,
        rigid,
        stripped,
    )


def _by_origin(
    rule: Rule,
    method: str,
    answer: Answer,
    said: Directives,
    expires: bytes | None,
    varied: frozenset[bytes],
    stripped: frozenset[bytes],
    wall: float,
    delay: float,
) -> Settlement:
    """What the response says of itself (RFC 9111 s.3, s.4.2; RFC 5861)."""
    lifetime = freshness.explicit_lifetime(answer, said, expires, wall)
    guessable = answer.status in freshness.HEURISTICALLY_CACHEABLE or b"public" in said
    if answer.status == 304:
        return Pass("partial")
    if answer.status in REFUSALS and lifetime is None:
        return Pass("refusal")
    validate = said.bare(b"no-cache")
    if lifetime is None and not guessable and not validate:
        # A failed forward is an answer for all who waited; whatever else states no freshness is not.
        return ShareOnly(varied, stripped) if answer.status >= 500 else Pass("no-freshness")
    if method == "HEAD" or answer.nonce:
        return Pass("no-cache") if validate or lifetime == 0 else ShareOnly(varied, stripped)
    stated = lifetime is not None
    if lifetime is None:
        lifetime = freshness.heuristic_lifetime(answer, wall) if rule.heuristic_freshness else 0.0
    age = freshness.initial_age(answer, wall, delay)
    left = 0.0 if validate else max(0.0, lifetime - age)
    late = max(0.0, age - lifetime)
    rigid = validate or any(name in said for name in _RIGID)
    while_revalidate = if_error = 0.0
    if not rigid and (stated or lifetime):  # the response's own windows come before the rule's
        # What never was fresh, or is an error, is not served stale, if it does not say so itself.
        by_rule = lifetime > 0 and answer.status < 500
        while_revalidate = _window(said, b"stale-while-revalidate", by_rule and rule.stale_while_revalidate)
        if_error = _window(said, b"stale-if-error", by_rule and rule.stale_if_error)
    if answer.status >= 500:  # an old error is no better than a new one
        if_error = 0.0
    again = (answer.validates and answer.status == 200 and method in CONDITIONAL) or (
        rule.honor_request_directives and not rigid and lifetime > 0
    )
    # What was stale when it came has used up some of its windows.
    kept = max(while_revalidate, if_error, late + REVALIDATABLE if again else 0.0)
    # One that only took longer than it is fresh for is stale when it comes, and still what all who wait have asked for.
    stale = stated and lifetime <= max(0.0, age - delay)
    passed: Reason | None = "no-cache" if not left and (stale or validate) else None
    if not left and kept <= late:
        return ShareOnly(varied, stripped) if passed is None else Pass(passed)
    return Keep(left, varied, age, kept, while_revalidate, if_error, rigid, stripped, passed, late)


def _window(said: Directives, name: bytes, rules: float | str) -> float:
    seconds = said.seconds(name)
    return float(rules if seconds is None else seconds)
