"""Draws docs/dashboard.png: the dashboard of a small app under load, as Chromium shows it.

`python -m docs._dashboard docs/dashboard.png` starts the app with a ledger, asks it for a minute and a half, and takes
the picture. Needs the extra `test`, and Chromium.
"""

# ruff: noqa: INP001, S311 - a folder of pages needs no __init__, and traffic is no secret

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import uvicorn
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from dedup_middleware import Alert, Dedup, DedupMiddleware, Rule
from dedup_middleware.admin import admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

CHROMIUM: Final = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
"""What it may be called; where there is none, Playwright's own."""
SECONDS: Final = 100
PEOPLE: Final = 5
WIDTH: Final = 1360
LARGEST: Final = """{
  const waited = (one) => Number(one.innerText.match(/(\\d+) waited/)[1]);
  [...document.querySelectorAll(".choices button")].sort((a, b) => waited(b) - waited(a))[0].click();
}"""
RULES: Final = [
    Rule("/git/{repo}/status", name="git status", ttl="2s", vary=[], identity="shared", tags=["repo:{repo}"]),
    Rule("/git/{repo}/log", name="git log", ttl="10s", vary=[], identity="shared", tags=["repo:{repo}"]),
    Rule("/chat/{port}/history", name="chat history", vary=[], identity="shared", tags=["chat:{port}"]),
    Rule("/search", name="search", ttl="3s", vary=[], identity="shared", stale_while_revalidate="5s"),
    Rule("/me", name="who am I", identity="separate"),
]
TARGETS: Final = {
    "/git/demo/status": 6,
    "/git/site/status": 3,
    "/git/demo/log?limit=50": 3,
    "/chat/4711/history": 9,
    "/search?q=sidebar": 2,
    "/me": 2,
}


async def _work(request: Request) -> JSONResponse:
    """What an app does: it takes a while."""
    await asyncio.sleep(random.uniform(0.05, 0.25) * (1 + request.url.path.count("log")))
    return JSONResponse({"path": request.url.path, "rows": ["row"] * 60})


def make_app(records: str, token: str) -> Starlette:
    """An app with the middleware and its administration."""
    alerts = [Alert("few hits", "hit-rate", below=0.6, window="20s", rule="who am I")]
    dedup = Dedup(
        RULES,
        store="memory://?max_bytes=32768",
        records=records,
        secret=secrets.token_bytes(32),
        alerts=alerts,
        tracer_provider=TracerProvider(),
    )
    places = ("/git/{repo}/{what}", "/chat/{port}/history", "/search", "/me", "/feed/{name}")
    app = Starlette(routes=[
        Mount("/_dedup", admin(dedup, allow=token, jaeger="http://localhost:16686")),
        *(Route(place, _work) for place in places),
    ])  # fmt: skip
    app.add_middleware(DedupMiddleware, dedup=dedup)
    return app


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app on a free port, in a thread; its origin."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


async def _people(origin: str, ends: threading.Event) -> None:
    """A few people at work; httpx waits for a free connection as long as it takes."""
    async with httpx.AsyncClient(base_url=origin, timeout=None) as client:  # noqa: S113 - on this machine
        await asyncio.gather(*(_person(client, ends) for _ in range(PEOPLE)))


async def _person(client: httpx.AsyncClient, ends: threading.Event) -> None:
    """Opens a page, which asks for the same several times over, reads it, and opens the next one."""
    while not ends.is_set():
        await asyncio.gather(
            *(
                _get(client, target, random.uniform(0, 0.06))
                for target, n in TARGETS.items()
                for _ in range(n)
            ),
            _get(client, f"/feed/{random.randrange(1000)}", 0),
        )
        await asyncio.sleep(random.uniform(0.2, 1.5))


async def _get(client: httpx.AsyncClient, target: str, after: float) -> None:
    await asyncio.sleep(after)
    await client.get(target)


def picture(origin: str, token: str, file: Path, seconds: float) -> None:
    """Sign in, look on for a while, take the picture."""
    from playwright.sync_api import FloatRect, ViewportSize, sync_playwright  # noqa: PLC0415 - the rest needs no browser

    with sync_playwright() as driver:
        chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=ViewportSize(width=WIDTH, height=1000), color_scheme="light")
        page.goto(f"{origin}/_dedup/")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector('#connection[data-state="live"]')
        page.wait_for_timeout(seconds * 1000)
        page.evaluate(LARGEST)
        bottom = page.evaluate(
            "document.querySelector('#rules').closest('.panel').getBoundingClientRect().bottom"
        )
        page.screenshot(path=file, full_page=True, clip=FloatRect(x=0, y=0, width=WIDTH, height=bottom + 8))
        browser.close()


def main(file: str, seconds: float = SECONDS) -> None:
    """Write the picture."""
    token, ends = secrets.token_urlsafe(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(f"sqlite:///{folder}/dedup.db", token)
        with serving(app) as origin:
            traffic = threading.Thread(target=lambda: asyncio.run(_people(origin, ends)))
            traffic.start()
            try:
                picture(origin, token, Path(file), seconds)
            finally:
                ends.set()
                traffic.join()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
