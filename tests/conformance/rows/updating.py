"""What a 304 changes of the stored fields (RFC 9111 s.3.2)."""

from __future__ import annotations

from typing import Any

from ..case import At, Case, Level, Reply, app, case, check, not_modified, ok, store, wait
from .given import MODIFIED, NOW, SHORT, TAG

# What a 304 replaces: every field that it has, but those that belong to a connection or to the content.
CHANGED = {
    "Test-Header": ("one", "two"),
    "X-Test-Header": ("one", "two"),
    "Content-Foo": ("one", "two"),
    "X-Content-Foo": ("one", "two"),
    "Content-Type": ("text/plain", "text/plain; charset=utf-8"),
    "Content-Language": ("de", "en"),
    "Content-Location": ("/foo", "/bar"),
    "Content-Security-Policy": ("default-src 'self'", "default-src 'none'"),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": ("1", "1; mode=block"),
    "Link": ("</a>; rel=next", "</b>; rel=next"),
    "Public-Key-Pins": ("one", "two"),
}

UPDATED = [
    case(
        f"304-updates-{kind}-{name.lower()}",
        "9111 3.2",
        f"A 304 for {'a tag' if kind == 'etag' else 'a date'} updates {name}, for the client and in the store",
        "required",
        [
            ok("max-age=60", validator, (name, one), ("x-stays", "here")),
            not_modified("max-age=3600", validator, (name, two)),
        ],
        app(has={name: one}),
        wait(60),
        check(has={name: two, "x-stays": "here", "cache-control": "max-age=3600"}),
        wait(3599),
        store(has={name: two, "x-stays": "here"}),
    )
    for kind, validator in (("etag", TAG), ("date", MODIFIED))
    for name, (one, two) in CHANGED.items()
]


def updates(
    name: str, sentence: str, stored: Reply, came: Reply, level: Level = "required", **wanted: Any
) -> Case:
    """What the stored fields are after this 304."""
    return case(
        name,
        "9111 3.2",
        sentence,
        level,
        [stored, came],
        app(),
        wait(60),
        check(of=1, **wanted),
        store(of=1, **wanted),
    )


UPDATES = [
    updates(
        "304-length",
        "A 304 does not change Content-Length",
        SHORT,
        not_modified("max-age=60", TAG, ("content-length", "3")),
        has={},
    ),
    updates(
        "304-connection",
        "A 304's fields of one connection are not stored",
        ok("max-age=60", TAG),
        not_modified(
            "max-age=60",
            TAG,
            ("keep-alive", "timeout=5"),
            ("connection", "x-one"),
            ("x-one", "1"),
            ("x-two", "2"),
        ),
        lacks=("keep-alive", "connection", "x-one"),
        has={"x-two": "2"},
    ),
    updates(
        "304-lines",
        "All lines of a field are replaced by those of the 304",
        ok("max-age=60", TAG, ("x-a", "1"), ("x-a", "2")),
        not_modified("max-age=60", TAG, ("x-a", "3"), ("x-a", "4")),
        has={"x-a": ["3", "4"]},
    ),
    updates(
        "304-fewer-lines",
        "A field of several lines is replaced by one of fewer",
        ok("max-age=60", TAG, ("x-a", "1"), ("x-a", "2")),
        not_modified("max-age=60", TAG, ("x-a", "3")),
        has={"x-a": "3"},
    ),
    updates(
        "304-adds",
        "A field that is new is added",
        SHORT,
        not_modified("max-age=60", TAG, ("x-new", "1")),
        has={"x-new": "1"},
    ),
    updates(
        "304-keeps",
        "A field that the 304 does not have stays",
        ok("max-age=60", TAG, ("x-a", "1"), ("content-type", "text/html")),
        not_modified("max-age=60", TAG),
        has={"x-a": "1", "content-type": "text/html"},
    ),
    updates(
        "304-expires",
        "Expires is updated",
        ok(None, TAG, NOW, ("expires", At(60))),
        not_modified(None, TAG, ("date", At(60)), ("expires", At(120))),
        has={"expires": At(120)},
    ),
]

OF_THE_CONTENT = [
    updates(
        f"304-stays-{name.lower()}",
        f"{name} describes the stored content: a 304 does not change it",
        ok("max-age=60", TAG, (name, one)),
        not_modified("max-age=60", TAG, (name, two)),
        "supported",
        has={name: one},
    )
    for name, one, two in (
        ("Content-Encoding", "gzip", "br"),
        ("Content-Digest", "sha-256=:YQ==:", "sha-256=:Yg==:"),
        ("Content-MD5", "rL0Y20zC+Fzt72VPzMSk2A==", "N7UdGUp1E+RbVvZSTy1R8g=="),
    )
]

ROWS: list[Case] = [*UPDATED, *UPDATES, *OF_THE_CONTENT]
