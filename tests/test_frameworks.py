"""Every framework: the line of the docs wraps its app, what is equal is shared, and the rest is the app's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import litestar
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from litestar.datastructures import CacheControlHeader
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.flight import Flight

from .framework_kit import (
    LINES,
    NAMES,
    PAGE,
    Ask,
    Framework,
    Lifespan,
    Site,
    Work,
    bare,
    load,
    running,
    site,
    watch,
    without_ours,
    wrapped,
)
from .kit import FakeClock, eventually, settle
from .telemetry_kit import Seen, attributes

pytestmark = pytest.mark.slow

MakeDedup = Callable[..., Dedup]
QUICKSTART = PAGE.parent / "quickstart.md"


@pytest.fixture(params=NAMES)
def framework(request: pytest.FixtureRequest) -> Framework:
    return load(request.param)


def alice(name: bytes = b"alice") -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + name)]


def fields(asked: Ask) -> Any:
    """Status and header fields but ours."""
    return next(without_ours(asked.messages))


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_has_a_line_for_each_framework() -> None:
    assert tuple(LINES) == (*NAMES, "plain")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_which_framework_shows_its_routes(name: str) -> None:
    says = re.search(rf"^\| {name}[^|]*\| `[^`]+` \| (\w+): ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert says is not None
    assert (says[1] == "yes") == (load(name).template is not None)


@pytest.mark.parametrize("name", NAMES)
def test_the_quickstart_has_the_line_of_the_page(name: str) -> None:
    line = re.search(
        rf"^\| {name}[^|]*\| `([^`]+)` \|$", QUICKSTART.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert line is not None
    assert line[1] == LINES[name]


# -- what is shared --------------------------------------------------------------------------------------------------


async def test_concurrent_identical_requests_run_once_and_get_the_bare_app_s_bytes(
    framework: Framework, make_dedup: MakeDedup
) -> None:
    expected, _ = await bare(framework, "/plain")
    async with site(framework, make_dedup()) as served:
        served.work.shut()
        asked = [served.ask("/plain") for _ in range(20)]
        await eventually(lambda: served.work.count("run") == 1)
        await settle()
        served.work.open.set()
        assert [await one.end() for one in asked] == [None] * 20

        assert served.work.count("run") == 1
        assert list(without_ours(asked[0].messages)) == expected
        assert {one.body for one in asked} == {b"run 1"}
        assert [one.header(b"cache-status") for one in asked] == [
            b"dedup; fwd=uri-miss",
            *[b"dedup; fwd=uri-miss; collapsed"] * 19,
        ]
        assert all(fields(one) == fields(asked[0]) for one in asked)


async def test_a_repeat_is_answered_from_the_store_with_its_age(
    framework: Framework, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    async with site(framework, make_dedup(Rule("/plain", ttl=60))) as served:
        first = await served.get("/plain")
        clock.advance(7)
        repeat = await served.get("/plain")

        assert first.header(b"cache-status") == b"dedup; fwd=uri-miss; stored; ttl=60"
        assert (repeat.header(b"cache-status"), repeat.header(b"age")) == (b"dedup; hit; ttl=53", b"7")
        assert repeat.body == first.body == b"run 1"
        assert fields(repeat) == fields(first)
        assert served.work.count("run") == 1


async def test_two_authorizations_never_share(framework: Framework, make_dedup: MakeDedup) -> None:
    async with site(framework, make_dedup(Rule("/plain", ttl=60))) as served:
        served.work.shut()
        asked = [served.ask("/plain", headers=alice(name)) for name in (b"alice", b"bob")]
        await eventually(lambda: served.work.count("run") == 2)
        served.work.open.set()
        for one in asked:
            await one.end()
        again = [await served.get("/plain", headers=alice(name)) for name in (b"bob", b"alice", b"carol")]

        assert sorted(one.body for one in asked) == [b"run 1", b"run 2"]
        assert [one.body for one in again] == [asked[1].body, asked[0].body, b"run 3"]


async def test_a_write_passes_and_drops_what_is_stored(framework: Framework, make_dedup: MakeDedup) -> None:
    expected = await _write_on_the_bare_app(framework)
    async with site(framework, make_dedup(Rule("/plain", ttl=60))) as served:
        assert (await served.get("/plain")).body == b"run 1"
        served.work.shut()
        writes = [served.ask("/plain", "POST") for _ in range(2)]
        await eventually(lambda: served.work.count("write") == 2)
        served.work.open.set()
        for one in writes:
            await one.end()

        assert [list(without_ours(one.messages)) for one in writes] == [expected[0], expected[1]]
        assert [one.header(b"cache-status") for one in writes] == [None, None]
        assert (await served.get("/plain")).body == b"run 2"


async def _write_on_the_bare_app(framework: Framework) -> list[Any]:
    async with site(framework) as served:
        return [list(without_ours((await served.get("/plain", "POST")).messages)) for _ in range(2)]


# -- streams, errors, leaving -----------------------------------------------------------------------------------------


async def test_a_stream_reaches_all_chunk_by_chunk(framework: Framework, make_dedup: MakeDedup) -> None:
    async with site(framework, make_dedup()) as served:
        asked = [served.ask("/stream") for _ in range(3)]
        await eventually(lambda: all(one.body == b"one," for one in asked))
        assert served.work.log[-1] == "stream"
        assert not any(one.complete for one in asked)

        served.work.second.set()
        assert [await one.end() for one in asked] == [None] * 3
        assert [one.body for one in asked] == [b"one,two"] * 3
        assert all(one.complete for one in asked)
        assert (served.work.count("stream"), served.work.count("chunk two")) == (1, 1)


async def test_an_error_is_the_framework_s_own_answer_for_all(
    framework: Framework, make_dedup: MakeDedup
) -> None:
    expected, raised = await bare(framework, "/boom")
    async with site(framework, make_dedup()) as served:
        served.work.shut()
        asked = [served.ask("/boom") for _ in range(3)]
        await eventually(lambda: served.work.count("boom") == 1)
        await settle()
        served.work.open.set()
        errors = [await one.end() for one in asked]

        assert errors == [raised, *[raised and "ForwardFailed"] * 2]
        assert [list(without_ours(one.messages)) for one in asked] == [expected] * 3
        assert served.work.count("boom") == 1


async def check_the_leader_may_leave(framework: Framework, dedup: Dedup, leaves: str) -> None:
    """The leader leaves while the handler works: the follower gets what it makes."""
    async with site(framework, dedup) as served:
        served.work.shut()
        leader, follower = served.ask("/plain"), served.ask("/plain")
        await eventually(lambda: served.work.count("run") == 1)
        await watch(dedup)
        getattr(leader, leaves)()
        await settle(100)
        served.work.open.set()
        await asyncio.wait([leader.task, follower.task])
        await eventually(lambda: not dedup.flights.under_way)

        assert (follower.body, follower.complete) == (b"run 1", True)
        assert served.work.log.count("cancelled") == 0
        assert served.work.count("run") == 1


@pytest.mark.parametrize("leaves", ["disconnect", "cancel"])
async def test_the_leader_s_leaving_stops_no_handler(
    framework: Framework, make_dedup: MakeDedup, leaves: str
) -> None:
    await check_the_leader_may_leave(framework, make_dedup(), leaves)


@pytest.mark.parametrize("name", ["Quart", "Django"])
async def test_an_engine_that_passed_on_the_leader_s_leaving_would_be_caught(
    name: str, make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leader_left(flight: Flight) -> None:
        while not flight.returned and any(waiter.leader for waiter in flight.waiters):
            await asyncio.sleep(0)

    monkeypatch.setattr(Flight, "deserted", leader_left)
    with pytest.raises(AssertionError):
        await check_the_leader_may_leave(load(name), make_dedup(), "disconnect")


async def test_a_handler_that_hears_of_a_disconnect_hears_of_it_when_all_have_left(
    framework: Framework, make_dedup: MakeDedup
) -> None:
    """What the test above rests on: the bare Quart and Django cancel a handler when its client leaves."""
    async with site(framework) as served:
        await _leave_in_turn(served, [framework.hears])
    dedup = make_dedup()
    async with site(framework, dedup) as served:
        await _leave_in_turn(served, [False, False, framework.hears], dedup)


async def _leave_in_turn(served: Site, cancelled: list[bool], dedup: Dedup | None = None) -> None:
    """So many callers leave one by one: is the handler cancelled then?"""
    served.work.shut()
    asked = [served.ask("/plain") for _ in cancelled]
    await eventually(lambda: served.work.count("run") == 1)
    if dedup is not None:
        await watch(dedup)
    for one, expected in zip(asked, cancelled, strict=True):
        one.disconnect()
        if expected:
            await eventually(lambda: "cancelled" in served.work.log)
        await settle(100)
        assert ("cancelled" in served.work.log) == expected
    served.work.open.set()
    await asyncio.wait([one.task for one in asked])


# -- what surrounds a request ------------------------------------------------------------------------------------------


async def test_spans_carry_the_route_s_template_or_the_rule_s_name(
    framework: Framework, make_dedup: MakeDedup
) -> None:
    seen = Seen()
    dedup = make_dedup(Rule("/items/{id}", ttl=60, name="items"), tracer_provider=seen.provider)
    async with site(framework, dedup) as served:
        first, repeat = [await served.get("/items/x") for _ in range(2)]
        assert first.body == repeat.body == b"x"
        known = first.scope.keys() & {"route", "path_template"}  # as every release but old ones of Starlette
        template = framework.template if known else None
        place = template or "items"
        assert [span.name for span in seen.spans] == [
            f"forwarded {place}",
            f"forward {place}",
            f"hit {place}",
        ]
        assert [attributes(span).get("http.route") for span in seen.spans] == [template] * 3
        assert {attributes(span)["dedup.rule"] for span in seen.spans} == {"items"}


INCLUDED = ["Mount of Starlette", "mount of FastAPI", "include_router of FastAPI"]


def including(how: str, prefix: str, inner: Any) -> Any:
    """An app that has another one below a prefix."""
    if how == "Mount of Starlette":
        return Starlette(routes=[Mount(prefix, inner)])
    app, router = FastAPI(), APIRouter()
    if how == "mount of FastAPI":
        app.mount(prefix, inner)
    else:
        router.mount(prefix, inner)
        app.include_router(router)
    return app


async def named(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["name"])


@pytest.mark.parametrize("how", INCLUDED)
async def test_a_part_of_an_app_may_have_the_middleware(how: str, make_dedup: MakeDedup) -> None:
    inner = Starlette(routes=[Route("/{name}", named)])
    if (await Site(including(how, "/shop", inner), Work()).get("/shop/x")).status == 404:
        return  # an old release of FastAPI includes no mounts

    inner = Starlette(routes=[Route("/{name}", named)])
    inner.add_middleware(DedupMiddleware, dedup=make_dedup())
    answer = await Site(including(how, "/shop", inner), Work()).get("/shop/x")

    assert (answer.body, answer.header(b"cache-status")) == (b"x", b"dedup; fwd=uri-miss")


@pytest.mark.parametrize("how", ["Mount of Starlette", "include_router of FastAPI"])
async def test_the_route_s_template_has_the_prefix_under_which_it_was_included(
    how: str, make_dedup: MakeDedup
) -> None:
    async def item(name: str) -> str:
        return name

    router = APIRouter()
    router.add_api_route("/{name}", item)
    app: Any = Starlette(routes=[Mount("/shop", routes=[Route("/{name}", named)])])
    if how == "include_router of FastAPI":
        app = FastAPI()
        app.include_router(router, prefix="/shop")
    seen = Seen()
    served = Site(DedupMiddleware(app, dedup=make_dedup(tracer_provider=seen.provider)), Work())
    answer = await served.get("/shop/x")

    assert answer.status == 200
    template = "/shop/{name}" if "route" in answer.scope else "GET"  # an old release of Starlette
    assert [span.name for span in seen.spans] == [f"forwarded {template}", f"forward {template}"]


async def test_the_lifespan_is_the_bare_app_s(framework: Framework, make_dedup: MakeDedup) -> None:
    stories = []
    for dedup in (None, make_dedup()):
        work = Work()
        app = framework.build(work) if dedup is None else wrapped(framework, work, dedup)
        lifespan = Lifespan(app)
        await lifespan.say("startup")
        started = list(work.log)
        if not lifespan.task.done():
            await lifespan.say("shutdown")
        await asyncio.wait([lifespan.task])
        error = lifespan.task.exception()
        stories.append((lifespan.sent, lifespan.state, started, work.log, type(error), str(error)))

    assert stories[0] == stories[1]
    assert stories[1][3] == (["startup", "shutdown"] if framework.lifespan else [])


async def test_what_startup_left_is_there_and_forbids_no_sharing(
    framework: Framework, make_dedup: MakeDedup
) -> None:
    async with site(framework, make_dedup(default=Rule(ttl=60))) as served:
        served.state["pool"] = object()
        answers = [await served.get("/greeting") for _ in range(2)]

        assert [one.body for one in answers] == [b"hello"] * 2
        shared = framework.lifespan  # without a lifespan the server's state is nobody's that we know
        assert (answers[1].header(b"cache-status") is not None) == shared


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).background])
async def test_background_work_runs_once_and_holds_up_no_answer(name: str, make_dedup: MakeDedup) -> None:
    async with site(load(name), make_dedup(Rule("/background", ttl=60))) as served:
        served.work.after_open.clear()
        asked = [served.ask("/background") for _ in range(3)]
        await eventually(lambda: all(one.complete for one in asked))
        assert served.work.count("background") == 0

        served.work.after_open.set()
        assert [await one.end() for one in asked] == [None] * 3
        await eventually(lambda: served.work.count("background") == 1)
        assert [one.body for one in asked] == [b"answered"] * 3
        assert (await served.get("/background")).header(b"cache-status") == b"dedup; hit; ttl=60"
        assert served.work.count("background") == 1


# -- FastAPI: dependencies, and BaseHTTPMiddleware on either side ------------------------------------------------------


def shop(work: Work) -> FastAPI:
    """A shop whose transaction commits when a request's dependency ends, after the last byte."""
    app = FastAPI(default_response_class=PlainTextResponse)
    app.state.price = 1

    async def transaction() -> AsyncIterator[list[int]]:
        changes: list[int] = []
        work.note("begin")
        yield changes
        await work.after_open.wait()
        for app.state.price in changes:
            work.note("commit")
        work.note("end")

    given: Any = Depends(transaction)

    @app.get("/price")
    async def price(changes: list[int] = given) -> str:
        return str(app.state.price)

    @app.post("/price")
    async def change(changes: list[int] = given) -> str:
        changes.append(2)
        return "changed"

    @app.get("/stream")
    async def stream(changes: list[int] = given) -> StreamingResponse:
        return StreamingResponse(work.chunks(), media_type="text/plain")

    return app


