"""Explain: for a request, which rule it meets, what its fingerprint holds and leaves out, and what the app would see.

Law: read from the same classification as the fingerprint itself; what is secret shows as `***`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

import msgspec

from . import canonical, masks
from .account import ResponseAccount, account
from .ambiguity import ambiguous_query
from .assess import NOTHING_WANTED, wants
from .callers import cookie_pairs
from .conditional import is_precondition
from .decide import Bypass, Consider, RuleBook
from .memo import Memo
from .names import is_credential
from .shape import SPECIAL, shape_of
from .sight import fate, one_identity, visible
from .surroundings import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from .http import Headers
    from .reading import Reading
    from .status import Reason

_WHY: Final = {
    Part.NOISE: "noise: says which request this is, not what it asks for",
    Part.VISIBLE: "left to the app: by the rule's ignore or identity function, as framing, or its lifespan's own",
    Part.HIDDEN: "not in the rule's vary or identity: hidden from the app",
    Part.PRESENT: "that it is there is keyed; only public, s-maxage or must-revalidate share what it says",
    Part.RELOAD: "a reload does not punch through a rule's ttl: hidden from the app",
}
_ANALYTICS: Final = "a cookie of page analytics is no identity: hidden from the app"


class Explanation(msgspec.Struct, frozen=True):
    """What would become of a request; secrets show as `***`.

    `decision` is "consider" or "bypass", with its `reason`. `keyed` is what the fingerprint holds, `left_out` what it
    does not, each with why; `visible` are the header pairs that the app would see. `fingerprint` is the digest in hex.
    `response` accounts for the response that was asked about.
    """

    rule: str
    decision: str
    reason: str | None
    fingerprint: str | None
    keyed: dict[str, str]
    left_out: dict[str, str]
    visible: list[tuple[str, str]]
    tags: tuple[str, ...]
    ttl: float | str
    collapses: bool
    response: ResponseAccount | None = None


def explain(
    book: RuleBook,
    scope: MutableMapping[str, Any],
    body: bytes,
    response: tuple[int, Headers] | None = None,
    wall: float = 0.0,
    passed_by: Reason | None = None,
) -> Explanation:
    """Explain one request, and a response to it that comes at `wall`; nothing is executed or remembered.

    `passed_by` is why it is bypassed whatever the rules say.
    """
    plan = book.plan(scope)
    if isinstance(plan, Bypass):
        return _bypassed(plan.label, passed_by or plan.reason, scope)
    if passed_by is not None:
        return _bypassed(plan.label, passed_by, scope)
    asked = wants(scope["headers"]) if plan.heeds else NOTHING_WANTED

    def bypassed(reason: str) -> Explanation:
        return _bypassed(plan.label, "only-if-cached" if asked.only_if_cached else reason, scope)

    reader = plan.fingerprints
    reading = reader.reading
    if ambiguous_query(scope["query_string"]):
        return bypassed("target")
    if is_precondition(scope["method"], scope["headers"]):
        return bypassed("precondition")
    if len(body) > plan.rule.max_request_body:
        return bypassed("body-too-large")
    if body and not plan.reads_body:
        return bypassed("request-body")
    part = reader.body_part(scope, body, Memo(1)) if plan.reads_body else None
    key = reader.key(scope, scope["method"], part)
    if isinstance(key, str):
        return bypassed(key)
    if asked.no_store:
        return bypassed("no-store")
    keyed, left_out = _parts(reading, plan, scope, body, part)
    return Explanation(
        plan.label,
        "consider",
        None,
        key.hex(),
        keyed,
        left_out,
        _shown(visible(reading, scope)["headers"]),
        tuple(name.removeprefix("tag:") for name in plan.tags),
        plan.rule.ttl,
        plan.collapses,
        None if response is None else _account(plan, reading, scope, *response, wall),
    )


def _account(
    plan: Consider,
    reading: Reading,
    scope: MutableMapping[str, Any],
    status: int,
    headers: Headers,
    wall: float,
) -> ResponseAccount:
    seen = _names_seen(reading, scope)
    return account(
        plan.rule,
        scope["method"],
        status,
        headers,
        one_identity=one_identity(reading, scope),
        authorized=plan.rule.identity == "origin" and b"authorization" in seen,
        ranged=b"range" in seen,
        room=plan.room,
        wall=wall,
    )


def _bypassed(label: str, reason: str, scope: MutableMapping[str, Any]) -> Explanation:
    return Explanation(
        label, "bypass", reason, None, {}, {}, _shown(scope["headers"]), (), 0.0, collapses=False
    )


def _parts(
    reading: Reading, plan: Consider, scope: MutableMapping[str, Any], body: bytes, part: bytes | None
) -> tuple[dict[str, str], dict[str, str]]:
    keyed: dict[str, str] = {
        name: str(scope.get(name))
        for name in ("method", "scheme", "http_version", "server", "root_path", "path")
    }
    keyed["query"], ignored = _query(reading, scope["query_string"])
    left_out = {f"query:{name}": _WHY[Part.VISIBLE] for name in ignored}
    _add_fields(reading, scope, keyed, left_out)
    for place, what in _outer(reading, scope):
        if what is Part.KEYED:
            keyed[place] = masks.MASK
        else:
            left_out[place] = _WHY[what]
    if part is not None:
        keyed["body"] = (
            f"{len(body)} bytes, as {'canonical JSON' if part.startswith(b'json') else 'they are'}"
        )
        left_out |= {item: _WHY[Part.VISIBLE] for item in plan.rule.ignore if item.startswith("body:")}
    if reading.function is not None:
        keyed["identity"] = masks.MASK
    return keyed, left_out


def _add_fields(
    reading: Reading, scope: MutableMapping[str, Any], keyed: dict[str, str], left_out: dict[str, str]
) -> None:
    """Add each header field to what is keyed, or to what is left out."""
    seen = _names_seen(reading, scope)
    for name, value in scope["headers"]:
        field = name.lower()
        what = fate(reading, scope, field, value)
        text = field.decode("latin-1")
        if what is Part.KEYED and field == b"cookie":
            kept = cookie_pairs(b"; ".join(line for _, line in reading.without_analytics([(name, value)])))
            gone = {cookie for cookie, _ in cookie_pairs(value)} - {cookie for cookie, _ in kept}
            left_out |= {f"cookie:{cookie.decode('latin-1')}": _ANALYTICS for cookie in gone}
            if not kept:
                continue
        if what is Part.KEYED or (what is Part.COOKIE and field in seen):
            line, before = _masked(text, value.decode("latin-1")), keyed.get(f"header:{text}")
            keyed[f"header:{text}"] = line if before is None else f"{before}, {line}"
        elif what is Part.COOKIE:
            left_out[f"header:{text}"] = _WHY[Part.HIDDEN]
        else:
            left_out[f"header:{text}"] = _WHY[what]


def _names_seen(reading: Reading, scope: MutableMapping[str, Any]) -> set[bytes]:
    """The header fields that the app would see."""
    return {name.lower() for name, _ in visible(reading, scope)["headers"]}


def _outer(reading: Reading, scope: MutableMapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """What becomes of the client's address and of what outer layers left in the scope."""
    uncounted = Part.HIDDEN if reading.function is None else Part.VISIBLE
    if scope.get("client"):
        yield "client", Part.KEYED if reading.keys_client else uncounted
    for name in ("user", "auth", "session"):
        if scope.get(name):
            yield name, Part.KEYED if reading.counts(name) else uncounted
    if _mapping(scope, "extensions").get("tls"):
        yield "certificate", Part.KEYED if reading.counts("certificate") else uncounted
    for key, value in _mapping(scope, "state").items():
        yield f"state:{key}", reading.state_part(key, value)
    for key in shape_of(scope).special:
        if key not in SPECIAL:
            yield f"scope:{key}", reading.unknown_part(key)


def _mapping(scope: MutableMapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the scope has there; anything else holds nothing that could be told, as for the key."""
    value = scope.get(name)
    return value if isinstance(value, Mapping) else {}


def _query(reading: Reading, query: bytes) -> tuple[str, list[str]]:
    shown: list[str] = []
    ignored: list[str] = []
    for pair in query.decode("latin-1").split("&") if query else ():
        name = unquote_plus(pair.partition("=")[0])
        if ";" not in pair and canonical.is_ignored(name, reading.ignored_query):
            ignored.append(name)
        else:
            shown.append(masks.pair(pair))
    return "&".join(shown), ignored


def _masked(name: str, value: str) -> str:
    """A field's value; a reference in it (Referer) shows no secrets."""
    return masks.MASK if is_credential(name) else masks.reference(value)


def _shown(headers: Headers) -> list[tuple[str, str]]:
    return [
        (text := name.decode("latin-1").lower(), _masked(text, value.decode("latin-1")))
        for name, value in headers
    ]
