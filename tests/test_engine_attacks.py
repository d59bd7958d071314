"""What must not happen inside the engine: apps and layers that rewrite scopes, flights left behind, odd heads."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from starlette.datastructures import URLPath

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule
from dedup_middleware.core import answer
from dedup_middleware.core.callers import Caller
from dedup_middleware.core.decide import Consider, RuleBook
from dedup_middleware.core.settle import ShareOnly
from dedup_middleware.flight import GRACE
from dedup_middleware.settled import Settled

from .kit import (
    HOST,
    Call,
    FakeClock,
    GatedApp,
    SlowCall,
    SteppedApp,
    VirtualTime,
    call,
    chunk,
    get,
    head,
    make_scope,
    make_table,
    open_flight,
    settle,
    until,
)

Make = Callable[..., Dedup]
STATUS = b"cache-status"
GERMAN = [(b"accept-language", b"de")]


def rewriting(method: str, *headers: tuple[bytes, bytes]) -> Any:
    """An app behind a layer that writes another method into its scope (method override, HEAD as GET)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["method"] = method
        await send(head(200, headers))
        await send(chunk(b"", more=False))

    return app


@pytest.mark.parametrize(("came", "written"), [("GET", "PUT"), ("HEAD", "GET")])
async def test_an_app_that_rewrites_its_method_is_counted_as_it_was_asked(
    came: str, written: str, make_dedup: Make
) -> None:
    dedup = make_dedup()

    await get(DedupMiddleware(rewriting(written), dedup=dedup), method=came)

    assert dedup.telemetry.counts == {("forwarded", "miss", "default", came): 1}


async def test_an_app_that_rewrites_its_method_leaves_a_conditional_request_conditional(
    make_dedup: Make,
) -> None:
    app = DedupMiddleware(rewriting("PUT", (b"etag", b'"v1"')), dedup=make_dedup(default=Rule(ttl=5)))

    assert (await get(app, headers=[(b"if-none-match", b'"v1"')])).status == 304


async def test_a_cancelled_leader_whose_scope_is_used_again_harms_no_follower(make_dedup: Make) -> None:
    bare = SteppedApp(head(200, [(b"content-length", b"6")]), chunk(b"", more=False))
    inner = DedupMiddleware(bare, dedup=make_dedup())

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await inner(scope, receive, send)
        except asyncio.CancelledError:  # as a layer does that answers a timeout by another page
            scope["method"], scope["path"] = "GET", "/timeout"

    leader = call(outer, method="HEAD")
    await settle()
    follower = call(outer, method="HEAD")
    await settle()
    leader.cancel()
    await settle()
    bare.finish()
    await follower.done()

    assert (follower.status, follower.complete) == (200, True)


async def test_a_landed_flight_does_not_hold_the_key_that_another_one_moves_to(make_dedup: Make) -> None:
    heads = [asyncio.Event() for _ in range(4)]
    ends = asyncio.Event()
    runs = 0

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        run, runs = runs, runs + 1
        await heads[run].wait()
        await send(head(200, [(b"vary", b"accept-language")]))
        if run == 1:
            await ends.wait()
        await send(chunk(b"%d" % run, more=False))
        await ends.wait()  # background work

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary="origin", max_followers=1)))

    async def join(count: int = 1) -> list[Call]:
        calls = [call(app, headers=GERMAN) for _ in range(count)]
        await settle()
        return calls

    calls = await join(2)  # run 0, full
    calls += await join()  # run 1, under the base key
    heads[0].set()
    await settle()  # Vary is known
    calls += await join()  # run 2, under the variant's key
    heads[2].set()
    await settle()  # landed, and not to be stored
    heads[1].set()
    await settle()  # run 1 moves to the variant's key
    heads[3].set()
    calls += await join()  # and this one joins it
    ends.set()
    for one in calls:
        await one.done()

    assert runs == 3


async def test_what_a_flight_raises_whose_leader_left_it_for_another_variant_is_raised(
    make_dedup: Make,
) -> None:
    gates = [asyncio.Event() for _ in range(2)]
    runs = 0

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        run, runs = runs, runs + 1
        await gates[0].wait()
        await send(head(200, [(b"vary", b"accept-language")]))
        if run == 0:
            await gates[1].wait()
            raise KeyError("original")
        await send(chunk(b"%d" % run, more=False))

    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary=[])))
    calls = [call(app, headers=GERMAN)]  # leads; the app does not see its language
    await settle()
    calls += [call(app), *(call(app, headers=GERMAN) for _ in range(30))]
    await settle()
    gates[0].set()
    await settle()
    gates[1].set()
    ended = await asyncio.gather(*(one.task for one in calls), return_exceptions=True)

    assert [type(one).__name__ for one in ended if one is not None].count("KeyError") == 1


