"""Mutants of the HTTP cache: each breaks one promise on purpose, and some schedule must show it.

Law: as in `mutants`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

from dedup_middleware import asgi, forward, heads, keeping, refresh, serving, turns, validation
from dedup_middleware.core import assess, settle
from dedup_middleware.core.fingerprint import Fingerprinter
from dedup_middleware.flights import FlightTable
from dedup_middleware.stores.keeper import Keeper

from .mutants import Patch, _nothing, _text


def a_refresh_ignores_what_is_under_way() -> list[Patch]:
    looks = "now < stored.refresh_after or dedup.flights.find(loop, key) is not None"
    _, name, broken = _text(refresh, "refresh", looks, "False")
    return [(serving, name, broken), (turns, name, broken), (asgi, name, broken)]


def what_stands_in_does_so_for_ever() -> list[Patch]:
    return [_text(forward, "stands_in", "late = now - stored.expires", "late = -1.0")]


def what_stands_in_does_so_whatever_forbids_it() -> list[Patch]:
    return [(settle, "_RIGID", ()), _text(settle, "_by_rule", "rigid = ", "rigid = False and ")]


def any_304_confirms() -> list[Patch]:
    return [(validation, "confirms", lambda *_: True)]


def a_stale_response_answers_past_its_window() -> list[Patch]:
    return [_text(assess, "_reused", "late < stored.stale_while_revalidate", "True")]


def revalidations_are_not_shared() -> list[Patch]:
    old = "flight = None if alone else"
    return [_text(turns, "_turn", old, "flight = None if alone or stored else")]


def a_refresh_is_stored_whatever_was_invalidated() -> list[Patch]:
    return [_text(forward.Forward, "_store", "flight.current and", "")]


def the_authorization_of_another_is_nobodys_concern() -> list[Patch]:
    _, _, broken = _text(settle, "settle", "if authorized and", "if False and")
    return [(keeping, "settle", broken)]


def a_callers_part_is_for_all() -> list[Patch]:
    _, name, broken = _text(keeping, "settled_by", "for_all=authorized", "for_all=True")
    return [(heads, name, broken)]


def what_is_for_all_is_so_when_it_is_stale() -> list[Patch]:
    _, name, broken = _text(serving, "serve_another", 'or one.verdict.reason != "fresh"', "")
    return [(turns, name, broken)]


def what_failed_late_stays_stored() -> list[Patch]:
    return [(Keeper, "take_back", _nothing)]


def variants_are_one() -> list[Patch]:
    return [(Fingerprinter, "variant", lambda self, key, names, headers: key)]


def an_invalidation_closes_no_flight() -> list[Patch]:
    return [(FlightTable, "invalidate", _nothing)]


MUTANTS: Final[tuple[Callable[[], list[Patch]], ...]] = tuple(
    made
    for name, made in list(globals().items())
    if inspect.isfunction(made) and made.__module__ == __name__ and name[0] != "_"
)
"""Every public function above: what it breaks is its name."""
