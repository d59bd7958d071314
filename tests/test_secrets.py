"""Secrets: whatever a request carries, and wherever, it stands in no output of ours, in no spelling (law 4).

Outputs are keys, log records with their extras, spans, metrics, errors and what they chain, representations,
explanations and statistics.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import Call, GatedApp, SteppedApp, call, chunk, head, make_scope, settle
from .leak_kit import CREDENTIALS, FORM, JSON, STORES, Make, Request, rule_of
from .telemetry_kit import Metrics, Seen

pytestmark = pytest.mark.slow

SECRET = "h7Qz-S3cr3t/Wert+9kV"
every_store = pytest.mark.parametrize("store", STORES)


# -- what counts as an occurrence ------------------------------------------------------------------------------------


def spellings(secret: str) -> Iterator[str]:
    """A secret as code might write it: as it is, halved, escaped, encoded, in hex, backwards."""
    raw = secret.encode()
    half = len(secret) // 2
    yield from (secret, secret[:half], secret[half:], secret[::-1])
    yield from (quote(secret, safe=""), quote_plus(secret), quote(quote(secret, safe=""), safe=""))
    yield from (raw.hex(), raw.hex(" "), raw[:half].hex(), json.dumps(secret)[1:-1], str(list(raw))[1:-1])
    for shift in range(3):
        # What stands beside it moves the groups of six bits: the middle is the same for every neighbour.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw).decode()[4 : 4 * (len(raw) // 3)]
    yield base64.b32encode(raw).decode()[: 8 * (len(raw) // 5)]


SPELLINGS = [spelling.lower() for spelling in spellings(SECRET)]


def occurrences(text: str) -> list[str]:
    lowered = text.lower()
    return [spelling for spelling in SPELLINGS if spelling in lowered]


@pytest.mark.parametrize(
    "text",
    [
        SECRET, f"x={quote(SECRET, safe='')}", base64.b64encode(f"alice:{SECRET}".encode()).decode(), SECRET.upper(),
        base64.urlsafe_b64encode(f"a:{SECRET}".encode()).decode(), SECRET.encode().hex(), SECRET[10:], repr({SECRET}),
        base64.b64encode(f"al:{SECRET}:x".encode()).decode(), repr(SECRET.encode()), json.dumps({"a": SECRET}),
    ],
)  # fmt: skip
def test_a_secret_is_found_in_every_spelling(text: str) -> None:
    assert occurrences(text)
    assert not occurrences("b1946ac92492d2347c6235b4d2611184 /page default forwarded")


# -- where a request carries one -------------------------------------------------------------------------------------


class User:
    def __init__(self, identity: str) -> None:
        self.identity = identity

    def __repr__(self) -> str:
        return f"User({self.identity!r})"


class Scopes:
    def __init__(self, *scopes: str) -> None:
        self.scopes = list(scopes)


def field(name: str, value: str) -> Request:
    return {"headers": [(name.encode(), value.encode())]}


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(f"alice:{text}".encode()).decode()


def body(text: str, *pairs: tuple[bytes, bytes]) -> Request:
    return {"method": "QUERY", "headers": pairs, "body": text.encode()}


PLACES: dict[str, Callable[[str], Request]] = {
    "authorization: bearer": lambda text: field("authorization", f"Bearer {text}"),
    "authorization: basic": lambda text: field("authorization", basic(text)),
    "authorization: digest": lambda text: field("authorization", f'Digest username="a", response="{text}"'),
    "cookie": lambda text: field("cookie", f"sid={text}; theme=dark"),
    "cookie: quoted": lambda text: field("cookie", f'sid="{text}"'),
    "cookie: beside analytics": lambda text: field("cookie", f"_ga=GA1.2; sid={text}"),
    "cookie: as its name": lambda text: field("cookie", f"{text}=1"),
    "cookie: two lines": lambda text: {"headers": [(b"cookie", b"a=1"), (b"cookie", text.encode())]},
    "sec-token-binding": lambda text: field("sec-token-binding", text),
    "query: token": lambda text: {"target": f"/mine/1?a=1&token={text}"},
    "query: password, escaped": lambda text: {"target": f"/mine/1?pass%77ord={quote(text, safe='')}"},
    "query: in brackets": lambda text: {"target": f"/mine/1?user%5Bpassword%5D={text}"},
    "query: behind a semicolon": lambda text: {"target": f"/mine/1?a=1;api_key={text}"},
    "query: in capitals": lambda text: {"target": f"/mine/1?ACCESS_TOKEN={text}"},
    "query: camel case": lambda text: {"target": f"/mine/1?clientSecret={text}&sessionId={text}"},
    "query: a signed URL": lambda text: {"target": f"/mine/1?X-Amz-Signature={text}&X-Amz-Credential={text}"},
    "referer: its query": lambda text: field("referer", f"https://a.test/?x=1&token={text}"),
    "body: JSON": lambda text: body(json.dumps({"password": text}), JSON),
    "body: JSON, nested": lambda text: body(json.dumps({"a": [{"client_secret": text}]}), JSON),
    "body: JSON, an ordinary name": lambda text: body(json.dumps({"q": text}), JSON),
    "body: a form": lambda text: body(f"user=a&password={quote_plus(text)}", FORM),
    "body: multipart": lambda text: body(
        f'--b\r\ncontent-disposition: form-data; name="otp"\r\n\r\n{text}\r\n--b--\r\n',
        (b"content-type", b"multipart/form-data; boundary=b"),
    ),
    "body: broken JSON": lambda text: body('{"password": "' + text, JSON),
    "body: of a GET": lambda text: {"body": text.encode(), "headers": [(b"content-length", b"20")]},
    "user: a text": lambda text: {"user": text},
    "user: an object": lambda text: {"user": User(text)},
    "auth: scopes": lambda text: {"user": User("a"), "auth": Scopes(text)},
    "session": lambda text: {"session": {"csrf": text, "cart": [text]}},
    "state": lambda text: {"state": {"token": text}},
    "state: an object": lambda text: {"state": {"user": User(text)}},
    "scope: an unknown key": lambda text: {"tenant": {"secret": text}},
    "certificate": lambda text: {"extensions": {"tls": {"client_cert_name": text, "client_cert_chain": [text]}}},
    "address": lambda text: {"client": text},
    "two authorizations": lambda text: {"headers": [(b"authorization", text.encode())] * 2},
    "a write": lambda text: {**field("authorization", text), "method": "POST", "body": text.encode()},
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "shared, vary []": {"identity": "shared", "vary": []},
    "credentials, origin": {"identity": "credentials", "vary": "origin"},
    "one cookie": {"identity": ["cookie:sid"], "vary": []},
    "a function": {"identity": lambda scope: repr([scope["headers"], scope.get("user")])},
    "ignore": {"ignore": ["query:*", "body:*", "header:*", "state:*"]},
}


class WrongPasswordError(Exception):
    """What an app raises, with the secret in its message."""


def failure() -> WrongPasswordError:
    """An app's own error with a chain."""
    error = WrongPasswordError(SECRET)
    error.__cause__ = KeyError(SECRET)
    error.add_note(SECRET)
    return error


