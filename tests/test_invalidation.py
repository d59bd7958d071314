"""Invalidation wins every race: nothing older is served after it, and a caller reads its own writes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.responses import PlainTextResponse

from dedup_middleware import Dedup, DedupMiddleware, Rule

from .kit import Call, FakeClock, GatedApp, SteppedApp, VirtualTime, call, chunk, get, head, settle, until

MakeDedup = Callable[..., Dedup]
Pairs = list[tuple[bytes, bytes]]

ALICE: Pairs = [(b"authorization", b"Bearer alice")]
BOB: Pairs = [(b"authorization", b"Bearer bob")]


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    await send(head(status))
    await send(chunk(body, more=False))


class Notebook:
    """A backend with one text: GET reads it, then waits at its gate and answers; an unsafe method writes it."""

    def __init__(self) -> None:
        self.text = b"old"
        self.reads = 0
        self.writes = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] in ("GET", "HEAD", "QUERY"):
            self.reads += 1
            text = self.text
            await self.gate.wait()
            await respond(send, text)
        else:
            self.writes += 1
            self.text = b"new" if self.writes == 1 else b"new %d" % self.writes
            await respond(send, b"written")


async def slow_get(app: Any, notebook: Notebook, target: str = "/x", headers: Any = ()) -> Call:
    """A GET that has read and not yet answered."""
    notebook.gate.clear()
    reads = notebook.reads
    one = call(app, target, "GET", headers)
    await until(lambda: notebook.reads == reads + 1)
    return one


# -- writes are never shared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("rules", [[], [Rule("/x", invalidates=["x"])]])
async def test_identical_writes_all_execute(method: str, rules: list[Rule], make_dedup: MakeDedup) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(*rules))
    calls = [call(app, "/x", method, body=b"{}") for _ in range(5)]
    await until(lambda: bare.runs == 5)
    bare.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert sorted(one.body for one in calls) == [b"run %d" % run for run in range(1, 6)]
    assert all(one.header(b"cache-status") is None for one in calls)


async def test_a_write_reaches_the_app_and_the_client_untouched(make_dedup: MakeDedup) -> None:
    script = [head(201, [(b"X-A", b"1"), (b"age", b"5")]), chunk(b"a"), chunk(b"b", more=False)]
    bare = SteppedApp(*script)
    bare.finish()
    scope_before = None

    async def keeping(scope: Any, receive: Any, send: Any) -> None:
        nonlocal scope_before
        scope_before = scope
        assert await receive() == {"type": "http.request", "body": b"body", "more_body": False}
        await bare(scope, receive, send)

    app = DedupMiddleware(keeping, dedup=make_dedup(Rule("/x", invalidates=["x"])))
    one = await get(app, "/x", "POST", [(b"if-none-match", b"*")], body=b"body")

    assert one.messages == script
    assert scope_before is one.scope


# -- a caller reads its own writes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["/x", "/x?a=1", "/elsewhere"])
@pytest.mark.parametrize("identity", ["separate", "credentials", "shared"])
@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_slow_get_then_the_same_callers_post_then_get_sees_the_write(
    ttl: int, identity: str, written: str, make_dedup: MakeDedup
) -> None:
    notebook = Notebook()
    dedup = make_dedup(default=Rule(ttl=ttl, identity=identity))
    app = DedupMiddleware(notebook, dedup=dedup)
    before = await slow_get(app, notebook, headers=ALICE)
    await get(app, written, "POST", ALICE)

    after = call(app, "/x", "GET", ALICE)
    await until(lambda: notebook.reads == 2)
    notebook.gate.set()
    await asyncio.gather(before.task, after.task)

    assert (before.body, after.body) == (b"old", b"new")
    assert (await get(app, "/x", "GET", ALICE)).body == b"new"


@pytest.mark.parametrize(
    "rule", [Rule(ttl="origin", vary="origin"), Rule.shared_cache()], ids=["cautious", "shared"]
)
async def test_a_callers_write_elsewhere_keeps_nothing_from_being_stored_where_the_origin_says_how_long(
    rule: Rule, make_dedup: MakeDedup
) -> None:
    """Many callers share an address, and what each of them writes must not decide what is cached for the others."""
    reads = GatedApp(lambda *_: (200, [(b"cache-control", b"max-age=60")], b"x"))

    async def site(scope: Any, receive: Any, send: Any) -> None:
        await (respond(send, b"written") if scope["method"] == "POST" else reads(scope, receive, send))

    app = DedupMiddleware(site, dedup=make_dedup(default=rule))
    before = call(app, "/a")
    await settle()
    await get(app, "/elsewhere", "POST")
    newcomer = call(app, "/a")
    await settle()
    assert reads.runs == 2, "the caller's own write closed the flight to newcomers"
    newcomer.task.cancel()
    reads.gate.set()
    await before.done()

    assert (await get(app, "/a")).header(b"cache-status") == b"dedup; hit; ttl=60"
    assert reads.runs == 2


@pytest.mark.parametrize("written", ["/x", "/elsewhere"])
@pytest.mark.parametrize("status", [200, 204, 303, 500])
async def test_a_follower_reads_its_own_writes_as_well(
    status: int, written: str, make_dedup: MakeDedup
) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(default=Rule(ttl=60, identity="shared")))
    led = await slow_get(app, notebook, headers=ALICE)
    followed = call(app, "/x", "GET", BOB, client="192.0.2.9")
    await settle()
    assert notebook.reads == 1
    await get(app, written, "POST", BOB, client="192.0.2.9")

    after = call(app, "/x", "GET", BOB, client="192.0.2.9")
    await until(lambda: notebook.reads == 2)
    notebook.gate.set()
    await asyncio.gather(led.task, followed.task, after.task)

    assert [one.body for one in (led, followed, after)] == [b"old", b"old", b"new"]


async def test_a_callers_writes_leave_other_callers_their_flights_and_responses(
    make_dedup: MakeDedup,
) -> None:
    notebook = Notebook()
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(notebook, dedup=dedup)
    await get(app, "/stored", "GET", BOB)
    bobs = await slow_get(app, notebook, headers=BOB)
    await get(app, "/elsewhere", "POST", ALICE)

    joined = call(app, "/x", "GET", BOB)
    await settle()
    assert notebook.reads == 2
    notebook.gate.set()
    await asyncio.gather(bobs.task, joined.task)

    assert (bobs.body, joined.body) == (b"old", b"old")
    assert (await get(app, "/x", "GET", BOB)).body == b"old"
    assert notebook.reads == 2
    assert dedup.store.responses == 2


@pytest.mark.parametrize(
    ("writer", "same"),
    [
        ({"headers": [*ALICE, (b"accept", b"x"), (b"x-request-id", b"5")]}, True),
        ({"headers": [*ALICE, (b"cookie", b"_ga=5")]}, True),
        ({"headers": BOB}, False),
        ({"headers": [*ALICE, (b"cookie", b"sid=5")]}, True),  # a write may carry more than a read
        ({"headers": []}, True),  # or less: only what both carry tells them apart
        ({"headers": ALICE, "client": "192.0.2.77"}, False),
        ({"headers": [*ALICE, (b"x-forwarded-for", b"192.0.2.1")]}, True),
        ({"headers": [*ALICE, (b"x-forwarded-for", b"192.0.2.77")]}, False),  # another one behind the proxy
    ],
)
async def test_a_caller_is_its_credentials_and_its_address(
    writer: dict[str, Any], same: bool, make_dedup: MakeDedup
) -> None:
    reader = [*ALICE, (b"x-forwarded-for", b"192.0.2.1")]
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup())
    before = await slow_get(app, notebook, headers=reader)
    await get(app, "/elsewhere", "POST", **writer)

    after = call(app, "/x", "GET", reader)
    await settle()
    notebook.gate.set()
    await asyncio.gather(before.task, after.task)

    assert after.body == (b"new" if same else b"old")


async def test_what_a_function_of_the_callers_request_read_before_its_write_is_not_served_after_it(
    make_dedup: MakeDedup,
) -> None:
    notebook = Notebook()
    dedup = make_dedup(default=Rule(ttl=60))

    async def read() -> bytes:
        notebook.reads += 1
        text = notebook.text
        await notebook.gate.wait()
        return text

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await notebook(scope, receive, send)
        else:
            await respond(send, await dedup.call("text", read))

    app = DedupMiddleware(bare, dedup=dedup)
    before = await slow_get(app, notebook)
    await get(app, "/x", "POST")
    after = call(app, "/x")
    await settle()
    notebook.gate.set()
    await asyncio.gather(before.task, after.task)

    assert (before.body, after.body) == (b"old", b"new")
    assert (await get(app, "/x")).body == b"new"


# -- a commit after the last byte ------------------------------------------------------------------------------------


class Session:
    """A database session that commits when it is told to."""

    committed = b"old"
    commit: asyncio.Event
    at_commit: asyncio.Event

    def __init__(self) -> None:
        self.text = Session.committed


async def session() -> AsyncIterator[Session]:
    one = Session()
    yield one
    if one.text != Session.committed:
        Session.at_commit.set()
        await Session.commit.wait()
        Session.committed = one.text


@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_commit_after_the_last_byte_never_leaves_a_stale_answer(
    ttl: int, make_dedup: MakeDedup
) -> None:
    Session.committed = b"old"
    Session.commit, Session.at_commit = asyncio.Event(), asyncio.Event()
    api = FastAPI()

    @api.get("/x")
    async def read(one: Annotated[Session, Depends(session)]) -> PlainTextResponse:
        return PlainTextResponse(one.text)

    @api.post("/x")
    async def write(one: Annotated[Session, Depends(session)]) -> PlainTextResponse:
        one.text = b"new"
        return PlainTextResponse(b"written")

    app = DedupMiddleware(api, dedup=make_dedup(default=Rule(ttl=ttl)))
    writing = call(app, "/x", "POST")
    await Session.at_commit.wait()
    await settle()
    assert writing.complete, "this framework commits before the last byte: the test shows nothing"
    between = await get(app, "/x", "GET", BOB)
    stored_between = await get(app, "/x", "GET", BOB)
    Session.commit.set()
    await writing.done()

    assert (between.body, stored_between.body) == (b"old", b"old")
    assert (await get(app, "/x", "GET", BOB)).body == b"new"
    assert (await get(app, "/x")).body == b"new"


@pytest.mark.parametrize("commit_at", range(5))
async def test_wherever_a_write_commits_a_read_that_began_before_its_end_is_not_served_after_it(
    commit_at: int, make_dedup: MakeDedup
) -> None:
    state = {"text": b"old"}

    def commit() -> None:
        state["text"] = b"new"

    script: list[Any] = [None, head(201), chunk(b"a"), chunk(b"b", more=False), None]
    script.insert(commit_at + 1, commit)
    writer = SteppedApp(*script)

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await writer(scope, receive, send)
        else:
            await respond(send, state["text"])

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60, identity="shared")))
    writing = call(app, "/x", "POST")
    await until(lambda: bool(writer.runs))
    for _ in script:
        writer.step()
        await settle()
        read = await get(app, "/x", "GET", BOB)
        if writing.started and commit_at == 0:
            assert read.body == b"new"  # what was committed before the head, everybody sees after the head
    await writing.done()

    assert (await get(app, "/x", "GET", BOB)).body == b"new"


async def test_an_unsafe_request_invalidates_before_its_head_goes_out_and_again_at_its_end(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    writer = SteppedApp(head(200), chunk(b"", more=False), None)
    reader = GatedApp(opened=True)

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await (writer if scope["method"] == "POST" else reader)(scope, receive, send)

    app = DedupMiddleware(bare, dedup=dedup)
    bodies = [(await get(app, "/x")).body]
    writing = call(app, "/x", "POST")
    await until(lambda: bool(writer.runs))
    bodies.append((await get(app, "/x")).body)
    seen_at_head: list[int] = []
    sent = writing._send

    async def looking(message: Any) -> None:
        seen_at_head.append(dedup.store.responses)
        await sent(message)

    writing._send = looking  # type: ignore[method-assign] # a spy on this one client
    writer.step()
    await until(lambda: writing.started)
    bodies += [(await get(app, "/x")).body for _ in range(2)]
    writer.step(2)
    await writing.done()
    bodies.append((await get(app, "/x")).body)

    assert bodies == [b"run 1", b"run 1", b"run 2", b"run 2", b"run 3"]


# -- which ends invalidate -------------------------------------------------------------------------------------------

ENDS: dict[str, list[Any]] = {
    "nothing sent": [],
    "an exception before the head": [OSError("no")],
    "an exception after a 200": [head(200), OSError("no")],
    "an exception after a 404": [head(404), OSError("no")],
    "an exception after the last byte": [head(200), chunk(more=False), OSError("no")],
    "a base exception": [asyncio.CancelledError()],
    **{
        str(status): [head(status), chunk(more=False)]
        for status in (200, 201, 202, 204, 206, 302, 303, 304, 307, 500, 502, 503)
    },
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("by", ["target", "tag"])
async def test_an_end_that_may_have_committed_invalidates(end: str, by: str, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    writer = SteppedApp(*ENDS[end])
    writer.finish()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            notebook.text = b"new"
            await writer(scope, receive, send)
        else:
            await notebook(scope, receive, send)

    dedup = make_dedup(Rule("/w/{n}", invalidates=["n:{n}"]), Rule("/x/{n}", ttl=60, tags=["n:{n}"]))
    app = DedupMiddleware(bare, dedup=dedup)
    assert (await get(app, "/x/5", "GET", BOB)).body == b"old"
    flying = await slow_get(app, notebook, "/x/5", [*BOB, (b"accept", b"other")])
    writing = call(app, "/w/5" if by == "tag" else "/x/5", "POST", ALICE)
    await asyncio.gather(writing.task, return_exceptions=True)

    newcomer = call(app, "/x/5", "GET", [*BOB, (b"accept", b"other")])
    await settle()
    notebook.gate.set()
    await asyncio.gather(flying.task, newcomer.task)
    assert newcomer.body == b"new"
    assert (await get(app, "/x/5", "GET", BOB)).body == b"new"


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ([(memoryview(b"location"), memoryview(b"/y"))], True),
        ([[bytearray(b"Location"), bytearray(b"/y")]], True),
        (((name, b"/y") for name in (b"location",)), True),
        ([(b"x", b"y", b"z"), (b"location", b"/y")], True),
        ([("location", "/y"), (b"x", 5), None], False),
    ],
    ids=["memoryview", "bytearray", "generator", "three parts", "no bytes"],
)
async def test_whatever_the_fields_of_a_writes_answer_are_it_goes_out_and_invalidates(
    headers: Any, elsewhere: bool, make_dedup: MakeDedup
) -> None:
    """ASGI allows any buffers, and what it does not allow is the server's to refuse."""

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(chunk(b"written", more=False))
        else:
            await respond(send, b"read")

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    for target in ("/x", "/y"):
        await get(app, target)

    assert (await get(app, "/x", "POST")).body == b"written"
    stored = [(await get(app, target)).header(b"age") for target in ("/x", "/y")]
    assert stored == [None, None if elsewhere else b"0"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 429, 499])
