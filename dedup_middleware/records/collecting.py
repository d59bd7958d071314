"""Collecting: what an engine only counts, taken over into a gathering.

Law: what is counted goes up alone, and each time only what was added since the last one is taken; a request does
nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from .gathering import Gathering
from .outcomes import STOOD_IN, STORED

if TYPE_CHECKING:
    from ..stores import Store
    from ..telemetry import CountKey, Telemetry

_UNSAMPLED: Final = 1000
"""Rules and minutes whose hits wait for a sample of how long they take."""


class Counts(Protocol):
    """What is read of an engine."""

    telemetry: Telemetry

    @property
    def store(self) -> Store:
        """The store in use."""

    def hits_lately(self) -> list[tuple[str, bytes, int, int]]:
        """Hits since this was last asked."""


class Collecting:
    """What was taken over until now. Used by one thread at a time."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._told: dict[CountKey, tuple[int, float]] = {}
        self._left = (0, 0, 0)
        self._samples: dict[str, float] = {}
        self._unsampled: dict[tuple[str, int], tuple[int, float]] = {}

    def skip(self) -> None:
        """What was counted until now is somebody else's to tell."""
        self.collect(Gathering(), 0)
        self._unsampled.clear()

    def sampled(self, rule: str, seconds: float) -> None:
        """A hit of this rule took so long."""
        self._samples[rule] = seconds

    def collect(self, gathering: Gathering, minute: int) -> None:
        """Take over what was counted since this was last called."""
        self._collect_requests(gathering, minute)
        for rule, key, number, size in self._counts.hits_lately():
            gathering.hits(rule, key.hex(), number, size)
        self._collect_memory(gathering, minute)

    def _collect_requests(self, gathering: Gathering, minute: int) -> None:
        for key, tally in self._counts.telemetry.tallies.copy().items():
            number, saved = tally.number, tally.saved
            known, known_saved = self._told.get(key, (0, 0.0))
            if number == known:
                continue
            self._told[key] = (number, saved)
            more, more_saved = number - known, saved - known_saved
            gathering.requests(tally.label, minute, tally.outcome, tally.reason, more, more_saved)
            if tally.outcome in STORED and tally.reason != STOOD_IN:
                before = self._unsampled.get((tally.label, minute), (0, 0.0))
                self._unsampled[tally.label, minute] = (before[0] + more, before[1] + more_saved)
        for (rule, at), (number, saved) in list(self._unsampled.items()):
            # How long hits take is sampled; those of a rule that has no sample yet wait for its first one.
            if rule in self._samples:
                del self._unsampled[rule, at]
                gathering.hit_latency(rule, at, number, self._samples[rule], saved / number)
        while len(self._unsampled) > _UNSAMPLED:
            del self._unsampled[next(iter(self._unsampled))]

    def _collect_memory(self, gathering: Gathering, minute: int) -> None:
        try:
            store = self._counts.store
            left = (store.evicted, store.expired, store.invalidated)
            size, responses = store.size, store.responses
        except Exception:  # noqa: BLE001 - whatever a store raises: whoever uses it tells of it
            return
        # A store that failed was replaced by an empty one, which counts from 0.
        more = [now - before if now >= before else now for now, before in zip(left, self._left, strict=True)]
        self._left = left
        if responses or any(more):
            evicted, expired, invalidated = more
            gathering.memory(
                minute,
                size=size,
                responses=responses,
                evicted=evicted,
                expired=expired,
                invalidated=invalidated,
            )
