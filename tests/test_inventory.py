"""The inventory and the switch of one rule: what is held is told, what is dropped is gone, nothing is shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule
from dedup_middleware.inventory import Held, UnderWay

from .kit import FakeClock, GatedApp, all_of, call, get, settle

Make = Callable[..., Dedup]
GIT = Rule("/git/{repo}", ttl=60, name="git", tags=["git:{repo}"])
CHAT = Rule("/chat", ttl=30, name="chat")


async def test_what_is_stored_is_told_without_what_it_says(make_dedup: Make, clock: FakeClock) -> None:
    dedup = make_dedup(GIT, CHAT)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app, "/git/a?token=1")
    clock.advance(5)
    await get(app, "/chat")
    for _ in range(3):
        await get(app, "/git/a?token=1")

    async def read() -> str:
        return "secret"

    clock.advance(1)
    await dedup.call("k", read, ttl=10, tags=["t"])
    value, chat, git = dedup.held()

    assert [one.rule for one in (value, chat, git)] == [f"call {read.__qualname__}", "chat", "git"]
    assert (git.tags, git.age, git.ttl, git.hits, git.status) == (("git:a",), 6.0, 54.0, 3, 200)
    assert (value.tags, value.ttl, value.status) == (("t",), 10.0, None)
    assert sum(one.bytes for one in dedup.held()) == dedup.store.size
    assert not any(word in repr(dedup.held()) for word in ("token", "secret", "192.0.2.1"))
    assert [one.rule for one in dedup.held(rule="git")] == ["git"]
    assert [one.rule for one in dedup.held(tag="t")] == [value.rule]
    clock.advance(30)
    assert [one.rule for one in dedup.held()] == ["git"], "what has expired is not told"


async def test_flights_under_way_are_told_with_who_waits_on_what(make_dedup: Make, clock: FakeClock) -> None:
    dedup = make_dedup(GIT)
    work = asyncio.Event()

    async def read() -> None:
        await work.wait()

    async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
        await dedup.call("k", read)
        await GatedApp(opened=True)(scope, receive, send)

    wrapped = DedupMiddleware(app, dedup=dedup)
    calls = [call(wrapped, "/git/a") for _ in range(3)]
    await settle()
    clock.advance(2)
    request, function = dedup.under_way()

    assert request == UnderWay(
        flight=request.flight,
        rule="git",
        key=request.key,
        seconds=2.0,
        waiters=3,
        followers=2,
        bytes=0,
        landed=False,
        current=True,
        trace_id=None,
        awaits=(function.flight,),
    )
    assert (function.rule, function.waiters, function.awaits) == (f"call {read.__qualname__}", 1, ())
    work.set()
    await all_of(calls)
    assert dedup.under_way() == []


async def test_a_stale_response_is_told_as_long_as_it_may_answer(make_dedup: Make, clock: FakeClock) -> None:
    dedup = make_dedup(Rule("/git/{repo}", ttl=60, stale_if_error=30))
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/git/a")
    clock.advance(70)
    (stale,) = dedup.held()
    clock.advance(20)

    assert (stale.age, stale.ttl) == (70.0, -10.0)
    assert dedup.held() == []


async def test_a_rule_that_is_switched_off_runs_each_request_and_keeps_nothing(make_dedup: Make) -> None:
    dedup = make_dedup(GIT, CHAT)
    gated = GatedApp(opened=True)
    app = DedupMiddleware(gated, dedup=dedup)
    for target in ("/git/a", "/chat"):
        await get(app, target)
    dedup.switch("git", on=False)
    off = await get(app, "/git/a")

    assert off.header(b"cache-status") is None
    assert dedup.switched_off == {"git"}
    assert [one.rule for one in dedup.held()] == ["chat"]
    assert (await get(app, "/chat")).header(b"age") is not None, "the others go on"
    dedup.switch("git", on=True)
    answers = [(await get(app, "/git/a")).header(b"age") is not None for _ in range(2)]
    assert (answers, gated.runs) == ([False, True], 4)


async def test_a_flight_under_a_rule_that_is_switched_off_stores_nothing(make_dedup: Make) -> None:
    dedup = make_dedup(GIT)
    gated = GatedApp()
    app = DedupMiddleware(gated, dedup=dedup)
    calls = [call(app, "/git/a") for _ in range(2)]
    await settle()
    dedup.switch("git", on=False)
    gated.gate.set()
    bodies = {(await one.done()).body for one in calls}

    assert (len(bodies), dedup.held()) == (1, [])


@pytest.mark.parametrize("label", ["nothing", "asleep"])
def test_a_rule_that_is_not_there_or_off_by_itself_is_not_switched(label: str) -> None:
    dedup = Dedup([GIT, Rule("/x", mode="off", name="asleep")])
    with pytest.raises(ConfigurationError, match=r"Dedup\.switch"):
        dedup.switch(label, on=True)


async def test_one_fingerprint_or_one_rule_is_dropped_with_its_flights(make_dedup: Make) -> None:
    dedup = make_dedup(GIT, CHAT)
    gated = GatedApp(opened=True)
    app = DedupMiddleware(gated, dedup=dedup)
    for target in ("/git/a", "/git/b", "/chat"):
        await get(app, target)
    key = dedup.held(tag="git:a")[0].key

    assert (dedup.invalidate_key(key), dedup.invalidate_key(key)) == (1, 0)
    assert (dedup.invalidate_rule("git"), dedup.invalidate_rule("nothing")) == (1, 0)
    assert [one.rule for one in dedup.held()] == ["chat"]
    gated.gate.clear()
    late = call(app, "/git/a")
    await settle()
    (flight,) = dedup.under_way()
    dedup.invalidate_key(flight.key)
    gated.gate.set()
    await late.done()
    assert dedup.held(rule="git") == []
    with pytest.raises(ValueError, match="hex"):
        dedup.invalidate_key("no digest")


@pytest.mark.parametrize("by", ["key", "rule"])
async def test_what_is_dropped_by_its_fingerprint_or_rule_takes_no_other_flight_along(
    by: str, make_dedup: Make
) -> None:
    dedup = make_dedup(GIT, CHAT)
    gated = GatedApp()
    app = DedupMiddleware(gated, dedup=dedup)
    calls = [call(app, "/git/a"), call(app, "/chat")]
    await settle()
    dropped = next(one for one in dedup.under_way() if one.rule == "git")

    if by == "key":
        dedup.invalidate_key(dropped.key)
    else:
        dedup.invalidate_rule("git")
    calls.append(call(app, "/chat"))
    gated.gate.set()
    for one in calls:
        await one.done()

    assert [one.rule for one in dedup.held()] == ["chat"]
    assert gated.runs == 2


async def test_hits_are_told_once_to_who_records_them(make_dedup: Make) -> None:
    dedup = make_dedup(GIT)
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    dedup.recording = True
    await get(app, "/git/a")
    counted, size = [], 0
    for hits in (2, 0, 3):
        for _ in range(hits):
            size = len((await get(app, "/git/a")).body)
        counted.append(dedup.hits_lately())
    key = bytes.fromhex(dedup.held()[0].key)

    assert counted == [[("git", key, 2, 2 * size)], [], [("git", key, 3, 3 * size)]]


async def test_a_store_that_cannot_list_shows_nothing(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedup = make_dedup(GIT)
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/git/a")

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(dedup.store, "items", fail)
    held: list[Held] = dedup.held()
    assert held == []
    monkeypatch.setattr(dedup.store, "drop", fail)
    dedup.invalidate_rule("git")
    assert dedup.store.responses == 0, "where dropping fails, an empty store takes its place"
