"""Each switch by itself: on in the cautious profile, off in the shared one; and what a rule may add (s.4.2, s.5.2)."""

from __future__ import annotations

from typing import Any

from ..case import CAUTIOUS, SHARED, Case, Reply, Step, app, case, either, ok, rescued, store, through, wait
from .given import FAILED, FRESH, HOUR, MODIFIED, NOW, control, varies

COOKIE = ("set-cookie", "a=b")
ANNA, BERT = ("cookie", "user=anna"), ("cookie", "user=bert")


def switch(
    field: str, section: str, told: str, values: tuple[Any, Any], script: Any, on: list[Step], off: list[Step]
) -> list[Case]:
    """The two rows of a field: what is so where it is on, and what where it is off."""
    replies: list[Reply] = script if isinstance(script, list) else [script]
    name = field.replace("_", "-")
    return [
        case(
            f"switch-on-{name}",
            section,
            f"{field} alone: {told}",
            "supported",
            replies,
            app(),
            *on,
            profiles=CAUTIOUS,
            rule={field: values[0]},
        ),
        case(
            f"switch-off-{name}",
            section,
            f"{field} off in the shared profile: not that {told}",
            "supported",
            replies,
            app(),
            *off,
            profiles=SHARED,
            rule={field: values[1]},
        ),
    ]


SWITCHES = [
    *switch(
        "honor_request_directives",
        "9111 5.2.1",
        "a client's no-cache asks the app",
        (True, False),
        HOUR,
        [app(*control("no-cache"))],
        [store(*control("no-cache"))],
    ),
    *switch(
        "targeted_cache_control",
        "9213 2",
        "CDN-Cache-Control makes a response fresh",
        (True, False),
        ok(None, ("cdn-cache-control", "max-age=60")),
        [store()],
        [app()],
    ),
    *switch(
        "heuristic_freshness",
        "9111 4.2.2",
        "Last-Modified makes a response fresh",
        (True, False),
        ok(None, NOW, MODIFIED),
        [store()],
        [either(ran=1)],
    ),
    *switch(
        "share_cookies",
        "9111 7.3",
        "a response with a lifetime is shared with its Set-Cookie",
        (True, False),
        ok("max-age=60", COOKIE),
        [store(has={"set-cookie": "a=b"})],
        [app()],
    ),
    *switch(
        "ignore_language_order",
        "9110 12.5.4",
        "languages of one weight in another order are one variant",
        (True, False),
        ok(None, *varies("Accept-Language")),
        [app(("accept-language", "en, de")), store(("accept-language", "de, en"), of=2)],
        [app(("accept-language", "en, de")), app(("accept-language", "de, en"))],
    ),
    *switch(
        "ignore_field_spelling",
        "9111 4.1",
        "a field of unknown grammar is one however it is spelled",
        (True, False),
        ok(None, *varies("Foo")),
        [app(("foo", "1, 2")), store(("foo", "1"), ("foo", "2"), of=2), store(("foo", " 1 ,2"), of=2)],
        [app(("foo", "1, 2")), app(("foo", "1"), ("foo", "2")), app(("foo", "1,2"))],
    ),
    *switch(
        "invalidate_on_error",
        "9111 4.4",
        "a write that is told 503 leaves what is stored",
        (False, True),
        [HOUR, ok(status=503), HOUR],
        [through(method="POST"), store(of=1)],
        [through(method="POST"), app(of=3)],
    ),
    *switch(
        "stale_if_error",
        "9111 4.2.4",
        "a stale response stands in for an error",
        ("1d", 0),
        [ok("max-age=60"), FAILED],
        [wait(61), rescued()],
        [wait(61), app(status=503)],
    ),
    case(
        "switch-on-identity",
        "9111 3",
        'identity="origin" alone: cookies do not tell responses apart',
        "supported",
        HOUR,
        app(ANNA, saw={"cookie": None}),
        store(BERT),
        profiles=CAUTIOUS,
        rule={"identity": "origin"},
    ),
    case(
        "switch-off-identity",
        "9111 3",
        'identity="separate" in the shared profile: cookies tell responses apart',
        "supported",
        HOUR,
        app(ANNA, saw={"cookie": "user=anna"}),
        app(BERT),
        store(ANNA, of=1),
        profiles=SHARED,
        rule={"identity": "separate"},
    ),
]

ADDED = [
    case(
        "ttl-jitter",
        "9111 4.2",
        "ttl_jitter shortens a lifetime, by no more than its share",
        "supported",
        ok("max-age=100"),
        app(),
        wait(49),
        store(),
        wait(51),
        app(),
        rule={"ttl_jitter": 0.5},
    ),
    case(
        "ttl-number",
        "9111 4.2",
        "A ttl in seconds takes the place of what the app says, and its windows go with it",
        "supported",
        ok("max-age=1"),
        app(),
        wait(59),
        store(),
        wait(2),
        store(ran=1, says={"ttl": -1, "detail": "stale-while-revalidate"}),
        store(of=2),
        profiles=CAUTIOUS,
        rule={"ttl": 60, "stale_while_revalidate": 30},
    ),
    case(
        "ttl-number-error",
        "9111 4.2.4",
        "A ttl in seconds has its window for errors too",
        "supported",
        [ok(FRESH), FAILED],
        app(),
        wait(61),
        rescued(),
        wait(30),
        app(status=503),
        profiles=CAUTIOUS,
        rule={"ttl": 60, "stale_if_error": 30},
    ),
]

ROWS: list[Case] = [*SWITCHES, *ADDED]
