"""Which fields are stored with a response, and which are not (RFC 9111 s.3.1; RFC 9110 s.7.6.1)."""

from __future__ import annotations

from ..case import Case, app, case, ok, store, wait
from .given import FRESH

KEPT = [
    case(
        f"field-{name.lower()}",
        "9111 3.1",
        f"{name} is stored unaltered",
        "required",
        ok(FRESH, *((name, value) for value in values)),
        app(has={name: values}),
        store(has={name: values}),
    )
    for name, values in {
        "Test-Header": ["a value,  with  blanks ;and=more"],
        "X-Test-Header": ["x"],
        "Content-Type": ["text/html; charset=utf-8"],
        "Content-Language": ["de, en"],
        "Content-Encoding": ["gzip"],
        "Content-Location": ["/elsewhere"],
        "Content-Disposition": ["attachment; filename=example.txt"],
        "Content-Security-Policy": ["default-src 'self'"],
        "Link": ["</a>; rel=preload", "</b>; rel=next"],
        "Via": ["1.1 one", "1.1 two"],
        "ETag": ['W/"weak"'],
        "Accept-Ranges": ["bytes"],
        "Strict-Transport-Security": ["max-age=1"],
        "X-Frame-Options": ["deny"],
        "Access-Control-Allow-Origin": ["*"],
        "Allow": ["GET, HEAD"],
        "Retry-After": ["120"],
        "Warning": ['110 - "Response is Stale"'],
        "Public-Key-Pins": ['pin-sha256="x"; max-age=1'],
        "Expires": ["Tue, 19 Jan 2038 03:14:07 GMT"],
        "Server": ["an app"],
    }.items()
]

DROPPED = [
    case(
        f"hop-{name.lower()}",
        "9111 3.1",
        f"{name} belongs to one connection: it is not stored, and the rest is",
        "required",
        ok(FRESH, (name, value), ("x-end", "1")),
        app(),
        store(lacks=(name,), has={"x-end": "1"}),
    )
    for name, value in {
        "Connection": "x-none",
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Proxy-Authentication-Info": "x=1",
        "Proxy-Authorization": "Basic eA==",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Trailer": "x-late",
        "Upgrade": "h2c",
    }.items()
]

CONNECTION = [
    case(
        "one-exchange",
        "9111 3.1",
        "Fields that tell of one exchange are not stored",
        "supported",
        ok(FRESH, ("x-request-id", "1"), ("server-timing", "db;dur=1"), ("x-end", "1")),
        app(has={"x-request-id": "1"}),
        store(lacks=("x-request-id", "server-timing"), has={"x-end": "1"}),
    ),
    case(
        "hop-listed",
        "9110 7.6.1",
        "Fields that Connection names are not stored, in any case and over several lines",
        "required",
        ok(
            FRESH,
            ("connection", "A, x-b"),
            ("connection", "C"),
            ("a", "1"),
            ("X-B", "2"),
            ("c", "3"),
            ("d", "4"),
        ),
        app(),
        store(lacks=("connection", "a", "x-b", "c"), has={"d": "4"}),
    ),
    case(
        "field-order",
        "9110 5.3",
        "Lines of one name keep their order, and are not merged",
        "required",
        ok(FRESH, ("x-a", "1"), ("x-b", "2"), ("x-a", "3")),
        app(has={"x-a": ["1", "3"]}),
        store(has={"x-a": ["1", "3"], "x-b": "2"}),
    ),
    case(
        "cache-control-kept",
        "9111 5.2",
        "Directives go on to the client as they came, understood or not",
        "required",
        ok('Max-Age=60, foo="b, c"', ("cache-control", "no-transform")),
        app(has={"cache-control": ['Max-Age=60, foo="b, c"', "no-transform"]}),
        store(has={"cache-control": ['Max-Age=60, foo="b, c"', "no-transform"]}),
    ),
    case(
        "body-kept",
        "9110 7.7",
        "The content comes back byte for byte",
        "required",
        ok(FRESH, body="".join(map(chr, range(256))) * 40),
        app(),
        store(body="".join(map(chr, range(256))) * 40),
    ),
    case(
        "body-empty",
        "9111 3",
        "An empty body is a body",
        "required",
        ok(FRESH, body=""),
        app(),
        store(body="", status=200),
    ),
    case(
        "content-encoding-kept",
        "9110 8.4",
        "An encoded body is neither decoded nor encoded again",
        "required",
        ok(FRESH, ("content-encoding", "gzip"), ("vary", "accept-encoding"), body="\x1f\x8b not really"),
        app(("accept-encoding", "gzip")),
        store(("accept-encoding", "gzip"), body="\x1f\x8b not really", has={"content-encoding": "gzip"}),
        app(),
    ),
    case(
        "no-transform",
        "9111 5.2.2.6",
        "no-transform changes nothing: no content is ever transformed",
        "required",
        ok("max-age=60, no-transform", ("content-type", "text/plain")),
        app(),
        store(has={"content-type": "text/plain"}),
        wait(60),
        app(),
    ),
]

ROWS: list[Case] = [*KEPT, *DROPPED, *CONNECTION]
