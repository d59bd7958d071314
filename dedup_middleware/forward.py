"""A forward: the wrapped app, run once in a flight's own task.

Law: the app sees only what the fingerprint holds, hears of a disconnect only when nobody waits, and what it sends is
settled on its head and stored only when it is whole.
"""

from __future__ import annotations

from itertools import islice
from operator import is_not
from time import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .core import canonical
from .core.answer import Answer, read_answer
from .core.decide import Consider, Keep, Pass, Settlement, settle
from .core.http import Head, StoredResponse, response_size
from .core.sight import one_identity, visible
from .core.status import Reason
from .events import ExecutionCompleted, ExecutionStarted, ResponseStored, tags_in
from .nesting import inside

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message

    from .dedup import Dedup
    from .flight import Flight

PASS_SECONDS: Final = 2.0
"""How long a hit-for-miss mark holds."""
OUTGROWN_SECONDS: Final = 60.0
"""How long a key whose body outgrew the limit goes uncollapsed."""
_FLIGHT_SCOPE_OWN: Final = frozenset({"headers", "client", "state", "extensions", "user", "auth", "session"})
"""What a flight's scope has of its own: never copied to the leader's."""


class Settled(msgspec.Struct, eq=False):
    """What a flight's head means to its waiters.

    `vary` are the fields that tell variants of the base key apart, `variant` the key of this one; `passed` says that
    only the leader may use the response, and why.
    """

    head: Answer
    settlement: Settlement
    vary: frozenset[bytes]
    variant: bytes
    passed: Reason | None
    route: str | None
    mangled: bool = False


