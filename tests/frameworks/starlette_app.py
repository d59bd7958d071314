from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        work.note("startup")
        yield {"greeting": "hello"}
        work.note("shutdown")

    async def plain(request: Request) -> Response:
        return PlainTextResponse(await work.run("run" if request.method == "GET" else "write"))

    async def item(request: Request) -> Response:
        return PlainTextResponse(request.path_params["name"])

    async def stream(request: Request) -> Response:
        return StreamingResponse(work.chunks(), media_type="text/plain")

    async def boom(request: Request) -> Response:
        await work.run("boom")
        raise ValueError("secret")

    async def background(request: Request) -> Response:
        return PlainTextResponse("answered", background=BackgroundTask(work.after))

    async def greeting(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    return Starlette(
        routes=[
            Route("/plain", plain, methods=["GET", "POST"]),
            Route("/items/{name}", item),
            Route("/stream", stream),
            Route("/boom", boom),
            Route("/background", background),
            Route("/greeting", greeting),
        ],
        lifespan=lifespan,
    )


FRAMEWORK = Framework("Starlette", build, template="/items/{name}")
