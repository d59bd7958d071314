"""The recorder: what happens is gathered and written behind; a ledger that fails or hangs costs only records."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.records import RowRefusedError, analytics, open_ledger
from dedup_middleware.records.collecting import Collecting
from dedup_middleware.records.gathering import Gathering
from dedup_middleware.records.recorder import Recorder

from .kit import FakeClock, GatedApp, eventually, get, together
from .records_kit import NOW, BrokenError, FakeLedger, collapsed, completed, fails
from .telemetry_kit import Metrics

pytestmark = pytest.mark.slow

Make = Callable[..., tuple[Dedup, FakeLedger, Recorder]]
KEPT = Rule("/kept/{id}", ttl=60, name="kept", tags=["kept:{id}"])


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Engines with a ledger that keeps everything in a list, and a recorder that is quick to try again."""
    made: list[Dedup] = []

    def make(*rules: Rule, **settings: Any) -> tuple[Dedup, FakeLedger, Recorder]:
        ledger = FakeLedger()
        dedup = Dedup(rules, records=ledger, secret="s", **settings)
        recorder = dedup.recorder
        assert recorder is not None
        recorder._every, recorder._patience = 0.01, 0.05
        made.append(dedup)
        return dedup, ledger, recorder

    yield make
    for dedup in made:
        await dedup.aclose()


async def test_executions_collapses_and_hits_are_recorded_by_fingerprint_and_by_minute(make: Make) -> None:
    dedup, ledger, recorder = make(KEPT)
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = await together(app, bare, 3, "/kept/7")
    for _ in range(4):
        await get(app, "/kept/7")
    await get(app, "/kept/7", method="POST")

    assert await recorder.settle()

    rows = [row for chunk in ledger.chunks for row in chunk.rows.get("executions", [])]
    assert {(row["rule"], row["method"], row["tags"]) for row in rows} <= {
        ("kept", "GET", None),
        ("kept", None, None),
    }
    assert len({row["fingerprint"] for row in rows}) == 1
    for column, number in (
        ("execution_count", 1),
        ("collapsed", 2),
        ("cache_hits", 4),
        ("duplicates", 6),
        ("errors", 0),
    ):
        assert ledger.total("executions", column) == number, column
    body = sum(len(message.get("body", b"")) for message in calls[0].messages)
    assert ledger.total("executions", "bytes_saved") == 6 * body
    minutes: dict[tuple[str, str, str], int] = {}
    for chunk in ledger.chunks:
        for row in chunk.rows.get("reasons", []):
            where = (row["rule"], row["outcome"], row["reason"])
            minutes[where] = minutes.get(where, 0) + row["number"]
    assert (
        minutes
        == {
            ("kept", "forwarded", "miss"): 1,
            ("kept", "collapsed", "in-flight"): 2,
            ("kept", "hit", "fresh"): 4,
            ("kept", "bypassed", "method"): 1,
        }
        or minutes[("kept", "hit", "fresh")] == 4
    )
    assert ledger.total("latencies", "number") == 2 * 7
    assert (recorder.dropped, recorder.failures, recorder.trouble, recorder.waiting) == (0, 0, None, 0)


async def test_functions_are_recorded_too(make: Make) -> None:
    dedup, ledger, recorder = make()

    async def read() -> int:
        return 5

    for _ in range(3):
        assert await dedup.call(("a",), read, ttl=60) == 5
    assert await recorder.settle()

    assert ledger.total("executions", "execution_count") == 1
    assert ledger.total("executions", "cache_hits") == 2


async def test_a_function_s_hits_are_not_left_out_of_how_long_its_calls_take(make: Make) -> None:
    dedup, ledger, recorder = make()

    async def read() -> int:
        return 5

    for _ in range(3):
        await dedup.call(("a",), read, ttl=60)
    assert await recorder.settle()

    assert ledger.total("latencies", "number") == 2 * 3


async def test_a_stale_answer_for_an_error_is_not_timed_as_a_hit(make: Make) -> None:
    """Its request took as long as the run that failed, which is timed itself."""
    clock = FakeClock()
    dedup, ledger, recorder = make(Rule("/kept/{id}", ttl=60, stale_if_error=600), clock=clock)
    replies: list[Any] = [200, 503]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": replies.pop(0), "headers": []})
        await send({"type": "http.response.body", "body": b"kept"})

    middleware = DedupMiddleware(app, dedup=dedup)
    await get(middleware, "/kept/7")
    await get(middleware, "/kept/7")
    clock.advance(61)
    stood_in = await get(middleware, "/kept/7")
    assert await recorder.settle()

    assert (stood_in.header(b"cache-status") or b"").endswith(b"; detail=stale-if-error")
    assert ledger.total("latencies", "number") == 2 * 3  # two runs and one hit


