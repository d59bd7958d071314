"""The test kit of HTTP caching: an origin that answers as told, behind the middleware, on a clock that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .kit import Call, FakeClock, Pairs, call

Answer = tuple[int, dict[str, str], bytes] | Exception
WALL = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
"""The Date of what is made when a test begins."""


def ok(body: bytes = b"one", **fields: str) -> Answer:
    """A 200; `cache_control="max-age=60"` is that field."""
    return 200, named(fields), body


def unchanged(**fields: str) -> Answer:
    """A 304."""
    return 304, named(fields), b""


def error(status: int = 503, **fields: str) -> Answer:
    """An answer that says that something went wrong."""
    return status, named(fields), b"broken"


def named(fields: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


class Origin:
    """An app that reads its request and answers with what comes next; the last answer is that of all later runs.

    While it is held, runs wait before they answer. `requests` are their header fields, `bodies` what they read.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.scopes: list[MutableMapping[str, Any]] = []
        self.requests: list[dict[bytes, bytes]] = []
        self.bodies: list[bytes] = []
        self.cancelled = 0
        self._gate = asyncio.Event()
        self._gate.set()

    @property
    def runs(self) -> int:
        return len(self.requests)

    def then(self, *answers: Answer) -> None:
        """What comes next, from now on."""
        self.answers = list(answers)

    def hold(self) -> None:
        """Runs wait from now on."""
        self._gate.clear()

    def release(self) -> None:
        """Let all runs answer."""
        self._gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.requests.append(dict(scope["headers"]))
        self.bodies.append((await receive())["body"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        status, fields, body = answer
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": content, "more_body": False})


class Site:
    """An origin behind the middleware; `advance` moves both clocks, that of the engine and that on the wall."""

    def __init__(
        self,
        make_dedup: Callable[..., Dedup],
        clock: FakeClock,
        rule: Rule,
        *answers: Answer,
        rules: Iterable[Rule] = (),
        **settings: Any,
    ) -> None:
        self.clock = clock
        self.origin = Origin(*answers)
        self.dedup = make_dedup(rule, *rules, **settings)
        began = clock.now
        self.dedup.wall = lambda: WALL + clock.now - began
        self.app = DedupMiddleware(self.origin, dedup=self.dedup)

    def call(self, target: str = "/x", method: str = "GET", headers: Pairs = (), **more: Any) -> Call:
        """Send a request and do not wait for it."""
        return call(self.app, target, method, headers, **more)

    async def get(self, target: str = "/x", method: str = "GET", headers: Pairs = (), **more: Any) -> Call:
        """Send a request and wait for its answer."""
        return await self.call(target, method, headers, **more).done()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def said(self, outcome: str) -> int:
        """How many requests ended so."""
        return self.dedup.stats().requests[outcome]


def status_of(answer: Call) -> str:
    """Its Cache-Status."""
    return (answer.header(b"cache-status") or b"").decode()
