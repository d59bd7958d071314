"""Measures: what each alert's watched thing comes to now, from cumulative counts and from what listeners hear.

Law: everything is bounded: a window keeps at most `SAMPLES` samples, a table at most `MAX_FINGERPRINTS` fingerprints.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ..stats import REUSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..core.status import Outcome, Reason
    from ..inventory import UnderWay
    from .alert import Alert

SAMPLES: Final = 60
"""Samples that a window is cut into: its length is right to a sixtieth."""
SLICES: Final = 12
"""Slices of the table of fingerprints: its window is right to a twelfth."""
MAX_FINGERPRINTS: Final = 10_000


class Tallied(Protocol):
    """One kind of requests, and how many there were."""

    @property
    def outcome(self) -> Outcome:
        """What became of them."""

    @property
    def reason(self) -> Reason:
        """Why."""

    @property
    def label(self) -> str:
        """The rule."""

    @property
    def number(self) -> int:
        """How many."""


class Found(NamedTuple):
    """What was measured: nothing (None) where there was too little; under which rule and fingerprint it was worst."""

    value: float | None
    rule: str | None = None
    key: str | None = None
    others: int = 0


class Reading(NamedTuple):
    """Cumulative counts at one time; `requests` by rule (None: all) and outcome, or reason for a bypass."""

    at: float
    requests: Counter[tuple[str | None, str]]
    store_failures: int
    ledger_failures: int
    evicted: int
    flights: Sequence[UnderWay]

    def counts(self, alert: Alert) -> tuple[int, int]:
        """What an alert counts, and out of how many."""
        requests, rule = self.requests, alert.rule
        match alert.watch:
            case "hit-rate":
                return sum(requests[rule, outcome] for outcome in REUSED), requests[rule, ""]
            case "collapse-ratio":
                return requests[rule, "collapsed"], requests[rule, ""]
            case "bypasses":
                return requests[rule, f"bypassed {alert.reason}"], 0
            case "store-failures":
                return self.store_failures, 0
            case "ledger-failures":
                return self.ledger_failures, 0
            case _:
                return self.evicted, 0


def requests(tallies: Iterable[Tallied]) -> Counter[tuple[str | None, str]]:
    """Sum up by rule and outcome, by rule and reason of a bypass, and (with "") by rule; None stands for all rules."""
    found: Counter[tuple[str | None, str]] = Counter()
    for tally in tallies:
        kinds = ["", tally.outcome]
        if tally.outcome == "bypassed":
            kinds.append(f"bypassed {tally.reason}")
        for kind in kinds:
            found[None, kind] += tally.number
            found[tally.label, kind] += tally.number
    return found


class Window:
    """How much two cumulative counts have grown within so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, int, int]] = deque()

    def grown(self, at: float, part: int, whole: int) -> tuple[int, int]:
        """Take the counts in; the answer is what came in the window, or since the first sample."""
        samples = self._samples
        if samples and (part < samples[-1][1] or whole < samples[-1][2]):
            samples.clear()  # a store that was replaced counts anew
            samples.append((at, 0, 0))
        while len(samples) > 1 and samples[1][0] <= at - self._seconds:
            samples.popleft()
        if not samples or at - samples[-1][0] >= self._seconds / SAMPLES:
            samples.append((at, part, whole))
        return part - samples[0][1], whole - samples[0][2]


class Fingerprints:
    """Executions by rule and fingerprint within so many seconds; when there are too many, the rare ones are forgotten.

    Told by a listener's thread, asked by the watch's.
    """

    def __init__(self, seconds: float) -> None:
        self.heard = 0
        self._slice = seconds / SLICES
        self._lock = threading.Lock()
        self._totals: Counter[tuple[str, str]] = Counter()
        self._slices: deque[tuple[float, Counter[tuple[str, str]]]] = deque()

    def add(self, rule: str, key: str, at: float) -> None:
        """One execution more."""
        with self._lock:
            self.heard += 1
            self._expire(at)
            if not self._slices or at - self._slices[-1][0] >= self._slice:
                self._slices.append((at, Counter()))
            self._slices[-1][1][rule, key] += 1
            self._totals[rule, key] += 1
            if len(self._totals) > MAX_FINGERPRINTS:
                self._forget()

    def most(self, alert: Alert, at: float) -> Found:
        """The fingerprint with most executions, and how many others are above the threshold too."""
        with self._lock:
            self._expire(at)
            counted = [
                (number, rule, key)
                for (rule, key), number in self._totals.items()
                if alert.rule in (None, rule)
            ]
        return _worst(alert, counted)

    def _expire(self, at: float) -> None:
        while self._slices and self._slices[0][0] <= at - self._slice * SLICES:
            self._totals.subtract(self._slices.popleft()[1])
            self._totals = +self._totals

    def _forget(self) -> None:
        """Half of them stay: those that came most often."""
        self._totals = Counter(dict(self._totals.most_common(MAX_FINGERPRINTS // 2)))
        for _, counted in self._slices:
            for name in counted.keys() - self._totals.keys():
                del counted[name]


class Measure:
    """One alert's measure."""

    def __init__(self, alert: Alert) -> None:
        self.alert = alert
        self.fingerprints = Fingerprints(alert.span) if alert.watch == "executions" else None
        self._window = Window(alert.span)

    def take(self, reading: Reading) -> Found:
        """What it comes to now; to be asked regularly, since a window is made of samples."""
        alert = self.alert
        if self.fingerprints is not None:
            return self.fingerprints.most(alert, reading.at)
        if alert.watch == "flight-age":
            return _oldest(alert, reading.flights)
        part, whole = self._window.grown(reading.at, *reading.counts(alert))
        if alert.minimum is None:
            return Found(float(part), alert.rule)
        return Found(part / whole if whole >= alert.minimum else None, alert.rule)


def _oldest(alert: Alert, flights: Sequence[UnderWay]) -> Found:
    """The oldest flight that has not landed: what an app does after its last byte holds up nobody."""
    ages = [
        (one.seconds, one.rule, one.key)
        for one in flights
        if not one.landed and alert.rule in (None, one.rule)
    ]
    return _worst(alert, ages)


def _worst(alert: Alert, measured: Sequence[tuple[float, str, str]]) -> Found:
    """The largest of values with their rules and fingerprints, and how many others are above the threshold too."""
    if not measured:
        return Found(0.0)
    value, rule, key = max(measured)
    others = sum(alert.is_passed(one[0]) for one in measured) - alert.is_passed(value)
    return Found(float(value), rule, key, others)