async def say_so(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


@pytest.fixture(params=["alone", "BaseHTTPMiddleware inside", "BaseHTTPMiddleware outside", "both"])
def make_shop(request: pytest.FixtureRequest) -> Callable[[Work, Dedup], Site]:
    def make(work: Work, dedup: Dedup) -> Site:
        app = shop(work)
        if request.param in {"BaseHTTPMiddleware inside", "both"}:
            app.add_middleware(BaseHTTPMiddleware, dispatch=say_so)
        app.add_middleware(DedupMiddleware, dedup=dedup)
        if request.param in {"BaseHTTPMiddleware outside", "both"}:
            app.add_middleware(BaseHTTPMiddleware, dispatch=say_so)
        return Site(app, work)

    return make


MakeShop = Callable[[Work, Dedup], Site]


async def test_a_commit_after_the_last_byte_drops_what_was_stored_meanwhile(
    make_shop: MakeShop, make_dedup: MakeDedup
) -> None:
    work = Work()
    served = make_shop(work, make_dedup(Rule("/price", ttl=60)))
    assert (await served.get("/price")).body == b"1"

    work.after_open.clear()
    write, read = served.ask("/price", "POST"), None
    await eventually(lambda: write.complete)
    read = served.ask("/price")
    await eventually(lambda: read.complete)
    assert (write.body, read.body) == (b"changed", b"1")  # it is not committed yet
    work.after_open.set()
    assert [await write.end(), await read.end()] == [None, None]

    assert work.count("commit") == 1
    assert (await served.get("/price")).body == b"2"


async def test_a_dependency_begins_and_ends_once_for_all_who_share(
    make_shop: MakeShop, make_dedup: MakeDedup
) -> None:
    work = Work()
    dedup = make_dedup()
    served = make_shop(work, dedup)
    asked = [served.ask("/stream") for _ in range(3)]
    await eventually(lambda: all(one.body == b"one," for one in asked))
    await watch(dedup)
    asked[0].disconnect()
    await eventually(lambda: [len(flight.waiters) for flight in dedup.flights.under_way.values()] == [2])
    assert work.log == ["begin", "stream"]

    work.second.set()
    assert [await one.end() for one in asked] == [None] * 3
    await eventually(lambda: "end" in work.log)
    assert [one.body for one in asked[1:]] == [b"one,two"] * 2
    assert work.log == ["begin", "stream", "chunk two", "end"]


# -- Litestar: why its line is around the app --------------------------------------------------------------------------


async def test_in_litestar_s_own_list_each_handler_has_an_engine_of_its_own() -> None:
    """What the page says: a write would drop nothing of what the handler of GET has stored."""
    made: list[Dedup] = []

    def counted(app: Any) -> Any:
        made.append(Dedup(default=Rule(ttl=60), clock=FakeClock()))
        return DedupMiddleware(app, dedup=made[-1])

    @litestar.get("/plain")
    async def plain() -> str:
        return "read"

    @litestar.post("/plain")
    async def write() -> str:
        return "written"

    app: Any = litestar.Litestar([plain, write], middleware=[DefineMiddleware(counted)], logging_config=None)
    async with running(app) as lifespan:
        served = Site(app, Work(), lifespan)
        answers = [await served.get("/plain", method) for method in ("GET", "POST", "GET")]

    assert len(made) > 2
    assert answers[2].header(b"cache-status") == b"dedup; hit; ttl=60"


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Rule(ttl=60), "x-mine"),
        (Rule(ttl=60, vary=["accept"]), "x-mine"),
        (Rule(ttl=60, vary=["*", "-x-mine"]), "x-mine"),
        (Rule(ttl=60, identity="credentials"), "x-real-ip"),
        (Rule(ttl=60, identity="shared"), "x-api-key"),
        (Rule(ttl=60, identity=["cookie:sid"], vary=[]), "x-mine"),
        (Rule(ttl="origin", vary="origin"), "x-api-key"),
        (Rule.shared_cache(), "x-api-key"),
    ],
)
async def test_in_litestar_s_own_list_nobody_gets_what_it_remembers_of_anothers_fields(
    rule: Rule, field: str
) -> None:
    """A layer outside has read them, and Litestar keeps what was read for the handler."""

    def reads(app: Any) -> Any:
        async def reading(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                assert litestar.Request(scope).headers
            await app(scope, receive, send)

        return reading

    def shares(app: Any) -> Any:
        return DedupMiddleware(app, dedup=Dedup(default=rule, clock=FakeClock()))

    @litestar.get("/mine", cache_control=CacheControlHeader(max_age=60))
    async def mine(request: litestar.Request[Any, Any, Any]) -> str:
        return request.headers.get(field, "nobody")

    listed = [DefineMiddleware(reads), DefineMiddleware(shares)]
    app: Any = litestar.Litestar([mine], middleware=listed, logging_config=None)
    async with running(app) as lifespan:
        served = Site(app, Work(), lifespan)
        for who in (b"alice", b"bob"):
            answer = await served.get("/mine", headers=[(field.encode(), who)])
            assert answer.body in (who, b"nobody")
