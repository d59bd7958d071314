from __future__ import annotations

from typing import Any

from blacksheep import Application, Response, StreamedContent, text
from blacksheep.server.routing import Router

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    app = Application(router=Router())
    kept: dict[str, str] = {}

    @app.on_start
    async def startup(app: Application) -> None:
        work.note("startup")
        kept["greeting"] = "hello"

    @app.on_stop
    async def shutdown(app: Application) -> None:
        work.note("shutdown")

    @app.router.get("/plain")
    async def plain() -> Response:
        return text(await work.run())

    @app.router.post("/plain")
    async def write() -> Response:
        return text(await work.run("write"))

    @app.router.get("/items/{name}")
    async def item(name: str) -> Response:
        return text(name)

    @app.router.get("/stream")
    async def stream() -> Response:
        return Response(200, content=StreamedContent(b"text/plain", work.chunks))

    @app.router.get("/boom")
    async def boom() -> Response:
        await work.run("boom")
        raise ValueError("secret")

    @app.router.get("/greeting")
    async def greeting() -> Response:
        return text(kept["greeting"])

    return app


FRAMEWORK = Framework("BlackSheep", build, background=False)
