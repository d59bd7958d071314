"""The page: figures, a button that fires the burst, its timeline, and why a request is what it is.

It talks to two servers of its own, one without and one with the middleware, over the same HTTP as the comparison.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from . import ask
from .burst import MIX, Pages
from .control import DASHBOARD, PREFIX, ExplainQuestion
from .measure import PAGES
from .serve import listen
from .servers import Server, running
from .settings import PORTS
from .timeline import Recorded, draw

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from opentelemetry import trace
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .marks import Mark
    from .measure import Comparison
    from .settings import Settings

WRITES_AFTER = 0.2
"""How often a write follows a refresh of `--traffic`."""
STATIC = Path(__file__).with_name("static")
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Fire(msgspec.Struct, forbid_unknown_fields=True):
    middleware: bool
    pages: int
    fresh: bool = False
    """Forget what is stored first."""


class Write(msgspec.Struct, forbid_unknown_fields=True):
    what: Literal["chat", "file", "commit"]


class Page:
    def __init__(
        self, settings: Settings, summary: bytes, servers: dict[bool, Server], tracer: trace.Tracer
    ) -> None:
        self._settings = settings
        self._summary = summary
        self._servers = servers
        self._pages = {side: Pages(server.client, settings.repo, tracer) for side, server in servers.items()}
        self._one_at_a_time = asyncio.Lock()
        self._written = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/api/summary", self._told),
                Route("/api/burst", self._burst, methods=["POST"]),
                Route("/api/write", self._write, methods=["POST"]),
                Route("/api/explain", self._explain, methods=["POST"]),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            # Whoever points a name of their own at this address must not read a repository through it.
            middleware=[
                Middleware(_Secure),
                Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            ],
        )

    async def _index(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _told(self, _request: Request) -> Response:
        return Response(self._summary, media_type="application/json")

    async def _burst(self, request: Request) -> Response:
        asked = await ask.body_of(request, Fire)
        server = self._servers[asked.middleware]
        async with self._one_at_a_time:
            if asked.fresh:
                await server.reset()
            refreshes = await self._pages[asked.middleware].burst(min(max(asked.pages, 1), PAGES))
            query = "&".join(f"trace={refresh.trace}" for refresh in refreshes)
            recorded = await server.ask("GET", f"spans?{query}", Recorded)
        return ask.json(draw(refreshes, recorded, middleware=asked.middleware))

    async def _write(self, request: Request) -> Response:
        """A write on both servers: they share the repository and the transcripts, each has a store of its own."""
        asked = await ask.body_of(request, Write)
        self._written += 1
        target, body = self._writes()[asked.what]
        reply = await self._servers[True].client.post(target, body)
        return ask.json({"target": target, "status": reply.status, "answer": msgspec.json.decode(reply.body)})

    async def traffic(self) -> None:
        """Pages that refresh, one to five at a time, and a write after some of them; until cancelled."""
        chance = random.Random(1)
        while True:
            async with self._one_at_a_time:
                await self._pages[True].burst(chance.randint(1, PAGES))
            if chance.random() < WRITES_AFTER:
                self._written += 1
                what = chance.choice([name for name in self._writes() if name != "commit"])
                target, body = self._writes()[what]
                await self._servers[True].client.post(target, body)
            await asyncio.sleep(chance.expovariate(1.0))

    def _writes(self) -> dict[str, tuple[str, dict[str, Any]]]:
        number = self._written
        return {
            "chat": (f"/chat/{PORTS[0]}/messages", {"text": f"Said on the page, number {number}."}),
            "file": (f"/ide/{PORTS[0]}/files", {"path": f"src/opened_{number:02}.py"}),
            "commit": (
                f"/git/{self._settings.scratch}/commit",
                {"message": f"Commit from the page, number {number}"},
            ),
        }

    async def _explain(self, request: Request) -> Response:
        asked = await ask.body_of(request, ExplainQuestion)
        reply = await self._servers[True].client.request(
            "POST", PREFIX + "explain", body=msgspec.json.encode(asked)
        )
        return Response(reply.body, reply.status, media_type="application/json")


async def serve_page(
    settings: Settings,
    comparison: Comparison,
    marks: list[Mark],
    tracer: trace.Tracer,
    port: int,
    *,
    traffic: bool = False,
) -> None:
    """Serve until cancelled; `traffic` keeps pages refreshing and now and then somebody writing."""
    token = secrets.token_urlsafe(16)
    recording = msgspec.structs.replace(settings, record=True, token=token)
    bare = msgspec.structs.replace(recording, middleware=False)
    async with running(bare) as without, running(recording) as with_:
        page = Page(settings, _summary(settings, comparison, marks), {False: without, True: with_}, tracer)
        listening, refused = _listen(port)
        config = uvicorn.Config(
            page.app(), log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        if refused:
            print(f"  Port {port}: {refused}; here is another one.")
        print(f"  Look into it: http://127.0.0.1:{listening.getsockname()[1]}   (Ctrl-C ends it)")
        print(f"  Dashboard:    http://127.0.0.1:{with_.port}{DASHBOARD}/   token: {token}", flush=True)
        visitors = asyncio.create_task(page.traffic()) if traffic else None
        try:
            await asyncio.shield(serving)
        finally:
            if visitors is not None:
                visitors.cancel()
                await asyncio.wait([visitors])
            # Whatever is cut short now was cut short by whoever ended the run.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
            server.should_exit = True
            await serving


def _listen(port: int) -> tuple[socket.socket, str]:
    """A socket, and why it is at another port, if it is."""
    try:
        return listen(port), ""
    except OSError as error:
        return listen(0), (error.strerror or str(error)).lower()


def _summary(settings: Settings, comparison: Comparison, marks: list[Mark]) -> bytes:
    """What the page shows before anybody presses a button."""
    return msgspec.json.encode(
        {
            "comparison": comparison,
            "duplicates_removed": comparison.duplicates_removed,
            "marks": marks,
            "mix": dict(MIX),
            "repo": settings.repo,
            "port": PORTS[0],
            "most_pages": PAGES,
            "may_commit": settings.repo == settings.scratch,
        }
    )


class _Server(uvicorn.Server):
    """uvicorn that leaves Ctrl-C to the run it is a part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Secure:
    """The security headers on every answer of the page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = [(name.encode(), value.encode()) for name, value in SECURITY.items()]
                message = {**message, "headers": [*message.get("headers", []), *fields]}
            await send(message)

        await self._app(scope, receive, secured if scope["type"] == "http" else send)
