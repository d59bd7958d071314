"""What a write invalidates (RFC 9111 s.4.4; safe methods: RFC 9110 s.9.2.1)."""

from __future__ import annotations

from ..case import CAUTIOUS, RAISES, SHARED, Case, app, case, either, ok, store, through, wait
from .given import HOUR

METHODS = [
    case(
        f"invalidates-{method.lower()}",
        "9111 4.4",
        f"{method} {told}",
        "required",
        HOUR,
        app(),
        through(method=method, content="x" if method != "DELETE" else ""),
        app(of=3),
    )
    for method, told in (
        ("POST", "reaches the app, and invalidates its target"),
        ("PUT", "invalidates its target"),
        ("DELETE", "invalidates its target"),
        ("PATCH", "invalidates its target"),
        ("FROB", "is not known to be safe: it invalidates its target"),
        ("M-SEARCH", "is not known here either"),
    )
]

STATUSES = [
    case(
        f"invalidates-status-{status}",
        "9111 4.4",
        f"A {status} invalidates",
        "required",
        [HOUR, ok(status=status), HOUR],
        app(),
        through(method="POST"),
        app(of=3),
    )
    for status in (200, 201, 202, 204, 205, 299, 301, 302, 303, 307, 308, 399)
]

ERRORS = [
    case(
        f"invalidates-not-{status}",
        "9111 4.4",
        f"A {status} does not invalidate",
        "optional",
        [HOUR, ok(status=status), HOUR],
        app(),
        through(method="POST"),
        store(of=1),
    )
    for status in (400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 429, 499)
] + [
    case(
        f"invalidates-not-{status}",
        "9111 4.4",
        f"A {status} does not invalidate",
        "optional",
        [HOUR, ok(status=status), HOUR],
        app(),
        through(method=method),
        store(of=1),
        profiles=SHARED,
    )
    for status, method in ((500, "POST"), (502, "PUT"), (503, "DELETE"), (504, "M-SEARCH"), (599, "PATCH"))
]

DOUBT = [
    case(
        f"invalidates-{status}",
        "9111 4.4",
        f"A {status} invalidates too in the cautious profile: the app may have written before it failed",
        "supported",
        [HOUR, ok(status=status), HOUR],
        app(),
        through(method="POST"),
        app(of=3),
        profiles=CAUTIOUS,
    )
    for status in (500, 502, 503, 504)
]

SAFE = [
    case(
        f"safe-{method.lower()}",
        "9110 9.2.1",
        f"{method} is safe: it invalidates nothing",
        "required",
        [HOUR, ok(None, ("content-length", "0"), body="") if method == "HEAD" else ok(), HOUR],
        app(),
        *([through(method=method)] if method in ("OPTIONS", "TRACE") else [app(method=method, suffix="/b")]),
        store(of=1),
    )
    for method in ("OPTIONS", "TRACE", "GET", "QUERY")
]


REST = [
    case(
        "invalidates-queries",
        "9111 4.4",
        "A write to a path drops what is stored for it with any query",
        "supported",
        HOUR,
        app(suffix="?a=1"),
        app(suffix="?a=2"),
        through(method="PUT"),
        app(suffix="?a=1"),
        app(suffix="?a=2"),
    ),
    case(
        "location-get",
        "9111 4.4",
        "Location of a safe request invalidates nothing",
        "required",
        [HOUR, ok(None, ("location", "{here}/b"), status=302), HOUR],
        app(suffix="/b"),
        app(suffix="/a"),
        store(suffix="/b", of=1),
    ),
    case(
        "location-unknown",
        "9111 4.4",
        "An unknown method invalidates what Location names",
        "optional",
        [HOUR, ok(None, ("location", "{here}/b"), status=201), HOUR],
        app(suffix="/b"),
        through(method="FROB", suffix="/a"),
        app(suffix="/b", of=3),
    ),
    case(
        "location-both",
        "9111 4.4",
        "Target, Location and Content-Location are invalidated together",
        "optional",
        [
            HOUR,
            HOUR,
            HOUR,
            ok(None, ("location", "{here}/b"), ("content-location", "{here}/c"), status=201),
            HOUR,
        ],
        app(suffix="/a"),
        app(suffix="/b"),
        app(suffix="/c"),
        through(method="POST", suffix="/a"),
        app(suffix="/a"),
        app(suffix="/b"),
        app(suffix="/c"),
    ),
    case(
        "invalidates-others-not",
        "9111 4.4",
        "Other URIs stay",
        "required",
        HOUR,
        app(suffix="/a"),
        app(suffix="/ab"),
        through(method="POST", suffix="/a"),
        store(suffix="/ab", of=2),
    ),
    case(
        "invalidates-host-not",
        "9111 4.4",
        "The same path of another host stays",
        "required",
        HOUR,
        app(("host", "a.test")),
        app(("host", "b.test")),
        through(("host", "a.test"), method="POST"),
        store(("host", "b.test"), of=2),
        app(("host", "a.test")),
    ),
    case(
        "invalidates-variants",
        "9111 4.4",
        "All variants of the target go",
        "required",
        ok("max-age=3600", ("vary", "foo")),
        app(("foo", "1")),
        app(("foo", "2")),
        through(method="PUT"),
        app(("foo", "1"), of=4),
        app(("foo", "2"), of=5),
    ),
    case(
        "invalidates-stale",
        "9111 4.4",
        "A stale response is not made fresh by what was checked before the write",
        "supported",
        [ok("max-age=60", ("etag", '"a"')), ok(), ok("max-age=60", ("etag", '"b"'))],
        app(),
        wait(60),
        through(method="PUT"),
        either(of=3, ran=1),
    ),
    case(
        "invalidates-raises",
        "9111 4.4",
        "A write that ends in an exception invalidates: it may have been done",
        "supported",
        [HOUR, RAISES, HOUR],
        app(),
        either(method="POST", status=500, of=0, ran=1),
        app(of=3),
    ),
    case(
        "write-through",
        "9111 4",
        "An unsafe request is written through to the app, each time",
        "required",
        [HOUR, ok(body="done")],
        app(),
        through(method="POST", content="x", saw={"content-length": "1"}),
        through(method="POST", content="x"),
    ),
    case(
        "invalidates-206",
        "9111 4.4",
        "Ranges that are stored go with their URI",
        "required",
        [
            ok("max-age=3600", ("etag", '"a"'), ("content-range", "bytes 0-1/4"), status=206, body="ab"),
            ok(),
            ok("max-age=3600", ("etag", '"b"'), ("content-range", "bytes 0-1/4"), status=206, body="cd"),
        ],
        app(("range", "bytes=0-1")),
        through(method="PUT"),
        app(("range", "bytes=0-1"), of=3),
    ),
]

ROWS: list[Case] = [*METHODS, *STATUSES, *ERRORS, *DOUBT, *SAFE, *REST]
