"""/git: what the sidebar, the title bar and the history panel ask for, from the `git` program."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route

from . import ask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from dedup_middleware import Dedup

    from .repository import Commit, Repository, Status
    from .work import Work

T = TypeVar("T")
TTL = 60


class Checkout(msgspec.Struct, forbid_unknown_fields=True):
    branch: str


class NewCommit(msgspec.Struct, forbid_unknown_fields=True):
    message: str


class GitRoutes:
    def __init__(self, repositories: dict[str, Repository], work: Work, dedup: Dedup | None) -> None:
        self._repositories = repositories
        self._work = work
        self._dedup = dedup

    def routes(self) -> list[Route]:
        return [
            Route("/git/{repo}", self.overview),
            Route("/git/{repo}/status", self.status),
            Route("/git/{repo}/branch", self.branch),
            Route("/git/{repo}/log", self.log),
            Route("/git/{repo}/checkout", self.checkout, methods=["POST"]),
            Route("/git/{repo}/commit", self.commit, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:
        return ask.json(await self._status(self._repository(request)))

    async def branch(self, request: Request) -> Response:
        status = await self._status(self._repository(request))
        return ask.json(
            {
                "branch": status.branch,
                "upstream": status.upstream,
                "ahead": status.ahead,
                "behind": status.behind,
            }
        )

    async def log(self, request: Request) -> Response:
        return ask.json(await self._log(self._repository(request)))

    async def overview(self, request: Request) -> Response:
        """The controller: it needs what status, branch and log need, and asks for each as they do."""
        repository = self._repository(request)
        status = await self._status(repository)
        branch = (await self._status(repository)).branch
        return ask.json({"status": status, "branch": branch, "log": await self._log(repository)})

    async def checkout(self, request: Request) -> Response:
        repository = self._repository(request)
        asked = await ask.body_of(request, Checkout)
        with self._work.step("git checkout", repository.name):
            await repository.checkout(asked.branch)
        return ask.json({"branch": asked.branch})

    async def commit(self, request: Request) -> Response:
        repository = self._repository(request)
        asked = await ask.body_of(request, NewCommit)
        with self._work.step("git commit", repository.name):
            commit = await repository.commit(asked.message)
        return ask.json({"commit": commit}, 201)

    def _repository(self, request: Request) -> Repository:
        try:
            return self._repositories[request.path_params["repo"]]
        except KeyError:
            raise HTTPException(
                404, f"no such repository; there are {', '.join(self._repositories)}"
            ) from None

    async def _status(self, repository: Repository) -> Status:
        # One `git status --porcelain=v2 --branch` answers status and branch alike, so they share it.
        return await self._shared("status", repository, functools.partial(git_status, self._work, repository))

    async def _log(self, repository: Repository) -> list[Commit]:
        return await self._shared("log", repository, functools.partial(git_log, self._work, repository))

    async def _shared(self, what: str, repository: Repository, read: Callable[[], Awaitable[T]]) -> T:
        if self._dedup is None:
            return await read()
        return await self._dedup.call(
            ("git", repository.name, what), read, ttl=TTL, tags=[f"git:{repository.name}"]
        )


async def git_status(work: Work, repository: Repository) -> Status:
    with work.step("git status", repository.name):
        return await repository.status()


async def git_log(work: Work, repository: Repository) -> list[Commit]:
    with work.step("git log", repository.name):
        return await repository.log()
