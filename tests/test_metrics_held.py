"""Held values: histograms are told many at a time, and no export is any the worse for it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from dedup_middleware import Dedup, DedupMiddleware
from dedup_middleware.telemetry import Telemetry, where
from dedup_middleware.telemetry.held import MOST, SLICE, Held

from .kit import FakeClock, GatedApp, VirtualTime, all_of, call, get, settle
from .telemetry_kit import Metrics, Seen, boom, number

Make = Callable[..., Dedup]
FORWARDS = "dedup.forward.duration"
WHERE = frozenset({("dedup.rule", "default"), ("http.request.method", "GET")})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def telemetry(make_dedup: Make, metrics: Metrics) -> Telemetry:
    return make_dedup(meter_provider=metrics.provider).telemetry


@pytest.fixture
def told(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the SDK's histograms have been told."""
    histogram = type(metrics.provider.get_meter("x").create_histogram("x"))
    record, values = histogram.record, list[float]()

    def spied(self: Any, value: float, *arguments: Any) -> None:
        values.append(value)
        record(self, value, *arguments)

    monkeypatch.setattr(histogram, "record", spied)
    return values


def forwards(telemetry: Telemetry, count: int, seconds: float = 0.5) -> None:
    for _ in range(count):
        telemetry.record_forward(seconds, 0, where("default", "GET"))


def exemplars(metrics: Metrics, name: str = FORWARDS) -> list[int | None]:
    """The spans that the values of a histogram come from."""
    (metric,) = [metric for metric in metrics.all() if metric.name == name]
    return [exemplar.span_id for point in metric.data.data_points for exemplar in point.exemplars]


async def test_all_that_requests_were_is_there_when_somebody_collects(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, metrics: Metrics, told: list[float]
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(meter_provider=metrics.provider))
    for turn in range(1, 4):
        bare.gate.clear()
        calls = [call(app) for _ in range(3)]
        await settle()
        clock.advance(2)
        bare.gate.set()
        await all_of(calls)
        assert len(told) == 4 * (turn - 1), "no request pays for it"
        found = metrics.read()
        assert found[FORWARDS] == {WHERE: (turn, 2.0 * turn)}
        assert found["dedup.flight.followers"] == {WHERE: (turn, 2 * turn)}
        assert found["dedup.wait.duration"] == {
            frozenset({("dedup.rule", "default")}): (2 * turn, 4.0 * turn)
        }
        assert len(told) == 4 * turn


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 5 * MOST + 7])
def test_no_more_than_a_bound_is_held_and_a_request_tells_no_more_than_a_slice(
    count: int, metrics: Metrics, telemetry: Telemetry, told: list[float]
) -> None:
    for done in range(1, count + 1):
        before = len(told)
        forwards(telemetry, 1)
        assert done - len(told) <= MOST
        assert len(told) - before in (0, SLICE)
    assert (len(told) > 0) is (count > MOST)
    for _ in range(2):
        assert metrics.read()[FORWARDS] == {WHERE: (count, 0.5 * count)}