@pytest.mark.parametrize("rule", [Rule("/a", ttl=60), Rule("/a", ttl="origin")], ids=["seconds", "origin"])
async def test_a_failed_write_drops_what_a_rule_without_the_switch_has_stored(
    rule: Rule, make_dedup: Make
) -> None:
    runs = 0

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        runs += 1
        status = 500 if scope["method"] == "POST" else 200
        await send(head(status, [(b"cache-control", b"max-age=60")]))
        await send(chunk(b"%d" % runs, more=False))

    app = DedupMiddleware(bare, dedup=make_dedup(rule, default=Rule.shared_cache()))
    await get(app, "/a")
    await get(app, "/a", "POST")

    assert (await get(app, "/a")).body == b"3"


async def test_a_header_of_three_parts_among_pairs_is_the_app_s_error(make_dedup: Make) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain"), (b"set-", b"cookie", b"a=b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(chunk(b"", more=False))

    with pytest.raises(ValueError, match="unpack"):
        await get(DedupMiddleware(bare, dedup=make_dedup()))


@pytest.mark.parametrize("name", [b"", b"x" * 3000])
def test_a_head_of_very_many_or_very_long_names_is_not_remembered(name: bytes) -> None:
    answer._shapes.clear()

    answer.read_answer(200, [(name, b"")] * (100_000 if not name else 1), "GET")

    assert not len(answer._shapes)


@pytest.mark.parametrize(
    ("method", "status", "lengths", "length"),
    [
        ("GET", 200, [b"5", b"5"], 5),
        ("GET", 200, [b"5", b"6"], -1),
        ("GET", 200, [b"5", b"6", b"5"], -1),
        ("GET", 200, [b"x", b"x"], -1),
        ("HEAD", 200, [b"5", b"6"], None),
        ("GET", 304, [b"5", b"5"], None),
    ],
)
def test_a_length_that_is_said_more_than_once_is_one_only_where_all_agree(
    method: str, status: int, lengths: list[bytes], length: int | None
) -> None:
    told = answer.read_answer(status, [(b"Content-Length", one) for one in lengths], method)

    assert told.length == length


SAID = {
    b"date": b"Tue, 14 Nov 2023 22:13:20 GMT",
    b"expires": b"Tue, 14 Nov 2023 22:13:20 GMT",
    b"last-modified": b"Tue, 14 Nov 2023 22:13:20 GMT",
    b"etag": b'"a"',
    b"age": b"7",
    b"content-length": b"5",
    b"cache-control": b"max-age=60",
    b"cdn-cache-control": b"max-age=60",
    b"surrogate-control": b"no-store",
    b"cache-groups": b'"g"',
    b"vary": b"accept",
    b"connection": b"x-a",
}


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("blanks", [b" %b", b"%b\t", b"\t %b \t"])
@pytest.mark.parametrize("name", SAID)
def test_blanks_around_a_value_are_no_part_of_it_and_go_out_as_they_came(
    name: bytes, blanks: bytes, twice: bool
) -> None:
    """RFC 9110 s.5.5."""
    bare, padded = (
        [(b"x-a", b"1"), *[(name, value)] * (2 if twice else 1)]
        for value in (SAID[name], blanks % SAID[name])
    )
    answer._lengths.clear()

    told = [answer.read_answer(200, fields, "GET") for fields in (bare, padded, padded)]

    assert told[1].headers == told[2].headers == padded
    for one in told:
        one.headers, one.shared = [], [(field, b"") for field, _ in one.shared]
    assert len({str(msgspec.structs.asdict(one)) for one in told}) == 1


@pytest.mark.parametrize("types", [(b"text/plain", b"text/event-stream"), (b"text/event-stream", b"a/b")])
def test_what_one_of_several_types_says_is_endless_is_so(types: tuple[bytes, bytes]) -> None:
    told = answer.read_answer(200, [(b"content-type", one) for one in types], "GET")

    assert (told.streams, told.plain) == (True, False)


