"""An exchange: one request that was not a plain hit, on its way to an answer.

Law: every way out of here ends with one outcome told; no waiter leaves another waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, cast

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .client import Client
from .core import status as wire
from .core.assess import MISS, NOTHING_WANTED, Ask, Refuse, Serve, Wants, is_enough
from .core.callers import Caller
from .core.decide import Consider
from .core.errors import ForwardFailed
from .core.settle import Keep
from .core.status import Reason
from .core.targets import address_name
from .dedup import Dedup
from .flight import Flight
from .forward import Forward
from .nesting import current, waiting
from .refresh import open_flight, refresh
from .serving import look_up, refuse, serve, serve_from_whole
from .telemetry import Span, Tracer
from .telling import tell_request
from .waiter import FlightAbandonedError, Waiter, WaiterCutError, WaiterGoneError

if TYPE_CHECKING:
    from .core.http import StoredResponse
    from .settled import Settled

MAX_TURNS: Final = 4
"""How often a request joins, regroups or rejoins before it goes alone."""


_NOTHING: Final[frozenset[bytes]] = frozenset()
_BY_ITSELF: Final = contextlib.nullcontext()


class Exchange(Client, msgspec.Struct, eq=False):
    """One request's conversation with the table, a flight and its own client.

    `key` is its fingerprint, before variants are told apart, `started` when it came, `asked` what it wants of a stored
    response, `tracer` who records its spans. `led` are the flights that it opened.
    """

    dedup: Dedup
    app: ASGIApp
    plan: Consider
    scope: Scope
    receive: Receive
    send: Send
    key: bytes
    body: bytes | None
    started: float
    asked: Wants = NOTHING_WANTED
    tracer: Tracer | None = None
    started_ns: int = 0
    span: Span | None = None
    led: list[Flight] = []
    heard: list[Message] = []
    sent_head: bool = False
    status: int = 0
    _alone: Reason | None = None
    _gave_up: bool = False

    __repr__ = object.__repr__  # a request is nobody's to read in a log

    async def run(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Answer the request; False where it must be bypassed (there are too many flights)."""
        dedup, plan, holder = self.dedup, self.plan, current()
        method = self.scope["method"]
        tracer = dedup.telemetry.tracer(self.started)
        if tracer is not None:
            self.tracer, self.started_ns = tracer, time.time_ns()
        of_whole = MISS
        if plan.assesses and (method == "HEAD" or (method == "GET" and plan.rule.follows_origin)):
            why = await serve_from_whole(dedup, self.app, plan, self.scope, self.send, self.asked)
            if why is None:
                return True
            of_whole = why
        apart: Reason | None = None if plan.collapses else "not-collapsed"
        if holder is not None:
            apart = "nested"
        for turn in range(MAX_TURNS + 1):
            alone = apart
            if turn:
                alone = apart if apart == "nested" else self._alone or apart
                if turn == MAX_TURNS:
                    alone = alone or "max-wait"
            # One synchronous step: look up, look for a flight, or open one.
            key, shown = self.key, _NOTHING
            if dedup.variants.young or dedup.variants.old:
                shown = dedup.variants.get(key) or _NOTHING
                if shown:
                    key = plan.fingerprints.variant(key, shown, self.scope["headers"])
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
            if flight is not None:
                if await self._follow(flight):
                    return True
                continue
            runs_on = method not in ("GET", "HEAD", "QUERY")
            flight = open_flight(dedup, plan, self.scope, key, listed=alone is None, runs_on=runs_on)
            if flight is None:
                return False
            forward = self._forward(flight, shown, stored)
            reason = alone if alone is not None and ask.reason == "miss" else ask.reason
            with _BY_ITSELF if holder is None else waiting(holder, flight):
                if await self._lead(flight, forward, reason):
                    return True
        raise AssertionError("unreachable: the last turn is alone")  # pragma: no cover - see the range above

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

    def _forward(self, flight: Flight, shown: frozenset[bytes], stored: StoredResponse | None) -> Forward:
        """What the flight runs."""
        if self.tracer is not None:
            telemetry, label, method = self.dedup.telemetry, self.plan.label, self.scope["method"]
            if self.span is None:
                self.span = telemetry.start_request(
                    self.tracer, "forwarded", label, method, self.started_ns, self.scope["headers"]
                )
            flight.trace = telemetry.start_forward(self.tracer, self.span, label, method, flight.key)
        self.led.append(flight)
        return Forward(
            self.dedup,
            self.app,
            self.plan,
            flight,
            self.key,
            self.scope,
            self.send,
            shown,
            self.body or b"",
            stored,
            self.asked,
        )

    async def _lead(self, flight: Flight, forward: Forward, reason: Reason) -> bool:
        """Read the flight that this request opened; False where it must regroup by Vary."""
        settled: Settled | None = None
        error: BaseException | None = None
        lost: Exception | None = None
        why = reason
        waiter = flight.board(leader=True, listen=self.listen)
        try:
            flight.launch(forward)  # on board, and seen to wait: an eager task runs at once
            try:
                settled = await waiter.head()
                if settled is not None:
                    if settled.vary and len(self.led) <= MAX_TURNS and self._differs(settled):
                        self._as_asked(settled)
                        return False
                    head = settled.head
                    await self.send_head(head, head.headers, self._line(settled, forward, reason))
                    why = settled.passed or reason
                    await self.send_body(waiter, settled)
            except (WaiterGoneError, FlightAbandonedError, WaiterCutError):
                pass  # what the app did after that counts: below
            except Exception as failure:  # noqa: BLE001 - the server's send: its client has gone, the app goes on
                lost = failure
            finally:
                waiter.leave()
            if not flight.returned:
                await flight.joined()
            error = flight.error
            if len(self.led) > 1:
                error = await self._first_error(flight)
        except asyncio.CancelledError:  # by the server: the flight goes on for the others
            self._tell(reason, flight, error="CancelledError")
            raise
        if error is None and lost is None and settled is not None and flight.complete and not waiter.cut:
            self._tell("stale-if-error" if settled.outcome == "stale" else why, flight, settled)
            return True
        flight.error = None
        try:
            self._ended_badly(flight, waiter, settled, why, error, lost)
        finally:
            del error, lost  # its traceback holds this frame: together they would keep the flight alive
        return True

    def _as_asked(self, settled: Settled) -> None:
        """The scope as it was asked, for it is asked again: the app's router has written into it."""
        if settled.before is not None:
            self.scope.clear()
            self.scope.update(settled.before)

    async def _first_error(self, flight: Flight) -> BaseException | None:
        """Wait for the flights that this request left for another variant, too; what the first failed one raised."""
        error: BaseException | None = None
        for led in self.led:
            if not led.returned:
                await led.joined()
            # One that was left was cancelled by us, and its answer is of no concern.
            if led is flight or not isinstance(led.error, asyncio.CancelledError):
                error = error or led.error
            led.error = None
        return error

    def _ended_badly(
        self,
        flight: Flight,
        waiter: Waiter,
        settled: Settled | None,
        reason: Reason,
        error: BaseException | None,
        lost: Exception | None,
    ) -> None:
        """Tell of a flight without a whole answer, or with a lost client, and raise what its leader is to hear."""
        if waiter.gone and isinstance(error, asyncio.CancelledError):
            error = None  # a deserted flight's, our own doing: nobody cancelled this call
        failed = None if flight.complete or waiter.gone else "IncompleteResponse"
        if error is not None:
            failed = type(error).__qualname__
        cut = "SlowReader" if waiter.cut else None
        if settled is not None and settled.outcome == "stale":
            reason = "stale-if-error"
        self._tell(
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

    def _line(self, settled: Settled, forward: Forward, reason: Reason) -> bytes:
        """Cache-Status of what this request's own forward brought."""
        kept, rule = settled.settlement, self.plan.rule
        return wire.forwarded(
            reason,
            varied=bool(forward.shown) and rule.stores,
            status=settled.answered,
            ttl=kept.lifetime if isinstance(kept, Keep) else None,
            key=settled.variant if rule.cache_status_key else None,
            detail="stale-if-error" if settled.outcome == "stale" else settled.passed,
        )

    def _tell(
        self, reason: Reason, flight: Flight, settled: Settled | None = None, *, error: str | None = None
    ) -> None:
        outcome = "forwarded" if settled is None else settled.outcome
        tell_request(self, outcome, reason, flight, error=error)

    # -- follow -------------------------------------------------------------------------------------------------

    async def _follow(self, flight: Flight) -> bool:
        """Read another request's flight; False where its response is not for this one."""
        if self.plan.rule.identity != "separate":
            flight.callers.append(Caller.of(self.scope))
            self.dedup.flights.add_name(flight, address_name(self.scope))
        waiter = flight.board(leader=False, listen=self.listen)
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
            await self.send_head(settled.head, settled.head.shared, line, shared=True)
            try:
                await self.send_body(waiter, settled, whole=True)
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
            if self.sent_head or error or waiter.gone:
                if stood_in:
                    tell_request(self, "stale", "stale-if-error", flight, head_ns, error)
                else:
                    tell_request(self, "collapsed", "in-flight", flight, head_ns, error)
        return True

    def _differs(self, settled: Settled) -> bool:
        """Whether the response is another variant than this request's (RFC 9111 s.4.1)."""
        headers = self.scope["headers"]
        return self.plan.fingerprints.variant(self.key, settled.vary, headers) != settled.variant

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
