"""Identity and vary: who counts as one caller, and that what a rule leaves out is not there for the app to see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from dedup_middleware import ANONYMOUS, ConfigurationError, Dedup, DedupMiddleware, Rule
from dedup_middleware.core.names import ADDRESS_FIELDS

from .kit import Call, GatedApp, call, get, settle

Make = Callable[..., Dedup]
Pairs = list[tuple[bytes, bytes]]
Request = dict[str, Any]
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class User:
    def __init__(self, identity: object = "", *, pk: object = None, known: object = True) -> None:
        self.identity, self.pk, self.is_authenticated = identity, pk, known


class Unwilling(BaseUser):
    """A user of Starlette's whose every property is yet to be written."""


RICH: Pairs = [
    (b"authorization", b"Bearer alice"),
    (b"cookie", b"sid=1; theme=dark; _ga=GA1.2"),
    (b"x-api-key", b"k"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"forwarded", b"for=10.0.0.1"),
    (b"accept", b"text/html"),
    (b"accept-language", b"de"),
    (b"user-agent", b"ua"),
    (b"x-unknown", b"1"),
    (b"x-request-id", b"r-1"),
    (b"traceparent", TRACE),
    (b"content-length", b"0"),
    (b"range", b"bytes=0-1"),
    (b"content-type", b"text/plain"),
    (b"connection", b"keep-alive"),
    (b"cache-control", b"no-cache"),
    (b"if-none-match", b'"v1"'),
]
OUTER: dict[str, Any] = {
    "user": User("alice"),
    "auth": AuthCredentials(["read"]),
    "session": {"id": 1},
    "state": {"tenant": "a", "locale": "de"},
    "tenant": "a",
    "extensions": {
        "tls": {"client_cert_name": "CN=alice"},
        "http.response.push": {},
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
        "http.response.trailers": {},
        "http.response.debug": {},
        "http.response.early_hint": {},
    },
}
ALWAYS = {b"host", b"content-length", b"content-type", b"range", b"x-request-id", b"traceparent"}
ADDRESS = {b"x-forwarded-for", b"forwarded"}
CREDENTIALS = {b"authorization", b"cookie", b"x-api-key"}
OTHERS = {b"accept", b"accept-language", b"user-agent", b"x-unknown", b"connection", b"cache-control"}


async def seen_by_the_app(make_dedup: Make, headers: Pairs = RICH, **rule: Any) -> Mapping[str, Any]:
    bare = GatedApp(opened=True)
    outer = dict(OUTER)
    identity = rule.get("identity")
    if isinstance(identity, list):  # what the list does not name would be a reason to share nothing
        outer.pop("user") if "user" not in identity else None
        outer.pop("auth") if "user" not in identity else None
        outer.pop("session") if "session" not in identity else None
        outer["extensions"] = {
            name: value
            for name, value in outer["extensions"].items()
            if name != "tls" or "certificate" in identity
        }
    one = await get(DedupMiddleware(bare, dedup=make_dedup(default=Rule(**rule))), headers=headers, **outer)
    assert one.header(b"cache-status") is not None, "the request was bypassed, the test shows nothing"
    return bare.scopes[0]


def field_names(scope: Mapping[str, Any]) -> set[bytes]:
    return {name for name, _ in scope["headers"]}


# -- law 3: what the fingerprint does not hold, the app does not see -------------------------------------------------

