"""Cache poisoning and cache deception: the known vectors against an app that believes and reflects everything.

The attacker's request meets the victim's, at once and in turn, under every shape of a rule: the victim gets what the
bare app would have given it. Three oaths open something, each exactly what it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pytest

from dedup_middleware import DedupMiddleware, Rule, forward
from dedup_middleware.core import reading
from dedup_middleware.core.fingerprint import Fingerprinter
from dedup_middleware.core.names import ADDRESS_FIELDS, NOISE, OVERRIDES, is_credential

from .kit import call, get, make_scope, settle
from .leak_kit import (
    FORM,
    SHAPES,
    STORES,
    Bench,
    Make,
    Mirror,
    Pair,
    Pairs,
    Request,
    is_sworn,
    reflection,
    rule_of,
    whole_caller,
)

pytestmark = pytest.mark.slow

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_store = pytest.mark.parametrize("store", STORES)

# -- the vectors -----------------------------------------------------------------------------------------------------

REFLECTED: dict[str, str] = {
    # what names another host
    "evil.test": "x-forwarded-host x-host x-forwarded-server x-http-host-override x-original-host x-backend-host "
    "x-proxy-host x-forwarded-host-original x-real-host x-gateway-host x-remote-host forwarded-host "
    "x-envoy-original-host x-arr-original-host x-host-override host-override x-amz-website-redirect-location "
    "x-wap-profile x-http-destinationurl destination x-base-url base-url x-backend proxy-host request-uri",
    # the scheme, the port, the prefix
    "https": "x-forwarded-proto x-forwarded-scheme x-forwarded-protocol x-forwarded-ssl x-url-scheme front-end-https "
    "x-arr-ssl x-scheme cloudfront-forwarded-proto x-forwarded-https x-appengine-https x-client-scheme "
    "fastly-ssl x-edge-scheme",
    "1337": "x-forwarded-port x-original-port cloudfront-viewer-address x-port",
    "/evil": "x-forwarded-prefix x-forwarded-path x-script-name x-forwarded-uri x-original-uri x-original-url "
    "x-rewrite-url x-rewrite-uri x-envoy-original-path x-forwarded-url x-override-url x-request-uri x-original-path "
    "x-replaced-path x-custom-url x-accel-redirect x-sendfile x-lighttpd-send-file",
    # the method
    "DELETE": "x-http-method-override x-http-method x-method-override x-method x-original-method x-forwarded-method "
    "_method access-control-request-method",
    # where somebody is
    "10.6.6.6": "x-forwarded-for forwarded true-client-ip cf-connecting-ip fastly-client-ip x-real-ip x-client-ip "
    "x-cluster-client-ip x-azure-clientip x-originating-ip client-ip x-appengine-user-ip x-envoy-external-address "
    "akamai-client-ip x-akamai-edgescape x-forwarded-by via",
    "zz": "cf-ipcountry cf-ray cf-visitor cf-worker cdn-loop cloudfront-viewer-country cloudfront-is-mobile-viewer "
    "x-vercel-ip-country x-appengine-country fastly-ff fastly-debug fastly-soc-x-force x-akamai-config-log-detail "
    "akamai-origin-hop akamai-debug pragma surrogate-capability x-amz-cf-pop x-amz-server-side-encryption "
    "x-amz-date x-amz-target x-amz-meta-x x-edge-location x-varnish x-cache-hash x-cache-key x-cdn x-fb-http-engine",
    # what an app reflects
    "<script>": "origin referer user-agent accept accept-language accept-charset accept-encoding accept-datetime "
    "x-wanted x-unwanted from save-data dnt priority x-requested-with x-pingback timing-allow-origin te trailer "
    "max-forwards x-forwarded expect upgrade-insecure-requests sec-ch-ua sec-fetch-dest sec-fetch-mode baggage warning",
    # what makes another kind of response of it
    "1": "x-middleware-prefetch x-middleware-subrequest x-nextjs-data x-now-route-matches x-invoke-status rsc "
    "next-router-prefetch x-inertia hx-request turbo-frame purpose sec-purpose x-debug x-preview x-esi "
    "x-no-cache cache-control if-range range request-range x-range",
    # who somebody is
    "admin": "authorization proxy-authorization cookie x-api-key x-user-id x-forwarded-user x-remote-user remote-user "
    "x-auth-token x-role x-tenant-id x-amz-security-token x-amzn-oidc-data cf-access-jwt-assertion "
    "x-ms-client-principal x-original-user x-csrf-token x-forwarded-client-cert",
}  # fmt: skip
"""By value: the fields that the literature, and what it found since, know as unkeyed inputs."""

PAGE = "/page?q=1"
VICTIM = ATTACKER = 1
"""Which of a pair: the one who comes second."""


def attack(*pairs: tuple[bytes, bytes], raw: str = PAGE, **more: Any) -> Request:
    """The attacker's request; `raw` is the target as it stands in the request line."""
    path = raw.partition("?")[0]
    return {"target": raw, "path": unquote(path), "raw_path": path.encode(), "headers": pairs, **more}


