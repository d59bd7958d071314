"""Behind and before the middlewares people use: every caller gets what the same stack without us would give them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import itsdangerous
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.fingerprint import Fingerprinter

from .framework_kit import Ask, Site, Work, watch, without_ours
from .kit import HOST, Call, FakeClock, Message, VirtualTime, call, eventually, get, make_scope, settle
from .telemetry_kit import Seen, context, links, number, parent

pytestmark = pytest.mark.slow

StarletteTelemetry: Any = None
with contextlib.suppress(ImportError):  # of newer releases
    StarletteTelemetry = importlib.import_module("starlette.middleware.opentelemetry").OpenTelemetryMiddleware

MakeDedup = Callable[..., Dedup]
Wrap = Callable[[Any], Any]
Headers = Sequence[tuple[bytes, bytes]]
SIGNER = itsdangerous.TimestampSigner("of a test")


# -- the app -----------------------------------------------------------------------------------------------------------


def make_app(work: Work) -> Any:
    """It answers with all that the layers around it may have changed, in more bytes than GZip lets pass."""

    async def echo(request: Request) -> Response:
        work.note("echo")
        await work.open.wait()
        scope = request.scope
        return JSONResponse(
            {
                "scheme": scope["scheme"],
                "host": request.headers["host"],
                "client": scope["client"] and scope["client"][0],
                "session": dict(scope.get("session", {})) if request.url.path == "/session" else None,
                "user": str(getattr(scope.get("user"), "display_name", None)),
                "scopes": getattr(scope.get("auth"), "scopes", None),
                "state": scope.get("state", {}).get("who"),
                "padding": "x" * 600,
            },
            headers={"etag": '"1"'} if request.url.path == "/tagged" else None,
        )

    async def visit(request: Request) -> Response:
        work.note("visit")
        await work.open.wait()
        session = request.scope.get("session", {})
        session["visits"] = session.get("visits", 0) + 1
        return JSONResponse(session.get("visits"))

    async def write(request: Request) -> Response:
        work.note("write")
        return PlainTextResponse("written")

    async def stream(request: Request) -> Response:
        return StreamingResponse(work.chunks(), media_type="text/plain")

    async def boom(request: Request) -> Response:
        work.note("boom")
        await work.open.wait()
        raise ValueError("secret")

    return Starlette(
        routes=[
            *[Route(path, echo) for path in ("/echo", "/session", "/tagged")],
            Route("/echo", write, methods=["POST"]),
            Route("/visit", visit),
            Route("/stream", stream),
            Route("/boom", boom),
        ]
    )


# -- the middlewares, and callers whom each of them tells apart --------------------------------------------------------


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        token = conn.headers.get("authorization")
        if token is None:
            return None
        if token == "bad":
            raise AuthenticationError("a bad token")
        return AuthCredentials(["reader", token]), SimpleUser(token)


async def remember(request: Request, call_next: Any) -> Response:
    request.state.who = request.headers.get("x-who")
    response: Response = await call_next(request)
    response.headers["x-passed"] = str(request.state.who)
    return response


def session_cookie(content: dict[str, Any]) -> bytes:
    import base64

    return b"session=" + SIGNER.sign(base64.b64encode(json.dumps(content).encode()))


def one_each(name: bytes, *values: bytes) -> list[Headers]:
    """Requests that differ in one field, and one without it."""
    return [[], *([(name, value)] for value in values)]


ORIGINS = ["https://a.test", "https://b.test"]
WRAPS: dict[str, Wrap] = {
    "GZip": lambda app: GZipMiddleware(app, minimum_size=100),
    "CORS": lambda app: CORSMiddleware(app, allow_origins=ORIGINS, allow_credentials=True),
    "CORS for all": lambda app: CORSMiddleware(app, allow_origins=["*"], expose_headers=["x-a"]),
    "Session": lambda app: SessionMiddleware(app, secret_key="of a test"),
    "Authentication": lambda app: AuthenticationMiddleware(app, backend=Backend()),
    "TrustedHost": lambda app: TrustedHostMiddleware(app, allowed_hosts=["example.test", "www.other.test"]),
    "HTTPSRedirect": HTTPSRedirectMiddleware,
    "ProxyHeaders": lambda app: ProxyHeadersMiddleware(app, trusted_hosts="*"),
    "BaseHTTP": lambda app: BaseHTTPMiddleware(app, dispatch=remember),
}
Caller = tuple[Headers, dict[str, Any]]


def callers(name: str) -> list[Caller]:
    """Requests that the middleware answers differently."""
    fields: dict[str, list[Headers]] = {
        "GZip": one_each(b"accept-encoding", b"gzip", b"br", b"gzip, br", b"identity", b"gzip;q=0"),
        "CORS": one_each(b"origin", b"https://a.test", b"https://b.test", b"https://evil.test", b"null"),
        "CORS for all": [
            *one_each(b"origin", b"https://a.test", b"https://b.test"),
            [(b"origin", b"https://a.test"), (b"cookie", b"a=1")],
        ],
        "Session": one_each(
            b"cookie", *(session_cookie({"user": who}) for who in ("alice", "bob")), b"session=forged"
        ),
        "Authentication": one_each(b"authorization", b"alice", b"bob", b"bad"),
        "TrustedHost": [
            [(b"host", host)] for host in (HOST[1], b"evil.test", b"www.other.test", b"other.test")
        ],
        "HTTPSRedirect": [[(b"host", host)] for host in (HOST[1], b"other.test")],
        "ProxyHeaders": [
            *one_each(b"x-forwarded-for", b"192.0.2.7", b"192.0.2.8, 192.0.2.9"),
            [(b"x-forwarded-proto", b"https")],
            [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")],
        ],
        "BaseHTTP": one_each(b"x-who", b"alice", b"bob"),
    }
    found: list[Caller] = [(headers, {}) for headers in fields[name]]
    if name == "HTTPSRedirect":
        found += [(headers, {"scheme": "https"}) for headers in fields[name]]
    return found


@pytest.fixture(autouse=True)
def _one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed cookie holds the second of its making."""
    monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda _: 1_800_000_000)
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 1_800_000_000.0)