async def test_a_4xx_invalidates_nothing(status: int, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    writer = SteppedApp(head(status), chunk(b"no", more=False))
    writer.finish()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await (writer if scope["method"] == "POST" else notebook)(scope, receive, send)

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    await get(app, "/x")
    flying = await slow_get(app, notebook, "/x?2")
    assert (await get(app, "/x", "POST")).status == status

    joining = call(app, "/x?2")
    await settle()
    notebook.gate.set()
    await asyncio.gather(flying.task, joining.task)
    assert (await get(app, "/x")).body == b"old"
    assert notebook.reads == 2


UNMOVED = Rule(ttl=60, invalidate_on_error=False)


@pytest.mark.parametrize(
    ("end", "rule", "body"),
    [
        ([head(500), chunk(more=False)], UNMOVED, b"old"),
        ([head(503), chunk(more=False)], UNMOVED, b"old"),
        ([head(599), chunk(more=False)], UNMOVED, b"old"),
        ([head(404), chunk(more=False)], UNMOVED, b"old"),
        ([head(500), chunk(more=False)], Rule(ttl=60), b"new"),
        ([head(200), chunk(more=False)], UNMOVED, b"new"),
        ([head(303), chunk(more=False)], UNMOVED, b"new"),
        ([OSError("no")], UNMOVED, b"new"),
        ([head(500), chunk(more=False), OSError("no")], UNMOVED, b"new"),
        ([asyncio.CancelledError()], UNMOVED, b"new"),
    ],
)
async def test_a_5xx_invalidates_nothing_where_the_rules_that_store_there_say_so(
    end: list[Any], rule: Rule, body: bytes, make_dedup: MakeDedup
) -> None:
    # RFC 9111 s.4.4: a non-error status; what an exception or a cancellation has done nobody knows
    notebook, writer = Notebook(), SteppedApp(*end)
    notebook.gate.set()
    writer.finish()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await (writer if scope["method"] == "POST" else notebook)(scope, receive, send)

    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    await get(app, "/x")
    notebook.text = b"new"
    await asyncio.gather(call(app, "/x", "POST").task, return_exceptions=True)

    assert (await get(app, "/x")).body == body


@pytest.mark.parametrize("after", range(3))
async def test_a_write_that_the_server_cancels_invalidates(after: int, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    writer = SteppedApp(head(200 if after else 404), chunk(b"a"), None, chunk(b"b", more=False))

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await (writer if scope["method"] == "POST" else notebook)(scope, receive, send)

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    writing = call(app, "/x", "POST")
    writer.step(after)
    await until(lambda: writer.began == after)
    await settle()
    await get(app, "/x")
    notebook.text = b"new"
    writing.cancel()
    await asyncio.gather(writing.task, return_exceptions=True)

    assert (await get(app, "/x")).body == b"new"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "HEAD", "QUERY"])