SEES: dict[str, tuple[dict[str, Any], set[bytes]]] = {
    "by default": ({}, ALWAYS | ADDRESS | CREDENTIALS | OTHERS | {b"if-none-match"}),
    "where it stores": ({"ttl": 60}, (ALWAYS | ADDRESS | CREDENTIALS | OTHERS) - {b"cache-control"}),
    "vary=[]": ({"vary": []}, ALWAYS | ADDRESS | CREDENTIALS | {b"if-none-match"}),
    "vary=[accept]": ({"vary": ["Accept"], "ttl": 60}, ALWAYS | ADDRESS | CREDENTIALS | {b"accept"}),
    "all but one": (
        {"vary": ["*", "-user-agent"], "ttl": 60},
        (ALWAYS | ADDRESS | CREDENTIALS | OTHERS) - {b"user-agent", b"cache-control"},
    ),
    "the app's own Vary": (
        {"vary": "origin", "ttl": 60},
        (ALWAYS | ADDRESS | CREDENTIALS | OTHERS) - {b"cache-control"},
    ),
    "callers by credentials": (
        {"identity": "credentials", "ttl": 60},
        (ALWAYS | CREDENTIALS | OTHERS) - {b"cache-control"},
    ),
    "callers by credentials, and the address varies": (
        {"identity": "credentials", "vary": ["client"]},
        ALWAYS | ADDRESS | CREDENTIALS | {b"if-none-match"},
    ),
    "shared": ({"identity": "shared", "ttl": 60}, (ALWAYS | OTHERS) - {b"cache-control"}),
    "shared, vary=[]": ({"identity": "shared", "vary": [], "ttl": 60}, ALWAYS),
    "shared, by the app's own Vary": (
        {"identity": "shared", "vary": "origin", "ttl": 60},
        (ALWAYS | OTHERS) - {b"cache-control"},
    ),
    "shared, one cookie": (
        {"identity": "shared", "vary": ["cookie:theme"], "ttl": 60},
        ALWAYS | {b"cookie"},
    ),
    "shared, but for one credential": (
        {"identity": "shared", "vary": ["x-api-key"], "ttl": 60},
        ALWAYS | {b"x-api-key"},
    ),
    "ignored and still visible": (
        {"vary": [], "ignore": ["header:accept-*"], "identity": "shared", "ttl": 60},
        ALWAYS | {b"accept-language"},
    ),
    "a function": (
        {"identity": lambda scope: "alice", "vary": [], "ttl": 60},
        ALWAYS | ADDRESS | CREDENTIALS,
    ),
}


@pytest.mark.parametrize("name", SEES)
async def test_the_app_sees_no_field_that_the_fingerprint_leaves_out(make_dedup: Make, name: str) -> None:
    rule, expected = SEES[name]
    scope = await seen_by_the_app(make_dedup, **rule)
    assert field_names(scope) == expected
    order = [field for field, _ in RICH]
    kept = [field for field, _ in scope["headers"] if field != b"host"]
    assert kept == sorted(kept, key=order.index), "in the order in which they came"


@pytest.mark.parametrize(
    ("rule", "cookie"),
    [
        ({}, b"sid=1; theme=dark"),
        ({"identity": "credentials"}, b"sid=1; theme=dark"),
        ({"identity": "shared"}, None),
        ({"identity": "shared", "vary": "origin"}, None),
        ({"identity": "shared", "vary": ["cookie:theme"]}, b"theme=dark"),
        ({"identity": "shared", "vary": ["cookie:theme", "cookie:lang"]}, b"theme=dark"),
        ({"identity": "shared", "vary": ["cookie:none"]}, None),
        ({"identity": "shared", "vary": ["cookie"]}, b"sid=1; theme=dark"),
        ({"identity": lambda scope: "alice"}, b"sid=1; theme=dark; _ga=GA1.2"),
    ],
)
async def test_the_app_sees_no_cookie_that_the_fingerprint_leaves_out(
    make_dedup: Make, rule: dict[str, Any], cookie: bytes | None
) -> None:
    scope = await seen_by_the_app(make_dedup, **rule)
    assert dict(scope["headers"]).get(b"cookie") == cookie


@pytest.mark.parametrize(
    ("identity", "headers", "visible"),
    [
        (["cookie:sid"], [(b"cookie", b"sid=1; _ga=2")], {b"cookie": b"sid=1"}),
        (["cookie:sid"], [(b"x-forwarded-for", b"10.0.0.1")], {}),
        (["cookie:sid", "authorization"], [(b"authorization", b"a")], {b"authorization": b"a"}),
        (["header:Authorization"], [(b"authorization", b"a")], {b"authorization": b"a"}),
        (["client"], [(b"x-forwarded-for", b"10.0.0.1")], {b"x-forwarded-for": b"10.0.0.1"}),
        (["x-real-ip"], [(b"x-real-ip", b"1"), (b"x-forwarded-for", b"2")], {b"x-real-ip": b"1"}),
        (["x-caller"], [(b"x-caller", b"1")], {b"x-caller": b"1"}),
        (["cookie"], [(b"cookie", b"a=1; b=2; _ga=3")], {b"cookie": b"a=1; b=2"}),
    ],
)
async def test_a_list_of_credentials_shows_the_app_these_and_no_others(
    make_dedup: Make, identity: list[str], headers: Pairs, visible: dict[bytes, bytes]
) -> None:
    shapes: list[Any] = [[], "origin"]
    for vary in shapes:
        scope = await seen_by_the_app(make_dedup, headers, identity=identity, vary=vary, ttl=60)
        assert {name: value for name, value in scope["headers"] if name != b"host"} == visible
        assert scope["client"] == (("192.0.2.1", 0) if identity == ["client"] else None)


