"""The comparison: the same load on a server without the middleware, then on one with it.

It only measures; `marks` judges and `table` prints.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .burst import MIX, REQUESTS, Pages, Refresh, targets
from .load import Latency, Load, latency, measure
from .servers import Server, running
from .writes import STEPS, Writes, check_writes

if TYPE_CHECKING:
    from opentelemetry import trace

    from .settings import Settings

PAGES = 5
REFRESHES = 10
HITS = 200


class Progress(Protocol):
    """Where a run says how far it is."""

    def begin(self, what: str, steps: int) -> None: ...
    def step(self) -> None: ...


class Side(msgspec.Struct, frozen=True):
    """Everything measured on one server."""

    burst: Load
    refreshes: Load
    chat_miss: float
    """Milliseconds for the chat history with nothing stored and nobody else asking."""
    hits: Latency | None
    """One request at a time, every one a hit."""
    writes: Writes | None
    bytes_held: int
    responses_held: int
    resident: int | None
    """The most memory that the server held, in bytes."""
    stats: dict[str, Any] | None
    """`dedup.stats()` after the refreshes."""
    server_errors: str
    spans_lost: int
    metrics_failed: bool


class Comparison(msgspec.Struct, frozen=True):
    pages: int
    refreshes: int
    mix: dict[str, int]
    wait_for_ready: bool
    machine: str
    without: Side
    with_: Side = msgspec.field(name="with")

    @property
    def duplicates_removed(self) -> float:
        """(executions without - with) / (executions without - distinct), in one burst."""
        without, with_ = self.without.burst, self.with_.burst
        return (without.executions - with_.executions) / max(1, without.executions - without.distinct)

    @property
    def faster(self) -> dict[str, float]:
        """By operation, the part of the p50 over the refreshes that is gone: 0.5 is half."""
        without, with_ = self.without.refreshes.latencies, self.with_.refreshes.latencies
        return {name: 1 - with_[name].p50 / without[name].p50 for name in without}


async def compare(settings: Settings, tracer: trace.Tracer, progress: Progress) -> Comparison:
    without = await _side(msgspec.structs.replace(settings, middleware=False), tracer, progress)
    with_ = await _side(msgspec.structs.replace(settings, middleware=True), tracer, progress)
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} processors"
    return Comparison(PAGES, REFRESHES, dict(MIX), settings.wait_for_ready, machine, without, with_)


async def _side(settings: Settings, tracer: trace.Tracer, progress: Progress) -> Side:
    name = "with" if settings.middleware else "without"
    hits, writes = None, None
    async with running(settings) as server:
        pages = Pages(server.client, settings.repo, tracer, progress.step)
        await _warm_up(server, settings.repo)

        progress.begin(f"{name}: one burst of {PAGES} pages", PAGES * REQUESTS)
        burst = await measure(server, lambda: pages.burst(PAGES))
        progress.begin(f"{name}: {REFRESHES} refreshes", REFRESHES * REQUESTS)
        refreshes = await measure(server, lambda: _one_after_another(pages))
        stats: dict[str, Any] = (await server.figures()).dedup or {}

        if settings.middleware:
            progress.begin(f"{name}: hits, one at a time", HITS)
            hits = await _hits(server, settings.repo, progress)
        await server.reset()
        chat_miss = (await server.client.get(targets(settings.repo)["chat"])).milliseconds
        if settings.middleware:
            progress.begin(f"{name}: writes under load, each read back", STEPS)
            writes = await check_writes(server.client, settings.scratch, progress.step)
        resident = (await server.figures()).resident
    return Side(
        burst=burst,
        refreshes=refreshes,
        chat_miss=chat_miss,
        hits=hits,
        writes=writes,
        bytes_held=stats.get("bytes", 0),
        responses_held=stats.get("responses", 0),
        resident=resident,
        stats=stats or None,
        server_errors=server.errors,
        spans_lost=server.ended.spans_lost,
        metrics_failed=server.ended.metrics_failed,
    )


async def _warm_up(server: Server, repo: str) -> None:
    """What a server does once in its life (imports, threads) is no part of the comparison."""
    for target in (f"/git/{repo}/log", "/ide/9224/editors"):
        await server.client.get(target)


async def _one_after_another(pages: Pages) -> list[Refresh]:
    return [await pages.refresh() for _ in range(REFRESHES)]


async def _hits(server: Server, repo: str, progress: Progress) -> Latency:
    asked = list(targets(repo).values())
    times = []
    for number in range(HITS):
        reply = await server.client.get(asked[number % len(asked)])
        if "; hit" in reply.headers.get("cache-status", ""):
            times.append(reply.milliseconds)
        progress.step()
    return latency(times)
