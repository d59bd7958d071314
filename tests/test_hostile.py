"""Hostile requests: never shared wrongly, never an exception out of the middleware, never unbounded memory."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core import names

from .kit import Call, FakeClock, GatedApp, Message, VirtualTime, call, get, make_scope, settle

pytestmark = pytest.mark.slow

Make = Callable[..., Dedup]
Request = dict[str, Any]
JSON = (b"content-type", b"application/json")


def digest(scope: Any) -> bytes:
    """A digest of everything in a request that is not noise."""
    parts = [
        scope.get(name) for name in ("method", "scheme", "path", "raw_path", "query_string", "root_path")
    ]
    fields = sorted((name.lower(), value) for name, value in scope["headers"])
    counted = [pair for pair in fields if pair[0] not in (b"traceparent", b"x-request-id")]
    return hashlib.sha256(repr([*parts, counted]).encode()).hexdigest().encode()


class Echo:
    """An app whose answer says everything that it saw, the body included."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate
        self.runs = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        if self.gate is not None:
            await self.gate.wait()
        answer = digest(scope) + hashlib.sha256(body).hexdigest().encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


# -- targets ---------------------------------------------------------------------------------------------------------

TARGETS: dict[str, Request] = {
    "absolute form": {"path": "http://other.test/a", "raw_path": b"http://other.test/a"},
    "absolute form, the path cut out": {"path": "/a", "raw_path": b"http://other.test/a"},
    "absolute form in capitals": {"path": "HTTP://other.test/a", "raw_path": b"HTTP://other.test/a"},
    "an authority": {"path": "other.test:443", "raw_path": b"other.test:443"},
    "a star": {"path": "*", "raw_path": b"*"},
    "nothing": {"path": "", "raw_path": b""},
    "two slashes": {"path": "//a", "raw_path": b"//a"},
    "two slashes inside": {"path": "/a//b", "raw_path": b"/a//b"},
    "an encoded slash": {"path": "/a/b", "raw_path": b"/a%2fb"},
    "an encoded slash in capitals": {"path": "/a/b", "raw_path": b"/a%2Fb"},
    "an encoded backslash": {"path": "/a\\b", "raw_path": b"/a%5Cb"},
    "a backslash": {"path": "/a\\b", "raw_path": b"/a\\b"},
    "dots": {"path": "/a/../b", "raw_path": b"/a/../b"},
    "dots at the end": {"path": "/a/..", "raw_path": b"/a/.."},
    "one dot": {"path": "/./a", "raw_path": b"/./a"},
    "encoded dots": {"path": "/a/../b", "raw_path": b"/a/%2e%2E/b"},
    "encoded dots, resolved": {"path": "/b", "raw_path": b"/a/%2e%2e/b"},
    "dots with a parameter": {"path": "/a/..;x/b", "raw_path": b"/a/..;x/b"},
    "NUL": {"path": "/a\x00b", "raw_path": b"/a%00b"},
    "a bare NUL": {"path": "/a\x00", "raw_path": b"/a\x00"},
    "a line feed": {"path": "/a\n", "raw_path": b"/a%0A"},
    "a carriage return": {"path": "/a\rb", "raw_path": b"/a%0Db"},
    "a tab": {"path": "/a\tb", "raw_path": b"/a%09b"},
    "escape": {"path": "/a\x1bb", "raw_path": b"/a%1Bb"},
    "delete": {"path": "/a\x7f", "raw_path": b"/a%7F"},
    "a control character that only raw_path has": {"path": "/a", "raw_path": b"/a%0d"},
    "a bare space": {"path": "/a b", "raw_path": b"/a b"},
    "NUL in the query": {"query_string": b"a=\x00"},
    "a control character in the query": {"query_string": b"a=\x1e"},
    "a space in the query": {"query_string": b"a=b c"},
    "a line feed in the query": {"query_string": b"a=1\nb=2"},
    "delete in the query": {"query_string": b"\x7f"},
    "a query that a layer left as text": {"query_string": "a=b"},
    "a raw_path that a layer left as text": {"path": "/a", "raw_path": "/a"},
    "a root_path that is not a prefix of whole segments": {
        "root_path": "/a",
        "path": "/a//b",
        "raw_path": None,
    },
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("ttl", [0, 60])
async def test_an_ambiguous_target_is_never_shared(make_dedup: Make, name: str, ttl: int) -> None:
    """Varnish VSV00018: cache and app must see one target."""
    bare = GatedApp()
    dedup = make_dedup(default=Rule(ttl=ttl, identity="shared", vary=[]))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, **TARGETS[name]) for _ in range(3)]
    await settle()
    assert bare.runs == 3
    bare.gate.set()
    for run, one in enumerate(calls, 1):
        await one.done()
        assert one.body == b"run %d" % run
        assert one.header(b"cache-status") is None
    assert [scope is one.scope for scope, one in zip(bare.scopes, calls, strict=True)] == [True] * 3
    assert {key[:2] for key in dedup.telemetry.counts} == {("bypassed", "target")}
    assert dedup.store.responses == 0


