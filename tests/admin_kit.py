"""The kit for the administration: an app that has it mounted, and its clients."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.admin import Administration, admin

from .kit import FakeClock

TOKEN: Final = "a-token-that-nobody-guesses"
BEARER: Final = {"Authorization": f"Bearer {TOKEN}"}
RULES: Final = (
    Rule("/items/{item}", ttl=60, name="items", tags=["item:{item}"]),
    Rule("/off", name="never", mode="off"),
)


class House:
    """An app under the middleware with the administration mounted, and who asks it."""

    def __init__(self, *rules: Rule, allow: Any = TOKEN, dedup: Dedup | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.dedup = dedup or Dedup(rules or RULES)
        self.runs = 0
        self.admin: Administration = admin(self.dedup, allow=allow, clock=self.clock, **settings)
        self.app = Starlette(routes=[Route("/{path:path}", self._item, methods=["GET", "POST"])])
        self.app.router.routes.insert(0, mounted(self.admin))
        self.app.add_middleware(DedupMiddleware, dedup=self.dedup)

    @property
    def inside(self) -> Any:
        """What all requests of the administration share."""
        (gate,) = self.admin.user_middleware
        return gate.kwargs["house"]

    def end(self) -> None:
        """Nobody listens to the engine any more; where a test made the house, `conftest.py` sees to it."""
        for one in self.dedup.events._subscriptions:
            one.close()

    async def _item(self, request: Any) -> PlainTextResponse:
        self.runs += 1
        return PlainTextResponse(f"run {self.runs}")

    def client(self, address: str = "192.0.2.1", **settings: Any) -> httpx.AsyncClient:
        """Somebody at an address; `headers=BEARER` for whoever has the token."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 50_000))
        return httpx.AsyncClient(transport=transport, base_url="http://app.test/_dedup/", **settings)

    def owner(self) -> httpx.AsyncClient:
        """Whoever has the token."""
        return self.client("192.0.2.77", headers=BEARER)

    async def browser(self, address: str = "192.0.2.50") -> httpx.AsyncClient:
        """A browser that is signed in: it sends what browsers send."""
        client = self.client(address, headers={"origin": "http://app.test", "sec-fetch-site": "same-origin"})
        answer = await client.post("api/session", json={"token": TOKEN})
        assert answer.status_code == 200, answer.text
        return client

    async def audited(self) -> list[tuple[str, str, str, int]]:
        """What, target, result and times of all entries, the earliest first."""
        async with self.owner() as owner:
            items = (await owner.get("api/audit", params={"limit": 1000})).json()["items"]
        return [(one["what"], one["target"], one["result"], one["times"]) for one in reversed(items)]


def mounted(app: Any) -> Any:
    from starlette.routing import Mount

    return Mount("/_dedup", app)


@contextmanager
def logged(name: str = "dedup_middleware.audit") -> Iterator[list[logging.LogRecord]]:
    """What a logger is told."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment] # a handler that keeps
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Stream:
    """A client of the live stream: reads what the app sends, and leaves."""

    def __init__(self, app: Any, headers: dict[str, str], path: str = "/_dedup/api/events") -> None:
        self.status = 0
        self.text = ""
        self._gone = asyncio.Event()
        lines = [(b"host", b"app.test")] + [(n.lower().encode(), v.encode()) for n, v in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": lines,
            "client": ("192.0.2.9", 1),
            "server": ("127.0.0.1", 80),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.text += message.get("body", b"").decode()

    @property
    def events(self) -> list[tuple[str, Any]]:
        """What was told so far: kinds and data."""
        found = []
        for block in self.text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found

    async def leave(self) -> None:
        self._gone.set()
        await asyncio.wait_for(self.task, 30)