class Forward:
    """One run of the app for a flight; `launch` it with `run`."""

    _settled: Settled | None = None
    _stored: StoredResponse | None = None

    def __init__(
        self,
        dedup: Dedup,
        app: ASGIApp,
        plan: Consider,
        flight: Flight,
        *,
        base: bytes,
        leader_scope: MutableMapping[str, Any],
        send_early: Any,
        shown: frozenset[bytes],
        body: bytes,
    ) -> None:
        self._dedup = dedup
        self._app = app
        self._plan = plan
        self._flight = flight
        self._base = base
        self._leader_scope = leader_scope
        self._send_early = send_early
        self._shown = shown
        self._unread: bytes | None = body
        self._method: str = leader_scope["method"]
        self._scope = visible(plan.fingerprints.reading, leader_scope, shown)
        self._given = dict(self._scope)
        self._session = _session_content(leader_scope)
        flight.on_outgrown = self._outgrown

    async def run(self) -> None:
        """Run the app to its end, background work included; then the flight is over."""
        flight, events = self._flight, self._dedup.events
        inside.set(flight)
        if events.heard:
            events.publish(
                ExecutionStarted(
                    at=time(),
                    rule=self._plan.label,
                    key=self._key.hex(),
                    flight=flight.generation,
                    method=self._method,
                )
            )
        if flight.trace is not None:
            self._dedup.telemetry.enter(flight.trace.span)
        error: str | None = None
        try:
            await self._app(self._scope, self._receive, self._send)
            if flight.complete:
                self._store()
        except BaseException as failure:
            error = type(failure).__qualname__
            if self._stored is not None:  # stored early, and then the app's own end was an error
                self._dedup.keeper.take_back(self._plan.ordinal, self._settled_now().variant, self._stored)
            raise
        finally:
            self._tell(error)

    @property
    def _key(self) -> bytes:
        return self._flight.key  # type: ignore[return-value] # the table's keys are anything, ours are digests

    def _settled_now(self) -> Settled:
        assert self._settled is not None  # noqa: S101 - for mypy: nothing is stored before the head is settled
        return self._settled

    # -- what the app calls -------------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        if self._unread is not None:
            body, self._unread = self._unread, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._flight.deserted()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        flight = self._flight
        if kind == "http.response.body" and self._settled is not None and not flight.complete:
            chunk = message.get("body", b"")
            last = not message.get("more_body", False)
            chunk = chunk if type(chunk) is bytes else bytes(chunk)
            if last:
                length = self._settled.head.length
                if length is not None and flight.body.total + len(chunk) != length:
                    self._settled.mangled = True
                await flight.write(chunk, last=True)
                self._landed()
            else:
                await flight.write(chunk, last=False)
        elif kind == "http.response.start" and self._settled is None:
            self._open(message)
        elif kind == "http.response.early_hint" and self._settled is None:
            await self._send_early(message)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r} at this point of the response")

    # -- the head -----------------------------------------------------------------------------------------------

    def _open(self, message: Message) -> None:
        dedup, plan, flight = self._dedup, self._plan, self._flight
        head = read_answer(message["status"], message.get("headers", ()), self._method)
        reader = plan.fingerprints
        settlement = settle(
            plan.rule,
            self._method,
            head,
            one_identity=lambda: one_identity(reader.reading, self._leader_scope),
        )
        if _session_content(self._leader_scope) != self._session:
            settlement = Pass("session")
        vary, variant, passed = self._shown, self._key, None
        if isinstance(settlement, Pass):
            passed = settlement.reason
            if passed != "server-error":
                dedup.passes.put(variant, dedup.clock() + PASS_SECONDS)
            flight.stop_keeping()
        else:
            if dedup.passes.young or dedup.passes.old:
                dedup.passes.discard(variant)
            if settlement.vary and (named := reader.unkeyed(settlement.vary) - self._shown):
                vary = self._shown | named
                dedup.variants.put(self._base, vary)
                variant = reader.variant(self._base, vary, self._given["headers"])
                dedup.flights.move(flight, variant)
            if isinstance(settlement, Keep):
                flight.runs_on = True
        self._settled = Settled(head, settlement, vary, variant, passed, dedup.templates.of(self._scope))
        self._copy_back()
        if flight.trace is not None:
            dedup.telemetry.head(flight.trace)
        flight.open_head(self._settled)

    def _copy_back(self) -> None:
        """What the app's router found goes to the leader's scope, so that outer layers still find it there."""
        given, scope = self._given, self._scope
        if any(map(is_not, given.values(), scope.values())):
            found = {name: value for name, value in scope.items() if given.get(name, self) is not value}
        else:  # nothing was replaced: what is new stands last
            found = dict(islice(scope.items(), len(given), None))
        for name in _FLIGHT_SCOPE_OWN.intersection(found):
            del found[name]
        self._leader_scope.update(found)

    # -- the end ------------------------------------------------------------------------------------------------

    def _landed(self) -> None:
        settled = self._settled_now()
        self._flight.took = self._dedup.clock() - self._flight.opened_at
        if not settled.mangled and self._flight.body.total <= self._flight.body.limit:
            self._dedup.outgrown.discard(settled.variant)
        if isinstance(settled.settlement, Keep) and self._flight.body.keeping and not settled.mangled:
            self._flight.on_late = self._store_early
        else:
            self._flight.close()

    def _store_early(self) -> None:
        self._store()
        self._flight.close()

    def _store(self) -> None:
        """Keep the whole response; put before the flight leaves the table, so that a newcomer finds one of them."""
        settled, flight, dedup = self._settled, self._flight, self._dedup
        if (
            settled is None
            or self._stored is not None
            or not isinstance(settled.settlement, Keep)
            or not flight.body.keeping
            or settled.mangled
            or _session_content(self._leader_scope) != self._session
        ):
            return
        head, trace = settled.head, flight.trace
        body = flight.body.whole()
        started = flight.head_at or flight.opened_at
        headers = head.shared
        if head.age is not None:  # told anew with each hit
            headers = [pair for pair in headers if pair[0].lower() != b"age"]
        stored = StoredResponse(
            head=Head(head.status, headers),
            body=body,
            stored_at=started,
            expires=started + settled.settlement.lifetime,
            names=flight.stored_names,
            generation=flight.generation,
            seconds=flight.took or 0.0,
            initial_age=head.age or 0,
            etag=head.etag,
            last_modified=head.last_modified,
            validates=head.validates,
            route=settled.route,
            flight=trace.flight if trace is not None else None,
            link=trace.context if trace is not None else None,
            size=response_size(headers, body, flight.stored_names),
        )
        with dedup.lock:  # no invalidation between the look and the put
            if flight.current and dedup.keeper.put(self._plan.ordinal, settled.variant, stored, flight.loop):
                self._stored = stored
        if self._stored is not None and dedup.events.heard:
            dedup.events.publish(
                ResponseStored(
                    at=time(),
                    rule=self._plan.label,
                    key=settled.variant.hex(),
                    bytes=stored.size,
                    ttl=settled.settlement.lifetime,
                    tags=tags_in(flight.stored_names),
                )
            )

    def _outgrown(self) -> None:
        self._dedup.outgrown.put(self._key, self._dedup.clock() + OUTGROWN_SECONDS)

    def _tell(self, error: str | None) -> None:
        flight, plan, settled, telemetry = self._flight, self._plan, self._settled, self._dedup.telemetry
        telemetry.record_forward(
            self._dedup.clock() - flight.opened_at, flight.followers, plan.label, self._method
        )
        status = settled.head.status if settled is not None else 0
        if error is None and (not flight.complete or (settled is not None and settled.mangled)):
            error = "IncompleteResponse"
        failure = error or (str(status) if status >= 500 else None)
        if failure and flight.followers and (flight.waiters or error is None):
            telemetry.failed("forward", failure, plan.label, flight.followers, flight.trace)
        if self._dedup.events.heard:
            self._dedup.events.publish(
                ExecutionCompleted(
                    at=time(),
                    rule=plan.label,
                    key=self._key.hex(),
                    flight=flight.generation,
                    duration=self._dedup.clock() - flight.opened_at,
                    followers=flight.followers,
                    bytes=flight.body.total,
                    method=self._method,
                    status=status,
                    error=failure,
                    route=settled.route if settled is not None else None,
                    trace_id=flight.trace.trace_id if flight.trace is not None else None,
                )
            )
        if flight.trace is not None:
            telemetry.end_forward(
                flight.trace,
                plan.label,
                self._method,
                flight.key,
                flight.followers,
                status=status,
                route=settled.route if settled is not None else None,
                error=error,
            )


def _session_content(scope: MutableMapping[str, Any]) -> bytes | None:
    session = scope.get("session")
    if session is None:
        return None
    try:
        return canonical.encode(canonical.plain(dict(session)))
    except (TypeError, ValueError, OverflowError):
        return repr(session).encode(
            "utf-8", "replace"
        )  # compared within this request only, never kept or shown