async def test_a_safe_request_invalidates_nothing(method: str, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(default=Rule(ttl=60)))
    await get(app, "/x")

    if method in ("OPTIONS", "TRACE"):
        app.app = GatedApp(opened=True)
    await get(app, "/x", method)
    app.app = notebook

    assert (await get(app, "/x")).body == b"old"
    assert notebook.writes == 0


@pytest.mark.parametrize("method", ["PROPPATCH", "LOCK", "X-OWN", "post"])
async def test_a_method_that_nobody_knows_invalidates(method: str, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(default=Rule(ttl=60)))
    await get(app, "/x")

    await get(app, "/x", method)

    assert (await get(app, "/x")).body == b"new"


# -- what a write's target is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "written"),
    [
        ({"target": "/x"}, {"target": "/x?force=1"}),
        ({"target": "/x?page=2"}, {"target": "/x"}),
        ({"target": "/x?page=2&a"}, {"target": "/x?page=3"}),
        (
            {"target": "/x", "headers": [(b"host", b"example.test")]},
            {"target": "/x", "headers": [(b"Host", b"EXAMPLE.test")]},
        ),
        ({"target": "/x", "scheme": "https"}, {"target": "/x", "scheme": "http"}),
        ({"target": "/x"}, {"target": "/x", "http_version": "2"}),
        ({"target": "/a%20b", "path": "/a b"}, {"target": "/a%20b?x", "path": "/a b"}),
        ({"target": "/x", "headers": BOB}, {"target": "/x", "headers": ALICE, "client": "192.0.2.5"}),
    ],
)
@pytest.mark.parametrize("flying", [False, True])
async def test_a_write_invalidates_its_target_whatever_the_query_scheme_version_or_caller(
    flying: bool, read: dict[str, Any], written: dict[str, Any], make_dedup: MakeDedup
) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(default=Rule(ttl=60)))

    def ask(method: str, request: dict[str, Any]) -> Call:
        return call(app, request["target"], method, **{k: v for k, v in request.items() if k != "target"})

    if flying:
        notebook.gate.clear()
    first = ask("GET", read)
    await until(lambda: notebook.reads == 1)
    if not flying:
        await first.done()
    await ask("POST", written).done()
    again = ask("GET", read)
    await settle()
    notebook.gate.set()
    await asyncio.gather(first.task, again.task)

    assert (first.body, again.body) == (b"old", b"new")