@pytest.mark.parametrize(
    "request_",
    [
        {"target": "/a;v=1/b"}, {"target": "/a b", "raw_path": b"/a%20b"}, {"target": "/%C3%A9", "path": "/é"},
        {"target": "/..a/b..c"}, {"target": "/a:b@c,d"}, {"target": "/?a=%00%0a"}, {"target": "/?" + "x" * 30_000},
        {"target": "/" + "x" * 30_000}, {"target": "/\ufffd", "raw_path": b"/%FF"}, {"target": "/a", "raw_path": None},
        {"target": "/", "query_string": bytes(range(0x80, 0x100))},
    ],
)  # fmt: skip
async def test_an_odd_target_that_can_be_read_in_one_way_only_is_shared(
    make_dedup: Make, request_: Request
) -> None:
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    assert [(await get(app, **request_)).body for _ in range(2)] == [b"run 1", b"run 1"]


# -- fields and bodies -----------------------------------------------------------------------------------------------


def numbered(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-%d" % number, b"%d" % number) for number in range(count)]


@pytest.mark.parametrize(
    ("headers", "shared"),
    [
        (numbered(10_000), False),
        ([(b"x", b"1")] * 10_000, False),
        ([(b"cookie", b"a=1")] * 10_000, False),
        (numbered(200), True),
        ([(b"x", b"1" * 30_000)], True),
        ([(b"x" * 30_000, b"1")], True),
        ([(b"x", b"1" * 1_000_000)], False),
        ([(b"x" * 60_000, b"1")], False),
        ([(b"cookie", b"; ".join(b"c%d=1" % number for number in range(3_000)))], True),
        ([(b"cookie", b";" * 30_000)], True),
        ([(b"cookie", b'"' * 30_000 + b"; _ga=1")], True),
        ([(b"connection", b"," * 30_000), (b"traceparent", b"x")], True),
        ([(b"tracestate", b" ," * 15_000)], True),
        ([(b"tracestate", b"a=b ," * 31 + b"!")], True),
        ([(b"if-none-match", b'"a",' * 7_500)], True),
        ([(b"if-none-match", b'"' * 30_000)], True),
        ([(b"if-modified-since", b"Sat, " * 6_000)], True),
        ([(b"cache-control", b"max-age=0, " * 2_500)], True),
        ([(b"\xff\x00", b"\x00\xff")], True),
        ([(b"", b"")], True),
        ([(b"x-a\nx-b", b"1")], True),
        ([(b"content-type", b"application/" + b"a+" * 15_000 + b"x")], True),
    ],
)  # fmt: skip
async def test_no_field_can_break_the_middleware(
    make_dedup: Make, headers: list[tuple[bytes, bytes]], shared: bool
) -> None:
    shapes: list[dict[str, Any]] = [
        {"ttl": 60},
        {"ttl": 60, "vary": [], "identity": "credentials", "ignore": ["header:z*"]},
        {"ttl": 60, "vary": "origin"},
    ]
    for rule in shapes:
        bare = GatedApp(
            lambda _, run: (200, [(b"etag", b'"v1"'), (b"vary", b"x")], b"run %d" % run), opened=True
        )
        app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**rule)))
        first, second = await get(app, headers=headers), await get(app, headers=headers)
        assert first.status == second.status == 200
        assert (first.body == second.body) is shared


