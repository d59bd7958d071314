"""Routes: what an app of Starlette's kind shows of them, whole paths included.

Law: a template says which route answered, never with what values; where two places share a route, none is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_CONVERTOR = re.compile(r"\{(\w+):\w+\}")


def routes_of(app: Any) -> Sequence[Any] | None:
    """The routes of an app or of what it wraps, or None."""
    for _ in range(50):
        routes = getattr(app, "routes", None)
        if isinstance(routes, Sequence) and not isinstance(routes, (str, bytes)):
            return routes
        app = getattr(app, "app", None)
        if app is None:
            return None
    return None


def walk(routes: Sequence[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every route that has an endpoint, with its whole path: mounts and included routers are walked through."""
    for route in routes:
        path = getattr(route, "path", None)
        inner = getattr(route, "routes", None)
        # FastAPI's include_router, since it copies no routes.
        included = getattr(route, "original_router", None)
        if included is not None:
            path, inner = getattr(route.include_context, "prefix", ""), included.routes
        if getattr(route, "endpoint", None) is not None and isinstance(path, str):
            yield prefix + path, route
        elif inner and isinstance(inner, Sequence):
            yield from walk(inner, prefix + (path if isinstance(path, str) else ""))


def own_places(routes: Sequence[Any], prefix: str = "") -> Iterator[str]:
    """Where an administration of ours is mounted: the middleware passes its requests by."""
    for route in routes:
        path = getattr(route, "path", None)
        below = prefix + (path if isinstance(path, str) else "")
        mounted = getattr(route, "app", None)
        if getattr(mounted, "passes_dedup_by", False):
            yield below
        elif isinstance(inner := getattr(route, "routes", None), Sequence):
            yield from own_places(inner, below)


class Templates:
    """Which template a request met (`http.route`): the whole one of an app whose routes are known."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str | None]] = {}

    def learn(self, app: Any) -> None:
        """Take note of an app's routes."""
        for path, route in walk(routes_of(app) or ()):
            template = _CONVERTOR.sub(r"{\1}", path)
            _, known = self._known.get(id(route), (route, template))
            self._known[id(route)] = (route, template if known == template else None)

    def of(self, scope: Mapping[str, Any]) -> str | None:
        """The template, where the framework leaves its route in the scope."""
        route = scope.get("route")
        same, template = self._known.get(id(route), (None, None))
        if template is not None and same is route:
            return template
        for name in ("path_format", "path"):
            template = getattr(route, name, None)
            if isinstance(template, str) and template:
                return template
        template = scope.get("path_template")
        return template if isinstance(template, str) and template else None
