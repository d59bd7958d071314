"""Metrics: what a backend is told, in a bounded number of series, whoever asks from whatever thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.status import OUTCOMES, REASONS
from dedup_middleware.stores import keeper
from dedup_middleware.telemetry.instruments import instruments

from .kit import FakeClock, GatedApp, VirtualTime, all_of, call, get, settle
from .telemetry_kit import Metrics, Point, story

Make = Callable[..., Dedup]


UNITS = {
    "dedup.requests": "{request}",
    "dedup.saved.duration": "s",
    "dedup.forward.duration": "s",
    "dedup.wait.duration": "s",
    "dedup.flights.active": "{flight}",
    "dedup.flight.followers": "{request}",
    "dedup.store.size": "By",
    "dedup.store.operation.duration": "s",
    "dedup.evictions": "{response}",
    "dedup.ledger.dropped": "{observation}",
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def point(**labels: str) -> Point:
    return frozenset(
        ("http.request.method" if name == "method" else f"dedup.{name}", value)
        for name, value in labels.items()
    )


async def test_every_instrument_tells_what_its_name_says(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, metrics: Metrics
) -> None:
    rule = Rule("/kept", ttl=60, max_responses=1, name="kept")
    dedup = make_dedup(rule, meter_provider=metrics.provider)
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, "/kept") for _ in range(3)]
    await settle()
    assert metrics.read()["dedup.flights.active"] == {frozenset(): 1}
    clock.advance(2)
    bare.gate.set()
    await all_of(calls)
    await get(app, "/kept")
    await get(app, "/kept?other")  # evicts the first
    size = dedup.stats().bytes
    assert size > 0
    await get(app, "/elsewhere", method="POST")
    await dedup.invalidate("nothing")

    assert {metric.name: metric.unit for metric in metrics.all()} == UNITS
    kept = {"rule": "kept", "method": "GET"}
    assert metrics.read() == {
        "dedup.requests": {
            point(outcome="forwarded", reason="miss", **kept): 2,
            point(outcome="collapsed", reason="in-flight", **kept): 2,
            point(outcome="hit", reason="fresh", **kept): 1,
            point(outcome="bypassed", reason="method", rule="default", method="POST"): 1,
        },
        "dedup.saved.duration": {
            point(outcome="collapsed", rule="kept"): 4.0,
            point(outcome="hit", rule="kept"): 2.0,
        },
        "dedup.forward.duration": {point(**kept): (2, 2.0)},
        "dedup.wait.duration": {point(rule="kept"): (2, 4.0)},
        "dedup.flights.active": {frozenset(): 0},
        "dedup.flight.followers": {point(**kept): (1, 2)},
        "dedup.store.size": {frozenset(): size},
        "dedup.store.operation.duration": {point(operation="invalidate"): (1, 0.0)},
        "dedup.evictions": {frozenset(): 1},
        "dedup.ledger.dropped": {frozenset(): 0},
    }


async def test_a_followers_wait_ends_with_its_last_byte_and_is_not_taken_for_the_forwards_time(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, metrics: Metrics
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(meter_provider=metrics.provider))
    leader, follower = call(app), call(app, stalled=True)
    await settle()
    clock.advance(1)
    bare.gate.set()
    await leader.done()
    await settle()
    assert "dedup.wait.duration" not in metrics.read()
    clock.advance(8)
    follower.reading.set()
    await follower.done()
    assert metrics.read()["dedup.wait.duration"] == {point(rule="default"): (1, 9.0)}
    assert metrics.read()["dedup.saved.duration"] == {point(outcome="collapsed", rule="default"): 1.0}
    assert metrics.read()["dedup.forward.duration"] == {point(rule="default", method="GET"): (1, 1.0)}


async def test_durations_fall_into_buckets_of_seconds(
    clock: FakeClock, make_dedup: Make, metrics: Metrics
) -> None:
    """An SDK's own bounds are made for milliseconds: all that takes less than 5 s would be one bucket."""
    seconds = iter([0.003, 0.03, 0.3, 3.0])

    def slow(*_: object) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        clock.advance(next(seconds))
        return 200, [], b""

    app = DedupMiddleware(GatedApp(slow, opened=True), dedup=make_dedup(meter_provider=metrics.provider))
    for _ in range(4):
        await get(app)
    (found,) = [metric for metric in metrics.all() if metric.name == "dedup.forward.duration"]
    (only,) = found.data.data_points
    assert sorted(only.bucket_counts, reverse=True)[:5] == [1, 1, 1, 1, 0]