@pytest.mark.parametrize(
    ("rule", "own", "address", "certificate"),
    [
        ({}, {"user", "auth", "session"}, True, True),
        ({"vary": []}, {"user", "auth", "session"}, True, True),
        ({"identity": "credentials"}, {"user", "auth", "session"}, False, True),
        ({"identity": "shared"}, set(), False, False),
        ({"identity": "shared", "vary": "origin"}, set(), False, False),
        ({"identity": "shared", "vary": ["client"]}, set(), True, False),
        ({"identity": ["user"]}, {"user", "auth"}, False, False),
        ({"identity": ["session"]}, {"session"}, False, False),
        ({"identity": ["client", "certificate"]}, set(), True, True),
        ({"identity": lambda scope: "alice"}, {"user", "auth", "session"}, True, True),
    ],
)
async def test_what_identity_leaves_out_is_not_there(
    make_dedup: Make, rule: dict[str, Any], own: set[str], address: bool, certificate: bool
) -> None:
    scope = await seen_by_the_app(make_dedup, [], **rule)
    assert {name for name in ("user", "auth", "session") if name in scope} == own
    assert scope["client"] == (("192.0.2.1", 0) if address else None)
    assert set(scope["extensions"]) == {"http.response.early_hint"} | ({"tls"} if certificate else set())
    if "user" in own:
        assert scope["user"] is OUTER["user"], "the leader's own objects"
    if "session" in own:
        assert scope["session"] is OUTER["session"]


@pytest.mark.parametrize(
    ("rule", "state", "tenant"),
    [
        ({}, {"tenant": "a", "locale": "de"}, True),
        ({"vary": "origin"}, {"tenant": "a", "locale": "de"}, True),
        ({"vary": []}, {}, False),
        ({"vary": ["state:locale"]}, {"locale": "de"}, False),
        ({"vary": ["scope:tenant"]}, {}, True),
        ({"vary": [], "ignore": ["state:ten*"]}, {"tenant": "a"}, False),
        ({"vary": [], "ignore": ["scope:*"]}, {}, True),
        ({"ignore": ["state:*", "scope:tenant"]}, {"tenant": "a", "locale": "de"}, True),
    ],
)
async def test_the_app_sees_no_state_that_the_fingerprint_leaves_out(
    make_dedup: Make, rule: dict[str, Any], state: dict[str, Any], tenant: bool
) -> None:
    scope = await seen_by_the_app(make_dedup, [], **rule)
    assert scope["state"] == state
    assert ("tenant" in scope) is tenant


FORWARDED: dict[str, tuple[list[bytes], list[bytes], bool]] = {
    "another address": ([b"for=192.0.2.7"], [b'by=10.0.0.1;FOR="[2001:db8::1]:4711"'], True),
    "none": ([b"for=192.0.2.7, for=10.0.0.1"], [], True),
    "another address beside one host": ([b"for=192.0.2.7;host=a;proto=https"], [b"for=_x;host=a;proto=https"], True),
    "another host": ([b"for=192.0.2.7;host=a"], [b"for=192.0.2.7;host=b"], False),
    "another scheme": ([b"proto=http"], [b"proto=https"], False),
    "a host": ([b"host=a"], [], False),
    "the same host of another hop": ([b"for=192.0.2.7;host=a, for=_x"], [b"for=192.0.2.7, for=_x;host=a"], False),
    "the same host on another line": ([b"for=192.0.2.7", b"host=a"], [b"host=a"], False),
    "a host that holds an address": ([b'host="a for=_x"'], [b'host="a for=_y"'], False),
    "an address that holds a host": ([b'for="_x;host=a"'], [b'for="_x;host=b"'], False),
    "an escaped quote": ([b'for="\\";host=a;by="'], [b'for="\\";host=b;by="'], False),
    "what is not in the grammar": ([b"for=_x host=a"], [b"for=_x host=b"], False),
    "no parameter at all": ([b"192.0.2.7"], [b"192.0.2.8"], False),
    "another parameter that ends so": ([b"therefor=a"], [b"therefor=b"], False),
}  # fmt: skip


@pytest.mark.parametrize("vary", [None, [], "origin"], ids=str)
@pytest.mark.parametrize("case", FORWARDED)
async def test_a_host_beside_an_address_is_never_taken_on_the_oath_of_who_asks(
    make_dedup: Make, case: str, vary: Any
) -> None:
    """An app may make its links of what Forwarded says (Falcon's `forwarded_uri`): one attacker's would go to all."""
    attackers, victims, are_one = FORWARDED[case]
    dedup = make_dedup(default=Rule(ttl=60, identity=lambda _: ANONYMOUS, vary=vary))
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    first = await get(app, headers=[(b"forwarded", line) for line in attackers])
    second = await get(app, headers=[(b"forwarded", line) for line in victims])

    assert (first.body == second.body) is are_one


