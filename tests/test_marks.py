"""Marks: `@deduplicate` says on an endpoint what a rule for its route would say; one that nothing reads is an error."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule, deduplicate, marks

from .kit import Call, get, settle

MakeDedup = Callable[..., Dedup]


@pytest.fixture(autouse=True)
def forget_marks() -> Iterator[None]:
    """Marks of other tests' apps ask for nothing here."""
    yield
    marks._unread.clear()


class Runs:
    """Endpoints that count their runs."""

    def __init__(self) -> None:
        self.count = 0

    def answer(self, *_: Any) -> PlainTextResponse:
        self.count += 1
        return PlainTextResponse(f"run {self.count}")

    def endpoint(self) -> Any:
        async def endpoint(request: Request) -> PlainTextResponse:
            return self.answer()

        return endpoint


async def started(app: Any, *rules: Rule) -> Dedup:
    """The engine of an app under a middleware that has read its marks."""
    wrapped = DedupMiddleware(app, rules=rules)
    await get(wrapped, "/nothing-here")
    return wrapped.dedup


async def refused(app: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await started(app)
    return str(caught.value)


# -- where marks are read --------------------------------------------------------------------------------------------


async def test_a_mark_on_a_starlette_route_is_a_rule_for_it() -> None:
    runs = Runs()
    marked = deduplicate(ttl=60, tags=["git:{repo}"], name="status")(runs.endpoint())
    app = DedupMiddleware(Starlette(routes=[Route("/git/{repo}/status", marked)]))

    assert [(await get(app, "/git/a/status")).body for _ in range(2)] == [b"run 1"] * 2
    assert app.dedup.rules == (
        Rule("/git/{repo}/status", methods=["GET", "HEAD"], ttl=60, tags=["git:{repo}"], name="status"),
    )
    await app.dedup.invalidate("git:a")
    assert (await get(app, "/git/a/status")).body == b"run 2"
    assert (await get(app, "/git/b/status")).body == b"run 3"
    await app.dedup.aclose()


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("order", ["mark inside", "mark outside"])
@pytest.mark.parametrize("where", ["app", "router with a prefix", "router in a router", "mount", "sub-app"])
async def test_a_mark_on_a_fastapi_endpoint_is_a_rule_for_its_whole_path(
    where: str, order: str, kind: str
) -> None:
    runs = Runs()
    api = FastAPI()
    outer, inner = APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    below: Any = {"app": api, "router with a prefix": outer, "router in a router": inner}.get(
        where, FastAPI()
    )
    path = {
        "app": "/x/{n}",
        "router with a prefix": "/outer/x/{n}",
        "router in a router": "/outer/inner/x/{n}",
    }.get(where, "/mounted/x/{n}")

    async def asynchronous(n: int) -> PlainTextResponse:
        return runs.answer()

    def synchronous(n: int) -> PlainTextResponse:
        return runs.answer()

    endpoint = asynchronous if kind == "async" else synchronous
    mark, route = deduplicate(ttl=60, tags=["n:{n}"]), below.get("/x/{n}")
    if order == "mark inside":
        route(mark(endpoint))
    else:
        mark(route(endpoint))
    if where == "router with a prefix":
        api.include_router(outer)
    elif where == "router in a router":
        outer.include_router(inner)
        api.include_router(outer)
    elif where == "mount":
        api.mount("/mounted", below)
    elif where == "sub-app":
        api.router.routes.append(Mount("/mounted", app=below))
    app = DedupMiddleware(api)

    assert [(await get(app, path.replace("{n}", "5"))).body for _ in range(2)] == [b"run 1"] * 2
    (rule,) = app.dedup.rules
    assert (rule.path, rule.methods, rule.tags) == (path, ("GET",), ("n:{n}",))
    assert await app.dedup.invalidate("n:5") == 1
    await app.dedup.aclose()


async def test_a_mark_is_read_from_under_other_middlewares_and_under_add_middleware() -> None:
    for add in (True, False):
        runs = Runs()
        app: Any = Starlette(routes=[Route("/x", deduplicate(ttl=60)(runs.endpoint()))])
        dedup = Dedup()

        class Plain:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await self.app(scope, receive, send)

        app.add_middleware(Plain)
        if add:
            app.add_middleware(DedupMiddleware, dedup=dedup)
        else:
            app = DedupMiddleware(Plain(Plain(app)), dedup=dedup)

        assert [(await get(app, "/x")).body for _ in range(2)] == [b"run 1"] * 2
        await dedup.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda endpoint: Starlette(routes=[Mount("/m", routes=[Route("/x", endpoint)])]),
        lambda endpoint: Starlette(routes=[Mount("/m", app=Starlette(routes=[Route("/x", endpoint)]))]),
        lambda endpoint: Starlette(routes=[Mount("/m", app=Router([Route("/x", endpoint)]))]),
        lambda endpoint: Starlette(routes=[Mount("/m", routes=[Mount("", routes=[Route("/x", endpoint)])])]),
        lambda endpoint: Starlette(
            routes=[Host("example.test", app=Router([Route("/m/x", endpoint)])), Route("/y", lambda r: None)]
        ),
    ],
)
async def test_a_mark_below_mounts_and_hosts_is_a_rule_for_the_whole_path(make: Any) -> None:
    app = DedupMiddleware(make(deduplicate(ttl=60)(Runs().endpoint())))

    assert [(await get(app, "/m/x")).body for _ in range(2)] == [b"run 1"] * 2
    assert [rule.path for rule in app.dedup.rules] == ["/m/x"]
    await app.dedup.aclose()


