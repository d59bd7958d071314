"""The books after a run: nothing is left, everything is given back, each request counts once.

Law: what is counted is what was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dedup_middleware.stores.memory import MemoryStore

from .view import View

Breaches = Iterator[str]


def nothing_is_left(view: View) -> Breaches:
    """The table is empty, no task is left, and what was held is given back."""
    world, table = view.world, view.world.dedup.flights
    if world.stuck:
        yield f"stuck: {world.stuck}"
        return
    if not table.is_empty:
        yield f"the table still has {len(table.under_way)} flights under way"
    if world.left_behind:
        yield f"tasks are left: {world.left_behind}"
    if table.budget.used:
        yield f"{table.budget.used} bytes of bodies were never given back"
    yield from (f"the loop complained: {complaint}" for complaint in world.complaints)


def the_store_counts_what_it_holds(view: View) -> Breaches:
    """Bytes, responses and names follow what is there."""
    store: Any = view.world.dedup.store
    store = getattr(store, "_store", store)
    if not isinstance(store, MemoryStore):
        return
    held = [(key, stored) for part in store._partitions.values() for key, stored in part.items()]
    if store.size != sum(stored.size for _, stored in held) or store.responses != len(held):
        yield f"the store says {store.responses} responses, {store.size} bytes, and holds {len(held)}"
    if {key for key, _ in held} != set(store._live):
        yield "the store finds other responses than it holds"
    if {name for _, stored in held for name in stored.names} != set(store._by_name):
        yield "the store's index names what is not there"
    if {key for key, _ in held} != {key for keys in store._ending.values() for key in keys}:
        yield "the store looks for others that end than it holds"


def every_request_counts_once(view: View) -> Breaches:
    """One outcome for each request and each call."""
    world = view.world
    counted = sum(world.dedup.stats().requests.values())
    if counted != len(world.requests) + len(world.asked):
        yield f"{len(world.requests)} requests and {len(world.asked)} calls count as {counted}"