@pytest.mark.slow
async def test_ten_thousand_urls_methods_and_users_make_no_more_series_than_a_few(
    make_dedup: Make, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        keeper, "SWEEP_SECONDS", 3600.0
    )  # a sweep of the machine's time would be a series more
    dedup = make_dedup(Rule("/kept/{x}", ttl=60, max_responses=10), meter_provider=metrics.provider)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    async def series_after(requests: range) -> int:
        for request in requests:
            method = ("GET", "POST", f"BREW{request}", "GET")[request % 4]
            place = ("kept", "other")[request // 2 % 2]
            headers = [(b"authorization", b"Basic %d" % request)]
            await get(app, f"/{place}/{request}?q={request}", method=method, headers=headers)
        return sum(map(len, metrics.read().values()))

    a_few = await series_after(range(40))
    assert await series_after(range(40, 10_000)) == a_few
    assert sum(metrics.read()["dedup.requests"].values()) == 10_000
    methods = {dict(key).get("http.request.method") for key in metrics.read()["dedup.requests"]}
    assert methods == {"GET", "POST", "_OTHER"}


async def test_functions_make_a_bounded_number_of_series(make_dedup: Make, metrics: Metrics) -> None:
    dedup = make_dedup(meter_provider=metrics.provider)

    async def read() -> int:
        return 1

    for turn in range(1000):
        read.__qualname__ = f"read_{turn}"
        await dedup.call(turn, read)
    assert len(metrics.read()["dedup.requests"]) <= 201
    assert sum(metrics.read()["dedup.requests"].values()) == 1000
    names = {name for points in metrics.read().values() for key in points for name, _ in key}
    assert not any(name.startswith("http.") for name in names)


async def test_metric_attributes_come_from_closed_lists(make_dedup: Make, metrics: Metrics) -> None:
    dedup = make_dedup(Rule("/kept", ttl=60, tags=["secret-tag"]), meter_provider=metrics.provider)
    bare = GatedApp()
    await story(DedupMiddleware(bare, dedup=dedup), dedup, bare)

    functions = [label for label in dedup.stats().rules if label.startswith("call ")]
    allowed: dict[str, set[str]] = {
        "dedup.outcome": set(OUTCOMES),
        "dedup.reason": set(REASONS),
        "dedup.operation": {"invalidate", "sweep"},
        "http.request.method": {"GET", "POST"},
        "dedup.rule": {"/kept", "default", *functions},
    }
    assert len(functions) == 1
    pairs = [pair for points in metrics.read().values() for key in points for pair in key]
    assert {name for name, _ in pairs} == set(allowed)
    for name, value in pairs:
        assert value in allowed[name]


async def test_reading_the_metrics_changes_nothing_and_may_happen_in_any_thread(
    make_dedup: Make, metrics: Metrics
) -> None:
    dedup = make_dedup(Rule("/kept/{x}", ttl=60), meter_provider=metrics.provider)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    stop = threading.Event()
    errors: list[Exception] = []
    reads = 0

    def export() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                metrics.read()
                dedup.stats()
                reads += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the test is about it
                errors.append(error)

    exporter = threading.Thread(target=export)
    exporter.start()
    requests = 0
    try:
        while requests < 300 or (reads < 5 and not errors):
            await get(app, f"/kept/{requests}", method=("GET", "HEAD", "POST")[requests % 3])
            requests += 1
    finally:
        stop.set()
        exporter.join()
    assert not errors
    before = dedup.stats()
    assert metrics.read() == metrics.read()
    assert dedup.stats() == before
    assert sum(before.requests.values()) == requests


async def test_two_engines_on_one_provider_add_up_and_what_a_gone_one_counted_stays(metrics: Metrics) -> None:
    gone: list[weakref.ref[Dedup]] = []

    async def requests(number: int) -> None:
        app = DedupMiddleware(GatedApp(opened=True), meter_provider=metrics.provider)
        for _ in range(number):
            await get(app)
        gone.append(weakref.ref(app.dedup))
        await settle()

    def total() -> int:
        gc.collect()
        assert not any(engine() for engine in gone), "the provider keeps no engine alive"
        return int(sum(metrics.read()["dedup.requests"].values()))

    first = Dedup(meter_provider=metrics.provider)
    await get(DedupMiddleware(GatedApp(opened=True), dedup=first))
    await requests(2)
    assert total() == 3
    for _ in range(3):
        await requests(1)
        total()
    assert total() == 6
    await get(DedupMiddleware(GatedApp(opened=True), dedup=first))
    assert total() == 7
    assert metrics.read()["dedup.flights.active"] == {frozenset(): 0}


async def test_what_many_gone_engines_counted_is_in_few_books(metrics: Metrics) -> None:
    """Who makes engine after engine pays for none of those before."""
    for number in range(1, 161):
        await get(DedupMiddleware(GatedApp(opened=True), meter_provider=metrics.provider))
        await settle(1)
        if number % 40 == 0:
            gc.collect()

    assert len(instruments("", metrics.provider)._books) < 100
    assert sum(metrics.read()["dedup.requests"].values()) == 160
