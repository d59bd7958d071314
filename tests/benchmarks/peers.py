"""`python -m tests.benchmarks.peers`: a hit beside the hits of the other caches for Python's ASGI apps.

Makes an environment of its own in a temporary folder, installs them there with their newest versions, runs one
interleaved race in one process, prints the table, and removes the environment. Needs a package index. A peer that can't
be installed or does not work is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from dedup_middleware import __version__

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900


class Package(msgspec.Struct, frozen=True):
    """How a peer is installed: what it needs beside itself, and whether its own pins are left aside."""

    name: str
    beside: tuple[str, ...] = ()
    pins: bool = True


PACKAGES = (
    # Both pin starlette==0.*, which would take the whole race back; they work with the current one.
    Package("asgi-caches", ("async-caches",), pins=False),
    Package("starlette-caches", ("aiocache",), pins=False),
    Package("fastapi-cache2", ("jinja2",)),  # which it imports and does not declare
    Package("fastapi-cachex"),
    Package("cashews"),
    Package("hishel[async]"),
)


class Environment:
    """A virtual environment in a folder."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))

    def install(self, *arguments: str) -> str | None:
        """Install; the last words of a failure."""
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
        if done.returncode == 0:
            return None
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        return words[-1].removeprefix("ERROR: ")

    def versions(self) -> dict[str, str]:
        """What is installed."""
        done = subprocess.run(
            [self.python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        )
        return {package["name"].lower(): package["version"] for package in json.loads(done.stdout)}

    def race(self, rounds: int, scale: float) -> dict[str, Any]:
        """Run the race in it, from this checkout."""
        done = subprocess.run(
            [self.python, "-m", f"{__package__}.peers_race", str(rounds), str(scale)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def requirements() -> list[str]:
    """What this package and the benchmarks need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["otel"], "fastapi"]


def install(environment: Environment, packages: Sequence[Package] = PACKAGES) -> dict[str, str]:
    """Install all peers, each by itself; why some could not be."""
    failed = environment.install(*requirements())
    if failed is not None:
        raise SystemExit(f"nothing can be installed: {failed}")
    reasons = {}
    for package in packages:
        steps = [(*package.beside, *((package.name,) if package.pins else ()))]
        if not package.pins:
            steps.append(("--no-deps", package.name))
        for step in steps:
            failed = environment.install(*step)
            if failed is not None:
                reasons[package.name.partition("[")[0]] = f"not installed: {failed}"
                break
    return reasons


def rows(times: Mapping[str, Sequence[float]]) -> list[tuple[str, float, float, float]]:
    """Microseconds, and times L0 and L1, of each contender: medians over rounds, the cheapest first."""

    def over(name: str, unit: str) -> float:
        return median(one / base for one, base in zip(times[name], times[unit], strict=True))

    found = [(name, median(kept), over(name, "L0"), over(name, "L1")) for name, kept in times.items()]
    return sorted(found, key=lambda row: row[2])


def render(
    times: Mapping[str, Sequence[float]], versions: Mapping[str, str], failed: Mapping[str, str]
) -> str:
    """The table, as Markdown."""
    told = {"L0": "raw ASGI callable (L0)", "L1": "bare Starlette route (L1)", "L2": "bare FastAPI endpoint"}
    lines = ["| a hit of 1 KiB | us | times L0 | times L1 |", "|---|---:|---:|---:|"]
    for name, value, in_l0, in_l1 in rows(times):
        package, comma, rest = name.partition(",")
        package, space, more = package.partition(" ")
        known = versions.get(package.lower())
        label = told.get(name) or f"{package}{f' {known}' if known else ''}{space}{more}{comma}{rest}"
        if package == "dedup-middleware":
            label = f"**{label}**"
        lines.append(f"| {label} | {value:.2f} | {in_l0:,.1f} | {in_l1:,.2f} |")
    lines += [f"\n{name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the requests of a round (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder))
        failed = install(environment)
        figures = environment.race(chosen.rounds, chosen.scale)
        versions = environment.versions() | {"dedup-middleware": __version__}
    told = {
        name: reason
        for name, reason in figures["failed"].items()
        if name.split(",")[0].split(" ")[0] not in failed
    }
    failed |= told
    print(render(figures["times"], versions, failed))
    about = f"Python {platform.python_version()}, FastAPI {versions['fastapi']}, Starlette {versions['starlette']}"
    print(f"\n{about}; {chosen.rounds} interleaved rounds in one process")
    if chosen.json is not None:
        all_figures = {"times": figures["times"], "failed": failed, "versions": versions}
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(all_figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
