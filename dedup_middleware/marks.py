"""Marks: `@deduplicate(...)` on an endpoint says what a rule for its route would say.

Law: a mark wraps nothing and changes nothing; it is read from the app's routes, and one that nothing reads is an error.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from .core.errors import ConfigurationError
from .core.rules import Rule

F = TypeVar("F", bound=Callable[..., Any])
MarkedRules = dict[tuple[str, tuple[str, ...]], Rule]

_ATTRIBUTE: Final = "__deduplicate__"
_unread: weakref.WeakSet[Any] = weakref.WeakSet()


def deduplicate(**fields: Any) -> Callable[[F], F]:
    """Ask for a rule on the marked endpoint's own route: every field of `Rule` but `path`.

    `methods` are the route's own. Needs an app with `routes` (Starlette, FastAPI); others declare rules.

    Raises:
        ConfigurationError: for a field that a rule cannot have.
    """
    if "path" in fields:
        raise ConfigurationError("deduplicate.path", fields["path"], "nothing: the route says where")
    tagged = {
        name: value
        for name, value in fields.items()
        if name not in ("tags", "invalidates", "ttl", "negative_ttl")
    }
    try:
        Rule(**tagged)
        Rule(ttl=fields.get("ttl", 0), negative_ttl=fields.get("negative_ttl", 0))
    except ConfigurationError as error:
        raise _at("deduplicate", error) from None

    def mark(endpoint: F) -> F:
        if not callable(endpoint):
            raise ConfigurationError("deduplicate", endpoint, "an endpoint, that is, a function or a class")
        setattr(endpoint, _ATTRIBUTE, fields)
        _unread.add(endpoint)
        return endpoint

    return mark


def read(app: Any) -> MarkedRules:
    """The rules that the marks on an app's routes ask for, by path and methods.

    Raises:
        ConfigurationError: for a mark whose fields do not fit its route, and for marks that nothing can read.
    """
    rules: MarkedRules = {}
    routes = _routes_of(app)
    for path, route_methods, endpoint in _walk(routes or (), ""):
        fields = getattr(endpoint, _ATTRIBUTE, None)
        if fields is None:
            continue
        _unread.discard(endpoint)
        given = fields.get("methods")
        methods = tuple(given) if given is not None else route_methods
        place = f"deduplicate on {_name(endpoint)} ({path})"
        try:
            rule = Rule(path, **{**fields, **({"methods": methods} if methods else {})})
        except ConfigurationError as error:
            raise _at(place, error) from None
        rules.setdefault((path, tuple(rule.methods or ())), rule)
    if routes is None and _unread:
        _refuse_unread()
    return rules


def _refuse_unread() -> None:
    gc.collect()  # a function of an app that is gone asks for nothing
    for endpoint in list(_unread):
        raise ConfigurationError(
            f"deduplicate on {_name(endpoint)}",
            getattr(endpoint, _ATTRIBUTE),
            "an endpoint of an app with routes (Starlette, FastAPI); this app shows none, so say it as a Rule",
        )


def _routes_of(app: Any) -> Sequence[Any] | None:
    """The routes of an app or of what it wraps, or None."""
    for _ in range(50):
        routes = getattr(app, "routes", None)
        if isinstance(routes, Sequence) and not isinstance(routes, (str, bytes)):
            return routes
        app = getattr(app, "app", None)
        if app is None:
            return None
    return None


def _walk(routes: Sequence[Any], prefix: str) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    for route in routes:
        path = getattr(route, "path", None)
        endpoint = getattr(route, "endpoint", None)
        inner = getattr(route, "routes", None)
        if endpoint is not None and isinstance(path, str):
            methods = getattr(route, "methods", None) or ()
            yield prefix + path, tuple(sorted(methods)), endpoint
        elif inner and isinstance(inner, Sequence):
            yield from _walk(inner, prefix + (path if isinstance(path, str) else ""))


def _name(endpoint: Any) -> str:
    return f"{getattr(endpoint, '__module__', '?')}.{getattr(endpoint, '__qualname__', endpoint)}"


def _at(place: str, error: ConfigurationError) -> ConfigurationError:
    return ConfigurationError(place + error.place.removeprefix("Rule"), error.value, error.allowed)
