"""A stand-in for the administration: the real static files under the same policy, and answers that a test scripts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dedup_middleware.core.status import OUTCOMES
from dedup_middleware.stats import hit_rate

from .kit import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIVE: Final = '#connection[data-state="live"]'
STATIC: Final = Path(__file__).parent.parent / "dedup_middleware/admin/static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
FIELDS: Final = {"path": "/git/{repo}/status", "methods": ["GET", "HEAD", "QUERY"], "ttl": 5.0, "mode": "on"}


class Scripted:
    """What the stand-in answers, and what it was asked (`asked`: method, path, body)."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.who = "browser 0f0f0f0f"
        self.enabled = True
        self.uptime = 100.0
        self.jaeger: str | None = None
        self.requests: dict[str, dict[str, int]] = {}
        self.saved: dict[str, float] = {}
        self.flights: list[dict[str, Any]] = []
        self.responses: list[dict[str, Any]] = []
        self.off: set[str] = set()
        self.recent: dict[str, list[Any]] = {"bursts": [], "alerts": [], "invalidations": []}
        self.audit: list[dict[str, Any]] = []
        self.explanation: dict[str, Any] = {}
        self.analytics: dict[str, Any] | None = None
        self.store = {"bytes": 0, "max_bytes": 64 * 2**20, "responses": 0}
        self.process = {"cpu_seconds": 1.0, "resident_bytes": 80 * 2**20}
        self.evicted = 0
        self.streams = True
        self.refuses: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self._clients: set[asyncio.Queue[bytes | None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    # -- what happens ---------------------------------------------------------------------------------------------

    def count(self, rule: str, saved: float = 0.0, **outcomes: int) -> None:
        """Requests that came."""
        counts = self.requests.setdefault(rule, dict.fromkeys(map(str, OUTCOMES), 0))
        for outcome, number in outcomes.items():
            counts[outcome] += number
        self.saved[rule] = self.saved.get(rule, 0.0) + saved

    def tick(self, seconds: float = 1.0) -> None:
        """So much time passes, and every stream hears how things stand."""
        self.uptime += seconds
        self.tell("tick", self.stats())

    def tell(self, kind: str, data: object) -> None:
        """Every stream hears of it."""
        text = b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
        self._send(text)

    def hang_up(self) -> None:
        """Every stream ends."""
        self._send(None)

    def _send(self, message: bytes | None) -> None:
        def send() -> None:
            for client in self._clients:
                client.put_nowait(message)

        assert self.loop is not None
        self.loop.call_soon_threadsafe(send)

    @property
    def listeners(self) -> int:
        """Streams that are open."""
        return len(self._clients)

    def stats(self) -> dict[str, Any]:
        """The body of `api/stats`."""
        total = {
            str(outcome): sum(counts[outcome] for counts in self.requests.values()) for outcome in OUTCOMES
        }
        return {
            "enabled": self.enabled,
            "stats": {
                "flights": len(self.flights),
                "requests": total,
                "duplicates": total["hit"] + total["stale"] + total["collapsed"],
                "stored": 0,
                "evicted": self.evicted,
                "expired": 0,
                "invalidated": 0,
                "bytes": self.store["bytes"],
                "responses": self.store["responses"],
                "hit_rate": hit_rate(total),
                "saved": sum(self.saved.values()),
                "rules": {label: self._rule(label) for label in self.requests},
            },
            "store": self.store,
            "process": {**self.process, "uptime": self.uptime},
            "jaeger": self.jaeger,
        }

    def _rule(self, label: str) -> dict[str, Any]:
        counts = self.requests.get(label, dict.fromkeys(map(str, OUTCOMES), 0))
        return {"requests": counts, "hit_rate": hit_rate(counts), "saved": self.saved.get(label, 0.0)}

    # -- what is answered -----------------------------------------------------------------------------------------

    def app(self) -> Starlette:
        """The stand-in, below /_dedup/."""
        routes = [
            Route("/", self._page),
            Route("/api/events", self._events),
            Route("/api/{what:path}", self._api, methods=["GET", "POST", "DELETE"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=[Mount("/_dedup", app=Starlette(routes=routes))])

    async def _page(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"content-security-policy": POLICY})

    async def _events(self, request: Request) -> Response:
        if not self._knows(request):
            return _json({"error": "A token is needed."}, 401)
        if not self.streams:
            return _json({"error": "No streams today."}, 503)
        self.loop = asyncio.get_running_loop()
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(1000)
        self._clients.add(queue)
        try:
            yield b"event: tick\ndata: %s\n\n" % msgspec.json.encode(self.stats())
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._clients.discard(queue)

    def _knows(self, request: Request) -> bool:
        return self.token is None or request.cookies.get("session") == self.token

    async def _api(self, request: Request) -> Response:
        what, method = request.path_params["what"], request.method
        body = msgspec.json.decode(await request.body() or b"null")
        self.asked.append((method, what, body))
        if what == "session" and method != "GET":
            return self._session(method, body)
        if not self._knows(request):
            return _json({"error": "A token is needed."}, 401)
        if what in self.refuses:
            status, sentence = self.refuses[what]
            return _json({"error": sentence}, status)
        if method == "POST":
            return self._change(what, body)
        return self._read(what, dict(request.query_params))

    def _session(self, method: str, body: Any) -> Response:
        right = method == "POST" and body == {"token": self.token}
        reply = _json({}) if right or method == "DELETE" else _json({"error": "That is not the token."}, 401)
        reply.set_cookie("session", (self.token or "") if right else "", httponly=True, samesite="strict")
        return reply

    def _change(self, what: str, body: Any) -> Response:
        if what == "explain":
            return _json(self.explanation)
        if what == "switch" and body["rule"] is None:
            self.enabled = body["on"]
        elif what == "switch":
            self.off = self.off - {body["rule"]} if body["on"] else self.off | {body["rule"]}
        else:
            kept = [one for one in self.responses if not _meant(one, body)]
            dropped, self.responses = len(self.responses) - len(kept), kept
            return _json({"dropped": dropped})
        return _json({})

    def _read(self, what: str, asked: dict[str, str]) -> Response:
        if what == "stats":
            return _json(self.stats())
        if what == "rules":
            return _json(
                [
                    {"label": label, "on": label not in self.off, **self._rule(label), "fields": FIELDS}
                    for label in self.requests
                ]
            )
        if what == "responses":
            found = [one for one in self.responses if _meant(one, _wanted(asked))]
            return _json(_paged(found, asked))
        if what == "audit":
            return _json(_paged(self.audit, asked))
        if what == "session":
            return _json({"who": self.who})
        if what == "health/ready":
            return _json({"status": "ready", "store": "ok", "ledger": "ok" if self.analytics else "none"})
        if what in {"recent", "flights"}:
            return _json(getattr(self, what))
        name = what.removeprefix("analytics/")
        if self.analytics is not None and name in self.analytics:
            return _json(self.analytics[name])
        return _json({"error": "There is no ledger: Dedup(records=...) makes one."}, 404)


def _wanted(asked: dict[str, str]) -> dict[str, Any]:
    return {"all": True} | {name: asked[name] for name in ("rule", "tag") if asked.get(name)}


def _meant(one: dict[str, Any], what: dict[str, Any]) -> bool:
    return (
        what.get("rule", one["rule"]) == one["rule"]
        and what.get("key", one["key"]) == one["key"]
        and all(
            tag in one["tags"] for tag in [*what.get("tags", ()), *([what["tag"]] if "tag" in what else ())]
        )
    )


def _paged(items: list[Any], asked: dict[str, str]) -> dict[str, Any]:
    offset, limit = int(asked.get("offset", "0")), int(asked.get("limit", "100"))
    return {"total": len(items), "items": items[offset : offset + limit]}


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def burst(rule: str = "git status", followers: int = 3, flight: int = 7, **more: Any) -> dict[str, Any]:
    """One burst as the API tells it: each follower joined a little later, all were answered at the end."""
    started = time.time() - 1
    return {
        "flight": flight,
        "rule": rule,
        "key": f"{flight:032x}",
        "started": started,
        "duration": 0.1,
        "status": 200,
        "error": None,
        "trace_id": f"{flight:032x}",
        "joined": followers,
        "followers": [
            {
                "at": started + 0.1,
                "waited": 0.1 - 0.09 * number / followers,
                "saved": 0.1,
                "trace_id": f"{number:032x}",
            }
            for number in range(followers)
        ],
        **more,
    }


def held(
    rule: str = "git status", number: int = 1, tags: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """One stored response as the API tells it."""
    return {
        "rule": rule,
        "key": f"{number:032x}",
        "tags": list(tags),
        "bytes": 2048,
        "age": 1.5,
        "ttl": 3.5,
        "hits": 12,
        "seconds": 0.104,
        "status": 200,
        "route": "/git/{repo}/status",
        **more,
    }


def _blank(browser: Browser) -> Page:
    """A page in which nothing is: one that a test left, since each new one starts a process of its own."""
    left = (context.pages[0] for context in browser.contexts)
    return next((page for page in left if page.url == "about:blank"), None) or browser.new_page()


def _wipe(page: Page) -> None:
    """Leave a page as it was made: no cookie, nothing stored, nobody who listens or answers for the server."""
    page.evaluate("localStorage.clear(), sessionStorage.clear()")
    page.unroute_all()
    page.goto("about:blank")
    page.context.clear_cookies()


@contextlib.contextmanager
def watched(
    browser: Browser, origin: str, view: str = "", *, quiet: bool = True, **context: Any
) -> Iterator[Page]:
    """The page, watched: nothing on its console, no request but to its own origin."""
    page = _blank(browser) if not context else browser.new_page(**context)
    said: list[str] = []
    asked: list[str] = []
    heard = {
        "console": lambda message: said.append(message.text) if quiet else None,
        "pageerror": lambda error: said.append(str(error)),
        "request": lambda request: asked.append(request.url),
    }
    for event, hear in heard.items():
        page.on(event, hear)  # type: ignore[call-overload] # one overload for each name
    page.goto(f"{origin}/_dedup/{view}")
    page.wait_for_selector(f"{LIVE}, #sign-in:not([hidden])")
    yield page
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    if context:
        page.close()
    else:
        _wipe(page)
    assert said == []
    assert {url for url in asked if not url.startswith(f"{origin}/_dedup/")} == set()


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a port of its own, in a thread; its origin."""
    config = uvicorn.Config(
        app, port=0, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="dashboard", daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
