"""Turns: the way of one request that was not a plain hit: look up, join, open, and again where that was in vain.

Law: every way out of here ends with one outcome told; no waiter leaves another waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from .bypass import bypass
from .core.assess import MISS, STANDS_IN, Ask, Refuse, Serve
from .core.http import SAFE_METHODS
from .core.shape import NO_SHAPE
from .following import follow
from .forward import Forward
from .incoming import again, replay
from .leading import MAX_TURNS, all_returned, hear_out, lead
from .nesting import current, waiting
from .refresh import refresh
from .serving import look_up, refuse, serve, serve_another

if TYPE_CHECKING:
    from .core.http import StoredResponse
    from .core.status import Reason
    from .dedup import Dedup
    from .exchange import Exchange
    from .flight import Flight, Loop
    from .telemetry import Tracer

_NOTHING: Final[frozenset[bytes]] = frozenset()
_TURNS: Final = (*range(MAX_TURNS + 1),)


async def run(exchange: Exchange) -> None:
    """Answer the request."""
    loop = _begin(exchange)
    if isinstance(loop, str):
        await _alone(exchange, loop)
        return
    plan, of_whole = exchange.plan, MISS
    if plan.assesses and (
        exchange.method == "HEAD" or (exchange.method == "GET" and plan.rule.follows_origin)
    ):
        why = await serve_another(exchange)
        if why is None:
            return
        of_whole = why
    try:
        for turn in _TURNS:
            if await _turn(exchange, loop, turn, of_whole):
                return
    except BaseException as failure:
        try:
            if isinstance(failure, Exception):
                await all_returned(exchange)
        finally:
            for led in exchange.led:  # where it was cancelled, one may yet fail
                led.disown()
        raise
    raise AssertionError("unreachable: the last turn is alone")  # pragma: no cover - see the range above


def _begin(exchange: Exchange) -> Loop | Reason:
    """The loop in which it waits, or why it can share nothing; what only this way of a request needs is found out."""
    dedup, plan = exchange.dedup, exchange.plan
    if exchange.asked.no_store:
        return "no-store"
    if plan.lookup is not plan.prefix:
        own = plan.fingerprints.key_below(plan.prefix, exchange.scope, None)  # a HEAD's, whose body is none
        if not isinstance(own, bytes):
            return own  # the rule's identity function has changed its mind
        exchange.key = own
    telemetry = dedup.telemetry
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        telemetry.warn("event-loop", "not an asyncio event loop: every request is bypassed")
        return "event-loop"
    if telemetry.found is not None or exchange.started >= telemetry.look_again:
        exchange.find_tracer()
    if current() is not None:
        exchange.alone = "nested"
    elif not plan.collapses:
        exchange.alone = "not-collapsed"
    return loop


async def _turn(exchange: Exchange, loop: Loop, turn: int, of_whole: Ask) -> bool:
    """Look once; whether the request is answered. `of_whole` is why the response to a GET of the whole is no answer."""
    dedup, plan, alone = exchange.dedup, exchange.plan, exchange.alone
    if turn == MAX_TURNS:
        alone = alone or "max-wait"
    # One synchronous step: look up, look for a flight, or open one.
    key, shown = exchange.key, _NOTHING
    if dedup.variants.young or dedup.variants.old:
        key, shown = dedup.variant(plan, key, exchange.scope["headers"], loop)
    now, ask, stored = exchange.started, of_whole, None
    if turn or plan.assesses or plan.lookup is not plan.prefix:  # else it was looked for just now
        now, exchange.shape = dedup.clock(), NO_SHAPE  # who has waited may find another scope
        verdict, stored = look_up(dedup, plan, key, exchange.asked, now)
        if exchange.gave_up and isinstance(verdict, Ask) and exchange.bears(stored):
            verdict = STANDS_IN
        if not isinstance(verdict, Ask):
            await _answered(exchange, verdict, stored, now, key, shown)
            await hear_out(exchange)
            return True
        # Of the whole there may be more to tell than that nothing is stored under this one's own key.
        ask = verdict if of_whole is MISS or verdict.reason != "miss" else of_whole
        if ask.alone:
            alone = alone or ask.reason
    if alone is None and (
        dedup.passes.young or dedup.passes.old or dedup.outgrown.young or dedup.outgrown.old
    ):
        alone = _marked(dedup, key, now)
    flight = None if alone else dedup.flights.find(loop, key)
    if flight is not None:
        varied = bool(shown) and plan.rule.stores
        if not await follow(exchange, flight, stored, ask.reason, varied=varied):
            return False
        await hear_out(exchange)
        return True
    forward = Forward(
        dedup,
        exchange.app,
        plan,
        exchange.key,
        exchange.method,
        exchange.scope,
        exchange.send,
        shown,
        exchange.body or b"",
        exchange.scope["headers"],
        exchange.scope.get("client"),
        stored,
        exchange.asked,
        exchange.shape,
    )  # before its flight is there: what outer layers left in the scope may not bear to be looked at
    flight = dedup.flights.open(
        loop,
        key,
        plan.terms,
        forward,
        now,
        listed=alone is None,
        runs_on=exchange.method not in SAFE_METHODS,
        place=plan.place,
    )
    if flight is None:
        await _alone(exchange, "too-many-flights")
        await hear_out(exchange)
        return True
    if exchange.tracer is not None:
        _trace(exchange, exchange.tracer, flight)
    exchange.led.append(flight)
    reason = alone if alone is not None and ask.reason == "miss" else ask.reason
    if exchange.alone != "nested":
        return await lead(exchange, flight, forward, reason)
    with waiting(current(), flight):
        return await lead(exchange, flight, forward, reason)


async def _alone(exchange: Exchange, reason: Reason) -> None:
    """Pass the request by, with what was read of it or came while it was listened to."""
    heard, receive = exchange.heard, exchange.receive
    rest = replay(heard, receive) if heard else again(exchange.body, receive)
    await bypass(
        exchange.dedup,
        exchange.app,
        exchange.plan,
        reason,
        exchange.scope,
        rest,
        exchange.send,
        exchange.span,
    )


def _marked(dedup: Dedup, key: bytes, now: float) -> Reason | None:
    """Whether a mark says that this key's responses can't be shared (hit-for-miss)."""
    for marks, reason in ((dedup.passes, "hit-for-miss"), (dedup.outgrown, "too-large")):
        until = marks.get(key)
        if until is not None:
            if now < until:
                return cast("Reason", reason)
            marks.discard(key)
    return None


def _trace(exchange: Exchange, tracer: Tracer, flight: Flight) -> None:
    """The flight's own span, below its leader's."""
    telemetry, label, method = exchange.dedup.telemetry, exchange.plan.label, exchange.method
    if exchange.span is None:
        exchange.span = telemetry.start_request(
            tracer, "forwarded", label, method, exchange.started_ns, exchange.scope["headers"]
        )
    flight.trace = telemetry.start_forward(tracer, exchange.span, label, method, flight.key)


async def _answered(
    exchange: Exchange,
    verdict: Serve | Refuse,
    stored: StoredResponse | None,
    now: float,
    key: bytes,
    shown: frozenset[bytes],
) -> None:
    """What was stored while this request was on its way, or what may answer although it is stale."""
    if stored is None or isinstance(verdict, Refuse):
        await refuse(exchange.dedup, exchange.plan, exchange.scope, exchange.send, exchange.span)
        return
    if verdict.refresh:
        body = exchange.body or b""
        refresh(
            exchange.dedup,
            exchange.app,
            exchange.plan,
            exchange.scope,
            key,
            exchange.key,
            shown,
            stored,
            body,
        )
    await serve(
        exchange.dedup,
        exchange.plan,
        exchange.scope,
        exchange.send,
        stored,
        now,
        key,
        verdict,
        span=exchange.span,
    )
