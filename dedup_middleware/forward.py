"""A forward: the wrapped app, run once in a flight's own task.

Law: the app sees only what the fingerprint holds, hears of a disconnect only when nobody waits, and what it sends is
settled on its head and stored only when it is whole.
"""

from __future__ import annotations

from contextvars import Context
from itertools import islice
from operator import is_not
from time import time
from typing import TYPE_CHECKING, Any, Final

from .core import canonical
from .core.answer import read_answer
from .core.assess import NOTHING_WANTED, Wants, stands_in
from .core.effects import groups, origin_of
from .core.fields import is_token, names_listed
from .core.names import PERSONAL_FIELDS
from .core.settle import Keep, Pass, Settlement, ShareOnly
from .core.sight import visible
from .core.surroundings import Part
from .events import ExecutionStarted, ResponseStored, tags_in
from .keeping import settled_by, to_store, update_by_head
from .nesting import inside
from .settled import Settled
from .telling import tell_execution
from .validation import Validation

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message

    from .core.answer import Answer
    from .core.decide import Consider
    from .core.http import StoredResponse
    from .dedup import Dedup
    from .flight import Flight

PASS_SECONDS: Final = 2.0
"""How long a hit-for-miss mark holds."""
OUTGROWN_SECONDS: Final = 60.0
"""How long a key whose body outgrew the limit goes uncollapsed."""
_NOTHING: Final[frozenset[bytes]] = frozenset()
_HIDDEN: Final = frozenset({Part.HIDDEN, Part.COOKIE})
_FLIGHT_SCOPE_OWN: Final = frozenset({"headers", "client", "state", "extensions", "user", "auth", "session"})
"""What a flight's scope has of its own: never copied to the leader's."""


