"""Telling: what became of a request, and of a forward, in counters, events, logs and spans.

Law: one outcome and one reason a request, one line a flight; nothing here decides anything.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Protocol

from .events import ExecutionCollapsed, ExecutionCompleted
from .telemetry import DEBUG, requests_log

if TYPE_CHECKING:
    from .core.decide import Consider
    from .core.http import Scope
    from .core.status import Outcome, Reason
    from .dedup import Dedup
    from .flight import Flight
    from .settled import Settled
    from .telemetry import Span, Trace, Tracer


class Request(Protocol):
    """What is told of a request that a flight answered."""

    dedup: Dedup
    plan: Consider
    method: str
    scope: Scope
    key: bytes
    started: float
    started_ns: int
    status: int
    tracer: Tracer | None
    span: Span | None


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
    seconds: tuple[tuple[str, float], ...] = ()
    saved = 0.0
    if outcome == "collapsed":
        seconds = _tell_collapsed(exchange, reason, flight)
        saved = seconds[1][1]
    if outcome == "forwarded" and reason == "miss":
        exchange.plan.tally[reason].number += 1
    else:
        telemetry.count(outcome, reason, label, exchange.method, saved)
    if exchange.tracer is None:
        return
    trace: Trace | None = flight.trace
    settled: Settled | None = flight.head
    telemetry.tell(
        exchange.tracer,
        exchange.started_ns,
        outcome,
        reason,
        label,
        exchange.method,
        flight.key,
        status=exchange.status,
        route=settled.route if settled is not None else None,
        flight=trace.flight if trace is not None else None,
        link=trace.link if trace is not None and outcome == "collapsed" else None,
        head_at=head_ns,
        error=error,
        span=exchange.span,
        seconds=seconds,
        headers=exchange.scope["headers"],
    )


def _tell_collapsed(exchange: Request, reason: Reason, flight: Flight) -> tuple[tuple[str, float], ...]:
    """How long it waited and what it saved, in seconds; told to whoever wants to hear of each."""
    dedup, label = exchange.dedup, exchange.plan.label
    telemetry, now = dedup.telemetry, dedup.clock()
    waited, saved = now - exchange.started, now - flight.opened_at if flight.took is None else flight.took
    telemetry.record_wait(waited, label)
    seconds = (("waited", waited), ("saved", saved))
    if requests_log.isEnabledFor(DEBUG):
        telemetry.debug("collapsed", reason, label, seconds)
    if dedup.events.heard:
        dedup.events.publish(
            ExecutionCollapsed(
                at=time(),
                rule=label,
                key=exchange.key.hex(),
                flight=flight.generation,
                waited=waited,
                saved=saved,
                trace_id=flight.trace_id,
            )
        )
    return seconds


def tell_execution(
    dedup: Dedup,
    plan: Consider,
    flight: Flight,
    settled: Settled | None,
    method: str,
    error: str | None,
) -> None:
    """A forward that is over; `error` is what it failed with."""
    telemetry, followers, trace = dedup.telemetry, flight.followers, flight.trace
    duration = dedup.clock() - flight.opened_at
    telemetry.record_forward(duration, followers, plan.where)
    heard = dedup.events.heard
    if not followers and trace is None and not heard:
        return  # nobody wants to know more
    status = 0 if settled is None else settled.answered or settled.head.status
    if error is None and (not flight.complete or (settled is not None and settled.mangled)):
        error = "IncompleteResponse"
    failure = error or (str(status) if status >= 500 else None)
    if failure and flight.followers and (flight.waiters or error is None):
        telemetry.failed("forward", failure, plan.label, flight.followers, trace)
    if heard:
        dedup.events.publish(
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