async def test_a_name_with_a_line_feed_is_never_taken_for_two(make_dedup: Make) -> None:
    shapes = [
        [(b"x-a\nx-b", b"1"), (b"x-c", b"2")],
        [(b"x-a", b"1"), (b"x-b\nx-c", b"2")],
        [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")],
        [(b"x-a\nx-b\nx-c", b"1")],
        [(b"x-a\nx-b", b"1"), (b"x-c", b"2")],
    ]
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    bodies = [(await get(app, headers=headers)).body for headers in shapes]
    assert bodies == [b"run 1", b"run 2", b"run 3", b"run 4", b"run 1"]


def odd_bodies() -> Iterator[tuple[bytes, bytes]]:
    yield b'{"a":1,"a":2}', b'{"a":2,"a":1}'
    yield b'{"a":1,"\\u0061":2}', b'{"\\u0061":2,"a":1}'
    yield b"[" * 10_000 + b"1" + b"]" * 10_000, b"[" * 10_000 + b"2" + b"]" * 10_000
    yield b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"a":' * 10_000 + b"1 " + b"}" * 10_000
    yield b'"\xff"', b'"\xfe"'
    yield b'"\\ud800"', b'"\\ud801"'
    yield b"\xef\xbb\xbf{}", b"{}"
    yield b"NaN", b"Infinity"
    yield b"1" * 60_000, b"1" * 59_999 + b"2"
    yield b"1e400", b"1e401"
    yield b"{", b"{ "
    yield b"\x00", b"\x01"
    yield b"{}\x00", b"{}\x01"


@pytest.mark.parametrize("number", range(13))
async def test_an_odd_body_is_never_shared_with_another(make_dedup: Make, number: int) -> None:
    one, other = list(odd_bodies())[number]
    rule = Rule(ttl=60, identity="shared", vary=[], ignore=["body:id"])
    app = DedupMiddleware(Echo(), dedup=make_dedup(default=rule))
    answers = [(await get(app, method="QUERY", headers=[JSON], body=body)).body for body in (one, other, one)]
    assert answers[0] == answers[2]
    assert answers[0] != answers[1]


class Endless(Call):
    """A client whose body never ends, in messages that a test makes."""

    def __init__(self, app: Any, scope: Request, message: Callable[[int], Message], last: int) -> None:
        self.given = 0
        self._message, self._last = message, last
        super().__init__(app, scope)

    async def _receive(self) -> Message:
        self.given += 1
        if self.given > self._last:
            return {"type": "http.disconnect"}
        if self.given % 1000 == 0:
            await asyncio.sleep(0)
        return self._message(self.given)


async def reads(scope: Any, receive: Any, send: Any) -> None:
    """An app that takes in ten pieces and answers with how much it got."""
    got = []
    for _ in range(10):
        message = await receive()
        got.append(message.get("body", message["type"].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % sum(map(len, got)), "more_body": False})


async def test_an_endless_body_is_passed_on_and_never_held(make_dedup: Make) -> None:
    rule = Rule(methods=["POST", "QUERY"], collapse=True, ttl=60, max_request_body=1000)
    app = DedupMiddleware(reads, dedup=make_dedup(rule))
    for method in ("POST", "QUERY"):
        one = Endless(app, make_scope(method=method), lambda _: _piece(b"x" * 400), last=10**9)
        await one.done()
        assert one.header(b"cache-status") is None
        assert one.given == 12, (
            "three pieces tell that it is too long; they reach the app in one, then nine more"
        )
        assert one.body == b"%d" % (400 * 12)


@pytest.mark.parametrize(("size", "shared"), [(1000, True), (1001, False)])
async def test_a_body_is_held_up_to_the_bound_and_no_byte_further(
    make_dedup: Make, size: int, shared: bool
) -> None:
    bare = GatedApp(opened=True)
    rule = Rule(methods=["POST"], collapse=True, ttl=60, max_request_body=1000)
    app = DedupMiddleware(bare, dedup=make_dedup(rule))

    answers = [await get(app, method="POST", body=b"x" * size) for _ in range(2)]

    assert (answers[0].body == answers[1].body) is shared


def _piece(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": True}


@pytest.mark.parametrize("size", [0, 1])
async def test_a_body_in_countless_pieces_is_never_held_piece_by_piece(make_dedup: Make, size: int) -> None:
    rule = Rule(methods=["POST"], collapse=True, max_request_body=50_000)
    app = DedupMiddleware(reads, dedup=make_dedup(rule))
    tracemalloc.start()
    try:
        one = Endless(app, make_scope(method="POST"), lambda _: _piece(b"x" * size), last=30_000)
        await one.done()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one.status == 200
    assert peak < 2_000_000, "30,000 messages would be some 9 MB"


@pytest.mark.parametrize("http_version", ["2", "3"])
async def test_a_get_with_an_endless_body_is_passed_on(make_dedup: Make, http_version: str) -> None:
    app = DedupMiddleware(reads, dedup=make_dedup(default=Rule(max_request_body=100)))
    scope = make_scope(http_version=http_version)
    one = Endless(app, scope, lambda _: _piece(b"x" * 60), last=10**9)
    await one.done()
    assert (one.body, one.header(b"cache-status")) == (b"%d" % (60 * 10), None)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_client_that_never_says_whether_it_sends_a_body_never_holds_a_request_up(
    virtual_time: VirtualTime, make_dedup: Make, method: str
) -> None:
    """Under HTTP/2 a stream that was not ended says nothing; the bare app would have answered."""
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    one = Call(app, make_scope(method=method, http_version="2"), body=None)
    await virtual_time.go(0.9)
    assert not one.started
    await virtual_time.go(0.2)

    assert (await one.done()).status == 200
    assert {key[:2] for key in dedup.telemetry.counts} == {("bypassed", "request-body")}


async def test_a_deadline_of_another_layer_is_its_own(make_dedup: Make) -> None:
    async def receive() -> Message:
        raise TimeoutError("a read deadline")

    async def send(message: Message) -> None:
        raise AssertionError("the app was never asked")

    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup())
    with pytest.raises(TimeoutError, match="read deadline"):
        await app(make_scope(http_version="2"), receive, send)


@pytest.mark.parametrize(
    "length", [b"-1", b"abc", b"1e3", b"9" * 5_000, b"0x10", b" 3", b"+3", b"3,3", b"", b"4", b"\xb2", b"00"]
)
@pytest.mark.parametrize("method", ["GET", "QUERY"])
async def test_an_odd_content_length_is_never_shared(make_dedup: Make, length: bytes, method: str) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    for run in (1, 2):
        one = await get(app, method=method, headers=[(b"content-length", length)], body=b"abc")
        assert one.body == b"run %d" % run


async def test_a_client_that_leaves_within_its_body_reaches_the_app_as_it_is(make_dedup: Make) -> None:
    heard: list[Message] = []

    async def listens(scope: Any, receive: Any, send: Any) -> None:
        while True:
            heard.append(await receive())
            if heard[-1]["type"] == "http.disconnect":
                return

    app = DedupMiddleware(listens, dedup=make_dedup())
    one = Endless(app, make_scope(method="QUERY"), lambda _: _piece(b"ab"), last=3)
    await one.done()
    assert b"".join(message.get("body", b"") for message in heard) == b"ababab"
    assert heard[-1] == {"type": "http.disconnect"}


# -- what is too much to be read -------------------------------------------------------------------------------------

MANY = 250_000
TOO_MUCH: dict[str, tuple[str, Request]] = {
    "directives": ("too-many-headers", {"headers": [(b"cache-control", b"a," * MANY)]}),
    "languages": ("too-many-headers", {"headers": [(b"accept-language", b"a," * MANY)]}),
    "cookies": ("too-many-headers", {"headers": [(b"cookie", b"_ga=1;" + b"a;" * MANY)]}),
    "validators": ("too-many-headers", {"headers": [(b"if-none-match", b'"a",' * MANY)]}),
    "what Connection names": (
        "too-many-headers",
        {"headers": [(b"connection", b"a," * MANY), (b"b3", b"0")]},
    ),
    "the name of a field": ("too-many-headers", {"headers": [(b"a-" * MANY, b"1")]}),
    "fields that are small, each": ("too-many-headers", {"headers": [(b"accept", b"a," * 100)] * 200}),
    "a query": ("target", {"query_string": b"utm_x=1&" * MANY}),
    "a query, and directives": (
        "target",
        {"query_string": b"a&" * MANY, "headers": [(b"cache-control", b"a," * MANY)]},
    ),
    "a path": ("target", {"path": "/a" * MANY, "raw_path": b"/a" * MANY}),
    "a write": (
        "method",
        {"method": "POST", "headers": [(b"cookie", b"_ga=1;" + b"a;" * MANY), (b"a-" * MANY, b"1")]},
    ),
}


class Steps:
    """How many functions are called meanwhile: work that no machine does faster than another."""

    def __init__(self) -> None:
        self.number = 0

    def _count(self, _frame: object, event: str, _what: object) -> None:
        self.number += event in ("call", "c_call")

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)


