"""Leading: a request reads the flight that it has opened, and hears how the app ended.

Law: its call returns or raises only when the app's has; what goes wrong with its own client harms no other waiter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .core import status as wire
from .core.errors import ForwardFailed
from .core.settle import Keep
from .nesting import current, waiting
from .telling import tell_request
from .waiter import FlightAbandonedError, WaiterCutError, WaiterGoneError, turn

if TYPE_CHECKING:
    from .core.status import Reason
    from .exchange import Exchange
    from .flight import Flight
    from .forward import Forward
    from .settled import Settled
    from .waiter import Waiter

MAX_TURNS: Final = 4
"""How often a request joins, regroups or rejoins before it goes alone."""


async def lead(exchange: Exchange, flight: Flight, forward: Forward, reason: Reason) -> bool:
    """Read the flight that this request opened; False where it must regroup by Vary."""
    settled: Settled | None = None
    error: BaseException | None = None
    lost: Exception | None = None
    why = reason
    waiter = flight.board(leader=True, listen=exchange.listen)
    try:
        flight.launch()  # on board, and seen to wait: an eager task runs at once
        try:
            if flight.head is None:
                await turn()  # a quick app is done by then, and nobody needs to be woken
            settled = flight.head or await waiter.head()
            if settled is not None:
                if settled.vary and len(exchange.led) <= MAX_TURNS and exchange.differs(settled):
                    _as_asked(exchange, settled)
                    return False
                why = settled.passed or reason
                await exchange.respond(waiter, settled, _line(exchange, settled, forward, reason))
        except (WaiterGoneError, FlightAbandonedError, WaiterCutError):
            pass  # what the app did after that counts: below
        except Exception as failure:  # noqa: BLE001 - the server's send: its client has gone, the app goes on
            lost = failure
        finally:
            waiter.leave()
        if not flight.returned:
            await flight.joined()
        error = flight.error
        if len(exchange.led) > 1:
            error = await all_returned(exchange, flight)
    except asyncio.CancelledError:  # by the server: the flight goes on for the others
        stood_in = settled is not None and settled.outcome == "stale"
        _tell(exchange, "stale-if-error" if stood_in else why, flight, settled, error="CancelledError")
        lost = None  # its traceback holds this frame, too
        raise
    if error is None and lost is None and settled is not None and flight.complete and not waiter.cut:
        outcome = settled.outcome
        tell_request(exchange, outcome, "stale-if-error" if outcome == "stale" else why, flight)
        return True
    flight.error = None
    try:
        _ended_badly(exchange, flight, waiter, settled, why, error, lost)
    finally:
        del error, lost  # its traceback holds this frame: together they would keep the flight alive
    return True


def _as_asked(exchange: Exchange, settled: Settled) -> None:
    """The scope as it was asked, for it is asked again: the app's router has written into it."""
    if settled.before is not None:
        exchange.scope.clear()
        exchange.scope.update(settled.before)


async def hear_out(exchange: Exchange) -> None:
    """A request that another flight, or the store, has answered: the flights that it left are its own all the same."""
    error = await all_returned(exchange)
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: together they would keep the flight alive


async def all_returned(exchange: Exchange, flight: Flight | None = None) -> BaseException | None:
    """Wait for every flight that this request opened: its call ends when the app's have; what the first one raised.

    One that it left, for another variant, was cancelled by us, and that is of no concern; of its `flight` it is.
    """
    holder = current()
    error: BaseException | None = None
    for led in exchange.led:
        if not led.returned:
            with waiting(holder, led):
                await led.joined()
        if led is flight or not isinstance(led.error, asyncio.CancelledError):
            error = error or led.error
        led.error = None
    return error


def _ended_badly(
    exchange: Exchange,
    flight: Flight,
    waiter: Waiter,
    settled: Settled | None,
    reason: Reason,
    error: BaseException | None,
    lost: Exception | None,
) -> None:
    """Tell of a flight without a whole answer, or with a lost client, and raise what its leader is to hear."""
    if (waiter.gone or waiter.cut or lost is not None) and isinstance(error, asyncio.CancelledError):
        error = None  # a deserted flight's, our own doing: nobody cancelled this call
    failed = None if flight.complete or waiter.gone else "IncompleteResponse"
    if error is not None:
        failed = type(error).__qualname__
    cut = "SlowReader" if waiter.cut else None
    if settled is not None and settled.outcome == "stale":
        reason = "stale-if-error"
    _tell(
        exchange,
        "failed" if failed else reason,
        flight,
        None if failed else settled,
        error=failed or (type(lost).__qualname__ if lost is not None else cut),
    )
    error = error or lost
    if error is not None:
        try:
            raise error
        finally:
            del error, lost  # as where it is called
    if waiter.cut:
        raise ForwardFailed("SlowReader", None)


def _line(exchange: Exchange, settled: Settled, forward: Forward, reason: Reason) -> bytes:
    """Cache-Status of what this request's own forward brought."""
    kept, rule = settled.settlement, exchange.plan.rule
    if settled.says_nothing and reason == "miss" and not rule.cache_status_key:
        return wire.MISS
    detail: Reason | None = "stale-if-error" if settled.outcome == "stale" else settled.passed
    # What a write has overtaken before its head is not stored.
    ttl = kept.lifetime if isinstance(kept, Keep) and forward.flight.current else None
    outgrown = exchange.dedup.outgrown
    if ttl is not None and (outgrown.young or outgrown.old) and settled.head.length is None:
        until = outgrown.get(settled.variant)
        if until is not None and exchange.dedup.clock() < until:
            # It says nothing of its length, and the last one outgrew the cap: so will this one, most likely.
            ttl, detail = None, detail or "too-large"
    return wire.forwarded(
        reason,
        varied=bool(forward.shown) and rule.stores,
        status=settled.answered,
        ttl=ttl,
        key=settled.variant if rule.cache_status_key else None,
        detail=detail,
    )


def _tell(
    exchange: Exchange,
    reason: Reason,
    flight: Flight,
    settled: Settled | None = None,
    *,
    error: str | None = None,
) -> None:
    outcome = "forwarded" if settled is None else settled.outcome
    tell_request(exchange, outcome, reason, flight, error=error)
