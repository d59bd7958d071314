"""Seeded schedules on demand: `python -m tests.schedules --seeds 100000`, `--seed 4711` replays one, `--mutants`.

With `--cached` the worlds are those of HTTP caching.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from .cached_laws import breaches as cached_breaches
from .cached_world import CachedWorld
from .laws import breaches
from .world import World

CHUNK = 250


def seen(seed: int, *, cached: bool = False) -> tuple[World, list[str]]:
    """The world of a seed, and what it broke."""
    if cached:
        caching = CachedWorld(seed)
        caching.run()
        return caching, cached_breaches(caching)
    world = World(seed).run()
    return world, breaches(world)


def failing(seeds: range, *, cached: bool = False) -> list[tuple[int, list[str]]]:
    """The seeds whose worlds broke a law, and the sentences."""
    return [(seed, broken) for seed in seeds if (broken := seen(seed, cached=cached)[1])]


def replay(seed: int, *, cached: bool = False) -> int:
    """Print the story of one seed, and what it broke."""
    world, broken = seen(seed, cached=cached)
    print(world.describe())
    print("\n".join(broken) if broken else "every law holds")
    return 1 if broken else 0


def digest(seeds: range) -> str:
    """One number for the stories of these seeds."""
    told = hashlib.sha256()
    for seed in seeds:
        told.update(World(seed).run().describe().encode())
    return told.hexdigest()


def search(first: int, count: int, jobs: int, *, cached: bool = False) -> int:
    """Run many seeds, and say how to replay those that fail."""
    began, failed = time.monotonic(), 0
    chunks = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    with nullcontext() if jobs == 1 else ProcessPoolExecutor(jobs) as pool:
        for found in (pool.map if pool else map)(partial(failing, cached=cached), chunks):
            for seed, broken in found:
                failed += 1
                print(
                    f"python -m tests.schedules{' --cached' * cached} --seed {seed}\n    "
                    + "\n    ".join(broken),
                    flush=True,
                )
    print(f"{count} seeds from {first}, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.schedules", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="replay this one and print its story")
    parser.add_argument("--cached", action="store_true", help="worlds of HTTP caching")
    parser.add_argument("--digest", action="store_true", help="print one digest of all stories")
    parser.add_argument("--mutants", action="store_true", help="print the first seed that shows each mutant")
    given = parser.parse_args()
    if given.mutants:
        from .catching import table

        return table()
    if given.digest:
        print(digest(range(given.first, given.first + given.seeds)))
        return 0
    if given.seed is not None:
        return replay(given.seed, cached=given.cached)
    return search(given.first, given.seeds, given.jobs, cached=given.cached)


if __name__ == "__main__":
    sys.exit(main())