class Forward:
    """One run of the app for a flight; `launch` it with `run`."""

    _settled: Settled | None = None
    _validation: Validation | None = None
    _standing_in: Task[None] | None = None
    _stored: StoredResponse | None = None
    _groups: tuple[str, ...] = ()

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
        stored: StoredResponse | None = None,
        asked: Wants = NOTHING_WANTED,
    ) -> None:
        self._dedup = dedup
        self._app = app if stored is None else self._validation_of(app, stored, asked, body)
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
        if stored is not None:
            flight.on_release = self._stand_in

    def _validation_of(self, app: ASGIApp, stored: StoredResponse, asked: Wants, body: bytes) -> ASGIApp:
        """The app, asked whether what is stored under this key still holds; it may stand in for an error."""
        dedup = self._dedup

        def rewind() -> None:
            self._unread = body

        self._validation = Validation(
            app,
            stored,
            allowed=lambda: self._flight.current and stands_in(stored, asked, dedup.clock()),
            age=lambda: stored.initial_age + dedup.clock() - stored.stored_at,
            rewind=rewind,
        )
        return self._validation

    def _stand_in(self) -> bool:
        """No head in time: what is stored goes out, if it may."""
        validation = self._validation
        if validation is None or not validation.may_stand_in:
            return False
        self._standing_in = self._flight.loop.create_task(validation.stand_in(), context=Context())
        return True

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
        flight, settled = self._flight, self._settled
        if flight.returned:
            return  # nobody hears what is sent after the app's call is over
        if kind == "http.response.body" and settled is not None and not flight.complete:
            chunk = message.get("body", b"")
            if type(chunk) is not bytes:
                chunk = bytes(memoryview(chunk))
            if not message.get("more_body", False):
                length = settled.head.length
                if length is not None and flight.body.total + len(chunk) != length:
                    settled.mangled = True
                await flight.write(chunk, last=True)
                self._landed()
            else:
                await flight.write(chunk, last=False)
        elif kind == "http.response.start" and settled is None:
            self._open(message)
        elif kind == "http.response.early_hint" and settled is None:
            await self._send_early(message)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r} at this point of the response")

    # -- the head -----------------------------------------------------------------------------------------------

    def _open(self, message: Message) -> None:
        dedup, plan, flight = self._dedup, self._plan, self._flight
        head = read_answer(message["status"], message.get("headers", ()), self._method)
        reader, validation = plan.fingerprints, self._validation
        if validation is not None and not validation.dated:
            head.date = None  # the stored one's, which says nothing of when it was confirmed
        if validation is not None and validation.outcome == "stale":
            settlement: Settlement = ShareOnly(frozenset())  # what is stored, as it is
        else:
            delay = dedup.clock() - flight.opened_at
            settlement = settled_by(
                dedup, plan, self._method, head, self._leader_scope, self._given["headers"], delay
            )
            if self._method == "HEAD" and plan.rule.follows_origin and plan.lookup is not plan.prefix:
                update_by_head(dedup, plan, self._leader_scope, head, flight)
        if validation is not None and validation.outcome != "stale":
            self._supersede(validation, head, settlement)
        if _session_content(self._leader_scope) != self._session:
            settlement = Pass("session")
        vary, variant, passed = self._shown, self._key, None
        if isinstance(settlement, Pass):
            passed = settlement.reason
            if validation is not None and validation.outcome == "revalidated":
                # What was another caller's, and for all while it was stored, is so no more.
                others = PERSONAL_FIELDS - validation.said
                head.headers = [pair for pair in head.headers if pair[0].lower() not in others]
            vary = self._shown | self._hidden_in(head)
            if vary != self._shown:
                dedup.variants.put(self._base, vary)
                variant = reader.variant(self._base, vary, self._given["headers"])
            if passed != "server-error":
                dedup.passes.put(variant, dedup.clock() + PASS_SECONDS)
            flight.stop_keeping()
        else:
            if dedup.passes.young or dedup.passes.old:
                dedup.passes.discard(variant)
            if settlement.vary or self._shown:
                vary = self._variants_by(settlement)
            if vary != self._shown:
                dedup.variants.put(self._base, vary)
                variant = reader.variant(self._base, vary, self._given["headers"]) if vary else self._base
                dedup.flights.move(flight, variant)
            if isinstance(settlement, Keep):
                flight.runs_on = True
                if settlement.passed is not None:  # stored to be validated, and nobody else's before it is
                    passed = settlement.passed
                    dedup.passes.put(variant, dedup.clock() + PASS_SECONDS)
                    flight.close()
            if settlement.stripped:
                head.shared = [pair for pair in head.shared if pair[0].lower() not in settlement.stripped]
            if head.groups:
                self._join_groups(head.groups)
        self._settled = Settled(head, settlement, vary, variant, passed, dedup.templates.of(self._scope))
        if validation is not None:
            self._settled.outcome, self._settled.answered = validation.outcome, validation.answered
        if vary:
            self._settled.before = dict(self._leader_scope)
        self._copy_back()
        if flight.trace is not None:
            dedup.telemetry.head(flight.trace)
        flight.open_head(self._settled)

    def _supersede(self, validation: Validation, head: Answer, settlement: Settlement) -> None:
        """What the app has answered, and not to be stored, shows that what is stored answers nobody any more.

        A cookie that comes with a 304 does not: it is one caller's, and says nothing of what is stored.
        """
        if head.status >= 500 or isinstance(settlement, Keep):
            return
        stored = validation.stored
        comes_with_304 = validation.outcome == "revalidated" and head.personal in validation.said
        if not comes_with_304 or any(name.lower() in PERSONAL_FIELDS for name, _ in stored.head.headers):
            self._dedup.keeper.take_back(self._plan.ordinal, self._key, stored)

    def _variants_by(self, settlement: Keep | ShareOnly) -> frozenset[bytes]:
        """The fields by which variants are told apart from now on.

        Those that any response has named; but where the app's own Vary is trusted, what the newest stored one names, so
        that it answers whatever it fits (RFC 9111 s.4, s.4.1), and what the app has seen of that is hidden otherwise.
        """
        reader = self._plan.fingerprints
        named = reader.unkeyed(settlement.vary)
        if reader.reading.trusting and isinstance(settlement, Keep):
            return named | {name for name in self._shown if reader.reading.part(name) in _HIDDEN}
        return self._shown | named

    def _hidden_in(self, head: Answer) -> frozenset[bytes]:
        """The fields of Vary that the app has not seen: they are shown to it from now on, whoever its answer is for."""
        reader = self._plan.fingerprints
        named = frozenset(filter(is_token, names_listed(head.vary))) - {b"*"} if head.vary else _NOTHING
        return frozenset(name for name in reader.unkeyed(named) if reader.reading.part(name) in _HIDDEN)

    def _join_groups(self, lines: tuple[bytes, ...]) -> None:
        """The response belongs to more groups than its rule says (RFC 9875 s.2)."""
        flight, names = self._flight, groups(lines)
        self._groups += names
        self._dedup.flights.depends(flight, names, origin_of(self._leader_scope))

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
        settled, flight, outgrown = self._settled_now(), self._flight, self._dedup.outgrown
        flight.took = self._dedup.clock() - flight.opened_at
        marked = bool(outgrown.young or outgrown.old)
        if marked and not settled.mangled and flight.body.total <= flight.body.limit:
            outgrown.discard(settled.variant)
        if isinstance(settled.settlement, Keep) and flight.body.keeping and not settled.mangled:
            flight.on_late = self._store_early
        else:
            flight.close()

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
        plan = self._plan
        flight.stored_names = (*dedup.names(flight.asked, plan.tags), *self._groups)
        stored = to_store(
            dedup, plan.rule, flight, settled.head, settled.settlement, settled.variant, settled.route
        )
        with dedup.lock:  # no invalidation between the look and the put
            if flight.current and dedup.keeper.put(plan.ordinal, settled.variant, stored, flight.loop):
                self._stored = stored
        if self._stored is not None and dedup.events.heard:
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

    def _outgrown(self) -> None:
        self._dedup.outgrown.put(self._key, self._dedup.clock() + OUTGROWN_SECONDS)

    def _tell(self, error: str | None) -> None:
        validation = self._validation
        failed = error if validation is None else error or validation.failed
        tell_execution(self._dedup, self._plan, self._flight, self._settled, self._method, failed)


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
