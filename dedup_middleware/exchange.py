"""An exchange: one request that was not a plain hit, on its way to an answer.

Law: every way out of here ends with one outcome told; no waiter leaves another waiting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from .calls import inside
from .core import status as wire
from .core.decide import Consider, Keep, not_modified
from .core.errors import ForwardFailed
from .core.http import Head, Headers, StoredResponse, first
from .flight import Flight, FlightAbandonedError, Limits, Waiter, WaiterCutError, WaiterGoneError
from .forward import Forward, Settled, forward_name
from .hit import NOT_IN_304, answer, tell
from .telemetry import Attributes, Span, Telemetry, log, span_name

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from .core.status import Outcome, Reason
    from .dedup import Dedup

MAX_TURNS: Final = 4
"""How often a request joins, regroups or rejoins before it goes alone."""


class Exchange:
    """One request's conversation with the table, a flight and its own client."""

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
        self.receive = receive
        self.send = send
        self.key = key
        self.body = body
        self.method: str = scope["method"]
        self.headers: Headers = scope["headers"]
        self.started = started
        self.tracer = dedup.telemetry.tracer(started)
        self.started_ns = time.time_ns() if self.tracer is not None else 0
        self.span: Span | None = None
        self.led: list[Flight] = []
        self.sent_head = False
        self.status = 0
        self._alone: Reason | None = None
        self._heard_body = body is not None

    async def run(self) -> bool:
        """Answer the request; False where it must be bypassed (there are too many flights)."""
        loop = asyncio.get_running_loop()
        nested = inside.get() is not None
        try:
            for turn in range(MAX_TURNS + 1):
                alone: Reason | None = "nested" if nested else self._alone
                if not self.plan.collapses:
                    alone = alone or "not-collapsed"
                if turn == MAX_TURNS:
                    alone = alone or "max-wait"
                # One synchronous step: look up, look for a flight, or open one.
                dedup, now = self.dedup, self.dedup.clock()
                shown = dedup.variants.get(self.key) or frozenset()
                key = self.plan.fingerprints.variant(self.key, shown, self.headers) if shown else self.key
                stored = dedup.store.get(self.plan.ordinal, key, now)
                if stored is not None:
                    await self._serve(cast("StoredResponse", stored), now, key)
                    return True
                alone = alone or self._marked(key, now)
                flight = None if alone else dedup.flights.find(loop, key)
                if flight is None:
                    if not self._opens(loop, key, shown, alone):
                        return False
                    if await self._lead(self.led[-1], alone or "miss"):
                        return True
                elif await self._follow(flight):
                    return True
            raise AssertionError(
                "unreachable: the last turn is alone"
            )  # pragma: no cover - see the range above
        finally:
            if self.span is not None:
                self.span.end()

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
        dedup, plan, rule = self.dedup, self.plan, self.plan.rule
        limits = Limits(float(rule.max_wait), rule.max_followers, rule.max_response_body)
        names = dedup.names(self.scope, plan.tags)
        flight = dedup.flights.open(
            loop,
            key,
            limits,
            (*names, dedup.caller(self.scope)),
            listed=alone is None,
            runs_on=self.method not in ("GET", "HEAD", "QUERY"),
        )
        if flight is None:
            return False
        flight.stored_names = names
        if self.tracer is not None:
            if self.span is None:
                name = span_name("forwarded", None, plan.label, self.method)
                self.span = Telemetry.start_request(self.tracer, name, self.started_ns)
            flight.trace = Telemetry.start_forward(
                self.tracer,
                forward_name(None, plan.label, self.method),
                self.span,
                {"dedup.rule": plan.label, "dedup.key": key.hex(), "http.request.method": self.method},
            )
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
        flight.launch(forward.run)
        return True

    async def _lead(self, flight: Flight, reason: Reason) -> bool:
        """Read the flight that this request opened; False where it must regroup by Vary."""
        waiter = flight.board(leader=True, listen=self.listen)
        done = True
        try:
            settled: Settled | None = await waiter.head()
            if settled is not None:
                if flight.trace is not None and flight.trace.span.is_recording():
                    flight.trace.span.add_event("head")
                done = not self._differs(settled) or len(self.led) > MAX_TURNS
                if done:
                    reason = settled.passed or reason
                    await self._send_head(settled.head, self._forward_status(settled, reason))
                    await self._send_body(waiter)
        except (WaiterGoneError, FlightAbandonedError, WaiterCutError):
            pass  # what the app did after that counts: below
        finally:
            waiter.leave()
        if not done:
            return False
        error: BaseException | None = None
        for led in self.led:
            await led.joined()
            error, led.error = led.error, None
        self._tell("forwarded", "failed" if error is not None else reason, flight)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: together they would keep the flight alive
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
            self.dedup.flights.add_name(flight, self.dedup.caller(self.scope))
        waiter = flight.board(leader=False, listen=self.listen)
        head_ns: int | None = None
        error = False
        try:
            settled: Settled | None = await waiter.head()
            if settled is None:
                if not self.plan.rule.share_errors:
                    self._alone = "failed"
                    return False
                error = True
                raise ForwardFailed(
                    flight.error_type or "IncompleteResponse", flight.trace.trace_id if flight.trace else None
                )
            if settled.passed is not None:
                self._alone = settled.passed if settled.passed == "server-error" else "hit-for-miss"
                return False
            if self._differs(settled):
                return False
            head_ns = time.time_ns() if self.tracer is not None else None
            error = settled.head.status >= 500
            await self._send_head(settled.shared, wire.COLLAPSED)
            try:
                await self._send_body(waiter, settled)
            except (FlightAbandonedError, WaiterCutError) as end:
                error = True
                kind = (
                    "SlowReader"
                    if isinstance(end, WaiterCutError)
                    else flight.error_type or "IncompleteResponse"
                )
                raise ForwardFailed(kind, flight.trace.trace_id if flight.trace else None) from None
        except FlightAbandonedError:
            return False
        except WaiterGoneError:
            pass
        finally:
            waiter.leave()
            if self.sent_head or error or waiter.gone:
                self._tell("collapsed", "in-flight", flight, head_ns=head_ns, error=error)
        return True

    def _differs(self, settled: Settled) -> bool:
        """Whether the response is another variant than this request's (RFC 9111 s.4.1)."""
        return (
            bool(settled.vary)
            and settled.passed is None
            and (self.plan.fingerprints.variant(self.key, settled.vary, self.headers) != settled.variant)
        )

    # -- the client ---------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Return when the client has gone."""
        heard = self._heard_body
        while True:
            try:
                message = await self.receive()
            except Exception:  # noqa: BLE001 - a receive that fails has no client any more
                return
            if message["type"] == "http.disconnect":
                return
            if heard:  # a receive that repeats itself will never tell
                await asyncio.get_running_loop().create_future()
            heard = not message.get("more_body", False)

    async def _send_head(self, head: Head, status: bytes) -> None:
        headers = [*head.headers, (b"cache-status", status)]
        self.status = head.status
        if status is wire.COLLAPSED and first(head.headers, b"age") is None:
            headers.append((b"age", b"0"))
        rule = self.plan.rule
        if rule.stores and not_modified(
            self.method,
            head.status,
            self.headers,
            first(head.headers, b"etag"),
            first(head.headers, b"last-modified"),
        ):
            self.status = 304
            headers = [pair for pair in headers if pair[0].lower() not in NOT_IN_304]
        self.sent_head = True
        await self.send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.status == 304 != head.status:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, waiter: Waiter, settled: Settled | None = None) -> None:
        """Send what comes, chunk by chunk as the app sent it; followers never end a body that is not whole."""
        flight = waiter.flight
        answered = self.status == 304 != cast("Settled", flight.head).head.status
        while True:
            chunk = await waiter.next()
            if chunk is None:
                return
            last = flight.complete and waiter.position + 1 == flight.body.end
            if settled is not None and last and settled.mangled:
                raise FlightAbandonedError
            if not answered:
                await self.send({"type": "http.response.body", "body": chunk, "more_body": not last})
            flight.body.advance(waiter)
            if last:
                return

    async def _serve(self, stored: StoredResponse, now: float, key: bytes) -> None:
        """What was stored while this request was on its way."""
        start, content, reason = answer(self.scope, stored, now)
        await self.send(start)
        await self.send({"type": "http.response.body", "body": content, "more_body": False})
        tell(self.dedup, self.plan, self.method, stored, now, key, start["status"], reason)

    # -- the outcome --------------------------------------------------------------------------------------------

    def _tell(
        self,
        outcome: Outcome,
        reason: Reason,
        flight: Flight,
        *,
        head_ns: int | None = None,
        error: bool = False,
    ) -> None:
        dedup, plan = self.dedup, self.plan
        now = dedup.clock()
        collapsed = outcome == "collapsed"
        saved = now - flight.opened_at if collapsed else 0.0
        dedup.telemetry.count(outcome, reason, plan.label, self.method, saved)
        if collapsed:
            dedup.telemetry.record_wait(now - self.started, plan.label)
            if log.isEnabledFor(10):
                log.debug("collapsed", extra={"dedup_rule": plan.label, "dedup_waited": now - self.started})
        if self.tracer is None:
            return
        trace, settled = flight.trace, cast("Settled | None", flight.head)
        attributes: Attributes = {
            "dedup.outcome": outcome,
            "dedup.reason": reason,
            "dedup.rule": plan.label,
            "dedup.key": cast("bytes", flight.key).hex(),
            "http.request.method": self.method,
        }
        route = settled.route if settled is not None else None
        if route is not None:
            attributes["http.route"] = route
        if self.status:
            attributes["http.response.status_code"] = self.status
        if trace is not None and trace.flight is not None:
            attributes["dedup.flight"] = trace.flight
        name = span_name(outcome, route, plan.label, self.method)
        if collapsed:
            attributes["dedup.waited"] = round(now - self.started, 6)
            attributes["dedup.saved"] = round(saved, 6)
        if self.span is not None:
            failed = flight.error_type if error or flight.error_type else None
            if self.span.is_recording():
                Telemetry.end(
                    self.span, name, attributes, failed or (str(self.status) if self.status >= 500 else None)
                )
            return
        link = trace.context if trace is not None else None
        Telemetry.request_span(self.tracer, name, self.started_ns, attributes, link, head_ns, error)
