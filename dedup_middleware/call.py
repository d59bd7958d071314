"""A call: one caller's way to a function's value, over a flight that others may share.

Law: a call never waits for itself, however deep; then the function runs once more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from .core.errors import ForwardFailed
from .events import ResponseServed
from .function import PARTITION, Function
from .nesting import current, waiting, waits_for_itself
from .telemetry import DEBUG, Told, requests_log
from .telling import tell_collapsed
from .waiter import FlightAbandonedError
from .work import Terms

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from .core.http import StoredValue
    from .core.rules import Rule
    from .core.status import Outcome, Reason
    from .flight import Flight
    from .function import Engine
    from .telemetry import Span


class Call:
    """One caller's way to a value."""

    def __init__(
        self,
        dedup: Engine,
        key: bytes,
        fn: Callable[[], Awaitable[Any]],
        rule: Rule,
        names: tuple[str, ...],
        label: str,
    ) -> None:
        self.dedup = dedup
        self.key = key
        self.fn = fn
        self.rule = rule
        self._names = names
        self.label = label
        self.started = dedup.clock()
        self.tracer = dedup.telemetry.tracer(self.started)
        self.started_ns = time.time_ns() if self.tracer is not None else 0

    async def run(self, loop: asyncio.AbstractEventLoop) -> Any:
        """The value: from the store, of another one's flight, or of one of its own."""
        dedup = self.dedup
        reason: Reason = "miss"
        for attempt in range(3):
            # One synchronous step: look up, look for a flight, or open one.
            try:
                stored = dedup.store.get(PARTITION, self.key, dedup.clock())
            except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises
                dedup.store_failed("get", error)
                stored = None
            # A value without one of this call's tags would outlive their invalidation.
            if stored is not None and set(self._names) <= set(stored.names):
                value = cast("StoredValue", stored)
                value.hits += 1
                if not value.noted:
                    dedup.note(self.label, self.key, value)
                told = self._told("hit", "fresh")
                told.flight, told.link = value.flight, value.link
                told.saved, told.age = value.seconds, (age := dedup.clock() - value.stored_at)
                self._tell(told)
                logs = requests_log.isEnabledFor(DEBUG)
                if logs:
                    dedup.telemetry.debug(told)
                if self.started >= dedup.telemetry.quiet_until:
                    self._served(age, quiet=self.tracer is None and not logs)
                return value.value
            flight = None if attempt == 2 else dedup.flights.find(loop, self.key)
            # The invalidation of this call's own tags concerns the value too: from now on, and since it was begun.
            if flight is None or not dedup.flights.depends(flight, self._names, ""):
                return await self._lead(loop, reason, listed=attempt < 2)
            if waits_for_itself(flight):
                return await self._lead(loop, "nested", listed=False)
            try:
                return await self._follow(flight)
            except FlightAbandonedError:
                reason = "max-wait"
        raise AssertionError("unreachable: the last attempt leads")  # pragma: no cover - see the range above

    async def _lead(self, loop: asyncio.AbstractEventLoop, reason: Reason, *, listed: bool) -> Any:
        dedup = self.dedup
        rule = self.rule
        terms = Terms(float(rule.max_wait), rule.max_followers, rule.max_response_body, self.label)
        work = Function(dedup, self.key, self.fn, rule, self.label, self._names)
        flight = dedup.flights.open(
            loop, self.key, terms, work, dedup.clock(), listed=listed, runs_on=rule.stores
        )
        if flight is None:
            return await self.alone("too-many-flights")
        telemetry, span = dedup.telemetry, None
        if self.tracer is not None:
            span = telemetry.start_request(self.tracer, "forwarded", self.label, "", self.started_ns)
            flight.trace = telemetry.start_forward(self.tracer, span, self.label, "", self.key)
        waiter = flight.board(leader=True)
        holder = current()
        error: str | None = None
        try:
            with waiting(holder, flight):  # before the work begins: an eager task runs at once
                flight.launch()
                await waiter.head()
        except BaseException as failure:
            flight.disown()
            error = type(failure).__qualname__
            raise
        finally:
            waiter.leave()
            told = self._told(
                "forwarded", "failed" if flight.error_type else reason, error or flight.error_type
            )
            if flight.trace is not None:
                told.flight = flight.trace.flight
            self._tell(told, span)
        failed, flight.error = flight.error, None
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # its traceback holds this frame: together they would keep the flight alive
        return flight.head[0]

    async def _follow(self, flight: Flight) -> Any:
        waiter = flight.board(leader=False)
        holder = current()
        error: str | None = None
        again = False
        try:
            with waiting(holder, flight):
                head = await waiter.head()
            if head is None:
                error = flight.error_type or "IncompleteResponse"
                raise ForwardFailed(error, flight.trace_id)  # noqa: TRY301 - told below
            return head[0]
        except FlightAbandonedError:
            again = True
            raise
        except BaseException as failure:
            error = error or type(failure).__qualname__
            raise
        finally:
            waiter.leave()
            if not again:
                told = self._told("collapsed", "in-flight", error)
                tell_collapsed(self.dedup, told, flight, self.key, self.started)
                self._tell(told)

    async def alone(self, reason: Reason) -> Any:
        """The function by itself."""
        error: str | None = None
        try:
            return await self.fn()
        except BaseException as failure:
            error = type(failure).__qualname__
            raise
        finally:
            self._tell(self._told("bypassed", reason, error))

    def _served(self, age: float, *, quiet: bool) -> None:
        """Tell of a hit as of a request's: of one a second, where neither a tracer nor the log hears of each."""
        dedup = self.dedup
        if dedup.events.heard:
            took = dedup.clock() - self.started
            dedup.events.publish(
                ResponseServed(at=time.time(), rule=self.label, key=self.key.hex(), duration=took, age=age)
            )
        if quiet:
            dedup.telemetry.quiet_until = dedup.telemetry.look_again

    def _told(self, outcome: Outcome, reason: Reason, error: str | None = None) -> Told:
        return Told(outcome, reason, self.label, "", self.key, error=error)

    def _tell(self, told: Told, span: Span | None = None) -> None:
        telemetry = self.dedup.telemetry
        telemetry.count(told.outcome, told.reason, self.label, "", told.saved or 0.0)
        if self.tracer is not None:
            telemetry.tell(self.tracer, self.started_ns, told, span=span)
