"""Leaks: no two requests that differ ever share an answer, and what is one caller's stays with that caller.

One suite over every way in which requests differ, every response that is somebody's own, every shape of a rule and
every store; at once, where each must run the app, and one after the other, where answers are stored.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dedup_middleware import DedupMiddleware, Rule

from .kit import Call, GatedApp, Message, all_of, call, chunk, get, head, make_scope, settle, until
from .leak_kit import (
    EVERY_FIELD,
    FORM,
    JSON,
    SHAPES,
    STORES,
    Bench,
    Make,
    Mirror,
    Pair,
    Pairs,
    Request,
    Scopes,
    User,
    certificate,
    reflection,
    rule_of,
    with_body,
    with_headers,
)

pytestmark = pytest.mark.slow

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = b"00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-00"
every_store = pytest.mark.parametrize("store", STORES)
every_shape = pytest.mark.parametrize("shape", SHAPES)


def tell_apart(one: Call, other: Call) -> None:
    assert (one.body, other.body) == (b"run 1", b"run 2"), "an answer in the wrong hands"


async def one_runs_for_both(
    make_dedup: Make, first: Request, second: Request, store: str = STORES[0], **rule: Any
) -> bool:
    """Whether one run answers both when they come at once; otherwise each has its own run's answer."""
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**rule), store=store))
    one = call(app, **first)
    await until(lambda: bare.runs == 1)
    other = call(app, **second)
    await settle()
    runs = bare.runs
    bare.gate.set()
    await asyncio.gather(one.done(), other.done())
    if runs == 1:
        assert one.body == other.body
        return True
    tell_apart(one, other)
    return False


async def one_is_stored_for_both(
    make_dedup: Make, first: Request, second: Request, store: str = STORES[0], **rule: Any
) -> bool:
    """Whether a stored answer to the first is given to the second."""
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**{"ttl": 60, **rule}), store=store))
    one = await get(app, **first)
    other = await get(app, **second)
    assert one.body == b"run 1"
    again = await get(app, **first)
    assert again.body == b"run 1", "nothing was stored, so that the test shows nothing"
    if other.header(b"cache-status") in (None, b"dedup; fwd=uri-miss; stored; ttl=60"):
        tell_apart(one, other)
        return False
    return other.body == one.body


# -- every way in which two requests can differ ----------------------------------------------------------------------

TWO_PARTS = b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n1\r\n--b--\r\n'
UPLOAD = (b"content-type", b"multipart/form-data; boundary=b")

