"""Attributes and names: what spans and metrics are called and carry.

Law: a metric's attributes come from closed lists; a client invents neither a series nor the name of a span.
"""

from __future__ import annotations

from typing import Final

Attributes = dict[str, str | int | float]

DEFAULT_LABEL: Final = "default"
"""What the default rule goes by, unless it has a name."""
KNOWN_METHODS: Final = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split()) | {""}
"""Methods by name: any other one is `_OTHER`; a function has none."""


def known(method: str) -> str:
    """The method as it may be told."""
    return method if method in KNOWN_METHODS else "_OTHER"


def place(
    label: str, method: str, key: object = None, route: str | None = None, flight: str | None = None
) -> Attributes:
    """What requests, forwards and functions have in common; a function (no method) has no `http.*`."""
    attributes: Attributes = {"dedup.rule": label}
    if method:
        attributes["http.request.method"] = known(method)
    if route is not None:
        attributes["http.route"] = route
    if flight is not None:
        attributes["dedup.flight"] = flight
    if type(key) is bytes:
        attributes["dedup.key"] = key.hex()
    return attributes


def title(outcome: str, attributes: Attributes) -> str:
    """`{outcome} {route}`: http.route, else the rule, else the method; never a raw path."""
    label = attributes["dedup.rule"]
    route = attributes.get("http.route") or (
        label if label != DEFAULT_LABEL else attributes.get("http.request.method", label)
    )
    return f"{outcome} {route}"


def result(attributes: Attributes, status: int, error: str | None) -> str | None:
    """Add how it ended; the error's type is the exception's, or the status of a server error."""
    if status:
        attributes["http.response.status_code"] = status
        if error is None and status >= 500:
            error = str(status)
    if error is not None:
        attributes["error.type"] = error
    return error