class Unwilling:
    """A store's method whose errors say too much."""

    def __call__(self, *arguments: object, **settings: object) -> Any:
        raise ConnectionError(f"redis://:{SECRET}@cache:6379")


# -- every output ----------------------------------------------------------------------------------------------------


class Outputs:
    """An engine and everything that ever comes out of it."""

    def __init__(
        self, make_dedup: Make, caplog: pytest.LogCaptureFixture, rule: Rule, store: str = STORES[0]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        self.caplog, self.seen, self.metrics = caplog, Seen(), Metrics()
        self.errors: list[BaseException] = []
        self.keys: list[object] = []
        self.dedup = make_dedup(
            Rule("/mine/{token}", ttl=60, name="mine", methods=["GET", "QUERY"]),
            rule,
            store=store,
            secret=SECRET,
            tracer_provider=self.seen.provider,
            meter_provider=self.metrics.provider,
        )
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.keys.append({**context, "exception": None})
        )

    async def burst(self, bare: Any, request: Request, methods: tuple[str, ...] = ()) -> None:
        """Three at once, and then each of these methods; what followers raise is an output, a leader's is the app's."""
        app = DedupMiddleware(bare, dedup=self.dedup)
        calls: list[Call] = [call(app, **request) for _ in range(3)]
        await settle()
        table = self.dedup.flights
        self.keys += [flight.key for flight in table.under_way.values()] + [
            repr(table.under_way),
            repr([flight.task for flight in table.under_way.values()]),
        ]
        bare.gate.set() if isinstance(bare, GatedApp) else bare.finish()
        calls += [call(app, **{**request, "method": method}) for method in methods]
        for error in await asyncio.gather(*(one.task for one in calls), return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, WrongPasswordError):
                self.errors.append(error)
        self.keys += [line for one in calls if one.started for line in (one.header(b"cache-status"),)]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every output as text, with what it is."""
        for record in self.caplog.records:
            yield "log", f"{record.getMessage()} {record.args} {record.__dict__} {record.exc_text}"
        for span in self.seen.spans:
            yield (
                "span",
                span.to_json(indent=None)
                + repr([span.name, span.attributes, span.events, span.links, span.status]),
            )
        yield "metrics", repr(self.metrics.all()) + repr(self.metrics.reader.get_metrics_data())
        for error in self.errors:
            assert isinstance(error, ForwardFailed), "no other error of ours reaches a follower"
            chain = "".join(traceback.format_exception(error)) + repr((error, error.args, vars(error)))
            yield "error", chain + repr([error.__cause__, error.__context__])
        dedup = self.dedup
        for name in ("bodies", "variants", "passes", "outgrown"):
            memo = getattr(dedup, name)
            yield name, repr([*memo.young, *memo.old])
        yield "keys", repr(self.keys)
        yield "counts", repr([vars(dedup), vars(dedup.telemetry), dedup.stats()])
        told = (dedup, dedup.rules, dedup.default, dedup.stats(), dedup.store, dedup.flights, dedup.book)
        yield "objects", repr(told) + str(told) + repr(DedupMiddleware(GatedApp(), dedup=dedup))

    def leaks(self) -> dict[str, list[str]]:
        return {name: found for name, text in self.texts() if (found := occurrences(text))}


@pytest.mark.parametrize("place", PLACES)
@every_store
async def test_no_secret_of_a_request_stands_in_any_output(
    make_dedup: Make, caplog: pytest.LogCaptureFixture, place: str, store: str
) -> None:
    """Collapsed, hit, 304, HEAD, a failed flight, a broken body, a server error, a pass, a Vary, a store that fails."""
    request = PLACES[place](SECRET)
    for shape in ("nothing said", "credentials, origin", "a function"):
        out = Outputs(make_dedup, caplog, rule_of(SHAPES[shape]), store)
        target = request.get("target", "/page")
        answers: list[tuple[int, list[tuple[bytes, bytes]]]] = [
            (200, [(b"etag", b'"v1"')]),
            (200, [(b"set-cookie", b"sid=" + SECRET.encode()), (b"location", SECRET.encode())]),
            (200, [(b"vary", b"x-tenant, authorization, cookie")]),
            (503, []),
        ]
        for number, (status, pairs) in enumerate(answers):
            bare = GatedApp(lambda _, run, status=status, pairs=pairs: (status, pairs, SECRET.encode()))  # type: ignore[misc] # mypy infers no lambda with defaults
            methods = ("HEAD", "GET", "QUERY", "POST") if number == 0 else ()
            await out.burst(bare, {**request, "target": target + "&"[: "?" in target]}, methods)
            out.dedup.clear()
        await out.burst(SteppedApp(None, failure()), request)
        await out.burst(SteppedApp(None, head(), chunk(SECRET.encode()), failure()), request)
        out.dedup.keeper.store.get = out.dedup.keeper.store.put = Unwilling()  # type: ignore[method-assign] # a fault in the memory store
        await out.burst(GatedApp(), request)
        assert out.leaks() == {}, shape
        kinds = {span.name.split(" ")[0] for span in out.seen.spans}
        assert kinds & {"forwarded", "bypassed"}, "or the outputs would show nothing"
        del out.dedup.keeper.store.get, out.dedup.keeper.store.put


@pytest.mark.parametrize("place", [place for place in PLACES if place != "address"])
async def test_no_secret_of_a_request_is_remembered_as_it_came(make_dedup: Make, place: str) -> None:
    request = {"method": "GET", **PLACES[place](SECRET)}
    for shape in ("nothing said", "credentials, origin"):
        dedup = make_dedup(default=rule_of(SHAPES[shape], ttl=60))
        app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
        for _ in range(3):
            await call(app, **request).done()
            await call(app, "/open", headers=[(b"accept", b"a")]).done()

        (reader,) = {id(reader._open): reader for reader in dedup.book._readers}.values()
        assert len(reader._open) >= 1, "what has no secret is"
        assert occurrences(repr([*reader._open.young, *reader._digests.young])) == []


async def test_the_outputs_are_heard(make_dedup: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Spans, logs, metrics and errors of a story without doubt; and a leak in any of them is found."""
    out = Outputs(make_dedup, caplog, rule_of({}))
    await out.burst(GatedApp(), field("authorization", SECRET))
    await out.burst(SteppedApp(None, failure()), {"target": "/other", **field("authorization", SECRET)})
    assert {span.name.split(" ")[0] for span in out.seen.spans} == {"forwarded", "forward", "collapsed"}
    assert len(out.errors) == 2
    assert {record.name for record in caplog.records} >= {
        "dedup_middleware.requests",
        "dedup_middleware.flights",
    }
    assert "dedup.requests" in out.metrics.read()
    assert out.leaks() == {}
    logging.getLogger("dedup_middleware.requests").debug("hit", extra={"dedup_key": f"a={SECRET}"})
    out.seen.tracer.start_span("forward", attributes={"dedup.key": SECRET.encode().hex()}).end()
    out.errors.append(ForwardFailed(f"WrongPassword({SECRET})"))
    out.keys.append(SECRET.encode())
    assert set(out.leaks()) == {"log", "span", "error", "keys"}