FIELDS: dict[str, Request] = {
    name: attack((name.encode(), value.encode()))
    for value, listed in REFLECTED.items()
    for name in listed.split()
}
TRICKS: dict[str, Request] = {
    # the host and what stands for it
    "host: another": attack((b"host", b"evil.test")),
    "host: an unkeyed port": attack((b"host", b"example.test:1337")),
    "host: a port that is none": attack((b"host", b'example.test:1"><script>')),
    "host: its case": attack((b"host", b"EXAMPLE.test")),
    "host: a trailing dot": attack((b"host", b"example.test.")),
    "host: user information": attack((b"host", b"evil@example.test")),
    "host: twice": attack((b"host", b"example.test"), (b"host", b"evil.test")),
    "host: none": attack((b"host", b"")),
    "host: a path in it": attack((b"host", b"example.test/evil")),
    "absolute form": attack(raw="http://evil.test/page?q=1"),
    "scheme": attack(scheme="https"),
    "root_path": attack(root_path="/evil"),
    "http_version": attack(http_version="1.0"),
    # the same field again, in other letters
    "two lines of a field": attack((b"x-forwarded-host", b"example.test"), (b"x-forwarded-host", b"evil.test")),
    "letters of a field": attack((b"X-Forwarded-Host", b"evil.test")),
    "underscores in a field": attack((b"x_forwarded_host", b"evil.test")),
    "two fields together": attack((b"x-forwarded-scheme", b"http"), (b"x-forwarded-host", b"evil.test")),
    "forwarded, in its grammar": attack((b"forwarded", b'host="evil.test";proto=https')),
    # hop by hop
    "connection: cookie": attack((b"connection", b"close, cookie")),
    "connection: authorization": attack((b"connection", b"close, authorization")),
    "connection: x-forwarded-for": attack((b"connection", b"close, X-Forwarded-For"), (b"x-forwarded-for", b"1")),
    "connection: host": attack((b"connection", b"host")),
    "connection: what is noise": attack((b"connection", b"x-request-id"), (b"x-request-id", b"evil")),
    "te: trailers": attack((b"te", b"trailers"), (b"connection", b"te")),
    "upgrade: h2c": attack((b"connection", b"upgrade, http2-settings"), (b"upgrade", b"h2c")),
    # noise that is none
    "x-request-id: a script": attack((b"x-request-id", b"<script>")),
    "traceparent: a script": attack((b"traceparent", b"00-<script>-01")),
    "x-correlation-id: too long": attack((b"x-correlation-id", b"a" * 129)),
    "tracestate: a line feed": attack((b"tracestate", b"a=1\n<script>")),
    "x-amz-cf-id: a quote": attack((b"x-amz-cf-id", b'"><script>')),
    # denial of service by a poisoned error (CPDoS)
    "an oversize field (HHO)": attack((b"x-oversized", b"a" * 9000)),
    "many fields (HHO)": attack(*((b"x-%d" % number, b"a" * 60) for number in range(200))),
    "too many fields (HHO)": attack(*((b"x-%d" % number, b"a" * 60) for number in range(300))),
    "an oversize cookie (HHO)": attack((b"cookie", b"a=" + b"a" * 9000)),
    "a bell in a field (HMC)": attack((b"x-meta", b"a\x07b")),
    "a line feed in a field (HMC)": attack((b"x-meta", b"a\nset-cookie: sid=1")),
    "a NUL in a field (HMC)": attack((b"x-meta", b"\x00")),
    "a wrong name of a field (HMC)": attack((b"x\\meta[]", b"\x07")),
    "a bell in user-agent (HMC)": attack((b"user-agent", b"\x07")),
    "a method that does not exist (HMO)": attack((b"x-http-method-override", b"HELP")),
    "a method that writes (HMO)": attack((b"x-http-method-override", b"POST")),
    "range: not satisfiable": attack((b"range", b"bytes=999999-")),
    "range: many": attack((b"range", b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(100)))),
    "range: not bytes": attack((b"range", b"cow=0-")),
    "if-range: with range": attack((b"range", b"bytes=0-0"), (b"if-range", b'"x"')),
    "expect: nonsense": attack((b"expect", b"200-evil")),
    "accept-encoding: nothing": attack((b"accept-encoding", b"identity;q=0, *;q=0")),
    "content-type of a GET": attack((b"content-type", b"invalid")),
    "content-encoding of a GET": attack((b"content-encoding", b"bomb")),
    "transfer-encoding": attack((b"transfer-encoding", b"chunked")),
    "content-length: none": attack((b"content-length", b"0")),
    # fat requests
    "a fat GET": attack((b"content-length", b"6"), FORM, body=b"q=evil"),
    "a fat GET, chunked": attack((b"transfer-encoding", b"chunked"), FORM, body=b"q=evil"),
    "a fat GET in HTTP/2": attack(FORM, body=b"q=evil", http_version="2"),
    "a fat GET that overrides": attack(
        (b"content-length", b"6"), (b"x-http-method-override", b"POST"), FORM, body=b"q=evil"
    ),
    "a fat HEAD": attack((b"content-length", b"6"), FORM, body=b"q=evil", method="HEAD"),
    "a QUERY": attack(FORM, body=b"q=evil", method="QUERY"),
    "a QUERY without a body": attack(method="QUERY"),
    "OPTIONS": attack(method="OPTIONS"),
    "TRACE": attack((b"max-forwards", b"0"), method="TRACE"),
    # the query
    "query: another order": attack(raw="/page?x=1&q=1"),
    "query: one more": attack(raw="/page?q=1&cb=evil"),
    "query: a name twice": attack(raw="/page?q=1&q=evil"),
    "query: twice, the other way round": attack(raw="/page?q=evil&q=1"),
    "query: cloaked by a semicolon": attack(raw="/page?q=1;q=evil"),
    "query: cloaked behind a campaign": attack(raw="/page?utm_content=1;q=evil&q=1"),
    "query: cloaked, encoded": attack(raw="/page?q=1&utm_content=x%26q=evil;q=evil"),
    "query: cloaked by an encoded semicolon in a name": attack(raw="/page?q=1&a%3Bq=evil"),
    "query: JSONP": attack(raw="/page?q=1&callback=evil"),
    "query: an encoded ampersand": attack(raw="/page?q=1%26x=evil"),
    "query: an encoded name": attack(raw="/page?%71=1"),
    "query: the case of a name": attack(raw="/page?Q=1"),
    "query: a bracket": attack(raw="/page?q[]=1"),
    "query: an empty pair": attack(raw="/page?q=1&"),
    "query: a second question mark": attack(raw="/page??q=1"),
    "query: plus": attack(raw="/page?q=+1"),
    "query: a NUL": attack(raw="/page?q=1%00"),
    "query: a line feed": attack(raw="/page?q=1%0d%0aset-cookie:x"),
    "query: a control character": attack(raw="/page?q=1", query_string=b"q=1\x1e"),
    "query: a fragment": attack(raw="/page?q=1#x"),
    # the normalisation of a path
    **{
        f"path: {raw}": attack(raw=raw + "?q=1")
        for raw in (
            "/page/ /page/. /page/./ /./page //page /page// /x/../page /x/%2e%2e/page /x/..;/page /x/..%2fpage "
            "/%2e/page /page%2f /page%5c /page\\ /page%00 /page%00.css /page%0a /page%20 /page. /page; /page;x=1 "
            "/page;.css /page.css /page/x.css /page%23 /page%3f /page%3fq=1 /PAGE /p%61ge /pag%65 /page%252f "
            "/page%09 /%70age /page~ /page,x /page/%2e%2e%2fpage /page%c0%af /page/..%5cpage"
        ).split(" ")
    },
    "path: its NUL is only in the raw one": attack(raw_path=b"/page\x00"),
    "path: another raw one": attack(raw_path=b"/evil"),
    "path: no raw one": attack(raw_path=None, path="/page/"),
}  # fmt: skip
WRITES: dict[str, Request] = {
    "a POST": attack((b"content-length", b"6"), FORM, body=b"q=evil", method="POST"),
    "a PUT": attack((b"content-length", b"4"), body=b"evil", method="PUT"),
    "a PURGE": attack(method="PURGE"),
    "a method in small letters": attack(method="post", body=b"evil"),
    "a GET in small letters": attack(method="get"),
}
"""They close all flights of their caller, and so have a bench of their own."""
VECTORS = {**FIELDS, **TRICKS}

