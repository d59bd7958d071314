"""The middleware: an ASGI app around an ASGI app.

Law: what is not shared passes through untouched; what is shared is decided elsewhere. A hit is answered right here.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from . import marks
from .core.decide import Bypass, Consider, ambiguous_query
from .core.errors import ConfigurationError
from .core.http import SAFE_METHODS
from .core.rules import check_fields
from .dedup import Dedup
from .exchange import Exchange
from .forward import route_of
from .hit import answer, tell
from .telemetry import log

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .core.http import StoredResponse
    from .core.rules import Rule
    from .core.status import Reason
    from .telemetry import MeterProvider, Span, Tracer, TracerProvider

_DISABLED: Final = Bypass("disabled", "default")
_HTTP_1: Final = frozenset({"1.0", "1.1"})


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
            records: None = None,
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
            caller = sys._getframe(1).f_code.co_name  # noqa: SLF001
            self._make(app, dedup, config, settings, caller)

    def _make(
        self,
        app: ASGIApp,
        dedup: Dedup | None,
        config: str | os.PathLike[str] | None,
        settings: dict[str, Any],
        caller: str,
    ) -> None:
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on whatever is none."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if not self._ready:
            self._prepare(scope)
        dedup = self.dedup
        if not dedup.on:
            await self._bypass(self._disabled(scope), "disabled", scope, receive, send)
            return
        get = scope.get
        plan = dedup.plans.young.get(
            (scope["method"], scope["path"], get("raw_path"), get("root_path"), self._place)
        ) or dedup.plan(scope, self._place)
        if isinstance(plan, Bypass):
            await self._bypass(plan, plan.reason, scope, receive, send)
            return
        query = scope["query_string"]
        if query and ambiguous_query(query):
            await self._bypass(plan, "target", scope, receive, send)
            return
        raw: bytes | None = None
        body: bytes | None = None
        if plan.reads_body or scope["http_version"] not in _HTTP_1:
            try:
                messages, raw, doubt = await _read_body(scope, receive, plan.rule.max_request_body)
            except BaseException:
                dedup.telemetry.count("bypassed", "disconnected", plan.label, scope["method"])
                raise
            if doubt is None and raw is not None and plan.reads_body:
                body = plan.fingerprints.body_part(scope, raw, dedup.bodies)
            elif doubt is not None or raw:
                await self._bypass(plan, doubt or "request-body", scope, _replay(messages, receive), send)
                return
        key = plan.fingerprints.key_below(plan.lookup, scope, body)
        if not isinstance(key, bytes):
            await self._bypass(plan, key, scope, _again(raw, receive), send)
            return
        base = key
        if dedup.variants.young:
            key = dedup.variant(plan, key, scope)
        now = dedup.clock()
        try:
            # A function's value never lies under a request's key.
            stored: StoredResponse | None = dedup.store.get(plan.ordinal, key, now)  # type: ignore[assignment]
        except Exception as error:  # noqa: BLE001 - law 9: whatever a store raises, the request is answered
            dedup.store_failed("get", error)
            stored = None
        if stored is not None:
            start, content, reason = answer(scope, stored, now)
            try:
                await send(start)
                await send({"type": "http.response.body", "body": content, "more_body": False})
            finally:
                tell(dedup, plan, scope["method"], stored, now, key, start["status"], reason)
            return
        await self._forward(plan, scope, receive, send, base, body, raw, now)

    async def _forward(
        self,
        plan: Consider,
        scope: Scope,
        receive: Receive,
        send: Send,
        base: bytes,
        body: bytes | None,
        raw: bytes | None,
        now: float,
    ) -> None:
        """What no stored response answers: a flight."""
        dedup = self.dedup
        key = base
        if plan.lookup is not plan.prefix:
            own = plan.fingerprints.key_below(plan.prefix, scope, body)
            if not isinstance(own, bytes):  # the rule's identity function has changed its mind
                await self._bypass(plan, own, scope, _again(raw, receive), send)
                return
            key = own
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            dedup.telemetry.warn("event-loop", "not an asyncio event loop: every request is bypassed")
            await self._bypass(plan, "event-loop", scope, _again(raw, receive), send)
            return
        exchange = Exchange(dedup, self.app, plan, scope, receive, send, key, raw, now)
        if not await exchange.run():
            again = _replay(exchange.heard, receive) if exchange.heard else _again(raw, receive)
            await self._bypass(plan, "too-many-flights", scope, again, send, exchange.span)

    def _disabled(self, scope: Scope) -> Bypass:
        """A write may end after the switch is on again, so that it invalidates as ever; all else is none of ours."""
        plan = None if scope["method"] in SAFE_METHODS else self.dedup.plan(scope, self._place)
        if not isinstance(plan, Bypass):
            return _DISABLED
        return Bypass(_DISABLED.reason, _DISABLED.label, unsafe=plan.unsafe, tags=plan.tags)

    async def _bypass(
        self,
        plan: Bypass | Consider,
        reason: Reason,
        scope: Scope,
        receive: Receive,
        send: Send,
        span: Span | None = None,
    ) -> None:
        """The app by itself; an unsafe request invalidates before its head goes out and again at the end."""
        dedup = self.dedup
        method: str = scope["method"]
        dedup.telemetry.count("bypassed", reason, plan.label, method)
        tracer = dedup.telemetry.tracer(dedup.clock())
        if tracer is not None:
            await self._traced_bypass(tracer, plan, reason, scope, receive, send, span)
        elif type(plan) is Bypass and plan.unsafe:
            await self._write(plan, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _traced_bypass(
        self,
        tracer: Tracer,
        plan: Bypass | Consider,
        reason: Reason,
        scope: Scope,
        receive: Receive,
        send: Send,
        span: Span | None,
    ) -> None:
        """The same in a span; the app's own spans are children of it."""
        telemetry, label, method = self.dedup.telemetry, plan.label, scope["method"]
        started, status, route, error = time.time_ns(), 0, None, None
        span = span or telemetry.start_request(tracer, "bypassed", label, method, started)
        before = telemetry.enter(span) if span is not None else None

        async def send_and_note(message: Message) -> None:
            nonlocal status, route
            if message["type"] == "http.response.start":
                status, route = message["status"], route_of(scope)
            await send(message)

        try:
            if isinstance(plan, Bypass) and plan.unsafe:
                await self._write(plan, scope, receive, send_and_note)
            else:
                await self.app(scope, receive, send_and_note)
        except BaseException as failure:
            error = type(failure).__qualname__
            raise
        finally:
            if span is not None and before is not None:
                telemetry.leave(span, before)
            telemetry.tell(
                tracer,
                started,
                "bypassed",
                reason,
                label,
                method,
                status=status,
                route=route,
                error=error,
                span=span,
            )

    async def _write(self, plan: Bypass, scope: Scope, receive: Receive, send: Send) -> None:
        dedup = self.dedup
        changed = True
        # As the client asked: the app may write into its scope.
        asked = {"path": scope["path"], "headers": scope["headers"], "client": scope.get("client")}

        async def send_after(message: Message) -> None:
            nonlocal changed
            if message["type"] == "http.response.start":
                changed = not 400 <= message["status"] < 500
                if changed:
                    dedup.wrote(asked, plan.tags)
            await send(message)

        try:
            await self.app(scope, receive, send_after)
        except BaseException:
            changed = True
            raise
        finally:
            if changed:
                dedup.wrote(asked, plan.tags)

    # -- the app's own life -------------------------------------------------------------------------------------

    def _prepare(self, scope: MutableMapping[str, Any]) -> None:
        """What can be known only when the first scope arrives: the routes' marks."""
        if self._error is not None:
            raise self._error
        self.dedup.add_rules(marks.read(scope.get("app") or self.app))
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
                await self.dedup.drain()
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
    check_fields("DedupMiddleware.", settings, _SETTINGS)
    return Dedup.from_toml(config, **settings) if config is not None else Dedup(**settings)


