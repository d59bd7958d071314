from __future__ import annotations

import types
from typing import Any

import django  # type: ignore[import-untyped] # it has no types
from django.conf import settings  # type: ignore[import-untyped] # it has no types
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped] # it has no types
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped] # it has no types
from django.urls import path  # type: ignore[import-untyped] # it has no types

from ..framework_kit import Framework, Work

settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", USE_TZ=True, LOGGING_CONFIG=None)
django.setup()


def build(work: Work) -> Any:
    async def plain(request: HttpRequest) -> HttpResponse:
        what = "run" if request.method == "GET" else "write"
        return HttpResponse(await work.run(what), content_type="text/plain")

    async def item(request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(name, content_type="text/plain")

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(work.chunks(), content_type="text/plain")

    async def boom(request: HttpRequest) -> HttpResponse:
        await work.run("boom")
        raise ValueError("secret")

    async def greeting(request: HttpRequest) -> HttpResponse:
        return HttpResponse("hello", content_type="text/plain")

    urls: Any = types.ModuleType("urls")
    urls.urlpatterns = [
        path("plain", plain),
        path("items/<str:name>", item),
        path("stream", stream),
        path("boom", boom),
        path("greeting", greeting),
    ]
    application = get_asgi_application()

    async def with_own_urls(scope: Any, receive: Any, send: Any) -> None:
        """Django has one table of URLs a process."""
        settings.ROOT_URLCONF = urls
        await application(scope, receive, send)

    return with_own_urls


FRAMEWORK = Framework("Django", build, hears=True, background=False, lifespan=False)