def test_an_explanation_tells_a_host_that_forwarded_names_as_keyed() -> None:
    dedup = Dedup(default=Rule(identity=lambda _: ANONYMOUS))

    assert "header:forwarded" in dedup.explain(headers={"forwarded": "for=_x;host=a"}).keyed
    assert "header:forwarded" in dedup.explain(headers={"forwarded": "for=_x"}).left_out


async def test_a_bypassed_request_is_untouched(make_dedup: Make) -> None:
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(vary=[], identity="shared")))
    one = await call(app, method="POST", headers=RICH, **OUTER).done()
    assert bare.scopes[0] is one.scope


async def test_an_address_that_nobody_keyed_never_reaches_the_app(make_dedup: Make) -> None:
    """Nothing in which a proxy says where a request came from may stay behind when the address goes."""
    fields = [(name, b"10.0.0.1") for name in sorted(ADDRESS_FIELDS)]
    for identity in ("shared", "credentials", ["cookie:sid"]):
        scope = await seen_by_the_app(make_dedup, fields, identity=identity)
        assert field_names(scope) == {b"host"}
        assert scope["client"] is None


# -- who is one caller -----------------------------------------------------------------------------------------------


async def crowd(app: DedupMiddleware, bare: GatedApp, requests: Iterable[dict[str, Any]]) -> list[bytes]:
    """The answers to requests that come at once."""
    bare.gate.clear()
    calls: list[Call] = []
    for request in requests:
        calls.append(call(app, **request))
        await settle()
    bare.gate.set()
    return [(await one.done()).body for one in calls]


def caller(name: str | None = None, client: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    return {"headers": [(b"authorization", name.encode())] if name else [], "client": client, **more}


async def test_callers_are_separate_unless_a_rule_says_otherwise(make_dedup: Make) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    requests = [
        caller(),
        caller(client="10.0.0.2"),
        caller("alice"),
        caller("bob"),
        caller("alice"),
        caller(),
    ]
    assert await crowd(app, bare, requests) == [b"run 1", b"run 2", b"run 3", b"run 4", b"run 3", b"run 1"]


async def test_callers_without_credentials_are_one_by_credentials(make_dedup: Make) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(identity="credentials")))
    requests = [
        caller(),
        caller(client="10.0.0.2"),
        caller("alice"),
        caller("alice", "10.0.0.2"),
        caller("bob"),
    ]
    assert await crowd(app, bare, requests) == [b"run 1", b"run 1", b"run 2", b"run 2", b"run 3"]


async def test_everybody_is_one_where_a_rule_says_shared(make_dedup: Make) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(identity="shared")))
    requests = [
        caller(),
        caller("alice", "10.0.0.2"),
        {"headers": [(b"cookie", b"sid=1")], "user": User("bob")},
        {"session": {"id": 1}, "extensions": OUTER["extensions"]},
    ]
    assert await crowd(app, bare, requests) == [b"run 1"] * 4
    assert field_names(bare.scopes[0]) == {b"host"}