@pytest.mark.parametrize("target", ["/x/", "/X", "/x/y", "/", "/xx"])
async def test_a_write_leaves_other_targets_alone(target: str, make_dedup: MakeDedup) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(default=Rule(ttl=60)))
    await get(app, "/x")

    await get(app, target, "POST", ALICE)

    assert (await get(app, "/x")).body == b"old"


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/x", ttl=60, identity="shared"),
        Rule("/x", ttl=60, identity="credentials", vary=[]),
        Rule("/{any}", ttl=60, tags=["unrelated"]),
        Rule("/x", ttl=60, vary="origin"),
    ],
)
async def test_a_write_invalidates_its_target_under_any_rule_and_identity(
    rule: Rule, make_dedup: MakeDedup
) -> None:
    notebook = Notebook()
    app = DedupMiddleware(notebook, dedup=make_dedup(rule))
    await get(app, "/x", "GET", BOB if rule.identity != "separate" else ())
    flying = await slow_get(app, notebook, "/x?2")

    await get(app, "/x", "POST", ALICE, client="192.0.2.5")

    newcomer = call(app, "/x?2")
    await settle()
    notebook.gate.set()
    await asyncio.gather(flying.task, newcomer.task)
    assert newcomer.body == b"new"
    assert (await get(app, "/x", "GET", BOB if rule.identity != "separate" else ())).body == b"new"


