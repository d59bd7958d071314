"""Opening: a flight for a request, in the table.

Law: what it depends on is what was asked, whatever routers write into the scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.callers import Caller

if TYPE_CHECKING:
    from starlette.types import Scope

    from .core.decide import Consider
    from .dedup import Dedup
    from .flight import Flight, Loop


def open_flight(
    dedup: Dedup,
    plan: Consider,
    scope: Scope,
    key: bytes,
    loop: Loop,
    now: float,
    *,
    listed: bool,
    runs_on: bool,
) -> Flight | None:
    """A flight for a request, with all that it depends on; None where there are too many."""
    return dedup.flights.open(
        loop,
        key,
        plan.terms,
        Caller(scope["headers"], scope["path"], scope.get("client"), plan.tags),
        now,
        listed=listed,
        runs_on=runs_on,
        place=plan.place,
    )
