"""The engine: the parts put together (rules, flights, store, telemetry), and what the package's own rooms ask of them.

Law: each part keeps its own state under its own law; what concerns several of them at once is here.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from .core.http import StoredResponse
from .core.memo import Memo
from .events import Events
from .flight import GRACE
from .forking import after_fork
from .holdings import Holdings
from .records.hits import Hits
from .routes import Templates
from .ruling import Ruling
from .stores.memory import MemoryStore
from .telemetry import Gauges

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from .alerts import Watch
    from .core.decide import Consider, Plan, RuleBook
    from .core.fingerprint import Hasher
    from .core.http import Headers, Scope, Stored
    from .core.rules import Rule
    from .records.recorder import Recorder
    from .ruling import Plans
    from .stores import Store
    from .telemetry import Telemetry

MAX_FLIGHTS: Final = 10_000
_NOTHING: Final[frozenset[bytes]] = frozenset()


class Engine:
    """What every request meets; `Dedup` is its public side, and adds who watches and records the whole of it."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        default: Rule,
        hasher: Hasher,
        max_bytes: int,
        clock: Callable[[], float],
        telemetry: Callable[[Gauges], Telemetry],
    ) -> None:
        self.clock: Callable[[], float] = clock
        self.wall: Callable[[], float] = time.time
        self.max_bytes = max_bytes
        self.digest = hasher
        self.recorder: Recorder | None = None
        self.watch: Watch | None = None
        self.telemetry = telemetry(
            Gauges(
                lambda: len(self.flights.under_way),
                lambda: self.store.size,
                lambda: self.store.evicted,
                lambda: self.recorder.dropped if self.recorder is not None else 0,
            )
        )
        self.events = Events(self.telemetry.listener_failed)
        self.ruling = Ruling(rules, default, hasher, self.telemetry, max_bytes)
        self.own_states = self.ruling.own_states
        self.holdings = Holdings(clock, self.telemetry, self.events, self._empty_store, MAX_FLIGHTS)
        self.lock = self.holdings.lock
        self.flights, self.keeper = self.holdings.flights, self.holdings.keeper
        self.variants, self.passes = self.holdings.variants, self.holdings.passes
        self.outgrown = self.holdings.outgrown
        self.bodies: Memo[bytes, bytes] = Memo(4096)
        self.templates = Templates()
        self.recording = False
        self._hits = Hits()
        self._places = 0
        after_fork(self, Engine._forked)

    def _empty_store(self, lock: threading.RLock) -> Store:
        return MemoryStore(self.ruling.bounds, self.max_bytes, lock)

    @property
    def store(self) -> Store:
        """The store in use."""
        return self.keeper.store

    @store.setter
    def store(self, store: Store) -> None:
        self.keeper.store = store

    def add_rules(self, rules: Mapping[tuple[str, tuple[str, ...]], Rule]) -> None:
        """Take over the rules that `@deduplicate` marks ask for, after those that were given."""
        self.in_use()
        fresh = self.ruling.fresh(rules)
        if fresh:
            # Rules change places: nothing that was computed under another one may answer.
            self.holdings.drop_all("code")
            self.ruling.add(fresh)
            self.keeper.renew()  # bounded as the rules say now

    def in_use(self) -> None:
        """Somebody uses the engine: its threads, where it has any, run from now on."""
        if self.watch is not None:
            self.watch.start()
        if self.recorder is not None:
            self.recorder.start()

    @property
    def book(self) -> RuleBook:
        """The rules in force, with the default, and what each is called."""
        return self.ruling.book

    def leave_alone(self, *places: str) -> None:
        """Requests at and below these paths are an administration's: they pass the middlewares by, uncounted."""
        with self.lock:
            self.ruling.leave_alone(*places)

    def is_own(self, scope: Scope) -> bool:
        """Whether a request is for an administration of this engine."""
        return self.ruling.is_own(scope)

    def new_place(self) -> int:
        """A number for one middleware: apps that share the engine share no response."""
        place = self._places
        self._places += 1
        return place

    def plans_at(self, place: int) -> Plans:
        """The memory of the plans for one middleware's app, which lives as long as it is held."""
        return self.ruling.plans_at(place)

    def plan(self, scope: Scope, place: int = 0, plans: Plans | None = None) -> Plan:
        """The plan for a request to one middleware's app, whose `plans_at(place)` may be at hand."""
        self.in_use()
        return self.ruling.plan(scope, place, plans)

    def variants_of(
        self, plan: Consider, base: bytes, headers: Headers
    ) -> list[tuple[bytes, frozenset[bytes]]]:
        """The keys of the variants that a request fits, each with the fields that tell it apart: one at least."""
        variant = plan.fingerprints.variant
        lists = self.variants.get(base) or (_NOTHING,)
        return [(variant(base, names, headers) if names else base, names) for names in lists]

    def variant(
        self, plan: Consider, base: bytes, headers: Headers, loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple[bytes, frozenset[bytes]]:
        """The key of the request's own variant, where Vary told some apart, and the fields that do.

        Of several that it fits, that of the most recent response (RFC 9111 s.4); where none is stored, that of a flight
        under way in this loop, else the newest one.
        """
        if self.variants.get(base) is None:
            return base, _NOTHING
        found = self.variants_of(plan, base, headers)
        if len(found) == 1:
            return found[0]
        now, best, recency = self.clock(), None, (-1, -1)
        for one in found:
            stored = self.keeper.find(plan.ordinal, one[0], now, stale=plan.assesses)
            if isinstance(stored, StoredResponse) and stored.recency > recency:
                best, recency = one, stored.recency
        if best is None and loop is not None:
            best = next((one for one in found if self.flights.find(loop, one[0]) is not None), None)
        return best or found[0]

    def note(self, label: str, key: bytes, stored: Stored) -> None:
        """A stored response has its first hit since hits were recorded."""
        stored.noted = True
        if self.recording:
            self._hits.add(label, key, stored)

    def hits_lately(self) -> list[tuple[str, bytes, int, int]]:
        """Hits since this was last asked: rule, key, how many, and the bytes that they sent again."""
        return self._hits.take()

    def put(self, partition: int, key: bytes, stored: Stored, loop: asyncio.AbstractEventLoop) -> bool:
        """Store, and see to it that what expires is freed; whether it was stored."""
        return self.keeper.put(partition, key, stored, loop)

    def store_failed(self, operation: str, error: Exception) -> None:
        """Tell, once a minute, that requests go without the store."""
        self.keeper.failed(operation, error)

    @property
    def ledger_failures(self) -> int:
        """Writes to the ledger that failed so far."""
        return self.recorder.failures if self.recorder is not None else 0

    async def drain(self, place: int | None = None) -> None:
        """Cancel this loop's flights (of one middleware's app), and wait up to 3 s: it closes what they use.

        A function is no app's; where nobody waits for its value any more it ends with the first one's.
        """
        loop = asyncio.get_running_loop()
        tasks = {
            flight.task: flight
            for flight in list(self.flights.under_way.values())
            if flight.loop is loop
            and flight.task is not None
            and (place in (None, flight.place) or (flight.place is None and not flight.waiters))
        }
        for task in tasks:
            task.cancel()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=GRACE)
            for task in done:
                tasks[task].never_ran()
        if self.recorder is not None:
            await self.recorder.settle()

    def _forked(self) -> None:
        self.ruling.forget()  # so that the first request finds that the engine is in use
        self.holdings.forked()
        self.lock = self.holdings.lock
        self.events.restart()
        if self.recorder is not None:
            self.recorder.forked()
        if self.watch is not None:
            self.watch.restart()
