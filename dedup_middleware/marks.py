"""Marks: `@deduplicate(...)` on an endpoint says what a rule for its route would say.

Law: a mark wraps nothing and changes nothing; it is read from the app's routes, and one that nothing reads is an error.
"""

from __future__ import annotations

import functools
import gc
import re
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from .core.errors import ConfigurationError
from .core.rules import Rule
from .routes import routes_of, walk

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
    try:
        Rule(_path_with_parameters(fields), **fields)
    except ConfigurationError as error:
        raise error.elsewhere("Rule", "deduplicate") from None

    def mark(endpoint: F) -> F:
        if not callable(endpoint):
            raise ConfigurationError("deduplicate", endpoint, "an endpoint, that is, a function or a class")
        setattr(endpoint, _ATTRIBUTE, fields)
        _unread.add(endpoint)
        return endpoint

    return mark


def _path_with_parameters(fields: dict[str, Any]) -> str:
    """A path that has every parameter that the tags name, as long as the route's own is not known."""
    texts = repr([fields.get("tags"), fields.get("invalidates")])
    return "".join(f"/{{{name}}}" for name in dict.fromkeys(re.findall(r"\{([a-zA-Z_]\w*)\}", texts))) or "/"


def read(app: Any) -> MarkedRules:
    """The rules that the marks on an app's routes ask for, by path and methods.

    Raises:
        ConfigurationError: for a mark whose fields do not fit its route, and for marks that nothing can read.
    """
    rules: MarkedRules = {}
    routes = routes_of(app)
    for path, route in walk(routes or ()):
        endpoint = route.endpoint
        while isinstance(endpoint, functools.partial):
            endpoint = endpoint.func  # what Starlette calls in the end
        fields = getattr(endpoint, _ATTRIBUTE, None)
        if not isinstance(fields, dict):
            continue
        _was_read(fields)
        given = fields.get("methods")
        methods = tuple(given) if given is not None else tuple(sorted(getattr(route, "methods", None) or ()))
        place = f"deduplicate on {_name(endpoint)} ({path})"
        try:
            rule = Rule(path, **{**fields, **({"methods": methods} if methods else {})})
        except ConfigurationError as error:
            raise error.elsewhere("Rule", place) from None
        rules.setdefault((path, tuple(rule.methods or ())), rule)
    if _unread:
        _refuse_unread(shows_routes=routes is not None)
    return rules


def _was_read(fields: dict[str, Any]) -> None:
    for marked in list(_unread):
        # The endpoint may be a method of it, or a wrapper that took its attributes over.
        if getattr(marked, _ATTRIBUTE, None) is fields:
            _unread.discard(marked)


def _refuse_unread(*, shows_routes: bool) -> None:
    gc.collect()  # a function of an app that is gone asks for nothing
    for endpoint in list(_unread):
        if shows_routes and _is_routed(endpoint):
            continue  # by another app, which reads it when it starts
        why = (
            "the outermost function that a route has: a decorator between them may hide the mark"
            if shows_routes
            else "this app shows none, so say it as a Rule"
        )
        raise ConfigurationError(
            f"deduplicate on {_name(endpoint)}",
            getattr(endpoint, _ATTRIBUTE),
            f"an endpoint of an app with routes (Starlette, FastAPI); {why}",
        )


def _is_routed(endpoint: Any) -> bool:
    """Whether any route in the process has this endpoint."""
    for holder in gc.get_referrers(endpoint):
        found = holder.get("endpoint") if type(holder) is dict else getattr(holder, "endpoint", None)
        if found is endpoint:
            return True
    return False


def _name(endpoint: Any) -> str:
    return f"{getattr(endpoint, '__module__', '?')}.{getattr(endpoint, '__qualname__', endpoint)}"
