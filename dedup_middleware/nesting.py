"""Who waits for whom: flights whose work asks for other flights.

Law: nothing waits for itself, over however many others.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .flight import Flight

inside: ContextVar[Flight | None] = ContextVar("dedup_inside", default=None)
"""The flight whose work runs here: of a request or of a function."""


def current() -> Flight | None:
    """The flight whose work runs here; one that is over counts no more, whatever it left running."""
    flight = inside.get()
    return None if flight is None or flight.returned else flight


class waiting:  # noqa: N801 - reads as a statement
    """While a flight's own work waits for another flight, the table can see who waits for whom."""

    def __init__(self, holder: Flight | None, flight: Flight) -> None:
        self._holder = holder
        self._flight = flight

    def __enter__(self) -> None:
        if self._holder is not None:
            self._holder.waits_for.append(self._flight)

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.waits_for.remove(self._flight)


def waits_for_itself(flight: Flight) -> bool:
    """Whether waiting for this flight would, over any number of flights, wait for the one that we run in."""
    here = current()
    if here is None:
        return False
    ahead, seen = [flight], set()
    while ahead:
        one = ahead.pop()
        if one is here:
            return True
        if one not in seen:
            seen.add(one)
            ahead += one.waits_for
    return False
