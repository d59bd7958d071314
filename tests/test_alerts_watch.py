"""The watch: what an engine's requests, flights, store and ledger raise; and its thread, which nobody notices."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dedup_middleware import Alert, Dedup, DedupMiddleware, Rule, telemetry
from dedup_middleware.alerts import Watch, watch
from dedup_middleware.events import AlertRaised, ExecutionCompleted
from dedup_middleware.stores.memory import MemoryStore

from .alerts_kit import Told, threads, watch_of
from .kit import FakeClock, GatedApp, call, get, settle, together, until, wait_for

pytestmark = pytest.mark.slow

Make = Callable[..., Dedup]


@pytest.fixture
def make(make_dedup: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Engines whose watch looks only when told; its thread is stopped after the test."""
    monkeypatch.setattr(watch, "INTERVAL", 3600.0)
    made: list[Dedup] = []

    def make_one(*rules: Rule, **settings: Any) -> Dedup:
        made.append(make_dedup(*rules, **settings))
        return made[-1]

    yield make_one
    for dedup in made:
        watch_of(dedup).stop()


def look(dedup: Dedup) -> tuple[str, ...]:
    watch_of(dedup).tick()
    return watch_of(dedup).raised


# -- what is watched -------------------------------------------------------------------------------------------------


async def test_one_fingerprint_that_runs_again_and_again_is_told(make: Make, clock: FakeClock) -> None:
    told = Told()
    alert = Alert("storm", "executions", above=3, calm=0, callback=told)
    dedup = make(Rule("/git/{repo}", name="git"), alerts=[alert])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    keys = []
    dedup.subscribe(lambda event: keys.append(event.key), ExecutionCompleted)  # type: ignore[attr-defined] # the type of what is subscribed to
    for target in ("/git/a", "/git/b", "/git/c", "/git/a", "/git/a"):
        await get(app, target)
    (table,) = watch_of(dedup)._tables
    wait_for(lambda: table.heard == 5)
    assert look(dedup) == ()
    await get(app, "/git/a")
    wait_for(lambda: table.heard == 6 and len(keys) == 6)
    assert look(dedup) == ("storm",)
    clock.advance(61)
    assert look(dedup) == ()

    raised, over = told.wait(2)
    assert raised == AlertRaised(
        at=raised.at,
        alert="storm",
        message=f"storm: executions of one fingerprint under git within 60 s: 4, above 3, fingerprint {keys[0]}",
        value=4.0,
        threshold=3.0,
        rule="git",
    )
    assert (over.over, over.value, over.rule) == (True, 0.0, None)
    assert over.message == "storm: executions of one fingerprint within 60 s: 0, no longer above 3"


async def test_hits_and_collapses_are_no_executions(make: Make) -> None:
    dedup = make(default=Rule(ttl=60), alerts=[Alert("storm", "executions", above=1)])
    gated = GatedApp()
    app = DedupMiddleware(gated, dedup=dedup)
    await together(app, gated, 5)
    for _ in range(5):
        await get(app)
    (table,) = watch_of(dedup)._tables
    wait_for(lambda: table.heard == 1)

    assert look(dedup) == ()


async def test_a_low_hit_rate_is_told_once_there_are_requests_enough(make: Make, clock: FakeClock) -> None:
    alert = Alert("misses", "hit-rate", below=0.5, minimum=10, rule="git", calm=0)
    dedup = make(Rule("/git/{repo}", ttl=600, name="git"), alerts=[alert])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for number in range(9):
        await get(app, f"/git/{number}")
        await get(app, "/elsewhere")
    assert look(dedup) == ()
    await get(app, "/git/9")
    assert look(dedup) == ("misses",)
    for number in range(10):
        await get(app, f"/git/{number}")
    assert look(dedup) == ("misses",)  # 50 % is where it begins, not where it ends
    for number in range(4):
        await get(app, f"/git/{number}")
    assert look(dedup) == ()
    clock.advance(61)
    assert look(dedup) == ()


async def test_many_collapses_are_told(make: Make) -> None:
    dedup = make(alerts=[Alert("crowd", "collapse-ratio", above=0.8, minimum=10)])
    gated = GatedApp()
    app = DedupMiddleware(gated, dedup=dedup)
    await together(app, gated, 10)

    assert look(dedup) == ("crowd",)


