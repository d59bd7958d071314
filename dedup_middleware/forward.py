"""A forward: the wrapped app, run once in a flight's own task.

Law: the app sees only what the fingerprint holds, hears of a disconnect only when nobody waits, and what it sends is
settled on its head and stored only when it is whole.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, MutableMapping
from contextlib import suppress
from contextvars import Context
from time import time
from typing import Any, Final, cast

import msgspec
from starlette.types import ASGIApp, Message, Send

from .core.assess import NOTHING_WANTED, Wants, stands_in
from .core.callers import Caller
from .core.decide import Consider
from .core.http import Headers, StoredResponse
from .core.settle import Keep
from .core.shape import NO_SHAPE, Shape
from .core.sight import visible
from .core.unseen import Unseen
from .dedup import Dedup
from .events import ExecutionStarted, ResponseStored, tags_in
from .flight import Flight
from .heads import forget_others, open_head
from .keeping import to_store
from .nesting import inside
from .scopes import session_content
from .settled import Settled
from .telling import tell_execution
from .validation import Validation
from .work import Work

OUTGROWN_SECONDS: Final = 60.0
"""How long a key whose body outgrew the limit goes uncollapsed."""


class Forward(Work, Unseen, msgspec.Struct, eq=False):
    """One run of the app for a flight, its work.

    `method` is that of the request as it came, `base` the key before a response's Vary told variants apart, `shown`
    the fields by which it does; `unread` is the request's body, `headers` are its fields and `client` its peer, as
    they came. `stored` is what lies under the flight's key, stale, for the app to confirm.
    """

    dedup: Dedup
    app: ASGIApp
    plan: Consider
    base: bytes
    method: str
    leader_scope: MutableMapping[str, Any]
    send_early: Send
    shown: frozenset[bytes]
    unread: bytes | None
    headers: Headers
    client: Any
    stored: StoredResponse | None = None
    asked: Wants = NOTHING_WANTED
    shape: Shape = NO_SHAPE
    flight: Flight = cast("Flight", None)
    scope: MutableMapping[str, Any] = {}
    given: dict[str, Any] = {}
    settled: Settled | None = None
    validation: Validation | None = None
    session: bytes | None = None
    _standing_in: Task[None] | None = None
    _put: StoredResponse | None = None
    _caller: Caller | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """See what the app will, as it is asked now: the leader's scope may change when its call is cancelled."""
        self.scope = visible(self.plan.fingerprints.reading, self.leader_scope, self.shown, self.shape)
        self.given = dict(self.scope)
        if "session" in self.leader_scope:
            self.session = session_content(self.leader_scope)

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

    def start(self) -> Awaitable[None]:
        """The app's call, to its end, background work included."""
        dedup, flight = self.dedup, self.flight
        inside.set(flight)
        if dedup.events.heard:
            dedup.events.publish(
                ExecutionStarted(
                    at=time(),
                    rule=self.plan.label,
                    key=self.key.hex(),
                    flight=flight.generation,
                    method=self.method,
                )
            )
        if flight.trace is not None:
            dedup.telemetry.enter(flight.trace.span)
        app = self.app
        if self.stored is not None:
            app = self.validation = self._validation_of(self.stored)
        return app(self.scope, self._receive, self._send)

    def done(self, _: None) -> None:
        """The app has returned: what is whole is stored."""
        settled = self.settled
        if settled is not None and not settled.says_nothing and self.flight.complete:
            self._store()

    def over(self, error: str | None) -> None:
        """Tell of it."""
        if error is not None and self._put is not None:
            # Stored early, and then the app's own end was an error.
            self.dedup.keeper.take_back(self.plan.ordinal, self._settled_now().variant, self._put)
        if self.validation is not None:
            error = error or self.validation.failed
            self.validation = None  # they hold each other, and what was stored
        tell_execution(self.dedup, self.plan, self.flight, self.settled, self.method, error)

    @property
    def caller(self) -> Caller:
        """Who asked for it, and for what, whatever routers write into the scope."""
        if self._caller is None:  # each one reads the credentials once
            self._caller = Caller(self.headers, self.given["path"], self.client, self.plan.tags)
        return self._caller

    def names(self) -> tuple[str, ...]:
        """What the response depends on; and what is stored, which may confirm it or stand in."""
        return (*self.caller.names(), *(self.stored.names if self.stored is not None else ()))

    @property
    def key(self) -> bytes:
        """The flight's key: a digest."""
        return self.flight.key  # type: ignore[return-value] # the table's keys are anything, ours are digests

    def _settled_now(self) -> Settled:
        assert self.settled is not None  # noqa: S101 - for mypy: nothing is stored before the head is settled
        return self.settled

    # -- what the flight asks for -------------------------------------------------------------------------------

    def outgrown(self) -> None:
        """The body is too long for others: for a while nobody waits for such a one."""
        self.dedup.outgrown.put(self.key, self.dedup.clock() + OUTGROWN_SECONDS)

    def release(self) -> bool:
        """No head in time: what is stored goes out, if it may."""
        validation = self.validation
        if validation is None or not validation.may_stand_in:
            return False
        # Kept, as a loop refers to its tasks weakly; in a context of its own, which old task factories don't take.
        self._standing_in = Context().run(self.flight.loop.create_task, validation.stand_in())
        return True

    def late(self) -> None:
        """The response is whole: it is stored before the app returns."""
        self._store()

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
                open_head(self, message)
                return
            if kind == "http.response.early_hint":
                await self._hint(message)
                return
        elif kind == "http.response.body" and not flight.complete:
            chunk = message.get("body", b"")
            if type(chunk) is not bytes:
                chunk = bytes(memoryview(chunk))
            if message.get("more_body", False):
                await flight.write(chunk, last=False)
                return
            length = settled.head.length
            if length is not None and flight.total + len(chunk) != length:
                settled.mangled = True
            if not flight.land(chunk):
                await flight.write(chunk, last=True)
                if not flight.complete:
                    return  # the app's call was over first
            flight.took = self.dedup.clock() - flight.opened_at
            kept = settled.settlement
            if type(kept) is not Keep or not kept.lifetime or settled.mangled or not flight.keeping:
                flight.joinable = False  # who comes now asks anew
            outgrown = self.dedup.outgrown
            if (outgrown.young or outgrown.old) and not settled.mangled and flight.total <= flight.limit:
                outgrown.discard(settled.variant)
            return
        raise RuntimeError(f"unexpected ASGI message {kind!r} at this point of the response")

    async def _hint(self, message: Message) -> None:
        """To the leader while it is there; what becomes of that is its own client's concern, and fails no app."""
        if any(waiter.leader for waiter in self.flight.waiters):
            with suppress(Exception):
                await self.send_early(message)

    # -- the end ------------------------------------------------------------------------------------------------

    def _store(self) -> None:
        """Keep the whole response; put before the flight leaves the table, so that a newcomer finds one of them."""
        settled, flight, dedup = self._settled_now(), self.flight, self.dedup
        if (
            self._put is not None
            or type(settled.settlement) is not Keep
            or not flight.keeping
            or settled.mangled
            or (
                (self.session is not None or "session" in self.leader_scope)
                and session_content(self.leader_scope) != self.session
            )
        ):
            return
        plan = self.plan
        names = (*self.caller.stored_names(), *self.groups)
        stored = to_store(
            dedup,
            plan.rule,
            flight,
            settled.head,
            settled.settlement,
            settled.variant,
            settled.route,
            names,
            tagged=self.validation is not None and self.validation.tagged,
            of_session=settled.of_session,
        )
        with dedup.lock:  # no invalidation between the look and the put
            if flight.current and dedup.keeper.put(plan.ordinal, settled.variant, stored, flight.loop):
                self._put = stored
        if self._put is not None and (dedup.variants.young or dedup.variants.old):
            forget_others(self, settled.variant, settled.vary)
        if self._put is not None and dedup.events.heard:
            dedup.events.publish(
                ResponseStored(
                    at=time(),
                    rule=plan.label,
                    key=settled.variant.hex(),
                    bytes=stored.size,
                    ttl=settled.settlement.lifetime,
                    tags=tags_in(names),
                )
            )
