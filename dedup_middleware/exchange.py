"""An exchange: one request that was not a plain hit, on its way to an answer.

Law: every way out of here ends with one outcome told; no waiter leaves another waiting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from .client import Client
from .core import status as wire
from .core.callers import Caller, address_name
from .core.decide import Consider, Keep
from .core.errors import ForwardFailed
from .events import ExecutionCollapsed
from .flight import Flight, FlightAbandonedError, Waiter, WaiterCutError, WaiterGoneError
from .forward import Forward, Settled
from .hit import answer, tell
from .nesting import current, waiting
from .telemetry import DEBUG, requests_log

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from .core.http import Headers, StoredResponse
    from .core.status import Outcome, Reason
    from .dedup import Dedup
    from .telemetry import Span, Tally, Trace

MAX_TURNS: Final = 4
"""How often a request joins, regroups or rejoins before it goes alone."""


_NOTHING: Final[frozenset[bytes]] = frozenset()


class Exchange:
    """One request's conversation with the table, a flight and its own client."""

    span: Span | None = None
    _alone: Reason | None = None
    _gave_up = False
    _aboard: tuple[Outcome, Reason, Flight] | None = None

    def __init__(
        self,
        dedup: Dedup,
        app: ASGIApp,
        plan: Consider,
        scope: Scope,
        receive: Receive,
        send: Send,
        key: bytes,
        body: bytes | None,
        started: float,
    ) -> None:
        self.dedup = dedup
        self.app = app
        self.plan = plan
        self.scope = scope
        self.send = send
        self.client = Client(scope, receive, send, validates=plan.rule.stores, body_read=body is not None)
        self.key = key
        self.body = body
        self.method: str = scope["method"]
        self.headers: Headers = scope["headers"]
        self.started = started
        self.tracer = dedup.telemetry.tracer(started)
        self.started_ns = time.time_ns() if self.tracer is not None else 0
        self.led: list[Flight] = []

    async def run(self) -> bool:
        """Answer the request; False where it must be bypassed (there are too many flights)."""
        loop = asyncio.get_running_loop()
        holder = current()
        try:
            for turn in range(MAX_TURNS + 1):
                alone: Reason | None = self._alone if holder is None else "nested"
                if not self.plan.collapses:
                    alone = alone or "not-collapsed"
                if turn == MAX_TURNS:
                    alone = alone or "max-wait"
                # One synchronous step: look up, look for a flight, or open one.
                dedup, shown = self.dedup, _NOTHING
                if dedup.variants.young or dedup.variants.old:
                    shown = dedup.variants.get(self.key) or _NOTHING
                key = self.plan.fingerprints.variant(self.key, shown, self.headers) if shown else self.key
                now = self.started
                if turn or self.plan.lookup is not self.plan.prefix:  # else it was looked for just now
                    now = dedup.clock()
                    try:
                        stored = dedup.store.get(self.plan.ordinal, key, now)
                    except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises
                        dedup.store_failed("get", error)
                        stored = None
                    if stored is not None:
                        await self._serve(cast("StoredResponse", stored), now, key)
                        return True
                if alone is None and (
                    dedup.passes.young or dedup.passes.old or dedup.outgrown.young or dedup.outgrown.old
                ):
                    alone = self._marked(key, now)
                flight = None if alone else dedup.flights.find(loop, key)
                if flight is None:
                    if not self._opens(loop, key, shown, alone):
                        return False
                    if holder is None:
                        led = await self._lead(self.led[-1], self._seat, alone or "miss")
                    else:
                        with waiting(holder, self.led[-1]):
                            led = await self._lead(self.led[-1], self._seat, alone or "miss")
                    if led:
                        return True
                elif await self._follow(flight):
                    return True
            raise AssertionError(
                "unreachable: the last turn is alone"
            )  # pragma: no cover - see the range above
        except asyncio.CancelledError:  # by the server: the flight goes on for the others
            if self._aboard is not None:
                self._tell(*self._aboard, error="CancelledError")
            raise

    def _marked(self, key: bytes, now: float) -> Reason | None:
        """Whether a mark says that this key's responses can't be shared (hit-for-miss)."""
        for marks, reason in ((self.dedup.passes, "hit-for-miss"), (self.dedup.outgrown, "too-large")):
            until = marks.get(key)
            if until is not None:
                if now < until:
                    return cast("Reason", reason)
                marks.discard(key)
        return None

    # -- lead ---------------------------------------------------------------------------------------------------

    def _opens(
        self, loop: asyncio.AbstractEventLoop, key: bytes, shown: frozenset[bytes], alone: Reason | None
    ) -> bool:
        dedup, plan = self.dedup, self.plan
        names = dedup.names(self.scope, plan.tags)
        flight = dedup.flights.open(
            loop,
            key,
            dedup.limits[plan.ordinal],
            (*names, address_name(self.scope)),
            listed=alone is None,
            runs_on=self.method not in ("GET", "HEAD", "QUERY"),
        )
        if flight is None:
            return False
        flight.stored_names = names
        flight.place = plan.place
        flight.label = plan.label
        flight.callers.append(Caller(self.scope))
        if self.tracer is not None:
            telemetry, label = dedup.telemetry, plan.label
            if self.span is None:
                self.span = telemetry.start_request(
                    self.tracer, "forwarded", label, self.method, self.started_ns, self.headers
                )
            flight.trace = telemetry.start_forward(self.tracer, self.span, label, self.method, key)
        self.led.append(flight)
        forward = Forward(
            dedup,
            self.app,
            plan,
            flight,
            base=self.key,
            leader_scope=self.scope,
            send_early=self.send,
            shown=shown,
            body=self.body or b"",
        )
        self._seat = flight.board(leader=True, listen=self.client.listen)
        self._work = forward.run
        return True

    async def _lead(self, flight: Flight, waiter: Waiter, reason: Reason) -> bool:
        """Read the flight that this request opened; False where it must regroup by Vary."""
        self._aboard = "forwarded", reason, flight
        flight.launch(self._work)  # on board, and seen to wait: an eager task runs at once
        del self._work
        done, lost = True, None
        try:
            settled: Settled | None = await waiter.head()
            if settled is not None:
                done = not settled.vary or not self._differs(settled) or len(self.led) > MAX_TURNS
                if done:
                    reason = settled.passed or reason
                    await self.client.send_head(
                        settled.head, settled.head.headers, self._forward_status(settled, reason)
                    )
                    await self.client.send_body(waiter)
        except (WaiterGoneError, FlightAbandonedError, WaiterCutError):
            pass  # what the app did after that counts: below
        except Exception as failure:  # noqa: BLE001 - the server's send: its client has gone, the app goes on
            lost = failure
        finally:
            waiter.leave()
        if not done:
            return False
        error: BaseException | None = None
        for led in self.led:
            await led.joined()
            # One that this request left for another variant was cancelled by us, and its answer is of no concern.
            if led is flight or not isinstance(led.error, asyncio.CancelledError):
                error = error or led.error
            led.error = None
        if waiter.gone and isinstance(error, asyncio.CancelledError):
            error = None  # a deserted flight's, our own doing: nobody cancelled this call
        failed = None if flight.complete or waiter.gone else "IncompleteResponse"
        if error is not None:
            failed = type(error).__qualname__
        cut = "SlowReader" if waiter.cut else None
        self._tell(
            "forwarded",
            "failed" if failed else reason,
            flight,
            error=failed or (type(lost).__qualname__ if lost is not None else cut),
        )
        error = error or lost
        if error is not None:
            try:
                raise error
            finally:
                del error, lost  # its traceback holds this frame: together they would keep the flight alive
        if waiter.cut:
            raise ForwardFailed("SlowReader", None)
        return True

    @staticmethod
    def _forward_status(settled: Settled, reason: Reason) -> bytes:
        return wire.forwarded(reason, stored=isinstance(settled.settlement, Keep))

    # -- follow -------------------------------------------------------------------------------------------------

    async def _follow(self, flight: Flight) -> bool:
        """Read another request's flight; False where its response is not for this one."""
        if self.plan.rule.identity != "separate":
            flight.callers.append(Caller(self.scope))
            self.dedup.flights.add_name(flight, address_name(self.scope))
        self._aboard = "collapsed", "in-flight", flight
        waiter = flight.board(leader=False, listen=self.client.listen)
        head_ns: int | None = None
        error: str | None = None
        try:
            settled: Settled | None = await waiter.head()
            if settled is None:
                if not self.plan.rule.share_errors:
                    self._alone = "failed"
                    return False
                error = flight.error_type or "IncompleteResponse"
                trace_id = flight.trace.trace_id if flight.trace else None
                raise ForwardFailed(error, trace_id)  # noqa: TRY301 - told below
            if settled.passed is not None:
                self._alone = settled.passed if settled.passed == "server-error" else "hit-for-miss"
                return False
            if settled.vary and self._differs(settled):
                return False
            head_ns = time.time_ns() if self.tracer is not None else None
            await self.client.send_head(settled.head, settled.head.shared, wire.COLLAPSED)
            try:
                await self.client.send_body(waiter, settled)
            except (FlightAbandonedError, WaiterCutError) as end:
                cut = isinstance(end, WaiterCutError)
                error = "SlowReader" if cut else flight.error_type or "IncompleteResponse"
                raise ForwardFailed(error, flight.trace.trace_id if flight.trace else None) from None
        except FlightAbandonedError:
            if self._gave_up:  # a second time
                self._alone = "max-wait"
            self._gave_up = True
            return False
        except WaiterGoneError:
            pass
        except BaseException as failure:  # cancelled, or the client's send has failed
            error = error or type(failure).__qualname__
            raise
        finally:
            waiter.leave()
            if self.client.sent_head or error or waiter.gone:
                self._tell("collapsed", "in-flight", flight, head_ns=head_ns, error=error)
        return True

    def _differs(self, settled: Settled) -> bool:
        """Whether the response is another variant than this request's (RFC 9111 s.4.1)."""
        return (
            bool(settled.vary)
            and settled.passed is None
            and (self.plan.fingerprints.variant(self.key, settled.vary, self.headers) != settled.variant)
        )

    # -- the store ----------------------------------------------------------------------------------------------

    async def _serve(self, stored: StoredResponse, now: float, key: bytes) -> None:
        """What was stored while this request was on its way."""
        start, content, reason = answer(self.scope, stored, now)
        self._aboard = None
        try:
            await self.send(start)
            await self.send({"type": "http.response.body", "body": content, "more_body": False})
        finally:
            tally: Tally = self.plan.tally[reason]
            tally.number += 1
            tally.saved += stored.seconds
            stored.hits += 1
            if not stored.noted:
                self.dedup.note(self.plan.label, key, stored)
            tell(self.dedup, self.plan, self.scope, stored, now, key, start["status"], reason, self.span)

    # -- the outcome --------------------------------------------------------------------------------------------

    def _tell(
        self,
        outcome: Outcome,
        reason: Reason,
        flight: Flight,
        *,
        head_ns: int | None = None,
        error: str | None = None,
    ) -> None:
        self._aboard = None
        dedup, plan, telemetry = self.dedup, self.plan, self.dedup.telemetry
        now = dedup.clock()
        seconds: tuple[tuple[str, float], ...] = ()
        saved = 0.0
        if outcome == "collapsed":
            saved = now - flight.opened_at if flight.took is None else flight.took
            seconds = (("waited", now - self.started), ("saved", saved))
            telemetry.record_wait(now - self.started, plan.label, flight.loop.call_soon)
            if requests_log.isEnabledFor(DEBUG):
                telemetry.debug(outcome, reason, plan.label, seconds)
        telemetry.count(outcome, reason, plan.label, self.method, saved)
        trace: Trace | None = flight.trace
        if outcome == "collapsed" and dedup.events.heard:
            dedup.events.publish(
                ExecutionCollapsed(
                    at=time.time(),
                    rule=plan.label,
                    key=self.key.hex(),
                    flight=flight.generation,
                    waited=now - self.started,
                    saved=saved,
                    trace_id=trace.trace_id if trace is not None else None,
                )
            )
        if self.tracer is None:
            return
        settled: Settled | None = flight.head
        telemetry.tell(
            self.tracer,
            self.started_ns,
            outcome,
            reason,
            plan.label,
            self.method,
            flight.key,
            status=self.client.status,
            route=settled.route if settled is not None else None,
            flight=trace.flight if trace is not None else None,
            link=trace.context if trace is not None and outcome == "collapsed" else None,
            head_at=head_ns,
            error=error,
            span=self.span,
            seconds=seconds,
            headers=self.headers,
        )
