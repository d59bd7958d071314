"""`python -m tests.benchmarks.over_http --records`: what records cost a real server, for hits and for new keys.

Five uvicorn processes: a raw ASGI callable, and the middleware around it with metrics, with and without records (an
SQLite file), answering hits or forwarding and storing a key that is new each time. In every round each answers its
requests in several short turns, in an order drawn anew. A round's processor time is the server's of the whole round,
until all its records are written; requests a second are those of its own turns.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .apps import HOUR, raw
from .over_http import CONNECTIONS, REQUEST, TURNS, ask, connected
from .served import Server, Service, serving

MARK = 1000
"""Requests a second, at least, with records and metrics."""


def plain_service() -> Service:
    """The middleware with an SDK's metrics."""
    return _service(_dedup())


def recorded_service() -> Service:
    """The same, with records in a file that goes with the process."""
    _folders.append(tempfile.TemporaryDirectory(prefix="dedup-benchmark-"))
    return _service(_dedup(records=f"sqlite:///{_folders[-1].name}/dedup.db"))


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _dedup(**settings: Any) -> Dedup:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    return Dedup(default=Rule(ttl=HOUR), meter_provider=provider, secret="benchmark", **settings)


def _service(dedup: Dedup) -> Service:
    def written() -> dict[str, object]:
        recorder = dedup.recorder
        if recorder is None:
            return {"records": None}
        return {"records": recorder.flush().result(10), "dropped": recorder.dropped}

    return Service(DedupMiddleware(raw(), dedup=dedup), {"written": written})


class Contender(msgspec.Struct):
    """One server and what it is asked: its figures round by round."""

    name: str
    server: Server
    expected: bytes
    request: Callable[[], bytes]
    records: bool = False
    seconds: float = 0.0
    times: list[float] = []
    rates: list[float] = []

    def processor_time(self) -> float:
        """Seconds until now, of all its threads, when its records are written."""
        if self.records:
            written = self.server.ask("written")
            assert written == {"records": True, "dropped": 0}, (self.name, written)
        spent: float = self.server.ask("process")["cpu"]
        return spent

    async def turn(self, each: int) -> None:
        """So many requests over each connection: new ones, for a server gives up those that rest for long."""
        async with connected(self.server.port, self.expected, self.request) as connections:
            started = time.perf_counter()
            await ask(connections, each)
            self.seconds += time.perf_counter() - started


def contenders(stack: ExitStack) -> list[Contender]:
    """All five, each with a server of its own."""
    hit, forwarded = b"\r\ncache-status: dedup; hit", b"\r\ncache-status: dedup; fwd="
    here = __name__

    def server(factory: str) -> Server:
        return stack.enter_context(serving(factory))

    return [
        Contender("raw", server(f"{__package__}.over_http:raw_service"), b"", same),
        Contender("hit", server(f"{here}:plain_service"), hit, same),
        Contender("hit, records", server(f"{here}:recorded_service"), hit, same, records=True),
        Contender("new key", server(f"{here}:plain_service"), forwarded, new),
        Contender("new key, records", server(f"{here}:recorded_service"), forwarded, new, records=True),
    ]


def same() -> bytes:
    """The request that was asked before."""
    return REQUEST


def new() -> bytes:
    """A target that was never asked for."""
    return REQUEST.replace(b"/data", b"/data/%d" % next(_numbers), 1)


_numbers = itertools.count()


async def race(field: Sequence[Contender], rounds: int, number: int) -> None:
    """Run all rounds, and one more at first which does not count."""
    order = random.Random(1)
    each = max(1, number // (TURNS * CONNECTIONS))
    for one in field:
        async with connected(one.server.port, b"", one.request) as connections:
            await ask(connections, 1)  # whoever stores has stored now
    for done in range(-1, rounds):
        before = [one.processor_time() for one in field]
        turns = [one for one in field for _ in range(TURNS)]
        order.shuffle(turns)
        for one in turns:
            await one.turn(each)
        for one, start in zip(field, before, strict=True):
            spent, seconds = one.processor_time() - start, one.seconds
            one.seconds = 0.0
            if done >= 0:
                asked = each * TURNS * CONNECTIONS
                one.times.append(spent / asked * 1e6)
                one.rates.append(asked / seconds)


def render(field: Sequence[Contender]) -> str:
    """The result in words and figures."""
    by_name = {one.name: one for one in field}
    server = field[0].server
    lines = [
        f"uvicorn with {server.http} and {server.loop}, {CONNECTIONS} connections, {len(field[0].times)} rounds",
        f"{'':18}{'us a request':>14}{'requests a second':>20}{'to records off':>24}",
    ]
    for one in field:
        off = by_name.get(one.name.removesuffix(", records"))
        told = _told(ratios(one, off)) if one.records and off is not None else ""
        lines.append(f"{one.name:18}{median(one.times):>14.2f}{median(one.rates):>20,.0f}{told:>24}")
    verdict = "ok" if met(field) else "MISSED"
    return "\n".join([*lines, f"at least {MARK:,} requests a second with records and metrics: {verdict}"])


def ratios(one: Contender, off: Contender) -> list[float]:
    """Processor time a request, round by round, against that without records."""
    return [more / less for more, less in zip(one.times, off.times, strict=True)]


def _told(found: Sequence[float]) -> str:
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def met(field: Sequence[Contender]) -> bool:
    """Whether all with records are quick enough."""
    return all(median(one.rates) >= MARK for one in field if one.records)


def figures(field: Sequence[Contender]) -> dict[str, Any]:
    """Every figure."""
    return {one.name: {"microseconds": one.times, "requests a second": one.rates} for one in field}


def report(rounds: int, number: int, file: Path | None) -> bool:
    """Measure, print and write; whether the mark is met."""
    with ExitStack() as stack:
        field = contenders(stack)
        asyncio.run(race(field, rounds, number))
    print(render(field))
    if file is not None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(figures(field))))
    return met(field)
