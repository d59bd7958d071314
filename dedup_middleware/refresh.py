"""Refresh: a stored response fetched anew while it answers (RFC 5861 s.3).

Law: one at a time for a key; it belongs to nobody's request, and what goes wrong in it concerns nobody.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Final

from .core.callers import Caller, address_name
from .core.http import NEVER
from .flight import GRACE
from .forward import Forward

PAUSE: Final = 1.0
"""Seconds after which one that brought nothing better is tried again."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Scope

    from .core.decide import Consider
    from .core.http import StoredResponse
    from .dedup import Dedup
    from .flight import Flight


def open_flight(
    dedup: Dedup,
    plan: Consider,
    scope: Scope,
    key: bytes,
    *,
    listed: bool,
    runs_on: bool,
) -> Flight | None:
    """A flight for a request, with all that it depends on; None where there are too many."""
    # As it was asked: routers write into scopes.
    asked = {"path": scope["path"], "headers": scope["headers"], "client": scope.get("client")}
    flight = dedup.flights.open(
        asyncio.get_running_loop(),
        key,
        dedup.limits[plan.ordinal],
        lambda: (*dedup.names(asked, plan.tags), address_name(asked)),
        listed=listed,
        runs_on=runs_on,
    )
    if flight is not None:
        flight.asked = asked
        flight.place = plan.place
        flight.label = plan.label
        flight.follows_origin = plan.assesses and plan.rule.follows_origin
        flight.callers.append(Caller(asked))
    return flight


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
    """Ask the app in the background whether `stored` still holds, unless somebody does already or has just done so."""
    now = dedup.clock()
    if now < stored.refresh_after or dedup.flights.find(asyncio.get_running_loop(), key) is not None:
        return
    stored.refresh_at, stored.refresh_after = NEVER, now + PAUSE
    flight = open_flight(dedup, plan, scope, key, listed=True, runs_on=True)
    if flight is None:
        return
    stored.refresh_after = NEVER  # while it runs, however long its body takes
    tracer = dedup.telemetry.tracer(dedup.clock())
    if tracer is not None:
        flight.trace = dedup.telemetry.start_forward(tracer, None, plan.label, scope["method"], key)
    forward = Forward(
        dedup,
        app,
        plan,
        flight,
        base=base,
        leader_scope=dict(scope),
        send_early=_unheard,
        shown=shown,
        body=body,
        stored=stored,
    )
    flight.on_release = _ends(flight, flight.on_release)

    async def run() -> None:
        try:
            await forward.run()
        finally:
            stored.refresh_after = dedup.clock() + PAUSE

    flight.launch(run)


def _ends(flight: Flight, stand_in: Callable[[], bool] | None) -> Callable[[], bool]:
    """What becomes of it without a head after `max_wait`: whoever has joined is helped as ever, and then it ends.

    It runs for nobody from then on; so its app hears of it, and is cancelled, as when the last client has gone.
    """

    def cancel() -> None:
        if flight.task is not None:
            flight.task.cancel()

    def over() -> bool:
        flight.runs_on = False
        if flight.waiters:
            helped = stand_in is not None and stand_in()
            if helped:
                flight.loop.call_later(GRACE, cancel, context=Context())
            return helped
        flight.released = True
        flight.board(leader=True).leave()
        return True

    return over


async def _unheard(_message: Message) -> None:
    """Nobody waits for early hints."""
