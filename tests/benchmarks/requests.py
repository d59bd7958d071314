"""Requests as a server makes them: every text and every bytes object of a scope is new for each request.

New objects matter: bytes and str keep their hash, so a scope that is used twice makes every dict look-up look cheaper
than it is behind a server. Keys and their order are those of uvicorn's httptools protocol.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Pairs = Iterable[tuple[bytes, bytes]]
Request = tuple[Scope, Receive]

# One connection's peers: a server makes them once a connection.
_CLIENT = ("192.0.2.1", 50_000)
_SERVER = ("127.0.0.1", 8000)

FIVE: Pairs = [
    (b"host", b"127.0.0.1:8000"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"python-httpx/0.28.1"),
]
"""What httpx sends."""

_CHROME: list[tuple[bytes, bytes]] = [
    (b"host", b"127.0.0.1:8000"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (b"upgrade-insecure-requests", b"1"),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        b"accept",
        b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    ),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9,de;q=0.8"),
]
_COOKIE = b"session=4f1c9a7be05d4c6f8a1e2b3c4d5e6f70; theme=dark; sidebar=open"
_ANALYTICS = b"; _ga=GA1.1.1234567890.1700000000; _ga_ABCDEF1234=GS1.1.1700000000.1.1.1700000100.0.0.0"

BROWSER: Pairs = [*_CHROME, (b"cookie", _COOKIE)]
"""A browser's fifteen, a Cookie among them."""
BROWSER_ANALYTICS: Pairs = [*_CHROME, (b"cookie", _COOKIE + _ANALYTICS)]


def new(data: bytes) -> bytes:
    """An equal bytes object that has never been hashed."""
    return bytes(bytearray(data))


async def receive_nothing() -> Message:
    """The receive of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send_nowhere(message: Message) -> None:
    """A client that takes everything at once."""


def make(
    method: str = "GET", path: bytes = b"/data", query: bytes = b"", headers: Pairs = FIVE, body: bytes = b""
) -> Request:
    """One request: its scope, and its receive."""
    raw_path = new(path)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": b"1.1".decode("ascii"),
        "server": _SERVER,
        "client": _CLIENT,
        "scheme": "http",
        "root_path": "",
        "headers": [(new(name), new(value)) for name, value in headers],
        "state": {},
        "method": method.encode().decode("ascii"),
        "path": raw_path.decode("ascii"),
        "raw_path": raw_path,
        "query_string": new(query),
    }
    return scope, (_receiver(new(body)) if body else receive_nothing)


def _receiver(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def json_headers(size: int) -> Pairs:
    """Seven headers: httpx's five and a JSON body's two."""
    return [*FIVE, (b"content-type", b"application/json"), (b"content-length", b"%d" % size)]


_QUERY = {
    "query": "status of the editors",
    "page": 1,
    "limit": 50,
    "fuzzy": True,
    "weight": 0.75,
    "filters": [{"field": f"field{i}", "operator": "equals", "value": f"value {i}"} for i in range(14)],
    "order": ["name", "-changed"],
}


def search(mark: str = "") -> bytes:
    """A JSON body of about 1 KiB; another one for another mark."""
    return json.dumps({**_QUERY, "mark": mark}).encode()


def respelled(body: bytes, number: int) -> bytes:
    """The same JSON in other bytes of the same length for every number (below 2**20): tabs among its white space."""
    pieces = body.split(b", ")
    spaces = (b"\t" if number >> i & 1 else b" " for i in range(len(pieces) - 1))
    return b"".join(piece + b"," + space for piece, space in zip(pieces, spaces, strict=False)) + pieces[-1]
