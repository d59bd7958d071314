"""What some refreshes cost: counted from the answers that the pages got and from the server's own figures."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .burst import Answer, Refresh
    from .servers import Server

ANSWERED_BY_OTHERS = ("hit", "collapsed")
"""The outcomes for which the backend ran nothing."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds, as the client saw them."""

    p50: float
    p95: float
    slowest: float
    count: int


class Load(msgspec.Struct, frozen=True):
    requests: int
    failed: int
    executions: int
    distinct: int
    """Different pieces of work among the executions: what has to run once at least."""
    outcomes: dict[str, int]
    hit_rate: float
    hit_rates: dict[str, float]
    """By operation."""
    latency: Latency
    latencies: dict[str, Latency]
    """By operation."""
    seconds: float
    log_lines: int
    cpu: float
    """Seconds of processor time of the server and the git programs that it ran."""

    @property
    def duplicates(self) -> int:
        """Executions of a piece of work beyond its first."""
        return self.executions - self.distinct


async def measure(server: Server, run: Callable[[], Awaitable[list[Refresh]]]) -> Load:
    """Run with nothing stored; the server's figures are read before and after."""
    await server.reset()
    before = await server.figures()
    start = time.perf_counter()
    answers = [answer for refresh in await run() for answer in refresh.answers]
    seconds = time.perf_counter() - start
    after = await server.figures()
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.operation, []).append(answer)
    return Load(
        requests=len(answers),
        failed=sum(answer.status != 200 for answer in answers),
        executions=sum(after.executions.values()),
        distinct=len(after.executions),
        outcomes=dict(Counter(answer.outcome for answer in answers)),
        hit_rate=hit_rate(answers),
        hit_rates={name: hit_rate(group) for name, group in groups.items()},
        latency=latency(answer.milliseconds for answer in answers),
        latencies={name: latency(answer.milliseconds for answer in group) for name, group in groups.items()},
        seconds=seconds,
        log_lines=after.log_lines,
        cpu=after.cpu - before.cpu,
    )


def hit_rate(answers: list[Answer]) -> float:
    return sum(answer.outcome in ANSWERED_BY_OTHERS for answer in answers) / len(answers)


def latency(times: Iterable[float]) -> Latency:
    ordered = sorted(times)
    if not ordered:
        return Latency(math.nan, math.nan, math.nan, 0)
    return Latency(quantile(ordered, 0.5), quantile(ordered, 0.95), ordered[-1], len(ordered))


def quantile(ordered: list[float], part: float) -> float:
    """The nearest-rank quantile of a sorted list."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