CLEAN: Request = attack()
BROWSER: Request = attack(
    (b"host", b"example.test"),
    (b"user-agent", b"Mozilla/5.0"),
    (b"accept", b"text/html"),
    (b"accept-language", b"de"),
    (b"accept-encoding", b"gzip, br"),
    (b"cookie", b"sid=victim; _ga=GA1.2"),
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-request-id", b"r-1"),
    (b"sec-fetch-dest", b"document"),
)


def on_top(request: Request, victim: Request) -> Request:
    """The attacker's request as the victim would have sent it, and the attacker's fields."""
    named = {name.lower() for name, _ in request["headers"]}
    kept = [pair for pair in victim["headers"] if pair[0] != b"host" or b"host" not in named]
    return {**request, "headers": [*kept, *request["headers"]]}


def pairs(victim: Request, vectors: Mapping[str, Request] = VECTORS) -> dict[str, Pair]:
    return {name: (on_top(request, victim), victim) for name, request in vectors.items()}


_key_below = Fingerprinter.key_below


def unkeyed_query(self: Fingerprinter, prefix: bytes, scope: Any, body: bytes | None, *_read: object) -> Any:
    """A broken key, which leaves the query out."""
    return _key_below(self, prefix, {**scope, "query_string": b""}, body)


class Naive(Mirror):
    """It reflects what it sees, drops what Connection names, and breaks where real ones break; all of it public.

    Of the client's address it reflects what proxies say, so that its answer to a clean request is the same under
    every rule.
    """

    def reflect(self, scope: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        fields: Pairs = [
            (name.lower(), value)
            for name, value in scope["headers"]
            if not any(is_sworn(name.lower(), pattern) for pattern in self.sworn)
        ]
        dropped = {
            token.strip().lower()
            for name, value in fields
            if name == b"connection"
            for token in value.split(b",")
        }
        page = reflection(
            {**scope, "client": None, "headers": [pair for pair in fields if pair[0] not in dropped]}, body
        )
        return self.status(fields), page

    @staticmethod
    def status(fields: Pairs) -> int:
        if sum(len(name) + len(value) for name, value in fields) > 8192:
            return 404  # a server's 431 that a framework made a "not found" of
        if any(byte < 0x20 for _, value in fields for byte in value):
            return 503
        if any(name.endswith((b"override", b"-method")) for name, _ in fields):
            return 410
        return 416 if (b"range", b"bytes=999999-") in fields else 200


def bench(
    make_dedup: Make, victim: Request, store: str = STORES[0], tells: bool | None = None, **rule: Any
) -> Bench:
    made = rule_of(rule, negative_ttl=60)
    return Bench(
        make_dedup, made, pairs(victim), store=store, mirror=lambda: Naive(sworn=made.ignore), tells=tells
    )


def test_the_vectors_are_the_known_ones_and_more() -> None:
    assert len(VECTORS) >= 200
    assert {name.decode() for name in OVERRIDES} <= set(FIELDS)
    for name, request in VECTORS.items():
        assert repr(make_scope(**_without_body(request))) != repr(make_scope(**CLEAN)) or request.get(
            "body"
        ), name


def _without_body(request: Request) -> Request:
    return {name: value for name, value in request.items() if name != "body"}


NEVER_KEPT = {"range: not satisfiable", "a wrong name of a field (HMC)", "too many fields (HHO)"}
"""A 416 is not stored; what a Vary says that is no list of names, or too long a one, is not shared."""


@every_shape
@every_store
async def test_no_vector_poisons_a_clean_request(make_dedup: Make, shape: str, store: str) -> None:
    here = bench(make_dedup, CLEAN, store, **SHAPES[shape])
    assert await here.wronged(victims=[VICTIM], bare=True) == set()
    assert here.missed <= NEVER_KEPT, "its own answer was kept for it"


@pytest.mark.parametrize("shape", ["vary []", "credentials, origin"])
async def test_no_vector_poisons_a_browsers_request(make_dedup: Make, shape: str) -> None:
    assert await bench(make_dedup, BROWSER, **SHAPES[shape]).wronged(victims=[VICTIM]) == set()


@pytest.mark.parametrize("name", WRITES)
@every_shape
async def test_no_write_poisons_a_clean_request(make_dedup: Make, name: str, shape: str) -> None:
    rule = rule_of(SHAPES[shape], negative_ttl=60)
    here = Bench(
        make_dedup, rule, pairs(CLEAN, {name: WRITES[name]}), mirror=lambda: Naive(sworn=rule.ignore)
    )
    assert await here.wronged(victims=[VICTIM], bare=True) == set()


@every_store
async def test_switched_off_no_vector_meets_anybody(make_dedup: Make, store: str) -> None:
    naive = Naive()
    dedup = make_dedup(rule_of(SHAPES["shared, vary []"]), enabled=False, store=store)
    app = DedupMiddleware(naive, dedup=dedup)
    calls = [call(app, **request) for pair in pairs(CLEAN).values() for request in pair]
    await settle()
    naive.gate.set()
    clean = (await get(Naive(opened=True), **CLEAN)).body
    assert [(await one.done()).body == clean for one in calls[1::2]] == [True] * len(VECTORS)
    assert naive.runs == len(calls)


# -- what an oath opens, and nothing more ----------------------------------------------------------------------------


def named(*lists: Callable[[bytes], bool]) -> set[str]:
    """The vectors of one field that one of the lists holds."""
    return {name for name in FIELDS if any(holds(name.encode()) for holds in lists)}


def who_asks(name: bytes) -> bool:
    return is_credential(name.decode()) or name in ADDRESS_FIELDS


ALWAYS_KEYED = {"range", "if-range", "cache-control", "pragma"}
"""Never left out, and reload directives that are none."""
HOP_BY_HOP = {"connection: authorization", "connection: cookie", "connection: host", "te: trailers"}
CPDOS = {
    "a NUL in a field (HMC)",
    "a bell in a field (HMC)",
    "a bell in user-agent (HMC)",
    "a line feed in a field (HMC)",
    "a wrong name of a field (HMC)",
    "an oversize field (HHO)",
    "many fields (HHO)",
}


@pytest.mark.parametrize(
    "shape", ["vary origin", "credentials, origin", "shared, origin", "a function, origin"]
)
async def test_an_app_that_tells_no_vary_opens_its_fields_and_nothing_more(
    make_dedup: Make, shape: str
) -> None:
    """`vary="origin"` trusts the app; never for who asks, another host, scheme, path or method, nor the target."""
    opened = set(FIELDS) - named(who_asks, OVERRIDES.__contains__, lambda name: b"_" in name) - ALWAYS_KEYED
    opened |= HOP_BY_HOP | CPDOS | {"accept-encoding: nothing", "expect: nonsense"}
    if SHAPES[shape].get("identity", "separate") not in ("separate", whole_caller):
        opened |= {"connection: x-forwarded-for"}  # the address that it names is hidden, it is not
    assert await bench(make_dedup, CLEAN, tells=False, **SHAPES[shape]).wronged(victims=[VICTIM]) == opened


OATHS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "one field": ({"ignore": ["header:x-wanted"]}, {"x-wanted"}),
    "a pattern of fields": (
        {"ignore": ["header:x-forwarded-*"], "vary": []},
        {name for name in FIELDS if name.startswith("x-forwarded-")} - named(who_asks)
        | {"two lines of a field", "letters of a field", "two fields together"},
    ),
    "a field of the query": ({"ignore": ["query:callback"]}, {"query: JSONP"}),
    "campaigns": ({"ignore": ["query:utm_*"]}, set()),
    "a function that tells nobody apart": (
        {"identity": lambda scope: "everybody"},
        named(who_asks) - {"forwarded"} | {"an oversize cookie (HHO)"},  # which may say a host and a scheme, too
    ),
}  # fmt: skip