DIFFERENCES: dict[str, Pair] = {
    "a field: empty or not there": (with_headers((b"x-a", b"")), {}),
    "a field: one line or two": (
        with_headers((b"x-a", b"1, 2")),
        with_headers((b"x-a", b"1"), (b"x-a", b"2")),
    ),
    "a field: the order of its lines": (
        with_headers((b"x-a", b"1"), (b"x-a", b"2")),
        with_headers((b"x-a", b"2"), (b"x-a", b"1")),
    ),
    "a field: the case of its value": (with_headers((b"x-a", b"Abc")), with_headers((b"x-a", b"abc"))),
    "a field: a space in its value": (with_headers((b"x-a", b"a b")), with_headers((b"x-a", b"a  b"))),
    "two fields: which has the value": (
        with_headers((b"x-a", b"1"), (b"x-b", b"2")),
        with_headers((b"x-a", b"2"), (b"x-b", b"1")),
    ),
    "cookies: two lines or one": (
        with_headers((b"cookie", b"a=1; b=2")),
        with_headers((b"cookie", b"a=1"), (b"cookie", b"b=2")),
    ),
    "cookies: the order": (with_headers((b"cookie", b"a=1; a=2")), with_headers((b"cookie", b"a=2; a=1"))),
    "cookies: one beside an analytics cookie": (
        with_headers((b"cookie", b"_ga=1; sid=1")),
        with_headers((b"cookie", b"_ga=1; sid=2")),
    ),
    "cookies: one that looks like an analytics cookie": (
        with_headers((b"cookie", b"_gateway_session=1")),
        with_headers((b"cookie", b"_gateway_session=2")),
    ),
    "cookies: an analytics cookie in quotes": (
        with_headers((b"cookie", b'sid="a; _ga=1"')),
        with_headers((b"cookie", b'sid="a; _ga=2"')),
    ),
    "authorization: two users": (
        with_headers((b"authorization", b"Bearer alice")),
        with_headers((b"authorization", b"Bearer bob")),
    ),
    "method: GET or HEAD's own": ({"method": "QUERY"}, {"method": "GET"}),
    "scheme": ({"scheme": "http"}, {"scheme": "https"}),
    "host": (with_headers((b"host", b"a.test")), with_headers((b"host", b"b.test"))),
    "host: its port": (with_headers((b"host", b"a.test")), with_headers((b"host", b"a.test:8080"))),
    "host: its case": (with_headers((b"host", b"a.test")), with_headers((b"host", b"A.test"))),
    "host: moved into the path": (
        with_headers((b"host", b"a.test"), target="/b"),
        with_headers((b"host", b"a.test/b"), target="/"),
    ),
    "root_path": ({"root_path": "/v1", "target": "/v1/x"}, {"root_path": "", "target": "/v1/x"}),
    "path": ({"target": "/a"}, {"target": "/b"}),
    "path: its case": ({"target": "/a"}, {"target": "/A"}),
    "path: a slash at its end": ({"target": "/a"}, {"target": "/a/"}),
    "path: a parameter of a segment": ({"target": "/a"}, {"target": "/a;v=1"}),
    "path: an extension": ({"target": "/account"}, {"target": "/account/x.css"}),
    "path: composed or decomposed": (
        {"target": "/é", "raw_path": b"/%C3%A9"},
        {"target": "/é", "raw_path": b"/e%CC%81"},
    ),
    "raw_path: another spelling": (
        {"target": "/a", "raw_path": b"/a"},
        {"target": "/a", "raw_path": b"/%61"},
    ),
    "raw_path: there or not": ({"target": "/a"}, {"target": "/a", "raw_path": None}),
    "path: another than raw_path": (
        {"target": "/a", "raw_path": b"/x"},
        {"target": "/b", "raw_path": b"/x"},
    ),
    "path: what is no UTF-8": (
        {"target": "/\ufffd", "raw_path": b"/%FF"},
        {"target": "/\ufffd", "raw_path": b"/%FE"},
    ),
    "query: a value": ({"target": "/?page=1"}, {"target": "/?page=2"}),
    "query: there or not": ({"target": "/?page=1"}, {"target": "/"}),
    "query: its order": ({"target": "/?a=1&b=2"}, {"target": "/?b=2&a=1"}),
    "query: the order of one name": ({"target": "/?a=1&a=2"}, {"target": "/?a=2&a=1"}),
    "query: its encoding": ({"target": "/?a=b"}, {"target": "/?a=%62"}),
    "query: the case of its encoding": ({"target": "/?a=%c3%a9"}, {"target": "/?a=%C3%A9"}),
    "query: plus or %20": ({"target": "/?a=b+c"}, {"target": "/?a=b%20c"}),
    "query: an equals sign": ({"target": "/?a="}, {"target": "/?a"}),
    "query: a separator": ({"target": "/?a&"}, {"target": "/?a"}),
    "query: an encoded control character": ({"target": "/?a=%1E"}, {"target": "/?a=%1F"}),
    "query: moved into the path": ({"target": "/get?name=x"}, {"target": "/?getname=x"}),
    "query: what tells a campaign": ({"target": "/?utm_source=a"}, {"target": "/?utm_source=b"}),
    "http_version": ({"http_version": "1.1"}, {"http_version": "1.0"}),
    "http_version: 2": ({"http_version": "1.1"}, {"http_version": "2"}),
    "server": ({"server": ("10.0.0.1", 80)}, {"server": ("10.0.0.2", 80)}),
    "server: its port": ({"server": ("10.0.0.1", 80)}, {"server": ("10.0.0.1", 8080)}),
    "server: there or not": ({"server": ("10.0.0.1", 80)}, {"server": None}),
    "client": ({"client": "192.0.2.1"}, {"client": "192.0.2.2"}),
    "body: one byte": (with_body(b"abc"), with_body(b"abd")),
    "body: there or not": (with_body(b"a"), with_body(b"")),
    "body: one byte of JSON": (with_body(b'{"a":1}', JSON), with_body(b'{"a":2}', JSON)),
    "body: a number's spelling": (with_body(b'{"a":1}', JSON), with_body(b'{"a":1.0}', JSON)),
    "body: a number or a text": (with_body(b'{"a":1}', JSON), with_body(b'{"a":"1"}', JSON)),
    "body: null or not there": (with_body(b'{"a":null}', JSON), with_body(b"{}", JSON)),
    "body: the order of an array": (with_body(b"[1,2]", JSON), with_body(b"[2,1]", JSON)),
    "body: which of two names comes last": (
        with_body(b'{"a":1,"a":2}', JSON),
        with_body(b'{"a":2,"a":1}', JSON),
    ),
    "body: a name that escapes hide": (
        with_body(b'{"a":1,"\\u0061":2}', JSON),
        with_body(b'{"\\u0061":2,"a":1}', JSON),
    ),
    "body: a secret in it": (with_body(b'{"password":"a"}', JSON), with_body(b'{"password":"b"}', JSON)),
    "body: white space where it is no JSON": (with_body(b'{"a":1}'), with_body(b'{"a": 1}')),
    "body: white space in another charset": (
        with_body(b'{"a":1}', (b"content-type", b"application/json; charset=utf-16")),
        with_body(b'{"a": 1}', (b"content-type", b"application/json; charset=utf-16")),
    ),
    "body: white space under an encoding": (
        with_body(b'{"a":1}', JSON, (b"content-encoding", b"br")),
        with_body(b'{"a": 1}', JSON, (b"content-encoding", b"br")),
    ),
    "content-type": (with_body(b"{}", JSON), with_body(b"{}", (b"content-type", b"text/plain"))),
    "content-type: a parameter": (
        with_body(b"{}", JSON),
        with_body(b"{}", (b"content-type", b"application/json; charset=utf-8")),
    ),
    "content-encoding": (with_body(b"{}", JSON), with_body(b"{}", JSON, (b"content-encoding", b"gzip"))),
    "content-type: there or not": (with_body(b"{}", JSON), with_body(b"{}")),
    "content-type: its case": (
        with_body(b"{}", JSON),
        with_body(b"{}", (b"content-type", b"Application/JSON")),
    ),
    "content-type: a kind of JSON": (
        with_body(b"{}", JSON),
        with_body(b"{}", (b"content-type", b"application/vnd.api+json")),
    ),
    "content-type: a form or JSON": (with_body(b"a=1", FORM), with_body(b"a=1", JSON)),
    "content-type: a form's charset": (
        with_body(b"a=1", FORM),
        with_body(b"a=1", (b"content-type", FORM[1] + b"; charset=latin-1")),
    ),
    "content-encoding: gzip or br": (
        with_body(b"x", JSON, (b"content-encoding", b"gzip")),
        with_body(b"x", JSON, (b"content-encoding", b"br")),
    ),
    "content-encoding: identity or not there": (
        with_body(b"{}", JSON, (b"content-encoding", b"identity")),
        with_body(b"{}", JSON),
    ),
    "content-encoding: two or one": (
        with_body(b"x", (b"content-encoding", b"gzip, gzip")),
        with_body(b"x", (b"content-encoding", b"gzip")),
    ),
    "form: the order of its fields": (with_body(b"a=1&b=2", FORM), with_body(b"b=2&a=1", FORM)),
    "form: plus or %20": (with_body(b"a=b+c", FORM), with_body(b"a=b%20c", FORM)),
    "form: an encoded letter": (with_body(b"a=b", FORM), with_body(b"a=%62", FORM)),
    "form: a separator": (with_body(b"a=1&b=2", FORM), with_body(b"a=1;b=2", FORM)),
    "form: an equals sign": (with_body(b"a=", FORM), with_body(b"a", FORM)),
    "form: a secret in it": (with_body(b"password=a", FORM), with_body(b"password=b", FORM)),
    "multipart: the boundary": (
        with_body(TWO_PARTS % b"a", UPLOAD),
        with_body((TWO_PARTS % b"a").replace(b"--b", b"--c"), (b"content-type", UPLOAD[1][:-1] + b"c")),
    ),
    "multipart: the boundary's name alone": (
        with_body(TWO_PARTS % b"a", UPLOAD),
        with_body(TWO_PARTS % b"a", (b"content-type", UPLOAD[1][:-1] + b"c")),
    ),
    "multipart: a field's name": (with_body(TWO_PARTS % b"a", UPLOAD), with_body(TWO_PARTS % b"b", UPLOAD)),
    "multipart: line ends": (
        with_body(TWO_PARTS % b"a", UPLOAD),
        with_body((TWO_PARTS % b"a").replace(b"\r\n", b"\n"), UPLOAD),
    ),
    "body: moved into the query": (
        with_body(b"b=1", FORM, target="/?a=1"),
        with_body(b"", FORM, target="/?a=1&b=1"),
    ),
    "content-type of a GET": (with_headers(JSON), with_headers((b"content-type", b"text/plain"))),
    "state: a value": ({"state": {"a": 1}}, {"state": {"a": 2}}),
    "state: a name": ({"state": {"a": 1}}, {"state": {"b": 1}}),
    "state: there or not": ({"state": {"a": 1}}, {"state": {}}),
    "state: a name with nothing in it": ({"state": {"a": None}}, {"state": {}}),
    "state: a number or a truth": ({"state": {"a": 1}}, {"state": {"a": True}}),
    "state: a number or a fraction": ({"state": {"a": 1}}, {"state": {"a": 1.0}}),
    "state: a text or bytes": ({"state": {"a": "x"}}, {"state": {"a": b"x"}}),
    "state: a list or a tuple": ({"state": {"a": [1]}}, {"state": {"a": (1,)}}),
    "state: a great number": ({"state": {"a": 2**70}}, {"state": {"a": 2**70 + 1}}),
    "state: a great number or its text": ({"state": {"a": 2**70}}, {"state": {"a": ["int", str(2**70)]}}),
    "state: a list or what stands for one": ({"state": {"a": [1]}}, {"state": {"a": ["list", [1]]}}),
    "state: nested": ({"state": {"a": {"b": [1]}}}, {"state": {"a": {"b": [2]}}}),
    "state: minus nothing": ({"state": {"a": 0.0}}, {"state": {"a": -0.0}}),
    "an unknown scope key": ({"tenant": "a"}, {"tenant": "b"}),
    "an unknown scope key: there or not": ({"tenant": "a"}, {}),
    "an unknown scope key: there or None": ({"tenant": "a"}, {"tenant": None}),
    "user: a text": ({"user": "alice"}, {"user": "bob"}),
    "user: a number": ({"user": 1}, {"user": 2}),
    "user: a number or its text": ({"user": 1}, {"user": "1"}),
    "user: zero or nobody": ({"user": 0}, {"user": None}),
    "user: zero or not there": ({"user": 0}, {}),
    "user: an object": ({"user": User("alice")}, {"user": User("bob")}),
    "user: an object or nobody": ({"user": User("alice")}, {}),
    "auth: its scopes": (
        {"user": User("a"), "auth": Scopes("read")},
        {"user": User("a"), "auth": Scopes("read", "write")},
    ),
    "auth: a dict of claims": ({"auth": {"sub": "alice"}}, {"auth": {"sub": "bob"}}),
    "session: its content": ({"session": {"id": 1}}, {"session": {"id": 2}}),
    "session: there or empty": ({"session": {"id": 1}}, {"session": {}}),
    "certificate: its name": (certificate(client_cert_name="CN=a"), certificate(client_cert_name="CN=b")),
    "certificate: its chain": (
        certificate(client_cert_chain=["A", "B"]),
        certificate(client_cert_chain=["AB"]),
    ),
    "certificate: there or not": (certificate(client_cert_name="CN=a"), {}),
    "certificate: its error": (
        certificate(client_cert_name="CN=a", client_cert_error=None),
        certificate(client_cert_name="CN=a", client_cert_error="expired"),
    ),
    "tls: its version": (certificate(tls_version=0x0303), certificate(tls_version=0x0304)),
}
ONLY_AT_ONCE: dict[str, Pair] = {
    # Where answers are stored, we answer validators ourselves and a reload does not punch through.
    "if-none-match": (with_headers((b"if-none-match", b'"a"')), with_headers((b"if-none-match", b'"b"'))),
    "if-none-match: there or not": (with_headers((b"if-none-match", b'"a"')), {}),
    "if-modified-since": (
        with_headers((b"if-modified-since", b"Sat, 01 Jan 2000 00:00:00 GMT")),
        with_headers((b"if-modified-since", b"Sun, 02 Jan 2000 00:00:00 GMT")),
    ),
    "cache-control": (with_headers((b"cache-control", b"no-cache")), {}),
    "pragma": (with_headers((b"pragma", b"no-cache")), {}),
    "GET or HEAD": ({"method": "GET"}, {"method": "HEAD"}),
}
# Objects that nothing can tell apart: each goes by itself, even beside itself.
UNCERTAIN: dict[str, Request] = {
    "a GET with a body": with_headers((b"content-length", b"3"), body=b"abc"),
    "a GET with a body of unknown length": with_headers((b"transfer-encoding", b"chunked"), body=b"abc"),
    "a GET with a body in HTTP/2": {"http_version": "2", "body": b"abc"},
    "two Hosts": with_headers((b"host", b"a.test"), (b"host", b"a.test")),
    "two Authorizations": with_headers((b"authorization", b"a"), (b"authorization", b"a")),
    "two Content-Types": with_body(b"{}", JSON, JSON),
    "an upgrade": with_headers((b"connection", b"upgrade"), (b"upgrade", b"websocket")),
    "if-match": with_headers((b"if-match", b'"a"')),
    "if-unmodified-since": with_headers((b"if-unmodified-since", b"Sat, 01 Jan 2000 00:00:00 GMT")),
    "an object in the state": {"state": {"db": object()}},
    "an object deep in the state": {"state": {"a": {"b": [object()]}}},
    "a dict of another type in the state": {"state": {"a": type("Bag", (dict,), {})(x=1)}},
    "a state that is no dict": {"state": object()},
    "state too deep": {"state": {"a": [[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]}},
    "an object under an unknown scope key": {"tenant": object()},
    "a user without identity": {"user": object()},
    "a user who is only true": {"user": True},
    "a user whose identity is an object": {"user": User(object())},
    "scopes that are objects": {"user": User("a"), "auth": object()},
    "a session that is an object": {"session": object()},
    "a session with an object": {"session": {"cart": object()}},
    "an unsafe method": {"method": "POST", "body": b"{}"},
    "a method of no standard": {"method": "REPORT"},
    "a method in lower case": {"method": "get"},
    "OPTIONS": {"method": "OPTIONS"},
}


@pytest.mark.parametrize("name", [*DIFFERENCES, *ONLY_AT_ONCE])
@every_store
async def test_requests_that_differ_never_share_a_flight(make_dedup: Make, name: str, store: str) -> None:
    first, second = {**DIFFERENCES, **ONLY_AT_ONCE}[name]
    assert not await one_runs_for_both(make_dedup, first, second, store)
    assert not await one_runs_for_both(make_dedup, second, first, store)


@pytest.mark.parametrize("name", DIFFERENCES)
@every_store
async def test_requests_that_differ_never_share_a_stored_response(
    make_dedup: Make, name: str, store: str
) -> None:
    first, second = DIFFERENCES[name]
    assert not await one_is_stored_for_both(make_dedup, first, second, store)
    assert not await one_is_stored_for_both(make_dedup, second, first, store)


FIELD_PAIRS: dict[str, Pair] = {
    name.decode(): (with_headers((name, b"a=1")), with_headers((name, b"a=2"))) for name in EVERY_FIELD
}
"""Squid CVE-2016-10003, apollo-link #920: any one field."""
THERE_OR_NOT: dict[str, Pair] = {
    **{f"{name.decode()}: there or not": (with_headers((name, b"a=1")), {}) for name in EVERY_FIELD},
    **{f"{name.decode()}: empty": ({}, with_headers((name, b""))) for name in EVERY_FIELD},
}


OPENED = {
    "ignore": {"query: what tells a campaign"},
    "shared http cache": {"a field: one line or two"},  # ignore_field_spelling (RFC 9111 s.4.1)
}
"""What a shape's oath or switch opens, and nothing more."""


@every_shape
@every_store
async def test_under_every_rule_each_gets_what_it_would_get_alone(
    make_dedup: Make, shape: str, store: str
) -> None:
    """Law 3: were anything visible that the key does not hold, the mirror would give it to somebody else."""
    bench = Bench(make_dedup, rule_of(SHAPES[shape]), {**DIFFERENCES, **FIELD_PAIRS}, store=store)
    assert await bench.wronged(victims=[1]) == OPENED.get(shape, set())
    assert bench.missed == set()


@every_store
async def test_a_field_that_is_there_is_never_taken_for_none(make_dedup: Make, store: str) -> None:
    """RFC 9111 s.4.1: a missing field matches only a missing field."""
    bench = Bench(make_dedup, rule_of(SHAPES["shared, origin"]), THERE_OR_NOT, store=store)
    assert await bench.wronged(victims=[1]) == set()
    assert bench.missed == set()


async def test_the_mirror_sees_every_difference(make_dedup: Make) -> None:
    """Or the tests above would show nothing."""
    bench = Bench(make_dedup, rule_of(SHAPES["nothing said"]), {**DIFFERENCES, **FIELD_PAIRS, **THERE_OR_NOT})
    one, other = await bench.alone(0), await bench.alone(1)
    assert {name for name in one if one[name] == other[name]} == set()


@every_store
async def test_switched_off_each_gets_the_bare_apps_own_answer(make_dedup: Make, store: str) -> None:
    dedup = make_dedup(rule_of({}), store=store, enabled=False)
    mirror = Mirror()
    app = DedupMiddleware(mirror, dedup=dedup)
    pairs = {**DIFFERENCES, **ONLY_AT_ONCE, **FIELD_PAIRS}
    calls = [call(app, **request) for pair in pairs.values() for request in (*pair, pair[0])]
    await settle()
    mirror.gate.set()
    for one in calls:
        await one.done()
        assert one.header(b"cache-status") is None
    assert mirror.runs == len(calls)
    assert [seen is one.scope for seen, one in zip(mirror.scopes, calls, strict=True)] == [True] * len(calls)
    assert dedup.store.responses == 0


# -- bodies, byte by byte --------------------------------------------------------------------------------------------

BODIES: dict[str, tuple[tuple[bytes, bytes], bytes]] = {
    "JSON": (JSON, b'{"a":[1,"x"],"token":"t"}'),
    "a form": (FORM, b"a=1&b=%20x&password=p"),
    "multipart": (UPLOAD, TWO_PARTS % b"file"),
    "text": ((b"content-type", b"text/plain"), b"one\r\ntwo\r\n"),
    "no type": ((b"x-a", b"1"), b"SELECT 1"),
}


def slips(body: bytes) -> Iterator[bytes]:
    """Every body that differs by one byte: another one, one less, one more, two that changed places."""
    for place in range(len(body) + 1):
        yield body[:place] + b"#" + body[place:]
    for place, byte in enumerate(body):
        yield body[:place] + bytes([byte ^ 1]) + body[place + 1 :]
        yield body[:place] + body[place + 1 :]
        yield body[:place] + body[place : place + 2][::-1] + body[place + 2 :]


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("shape", ["nothing said", "shared, vary []", "shared, origin", "ignore"])
@every_store
async def test_bodies_that_differ_in_one_byte_never_share(
    make_dedup: Make, name: str, shape: str, store: str
) -> None:
    field, body = BODIES[name]
    bodies = list(dict.fromkeys([body, *slips(body)]))
    mirror = Mirror()
    app = DedupMiddleware(mirror, dedup=make_dedup(rule_of(SHAPES[shape]), store=store))
    calls = [call(app, method="QUERY", headers=[field], body=each) for each in bodies]
    await settle()
    mirror.gate.set()
    for each, one in zip(bodies, calls, strict=True):
        assert (await one.done()).body == reflection(mirror.scopes[0], each)
    assert mirror.runs == len(bodies)
    for each in bodies:
        one = await get(app, method="QUERY", headers=[field], body=each)
        assert one.body == reflection(mirror.scopes[0], each)
    assert mirror.runs == len(bodies), "each was stored"


@pytest.mark.parametrize("name", UNCERTAIN)
@pytest.mark.parametrize("ttl", [0, 60])
async def test_on_any_doubt_a_request_goes_by_itself(make_dedup: Make, name: str, ttl: int) -> None:
    request = UNCERTAIN[name]
    assert not await one_runs_for_both(make_dedup, request, request, ttl=ttl)
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=ttl)))
    for run in (1, 2):
        one = await get(app, **request)
        assert one.body == b"run %d" % run
        assert one.header(b"cache-status") is None, "a bypass is untouched"


