"""Explain: for a request, which rule it meets, what its fingerprint holds and leaves out, and what the app would see.

Law: read from the same classification as the fingerprint itself; what is secret shows as `***`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

import msgspec

from . import canonical
from .decide import Bypass, Consider, RuleBook, ambiguous_query
from .memo import Memo
from .names import is_credential, is_secret
from .reading import Part, Reading
from .sight import fate, visible

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .http import Headers

MASK: Final = "***"
_WHY: Final = {
    Part.NOISE: "noise: says which request this is, not what it asks for",
    Part.VISIBLE: "left to the app by the rule's ignore, by its identity function, or as framing",
    Part.HIDDEN: "not in the rule's vary or identity: hidden from the app",
    Part.RELOAD: "a reload does not punch through a rule's ttl: hidden from the app",
}


class Explanation(msgspec.Struct, frozen=True):
    """What would become of a request; secrets show as `***`.

    `decision` is "consider" or "bypass", with its `reason`. `keyed` is what the fingerprint holds, `left_out` what it
    does not, each with why; `visible` are the header pairs that the app would see. `fingerprint` is the digest in hex.
    """

    rule: str
    decision: str
    reason: str | None
    fingerprint: str | None
    keyed: dict[str, str]
    left_out: dict[str, str]
    visible: list[tuple[str, str]]
    tags: tuple[str, ...]
    ttl: float
    collapses: bool


def explain(book: RuleBook, scope: MutableMapping[str, Any], body: bytes) -> Explanation:
    """Explain one request; nothing is executed or remembered."""
    plan = book.plan(scope)
    if isinstance(plan, Bypass):
        return _bypassed(plan.label, plan.reason, scope)
    reader = plan.fingerprints
    reading = reader.reading
    if ambiguous_query(scope["query_string"]):
        return _bypassed(plan.label, "target", scope)
    if len(body) > plan.rule.max_request_body:
        return _bypassed(plan.label, "body-too-large", scope)
    with_body = scope["method"] not in ("GET", "HEAD")
    if body and not with_body:
        return _bypassed(plan.label, "request-body", scope)
    part = reader.body_part(scope, body, Memo(1)) if with_body else None
    key = reader.key(scope, scope["method"], part)
    if isinstance(key, str):
        return _bypassed(plan.label, key, scope)
    keyed, left_out = _parts(reader.reading, plan, scope, body, part)
    return Explanation(
        plan.label,
        "consider",
        None,
        key.hex(),
        keyed,
        left_out,
        _shown(visible(reading, scope)["headers"]),
        tuple(name.removeprefix("tag:") for name in plan.tags),
        float(plan.rule.ttl),
        plan.collapses,
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
    headers: Headers = scope["headers"]
    seen = {name.lower() for name, _ in visible(reading, scope)["headers"]}
    for name, value in headers:
        field = name.lower()
        what = fate(reading, scope, field, value)
        text = field.decode("latin-1")
        if what is Part.KEYED or (what is Part.COOKIE and field in seen):
            keyed[f"header:{text}"] = _masked(text, value.decode("latin-1"))
        elif what is Part.COOKIE:
            left_out[f"header:{text}"] = _WHY[Part.HIDDEN]
        else:
            left_out[f"header:{text}"] = _WHY[what]
    client = scope.get("client")
    if client:
        (keyed if reading.keys_client else left_out)["client"] = (
            MASK if reading.keys_client else "not in the rule's identity: hidden from the app"
        )
    for own in ("user", "auth", "session"):
        if scope.get(own):
            counts = reading.counts(own)
            (keyed if counts else left_out)[own] = (
                MASK if counts else "not in the rule's identity: hidden from the app"
            )
    if part is not None:
        keyed["body"] = (
            f"{len(body)} bytes, as {'canonical JSON' if part.startswith(b'json') else 'they are'}"
        )
        left_out |= {f"body:{name}": _WHY[Part.VISIBLE] for name in reading.ignored_body}
    if plan.rule.identity not in ("separate", "credentials", "shared") and not isinstance(
        plan.rule.identity, tuple
    ):
        keyed["identity"] = MASK
    return keyed, left_out


def _query(reading: Reading, query: bytes) -> tuple[str, list[str]]:
    shown: list[str] = []
    ignored: list[str] = []
    for pair in query.decode("latin-1").split("&") if query else ():
        name, equals, value = pair.partition("=")
        plain = unquote_plus(name)
        if canonical.is_ignored(plain, reading.ignored_query):
            ignored.append(plain)
        else:
            shown.append(name + equals + (MASK if value and is_secret(plain) else value))
    return "&".join(shown), ignored


def _masked(name: str, value: str) -> str:
    return MASK if is_credential(name) else value


def _shown(headers: Headers) -> list[tuple[str, str]]:
    return [
        (text := name.decode("latin-1").lower(), _masked(text, value.decode("latin-1")))
        for name, value in headers
    ]