async def test_who_was_woken_together_goes_on_before_what_is_too_much_is_told(
    telemetry: Telemetry, told: list[float]
) -> None:
    for _ in range(2):  # in one step of the loop each
        forwards(telemetry, 3 * MOST // 4)
        assert told == []
        await settle()
    assert len(told) == MOST // 2 + SLICE
    forwards(telemetry, 2 * MOST)
    assert len(told) > MOST // 2 + SLICE, "a loop that does not come to it does not make it hold ever more"


async def test_a_loop_that_was_closed_before_it_came_to_it_is_not_waited_for(
    telemetry: Telemetry, told: list[float]
) -> None:
    def full() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(forwards, telemetry, MOST + 1)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    await asyncio.to_thread(full)
    assert told == []
    forwards(telemetry, 5 * MOST)
    assert len(told) >= 4 * MOST


async def test_a_histogram_that_fails_later_costs_a_line_too(
    metrics: Metrics, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(type(metrics.provider.get_meter("x").create_histogram("x")), "record", boom)
    forwards(telemetry, MOST + 1)
    await settle()
    (line,) = caplog.records
    assert line.getMessage() == "telemetry: record failed with BoomError"


def test_nothing_is_held_for_the_apis_stand_ins_as_long_as_nobody_has_come_for_it() -> None:
    values: list[float] = []

    class Told:
        def record(self, value: float, attributes: object) -> None:
            values.append(value)

    held, told = Held(awaited=False, failed=boom), cast("Histogram", Told())
    held.record(told, 1.0, {})
    assert values == [1.0]
    held.collect()
    held.record(told, 2.0, {})
    assert values == [1.0]
    held.collect()
    assert values == [1.0, 2.0]


def test_two_engines_of_one_provider_and_one_that_is_gone_lose_nothing(metrics: Metrics) -> None:
    first, second = (Dedup(meter_provider=metrics.provider) for _ in range(2))
    forwards(first.telemetry, 2)
    forwards(second.telemetry, 3)
    del second
    gc.collect()
    assert metrics.read()[FORWARDS] == {WHERE: (5, 2.5)}


def test_two_providers_that_have_one_meter_lose_nothing_of_their_engines(metrics: Metrics) -> None:
    class Wrapping(MeterProvider):
        def get_meter(self, *asked: Any, **more: Any) -> Any:
            return metrics.provider.get_meter(*asked, **more)

    providers = [Wrapping(shutdown_on_exit=False) for _ in range(2)]
    engines = [Dedup(meter_provider=provider) for provider in providers]
    for engine in engines:
        forwards(engine.telemetry, 2)
        engine.telemetry.count("forwarded", "miss", "default", "GET")

    told = metrics.read()

    assert told[FORWARDS] == {WHERE: (4, 2.0)}
    assert list(told["dedup.requests"].values()) == [2]


def test_what_one_reader_made_tell_another_one_of_the_provider_finds_too(make_dedup: Make) -> None:
    other = InMemoryMetricReader()
    metrics = Metrics(other)
    telemetry = make_dedup(meter_provider=metrics.provider).telemetry
    forwards(telemetry, 3)
    other.get_metrics_data()
    assert metrics.read()[FORWARDS] == {WHERE: (3, 1.5)}


def test_the_last_export_at_shutdown_has_what_was_held(make_dedup: Make) -> None:
    counts: list[int] = []

    class Exporter(MetricExporter):
        def export(
            self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
        ) -> MetricExportResult:
            for resource in metrics_data.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == FORWARDS:
                            (only,) = metric.data.data_points
                            counts.append(only.count)  # type: ignore[union-attr] # a histogram's points have it
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            pass

    reader = PeriodicExportingMetricReader(Exporter(), export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = make_dedup(meter_provider=provider).telemetry
    forwards(telemetry, 3)
    provider.force_flush()
    forwards(telemetry, 4)
    provider.shutdown()
    assert counts == [3, 7]


@pytest.mark.parametrize("count", [20_000])
def test_threads_that_collect_while_others_record_lose_nothing_and_tell_nothing_twice(
    count: int, metrics: Metrics, telemetry: Telemetry
) -> None:
    stop = threading.Event()

    def export() -> None:
        while not stop.is_set():
            metrics.read()

    exporters = [threading.Thread(target=export) for _ in range(2)]
    engines = [threading.Thread(target=forwards, args=(telemetry, count // 4)) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (*exporters, *engines):
            thread.start()
        for thread in engines:
            thread.join()
    finally:
        stop.set()
        for thread in exporters:
            thread.join()
        sys.setswitchinterval(interval)
    assert metrics.read()[FORWARDS] == {WHERE: (count, 0.5 * count)}


async def test_an_exemplar_is_of_the_span_that_the_value_came_from(
    metrics: Metrics, make_dedup: Make, told: list[float]
) -> None:
    seen = Seen()
    dedup = make_dedup(meter_provider=metrics.provider, tracer_provider=seen.provider)
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
    assert len(told) == 1, "where a span is current, it is told at once"
    assert exemplars(metrics) == [number(seen.one("forward "))]


def test_whoever_collects_inside_of_a_span_is_no_exemplar(metrics: Metrics, telemetry: Telemetry) -> None:
    forwards(telemetry, 3)
    with Seen().tracer.start_as_current_span("flush") as span:
        assert exemplars(metrics) == []
        assert trace.get_current_span() is span


def test_a_histogram_that_fails_costs_a_line_and_neither_the_other_metrics_nor_memory(
    metrics: Metrics,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry.count("forwarded", "miss", "default", "GET")
    with monkeypatch.context() as patch:
        patch.setattr(type(metrics.provider.get_meter("x").create_histogram("x")), "record", boom)
        forwards(telemetry, 1)
        assert not caplog.records
        assert sum(metrics.read()["dedup.requests"].values()) == 1
        forwards(telemetry, 3 * MOST)
    (line,) = caplog.records
    assert line.getMessage().endswith("failed with BoomError")
    (told,) = metrics.read()[FORWARDS].values()
    assert told == (MOST, 0.5 * MOST)


LATE = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from dedup_middleware import Dedup
from dedup_middleware.telemetry import where
telemetry = Dedup().telemetry
reader = InMemoryMetricReader()

def record():
    for _ in range(5):
        telemetry.record_forward(0.5, 0, where("default", "GET"))

def count():
    (resource,) = reader.get_metrics_data().resource_metrics
    metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
    return sum(point.count for one in metrics if one.name == "dedup.forward.duration" for point in one.data.data_points)
"""
SET_LATER = f"""
{LATE}
record()  # into nothing: there is no SDK
metrics.set_meter_provider(MeterProvider([reader]))
record()
assert count() == 5, count()
record()
assert count() == 10, count()
"""
SET_AND_GIVEN = f"""
{LATE}
provider = MeterProvider([reader])
metrics.set_meter_provider(provider)
record()
given = Dedup(meter_provider=provider)
given.telemetry.record_forward(0.5, 0, where("default", "GET"))
assert count() == 6, count()
"""
FORKED = f"""
{LATE}
import os, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
metrics.set_meter_provider(MeterProvider([reader]))
count()
record()
child = os.fork()
if child == 0:
    signal.alarm(20)
    before = count()
    record()
    os._exit(before * 10 + count())
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
assert count() == 5, count()
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SET_LATER, id="a-provider-that-is-set-later-hears-all-since"),
        pytest.param(SET_AND_GIVEN, id="a-provider-that-is-set-and-given-is-one"),
        pytest.param(
            FORKED,
            id="a-child-tells-its-own-alone",
            marks=pytest.mark.skipif(
                not hasattr(os, "fork"), reason="no fork here: run it on Linux or macOS"
            ),
        ),
    ],
)
def test_in_a_process_of_its_own(script: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
