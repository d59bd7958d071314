"""A hit: a request answered from the store, at once.

Law: what a hit does not need, a hit does not do: no task, no lock but the store's, no span unless a tracer records.
"""

from __future__ import annotations

from math import floor
from time import time, time_ns
from typing import TYPE_CHECKING

from .core.conditional import not_modified, of_304
from .core.ranges import partial, within
from .core.status import served
from .events import ResponseServed
from .telemetry import DEBUG, Told, requests_log

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from .core.decide import Consider
    from .core.http import StoredResponse
    from .core.status import Outcome, Reason
    from .dedup import Dedup
    from .telemetry import Span


def answer(
    scope: Scope, stored: StoredResponse, now: float, stale: Reason | None = None
) -> tuple[Message, bytes, Reason]:
    """The start message, made fresh, the body, and the reason, which also says whether it is a 304 (RFC 9111 s.4.3.2).

    `stale` is why it may answer although it is.
    """
    head = stored.head
    if now >= stored.tail_until:
        stored.retell(now)
    headers = [*head.headers, *stored.tail]
    if stale is not None:
        headers[-1] = (b"cache-status", served(floor(stored.expires - now), stale) + stored.line_end)
    if stored.validates and not_modified(
        scope["method"],
        head.status,
        scope["headers"],
        stored.etag,
        stored.last_modified,
        dated=stored.arrived or None,
        now=stored.arrived or None,
    ):
        kept = of_304(headers, stored.etag)
        return {"type": "http.response.start", "status": 304, "headers": kept}, b"", stale or "not-modified"
    body = b"" if scope["method"] == "HEAD" else stored.body
    return {"type": "http.response.start", "status": head.status, "headers": headers}, body, stale or "fresh"


def part(
    scope: Scope, stored: StoredResponse, now: float, stale: Reason | None
) -> tuple[Message, bytes, Reason] | None:
    """The same for a request with a Range (RFC 9110 s.14.2, RFC 9111 s.3.3).

    None where what is stored answers as it is, or, being a part itself, has not all that is asked for.
    """
    start, body, reason = answer(scope, stored, now, stale)
    request, headers, dated = scope["headers"], start["headers"], stored.arrived or None
    found = None
    if stored.head.status == 206:
        held = stored.head.headers if start["status"] == 304 else headers
        found = within(request, held, stored.body, stored.etag, stored.last_modified, dated=dated)
    elif start["status"] == 200:
        found = partial(request, 200, headers, body, stored.etag, stored.last_modified, dated=dated)
    if found is None:
        return None
    if start["status"] == 304:
        return start, body, reason
    status, headers, content = found
    return {"type": "http.response.start", "status": status, "headers": headers}, content, stale or "range"


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
    outcome: Outcome = "hit",
) -> None:
    """Trace a hit where a tracer records, and log it; `span` is that of a request that led before."""
    telemetry, age = dedup.telemetry, now - stored.stored_at
    tracer = telemetry.found or telemetry.tracer(now)
    if dedup.events.heard:
        dedup.events.publish(
            ResponseServed(at=time(), rule=plan.label, key=key.hex(), duration=dedup.clock() - now, age=age)
        )
    logs = requests_log.isEnabledFor(DEBUG)
    if tracer is None and not logs:
        telemetry.quiet_until = telemetry.look_again
        return
    started, headers = time_ns() - int((dedup.clock() - now) * 1e9), scope["headers"]
    if tracer is not None and span is None and outcome == "hit":
        telemetry.hit(tracer, started, plan.tally[reason], key, status, stored, age, headers)
        tracer = None
        if not logs:
            return
    told = Told(outcome, reason, plan.label, scope["method"], key, status, saved=stored.seconds, age=age)
    told.route, told.flight, told.link = stored.route, stored.flight, stored.link
    if tracer is not None:
        telemetry.tell(tracer, started, told, headers, span)
    if logs:
        telemetry.debug(told)
