"""What a play is made of: messages to send, errors to raise, and these functions of an app's arguments.

A test pickles its script and the server's process reads it, so a step stands in a module that both can import.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..kit import Message, chunk, head


class Stage(Protocol):
    """What a step may touch of the play."""

    heard: list[str]
    sent: int

    def finish(self) -> None:
        """Let every further step through."""


Action = Callable[[Stage, Any, Any, Any], Awaitable[None]]
Step = Message | type[BaseException] | Action


async def hear(stage: Stage, scope: Any, receive: Any, send: Any) -> None:
    """Note what the server says next."""
    stage.heard.append((await receive())["type"])


async def tell_scope(stage: Stage, scope: Any, receive: Any, send: Any) -> None:
    """Answer with what the scope offers."""
    told = {"extensions": sorted(scope.get("extensions") or {}), "http": scope["http_version"]}
    await send(head(200, [(b"content-type", b"application/json")]))
    await send(chunk(json.dumps(told).encode(), more=False))


@dataclass(frozen=True)
class Upload:
    """Read the whole request and answer with its length and digest."""

    async def __call__(self, stage: Stage, scope: Any, receive: Any, send: Any) -> None:
        import hashlib

        digest, length, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            digest.update(message.get("body", b""))
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send(head())
        await send(chunk(f"{length} {digest.hexdigest()}".encode(), more=False))


def piece(number: int, size: int) -> bytes:
    """A piece of a large body; no two are alike."""
    return number.to_bytes(4, "big") * (size // 4)


@dataclass(frozen=True)
class Pieces:
    """Send so many pieces and the end; `stage.sent` counts them."""

    count: int
    size: int

    @property
    def whole(self) -> bytes:
        return b"".join(piece(number, self.size) for number in range(self.count))

    async def __call__(self, stage: Stage, scope: Any, receive: Any, send: Any) -> None:
        for number in range(self.count):
            await send(chunk(piece(number, self.size)))
            stage.sent += 1
        await send(chunk(more=False))
