"""The apps below: a raw ASGI callable (L0), a bare Starlette app (L1), and the middleware around them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .requests import App, Message, Receive, Scope, Send

KIB = b'{"data": "' + b"x" * 1012 + b'"}'
LARGE = b"x" * 100 * 1024
HOUR = 3600


def raw(body: bytes = KIB) -> App:
    """A raw ASGI callable that sends a prebuilt response: L0."""
    start: Message = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")],
    }
    end: Message = {"type": "http.response.body", "body": body, "more_body": False}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send(end)

    return app


async def _data(request: StarletteRequest) -> Response:
    return Response(KIB, media_type="application/json")


def starlette() -> App:
    """A bare Starlette app: L1 is its route `/data`."""
    return Starlette(
        routes=[
            Route("/data", _data),
            Route("/items/{item}", _data),
            Route("/search", _data, methods=["POST"]),
        ]
    )


class Slow:
    """A Starlette app whose one endpoint takes 50 ms, and how often it ran."""

    def __init__(self) -> None:
        self.runs = 0
        self.app: App = Starlette(routes=[Route("/slow", self._slow)])

    async def _slow(self, request: StarletteRequest) -> Response:
        self.runs += 1
        await asyncio.sleep(0.05)  # its 50 ms
        return Response(KIB, media_type="application/json")


def deduplicated(
    app: App, *rules: Rule, default: Rule | None = None, metrics: bool = True, tracer: Any = None
) -> DedupMiddleware:
    """The middleware around an app, with an SDK's metrics unless told otherwise."""
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False) if metrics else None
    return DedupMiddleware(
        app, dedup=Dedup(rules, default=default, meter_provider=provider, tracer_provider=tracer)
    )


def many_rules(shape: str, number: int, *, mode: Literal["on", "off"] = "on") -> Iterable[Rule]:
    """So many storing rules of one shape; the last one is what `path_of` meets."""
    for i in range(1000 - number, 1000):
        yield Rule(SHAPES[shape].replace("#", str(i)), ttl=HOUR, mode=mode)


def path_of(shape: str, item: str) -> bytes:
    """A path that meets the last rule of the shape."""
    path = SHAPES[shape].replace("#", "999")
    for parameter in ("{rest:path}", "{item}"):
        path = path.replace(parameter, item)
    return path.replace("{tenant}", "acme").encode()


SHAPES = {
    "distinct first segments": "/area#/items/{item}",
    "one first segment": "/api/area#/items/{item}",
    "a parameter first": "/{tenant}/area#/items/{item}",
    "paths below": "/area#/{rest:path}",
    "a parameter inside a segment": "/items/{item}.area#",
}
