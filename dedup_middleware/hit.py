"""A hit: a request answered from the store, at once.

Law: what a hit does not need, a hit does not do: no task, no lock but the store's, no span unless a tracer records.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from .core.decide import Consider, not_modified
from .telemetry import Attributes, Telemetry, log, span_name

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from .core.http import StoredResponse
    from .core.status import Reason
    from .dedup import Dedup

NOT_IN_304: Final = frozenset(
    b"content-length content-encoding content-type content-language content-range last-modified "
    b"transfer-encoding".split()
)
"""Fields about the representation, which a 304 does not carry (RFC 9110 s.15.4.5)."""


def answer(scope: Scope, stored: StoredResponse, now: float) -> tuple[Message, bytes, Reason]:
    """The start message, made fresh, the body, and whether it is a 304 (RFC 9111 s.4, s.4.3.2)."""
    head = stored.head
    headers = [*head.headers, *stored.tail(int(now - stored.stored_at))]
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
    method: str,
    stored: StoredResponse,
    now: float,
    key: bytes,
    status: int,
    reason: Reason,
) -> None:
    """Count a hit, and trace it where a tracer records."""
    telemetry = dedup.telemetry
    telemetry.count("hit", reason, plan.label, method, stored.seconds)
    tracer = telemetry.tracer(now)
    if tracer is not None:
        attributes: Attributes = {
            "dedup.outcome": "hit",
            "dedup.reason": reason,
            "dedup.rule": plan.label,
            "dedup.key": key.hex(),
            "dedup.saved": round(stored.seconds, 6),
            "dedup.age": round(now - stored.stored_at, 6),
            "http.request.method": method,
            "http.response.status_code": status,
        }
        if stored.route is not None:
            attributes["http.route"] = stored.route
        if stored.flight is not None:
            attributes["dedup.flight"] = stored.flight
        started = time.time_ns() - int((dedup.clock() - now) * 1e9)
        name = span_name("hit", stored.route, plan.label, method)
        Telemetry.request_span(tracer, name, started, attributes, stored.link)
    if log.isEnabledFor(logging.DEBUG):
        log.debug("hit", extra={"dedup_rule": plan.label})
