"""The test kit: a clock that stands still, raw ASGI clients that leave and stall, apps with gates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Pairs = Iterable[tuple[bytes, bytes]]
HOST = (b"host", b"example.test")


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make_scope(
    target: str = "/", method: str = "GET", headers: Pairs = (), *, client: str = "192.0.2.1", **more: Any
) -> dict[str, Any]:
    """An http scope as a server makes it: every bytes object fresh."""
    path, _, query = target.partition("?")
    lines = [HOST, *headers] if not any(name.lower() == b"host" for name, _ in headers) else list(headers)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in lines],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


class Call:
    """One request under way: what the server saw, and what its client can do to it."""

    def __init__(self, app: Any, scope: dict[str, Any], body: bytes = b"", *, stalled: bool = False) -> None:
        self.scope = scope
        self.messages: list[Message] = []
        self.reading = asyncio.Event()
        if not stalled:
            self.reading.set()
        self.head_sent = asyncio.Event()
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head_sent.set()
        else:
            await self.reading.wait()
        if not self._gone.is_set():
            self.messages.append(message)

    def disconnect(self) -> None:
        """The client goes away; the server's task goes on (uvicorn, hypercorn, granian)."""
        self._gone.set()

    def cancel(self) -> None:
        """The server cancels the request's task (daphne, gunicorn, shutdown)."""
        self.task.cancel()

    async def done(self) -> Call:
        """Wait for the app's return; what it raised is raised here."""
        await self.task
        return self

    @property
    def started(self) -> bool:
        return bool(self.messages) and self.messages[0]["type"] == "http.response.start"

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.messages[0]["headers"])

    def header(self, name: bytes) -> bytes | None:
        """All lines of a field joined by a comma, or None."""
        lines = [value for key, value in self.headers if key.lower() == name]
        return b", ".join(lines) if lines else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        """Whether the response looks complete to its client."""
        return self.started and len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


def call(
    app: Any, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b"", **more: Any
) -> Call:
    """Send a request and do not wait for it."""
    stalled = more.pop("stalled", False)
    return Call(app, make_scope(target, method, headers, **more), body, stalled=stalled)


async def get(
    app: Any, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b"", **more: Any
) -> Call:
    """Send a request and wait for its answer."""
    return await call(app, target, method, headers, body, **more).done()


class GatedApp:
    """An app whose runs wait for a gate before they answer; it keeps every scope that it saw."""

    def __init__(
        self,
        answer: Callable[[MutableMapping[str, Any], int], tuple[int, Pairs, bytes]] | None = None,
        *,
        opened: bool = False,
    ) -> None:
        self.scopes: list[MutableMapping[str, Any]] = []
        self.gate = asyncio.Event()
        if opened:
            self.gate.set()
        self.entered = asyncio.Event()
        self._answer = answer or (lambda _, run: (200, [(b"content-type", b"text/plain")], b"run %d" % run))

    @property
    def runs(self) -> int:
        return len(self.scopes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        run = self.runs
        self.entered.set()
        await self.gate.wait()
        status, headers, body = self._answer(scope, run)
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def settle(turns: int = 20) -> None:
    """Let everything that can run now run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], turns: int = 10_000) -> None:
    """Let the loop turn until a condition holds; fail when it never does."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


Sender = Callable[[Message], Awaitable[None]]
