"""The house: who asks is found out first, then what.

Law: whoever is not allowed learns nothing, not even what exists; each refusal is counted and audited. Between the
look at what was counted and the answer nobody waits, so that guesses that come at once are counted like any others.
"""

from __future__ import annotations

import inspect
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.routing import Route

from ..core.ambiguity import ambiguous
from .asking import asked_for
from .door import Door, address_of, check_origin
from .live import Streams
from .operations import OPERATIONS, Operation
from .pages import File, files
from .problems import NO_PATH, Problem, answer, too_many
from .visit import Visit, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import Scope

    from .api import Api
    from .limiter import Limiter

VISIT: Final = "dedup_admin_visit"
"""The scope's key for who asks."""
_READING: Final = ("GET", "HEAD")
_LIVE: Final = "/api/health/live"
_SESSION: Final = "/api/session"
_SIGN_IN: Final = "signIn"


def path_below(scope: Scope) -> str:
    """The path below where the app is mounted."""
    path: str = scope["path"]
    place = scope.get("root_path") or ""
    return path[len(place) :] if place and f"{path}/".startswith(f"{place}/") else path


def _ambiguous(scope: Scope) -> bool:
    return ambiguous(scope["path"], scope.get("raw_path"))


class House:
    """What all requests share."""

    def __init__(self, api: Api, door: Door, limiter: Limiter, told: dict[str, Any]) -> None:
        self.api = api
        self.door = door
        self.limiter = limiter
        self.document = told
        self.streams = Streams(api, time.monotonic)
        self.files = files()

    def routes(self) -> list[Route]:
        """One route a path, for all its methods."""
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            by_path.setdefault(f"/{operation.path}", {})[operation.method] = operation
        return [
            *(Route(path, self._endpoint(found), methods=list(found)) for path, found in by_path.items()),
            *(Route(path, self._page(file)) for path, file in self.files.items()),
        ]

    def _endpoint(self, operations: dict[str, Operation]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            operation = operations["GET" if request.method == "HEAD" else request.method]
            visit = Visit(self.api, self.streams, self.document, self.door, request, request.scope[VISIT])
            try:
                if not visit.who and not operation.is_open:  # whatever the gate made of the path
                    raise refusal(self.door)
                asked = await asked_for(operation, request)
                if operation.name == _SIGN_IN:  # while its body came, others from there may have guessed
                    self._refuse_blocked(request, "failures")
                elif operation.changes:
                    self._count_change(visit.who)
                given = operation.run(visit, asked)
                if inspect.isawaitable(given):
                    given = await given
            except Problem as problem:
                if operation.name == _SIGN_IN and not visit.who and problem.status != 429:
                    self.limiter.hit("failures", address_of(request.scope.get("client")))
                if operation.changes:
                    self._audit(visit.who, request, operation.name, problem)
                return problem.response()
            return given if isinstance(given, Response) else answer(given)

        return endpoint

    def _page(self, file: File) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            if not request.scope[VISIT] and self.door.sessions is None:
                return refusal(self.door).response()
            return file.response(request.headers.get("if-none-match"))

        return endpoint

    def _count_change(self, who: str) -> None:
        if wait := self.limiter.hit("changes", who):
            raise too_many(wait)

    # -- who may ------------------------------------------------------------------------------------------------

    async def admit(self, request: Request) -> str:
        """Who asks, or "" where anybody may.

        Raises:
            Problem: for whoever may not, or not now.
        """
        path = path_below(request.scope)
        who = ""
        try:
            if self._is_open(request.method, path) and not _ambiguous(request.scope):
                self._admit_stranger(request, path)
            else:
                who = self.door.session(request) or await self._known(request)
            self._check(request, who)
        except Problem as problem:
            self._audit(who, request, self._target(request.method, path), problem)
            raise
        return who

    def _check(self, request: Request, who: str) -> None:
        """What holds for whoever may ask."""
        if who and (wait := self.limiter.hit("requests", who)):
            raise too_many(wait)
        if request.method not in _READING:
            check_origin(request)
        if _ambiguous(request.scope):
            raise Problem(404, NO_PATH)

    def _audit(self, who: str, request: Request, target: str, problem: Problem) -> None:
        """Write a refusal down; a stranger's name tells strangers apart and says nothing about them."""
        result = f"{problem.status} {HTTPStatus(problem.status).phrase}"
        address = address_of(request.scope.get("client"))
        name = who or f"unknown {self.api.dedup.digest(address.encode()).hex()[:8]}"
        self.api.audit.refused(name, target, result, is_stranger=not who)

    def _is_open(self, method: str, path: str) -> bool:
        if path == _LIVE:
            return method in _READING
        if self.door.sessions is None:
            return False
        return (path in self.files and method in _READING) or (path == _SESSION and method == "POST")

    def _admit_stranger(self, request: Request, path: str) -> None:
        if path == _LIVE:  # who restarts what does not answer must always hear that it does
            return
        if request.method == "POST":
            self._refuse_blocked(request, "failures")
        elif wait := self.limiter.hit("strangers", address_of(request.scope.get("client"))):
            raise too_many(wait)

    def _refuse_blocked(self, request: Request, *kinds: str) -> None:
        """Past a bound, nothing that comes from an address is looked at any more."""
        address = address_of(request.scope.get("client"))
        for kind in kinds:
            if wait := self.limiter.blocked(kind, address):
                raise too_many(wait)

    async def _known(self, request: Request) -> str:
        """Who it is; refusals are counted."""
        self._refuse_blocked(request, "failures", "strangers")
        who = await self.door.who(request)
        # Others may have guessed while a function was asked.
        self._refuse_blocked(request, "failures", "strangers")
        if who is None:
            kind = "failures" if "authorization" in request.headers else "strangers"
            self.limiter.hit(kind, address_of(request.scope.get("client")))
            raise refusal(self.door)
        return who

    def _target(self, method: str, path: str) -> str:
        """What was asked for, in words of ours: a stranger's path may hold anything."""
        if path in self.files:
            return "page"
        found = [one for one in OPERATIONS if f"/{one.path}" == path]
        named = [one for one in found if one.method == method] or found
        return named[0].name if named else "unknown path"
