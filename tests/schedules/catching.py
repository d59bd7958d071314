"""How a mutant is caught: by a seed that showed it before, else by the first one that does.

Law: what is known of seeds is a head start and nothing more; where it is out of date, the search begins at 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .cached_laws import breaches as cached_breaches
from .cached_mutants import MUTANTS as CACHED_MUTANTS
from .cached_world import CachedWorld
from .laws import breaches
from .mutants import MUTANTS, Patch
from .patching import patched
from .world import World

Mutant = Callable[[], list[Patch]]
Judge = Callable[[int], list[str]]
LIMIT: Final = 2000
"""Seeds within which every mutant must be caught."""
KNOWN: Final[dict[str, tuple[int, ...]]] = {
    "a_callers_part_is_for_all": (491,),
    "flights_leave_by_key": (111, 278, 284, 311),
    "a_deserted_flight_is_not_cancelled": (555, 742, 916, 978),
    "a_cancelled_leader_cancels_the_flight": (100, 73, 111, 129, 131),
    "the_leaders_leaving_deserts_the_flight": (237, 488, 596, 807, 943),
    "a_deserted_flight_stays_in_the_table": (523,),
    "nobody_notices_that_clients_leave": (1036, 1046, 1278, 1644),
    "the_join_window_is_forgotten": (222, 295, 800, 1094),
    "vary_is_not_looked_at": (59, 333, 1073, 1174),
    "share_errors_is_forgotten": (137, 161, 168, 234),
    "followers_get_refusals": (58, 92, 241, 333),
    "a_mangled_body_counts_as_whole": (45, 176, 229, 393),
    "an_outgrown_flight_takes_newcomers": (159, 496, 519, 707),
    "a_slow_reader_holds_up_all": (59, 143, 153, 159),
    "flights_land_before_the_store_has_them": (135, 168, 1042, 1061),
    "a_store_that_cannot_forget_is_kept": (232, 444, 491, 936),
    "the_switch_does_not_clear": (57, 101, 210, 336),
    "the_older_replaces_the_newer": (1063, 1604),
    "stored_responses_never_expire": (168, 296, 378, 410),
    "what_a_flight_waits_for_is_not_overtaken": (140, 310, 451, 705, 734),
    "a_deserted_flight_is_cancelled_at_once": (36, 78, 80),
    "the_buffer_is_trimmed_too_early": (11, 27, 33),
    "an_invalidation_forgets_the_store": (36, 39, 49),
    "callers_do_not_read_their_own_writes": (27, 48, 63),
    "what_stands_in_does_so_for_ever": (25, 37, 58),
    "what_stands_in_does_so_whatever_forbids_it": (12, 23, 25),
    "any_304_confirms": (11,),
    "revalidations_are_not_shared": (56, 65, 99),
    "what_is_for_all_is_so_when_it_is_stale": (129, 174, 408),
    "what_failed_late_stays_stored": (51, 54, 142),
}
"""Seeds that show what few seeds show; `python -m tests.schedules --mutants` searches anew."""


def judged(seed: int) -> list[str]:
    """What the world of a seed breaks."""
    return breaches(World(seed).run())


def judged_caching(seed: int) -> list[str]:
    """What the world of HTTP caching of a seed breaks."""
    world = CachedWorld(seed)
    world.run()
    return cached_breaches(world)


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The engine with this mutation."""
    with patched(*mutant()):
        yield


def caught(
    mutant: Mutant, first: tuple[int, ...] = (), judge: Judge = judged
) -> tuple[int, list[str]] | None:
    """The seed in whose world a law is broken, and what it says; None where there is none."""
    with mutated(mutant):
        for seed in (*first, *range(LIMIT)):
            if broken := judge(seed):
                return seed, broken
    return None


def table() -> int:
    """Print all mutants with the first seed that shows each."""
    missed = 0
    for mutant in (*MUTANTS, *CACHED_MUTANTS):
        began = time.monotonic()
        found = caught(mutant, (), judged_caching if mutant in CACHED_MUTANTS else judged)
        missed += found is None
        seed, law = (str(found[0]), found[1][0].partition(":")[0]) if found else ("none", "not caught")
        name = mutant.__name__.replace("_", " ")
        print(
            f"{name:50} {seed:>7}  {law.replace('_', ' '):45} {time.monotonic() - began:5.1f} s", flush=True
        )
    return 1 if missed else 0
