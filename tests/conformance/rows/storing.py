"""What is stored, and under which key (RFC 9111 s.2, s.3, s.3.3)."""

from __future__ import annotations

from ..case import CAUTIOUS, SHARED, At, Case, app, broken, case, crowd, either, ok, store, through, wait
from .given import FRESH, HOUR

LONG_AGO = ("last-modified", At(-100_000))

KEYS = [
    case(
        "key-target",
        "9111 2",
        "The key holds the target URI: another path is another response",
        "required",
        ok(FRESH),
        app(suffix="/a"),
        app(suffix="/b"),
        store(suffix="/a", of=1),
        store(suffix="/b", of=2),
    ),
    case(
        "key-query",
        "9111 2",
        "Another query is another response",
        "required",
        ok(FRESH),
        app(suffix="?a=1"),
        app(suffix="?a=2"),
        app(),
        store(suffix="?a=1", of=1),
    ),
    case(
        "key-query-same",
        "9111 2",
        "A query does not keep a response from being reused",
        "optional",
        ok(FRESH),
        app(suffix="?a=1&b=2"),
        store(suffix="?a=1&b=2"),
    ),
    case(
        "key-query-empty",
        "9111 2",
        "An order of query parameters is part of the target: nothing is sorted",
        "required",
        ok(FRESH),
        app(suffix="?a=1&b=2"),
        app(suffix="?b=2&a=1"),
    ),
    case(
        "key-host",
        "9111 2",
        "Another host is another response",
        "required",
        ok(FRESH),
        app(("host", "a.test")),
        app(("host", "b.test")),
        store(("host", "a.test"), of=1),
    ),
    case(
        "key-nothing-else",
        "9111 4.1",
        "Without Vary no other request field selects a response",
        "optional",
        ok(FRESH),
        app(("accept", "text/html"), ("user-agent", "one"), ("x-any", "1")),
        store(("accept", "text/plain"), ("user-agent", "two"), ("x-any", "2")),
    ),
    case(
        "key-method",
        "9111 4",
        "A stored GET answers no method that it does not allow to",
        "required",
        ok(FRESH),
        app(),
        through(method="POST", content="x"),
    ),
]

STORING = [
    case(
        "surrogate-no-store",
        "9111 3",
        "no-store in Surrogate-Control is heeded, whatever Cache-Control says",
        "supported",
        ok(FRESH, ("surrogate-control", "no-store")),
        app(),
        app(),
    ),
    case(
        "stream",
        "9111 3",
        "A stream of events is not stored",
        "supported",
        ok(FRESH, ("content-type", "text/event-stream")),
        app(),
        app(),
    ),
    case(
        "nonce",
        "9111 3",
        "A response with a nonce in its Content-Security-Policy is not stored",
        "supported",
        ok(FRESH, ("content-security-policy", "script-src 'nonce-abc'")),
        app(),
        app(),
    ),
    case(
        "clear-site-data",
        "9111 3",
        "A response that acts on its client's own state is not shared",
        "supported",
        ok(FRESH, ("clear-site-data", '"cache"')),
        app(has={"clear-site-data": '"cache"'}),
        app(),
        profiles=CAUTIOUS,
    ),
    case(
        "key-app-sees",
        "9111 7.1",
        "The app sees the client's fields, to vary on them",
        "supported",
        HOUR,
        app(("accept", "text/html"), ("x-any", "1"), saw={"accept": "text/html", "x-any": "1"}),
        store(("accept", "text/plain")),
    ),
    *(
        case(
            f"poison-{field}",
            "9111 7.1",
            f"{field} may tell an app another host or path: it is part of the key",
            "supported",
            HOUR,
            app((field, "evil.test")),
            app(of=2),
            store(of=2),
            store((field, "evil.test"), of=1),
        )
        for field in ("x-forwarded-host", "x-forwarded-proto", "x-original-url", "x-http-method-override")
    ),
    case(
        "get-with-content",
        "9110 9.3.1",
        "A GET with content goes to the app by itself",
        "supported",
        HOUR,
        app(),
        through(content="x", saw={"content-length": "1"}),
        store(of=1),
    ),
    case(
        "repeat-at-once",
        "9111 4",
        "A response is there for a request that comes as soon as its last byte has gone out",
        "supported",
        ok(FRESH),
        app(at_once=True),
        either(of=1, ran=0, at_once=True),
        either(of=1, ran=0),
    ),
    case(
        "method-unknown",
        "9111 3",
        "A response to a method that is not understood is not stored",
        "required",
        ok(FRESH),
        through(method="FROB"),
        through(method="FROB"),
    ),
    *(
        case(
            f"method-{method.lower()}",
            "9111 3",
            f"A response to {method} is not stored without being asked for",
            "supported",
            ok(FRESH),
            through(method=method),
            through(method=method),
        )
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")
    ),
    case(
        "post-answers-no-get",
        "9111 4",
        "A response to POST does not answer a GET of the same URI",
        "required",
        ok(FRESH),
        through(method="POST", content="x"),
        app(),
    ),
    case(
        "nothing-said",
        "9111 3",
        "What says nothing of its freshness and has no validator is not reused",
        "required",
        ok(),
        app(),
        app(),
    ),
    case(
        "validator-alone",
        "9111 4.2",
        "A validator without freshness is no freshness: the app is asked each time",
        "required",
        ok(None, ("etag", '"a"')),
        app(),
        either(ran=1),
    ),
    case(
        "broken-body",
        "9111 3.3",
        "A response that breaks off is not stored as complete",
        "required",
        [ok(FRESH, trouble="breaks"), ok(FRESH)],
        broken(),
        app(),
        store(of=2),
    ),
    case(
        "no-store-follower",
        "9111 4",
        "A collapsed request does not get what must not be stored",
        "required",
        ok("no-store"),
        crowd(either(of=0), either(of=0), either(of=0), ran=3),
    ),
    case(
        "private-follower",
        "9111 4",
        "Nor what is private, where who asks is not told apart",
        "required",
        ok("private, max-age=60"),
        crowd(either(of=0), either(of=0), ran=2),
        profiles=SHARED,
    ),
]

