"""`python -m tests.benchmarks.memory`: does the memory bound hold for the process, not only for the books?

200,000 GETs of 1 KiB, each of another path, under a rule that stores them all, in a fresh process. The bound in bytes
is the only one that counts (max_responses is out of reach). Linux: resident memory as it is; elsewhere its peak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GROWTH = 1.3
"""Resident growth, in times the bound."""
FLAT = 0.1
"""What may still come after the first quarter, in times the bound: 45 bytes a request would be too much."""
_STATUS = Path("/proc/self/status")
_ROOT = Path(__file__).resolve().parents[2]


def reader_of_memory() -> Callable[[], int] | None:
    """What reads this process's resident bytes, or None where nothing can."""
    if _STATUS.exists():

        def resident() -> int:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
            return 0

        return resident
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def measure(number: int, bound: int) -> dict[str, Any]:
    """Send the requests; resident bytes at the start and after each fortieth of them."""
    from dedup_middleware import Dedup, DedupMiddleware, Rule

    from .apps import HOUR, raw
    from .requests import make, send_nowhere

    read = reader_of_memory()
    if read is None:
        return {"measured": False}
    dedup = Dedup(
        default=Rule(ttl=HOUR, max_responses=10 * number + 10), store=f"memory://?max_bytes={bound}"
    )
    app = DedupMiddleware(raw(), dedup=dedup)
    await app(*make(path=b"/items/first"), send_nowhere)
    start = read()
    samples = []
    for i in range(number):
        await app(*make(path=b"/items/%09d" % i), send_nowhere)
        if (i + 1) % max(1, number // 40) == 0:
            samples.append(read() - start)
    stats = dedup.stats()
    assert stats.requests["forwarded"] == number + 1, stats
    return {
        "measured": True,
        "requests": number,
        "bound": bound,
        "start": start,
        "growth": samples,
        "charged": stats.bytes,
        "responses": stats.responses,
        "evicted": stats.evicted,
    }


def in_fresh_process(number: int, bound: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--child"]
    done = subprocess.run(
        [*command, "--requests", str(number), "--bound", str(bound)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def verdict(figures: dict[str, Any]) -> tuple[bool, str]:
    """Whether the bound holds, and the sentences that say so."""
    if not figures["measured"]:
        return True, "resident memory: not measured, this system does not tell it"
    mib, bound, growth = 1024 * 1024, figures["bound"], figures["growth"]
    quarter = growth[len(growth) // 4 - 1]
    top, later = max(growth), max(growth) - quarter
    within, flat = top <= GROWTH * bound, later <= FLAT * bound
    per = top / figures["responses"]
    held = (
        f"{figures['requests']:,} unique GETs, bound {bound / mib:.0f} MiB: {figures['responses']:,} responses held, "
        f"{figures['charged'] / mib:.1f} MiB charged, {figures['evicted']:,} evicted, {per:,.0f} resident bytes each"
    )
    grown = f"resident growth {top / mib:.1f} MiB = {top / bound:.2f} times the bound (mark {GROWTH:g})"
    since = f"after the first quarter {quarter / mib:.1f} MiB, since then {later / mib:+.1f} MiB"
    since += f" (mark {FLAT * bound / mib:.1f} MiB)"
    said = {True: "ok", False: "MISSED"}
    return within and flat, f"{held}\n{grown}: {said[within]}\n{since}: {said[flat]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--bound", type=int, default=64 * 1024 * 1024, help="bytes (default: 64 MiB)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a mark is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        print(json.dumps(asyncio.run(measure(chosen.requests, chosen.bound))))
        return 0
    figures = in_fresh_process(chosen.requests, chosen.bound)
    met, text = verdict(figures)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2))
    return 1 if chosen.strict and not met else 0


if __name__ == "__main__":
    sys.exit(main())