async def test_an_app_that_checks_credentials_itself_fails_at_once_under_shared(make_dedup: Make) -> None:
    def check(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return (200 if b"authorization" in dict(scope["headers"]) else 401), [], b""

    app = DedupMiddleware(
        GatedApp(check, opened=True), dedup=make_dedup(default=Rule(identity="shared", ttl=60))
    )
    assert (await get(app, **caller("alice"))).status == 401


LISTED = [
    ("cookie:sid", [(b"cookie", b"sid=1")], [(b"cookie", b"sid=2")]),
    ("authorization", [(b"authorization", b"a")], [(b"authorization", b"b")]),
    ("Authorization", [(b"authorization", b"a")], [(b"authorization", b"b")]),
    ("header:x-api-key", [(b"x-api-key", b"a")], [(b"x-api-key", b"b")]),
    ("x-caller", [(b"x-caller", b"a")], [(b"x-caller", b"b")]),
    ("x-real-ip", [(b"x-real-ip", b"a")], [(b"x-real-ip", b"b")]),
    ("client", [(b"x-forwarded-for", b"a")], [(b"x-forwarded-for", b"b")]),
    ("cookie", [(b"cookie", b"a=1; b=2")], [(b"cookie", b"a=1; b=3")]),
]  # fmt: skip


@pytest.mark.parametrize(("item", "one", "other"), LISTED, ids=[item for item, _, _ in LISTED])
@pytest.mark.parametrize("vary", [None, [], "origin", ["*", "-x-caller"]])
@pytest.mark.parametrize("ignore", [[], ["header:x-*"]])
async def test_what_a_list_names_always_counts(
    make_dedup: Make, item: str, one: Pairs, other: Pairs, vary: Any, ignore: list[str]
) -> None:
    bare = GatedApp()
    rule = Rule(identity=[item], vary=vary, ttl=60, ignore=ignore)
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    requests: list[Request] = [{"headers": headers} for headers in (one, other, one, [], other)]
    assert await crowd(app, bare, requests) == [b"run 1", b"run 2", b"run 1", b"run 3", b"run 2"]
    assert [(await get(app, **request)).body for request in requests[:2]] == [b"run 1", b"run 2"]


LISTED_SCOPE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("user", {"user": User("a")}, {"user": User("b")}),
    ("user", {"user": "a"}, {"user": "b"}),
    ("user", {"user": User(pk=1)}, {"user": User(pk=2)}),
    ("user", {"user": User(0)}, {"user": User(1)}),
    (
        "user",
        {"user": User("a"), "auth": AuthCredentials(["read"])},
        {"user": User("a"), "auth": AuthCredentials(["write"])},
    ),
    ("session", {"session": {"id": 1}}, {"session": {"id": 2}}),
    (
        "certificate",
        {"extensions": {"tls": {"client_cert_name": "a"}}},
        {"extensions": {"tls": {"client_cert_name": "b"}}},
    ),
    ("client", {"client": "10.0.0.1"}, {"client": "10.0.0.2"}),
]


@pytest.mark.parametrize(("item", "one", "other"), LISTED_SCOPE)
async def test_what_a_list_names_of_the_scope_always_counts(
    make_dedup: Make, item: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(identity=[item], vary=[], ttl=60)))
    assert await crowd(app, bare, [one, other, one, other]) == [b"run 1", b"run 2", b"run 1", b"run 2"]


UNNAMED: list[dict[str, Any]] = [
    caller("alice"),
    {"headers": [(b"cookie", b"other=1")]},
    {"headers": [(b"cookie", b"sid=1; other=1")]},
    {"headers": [(b"cookie", b"sid=1"), (b"cookie", b"other=1")]},
    {"headers": [(b"cookie", b'sid="1; other=1"')]},
    {"headers": [(b"cookie", b"sid=1; \x0bsid=2")]},
    {"headers": [(b"cookie", b"sid=1; SID=2")]},
    {"headers": [(b"cookie", b"sid=1; nameless")]},
    {"headers": [(b"Cookie", b"sid=1; other=1")]},
    {"headers": [(b"x-api-key", b"1")]},
    {"headers": [(b"X-API-Key", b"1")]},
    {"user": User("alice")},
    {"user": "alice"},
    {"user": 0},
    {"user": object()},
    {"auth": AuthCredentials(["read"])},
    {"session": {"id": 1}},
    {"extensions": {"tls": {"client_cert_name": "CN=a"}}},
]


@pytest.mark.parametrize("request_", UNNAMED)
async def test_a_credential_that_a_list_does_not_name_is_a_reason_to_share_nothing(
    make_dedup: Make, request_: dict[str, Any]
) -> None:
    bare = GatedApp(opened=True)
    dedup = make_dedup(default=Rule(identity=["cookie:sid"], vary=[], ttl=60))
    app = DedupMiddleware(bare, dedup=dedup)
    for run in (1, 2):
        one = await get(app, **request_)
        assert one.body == b"run %d" % run
        assert one.header(b"cache-status") is None
        assert bare.scopes[-1] is one.scope
    assert {key[1] for key in dedup.telemetry.counts} == {"credential"}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"headers": [(b"cookie", b"_ga=1; _gid=2")]},
        {"user": UnauthenticatedUser(), "auth": AuthCredentials()},
        {"user": None, "session": {}, "auth": None},
        {"user": ""},
        {"extensions": {"tls": {"tls_version": 772, "client_cert_name": None, "client_cert_chain": []}}},
    ],
)
async def test_a_caller_without_credentials_is_no_doubt_for_a_list(
    make_dedup: Make, request_: dict[str, Any]
) -> None:
    app = DedupMiddleware(
        GatedApp(opened=True), dedup=make_dedup(default=Rule(identity=["cookie:sid"], vary=[], ttl=60))
    )
    assert [(await get(app, **request_)).body for _ in range(2)] == [b"run 1", b"run 1"]


