"""Outcomes and reasons, the closed lists in which every answer explains itself, and how they go on the wire.

Law: one outcome and one reason a request; Cache-Status and Age are the only fields that the package adds.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Outcome = Literal["hit", "collapsed", "forwarded", "bypassed"]
"""What became of a request (RFC 9211): served from the store, answered by another's flight, by its own forward, or
sent to the app untouched."""

Reason = Literal[
    # hit
    "fresh",
    "not-modified",
    # collapsed
    "in-flight",
    # forwarded
    "miss",
    "hit-for-miss",
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
]
"""Why; the lists are closed, so that they can be metric attributes."""

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

_FORWARDED: Final[dict[str, bytes]] = {
    reason: b"dedup; fwd=miss" + (b"" if reason == "miss" else b"; detail=" + reason.encode())
    for reason in REASONS
}


def forwarded(reason: Reason, *, stored: bool) -> bytes:
    """Cache-Status of a response that this request's own forward brought (RFC 9211 s.2.2, s.2.5)."""
    return b"dedup; fwd=miss; stored" if stored else _FORWARDED[reason]


COLLAPSED: Final = b"dedup; fwd=miss; collapsed"
"""Cache-Status of a response that another request's forward brought (RFC 9211 s.2.6)."""
