"""Instruments: what a metrics SDK hears.

Law: callbacks run in the exporter's thread, tell what is held and only read; several engines of one process sum up,
none is lost.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from ..core.status import Outcome, Reason
from ..forking import OwnLock
from .attributes import place
from .guard import failed, harmless
from .held import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SCOPE_NAME: Final = "dedup_middleware"
SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Bounds of the buckets: an SDK's own are made for milliseconds."""
FOLLOWERS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CountKey = tuple[Outcome, Reason, str, str]


class Tally:
    """Requests of one kind: how many, and the seconds of forwards that they did not need.

    Counted from any thread: nothing between reading and writing a number lets another thread in.
    """

    __slots__ = ("label", "method", "number", "outcome", "reason", "saved")

    def __init__(self, outcome: Outcome, reason: Reason, label: str, method: str) -> None:
        self.outcome = outcome
        self.reason = reason
        self.label = label
        self.method = method
        self.number = 0
        self.saved = 0.0


class Gauges(NamedTuple):
    """What the observable instruments read of an engine; each a function that only reads."""

    flights: Callable[[], int]
    bytes_: Callable[[], int]
    evictions: Callable[[], int]
    dropped: Callable[[], int] = lambda: 0


class Engine(Protocol):
    """What is read of an engine."""

    tallies: dict[CountKey, Tally]
    gauges: Gauges

    def warn(self, kind: str, message: str, *args: object) -> None:
        """A warning about our own parts, at most once a minute a kind."""


class _Book(NamedTuple):
    """What one engine counted; the counts stay when the engine is gone, or counters would fall."""

    engine: Callable[[], Engine | None]
    tallies: dict[CountKey, Tally]


_FEW: Final = 32
"""Books that are kept as they are."""


def _summed_up(books: list[_Book]) -> list[_Book]:
    """The same counts, with one book for all engines that are gone."""
    gone = _Book(lambda: None, {})
    kept = [gone]
    for book in books:
        if book.engine() is not None:
            kept.append(book)
            continue
        for key, tally in book.tallies.items():
            total = gone.tallies.setdefault(key, Tally(*key))
            total.number += tally.number
            total.saved += tally.saved
    return kept


class Instruments:
    """One provider's instruments, which sum up over its engines: an SDK hears only the first callback of a name.

    Their callbacks run in the exporter's thread and only read; a dict's copy is one step there. An SDK calls back all
    of them before it reads any histogram: so the first one tells what is held for these.
    """

    def __init__(self, meter: Meter) -> None:
        self._books: list[_Book] = []
        self._room = _FEW
        histogram = meter.create_histogram
        self.forward_duration = histogram(
            "dedup.forward.duration", "s", "Length of forwards", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.wait_duration = histogram(
            "dedup.wait.duration", "s", "Time followers waited", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.flight_followers = histogram(
            "dedup.flight.followers",
            "{request}",
            "Requests that joined a flight",
            explicit_bucket_boundaries_advisory=FOLLOWERS,
        )
        self.store_operation = histogram(
            "dedup.store.operation.duration",
            "s",
            "Length of invalidations and sweeps",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        stands_in = type(self.forward_duration).__module__.startswith("opentelemetry.metrics")
        self._held = Held(awaited=not stands_in, failed=lambda error: failed(self, "record", error))
        self.record = self._held.record
        meter.create_observable_counter(
            "dedup.requests", [self._requests], "{request}", "Requests by outcome and reason"
        )
        meter.create_observable_counter(
            "dedup.saved.duration", [self._saved], "s", "Seconds of forwards that did not run"
        )
        meter.create_observable_up_down_counter(
            "dedup.flights.active", [self._sum("flights")], "{flight}", "Flights under way"
        )
        meter.create_observable_up_down_counter(
            "dedup.store.size", [self._sum("bytes_")], "By", "Bytes that stored responses are charged for"
        )
        meter.create_observable_counter(
            "dedup.evictions", [self._sum("evictions")], "{response}", "Stored responses that made room"
        )
        meter.create_observable_counter(
            "dedup.ledger.dropped", [self._sum("dropped")], "{observation}", "What is in no execution record"
        )

    def add(self, engine: Engine) -> None:
        """Count an engine in; now and then what engines counted that are gone goes into one book.

        Not each time: who makes engine after engine would sum up all that went before with each one.
        """
        with _making.lock:
            books = [*self._books, _Book(weakref.ref(engine), engine.tallies)]
            if len(books) > self._room:
                books = _summed_up(books)
                self._room = max(_FEW, 2 * len(books))
            self._books = books

    def _engines(self) -> list[Engine]:
        return [engine for book in self._books if (engine := book.engine()) is not None]

    def warn(self, kind: str, message: str, *args: object) -> None:
        """Whose values they are is not known any more: each engine warns."""
        for engine in self._engines():
            engine.warn(kind, message, *args)

    @harmless
    def _collect(self) -> None:
        self._held.collect()

    def _tallies(self) -> list[Tally]:
        """All there are, of requests that there were."""
        return [tally for book in self._books for tally in book.tallies.copy().values() if tally.number]

    def _requests(self, _: CallbackOptions) -> Iterator[Observation]:
        self._collect()
        total: Counter[CountKey] = Counter()
        for tally in self._tallies():
            total[tally.outcome, tally.reason, tally.label, tally.method] += tally.number
        for (outcome, reason, label, method), number in total.items():
            attributes = place(label, method)
            yield Observation(number, attributes | {"dedup.outcome": outcome, "dedup.reason": reason})

    def _saved(self, _: CallbackOptions) -> Iterator[Observation]:
        total: dict[tuple[Outcome, str], float] = {}
        for tally in self._tallies():
            if tally.saved:
                where = (tally.outcome, tally.label)
                total[where] = total.get(where, 0.0) + tally.saved
        for (outcome, label), seconds in total.items():
            yield Observation(seconds, {"dedup.outcome": outcome, "dedup.rule": label})

    def _sum(self, gauge: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(sum(getattr(engine.gauges, gauge)() for engine in self._engines()))]

        return observe


_by_provider: Final[weakref.WeakKeyDictionary[MeterProvider, Instruments]] = weakref.WeakKeyDictionary()
_early: Final[list[MeterProvider]] = []
"""The API's stand-in, while it is what engines report to."""


_making: Final = OwnLock()
"""Instruments are made by one thread at a time."""


def instruments(version: str, given: MeterProvider | None) -> Instruments:
    """The provider's instruments, made once: an SDK hears only the first callback of a name.

    Those made before a global provider was set are that provider's from then on, and one that wraps another has its.
    """
    everyones = metrics.get_meter_provider()
    provider = given or everyones
    with _making.lock:
        found = _by_provider.get(provider)
        if found is None:
            if provider is everyones and _early:
                found = _by_provider.pop(_early.pop(), None)
            _by_provider[provider] = found = found or _of(metrics.get_meter(SCOPE_NAME, version, provider))
            if provider is everyones and type(provider).__module__.startswith("opentelemetry.metrics"):
                _early.append(provider)
        return found


def _of(meter: Meter) -> Instruments:
    """A meter's instruments; one that was there already gives the same histogram, and hears no more callbacks."""
    made = Instruments(meter)
    there = (one for one in _by_provider.values() if one.forward_duration is made.forward_duration)
    return next(there, made)
