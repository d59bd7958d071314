"""Explain: what a request meets, keys and shows, told from the same reading; and secrets never stand in clear."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, ForwardFailed, Rule
from dedup_middleware.core import masks

from .kit import Call, GatedApp, SteppedApp, all_of, call, get, make_scope, settle

Make = Callable[..., Dedup]
SECRET = "s3cr3t-0f-al1ce"
CHAT = Rule(
    "/chat/{port}/history", name="chat", ttl=300, tags=["chat:{port}"], vary=["accept"], ignore=["query:_"]
)


def test_an_explanation_names_the_rule_and_what_it_asks_for() -> None:
    told = Dedup([CHAT]).explain("GET", "/chat/9222/history?limit=5&_=17")
    assert (told.rule, told.decision, told.reason) == ("chat", "consider", None)
    assert (told.tags, told.ttl, told.collapses) == (("chat:9222",), 300.0, True)
    assert told.fingerprint is not None
    assert len(told.fingerprint) == 32


def test_every_part_is_told_once_with_why() -> None:
    told = Dedup([CHAT]).explain(
        "GET",
        "/chat/9222/history?limit=5&_=17&token=abc",
        headers={
            "Accept": "text/html",
            "User-Agent": "ua",
            "Authorization": "Bearer abc",
            "Cookie": "sid=abc",
            "X-Request-Id": "r-1",
            "traceparent": "not one",
            "Cache-Control": "no-cache",
            "If-None-Match": '"v1"',
        },
        client="10.1.2.3",
    )
    assert told.keyed == {
        "method": "GET",
        "scheme": "http",
        "http_version": "1.1",
        "server": "('localhost', 80)",
        "root_path": "",
        "path": "/chat/9222/history",
        "query": "limit=5&token=***",
        "header:host": "localhost",
        "header:accept": "text/html",
        "header:authorization": "***",
        "header:cookie": "***",
        "header:traceparent": "not one",
        "client": "***",
    }
    assert set(told.left_out) == {
        "query:_",
        "header:user-agent",
        "header:x-request-id",
        "header:cache-control",
        "header:if-none-match",
    }
    assert "noise" in told.left_out["header:x-request-id"]
    assert "hidden" in told.left_out["header:user-agent"]
    assert "reload" in told.left_out["header:cache-control"]
    assert "ignore" in told.left_out["query:_"]
    assert told.visible == [
        ("host", "localhost"),
        ("accept", "text/html"),
        ("authorization", "***"),
        ("cookie", "***"),
        ("x-request-id", "r-1"),
        ("traceparent", "not one"),
    ]


@pytest.mark.parametrize(
    ("cookie", "kept"), [("sid=1; _ga=GA1.2; _gid=2", True), ("_ga=GA1.2; _gid=2", False)]
)
def test_cookies_of_page_analytics_are_told_as_left_out(cookie: str, kept: bool) -> None:
    told = Dedup().explain(headers={"cookie": cookie})
    without = Dedup().explain(headers={"cookie": "sid=1"} if kept else {})

    assert {name for name in told.left_out if name.startswith("cookie:")} == {"cookie:_ga", "cookie:_gid"}
    assert told.keyed == without.keyed
    assert told.visible == without.visible


def test_what_is_switched_off_is_told_so() -> None:
    dedup = Dedup([CHAT], enabled=False)
    told = dedup.explain("GET", "/chat/1/history")
    assert (told.rule, told.decision, told.reason) == ("chat", "bypass", "disabled")
    dedup.enabled = True
    dedup.leave_alone("/chat")
    assert dedup.explain("GET", "/chat/1/history").reason == "off"
    assert dedup.explain("GET", "/other").decision == "consider"


def test_the_lines_of_one_field_are_all_told() -> None:
    told = Dedup().explain(headers=[("x-a", "1"), ("x-a", "2")])
    assert told.keyed["header:x-a"] == "1, 2"


def test_what_outer_layers_left_is_told_without_its_content() -> None:
    scope = {
        "user": SECRET,
        "session": {"id": SECRET},
        "state": {"tenant": SECRET, "db": "x"},
        "organisation": SECRET,
        "extensions": {"tls": {"client_cert_name": SECRET}},
    }
    told = Dedup(default=Rule(ignore=["state:db"])).explain(scope=scope)
    for name in ("user", "session", "state:tenant", "scope:organisation", "certificate"):
        assert told.keyed[name] == "***", name
    assert "ignore" in told.left_out["state:db"]
    narrow = Dedup(default=Rule(vary=[], identity="shared")).explain(scope=scope)
    for name in (
        "user",
        "session",
        "state:tenant",
        "state:db",
        "scope:organisation",
        "certificate",
        "client",
    ):
        assert "hidden" in narrow.left_out[name], name
        assert name not in narrow.keyed
    assert SECRET not in repr((told, narrow))


@pytest.mark.parametrize("odd", [["tls"], "tls", 7, object()], ids=["list", "text", "number", "object"])
@pytest.mark.parametrize("name", ["state", "extensions"])
def test_what_no_server_puts_into_a_scope_is_explained_as_it_is_treated(name: str, odd: object) -> None:
    told = Dedup().explain(scope={name: odd})
    assert told.reason == ("state" if name == "state" else None)
    assert "certificate" not in {**told.keyed, **told.left_out}


def test_under_a_function_the_caller_is_told_as_visible() -> None:
    told = Dedup(default=Rule(identity=lambda scope: SECRET)).explain(
        headers={"authorization": SECRET}, scope={"user": SECRET, "session": {"id": SECRET}}
    )
    assert told.keyed["identity"] == "***"
    for name in ("header:authorization", "client", "user", "session"):
        assert "function" in told.left_out[name], name
    assert SECRET not in repr(told)


@pytest.mark.parametrize(
    ("target", "more", "reason"),
    [
        ("//a", {}, "target"),
        ("/a%2fb", {}, "target"),
        ("/a?b=\x1f", {}, "target"),
        ("/", {"method": "POST"}, "method"),
        ("/", {"body": b"x"}, "request-body"),
        ("/", {"method": "QUERY", "body": b"x" * 65_537}, "body-too-large"),
        ("/", {"headers": [("host", "a"), ("host", "b")]}, "duplicate-field"),
        ("/", {"headers": {"if-match": '"a"'}}, "precondition"),
        ("/", {"headers": {"upgrade": "websocket"}}, "upgrade"),
        ("/", {"headers": [("x", "1")] * 300}, "too-many-headers"),
        ("/", {"scope": {"state": {"db": object()}}}, "state"),
        ("/", {"scope": {"user": object()}}, "user"),
    ],
)
def test_a_bypass_is_told_with_its_reason(target: str, more: dict[str, Any], reason: str) -> None:
    told = Dedup().explain(**{"target": target, **more})
    assert (told.decision, told.reason, told.fingerprint) == ("bypass", reason, None)


def test_a_write_with_a_precondition_is_told_as_it_is_answered() -> None:
    dedup = Dedup(default=Rule(methods=["POST", "QUERY"], collapse=True, ttl=60))
    asked = {"if-none-match": "*"}

    assert dedup.explain("POST", "/x", headers=asked).reason == "precondition"
    assert dedup.explain("QUERY", "/x", headers=asked).decision == "consider"


@pytest.mark.parametrize(
    ("rule", "decision"), [(Rule.shared_cache(), "bypass"), (Rule(ttl="origin"), "consider")]
)
async def test_a_request_that_says_no_store_is_told_as_it_is_answered(
    rule: Rule, decision: str, make_dedup: Make
) -> None:
    dedup = make_dedup(rule)
    asked = {"cache-control": "no-store"}
    told = dedup.explain("GET", "/x", headers=asked, response=(200, {"cache-control": "max-age=60"}))
    app = DedupMiddleware(SteppedApp(), dedup=dedup)
    await get(app, "/x", headers=[(b"cache-control", b"no-store")])

    assert told.decision == decision
    assert (told.response is None) == (dedup.stats().requests["bypassed"] == 1) == (decision == "bypass")


@pytest.mark.parametrize(
    "asked",
    [
        {"cache-control": "only-if-cached, no-store"},
        {"cache-control": "only-if-cached", "if-match": '"a"'},
    ],
    ids=str,
)
async def test_a_request_that_wants_only_what_is_stored_is_told_as_it_is_refused(
    asked: dict[str, str], make_dedup: Make
) -> None:
    dedup = make_dedup(Rule.shared_cache())
    told = dedup.explain("GET", "/x", headers=asked)
    headers = [(name.encode(), value.encode()) for name, value in asked.items()]
    answer = await get(DedupMiddleware(SteppedApp(), dedup=dedup), "/x", headers=headers)

    assert (told.decision, told.reason, answer.status) == ("bypass", "only-if-cached", 504)
    assert dedup.stats().requests["bypassed"] == 1


def test_a_credential_that_a_list_does_not_name_is_told() -> None:
    told = Dedup(default=Rule(identity=["cookie:sid"])).explain(headers={"authorization": SECRET})
    assert (told.decision, told.reason) == ("bypass", "credential")
    assert SECRET not in repr(told)


def test_a_body_is_told_by_its_length_and_kind_alone() -> None:
    dedup = Dedup(default=Rule(ignore=["body:requestId", "body:filter[*]?"]))
    body = json.dumps({"password": SECRET, "requestId": 1}).encode()
    told = dedup.explain("QUERY", "/", headers={"content-type": "application/json"}, body=body)
    assert told.keyed["body"] == f"{len(body)} bytes, as canonical JSON"
    assert {"body:requestId", "body:filter[*]?"} == {item for item in told.left_out if item[:4] == "body"}
    assert dedup.explain("QUERY", "/", body=b"abc").keyed["body"] == "3 bytes, as they are"
    assert SECRET not in repr(told)


async def test_the_fingerprint_that_is_told_is_the_one_that_is_used(make_dedup: Make) -> None:
    dedup = make_dedup(CHAT, default=Rule(ttl=60))
    bare = GatedApp()
    requests = ["/chat/1/history?a=1", "/other", "/other?x=1"]
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, target, scheme="https") for target in requests]
    await settle()
    told = [dedup.explain(scope={**make_scope(target), "scheme": "https"}).fingerprint for target in requests]
    assert {flight.key.hex() for flight in dedup.flights.under_way.values()} == set(told)  # type: ignore[attr-defined] # the key of a request is bytes
    bare.gate.set()
    await all_of(calls)


def test_explaining_runs_nothing_and_changes_nothing() -> None:
    dedup = Dedup([CHAT])
    before = dedup.stats()
    scope = make_scope("/", headers=[(b"X-A", b"1")], state={"a": [1]})
    kept = repr(scope)
    dedup.explain(scope=scope)
    assert repr(scope) == kept
    assert dedup.stats() == before


# -- secrets ---------------------------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "Authorization": lambda text: {"headers": {"authorization": f"Bearer {text}"}},
    "Cookie": lambda text: {"headers": {"cookie": f"sid={text}"}},
    "an API key": lambda text: {"headers": {"x-api-key": text}},
    "a gateway's field": lambda text: {"headers": {"x-amzn-oidc-data": text}},
    "Django's field": lambda text: {"headers": {"x-csrftoken": text}},
    "a query's password": lambda text: {"target": f"/?a=1&password={text}&b=2"},
    "a query's token, escaped": lambda text: {"target": f"/?access%5Ftoken={text}"},
    "a query's token beside a semicolon": lambda text: {"target": f"/?a=1;token={text}"},
    "a query's token, twice": lambda text: {"target": f"/?token=x&token={text}"},
    "a query's token with equals signs": lambda text: {"target": f"/?token=a={text}"},
    "a signed URL": lambda text: {"target": f"/?X-Amz-Signature={text}&X-Amz-Credential={text}"},
    "Referer": lambda text: {"headers": {"referer": f"https://a.test/?page=1&api_key={text}"}},
    "a body": lambda text: {"method": "QUERY", "body": json.dumps({"q": text}).encode()},
    "a JSON body": lambda text: {
        "method": "QUERY",
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"password": text}).encode(),
    },
    "user": lambda text: {"scope": {"user": text}},
    "session": lambda text: {"scope": {"session": {"token": text}}},
    "state": lambda text: {"scope": {"state": {"token": text}}},
    "certificate": lambda text: {"scope": {"extensions": {"tls": {"client_cert_name": text}}}},
    "client": lambda text: {"client": text},
    "forwarded-for": lambda text: {"headers": {"cookie": "a=1", "authorization": text, "x-a": "1"}},
}
SHAPES: list[dict[str, Any]] = [
    {},
    {"ttl": 60, "vary": []},
    {"vary": "origin", "identity": "credentials"},
    {"identity": "shared"},
    {"identity": ["cookie:other"]},
    {"ignore": ["query:*", "body:*", "header:*", "state:*"]},
    {"identity": lambda scope: "somebody"},
    {"mode": "off"},
]


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_never_stands_in_an_explanation(place: str) -> None:
    for shape in SHAPES:
        told = Dedup(default=Rule(**shape)).explain(**PLACES[place](SECRET))
        assert SECRET not in repr(told), shape
        assert SECRET.encode().hex() not in repr(told)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(PLACES)), st.sampled_from(range(len(SHAPES))), st.integers(0, 2**64))
def test_no_secret_stands_in_a_key_or_an_explanation(place: str, shape: int, number: int) -> None:
    secret = f"secret-{number:016x}-value"
    told = Dedup(default=Rule(**SHAPES[shape])).explain(**PLACES[place](secret))
    assert secret not in repr(told)


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_always_counts_and_never_alone(place: str) -> None:
    """Dropped from the key, a wrong password would join a right one; undigested, it could be read from it."""
    dedup = Dedup(default=Rule(ttl=60), secret="one")
    one, other = (dedup.explain(**PLACES[place](text)).fingerprint for text in (SECRET, SECRET + "x"))
    assert one is not None
    assert one != other
    assert Dedup(default=Rule(ttl=60), secret="two").explain(**PLACES[place](SECRET)).fingerprint != one
    assert Dedup(default=Rule(ttl=60), secret="one").explain(**PLACES[place](SECRET)).fingerprint == one


async def test_a_secret_never_stands_in_a_log_a_representation_or_an_error(
    make_dedup: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class WrongPasswordError(Exception):
        pass

    caplog.set_level(logging.DEBUG)
    request: dict[str, Any] = {
        "target": f"/?token={SECRET}",
        "method": "QUERY",
        "headers": [(b"authorization", SECRET.encode()), (b"cookie", b"sid=" + SECRET.encode())],
        "body": SECRET.encode(),
        "user": SECRET,
    }
    rule = Rule(ttl=60, identity="credentials", tags=["all"])
    dedup = make_dedup(default=rule, secret=SECRET)
    bare = SteppedApp(WrongPasswordError(SECRET))
    app = DedupMiddleware(bare, dedup=dedup)
    calls: list[Call] = [call(app, **request) for _ in range(3)]
    await settle()
    bare.finish()
    errors = []
    for one in calls:
        with pytest.raises((WrongPasswordError, ForwardFailed)) as raised:
            await one.done()
        errors.append(raised.value)
    followers = [error for error in errors if isinstance(error, ForwardFailed)]
    assert len(followers) == 2
    told: list[object] = list(followers)
    told += [error.__dict__ for error in followers] + [
        (error.__cause__, error.__context__) for error in followers
    ]
    working = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    for _ in range(2):
        await get(working, **request)
    told += [
        dedup,
        dedup.stats(),
        rule,
        app,
        dedup.rules,
        dedup.default,
        dedup.telemetry.counts,
    ]
    told += [dedup.bodies.young, dedup.variants.young, dedup.passes.young]
    told += [record.__dict__ for record in caplog.records if record.name.startswith("dedup_middleware")]
    assert any(record.name.startswith("dedup_middleware") for record in caplog.records)
    for thing in told:
        assert SECRET not in repr(thing)
        assert SECRET not in str(thing)


def test_a_secret_never_stands_in_a_configuration_error() -> None:
    dedup = Dedup()
    wrong: list[Callable[[], object]] = [
        lambda: DedupMiddleware(GatedApp, dedup=dedup, secret=SECRET),  # type: ignore[arg-type] # that is the mistake
        lambda: Dedup(secret=[SECRET]),  # type: ignore[arg-type] # that is the mistake
        lambda: DedupMiddleware(GatedApp, secrets=SECRET),  # type: ignore[arg-type, call-arg] # that is the mistake
    ]
    for make in wrong:
        with pytest.raises(ConfigurationError) as raised:
            make()
        assert SECRET not in str(raised.value)
        assert SECRET not in repr(raised.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/cb?next=/x&page=2", "/cb?next=/x&page=2"),
        ("/cb?token=S", "/cb?token=***"),
        ("/cb?next=%2Fcb%3Ftoken%3DS", "/cb?next=***"),
        ("/cb?next=/a?token=S", "/cb?next=***"),
        ("/cb#access_token=S&state=1", "/cb#access_token=***&state=1"),
        ("/cb?next=https://ann:S@a.test/", "/cb?next=***"),
        ("/cb?next=https%3A%2F%2Fann%3AS%40a.test&mail=ann@a.test", "/cb?next=***&mail=ann@a.test"),
        ("/cb;jsessionid=S", "/cb;jsessionid=***"),
        ("https://ann:S@a.test/x?y=1", "https://***@a.test/x?y=1"),
        ("", ""),
    ],
)
def test_a_reference_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert masks.reference(text) == shown


@pytest.mark.parametrize("url", ["https://ann:S@a.test/", "https%3A%2F%2Fann%3AS%40a.test"])
def test_a_url_in_a_query_is_shown_without_its_password(url: str) -> None:
    assert Dedup().explain(target=f"/x?page=2&next={url}").keyed["query"] == "page=2&next=***"


def test_a_caller_without_an_address_has_none_to_show() -> None:
    scope = make_scope("/chat/1/history")
    keyed = [
        Dedup([CHAT]).explain(scope={**scope, "client": address}).keyed for address in (scope["client"], None)
    ]
    assert ["client" in parts for parts in keyed] == [True, False]


def test_a_failure_that_was_shared_goes_between_processes_as_it_is() -> None:
    failed = ForwardFailed("ValueError", "ab" * 16)
    again = pickle.loads(pickle.dumps(failed))
    assert (type(again), str(again)) == (ForwardFailed, str(failed))
    assert (again.error_type, again.trace_id) == ("ValueError", "ab" * 16)