def test_every_difference_is_one() -> None:
    for name, (first, second) in {**DIFFERENCES, **ONLY_AT_ONCE}.items():
        assert repr(first) != repr(second), name


# -- what does not tell requests apart -------------------------------------------------------------------------------

NOISE: dict[bytes, tuple[bytes, bytes, bytes]] = {
    # name: two values in the field's grammar, and one that is not
    b"traceparent": (TRACE, OTHER_TRACE, TRACE + b"-"),
    b"tracestate": (b"a=1,b@c=2", b"rojo=00f067aa0ba902b7", b"no equals sign"),
    b"b3": (b"0", b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", b"b3"),
    b"x-b3-traceid": (b"0af7651916cd43dd", b"0af7651916cd43dd8448eb211c80319c", b"0AF7"),
    b"x-b3-spanid": (b"b7ad6b7169203331", b"c7ad6b7169203331", b"zz"),
    b"x-b3-parentspanid": (b"b7ad6b7169203331", b"c7ad6b7169203331", b"zz"),
    b"x-b3-sampled": (b"1", b"0", b"2"),
    b"x-request-id": (b"abc-1", b"01J9:x.y_z", b"abc 1"),
    b"x-correlation-id": (b"abc-1", b"abc-2", b"a" * 129),
    b"request-id": (b"abc-1", b"abc-2", b"a\n"),
    b"x-amzn-trace-id": (b"Root=1-67891233-abcdef012345678912345678", b"Root=1-2-3;Sampled=1", b"Evil=1"),
    b"x-cloud-trace-context": (b"0af7651916cd43dd8448eb211c80319c/1;o=1", b"1" * 32, b"x"),
    b"sentry-trace": (b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", b"1" * 32 + b"-" + b"2" * 16, b"1"),
    b"x-datadog-trace-id": (b"1", b"22", b"0x1"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("rule", [{}, {"vary": []}, {"identity": "shared"}, {"vary": "origin"}], ids=str)
async def test_noise_never_keeps_equal_requests_apart(
    make_dedup: Make, name: bytes, rule: dict[str, Any]
) -> None:
    one, other, _ = NOISE[name]
    pairs = [
        (with_headers((name, one)), with_headers((name, other))),
        (with_headers((name, one)), {}),
        (with_headers((name, one)), with_headers((name, one), (name, other))),
    ]
    for first, second in pairs:
        assert await one_runs_for_both(make_dedup, first, second, **rule)
        assert await one_is_stored_for_both(make_dedup, first, second, **rule)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("rule", [{}, {"vary": []}, {"identity": "shared"}], ids=str)
async def test_noise_outside_its_grammar_is_never_left_out(
    make_dedup: Make, name: bytes, rule: dict[str, Any]
) -> None:
    one, other, wrong = NOISE[name]
    wrongs = [wrong, b"x=" + one, one + b"\n", one + b"=<script>", b'"' + one + b'"']
    wrongs += [b"", b" " + one] if name != b"tracestate" else []  # a list may be empty (W3C 3.3.1.1)
    for value in wrongs:
        for second in (with_headers((name, other)), {}, with_headers((name, value + b"!"))):
            first = with_headers((name, value))
            assert not await one_runs_for_both(make_dedup, first, second, **rule), value
            assert not await one_is_stored_for_both(make_dedup, first, second, **rule), value


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("connection", [b"%b", b"close, %b", b"close,%b ,x", b"keep-alive,\t%b"])
@pytest.mark.parametrize("rule", [{}, {"vary": []}], ids=str)
async def test_what_connection_names_is_never_noise(
    make_dedup: Make, name: bytes, connection: bytes, rule: dict[str, Any]
) -> None:
    one, other, _ = NOISE[name]
    for spelled in (name, name.upper()):
        named = (b"connection", connection % spelled)
        first, second = with_headers(named, (name, one)), with_headers(named, (name, other))
        assert not await one_runs_for_both(make_dedup, first, second, **rule)
        assert not await one_is_stored_for_both(make_dedup, first, second, **rule)


@pytest.mark.parametrize("name", [b"traceparent", b"x-request-id"])
@pytest.mark.parametrize("ttl", [0, 60])
async def test_noise_that_a_response_varies_on_is_never_left_out(
    make_dedup: Make, name: bytes, ttl: int
) -> None:
    one, other, _ = NOISE[name]

    def echo(scope: Any, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return 200, [(b"vary", b"Accept, " + name.upper())], dict(scope["headers"]).get(name, b"none")

    bare = GatedApp(echo)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=ttl)))
    values = [one, other, one, other, one]
    calls = [call(app, headers=[(name, value)]) for value in values] + [call(app)]
    await settle()
    assert bare.runs == 1, "they start together: nobody knows yet"
    bare.gate.set()
    for value, sent in zip([*values, b"none"], calls, strict=True):
        await sent.done()
        assert sent.body == value
    for value in (other, one):
        assert (await get(app, headers=[(name, value)])).body == value


@pytest.mark.parametrize("cookie", [b"_ga=1", b"_ga_ABC=1; _gid=2", b"_gcl_au=1; _fbp=x; _hjid=3; _gat=1"])
@pytest.mark.parametrize("identity", ["separate", "credentials", "shared", ["cookie:sid"]], ids=str)
async def test_analytics_cookies_never_keep_equal_requests_apart(
    make_dedup: Make, cookie: bytes, identity: Any
) -> None:
    for beside in (b"", b"sid=1"):
        first = with_headers((b"cookie", b"; ".join(filter(None, [beside, cookie]))))
        second = with_headers((b"cookie", b"; ".join(filter(None, [cookie + b"0", beside]))))
        third = with_headers((b"cookie", beside)) if beside else {}
        for other in (second, third):
            assert await one_runs_for_both(make_dedup, first, other, identity=identity)
            assert await one_is_stored_for_both(make_dedup, first, other, identity=identity)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":[true,null]}', b'{ "b" : [ true , null ] ,\n\t"a" : 1 }\r\n'),
        (b'{"\xc3\xa9":"\xc3\xa9/"}', b'{"\\u00e9":"\\u00e9\\/"}'),
        (b'"\xf0\x9f\x98\x80"', b'"\\ud83d\\ude00"'),
        (b"1.50e3", b" 1.50e3 "),
    ],
)
@pytest.mark.parametrize("content_type", [b"application/json", b"application/problem+json; charset=UTF-8"])
async def test_one_json_value_in_two_spellings_is_one_request(
    make_dedup: Make, one: bytes, other: bytes, content_type: bytes
) -> None:
    field = (b"content-type", content_type)
    assert await one_runs_for_both(make_dedup, with_body(one, field), with_body(other, field))
    assert await one_is_stored_for_both(make_dedup, with_body(one, field), with_body(other, field))


