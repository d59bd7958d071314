"""Held values: what histograms are told, together where somebody collects, since one by one it costs twice as much.

Law: nothing is held but for who is known to come for it; who comes finds all of it, and nothing twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Final

from opentelemetry import context

from ..forking import after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Histogram

    from .attributes import Attributes

MOST: Final = 1000
"""Values that are held until somebody comes for them; some readers come once a minute."""
SLICE: Final = 64
"""Of these as many are told together where there is no room."""


class Held:
    """Values on their way to their histograms, put in by any thread and told by any other.

    One end of the deque is for each: what was taken out by one thread, no other one finds. `awaited` says that the
    histograms are an SDK's own, so that somebody will come for them; `failed` hears of one that fails later.
    """

    def __init__(self, *, awaited: bool, failed: Callable[[Exception], None]) -> None:
        self._from_the_start, self._failed = awaited, failed
        self._forget()
        after_fork(self, Held._forget)

    def _forget(self) -> None:
        """Hold nothing: a child process tells nothing of its parent's, and has a reader of its own or none."""
        self._values: deque[tuple[Histogram, float, Attributes]] = deque()
        self._awaited = self._from_the_start
        self._soon = False

    def record(self, histogram: Histogram, value: float, attributes: Attributes) -> None:
        """Record a value in time for the next collection; `attributes` may be told later, so none may change them.

        At once where a span is current, or whatever else an exemplar is made from; and by the API's stand-ins as long
        as nobody has ever collected, as there may be no SDK.
        """
        if not self._awaited or context.get_current():
            histogram.record(value, attributes)
            return
        self._values.append((histogram, value, attributes))
        number = len(self._values)
        if number > MOST:
            self._make_room(number)

    def _make_room(self, number: int) -> None:
        """Tell the first of them when all who were woken together have gone on: their readers wait for none of it.

        At once where no loop runs, or one has not come to it.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._tell(SLICE)
            return
        if number > 2 * MOST:
            self._tell(SLICE)
        elif not self._soon:
            self._soon = True
            loop.call_soon(self._tell_the_first, context=Context())

    def _tell_the_first(self) -> None:
        self._soon = False
        try:
            self._tell(len(self._values) - MOST + SLICE)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no fault of the loop's
            self._failed(error)

    def collect(self) -> None:
        """Somebody collects, and reads the histograms next: what is held has to be in them by then."""
        self._awaited, self._soon = True, False
        token = context.attach(context.Context())  # the collector's is not where these are from
        try:
            self._tell(len(self._values))
        finally:
            context.detach(token)

    def _tell(self, number: int) -> None:
        values = self._values
        for _ in range(number):
            try:
                histogram, value, attributes = values.popleft()
            except IndexError:
                return  # another thread was quicker
            histogram.record(value, attributes)
