"""Logging: silent success, one line for trouble, and no secret in any record."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import Call, FakeClock, GatedApp, SteppedApp, VirtualTime, call, chunk, get, head, settle

Make = Callable[..., Dedup]
STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., list[logging.LogRecord]]]:
    """The records of our loggers, from DEBUG up, by the end of a logger's name; each keeps to the house's form."""
    caplog.set_level(logging.DEBUG, "dedup_middleware")

    def ours(part: str = "") -> list[logging.LogRecord]:
        wanted = f"dedup_middleware.{part}" if part else "dedup_middleware"
        return [record for record in caplog.records if record.name.startswith(wanted)]

    yield ours
    for record in ours():
        assert record.name in {f"dedup_middleware.{part}" for part in ("requests", "flights", "parts")}
        more = set(record.__dict__) - STANDARD
        assert more
        assert all(name.startswith("dedup_") for name in more)
        levels = {"requests": logging.DEBUG, "flights": logging.WARNING, "parts": logging.WARNING}
        assert record.levelno == levels[record.name.rpartition(".")[2]]
        assert record.exc_info is None, "a traceback may show anything"


Records = Callable[..., list[logging.LogRecord]]


def extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name.startswith("dedup_")}


async def failing(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0)
    raise ValueError("password=hunter2")


async def ended(calls: list[Call]) -> list[type[BaseException] | None]:
    ends = await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    return [type(end) if isinstance(end, BaseException) else None for end in ends]


# -- silent success ----------------------------------------------------------------------------------------------


async def test_hits_and_collapses_are_told_at_debug_with_structured_fields(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, records: Records
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/{x}", ttl=60, name="things")))
    leader, follower = call(app, "/a"), call(app, "/a")
    await settle()
    clock.advance(1.5)
    bare.gate.set()
    await leader.done()
    await follower.done()
    clock.advance(4)
    await get(app, "/a")
    await get(app, "/a", method="POST")

    collapsed, hit = records()
    assert collapsed.getMessage() == "collapsed under things: in-flight"
    assert extra(collapsed) == {
        "dedup_outcome": "collapsed",
        "dedup_reason": "in-flight",
        "dedup_rule": "things",
        "dedup_waited": 1.5,
        "dedup_saved": 1.5,
    }
    assert hit.getMessage() == "hit under things: fresh"
    assert extra(hit) == {
        "dedup_outcome": "hit",
        "dedup_reason": "fresh",
        "dedup_rule": "things",
        "dedup_saved": 1.5,
        "dedup_age": 4.0,
    }
    assert {record.name for record in records()} == {"dedup_middleware.requests"}


async def test_functions_are_told_in_the_same_way(make_dedup: Make, records: Records) -> None:
    dedup = make_dedup()

    async def read() -> int:
        await asyncio.sleep(0)
        return 1

    await asyncio.gather(*(dedup.call("k", read, ttl=60) for _ in range(2)))
    await dedup.call("k", read, ttl=60)
    assert [extra(record)["dedup_outcome"] for record in records("requests")] == ["collapsed", "hit"]
    assert {extra(record)["dedup_rule"].rpartition(".")[2] for record in records()} == {"read"}


async def test_nothing_is_said_above_debug_while_all_goes_well(
    make_dedup: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bare = GatedApp(lambda _, run: (200, [(b"set-cookie", b"a=1")] if run == 2 else [], b""))
    dedup = make_dedup(Rule("/kept", ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, target) for target in ("/kept", "/kept", "/kept", "/other", "/other", "/other")]
    await settle()
    calls[1].cancel()
    calls[4].disconnect()
    bare.gate.set()
    await ended(calls)
    await get(app, "/kept")
    await get(app, "/kept", method="POST")
    await dedup.invalidate("nothing")
    dedup.enabled = False
    await get(app, "/kept")
    assert not caplog.records


def test_an_application_without_logging_hears_nothing_of_us() -> None:
    """A library's warnings go to stderr by `logging.lastResort` unless its logger has a handler."""
    script = """
import asyncio, logging
from dedup_middleware import DedupMiddleware
assert not logging.getLogger().handlers
assert [type(h) for h in logging.getLogger("dedup_middleware").handlers] == [logging.NullHandler]
assert all(
    logging.getLogger(name).level == logging.NOTSET and logging.getLogger(name).propagate
    for name in list(logging.root.manager.loggerDict) if name.startswith("dedup_middleware")
)
async def app(scope, receive, send):
    await asyncio.sleep(0)
    raise ValueError
async def main():
    app_ = DedupMiddleware(app)
    async def receive():
        await asyncio.Event().wait()
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/",
             "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [(b"host", b"h")],
             "client": ("192.0.2.1", 1), "server": ("192.0.2.2", 80)}
    await asyncio.gather(*(app_(dict(scope), receive, None) for _ in range(3)), return_exceptions=True)
    app_.dedup.telemetry.warn("x", "something of ours")
asyncio.run(main())
"""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


# -- one line for trouble ----------------------------------------------------------------------------------------


async def test_a_failed_flight_is_one_line_whatever_the_number_of_its_followers(
    make_dedup: Make, records: Records
) -> None:
    app = DedupMiddleware(failing, dedup=make_dedup())
    assert await ended([call(app) for _ in range(50)]) == [ValueError, *[ForwardFailed] * 49]
    (record,) = records("flights")
    assert record.getMessage() == "a shared forward failed with ValueError"
    assert extra(record) == {
        "dedup_rule": "default",
        "dedup_error": "ValueError",
        "dedup_followers": 49,
        "dedup_trace": None,
    }