BYPASSED: dict[str, dict[str, Any]] = {
    "a rule that is off": {"target": "/off"},
    "an upgrade": {"headers": [(b"connection", b"upgrade"), (b"upgrade", b"h2c")]},
    "a precondition": {"headers": [(b"if-match", b'"v1"')]},
    "two credentials": {"headers": [(b"authorization", b"a"), (b"authorization", b"b")]},
    "a large body": {"body": b"x" * 100_000},
    "a strange length": {"headers": [(b"content-length", b"nonsense")]},
    "an unencodable scope": {"weird": object()},
    "a control character in the query": {"target": "/x?a=\x01"},
}


@pytest.mark.parametrize("kind", BYPASSED)
async def test_a_write_that_is_bypassed_for_another_reason_invalidates_as_well(
    kind: str, make_dedup: MakeDedup
) -> None:
    request = {"target": "/x", **BYPASSED[kind]}
    target = request.pop("target")
    path = target.partition("?")[0]
    notebook = Notebook()
    dedup = make_dedup(
        Rule("/off", methods=["POST"], collapse=True, mode="off", name="unwritten"), default=Rule(ttl=60)
    )
    if kind == "a rule that is off":
        dedup = make_dedup(Rule("/off", methods=["POST"], mode="off"), default=Rule(ttl=60))
    app = DedupMiddleware(notebook, dedup=dedup)
    await get(app, path)

    await get(app, target, "POST", **request)

    assert (await get(app, path)).body == b"new"