class Stack:
    """The app in a middleware, with us inside of it, outside of it, or not at all (no engine)."""

    def __init__(self, wrap: Wrap, side: str = "bare", dedup: Dedup | None = None) -> None:
        self.work = Work()
        app = make_app(self.work)
        if side == "inside":
            app = DedupMiddleware(app, dedup=dedup)
        app = wrap(app)
        self.app = DedupMiddleware(app, dedup=dedup) if side == "outside" else app

    def ask(self, target: str, caller: Caller = ((), {}), method: str = "GET") -> Ask:
        headers, more = caller
        return Ask(self.app, make_scope(target, method, headers, **more))

    async def get(self, target: str, caller: Caller = ((), {}), method: str = "GET") -> Ask:
        asked = self.ask(target, caller, method)
        await asked.end()
        return asked


def sent(asked: Ask) -> list[Message]:
    return list(without_ours(asked.messages))


def whole(messages: list[Message]) -> tuple[Message, bytes]:
    """The head, and the body however it was cut: a stored one goes out in one piece."""
    return messages[0], b"".join(message["body"] for message in messages[1:])


async def expected(name: str, target: str, caller: Caller = ((), {}), method: str = "GET") -> list[Message]:
    """What the stack without us answers."""
    return sent(await Stack(WRAPS[name]).get(target, caller, method))


