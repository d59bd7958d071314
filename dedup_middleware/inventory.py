"""The inventory: what is held now, as frozen values for people and pages.

Law: metadata only: no body, no header but the status, no target, no key but its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .core.http import StoredResponse
from .events import tags_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .core.http import Stored
    from .flight import Flight


class Held(msgspec.Struct, frozen=True):
    """One stored response, or a function's value (which has no status).

    `key` is the fingerprint's digest in hex, `bytes` what the store is charged, `age` and `ttl` are in seconds (since
    the forward's head, and left: below 0 it is stale), `seconds` is how long the forward took.
    """

    rule: str
    key: str
    tags: tuple[str, ...]
    bytes: int
    age: float
    ttl: float
    hits: int
    seconds: float
    status: int | None = None
    route: str | None = None


class UnderWay(msgspec.Struct, frozen=True):
    """One flight: for how long, who waits (the leader counts while it is there), and for what (`awaits`, flights)."""

    flight: int
    rule: str
    key: str
    seconds: float
    waiters: int
    followers: int
    bytes: int
    landed: bool
    current: bool
    trace_id: str | None
    awaits: tuple[int, ...]


def held(
    items: Iterable[tuple[int, bytes, Stored]],
    labels: Sequence[str],
    now: float,
    rule: str | None = None,
    tag: str | None = None,
) -> list[Held]:
    """What is stored and may still answer, under one rule and with one tag where given; the youngest first."""
    found = []
    for partition, key, stored in items:
        response = stored if isinstance(stored, StoredResponse) else None
        label = labels[partition] if response is not None else stored.label  # type: ignore[union-attr] # a value
        if now >= stored.expires + stored.kept or rule not in (None, label):
            continue
        tags = tags_in(stored.names)
        if tag is None or tag in tags:
            found.append((stored.stored_at, label, key, stored, tags, response))
    found.sort(key=lambda one: one[0], reverse=True)
    return [
        Held(
            rule=label,
            key=key.hex(),
            tags=tags,
            bytes=stored.size,
            age=now - at,
            ttl=stored.expires - now,
            hits=stored.hits,
            seconds=stored.seconds,
            status=None if response is None else response.head.status,
            route=None if response is None else response.route,
        )
        for at, label, key, stored, tags, response in found
    ]


def under_way(flights: Iterable[Flight], now: float) -> list[UnderWay]:
    """The flights under way, the oldest first."""
    return [
        UnderWay(
            flight=flight.generation,
            rule=flight.label,
            key=flight.key.hex() if isinstance(flight.key, bytes) else "",
            seconds=now - flight.opened_at,
            waiters=len(flight.waiters),
            followers=flight.followers,
            bytes=flight.total,
            landed=flight.complete,
            current=flight.current,
            trace_id=flight.trace_id,
            awaits=tuple(other.generation for other in list(flight.waits_for)),
        )
        for flight in sorted(flights, key=lambda flight: flight.generation)
    ]