async def test_bypasses_because_of_one_reason_are_told(make: Make) -> None:
    alerts = [
        Alert("keys", "bypasses", reason="credential", above=2),
        Alert("off", "bypasses", reason="disabled", above=2),
    ]
    dedup = make(Rule("/me", identity=["cookie:session"]), alerts=alerts)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for _ in range(3):
        await get(app, "/me", headers=[(b"authorization", b"Bearer x")])
    assert look(dedup) == ("keys",)
    dedup.enabled = False
    for _ in range(3):
        await get(app, "/me")
    assert look(dedup) == ("keys", "off")


async def test_evictions_are_told_and_a_store_that_is_replaced_counts_on(make: Make) -> None:
    dedup = make(
        default=Rule(ttl=60, max_responses=1), alerts=[Alert("full", "evictions", above=1, calm=0, window=1)]
    )
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for number in range(3):
        await get(app, f"/{number}")
    assert look(dedup) == ("full",)
    dedup.keeper.start_anew("get", ValueError())
    assert look(dedup) == ("full",), "they were evicted a moment ago"
    assert dedup.stats().evicted == 2


class Broken(MemoryStore):
    """A store of which nothing works."""

    def get(self, *_: Any) -> Any:
        raise OSError("gone")

    def put(self, *_: Any) -> bool:
        raise OSError("gone")

    @property
    def evicted(self) -> int:
        raise OSError("gone")

    @evicted.setter
    def evicted(self, value: int) -> None: ...


async def test_a_store_that_fails_is_told_even_by_a_watch_that_looks_at_evictions(make: Make) -> None:
    told = Told()
    alerts = [Alert("full", "evictions", above=1), Alert("store", "store-failures", callback=told)]
    dedup = make(default=Rule(ttl=60), alerts=alerts)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app)
    assert look(dedup) == ()
    dedup.store = Broken({}, 1, dedup.lock)
    assert (await get(app)).status == 200
    assert look(dedup) == ("store",)
    assert told.wait(1)[0].message == "store: failures of the store within 60 s: 2, above 0"


async def test_a_ledger_that_fails_is_told(make: Make, tmp_path: Path) -> None:
    dedup = make(
        records=f"sqlite:///{tmp_path}/dedup.db", secret="s" * 32, alerts=[Alert("ledger", "ledger-failures")]
    )
    assert look(dedup) == ()
    assert dedup.recorder is not None
    dedup.recorder._writing.failures += 1
    assert look(dedup) == ("ledger",)


async def test_a_flight_that_takes_too_long_is_told(make: Make, clock: FakeClock) -> None:
    told = Told()
    alert = Alert("stuck", "flight-age", above="10s", calm=0, callback=told)
    dedup = make(Rule("/slow", name="slow"), alerts=[alert])
    gated = GatedApp()
    one = call(DedupMiddleware(gated, dedup=dedup), "/slow")
    await until(lambda: bool(dedup.flights.under_way))
    clock.advance(10)
    assert look(dedup) == ()
    clock.advance(2.5)
    assert look(dedup) == ("stuck",)
    gated.gate.set()
    await one.done()
    await settle()
    assert look(dedup) == ()
    raised, over = told.wait(2)
    assert raised.message.startswith(
        "stuck: the oldest flight's age under slow: 12.5 s, above 10.0 s, fingerprint "
    )
    assert over.message == "stuck: the oldest flight's age: 0.0 s, no longer above 10.0 s"


async def test_functions_are_watched_like_requests(make: Make) -> None:
    dedup = make(alerts=[Alert("storm", "executions", above=2)])

    async def read() -> int:
        return 1

    for _ in range(3):
        await dedup.call("k", read)
    (table,) = watch_of(dedup)._tables
    wait_for(lambda: table.heard == 3)

    assert look(dedup) == ("storm",)


