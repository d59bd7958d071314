"""The soak's app: every answer says what it answers to, whom, and as of which write, and can be checked byte for byte.

A write of a key counts its version up half-way through; whatever is read of a key names the version as of the beginning
of its work. An answer that is older than a finished write has come from where it should have been dropped.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from typing import Any

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .requests import Receive, Scope, Send
from .served import Service

WORK = 0.005
"""Seconds that the backend works for an answer."""
PIECE = 16 * 1024
PAUSE = 0.002
"""Seconds between the pieces of a stream."""
LARGE = 1024 * 1024
STORE = 8 * 1024 * 1024

RULES = (
    Rule("/item/{key}", methods=["POST"], name="write", invalidates=["item:{key}"]),
    Rule(
        "/item/{key}", ttl=60, name="item", identity="shared", vary=["accept-language"], tags=["item:{key}"]
    ),
    Rule("/me/{key}", ttl=20, identity="credentials", tags=["item:{key}"]),
    Rule("/live/{key}", tags=["item:{key}"]),
    Rule("/stream/{key}", tags=["item:{key}"]),
    Rule("/large/{key}", tags=["item:{key}"], max_response_body=128 * 1024),
    Rule("/report/{key}", mode="off"),
)

_NAMES = {"item": b"accept-language", "me": b"authorization"}
"""What an answer depends on besides the target."""

Compute = Callable[[str, Callable[[], Awaitable[bytes]]], Awaitable[bytes]]


def size_of(kind: str, key: int) -> int:
    """How long an answer is: most about 1 KiB, some 16 KiB, streams 64 KiB, the large ones 1 MiB."""
    if kind == "large":
        return LARGE
    if kind == "stream":
        return 64 * 1024
    return 16 * 1024 if key % 10 == 7 else 600 + key % 900


def pieces_of(kind: str, key: int, version: int, who: str) -> Iterator[bytes]:
    """The one right answer: a line that says what it is, and a filling that belongs to no other answer.

    In small pieces: a body made whole would leave holes in the server's memory that hide what the engine keeps.
    """
    line = f"{kind} {key} {version} {who}\n".encode()
    left = size_of(kind, key) - len(line)
    filling = blake2b(line, digest_size=32).hexdigest().encode()
    piece = filling * (min(PIECE, left) // len(filling) + 1)
    yield line
    while left > 0:
        yield piece[:left]
        left -= len(piece)


def body_of(kind: str, key: int, version: int, who: str) -> bytes:
    """The same in one."""
    return b"".join(pieces_of(kind, key, version, who))


class Backend:
    """The bare app. `compute` shares the work of a report, where something does."""

    def __init__(self, compute: Compute | None = None) -> None:
        self.versions: dict[int, int] = {}
        self.compute = compute
        self.runs = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        _, kind, name = scope["path"].split("/")
        key = int(name)
        if scope["method"] == "POST":
            await _answer(send, await self._write(key))
        elif kind in {"stream", "large"}:
            await _stream(send, pieces_of(kind, key, await self._version(key), "-"))
        elif kind == "report" and self.compute is not None:
            await _answer(send, await self.compute(name, lambda: self._read(kind, key, "-")))
        else:
            headers = dict(scope["headers"])
            await _answer(send, await self._read(kind, key, headers.get(_NAMES.get(kind), b"-").decode()))

    async def _read(self, kind: str, key: int, who: str) -> bytes:
        return body_of(kind, key, await self._version(key), who)

    async def _version(self, key: int) -> int:
        """As of the beginning of the work."""
        self.runs += 1
        version = self.versions.get(key, 0)
        await asyncio.sleep(WORK)
        return version

    async def _write(self, key: int) -> bytes:
        await asyncio.sleep(WORK / 2)
        version = self.versions[key] = self.versions.get(key, 0) + 1
        await asyncio.sleep(WORK / 2)
        return b"%d" % version


async def _answer(send: Send, content: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(content)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _stream(send: Send, pieces: Iterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body"})


async def _lifespan(receive: Receive, send: Send) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


def bare() -> Service:
    """The reference."""
    backend = Backend()
    return Service(backend, {"engine": lambda: {"runs": backend.runs}})


def deduplicated() -> Service:
    """The same app behind the middleware."""
    dedup = Dedup(RULES, store=f"memory://?max_bytes={STORE}")

    def report(name: str, work: Callable[[], Awaitable[bytes]]) -> Awaitable[bytes]:
        return dedup.call(("report", name), work, ttl=5, tags=[f"item:{name}"])

    backend = Backend(report)

    def emptied() -> dict[str, Any]:
        dedup.clear()
        gc.collect()
        return engine_figures(dedup, backend)

    routes = {"engine": lambda: engine_figures(dedup, backend), "emptied": emptied}
    return Service(DedupMiddleware(backend, dedup=dedup), routes)


def engine_figures(dedup: Dedup, backend: Backend) -> dict[str, Any]:
    """What the engine holds."""
    stats, table = dedup.stats(), dedup.flights
    return {
        "runs": backend.runs,
        "flights": stats.flights,
        "listed": not table.is_empty,
        "buffered": table.budget.used,
        "bytes": stats.bytes,
        "responses": stats.responses,
        "evicted": stats.evicted,
        "expired": stats.expired,
        "invalidated": stats.invalidated,
        "outcomes": stats.requests,
    }