@pytest.mark.parametrize("what", TOO_MUCH)
@pytest.mark.parametrize(
    "rule",
    [Rule(), Rule(ttl=60, vary=[], identity=["cookie:a"], ignore=["query:utm_*"]), Rule.shared_cache()],
    ids=["nothing said", "narrow", "shared cache"],
)
async def test_megabytes_that_a_client_says_are_never_looked_through(
    make_dedup: Make, rule: Rule, what: str
) -> None:
    """Not every server bounds a request: one must not stop the event loop for seconds, and reaches the app as it is."""
    reason, request = TOO_MUCH[what]
    dedup = make_dedup(default=rule)
    varies = [(b"cache-control", b"max-age=60"), (b"vary", b"accept-language")]
    bare, slow = GatedApp(lambda _, __: (200, varies, b""), opened=True), GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    await get(app)
    waiting = call(DedupMiddleware(slow, dedup=dedup))
    await settle()

    with Steps() as steps:
        asked = await get(app, **request)

    assert steps.number < 20_000
    assert bare.scopes[-1] is asked.scope
    counted = [tally for tally in dedup.telemetry.tallies.values() if tally.outcome == "bypassed"]
    assert [tally.reason for tally in counted if tally.number] == [reason]
    slow.gate.set()
    await waiting.done()


