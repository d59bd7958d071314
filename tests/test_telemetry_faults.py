"""Telemetry that fails: it costs a log line a minute, and no request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import FakeClock, GatedApp, VirtualTime, call, get
from .telemetry_kit import BoomError, FaultyTracers, Metrics, Regrouping, Seen, boom, failing, story

Make = Callable[..., Dedup]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def seen() -> Seen:
    return Seen()


HOOKS = [
    *("span.get_span_context", "span.add_event", "span.set_attributes", "span.set_status", "span.add_link"),
    *("span.update_name", "span.is_recording", "span.end"),
    *("tracers.get_tracer", "tracer.start_span", "sampler.should_sample", "processor.on_start"),
    *("processor.on_end", "meters.get_meter", "meter.create_histogram", "meter.create_observable_counter"),
    *("histogram.record", "handler.handle", "filter"),
]


def break_hook(name: str, seen: Seen, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make one of the hooks raise; the engine's settings."""
    part, _, hook = name.partition(".")
    meter = metrics.provider.get_meter("x")
    handler = logging.Handler()
    owners: dict[str, Any] = {
        "tracers": seen.provider,
        "tracer": type(seen.tracer),
        "sampler": seen.provider.sampler,
        "processor": seen.provider._active_span_processor,
        "meters": metrics.provider,
        "meter": type(meter),
        "histogram": type(meter.create_histogram("x")),
        "handler": handler,
    }
    if part in owners:
        monkeypatch.setattr(owners[part], hook, boom)
    if part == "handler":
        monkeypatch.setattr(logging.getLogger("dedup_middleware"), "handlers", [handler])
    if part == "filter":
        for child in ("requests", "flights", "parts"):
            monkeypatch.setattr(logging.getLogger(f"dedup_middleware.{child}"), "filters", [boom])
    tracers = FaultyTracers(seen.provider, hook) if part == "span" else seen.provider
    return {"tracer_provider": tracers, "meter_provider": metrics.provider}


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_never_hangs_a_waiter_nor_fails_a_request(
    hook: str,
    virtual_time: VirtualTime,
    make_dedup: Make,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "dedup_middleware")
    BoomError.raised = 0
    rules = [Rule("/kept", ttl=60), Rule("/vary", vary=[], identity="shared")]
    dedup = make_dedup(*rules, **break_hook(hook, Seen(), metrics, monkeypatch))
    bare = GatedApp()
    calls = await story(DedupMiddleware(bare, dedup=dedup), dedup, bare)
    assert [one.body for one in calls] == [b"run 1", b"run 1", b"run 1", b"run 2"]
    assert all(one.complete for one in calls)

    assert await Regrouping().answers(dedup) == [b"1", b"1"]

    app = DedupMiddleware(failing, dedup=dedup)
    leader, follower = call(app), call(app)
    with pytest.raises(ValueError, match="hunter2"):
        await leader.done()
    with pytest.raises(ForwardFailed):
        await follower.done()
    with pytest.raises(ValueError, match="hunter2"):
        await get(app, method="POST")

    assert sum(dedup.stats().requests.values()) == 12
    assert BoomError.raised, "the story has to come by this hook"
    ours = [record for record in caplog.records if record.name == "dedup_middleware.parts"]
    assert len(ours) == (hook not in ("filter", "handler.handle")), "once a minute a kind"
    for record in ours:
        assert record.levelno == logging.WARNING
        assert record.__dict__["dedup_kind"] == "telemetry"
        assert record.getMessage().endswith("failed with BoomError")
    assert not any("hunter2" in record.getMessage() for record in caplog.records)


async def test_telemetry_that_fails_is_told_again_after_a_minute(
    make_dedup: Make, seen: Seen, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = FakeClock()

    class Time:
        monotonic = staticmethod(now)

    monkeypatch.setattr("dedup_middleware.telemetry.time", Time)
    dedup = make_dedup(tracer_provider=FaultyTracers(seen.provider, "end"))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    def lines() -> int:
        return sum(record.name == "dedup_middleware.parts" for record in caplog.records)

    for _ in range(5):
        await get(app)
    assert lines() == 1
    now.advance(59.9)
    await get(app)
    assert lines() == 1
    now.advance(0.2)
    for _ in range(5):
        await get(app)
    assert lines() == 2
