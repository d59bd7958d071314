"""`python -m tests.benchmarks`: one interleaved run in one process, one table."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from .contenders import line_up
from .race import Times, race, stampedes
from .table import Row, judge, render


async def run(
    *, rounds: int, scale: float, number_of_stampedes: int, size: int, progress: bool
) -> tuple[list[Row], Times]:
    """Race, stampede, judge."""

    def told(done: int) -> None:
        if progress:
            print(f"\rround {done} of {rounds}", end="", file=sys.stderr, flush=True)

    times = await race(await line_up(scale), rounds, told)
    if progress:
        print("\rstampedes        ", end="", file=sys.stderr, flush=True)
    bare_p99, p99 = await stampedes(number_of_stampedes, size)
    if progress:
        print("\r                 \r", end="", file=sys.stderr)
    return judge(times, bare_p99, p99), times


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (default: 15)")
    parser.add_argument("--quick", action="store_true", help="5 rounds of a quarter of the requests")
    parser.add_argument(
        "--smoke", action="store_true", help="only show that it works: the figures mean nothing"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a mark is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    chosen = parser.parse_args(arguments)
    rounds, scale, number, size = chosen.rounds, 1.0, 9, 1000
    if chosen.quick:
        rounds, scale = 5, 0.25
    if chosen.smoke:
        rounds, scale, number, size = 1, 0.001, 1, 10
    rows, times = asyncio.run(
        run(rounds=rounds, scale=scale, number_of_stampedes=number, size=size, progress=sys.stderr.isatty())
    )
    print(render(rows))
    if chosen.json is not None:
        figures = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {
                name: version(name)
                for name in ("dedup-middleware", "starlette", "msgspec", "opentelemetry-sdk")
            },
            "rounds": rounds,
            "rows": rows,
            "times": times,
        }
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 1 if chosen.strict and any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
