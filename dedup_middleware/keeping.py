"""Keeping: a response that may be stored, as the store has it, and how a HEAD's answer brings it up to date.

Law: what is stored is what a later request may have; times are those at which its head came.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from .core.answer import Answer, read_answer
from .core.conditional import agrees, entity_tag, updated
from .core.effects import groups, origin_of
from .core.fields import http_date
from .core.http import NEVER, Head, StoredResponse, first, response_size
from .core.settle import Keep, Settlement, settle
from .core.sight import one_identity
from .core.status import named
from .core.variants import told_apart

OF_A_PART: Final = frozenset({b"range", b"if-range"})
"""Request fields that ask for a part of a response."""
MOST_BESIDE: Final = 4
"""How many other requests' responses are looked at for one request."""

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from .core.decide import Consider
    from .core.http import Headers
    from .core.rules import Rule
    from .dedup import Dedup
    from .flight import Flight


def settled_by(
    dedup: Dedup,
    plan: Consider,
    method: str,
    answer: Answer,
    scope: MutableMapping[str, Any],
    seen: Headers,
    delay: float,
) -> Settlement:
    """Who may use a response; `seen` are the request's fields that the app saw, `delay` how long the head took."""
    rule = plan.rule
    wall, authorized, ranged, bare = 0.0, False, False, False
    if rule.follows_origin:
        wall = dedup.wall()
        names = {name.lower() for name, _ in seen}
        authorized, ranged = rule.identity == "origin" and b"authorization" in names, b"range" in names
        # A part that was asked for with If-Range need not say of what kind it is (RFC 9110 s.15.3.7).
        bare = answer.status == 206 and b"if-range" in names
    settled = settle(
        rule,
        method,
        answer,
        one_identity=lambda: one_identity(plan.fingerprints.reading, scope),
        authorized=authorized,
        ranged=ranged,
        room=plan.room,
        wall=wall,
        delay=delay,
    )
    if not isinstance(settled, Keep):
        return settled
    if rule.ttl_jitter:
        spread = 1 - rule.ttl_jitter * random()  # noqa: S311 - spreads expiries, guards nothing
        settled = structs.replace(settled, lifetime=settled.lifetime * spread)
    # An app that ignores Range, or for which If-Range does not hold, sends the whole (RFC 9110 s.14.2).
    elsewhere = authorized or answer.status == 206 or (ranged and answer.status == 200)
    if elsewhere and method == "GET" and not bare:
        remember(dedup, plan, scope, answer.status, for_all=authorized)
    return structs.replace(settled, ranged=True) if ranged else settled


def remember(
    dedup: Dedup, plan: Consider, scope: MutableMapping[str, Any], status: int, *, for_all: bool
) -> None:
    """Note that a response may answer requests under another key than its own, once it is stored.

    A part answers ranges within it (RFC 9111 s.3.3): it stands beside the whole. So does a whole that answered a Range:
    it is for requests without one, too. One that is kept although its request
    had an Authorization that the key does not hold is `for_all` (s.3.5): it stands beside what requests without the
    field get, too, and contests it. Only a few of the newest ones are looked at.
    """
    reader = plan.fingerprints
    own = reader.key_below(plan.lookup, scope, None)
    asked = [[pair for pair in scope["headers"] if pair[0].lower() not in OF_A_PART]]
    of_a_part = len(asked[0]) < len(scope["headers"])
    if for_all:
        asked.append([pair for pair in asked[0] if pair[0].lower() != b"authorization"])
    for headers in asked:
        other = {**scope, "headers": headers}
        key = reader.key_below(plan.lookup, other, None)
        if isinstance(own, bytes) and isinstance(key, bytes) and key != own:
            there = [pair for pair in dedup.keeper.beside.get(key) or () if pair[0] != own]
            dedup.keeper.beside.put(key, ((own, of_a_part), *there[: MOST_BESIDE - 1]))
            if status != 206:  # a part contests only what other ranges have got
                key, _ = dedup.variant(plan, key, headers)
                older = dedup.keeper.find(plan.ordinal, key, dedup.clock(), stale=False)
                if isinstance(older, StoredResponse):
                    older.contested = True


def to_store(
    dedup: Dedup,
    rule: Rule,
    flight: Flight,
    answer: Answer,
    keep: Keep,
    variant: bytes,
    route: str | None,
    names: tuple[str, ...],
    *,
    tagged: bool,
    of_session: bool,
) -> StoredResponse:
    """A flight's whole response as the store has it.

    `names` is what it depends on; `tagged` says that its entity tag is ours, from before it was confirmed, `of_session`
    that a session went into it.
    """
    body, trace, came = flight.whole(), flight.trace, flight.head_at or flight.opened_at
    headers = answer.shared
    if answer.age is not None:  # told anew with each hit
        headers = [pair for pair in headers if pair[0].lower() != b"age"]
    etag, own = answer.etag, False
    if rule.add_etag and answer.status not in (206, 416):  # whose own bytes say nothing of the whole's
        if tagged:  # made anew: not everything that it was made of need be stored
            headers = [pair for pair in headers if pair[0].lower() != b"etag"]
        if first(headers, b"etag") is None:
            etag, own = entity_tag(headers, body), True
            headers = [*headers, (b"etag", etag)]
    expires = came + keep.lifetime - keep.late
    return StoredResponse(
        head=Head(answer.status, headers),
        body=body,
        stored_at=came,
        expires=expires,
        names=names,
        generation=flight.generation,
        seconds=flight.took or 0.0,
        initial_age=keep.age,
        etag=etag,
        last_modified=answer.last_modified,
        validates=etag is not None or answer.last_modified is not None or rule.follows_origin,
        route=route,
        flight=trace.flight if trace is not None else None,
        link=trace.link if trace is not None else None,
        size=response_size(headers, body, names),
        kept=keep.kept,
        stale_while_revalidate=keep.stale_while_revalidate,
        stale_if_error=keep.stale_if_error,
        rigid=keep.rigid,
        refresh_at=_refresh_at(rule, came, expires),
        arrived=_made(answer, dedup.wall()) if rule.follows_origin else 0.0,
        line_end=named(b"", variant if rule.cache_status_key else None),
        own_etag=own,
        contested=keep.ranged,
        of_session=of_session,
    )


