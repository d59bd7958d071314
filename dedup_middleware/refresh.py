"""Refresh: a stored response fetched anew while it answers (RFC 5861 s.3).

Law: one at a time for a key; it belongs to nobody's request, and what goes wrong in it concerns nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .core.callers import Caller, address_name
from .core.http import NEVER
from .forward import Forward

PAUSE: Final = 1.0
"""Seconds after which one that brought nothing better is tried again."""

if TYPE_CHECKING:
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
    names = dedup.names(scope, plan.tags)
    flight = dedup.flights.open(
        asyncio.get_running_loop(),
        key,
        dedup.limits[plan.ordinal],
        (*names, address_name(scope)),
        listed=listed,
        runs_on=runs_on,
    )
    if flight is not None:
        flight.stored_names = names
        flight.place = plan.place
        flight.label = plan.label
        flight.follows_origin = plan.rule.follows_origin
        flight.callers.append(Caller(scope))
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
    flight.launch(forward.run)


async def _unheard(_message: Message) -> None:
    """Nobody waits for early hints."""