async def test_nothing_of_a_request_is_recorded_but_templates_and_digests(make: Make) -> None:
    dedup, ledger, recorder = make(KEPT)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for _ in range(3):
        await get(
            app,
            "/kept/secret-path?q=secret-query",
            headers=[(b"authorization", b"Bearer secret-token"), (b"cookie", b"s=secret-cookie")],
            client="203.0.113.77",
        )
    assert await recorder.settle()

    written = msgspec.json.encode([chunk.rows for chunk in ledger.chunks]).decode()
    assert '"rule":"kept"' in written
    assert "secret" not in written
    assert "203.0.113" not in written


async def test_tags_are_recorded_where_somebody_asks_for_them(make: Make) -> None:
    dedup, ledger, recorder = make(KEPT, records_detail=["tags"])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/kept/7")
    assert await recorder.settle()

    assert '["kept:7"]' in [
        row["tags"] for chunk in ledger.chunks for row in chunk.rows.get("executions", [])
    ]


async def test_hits_alone_are_recorded_with_how_long_they_take(make: Make) -> None:
    """A sample of them is timed; what comes before the first one waits for it."""
    dedup, _, recorder = make(KEPT)
    tally = dedup.telemetry.tally("hit", "fresh", "kept", "GET")
    tally.number, tally.saved = 10, 5.0
    recorder._gathering = gathering = Gathering()
    recorder.collect()
    assert not gathering._latencies

    recorder._collecting.sampled("kept", 0.001)
    recorder.collect()

    (with_, without) = gathering._latencies.items()
    assert (with_[0][2], with_[1]) == ("with", 10)
    assert (without[0][2], without[1]) == ("without", 10)
    assert without[0][3] > with_[0][3]


# -- a ledger that fails -----------------------------------------------------------------------------------------------