@pytest.fixture(scope="module")
def engines() -> dict[str, Dedup]:
    """One for each shape of a rule: to explain executes nothing."""
    return {shape: Dedup([rule_of(rule)]) for shape, rule in SHAPES.items()}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_no_credential_field_stands_in_an_explanation(engines: dict[str, Dedup], name: bytes) -> None:
    for dedup in engines.values():
        told = dedup.explain(headers={name.decode(): f"x {SECRET} y"})
        assert occurrences(repr(told) + str(told)) == []


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_stands_in_an_explanation(engines: dict[str, Dedup], place: str) -> None:
    request = PLACES[place](SECRET)
    scope = make_scope(**{name: value for name, value in request.items() if name != "body"})
    for shape, dedup in engines.items():
        told = dedup.explain(request.get("method", "GET"), scope=scope, body=request.get("body", b""))
        assert occurrences(repr(told) + json.dumps(told.keyed) + json.dumps(told.left_out)) == [], shape


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    st.sampled_from(sorted(PLACES)),
    st.sampled_from(sorted(SHAPES)),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='&;#%"\\'), min_size=12),
)
def test_no_secret_of_any_letters_stands_in_a_key_or_an_explanation(
    place: str, shape: str, secret: str
) -> None:
    secret = f"Zq{secret}"
    request = PLACES[place](secret)
    scope = make_scope(**{name: value for name, value in request.items() if name != "body"})
    told = Dedup([rule_of(SHAPES[shape])]).explain(
        request.get("method", "GET"), scope=scope, body=request.get("body", b"")
    )
    shown = repr(told)
    assert secret not in shown
    assert secret.encode().hex() not in shown
    assert told.fingerprint is None or re.fullmatch("[0-9a-f]{32}", told.fingerprint)