@pytest.mark.parametrize(
    "field",
    [
        (b"if-none-match", b'"a"'),
        (b"if-modified-since", b"Sat, 01 Jan 2000 00:00:00 GMT"),
        (b"cache-control", b"no-cache"),
        (b"cache-control", b"max-age=0"),
        (b"cache-control", b"No-Cache, max-age=0"),
        (b"pragma", b"no-cache"),
    ],
)
async def test_a_reload_does_not_punch_through_a_ttl(make_dedup: Make, field: tuple[bytes, bytes]) -> None:
    assert await one_is_stored_for_both(make_dedup, {}, with_headers(field))
    assert await one_is_stored_for_both(make_dedup, with_headers(field), {})
    assert await one_runs_for_both(make_dedup, with_headers(field), {}, ttl=60)


@pytest.mark.parametrize(
    "value", [b"no-store", b"only-if-cached", b"max-age=1", b"no-cache, x=1", b"no-cache=x"]
)
async def test_what_is_no_plain_reload_is_never_left_out(make_dedup: Make, value: bytes) -> None:
    assert not await one_is_stored_for_both(make_dedup, with_headers((b"cache-control", value)), {})
    named = with_headers((b"connection", b"cache-control"), (b"cache-control", b"no-cache"))
    assert not await one_is_stored_for_both(make_dedup, named, with_headers(named["headers"][0]))


