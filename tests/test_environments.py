"""A `Dedup` made at import works wherever the app runs: test clients, several loops and threads, after a fork."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .kit import Call, GatedApp, call, chunk, get, head, make_scope, settle, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # which client library it would rather have
    from starlette.testclient import TestClient

RULES = (Rule("/stored", ttl=600, identity="shared"), Rule("/write", invalidates=["all"]))


class Site:
    """An app made as at import, outside any event loop."""

    def __init__(self) -> None:
        self.runs = 0
        self.stops = 0
        self.dedup = Dedup(RULES)
        self.app = Starlette(
            routes=[Route("/stored", self.answer), Route("/x", self.answer)], lifespan=self.lifespan
        )
        self.app.add_middleware(DedupMiddleware, dedup=self.dedup)

    async def answer(self, request: Request) -> PlainTextResponse:
        self.runs += 1
        return PlainTextResponse(f"run {self.runs}")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"pool": object()}
        self.stops += 1


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    table = one.dedup.flights
    assert not table.under_way
    assert table.is_empty


# -- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_one_app_serves_test_client_after_test_client(with_lifespan: bool, site: Site) -> None:
    found = []
    for _ in range(3):
        client = TestClient(site.app)
        with client if with_lifespan else contextlib.nullcontext():
            found += [client.get("/stored").text for _ in range(2)]
            found.append(client.get("/x").text)

    assert found == ["run 1", "run 1", "run 2", "run 1", "run 1", "run 3", "run 1", "run 1", "run 4"]
    assert site.stops == (3 if with_lifespan else 0)


def test_the_lifespans_state_does_not_keep_requests_from_sharing(site: Site) -> None:
    with TestClient(site.app) as client:
        answers = [client.get("/stored") for _ in range(2)]

    assert [answer.headers["cache-status"].split(";")[1] for answer in answers] == [" fwd=uri-miss", " hit"]


async def test_one_app_serves_httpx_in_its_own_loop(site: Site) -> None:
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://example.test") as client:
        together = await asyncio.gather(*(client.get("/x") for _ in range(5)))
        stored = [await client.get("/stored") for _ in range(2)]

    assert {answer.text for answer in together} == {"run 1"}
    assert [answer.text for answer in stored] == ["run 2", "run 2"]
    assert stored[1].headers["cache-status"].startswith("dedup; hit")
    await site.dedup.aclose()


def test_one_app_serves_loop_after_loop(site: Site) -> None:
    async def both() -> list[bytes]:
        together = await asyncio.gather(get(site.app, "/x"), get(site.app, "/x"), get(site.app, "/stored"))
        return [one.body for one in together]

    found = [asyncio.run(both()) for _ in range(3)]

    assert found == [
        [b"run 1", b"run 1", b"run 2"],
        [b"run 3", b"run 3", b"run 2"],
        [b"run 4", b"run 4", b"run 2"],
    ]


def test_what_a_dead_loop_left_behind_holds_up_nobody() -> None:
    bare = GatedApp()
    dedup = Dedup(RULES)
    dedup.flights.max_flights = 3
    app = DedupMiddleware(bare, dedup=dedup)

    async def left() -> None:
        for number in range(3):
            call(app, f"/stored?{number}")
        await until(lambda: bare.runs == 3)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left())
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio's own switch, which the stubs leave out
    loop.close()

    async def later() -> Call:
        bare.gate = asyncio.Event()
        bare.gate.set()
        return await get(app, "/stored?0")

    answer = asyncio.run(later())
    assert (answer.body, bare.runs) == (b"run 4", 4)
    assert answer.header(b"cache-status") == b"dedup; fwd=uri-miss; stored; ttl=600"
    assert not dedup.flights.under_way
    for task in tasks:
        coroutine: Any = task.get_coro()
        with contextlib.suppress(RuntimeError):
            coroutine.close()


def test_no_flight_of_a_loop_that_is_over_is_under_way_for_ever() -> None:
    dedup = Dedup()
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    async def cut_short() -> None:
        call(app)  # and then all tasks are cancelled, that of the flight before it has begun

    async def later() -> None:
        await get(app, "/later")

    asyncio.run(cut_short())
    asyncio.run(later())
    assert (dedup.stats().flights, dedup.flights.is_empty) == (0, True)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "stopped"])
def test_a_loop_that_is_gone_leaves_sweeping_to_the_next_one(
    closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dedup_middleware.stores.keeper.SWEEP_SECONDS", 0.0)
    now = [1000.0]
    dedup = Dedup(RULES, clock=lambda: now[0])
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    async def first() -> None:
        await get(app, "/stored?1")

    async def second() -> None:
        now[0] += 700
        await get(app, "/stored?2")
        await until(lambda: dedup.store.responses == 1)

    with asyncio.Runner() as runner:
        runner.run(first())
        if closed:
            runner.close()
        asyncio.run(second())

    assert dedup.stats().expired == 1


# -- threads ---------------------------------------------------------------------------------------------------------


class Running:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def start(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def loops() -> Iterator[tuple[Running, Running]]:
    two = Running(), Running()
    yield two
    for one in two:
        one.stop()


def test_two_loops_share_the_store_and_no_flights(loops: tuple[Running, Running]) -> None:
    first, second = loops
    entered = [threading.Event(), threading.Event()]
    gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        gate = asyncio.Event()
        gates.append((asyncio.get_running_loop(), gate))
        run = len(gates)
        if run <= 2:
            entered[run - 1].set()
            await gate.wait()
        await send(head())
        await send(chunk(b"run %d" % run, more=False))

    dedup = Dedup(RULES)
    app = DedupMiddleware(bare, dedup=dedup)
    flying = [first.start(get(app, "/stored"))]
    assert entered[0].wait(10)
    flying.append(second.start(get(app, "/stored")))
    assert entered[1].wait(10)
    for running, gate in gates:
        running.call_soon_threadsafe(gate.set)
    assert [one.result(10).body for one in flying] == [b"run 1", b"run 2"]

    assert first.run(get(app, "/stored")).body == second.run(get(app, "/stored")).body == b"run 2"
    assert second.run(dedup.invalidate("none")) == 0
    second.run(get(app, "/stored", "POST"))
    assert first.run(get(app, "/stored")).body == b"run 4"
    assert second.run(get(app, "/stored")).body == b"run 4"
    for loop in loops:
        loop.run(dedup.aclose())
    assert not dedup.flights.under_way


def test_two_loops_share_a_functions_value_and_each_awaits_its_own_run(
    loops: tuple[Running, Running],
) -> None:
    first, second = loops
    dedup = Dedup()
    entered = threading.Event()
    gates: list[asyncio.Event] = []

    async def work() -> str:
        gates.append(asyncio.Event())
        run = len(gates)
        if run == 1:
            entered.set()
            await gates[0].wait()
        return f"run {run}"

    slow = first.start(dedup.call("k", work, ttl=600))
    assert entered.wait(10)
    assert second.run(dedup.call("k", work, ttl=600)) == "run 2"
    first.loop.call_soon_threadsafe(gates[0].set)
    assert slow.result(10) == "run 1"

    assert first.run(dedup.call("k", work, ttl=600)) == "run 2"
    for loop in loops:
        loop.run(dedup.aclose())


def test_a_write_in_one_loop_closes_the_flights_of_another(loops: tuple[Running, Running]) -> None:
    first, second = loops
    text, entered, gates = [b"old"], threading.Semaphore(0), []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            text.append(b"new")
            body = b"written"
        else:
            body = text[-1]
            if body == b"old":
                gates.append(asyncio.Event())
                entered.release()
                await gates[-1].wait()
        await send(head())
        await send(chunk(body, more=False))

    dedup = Dedup(RULES)
    app = DedupMiddleware(bare, dedup=dedup)
    before = first.start(get(app, "/stored"))
    assert entered.acquire(timeout=10)
    second.run(get(app, "/write", "POST"))
    second.run(get(app, "/stored", "POST", client="192.0.2.9"))
    after = first.run(get(app, "/stored"))
    first.loop.call_soon_threadsafe(gates[0].set)

    assert (before.result(10).body, after.body) == (b"old", b"new")
    assert second.run(get(app, "/stored")).body == b"new"
    for loop in loops:
        loop.run(dedup.aclose())


def test_many_threads_with_loops_of_their_own_get_right_answers() -> None:
    dedup = Dedup([Rule("/{x}", ttl=0.001, identity="shared", max_responses=5, tags=["{x}"])])
    wrong: list[object] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send(head())
        await send(chunk(scope["path"].encode(), more=False))

    app = DedupMiddleware(bare, dedup=dedup)

    async def client(seed: int) -> None:
        for number in range(100):
            targets = [f"/{(number + seed + k) % 12}" for k in range(3)] * 2
            found = await asyncio.gather(*(get(app, target) for target in targets))
            wrong.extend((t, o.body) for t, o in zip(targets, found, strict=True) if o.body != t.encode())
            if number % 10 == seed:
                await dedup.invalidate(str(number % 12))
            if number % 25 == seed:
                await get(app, f"/{number % 12}", "POST")

    def run(seed: int) -> None:
        try:
            asyncio.run(client(seed))
        except BaseException as error:  # noqa: BLE001 - shown below, in the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert not dedup.flights.under_way
    dedup.clear()
    assert (dedup.store.size, dedup.store.responses) == (0, 0)


# -- no asyncio ------------------------------------------------------------------------------------------------------


def drive(coroutine: Any) -> None:
    """Run a coroutine that never waits, without any event loop: as another kind of loop would look to us."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def test_without_an_asyncio_loop_every_request_is_bypassed_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dedup = Dedup([Rule("/x", ttl=60)])
    told: list[Any] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send(head())
        await send(chunk(b"bare", more=False))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    app = DedupMiddleware(bare, dedup=dedup)
    for method in ("GET", "GET", "QUERY", "POST"):
        drive(app(make_scope("/x", method), receive, send))

    assert told == [head(), chunk(b"bare", more=False)] * 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "asyncio" in caplog.records[0].getMessage()
    assert dedup.stats().requests["bypassed"] == 4

    async def work() -> int:
        return 5

    async def calling() -> None:
        assert await dedup.call("k", work, ttl=60) == 5

    drive(calling())


