"""One request's client: what it hears, and how its leaving is noticed.

Law: chunks go out as the app sent them, and a body that is not whole never ends as if it were.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from .core.conditional import NOT_IN_304, not_modified
from .flight import FlightAbandonedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from .core.answer import Answer
    from .core.http import Headers
    from .flight import Waiter
    from .settled import Settled


class Client:
    """The server's side of one exchange. `validates` says that conditional requests are ours to answer."""

    sent_head = False
    status = 0

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, validates: bool, body_read: bool
    ) -> None:
        self._receive = receive
        self._send = send
        self._method: str = scope["method"]
        self._headers: Headers = scope["headers"]
        self._validates = validates
        self._body_read = body_read
        self.heard: list[Message] = []

    async def listen(self) -> None:
        """Return when the client has gone."""
        while True:
            try:
                message = await self._receive()
            except Exception:  # noqa: BLE001 - a receive that fails has no client any more
                return
            if message["type"] == "http.disconnect":
                return
            if self._body_read or (self.heard and not self.heard[-1].get("more_body", False)):
                await asyncio.get_running_loop().create_future()  # one that repeats itself will never tell
            self.heard.append(message)

    async def send_head(self, head: Answer, pairs: Headers, status: bytes, *, shared: bool = False) -> None:
        """Send these fields and Cache-Status; a 304 where a validator matches."""
        headers = [*pairs, (b"cache-status", status)]
        self.status = head.status
        if shared and head.age is None:
            headers.append((b"age", b"0"))
        if (
            head.validates
            and self._validates
            and not_modified(self._method, head.status, self._headers, head.etag, head.last_modified)
        ):
            self.status = 304
            headers = [pair for pair in headers if pair[0].lower() not in NOT_IN_304]
        self.sent_head = True
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.status == 304 != head.status:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_body(self, waiter: Waiter, settled: Settled | None = None) -> None:
        """Send what comes, chunk by chunk as the app sent it; followers never end a body that is not whole."""
        flight = waiter.flight
        answered = self.status == 304 != cast("Settled", flight.head).head.status
        while True:
            chunk = await waiter.next()
            if chunk is None:
                return
            last = flight.complete and waiter.position + 1 == flight.body.end
            if settled is not None and last and settled.mangled:
                raise FlightAbandonedError
            if not answered:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})
            flight.body.advance(waiter)
            if last:
                return
