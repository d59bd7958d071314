"""Telling: what became of a request, and of a forward, in counters, events, logs and spans.

Law: one outcome and one reason a request, one line a flight; nothing here decides anything.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Protocol

from .events import ExecutionCollapsed, ExecutionCompleted
from .telemetry import DEBUG, Told, requests_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.decide import Consider
    from .core.http import Scope
    from .core.status import Outcome, Reason
    from .events import Events
    from .flight import Flight
    from .settled import Settled
    from .telemetry import Span, Telemetry, Tracer


class Engine(Protocol):
    """What is asked of the engine whose flights are told of."""

    telemetry: Telemetry
    events: Events
    clock: Callable[[], float]


class Request(Protocol):
    """What is told of a request that a flight answered."""

    plan: Consider
    method: str
    scope: Scope
    key: bytes
    started: float
    started_ns: int
    status: int
    tracer: Tracer | None
    span: Span | None

    @property
    def dedup(self) -> Engine:
        """The engine of the middleware that it came to."""


def tell_request(
    exchange: Request,
    outcome: Outcome,
    reason: Reason,
    flight: Flight,
    head_ns: int | None = None,
    error: str | None = None,
) -> None:
    """A request that a flight answered; `head_ns` is when it had its head."""
    label, telemetry = exchange.plan.label, exchange.dedup.telemetry
    if outcome == "forwarded" and reason == "miss" and exchange.tracer is None:
        exchange.plan.tally[reason].number += 1  # the same, without looking for it
        return
    told = Told(outcome, reason, label, exchange.method, flight.key, exchange.status)
    told.head_at, told.error = head_ns, error
    settled: Settled | None = flight.head
    if settled is not None:
        told.route = settled.route
    if outcome == "collapsed":
        tell_collapsed(exchange.dedup, told, flight, exchange.key, exchange.started)
    elif flight.trace is not None:
        told.flight = flight.trace.flight
    telemetry.count(outcome, reason, label, exchange.method, told.saved or 0.0)
    if exchange.tracer is not None:
        telemetry.tell(exchange.tracer, exchange.started_ns, told, exchange.scope["headers"], exchange.span)


def tell_collapsed(engine: Engine, told: Told, flight: Flight, key: bytes, started: float) -> None:
    """How long who came at `started` has waited, and what that saved; also to those who want to hear of each."""
    telemetry, trace, now = engine.telemetry, flight.trace, engine.clock()
    told.waited = waited = now - started
    told.saved = saved = now - flight.opened_at if flight.took is None else flight.took
    if trace is not None:
        told.flight, told.link = trace.flight, trace.link
    telemetry.record_wait(waited, told.label)
    if requests_log.isEnabledFor(DEBUG):
        telemetry.debug(told)
    if engine.events.heard:
        engine.events.publish(
            ExecutionCollapsed(
                at=time(),
                rule=told.label,
                key=key.hex(),
                flight=flight.generation,
                waited=waited,
                saved=saved,
                trace_id=flight.trace_id,
            )
        )


def tell_execution(
    engine: Engine,
    plan: Consider,
    flight: Flight,
    settled: Settled | None,
    method: str,
    error: str | None,
) -> None:
    """A forward that is over; `error` is what it failed with."""
    telemetry, followers, trace = engine.telemetry, flight.followers, flight.trace
    duration = engine.clock() - flight.opened_at
    telemetry.record_forward(duration, followers, plan.where)
    heard = engine.events.heard
    if not followers and trace is None and not heard:
        return  # nobody wants to know more
    status = 0 if settled is None else settled.answered or settled.head.status
    if error is None and (not flight.complete or (settled is not None and settled.mangled)):
        error = "IncompleteResponse"
    failure = error or (str(status) if status >= 500 else None)
    if failure and flight.followers and (flight.waiters or error is None):
        telemetry.failed("forward", failure, plan.label, flight.followers, trace)
    if heard:
        engine.events.publish(
            ExecutionCompleted(
                at=time(),
                rule=plan.label,
                key=flight.key.hex(),  # type: ignore[attr-defined] # the table's keys are anything, ours are digests
                flight=flight.generation,
                duration=duration,
                followers=flight.followers,
                bytes=flight.total,
                method=method,
                status=status,
                error=failure,
                route=settled.route if settled is not None else None,
                trace_id=flight.trace_id,
            )
        )
    if trace is not None:
        telemetry.end_forward(
            trace,
            plan.label,
            method,
            flight.key,
            flight.followers,
            status=status,
            route=settled.route if settled is not None else None,
            error=error,
        )