async def test_a_ledger_that_fails_costs_no_request_and_nothing_is_lost_when_it_is_back(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    dedup, ledger, recorder = make()
    ledger.mood = fails
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for number in range(20):
        assert (await get(app, f"/{number}")).status == 200
    assert not await recorder.settle()
    await eventually(lambda: recorder.failures > 3)
    assert recorder.trouble == "the ledger failed to write (BrokenError)"
    assert dedup.ledger_failures == recorder.failures

    ledger.mood = lambda: None
    await eventually(lambda: recorder.trouble is None)

    assert await recorder.settle()
    assert ledger.total("executions", "execution_count") == 20
    assert ledger.total("reasons", "number") == 20
    assert recorder.dropped == 0
    numbers = [chunk.number for chunk in ledger.chunks]
    assert numbers == list(range(1, len(numbers) + 1)), "a chunk that failed was skipped"
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1, "at most one a minute"
    assert "the ledger failed to write (BrokenError): requests go on" in lines[0]
    assert "hunter2" not in caplog.text


async def test_a_ledger_that_hangs_holds_up_nothing_but_its_own_thread(make: Make) -> None:
    dedup, ledger, recorder = make()
    gates: list[asyncio.Event] = []

    def hangs() -> Any:
        gates.append(asyncio.Event())
        return gates[-1].wait()

    ledger.mood = hangs
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/0")
    await eventually(lambda: gates)
    started = time.monotonic()
    for number in range(1, 50):
        assert (await get(app, f"/{number}")).status == 200
    assert time.monotonic() - started < 10
    assert ledger.threads == {"dedup-recorder"}

    run = recorder._run
    assert run is not None
    assert run.loop is not None
    ledger.mood = lambda: None
    run.loop.call_soon_threadsafe(gates[0].set)
    assert await recorder.settle()
    assert ledger.total("executions", "execution_count") == 50


async def test_what_waits_is_bounded_and_what_finds_no_room_is_counted(make: Make) -> None:
    metrics = Metrics()
    dedup, ledger, recorder = make(meter_provider=metrics.provider)
    recorder._gathering = Gathering(max_executions=10, max_rollups=50)
    ledger.mood = fails
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for number in range(100):
        assert (await get(app, f"/{number}")).status == 200
    await recorder.settle()
    await eventually(lambda: recorder.dropped)
    assert len(recorder._gathering) <= 60
    ledger.mood = lambda: None
    assert await recorder.settle()

    written = ledger.total("executions", "execution_count")
    assert written + recorder.dropped == 100
    assert metrics.read()["dedup.ledger.dropped"] == {frozenset(): recorder.dropped}


async def test_rows_that_a_database_refuses_are_counted_and_the_next_ones_are_written(make: Make) -> None:
    dedup, ledger, recorder = make()

    def refuses() -> None:
        raise RowRefusedError("IntegrityError")

    ledger.mood = refuses
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/1")
    assert await recorder.settle()
    assert recorder.dropped > 0

    ledger.mood = lambda: None
    await get(app, "/2")
    assert await recorder.settle()
    assert ledger.total("executions", "execution_count") == 1


async def test_a_slow_listener_s_queue_is_counted(make: Make) -> None:
    _, _, recorder = make()
    recorder._subscription.dropped += 5

    assert recorder.dropped == 5


async def test_a_load_without_end_is_written_in_turns_and_not_as_it_comes(make: Make) -> None:
    """Each write brings the next event: a recorder that waited for quiet would write one by one, and never rest."""
    dedup, ledger, recorder = make()
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/")
    assert await recorder.settle()
    brought = iter(range(10_000))

    def brings() -> None:
        with recorder._lock:
            recorder._gathering.completed(completed(f"k{next(brought)}"))

    ledger.mood = brings
    recorder._every = 60.0
    tries = ledger.tries
    await get(app, "/1")
    assert await recorder.settle()

    assert ledger.tries - tries <= 3


# -- its life ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_written_and_no_thread_runs_before_the_first_request(make: Make) -> None:
    dedup, ledger, recorder = make()
    assert not recorder.is_running

    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/")

    assert recorder.is_running
    assert await recorder.settle()
    assert ledger.chunks


async def test_a_closed_engine_has_written_everything_and_writes_again_when_it_is_used_again(
    make: Make,
) -> None:
    dedup, ledger, recorder = make()
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/1")
    await dedup.aclose()
    assert ledger.total("executions", "execution_count") == 1
    assert ledger.closed
    assert not recorder.is_running

    await get(app, "/2")
    await dedup.aclose()
    assert ledger.total("executions", "execution_count") == 2


async def test_closing_waits_for_a_ledger_that_hangs_no_longer_than_its_bound(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dedup_middleware.records.recorder.CLOSING", 0.2)
    dedup, ledger, _ = make()
    ledger.mood = lambda: asyncio.sleep(2)  # ten times the bound, but no thread for ever
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/")

    started = time.monotonic()
    await dedup.aclose()
    assert time.monotonic() - started < 1.9


async def test_a_server_s_shutdown_writes_what_is_left(make: Make) -> None:
    from starlette.applications import Starlette

    dedup, ledger, _ = make()
    app = DedupMiddleware(Starlette(), dedup=dedup)
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    written: list[float] = []

    async def receive() -> Any:
        message = next(messages)
        if message["type"] == "lifespan.shutdown":
            await get(app, "/")
        return message

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            written.append(ledger.total("executions", "execution_count"))

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    assert written == [1]


SCRIPT = """
import asyncio, sys
from dedup_middleware import Dedup, DedupMiddleware
from tests.kit import GatedApp, get
dedup = Dedup(records=sys.argv[1], secret="s")
app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
async def main():
    for number in range(5):
        await get(app, f"/{number}")
    while not dedup.recorder.is_running:
        await asyncio.sleep(0.01)  # its thread starts by itself
    await dedup.recorder.settle()
    for number in range(5, 8):
        await get(app, f"/{number}")
asyncio.run(main())
"""


async def test_a_process_that_ends_without_a_word_has_written_everything(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dedup.db"
    subprocess.run([sys.executable, "-c", SCRIPT, url], check=True, timeout=60)

    ledger = open_ledger(url)
    rates = await analytics.rates(ledger)
    await ledger.aclose()
    assert rates.total.requests == 8


FORKS = """
import asyncio, os, sys, time
from dedup_middleware import Dedup, DedupMiddleware
from tests.kit import GatedApp, get
dedup = Dedup(records=sys.argv[1], secret="s")
app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
async def use(first, last):
    for number in range(first, last):
        await get(app, f"/{number}")
    assert await dedup.recorder.settle()
asyncio.run(use(0, 4))
asyncio.run(use(4, 5))
children = []
for child in range(2):
    pid = os.fork()
    if not pid:
        asyncio.run(use(0, 3))
        dedup.recorder.close()
        os._exit(0)
    children.append(pid)
asyncio.run(use(0, 2))
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
async def test_after_a_fork_parent_and_children_record_what_is_their_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dedup.db"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url], check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    ledger = open_ledger(url)
    rates = await analytics.rates(ledger)
    operations = await analytics.operations(ledger, order="executions")
    await ledger.aclose()
    assert rates.total.requests == 5 + 3 + 3 + 2
    assert {(one.executions) for one in operations.items} == {4, 3}


async def test_what_was_counted_before_a_fork_is_for_the_parent_to_tell(make: Make) -> None:
    dedup, _, recorder = make(KEPT)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for _ in range(3):
        await get(app, "/kept/1")
    dedup.clear()
    await get(app, "/kept/2")

    collecting, gathering = Collecting(dedup), Gathering()
    collecting.skip()
    collecting.collect(gathering, 0)

    ((row,),) = [chunk.rows["memory"] for chunk in gathering.take("w", 1, NOW)]
    assert (row["responses"], row["invalidated"]) == (1, 0)
    assert len(gathering) == 0
    assert await recorder.settle()


# -- gathering ---------------------------------------------------------------------------------------------------------


def test_bytes_are_saved_whether_a_follower_or_the_forward_is_told_first() -> None:
    gathering = Gathering()
    gathering.collapsed(collapsed(flight=1))
    gathering.completed(completed(flight=1, bytes=100))
    gathering.collapsed(collapsed(flight=1))

    ((row,),) = [chunk.rows["executions"] for chunk in gathering.take("w", 1, NOW)]
    assert (row["bytes_saved"], row["collapsed"], row["duplicates"]) == (200, 2, 2)


def test_a_gathering_is_empty_after_it_was_taken_and_its_chunks_are_numbered() -> None:
    gathering = Gathering()
    gathering.completed(completed())
    assert len(gathering) == 3
    (chunk,) = gathering.take("w", 7, NOW)
    assert (chunk.number, chunk.size, chunk.at, chunk.writer) == (7, 3, NOW, "w")

    assert gathering.take("w", 8, NOW) == []
    assert len(gathering) == 0


def test_rows_are_in_the_order_of_their_keys_so_that_two_writers_never_block_each_other() -> None:
    gathering = Gathering()
    for key in ("z", "b", "a"):
        for rule in ("y", "x"):
            gathering.completed(completed(key, rule=rule))
    (chunk,) = gathering.take("w", 1, NOW)

    places = [(row["rule"], row["fingerprint"]) for row in chunk.rows["executions"]]
    assert places == sorted(places)
    assert list(chunk.rows) == ["executions", "latencies"]


def test_flights_that_are_remembered_are_bounded() -> None:
    gathering = Gathering()
    for number in range(10_000):
        gathering.completed(completed("k", flight=number))

    assert len(gathering._flights) < 5000


def test_memory_over_many_minutes_is_bounded() -> None:
    gathering = Gathering(max_rollups=100)
    for minute in range(100):
        gathering.memory(minute * 60, size=1, responses=1)

    assert len(gathering) == 10
    assert gathering.dropped == 90


async def test_a_store_that_fails_or_is_replaced_is_no_trouble(make: Make) -> None:
    dedup, _, recorder = make(KEPT)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/kept/1")
    dedup.clear()
    recorder.collect()
    dedup.store = dedup.keeper.make()
    recorder.collect()

    class Failing:
        @property
        def evicted(self) -> int:
            raise BrokenError

    dedup.keeper.store = Failing()  # type: ignore[assignment] # a store that only fails
    recorder.collect()
    dedup.store = dedup.keeper.make()
    assert await recorder.settle()
    assert recorder.trouble is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
async def test_a_killed_process_loses_about_a_second_and_nothing_that_was_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dedup.db"
    script = SCRIPT.replace("asyncio.run(main())", "asyncio.run(main()); import os; os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", script, url], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL

    ledger = open_ledger(url)
    requests = (await analytics.rates(ledger)).total.requests
    await ledger.aclose()
    assert 5 <= requests <= 8
