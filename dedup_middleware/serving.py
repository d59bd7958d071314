"""Serving: what is stored, sent to a request that was not a plain hit: stale, in part, found late, or refused.

Law: one look at the store, one verdict, one outcome told; of several that may answer, the most recent does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, cast

from .core.assess import FRESH, MISS, PARTIAL, Ask, Serve, Verdict, Wants, assess
from .core.fields import names_listed
from .core.http import StoredResponse, values
from .hit import answer, part, tell
from .keeping import OF_A_PART
from .refresh import refresh
from .telemetry import Told

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from .core.decide import Consider
    from .core.http import Headers
    from .core.status import Reason
    from .dedup import Dedup
    from .exchange import Exchange
    from .telemetry import Span, Tally


def look_up(
    dedup: Dedup, plan: Consider, key: bytes, asked: Wants, now: float
) -> tuple[Verdict, StoredResponse | None]:
    """What is stored under a key, and what becomes of a request for it."""
    found = dedup.keeper.find(plan.ordinal, key, now, stale=plan.assesses)
    stored = cast("StoredResponse | None", found)  # a function's value never lies under a request's key
    if plan.assesses:
        return assess(stored, asked, now), stored
    return (MISS if stored is None else FRESH), stored


async def serve(
    dedup: Dedup,
    plan: Consider,
    scope: Scope,
    send: Send,
    stored: StoredResponse,
    now: float,
    key: bytes,
    verdict: Serve = FRESH,
    *,
    ranged: bool = False,
    span: Span | None = None,
) -> None:
    """Send what is stored, fresh or stale; of a `ranged` request the part that it asks for."""
    stale: Reason | None = None if verdict.reason == "fresh" else verdict.reason
    found = part(scope, stored, now, stale) if ranged else None
    start, content, reason = found or answer(scope, stored, now, stale)
    try:
        await send(start)
        await send({"type": "http.response.body", "body": content, "more_body": False})
    finally:
        telemetry = dedup.telemetry
        tally: Tally = (
            plan.tally[reason]
            if stale is None
            else telemetry.tally("stale", stale, plan.label, scope["method"])
        )
        tally.number += 1
        tally.saved += stored.seconds
        stored.hits += 1
        if not stored.noted:
            dedup.note(plan.label, key, stored)
        tell(dedup, plan, scope, stored, now, key, start["status"], reason, span, tally.outcome)


class _Found(NamedTuple):
    """What is stored under a key, and may answer; `shown` are the fields that tell its variants apart."""

    stored: StoredResponse
    key: bytes
    verdict: Serve
    shown: frozenset[bytes]


async def serve_another(exchange: Exchange) -> Ask | None:
    """Answer a request from what is stored under another one's key, where that is more recent than its own.

    A HEAD, or a GET with a Range, is answered from the GET's whole response (RFC 9111 s.3.3, s.4; RFC 9110 s.9.3.2).
    What else may answer, while it is fresh, stands beside the whole's key (`keeping.remember`): to a Range a part may
    that holds all it asks for (RFC 9111 s.3.3), to a request without Authorization the response to one with it that
    says that it is for all (s.3.5). Of all that may, the most recent does (s.4). None where the request is answered,
    else why the app is to be asked, if nothing of its own may answer.
    """
    dedup, plan, scope = exchange.dedup, exchange.plan, exchange.scope
    headers = [pair for pair in scope["headers"] if pair[0].lower() not in OF_A_PART]
    ranged, has_own = len(headers) < len(scope["headers"]), plan.lookup is plan.prefix
    beside = dedup.keeper.beside
    if has_own and not ranged and not (beside.young or beside.old):
        return MISS
    whole = {**scope, "method": "GET", "headers": headers}
    base = plan.fingerprints.key_below(plan.lookup, whole, None)
    if not isinstance(base, bytes):
        return MISS
    others = beside.get(base) or ()
    if has_own and not ranged and not others:
        return MISS
    now, of_a_part = dedup.clock(), ranged and exchange.method == "GET"
    own = _find(exchange, exchange.key, scope["headers"], now) if has_own else MISS
    of_whole = _find(exchange, base, headers, now) if ranged or not has_own else MISS
    if ranged and isinstance(of_whole, _Found) and _varies_by_range(of_whole.stored):
        of_whole = MISS
    found = [one for one in (own, of_whole) if isinstance(one, _Found)]
    why = of_whole if isinstance(of_whole, Ask) else MISS
    for other, asked_for_a_part in others:
        one = _find(exchange, other, headers, now)
        if not isinstance(one, _Found) or one.verdict.reason != "fresh":
            continue
        status = one.stored.head.status
        if asked_for_a_part and (status not in (200, 206) or _varies_by_range(one.stored)):
            continue  # what became of a Range, and of no other request
        if status != 206 or (of_a_part and part(scope, one.stored, now, None) is not None):
            found.append(one._replace(verdict=FRESH))  # this request's answer would not renew it
        elif why is MISS:
            why = PARTIAL
    best = max(found, key=lambda one: one.stored.recency, default=own)
    if best is own or not isinstance(best, _Found):
        return why
    if best.verdict.refresh:
        refresh(dedup, exchange.app, plan, whole, best.key, base, best.shown, best.stored, b"")
    await serve(dedup, plan, scope, exchange.send, best.stored, now, best.key, best.verdict, ranged=of_a_part)
    return None


def _find(exchange: Exchange, base: bytes, headers: Headers, now: float) -> _Found | Ask:
    """What is stored under a key, of the variant for these fields, and may answer; else why the app is to be asked."""
    dedup, plan = exchange.dedup, exchange.plan
    key, shown = dedup.variant(plan, base, headers)
    verdict, stored = look_up(dedup, plan, key, exchange.asked, now)
    if stored is not None and isinstance(verdict, Serve):
        return _Found(stored, key, verdict, shown)
    return verdict if isinstance(verdict, Ask) else MISS


def _varies_by_range(stored: StoredResponse) -> bool:
    """Whether a response says that another Range gets another one (RFC 9111 s.4.1)."""
    return b"range" in names_listed(values(stored.head.headers, b"vary"))


async def refuse(dedup: Dedup, plan: Consider, scope: Scope, send: Send, span: Span | None) -> None:
    """Tell a request that wants only what is stored that nothing is (RFC 9111 s.5.2.1.7)."""
    fields = [(b"content-length", b"0"), (b"cache-status", b"dedup; detail=only-if-cached")]
    telemetry = dedup.telemetry
    telemetry.count("bypassed", "only-if-cached", plan.label, scope["method"])
    tracer = telemetry.tracer(dedup.clock())
    if tracer is not None:
        told = Told("bypassed", "only-if-cached", plan.label, scope["method"], status=504)
        telemetry.tell(tracer, time.time_ns(), told, span=span)
    await send({"type": "http.response.start", "status": 504, "headers": fields})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