async def test_a_mark_on_an_endpoint_class_a_method_or_a_partial_is_read() -> None:
    runs = Runs()

    @deduplicate(ttl=60)
    class Page(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            return runs.answer()

    class Pages:
        @deduplicate(ttl=60)
        async def show(self, request: Request) -> PlainTextResponse:
            return runs.answer()

    @deduplicate(ttl=60)
    async def part(greeting: str, request: Request) -> PlainTextResponse:
        return runs.answer()

    app = DedupMiddleware(
        Starlette(
            routes=[
                Route("/class", Page),
                Route("/method", Pages().show),
                Route("/partial", functools.partial(part, "hello")),
            ]
        )
    )

    for run, target in enumerate(("/class", "/method", "/partial"), 1):
        assert [(await get(app, target)).body for _ in range(2)] == [b"run %d" % run] * 2
    await app.dedup.aclose()


async def test_a_mark_shows_through_a_decorator_that_says_what_it_wraps() -> None:
    marked = deduplicate(ttl=60)(Runs().endpoint())

    @functools.wraps(marked)
    async def wrapper(request: Request) -> Any:
        return await marked(request)

    app = DedupMiddleware(Starlette(routes=[Route("/x", wrapper)]))

    assert [(await get(app, "/x")).body for _ in range(2)] == [b"run 1"] * 2
    await app.dedup.aclose()


async def test_a_mark_changes_nothing_about_the_function_it_marks() -> None:
    async def endpoint(request: Request) -> str:
        return "as it was"

    assert deduplicate(ttl=60)(endpoint) is endpoint
    assert await endpoint(None) == "as it was"  # type: ignore[arg-type] # it looks at no request


async def test_one_mark_on_two_routes_is_two_rules() -> None:
    marked = deduplicate(ttl=60)(Runs().endpoint())

    dedup = await started(
        Starlette(routes=[Route("/x", marked), Route("/y", marked, methods=["PUT", "GET"])])
    )

    assert [(rule.path, rule.methods) for rule in dedup.rules] == [
        ("/x", ("GET", "HEAD")),
        ("/y", ("GET", "HEAD", "PUT")),
    ]


async def test_rules_stand_before_marks_and_the_default_after_them() -> None:
    marked = deduplicate(ttl=60, name="mark")(Runs().endpoint())
    app = Starlette(routes=[Route("/x", marked), Route("/y", marked)])

    dedup = await started(app, Rule("/x", ttl=5, name="rule"))

    assert [dedup.book.rules[dedup.book.find(path, "GET")[0]].name for path in ("/x", "/y", "/z")] == [
        "rule",
        "mark",
        None,
    ]


@pytest.mark.parametrize("name", ["rule", "/given", "default", "/y", "mark"])
async def test_a_mark_that_is_called_like_another_rule_is_refused(name: str) -> None:
    routes = [
        Route("/x", deduplicate(name=name)(Runs().endpoint())),
        Route("/y", deduplicate()(Runs().endpoint())),
        Route("/w", deduplicate(name="mark", ttl=5)(Runs().endpoint())),
    ]
    wrapped = DedupMiddleware(Starlette(routes=routes), rules=[Rule("/given"), Rule("/z", name="rule")])

    with pytest.raises(ConfigurationError, match=f"^Rule.name: '{name}' .*no other rule has"):
        await get(wrapped, "/x")


async def test_marks_read_late_never_serve_what_another_rule_stored() -> None:
    # The default's place in the list of rules moves when a second app brings its marks.
    dedup = Dedup(default=Rule(ttl=60))
    first, second = Runs(), Runs()
    one = DedupMiddleware(Starlette(routes=[Route("/x", first.endpoint())]), dedup=dedup)
    assert [(await get(one, "/x")).body for _ in range(2)] == [b"run 1"] * 2
    two = DedupMiddleware(Starlette(routes=[Route("/y", deduplicate(ttl=5)(second.endpoint()))]), dedup=dedup)

    assert [(await get(two, "/y")).body for _ in range(2)] == [b"run 1"] * 2
    assert [(await get(one, "/x")).body for _ in range(2)] == [b"run 2"] * 2
    await dedup.aclose()


async def test_marks_read_late_never_switch_a_rule_on_nor_count_backwards() -> None:
    dedup = Dedup([Rule("/x", ttl=60, max_responses=1), Rule("/off", ttl=60, name="off")])
    one = DedupMiddleware(Starlette(routes=[Route("/x", Runs().endpoint())]), dedup=dedup)
    for number in range(3):
        await get(one, f"/x?{number}")
    dedup.switch("off", on=False)
    dedup.clear()
    before = dedup.stats()
    two = DedupMiddleware(Starlette(routes=[Route("/y", deduplicate(ttl=5)(Runs().endpoint()))]), dedup=dedup)
    await get(two, "/nothing-here")

    after = dedup.stats()
    assert (after.stored, after.evicted, after.invalidated) == (before.stored, before.evicted, 1) == (3, 2, 1)
    assert dedup.switched_off == {"off"}
    assert dedup.explain(target="/off").reason == "off"
    await dedup.aclose()


# -- methods ---------------------------------------------------------------------------------------------------------


async def test_a_post_that_is_marked_as_safe_collapses_and_stores() -> None:
    runs = Runs()

    async def search(request: Request) -> PlainTextResponse:
        await request.body()
        await settle()
        return runs.answer()

    marked = deduplicate(ttl=60, collapse=True)(search)
    app = DedupMiddleware(Starlette(routes=[Route("/search", marked, methods=["POST"])]))

    async def post(body: bytes) -> Call:
        return await get(app, "/search", "POST", [(b"content-type", b"application/json")], body=body)

    together = await asyncio.gather(*(post(b'{"q": 1}') for _ in range(5)))
    assert {one.body for one in together} == {b"run 1"}
    assert (await post(b'{ "q" : 1 }')).body == b"run 1"
    assert (await post(b'{"q": 2}')).body == b"run 2"
    await app.dedup.aclose()


async def test_a_mark_that_invalidates_takes_the_routes_unsafe_method() -> None:
    read, write = Runs(), Runs()
    app = DedupMiddleware(
        Starlette(
            routes=[
                Route("/chat/{port}", deduplicate(ttl=60, tags=["chat:{port}"])(read.endpoint())),
                Route(
                    "/chat/{port}/send",
                    deduplicate(invalidates=["chat:{port}"])(write.endpoint()),
                    methods=["POST"],
                ),
            ]
        )
    )
    await get(app, "/chat/5")
    await get(app, "/chat/6")

    await get(app, "/chat/5/send", "POST")

    assert [(await get(app, f"/chat/{port}")).body for port in (5, 6)] == [b"run 3", b"run 2"]
    await app.dedup.aclose()


async def test_a_marks_own_methods_are_fewer_than_its_routes() -> None:
    marked = deduplicate(ttl=60, methods=["GET"])(Runs().endpoint())

    dedup = await started(Starlette(routes=[Route("/x", marked)]))

    assert dedup.rules[0].methods == ("GET",)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ttl": -1}, ["deduplicate.ttl: -1", "seconds"]),
        ({"tll": 5}, ["deduplicate.tll: 5", "perhaps ttl is meant; only the fields"]),
        ({"path": "/x"}, ["deduplicate.path: '/x'", "the route says where"]),
        ({"identity": "all"}, ["deduplicate.identity: 'all'", "separate"]),
        ({"max_responses": "1k"}, ["deduplicate.max_responses: '1k'", "whole number"]),
        ({"identity": "origin"}, ["deduplicate.identity", 'beside ttl="origin"']),
        ({"stale_if_error": 5}, ["deduplicate.stale_if_error: 5", "beside a ttl"]),
        ({"mode": "shadow"}, ["deduplicate.mode", "not available in this version"]),
        ({"tags": "chat"}, ["deduplicate.tags: 'chat'", "list"]),
        ({"tags": [5]}, ["deduplicate.tags: 5", "list"]),
        ({"ttl": 5, "invalidates": ["a"]}, ["deduplicate.ttl: 5", "beside invalidates"]),
        ({"methods": "GET"}, ["deduplicate.methods: 'GET'", "list"]),
    ],
)
def test_a_wrong_mark_is_refused_where_it_stands(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        deduplicate(**fields)

    assert all(word in str(caught.value) for word in [*said, "allowed: "]), str(caught.value)


@pytest.mark.parametrize(
    ("fields", "methods", "said"),
    [
        ({"tags": ["git:{repository}"]}, ["GET"], ["tags: 'git:{repository}'", "{repo}"]),
        ({"ttl": 60}, ["POST"], ["ttl", "collapse=True"]),
        ({"negative_ttl": 60}, ["DELETE"], ["negative_ttl", "collapse=True"]),
        ({"invalidates": ["{x}"]}, ["POST"], ["invalidates: '{x}'", "{repo}"]),
    ],
)
async def test_a_mark_that_does_not_fit_its_route_is_refused_at_start_with_the_endpoint_and_the_route(
    fields: dict[str, Any], methods: list[str], said: list[str]
) -> None:
    marked = deduplicate(**fields)(Runs().endpoint())

    sentence = await refused(Starlette(routes=[Route("/git/{repo}", marked, methods=methods)]))

    assert sentence.startswith("deduplicate on ")
    assert all(word in sentence for word in [*said, "endpoint", "/git/{repo}", "allowed: "]), sentence


@pytest.mark.parametrize("thing", [5, None, "x"])
def test_only_an_endpoint_can_be_marked(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="a function or a class"):
        deduplicate(ttl=5)(thing)


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("plain")(scope, receive, send)


async def test_a_mark_that_nothing_can_read_is_an_error_at_start() -> None:
    marked = deduplicate(ttl=60)(Runs().endpoint())

    sentence = await refused(plain_app)

    assert marked.__qualname__ in sentence
    assert "{'ttl': 60}" in sentence
    assert "say it as a Rule" in sentence


@pytest.mark.parametrize("hidden", ["behind a decorator", "on no route", "on a method of an endpoint class"])
async def test_a_mark_that_no_route_shows_is_an_error_at_start(hidden: str) -> None:
    runs = Runs()
    if hidden == "on a method of an endpoint class":

        class Page(HTTPEndpoint):
            @deduplicate(ttl=60)
            async def get(self, request: Request) -> PlainTextResponse:
                return runs.answer()

        sentence = await refused(Starlette(routes=[Route("/x", Page)]))
    else:
        marked = deduplicate(ttl=60)(runs.endpoint())

        async def hiding(request: Request) -> Any:
            return await marked(request)

        endpoint = hiding if hidden == "behind a decorator" else runs.endpoint()
        sentence = await refused(Starlette(routes=[Route("/x", endpoint)]))

    assert "{'ttl': 60}" in sentence
    assert "a decorator between them" in sentence


async def test_an_app_does_not_answer_for_the_marks_of_another_one() -> None:
    first = Starlette(routes=[Route("/x", deduplicate(ttl=60)(Runs().endpoint()))])
    second = FastAPI()
    second.get("/y")(deduplicate(ttl=5)(Runs().endpoint()))

    assert [rule.path for rule in (await started(first)).rules] == ["/x"]
    assert [rule.path for rule in (await started(second)).rules] == ["/y"]


async def test_the_marks_of_an_app_that_is_gone_ask_for_nothing() -> None:
    app: Any = Starlette(routes=[Route("/x", deduplicate(ttl=60)(Runs().endpoint()))])
    del app

    assert (await started(plain_app)).rules == ()


async def test_a_mark_that_does_not_fit_fails_every_request_and_the_lifespan() -> None:
    marked = deduplicate(tags=["{nope}"])(Runs().endpoint())
    app: Any = DedupMiddleware(Starlette(routes=[Route("/x", marked)]))
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert [message["type"] for message in told] == ["lifespan.startup.failed"]
    assert "{nope}" in told[0]["message"]
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="nope"):
            await get(app, "/x")