def test_a_head_without_a_field_that_is_read_is_remembered_too() -> None:
    answer._shapes.clear()

    for _ in range(2):
        answer.read_answer(200, [(b"x-a", b"1")], "GET")

    assert answer._shapes.young == {(b"x-a",): (None, None, ())}


def test_a_head_that_comes_again_is_remembered_longer_than_others() -> None:
    answer._shapes.clear()
    answer.read_answer(200, [(b"ETag", b'"a"')], "GET")
    shape = answer._shapes.young[(b"ETag",)]

    for number in range(answer._shapes.capacity):
        answer.read_answer(200, [(b"x-%d" % number, b"1")], "GET")
    assert (b"ETag",) not in answer._shapes.young

    assert answer.read_answer(200, [(b"ETag", b'"a"')], "GET").etag == b'"a"'
    assert answer._shapes.young[(b"ETag",)] is shape


def test_media_types_are_remembered_but_for_long_ones_and_not_for_ever() -> None:
    answer._types.clear()
    for number in range(4 * answer._types.capacity):
        for _ in range(2):
            assert not answer.read_answer(200, [(b"content-type", b"a/%d" % number)], "GET").streams
    assert len(answer._types) <= 2 * answer._types.capacity

    for _ in range(2):
        assert answer.read_answer(
            200, [(b"content-type", b"text/event-stream;" + b"x" * 1000)], "GET"
        ).streams
    assert max(map(len, [*answer._types.young, *answer._types.old])) < 300


async def test_a_body_shows_nothing_of_its_chunks() -> None:
    flight = open_flight(make_table(FakeClock()))

    assert flight.keep(b"a secret")

    assert "secret" not in repr(flight)


def test_a_caller_shows_no_credentials_to_tools_that_ask_for_its_fields() -> None:
    caller = Caller([(b"authorization", b"a secret")], "/", None)

    assert (caller.__rich_repr__(), "secret" in repr(caller)) == ([], False)


async def test_what_is_stored_and_what_was_settled_show_nothing_of_it(make_dedup: Make) -> None:
    secret = b"a secret"
    head = answer.read_answer(200, [(b"x", secret)], "GET")
    dedup = make_dedup(default=Rule(ttl=60))
    app = DedupMiddleware(GatedApp(lambda *_: (200, [(b"x", secret)], secret), opened=True), dedup=dedup)
    await get(app)
    await dedup.call("k", partial(asyncio.sleep, 0, secret), ttl=60)

    settled = Settled(head, ShareOnly(frozenset()), frozenset(), b"")
    stored = [one for _, _, one in dedup.store.items()]

    assert len(stored) == 2, "a response, and a function's value"
    told: list[Any] = [head, settled, *stored]
    assert not [one for one in told if "secret" in f"{one!r} {one.__rich_repr__()}"]


@pytest.mark.parametrize("container", [tuple, iter, lambda pairs: dict(pairs).items()])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "QUERY"])
@pytest.mark.parametrize("enabled", [True, False])
async def test_whatever_iterable_a_layer_leaves_the_headers_in_the_app_gets_them_all(
    container: Callable[[Any], Any], method: str, enabled: bool, make_dedup: Make
) -> None:
    alice, bob = ([HOST, (b"authorization", name)] for name in (b"alice", b"bob"))
    bare = GatedApp(lambda scope, _: (200, [], repr(sorted(scope["headers"])).encode()), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=5), enabled=enabled))

    for headers in (alice, bob, alice):
        scope = {**make_scope(method=method), "headers": container(headers)}
        assert (await Call(app, scope).done()).body == repr(sorted(headers)).encode()
    assert bare.runs == (2 if enabled and method in ("GET", "QUERY") else 3)


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_a_path_that_a_layer_has_rewritten_to_a_kind_of_text_is_that_path(
    root_path: str, make_dedup: Make
) -> None:
    """Starlette's `url_path_for` gives such a one."""
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=5)))
    rewritten = {"path": URLPath(f"{root_path}/a"), "root_path": URLPath(root_path)}

    answers = [await get(app, f"{root_path}/a", **outer) for outer in (rewritten, {"root_path": root_path})]

    assert [(one.body, one.header(b"age")) for one in answers] == [(b"run 1", None), (b"run 1", b"0")]


