"""One request's client: what it hears, and how its leaving is noticed.

Law: chunks go out as the app sent them, and a body that is not whole never ends as if it were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.conditional import not_modified, of_304
from .core.http import BY_COOKIE
from .scopes import session_was_read
from .waiter import FlightAbandonedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from .core.decide import Consider
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

    async def listen(self) -> bool:
        """Wait until the client has gone; False as soon as that can't be heard."""
        while True:
            try:
                message = await self.receive()
            except Exception:  # noqa: BLE001 - the app might never have asked: it costs the client no answer
                return False
            if message["type"] == "http.disconnect":
                return True
            if self.body is not None or (self.heard and not self.heard[-1].get("more_body", False)):
                return False  # one that repeats itself will never tell
            self.heard.append(message)

    async def respond(self, waiter: Waiter, settled: Settled, line: bytes) -> None:
        """Send what the waiter's flight brings, chunk by chunk as the app sent it, and this Cache-Status.

        A 304 where a validator matches. A follower never gets the end of what is not whole.

        Raises:
            FlightAbandonedError, WaiterCutError, WaiterGoneError: as `Waiter.next`.
        """
        flight, send, head = waiter.flight, self.send, settled.head
        status, shared = head.status, not waiter.leader
        headers = [*(head.shared if shared else head.headers), (b"cache-status", line)]
        if shared and head.age is None:
            headers.append((b"age", b"0"))
        if settled.of_session and (shared or not session_was_read(self.scope)):
            headers.append(BY_COOKIE)
        if (
            (head.etag is not None or head.last_modified is not None)
            and self.plan.rule.stores
            and not_modified(self.method, status, self.scope["headers"], head.etag, head.last_modified)
        ):
            status = 304
            headers = of_304(headers, head.etag)
        self.status, self.sent_head = status, True  # type: ignore[misc] # slots of the exchange
        await send({"type": "http.response.start", "status": status, "headers": headers})
        unsent = status != head.status
        if unsent:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        while True:
            at = waiter.position - flight.base
            if at >= len(flight.chunks) or waiter.cut:
                if await waiter.next() is None:
                    return
                at = waiter.position - flight.base
            chunk = flight.chunks[at]
            last = flight.complete and at + 1 == len(flight.chunks)
            if last and shared and settled.mangled:
                raise FlightAbandonedError
            if not unsent:
                await send({"type": "http.response.body", "body": chunk, "more_body": not last})
            flight.advance(waiter)
            if last:
                return
