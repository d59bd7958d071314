"""Account: why a response may be stored, shared or neither, with the section that says so.

Law: what is told is what `settle` decides; nothing is decided here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from . import fields, freshness
from .answer import read_answer
from .names import CLIENT_STATE
from .settle import STORABLE, Keep, Pass, settle
from .status import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .answer import Answer
    from .rules import Rule

_WHY: Final[dict[str, tuple[str, str]]] = {
    "no-store": ("the response says no-store", "RFC 9111 s.5.2.2.5"),
    "private": ("the response is private, and more than one caller shares the key", "RFC 9111 s.5.2.2.7"),
    "no-cache": ("the response may be used again only after it was validated", "RFC 9111 s.5.2.2.4"),
    "vary": (
        "Vary says *, is not in its grammar, names too many fields, or is not to be used again",
        "RFC 9111 s.4.1",
    ),
    "set-cookie": (
        "the response sets a cookie, and rule and response do not both share it",
        "RFC 9111 s.7.3",
    ),
    "personal-field": ("the response has a field that belongs to one caller", "RFC 9111 s.7.3"),
    "authorization": (
        "the request has Authorization, and the response says neither public nor s-maxage nor must-revalidate",
        "RFC 9111 s.3.5",
    ),
    "no-freshness": (
        "the response states no freshness, and its status lets nobody guess one",
        "RFC 9111 s.3",
    ),
    "refusal": ("a refusal is for the one who was refused", "RFC 9110 s.15.5"),
    "partial": ("a part or a 304 that its request did not ask for", "RFC 9110 s.15.3.7, s.15.4.5"),
    "stream": ("the response has no end", "RFC 9111 s.3.3"),
    "too-large": ("the response is longer than max_response_body", "rule"),
    "nonce": ("its policy is made for one answer", "rule"),
    "server-error": ("the rule does not share errors", "rule"),
}


class ResponseAccount(msgspec.Struct, frozen=True):
    """What would become of a response; durations and ages are seconds.

    `decision` is "keep" (stored, and for all), "validate" (stored, for none who waits, and for others once it is
    validated or within its windows), "share" (for all who wait, not stored) or "pass" (for the request that led).
    `because` are pairs of a sentence and the section behind it.
    """

    decision: str
    reason: Reason | None
    lifetime: float
    age: float
    stale_while_revalidate: float
    stale_if_error: float
    because: list[tuple[str, str]]


def account(
    rule: Rule,
    method: str,
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    one_identity: bool,
    authorized: bool,
    ranged: bool,
    room: int,
    wall: float,
) -> ResponseAccount:
    """Account for a response to a request under this rule that came at `wall`, in seconds of the epoch.

    A body of more than `room` bytes is not stored.
    """
    answer = read_answer(status, headers, method)
    settled_in = partial(
        settle,
        rule,
        method,
        answer,
        one_identity=lambda: one_identity,
        authorized=authorized,
        ranged=ranged,
        wall=wall,
    )
    settled = settled_in(room=room)
    if isinstance(settled, Pass):
        return ResponseAccount("pass", settled.reason, 0.0, 0.0, 0.0, 0.0, [_WHY[settled.reason]])
    because = []
    if settled.vary:
        names = ", ".join(sorted(name.decode("latin-1") for name in settled.vary))
        because.append((f"told apart by {names}", "RFC 9111 s.4.1"))
    if settled.stripped:
        names = ", ".join(sorted(name.decode("latin-1") for name in settled.stripped))
        because.append((f"only the one who asked gets {names}", "RFC 9111 s.5.2.2.4, s.5.2.2.7"))
    if any(name.lower() in CLIENT_STATE - settled.stripped for name, _ in answer.headers):
        because.append(("it states that it is for all, and so is what it sets", "RFC 9111 s.7.3"))
    if not isinstance(settled, Keep):
        because.append(
            ("it is longer than max_bytes, or the store, has room for", "rule")
            if isinstance(settled_in(), Keep)
            else ("nothing says that it may be stored", "RFC 9111 s.3")
        )
        return ResponseAccount("share", None, 0.0, float(answer.age or 0), 0.0, 0.0, because)
    because.insert(0, _lifetime(rule, answer, wall))
    if authorized:
        because.append(("it says that it is for all, those without Authorization too", "RFC 9111 s.3.5"))
    if status == 206:
        because.append(("a part answers what lies wholly in it", "RFC 9111 s.3.3"))
    if settled.passed is not None:
        because.append(_WHY[settled.passed])
    if settled.stale_while_revalidate:
        because.append(("answers stale at once while it is renewed", "RFC 5861 s.3"))
    if settled.stale_if_error:
        because.append(("answers stale instead of an error", "RFC 5861 s.4"))
    if settled.rigid:
        because.append(("never served stale: it has to be validated", "RFC 9111 s.4.2.4"))
    return ResponseAccount(
        "keep" if settled.passed is None else "validate",
        settled.passed,
        settled.lifetime,
        settled.age,
        settled.stale_while_revalidate,
        settled.stale_if_error,
        because,
    )


def _lifetime(rule: Rule, answer: Answer, wall: float) -> tuple[str, str]:
    """Where the freshness lifetime comes from."""
    if not rule.follows_origin:
        field = "ttl" if answer.status in STORABLE else "negative_ttl"
        return f"the rule's {field} says how long it is fresh", "rule"
    targeted = fields.targeted_directives(answer.targeted) if rule.targeted_cache_control else None
    said = fields.directives(answer.control) if targeted is None else targeted
    for name in (b"s-maxage", b"max-age"):
        if said.seconds(name) is not None:
            if targeted is not None:
                return "CDN-Cache-Control says how long it is fresh", "RFC 9213 s.2.2"
            return f"{name.decode()} says how long it is fresh", "RFC 9111 s.4.2.1"
    if answer.expires is not None and targeted is None:
        return "Expires says how long it is fresh", "RFC 9111 s.5.3"
    if rule.heuristic_freshness and freshness.heuristic_lifetime(answer, wall):
        return "a tenth of the time since Last-Modified", "RFC 9111 s.4.2.2"
    return "nothing says how long it is fresh: stored to be validated", "RFC 9111 s.4.3"
