from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        work.note("startup")
        yield {"greeting": "hello"}
        work.note("shutdown")

    app = FastAPI(lifespan=lifespan, default_response_class=PlainTextResponse)

    @app.get("/plain")
    async def plain() -> str:
        return await work.run()

    @app.post("/plain")
    async def write() -> str:
        return await work.run("write")

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(work.chunks(), media_type="text/plain")

    @app.get("/boom")
    async def boom() -> str:
        await work.run("boom")
        raise ValueError("secret")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(work.after)
        return "answered"

    @app.get("/greeting")
    async def greeting(request: Request) -> str:
        return str(request.state.greeting)

    return app


FRAMEWORK = Framework("FastAPI", build, template="/items/{name}")
