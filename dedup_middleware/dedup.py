"""Dedup: the engine. It owns rules, flights, store and telemetry, and everything that may be asked of them by code.

Law: whatever changes the store or the flights goes through here, so that an invalidation finds all there is.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import structs

from . import config
from .alerts import Alert, Watch, checked_alerts
from .cached import cached
from .calls import Calls
from .core.callers import Caller, address_name
from .core.decide import Bypass, Consider, Plan, RuleBook, ambiguous, target_name
from .core.errors import ConfigurationError
from .core.explain import Explanation, explain
from .core.fingerprint import Hasher
from .core.http import Stored, StoredResponse
from .core.memo import Memo
from .core.rules import Rule
from .events import Event, Events, Listener, ResponseInvalidated, Subscription, tags_in
from .flight import GRACE, Limits
from .flights import FlightTable
from .inventory import Held, UnderWay, held, under_way
from .records.recorder import Recorder
from .routes import Templates
from .stats import Stats, make_stats
from .stores.keeper import Keeper
from .stores.memory import Bounds, MemoryStore
from .telemetry import Gauges, MeterProvider, Telemetry, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from .core.http import Scope
    from .core.status import Reason
    from .records import Ledger
    from .stores import Store

T = TypeVar("T")

MAX_FLIGHTS: Final = 10_000
CALLS: Final = -1
"""The store's partition for functions."""
_PLAN_BYTES: Final = 2048


