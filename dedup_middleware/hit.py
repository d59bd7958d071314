"""A hit: a request answered from the store, at once.

Law: what a hit does not need, a hit does not do: no task, no lock but the store's, no span unless a tracer records.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .core.decide import Consider, not_modified
from .events import ResponseServed
from .telemetry import DEBUG, requests_log

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from .core.http import StoredResponse
    from .core.status import Reason
    from .dedup import Dedup
    from .telemetry import Span

NOT_IN_304: Final = frozenset(
    b"content-length content-encoding content-type content-language content-range last-modified "
    b"transfer-encoding".split()
)
"""Fields about the representation, which a 304 does not carry (RFC 9110 s.15.4.5)."""


def answer(scope: Scope, stored: StoredResponse, now: float) -> tuple[Message, bytes, Reason]:
    """The start message, made fresh, the body, and whether it is a 304 (RFC 9111 s.4, s.4.3.2)."""
    head = stored.head
    if now >= stored.tail_until:
        stored.retell(now)
    headers = [*head.headers, *stored.tail]
    if stored.validates and not_modified(
        scope["method"], head.status, scope["headers"], stored.etag, stored.last_modified
    ):
        kept = [pair for pair in headers if pair[0].lower() not in NOT_IN_304]
        return {"type": "http.response.start", "status": 304, "headers": kept}, b"", "not-modified"
    body = b"" if scope["method"] == "HEAD" else stored.body
    return {"type": "http.response.start", "status": head.status, "headers": headers}, body, "fresh"


def tell(
    dedup: Dedup,
    plan: Consider,
    scope: Scope,
    stored: StoredResponse,
    now: float,
    key: bytes,
    status: int,
    reason: Reason,
    span: Span | None = None,
) -> None:
    """Trace a hit where a tracer records, and log it; `span` is that of a request that led before."""
    telemetry = dedup.telemetry
    tracer = telemetry.tracer(now)
    if dedup.events.heard:
        dedup.events.publish(
            ResponseServed(
                at=time.time(),
                rule=plan.label,
                key=key.hex(),
                duration=dedup.clock() - now,
                age=now - stored.stored_at,
            )
        )
    if tracer is not None:
        started = time.time_ns() - int((dedup.clock() - now) * 1e9)
        age = now - stored.stored_at
        if span is None:
            telemetry.hit(
                tracer,
                started,
                plan.tally[reason],
                key,
                status,
                stored.route,
                stored.flight,
                stored.link,
                stored.seconds,
                age,
                scope["headers"],
            )
        else:
            telemetry.tell(
                tracer,
                started,
                "hit",
                reason,
                plan.label,
                scope["method"],
                key,
                status=status,
                route=stored.route,
                flight=stored.flight,
                link=stored.link,
                span=span,
                seconds=(("saved", stored.seconds), ("age", age)),
            )
    if not requests_log.isEnabledFor(DEBUG):
        telemetry.quiet_until = telemetry.look_again if tracer is None else now
    else:
        telemetry.debug(
            "hit", reason, plan.label, (("saved", stored.seconds), ("age", now - stored.stored_at))
        )