async def test_a_write_of_whom_nobody_knows_closes_what_anybody_there_waits_for(make_dedup: Make) -> None:
    """It says too much to be read: rather than let its caller read what was there before, its address asks anew."""
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    alice = [(b"authorization", b"Bearer alice")]
    before = call(app, "/mine", headers=alice)
    await settle()

    written = call(app, "/write", "POST", [*alice, (b"cookie", b"a;" * MANY)])
    await settle()
    bare.gate.set()
    await written.done()
    after = call(app, "/mine", headers=alice)

    assert (await before.done()).body != (await after.done()).body


# -- scopes that no server should make -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"client": None}, {"server": None}, {"server": ("/run/app.sock", None)}, {"raw_path": None}, {"root_path": "/"},
        {"extensions": None}, {"extensions": {}}, {"state": None}, {"state": {1: 2}}, {"state": {"a": {1: 2}}},
        {"user": None, "auth": None, "session": None}, {"http_version": "9"}, {"scheme": "gopher"}, {"path": "/\udc80"},
        {"extensions": {"tls": object()}}, {"extensions": {"tls": {"client_cert_chain": 7}}}, {"session": [1]},
        {"state": {"a": float("nan")}}, {"state": {"a": "\udcff"}}, {"state": {"a": 10**400}}, {"tenant": {"a": {"b"}}},
    ],
)  # fmt: skip
async def test_no_scope_can_break_the_middleware(make_dedup: Make, more: Request) -> None:
    shapes: list[dict[str, Any]] = [
        {},
        {"ttl": 60, "vary": []},
        {"ttl": 60, "identity": ["user"], "ignore": ["state:b"]},
    ]
    for rule in shapes:
        app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(**rule)))
        for _ in range(2):
            scope = {**make_scope(), **more}
            assert (await Call(app, scope).done()).status == 200


