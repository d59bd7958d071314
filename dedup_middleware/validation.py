"""Validation: an app asked whether what is stored still holds, and its answer as a whole response (RFC 9111 s.4.3).

Law: what comes out is the app's own response, the stored one that it confirmed, or, where that may stand in for an
error, the stored one as it is; never a 304 that nobody asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .core import freshness
from .core.answer import read_answer
from .core.conditional import CONDITIONAL, confirms, updated, validators
from .core.http import first
from .telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Send

    from .core.http import Headers, StoredResponse


class Validation:
    """An ASGI app around an app, for one flight.

    `stored` is what lies under the flight's key; `allowed` says, when it is asked, whether it may stand in for an
    error; `rewind` makes `receive` begin anew; `age` tells its age in seconds. `answered` is the app's own status where
    another one went out, `failed` what it raised where a stored response stood in; `dated` says that the head's Date is
    of now, `said` which fields a 304 had of its own, `tagged` that the entity tag is ours.
    """

    outcome: Literal["forwarded", "revalidated", "stale"] = "forwarded"
    answered: int | None = None
    failed: str | None = None
    dated = True
    tagged = False
    said: frozenset[bytes] = frozenset()
    _asks = True
    _silent = False
    _again = False
    _started = False

    def __init__(
        self,
        app: ASGIApp,
        stored: StoredResponse,
        *,
        allowed: Callable[[], bool],
        age: Callable[[], float],
        rewind: Callable[[], None],
    ) -> None:
        self._app = app
        self.stored = stored
        self._allowed = allowed
        self._age = age
        self._rewind = rewind

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Run the app, conditionally where something can be confirmed; again without where it confirms another."""
        self._send = send
        stored = self.stored
        asked: Headers = []
        if scope["method"] in CONDITIONAL:
            asked = validators(stored.given_etag, stored.last_modified)
        headers: Headers = scope["headers"]
        before = dict(scope)
        try:
            scope["headers"] = [*headers, *asked]
            await self._app(scope, receive, self._hear)
            if self._again and not self._started:  # unless it stood in meanwhile: then nobody waits for more
                self._asks = self._silent = False
                scope.clear()
                scope.update(before)
                self._rewind()
                await self._app(scope, receive, self._hear)
        except Exception as error:
            if self._started or not self._allowed():
                if self.outcome == "stale":
                    log.error("an app failed after a stored response stood in for it", exc_info=error)
                    return
                raise
            self.failed = type(error).__qualname__
            log.error("an app failed; a stored response stands in for it", exc_info=error)
            await self.stand_in()

    async def stand_in(self) -> None:
        """Send the stored response as it is, if nothing has been sent yet; what the app says from now on is unheard."""
        if self._started:
            return
        self.outcome = "stale"
        age = (b"age", b"%d" % self._age())
        await self._send_stored([*self.stored.head.headers, age])

    @property
    def may_stand_in(self) -> bool:
        """Whether the stored response may go out now instead of an error, or of waiting any longer."""
        return not self._started and self._allowed()

    async def _hear(self, message: Message) -> None:
        """What the app sends."""
        if self._silent:
            return
        if message["type"] == "http.response.start" and not self._started:
            if message["status"] == 304 and self._asks:
                await self._confirmed(message)
                return
            if message["status"] in freshness.ERRORS and self._allowed():
                self.answered = message["status"]
                await self.stand_in()
                return
            self._started = True
        await self._send(message)

    async def _confirmed(self, message: Message) -> None:
        stored = self.stored
        update = read_answer(304, message.get("headers", ()), "GET")
        if not confirms(stored.given_etag, stored.last_modified, update.etag, update.last_modified):
            self._silent = self._again = True
            return
        self.outcome, self.answered, self.dated = "revalidated", 304, update.date is not None
        self.said = frozenset(name.lower() for name, _ in update.headers)
        self.tagged = stored.own_etag and first(update.headers, b"etag") is None
        await self._send_stored(updated(stored, update.headers))

    async def _send_stored(self, headers: Headers) -> None:
        self._started = self._silent = True
        start = {"type": "http.response.start", "status": self.stored.head.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": self.stored.body, "more_body": False})
