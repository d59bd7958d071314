"""Outcomes and reasons, the closed lists in which every answer explains itself, and how they go on the wire.

Law: one outcome and one reason a request; Cache-Status and Age are the only fields that the package adds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, get_args

Outcome = Literal["hit", "stale", "revalidated", "collapsed", "forwarded", "bypassed"]
"""What became of a request (RFC 9211): served from the store, fresh or stale, or after the app confirmed what is
stored; answered by another's flight, by its own forward, or sent to the app untouched."""

Reason = Literal[
    # hit
    "fresh",
    "not-modified",
    "range",
    # stale
    "stale-while-revalidate",
    "stale-if-error",
    "max-stale",
    # revalidated, and forwarded where the app answered anew
    "stale",
    "request",
    # collapsed
    "in-flight",
    # forwarded
    "miss",
    "hit-for-miss",
    "unshared-error",
    "nested",
    "max-wait",
    "not-collapsed",
    # forwarded, and nobody else may use the response (pass)
    "set-cookie",
    "no-store",
    "no-cache",
    "private",
    "vary",
    "session",
    "refusal",
    "partial",
    "stream",
    "too-large",
    "personal-field",
    "nonce",
    "server-error",
    "authorization",
    "no-freshness",
    # forwarded, and it ended badly
    "failed",
    # bypassed
    "disabled",
    "off",
    "method",
    "invalidates",
    "target",
    "upgrade",
    "precondition",
    "duplicate-field",
    "too-many-headers",
    "request-body",
    "body-too-large",
    "body-length",
    "credential",
    "identity",
    "user",
    "state",
    "certificate",
    "unencodable",
    "too-many-flights",
    "event-loop",
    "disconnected",
    "only-if-cached",
]
"""Why; the lists are closed, so that they can be metric attributes."""

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

MISS: Final = b"dedup; fwd=uri-miss"
"""Cache-Status of a response of which nothing is stored (RFC 9211 s.2.2)."""
_BECAUSE: Final = {"stale": b"stale", "request": b"request", "partial": b"partial"}


def forwarded(
    reason: Reason,
    *,
    varied: bool = False,
    status: int | None = None,
    ttl: float | None = None,
    key: bytes | None = None,
    detail: Reason | None = None,
) -> bytes:
    """Cache-Status of a response that this request's own forward brought (RFC 9211 s.2.2 to s.2.8).

    `varied` says that a Vary has told variants of this key apart: another one was stored, and is perhaps no more; to
    find out would take an index of variants by key, kept with every response, for one word.
    `status` is the app's where another one goes out, `ttl` the freshness that is left in seconds where it is stored;
    `key` is named where the rule asks for it.
    """
    return named(_forwarded(reason, varied, status, None if ttl is None else int(ttl), detail), key)


@lru_cache(maxsize=256)
def _forwarded(
    reason: Reason, varied: bool, status: int | None, ttl: int | None, detail: Reason | None
) -> bytes:
    line = b"dedup; fwd=" + _because(reason, varied)
    if status is not None:
        line += b"; fwd-status=%d" % status
    if ttl is not None:
        line += b"; stored; ttl=%d" % ttl
    elif detail is None and reason != "miss" and reason not in _BECAUSE:
        detail = reason
    if detail is not None:
        line += b"; detail=" + detail.encode()
    return line


def served(ttl: float, detail: Reason | None = None) -> bytes:
    """Cache-Status of a stored response (RFC 9211 s.2.1, s.2.4); `ttl` is negative for a stale one."""
    line = b"dedup; hit; ttl=%d" % ttl
    return line if detail is None else line + b"; detail=" + detail.encode()


def named(line: bytes, key: bytes | None) -> bytes:
    """The line with the key's digest, where the rule asks for it (RFC 9211 s.2.7)."""
    return line if key is None else line + b'; key="' + key.hex().encode() + b'"'


def collapsed(reason: Reason, *, varied: bool = False, detail: Reason | None = None) -> bytes:
    """Cache-Status of a response that another request's forward brought (RFC 9211 s.2.2, s.2.6).

    `reason` and `varied` are the request's own, as for `forwarded`.
    """
    line = b"dedup; fwd=%b; collapsed" % _because(reason, varied)
    return line if detail is None else line + b"; detail=" + detail.encode()


def _because(reason: Reason, varied: bool) -> bytes:
    return _BECAUSE.get(reason) or (b"vary-miss" if varied else b"uri-miss")