@pytest.fixture(params=WRAPS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["inside", "outside"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what every one of them keeps --------------------------------------------------------------------------------------


async def check_each_in_turn(name: str, stack: Stack, target: str) -> None:
    """Ask as each caller, back and forth: everybody gets what the stack without us gives them."""
    asked = callers(name)
    wanted = [whole(await expected(name, target, caller)) for caller in asked]
    for order in (asked, asked[::-1], asked):
        for caller in order:
            assert whole(sent(await stack.get(target, caller))) == wanted[asked.index(caller)]


@pytest.mark.parametrize("target", ["/echo", "/session", "/visit", "/tagged", "/nowhere"])
async def test_each_caller_gets_their_own_answer_whoever_came_before(
    name: str, side: str, target: str, make_dedup: MakeDedup
) -> None:
    await check_each_in_turn(name, Stack(WRAPS[name], side, make_dedup(default=Rule(ttl=60))), target)


@pytest.mark.parametrize("target", ["/echo", "/session", "/visit"])
async def test_callers_at_the_same_moment_get_their_own_answers(
    name: str, side: str, target: str, make_dedup: MakeDedup
) -> None:
    stack = Stack(WRAPS[name], side, make_dedup())
    asked = [*callers(name), *callers(name)]
    wanted = [await expected(name, target, caller) for caller in asked]
    stack.work.shut()
    answers = [stack.ask(target, caller) for caller in asked]
    await settle(100)
    stack.work.open.set()
    assert [await one.end() for one in answers] == [None] * len(answers)

    assert [sent(one) for one in answers] == wanted


async def test_identical_requests_run_once(name: str, side: str, make_dedup: MakeDedup) -> None:
    stack = Stack(WRAPS[name], side, make_dedup(default=Rule(ttl=60)))
    caller: Caller = ((), {"scheme": "https"})
    wanted = await expected(name, "/echo", caller)
    stack.work.shut()
    answers = [stack.ask("/echo", caller) for _ in range(5)]
    await eventually(lambda: stack.work.count("echo") == 1)
    await settle(100)
    stack.work.open.set()
    for one in answers:
        await one.end()
    answers.append(await stack.get("/echo", caller))

    assert [sent(one) for one in answers[:5]] == [wanted] * 5
    assert whole(sent(answers[5])) == whole(wanted)
    assert stack.work.count("echo") == 1
    assert (answers[-1].header(b"cache-status") or b"").startswith(b"dedup; hit")


async def test_a_write_is_the_bare_stack_s_and_drops_what_is_stored(
    name: str, side: str, make_dedup: MakeDedup
) -> None:
    stack = Stack(WRAPS[name], side, make_dedup(default=Rule(ttl=60)))
    caller: Caller = ((), {"scheme": "https"})
    await stack.get("/echo", caller)
    write = await stack.get("/echo", caller, "POST")
    await stack.get("/echo", caller)

    assert sent(write) == await expected(name, "/echo", caller, "POST")
    assert stack.work.log == ["echo", "write", "echo"]


async def test_a_stream_goes_out_as_from_the_bare_stack(name: str, side: str, make_dedup: MakeDedup) -> None:
    caller: Caller = ([(b"accept-encoding", b"gzip")], {"scheme": "https"})
    stacks = [Stack(WRAPS[name]), Stack(WRAPS[name], side, make_dedup())]
    calls = [stacks[0].ask("/stream", caller), *(stacks[1].ask("/stream", caller) for _ in range(2))]
    await eventually(lambda: all(len(one.messages) > 1 for one in calls))
    await settle(100)
    before = [sent(one) for one in calls]
    for stack in stacks:
        assert stack.work.log == ["stream"]
        stack.work.second.set()
    assert [await one.end() for one in calls] == [None] * 3

    assert before[1:] == [before[0]] * 2
    assert [sent(one) for one in calls[1:]] == [sent(calls[0])] * 2


@pytest.mark.parametrize("leaves", ["disconnect", "cancel"])
async def test_a_leader_that_leaves_in_the_middle_of_a_stream_harms_nobody(
    name: str, side: str, leaves: str, make_dedup: MakeDedup
) -> None:
    caller: Caller = ((), {"scheme": "https"})
    bare = Stack(WRAPS[name])
    bare.work.second.set()
    wanted = whole(sent(await bare.get("/stream", caller)))
    dedup = make_dedup()
    stack = Stack(WRAPS[name], side, dedup)
    leader, follower = stack.ask("/stream", caller), stack.ask("/stream", caller)
    await eventually(lambda: len(follower.messages) > 1)
    await watch(dedup)
    getattr(leader, leaves)()
    await eventually(lambda: [len(flight.waiters) for flight in dedup.flights.under_way.values()] == [1])
    stack.work.second.set()
    assert await follower.end() is None
    await asyncio.wait([leader.task])

    assert whole(sent(follower)) == wanted
    assert follower.complete
    assert not leader.complete
    assert stack.work.log == ["stream", "chunk two"]


@pytest.mark.parametrize("origin", [*ORIGINS, "https://evil.test"])
async def test_a_preflight_is_the_bare_stack_s(side: str, origin: str, make_dedup: MakeDedup) -> None:
    stack = Stack(WRAPS["CORS"], side, make_dedup(default=Rule(ttl=60)))
    asks: Caller = ([(b"origin", origin.encode()), (b"access-control-request-method", b"GET")], {})
    await stack.get("/echo", ([(b"origin", origin.encode())], {}))

    wanted = await expected("CORS", "/echo", asks, "OPTIONS")
    assert sent(await stack.get("/echo", asks, "OPTIONS")) == wanted


async def test_an_error_is_the_bare_stack_s(name: str, side: str, make_dedup: MakeDedup) -> None:
    caller: Caller = ([(b"accept-encoding", b"gzip")], {"scheme": "https"})
    bare, stack = Stack(WRAPS[name]), Stack(WRAPS[name], side, make_dedup())
    wanted = bare.ask("/boom", caller)
    assert await wanted.end() == "ValueError"
    stack.work.shut()
    calls = [stack.ask("/boom", caller) for _ in range(3)]
    await eventually(lambda: stack.work.count("boom") == 1)
    await settle(100)
    stack.work.open.set()
    assert [await one.end() for one in calls] == ["ValueError", None, None]  # they have the whole answer

    assert [sent(one) for one in calls] == [sent(wanted)] * 3
    assert stack.work.count("boom") == 1


@pytest.mark.parametrize("broken", [name for name in WRAPS if name != "Session"])
async def test_an_engine_that_told_requests_apart_by_path_alone_would_be_caught(
    broken: str, make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but Session, whose own `Vary: Cookie` tells its callers apart even then."""
    monkeypatch.setattr(Fingerprinter, "key_below", lambda self, prefix, scope, *_: scope["path"].encode())
    stack = Stack(WRAPS[broken], "outside", make_dedup(default=Rule(ttl=60)))

    with pytest.raises(AssertionError):
        await check_each_in_turn(broken, stack, "/echo")


# -- under rules that narrow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        ("GZip", Rule(ttl=60, vary=[])),
        ("GZip", Rule(ttl=60, vary="origin")),
        ("CORS", Rule(ttl=60, vary=[])),
        ("CORS for all", Rule(ttl=60, vary=["cookie:a"])),
        ("TrustedHost", Rule(ttl=60, vary=[])),
        ("HTTPSRedirect", Rule(ttl=60, vary=[])),
        ("Session", Rule(ttl=60, vary=[], identity=["session", "cookie:session", "client"])),
        ("Authentication", Rule(ttl=60, vary=[], identity=["user", "header:authorization", "client"])),
    ],
    ids=lambda value: value if isinstance(value, str) else f"vary={value.vary} identity={value.identity}",
)
async def test_around_us_each_layer_gives_every_caller_their_own_from_what_they_share(
    layer: str, rule: Rule, make_dedup: MakeDedup
) -> None:
    """The right order: what answers each caller differently stands outside."""
    stack = Stack(WRAPS[layer], "inside", make_dedup(default=rule))
    wanted = [whole(sent(await Stack(WRAPS[layer]).get("/echo", caller))) for caller in callers(layer)]
    asked = callers(layer)
    for order in (asked, asked[::-1]):
        for caller in order:
            assert whole(sent(await stack.get("/echo", caller))) == wanted[asked.index(caller)]


@pytest.mark.parametrize(
    "rule", [Rule(ttl=60, vary=[]), Rule(ttl=60, vary="origin")], ids=["narrow", "origin"]
)
async def test_gzip_inside_of_a_narrow_rule_is_told_apart_by_its_vary(
    rule: Rule, make_dedup: MakeDedup
) -> None:
    await check_each_in_turn("GZip", Stack(WRAPS["GZip"], "outside", make_dedup(default=rule)), "/echo")


async def test_context_variables_reach_the_app_from_outside_and_stay_in_it(make_dedup: MakeDedup) -> None:
    outer: contextvars.ContextVar[str] = contextvars.ContextVar("outer", default="unset")
    inner: contextvars.ContextVar[str] = contextvars.ContextVar("inner", default="unset")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(outer.get())
        inner.set("by the app")
        await PlainTextResponse("answer")(scope, receive, send)

    inside = DedupMiddleware(app, dedup=make_dedup())

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        outer.set("by the layer")
        await inside(scope, receive, send)
        seen.append(inner.get())

    await Site(layer, Work()).get("/")

    assert seen == ["by the layer", "unset"]


# -- what outer layers see of the app's call -------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Rule(), Rule(ttl=60)], ids=["collapsed", "stored"])
async def test_an_answer_that_a_session_went_into_always_says_vary_cookie(
    make_dedup: MakeDedup, rule: Rule
) -> None:
    """Starlette's session layer looks at its own request's session; that of a follower, or a hit, nobody has read."""
    gate = asyncio.Event()

    async def who(request: Request) -> Response:
        await gate.wait()
        return JSONResponse(request.session)

    async def nobody(request: Request) -> Response:
        return PlainTextResponse("nothing of it")

    inner = DedupMiddleware(
        Starlette(routes=[Route("/who", who), Route("/nobody", nobody)]), dedup=make_dedup(default=rule)
    )
    app = SessionMiddleware(inner, secret_key="of a test")
    cookie = SIGNER.sign(b64encode(b'{"user": "ann"}'))
    calls = [call(app, "/who", headers=[(b"cookie", b"session=" + cookie)]) for _ in range(3)]
    await settle()
    gate.set()
    calls = [await one.done() for one in calls]
    calls.append(await get(app, "/who", headers=[(b"cookie", b"session=" + cookie)]))

    assert [one.header(b"vary") for one in calls] == [b"Cookie"] * 4
    assert [(await get(app, "/nobody")).header(b"vary") for _ in range(2)] == [None] * 2
    assert [b"collapsed" in (one.header(b"cache-status") or b"") for one in calls] == [
        False,
        True,
        True,
        False,
    ]


async def test_what_a_session_says_of_a_response_never_grows_nor_tells_variants_apart(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    runs = []

    async def who(request: Request) -> Response:
        runs.append(request.method)
        request.session.get("user")
        fields = {"etag": '"a"', "cache-control": "max-age=10"}
        if "if-none-match" in request.headers:
            return Response(status_code=304, headers=fields)
        return PlainTextResponse("ann", headers=fields)

    rule = Rule(ttl="origin", vary=[], identity=lambda scope: "all")
    dedup = make_dedup(default=rule)
    app = SessionMiddleware(
        DedupMiddleware(Starlette(routes=[Route("/who", who)]), dedup=dedup), secret_key="of a test"
    )

    async def ask(who: int) -> tuple[bytes, bytes | None]:
        one = await get(app, "/who", headers=[(b"cookie", b"a=%d" % who)])
        return one.body, one.header(b"vary")

    for turn in range(5):
        assert await ask(turn) == (b"ann", b"Cookie"), "from the app"
        assert await ask(turn + 10) == (b"ann", b"Cookie"), "from the store"
        clock.advance(11)
    assert len(runs) == 5
    (held,) = dedup.store.items()
    assert b"vary" not in dict(held[2].head.headers)  # type: ignore[union-attr] # a response


async def test_a_session_that_is_set_to_what_it_held_is_renewed_for_each(make_dedup: MakeDedup) -> None:
    async def touch(request: Request) -> Response:
        await asyncio.sleep(0)
        request.session["user"] = "ann"
        return PlainTextResponse("a rolling session")

    inner = DedupMiddleware(
        Starlette(routes=[Route("/touch", touch)]), dedup=make_dedup(default=Rule(ttl=60))
    )
    app = SessionMiddleware(inner, secret_key="of a test")
    cookie = SIGNER.sign(b64encode(b'{"user": "ann"}'))
    calls = [call(app, "/touch", headers=[(b"cookie", b"session=" + cookie)]) for _ in range(3)]

    assert all([(await one.done()).header(b"set-cookie") for one in calls])


async def test_what_the_app_leaves_in_a_state_that_the_server_gave_none_of_reaches_outer_layers(
    make_dedup: MakeDedup,
) -> None:
    async def signed_in(request: Request) -> Response:
        request.state.user = "ann"
        return PlainTextResponse("hello")

    inner = DedupMiddleware(Starlette(routes=[Route("/", signed_in)]), dedup=make_dedup())
    for with_state in (False, True):
        scope = make_scope()
        if with_state:
            scope["state"] = {}
        await Call(inner, scope).done()
        assert scope["state"] == {"user": "ann"}


# -- OpenTelemetry's own instrumentation -------------------------------------------------------------------------------

REMOTE = "remote"
TRACES = [b"%032x" % number for number in (0xA1, 0xB2, 0xC3)]
Story = list[tuple[str, str, str]]


def traced(trace: bytes) -> Caller:
    return [(b"traceparent", b"00-" + trace + b"-%016x-01" % 7)], {}


def told(seen: Seen, trace: bytes) -> Story:
    """The spans of a trace: name, kind and the name of the parent."""
    names = {number(span): span.name for span in seen.spans}
    names[7] = REMOTE
    return sorted(
        (span.name, span.kind.name, names[parent(span) or 0])
        for span in seen.spans
        if context(span).trace_id == int(trace, 16)
    )


def make_traced(side: str, seen: Seen, dedup: Dedup, work: Work) -> Any:
    """An app with a span of its own, behind us and OpenTelemetry's middleware in this order or the other."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with seen.tracer.start_as_current_span("work"):
            await work.run()
        await PlainTextResponse("worked")(scope, receive, send)

    def instrumented(inner: Any) -> Any:
        return OpenTelemetryMiddleware(
            inner, tracer_provider=seen.provider, meter_provider=NoOpMeterProvider()
        )

    if side == "inside":
        return instrumented(DedupMiddleware(app, dedup=dedup))
    return DedupMiddleware(instrumented(app), dedup=dedup)


OTEL = [("GET / http send", "INTERNAL", "GET /")] * 2  # the head and the body
INSIDE: list[Story] = [
    [
        ("GET /", "SERVER", REMOTE),
        *OTEL,
        ("forward GET", "INTERNAL", "forwarded GET"),
        ("forwarded GET", "INTERNAL", "GET /"),
        ("work", "INTERNAL", "forward GET"),
    ],
    [("GET /", "SERVER", REMOTE), *OTEL, ("collapsed GET", "INTERNAL", "GET /")],
    [("GET /", "SERVER", REMOTE), *OTEL, ("hit GET", "INTERNAL", "GET /")],
]
OUTSIDE: list[Story] = [
    [
        ("GET /", "INTERNAL", "forward GET"),
        *OTEL,
        ("forward GET", "INTERNAL", "forwarded GET"),
        ("forwarded GET", "INTERNAL", REMOTE),
        ("work", "INTERNAL", "GET /"),
    ],
    [("collapsed GET", "INTERNAL", REMOTE)],
    [("hit GET", "INTERNAL", REMOTE)],
]


async def test_each_request_is_one_trace_with_the_right_parents_and_no_span_twice(
    side: str, make_dedup: MakeDedup, caplog: pytest.LogCaptureFixture
) -> None:
    seen, work = Seen(), Work()
    dedup = make_dedup(default=Rule(ttl=60), tracer_provider=seen.provider)
    site = Site(make_traced(side, seen, dedup, work), work)
    work.shut()
    calls = [site.ask("/", headers=traced(trace)[0]) for trace in TRACES[:2]]
    await settle()
    work.open.set()
    calls.append(await site.get("/", headers=traced(TRACES[2])[0]))
    assert [await one.end() for one in calls] == [None] * 3

    assert [told(seen, trace) for trace in TRACES] == (INSIDE if side == "inside" else OUTSIDE)
    (forward,) = [number(span) for span in seen.named("forward GET")]
    assert [links(seen.one(name)) for name in ("collapsed", "hit")] == [[forward]] * 2
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def starlette_s_own_telemetry(make_dedup: MakeDedup) -> None:
    """The route is in the leader's scope; a request that ran nothing has none, and its SERVER span no template."""
    seen, work = Seen(), Work()
    dedup = make_dedup(Rule("/echo", ttl=60), tracer_provider=seen.provider)
    app = StarletteTelemetry(DedupMiddleware(make_app(work), dedup=dedup), tracer_provider=seen.provider)
    site = Site(app, work)
    for trace in TRACES[:2]:
        await site.get("/echo", headers=traced(trace)[0])

    assert told(seen, TRACES[0]) == [
        ("GET /echo", "SERVER", REMOTE),
        ("forward /echo", "INTERNAL", "forwarded /echo"),
        ("forwarded /echo", "INTERNAL", "GET /echo"),
    ]
    assert told(seen, TRACES[1]) == [("GET", "SERVER", REMOTE), ("hit /echo", "INTERNAL", "GET")]


if StarletteTelemetry is not None:
    test_starlette_s_own_telemetry_around_us_has_one_span_a_request = starlette_s_own_telemetry


@pytest.mark.parametrize("path", ["/", "/{}"], ids=["leader and follower", "two leaders"])
async def test_a_request_that_lasts_listens_to_its_client_in_its_own_trace(
    path: str, virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    seen, work = Seen(), Work()
    dedup = make_dedup(tracer_provider=seen.provider)
    site = Site(make_traced("inside", seen, dedup, work), work)
    work.shut()
    calls = [
        # Each in a context of its own, as a server's requests are.
        contextvars.Context().run(site.ask, path.format(n), headers=traced(trace)[0])
        for n, trace in enumerate(TRACES)
    ]
    await virtual_time.go(1)
    work.open.set()
    assert [await one.end() for one in calls] == [None] * 3
    await settle()

    received = [[one for one in told(seen, trace) if "receive" in one[0]] for trace in TRACES]
    assert received == [
        [(f"GET {p} http receive", "INTERNAL", f"GET {p}")] * 2 for p in map(path.format, range(3))
    ]


@pytest.mark.parametrize("first", ["instrumented", "deduplicated"])
async def test_fastapi_s_instrumentation_is_outermost_and_names_the_same_route(
    first: str, make_dedup: MakeDedup
) -> None:
    seen = Seen()
    dedup = make_dedup(default=Rule(ttl=60), tracer_provider=seen.provider)
    app = FastAPI(default_response_class=PlainTextResponse)

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return name

    steps: list[Callable[[], Any]] = [
        lambda: FastAPIInstrumentor.instrument_app(
            app, tracer_provider=seen.provider, meter_provider=NoOpMeterProvider(), exclude_spans=["send"]
        ),
        lambda: app.add_middleware(DedupMiddleware, dedup=dedup),
    ]
    for step in steps if first == "instrumented" else reversed(steps):
        step()
    site = Site(app, Work())
    try:
        answers = [await site.get("/items/x", headers=traced(trace)[0]) for trace in TRACES[:2]]
    finally:
        FastAPIInstrumentor.uninstrument_app(app)

    assert [answer.body for answer in answers] == [b"x", b"x"]
    route = "/items/{name}"
    assert told(seen, TRACES[0]) == [
        (f"GET {route}", "SERVER", REMOTE),
        (f"forward {route}", "INTERNAL", f"forwarded {route}"),
        (f"forwarded {route}", "INTERNAL", f"GET {route}"),
    ]
    assert told(seen, TRACES[1]) == [
        (f"GET {route}", "SERVER", REMOTE),
        (f"hit {route}", "INTERNAL", f"GET {route}"),
    ]