class NotLoaded(dict[str, Any]):
    """What an outer layer left in a scope, and can't be looked at as yet."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("not loaded")

    __iter__ = keys = items = _refuse


class Detached:
    """An object in a session whose repr looks at what is no longer there, as an ORM's may."""

    def __repr__(self) -> str:
        raise RuntimeError("detached")


@pytest.mark.parametrize("cart", [Detached(), 10**5000], ids=["no repr", "too long a number"])
@pytest.mark.parametrize("identity", ["shared", lambda _: "alice"], ids=["shared", "function"])
async def test_a_session_that_can_t_be_read_costs_no_request_its_answer_and_is_shared_with_nobody(
    identity: Any, cart: object, make_dedup: Make
) -> None:
    """Nobody can tell whether the app has changed it."""
    bare = GatedApp()
    dedup = make_dedup(default=Rule(ttl=5, identity=identity))
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, session={"cart": cart}) for _ in range(2)]
    await settle()
    bare.gate.set()

    assert [(await one.done()).body for one in calls] == [b"run 1", b"run 2"]
    assert dedup.stats().stored == 0


@pytest.mark.parametrize("ttl", [0, 5])
@pytest.mark.parametrize(
    "left", [{"session": NotLoaded(a=1)}, {"extensions": ["tls"]}], ids=["session", "extensions"]
)
async def test_what_can_t_be_looked_at_and_does_not_count_fails_no_request(
    left: dict[str, Any], ttl: int, make_dedup: Make
) -> None:
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=ttl, identity="shared")))

    assert [(await get(app, **left)).status for _ in range(2)] == [200, 200]


async def test_a_request_whose_forward_can_t_be_made_leaves_no_flight_that_others_would_wait_for(
    make_dedup: Make,
) -> None:
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup())
    calls = [call(app, extensions=NotLoaded(a=1)) for _ in range(2)]
    await settle()

    for one in calls:
        with pytest.raises(RuntimeError, match="not loaded"):
            await one.done()


async def test_a_refresh_that_can_t_be_made_concerns_nobody(make_dedup: Make, clock: FakeClock) -> None:
    dedup = make_dedup(default=Rule(ttl=5, refresh_ahead=4))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    await get(app)
    clock.advance(2)

    hit = await get(app, extensions=NotLoaded(a=1))

    assert (hit.body, hit.header(b"cache-status")) == (b"run 1", b"dedup; hit; ttl=3")
    assert dedup.flights.is_empty


async def test_what_a_failed_run_held_is_free_at_once_though_its_leader_was_cancelled(
    make_dedup: Make,
) -> None:
    """Without a collection of garbage: nobody is left to raise the error, whose traceback holds all that."""

    class Rows:
        """A large result that was under way."""

    held: list[weakref.ref[Rows]] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        rows = Rows()
        held.append(weakref.ref(rows))
        await settle()
        raise KeyError

    dedup = make_dedup()
    gc.disable()
    try:
        one = call(DedupMiddleware(bare, dedup=dedup))
        other = asyncio.ensure_future(dedup.call("k", functools.partial(bare, None, None, None)))
        await until(lambda: len(held) == 2)
        one.cancel()
        other.cancel()
        await until(lambda: dedup.flights.is_empty)
        await settle()
        assert [rows() for rows in held] == [None, None]
    finally:
        gc.enable()


async def test_what_a_request_held_whose_receive_failed_is_free_at_once_over_http_2(make_dedup: Make) -> None:
    """Without a collection of garbage, as above."""

    class Deaf:
        async def receive(self) -> Any:
            raise OSError("gone")

    app = DedupMiddleware(GatedApp(), dedup=make_dedup())
    client = Deaf()
    held = weakref.ref(client)
    gc.disable()
    try:
        task = asyncio.ensure_future(app(make_scope(http_version="2"), client.receive, no_send))
        del client
        await asyncio.wait([task])
        assert isinstance(task.exception(), OSError)
        del task
        await settle()
        assert held() is None
    finally:
        gc.enable()


async def no_send(message: Any) -> None:
    """Nobody is there to hear it."""


class DeafCall(Call):
    """A client of a test's own making, whose receive has nothing to give."""

    async def _receive(self) -> Any:
        raise IndexError("pop from empty list")


