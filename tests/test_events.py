"""Events: what listeners hear, and that nobody else notices them."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule, events
from dedup_middleware.events import (
    Event,
    ExecutionCollapsed,
    ExecutionCompleted,
    ExecutionStarted,
    ResponseInvalidated,
    ResponseStored,
    Subscription,
)

from .kit import FakeClock, GatedApp, all_of, call, eventually, get, settle

Make = Callable[..., Dedup]


class Heard:
    """A listener that keeps what it hears, and can be waited for."""

    def __init__(self, dedup: Dedup, *kinds: type[Event]) -> None:
        self.events: list[Event] = []
        self._more = threading.Condition()
        self.subscription: Subscription = dedup.subscribe(self, *kinds)

    def __call__(self, event: Event) -> None:
        with self._more:
            self.events.append(event)
            self._more.notify_all()

    async def wait(self, number: int) -> list[Event]:
        """The first so many events, once they are there."""

        def wait() -> None:
            with self._more:
                assert self._more.wait_for(lambda: len(self.events) >= number, timeout=30)

        await asyncio.to_thread(wait)
        return self.events


def told(event: Event, *without: str) -> dict[str, Any]:
    """An event as a dict, without its time and what else differs from run to run."""
    fields = msgspec.to_builtins(event)
    assert fields.pop("at") > 1_700_000_000
    return {name: value for name, value in fields.items() if name not in without}


async def test_a_burst_is_told_from_its_start_to_what_was_stored(make_dedup: Make, clock: FakeClock) -> None:
    dedup = make_dedup(Rule("/git/{repo}", ttl=60, name="git", tags=["git:{repo}"]))
    heard = Heard(dedup)
    gated = GatedApp()
    app = DedupMiddleware(gated, dedup=dedup)
    calls = [call(app, "/git/a") for _ in range(3)]
    await settle()
    clock.advance(2)
    gated.gate.set()
    await all_of(calls)
    await dedup.invalidate("git:a")
    started, *rest = await heard.wait(6)

    assert isinstance(started, ExecutionStarted)
    same = {"rule": "git", "key": started.key}
    assert told(started) == {"type": "execution.started", **same, "flight": started.flight, "method": "GET"}
    assert sorted({event.__class__.__name__ for event in rest}) == [
        "ExecutionCollapsed",
        "ExecutionCompleted",
        "ResponseInvalidated",
        "ResponseStored",
    ]
    for event in rest:
        if isinstance(event, ExecutionCompleted):
            assert told(event, "bytes") == {
                "type": "execution.completed",
                **same,
                "flight": started.flight,
                "duration": 2.0,
                "followers": 2,
                "method": "GET",
                "status": 200,
                "error": None,
                "route": None,
                "trace_id": None,
            }
        elif isinstance(event, ExecutionCollapsed):
            assert (event.key, event.flight, event.waited, event.saved) == (
                started.key,
                started.flight,
                2.0,
                2.0,
            )
        elif isinstance(event, ResponseStored):
            assert told(event, "bytes") == {
                "type": "response.stored",
                **same,
                "ttl": 60.0,
                "tags": ("git:a",),
            }
        else:
            assert told(event) == {
                "type": "response.invalidated",
                "by": "code",
                "tags": ("git:a",),
                "dropped": 1,
                "rule": None,
                "key": None,
            }


async def test_a_function_is_told_like_a_request(make_dedup: Make) -> None:
    dedup = make_dedup()
    heard = Heard(dedup)

    async def read() -> int:
        await asyncio.sleep(0)
        return 1

    await asyncio.gather(*(dedup.call("k", read, ttl=60, tags=["t"]) for _ in range(2)))
    kinds = sorted(type(event).__name__ for event in await heard.wait(4))

    assert kinds == ["ExecutionCollapsed", "ExecutionCompleted", "ExecutionStarted", "ResponseStored"]


async def test_a_request_that_writes_tells_what_it_dropped(make_dedup: Make) -> None:
    dedup = make_dedup(
        Rule("/a", ttl=60, tags=["a"]), Rule("/a", methods=["POST"], invalidates=["a"]), default=Rule()
    )
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/a")
    heard = Heard(dedup, ResponseInvalidated)
    await get(app, "/a", method="POST")

    (event,) = await heard.wait(1)
    assert told(event, "rule", "key") == {
        "type": "response.invalidated",
        "by": "request",
        "tags": ("a",),
        "dropped": 1,
    }


@pytest.mark.parametrize(
    ("drop", "by", "rule", "named_key"),
    [
        (lambda dedup, key: dedup.invalidate_rule("git"), "code", "git", False),
        (lambda dedup, key: dedup.invalidate_key(key), "code", None, True),
        (lambda dedup, key: dedup.clear(), "code", None, False),
        (lambda dedup, key: dedup.switch("git", on=False), "code", "git", False),
        (lambda dedup, key: dedup.switch(None, on=False, by="administrator"), "administrator", None, False),
        (lambda dedup, key: setattr(dedup, "enabled", False), "code", None, False),
    ],
)
async def test_whatever_drops_tells_who_asked_and_for_what(
    make_dedup: Make, drop: Callable[[Dedup, str], object], by: str, rule: str | None, named_key: bool
) -> None:
    dedup = make_dedup(Rule("/a", ttl=60, name="git"))
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/a")
    key = dedup.held()[0].key
    heard = Heard(dedup, ResponseInvalidated)
    drop(dedup, key)

    (event,) = await heard.wait(1)
    assert told(event) == {
        "type": "response.invalidated",
        "by": by,
        "tags": (),
        "dropped": 1,
        "rule": rule,
        "key": key if named_key else None,
    }


async def test_a_listener_hears_only_the_kinds_it_named(make_dedup: Make) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    heard = Heard(dedup, ResponseStored)
    for target in ("/a", "/b"):
        await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), target)

    assert [type(event) for event in await heard.wait(2)] == [ResponseStored] * 2


async def test_a_failing_listener_costs_a_log_line_and_nobody_else(
    make_dedup: Make, caplog: pytest.LogCaptureFixture
) -> None:
    dedup = make_dedup(default=Rule(ttl=60))

    def fail(event: Event) -> None:
        raise RuntimeError("the listener")

    dedup.subscribe(fail)
    heard = Heard(dedup)
    with caplog.at_level(logging.WARNING):
        answer = await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))
        await heard.wait(3)
        await eventually(lambda: caplog.records)
        dedup.subscribe(fail).close()

    assert answer.status == 200
    assert [record.getMessage() for record in caplog.records][:1] == [
        "a listener to events failed with RuntimeError"
    ]


async def test_a_slow_listener_loses_events_and_holds_up_nobody(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 2)
    dedup = make_dedup()
    stuck, go = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        stuck.set()
        go.wait(30)

    slow_one = dedup.subscribe(slow, ExecutionStarted)
    quick_one = Heard(dedup, ExecutionCompleted)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app)
    await asyncio.to_thread(stuck.wait, 30)
    for _ in range(5):
        await get(app)
        await quick_one.wait(1)
    try:
        assert slow_one.dropped == 3
    finally:
        go.set()


async def test_nothing_is_made_for_nobody(make_dedup: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    Heard(dedup).subscription.close()
    monkeypatch.setattr(events.Events, "publish", lambda *_: pytest.fail("somebody was told"))

    assert not dedup.events.heard
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup))


@pytest.mark.parametrize("kinds", [(int,), (ExecutionStarted, str)])
def test_a_kind_that_is_no_event_is_refused(kinds: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="kinds of events are classes such as ExecutionCompleted"):
        Dedup().subscribe(print, *kinds)


def test_a_listener_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="is not callable"):
        Dedup().subscribe("print")  # type: ignore[arg-type] # that is the mistake


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_child_s_listeners_hear_the_child() -> None:
    dedup = Dedup()
    read, write = os.pipe()
    dedup.subscribe(lambda event: os.write(write, b"heard"), ResponseInvalidated)
    child = os.fork()
    if not child:
        try:
            dedup.events.publish(ResponseInvalidated(at=2e9, by="code", tags=(), dropped=1))
            threading.Event().wait(5)  # ended by the parent, or by itself
        finally:
            os._exit(0)
    try:
        assert os.read(read, 5) == b"heard"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_a_listener_that_nothing_is_told_has_no_thread() -> None:
    before = set(threading.enumerate())
    Dedup().subscribe(print).close()
    assert set(threading.enumerate()) == before


def test_where_no_thread_is_to_be_had_the_next_event_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
    dedup = Dedup()
    subscription = dedup.subscribe(heard.put)
    events = [ResponseInvalidated(at=at, by="code", tags=(), dropped=1) for at in (1e9, 2e9)]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        dedup.events.publish(events[0])
    dedup.events.publish(events[1])
    assert [heard.get(timeout=30) for _ in events] == events
    subscription.close()


def _cannot_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_closed_subscription_s_thread_ends() -> None:
    before = set(threading.enumerate())
    dedup, heard = Dedup(), threading.Event()
    subscription = dedup.subscribe(lambda _: heard.set())
    dedup.events.publish(ResponseInvalidated(at=2e9, by="code", tags=(), dropped=1))
    assert heard.wait(30)
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "dedup-listener"
    subscription.close()
    thread.join(30)
    assert not thread.is_alive()
