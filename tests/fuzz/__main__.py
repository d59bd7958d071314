"""Fuzzing on demand: `python -m tests.fuzz TARGET --seconds 300`; `--replay FILE` runs one input again.

A finding is written to a file, without what it does not need, with the command that replays it. `--keep` writes what a
run found worth keeping into the corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from .engine import Finding, Search, Target
from .targets import CORPUS, TARGETS, corpus


def replay(target: Target, file: Path) -> int:
    """Run one input; what it raises says all."""
    target.forget()
    told = sorted(target.run(file.read_bytes()))
    print(f"{file}: nothing is broken\n" + "\n".join(told))
    return 0


def report(target: Target, found: Finding, folder: Path) -> str:
    """The finding as a file, and how to see it again."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(found.data).hexdigest()[:10]
    file = folder / f"{target.name}-{name}"
    file.write_bytes(found.data)
    return f"{found.error[:2000]}\n    {found.place}\n    python -m tests.fuzz {target.name} --replay {file}"


def search(target: Target, seed: int, seconds: float, executions: int, findings: Path, *, keep: bool) -> int:
    """Fuzz for so long, or so many inputs; tell each finding as it comes."""
    began, told = time.monotonic(), 0
    running = Search(target, corpus(target.name).values(), seed)
    first = len(running.known)
    while running.executions < executions and time.monotonic() - began < seconds:
        for found in list(running.findings.values())[told:]:
            print(report(target, running.minimal(found), findings), flush=True)
            told += 1
        running.run(20)
    for found in list(running.findings.values())[told:]:
        print(report(target, running.minimal(found), findings), flush=True)
    took = time.monotonic() - began
    print(
        f"{target.name}: seed {seed}, {running.executions} inputs in {took:.0f} s, {len(running.known)} edges and "
        f"words ({first} in the corpus), {len(running.findings)} findings"
    )
    if keep:
        save(target, running)
    return 1 if running.findings else 0


def save(target: Target, running: Search) -> None:
    """The corpus that reaches what this run reached."""
    kept, folder = running.cover(), CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    written = {file.read_bytes() for file in folder.glob("seed-*")}  # by hand: they show what an input is
    for old in set(folder.iterdir()).difference(folder.glob("seed-*")):
        old.unlink()
    for data in set(kept) - written:
        (folder / hashlib.sha256(data).hexdigest()[:10]).write_bytes(data)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--executions", type=int, default=sys.maxsize, help="how many inputs at most")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another run")
    parser.add_argument("--replay", type=Path, help="run this input alone")
    parser.add_argument(
        "--findings", type=Path, default=Path(tempfile.gettempdir()), help="where findings go"
    )
    parser.add_argument("--keep", action="store_true", help="write a new corpus")
    given = parser.parse_args(arguments)
    target = TARGETS[given.target]
    if given.replay is not None:
        return replay(target, given.replay)
    return search(target, given.seed, given.seconds, given.executions, given.findings, keep=given.keep)


if __name__ == "__main__":
    sys.exit(main())