async def test_a_receive_that_fails_costs_no_client_its_answer(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [DeafCall(app, make_scope()) for _ in range(2)]
    await virtual_time.go(1)  # by then the flight's watch has listened
    bare.gate.set()

    assert [(await one.done()).body for one in calls] == [b"run 1", b"run 1"]


class FailingCall(Call):
    """A client that is gone when the first chunk comes, as a server's send tells that raises."""

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("client gone")
        await super()._send(message)


class SwallowingCall(Call):
    """A client behind a layer that makes an error of the cancellation of its receive, as cancel scopes may."""

    async def _receive(self) -> Any:
        try:
            return await super()._receive()
        except asyncio.CancelledError:
            raise RuntimeError("no message") from None


async def test_no_task_is_left_listening_to_a_client_where_its_end_was_made_an_error(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    bare = SteppedApp(head(), chunk(b"x", more=False))
    call = SwallowingCall(DedupMiddleware(bare, dedup=make_dedup()), make_scope(), b"")
    await virtual_time.go(1)  # by then the flight's watch has listened
    bare.finish()
    assert (await call.done()).body == b"x"
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_a_leader_s_failed_send_held_is_free_at_once_though_the_leader_was_cancelled(
    make_dedup: Make,
) -> None:
    """Without a collection of garbage, as above."""

    class Gone:
        async def receive(self) -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(self, message: Any) -> None:
            raise OSError("gone")

    ends = asyncio.Event()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await ends.wait()

    client = Gone()
    held = weakref.ref(client)
    gc.disable()
    try:
        app = DedupMiddleware(bare, dedup=make_dedup())
        task = asyncio.ensure_future(app(make_scope(), client.receive, client.send))
        del client
        await settle()
        task.cancel()
        await asyncio.wait([task])
        del task
        ends.set()
        await settle()
        assert held() is None
    finally:
        gc.enable()


async def test_a_leader_whose_send_failed_hears_that_and_of_no_cancellation(
    make_dedup: Make, virtual_time: VirtualTime
) -> None:
    bare = SteppedApp(head(), chunk(b"one"), None)
    leader = FailingCall(DedupMiddleware(bare, dedup=make_dedup()), make_scope())
    bare.step(2)
    await virtual_time.go(GRACE + 1)

    assert bare.cancelled == 1
    with pytest.raises(OSError, match="client gone"):
        await leader.done()


async def test_a_leader_that_was_cut_before_all_others_left_hears_of_no_cancellation(
    make_dedup: Make, virtual_time: VirtualTime
) -> None:
    bare = SteppedApp(head(), *[chunk(b"12345678") for _ in range(4)], None)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(max_response_body=10)))
    leader, follower = SlowCall(app, make_scope()), call(app)
    bare.step(5)
    await virtual_time.go(30)
    follower.disconnect()
    await virtual_time.go(GRACE + 1)
    leader.take_all()

    assert bare.cancelled == 1
    with pytest.raises(ForwardFailed, match="SlowReader"):
        await leader.done()


# -- what layers write meanwhile ------------------------------------------------------------------------------------


def moves(scope: Any) -> str:
    """An identity function that puts a key of its own in the place of an outer layer's."""
    scope["who"] = scope.pop("session")["u"]
    return "everybody"


def renames(scope: Any) -> str:
    scope["tenant"] = scope.pop("x_tenant")
    return "everybody"


@pytest.mark.parametrize("vary", [(), None], ids=["vary of nothing", "vary of everything"])
@pytest.mark.parametrize(
    ("identity", "theirs"),
    [
        (moves, [{"session": {"u": "a"}}, {"session": {"u": "b"}}]),
        (renames, [{"x_tenant": "a"}, {"x_tenant": "b"}]),
    ],
)
async def test_what_an_identity_function_writes_is_seen_by_no_app(
    identity: Any, theirs: list[dict[str, Any]], vary: Any, make_dedup: Make
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name in ("who", "tenant") if name in scope)
        await send(head())
        await send(chunk(more=False))

    wrapped = DedupMiddleware(app, dedup=make_dedup(Rule("/", identity=identity, vary=vary)))
    await asyncio.gather(*(Call(wrapped, make_scope(**more)).done() for more in theirs))

    assert seen == []


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("written", [{"method": "DELETE"}, {"path": "/other", "raw_path": b"/other"}])
async def test_a_target_that_a_layer_reads_from_a_body_is_nobody_elses(
    written: dict[str, Any], version: str, make_dedup: Make
) -> None:
    """As method override does: two DELETEs both run, and what is stored there is gone."""
    dedup = make_dedup(default=Rule(methods=["GET", "POST"], collapse=True, ttl=60))
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)

    async def rewritten() -> bytes | None:
        scope = make_scope("/item", "POST", http_version=version)

        async def receive() -> dict[str, Any]:
            scope.update(written)
            return {"type": "http.request", "body": b"same", "more_body": False}

        heads: list[Any] = []

        async def send(message: Any) -> None:
            heads.append(message)

        await app(scope, receive, send)
        return dict(heads[0]["headers"]).get(STATUS)

    await get(app, "/item")
    before = bare.runs
    answers = await asyncio.gather(rewritten(), rewritten())

    assert bare.runs == before + 2
    assert not any(answers), "a bypass says nothing"
    if "method" in written:
        await get(app, "/item")
        assert bare.runs == before + 3, "what was stored there is out of date"


