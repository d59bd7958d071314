from __future__ import annotations

from typing import Any

from quart import Quart, Response, current_app, request

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    app = Quart("quart_app")

    @app.before_serving
    async def startup() -> None:
        work.note("startup")
        app.config["GREETING"] = "hello"

    @app.after_serving
    async def shutdown() -> None:
        work.note("shutdown")

    @app.route("/plain", methods=["GET", "POST"])
    async def plain() -> str:
        return await work.run("run" if request.method == "GET" else "write")

    @app.get("/items/<name>")
    async def item(name: str) -> str:
        return name

    @app.get("/stream")
    async def stream() -> Response:
        return Response(work.chunks(), mimetype="text/plain")

    @app.get("/boom")
    async def boom() -> str:
        await work.run("boom")
        raise ValueError("secret")

    @app.get("/background")
    async def background() -> str:
        current_app.add_background_task(work.after)
        return "answered"

    @app.get("/greeting")
    async def greeting() -> str:
        return str(current_app.config["GREETING"])

    return app


FRAMEWORK = Framework("Quart", build, hears=True)