@pytest.mark.parametrize(
    "missing", ["scheme", "raw_path", "root_path", "client", "server", "asgi", "headers", "query_string"]
)
async def test_what_a_server_may_leave_out_is_not_missed(make_dedup: Make, missing: str) -> None:
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    bodies = []
    for _ in range(2):
        scope = make_scope()
        del scope[missing]
        bodies.append((await Call(app, scope).done()).body)
    assert bodies == [b"run 1", b"run 1"]


@pytest.mark.parametrize(
    "method", ["get", "Get", "POST", "FOO", "GET ", "X" * 60_000, "G\xcbT", "CONNECT", "TRACE", "HEAD\n"]
)
async def test_no_method_can_break_the_middleware(make_dedup: Make, method: str) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for run in (1, 2):
        assert (await get(app, method=method)).body == b"run %d" % run
    assert {key[3] for key in dedup.telemetry.counts} <= {"POST", "CONNECT", "TRACE", "_OTHER"}


# -- any stream of requests ------------------------------------------------------------------------------------------

texts = st.sampled_from(
    [b"", b"1", b"a=1", b"no-cache", b"sid=1; b=2", b"\x00", b"\xff", b"x" * 300, b"close, x-a"]
)
lines = st.tuples(
    st.sampled_from(
        b"x-a X-A cookie authorization accept connection traceparent x-request-id range host".split()
    ),
    texts,
)
streams = st.lists(
    st.fixed_dictionaries(
        {"headers": st.lists(lines, max_size=3), "method": st.sampled_from(["GET", "HEAD", "QUERY", "POST", "GET"])},
        optional={
            "path": st.sampled_from(["/a", "//", "/a\x00", "/é", "/\udcff", "*"]),
            "raw_path": st.sampled_from([None, b"/a", b"/%2f", b"\x00"]),
            "query_string": st.sampled_from([b"", b"a=1", b"\x1e", b"a=%1e"]),
            "scheme": st.sampled_from(["http", "https"]),
            "body": st.sampled_from([b"", b"{}", b'{"a":1,"a":2}', b"\xff"]),
        },
    ),
    min_size=2,
    max_size=12,
)  # fmt: skip


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(streams, st.booleans())
def test_no_stream_of_requests_is_answered_otherwise_than_by_the_bare_app(
    requests: list[Request], at_once: bool
) -> None:
    async def run() -> None:
        bare, gate = Echo(), asyncio.Event()
        dedup = Dedup(default=Rule(ttl=60), clock=FakeClock())
        app = DedupMiddleware(Echo(gate), dedup=dedup)
        if not at_once:
            gate.set()
        calls = []
        for request in requests:
            if request.get("body"):  # a server gives no body that nothing frames
                request["headers"] = [*request["headers"], (b"content-length", b"%d" % len(request["body"]))]
        for request in [*requests, *requests]:
            calls.append(call(app, **request))
            if not at_once:
                await calls[-1].done()
        await settle()
        gate.set()
        for request, one in zip([*requests, *requests], calls, strict=True):
            await one.done()
            expected = (await get(bare, **request)).body
            assert one.status == 200
            assert one.body == expected or (request["method"] == "HEAD" and not one.body)
        await dedup.aclose()

    asyncio.run(run())


# -- memory ----------------------------------------------------------------------------------------------------------