def test_rules_that_come_while_a_request_is_planned_give_it_no_other_rules_terms(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedup = make_dedup(Rule("/s", ttl=5))
    plan = RuleBook.plan

    def while_another_thread_adds_rules(self: RuleBook, *asked: Any) -> Any:
        found = plan(self, *asked)
        monkeypatch.undo()
        dedup.add_rules({("/m", ("GET",)): Rule("/m", name="m", methods=("GET",))})
        return found

    monkeypatch.setattr(RuleBook, "plan", while_another_thread_adds_rules)
    planned = dedup.plan(make_scope("/any"))

    assert isinstance(planned, Consider)
    assert planned.terms.label == planned.label == "default"


# -- other loops, late chunks ----------------------------------------------------------------------------------------


class WithoutFactories(asyncio.SelectorEventLoop):
    def get_task_factory(self) -> Any:
        raise NotImplementedError  # as in asyncio.AbstractEventLoop


class WithoutNames(asyncio.SelectorEventLoop):
    def create_task(self, coro: Any) -> Any:  # type: ignore[override] # all that asyncio.create_task asked for long
        return asyncio.Task(coro, loop=self)


class OwnFactory(asyncio.SelectorEventLoop):
    def get_task_factory(self) -> Any:
        return super().get_task_factory()


@pytest.mark.parametrize("kind", [WithoutFactories, WithoutNames, OwnFactory, asyncio.SelectorEventLoop])
def test_a_loop_that_knows_no_names_of_tasks_runs_flights(kind: Any, make_dedup: Make) -> None:
    names: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())
        await send(head())
        await send(chunk(b"done", more=False))

    async def ask() -> bytes:
        return (await get(DedupMiddleware(app, dedup=make_dedup()))).body

    loop = kind()
    try:
        assert loop.run_until_complete(ask()) == b"done"
    finally:
        loop.close()
    assert (names[0] == "dedup_middleware flight") is (kind is asyncio.SelectorEventLoop)


async def test_a_chunk_that_comes_when_the_flight_is_over_is_charged_to_nobody(make_dedup: Make) -> None:
    dedup = make_dedup(default=Rule(max_response_body=1500))
    left: list[asyncio.Task[None]] = []
    returns = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(head())

        async def more() -> None:
            for _ in range(4):
                await send(chunk(b"x" * 1000))

        left.append(asyncio.create_task(more()))
        await returns.wait()

    slow = SlowCall(DedupMiddleware(app, dedup=dedup), make_scope())
    await settle()
    returns.set()  # while `more` waits for the slow reader
    await settle()
    slow.take_all()
    await settle()
    await asyncio.gather(*left)

    assert (dedup.flights.is_empty, dedup.flights.budget.used) == (True, 0)


async def test_no_task_of_an_app_waits_for_ever_where_several_write_to_a_slow_reader(
    make_dedup: Make,
) -> None:
    dedup = make_dedup(default=Rule(max_response_body=1500))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await asyncio.gather(*(send(chunk(letter * 1000)) for letter in (b"a", b"b", b"c", b"d")))
        await send(chunk(b"", more=False))

    slow = SlowCall(DedupMiddleware(app, dedup=dedup), make_scope())
    await settle()
    slow.take_all()
    await settle()

    assert slow.task.done()
    assert (await slow.done()).body == b"a" * 1000 + b"b" * 1000 + b"c" * 1000 + b"d" * 1000
