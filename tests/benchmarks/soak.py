"""`python -m tests.benchmarks.soak`: a real server under a realistic load for a while, every answer checked.

A uvicorn process with the middleware, another one with the bare app, and a process of clients that gives both the same
mix at the same time over real sockets: Zipf's targets, bursts, clients that leave (FIN and RST, before the head and in
mid-response), slow readers, users, streams, writes. Ends with 1 on a wrong answer, on memory that grows, or when
anything is left once all is quiet.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from .served import ROOT, Server, serving
from .soak_verdict import MIB, Sample, faults, growth_of, render_latencies

QUIET = 15.0
"""Seconds within which a server comes to rest: a call that nobody waits for is cancelled after 3."""


class Soak(msgspec.Struct, frozen=True):
    """Everything that a run has shown."""

    seconds: float
    server: str
    before: Sample
    samples: list[Sample]
    after: Sample
    emptied: dict[str, Any]
    sides: dict[str, Any]
    faults: list[str]


def sample(server: Server, reference: Server, at: float) -> Sample:
    """Both servers now."""
    return Sample(at, server.ask("process"), server.ask("engine"), reference.ask("process"))


def soak(app: str, bare: str, seconds: float, interval: float, pause: float, seed: int) -> Soak:
    """Run it; `app` and `bare` are factories."""
    with serving(app) as server, serving(bare) as reference:
        sample(server, reference, 0)
        before = sample(server, reference, 0)
        ports = {"with": server.port, "bare": reference.port}
        samples: list[Sample] = []
        sides: dict[str, Any] = {}
        for told in _clients(
            {"ports": ports, "seconds": seconds, "interval": interval, "pause": pause, "seed": seed}
        ):
            sides = told["sides"]
            if not told["last"]:
                samples.append(sample(server, reference, told["at"]))
                print(progress(samples[-1], sides), flush=True)
        after = at_rest(server, reference, before, seconds)
        emptied = server.ask("emptied")
    found = [
        f"wrong answers of {name}: {side['wrong']}: {sentence}"
        for name, side in sides.items()
        for sentence in (side["sentences"] or ["?"] if side["wrong"] else [])
    ]
    found += faults(before, samples, after, emptied)
    about = f"uvicorn with {server.http} and {server.loop}, Python {platform.python_version()}"
    return Soak(seconds, about, before, samples, after, emptied, sides, found)


def _clients(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", f"{__package__}.soak_clients", json.dumps(arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
            assert process.wait() == 0, "the clients failed"
        finally:
            process.kill()


def at_rest(server: Server, reference: Server, before: Sample, at: float) -> Sample:
    """The server when nothing moves any more, or as it is after a while."""
    end = time.monotonic() + QUIET
    while True:
        now = sample(server, reference, at)
        quiet = not now.engine["flights"] and now.process["tasks"] <= before.process["tasks"]
        if (quiet and _as_many_files(now, before)) or time.monotonic() > end:
            return now
        time.sleep(0.2)  # between two looks at processes


def _as_many_files(now: Sample, before: Sample) -> bool:
    files, at_first = now.process["files"], before.process["files"]
    return files is None or at_first is None or files <= at_first


def progress(now: Sample, sides: dict[str, Any]) -> str:
    """One line."""
    process, engine, clients = now.process, now.engine, sides["with"]
    return (
        f"{now.at:5.0f} s  {clients['requests']:>9,} answers  wrong {clients['wrong']}  "
        f"resident {_mib(process)} MiB (bare {_mib(now.bare)})  held {engine['bytes'] / MIB:.1f} MiB  "
        f"tasks {process['tasks']}  sockets {process['sockets']}  flights {engine['flights']}"
    )


def _mib(process: Mapping[str, Any]) -> str:
    return "?" if process["resident"] is None else f"{process['resident'] / MIB:.1f}"


def render(result: Soak) -> str:
    """What is left to say at the end."""
    with_, bare, after = result.sides["with"], result.sides["bare"], result.after
    requests = with_["requests"]
    outcomes = ", ".join(f"{number:,} {name}" for name, number in sorted(with_["outcomes"].items()))
    deeds = ", ".join(f"{number:,} {name}" for name, number in with_["deeds"].items())
    rate = f"{requests / result.seconds:,.0f} a second"
    engine, at_first = after.engine, result.before.process
    lines = [
        result.server,
        f"{requests:,} answers in {result.seconds:,.0f} s ({rate}); the bare app beside it: {bare['requests']:,}",
        f"outcomes: {outcomes}",
        f"deeds: {deeds}",
        f"executions: {engine['runs']:,} (bare: {bare['requests']:,} answers)",
        f"wrong answers: {with_['wrong']} (bare: {bare['wrong']})",
        "stored responses that went: "
        + ", ".join(f"{engine[why]:,} {why}" for why in ("evicted", "expired", "invalidated")),
    ]
    lines += [
        _memory("resident memory", result.samples, "process"),
        _memory("the bare app's", result.samples, "bare"),
        f"processor time: {after.process['cpu']:.0f} s (the bare app's: {after.bare['cpu']:.0f} s)",
    ]
    lines += [
        "when all was quiet, and at the start: "
        + ", ".join(
            f"{after.process[what]} {what} ({at_first[what]})" for what in ("tasks", "sockets", "files")
        ),
        f"flights then: {engine['flights']}, bytes in flight: {engine['buffered']}",
        f"held then: {engine['bytes']:,} bytes, after dropping all {result.emptied['bytes']}",
        "",
        render_latencies(bare["latencies"], with_["latencies"]),
        "",
        *(f"FAULT: {fault}" for fault in result.faults),
        "failed" if result.faults else "nothing wrong, nothing left, nothing grown",
    ]
    return "\n".join(lines)


def _memory(whose: str, samples: Sequence[Sample], which: Literal["process", "bare"]) -> str:
    known = [getattr(sample, which)["resident"] for sample in samples]
    if not known or None in known:
        return f"{whose}: not known"
    growth = growth_of(samples, which)
    grown = "too short a run to say" if growth is None else f"{growth / MIB:+.1f} MiB"
    first, quarter, last = (known[place] / MIB for place in (0, len(known) // 4, -1))
    return (
        f"{whose}: {first:.1f} MiB at first, {quarter:.1f} after a quarter, {last:.1f} at the end, "
        f"{max(known) / MIB:.1f} at most; grown since the second quarter: {grown}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    here = f"{__package__}.soak_app"
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="default: 10")
    parser.add_argument("--interval", type=float, default=10, help="seconds between lines (default: 10)")
    parser.add_argument(
        "--pause", type=float, default=0.2, help="seconds that a client waits between deeds (default: 0.2)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--app", default=f"{here}:deduplicated", metavar="MODULE:FACTORY", help="what to soak"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    chosen = parser.parse_args(arguments)
    result = soak(chosen.app, f"{here}:bare", chosen.minutes * 60, chosen.interval, chosen.pause, chosen.seed)
    print(render(result))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
