"""A bypass: the app by itself, untouched.

Law: the app's bytes, order and errors are its own; and an unsafe request invalidates, however it came here: before
its head goes out, and again when the app's call is over (a framework may commit after the last byte).
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

from .core.assess import wants
from .core.decide import Bypass, Consider
from .core.effects import effects
from .core.http import oversized
from .core.targets import target_name
from .serving import refuse
from .telemetry import Told

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .core.http import Headers
    from .core.status import Reason
    from .dedup import Dedup
    from .telemetry import Span, Tracer


async def bypass(
    dedup: Dedup,
    app: ASGIApp,
    plan: Bypass | Consider,
    reason: Reason,
    scope: Scope,
    receive: Receive,
    send: Send,
    span: Span | None = None,
) -> None:
    """Run the app for one request alone; `span` is that of a request that led before.

    Where its rule heeds only-if-cached, one that says so is refused: nothing stored answers it (RFC 9111 s.5.2.1.7).
    """
    if (
        isinstance(plan, Consider)
        and plan.heeds
        and not oversized(chain.from_iterable(scope["headers"]))
        and wants(scope["headers"]).only_if_cached
    ):
        await refuse(dedup, plan, scope, send, span)
        return
    telemetry = dedup.telemetry
    telemetry.count("bypassed", reason, plan.label, scope["method"])
    tracer = telemetry.tracer(dedup.clock())
    if tracer is not None:
        await _traced(dedup, app, plan, reason, scope, receive, send, tracer, span)
    else:
        await _answer(dedup, app, plan, scope, receive, send)


def _answer(
    dedup: Dedup, app: ASGIApp, plan: Bypass | Consider, scope: Scope, receive: Receive, send: Send
) -> Awaitable[None]:
    """The app's call, with what a write invalidates around it."""
    if isinstance(plan, Bypass) and plan.unsafe:
        return write(dedup, app, plan, scope, receive, send)
    return app(scope, receive, send)


async def _traced(
    dedup: Dedup,
    app: ASGIApp,
    plan: Bypass | Consider,
    reason: Reason,
    scope: Scope,
    receive: Receive,
    send: Send,
    tracer: Tracer,
    span: Span | None,
) -> None:
    """The same in a span; the app's own spans are children of it."""
    telemetry, label, method = dedup.telemetry, plan.label, scope["method"]
    started, status, route, error = time.time_ns(), 0, None, None
    span = span or telemetry.start_request(tracer, "bypassed", label, method, started, scope["headers"])
    before = telemetry.enter(span) if span is not None else None

    async def send_and_note(message: Message) -> None:
        nonlocal status, route
        if message["type"] == "http.response.start":
            status, route = message["status"], dedup.templates.of(scope)
        await send(message)

    try:
        await _answer(dedup, app, plan, scope, receive, send_and_note)
    except BaseException as failure:
        error = type(failure).__qualname__
        raise
    finally:
        if span is not None and before is not None:
            telemetry.leave(span, before)
        told = Told("bypassed", reason, label, method, status=status, route=route, error=error)
        telemetry.tell(tracer, started, told, span=span)


async def write(dedup: Dedup, app: ASGIApp, plan: Bypass, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app for a request that may change something, and invalidate.

    2xx, 3xx, exceptions and cancellations may have changed something, and so may a 5xx if the rule does not say that it
    has not; a 4xx has not.
    """
    changed = True
    # As the client asked: the app may write into its scope.
    asked = {
        "scheme": scope.get("scheme"),
        "path": scope["path"],
        "headers": list(scope["headers"]),
        "client": scope.get("client"),
    }
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    answered: Headers = []
    holdings, calm = dedup.holdings, None

    def wrote() -> None:
        nonlocal names, groups, calm
        if holdings.is_idle or (calm is not None and calm == holdings.calm):
            return  # there is nothing that could be out of date, or nothing new since the first time
        calm = holdings.calm
        if not names:
            elsewhere, groups = effects(asked, answered)
            names = (target_name(asked["path"], asked["headers"]), *plan.tags, *elsewhere)
        holdings.wrote(asked, names, groups)

    async def send_after(message: Message) -> None:
        nonlocal changed, answered
        if message["type"] == "http.response.start":
            status = message["status"]
            changed = status < 400 or (status >= 500 and plan.invalidates_on_error)
            if status < 400:
                answered = list(message.get("headers", ()))  # of which some frameworks send a generator
                message = {**message, "headers": answered}
            if changed:
                wrote()
        await send(message)

    try:
        await app(scope, receive, send_after)
    except BaseException:
        changed = True
        raise
    finally:
        if changed:
            wrote()