def test_a_secret_counts_in_every_spelling_of_its_place() -> None:
    """Left out of the key, a wrong one would get the answer of the right one."""
    dedup = Dedup([rule_of({})], secret="one")
    for place, request in PLACES.items():
        keys = set()
        for secret in (SECRET, SECRET[:-1] + "W"):
            made = request(secret)
            scope = make_scope(**{name: value for name, value in made.items() if name != "body"})
            method = made.get("method", "GET")
            keys.add(dedup.explain(method, scope=scope, body=made.get("body", b"")).fingerprint)
        assert len(keys) == 2 or keys == {None}, place


# -- functions -------------------------------------------------------------------------------------------------------


@every_store
async def test_no_secret_of_a_function_stands_in_any_output(
    make_dedup: Make, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    out = Outputs(make_dedup, caplog, rule_of({}), store)
    dedup, gate = out.dedup, asyncio.Event()

    async def read() -> str:
        await gate.wait()
        return SECRET

    async def fails() -> str:
        await gate.wait()
        raise failure()

    @dedup.cached(ttl=60, tags=["user:{token}"])
    async def account(token: str) -> str:
        return token

    calls: list[Awaitable[str]] = [
        dedup.call(("user", SECRET, {"token": SECRET}), read, ttl=60, tags=[f"user:{SECRET}"])
        for _ in range(3)
    ]
    calls += [dedup.call((SECRET,), fails) for _ in range(3)]
    calls += [account(SECRET), account(SECRET)]
    waiting = asyncio.gather(*calls, return_exceptions=True)
    await settle()
    gate.set()
    for error in await waiting:
        if isinstance(error, BaseException) and not isinstance(error, WrongPasswordError):
            out.errors.append(error)
    assert await dedup.call(("user", SECRET, {"token": SECRET}), read) == SECRET
    await dedup.invalidate(f"user:{SECRET}")
    assert len(out.errors) == 2
    assert out.leaks() == {}


@pytest.mark.parametrize(
    "key", [User(SECRET), {1: SECRET}, [object(), SECRET]], ids=["object", "dict", "list"]
)
async def test_no_secret_stands_in_the_refusal_of_a_key(make_dedup: Make, key: object) -> None:
    dedup = make_dedup()

    async def read() -> None: ...

    @dedup.cached()
    async def account(database: object, token: object) -> None: ...

    refusals: list[Callable[[], Awaitable[None]]] = [
        lambda: dedup.call(key, read),
        lambda: account(object(), key),
    ]
    for refused in refusals:
        with pytest.raises(TypeError) as raised:
            await refused()
        assert occurrences(str(raised.value) + repr(raised.value)) == []


# -- configuration ---------------------------------------------------------------------------------------------------


def from_toml(text: str) -> Callable[[Path], object]:
    def make(folder: Path) -> object:
        file = folder / "dedup.toml"
        file.write_text(text)
        return Dedup.from_toml(file)

    return make


URL = f"redis://user:{SECRET}@cache:6379/0"
WRONG: dict[str, Callable[[Path], object]] = {
    "a secret that is none": lambda _: Dedup(secret=[SECRET]),  # type: ignore[arg-type] # that is the mistake
    "a store's URL": lambda _: Dedup(store=URL),
    "a store's URL with options": lambda _: Dedup(store=f"redis://cache?password={SECRET}"),
    "a memory store's URL with a user": lambda _: Dedup(store=f"memory://a:{SECRET}@b"),
    "records": lambda _: Dedup(records=URL),
    "a secret beside an engine": lambda _: DedupMiddleware(GatedApp(), dedup=Dedup(), secret=SECRET),
    "a wrong name": lambda _: DedupMiddleware(GatedApp(), secrets=SECRET),  # type: ignore[call-arg] # that is the mistake
    "a rule's wrong name": lambda _: Rule(token=SECRET),  # type: ignore[call-arg] # that is the mistake
    "TOML: a secret that is none": from_toml(f'secret = ["{SECRET}"]'),
    "TOML: a store": from_toml(f'store = "{URL}"'),
    "TOML: records": from_toml(f'records = "{URL}"'),
    "TOML: a rule's wrong name": from_toml(f'[[rule]]\nsecret = "{SECRET}"'),
    "TOML: an open end": from_toml(f'secret = "{SECRET}'),
    "TOML: no quotes": from_toml(f"secret = {SECRET}"),
    "a store's URL beside an engine": lambda _: DedupMiddleware(GatedApp(), dedup=Dedup(), store=URL),
    "records beside an engine": lambda _: DedupMiddleware(GatedApp(), dedup=Dedup(), records=URL),
    "a memory store's URL with a password": lambda _: Dedup(store=f"memory://?password={SECRET}"),
    "a store in a list": lambda _: Dedup(store=[URL]),  # type: ignore[arg-type] # that is the mistake
    "TOML: a store's table": from_toml(f'[store]\nurl = "{URL}"'),
    "TOML: records in a list": from_toml(f'records = ["{URL}"]'),
    "TOML: a wrong name": from_toml(f'secrets = "{SECRET}"'),
    "TOML: a wrong name's table": from_toml(f'[redis]\npassword = "{SECRET}"'),
    "a URL under a wrong name": lambda _: DedupMiddleware(GatedApp(), redis_url=URL),  # type: ignore[call-arg] # that is the mistake
}


@pytest.mark.parametrize("name", WRONG)
def test_no_secret_stands_in_a_configuration_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        WRONG[name](tmp_path)
    error = raised.value
    assert occurrences(str(error) + repr(error) + repr(error.args) + repr(vars(error))) == []
    assert occurrences(repr(error.__cause__) + repr(error.__context__)) == []


@pytest.mark.parametrize("name", ["referer", "x-original-url", "destination"])
def test_no_password_of_a_url_in_a_field_stands_in_an_explanation(name: str) -> None:
    told = Dedup().explain(headers={name: f"https://alice:{SECRET.replace('/', '')}@a.test/page"})
    assert SECRET.replace("/", "") not in repr(told)
