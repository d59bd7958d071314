"""What the app sees of a request: the scope of a flight.

Law: only what is keyed, noise, what frames the body, and what the operator swore to; the rest is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .callers import beside_addresses, cookie_pairs
from .names import is_credential
from .shape import NO_SHAPE, shape_of
from .surroundings import DoubtError, Part

if TYPE_CHECKING:
    from .http import Headers, Scope
    from .reading import Layout, Reading
    from .shape import Shape

_SEEN: Final = frozenset({Part.KEYED, Part.NOISE, Part.VISIBLE, Part.PRESENT})


def visible(
    reading: Reading, scope: Scope, shown: frozenset[bytes] = frozenset(), shape: Shape = NO_SHAPE
) -> dict[str, Any]:
    """A new scope that carries what is keyed, noise and framing; `shown` are hidden fields that Vary named.

    `shape` is the scope's, where it is known.
    """
    headers: Headers = scope["headers"]
    layout = reading.layout_of(headers)
    if layout.whole_cookies and b"cookie" not in shown:
        headers = reading.without_analytics(headers)
        layout = reading.layout_of(headers)
    if layout.mixed_case:
        headers = [(name.lower(), value) for name, value in headers]
    flight = dict(scope)
    flight["headers"] = list(headers) if layout.plain else _kept(reading, layout, headers, shown)
    client = flight.get("client")
    if client:
        flight["client"] = (client[0], 0) if reading.shows_client else None
    if len(scope) != shape.count:
        shape = shape_of(scope)
    for key in shape.special:
        if key in ("user", "auth", "session"):
            if reading.function is None and not reading.counts(key):
                del flight[key]
        elif key == "state":
            state = flight[key]
            if (
                state
                and type(state) is dict
                and any(reading.state_part(k, v) is Part.HIDDEN for k, v in state.items())
            ):
                flight[key] = {k: v for k, v in state.items() if reading.state_part(k, v) is not Part.HIDDEN}
        elif key == "extensions":
            flight[key] = _extensions(reading, flight[key])
        elif reading.unknown_part(key) is Part.HIDDEN:
            del flight[key]
    return flight


def _kept(reading: Reading, layout: Layout, headers: Headers, shown: frozenset[bytes]) -> Headers:
    odd = reading.against_grammar(layout, [value for _, value in headers])
    kept: Headers = []
    for i, (name, value) in enumerate(headers):
        part = layout.parts[i]
        if layout.names[i] in shown or i in odd or part in _SEEN:
            kept.append((name, value))
        elif part is Part.COOKIE:
            cookies = reading.cookies([value])
            kept += [(name, line) for line in cookies[1]] if cookies else []
    return kept


def _extensions(reading: Reading, extensions: Any) -> dict[str, Any]:
    """Only what every follower's server could replay, and the certificate where it counts."""
    keep = {"http.response.early_hint"}
    if reading.function is not None or reading.counts("certificate"):
        keep.add("tls")
    if not isinstance(extensions, Mapping):  # as the key has it, too
        return {}
    return {name: value for name, value in extensions.items() if name in keep}


def one_identity(reading: Reading, scope: Scope) -> bool:
    """Whether all who share this request's key are one caller (`private`, RFC 9111 s.5.2.2.7)."""
    if reading.function is not None:
        try:
            return reading.who(scope) is not None
        except DoubtError:
            return False
    if reading.rule.identity == "separate":
        return True
    if reading.rule.identity in ("shared", "origin"):
        return False
    for name, value in reading.without_analytics(scope["headers"]):
        field = name.lower()
        if reading.part(field) is Part.COOKIE:
            if any(name in reading.identity_cookies for name, _ in cookie_pairs(value)):
                return True
        elif reading.part(field) is Part.KEYED and is_credential(field.decode("latin-1")):
            return True
    if reading.counts("session") and scope.get("session"):
        return True
    return reading.counts("user") and not reading.anonymous("user", scope.get("user"))


def fate(reading: Reading, scope: Scope, name: bytes, value: bytes) -> Part:
    """What becomes of one header pair of this request."""
    part = reading.part(name)
    if name == b"forwarded" and part is Part.VISIBLE and beside_addresses([value]):
        return Part.KEYED
    if part not in (Part.NOISE, Part.RELOAD):
        return part
    pairs = [pair for pair in scope["headers"] if pair[0].lower() == b"connection"]
    layout = reading.layout((*(pair[0] for pair in pairs), name))
    return Part.KEYED if reading.against_grammar(layout, [*(pair[1] for pair in pairs), value]) else part