# -- a function ------------------------------------------------------------------------------------------------------


def fails(error: Exception) -> Callable[[Mapping[str, Any]], str]:
    def identity(scope: Mapping[str, Any]) -> str:
        raise error

    return identity


class Text(str):
    __slots__ = ()


async def later(scope: Mapping[str, Any]) -> str:
    return "alice"


NOBODY: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "an empty text": lambda scope: "",
    "empty bytes": lambda scope: b"",
    "None": lambda scope: None,
    "an object": lambda scope: object(),
    "a number": lambda scope: 7,
    "a truth": lambda scope: True,
    "a list": lambda scope: ["alice"],
    "a text of another type": lambda scope: Text("alice"),
    "text that no encoding holds": lambda scope: "\udcff",
    "the type of ANONYMOUS": lambda scope: type(ANONYMOUS),
    **{type(error).__name__: fails(error) for error in (KeyError("x"), AttributeError("x"), TypeError("x"),
                                                        ValueError("x"), RuntimeError("x"), StopIteration())},
}  # fmt: skip


@pytest.mark.parametrize("name", NOBODY)
async def test_a_function_that_names_nobody_shares_nothing(make_dedup: Make, name: str) -> None:
    for ttl in (0, 60):
        bare = GatedApp()
        app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(identity=NOBODY[name], ttl=ttl)))
        assert await crowd(app, bare, [{}, {}]) == [b"run 1", b"run 2"]
        assert (await get(app)).header(b"cache-status") is None


async def test_a_function_that_changes_its_mind_shares_nothing_and_breaks_nothing(make_dedup: Make) -> None:
    answers = itertools.cycle(["alice", "", None, "bob", "alice", "", "alice"])

    def fickle(scope: Mapping[str, Any]) -> Any:
        return next(answers)

    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(identity=fickle, ttl=60)))
    calls = [call(app, f"/{number % 7}", method) for number in range(50) for method in ("GET", "HEAD")]
    assert {(await one.done()).status for one in calls} == {200}


async def test_a_function_tells_callers_apart_and_they_keep_what_they_carry(make_dedup: Make) -> None:
    def tenant(scope: Mapping[str, Any]) -> Any:
        return dict(scope["headers"]).get(b"x-tenant") or ANONYMOUS

    bare = GatedApp()
    rule = Rule(identity=tenant, vary=["x-tenant"], ttl=60)
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    requests: list[Request] = [
        {"headers": [(b"x-tenant", b"a"), (b"authorization", b"alice")], "client": "10.0.0.1", "user": User("alice")},
        {"headers": [(b"x-tenant", b"a"), (b"authorization", b"bob")], "client": "10.0.0.2", "session": {"id": 1}},
        {"headers": [(b"x-tenant", b"b")]},
        {"headers": []},
        {"headers": [(b"cookie", b"a=1")]},
    ]  # fmt: skip
    assert await crowd(app, bare, requests) == [b"run 1", b"run 1", b"run 2", b"run 3", b"run 3"]
    first = bare.scopes[0]
    assert dict(first["headers"])[b"authorization"] == b"alice"
    assert first["client"] == ("10.0.0.1", 0)
    assert first["user"].identity == "alice"


async def test_a_text_and_its_bytes_are_two_callers(make_dedup: Make) -> None:
    answers: dict[bytes, str | bytes] = {b"/t": "alice", b"/b": b"alice"}
    bare = GatedApp(opened=True)
    rule = Rule(identity=lambda scope: answers[dict(scope["headers"])[b"x-which"]], vary=[], ttl=60)
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    bodies = [(await get(app, headers=[(b"x-which", which)])).body for which in (b"/t", b"/b", b"/t")]
    assert bodies == [b"run 1", b"run 2", b"run 1"]


@pytest.mark.parametrize("status_or_field", [b"private", b"nonce"])
async def test_what_is_private_needs_a_function_that_names_somebody(
    make_dedup: Make, status_or_field: bytes
) -> None:
    field = (
        (b"cache-control", b"private")
        if status_or_field == b"private"
        else (b"content-security-policy", b"'nonce-1'")
    )
    rules = {
        Rule(identity=lambda scope: "alice"): [b"run 1"] * 3,
        Rule(identity=lambda scope: ANONYMOUS): [b"run 1", b"run 2", b"run 3"],
    }
    for rule, answers in rules.items():
        bare = GatedApp(lambda _, run: (200, [field], b"run %d" % run))
        app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
        assert sorted(await crowd(app, bare, [{}, {}, {}])) == answers


