"""Request bodies: read up to a limit, and given again to whoever runs the app.

Law: what was read is never lost: a bypass begins with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

    from .core.status import Reason

PATIENCE: Final = 1.0
"""Seconds for which a request that most likely has no body may leave open whether it has one."""


async def read_nothing(receive: Receive) -> tuple[list[Message], bytes | None, Reason | None]:
    """What `read_body` gives for a method without a body, by the first message alone.

    Under HTTP/2 no field says that there is none (RFC 9113 s.8.1: its stream ends), and a client may leave that open
    for ever: the app, which need not ask for it, does not wait.
    """
    try:
        patience = asyncio.timeout_at(asyncio.get_running_loop().time() + PATIENCE)
    except RuntimeError:  # another kind of loop, under which nothing is shared
        message = await receive()
    else:
        try:
            async with patience:
                message = await receive()
        except TimeoutError:
            if not patience.expired():
                raise  # another one's
            return [], None, "request-body"
        finally:
            del patience  # it holds the task, whose error would hold this frame: a cycle
    if message["type"] != "http.request":
        return [message], None, "disconnected"
    if message.get("body") or message.get("more_body", False):
        return [message], None, "request-body"
    return [message], b"", None


async def read_body(
    scope: Scope, receive: Receive, limit: int
) -> tuple[list[Message], bytes | None, Reason | None]:
    """The request's body up to the limit: what was read as messages, the whole body, or the doubt that forbids sharing.

    The messages themselves are not held: there may be any number of them, empty ones too.
    """
    declared: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            declared = value
    if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > limit):
        return [], None, "body-too-large" if declared.isdigit() else "body-length"
    body, read, more = b"", bytearray(), True
    while more and len(body) <= limit >= len(read):
        message = await receive()
        if message["type"] != "http.request":
            return [*_messages(bytes(read), more=True), message], None, "disconnected"
        body, more = message.get("body", b""), message.get("more_body", False)
        if more or read:
            read += body
    if read:
        body = bytes(read)
    if len(body) > limit:
        return _messages(body, more=more), None, "body-too-large"
    if declared is not None and int(declared) != len(body):
        return _messages(body, more=False), None, "body-length"
    return _messages(body, more=False), body, None


def _messages(body: bytes, *, more: bool) -> list[Message]:
    return [{"type": "http.request", "body": body, "more_body": more}] if body or not more else []


def replay(messages: list[Message], receive: Receive) -> Receive:
    """A receive that first gives what was read already."""
    waiting = iter(messages)

    async def replaying() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replaying


def again(body: bytes | None, receive: Receive) -> Receive:
    """A receive that gives the body that was read, if one was."""
    if body is None:
        return receive
    return replay([{"type": "http.request", "body": body, "more_body": False}], receive)
