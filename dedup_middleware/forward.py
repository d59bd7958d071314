"""A forward: the wrapped app, run once in a flight's own task.

Law: the app sees only what the fingerprint holds, hears of a disconnect only when nobody waits, and what it sends is
settled on its head and stored only when it is whole.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import MutableMapping
from contextvars import Context
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from starlette.types import ASGIApp, Message, Send

from .core.answer import Answer, read_answer
from .core.assess import NOTHING_WANTED, Wants, stands_in
from .core.decide import Consider
from .core.effects import groups, origin_of
from .core.http import StoredResponse
from .core.names import PERSONAL_FIELDS
from .core.settle import Keep, Pass, Settlement, ShareOnly, settle
from .core.sight import visible
from .core.unseen import Unseen
from .core.variants import hidden_in, told_apart
from .dedup import Dedup
from .events import ExecutionStarted, ResponseStored, tags_in
from .flight import Flight, Work
from .keeping import settled_by, to_store, update_by_head
from .nesting import inside
from .scopes import copy_back, session_content
from .settled import Settled
from .telling import tell_execution
from .validation import Validation

if TYPE_CHECKING:
    from .core.callers import Caller
    from .core.status import Reason

PASS_SECONDS: Final = 2.0
"""How long a hit-for-miss mark holds."""
OUTGROWN_SECONDS: Final = 60.0
"""How long a key whose body outgrew the limit goes uncollapsed."""


class Forward(Work, Unseen, msgspec.Struct, eq=False):
    """One run of the app for a flight, its work.

    `method` is that of the request as it came, `base` the key before a response's Vary told variants apart, `shown` the
    fields by which it does; `unread` is the request's body. `stored` is what lies under the flight's key, stale, for
    the app to confirm.
    """

    dedup: Dedup
    app: ASGIApp
    plan: Consider
    flight: Flight
    base: bytes
    method: str
    leader_scope: MutableMapping[str, Any]
    send_early: Send
    shown: frozenset[bytes]
    unread: bytes | None
    stored: StoredResponse | None = None
    asked: Wants = NOTHING_WANTED
    scope: MutableMapping[str, Any] = {}
    given: dict[str, Any] = {}
    settled: Settled | None = None
    validation: Validation | None = None
    _session: bytes | None = None
    _standing_in: Task[None] | None = None
    _put: StoredResponse | None = None
    _groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """See what the app will, as it is asked now: the leader's scope may change when its call is cancelled."""
        self.scope = visible(self.plan.fingerprints.reading, self.leader_scope, self.shown)
        self.given = dict(self.scope)
        if "session" in self.leader_scope:
            self._session = session_content(self.leader_scope)

    def _validation_of(self, stored: StoredResponse) -> Validation:
        """The app, asked whether what is stored under this key still holds; it may stand in for an error."""
        dedup, asked, body = self.dedup, self.asked, self.unread

        def rewind() -> None:
            self.unread = body

        return Validation(
            self.app,
            stored,
            allowed=lambda: self.flight.current and stands_in(stored, asked, dedup.clock()),
            age=lambda: stored.initial_age + dedup.clock() - stored.stored_at,
            rewind=rewind,
        )

    async def run(self) -> None:
        """Run the app to its end, background work included; then the flight is over."""
        dedup, flight, plan = self.dedup, self.flight, self.plan
        inside.set(flight)
        if dedup.events.heard:
            dedup.events.publish(
                ExecutionStarted(
                    at=time(),
                    rule=plan.label,
                    key=self._key.hex(),
                    flight=flight.generation,
                    method=self.method,
                )
            )
        if flight.trace is not None:
            dedup.telemetry.enter(flight.trace.span)
        error: str | None = None
        try:
            if self.stored is not None:
                self.validation = self.app = self._validation_of(self.stored)
            await self.app(self.scope, self._receive, self._send)
            settled = self.settled
            if settled is not None and not settled.says_nothing and flight.complete:
                self._store()
        except BaseException as failure:
            error = type(failure).__qualname__
            if self._put is not None:  # stored early, and then the app's own end was an error
                dedup.keeper.take_back(plan.ordinal, self._settled_now().variant, self._put)
            raise
        finally:
            if self.validation is not None:
                error = error or self.validation.failed
            tell_execution(dedup, plan, flight, self.settled, self.method, error)

    @property
    def _key(self) -> bytes:
        return self.flight.key  # type: ignore[return-value] # the table's keys are anything, ours are digests

    def _settled_now(self) -> Settled:
        assert self.settled is not None  # noqa: S101 - for mypy: nothing is stored before the head is settled
        return self.settled

    # -- what the flight asks for -------------------------------------------------------------------------------

    def outgrown(self) -> None:
        """The body is too long for others: for a while nobody waits for such a one."""
        self.dedup.outgrown.put(self._key, self.dedup.clock() + OUTGROWN_SECONDS)

    def release(self) -> bool:
        """No head in time: what is stored goes out, if it may."""
        validation = self.validation
        if validation is None or not validation.may_stand_in:
            return False
        self._standing_in = self.flight.loop.create_task(validation.stand_in(), context=Context())
        return True

    def late(self) -> None:
        """The response is whole: it is stored before the app returns."""
        self._store()
        self.flight.close()

    # -- what the app calls -------------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        if self.unread is not None:
            body, self.unread = self.unread, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.flight.deserted()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        flight, settled = self.flight, self.settled
        if flight.returned:
            return  # nobody hears what is sent after the app's call is over
        if settled is None:
            if kind == "http.response.start":
                self._open(message)
                return
            if kind == "http.response.early_hint":
                await self.send_early(message)
                return
        elif kind == "http.response.body" and not flight.complete:
            chunk = message.get("body", b"")
            if type(chunk) is not bytes:
                chunk = bytes(memoryview(chunk))
            if message.get("more_body", False):
                await flight.write(chunk, last=False)
                return
            length = settled.head.length
            if length is not None and flight.body.total + len(chunk) != length:
                settled.mangled = True
            if not flight.land(chunk):
                await flight.write(chunk, last=True)
            self._landed(settled)
            return
        raise RuntimeError(f"unexpected ASGI message {kind!r} at this point of the response")

    # -- the head -----------------------------------------------------------------------------------------------

    def _open(self, message: Message) -> None:
        """The head: who may use it, told to all who wait."""
        dedup, flight = self.dedup, self.flight
        leaders, validation, trace = self.leader_scope, self.validation, flight.trace
        head = read_answer(message["status"], message.get("headers", ()), self.method)
        settlement = self._settle(head) if validation is None else self._validated(head)
        if ("session" in leaders or self._session is not None) and session_content(leaders) != self._session:
            settlement = Pass("session")
        settled = Settled(head, settlement, self.shown, self._key)
        if isinstance(settlement, Pass):
            self._pass(settled, settlement.reason)
        else:
            if dedup.passes.young or dedup.passes.old:
                dedup.passes.discard(settled.variant)
            if self.shown or not head.plain or isinstance(settlement, Keep):
                self._share(settled, settlement)
            else:
                settled.says_nothing = validation is None
        if trace is not None or dedup.events.heard:
            settled.route = dedup.templates.of(self.scope)
        if validation is not None:
            settled.outcome, settled.answered = validation.outcome, validation.answered
        if settled.vary:
            settled.before = dict(leaders)
        copy_back(self.given, self.scope, leaders)
        if trace is not None:
            dedup.telemetry.head(trace)
        self.settled = settled
        flight.open_head(settled)

    def _share(self, settled: Settled, settlement: Keep | ShareOnly) -> None:
        """Others may have it, and there is more to it than that."""
        head = settled.head
        if settlement.vary or self.shown:
            self._tell_apart(settled, settlement)
        if isinstance(settlement, Keep):
            self.flight.runs_on = True
            settled.route = self.dedup.templates.of(self.scope)
            if settlement.passed is not None:  # stored to be validated, and nobody else's before it is
                settled.passed = settlement.passed
                self.dedup.passes.put(settled.variant, self.dedup.clock() + PASS_SECONDS)
                self.flight.close()
        if settlement.stripped:
            head.shared = [pair for pair in head.shared if pair[0].lower() not in settlement.stripped]
        if head.groups:
            self._join_groups(head.groups)

    def _settle(self, head: Answer) -> Settlement:
        plan, method = self.plan, self.method
        if head.plain and plan.plain is not None and (head.length or 0) <= plan.rule.max_response_body:
            known = plan.plain.get((method, head.status))
            if known is None:
                known = plan.plain[method, head.status] = settle(plan.rule, method, head)
            return known
        dedup, scope, flight = self.dedup, self.leader_scope, self.flight
        delay = dedup.clock() - flight.opened_at
        settlement = settled_by(dedup, plan, method, head, scope, self.given["headers"], delay)
        if method == "HEAD" and plan.rule.follows_origin and plan.lookup is not plan.prefix:
            update_by_head(dedup, plan, scope, head, flight)
        return settlement

    def _validated(self, head: Answer) -> Settlement:
        """The same of a head that answers a validation."""
        validation = cast("Validation", self.validation)
        if not validation.dated:
            head.date = None  # the stored one's, which says nothing of when it was confirmed
        if validation.outcome == "stale":
            return ShareOnly(frozenset())  # what is stored, as it is
        settlement = self._settle(head)
        self._supersede(validation, head, settlement)
        return settlement

    def _pass(self, settled: Settled, reason: Reason) -> None:
        """Only the leader may use it; for a while nobody waits for such a one."""
        dedup, head = self.dedup, settled.head
        settled.passed = reason
        if self.validation is not None and self.validation.outcome == "revalidated":
            # What was another caller's, and for all while it was stored, is so no more.
            others = PERSONAL_FIELDS - self.validation.said
            head.headers = [pair for pair in head.headers if pair[0].lower() not in others]
        settled.vary = self.shown | hidden_in(self.plan.fingerprints, head)
        if settled.vary != self.shown:
            dedup.variants.put(self.base, settled.vary)
            settled.variant = self._variant(settled.vary)
        if reason != "server-error":
            dedup.passes.put(settled.variant, dedup.clock() + PASS_SECONDS)
        self.flight.stop_keeping()

    def _tell_apart(self, settled: Settled, settlement: Keep | ShareOnly) -> None:
        """What its Vary names tells variants apart from now on; the flight answers to its own one's key."""
        settled.vary = told_apart(self.plan.fingerprints, self.shown, settlement)
        if settled.vary != self.shown:
            self.dedup.variants.put(self.base, settled.vary)
            settled.variant = self._variant(settled.vary) if settled.vary else self.base
            self.dedup.flights.move(self.flight, settled.variant)

    def _variant(self, names: frozenset[bytes]) -> bytes:
        return self.plan.fingerprints.variant(self.base, names, self.given["headers"])

    def _supersede(self, validation: Validation, head: Answer, settlement: Settlement) -> None:
        """What the app has answered, and not to be stored, shows that what is stored answers nobody any more.

        A cookie that comes with a 304 does not: it is one caller's, and says nothing of what is stored.
        """
        if head.status >= 500 or isinstance(settlement, Keep):
            return
        stored = validation.stored
        comes_with_304 = validation.outcome == "revalidated" and head.personal in validation.said
        if not comes_with_304 or any(name.lower() in PERSONAL_FIELDS for name, _ in stored.head.headers):
            self.dedup.keeper.take_back(self.plan.ordinal, self._key, stored)

    def _join_groups(self, lines: tuple[bytes, ...]) -> None:
        """The response belongs to more groups than its rule says (RFC 9875 s.2)."""
        flight, names = self.flight, groups(lines)
        self._groups += names
        self.dedup.flights.depends(flight, names, origin_of(self.leader_scope))

    # -- the end ------------------------------------------------------------------------------------------------

    def _landed(self, settled: Settled) -> None:
        flight, dedup = self.flight, self.dedup
        outgrown = dedup.outgrown
        flight.took = dedup.clock() - flight.opened_at
        if (
            (outgrown.young or outgrown.old)
            and not settled.mangled
            and flight.body.total <= flight.body.limit
        ):
            outgrown.discard(settled.variant)
        if (
            settled.says_nothing
            or not isinstance(settled.settlement, Keep)
            or settled.mangled
            or not flight.body.keeping
        ):
            flight.joinable = False

    def _store(self) -> None:
        """Keep the whole response; put before the flight leaves the table, so that a newcomer finds one of them."""
        settled, flight, dedup = self._settled_now(), self.flight, self.dedup
        if (
            self._put is not None
            or not isinstance(settled.settlement, Keep)
            or not flight.body.keeping
            or settled.mangled
            or session_content(self.leader_scope) != self._session
        ):
            return
        plan = self.plan
        flight.stored_names = (*cast("Caller", flight.asked).stored_names(), *self._groups)
        stored = to_store(
            dedup, plan.rule, flight, settled.head, settled.settlement, settled.variant, settled.route
        )
        with dedup.lock:  # no invalidation between the look and the put
            if flight.current and dedup.keeper.put(plan.ordinal, settled.variant, stored, flight.loop):
                self._put = stored
        if self._put is not None and dedup.events.heard:
            dedup.events.publish(
                ResponseStored(
                    at=time(),
                    rule=plan.label,
                    key=settled.variant.hex(),
                    bytes=stored.size,
                    ttl=settled.settlement.lifetime,
                    tags=tags_in(flight.stored_names),
                )
            )
