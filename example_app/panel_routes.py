"""/chat and /ide: the panels' history and open editors; /search, /build and /me: one route of each other kind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.routing import Route

from . import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from .repository import Repository
    from .transcripts import Editor, Message, Transcripts
    from .work import Work

FIXED_WAIT = 1.0
"""Seconds that the extraction waits for a transcript, ready or not, as found in the field."""
BUILD_STEPS = (
    "resolve",
    "fetch",
    "compile core",
    "compile panels",
    "link",
    "test core",
    "test panels",
    "pack",
    "sign",
    "done",
)
BUILD_STEP = 0.08
PEOPLE = {"ada-token": "Ada Okafor", "grace-token": "Grace Moreau", "linus-token": "Linus Brandt"}


class Say(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    role: str = "user"


class OpenFile(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class Search(msgspec.Struct, forbid_unknown_fields=True):
    words: str


class PanelRoutes:
    def __init__(
        self, transcripts: Transcripts, repository: Repository, work: Work, *, wait_for_ready: bool
    ) -> None:
        self._transcripts = transcripts
        self._repository = repository
        self._work = work
        self._wait_for_ready = wait_for_ready

    def routes(self) -> list[Route]:
        return [
            Route("/chat/{port}/history", self.history),
            Route("/chat/{port}/messages", self.say, methods=["POST"]),
            Route("/ide/{port}/editors", self.editors),
            Route("/ide/{port}/files", self.open_file, methods=["POST"]),
            Route("/search", self.search, methods=["POST"]),
            Route("/build/{target}/log", self.build),
            Route("/me", self.me),
        ]

    async def history(self, request: Request) -> Response:
        port = ask.port_of(request)
        with self._work.step("chat extraction", port):
            messages = await self._extract(port)
        return ask.json(messages)

    async def _extract(self, port: int) -> list[Message]:
        extraction = asyncio.to_thread(self._transcripts.extract, port)
        if self._wait_for_ready:
            await extraction
        else:  # nobody knew when it is ready, so everybody waits a second: the habit that this example shows
            await asyncio.gather(extraction, asyncio.sleep(FIXED_WAIT))
        return await asyncio.to_thread(self._transcripts.history, port)

    async def say(self, request: Request) -> Response:
        port = ask.port_of(request)
        asked = await ask.body_of(request, Say)
        with self._work.step("chat message", port):
            seq = await asyncio.to_thread(self._transcripts.say, port, asked.role, asked.text)
        return ask.json({"seq": seq}, 201)

    async def editors(self, request: Request) -> Response:
        port = ask.port_of(request)
        with self._work.step("editor query", port):
            editors: list[Editor] = await asyncio.to_thread(self._transcripts.editors, port)
        return ask.json(editors)

    async def open_file(self, request: Request) -> Response:
        port = ask.port_of(request)
        asked = await ask.body_of(request, OpenFile)
        with self._work.step("editor open", port):
            seq = await asyncio.to_thread(self._transcripts.open_file, port, asked.path)
        return ask.json({"opened": seq}, 201)

    async def search(self, request: Request) -> Response:
        asked = await ask.body_of(request, Search)
        if not asked.words.strip():
            raise HTTPException(422, "what shall be searched for?")
        with self._work.step("search", msgspec.json.encode(asked.words).decode()):
            lines = await self._repository.grep(asked.words)
            messages = await asyncio.to_thread(self._transcripts.search, asked.words)
        return ask.json({"lines": lines, "messages": messages})

    async def build(self, request: Request) -> Response:
        """A build's log as it grows; who comes while it runs reads along."""
        target = request.path_params["target"]

        async def lines() -> AsyncIterator[str]:
            with self._work.step("build", target):
                for number, step in enumerate(BUILD_STEPS, 1):
                    await asyncio.sleep(BUILD_STEP)
                    yield f"[{number}/{len(BUILD_STEPS)}] {target}: {step}\n"

        return StreamingResponse(lines(), media_type="text/plain")

    async def me(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        name = PEOPLE.get(token) if scheme.lower() == "bearer" else None
        if name is None:
            raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Bearer"})
        with self._work.step("profile", name):
            open_files = await asyncio.to_thread(self._transcripts.editors, 9222)
        return ask.json({"name": name, "open_files": len(open_files)})
