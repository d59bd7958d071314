"""The administration's operations: what they tell, what they change, and that it is written down."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule
from dedup_middleware.admin import admin, live
from dedup_middleware.admin.house import path_below
from dedup_middleware.admin.operations import OPERATIONS
from dedup_middleware.admin.recorder import MAX_BARS, Recorder
from dedup_middleware.events import AlertRaised, ExecutionCollapsed, ExecutionCompleted, ResponseInvalidated

from .admin_kit import BEARER, RULES, TOKEN, House, Stream, logged
from .kit import FakeClock, GatedApp, all_of, call, eventually, get, settle, until

pytestmark = pytest.mark.slow


async def store(house: House, *items: str) -> None:
    async with house.client() as client:
        for item in items:
            assert (await client.get(f"http://app.test/items/{item}")).status_code == 200


# -- what is ----------------------------------------------------------------------------------------------------------


async def test_the_figures_are_the_engine_s_own_and_the_process_s() -> None:
    house = House(jaeger="http://localhost:16686")
    await store(house, "a", "a", "b")
    async with house.owner() as owner:
        told = (await owner.get("api/stats")).json()

    assert told["enabled"] is True
    assert told["stats"] == msgspec.to_builtins(house.dedup.stats())
    assert told["stats"]["rules"]["items"]["requests"]["hit"] == 1
    assert told["store"] == {
        "bytes": house.dedup.store.size,
        "max_bytes": 64 * 2**20,
        "responses": 2,
    }
    assert told["jaeger"] == "http://localhost:16686"
    assert told["process"]["cpu_seconds"] > 0
    assert told["process"]["uptime"] > 0
    if Path("/proc/self/statm").exists():
        assert told["process"]["resident_bytes"] > 2**20


async def test_rules_stand_as_they_are_in_force() -> None:
    def who(scope: Any) -> str:
        return "somebody"

    house = House(*RULES, Rule("/mine", name="mine", identity=who))
    await store(house, "a", "a")
    house.dedup.switch("items", on=False)
    async with house.owner() as owner:
        told = (await owner.get("api/rules")).json()

    assert [(one["label"], one["on"]) for one in told] == [
        ("items", False),
        ("never", False),
        ("mine", True),
        ("default", True),
    ]
    items, _, mine, default = told
    assert (items["requests"]["hit"], items["requests"]["forwarded"], items["hit_rate"]) == (1, 1, 0.5)
    assert items["fields"]["tags"] == ["item:{item}"]
    assert items["fields"]["ttl"] == 60.0
    assert mine["fields"]["identity"].endswith("who")
    assert set(default["fields"]) == set(Rule.__struct_fields__)


async def test_stored_responses_are_paged_and_found_by_rule_and_tag() -> None:
    house = House()
    await store(house, *"abcde")
    async with house.owner() as owner:
        every = (await owner.get("api/responses")).json()
        page = (await owner.get("api/responses", params={"offset": 1, "limit": 2})).json()
        tagged = (await owner.get("api/responses", params={"tag": "item:c"})).json()
        none = (await owner.get("api/responses", params={"rule": "never"})).json()

    assert every["total"] == 5
    assert [one["tags"] for one in every["items"]] == [[f"item:{item}"] for item in "edcba"]
    assert page == {"total": 5, "items": page["items"]}
    assert [one["tags"] for one in page["items"]] == [["item:d"], ["item:c"]]
    assert tagged["total"] == 1
    assert none == {"total": 0, "items": []}
    assert "run" not in json.dumps(every)  # metadata only: no body
    assert "/items/a" not in json.dumps(every)


async def test_flights_show_who_waits(make_dedup: Any) -> None:
    house = House(dedup=make_dedup(*RULES))
    gated = GatedApp()
    under = DedupMiddleware(gated, dedup=house.dedup)
    calls = [call(under, "/items/a") for _ in range(3)]
    await settle()
    async with house.owner() as owner:
        (flight,) = (await owner.get("api/flights")).json()
    gated.gate.set()
    await all_of(calls)

    assert (flight["rule"], flight["waiters"], flight["followers"], flight["landed"]) == (
        "items",
        3,
        2,
        False,
    )


async def test_a_request_is_explained_and_nothing_is_executed() -> None:
    house = House()
    asked = {
        "method": "get",
        "target": "/items/a?password=geheim",
        "headers": [["Authorization", "Bearer geheim"], ["accept", "text/plain"]],
    }
    async with house.owner() as owner:
        told = (await owner.post("api/explain", json=asked)).json()
        wrong = await owner.post("api/explain", json={"headers": [["x", "\N{SNOWMAN}"]]})

    assert (told["rule"], told["decision"], told["tags"]) == ("items", "consider", ["item:a"])
    assert "geheim" not in json.dumps(told)
    assert house.runs == 0
    assert wrong.status_code == 400


async def test_health_says_whether_the_store_works_and_live_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House()
    async with house.client() as stranger, house.owner() as owner:
        alive = await stranger.get("api/health/live")
        ready = await owner.get("api/health/ready")

        def burn(*_: object) -> None:
            raise OSError("the store is on fire")

        monkeypatch.setattr(house.dedup.store, "get", burn)
        burning = await owner.get("api/health/ready")
        still_alive = await stranger.get("api/health/live")

    assert (alive.status_code, alive.json()) == (200, {"status": "live"})
    assert still_alive.json() == alive.json()
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "store": "ok", "ledger": "none"})
    assert (burning.status_code, burning.json()["store"]) == (503, "failing")
    assert "fire" not in burning.text


# -- what changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "dropped", "target"),
    [
        ({"tags": ["item:a", "item:b"]}, 2, "tags item:a, item:b"),
        ({"tags": ["nothing"]}, 0, "tags nothing"),
        ({"rule": "items"}, 3, "rule items"),
        ({"rule": "default"}, 0, "rule default"),
        ({"all": True}, 3, "all"),
    ],
)
async def test_what_is_invalidated_is_gone_and_written_down(
    asked: dict[str, Any], dropped: int, target: str
) -> None:
    house = House()
    await store(house, *"abc")
    async with house.owner() as owner:
        answer = await owner.post("api/invalidate", json=asked)

    assert answer.json() == {"dropped": dropped}
    assert house.dedup.stats().responses == 3 - dropped
    assert (await house.audited())[-1] == ("invalidate", target, f"{dropped} dropped", 1)


async def test_one_fingerprint_is_invalidated() -> None:
    house = House()
    await store(house, *"abc")
    async with house.owner() as owner:
        key = (await owner.get("api/responses", params={"tag": "item:b"})).json()["items"][0]["key"]
        answer = await owner.post("api/invalidate", json={"key": key})
        left = (await owner.get("api/responses")).json()["items"]

    assert answer.json() == {"dropped": 1}
    assert [one["tags"] for one in left] == [["item:c"], ["item:a"]]
    assert (await house.audited())[-1] == ("invalidate", f"key {key}", "1 dropped", 1)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tags": ["a"], "all": True},
        {"all": False},
        {"tags": []},
        {"key": "abc"},
        {"key": "g" * 32},
        {"x": 1},
    ],
    ids=str,
)
async def test_an_invalidation_that_says_no_one_thing_changes_nothing(asked: dict[str, Any]) -> None:
    house = House()
    await store(house, "a")
    async with house.owner() as owner:
        answer = await owner.post("api/invalidate", json=asked)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert house.dedup.stats().responses == 1
    assert (await house.audited())[-1] == ("refused", "invalidate", "400 Bad Request", 1)


async def test_a_rule_is_switched_off_and_on() -> None:
    house = House()
    await store(house, "a")
    async with house.owner() as owner:
        off = (await owner.post("api/switch", json={"rule": "items", "on": False})).json()
        await store(house, "a", "a")
        runs = house.runs
        on = (await owner.post("api/switch", json={"rule": "items", "on": True})).json()
        await store(house, "a", "a")

    assert (off, on) == ({"rule": "items", "on": False}, {"rule": "items", "on": True})
    assert (runs, house.runs) == (3, 4)
    assert [entry[:3] for entry in await house.audited()] == [
        ("switch off", "rule items", "done"),
        ("switch on", "rule items", "done"),
    ]


async def test_everything_is_switched_off_and_on() -> None:
    house = House()
    async with house.owner() as owner:
        await owner.post("api/switch", json={"rule": None, "on": False})
        assert house.dedup.enabled is False
        assert (await owner.get("api/stats")).json()["enabled"] is False
        await owner.post("api/switch", json={"on": True})

    assert house.dedup.enabled is True
    assert [entry[:3] for entry in await house.audited()] == [
        ("switch off", "all", "done"),
        ("switch on", "all", "done"),
    ]


@pytest.mark.parametrize(
    ("rule", "status", "phrase"), [("nobody", 404, "Not Found"), ("never", 409, "Conflict")]
)
async def test_a_rule_that_no_switch_changes_is_refused(rule: str, status: int, phrase: str) -> None:
    house = House()
    async with house.owner() as owner:
        answer = await owner.post("api/switch", json={"rule": rule, "on": True})

    assert answer.status_code == status
    assert (await house.audited())[-1] == ("refused", "switch", f"{status} {phrase}", 1)


async def test_what_code_and_requests_invalidate_is_written_down_with_who() -> None:
    house = House(RULES[0], Rule("/items/{item}", methods=["POST"], invalidates=["item:{item}"]))
    await store(house, *"abc")
    await house.dedup.invalidate("item:a")
    async with house.client() as client:
        await client.post("http://app.test/items/b")
    house.dedup.clear()
    house.dedup.invalidate_rule("items")
    house.dedup.invalidate_key("ab" * 16)
    recorder = house.dedup.events._subscriptions[0]._listener
    await eventually(lambda: len(recorder.invalidations) == 5)  # type: ignore[attr-defined] # the administration's own listener
    async with house.owner() as owner:
        told = (await owner.get("api/recent")).json()["invalidations"]
        items = (await owner.get("api/audit")).json()["items"]

    assert [(one["by"], one["tags"], one["rule"], one["key"], one["dropped"]) for one in told] == [
        ("code", [], None, "ab" * 16, 0),
        ("code", [], "items", None, 0),
        ("code", [], None, None, 1),
        ("request", ["item:b"], None, None, 1),
        ("code", ["item:a"], None, None, 1),
    ]
    assert [(one["who"], one["what"], one["target"], one["result"]) for one in items] == [
        ("code", "invalidated", f"key {'ab' * 16}", "0 dropped"),
        ("code", "invalidated", "rule items", "0 dropped"),
        ("code", "invalidated", "all", "1 dropped"),
        ("request", "invalidated", "tags item:b", "1 dropped"),
        ("code", "invalidated", "tags item:a", "1 dropped"),
    ]


async def test_a_write_that_drops_its_own_target_alone_does_not_stand_in_the_audit_log_as_all() -> None:
    house = House()
    await store(house, *"ab")
    async with house.client() as client:
        await client.post("http://app.test/items/b")
    recorder = house.dedup.events._subscriptions[0]._listener
    await eventually(lambda: recorder.invalidations)  # type: ignore[attr-defined] # the administration's own listener
    async with house.owner() as owner:
        items = (await owner.get("api/audit")).json()["items"]

    assert [(one["who"], one["what"], one["target"], one["result"]) for one in items] == [
        ("request", "invalidated", "its own target", "1 dropped")
    ]
    assert house.dedup.stats().responses == 1


async def test_an_administrator_s_invalidation_is_told_once_and_by_its_name() -> None:
    house = House()
    await store(house, *"ab")
    told: list[Any] = []
    house.dedup.subscribe(told.append, ResponseInvalidated)
    async with house.owner() as owner:
        await owner.post("api/invalidate", json={"tags": ["item:a"]})
        await owner.post("api/invalidate", json={"rule": "items"})
        await owner.post("api/invalidate", json={"key": "ab" * 16})
        await owner.post("api/invalidate", json={"all": True})
        await owner.post("api/switch", json={"rule": "items", "on": False})
    await eventually(lambda: len(told) == 4)

    assert [(one.by, one.tags, one.rule, one.key, one.dropped) for one in told] == [
        ("administrator", ("item:a",), None, None, 1),
        ("administrator", (), "items", None, 1),
        ("administrator", (), None, "ab" * 16, 0),
        ("administrator", (), "items", None, 0),
    ]
    assert [entry[0] for entry in await house.audited()] == ["invalidate"] * 4 + ["switch off"]


async def test_a_change_is_one_structured_log_line() -> None:
    house = House()
    with logged() as records:
        async with house.owner() as owner:
            await owner.post("api/switch", json={"rule": "items", "on": False})
            await owner.post("api/switch", json={"rule": "nobody", "on": False})

    assert [(one.levelname, one.getMessage()) for one in records] == [
        ("INFO", "token: switch off rule items: done"),
        ("WARNING", "token: refused switch: 404 Not Found"),
    ]
    assert {name: getattr(records[0], f"dedup_{name}") for name in ("who", "what", "target", "result")} == {
        "who": "token",
        "what": "switch off",
        "target": "rule items",
        "result": "done",
    }


# -- what happened lately ---------------------------------------------------------------------------------------------


async def test_a_collapsed_burst_is_told_with_its_leader_and_its_followers(
    make_dedup: Any, clock: FakeClock
) -> None:
    house = House(dedup=make_dedup(*RULES))
    gated = GatedApp()
    under = DedupMiddleware(gated, dedup=house.dedup)
    calls = [call(under, "/items/a") for _ in range(4)]
    await settle()
    clock.advance(2)
    gated.gate.set()
    await all_of(calls)
    await get(under, "/items/alone")  # no burst
    recorder = house.dedup.events._subscriptions[0]._listener
    await eventually(lambda: recorder.bursts)  # type: ignore[attr-defined] # as above
    async with house.owner() as owner:
        (burst,) = (await owner.get("api/recent")).json()["bursts"]

    assert (burst["rule"], burst["duration"], burst["status"], burst["error"]) == ("items", 2.0, 200, None)
    assert burst["joined"] == 3
    assert [(one["waited"], one["saved"]) for one in burst["followers"]] == [(2.0, 2.0)] * 3
    for one in burst["followers"]:
        assert abs(one["at"] - burst["started"] - 2) < 60


def completed(flight: int, followers: int, at: float = 1e9) -> ExecutionCompleted:
    return ExecutionCompleted(at=at, rule="r", key="k", flight=flight, duration=1.0, followers=followers)


def collapsed(flight: int) -> ExecutionCollapsed:
    return ExecutionCollapsed(at=1e9, rule="r", key="k", flight=flight, waited=1.0, saved=1.0)


def recorder_of(clock: FakeClock) -> Recorder:
    from dedup_middleware.admin.audit import Audit

    return Recorder(Audit(clock), clock)


@pytest.mark.parametrize("late", [False, True])
def test_followers_may_be_heard_of_before_and_after_their_flight(clock: FakeClock, late: bool) -> None:
    recorder = recorder_of(clock)
    events = (
        [collapsed(1), completed(1, 2), collapsed(1)]
        if late
        else [collapsed(1), collapsed(1), completed(1, 2)]
    )
    for event in events:
        assert not recorder.bursts
        recorder(event)

    assert [len(one.followers) for one in recorder.bursts] == [2]
    assert [one.kind for one in recorder.since(0)] == ["burst"]


def test_a_follower_that_left_holds_up_no_burst(clock: FakeClock) -> None:
    recorder = recorder_of(clock)
    recorder(collapsed(1))
    recorder(completed(1, 2))
    assert recorder.recent()[0] == []
    clock.advance(1.5)
    assert [len(one.followers) for one in recorder.recent()[0]] == [1]


def test_everything_that_is_remembered_is_bounded(clock: FakeClock) -> None:
    recorder = recorder_of(clock)
    for _ in range(MAX_BARS + 100):
        recorder(collapsed(0))
    recorder(completed(0, MAX_BARS + 100))
    assert (len(recorder.bursts[0].followers), recorder.bursts[0].joined) == (MAX_BARS, MAX_BARS + 100)
    for flight in range(1, 3000):
        recorder(collapsed(flight))
        recorder(completed(flight, 1))
        recorder(collapsed(100_000 + flight))  # never completed, as its event was lost
        recorder(AlertRaised(at=1.0, alert="a", message="m", value=1.0, threshold=1.0))
        recorder(ResponseInvalidated(at=1.0, by="code", tags=(str(flight),), dropped=1))

    assert len(recorder.bursts) == len(recorder.alerts) == len(recorder.invalidations) == 100
    assert len(recorder._open) <= 1000
    assert len(recorder.since(0)) == 500
    assert len(recorder._audit.entries()) == 1000


# -- the live stream --------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_TICK", 0.01)
    monkeypatch.setattr(live, "_LOOK", 0.001)


async def test_the_stream_ticks_with_figures_and_rates_and_tells_what_happens(quick: None) -> None:
    house = House()
    stream = Stream(house.app, BEARER)
    await eventually(lambda: len(stream.events) >= 2)
    await store(house, "a", "a")
    await house.dedup.invalidate("item:a")
    house.dedup.events.publish(
        AlertRaised(at=1.0, alert="busy", message="m", value=2.0, threshold=1.0, rule="items")
    )
    await eventually(lambda: {"invalidated", "alert"} <= {kind for kind, _ in stream.events})
    await eventually(
        lambda: stream.events[-1][0] == "tick" and stream.events[-1][1]["stats"]["requests"]["hit"] == 1
    )
    await stream.leave()
    await settle()

    assert stream.status == 200
    assert stream.text.startswith("retry: 1000\n\nevent: tick\n")
    ticks = [data for kind, data in stream.events if kind == "tick"]
    assert set(ticks[0]) == {"enabled", "stats", "store", "process", "jaeger", "rates"}
    assert set(ticks[0]["rates"]["requests"]) == set(ticks[0]["stats"]["requests"])
    assert max(tick["rates"]["requests"]["hit"] for tick in ticks) > 0
    assert [data["tags"] for kind, data in stream.events if kind == "invalidated"] == [["item:a"]]
    assert [data["alert"] for kind, data in stream.events if kind == "alert"] == ["busy"]


async def test_who_comes_again_is_told_what_it_missed(quick: None) -> None:
    house = House()
    recorder = house.dedup.events._subscriptions[0]._listener
    for tag in "abc":
        house.dedup.events.publish(ResponseInvalidated(at=1.0, by="code", tags=(tag,), dropped=1))
    await eventually(lambda: recorder.number == 3)  # type: ignore[attr-defined] # as above
    streams = [Stream(house.app, BEARER | {"last-event-id": last}) for last in ("1", "3", "99", "x", "-1")]
    await eventually(lambda: all(len(one.events) > 5 for one in streams))
    for one in streams:
        await one.leave()

    told = [[data["tags"] for kind, data in one.events if kind == "invalidated"] for one in streams]
    assert told == [[["b"], ["c"]], [], [], [], []]


async def test_a_stream_ends_with_the_session_that_opened_it(quick: None) -> None:
    house = House()
    browser = await house.browser()
    stream = Stream(house.app, {"cookie": f"dedup_admin={browser.cookies['dedup_admin']}"})
    await eventually(lambda: len(stream.events) >= 2)
    assert (await browser.delete("api/session")).status_code == 200
    await asyncio.wait_for(stream.task, 30)
    await browser.aclose()

    assert stream.status == 200


async def test_so_many_streams_and_no_more(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    house = House()
    streams = [Stream(house.app, BEARER) for _ in range(2)]
    await eventually(lambda: all(one.text for one in streams))
    async with house.owner() as owner:
        refused = await owner.get("api/events")
        assert (await owner.head("api/events")).status_code == 200  # which opens none
        for one in streams:
            await one.leave()
    again = Stream(house.app, BEARER)
    await eventually(lambda: again.text)
    await again.leave()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert again.status == 200


async def test_streams_that_are_opened_at_once_are_bounded_too(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    house = House()
    streams = [Stream(house.app, BEARER) for _ in range(5)]
    await until(lambda: all(one.status for one in streams))
    for one in streams:
        await one.leave()

    assert [one.status for one in streams] == [200, 200, 503, 503, 503]
    assert house.inside.streams.open == 0


async def test_a_stream_ends_when_the_server_does(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        should_exit = False

        def handle_exit(self, *_: object) -> None: ...

    server = Server()
    monkeypatch.setattr("signal.getsignal", lambda _: server.handle_exit)
    house = House()
    stream = Stream(house.app, BEARER)
    await eventually(lambda: len(stream.events) >= 2)
    server.should_exit = True
    await asyncio.wait_for(stream.task, 30)


# -- how it is made ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"allow": "short"}, "admin.allow"),
        ({"allow": "a token with spaces in it"}, "admin.allow"),
        ({"allow": "\N{SNOWMAN}" * 20}, "admin.allow"),
        ({"allow": None}, "admin.allow"),
        ({"allow": b"bytes-bytes-bytes-bytes"}, "admin.allow"),
        ({"allow": TOKEN, "jaeger": "javascript:alert(1)"}, "admin.jaeger"),
        ({"allow": TOKEN, "requests_per_minute": 0}, "admin.requests_per_minute"),
        ({"allow": TOKEN, "failures_per_minute": True}, "admin.failures_per_minute"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        admin(Dedup(), **settings)
    assert caught.value.place == place
    if place == "admin.allow" and isinstance(settings["allow"], str):
        assert settings["allow"] not in str(caught.value)


def test_allow_has_no_default() -> None:
    with pytest.raises(TypeError, match="allow"):
        admin(Dedup())  # type: ignore[call-arg] # that is the mistake


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"admin\.dedup"):
        admin(object(), allow=TOKEN)  # type: ignore[arg-type] # that is the mistake


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['limits'] = None\n"
        "from dedup_middleware import ConfigurationError, Dedup\n"
        "from dedup_middleware.admin import admin\n"
        "try: admin(Dedup(), allow='x' * 20)\n"
        "except ConfigurationError as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == (
        "admin: limits is not installed; needed: python -m pip install 'dedup-middleware[admin]'\n"
    )


FREED = """
import gc, threading, time, weakref
from starlette.applications import Starlette
from starlette.routing import Mount
from dedup_middleware import Dedup
from dedup_middleware.admin import admin
from dedup_middleware.events import ResponseInvalidated
heard = threading.Event()
dedup = Dedup()
app = Starlette(routes=[Mount("/admin", admin(dedup, allow="a-token-that-nobody-guesses"))])
dedup.templates.learn(app)
dedup.subscribe(lambda event: heard.set())
dedup.events.publish(ResponseInvalidated(at=2e9, by="code", tags=(), dropped=1))
assert heard.wait(30)
gone = weakref.ref(dedup)
del app, dedup
ends = time.monotonic() + 30
while time.monotonic() < ends and (gc.collect() < 0 or gone() is not None or threading.active_count() > 1):
    time.sleep(0.01)  # a thread may be about to wait again
print(gone() is None, threading.active_count())
"""


def test_an_app_with_its_administration_is_freed_when_it_is_gone_and_its_listeners_threads_end() -> None:
    told = subprocess.run(
        [sys.executable, "-c", FREED], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.split() == ["True", "1"]


def test_an_administration_that_is_gone_hears_no_more() -> None:
    import gc

    dedup = Dedup()
    app = admin(dedup, allow=TOKEN)
    assert dedup.events.heard
    del app
    gc.collect()
    assert not dedup.events.heard


@given(
    path=st.text("/abx", max_size=8).map("/".__add__),
    root=st.sampled_from(["", "/a", "/a/b", "/a/a", "/ab", "/x"]),
)
def test_the_gate_and_the_router_read_the_same_path(path: str, root: str) -> None:
    scope = {"type": "http", "path": path, "root_path": root}
    assert (path_below(scope) or "/") == (get_route_path(scope) or "/")


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [one.name for one in OPERATIONS]
    assert len(set(names)) == len(names)
    assert len({(one.method, one.path) for one in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_resident_memory_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    from dedup_middleware.admin import process

    monkeypatch.setattr(process, "_STATM", Path("/nonexistent"))
    assert (process.process().resident_bytes or 0) > 2**20
