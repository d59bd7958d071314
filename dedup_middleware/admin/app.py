"""The app: hard headers on every answer, and the middleware never touches its requests.

Law: an error tells nothing but that there was one; what went wrong is for the server's log.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..core.errors import ConfigurationError
from ..dedup import Dedup
from .api import Api
from .audit import Audit
from .door import Door
from .house import VISIT, House
from .openapi import document
from .operations import OPERATIONS
from .pages import POLICY
from .problems import NO_PATH, Problem, answer
from .recorder import KINDS, Recorder
from .table import table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ..events import Subscription

_HARD: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Administration(Starlette):
    """The app that `admin` makes; the middleware knows it by its type and leaves its requests alone."""

    passes_dedup_by = True


def admin(
    dedup: Dedup,
    *,
    allow: str | Callable[[Request], Any],
    jaeger: str | None = None,
    requests_per_minute: int = 1200,
    changes_per_minute: int = 60,
    failures_per_minute: int = 10,
    clock: Callable[[], float] = time.time,
) -> Administration:
    """Make the administration of an engine, an app to mount at a path of its own.

    `allow` is a token of 16 or more characters, or a function of the request (async or not) that gives the name of
    whoever may see and change everything, or None. `jaeger` is the base URL to which the dashboard's links lead.

    Raises:
        ConfigurationError: for a setting that can't be, and where the extra `admin` is not installed.
    """
    try:
        from .limiter import Limiter  # noqa: PLC0415 - the extra may be missing
    except ImportError as error:
        raise ConfigurationError(
            "admin",
            error.name,
            "python -m pip install 'dedup-middleware[admin]'",
            why="limits is not installed",
        ) from None
    if not isinstance(dedup, Dedup):
        raise ConfigurationError("admin.dedup", dedup, "a Dedup")
    if jaeger is not None and not str(jaeger).startswith(("http://", "https://")):
        raise ConfigurationError("admin.jaeger", jaeger, "a URL that begins with http:// or https://")
    numbers = {
        "requests": requests_per_minute,
        "changes": changes_per_minute,
        "failures": failures_per_minute,
    }
    for kind, number in numbers.items():
        if type(number) is not int or number < 1:
            raise ConfigurationError(f"admin.{kind}_per_minute", number, "a whole number from 1 on")
    from .. import __version__  # noqa: PLC0415 - the package imports this module

    table = table_of(dedup.ledger)
    audit = Audit(clock, table)
    recorder = Recorder(audit)
    api = Api(dedup, audit, recorder, jaeger)
    door = Door(allow, clock, dedup.telemetry.warn)
    told = document(OPERATIONS, __version__, with_token=door.sessions is not None)
    house = House(api, door, Limiter(clock, strangers=requests_per_minute, **numbers), told)
    app = Administration(routes=house.routes(), exception_handlers={HTTPException: _http_error})
    app.router.redirect_slashes = False
    app.add_middleware(_Gate, house=house)
    subscription = dedup.subscribe(recorder, *KINDS)
    # By a weak reference: the engine knows the routes of the app in which this one is mounted.
    weakref.finalize(app, _end, weakref.ref(subscription))
    if table is not None:
        weakref.finalize(app, table.end)
    return app


def _end(subscription: weakref.ref[Subscription]) -> None:
    found = subscription()
    if found is not None:
        found.end()


class _Gate:
    """Around all routes: hard headers, who may ask, and one answer to errors."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app = app
        self._house = house
        self._known_places: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._leave_alone(scope)
        started = False

        async def send_hard(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(_HARD)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            scope[VISIT] = await self._house.admit(Request(scope))
            await self._app(scope, receive, send_hard)
        except Problem as problem:
            await problem.response()(scope, receive, send_hard)
        except Exception:
            if not started:
                await Problem(500, "The server failed to answer; its log says why.").response()(
                    scope, receive, send_hard
                )
            raise

    def _leave_alone(self, scope: Scope) -> None:
        """Where the middleware could not see that the app is mounted, it is told by the first request."""
        place = scope.get("root_path") or ""
        if place not in self._known_places and len(self._known_places) < _MAX_PLACES:
            self._known_places.add(place)
            self._house.api.dedup.leave_alone(place.removeprefix(scope.get("app_root_path") or ""))


_MAX_PLACES: Final = 16


async def _http_error(_: Request, error: Exception) -> Response:
    """What the router refuses, as JSON."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    sentence = NO_PATH if error.status_code == 404 else "That method is not for this path."
    return answer({"error": sentence}, error.status_code, dict(error.headers or {}))