# -- responses that are one caller's ---------------------------------------------------------------------------------

PERSONAL: dict[str, tuple[int, Pairs]] = {
    "Set-Cookie": (200, [(b"set-cookie", b"sid=1")]),
    "Set-Cookie in another case": (200, [(b"Set-Cookie", b"sid=1")]),
    "Set-Cookie among others": (200, [(b"cache-control", b"public, max-age=600"), (b"SET-COOKIE", b"")]),
    "a redirect with Set-Cookie": (301, [(b"location", b"/"), (b"set-cookie", b"sid=1")]),
    **{
        f"Cache-Control: {value!r}": (200, [(b"Cache-Control", value)])
        for value in (
            b"no-store", b"NO-STORE", b" no-store ", b"max-age=60,no-store", b"max-age=60 , No-Store",
            b"no-store=x", b'no-store="x"', b'private="x", no-store', b"no-store;", b"max-age=60; no-store",
            b"max-age=60 no-store", b"public no-store", b'x="unclosed, no-store', b"\tno-store", b",,no-store,",
            b"=, no-store", b"no-store\x00", b"private, no-store, max-age=600",
        )
    },
    "no-store on a second line": (200, [(b"cache-control", b"public"), (b"cache-control", b"no-store")]),
    "no-store on the first line": (200, [(b"cache-control", b"no-store"), (b"cache-control", b"max-age=9")]),
    "Vary: *": (200, [(b"vary", b"*")]),
    "Vary: a list with *": (200, [(b"vary", b"accept, *")]),
    "Vary: * on a second line": (200, [(b"vary", b"accept"), (b"Vary", b" * ")]),
    "Vary: no list": (200, [(b"vary", b"accept cookie")]),
    "Vary: another list": (200, [(b"vary", b"accept; cookie")]),
    "Vary: in quotes": (200, [(b"vary", b'accept, "cookie"')]),
    "401": (401, []),
    "403": (403, []),
    "407": (407, []),
    "429": (429, [(b"retry-after", b"1")]),
    "text/event-stream": (200, [(b"content-type", b"text/event-stream")]),
    "text/event-stream; charset": (200, [(b"Content-Type", b"Text/Event-Stream ; charset=utf-8")]),
    "multipart/x-mixed-replace": (200, [(b"content-type", b"multipart/x-mixed-replace; boundary=x")]),
    "application/x-ndjson": (200, [(b"content-type", b"application/x-ndjson")]),
    "application/jsonl": (200, [(b"content-type", b"application/jsonl")]),
    "application/x-jsonlines": (200, [(b"content-type", b"application/x-jsonlines")]),
    "application/stream+json": (200, [(b"content-type", b"application/stream+json")]),
    "CDN-Cache-Control": (200, [(b"cdn-cache-control", b"max-age=1, No-Store")]),
    "Surrogate-Control": (200, [(b"Surrogate-Control", b"no-store")]),
    "a body over the cap": (200, [(b"content-length", b"1048577")]),
    **{
        field.decode(): (200, [(field, b"x")])
        for field in (
            b"Authentication-Info", b"www-authenticate", b"X-CSRF-Token",
            b"x-xsrf-token", b"X-CSRFToken", b"Clear-Site-Data", b"x-auth-token", b"x-access-token",
            b"x-refresh-token", b"x-amz-security-token", b"set-cookie2", b"authorization", b"x-session-id",
        )
    },
}  # fmt: skip
NEVER_STORED: dict[str, tuple[int, Pairs]] = {
    **PERSONAL,
    "206": (206, [(b"content-range", b"bytes 0-1/10")]),
    "an interim status as the head": (103, [(b"link", b"</a.css>; rel=preload")]),
    "302": (302, [(b"location", b"/")]),
    "304": (304, []),
    "404": (404, []),
    "410": (410, []),
    "416": (416, []),
    "500": (500, []),
    "503": (503, []),
    "201": (201, []),
    "418": (418, []),
    "a CSP with a nonce": (200, [(b"content-security-policy", b"script-src 'nonce-abc'")]),
    "a CSP that only reports, with a nonce": (
        200,
        [(b"Content-Security-Policy-Report-Only", b"script-src 'Nonce-abc'")],
    ),
}
NEVER_WITHOUT_TTL: dict[str, Pairs] = {
    "no-cache": [(b"cache-control", b"no-cache")],
    "max-age=0": [(b"cache-control", b"max-age=0")],
    'max-age="0"': [(b"cache-control", b'max-age="0"')],
    "max-age=0, must-revalidate": [(b"cache-control", b"public, max-age=00, must-revalidate")],
}


def answering(status: int, headers: Pairs) -> Callable[[Any, int], tuple[int, Pairs, bytes]]:
    return lambda _, run: (status, headers, b"run %d" % run)


async def three_at_once(make_dedup: Make, status: int, headers: Pairs, **rule: Any) -> set[bytes]:
    bare = GatedApp(answering(status, headers))
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**rule)))
    calls = [call(app) for _ in range(3)]
    await settle()
    assert bare.runs == 1
    bare.gate.set()
    for one in calls:
        await one.done()
        assert one.status == status
        assert all(pair in one.headers for pair in headers)
    return {one.body for one in calls}


NARROW = ["nothing said", "vary []", "credentials, vary []", "shared, vary []", "shared, origin"]
"""From the widest rule to the narrowest."""
HTTP = ["http cache", "shared http cache"]
"""What the app itself says rules: cautiously, and as far as a shared cache may go."""


