"""One request's client: what it hears, and how its leaving is noticed.

Law: chunks go out as the app sent them, and a body that is not whole never ends as if it were.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .core.conditional import NOT_IN_304, not_modified
from .waiter import FlightAbandonedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from .core.answer import Answer
    from .core.decide import Consider
    from .core.http import Headers
    from .settled import Settled
    from .waiter import Waiter


class Client:
    """The server's side of an exchange, which has these fields.

    `body` is what was read of the request (None: nothing), `heard` what came while it was listened to, and `status`
    what was sent. The plan's rule says whether conditional requests are ours to answer.
    """

    __slots__ = ()
    plan: Consider
    method: str
    scope: Scope
    receive: Receive
    send: Send
    body: bytes | None
    heard: list[Message]
    sent_head: bool
    status: int

    async def listen(self) -> None:
        """Return when the client has gone; never, where that can't be heard."""
        while True:
            try:
                message = await self.receive()
            except Exception:  # noqa: BLE001 - the app might never have asked: it costs the client no answer
                break
            if message["type"] == "http.disconnect":
                return
            if self.body is not None or (self.heard and not self.heard[-1].get("more_body", False)):
                break  # one that repeats itself will never tell
            self.heard.append(message)
        await asyncio.get_running_loop().create_future()

    async def send_head(self, head: Answer, pairs: Headers, line: bytes, *, shared: bool = False) -> None:
        """Send these fields and Cache-Status; a 304 where a validator matches."""
        headers = [*pairs, (b"cache-status", line)]
        status = head.status
        if shared and head.age is None:
            headers.append((b"age", b"0"))
        if (
            (head.etag is not None or head.last_modified is not None)
            and self.plan.rule.stores
            and not_modified(self.method, status, self.scope["headers"], head.etag, head.last_modified)
        ):
            status = 304
            headers = [pair for pair in headers if pair[0].lower() not in NOT_IN_304]
        self.status, self.sent_head = status, True  # type: ignore[misc] # slots of the exchange
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        if status != head.status:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_body(self, waiter: Waiter, settled: Settled, *, whole: bool = False) -> None:
        """Send what comes, chunk by chunk as the app sent it; where it must be `whole`, never the end of a part."""
        flight, send = waiter.flight, self.send
        body, unsent = flight.body, self.status != settled.head.status
        while True:
            at = waiter.position - body.base
            if at >= len(body.chunks) or waiter.cut:
                if await waiter.next() is None:
                    return
                at = waiter.position - body.base
            chunk = body.chunks[at]
            last = flight.complete and at + 1 == len(body.chunks)
            if last and whole and settled.mangled:
                raise FlightAbandonedError
            if not unsent:
                await send({"type": "http.response.body", "body": chunk, "more_body": not last})
            body.advance(waiter)
            if last:
                return
