"""Stored responses: what is stored, for how long, in how much room, and how it is served."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.stores.memory import MemoryStore

from .kit import (
    Call,
    FakeClock,
    GatedApp,
    SteppedApp,
    VirtualTime,
    call,
    chunk,
    get,
    head,
    make_scope,
    settle,
    until,
)

MakeDedup = Callable[..., Dedup]
Pairs = Iterable[tuple[bytes, bytes]]


def answers(status: int = 200, headers: Pairs = (), body: bytes | None = None) -> GatedApp:
    """An app that answers so, at once; without a body it says which run it was."""
    return GatedApp(lambda _, run: (status, headers, b"run %d" % run if body is None else body), opened=True)


def cache_status(answer: Call) -> bytes:
    found = [value for name, value in answer.headers if name == b"cache-status"]
    assert len(found) == 1
    return found[0]


def outcome(answer: Call) -> str:
    status = cache_status(answer)
    return "hit" if b"; hit" in status else "collapsed" if b"; collapsed" in status else "forwarded"


def held(dedup: Dedup) -> int:
    """What the stored responses are charged for, counted anew."""
    assert isinstance(dedup.store, MemoryStore)
    assert len(dedup.store._live) == dedup.store.responses
    return sum(stored.size for stored in dedup.store._live.values())


# -- what servers give ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left_out",
    ["raw_path", "root_path", "query_string", "scheme", "http_version", "server", "client", "all"],
)
async def test_a_scope_without_what_a_server_need_not_give_is_served_from_the_store(
    left_out: str, make_dedup: MakeDedup
) -> None:
    bare = answers()
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/{x}", ttl=60)))
    names = (
        ("raw_path", "root_path", "query_string", "scheme", "http_version", "server", "client")
        if left_out == "all"
        else (left_out,)
    )

    async def ask(target: str) -> Call:
        one = Call(app, {name: value for name, value in make_scope(target).items() if name not in names}, b"")
        return await one.done()

    told = [outcome(await ask(target)) for target in ("/a", "/a", "/b", "/b")]

    assert told == ["forwarded", "hit", "forwarded", "hit"]
    assert outcome(await get(app, "/a?x=1")) == "forwarded", "with all of it it may be another request"


# -- for how long ----------------------------------------------------------------------------------------------------


async def test_a_response_lives_for_its_ttl_and_says_so(make_dedup: MakeDedup, clock: FakeClock) -> None:
    bare = answers(headers=[(b"content-type", b"text/plain")])
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    told = []
    for wait in (0, 0, 1.5, 58.4, 0.1, 0):
        clock.advance(wait)
        answer = await get(app, "/x")
        told.append((answer.body, cache_status(answer), answer.header(b"age")))

    assert told == [
        (b"run 1", b"dedup; fwd=uri-miss; stored; ttl=60", None),
        (b"run 1", b"dedup; hit; ttl=60", b"0"),
        (b"run 1", b"dedup; hit; ttl=59", b"1"),
        (b"run 1", b"dedup; hit; ttl=1", b"59"),
        (b"run 2", b"dedup; fwd=uri-miss; stored; ttl=60", None),
        (b"run 2", b"dedup; hit; ttl=60", b"0"),
    ]


async def test_without_a_ttl_nothing_is_stored(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()
    app = DedupMiddleware(answers(headers=[(b"cache-control", b"max-age=3600, public")]), dedup=dedup)

    for run in range(1, 4):
        answer = await get(app, "/x")
        assert (answer.body, cache_status(answer)) == (b"run %d" % run, b"dedup; fwd=uri-miss")

    assert dedup.store.responses == 0


async def test_a_hit_is_the_apps_own_response_plus_age_and_cache_status(make_dedup: MakeDedup) -> None:
    fields = [
        (b"Content-Type", b"text/plain"),
        (b"x-twice", b"1"),
        (b"X-Twice", b"2"),
        (b"Cache-Control", b"max-age=5"),
        (b"etag", b'"v1"'),
        (b"date", b"Mon, 01 Jan 2024 00:00:00 GMT"),
    ]
    app = DedupMiddleware(answers(203, fields), dedup=make_dedup(Rule("/x", ttl=60)))

    first, second = await get(app, "/x"), await get(app, "/x")

    assert first.messages == [
        head(203, [*fields, (b"cache-status", b"dedup; fwd=uri-miss; stored; ttl=60")]),
        chunk(b"run 1", more=False),
    ]
    assert second.messages == [
        head(203, [*fields, (b"age", b"0"), (b"cache-status", b"dedup; hit; ttl=60")]),
        chunk(b"run 1", more=False),
    ]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(b"7", b"12"), (b"0", b"5"), (b"x", b"5"), (b"-5", b"5"), (b"", b"5"), (b"9" * 30, b"%d" % (2**31 + 5))],
)
async def test_an_age_that_the_app_sent_counts_and_there_is_one_age(
    sent: bytes, expected: bytes, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    app = DedupMiddleware(answers(headers=[(b"Age", sent)]), dedup=make_dedup(Rule("/x", ttl=60)))
    await get(app, "/x")
    clock.advance(5)

    hit = await get(app, "/x")

    assert [value for name, value in hit.headers if name.lower() == b"age"] == [expected]


@pytest.mark.parametrize(
    "said",
    [
        b"max-age=0",
        b"no-cache",
        b"s-maxage=0, must-revalidate",
        b"max-age=1",
        b"private",
        b'private="x-a"',
        b"public",
    ],
)
async def test_a_rules_ttl_overrides_the_apps_lifetime(
    said: bytes, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    fields = [(b"cache-control", said), (b"expires", b"Thu, 01 Jan 1970 00:00:00 GMT")]
    bare = answers(headers=fields)
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    await get(app, "/x")
    clock.advance(59)

    assert outcome(await get(app, "/x")) == "hit"


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ([(b"cache-control", b"no-store")], "separate"),
        ([(b"Cache-Control", b"max-age=60"), (b"cache-control", b'foo="a, b", No-Store')], "separate"),
        ([(b"cdn-cache-control", b"no-store")], "separate"),
        ([(b"surrogate-control", b"no-store")], "separate"),
        ([(b"cache-control", b"private")], "shared"),
        ([(b"cache-control", b'private="set-cookie')], "shared"),
        ([(b"set-cookie", b"sid=1")], "separate"),
        ([(b"vary", b"accept, *")], "separate"),
        ([(b"content-type", b"text/event-stream")], "separate"),
        ([(b"content-security-policy", b"script-src 'nonce-abc'")], "separate"),
        ([(b"content-security-policy", b"script-src 'nonce-abc'")], "shared"),
        ([(b"www-authenticate", b"Basic"), (b"authentication-info", b"x")], "separate"),
    ],
)
async def test_a_rules_ttl_overrides_nothing_else(
    fields: list[tuple[bytes, bytes]], identity: str, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup(Rule("/x", ttl=60, identity=identity))
    app = DedupMiddleware(answers(headers=fields), dedup=dedup)

    bodies = [(await get(app, "/x")).body for _ in range(3)]

    assert bodies == [b"run 1", b"run 2", b"run 3"]
    assert dedup.store.responses == 0


STORED = {200, 203, 204, 300, 301, 308}
NEGATIVE = {404, 410, 500, 502, 503, 599}
NEVER = {201, 202, 205, 206, 207, 302, 303, 304, 307, 400, 401, 403, 405, 407, 409, 418, 429, 451}


@pytest.mark.parametrize("status", sorted(STORED | NEGATIVE | NEVER))
@pytest.mark.parametrize("rule", [{"ttl": 60}, {"ttl": 60, "negative_ttl": 5}, {"negative_ttl": 5}])
async def test_which_statuses_are_stored_and_for_how_long(
    status: int, rule: dict[str, Any], make_dedup: MakeDedup, clock: FakeClock
) -> None:
    lifetime = rule.get("ttl", 0) if status in STORED else rule.get("negative_ttl", 0)
    lifetime = 0 if status in NEVER else lifetime
    bare = answers(status, body=b"")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", **rule)))

    first = await get(app, "/x")
    assert (first.status, b"; stored" in cache_status(first)) == (status, bool(lifetime))
    clock.advance(max(lifetime - 0.001, 0))
    again = await get(app, "/x")
    assert (again.status, bare.runs) == (status, 1 if lifetime else 2)
    clock.advance(0.001)
    assert (await get(app, "/x")).status == status
    assert bare.runs == (2 if lifetime else 3)


async def test_an_exception_is_never_stored(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x", ttl=60, negative_ttl=60))
    bare = SteppedApp(OSError("no"))
    bare.finish()
    app = DedupMiddleware(bare, dedup=dedup)

    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            await get(app, "/x")

    assert bare.runs == 3
    assert dedup.store.responses == 0


# -- at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 2, 7])
async def test_an_immediate_repeat_is_a_hit(chunks: int, make_dedup: MakeDedup) -> None:
    pieces = [b"piece %d;" % number for number in range(chunks)]
    bare = SteppedApp(head(), *(chunk(piece, more=piece != pieces[-1]) for piece in pieces))
    bare.finish()
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))

    first, second = await get(app, "/x"), await get(app, "/x")

    assert first.body == second.body == b"".join(pieces)
    assert second.messages[1:] == [chunk(b"".join(pieces), more=False)]
    assert (bare.runs, outcome(second)) == (1, "hit")


@pytest.mark.parametrize("kind", ["plain", "stream"])
async def test_a_repeat_while_the_background_task_runs_does_not_run_the_app_again(
    kind: str, virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    release = asyncio.Event()
    runs = []

    async def endpoint(request: Any) -> Any:
        runs.append(1)
        task = BackgroundTask(release.wait)
        if kind == "plain":
            return PlainTextResponse("body", background=task)
        return StreamingResponse(iter(["bo", "dy"]), background=task)

    dedup = make_dedup(Rule("/x", ttl=60))
    app = DedupMiddleware(Starlette(routes=[Route("/x", endpoint)]), dedup=dedup)
    first = call(app, "/x")
    await until(lambda: first.complete)
    landed = call(app, "/x")
    await until(lambda: landed.complete)
    await virtual_time.go(0.5)
    stored = await get(app, "/x")

    assert (landed.body, outcome(landed)) == (b"body", "collapsed")
    assert (stored.body, outcome(stored)) == (b"body", "hit")
    assert not first.task.done()
    release.set()
    await asyncio.gather(first.done(), landed.done())
    assert len(runs) == 1


async def test_an_error_after_the_last_byte_takes_the_stored_response_back(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    bare = SteppedApp(head(), chunk(b"half", more=False), OSError("and then"))
    dedup = make_dedup(Rule("/x", ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    first = call(app, "/x")
    bare.step(2)
    await until(lambda: first.complete)
    await virtual_time.go(0.5)
    assert dedup.store.responses == 1
    bare.step()
    with pytest.raises(OSError, match="and then"):
        await first.done()

    assert dedup.store.responses == 0
    assert dedup.store.size == 0


@pytest.mark.parametrize(
    "script",
    [
        [head(), chunk(b"a"), OSError("no more")],
        [head(), chunk(b"a")],
        [head()],
        [head(200, [(b"content-length", b"5")]), chunk(b"abc", more=False)],
        [head(200, [(b"content-length", b"2")]), chunk(b"abc", more=False)],
    ],
)
async def test_what_is_not_whole_is_never_stored(script: list[Any], make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x", ttl=60))
    bare = SteppedApp(*script)
    bare.finish()
    app = DedupMiddleware(bare, dedup=dedup)

    for runs in range(1, 3):
        one = call(app, "/x")
        await asyncio.gather(one.task, return_exceptions=True)
        assert bare.runs == runs

    assert dedup.store.responses == 0


async def test_nobody_who_holds_a_message_can_change_what_is_stored(make_dedup: MakeDedup) -> None:
    # What is stored is no object that a request still owns.
    fields = [(b"x-a", b"1")]
    body = bytearray(b"body")

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        body[:] = b"EVIL"
        fields.append((b"x-evil", b"1"))
        await send({"type": "http.response.body", "body": memoryview(b"!"), "more_body": False})

    inner = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def adding(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).append("x-outer", "1")
            await send(message)

        await inner(scope, receive, adding)

    first = await get(outer, "/x")
    hits = [await get(outer, "/x") for _ in range(3)]

    assert first.body == b"body!"
    for hit in hits:
        assert hit.body == b"body!"
        assert hit.headers == [
            (b"x-a", b"1"),
            (b"age", b"0"),
            (b"cache-status", b"dedup; hit; ttl=60"),
            (b"x-outer", b"1"),
        ]


async def test_fields_of_one_connection_or_exchange_are_not_stored(make_dedup: MakeDedup) -> None:
    dropped = [
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"X-Request-Id", b"abc"),
        (b"Server-Timing", b"db;dur=5"),
        (b"traceresponse", b"00-x"),
    ]
    app = DedupMiddleware(
        answers(headers=[*dropped, (b"x-kept", b"1")]), dedup=make_dedup(Rule("/x", ttl=60))
    )

    first, hit = await get(app, "/x"), await get(app, "/x")

    assert first.headers[:-1] == [*dropped, (b"x-kept", b"1")]
    assert hit.headers == [(b"x-kept", b"1"), (b"age", b"0"), (b"cache-status", b"dedup; hit; ttl=60")]


# -- HEAD ------------------------------------------------------------------------------------------------------------


async def test_a_head_is_answered_from_a_stored_get(make_dedup: MakeDedup, clock: FakeClock) -> None:
    fields = [(b"content-length", b"5"), (b"etag", b'"v1"')]
    bare = answers(headers=fields, body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    await get(app, "/x")
    clock.advance(3)

    answer = await get(app, "/x", "HEAD")

    assert answer.messages == [
        head(200, [*fields, (b"age", b"3"), (b"cache-status", b"dedup; hit; ttl=57")]),
        chunk(b"", more=False),
    ]
    assert bare.runs == 1


async def test_a_head_before_the_get_leaves_the_get_its_body(make_dedup: MakeDedup) -> None:
    def by_method(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [(b"content-length", b"5")], b"" if scope["method"] == "HEAD" else b"12345"

    bare = GatedApp(by_method, opened=True)
    dedup = make_dedup(Rule("/x", ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)

    first = await get(app, "/x", "HEAD")
    assert (first.body, first.header(b"content-length"), dedup.store.responses) == (b"", b"5", 0)
    assert [(await get(app, "/x")).body for _ in range(2)] == [b"12345", b"12345"]
    assert (await get(app, "/x", "HEAD")).body == b""
    assert [scope["method"] for scope in bare.scopes] == ["HEAD", "GET"]


async def test_a_head_and_a_get_at_once_never_share_a_flight(make_dedup: MakeDedup) -> None:
    bare = GatedApp(lambda scope, run: (200, [], b"" if scope["method"] == "HEAD" else b"12345"))
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    calls = [call(app, "/x", method) for method in ("HEAD", "GET", "HEAD", "GET")]
    await until(lambda: bare.runs == 2)
    bare.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert [one.body for one in calls] == [b"", b"12345", b"", b"12345"]
    assert bare.runs == 2


@pytest.mark.parametrize("rule", [Rule("/x", methods=["HEAD"]), Rule("/x", methods=["GET", "HEAD"])])
async def test_a_head_forwards_where_no_get_is_stored(rule: Rule, make_dedup: MakeDedup) -> None:
    bare = answers()
    app = DedupMiddleware(bare, dedup=make_dedup(rule))
    await get(app, "/x")

    await get(app, "/x", "HEAD")

    assert [scope["method"] for scope in bare.scopes] == ["GET", "HEAD"]


# -- 304 -------------------------------------------------------------------------------------------------------------

MODIFIED = b"Tue, 15 Nov 1994 12:45:26 GMT"
VALIDATED = [
    (b"etag", b'"v1"'),
    (b"last-modified", MODIFIED),
    (b"content-type", b"text/plain"),
    (b"content-length", b"5"),
    (b"cache-control", b"max-age=5"),
    (b"vary", b"accept"),
    (b"x-own", b"1"),
]
MATCHING: list[list[tuple[bytes, bytes]]] = [
    [(b"if-none-match", b'"v1"')],
    [(b"If-None-Match", b'W/"v1"')],
    [(b"if-none-match", b'"v0", W/"v1" , "v2"')],
    [(b"if-none-match", b'"a,b","v1"')],
    [(b"if-none-match", b'"v0"'), (b"if-none-match", b'"v1"')],
    [(b"if-none-match", b"*")],
    [(b"if-modified-since", MODIFIED)],
    [(b"if-modified-since", b"Wed, 16 Nov 1994 12:45:26 GMT")],
    [(b"if-none-match", b'"v1"'), (b"if-modified-since", b"Mon, 14 Nov 1994 12:45:26 GMT")],
]
DIFFERING: list[list[tuple[bytes, bytes]]] = [
    [(b"if-none-match", b'"v2"')],
    [(b"if-none-match", b"v1")],
    [(b"if-none-match", b'"v1')],
    [(b"if-none-match", b'w/"v1"')],
    [(b"if-none-match", b'"v0 "v1"')],
    [(b"if-none-match", b"")],
    [(b"if-none-match", b'"v2"'), (b"if-modified-since", MODIFIED)],
    [(b"if-modified-since", b"Mon, 14 Nov 1994 12:45:26 GMT")],
    [(b"if-modified-since", b"yesterday")],
    [(b"if-modified-since", b"Tue, 15 Nov 1994 12:45:26")],
]


@pytest.mark.parametrize("when", ["hit", "miss"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("validators", MATCHING)
async def test_a_matching_validator_is_answered_with_a_304(
    validators: list[tuple[bytes, bytes]], method: str, when: str, make_dedup: MakeDedup
) -> None:
    bare = answers(headers=VALIDATED, body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    if when == "hit":
        await get(app, "/x")

    answer = await get(app, "/x", method, validators)

    kept = [pair for pair in VALIDATED if pair[0] in (b"etag", b"cache-control", b"vary", b"x-own")]
    status = (
        b"dedup; hit; ttl=60"
        if when == "hit"
        else b"dedup; fwd=uri-miss; stored; ttl=60"
        if method == "GET"
        else b"dedup; fwd=uri-miss"
    )
    age = [(b"age", b"0")] if when == "hit" else []
    assert answer.messages == [
        head(304, [*kept, *age, (b"cache-status", status)]),
        chunk(b"", more=False),
    ]
    assert bare.runs == 1


@pytest.mark.parametrize("when", ["hit", "miss"])
async def test_a_304_does_not_leave_out_the_only_validator(when: str, make_dedup: MakeDedup) -> None:
    # RFC 9110 s.15.4.5; a cache in front may not use one that says nothing of what it confirms (RFC 9111 s.4.3.4)
    app = DedupMiddleware(answers(headers=VALIDATED[1:], body=b"12345"), dedup=make_dedup(Rule("/x", ttl=60)))
    if when == "hit":
        await get(app, "/x")

    answer = await get(app, "/x", "GET", [(b"if-modified-since", MODIFIED)])

    assert (answer.status, answer.header(b"last-modified")) == (304, MODIFIED)
    assert answer.header(b"content-type") is None


@pytest.mark.parametrize("when", ["hit", "miss"])
@pytest.mark.parametrize("validators", DIFFERING)
async def test_a_validator_that_does_not_match_is_answered_in_full(
    validators: list[tuple[bytes, bytes]], when: str, make_dedup: MakeDedup
) -> None:
    bare = answers(headers=VALIDATED, body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    if when == "hit":
        await get(app, "/x")

    answer = await get(app, "/x", "GET", validators)

    assert (answer.status, answer.body, bare.runs) == (200, b"12345", 1)


async def test_under_a_rule_that_stores_the_app_never_sees_validators(make_dedup: MakeDedup) -> None:
    bare = answers(headers=VALIDATED, body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    validators = [(b"If-None-Match", b'"v1"'), (b"if-modified-since", MODIFIED), (b"accept", b"a")]

    assert (await get(app, "/x", "GET", validators)).status == 304
    assert (await get(app, "/x", "GET", [(b"accept", b"a")])).body == b"12345"

    (scope,) = bare.scopes
    assert [name for name, _ in scope["headers"]] == [b"host", b"accept"]


async def test_without_a_ttl_validators_are_the_apps_own_affair(make_dedup: MakeDedup) -> None:
    bare = GatedApp(lambda scope, run: (304, [(b"etag", b'"v1"')], b""), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup())

    answer = await get(app, "/x", "GET", [(b"if-none-match", b'"v1"')])

    assert answer.status == 304
    assert (b"if-none-match", b'"v1"') in bare.scopes[0]["headers"]


async def test_leader_and_followers_are_each_answered_by_their_own_validators(
    make_dedup: MakeDedup,
) -> None:
    bare = GatedApp(lambda scope, run: (200, VALIDATED, b"12345"))
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))
    asked: list[Pairs] = [[(b"if-none-match", b'"v1"')], [], [(b"if-none-match", b'"v2"')]]
    calls = [call(app, "/x", "GET", validators) for validators in asked * 2]
    await until(lambda: bare.runs > 0)
    await settle()
    bare.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert [(one.status, one.body) for one in calls] == [(304, b""), (200, b"12345"), (200, b"12345")] * 2
    assert bare.runs == 1


@pytest.mark.parametrize("status", [203, 301, 404])
async def test_only_a_200_becomes_a_304(status: int, make_dedup: MakeDedup) -> None:
    bare = answers(status, headers=VALIDATED, body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60, negative_ttl=60)))

    for _ in range(2):
        answer = await get(app, "/x", "GET", [(b"if-none-match", b"*")])
        assert (answer.status, answer.body) == (status, b"12345")


async def test_a_star_needs_something_to_match_and_a_foreign_tag_matches_nothing(
    make_dedup: MakeDedup,
) -> None:
    # An ETag of /a sent to /b, or to a response without one, is no match (a published package answered 304).
    bare = answers(headers=[(b"etag", b"not-a-tag")], body=b"12345")
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60)))

    for _ in range(2):
        answer = await get(app, "/x", "GET", [(b"if-none-match", b"not-a-tag")])
        assert (answer.status, answer.body) == (200, b"12345")


# -- in how much room ------------------------------------------------------------------------------------------------


async def test_a_rule_keeps_its_last_responses_and_leaves_other_rules_theirs(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/few/{n}", ttl=60, max_responses=3), Rule("/many/{n}", ttl=60))
    app = DedupMiddleware(answers(), dedup=dedup)
    for number in range(10):
        await get(app, f"/many/{number}")
        await get(app, f"/few/{number}")

    assert [outcome(await get(app, f"/many/{n}")) for n in range(10)] == ["hit"] * 10
    assert [outcome(await get(app, f"/few/{n}")) for n in (9, 8, 7)] == ["hit"] * 3
    assert outcome(await get(app, "/few/0")) == "forwarded"
    assert dedup.stats().evicted == 8
    assert dedup.stats().responses == 13


async def test_a_rule_keeps_no_more_than_its_bytes(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x/{n}", ttl=60, max_bytes=20_000), Rule("/y", ttl=60))
    app = DedupMiddleware(answers(body=b"z" * 5000), dedup=dedup)
    await get(app, "/y")
    for number in range(10):
        await get(app, f"/x/{number}")

    assert dedup.store.responses == 4
    assert held(dedup) == dedup.store.size <= 20_000 + 7000
    assert outcome(await get(app, "/y")) == "hit"


async def test_the_store_keeps_no_more_than_its_bytes_and_the_biggest_rule_gives_way(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup(Rule("/busy/{n}", ttl=60), Rule("/quiet", ttl=60), store="memory://?max_bytes=50000")
    app = DedupMiddleware(answers(body=b"z" * 5000), dedup=dedup)
    await get(app, "/quiet")
    for number in range(50):
        await get(app, f"/busy/{number}")
        assert held(dedup) == dedup.store.size <= 50_000

    assert outcome(await get(app, "/quiet")) == "hit"
    assert outcome(await get(app, "/busy/49")) == "hit"


async def test_a_response_over_its_rules_bytes_is_served_and_not_stored(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x", ttl=60, max_bytes=3000))
    app = DedupMiddleware(answers(body=b"z" * 5000), dedup=dedup)

    for _ in range(2):
        answer = await get(app, "/x")
        assert (len(answer.body), outcome(answer)) == (5000, "forwarded")

    assert (dedup.store.responses, dedup.store.evicted) == (0, 0)


async def test_expired_responses_free_their_memory_within_60_seconds_without_being_asked_for(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup(Rule("/short/{n}", ttl=5), Rule("/long", ttl=3600))
    app = DedupMiddleware(answers(body=b"z" * 1000), dedup=dedup)
    await get(app, "/long")
    for number in range(20):
        await get(app, f"/short/{number}")
    assert dedup.store.responses == 21

    await virtual_time.go(5 + 60)

    assert dedup.store.responses == 1
    assert held(dedup) == dedup.store.size
    assert dedup.stats().expired == 20
    await virtual_time.go(3600 + 60)
    assert (dedup.store.responses, dedup.store.size, dedup.stats().expired) == (0, 0, 21)
    await get(app, "/short/1")
    await virtual_time.go(5 + 60)
    assert dedup.store.responses == 0
    await dedup.aclose()


async def test_a_functions_value_frees_its_memory_as_well(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup()

    async def work() -> bytes:
        return b"x" * 1000

    await dedup.call("k", work, ttl=5)
    assert dedup.store.responses == 1
    await virtual_time.go(5 + 60)

    assert (dedup.store.responses, dedup.store.size) == (0, 0)
    await dedup.aclose()


async def test_an_idle_engine_leaves_no_timer_behind(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup(Rule("/x", ttl=5))
    await get(DedupMiddleware(answers(), dedup=dedup), "/x")
    await virtual_time.go(65)

    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


async def test_an_engine_that_nobody_holds_is_not_kept_by_the_loop_for_what_it_has_stored(
    virtual_time: VirtualTime, clock: FakeClock
) -> None:
    app = DedupMiddleware(answers(), rules=[Rule("/x", ttl=86_400)], clock=clock)
    await get(app, "/x")
    await virtual_time.go(1)
    gone = weakref.ref(app.dedup)

    del app
    gc.collect()

    assert gone() is None
    await virtual_time.go(30)


async def test_aclose_takes_its_timer_along_and_the_engine_may_go_on(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x", ttl=60))
    bare = answers()
    app = DedupMiddleware(bare, dedup=dedup)
    await get(app, "/x")

    await dedup.aclose()

    loop: Any = asyncio.get_running_loop()
    assert [t for t in loop._scheduled if not t.cancelled() and "_sweep" in repr(t)] == []
    assert [outcome(await get(app, "/x")) for _ in range(2)] == ["forwarded", "hit"]
    await dedup.aclose()


# -- counting --------------------------------------------------------------------------------------------------------


async def test_what_is_counted_is_what_is_held_and_returns_to_nothing(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    dedup = make_dedup(
        Rule("/a/{n}", ttl=60, tags=["a:{n}"], max_responses=5),
        Rule("/b/{n}", ttl=5, max_bytes=9000),
        Rule("/c/{n}", methods=["QUERY"], ttl=60),
    )
    app = DedupMiddleware(answers(headers=[(b"x-a", b"1" * 100)], body=b"z" * 1000), dedup=dedup)
    for number in range(60):
        await get(app, f"/a/{number % 9}")
        await get(app, f"/b/{number}?q={number}")
        await get(app, "/c/1", "QUERY", [(b"content-type", b"text/plain")], body=b"%d" % (number % 4))
        if number % 10 == 3:
            await dedup.invalidate(f"a:{number % 9}")
            await get(app, f"/b/{number}", "DELETE")
            clock.advance(3)
        assert held(dedup) == dedup.store.size
        assert dedup.stats().bytes == dedup.store.size

    stats = dedup.stats()
    assert stats.stored == stats.responses + stats.evicted + stats.expired + stats.invalidated
    assert dedup.clear() == stats.responses
    assert (dedup.store.size, dedup.store.responses, held(dedup)) == (0, 0, 0)


async def test_clear_forgets_everything_and_closes_flights_to_newcomers(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/{x}", ttl=60))
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    under_way = call(app, "/x")
    await until(lambda: bare.runs == 1)

    assert dedup.clear() == 0
    newcomer = call(app, "/x")
    await until(lambda: bare.runs == 2)
    bare.gate.set()
    await asyncio.gather(under_way.task, newcomer.task)

    assert (under_way.body, newcomer.body) == (b"run 1", b"run 2")
    assert (await get(app, "/x")).body == b"run 2"
    assert dedup.clear() == 1
    assert (await get(app, "/x")).body == b"run 3"


async def test_a_flight_that_lands_late_never_replaces_a_newer_ones_response(make_dedup: MakeDedup) -> None:
    # With no followers allowed every request flies by itself.
    gates = [asyncio.Event(), asyncio.Event()]
    runs = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        run = len(runs)
        await gates[run - 1].wait()
        await send(head())
        await send(chunk(b"run %d" % run, more=False))

    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/x", ttl=60, max_followers=0)))
    old = call(app, "/x")
    await until(lambda: len(runs) == 1)
    new = call(app, "/x")
    await until(lambda: len(runs) == 2)
    gates[1].set()
    await new.done()
    gates[0].set()
    await old.done()

    assert (old.body, new.body) == (b"run 1", b"run 2")
    assert (await get(app, "/x")).body == b"run 2"


async def test_the_memory_of_marks_and_variants_is_bounded(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(default=Rule(ttl=60, max_responses=10))
    for memo in (dedup.variants, dedup.passes, dedup.outgrown):
        memo.capacity = 50
    varied = DedupMiddleware(answers(headers=[(b"vary", b"x-unseen")]), dedup=dedup)
    passed = DedupMiddleware(answers(headers=[(b"set-cookie", b"a=1")]), dedup=dedup)
    for number in range(300):
        await get(varied, f"/v{number}")
        await get(passed, f"/p{number}")

    assert max(len(memo) for memo in (dedup.variants, dedup.passes, dedup.outgrown)) <= 100
    assert dedup.store.responses <= 10