@pytest.mark.parametrize("name", PERSONAL)
@every_store
async def test_a_personal_response_never_reaches_another(make_dedup: Make, name: str, store: str) -> None:
    status, headers = PERSONAL[name]
    for shape, ttl in itertools.product(NARROW, (0, 60)):
        bare = GatedApp(answering(status, headers))
        dedup = make_dedup(rule_of(SHAPES[shape], ttl=ttl, negative_ttl=ttl), store=store)
        app = DedupMiddleware(bare, dedup=dedup)
        calls = [call(app) for _ in range(3)]
        await settle()
        assert bare.runs == 1
        bare.gate.set()
        answers = [await one.done() for one in calls] + [await get(app) for _ in range(2)]
        assert sorted(one.body for one in answers) == [b"run %d" % run for run in range(1, 6)], (shape, ttl)
        assert all(pair in one.headers for one in answers for pair in headers), "its own, whole"
        assert dedup.store.responses == 0


@pytest.mark.parametrize("name", PERSONAL)
async def test_switched_off_every_response_is_the_bare_apps_own(make_dedup: Make, name: str) -> None:
    status, headers = PERSONAL[name]
    bare = GatedApp(answering(status, headers))
    dedup = make_dedup(rule_of(SHAPES["shared, vary []"]), enabled=False)
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app) for _ in range(3)]
    await settle()
    assert bare.runs == 3
    bare.gate.set()
    for run, one in enumerate(calls, 1):
        await one.done()
        assert one.messages == [head(status, headers), chunk(b"run %d" % run, more=False)]


@pytest.mark.parametrize("name", NEVER_WITHOUT_TTL)
async def test_a_response_that_must_be_asked_for_each_time_never_reaches_a_follower(
    make_dedup: Make, name: str
) -> None:
    headers = NEVER_WITHOUT_TTL[name]
    assert await three_at_once(make_dedup, 200, headers) == {b"run 1", b"run 2", b"run 3"}
    assert await three_at_once(make_dedup, 200, headers, ttl=60) == {b"run 1"}, "a number overrides no-cache"


@pytest.mark.parametrize("name", NEVER_STORED)
@every_store
async def test_a_response_that_must_not_be_stored_never_is(make_dedup: Make, name: str, store: str) -> None:
    for shape in NARROW:
        bare = GatedApp(answering(*NEVER_STORED[name]), opened=True)
        dedup = make_dedup(rule_of(SHAPES[shape]), store=store)
        app = DedupMiddleware(bare, dedup=dedup)
        assert [(await get(app)).body for _ in range(3)] == [b"run 1", b"run 2", b"run 3"], shape
        assert dedup.store.responses == 0


@pytest.mark.parametrize("identity", ["shared", "credentials"])
@pytest.mark.parametrize(
    "headers",
    [
        [(b"cache-control", b"private")],
        [(b"cache-control", b"Private, max-age=60")],
        [(b"cache-control", b"max-age=60; private")],
        [(b"cache-control", b"max-age=60"), (b"cache-control", b"private")],
        [(b"content-security-policy", b"script-src 'nonce-r4nd0m'")],
    ],
)
async def test_a_private_response_never_reaches_another_caller(
    make_dedup: Make, identity: str, headers: Pairs
) -> None:
    for ttl in (0, 60):
        found = await three_at_once(make_dedup, 200, headers, identity=identity, ttl=ttl)
        assert found == {b"run 1", b"run 2", b"run 3"}


@pytest.mark.parametrize("directive", [b"private", b"No-Cache"])
@pytest.mark.parametrize("shape", [*NARROW, *HTTP])
async def test_a_field_that_is_one_callers_never_reaches_another(
    make_dedup: Make, directive: bytes, shape: str
) -> None:
    """RFC 9111 s.5.2.2.4, s.5.2.2.7: the qualified forms; the rest of the response is everybody's."""
    own = (b"x-account", b"alice")
    headers = [(b"cache-control", b'max-age=60, %b="X-Account"' % directive), own]
    bare = GatedApp(answering(200, headers))
    app = DedupMiddleware(bare, dedup=make_dedup(rule_of(SHAPES[shape])))
    calls = [call(app) for _ in range(3)]
    await settle()
    bare.gate.set()
    leader, *others = [await one.done() for one in calls] + [await get(app)]
    assert own in leader.headers
    assert [one.body for one in others] == [b"run 1"] * 3
    assert [one.header(b"x-account") for one in others] == [None] * 3


STATEABLE = (
    "Set-Cookie",
    "Set-Cookie in another case",
    "a redirect with Set-Cookie",
    "Clear-Site-Data",
    "set-cookie2",
)


@pytest.mark.parametrize("name", PERSONAL)
@pytest.mark.parametrize("share_cookies", [True, False], ids=["cookies shared", "cookies apart"])
@pytest.mark.parametrize("shape", HTTP)
@every_store
async def test_a_personal_response_never_reaches_another_though_it_says_how_long_it_is_fresh(
    make_dedup: Make, name: str, shape: str, share_cookies: bool, store: str
) -> None:
    """An HTTP cache keeps any status with max-age, and where the rule says so a cookie with a lifetime, or public."""
    status, headers = PERSONAL[name]
    for fresh in ([], [(b"cache-control", b"max-age=60")], [(b"expires", b"Fri, 31 Dec 9999 23:59:59 GMT")]):
        bare = GatedApp(answering(status, [*headers, *fresh]))
        dedup = make_dedup(rule_of({**SHAPES[shape], "share_cookies": share_cookies}), store=store)
        app = DedupMiddleware(bare, dedup=dedup)
        calls = [call(app) for _ in range(3)]
        await settle()
        assert bare.runs == 1
        bare.gate.set()
        answers = [await one.done() for one in calls] + [await get(app) for _ in range(2)]
        shared = status in (401, 403, 407, 429) and bool(fresh)
        stated = name == "Set-Cookie among others" or (name in STATEABLE and bool(fresh))
        shared = shared or (share_cookies and stated)
        assert len({one.body for one in answers}) == (1 if shared else 5), fresh
        assert dedup.store.responses == (1 if shared else 0)


STALE_AT_ONCE: dict[str, Pairs] = {
    **NEVER_WITHOUT_TTL,
    "s-maxage=0": [(b"cache-control", b"max-age=60, s-maxage=0")],
    "an Expires that is no date": [(b"expires", b"0")],
    "it came too old": [(b"cache-control", b"max-age=60"), (b"age", b"61")],
}


@pytest.mark.parametrize("name", STALE_AT_ONCE)
@pytest.mark.parametrize("shape", HTTP)
async def test_what_is_stale_at_once_never_reaches_another_unasked(
    make_dedup: Make, name: str, shape: str
) -> None:
    bare = GatedApp(answering(200, [*STALE_AT_ONCE[name], (b"etag", b'"a"')]))
    app = DedupMiddleware(bare, dedup=make_dedup(rule_of(SHAPES[shape])))
    calls = [call(app) for _ in range(3)]
    await settle()
    bare.gate.set()
    answers = [await one.done() for one in calls] + [await get(app) for _ in range(2)]
    assert len({one.body for one in answers}) == 5


async def test_a_private_response_is_shared_with_its_own_caller(make_dedup: Make) -> None:
    headers = [(b"cache-control", b"private, max-age=60")]
    assert await three_at_once(make_dedup, 200, headers) == {b"run 1"}
    bare = GatedApp(answering(200, headers), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60, identity="credentials")))
    alice: Request = {"headers": [(b"authorization", b"alice")]}
    assert [(await get(app, **alice)).body for _ in range(2)] == [b"run 1", b"run 1"]
    assert [(await get(app)).body for _ in range(2)] == [b"run 2", b"run 3"], "anonymous callers are many"


@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_response_that_changed_the_session_never_reaches_a_follower(
    make_dedup: Make, ttl: int
) -> None:
    def log_in(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        scope["session"]["user"] = run
        return 200, [], b"run %d" % run

    bare = GatedApp(log_in)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=ttl)))
    sessions: list[dict[str, Any]] = [{"a": [1]} for _ in range(3)]
    calls = [call(app, session=session) for session in sessions]
    await settle()
    bare.gate.set()
    for one, session in zip(calls, sessions, strict=True):
        await one.done()
        assert one.body == b"run %d" % session["user"]
    assert {session["user"] for session in sessions} == {1, 2, 3}


