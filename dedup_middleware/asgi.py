"""The middleware: an ASGI app around an ASGI app.

Law: what is not shared passes through untouched; what is shared is decided elsewhere. A hit is answered right here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from . import marks
from .bypass import bypass, write
from .core.ambiguity import ambiguous_query
from .core.assess import NOTHING_WANTED, wants
from .core.checks import check_fields
from .core.conditional import is_precondition
from .core.decide import Bypass, Consider
from .core.errors import ConfigurationError
from .core.http import SAFE_METHODS
from .core.rules import RULE_FIELDS
from .core.shape import HEADERS, HTTP_VERSION, NO_SHAPE, QUERY, TARGET, shape_of
from .dedup import Dedup
from .exchange import Exchange
from .hit import answer, tell
from .incoming import again, read_body, read_nothing, replay
from .refresh import refresh
from .routes import own_places, routes_of
from .telemetry import log
from .turns import run

if TYPE_CHECKING:
    import os
    import time
    from collections.abc import Callable, Iterable, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .alerts import Alert
    from .core.http import StoredResponse
    from .core.rules import Rule
    from .core.shape import Shape
    from .records import Ledger
    from .telemetry import MeterProvider, Tally, TracerProvider

_DISABLED: Final = Bypass("disabled", "default")


class DedupMiddleware:
    """Collapses identical concurrent requests and serves stored responses by rule.

    `dedup` is an engine to share; without one, `config` names a TOML file and the other keywords are those of
    `Dedup`, which override the file's.

    Raises:
        ConfigurationError: for any setting that can't be.
    """

    if TYPE_CHECKING:
        # mypy refuses a middleware with **settings in Starlette's add_middleware, and an editor wants the names.
        def __init__(
            self,
            app: ASGIApp,
            *,
            dedup: Dedup | None = None,
            config: str | os.PathLike[str] | None = None,
            rules: Iterable[Rule] = (),
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
        ) -> None: ...
    else:

        def __init__(
            self, app: ASGIApp, *, dedup: object = None, config: object = None, **settings: Any
        ) -> None:
            caller = sys._getframe(1).f_code.co_name  # noqa: SLF001 - see `_make`
            self._make(app, dedup, config, settings, caller)

    def _make(
        self,
        app: ASGIApp,
        dedup: Dedup | None,
        config: str | os.PathLike[str] | None,
        settings: dict[str, Any],
        caller: str,
    ) -> None:
        if not callable(app):
            raise ConfigurationError(
                "DedupMiddleware.app", app, "an ASGI app; settings come after it, by name"
            )
        self.app = app
        self._ready = False
        self._error: ConfigurationError | None = None
        try:
            self.dedup = _engine(dedup, config, settings)
        except ConfigurationError as error:
            # Starlette builds what add_middleware was given when the server's first call arrives. An exception there
            # looks to a server like an app without a lifespan; so it is told as a failed start instead.
            if caller != "build_middleware_stack":
                raise
            self.dedup = Dedup(enabled=False)
            self._error = error
        self._place = self.dedup.new_place()
        self._plans = self.dedup.plans_at(self._place)
        self._shape = NO_SHAPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is not a request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        shape = self._shape
        try:
            said = shape.read(scope)
        except KeyError:
            shape, said = NO_SHAPE, ()
        if len(scope) != shape.count:
            if not self._ready:
                self._prepare(scope)
            self._shape = shape = shape_of(scope)
            said = shape.read(scope)
        if type(said[HEADERS]) is not list:  # ASGI allows any iterable, and some can be read once
            scope["headers"] = list(said[HEADERS] or ())
            shape = shape_of(scope)  # a scope made by hand may have had none
            said = shape.read(scope)
        dedup = self.dedup
        if not dedup.on:
            if dedup.is_own(scope):
                await self.app(scope, receive, send)
                return
            await bypass(dedup, self.app, self._disabled(scope), "disabled", scope, receive, send)
            return
        plan = self._plans.young.get(said[TARGET]) or dedup.plan(scope, self._place, self._plans)
        if type(plan) is Bypass:  # a struct's isinstance asks its metaclass
            if plan.tally is None:  # the administration's own
                await self.app(scope, receive, send)
            elif dedup.telemetry.tracer(dedup.clock()) is not None:
                await bypass(dedup, self.app, plan, plan.reason, scope, receive, send)
            else:
                plan.tally.number += 1
                if plan.unsafe:
                    await write(dedup, self.app, plan, scope, receive, send)
                else:
                    await self.app(scope, receive, send)
            return
        if said[QUERY] and ambiguous_query(said[QUERY]):
            await bypass(dedup, self.app, plan, "target", scope, receive, send)
            return
        raw: bytes | None = None
        body: bytes | None = None
        if plan.reads_body or said[HTTP_VERSION] not in ("1.1", "1.0", None):
            found = await self._read(plan, scope, receive, send, said)
            if found is None:
                return
            raw, body, shape, said = found
        key = plan.fingerprints.key_below(plan.lookup, scope, body, shape, said)
        if not isinstance(key, bytes):
            await bypass(dedup, self.app, plan, key, scope, again(raw, receive), send)
            return
        base = key
        if dedup.variants.young:
            key, _ = dedup.variant(plan, key, scope["headers"])
        now = dedup.clock()
        if plan.heeds and (asked := wants(scope["headers"])) is not NOTHING_WANTED:
            method = scope["method"]
            await run(
                Exchange(dedup, self.app, plan, method, scope, receive, send, base, raw, now, shape, asked)
            )
            return
        stored: StoredResponse | None = None
        if plan.stores:
            try:
                # A function's value never lies under a request's key.
                stored = dedup.keeper.store.get(plan.ordinal, key, now)  # type: ignore[assignment] # see above
            except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises, the request is answered
                dedup.store_failed("get", error)
        if stored is not None and not stored.contested:
            start, content, reason = answer(scope, stored, now)
            try:
                await send(start)
                await send({"type": "http.response.body", "body": content, "more_body": False})
            finally:
                tally: Tally = plan.tally[reason]
                tally.number += 1
                tally.saved += stored.seconds
                stored.hits += 1
                if not stored.noted:
                    dedup.note(plan.label, key, stored)
                if now >= dedup.telemetry.quiet_until:
                    tell(dedup, plan, scope, stored, now, key, start["status"], reason)
                if now >= stored.refresh_at:
                    self._refresh(plan, scope, key, base, raw, stored)
            return
        await run(
            Exchange(dedup, self.app, plan, scope["method"], scope, receive, send, base, raw, now, shape)
        )

    async def _read(
        self, plan: Consider, scope: Scope, receive: Receive, send: Send, said: tuple[Any, ...]
    ) -> tuple[bytes | None, bytes | None, Shape, tuple[Any, ...]] | None:
        """The body as it came, what of it counts, and the scope's shape and what it reads after that.

        None where the request has been passed on instead.
        """
        dedup = self.dedup
        if plan.reads_body and is_precondition(scope["method"], said[HEADERS]):
            await bypass(dedup, self.app, plan, "precondition", scope, receive, send)
            return None
        try:
            if plan.reads_body:
                messages, raw, doubt = await read_body(scope, receive, plan.rule.max_request_body)
            else:
                messages, raw, doubt = await read_nothing(receive)
        except BaseException:
            dedup.telemetry.count("bypassed", "disconnected", plan.label, scope["method"])
            raise
        shape, target = shape_of(scope), said[TARGET]
        said = shape.read(scope)
        if said[TARGET] != target:  # who checks a body may write into the scope what it says
            await self._rewritten(scope, replay(messages, receive), send)
            return None
        if doubt is None and raw is not None and plan.reads_body:
            return raw, plan.fingerprints.body_part(scope, raw, dedup.bodies), shape, said
        if doubt is not None or raw:
            rest = replay(messages, receive)
            await bypass(dedup, self.app, plan, doubt or "request-body", scope, rest, send)
            return None
        return raw, None, shape, said

    async def _rewritten(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Another target than the one that was planned for: a layer has read it from the body (method override)."""
        plan = self.dedup.plan(scope, self._place)
        reason = plan.reason if isinstance(plan, Bypass) else "target"
        await bypass(self.dedup, self.app, plan, reason, scope, receive, send)

    def _refresh(
        self, plan: Consider, scope: Scope, key: bytes, base: bytes, raw: bytes | None, stored: StoredResponse
    ) -> None:
        """A popular response is fetched anew before it is stale, by a GET, once."""
        if plan.lookup is plan.prefix:
            shown = dict(self.dedup.variants_of(plan, base, scope["headers"])).get(key)
            if shown is not None:
                refresh(self.dedup, self.app, plan, scope, key, base, shown, stored, raw or b"")

    def _disabled(self, scope: Scope) -> Bypass:
        """A write may end after the switch is on again, so that it invalidates as ever; all else is none of ours."""
        plan = None if scope["method"] in SAFE_METHODS else self.dedup.plan(scope, self._place)
        if not isinstance(plan, Bypass):
            return _DISABLED
        return Bypass(
            _DISABLED.reason,
            _DISABLED.label,
            unsafe=plan.unsafe,
            tags=plan.tags,
            invalidates_on_error=plan.invalidates_on_error,
        )

    # -- the app's own life -------------------------------------------------------------------------------------

    def _prepare(self, scope: MutableMapping[str, Any]) -> None:
        """What can be known only when the first scope arrives: the routes' marks."""
        if self._error is not None:
            raise self._error
        app = scope.get("app") or self.app
        self.dedup.templates.learn(app)
        self.dedup.leave_alone(*own_places(routes_of(app) or ()))
        self.dedup.add_rules(marks.read(app))
        self._ready = True

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self._prepare(scope)
        except ConfigurationError as error:
            await receive()
            log.error("%s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        if isinstance(scope.get("state"), dict):
            self.dedup.own_states.append(scope["state"])

        async def receive_and_drain() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # What runs on for nobody must not use what the app is about to close.
                await self.dedup.drain(self._place)
            return message

        try:
            await self.app(scope, receive_and_drain, send)
        finally:
            self.dedup.own_states[:] = [
                state for state in self.dedup.own_states if state is not scope.get("state")
            ]


def _engine(dedup: Dedup | None, config: str | os.PathLike[str] | None, settings: dict[str, Any]) -> Dedup:
    if dedup is not None:
        if not isinstance(dedup, Dedup):
            raise ConfigurationError("DedupMiddleware.dedup", dedup, "a Dedup")
        if config is not None or settings:
            given = "config" if config is not None else next(iter(settings))
            raise ConfigurationError(
                f"DedupMiddleware.{given}",
                config or settings.get(given),
                "nothing beside dedup, which has its settings",
            )
        return dedup
    for name, value in settings.items():
        if name in RULE_FIELDS and name not in _SETTINGS:
            raise ConfigurationError(
                f"DedupMiddleware.{name}", value, f"it in a rule: default=Rule({name}=...)"
            )
    check_fields("DedupMiddleware.", settings, ("dedup", "config", *_SETTINGS))
    return Dedup.from_toml(config, **settings) if config is not None else Dedup(**settings)


_SETTINGS: Final = (
    "rules",
    "default",
    "store",
    "records",
    "records_detail",
    "alerts",
    "secret",
    "enabled",
    "meter_provider",
    "tracer_provider",
    "clock",
)
