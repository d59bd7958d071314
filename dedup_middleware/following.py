"""Following: a request reads a flight that another one has opened.

Law: it gets what it may have of the response, whole or as an error; else it asks anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .core import status as wire
from .core.callers import Caller
from .core.errors import ForwardFailed
from .core.targets import address_name
from .telling import tell_request
from .waiter import FlightAbandonedError, WaiterCutError, WaiterGoneError

if TYPE_CHECKING:
    from .core.http import StoredResponse
    from .core.status import Reason
    from .exchange import Exchange
    from .flight import Flight
    from .settled import Settled


async def follow(
    exchange: Exchange, flight: Flight, stored: StoredResponse | None, reason: Reason, *, varied: bool
) -> bool:
    """Read another request's flight; False where its response is not for this one.

    `reason` is why what is `stored` did not answer this one, `varied` that only another variant was stored.
    """
    if exchange.plan.rule.identity != "separate":
        flight.callers.append(Caller.of(exchange.scope))
        exchange.dedup.flights.add_name(flight, address_name(exchange.scope))
    waiter = flight.board(leader=False, listen=exchange.listen)
    head_ns: int | None = None
    error: str | None = None
    stood_in = False
    try:
        settled: Settled | None = await waiter.head()
        if (settled is None or settled.failed) and flight.current and exchange.bears(stored):
            exchange.gave_up = True  # what its leader did not want instead of an error this one may have
            return False
        if settled is None:
            if not exchange.plan.rule.share_errors:
                exchange.alone = "unshared-error"
                return False
            error = flight.error_type or "IncompleteResponse"
            raise ForwardFailed(error, flight.trace_id)  # noqa: TRY301 - told below
        if settled.passed is not None:
            exchange.alone = "unshared-error" if settled.passed == "server-error" else "hit-for-miss"
            return False
        if settled.outdated or (settled.vary and exchange.differs(settled)):
            return False
        if not exchange.is_satisfied(settled):
            if settled.stand_in is None or exchange.gave_up:
                exchange.alone = "request"
            else:
                exchange.gave_up = True  # those for whom nothing stands in ask together, once
            return False
        head_ns = time.time_ns() if exchange.tracer is not None else None
        stood_in = settled.outcome == "stale"
        line = wire.collapsed(reason, varied=varied, detail="stale-if-error" if stood_in else None)
        if exchange.plan.rule.cache_status_key:
            line = wire.named(line, settled.variant)
        try:
            await exchange.respond(waiter, settled, line)
        except (FlightAbandonedError, WaiterCutError) as end:
            cut = isinstance(end, WaiterCutError)
            error = "SlowReader" if cut else flight.error_type or "IncompleteResponse"
            raise ForwardFailed(error, flight.trace_id) from None
    except FlightAbandonedError:
        if exchange.gave_up:  # a second time
            exchange.alone = "max-wait"
        exchange.gave_up = True
        return False
    except WaiterGoneError:
        pass
    except BaseException as failure:  # cancelled, or the client's send has failed
        error = error or type(failure).__qualname__
        raise
    finally:
        waiter.leave()
        if exchange.sent_head or error or waiter.gone:
            if stood_in:
                tell_request(exchange, "stale", "stale-if-error", flight, head_ns, error)
            else:
                tell_request(exchange, "collapsed", "in-flight", flight, head_ns, error)
    return True
