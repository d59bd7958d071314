"""The race of the peers, run by `tests.benchmarks.peers` in an environment where they are installed.

Each peer answers the same GET of 1 KiB from its own memory. A decorator stands on a FastAPI endpoint, a middleware
around a raw callable, as each one's own documentation has it. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from fastapi import FastAPI, Response

from dedup_middleware import Rule

from .apps import HOUR, KIB, deduplicated, raw, starlette
from .contenders import Contender, ask
from .race import race
from .requests import BROWSER, FIVE, App, Message, Pairs, Receive, Scope, Send, make

DATA = json.loads(KIB)
NUMBER = 2000
"""Requests a round of what is cheap; a peer answers fewer."""


class Counted:
    """A raw callable of 1 KiB that says how long it may be kept, and how often it ran."""

    def __init__(self) -> None:
        self.runs = 0
        headers = [
            (b"content-length", b"%d" % len(KIB)),
            (b"content-type", b"application/json"),
            (b"cache-control", b"public, max-age=%d" % HOUR),
        ]
        self._start: Message = {"type": "http.response.start", "status": 200, "headers": headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.runs += 1
        await send(self._start)
        await send({"type": "http.response.body", "body": KIB, "more_body": False})


class Peer:
    """An app with a peer in it, and how often what it should spare ran."""

    def __init__(self, app: App, runs: Callable[[], int]) -> None:
        self.app = app
        self.runs = runs


def _endpoint(decorator: Callable[[Any], Any], *, response: bool = False) -> Peer:
    """A FastAPI app whose one endpoint is decorated; `response` lets it return a Response, made once a run."""
    runs = [0]

    async def data() -> dict[str, Any]:
        runs[0] += 1
        return dict(DATA)

    async def data_response() -> Response:
        runs[0] += 1
        return Response(KIB, media_type="application/json")

    app = FastAPI()
    app.get("/data")(decorator(data_response if response else data))
    return Peer(app, lambda: runs[0])


def _around(wrap: Callable[[App], App]) -> Peer:
    inner = Counted()
    return Peer(wrap(inner), lambda: inner.runs)


async def bare_fastapi() -> Peer:
    return Peer(_endpoint(lambda endpoint: endpoint).app, lambda: 0)


async def asgi_caches() -> Peer:
    cache = import_module("caches").Cache("locmem://peers", ttl=HOUR)
    await cache.connect()
    middleware = import_module("asgi_caches.middleware").CacheMiddleware
    return _around(lambda app: middleware(app, cache=cache))


async def starlette_caches() -> Peer:
    cache = import_module("aiocache").Cache(ttl=HOUR)
    middleware = import_module("starlette_caches.middleware").CacheMiddleware
    return _around(lambda app: middleware(app, cache=cache))


def _fastapi_cache2() -> Callable[..., Any]:
    backend = import_module("fastapi_cache.backends.inmemory").InMemoryBackend()
    import_module("fastapi_cache").FastAPICache.init(backend, prefix="peers")
    cache: Callable[..., Any] = import_module("fastapi_cache.decorator").cache
    return cache


async def fastapi_cache2() -> Peer:
    return _endpoint(_fastapi_cache2()(expire=HOUR))


async def fastapi_cache2_pickle() -> Peer:
    coder = import_module("fastapi_cache.coder").PickleCoder
    return _endpoint(_fastapi_cache2()(expire=HOUR, coder=coder, namespace="pickle"), response=True)


async def fastapi_cachex() -> Peer:
    backend = import_module("fastapi_cachex.backends").MemoryBackend()
    import_module("fastapi_cachex").BackendProxy.set(backend)
    return _endpoint(import_module("fastapi_cachex").cache(ttl=HOUR))


def _cashews() -> Any:
    cache = import_module("cashews").Cache()
    cache.setup("mem://")
    return cache(ttl="1h")


async def cashews() -> Peer:
    return _endpoint(_cashews())


async def cashews_response() -> Peer:
    return _endpoint(_cashews(), response=True)


async def _hishel(**options: Any) -> Peer:
    connection = await import_module("anysqlite").connect(":memory:")
    storage = import_module("hishel").AsyncSqliteStorage(connection=connection, default_ttl=HOUR)
    middleware = import_module("hishel.asgi").ASGICacheMiddleware
    return _around(lambda app: middleware(app, storage=storage, **options))


async def hishel() -> Peer:
    return await _hishel()


async def hishel_without_rfc() -> Peer:
    return await _hishel(rfc=False)


PEERS: dict[str, tuple[str, Callable[[], Awaitable[Peer]]]] = {
    "asgi-caches": ("asgi-caches", asgi_caches),
    "starlette-caches": ("starlette-caches", starlette_caches),
    "fastapi-cache2": ("fastapi-cache2", fastapi_cache2),
    "fastapi-cache2, PickleCoder and a Response": ("fastapi-cache2", fastapi_cache2_pickle),
    "fastapi-cachex": ("fastapi-cachex", fastapi_cachex),
    "cashews": ("cashews", cashews),
    "cashews, endpoint returns a Response": ("cashews", cashews_response),
    "hishel (SQLite in memory)": ("hishel", hishel),
    "hishel, rfc=False (SQLite in memory)": ("hishel", hishel_without_rfc),
}
"""By line of the table: the package, and what makes it."""


def _fresh(headers: Pairs = FIVE) -> Callable[[], Any]:
    return lambda: make(headers=headers)


def ours(number: int) -> list[Contender]:
    """What the peers are compared with."""
    rule = Rule(ttl=HOUR)
    return [
        Contender("L0", number, raw(), _fresh()),
        Contender("L1", max(1, number // 2), starlette(), _fresh()),
        Contender("dedup-middleware", number, deduplicated(raw(), default=rule), _fresh(), outcome="hit"),
        Contender(
            "dedup-middleware, a browser's 15 headers",
            number,
            deduplicated(raw(), default=rule),
            _fresh(BROWSER),
            outcome="hit",
        ),
    ]


async def check(peer: Peer) -> None:
    """Warm it up, and see that it answers from what it keeps."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for _ in range(3):
        await ask(peer.app, make())
    before = peer.runs()
    scope, receive = make()
    await peer.app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == 200, f"status {sent[0]['status']}"
    assert json.loads(body) == DATA, "not the app's answer"
    assert peer.runs() == before, "it does not answer from what it keeps"


async def measure(rounds: int, scale: float) -> dict[str, Any]:
    """Microseconds a request by contender and round; and why some are not there."""
    number = max(4, int(NUMBER * scale))
    field = ours(number)
    for contender in field:
        for _ in range(3):
            await ask(contender.app, contender.fresh())
    failed: dict[str, str] = {}
    checked: dict[str, tuple[Peer, int]] = {}
    for name, make_peer in {"L2": bare_fastapi, **{name: made for name, (_, made) in PEERS.items()}}.items():
        try:
            peer = await make_peer()
            await check(peer)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is told
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        field.append(Contender(name, max(4, number // 8), peer.app, _fresh()))
        checked[name] = peer, peer.runs()
    times = await race(field, rounds, lambda _: None)
    for name, (peer, before) in checked.items():
        if peer.runs() != before:
            failed[name] = f"ran its app {peer.runs() - before} times during the race"
            del times[name]
    return {"times": times, "failed": failed}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), float(sys.argv[2])))))