def hostile(number: int) -> Request:
    """Requests of which each would leave 16 KB behind, were something of it remembered."""
    long = b"%d" % number + b"x" * 16_000
    kind = number % 8
    if kind == 0:
        return {"target": "/" + long.decode()}
    if kind == 1:
        return {"method": long.decode().upper()}
    if kind == 2:
        return {"headers": [(long, b"1")]}
    if kind == 3:
        return {"headers": [(b"x-%d-%d" % (number, i), b"1") for i in range(250)]}
    if kind == 4:
        return {"target": "/?utm_" + long.decode() + "=1"}
    if kind == 5:
        return {"method": "QUERY", "headers": [JSON], "body": b'{"' + long + b'":1}'}
    if kind == 6:
        return {"path": "/a", "raw_path": b"/" + long}
    return {"headers": [(b"x-token-" + long, b"1"), (b"cookie", long)], "state": {"a": long.decode()}}


async def test_hostile_requests_leave_nothing_behind(make_dedup: Make) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    dedup = make_dedup(default=Rule(ttl=60, ignore=["query:utm_*", "body:*"]))
    app = DedupMiddleware(refuse, dedup=dedup)
    for number in range(200):
        await get(app, **hostile(number))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(200, 1_000):
            await get(app, **hostile(number))
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1_500_000, "800 requests of 16 KB: 13 MB were they remembered"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(lambda number: {"target": "/" + "a" * 60_000 + str(number)}, id="paths"),
        pytest.param(lambda number: {"headers": [(b"host", b"a" * 60_000 + b"%d" % number)]}, id="hosts"),
    ],
)
async def test_what_clients_write_to_is_never_remembered_at_length(
    make_dedup: Make, target: Callable[[int], Request]
) -> None:
    """While anything is under way its invalidation is: for ever, where there is always something."""
    gate = asyncio.Event()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    slow = call(app, "/slow")
    await settle()
    await get(app, method="POST", **target(0))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, 100):
            await get(app, method="POST", **target(number))
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gate.set()
        await slow.done()
    assert left < 1_500_000, "6 MB were they remembered"


async def test_every_memo_is_bounded(make_dedup: Make) -> None:
    def vary(scope: Any, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return 200, [(b"vary", b"x-a"), (b"set-cookie", b"a=1")][run % 2 :][:1], b""

    dedup = make_dedup(default=Rule(ttl=60, vary="origin", max_responses=10))
    reader = dedup.plan(make_scope()).fingerprints  # type: ignore[union-attr] # nothing bypasses this request
    reading = reader.reading
    app = DedupMiddleware(GatedApp(vary, opened=True), dedup=dedup)
    plans = dedup.plans_at(0)
    memos: list[Any] = [
        plans,
        dedup.bodies,
        dedup.variants,
        dedup.passes,
        dedup.outgrown,
        reading.layouts,
        reader._digests,
        reader._open,
    ]
    for memo in memos:
        memo.capacity = 50
    for number in range(400):
        name = b"x-%d" % number
        for _ in range(2):  # what comes once is not remembered
            await get(app, f"/{number}", "QUERY", [(name, b"1"), JSON], body=b'{"a":%d}' % number)
            await get(app, f"/{number}", headers=[(b"accept", b"%d" % number)])
    for memo in memos:
        assert len(memo) <= 100
    assert len(plans) > 50, "they were in use"
    assert len(dedup.variants) > 50
    assert len(reading.layouts) > 50
    assert len(reader._digests) > 50
    assert len(reader._open) > 50
    for cached in (names._is_credential, names._is_secret):
        assert cached.cache_info().maxsize == 4096


async def test_labels_of_hostile_requests_are_few(make_dedup: Make) -> None:
    dedup = make_dedup(Rule("/{path:path}", name="all", ttl=60))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for number in range(300):
        await get(
            app, f"/{number}", f"METHOD{number % 100}" if number % 2 else "GET", [(b"x-%d" % number, b"1")]
        )
    assert len(dedup.telemetry.counts) <= 4


@pytest.mark.parametrize("ignore", [[], ["query:utm_*"]])
async def test_a_scope_with_only_what_it_must_have_is_answered(ignore: list[str]) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, default=Rule(ttl=60, ignore=ignore))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    for _ in range(2):
        await app({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)

    assert [message["body"] for message in sent[1::2]] == [b"run 1"] * 2
