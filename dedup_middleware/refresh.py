"""Refresh: a stored response fetched anew while it answers (RFC 5861 s.3).

Law: one at a time for a key; it belongs to nobody's request, and what goes wrong in it concerns nobody.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Final, cast

from msgspec import structs

from .core.http import NEVER
from .core.reading import DIRECTIVES
from .core.surroundings import Part
from .flight import GRACE
from .forward import Forward
from .telemetry import where

PAUSE: Final = 1.0
"""Seconds after which one that brought nothing better is tried again."""

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Scope

    from .core.decide import Consider
    from .core.http import Headers, StoredResponse
    from .dedup import Dedup


def refresh(
    dedup: Dedup,
    app: ASGIApp,
    plan: Consider,
    scope: Scope,
    key: bytes,
    base: bytes,
    shown: frozenset[bytes],
    stored: StoredResponse,
    body: bytes,
) -> None:
    """Ask the app in the background whether `stored` still holds, unless somebody does already or has just done so.

    What was dropped while it was being sent does not: it must not stand in for an error any more.
    """
    now, loop = dedup.clock(), asyncio.get_running_loop()
    if now < stored.refresh_after or dedup.flights.find(loop, key) is not None:
        return
    if dedup.keeper.find(plan.ordinal, key, now, stale=True) is not stored:
        return
    stored.refresh_at, stored.refresh_after = NEVER, now + PAUSE
    if plan.heeds:
        scope = {**scope, "headers": _for_nobody(plan, scope["headers"], shown)}
    method, headers, client = scope["method"], scope["headers"], scope.get("client")
    plan = structs.replace(plan, where=where(plan.label, method))  # a HEAD's may ask for a GET
    try:
        work = _Refresh(
            dedup, app, plan, base, method, dict(scope), _unheard, shown, body, headers, client, stored
        )
    except Exception as error:  # noqa: BLE001 - the request has its answer
        dedup.telemetry.warn("refresh", "a refresh could not begin (%s)", type(error).__qualname__)
        return
    flight = dedup.flights.open(loop, key, plan.terms, work, now, listed=True, place=plan.place)
    if flight is None:
        return
    tracer = dedup.telemetry.tracer(dedup.clock())
    if tracer is not None:
        flight.trace = dedup.telemetry.start_forward(tracer, None, plan.label, method, key)
    flight.to_store = True
    flight.disown()  # nobody leads it, so nobody would hear its error, whose traceback holds it
    flight.launch()


def _for_nobody(plan: Consider, headers: Headers, shown: frozenset[bytes]) -> Headers:
    """The fields without what a request wanted of this cache, which was for itself (RFC 9111 s.5.2.1).

    They stay where they tell responses apart: the app sees what the key holds.
    """
    reading = plan.fingerprints.reading
    return [
        pair
        for pair in headers
        if (name := pair[0].lower()) not in DIRECTIVES or name in shown or reading.part(name) is Part.KEYED
    ]


class _Refresh(Forward):
    """A forward for nobody's request.

    Without a head after `max_wait` whoever has joined is helped as ever, and then it ends: it runs for nobody from then
    on; so its app hears of it, and is cancelled, as when the last client has gone.
    """

    def start(self) -> Awaitable[None]:
        """The app's call; until it returns, however long that takes, it is not asked again, and then after a while."""
        cast("StoredResponse", self.stored).refresh_after = NEVER
        return super().start()

    def over(self, error: str | None) -> None:
        """Tell of it, and let others ask again."""
        try:
            super().over(error)
        finally:
            cast("StoredResponse", self.stored).refresh_after = self.dedup.clock() + PAUSE

    def release(self) -> bool:
        """Help who has joined, or end it for nobody."""
        flight = self.flight
        flight.to_store = False
        if flight.waiters:
            helped = super().release()
            if helped:
                flight.loop.call_later(GRACE, self._cancel, context=Context())
            return helped
        flight.released = True
        flight.board(leader=True).leave()
        return True

    def _cancel(self) -> None:
        if self.flight.task is not None:
            self.flight.task.cancel()


async def _unheard(_message: Message) -> None:
    """Nobody waits for early hints."""
