from __future__ import annotations

from typing import Any

from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse, text

from ..framework_kit import Framework, Work

Sanic.test_mode = True


def build(work: Work) -> Any:
    async def startup(app: Any) -> None:
        work.note("startup")
        app.ctx.greeting = "hello"

    async def shutdown(app: Any) -> None:
        work.note("shutdown")

    async def plain(request: Request) -> HTTPResponse:
        return text(await work.run())

    async def write(request: Request) -> HTTPResponse:
        return text(await work.run("write"))

    async def item(request: Request, name: str) -> HTTPResponse:
        return text(name)

    async def stream(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        async for chunk in work.chunks():
            await response.send(chunk)
        await response.eof()

    async def boom(request: Request) -> HTTPResponse:
        await work.run("boom")
        raise ValueError("secret")

    async def background(request: Request) -> HTTPResponse:
        request.app.add_task(work.after())
        return text("answered")

    async def greeting(request: Request) -> HTTPResponse:
        return text(request.app.ctx.greeting)

    app: Any = Sanic("sanic_app", configure_logging=False)
    app.register_listener(startup, "before_server_start")
    app.register_listener(shutdown, "after_server_stop")
    app.add_route(plain, "/plain")
    app.add_route(write, "/plain", methods=["POST"])
    app.add_route(item, "/items/<name>")
    app.add_route(stream, "/stream")
    app.add_route(boom, "/boom")
    app.add_route(background, "/background")
    app.add_route(greeting, "/greeting")
    return app


FRAMEWORK = Framework("Sanic", build)