class Dedup:
    """The engine behind the middleware: rules, flights, stored responses, telemetry.

    One handle may serve several middlewares, event loops and threads. `secret` keys the digests (default:
    `DEDUP_SECRET`, else random for this process); `store` is a URL (`memory://`, `memory://?max_bytes=33554432`),
    and so is `records`, where executions are recorded (`sqlite:///dedup.db`).

    Raises:
        ConfigurationError: for any setting that can't be, naming the place, the value and what is allowed.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        default: Rule | None = None,
        store: str = "memory://",
        records: str | Ledger | None = None,
        records_detail: Iterable[str] = (),
        alerts: Iterable[Alert] = (),
        secret: str | bytes | None = None,
        enabled: bool = True,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from . import __version__  # noqa: PLC0415 - the version stands in the package, which imports this module

        if type(enabled) is not bool:
            raise ConfigurationError("Dedup.enabled", enabled, "true or false")
        self.clock: Callable[[], float] = clock
        self.lock = threading.RLock()
        self._hash = Hasher(config.secret_bytes(secret))
        self._max_bytes = config.memory_bytes(store)
        self._given = config.checked_rules(rules)
        self._default = config.checked_default(default)
        self.own_states: list[Mapping[str, Any]] = []
        self._places = self._editions = 0
        self._own: frozenset[str] = frozenset()
        self.plans: Memo[tuple[str, str, bytes | None, str | None, int], Plan] = Memo(4096)
        self.bodies: Memo[bytes, bytes] = Memo(4096)
        self.variants: Memo[bytes, frozenset[bytes]] = Memo(10_000)
        self.passes: Memo[bytes, float] = Memo(10_000)
        self.outgrown: Memo[bytes, float] = Memo(10_000)
        self.flights = FlightTable(clock, self.lock, MAX_FLIGHTS)
        gauges = Gauges(
            lambda: len(self.flights.under_way),
            lambda: self.store.size,
            lambda: self.store.evicted,
            lambda: self.recorder.dropped if self.recorder is not None else 0,
        )
        self.telemetry: Telemetry = Telemetry(__version__, gauges, meter_provider, tracer_provider)
        self.templates = Templates()
        self.recording = False
        self.recorder: Recorder | None = None
        self._hit_lately: list[tuple[str, bytes, Stored]] = []
        self.events = Events(self.telemetry.listener_failed)
        self._apply(self._given)
        self.calls = Calls(self)
        self.on = enabled and config.enabled_by_environment(os.environ.get("DEDUP_ENABLED"))
        self._marked: dict[tuple[str, tuple[str, ...]], Rule] = {}
        self.ledger, detail = config.ledger(records, records_detail, secret)
        if self.ledger is not None:
            self.recorder = Recorder(self, self.ledger, detail=detail)
        watched = checked_alerts(alerts, has_ledger=self.ledger is not None)
        self.watch = Watch(self, watched, __version__) if watched else None
        _after_fork(self)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **overrides: Any) -> Dedup:
        """An engine as a TOML file describes it: the same fields as the keywords, rules as `[[rule]]` tables."""
        return cls(**{**config.load(path), **overrides})

    def _apply(self, rules: Sequence[Rule]) -> None:
        self._editions += 1
        self._switched_off: frozenset[str] = frozenset()
        self.book = RuleBook(rules, self._default, self._hash, self.own_states, self._editions)
        self._bounds = {
            ordinal: Bounds(rule.max_responses, self._max_bytes if rule.max_bytes is None else rule.max_bytes)
            for ordinal, rule in enumerate(self.book.rules)
        }
        self.limits = [
            Limits(float(rule.max_wait), rule.max_followers, rule.max_response_body)
            for rule in self.book.rules
        ]
        self._bounds[CALLS] = Bounds(Rule().max_responses, self._max_bytes)
        self.keeper = Keeper(self._empty_store, self.clock, self.telemetry)
        self.plans.clear()

    def _empty_store(self) -> Store:
        return MemoryStore(self._bounds, self._max_bytes, self.lock)

    @property
    def store(self) -> Store:
        """The store in use."""
        return self.keeper.store

    @store.setter
    def store(self, store: Store) -> None:
        self.keeper.store = store

    def add_rules(self, rules: Mapping[tuple[str, tuple[str, ...]], Rule]) -> None:
        """Take over the rules that `@deduplicate` marks ask for, after those that were given."""
        self.in_use()
        fresh = {place: rule for place, rule in rules.items() if place not in self._marked}
        if fresh:
            self.clear()  # rules change places: nothing that was computed under another one may answer
            self._marked.update(fresh)
            self._apply((*self._given, *self._marked.values()))

    def in_use(self) -> None:
        """Somebody uses the engine: its threads, where it has any, run from now on."""
        if self.watch is not None:
            self.watch.start()
        if self.recorder is not None:
            self.recorder.start()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force, in the order in which they are tried; `default` takes what none matches."""
        return self.book.rules[:-1]

    @property
    def default(self) -> Rule:
        """The rule for what no other one matches."""
        return self._default

    # -- the switch ---------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether requests are deduplicated; False gives the bare app at once. Flights under way finish."""
        return self.on

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if type(value) is not bool:
            raise ConfigurationError("Dedup.enabled", value, "true or false")
        with self.lock:
            if self.on != value:
                # What was computed before the switch is served no more: changes went unseen in between.
                self.clear()
            self.on = value

    def switch(self, label: str, *, on: bool) -> None:
        """Switch one rule off, so that its requests pass the middleware by, or on again; what it stored goes.

        `label` is the rule's name, or what `stats().rules` calls it.

        Raises:
            ConfigurationError: for a rule that there is none of, and one that is off by its own `mode`.
        """
        with self.lock:
            rules = dict(zip(self.book.labels, self.book.rules, strict=True))
            if label not in rules:
                raise ConfigurationError("Dedup.switch", label, f"one of {', '.join(rules)}")
            if label not in self._switched_off and rules[label].mode == "off":
                raise ConfigurationError("Dedup.switch", label, 'a rule whose own mode is not "off"')
            self._switched_off = self._switched_off - {label} if on else self._switched_off | {label}
            self.book.switch(self._switched_off)
            self.plans.clear()
            self.invalidate_rule(label)

    @property
    def switched_off(self) -> frozenset[str]:
        """The rules that `switch` has switched off."""
        return self._switched_off

    # -- what code may ask --------------------------------------------------------------------------------------

    async def invalidate(self, *tags: str) -> int:
        """Drop what carries one of the tags: stored responses go, flights under way take no newcomers.

        After it returns, nothing computed before it is served. Returns how many stored responses went.
        """
        for tag in tags:
            if not isinstance(tag, str):  # a list of tags would drop nothing, and nobody would notice
                raise TypeError(f"a tag is a text, not {type(tag).__name__}")
        started = self.clock()
        dropped = self.invalidate_names([f"tag:{tag}" for tag in tags])
        self.telemetry.record_store(self.clock() - started, "invalidate")
        self._tell_invalidated("code", tags, dropped)
        return dropped

    def _tell_invalidated(self, by: str, tags: Iterable[str], dropped: int) -> None:
        if self.events.heard:
            self.events.publish(ResponseInvalidated(at=time.time(), by=by, tags=tuple(tags), dropped=dropped))

    def invalidate_names(self, names: Iterable[str]) -> int:
        """The same, at once, for names as the engine spells them."""
        with self.lock:
            names = list(names)
            self.flights.invalidate(names)
            return self.keeper.invalidate(names)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is stored, and nothing under way that could be: then nothing is out of date."""
        return not self.flights.under_way and self.keeper.is_empty()

    def wrote(self, scope: Scope, names: Sequence[str]) -> None:
        """An unsafe request may have changed its target: nothing older is served, its caller reads its own write."""
        with self.lock:
            if self.flights.under_way:
                self.flights.invalidate(names)
            dropped = self.keeper.invalidate(names)
        if dropped:
            self._tell_invalidated("request", tags_in(names), dropped)
        if self.flights.under_way:
            self.flights.invalidate_for(address_name(scope), Caller(scope).may_be)

    def clear(self, *, by: str = "code") -> int:
        """Drop every stored response and close every flight to newcomers; how many responses there were."""
        with self.lock:
            self.flights.invalidate_all()
            self.passes.clear()
            self.outgrown.clear()
            self.variants.clear()
            dropped = self.keeper.clear()
        if dropped:
            self._tell_invalidated(by, (), dropped)
        return dropped

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Subscription:
        """Call `listener` with what happens (only these kinds of events, if any are named); `close()` ends it.

        It is called in a thread of its own, one event after the other. What it is too slow for is dropped.

        Raises:
            TypeError: for a listener that can't be called, or a kind that is no event.
        """
        return self.events.subscribe(listener, kinds)

    def invalidate_rule(self, label: str) -> int:
        """Drop what one rule stored, and close its flights; how many responses there were."""
        with self.lock:
            self.flights.invalidate_where(lambda flight: flight.label == label)
            return sum(
                self.keeper.drop(ordinal) for ordinal, name in enumerate(self.book.labels) if name == label
            )

    def invalidate_key(self, key: str) -> int:
        """Drop what is stored under a fingerprint's digest (32 hex digits), and close its flight.

        Raises:
            ValueError: for what is no such digest.
        """
        digest = bytes.fromhex(key)
        with self.lock:
            self.flights.invalidate_where(lambda flight: flight.key == digest)
            return self.keeper.drop(None, digest)

    def held(self, *, rule: str | None = None, tag: str | None = None) -> list[Held]:
        """What is stored, the youngest first: under one rule, with one tag, where these are given."""
        try:
            items = self.store.items()
        except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises
            self.store_failed("items", error)
            items = []
        return held(items, self.book.labels, self.clock(), rule, tag)

    def under_way(self) -> list[UnderWay]:
        """The flights under way, the oldest first."""
        return under_way(list(self.flights.under_way), self.clock())

    @property
    def ledger_failures(self) -> int:
        """Writes to the ledger that failed so far."""
        return self.recorder.failures if self.recorder is not None else 0

    def stats(self) -> Stats:
        """What happened so far, and what is held now."""
        return make_stats(self.telemetry.tallies.copy().values(), len(self.flights.under_way), self.store)

    def explain(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        client: str = "127.0.0.1",
        scheme: str = "http",
        root_path: str = "",
        scope: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """Which rule a request meets, what its fingerprint holds and leaves out, and what the app would see.

        `scope` adds to what the other arguments say, or replaces it (`user`, `session`, `state`...). Secrets show as
        `***`. Nothing is executed.
        """
        return explain(
            self.book,
            config.example_scope(method, target, headers, client, scheme, root_path) | dict(scope or {}),
            body,
        )

    async def call(
        self,
        key: object,
        fn: Callable[[], Awaitable[T]],
        *,
        ttl: float | str = 0,
        tags: Iterable[str] = (),
        max_wait: float = 30,
    ) -> T:
        """Run a function once for all who ask for the same key now, and keep its value for `ttl`.

        `key` is plain data (texts, numbers, tuples, lists, dicts with text keys). All callers get the same object:
        treat it as read-only. The leader gets the function's own exception, followers a `ForwardFailed`.

        Raises:
            TypeError: for a key that is not plain data.
        """
        return await self.calls.call(key, fn, ttl=ttl, tags=tags, max_wait=max_wait)

    def cached(
        self, *, ttl: float | str = 0, tags: Iterable[str] = (), max_wait: float = 30
    ) -> Callable[[Callable[..., Awaitable[T]]], Callable[..., Awaitable[T]]]:
        """`call` as a decorator: the key is the function and its arguments, which also fill `{name}` in the tags."""
        return cached(self.calls, ttl=ttl, tags=tags, max_wait=max_wait)

    async def aclose(self) -> None:
        """Cancel this loop's flights and wait for their end; drop what is stored. A closed engine may be used again."""
        if self.watch is not None:
            self.watch.stop()
        self.plans.clear()
        self.clear()
        await self.drain()
        self.keeper.stop(asyncio.get_running_loop())
        if self.recorder is not None:
            await self.recorder.aclose()
            await self.recorder.ledger.aclose()

    async def drain(self, place: int | None = None) -> None:
        """Cancel this loop's flights (of one middleware's app), and wait up to 3 s: it closes what they use."""
        loop = asyncio.get_running_loop()
        tasks = [
            flight.task
            for flight in list(self.flights.under_way)
            if flight.loop is loop and flight.task is not None and place in (None, flight.place)
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        if self.recorder is not None:
            await self.recorder.settle()

    # -- what the engine's own rooms ask ------------------------------------------------------------------------

    def leave_alone(self, *places: str) -> None:
        """Requests at and below these paths are an administration's: they pass the middlewares by, uncounted."""
        with self.lock:
            self._own |= {place for place in places if place}
            self.plans.clear()

    def is_own(self, scope: Scope) -> bool:
        """Whether a request is for an administration of this engine."""
        path, root = scope["path"], scope.get("root_path") or ""
        return any(
            f"{path}/".startswith((f"{place}/", f"{root}{place}/")) for place in self._own
        ) and not ambiguous(path, scope.get("raw_path"))

    def new_place(self) -> int:
        """A number for one middleware: apps that share the engine share no response."""
        place = self._places
        self._places += 1
        return place

    def plan(self, scope: Scope, place: int = 0) -> Plan:
        """The plan for a request to one middleware's app, remembered for its method and path."""
        key = (scope["method"], scope["path"], scope.get("raw_path"), scope.get("root_path"), place)
        plan = self.plans.get(key)
        if plan is None:
            self.in_use()
            plan = self.book.plan(scope, place)
            if self.is_own(scope):
                plan = Bypass("off", plan.label)
            else:
                plan = structs.replace(plan, tally=self._tally_of(plan, scope["method"]))
            if len(key[0]) + len(key[1]) + len(key[2] or b"") <= _PLAN_BYTES:
                self.plans.put(key, plan)
        return plan

    def _tally_of(self, plan: Plan, method: str) -> object:
        if isinstance(plan, Consider):
            reasons: tuple[Reason, ...] = ("fresh", "not-modified")
            return {reason: self.telemetry.tally("hit", reason, plan.label, method) for reason in reasons}
        return self.telemetry.tally("bypassed", plan.reason, plan.label, method)

    def variant(self, plan: Consider, key: bytes, scope: Scope) -> bytes:
        """The key of the request's own variant, where a response's Vary told some apart under this key."""
        names = self.variants.get(key)
        return plan.fingerprints.variant(key, names, scope["headers"]) if names else key

    def note(self, label: str, key: bytes, stored: Stored) -> None:
        """A stored response has its first hit since hits were recorded."""
        stored.noted = True
        if self.recording:
            self._hit_lately.append((label, key, stored))

    def hits_lately(self) -> list[tuple[str, bytes, int, int]]:
        """Hits since this was last asked: rule, key, how many, and the bytes that they sent again."""
        lately, self._hit_lately = self._hit_lately, []
        found = []
        for label, key, stored in lately:
            stored.noted = False  # before it is read: a hit in between is noted again
            hits = stored.hits
            body = len(stored.body) if isinstance(stored, StoredResponse) else 0
            found.append((label, key, hits - stored.recorded, (hits - stored.recorded) * body))
            stored.recorded = hits
        return found

    @staticmethod
    def names(scope: Scope, tags: Iterable[str]) -> tuple[str, ...]:
        """The names on which a request's response depends: its target and its tags."""
        return (target_name(scope), *tags)

    def digest(self, data: bytes) -> bytes:
        """The engine's keyed digest."""
        return self._hash(data)

    def put(self, partition: int, key: bytes, stored: Stored, loop: asyncio.AbstractEventLoop) -> bool:
        """Store, and see to it that what expires is freed; whether it was stored."""
        return self.keeper.put(partition, key, stored, loop)

    def store_failed(self, operation: str, error: Exception) -> None:
        """Tell, once a minute, that requests go without the store."""
        self.keeper.failed(operation, error)

    def _forked(self) -> None:
        self.lock = threading.RLock()
        self.flights.lock = self.lock  # what the parent's threads held stays held
        self.flights.reset()
        self.keeper.store = self.keeper.make()  # and what they were changing is half changed
        self.keeper.stop(None)
        self.events.restart()
        if self.recorder is not None:
            self.recorder.forked()
        if self.watch is not None:
            self.watch.restart()


def _after_fork(dedup: Dedup) -> None:
    if hasattr(os, "register_at_fork"):
        forked = weakref.WeakMethod(dedup._forked)  # noqa: SLF001 - in its own module

        def after_in_child() -> None:
            method = forked()
            if method is not None:
                method()

        os.register_at_fork(after_in_child=after_in_child)