def _made(answer: Answer, wall: float) -> float:
    """What stands for a Last-Modified where there is none (RFC 9111 s.4.3.2): its Date, or when it came."""
    made = None if answer.date is None else http_date(answer.date, wall)
    return wall if made is None else float(made)


def _refresh_at(rule: Rule, came: float, expires: float) -> float:
    """When a hit fetches it anew: never, where it is not fresh for longer than that."""
    ahead = float(rule.refresh_ahead)
    return expires - ahead if 0 < ahead < expires - came else NEVER


def update_by_head(
    dedup: Dedup,
    plan: Consider,
    scope: MutableMapping[str, Any],
    answer: Answer,
    flight: Flight,
    seen: Headers,
    shown: frozenset[bytes],
) -> None:
    """What a HEAD's 200 says of the GET's response that is stored (RFC 9111 s.4.3.5): its fields, or that it is old.

    It speaks of the variant that would be chosen for what the app has `seen` of the request, hidden fields if they were
    `shown`: what is hidden from a first run says nothing of the answer.
    """
    reader = plan.fingerprints
    key = reader.key_below(plan.lookup, scope, None)
    if answer.status != 200 or not isinstance(key, bytes):
        return
    now = dedup.clock()
    forget_beside(dedup, plan, key, seen, lambda whole: not _agrees(whole, answer))
    key, names = dedup.variant(plan, key, seen)
    stored = dedup.keeper.find(plan.ordinal, key, now, stale=True)
    if not isinstance(stored, StoredResponse):
        return
    # Where a HEAD is told 200, a stored error or redirect is out of date.
    if stored.head.status != 200 or not _agrees(stored, answer):
        dedup.keeper.take_back(plan.ordinal, key, stored)
        return
    merged = read_answer(stored.head.status, updated(stored, answer.headers), "GET")
    if answer.date is None:
        merged.date = None
    keep = settled_by(dedup, plan, "GET", merged, scope, seen, now - flight.opened_at)
    if not isinstance(keep, Keep) or not told_apart(reader, shown, keep) <= names:
        dedup.keeper.take_back(plan.ordinal, key, stored)
        return
    named = groups(answer.groups)
    depends = (*stored.names, *(name for name in named if name not in stored.names))
    expires = now + keep.lifetime - keep.late
    fields = [pair for pair in merged.shared if pair[0].lower() not in keep.stripped | {b"age"}]
    renewed = structs.replace(
        stored,
        head=Head(stored.head.status, fields),
        names=depends,
        stored_at=now,
        expires=expires,
        generation=flight.generation,
        initial_age=keep.age,
        etag=merged.etag,
        own_etag=stored.own_etag and first(answer.headers, b"etag") is None,
        size=response_size(fields, stored.body, depends),
        kept=keep.kept,
        stale_while_revalidate=keep.stale_while_revalidate,
        stale_if_error=keep.stale_if_error,
        rigid=keep.rigid,
        refresh_at=_refresh_at(plan.rule, now, expires),
        refresh_after=0.0,
        arrived=_made(merged, dedup.wall()),
        tail_until=0.0,
    )
    with dedup.lock:
        dedup.flights.depends(flight, named, origin_of(scope))
        if flight.current:
            dedup.put(plan.ordinal, key, renewed, flight.loop)


def _agrees(stored: StoredResponse, answer: Answer) -> bool:
    """Whether a HEAD's 200 describes a stored response."""
    length = (first(answer.headers, b"content-length") or b"").strip(b" \t")
    return agrees(
        stored.given_etag,
        stored.last_modified,
        len(stored.body),
        answer.etag,
        answer.last_modified,
        int(length[:20]) if length.isdigit() else None,  # more digits no body has
    )


def forget_beside(
    dedup: Dedup, plan: Consider, key: bytes, seen: Headers, outdated: Callable[[StoredResponse], bool]
) -> None:
    """What is `outdated` of the wholes beside a key's own answers for it no more: the app has just told it otherwise.

    It stays where it is, for those whom the app has told nothing else.
    """
    there = dedup.keeper.beside.get(key)
    if not there:
        return
    now = dedup.clock()

    def is_kept(other: bytes) -> bool:
        variant, _ = dedup.variant(plan, other, seen)
        stored = dedup.keeper.find(plan.ordinal, variant, now, stale=False)
        return not isinstance(stored, StoredResponse) or stored.head.status != 200 or not outdated(stored)

    dedup.keeper.beside.put(key, tuple(pair for pair in there if is_kept(pair[0])))