@pytest.mark.parametrize("oath", OATHS)
async def test_an_oath_opens_what_it_names_and_nothing_more(make_dedup: Make, oath: str) -> None:
    """`ignore` and an identity function, sworn for an app of which it is not true."""
    rule, opened = OATHS[oath]
    here = Bench(make_dedup, rule_of(rule, negative_ttl=60), pairs(CLEAN), mirror=Naive)
    assert await here.wronged(victims=[VICTIM]) == opened


class Reveals(Naive):
    """It reflects noise too, which the mirror leaves out."""

    def reflect(self, scope: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        return 200, repr(scope["headers"]).encode()


@pytest.mark.parametrize("shape", ["nothing said", "vary []", "shared, vary []"])
async def test_noise_opens_its_own_grammar_and_nothing_more(make_dedup: Make, shape: str) -> None:
    """docs/security.md: the app sees the noise of the request that led; in it there is no room for an attack."""
    vectors = {
        f"{name.decode()}: {value!r}": attack((name, value))
        for name in NOISE
        for value in (
            b"evil-1",
            b"<script>",
            b"evil.test/x",
            b"a\r\nset-cookie: x",
            b'"',
            b"\x00",
            b"'",
            b"%0a",
            b"$(x)",
        )
    }
    here = Bench(make_dedup, rule_of(SHAPES[shape]), pairs(CLEAN, vectors), mirror=Reveals)
    ids = "x-request-id request-id x-correlation-id correlation-id x-trace-id x-amz-cf-id".split()
    assert await here.wronged(victims=[VICTIM]) == {f"{name}: {b'evil-1'!r}" for name in ids}


# -- cache deception -------------------------------------------------------------------------------------------------

DECEPTIONS = (
    "/account /account/x.css /account/x.js /account/static/x.css /account;x.css /account;.css /account;a=/static/x.css "
    "/account%3bx.css /account%00.css /account%00x.css /account%0a.css /account%0d%0ax.css /account%09.css "
    "/account%20.css /account%23.css /account%23/static/x.css /account%3f.css /account%3fx=/x.css /account.css "
    "/account. /account.. /account/. /account/.. /account/%2e /account%2ecss /account%2f.css /account%2fx.css "
    "/account%5cx.css /account\\x.css /account%252fx.css /account%25%32%66x.css /account%c0%afx.css "
    "/static/../account /static/%2e%2e/account /static/..%2faccount /static/%2e%2e%2faccount /static/..%5caccount "
    "/static/..;/account /static/..;x=1/account /static/.%2e/account /static/%252e%252e/account "
    "/static/%252e%252e%252faccount /static//../account /static/x/../../account /static/x/%2e%2e/%2e%2e/account "
    "/static/..%00/account /static/%2e%2e%00/account /static/..%0a/account /static\\..\\account //account "
    "/./account /%2e/account /account//x.css /static/%2e%2e;/account /ACCOUNT/x.css /%61ccount/x.css "
    "/account/%2e%2e/static/x.css /account/..%2fstatic/x.css /account/..%252fstatic/x.css /account?x.css "
    "/account/?/x.css /account!x.css /account,x.css /account@x.css /account~.css /account$.css /account:x.css "
    "/account/x.css?v=1 /account/x.avif /account/x.woff2 /account/favicon.ico /account/robots.txt /account%E2%80%AE.css"
).split(" ")
SECRETS: Pairs = [(b"cookie", b"sid=victim"), (b"authorization", b"Bearer victim"), (b"x-user-id", b"victim")]


def readings(path: str) -> Iterator[str]:
    """Every way in which a careless router may read a path."""
    for _ in range(3):
        yield path
        for end in "\x00\n\r\t ;#?.,!@~$:\u202e%":
            yield path.partition(end)[0]
        plain: list[str] = []
        for segment in path.replace("\\", "/").split("/"):
            name = segment.partition(";")[0].strip("\x00\n")
            if name == "..":
                plain[-1:] = []
            elif name not in ("", "."):
                plain.append(name)
        yield "/" + "/".join(plain)
        path = unquote(path)


class Account(Mirror):
    """An app that shows the caller's account wherever some reading of the path leads there, and calls it public."""

    def reflect(self, scope: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        below = "/" + (scope["raw_path"] or b"").decode("latin-1").partition("/")[2].partition("/")[2]
        if any(reading.lower().startswith("/account") for reading in readings(below)):
            return 200, b"account of " + repr([pair for pair in scope["headers"] if pair in SECRETS]).encode()
        return 200, b"a static page"


@every_shape
@every_store
async def test_no_path_makes_somebody_elses_account_public(make_dedup: Make, shape: str, store: str) -> None:
    """Web cache deception: the victim is led to the attacker's link, and the attacker asks for it."""
    static = Rule("/{place}/static/{rest:path}", ttl=60, identity="shared", vary=[])
    asked: dict[str, Pair] = {}
    for raw in DECEPTIONS:
        asked[raw] = attack(*SECRETS, raw=raw), attack(raw=raw)
        asked[f"{raw}, plainly"] = (
            attack(*SECRETS, raw=raw),
            attack((b"cookie", b"sid=mallory"), raw="/account"),
        )
    shown = Bench(make_dedup, rule_of(SHAPES[shape]), asked, store=store, mirror=Account, before=[static])
    assert await shown.wronged(victims=[ATTACKER]) == set()
    assert not any(b"victim" in body for _, body in (await shown.alone(ATTACKER)).values())


def test_every_deception_leads_to_the_account() -> None:
    """Or the test above would show nothing."""
    lost = [
        raw
        for raw in DECEPTIONS
        if not any(reading.lower().startswith("/account") for reading in readings(raw.partition("?")[0]))
    ]
    assert lost == []


# -- the suite itself ------------------------------------------------------------------------------------------------

MUTANTS: dict[str, tuple[Any, str, Any, str, str]] = {
    "the app sees what the key leaves out": (
        forward, "visible", lambda _, scope, *_read: dict(scope), "vary []", "x-forwarded-host",
    ),
    "and who asks, where all are one": (
        forward, "visible", lambda _, scope, *_read: dict(scope), "shared, vary []", "authorization",
    ),
    "a Vary is not heard": (
        Fingerprinter, "unkeyed", lambda self, names: frozenset(), "vary origin", "accept-language",
    ),
    "variants are one": (
        Fingerprinter, "variant", lambda self, key, names, headers: key, "vary origin", "user-agent",
    ),
    "everything is noise": (
        reading, "NOISE", dict.fromkeys(NOISE, re.compile(rb"(?s).*")), "nothing said", "x-request-id: a script",
    ),
    "no target is ambiguous, and the query is not keyed": (
        Fingerprinter, "key_below", unkeyed_query, "nothing said", "query: one more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_broken_engine_is_poisoned(
    make_dedup: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A suite that can't fail shows nothing."""
    place, attribute, broken, shape, vector = MUTANTS[name]
    monkeypatch.setattr(place, attribute, broken)
    assert vector in await bench(make_dedup, CLEAN, **SHAPES[shape]).wronged(victims=[VICTIM])