NO_STORE = [
    case(
        f"no-store-{name}",
        "9111 5.2.2.5",
        f"no-store is not stored: {told}",
        "required",
        ok(None, *(("cache-control", line) for line in lines), LONG_AGO),
        app(),
        app(),
    )
    for name, told, lines in (
        ("alone", "by itself", ["no-store"]),
        ("case", "in any case", ["No-StOrE, max-age=3600"]),
        ("after", "after max-age", ["max-age=3600, no-store"]),
        ("before", "before max-age", ["no-store, max-age=3600"]),
        ("no-blank", "without a blank", ["max-age=3600,no-store"]),
        ("line-first", "in the first of two lines", ["no-store", "max-age=3600"]),
        ("line-last", "in the last of two lines", ["max-age=3600", "no-store"]),
        ("public", "beside public", ["public, no-store, s-maxage=3600"]),
        (
            "unknown",
            "beside directives that are not understood",
            ['x="no-cache", no-store, foo=1, max-age=3600'],
        ),
        ("empty-members", "among empty members", [", ,no-store,, max-age=3600"]),
    )
]

PRIVATE = [
    case(
        f"private-{name}",
        "9111 5.2.2.7",
        f"private is not stored by a shared cache: {told}",
        "required",
        ok(None, *(("cache-control", line) for line in lines), LONG_AGO),
        app(),
        app(),
        profiles=SHARED,
    )
    for name, told, lines in (
        ("alone", "by itself", ["private, max-age=3600"]),
        ("case", "in any case", ["PRIVATE, max-age=3600"]),
        ("line", "in a line of its own", ["max-age=3600", "private"]),
        ("public", "beside public", ["public, private, max-age=3600"]),
        ("s-maxage", "beside s-maxage", ["private, s-maxage=3600"]),
        ("heuristic", "without a lifetime", ["private"]),
    )
]

STATUSES = [
    case(
        f"status-{status}",
        "9111 3",
        f"A {status} with explicit freshness is stored and reused",
        "optional",
        ok(FRESH, status=status),
        app(),
        store(),
    )
    for status in (
        *(200, 201, 202, 203, 204, 299, 300, 301, 302, 303, 307, 308),
        *(400, 401, 402, 403, 404, 405, 406, 409, 410, 414, 418, 422, 429, 451, 499),
        *(500, 501, 502, 503, 504, 599),
    )
]

STALE = [
    case(
        f"status-{status}-stale",
        "9111 4.2",
        f"A {status} is not reused once it is stale",
        "required",
        ok("max-age=60", status=status),
        app(),
        wait(60),
        app(of=2),
    )
    for status in (200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599)
]

ROWS: list[Case] = [*KEYS, *STORING, *NO_STORE, *PRIVATE, *STATUSES, *STALE]