async def test_a_change_deep_in_the_session_is_seen(make_dedup: Make) -> None:
    def add_to_cart(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        scope["session"]["cart"].append(run)
        return 200, [], b"run %d" % run

    app = DedupMiddleware(GatedApp(add_to_cart, opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    assert [(await get(app, session={"cart": []})).body for _ in range(2)] == [b"run 1", b"run 2"]


# -- Vary ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["vary []", "shared, vary []"])
@every_store
async def test_whatever_field_a_response_varies_on_tells_its_callers_apart(
    make_dedup: Make, shape: str, store: str
) -> None:
    """Hono CVE-2026-44457. A rule that hides the field shows it to the app again: its own value, to each."""
    bench = Bench(make_dedup, rule_of(SHAPES[shape]), FIELD_PAIRS, store=store, tells=True)
    assert await bench.wronged() == set()
    assert bench.missed == set()
    for which, value in enumerate((b"'a=1'", b"'a=2'")):
        assert {name for name, (_, body) in (await bench.alone(which)).items() if value not in body} == set()


@pytest.mark.parametrize(
    "varies", [b"Authorization", b"Cookie", b"X-Api-Key", b"accept, authorization, cookie"]
)
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"identity": "credentials"},
        {"identity": "shared"},
        {"identity": "shared", "vary": "origin"},
        {"identity": "shared", "vary": []},
    ],
    ids=str,
)
@pytest.mark.parametrize("ttl", [0, 60])
async def test_two_users_never_share_what_varies_on_their_credentials(
    make_dedup: Make, varies: bytes, rule: dict[str, Any], ttl: int
) -> None:
    def greet(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        seen = [
            value for name, value in scope["headers"] if name in (b"authorization", b"cookie", b"x-api-key")
        ]
        return 200, [(b"vary", varies)], b"hello " + b"".join(seen)

    field = b"x-api-key" if b"Key" in varies else b"cookie" if b"Cookie" in varies else b"authorization"
    bare = GatedApp(greet)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**{**rule, "ttl": ttl})))
    users = [b"alice=1", b"bob=1"] * 3
    calls = [call(app, headers=[(field, user)]) for user in users]
    await settle()
    bare.gate.set()
    for user, one in zip(users, calls, strict=True):
        await one.done()
        assert one.body == b"hello " + user
    for user in users:
        assert (await get(app, headers=[(field, user)])).body == b"hello " + user
    assert (await get(app)).body == b"hello "
    assert (await get(app, headers=[(field, b"alice=1")])).body == b"hello alice=1"


async def test_the_parts_of_a_variant_are_never_joined(make_dedup: Make) -> None:
    """admin + acme1 or adminacme + 1: values without their boundaries would be one."""

    def echo(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        fields = dict(scope["headers"])
        seen = fields.get(b"x-role", b"?") + b"|" + fields.get(b"x-tenant", b"?")
        return 200, [(b"vary", b"x-role, x-tenant")], seen

    shapes: list[dict[str, Any]] = [
        {},
        {"vary": "origin"},
        {"vary": "origin", "identity": "shared"},
        {"vary": ["x-role", "x-tenant"], "identity": "shared"},
    ]
    for rule in shapes:
        app = DedupMiddleware(GatedApp(echo, opened=True), dedup=make_dedup(default=Rule(ttl=60, **rule)))
        for role, tenant in [(b"admin", b"acme1"), (b"adminacme", b"1"), (b"admin", b"acme1")]:
            one = await get(app, headers=[(b"x-role", role), (b"x-tenant", tenant)])
            assert one.body == role + b"|" + tenant


async def test_an_ignored_pattern_never_hides_a_credential_from_vary(make_dedup: Make) -> None:
    def greet(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [(b"vary", b"x-api-key")], b"hello " + dict(scope["headers"]).get(b"x-api-key", b"")

    rule = Rule(ttl=60, identity="shared", ignore=["header:x-*"])
    app = DedupMiddleware(GatedApp(greet, opened=True), dedup=make_dedup(default=rule))
    for user in (b"", b"alice", b"bob", b"", b"alice"):
        assert (await get(app, headers=[(b"x-api-key", user)] if user else [])).body == b"hello " + user


# -- two users, two thousand requests --------------------------------------------------------------------------------

RULES: dict[str, dict[str, Any]] = {
    "default": {},
    "stored": {"ttl": 60},
    "credentials": {"ttl": 60, "identity": "credentials"},
    "nothing else": {"ttl": 60, "vary": []},
    "origin": {"ttl": 60, "vary": "origin"},
    "a list": {"ttl": 60, "identity": ["authorization"]},
    "a list and origin": {"ttl": 60, "identity": ["authorization"], "vary": "origin"},
    "a function": {"ttl": 60, "identity": lambda scope: dict(scope["headers"])[b"authorization"]},
    "http cache": SHAPES["http cache"],
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("carrier", [b"authorization", b"cookie"])
async def test_two_users_never_get_each_others_answers(make_dedup: Make, name: str, carrier: bytes) -> None:
    rule = dict(RULES[name])
    if carrier == b"cookie" and "list" in name:
        rule["identity"] = ["cookie:session"]
    if carrier == b"cookie" and name == "a function":
        rule["identity"] = lambda scope: dict(scope["headers"])[b"cookie"]

    def greet(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [(b"cache-control", b"max-age=60")], dict(scope["headers"])[carrier]

    bare = GatedApp(greet)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(**rule)))
    users = [b"session=alice", b"session=bob"]
    crowd = [users[number % 2] for number in range(1000)]
    calls = [call(app, "/account", headers=[(carrier, user)]) for user in crowd]
    await settle()
    assert bare.runs == 2
    bare.gate.set()
    for user, one in zip(crowd, calls, strict=True):
        await one.done()
        assert one.body == user
    for user in crowd:
        assert (await get(app, "/account", headers=[(carrier, user)])).body == user
    assert bare.runs == (2 if rule.get("ttl") else 1002)


# -- failures of others ----------------------------------------------------------------------------------------------


async def test_a_conditional_request_never_gets_a_field_of_anothers_session(make_dedup: Make) -> None:
    """Squid CVE-2016-10002."""

    def mint(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [(b"etag", b'"v1"'), (b"set-cookie", b"sid=%d" % run), (b"x-user", b"%d" % run)], b"page"

    for ttl in (0, 60):
        bare = GatedApp(mint)
        app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=ttl, identity="shared")))
        leader = call(app)
        await until(lambda bare=bare: bare.runs == 1)  # type: ignore[misc] # mypy infers no lambda with a default
        other = call(app, headers=[(b"if-none-match", b'"v1"')])
        await settle()
        bare.gate.set()
        await asyncio.gather(leader.done(), other.done())
        assert leader.header(b"set-cookie") == b"sid=1"
        assert (other.header(b"set-cookie"), other.header(b"x-user")) == (b"sid=2", b"2")


async def test_fifty_who_are_given_a_session_each_never_share_one(make_dedup: Make) -> None:
    """ocache #61, Souin #662."""
    for switch in (True, False):
        bare = GatedApp(lambda _, run: (200, [(b"set-cookie", b"sid=%d" % run)], b"%d" % run))
        dedup = make_dedup(default=Rule(ttl=60, identity="shared"))
        dedup.enabled = switch
        app = DedupMiddleware(bare, dedup=dedup)
        calls = [call(app) for _ in range(50)]
        await settle()
        bare.gate.set()
        for one in calls:
            await one.done()
            assert one.header(b"set-cookie") == b"sid=" + one.body
        assert len({one.body for one in calls}) == 50


