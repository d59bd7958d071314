"""The race: in every round every contender answers its requests in several short turns, in an order drawn anew.

A figure is a median over rounds, a ratio the median of each round's own ratio, so that a machine that is slow for a
while is slow for all. Time is the thread's CPU time where its clock is fine enough (nothing here waits but the
stampedes), so that other programs on the same cores count little.

Requests are made in batches outside of the timed part. The garbage collector runs (who makes cycles pays for them),
but what lived before a batch, the prebuilt requests included, is frozen, so that nobody pays for another's objects.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

from .apps import Slow, deduplicated
from .contenders import Contender, requests_of
from .requests import App, Request, make, receive_nothing, send_nowhere

BATCH = 500
TURNS = 4
"""How many turns a round's requests are spread over."""
ANCHORS = ("L0", "L1")
"""What all ratios rest on takes three times as many."""

_FINE = time.get_clock_info("thread_time").resolution <= 1e-6
_now = time.thread_time_ns if _FINE else perf_counter_ns

Times = dict[str, list[float]]
"""Microseconds a request, round by round, of each contender."""


async def _batch(app: App, batch: list[Request]) -> int:
    send = send_nowhere
    started = _now()
    for scope, receive in batch:
        await app(scope, receive, send)
    return _now() - started


async def _turn(contender: Contender, number: int) -> float:
    """One turn of so many requests; microseconds in all."""
    left, spent = number, 0
    before = requests_of(contender.app)
    while left:
        size = min(BATCH, left)
        left -= size
        if contender.before is not None:
            await contender.before(size)
        batch = [contender.fresh() for _ in range(size)]
        gc.collect(0)
        gc.freeze()
        spent += await _batch(contender.app, batch)
    if contender.outcome is not None:
        done = requests_of(contender.app)[contender.outcome] - before[contender.outcome]
        assert done == number, f"{contender.name}: {done} of {number} {contender.outcome}"
    return spent / 1000


async def race(field: list[Contender], rounds: int, told: Callable[[int], None]) -> Times:
    """Run all rounds."""
    times: Times = {contender.name: [] for contender in field}
    order = random.Random(1)
    for done in range(-1, rounds):  # one round more at first, which does not count
        spent: defaultdict[str, float] = defaultdict(float)
        answered = Counter[str]()
        turns = [
            contender for contender in field for _ in range(TURNS * (3 if contender.name in ANCHORS else 1))
        ]
        order.shuffle(turns)
        for contender in turns:
            number = max(1, contender.number // TURNS)
            spent[contender.name] += await _turn(contender, number)
            answered[contender.name] += number
        if done >= 0:
            for name, kept in times.items():
                kept.append(spent[name] / answered[name])
        gc.unfreeze()
        gc.collect()
        told(done + 1)
    return times


async def stampedes(number: int, size: int) -> tuple[float, float]:
    """The median p99 of so many stampedes on a 50 ms endpoint in ms, bare and through the middleware, in turn."""
    bare, below = Slow(), Slow()
    app = deduplicated(below.app)
    bare_times: list[float] = []
    times: list[float] = []
    for turn in range(-1, number):
        query = b"turn=%d" % (turn + 1)
        for one, kept in ((bare.app, bare_times), (app, times)):
            gc.collect()
            spent = await _stampede(one, query, size)
            if turn >= 0:
                kept.append(spent)
    assert bare.runs == size * (number + 1)
    assert below.runs == number + 1, f"{below.runs} executions in {number + 1} stampedes"
    return median(bare_times), median(times)


async def _stampede(app: App, query: bytes, size: int) -> float:
    """The p99 in ms, from the moment when all are sent to each one's end."""
    scopes = [make(path=b"/slow", query=query)[0] for _ in range(size)]
    ends: list[int] = []

    async def client(one: App, scope: object) -> None:
        await one(scope, receive_nothing, send_nowhere)  # type: ignore[arg-type] # a scope
        ends.append(perf_counter_ns())

    started = perf_counter_ns()
    await asyncio.gather(*(client(app, scope) for scope in scopes))
    return (sorted(ends)[int(size * 0.99) - 1] - started) / 1e6
