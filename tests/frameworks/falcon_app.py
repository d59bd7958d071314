from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi

from ..framework_kit import Framework, Work


def build(work: Work) -> Any:
    kept: dict[str, str] = {}

    class Life:
        async def process_startup(self, scope: Any, event: Any) -> None:
            work.note("startup")
            kept["greeting"] = "hello"

        async def process_shutdown(self, scope: Any, event: Any) -> None:
            work.note("shutdown")

    class Plain:
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.content_type, resp.text = falcon.MEDIA_TEXT, await work.run()

        async def on_post(self, req: Any, resp: Any) -> None:
            resp.content_type, resp.text = falcon.MEDIA_TEXT, await work.run("write")

    class Item:
        async def on_get(self, req: Any, resp: Any, name: str) -> None:
            resp.text = name

    class Stream:
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.content_type, resp.stream = falcon.MEDIA_TEXT, work.chunks()

    class Boom:
        async def on_get(self, req: Any, resp: Any) -> None:
            await work.run("boom")
            raise ValueError("secret")

    class Background:
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.schedule(work.after)
            resp.text = "answered"

    class Greeting:
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.text = kept["greeting"]

    app: Any = falcon.asgi.App(middleware=[Life()])
    app.add_route("/plain", Plain())
    app.add_route("/items/{name}", Item())
    app.add_route("/stream", Stream())
    app.add_route("/boom", Boom())
    app.add_route("/background", Background())
    app.add_route("/greeting", Greeting())
    return app


FRAMEWORK = Framework("Falcon", build)