@pytest.mark.parametrize("status", [500, 503])
async def test_a_shared_server_error_is_one_line_too(status: int, make_dedup: Make, records: Records) -> None:
    bare = GatedApp(lambda *_: (status, [], b""))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app) for _ in range(5)]
    await settle()
    bare.gate.set()
    assert await ended(calls) == [None] * 5
    (record,) = records("flights")
    assert record.getMessage() == f"a shared forward failed with {status}"


async def test_a_body_that_is_not_whole_is_one_line(make_dedup: Make, records: Records) -> None:
    bare = SteppedApp(head(), chunk(b"a"))
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app) for _ in range(3)]
    await settle()
    bare.finish()
    assert await ended(calls) == [None, ForwardFailed, ForwardFailed]
    (record,) = records("flights")
    assert extra(record)["dedup_error"] == "IncompleteResponse"


async def test_a_functions_failure_is_one_line(make_dedup: Make, records: Records) -> None:
    dedup = make_dedup()

    async def read() -> int:
        await asyncio.sleep(0)
        raise KeyError("hunter2")

    await asyncio.gather(*(dedup.call("k", read) for _ in range(5)), return_exceptions=True)
    (record,) = records("flights")
    assert record.getMessage() == "a shared call failed with KeyError"
    assert extra(record)["dedup_followers"] == 4


async def test_what_nobody_shared_is_the_servers_to_tell(make_dedup: Make, records: Records) -> None:
    app = DedupMiddleware(failing, dedup=make_dedup())
    assert await ended([call(app)]) == [ValueError]
    assert await ended([call(app, method="POST")]) == [ValueError]
    bare = GatedApp(lambda *_: (500, [], b""), opened=True)
    await get(DedupMiddleware(bare, dedup=make_dedup()))
    assert not records()


async def test_a_flight_that_everybody_left_is_no_trouble(
    virtual_time: VirtualTime, make_dedup: Make, records: Records
) -> None:
    calls = [call(app := DedupMiddleware(GatedApp(), dedup=make_dedup()))]
    calls += [call(app) for _ in range(2)]
    await virtual_time.go(0.1)
    for one in calls:
        one.disconnect()
    await virtual_time.go(10)
    await ended(calls)
    assert not records("flights")


async def test_our_own_failures_are_told_once_a_minute_a_kind(
    make_dedup: Make, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = FakeClock()

    class Time:
        monotonic = staticmethod(now)

    monkeypatch.setattr("dedup_middleware.telemetry.time", Time)
    telemetry = make_dedup().telemetry
    for second in range(120):
        telemetry.warn("a kind", "it failed with %s", second)
        if second >= 30:
            telemetry.warn("another", "so did this")
        now.advance(1)
    told = [(extra(record)["dedup_kind"], record.getMessage()) for record in records("parts")]
    assert told == [
        ("a kind", "it failed with 0"),
        ("another", "so did this"),
        ("a kind", "it failed with 60"),
        ("another", "so did this"),
    ]


# -- no secret ---------------------------------------------------------------------------------------------------


async def test_no_secret_is_in_any_record(
    make_dedup: Make, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    """Of path, query, fields, body, tags, keys, messages of exceptions; whatever the level."""
    rules = [
        Rule("/hunter2/{token}", ttl=60, tags=["user:{token}"], name="mine", methods=["GET", "QUERY"]),
        Rule("/fails/{token}", methods=["GET", "QUERY"]),
    ]
    dedup = make_dedup(*rules, secret="hunter2-key")
    headers = [(b"authorization", b"Bearer hunter2"), (b"cookie", b"sid=hunter2"), (b"x-api-key", b"hunter2")]
    request: dict[str, Any] = {"headers": headers, "method": "QUERY", "body": b'{"password": "hunter2"}'}
    app = DedupMiddleware(GatedApp(lambda *_: (200, headers, b"hunter2"), opened=True), dedup=dedup)
    bad = DedupMiddleware(failing, dedup=dedup)

    async def read() -> str:
        await asyncio.sleep(0)
        raise ValueError("hunter2")

    await ended([call(app, "/hunter2/hunter2?password=hunter2", **request) for _ in range(3)])
    await get(app, "/hunter2/hunter2?password=hunter2", **request)
    await ended([call(bad, "/fails/hunter2?password=hunter2", **request) for _ in range(3)])
    await asyncio.gather(*(dedup.call(("hunter2",), read) for _ in range(2)), return_exceptions=True)
    await dedup.invalidate("user:hunter2")

    assert {record.name.rpartition(".")[2] for record in records()} == {"requests", "flights"}
    assert len(records()) >= 5
    for record in records():
        assert "hunter2" not in f"{record.__dict__} {record.getMessage()}"
    assert "hunter2" not in caplog.text


async def test_a_configuration_error_in_the_log_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette()
    app.add_middleware(DedupMiddleware, secret=271828)  # type: ignore[arg-type] # that is the mistake
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    (record,) = caplog.records
    assert record.name == "dedup_middleware"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == sent[0]["message"]
    assert "Dedup.secret" in record.getMessage()
    assert "271828" not in record.getMessage()