# -- processes -------------------------------------------------------------------------------------------------------

FORKED = """
    import asyncio, os, sys, threading

    from dedup_middleware import Dedup, DedupMiddleware, Rule
    from tests.kit import GatedApp, call, get, until

    dedup = Dedup([Rule("/x", ttl=600)])
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)

    async def parent():
        bare.gate.set()
        assert (await get(app, "/x")).body == b"run 1"
        bare.gate = asyncio.Event()
        flying = call(app, "/x?flying")
        await until(lambda: bare.runs == 2)
        locked, done = threading.Event(), threading.Event()

        def hold():
            with dedup.lock:
                locked.set()
                done.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait()
        child = os.fork()
        if child == 0:
            return None
        done.set()
        holder.join()
        status = os.waitpid(child, 0)[1]
        bare.gate.set()
        await flying.done()
        assert flying.body == b"run 2"
        assert (await get(app, "/x")).body == b"run 1", "the parent's store is untouched"
        return os.waitstatus_to_exitcode(status)

    def child():
        async def serve():
            bare.gate = asyncio.Event()
            bare.gate.set()
            first = await asyncio.gather(*(get(app, "/x?flying") for _ in range(3)))
            again = await get(app, "/x?flying")
            fresh = [await get(app, "/x?new") for _ in range(2)]
            await dedup.call("k", lambda: asyncio.sleep(0, 5), ttl=60)
            await dedup.invalidate("x")
            await get(app, "/x?new", "POST")
            return [one.body for one in (*first, again, *fresh)], len(dedup.flights.under_way)

        bodies, flying = asyncio.run(serve())
        assert bodies == [b"run 3"] * 4 + [b"run 4"] * 2, bodies
        assert flying == 0
        assert dedup.store.size >= 0
        dedup.clear()
        assert dedup.store.size == 0

    loop = asyncio.new_event_loop()
    result = loop.run_until_complete(parent())
    if result is None:
        asyncio.events._set_running_loop(None)
        try:
            child()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    loop.close()
    print("child", result)
    sys.exit(result)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here: run it on Linux or macOS")
def test_after_a_fork_the_child_serves_with_locks_flights_and_a_store_of_its_own() -> None:
    root = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - pathlib would be imported before the fork

    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKED)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=root,
    )

    assert (ended.returncode, ended.stdout.strip()) == (0, "child 0"), ended.stderr


def test_engines_that_are_gone_are_freed_and_cost_a_fork_nothing() -> None:
    import gc
    import weakref

    gone = [weakref.ref(Dedup()) for _ in range(3)]
    gc.collect()

    assert [one() for one in gone] == [None] * 3


async def test_one_engine_under_two_apps_shares_no_response_between_them() -> None:
    dedup = Dedup(default=Rule(ttl=60))
    apps = [GatedApp(lambda _, run, n=n: (200, [], b"app %d run %d" % (n, run)), opened=True) for n in (1, 2)]  # type: ignore[misc] # mypy infers no lambda with a default
    wrapped = [DedupMiddleware(app, dedup=dedup) for app in apps]

    found = [(await get(app, "/x")).body for app in (*wrapped, *wrapped)]

    assert found == [b"app 1 run 1", b"app 2 run 1"] * 2
    await dedup.aclose()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
async def test_a_write_through_one_app_invalidates_what_the_other_stored(order: list[int]) -> None:
    dedup = Dedup(default=Rule(ttl=60))
    wrapped = [DedupMiddleware(GatedApp(opened=True), dedup=dedup) for _ in range(2)]
    reader, writer = (wrapped[index] for index in order)
    await get(reader, "/x")

    await get(writer, "/x", "POST")
    await settle()

    assert (await get(reader, "/x")).body == b"run 2"
    await dedup.aclose()