async def test_an_identity_that_is_awaited_is_refused_or_shares_nothing(make_dedup: Make) -> None:
    with pytest.raises(ConfigurationError, match="identity"):
        Rule(identity=later)  # type: ignore[arg-type] # that is the mistake


# -- who is one identity, for `private` ------------------------------------------------------------------------------

ONE: list[tuple[Any, dict[str, Any], bool]] = [
    ("separate", {}, True),
    ("shared", caller("alice"), False),
    ("credentials", {}, False),
    ("credentials", caller("alice"), True),
    ("credentials", {"headers": [(b"cookie", b"sid=1")]}, True),
    ("credentials", {"headers": [(b"cookie", b"_ga=1")]}, False),
    ("credentials", {"user": User("alice")}, True),
    ("credentials", {"user": UnauthenticatedUser(), "auth": AuthCredentials()}, False),
    ("credentials", {"user": None}, False),
    ("credentials", {"user": ""}, False),
    ("credentials", {"session": {"id": 1}}, True),
    ("credentials", {"session": {}}, False),
    (["cookie:sid"], {"headers": [(b"cookie", b"sid=1")]}, True),
    (["cookie:sid"], {"headers": [(b"cookie", b"theme=dark")]}, False),
    (["cookie:sid"], {"headers": [(b"accept", b"*/*")]}, False),
    (["authorization"], caller("alice"), True),
    (["authorization"], {}, False),
    (["user"], {"user": User("alice")}, True),
    (["user"], {"user": User("", known=False)}, False),
]


@pytest.mark.parametrize(("identity", "request_", "shared"), ONE)
async def test_a_private_response_is_shared_only_within_one_identity(
    make_dedup: Make, identity: Any, request_: dict[str, Any], shared: bool
) -> None:
    bare = GatedApp(lambda _, run: (200, [(b"cache-control", b"private")], b"run %d" % run))
    rule = Rule(identity=identity, vary=["cookie:theme", "accept"])
    app = DedupMiddleware(bare, dedup=make_dedup(default=rule))
    answers = await crowd(app, bare, [request_, request_])
    assert sorted(answers) == ([b"run 1", b"run 1"] if shared else [b"run 1", b"run 2"])
    if shared:
        assert bare.runs == 1


# -- users as frameworks make them -----------------------------------------------------------------------------------


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-name")
        if name is None:
            return None
        return AuthCredentials(["authenticated"]), NamedUser(name)


class NamedUser(SimpleUser):
    @property
    def identity(self) -> str:
        return self.username


@pytest.mark.parametrize("identity", ["separate", "credentials", ["user"]])
async def test_users_of_an_authentication_layer_never_share(make_dedup: Make, identity: Any) -> None:
    bare = GatedApp(lambda scope, _: (200, [], scope["user"].display_name.encode()), opened=True)
    dedup = make_dedup(default=Rule(identity=identity, vary=[], ttl=60))
    app = AuthenticationMiddleware(DedupMiddleware(bare, dedup=dedup), backend=Backend())
    for name in (b"alice", b"bob", b"alice", b"bob"):
        assert (await get(app, headers=[(b"x-name", name)])).body == name
    assert (await get(app)).body == b""
    assert bare.runs == 3


@pytest.mark.parametrize("user", [Unwilling(), User(None), User(known=True), object, 1.5, b"alice"])
async def test_a_user_who_cannot_be_told_shares_nothing(make_dedup: Make, user: object) -> None:
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    assert await crowd(app, bare, [{"user": user}, {"user": user}]) == [b"run 1", b"run 2"]


async def test_what_cannot_even_be_looked_at_shares_nothing(make_dedup: Make) -> None:
    class Touchy(dict[str, Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("not yet loaded")

        keys = __iter__

    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    for outer in (
        {"session": Touchy(a=1)},
        {"auth": type("A", (), {"scopes": property(lambda self: 1 / 0)})()},
    ):
        assert await crowd(app, bare, [outer, outer]) == [b"run %d" % (bare.runs - 1), b"run %d" % bare.runs]


async def test_a_session_outside_that_no_key_holds_never_breaks_a_flight(make_dedup: Make) -> None:
    """Under `shared` the session is not looked at for the key; it still must not cost a request its answer."""

    class Lazy(dict[str, Any]):
        def keys(self) -> Any:
            raise RuntimeError("not yet loaded")

    bare = GatedApp(opened=True)
    for identity in ("shared", lambda scope: "alice"):
        app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(identity=identity)))
        for session in (Lazy(a=1), object(), {"a": object()}, 7):
            assert (await get(app, session=session)).status == 200