async def test_a_post_that_is_declared_safe_invalidates_nothing(make_dedup: MakeDedup) -> None:
    bare = GatedApp(opened=True)
    dedup = make_dedup(
        Rule("/search", methods=["GET"], ttl=60), Rule("/search", methods=["POST"], collapse=True, ttl=60)
    )
    app = DedupMiddleware(bare, dedup=dedup)

    bodies = [(await get(app, "/search", method, body=b"")).body for method in ("GET", "POST") * 3]

    assert bodies == [b"run 1", b"run 2"] * 3


# -- tags ------------------------------------------------------------------------------------------------------------


async def test_a_rules_invalidates_drops_what_carries_the_tag_of_these_parameters_alone(
    make_dedup: MakeDedup,
) -> None:
    bare = GatedApp(opened=True)
    dedup = make_dedup(
        Rule("/git/{repo}/commit", invalidates=["git:{repo}", "commits"]),
        Rule("/git/{repo}/{what}", ttl=60, tags=["git:{repo}"]),
        Rule("/commits", ttl=60, tags=["commits"]),
    )
    app = DedupMiddleware(bare, dedup=dedup)
    targets = ["/git/a/status", "/git/a/branch", "/git/b/status", "/commits"]
    for target in targets:
        await get(app, target)

    await get(app, "/git/a/commit", "POST")

    found = [(await get(app, target)).body for target in targets]
    assert found == [b"run 6", b"run 7", b"run 3", b"run 8"]


