"""Dedup: the engine as users hold it: how it is set up, what code may ask of it, and its switch.

Law: every public name is here, and its settings are checked before anything is made of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from . import config
from .alerts import Alert, Watch, checked_alerts
from .cached import cached
from .calls import Calls
from .core.decide import check_names
from .core.errors import ConfigurationError
from .core.explain import Explanation, explain
from .core.fingerprint import Hasher
from .engine import Engine
from .inventory import Held, UnderWay, held, under_way
from .records.recorder import Recorder
from .stats import Stats, make_stats
from .telemetry import MeterProvider, Telemetry, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from .core.rules import Rule
    from .core.status import Reason
    from .events import Event, Listener, Subscription
    from .records import Ledger

T = TypeVar("T")


class Dedup(Engine):
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
        if not callable(clock):
            raise ConfigurationError(
                "Dedup.clock", clock, "a function that gives seconds, as time.monotonic does"
            )
        given, rest = config.checked_rules(rules), config.checked_default(default)
        check_names(given, rest)
        super().__init__(
            given,
            rest,
            Hasher(config.secret_bytes(secret)),
            config.memory_bytes(store),
            clock,
            lambda gauges: Telemetry(__version__, gauges, meter_provider, tracer_provider),
        )
        self.on = enabled and config.enabled_by_environment(os.environ.get("DEDUP_ENABLED"))
        self.calls = Calls(self)
        self.ledger, detail = config.ledger(records, records_detail, secret)
        if self.ledger is not None:
            self.recorder = Recorder(self, self.ledger, detail=detail)
        watched = checked_alerts(alerts, has_ledger=self.ledger is not None)
        if watched:
            self.watch = Watch(self, watched, __version__)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **overrides: Any) -> Dedup:
        """An engine as a TOML file describes it: the same fields as the keywords, rules as `[[rule]]` tables."""
        return cls(**{**config.load(path), **overrides})

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force, in the order in which they are tried; `default` takes what none matches."""
        return self.book.rules[:-1]

    @property
    def default(self) -> Rule:
        """The rule for what no other one matches."""
        return self.ruling.default

    # -- the switch ---------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether requests are deduplicated; False gives the bare app at once. Flights under way finish."""
        return self.on

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if type(value) is not bool:
            raise ConfigurationError("Dedup.enabled", value, "true or false")
        self.switch(None, on=value)

    def switch(self, label: str | None, *, on: bool, by: str = "code") -> None:
        """Switch one rule off, so that its requests pass the middleware by, or on again; what it stored goes.

        `label` is the rule's name, or what `stats().rules` calls it; None switches everything, as `enabled` does.

        Raises:
            ConfigurationError: for a rule that there is none of, and one that is off by its own `mode`.
        """
        # What was computed before the switch is served no more: changes went unseen in between.
        with self.lock:
            if label is not None:
                self.ruling.switch(label, on=on)
                self.invalidate_rule(label, by=by)
            elif self.on != on:
                self.clear(by=by)
                self.on = on

    @property
    def switched_off(self) -> frozenset[str]:
        """The rules that `switch` has switched off."""
        return self.ruling.switched_off

    # -- what code may ask --------------------------------------------------------------------------------------

    async def invalidate(self, *tags: str) -> int:
        """Drop what carries one of the tags: stored responses go, flights under way take no newcomers.

        After it returns, nothing computed before it is served. Returns how many stored responses went.
        """
        for tag in tags:
            if not isinstance(tag, str):  # a list of tags would drop nothing, and nobody would notice
                raise TypeError(f"a tag is a text, not {type(tag).__name__}")
        started = self.clock()
        dropped = self.holdings.drop_tags(tags, "code")
        self.telemetry.record_store(self.clock() - started, "invalidate")
        return dropped

    def invalidate_rule(self, label: str, *, by: str = "code") -> int:
        """Drop what one rule stored, and close its flights; how many responses there were."""
        return self.holdings.drop_rule(label, self.book.labels, by)

    def invalidate_key(self, key: str, *, by: str = "code") -> int:
        """Drop what is stored under a fingerprint's digest (32 hex digits), and close its flight.

        Raises:
            ValueError: for what is no such digest.
        """
        return self.holdings.drop_key(key, by)

    def clear(self, *, by: str = "code") -> int:
        """Drop every stored response and close every flight to newcomers; how many responses there were."""
        return self.holdings.drop_all(by)

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Subscription:
        """Call `listener` with what happens (only these kinds of events, if any are named); `close()` ends it.

        It is called in a thread of its own, one event after the other. What it is too slow for is dropped.

        Raises:
            TypeError: for a listener that can't be called, or a kind that is no event.
        """
        return self.events.subscribe(listener, kinds)

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
        return under_way(list(self.flights.under_way.values()), self.clock())

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
        response: tuple[int, Iterable[tuple[str, str]] | Mapping[str, str]] | None = None,
    ) -> Explanation:
        """Which rule a request meets, what its fingerprint holds and leaves out, and what the app would see.

        `scope` adds to what the other arguments say, or replaces it (`user`, `session`, `state`...). With `response`,
        a status and header fields, it also says whether that may be stored and shared, how long it is fresh, and by
        which section. Secrets show as `***`. Nothing is executed.
        """
        asked = config.example_scope(method, target, headers, client, scheme, root_path) | dict(scope or {})
        passed_by: Reason | None = None
        if self.is_own(asked):
            passed_by = "off"
        elif not self.on:
            passed_by = "disabled"
        return explain(
            self.book,
            asked,
            body,
            None if response is None else (response[0], config.header_pairs(response[1])),
            self.wall(),
            passed_by,
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
        """`call` as a decorator: the key is the function and its arguments, which also fill `{name}` in the tags.

        The function gets a copy of its lists and dicts, so that what is kept was computed from its key.

        Raises:
            ConfigurationError: for an async generator, and a tag that names no parameter.
        """
        return cached(self.calls, ttl=ttl, tags=tags, max_wait=max_wait)

    async def aclose(self) -> None:
        """Cancel this loop's flights and wait for their end; drop what is stored. A closed engine may be used again."""
        if self.watch is not None:
            self.watch.stop()
        self.ruling.forget()
        self.clear()
        await self.drain()
        self.keeper.stop(asyncio.get_running_loop())
        if self.recorder is not None:
            await self.recorder.aclose()
            await self.recorder.ledger.aclose()