_SETTINGS: Final = (
    "rules",
    "default",
    "store",
    "records",
    "secret",
    "enabled",
    "meter_provider",
    "tracer_provider",
    "clock",
)


async def _read_body(
    scope: Scope, receive: Receive, limit: int
) -> tuple[list[Message], bytes | None, Reason | None]:
    """The request's body up to the limit: what was read as messages, the whole body, or the doubt that forbids sharing.

    The messages themselves are not held: there may be any number of them, empty ones too.
    """
    declared: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            declared = value
    if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > limit):
        return [], None, "body-too-large" if declared.isdigit() else "body-length"
    body, read, more = b"", bytearray(), True
    while more and len(body) <= limit >= len(read):
        message = await receive()
        if message["type"] != "http.request":
            return [*_messages(bytes(read), more=True), message], None, "disconnected"
        body, more = message.get("body", b""), message.get("more_body", False)
        if more or read:
            read += body
    if read:
        body = bytes(read)
    if len(body) > limit:
        return _messages(body, more=more), None, "body-too-large"
    if declared is not None and int(declared) != len(body):
        return _messages(body, more=False), None, "body-length"
    return _messages(body, more=False), body, None


def _messages(body: bytes, *, more: bool) -> list[Message]:
    return [{"type": "http.request", "body": body, "more_body": more}] if body or not more else []


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A receive that first gives what was read already."""
    waiting = iter(messages)

    async def replaying() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replaying


def _again(body: bytes | None, receive: Receive) -> Receive:
    """A receive that gives the body that was read, if one was."""
    if body is None:
        return receive
    return _replay([{"type": "http.request", "body": body, "more_body": False}], receive)
