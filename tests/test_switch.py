"""The kill switch: off means the bare app's bytes and headers, at once; on again means an empty store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule

from .kit import GatedApp, SteppedApp, call, chunk, get, head, make_scope, settle, until

MakeDedup = Callable[..., Dedup]
STORING = Rule(ttl=60, negative_ttl=60, identity="shared", vary=[])


async def off_by_environment(make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch, value: str) -> Dedup:
    monkeypatch.setenv("DEDUP_ENABLED", value)
    return make_dedup(default=STORING)


@pytest.fixture(params=["0", "false", "OFF", "garbage", "keyword", "attribute", "after a hit"])
async def off(
    request: pytest.FixtureRequest, make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> Dedup:
    """An engine that is switched off, in each of the ways."""
    way: str = request.param
    if way == "keyword":
        return make_dedup(default=STORING, enabled=False)
    if way in ("attribute", "after a hit"):
        dedup = make_dedup(default=STORING)
        if way == "after a hit":
            app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
            for _ in range(2):
                await get(app, "/x")
            assert dedup.store.responses == 1
        dedup.enabled = False
        return dedup
    return await off_by_environment(make_dedup, monkeypatch, way)


REQUESTS: dict[str, dict[str, Any]] = {
    "GET": {},
    "HEAD": {"method": "HEAD"},
    "POST": {"method": "POST", "body": b'{"a": 1}'},
    "DELETE": {"method": "DELETE"},
    "QUERY": {"method": "QUERY", "body": b"x" * 200_000},
    "validators": {"headers": [(b"if-none-match", b'"v1"')]},
    "a strange target": {"target": "/a/../x?\x01"},
    "credentials": {"headers": [(b"authorization", b"x"), (b"cookie", b"a=1")]},
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_switched_off_every_request_gets_the_bare_apps_messages_and_the_app_the_servers_own(
    kind: str, off: Dedup
) -> None:
    request = REQUESTS[kind]
    target = request.get("target", "/x")
    method = request.get("method", "GET")
    headers, body = request.get("headers", ()), request.get("body", b"")
    script = [
        head(200, [(b"ETag", b'"v1"'), (b"X-Twice", b"1"), (b"x-twice", b"2"), (b"Connection", b"x")]),
        chunk(b"a"),
        chunk(b""),
        chunk(b"b", more=False),
    ]
    seen: list[Any] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))
        message = await receive()
        seen.append(message)
        for step in script:
            await send(step)

    app = DedupMiddleware(bare, dedup=off)
    for _ in range(2):
        seen.clear()
        one = await get(app, target, method, headers, body)
        assert one.messages == script
        assert seen[0][0] is one.scope
        assert seen[1] == {"type": "http.request", "body": body, "more_body": False}
        if method in ("GET", "HEAD", "QUERY"):
            assert seen[0][1] == one._receive
            assert seen[0][2] == one._send

    assert off.store.responses == 0


async def test_switched_off_identical_requests_all_execute(off: Dedup) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=off)
    calls = [call(app, "/x") for _ in range(10)]
    await until(lambda: bare.runs == 10)
    bare.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert sorted(one.body for one in calls) == sorted(b"run %d" % run for run in range(1, 11))
    assert all(one.header(b"cache-status") is None for one in calls)


async def test_switched_off_the_apps_error_is_the_callers_own(off: Dedup) -> None:
    error = OSError("no")
    bare = SteppedApp(error)
    bare.finish()

    with pytest.raises(OSError, match="no") as caught:
        await get(DedupMiddleware(bare, dedup=off), "/x")

    assert caught.value is error


async def test_switching_off_is_at_once_and_flights_under_way_finish_for_their_waiters(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(default=STORING)
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    waiting = [call(app, "/x") for _ in range(5)]
    await until(lambda: bare.runs == 1)
    await settle()

    dedup.enabled = False
    late = [call(app, "/x") for _ in range(2)]
    await until(lambda: bare.runs == 3)
    waiting[0].cancel()
    await settle()
    bare.gate.set()
    await asyncio.gather(*(one.task for one in (*waiting[1:], *late)))

    assert {one.body for one in waiting[1:]} == {b"run 1"}
    assert sorted(one.body for one in late) == [b"run 2", b"run 3"]
    assert all(one.complete for one in waiting[1:])
    assert dedup.store.responses == 0
    with pytest.raises(asyncio.CancelledError):
        await waiting[0].task


@pytest.mark.parametrize("begun", ["before", "while off"])
async def test_switched_on_again_it_starts_with_an_empty_store(begun: str, make_dedup: MakeDedup) -> None:
    dedup = make_dedup(default=STORING)
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)
    await get(app, "/stored")
    bare.gate.clear()
    flying = call(app, "/x")
    await until(lambda: bare.runs == 2)
    dedup.enabled = False
    assert dedup.store.responses == 0
    if begun == "while off":
        # A request that was read before the switch and flies after it must not fill the next store.
        passed = call(app, "/x")
        await until(lambda: bare.runs == 3)
        bare.gate.set()
        await passed.done()
        await flying.done()
    dedup.enabled = True
    bare.gate.set()
    await flying.done()

    assert dedup.store.responses == 0
    first, second = await get(app, "/x"), await get(app, "/x")
    assert first.body == second.body == b"run %d" % bare.runs
    assert (await get(app, "/stored")).body == b"run %d" % bare.runs


@pytest.mark.parametrize(
    ("rule", "status", "body"),
    [
        (STORING, 200, b"new"),
        (STORING, 500, b"new"),
        (structs.replace(STORING, invalidate_on_error=False), 500, b"old"),
    ],
)
async def test_a_write_under_way_when_it_is_switched_on_leaves_no_stale_answer(
    rule: Rule, status: int, body: bytes, make_dedup: MakeDedup
) -> None:
    # A bypass never skips its invalidation: the write began while off and commits after the switch.
    dedup = make_dedup(default=rule, enabled=False)
    text = [b"old"]
    writer = SteppedApp(None, lambda: text.append(b"new"), head(status), chunk(more=False))

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await writer(scope, receive, send)
        else:
            await send(head())
            await send(chunk(text[-1], more=False))

    app = DedupMiddleware(bare, dedup=dedup)
    writing = call(app, "/x", "POST")
    await until(lambda: writer.runs == 1)
    dedup.enabled = True
    assert (await get(app, "/x")).body == b"old"
    writer.finish()
    await writing.done()

    assert (await get(app, "/x")).body == body


async def test_a_request_whose_body_was_being_read_at_the_switch_is_answered_and_leaves_nothing_stored(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(default=STORING)
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)
    ready, sent = asyncio.Event(), []

    async def receive() -> Any:
        await ready.wait()
        return {"type": "http.request", "body": b"q", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.ensure_future(app(make_scope("/x", "QUERY"), receive, send))
    await settle()
    dedup.enabled = False
    ready.set()
    await task

    assert sent[-1] == chunk(b"run 1", more=False)
    dedup.enabled = True
    assert dedup.store.responses == 0


@pytest.mark.parametrize("value", ["no", "off", 0, 1, None, "false"])
def test_the_switch_is_a_bool_and_nothing_that_only_looks_like_one(value: Any) -> None:
    # "off" is true to Python: taken as it is, the switch would do the opposite of what was meant.
    dedup = Dedup()

    with pytest.raises(ConfigurationError, match="true or false"):
        dedup.enabled = value
    assert dedup.enabled


def test_setting_the_switch_to_what_it_is_changes_nothing(make_dedup: MakeDedup) -> None:
    async def run() -> None:
        dedup = make_dedup(default=STORING)
        await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/x")
        dedup.enabled = True
        assert dedup.store.responses == 1

    asyncio.run(run())


async def test_an_environment_that_switched_off_at_start_can_be_overruled_at_run_time(
    make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedup = await off_by_environment(make_dedup, monkeypatch, "0")
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    assert [(await get(app, "/x")).body for _ in range(2)] == [b"run 1", b"run 2"]

    dedup.enabled = True

    assert [(await get(app, "/x")).body for _ in range(2)] == [b"run 3", b"run 3"]


async def test_the_switch_does_not_touch_lifespan_and_websockets(off: Dedup) -> None:
    seen: list[str] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {"type": "lifespan.startup"}

    app = DedupMiddleware(bare, dedup=off)
    for kind in ("lifespan", "websocket", "something-new"):
        await app({"type": kind}, nothing, nothing)

    assert seen == ["lifespan", "websocket", "something-new"]


def test_an_unknown_value_of_the_switch_is_not_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEDUP_ENABLED", "nope")

    assert not Dedup().enabled
    assert "DEDUP_ENABLED='nope'" in caplog.text
