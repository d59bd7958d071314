from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.response import Response, Stream

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        work.note("startup")
        app.state.greeting = "hello"
        yield
        work.note("shutdown")

    @get("/plain", media_type="text/plain")
    async def plain() -> str:
        return await work.run()

    @post("/plain", media_type="text/plain")
    async def write() -> str:
        return await work.run("write")

    @get("/items/{name:str}", media_type="text/plain")
    async def item(name: FromPath[str]) -> str:
        return name

    @get("/stream")
    async def stream() -> Stream:
        return Stream(work.chunks(), media_type="text/plain")

    @get("/boom")
    async def boom() -> str:
        await work.run("boom")
        raise ValueError("secret")

    @get("/background")
    async def background() -> Response[str]:
        return Response("answered", media_type="text/plain", background=BackgroundTask(work.after))

    @get("/greeting", media_type="text/plain")
    async def greeting(state: State) -> str:
        return str(state.greeting)

    return Litestar(
        [plain, write, item, stream, boom, background, greeting], lifespan=[lifespan], logging_config=None
    )


FRAMEWORK = Framework("Litestar", build, template="/items/{name}")
