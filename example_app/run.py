"""One run from the command line: a folder, the comparison, its table; then the page until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .folder import SCRATCH, prepare
from .history import top_level
from .marks import Mark, judge
from .measure import Comparison, compare
from .page import serve_page
from .progress import Bar
from .servers import ServerFailed
from .table import show
from .telemetry import Telemetry

if TYPE_CHECKING:
    import argparse
    from types import FrameType

    from .settings import Settings


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, 1 when a mark is missed under --once, 2 when it can't start."""
    try:
        given = _given(options.repo)
    except (ValueError, OSError) as error:
        print(f"--repo {options.repo}: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="dedup-example-", ignore_cleanup_errors=True) as folder:
        settings = msgspec.structs.replace(
            prepare(Path(folder), given),
            wait_for_ready=options.wait_for_ready,
            otlp=options.otlp,
            otlp_metrics=options.otlp_metrics,
        )
        telemetry = Telemetry(options.otlp, None)
        try:
            return asyncio.run(_run(settings, options, telemetry))
        except ServerFailed as error:
            print(f"\nThe example's server did not start:\n{error}", file=sys.stderr)
            return 2
        finally:
            telemetry.close()


async def _run(settings: Settings, options: argparse.Namespace, telemetry: Telemetry) -> int:
    _end_once()
    bar = Bar()
    tracer = telemetry.tracer_provider.get_tracer("example_app")
    try:
        comparison = await compare(settings, tracer, bar)
    finally:
        bar.end()
    marks = judge(comparison)
    show(comparison, marks)
    lost, _ = await asyncio.to_thread(telemetry.flush)
    _tell_of_losses(comparison, lost, options.otlp)
    for errors in filter(None, (comparison.without.server_errors, comparison.with_.server_errors)):
        print(f"  The server complained:\n{errors}\n", file=sys.stderr)
    if options.json:
        options.json.write_bytes(msgspec.json.format(_everything(comparison, marks), indent=2) + b"\n")
    if options.once:
        return 0 if all(mark.met for mark in marks) else 1
    with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how somebody ends it: no failure
        await serve_page(settings, comparison, marks, tracer, options.port, traffic=options.traffic)
    print("\n  Stopped.", file=sys.stderr)
    return 0


def _end_once() -> None:
    """Ctrl-C again is not heard: the end under way takes seconds at most, and cut short it would leave things."""
    ends = signal.getsignal(signal.SIGINT)  # asyncio's own: it cancels the run

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if callable(ends):
            ends(number, frame)

    signal.signal(signal.SIGINT, once)


def _given(path: Path | None) -> dict[str, str]:
    """The user's own repository, under its folder's name; nothing when the example uses the one it makes."""
    if path is None:
        return {}
    if not path.is_dir():
        raise ValueError("there is no such folder")
    top = Path(top_level(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", top.name).strip(".-") or "given"  # it stands in URLs
    return {name if name != SCRATCH else f"{SCRATCH}-given": str(top)}


def _everything(comparison: Comparison, marks: list[Mark]) -> bytes:
    figures = msgspec.to_builtins(comparison)
    more = {
        "duplicates_removed": comparison.duplicates_removed,
        "faster": comparison.faster,
        "marks": msgspec.to_builtins(marks),
        "passed": all(mark.met for mark in marks),
    }
    return msgspec.json.encode(more | figures)


def _tell_of_losses(comparison: Comparison, lost: int, otlp: str | None) -> None:
    lost += comparison.without.spans_lost + comparison.with_.spans_lost
    if lost:
        print(f"  {lost} spans did not arrive at {otlp}. Does a collector listen there?\n", file=sys.stderr)
    elif comparison.with_.metrics_failed:
        print(
            "  The metrics did not arrive. Jaeger takes none: name another place by --otlp-metrics.\n",
            file=sys.stderr,
        )