async def test_requests_without_a_key_never_meet(make_dedup: Make) -> None:
    """ASP.NET #67763: no key, so they skipped the cache and still met at its lock."""
    unencodable: Request = {"path": "/\udcff", "raw_path": b"/%FF"}
    odd: Request = {"target": "/", "query_string": b"a=\x1e"}
    for first, second in [
        (unencodable, unencodable),
        (odd, {**odd, "query_string": b"b=\x1e"}),
        (odd, unencodable),
    ]:
        assert not await one_runs_for_both(make_dedup, first, second)


async def test_a_followers_scope_is_never_the_leaders(make_dedup: Make) -> None:
    """GitHub 2021: a hash that two requests used mixed their sessions."""
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup())
    calls = [call(app, session={"id": 1}, state={"a": [1]}) for _ in range(2)]
    await settle()
    flight = bare.scopes[0]
    follower = calls[1].scope
    follower["headers"].append((b"x-late", b"1"))
    follower["state"]["a"].append(2)
    follower["session"]["id"] = 2
    follower["user"] = "mallory"
    assert (b"x-late", b"1") not in flight["headers"]
    assert flight["state"] == {"a": [1]}
    assert flight["session"] == {"id": 1}
    assert "user" not in flight
    flight["headers"].append((b"x-app", b"1"))
    flight["path_params"] = {"id": 1}
    assert (b"x-app", b"1") not in calls[0].scope["headers"]
    assert (b"x-app", b"1") not in follower["headers"]
    bare.gate.set()
    await all_of(calls)
    assert calls[0].scope["path_params"] == {"id": 1}, "outer layers find what the app's router found"
    assert "path_params" not in follower


@pytest.mark.parametrize(
    "name",
    [
        b"x-middleware-prefetch",
        b"x-now-route-matches",
        b"rsc",
        b"x-nextjs-data",
        b"x-invoke-status",
        b"purpose",
    ],
)
@pytest.mark.parametrize("rule", [{}, {"vary": []}, {"vary": ["accept"], "identity": "shared"}], ids=str)
async def test_a_field_that_changes_the_response_never_poisons_the_plain_one(
    make_dedup: Make, name: bytes, rule: dict[str, Any]
) -> None:
    """Next.js CVE-2024-46982: an internal field made a page cacheable, its variant was served on the plain URL."""

    def render(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [], b"variant" if name in dict(scope["headers"]) else b"page"

    app = DedupMiddleware(
        GatedApp(render, opened=True), dedup=make_dedup(default=Rule(**{**rule, "ttl": 60}))
    )
    await get(app, headers=[(name, b"1")])
    assert (await get(app)).body == b"page"


async def test_one_key_of_two_users_never_replays_the_first_ones_answer(make_dedup: Make) -> None:
    """asgi-idempotency-header 0.2.0: same Idempotency-Key, other user, other body, other path."""
    rule = Rule("/{path:path}", methods=["POST"], collapse=True, ttl=60)
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(rule))
    same = (b"idempotency-key", b"k1")
    requests: list[Request] = [
        {"headers": [same, (b"authorization", b"alice")], "body": b"1"},
        {"headers": [same, (b"authorization", b"bob")], "body": b"1"},
        {"headers": [same, (b"authorization", b"alice")], "body": b"2"},
        {"headers": [same, (b"authorization", b"alice")], "body": b"1", "target": "/other"},
    ]
    for run, request in enumerate(requests, 1):
        assert (await get(app, method="POST", **request)).body == b"run %d" % run
    assert (await get(app, method="POST", **requests[0])).body == b"run 1"


async def test_a_head_never_leaves_an_empty_page_behind(make_dedup: Make) -> None:
    """starlette-caches 0.4.1: HEAD, then GET: an empty 200 until it expired."""

    def page(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        return 200, [(b"content-length", b"4")], b"" if scope["method"] == "HEAD" else b"page"

    app = DedupMiddleware(GatedApp(page, opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    for method, body in (("HEAD", b""), ("GET", b"page"), ("HEAD", b""), ("GET", b"page")):
        one = await get(app, method=method)
        assert (one.body, one.header(b"content-length")) == (body, b"4")


async def test_a_part_of_a_page_never_stands_for_the_page(make_dedup: Make) -> None:
    """starlette-caches 0.4.1: Range, then a plain GET: a 206 with two of ten bytes."""

    def page(scope: Any, run: int) -> tuple[int, Pairs, bytes]:
        if dict(scope["headers"]).get(b"range") is None:
            return 200, [], b"0123456789"
        return 206, [(b"content-range", b"bytes 0-1/10")], b"01"

    shapes: list[dict[str, Any]] = [{}, {"vary": []}, {"vary": "origin", "identity": "shared"}]
    for rule in shapes:
        app = DedupMiddleware(GatedApp(page, opened=True), dedup=make_dedup(default=Rule(ttl=60, **rule)))
        for headers, status in [
            ([(b"range", b"bytes=0-1")], 206),
            ([], 200),
            ([(b"range", b"bytes=0-1")], 206),
        ]:
            assert (await get(app, headers=headers)).status == status


async def test_a_body_in_two_pieces_is_the_body_in_one(make_dedup: Make) -> None:
    """asgi-idempotency-header 0.2.0: JSON in two chunks was a KeyError."""

    class Halves(Call):
        halves = (b'{"q":', b'"x"}')

        async def _receive(self) -> Message:
            if not self.halves:
                return await super()._receive()
            half, *self.halves = self.halves  # type: ignore[assignment] # a list takes the tuple's place
            return {"type": "http.request", "body": half, "more_body": bool(self.halves)}

    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=60)))
    halves = await Halves(app, make_scope(method="QUERY", headers=[JSON])).done()
    whole = await get(app, method="QUERY", headers=[JSON], body=b'{"q": "x"}')
    assert (halves.body, whole.body) == (b"run 1", b"run 1")


async def test_an_etag_of_one_target_never_answers_for_another(make_dedup: Make) -> None:
    """cashews 7.6.0: If-None-Match was answered before routing."""
    bare = GatedApp(lambda scope, _: (200, [(b"etag", b'"%b"' % scope["raw_path"])], b"page"), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    await get(app, "/a")
    for target in ("/b", "/unknown", "/a?x=1"):
        assert (await get(app, target, headers=[(b"if-none-match", b'"/a"')])).status == (
            304 if target == "/a?x=1" else 200
        )
    assert (await get(app, "/a", headers=[(b"if-none-match", b'"/a"')])).status == 304


async def test_two_apps_behind_one_engine_never_get_each_others_answers(make_dedup: Make) -> None:
    dedup = make_dedup(default=Rule(ttl=60))
    first, second = (
        DedupMiddleware(GatedApp(answering(200, [(b"x-app", name)]), opened=True), dedup=dedup)
        for name in (b"first", b"second")
    )
    for _ in range(2):
        assert (await get(first)).header(b"x-app") == b"first"
        assert (await get(second)).header(b"x-app") == b"second"


async def test_a_lifespans_own_objects_are_no_doubt_and_never_hide_a_difference(make_dedup: Make) -> None:
    async def app_with_a_life(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await stopped.wait()
        else:
            await echo(scope, receive, send)

    stopped = asyncio.Event()
    echo = GatedApp(lambda scope, run: (200, [], repr(scope["state"].get("tenant")).encode()), opened=True)
    app = DedupMiddleware(app_with_a_life, dedup=make_dedup(default=Rule(ttl=60)))
    database = object()
    own = {"db": database, "tenant": "nobody"}

    async def receive() -> Message:
        await stopped.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    life = asyncio.ensure_future(app({"type": "lifespan", "state": own}, receive, send))
    await settle()
    for tenant in ("a", "b", "nobody", "a", "nobody"):
        one = await get(app, state={"db": database, "tenant": tenant})
        assert one.body == repr(tenant).encode()
    assert echo.runs == 3
    assert (await get(app, state={"db": database})).body == b"None", (
        "a missing entry is not the lifespan's own"
    )
    assert (await get(app, state={"db": object(), "tenant": "a"})).header(b"cache-status") is None
    stopped.set()
    await life
