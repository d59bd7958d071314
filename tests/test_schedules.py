"""Seeded schedules: thousands of small worlds in which everything happens in any order, and the laws that must hold.

More of them: `-m thorough`, or `python -m tests.schedules --seeds 100000 --jobs 4`; one again, with its story:
`--seed 4711`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.status import OUTCOMES

from .kit import VirtualTime, call, chunk, get, head, settle
from .schedules.__main__ import digest
from .schedules.cached_mutants import MUTANTS as CACHED_MUTANTS
from .schedules.cached_world import CachedWorld
from .schedules.catching import KNOWN, LIMIT, Mutant, caught, judged_caching, mutated
from .schedules.laws import breaches
from .schedules.loop import SeededLoop, StuckError
from .schedules.mutants import MUTANTS
from .schedules.world import World

pytestmark = pytest.mark.slow

ALWAYS, THOROUGH, RANGE = 1400, 5000, 50
"""Seeds of every run, of a thorough one, and of one test."""


def ranges(always: int) -> list[Any]:
    """The first seeds of each test; only a thorough run goes beyond `always`."""
    rest = (pytest.param(first, marks=pytest.mark.thorough) for first in range(always, THOROUGH, RANGE))
    return [*range(0, always, RANGE), *rest]


@pytest.mark.parametrize("first", ranges(ALWAYS))
def test_every_law_holds_in_every_schedule(first: int) -> None:
    for seed in range(first, first + RANGE):
        broken = breaches(World(seed).run())
        assert not broken, f"replay it with: python -m tests.schedules --seed {seed}\n" + "\n".join(broken)


@pytest.mark.parametrize("first", ranges(ALWAYS // 2))
def test_every_law_holds_in_every_schedule_of_http_caching(first: int) -> None:
    for seed in range(first, first + RANGE):
        broken = judged_caching(seed)
        command = f"python -m tests.schedules --cached --seed {seed}"
        assert not broken, f"replay it with: {command}\n" + "\n".join(broken)


@pytest.mark.parametrize("mutant", CACHED_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_some_schedule_of_http_caching_catches_each_mutant(mutant: Mutant) -> None:
    found = caught(mutant, KNOWN.get(mutant.__name__, ()), judged_caching)
    assert found is not None, f"{LIMIT} schedules did not notice that {mutant.__name__.replace('_', ' ')}"


def test_the_schedules_of_http_caching_show_what_they_are_about() -> None:
    told: Counter[str] = Counter()
    for seed in range(100):
        world = CachedWorld(seed)
        world.run()
        told.update({name: number for name, number in world.dedup.stats().requests.items() if number})
        told.update(str(request.status) for request in world.requests)
        told.update("ranged" for request in world.requests if request.status == 206 and request.is_hit)
        told.update("confirmed" for _ in world.confirmed)
        told.update("varied" for request in world.requests if b"vary-miss" in request.header(b"cache-status"))
    assert all(
        told[word] > 5 for word in (*OUTCOMES, "206", "416", "503", "504", "ranged", "confirmed", "varied")
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_some_schedule_catches_each_mutant(mutant: Mutant) -> None:
    found = caught(mutant, KNOWN.get(mutant.__name__, ()))
    assert found is not None, f"{LIMIT} schedules did not notice that {mutant.__name__.replace('_', ' ')}"
    seed, broken = found
    print(f"{mutant.__name__.replace('_', ' ')}: caught by seed {seed}: {broken[0]}")


def test_what_is_known_of_seeds_is_of_mutants_that_there_are() -> None:
    assert set(KNOWN) <= {mutant.__name__ for mutant in (*MUTANTS, *CACHED_MUTANTS)}
    assert all(seed < LIMIT for seeds in KNOWN.values() for seed in seeds)


def test_a_mutant_is_gone_when_its_time_is_over() -> None:
    for mutant in (*MUTANTS, *CACHED_MUTANTS):
        with mutated(mutant):
            pass
    assert not breaches(World(0).run())
    assert not judged_caching(0)


@pytest.mark.parametrize("seed", [44368, 68371, 69126, 80321, 403153])
def test_what_broke_a_law_once_holds(seed: int) -> None:
    assert not breaches(World(seed).run())


@pytest.mark.parametrize("kind", [World, CachedWorld])
def test_one_seed_tells_one_story(kind: type[World]) -> None:
    assert [kind(seed).run().story for seed in range(20)] == [kind(seed).run().story for seed in range(20)]


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_story_does_not_depend_on_the_process(hash_seed: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.schedules", "--seeds", "15", "--digest"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == digest(range(15))


def test_two_seeds_tell_two_stories() -> None:
    assert World(1).run().story != World(2).run().story


def test_a_failing_seed_is_told_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from .schedules import __main__ as command

    monkeypatch.setattr(command, "breaches", lambda world: ["a law is broken"] if world.seed == 1 else [])
    assert command.search(0, 3, jobs=1) == 1
    assert "python -m tests.schedules --seed 1\n    a law is broken" in capsys.readouterr().out
    assert command.replay(1) == 1
    told = capsys.readouterr().out
    assert "request 0" in told
    assert told.endswith("a law is broken\n")


def test_a_loop_that_nobody_could_wake_says_so() -> None:
    loop = SeededLoop(None)
    try:
        with pytest.raises(StuckError, match="nothing is left"):
            loop.run_until_complete(_for_ever(loop))
    finally:
        loop.close()


async def _for_ever(loop: SeededLoop) -> None:
    await loop.create_future()


# -- found by schedules, told without them ------------------------------------------------------------------------


async def test_a_leader_that_regrouped_is_not_cancelled_with_the_run_that_it_left(
    virtual_time: VirtualTime, make_dedup: Callable[..., Dedup]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(head(200, [(b"vary", b"accept-language")]))
        if (b"accept-language", b"de") not in scope["headers"]:
            await asyncio.sleep(60)  # virtual ones
        await send(chunk(b"gut", more=False))

    middleware = DedupMiddleware(app, dedup=make_dedup(Rule("/", vary=[])))
    answer = await get(middleware, headers=[(b"accept-language", b"de")])
    assert answer.body == b"gut"
    assert answer.complete


async def test_what_a_flight_waits_for_is_overtaken_by_the_second_invalidation_too(
    make_dedup: Callable[..., Dedup],
) -> None:
    dedup, gates, version = make_dedup(), [asyncio.Event(), asyncio.Event()], 1
    called = asyncio.Event()

    async def read() -> int:
        seen = version
        called.set()
        await gates[1].wait()
        return seen

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not gates[0].is_set():
            await gates[0].wait()
        body = b"%d" % await dedup.call("data", read) if scope["method"] == "GET" else b""
        await send(head())
        await send(chunk(body, more=False))

    middleware = DedupMiddleware(app, dedup=dedup)
    early = call(middleware)
    await settle()
    dedup.clear()
    gates[0].set()
    await called.wait()
    version = 2
    await get(middleware, method="POST")
    late = call(middleware)
    await settle()
    gates[1].set()
    assert (await early.done()).body == b"1"
    assert (await late.done()).body == b"2"