async def test_invalidate_drops_routes_and_functions_under_one_tag_and_counts_them(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(Rule("/x/{n}", ttl=60, tags=["n:{n}"]))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    ran = []

    async def work() -> int:
        ran.append(1)
        return len(ran)

    for target in ("/x/1", "/x/1?a", "/x/2"):
        await get(app, target)
    await dedup.call("k", work, ttl=60, tags=["n:1"])

    assert await dedup.invalidate("n:1", "n:9") == 3
    assert await dedup.invalidate("n:1") == 0
    assert await dedup.invalidate() == 0
    assert await dedup.call("k", work, ttl=60, tags=["n:1"]) == 2
    assert (await get(app, "/x/2")).body == b"run 3"
    assert dedup.stats().invalidated == 3


@pytest.mark.parametrize("wrong", [["n:1"], ("n:1",), 5, None, b"n:1"])
async def test_invalidate_refuses_what_is_no_tag(wrong: Any, make_dedup: MakeDedup) -> None:
    # A list handed over whole would invalidate nothing, and nobody would notice.
    with pytest.raises(TypeError):
        await make_dedup().invalidate(wrong)


async def test_the_cost_of_an_invalidation_does_not_depend_on_what_else_is_stored(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(Rule("/x/{n}", ttl=60, tags=["n:{n}"], max_responses=5000))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    steps = []
    for number in range(2000):
        await get(app, f"/x/{number}")
        if number in (10, 1999):
            count = 0

            def counting(frame: Any, event: str, argument: Any) -> None:
                nonlocal count
                count += 1

            sys.setprofile(counting)
            await dedup.invalidate(f"n:{number}")
            sys.setprofile(None)
            steps.append(count)

    assert steps[0] == steps[1]
    assert dedup.store.responses == 1998


# -- what only the response tells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by code", "by a write"])
@pytest.mark.parametrize("ttl", [0, 60])
async def test_who_joins_after_a_group_was_invalidated_never_gets_what_was_begun_before(
    make_dedup: MakeDedup, how: str, ttl: int
) -> None:
    """The flight's head is not there yet, so that nobody knows to which groups it belongs (RFC 9875 s.2)."""
    version, gate = [0], asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            version[0] += 1
            await send(head(200, [(b"cache-group-invalidation", b'"catalogue"')]))
            await send(chunk(b"", more=False))
            return
        now = version[0]
        await gate.wait()
        await send(head(200, [(b"cache-groups", b'"catalogue"')]))
        await send(chunk(b"version %d" % now, more=False))

    dedup = make_dedup(Rule("/a", ttl=ttl))
    site = DedupMiddleware(app, dedup=dedup)
    before = [call(site, "/a") for _ in range(2)]
    await settle()
    if how == "by code":
        version[0] += 1
        await dedup.invalidate("catalogue")
    else:
        await get(site, "/other", method="POST", client=("10.9.9.9", 1))
    after = [call(site, "/a") for _ in range(3)]
    await settle()
    gate.set()

    assert {(await one.done()).body for one in after} == {b"version 1"}
    assert (await before[0].done()).body == b"version 0", "it was begun before"
    await before[1].done()


async def test_who_joined_after_a_group_was_invalidated_asks_anew_whatever_else_is_invalidated_later(
    make_dedup: MakeDedup,
) -> None:
    runs, gate = [0], asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs[0] += 1
        run = runs[0]
        await gate.wait()
        await send(head(200, [(b"cache-groups", b'"g"')]))
        await send(chunk(b"run %d" % run, more=False))

    dedup = make_dedup(Rule("/a", ttl=60, tags=["t"]))
    site = DedupMiddleware(app, dedup=dedup)
    before = call(site, "/a")
    await settle()
    await dedup.invalidate("g")
    after = call(site, "/a")
    await settle()
    await dedup.invalidate("t")
    gate.set()

    assert (await after.done()).body == b"run 2"
    assert (await before.done()).body == b"run 1"


async def test_a_stored_response_never_stands_in_after_its_group_was_invalidated(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    statuses, gate = [200], asyncio.Event()
    gate.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = statuses.pop() if statuses else 503
        await gate.wait()
        await send(head(status, [(b"cache-groups", b'"g"')]))
        await send(chunk(b"old" if status == 200 else b"broken", more=False))

    dedup = make_dedup(Rule("/a", ttl=10, stale_if_error=60))
    site = DedupMiddleware(app, dedup=dedup)
    await get(site, "/a")
    clock.advance(11)
    gate.clear()
    one = call(site, "/a")
    await settle()
    await dedup.invalidate("g")
    gate.set()

    assert (await one.done()).status == 503


# -- every await of a fill -------------------------------------------------------------------------------------------

FILL = ["body", "start", "read", "before head", "after head", "between chunks", "after last", "background"]


class Filling:
    """A reader that waits at each await of a fill, so that something may happen there."""

    def __init__(self) -> None:
        self.text = b"old"
        self.reads = 0
        self.at: dict[str, asyncio.Event] = {point: asyncio.Event() for point in FILL}
        self.go: dict[str, asyncio.Event] = {point: asyncio.Event() for point in FILL}

    def open(self) -> None:
        for gate in self.go.values():
            gate.set()

    async def pause(self, point: str) -> None:
        self.at[point].set()
        await self.go[point].wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await respond(send, b"written")
            return
        await self.pause("start")
        self.reads += 1
        text = self.text
        await self.pause("read")
        await self.pause("before head")
        await send(head())
        await self.pause("after head")
        await send(chunk(text))
        await self.pause("between chunks")
        await send(chunk(b"!", more=False))
        await self.pause("after last")
        await self.pause("background")


def invalidations(dedup: Dedup, app: Any) -> dict[str, Callable[[], Awaitable[object]]]:
    async def clear() -> None:
        dedup.clear()

    async def switch() -> None:
        dedup.enabled = False
        dedup.enabled = True

    return {
        "invalidate()": lambda: dedup.invalidate("x"),
        "POST to the target": lambda: call(app, "/x", "POST", ALICE).task,
        "POST with the tag": lambda: call(app, "/w", "POST", ALICE).task,
        "clear()": clear,
        "the switch": switch,
    }


@pytest.mark.parametrize("point", FILL)
@pytest.mark.parametrize(
    "how", ["invalidate()", "POST to the target", "POST with the tag", "clear()", "the switch"]
)
async def test_after_an_invalidation_at_any_await_of_a_fill_nothing_older_is_served(
    point: str, how: str, virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    # A purge while a load is under way.
    filling = Filling()
    dedup = make_dedup(
        Rule("/w", invalidates=["x"]), Rule("/x", ttl=60, tags=["x"], methods=["GET", "QUERY"])
    )
    app = DedupMiddleware(filling, dedup=dedup)
    asked = asyncio.Event()

    class SlowBody(Call):
        async def _receive(self) -> Any:
            asked.set()
            await filling.pause("body")
            return await super()._receive()

    from .kit import make_scope

    first = SlowBody(app, make_scope("/x", "QUERY"))
    for passed in FILL[: FILL.index(point)]:
        filling.go[passed].set()
    await filling.at[point].wait()
    if point in ("after last", "background"):
        await virtual_time.go(0.5)
        assert dedup.store.responses == 1

    filling.text = b"new"
    await invalidations(dedup, app)[how]()

    filling.open()
    second = call(app, "/x", "QUERY")
    await asyncio.gather(first.task, second.task)
    third = await get(app, "/x", "QUERY")

    assert second.body == b"new!"
    assert third.body == b"new!"
    assert first.body == (b"old!" if FILL.index(point) > FILL.index("start") else b"new!")
    await dedup.aclose()


async def do_nothing(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_the_order_a_read_sees_every_write_that_ended_before_it(
    seed: int, make_dedup: MakeDedup
) -> None:
    rng = random.Random(seed)
    rule = Rule(
        "/x",
        ttl=rng.choice([0, 60]),
        identity=rng.choice(["separate", "shared"]),
        max_followers=rng.choice([0, 1, 1000]),
    )
    dedup = make_dedup(rule)
    version = 0

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        nonlocal version
        pauses = [rng.randrange(4) for _ in range(5)]
        await do_nothing(pauses[0])
        if scope["method"] == "POST":
            late = scope["query_string"] == b"late"
            if not late:
                version += 1
            await do_nothing(pauses[1])
            await send(head(rng.choice([200, 204, 500])))
            await do_nothing(pauses[2])
            await send(chunk(b"", more=False))
            await do_nothing(pauses[3])
            if late:
                version += 1
            await do_nothing(pauses[4])
            if rng.random() < 0.1:
                raise OSError("late")
            return
        seen = version
        await do_nothing(pauses[1])
        await send(head())
        await do_nothing(pauses[2])
        await send(chunk(b"%d" % seen))
        await do_nothing(pauses[3])
        await send(chunk(b"", more=False))
        await do_nothing(pauses[4])

    app = DedupMiddleware(bare, dedup=dedup)
    done = 0

    async def client(name: int) -> None:
        nonlocal done, version
        own: Pairs = [(b"authorization", b"%d" % name)]
        for _ in range(6):
            await do_nothing(rng.randrange(6))
            choice = rng.random()
            if choice < 0.6:
                needed = done
                seen = int((await get(app, "/x", "GET", own)).body)
                assert seen >= needed, f"saw {seen} after {needed} had been written"
            elif choice < 0.9:
                before = version
                one = call(app, rng.choice(["/x", "/x?late"]), "POST", own)
                if rng.random() < 0.2:
                    await do_nothing(rng.randrange(8))
                    one.cancel()
                await asyncio.gather(one.task, return_exceptions=True)
                done = max(done, version if version > before and one.task.done() else 0)
                done = min(done, version)
            else:
                version += 1
                now = version
                dedup.clear()
                done = max(done, now)

    await asyncio.gather(*(client(name) for name in range(4)))