async def test_a_rule_that_there_is_none_of_is_told_once_when_requests_have_come(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_REPEAT", 0.0)
    alerts = [Alert(name, "hit-rate", below=0.5, rule=name) for name in ("git", "gti")]
    dedup = make(Rule("/git", name="git"), alerts=alerts)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    look(dedup)
    assert not caplog.records
    await get(app, "/git")
    look(dedup)
    look(dedup)

    assert [record.getMessage() for record in caplog.records] == [
        "an alert watches the rule 'gti', and there is none of that name yet"
    ]


# -- its thread ------------------------------------------------------------------------------------------------------

OFF = Alert("off", "bypasses", reason="off", above=0, calm=0, window=1)


async def test_its_thread_begins_with_the_first_request_and_ends_with_the_engine_s(make: Make) -> None:
    before = threads("dedup-alerts")
    dedup = make(alerts=[OFF])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    assert not threads("dedup-alerts") - before
    for _ in range(3):
        await get(app)
    (thread,) = threads("dedup-alerts") - before
    assert thread.daemon
    await dedup.aclose()
    thread.join(30)
    assert not thread.is_alive()
    await get(app)
    assert len(threads("dedup-alerts") - before) == 1
    await dedup.aclose()


async def test_its_thread_begins_with_the_first_function_too(make: Make) -> None:
    before = threads("dedup-alerts")
    dedup = make(alerts=[OFF])

    @dedup.cached(ttl=60)
    async def read() -> int:
        return 1

    assert not threads("dedup-alerts") - before
    await read()
    assert len(threads("dedup-alerts") - before) == 1
    await dedup.aclose()
    await read()
    wait_for(lambda: len(threads("dedup-alerts") - before) == 1)


async def test_it_looks_by_itself_and_a_look_that_fails_is_told_and_not_the_last(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    looks = threading.Semaphore(0)
    tick = Watch.tick

    def failing(self: Watch) -> None:
        looks.release()
        tick(self)
        raise RuntimeError("token=hunter2")

    monkeypatch.setattr(Watch, "tick", failing)
    told = Told()
    dedup = make(Rule(mode="off"), alerts=[Alert("off", "bypasses", reason="off", above=0, callback=told)])
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
    for _ in range(3):
        assert await asyncio.to_thread(looks.acquire, timeout=30)
    told.wait(1)

    messages = [record.getMessage() for record in caplog.records if record.name.endswith(".parts")]
    assert messages == ["alerts were not evaluated: RuntimeError"]


async def test_its_thread_ends_when_the_engine_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    before = threads("dedup-alerts")
    dedup = Dedup(alerts=[OFF])
    watch_of(dedup).start()
    (thread,) = threads("dedup-alerts") - before
    gone = weakref.ref(dedup)
    del dedup
    gc.collect()
    thread.join(30)

    assert not thread.is_alive()
    assert gone() is None


async def test_a_hit_knows_nothing_of_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dedup = make(default=Rule(ttl=60), alerts=[Alert("storm", "executions", above=1), OFF])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for _ in range(2):  # a plan is remembered when its target comes again
        await get(app)
    for name in ("start", "tick", "_hear"):
        monkeypatch.setattr(Watch, name, lambda *_: pytest.fail("a hit told the watch"))
    for _ in range(10):
        await get(app)

    assert dedup.stats().requests["hit"] == 11


async def test_closing_forgets_what_was_raised_and_counted(make: Make) -> None:
    dedup = make(Rule(mode="off"), alerts=[OFF])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app)
    assert look(dedup) == ("off",)
    await dedup.aclose()
    assert watch_of(dedup).raised == ()
    assert look(dedup) == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_the_child_watches_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    read, write = os.pipe()
    told = Alert("off", "bypasses", reason="off", above=0, callback=lambda event: os.write(write, b"heard"))
    dedup = Dedup(alerts=[told, Alert("storm", "executions", above=1)])
    tally = dedup.telemetry.tally("bypassed", "off", "default", "GET")
    dedup.telemetry.count("bypassed", "off", "default", "GET")
    watch_of(dedup)._begin()  # the parent's own request is no news to anybody
    watch_of(dedup).start()
    child = os.fork()
    if not child:
        try:
            dedup.in_use()
            tally.number += 1
            threading.Event().wait(5)  # ended by the parent, or by itself
        finally:
            os._exit(0)
    os.close(write)
    try:
        assert os.read(read, 5) == b"heard"
        assert watch_of(dedup).raised == ()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        watch_of(dedup).stop()
        os.close(read)


async def test_settings_of_the_middleware_reach_it(make: Make) -> None:
    app = DedupMiddleware(GatedApp(opened=True), alerts=[OFF])

    assert watch_of(app.dedup).alerts == (OFF,)


async def test_nothing_is_logged_by_a_watch_that_finds_nothing(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dedup_middleware.alerts")
    dedup = make(alerts=[OFF])
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
    look(dedup)

    assert not [record for record in caplog.records if record.name.endswith(".alerts")]
