"""A hit: a request answered from the store, at once.

Law: what a hit does not need, a hit does not do: no task, no lock but the store's, no span unless a tracer records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .core.decide import Consider, not_modified
from .telemetry import Attributes, Telemetry, log, span_name

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

    from .core.http import StoredResponse
    from .core.status import Reason
    from .dedup import Dedup

NOT_IN_304: Final = frozenset(
    b"content-length content-encoding content-type content-language content-range last-modified "
    b"transfer-encoding".split()
)
"""Fields about the representation, which a 304 does not carry (RFC 9110 s.15.4.5)."""


async def serve(
    dedup: Dedup,
    plan: Consider,
    scope: Scope,
    send: Send,
    stored: StoredResponse,
    now: float,
    started_ns: int,
    key: bytes,
) -> None:
    """Answer from the store: the whole of what a hit does."""
    head = stored.head
    method: str = scope["method"]
    status = head.status
    reason: Reason = "fresh"
    age = b"%d" % (stored.initial_age + int(now - stored.stored_at))
    headers = [
        *head.headers,
        (b"age", age),
        (b"cache-status", b"dedup; hit; ttl=%d" % (stored.expires - now)),
    ]
    body = stored.body
    if method == "HEAD":
        body = b""
    if (stored.etag is not None or stored.last_modified is not None) and not_modified(
        method, status, scope["headers"], stored.etag, stored.last_modified
    ):
        status, reason, body = 304, "not-modified", b""
        headers = [pair for pair in headers if pair[0].lower() not in NOT_IN_304]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
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
        name = span_name("hit", stored.route, plan.label, method)
        Telemetry.request_span(tracer, name, started_ns, attributes, stored.link)
    if log.isEnabledFor(10):
        log.debug("hit", extra={"dedup_rule": plan.label})
