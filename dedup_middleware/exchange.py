"""An exchange: one request that was not a plain hit, on its way to an answer.

Law: every way out of here ends with one outcome told; no waiter leaves another waiting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from .client import Client
from .core import status as wire
from .core.assess import MISS, NOTHING_WANTED, Ask, Refuse, Serve, Wants, is_enough
from .core.callers import Caller, address_name
from .core.errors import ForwardFailed
from .core.settle import Keep
from .flight import Flight, FlightAbandonedError, Waiter, WaiterCutError, WaiterGoneError
from .forward import Forward
from .nesting import current, waiting
from .refresh import open_flight, refresh
from .serving import look_up, refuse, serve, serve_from_whole
from .telling import tell_request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from .core.decide import Consider
    from .core.http import Headers, StoredResponse
    from .core.status import Outcome, Reason
    from .dedup import Dedup
    from .settled import Settled
    from .telemetry import Span

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
        asked: Wants = NOTHING_WANTED,
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
        self.asked = asked
        self.tracer = dedup.telemetry.tracer(started)
        self.started_ns = time.time_ns() if self.tracer is not None else 0
        self.led: list[Flight] = []

    async def run(self) -> bool:
        """Answer the request; False where it must be bypassed (there are too many flights)."""
        loop = asyncio.get_running_loop()
        holder = current()
        dedup, plan = self.dedup, self.plan
        of_whole: Ask | None = MISS
        if plan.assesses and (self.method == "HEAD" or (plan.rule.follows_origin and self.method == "GET")):
            of_whole = await serve_from_whole(dedup, self.app, plan, self.scope, self.send, self.asked)
        if of_whole is None:
            return True
        try:
            for turn in range(MAX_TURNS + 1):
                alone: Reason | None = self._alone if holder is None else "nested"
                if not plan.collapses:
                    alone = alone or "not-collapsed"
                if turn == MAX_TURNS:
                    alone = alone or "max-wait"
                # One synchronous step: look up, look for a flight, or open one.
                shown = _NOTHING
                if dedup.variants.young or dedup.variants.old:
                    shown = dedup.variants.get(self.key) or _NOTHING
                key = plan.fingerprints.variant(self.key, shown, self.headers) if shown else self.key
                now, ask, stored = self.started, of_whole, None
                if turn or plan.assesses or plan.lookup is not plan.prefix:  # else it was looked for just now
                    now = dedup.clock()
                    verdict, stored = look_up(dedup, plan, key, self.asked, now)
                    if not isinstance(verdict, Ask):
                        await self._answered(verdict, stored, now, key, shown)
                        return True
                    ask = of_whole if verdict is MISS else verdict
                    if ask.alone:
                        alone = alone or ask.reason
                if alone is None and (
                    dedup.passes.young or dedup.passes.old or dedup.outgrown.young or dedup.outgrown.old
                ):
                    alone = self._marked(key, now)
                flight = None if alone else dedup.flights.find(loop, key)
                if flight is None:
                    if not self._opens(key, shown, alone, stored):
                        return False
                    reason = alone if alone is not None and ask.reason == "miss" else ask.reason
                    if holder is None:
                        led = await self._lead(self.led[-1], self._seat, reason)
                    else:
                        with waiting(holder, self.led[-1]):
                            led = await self._lead(self.led[-1], self._seat, reason)
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
        self, key: bytes, shown: frozenset[bytes], alone: Reason | None, stored: StoredResponse | None
    ) -> bool:
        dedup, plan = self.dedup, self.plan
        self.shown = shown
        runs_on = self.method not in ("GET", "HEAD", "QUERY")
        flight = open_flight(dedup, plan, self.scope, key, listed=alone is None, runs_on=runs_on)
        if flight is None:
            return False
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
            stored=stored,
            asked=self.asked,
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
        settled: Settled | None = None
        try:
            settled = await waiter.head()
            if settled is not None:
                done = not settled.vary or not self._differs(settled) or len(self.led) > MAX_TURNS
                if done:
                    line = self._line(settled, reason)
                    await self.client.send_head(settled.head, settled.head.headers, line)
                    reason = settled.passed or reason
                    await self.client.send_body(waiter)
        except (WaiterGoneError, FlightAbandonedError, WaiterCutError):
            pass  # what the app did after that counts: below
        except Exception as failure:  # noqa: BLE001 - the server's send: its client has gone, the app goes on
            lost = failure
        finally:
            waiter.leave()
        if not done:
            if settled is not None and settled.before is not None:  # the app's router has written into it
                self.scope.clear()
                self.scope.update(settled.before)
            return False
        error: BaseException | None = None
        for led in self.led:
            if not led.returned:
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
        outcome: Outcome = settled.outcome if settled is not None and not failed else "forwarded"
        if outcome == "stale":
            reason = "stale-if-error"
        self._tell(
            outcome,
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

    def _line(self, settled: Settled, reason: Reason) -> bytes:
        """Cache-Status of what this request's own forward brought."""
        kept = settled.settlement
        return wire.forwarded(
            reason,
            varied=bool(self.shown) and self.plan.rule.stores,
            status=settled.answered,
            ttl=kept.lifetime if isinstance(kept, Keep) else None,
            key=settled.variant if self.plan.rule.cache_status_key else None,
            detail="stale-if-error" if settled.outcome == "stale" else settled.passed,
        )

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
        stood_in = False
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
            if self.asked is not NOTHING_WANTED and not self._is_enough(settled):
                self._alone = "request"
                return False
            head_ns = time.time_ns() if self.tracer is not None else None
            line = wire.CONFIRMED if settled.outcome == "revalidated" else wire.COLLAPSED
            if settled.outcome == "stale":
                stood_in, line = True, wire.STOOD_IN
            if self.plan.rule.cache_status_key:
                line = wire.named(line, settled.variant)
            await self.client.send_head(settled.head, settled.head.shared, line, shared=True)
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
                if stood_in:
                    self._tell("stale", "stale-if-error", flight, head_ns=head_ns, error=error)
                else:
                    self._tell("collapsed", "in-flight", flight, head_ns=head_ns, error=error)
        return True

    def _differs(self, settled: Settled) -> bool:
        """Whether the response is another variant than this request's (RFC 9111 s.4.1)."""
        return bool(settled.vary) and (
            self.plan.fingerprints.variant(self.key, settled.vary, self.headers) != settled.variant
        )

    # -- the store ----------------------------------------------------------------------------------------------

    async def _answered(
        self,
        verdict: Serve | Refuse,
        stored: StoredResponse | None,
        now: float,
        key: bytes,
        shown: frozenset[bytes],
    ) -> None:
        """What was stored while this request was on its way, or what may answer although it is stale."""
        self._aboard = None
        if stored is None or isinstance(verdict, Refuse):
            await refuse(self.dedup, self.plan, self.scope, self.send, self.span)
            return
        if verdict.refresh:
            body = self.body or b""
            refresh(self.dedup, self.app, self.plan, self.scope, key, self.key, shown, stored, body)
        await serve(self.dedup, self.plan, self.scope, self.send, stored, now, key, verdict, span=self.span)

    def _is_enough(self, settled: Settled) -> bool:
        """Whether another request's response is young and fresh enough for this one (RFC 9111 s.5.2.1)."""
        kept = settled.settlement
        if isinstance(kept, Keep):
            return is_enough(kept.age, kept.lifetime, self.asked)
        return is_enough(settled.head.age or 0, 0.0, self.asked)

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
        tell_request(self, outcome, reason, flight, head_ns, error)
