"""What a 304 from the store has, and what is no affair of a cache (RFC 9110 s.15.4.5, s.13)."""

from __future__ import annotations

import re

from ..case import At, Case, app, case, either, ok, store, through, wait
from .given import FRESH, HOUR, MODIFIED, tagged

A = '"a"'


NOT_MODIFIED = [
    case(
        f"304-has-{name.lower()}",
        "9110 15.4.5",
        f"A 304 from the store has {name}",
        "required",
        tagged(A, *([] if name in ("ETag", "Cache-Control") else [(name, value)])),
        app(),
        store(("if-none-match", A), status=304, has={name: value}),
    )
    for name, value in (
        ("ETag", A),
        ("Cache-Control", FRESH),
        ("Content-Location", "/there"),
        ("Date", At(0)),
        ("Expires", At(60)),
        ("Vary", "foo"),
    )
] + [
    case(
        "304-no-content",
        "9110 15.4.5",
        "A 304 from the store has neither content nor what describes it",
        "optional",
        tagged(A, ("content-type", "text/plain"), ("content-encoding", "gzip")),
        app(),
        store(("if-none-match", A), status=304, lacks=("content-length", "content-type", "content-encoding")),
    ),
    case(
        "304-age",
        "9111 4.3.2",
        "It says how old what is stored is",
        "required",
        tagged(),
        app(),
        wait(7),
        store(("if-none-match", A), status=304, has={"age": "7"}),
    ),
    case(
        "304-head",
        "9110 13.1.2",
        "A HEAD with a matching tag gets a 304 too",
        "optional",
        tagged(),
        app(),
        store(("if-none-match", A), method="HEAD", status=304),
    ),
    case(
        "304-on-miss",
        "9111 4.3.2",
        "A client's tag that matches what the app just gave gets a 304",
        "optional",
        tagged(),
        either(("if-none-match", A), status=304, ran=1, has={"etag": A}),
        store(of=1),
    ),
    case(
        "304-not-for-404",
        "9110 13.2.1",
        "A stored 404 is not judged by validators",
        "required",
        tagged(status=404),
        app(),
        store(("if-none-match", A), status=404),
    ),
    case(
        "304-not-for-301",
        "9110 13.2.1",
        "A stored redirect is not judged by validators",
        "required",
        tagged(status=301),
        app(),
        store(("if-none-match", A), status=301),
    ),
    case(
        "304-star-method",
        "9110 13.1.2",
        "The validators of an unsafe request are the app's own affair",
        "required",
        [tagged(), ok()],
        app(),
        through(("if-none-match", "*"), method="PUT", saw={"if-none-match": "*"}),
    ),
]

MATCH = [
    case(
        "if-match",
        "9111 4.3.2",
        "If-Match is not a cache's to judge: it goes to the app",
        "required",
        tagged(),
        app(),
        through(("if-match", A), saw={"if-match": A}),
    ),
    case(
        "if-match-post",
        "9110 13.1.1",
        "If-Match of an unsafe request goes to the app, and a 412 invalidates nothing",
        "required",
        [tagged(), ok(status=412)],
        app(),
        through(("if-match", '"b"'), method="PUT", saw={"if-match": '"b"'}),
        store(of=1),
    ),
    case(
        "if-unmodified-since",
        "9111 4.3.2",
        "If-Unmodified-Since is not a cache's to judge: it goes to the app",
        "required",
        ok(FRESH, MODIFIED),
        app(),
        through(("if-unmodified-since", At(-1)), saw={"if-unmodified-since": At(-1)}),
    ),
]

ADDED = [
    case(
        "add-etag",
        "9110 8.8.3",
        "add_etag gives a stored response without a tag a strong one, of its content",
        "supported",
        HOUR,
        app(),
        store(has={"etag": re.compile('"[!-~]+"')}),
        store(("if-none-match", "*"), status=304, has={"etag": re.compile('"[!-~]+"')}),
        rule={"add_etag": True},
    ),
    case(
        "add-etag-off",
        "9110 8.8.3",
        "Nobody is given a tag unasked",
        "supported",
        HOUR,
        app(lacks=("etag",)),
        store(lacks=("etag",)),
    ),
    case(
        "add-etag-kept",
        "9110 8.8.3",
        "add_etag leaves the app's own tag",
        "supported",
        tagged('W/"a"'),
        app(has={"etag": 'W/"a"'}),
        store(has={"etag": 'W/"a"'}),
        rule={"add_etag": True},
    ),
]

ROWS: list[Case] = [*NOT_MODIFIED, *MATCH, *ADDED]