async def test_two_users_at_once_never_mix_whatever_the_order(make_dedup: Make) -> None:
    bare = GatedApp(lambda scope, _: (200, [], dict(scope["headers"])[b"cookie"]))
    app = DedupMiddleware(
        bare, dedup=make_dedup(default=Rule(identity=["cookie:sid"], vary="origin", ttl=60))
    )
    users = [b"sid=alice", b"sid=bob"] * 10
    calls = [call(app, headers=[(b"cookie", user)]) for user in users]
    await settle()
    bare.gate.set()
    assert [(await one.done()).body for one in calls] == users
    await asyncio.sleep(0)


WRITTEN: list[tuple[bytes, bytes, bytes]] = [
    (b"ssl_client_s_dn", b"CN=alice", b"CN=bob"),  # as Apache's documentation has it
    (b"X_Guest", b"alice", b"bob"),
    (b"x-on_behalf-of", b"alice", b"bob"),
    (b"x_forwarded_for", b"192.0.2.7", b"192.0.2.8"),
    (b"accept_language", b"de", b"en"),
]


RUN_TOGETHER = (
    b"x-userid userid x-tenantid x-orgid x-accountids sessionid accesstoken x-idtoken x-customer-id x-member-id "
    b"x-employee_id x-guest-id"
).split()


@pytest.mark.parametrize("name", RUN_TOGETHER)
async def test_who_is_named_by_words_run_together_never_gets_anothers_answer(
    make_dedup: Make, name: bytes
) -> None:
    fields = [(b"cache-control", b"max-age=60")]
    app = GatedApp(lambda scope, _: (200, fields, dict(scope["headers"]).get(name, b"nobody")), opened=True)
    for rule in (Rule(ttl="origin", vary="origin"), Rule.shared_cache()):
        shared = DedupMiddleware(app, dedup=make_dedup(default=rule))
        for who in (b"alice", b"bob"):
            assert (await get(shared, headers=[(name, who)])).body in (who, b"nobody")


@pytest.mark.parametrize(("name", "one", "other"), WRITTEN)
@pytest.mark.parametrize("identity", ["separate", "credentials", ["cookie:sid"], "origin", "shared"])
async def test_who_is_told_apart_by_a_field_with_underscores_never_gets_anothers_answer(
    make_dedup: Make, name: bytes, one: bytes, other: bytes, identity: Any
) -> None:
    """An app that reads them as hyphens (CGI's HTTP_X_GUEST) names another field in its Vary, if any."""

    def answer(scope: Any, _: int) -> tuple[int, Pairs, bytes]:
        read = {field.lower().replace(b"_", b"-"): value for field, value in scope["headers"]}
        fields = [(b"cache-control", b"max-age=60"), (b"vary", b"accept-language")]
        return 200, fields, read.get(name.lower().replace(b"_", b"-"), b"nobody")

    rule = Rule(ttl="origin", vary="origin", identity=identity)
    app = DedupMiddleware(GatedApp(answer, opened=True), dedup=make_dedup(default=rule))
    for _ in range(2):
        for who in (one, other):
            assert (await get(app, headers=[(name, who)])).body in (who, b"nobody")
        if name == b"accept_language":
            assert (await get(app)).body == b"nobody"


def test_a_credential_with_underscores_stands_in_no_explanation_and_is_never_left_out(
    make_dedup: Make,
) -> None:
    told = make_dedup().explain(headers={"SSL_CLIENT_S_DN": "CN=alice"})
    assert "alice" not in repr(told)
    with pytest.raises(ConfigurationError):
        Rule(ignore=["header:ssl_client_s_dn"])


@pytest.mark.parametrize(
    ("key", "values"),
    [("user", ("ann", "bob")), ("state", ({"user": "ann"}, {"user": "bob"})), ("scheme", ("http", "https"))],
)
@pytest.mark.parametrize(("method", "version"), [("QUERY", "1.1"), ("GET", "2")])
async def test_what_an_outer_layer_says_once_it_has_read_the_body_tells_callers_apart(
    make_dedup: Make, method: str, version: str, key: str, values: tuple[object, object]
) -> None:
    app = DedupMiddleware(
        GatedApp(lambda scope, _: (200, [], repr(scope[key]).encode()), opened=True),
        dedup=make_dedup(default=Rule(ttl=60)),
    )
    said: object = None

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def checking() -> Any:
            message = await receive()
            scope[key] = said
            return message

        scope["http_version"] = version
        await app(scope, checking, send)

    for said in (*values, *values):
        assert (await get(outer, method=method)).body == repr(said).encode()
