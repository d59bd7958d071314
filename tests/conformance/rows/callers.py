"""Responses that may be one caller's: Authorization and cookies (RFC 9111 s.3.5, s.7.3)."""

from __future__ import annotations

from ..case import CAUTIOUS, SHARED, At, Case, app, case, check, crowd, either, not_modified, ok, store, wait
from .given import FRESH, MODIFIED, TAG

ANNA, BERT = ("authorization", "Bearer anna"), ("authorization", "Bearer bert")

AUTHORIZATION = [
    case(
        "auth-check",
        "9111 4.3.1",
        "A check carries the Authorization of the client that asks",
        "required",
        [ok("public, no-cache", TAG), not_modified("public, no-cache", TAG)],
        app(ANNA),
        check(BERT, of=1, saw={"authorization": "Bearer bert", "if-none-match": '"a"'}),
        profiles=SHARED,
    ),
    case(
        "auth-cautious",
        "9111 3.5",
        "The cautious profile stores for a caller what only this caller gets",
        "supported",
        ok(FRESH),
        app(ANNA),
        store(ANNA),
        app(BERT),
        app(),
        profiles=CAUTIOUS,
    ),
    *(
        case(
            f"auth-{name}",
            "9111 3.5",
            f"A response to a request with Authorization is not shared {told}",
            "required",
            ok(None, *fields),
            app(ANNA),
            app(BERT),
            app(),
            profiles=SHARED,
        )
        for name, told, fields in (
            ("plain", "by max-age alone", [("cache-control", "max-age=3600")]),
            ("expires", "by Expires alone", [("date", At(0)), ("expires", At(3600))]),
            ("heuristic", "by a heuristic", [("date", At(0)), MODIFIED]),
            (
                "proxy-revalidate",
                "by proxy-revalidate",
                [("cache-control", "max-age=3600, proxy-revalidate")],
            ),
            (
                "immutable",
                "by a directive that is not one of the three",
                [("cache-control", "max-age=3600, immutable")],
            ),
        )
    ),
    *(
        case(
            f"auth-{name}",
            "9111 3.5",
            f"With {told} it is stored, and shared",
            "optional",
            ok(control),
            app(ANNA, saw={"authorization": "Bearer anna"}),
            store(BERT),
            store(ANNA),
            profiles=SHARED,
        )
        for name, told, control in (
            ("public", "public", "max-age=3600, public"),
            ("s-maxage", "s-maxage", "s-maxage=3600"),
            ("must-revalidate", "must-revalidate", "max-age=3600, must-revalidate"),
        )
    ),
    case(
        "auth-no-store",
        "9111 3.5",
        "A response to a request with Authorization is not stored against no-store, public or not",
        "required",
        ok("public, no-store"),
        app(ANNA),
        app(ANNA),
        profiles=SHARED,
    ),
    case(
        "auth-private",
        "9111 3.5",
        "A response to a request with Authorization is not shared against private",
        "required",
        ok("private, must-revalidate, max-age=60"),
        app(ANNA),
        app(BERT),
        profiles=SHARED,
    ),
    case(
        "auth-crowd",
        "9111 4",
        "Collapsed requests with Authorization share nothing that may not be stored",
        "required",
        ok("max-age=3600"),
        crowd(either(ANNA, of=0), either(BERT, of=0), either(of=0), ran=3),
        profiles=SHARED,
    ),
    case(
        "auth-crowd-public",
        "9111 4",
        "Collapsed requests with Authorization share what may be shared",
        "optional",
        ok("max-age=3600, public"),
        crowd(either(ANNA, of=1), either(BERT, of=1), ran=1),
        profiles=SHARED,
    ),
    case(
        "auth-apart",
        "9111 3.5",
        "The cautious profile keeps each caller's responses apart, even public ones",
        "supported",
        ok("max-age=3600, public"),
        app(ANNA),
        app(BERT),
        store(ANNA, of=1),
        store(BERT, of=2),
        profiles=CAUTIOUS,
    ),
    *(
        case(
            f"auth-none-{name}",
            "9111 3.5",
            f"With {told} it answers requests without Authorization too",
            "optional",
            ok(control),
            app(ANNA),
            store(of=1),
            store(BERT, of=1),
            store(method="HEAD", of=1),
            profiles=SHARED,
        )
        for name, told, control in (
            ("public", "public", "max-age=3600, public"),
            ("s-maxage", "s-maxage", "s-maxage=3600"),
            ("must-revalidate", "must-revalidate", "max-age=3600, must-revalidate"),
        )
    ),
    case(
        "auth-none-first",
        "9111 3.5",
        "A request with Authorization does not get what one without it got",
        "supported",
        ok("max-age=3600, public"),
        app(),
        app(ANNA),
        store(of=2),  # what is for all, and the most recent (RFC 9111 s.4)
        store(BERT, of=2),
        profiles=SHARED,
    ),
    case(
        "auth-none-stale",
        "9111 4",
        "What is stale of it answers no request without Authorization, and is not asked about by one",
        "required",
        ok("max-age=60, public, stale-while-revalidate=600", TAG),
        app(ANNA),
        wait(60),
        app(saw={"if-none-match": None, "authorization": None}),
        profiles=SHARED,
    ),
    case(
        "auth-none-vary",
        "9111 4.1",
        "Where Vary names Authorization it answers no request without it",
        "required",
        ok("max-age=3600, public", ("vary", "authorization")),
        app(ANNA),
        app(),
        app(BERT),
        profiles=SHARED,
    ),
    case(
        "auth-none-range",
        "9110 14.2",
        "A range without Authorization is answered from it",
        "optional",
        ok("max-age=3600, public", TAG, body="0123456789"),
        app(ANNA),
        store(("range", "bytes=2-4"), status=206, body="234", of=0),
        profiles=SHARED,
    ),
    case(
        "auth-none-cautious",
        "9111 3.5",
        "The cautious profile gives nobody what a request with Authorization got",
        "supported",
        ok("max-age=3600, public"),
        app(ANNA),
        app(),
        profiles=CAUTIOUS,
    ),
    case(
        "auth-basic",
        "9111 3.5",
        "The scheme does not matter",
        "required",
        ok("max-age=3600"),
        app(("authorization", "Basic eDp5")),
        app(("authorization", "Basic eDp6")),
        profiles=SHARED,
    ),
]

COOKIES = [
    case(
        "cookie-check",
        "9111 7.3",
        "A check shows no cookie where cookies are hidden from the app",
        "supported",
        [ok("max-age=60", TAG), not_modified("max-age=60", TAG)],
        app(("cookie", "a=b")),
        wait(60),
        check(("cookie", "a=c"), of=1, saw={"cookie": None}),
        profiles=SHARED,
    ),
    case(
        "cookie-request",
        "9111 3",
        "A Cookie in the request does not keep a response from being shared",
        "optional",
        ok("max-age=3600"),
        app(("cookie", "a=b"), saw={"cookie": None}),
        store(("cookie", "a=c")),
        store(),
        profiles=SHARED,
    ),
    case(
        "cookie-apart",
        "9111 7.3",
        "The cautious profile keeps callers with different cookies apart",
        "supported",
        ok("max-age=3600"),
        app(("cookie", "a=b"), saw={"cookie": "a=b"}),
        app(("cookie", "a=c")),
        store(("cookie", "a=b"), of=1),
        profiles=CAUTIOUS,
    ),
    case(
        "set-cookie-cautious",
        "9111 7.3",
        "The cautious profile shares no response with Set-Cookie",
        "supported",
        ok("public, max-age=3600", ("set-cookie", "a=b")),
        app(has={"set-cookie": "a=b"}),
        app(),
        profiles=CAUTIOUS,
    ),
    case(
        "set-cookie-plain",
        "9111 7.3",
        "A response with Set-Cookie that states nothing is not shared",
        "supported",
        ok(None, ("date", At(0)), ("set-cookie", "a=b")),
        app(has={"set-cookie": "a=b"}),
        app(),
        profiles=SHARED,
    ),
    *(
        case(
            f"set-cookie-not-{name}",
            "9111 7.3",
            f"A response with Set-Cookie is not shared {told}",
            "supported",
            ok(None, *fields, ("set-cookie", "a=b")),
            app(has={"set-cookie": "a=b"}),
            app(),
            profiles=SHARED,
        )
        for name, told, fields in (
            ("heuristic", "by a heuristic", [("date", At(0)), MODIFIED]),
            ("max-age-0", "by a lifetime of 0", [("cache-control", "max-age=0"), TAG]),
            ("no-cache", "by a lifetime beside no-cache", [("cache-control", "no-cache, max-age=3600"), TAG]),
            ("private", "against private", [("cache-control", "private, max-age=3600")]),
            ("no-store", "against no-store", [("cache-control", "public, no-store, max-age=3600")]),
        )
    ),
    *(
        case(
            f"set-cookie-{name}",
            "9111 7.3",
            f"With {told} a response with Set-Cookie is shared, with all its cookies",
            "optional",
            ok(None, *fields, ("set-cookie", "a=b"), ("set-cookie", "c=d; Path=/")),
            app(),
            store(has={"set-cookie": ["a=b", "c=d; Path=/"]}),
            profiles=SHARED,
        )
        for name, told, fields in (
            ("public", "public", [("cache-control", "public, max-age=3600")]),
            ("max-age", "max-age", [("cache-control", "max-age=3600")]),
            ("s-maxage", "s-maxage", [("cache-control", "s-maxage=3600")]),
            ("expires", "Expires", [("date", At(0)), ("expires", At(3600))]),
            ("targeted", "CDN-Cache-Control", [("cdn-cache-control", "max-age=3600")]),
        )
    ),
    *(
        case(
            f"{name.lower()}-shared",
            "9111 7.3",
            f"{name} does not keep a response with a lifetime from being shared",
            "optional",
            ok("max-age=3600", (name.lower(), value)),
            app(),
            store(has={name.lower(): value}),
            profiles=SHARED,
        )
        for name, value in (("Set-Cookie2", "a=b"), ("Clear-Site-Data", '"cookies"'))
    ),
    case(
        "set-cookie-crowd",
        "9111 7.3",
        "Collapsed requests do not share a Set-Cookie of which nothing is stated",
        "required",
        ok(None, ("set-cookie", "a=b")),
        crowd(either(of=0), either(of=0), ran=2),
    ),
    case(
        "set-cookie-crowd-lifetime",
        "9111 7.3",
        "Collapsed requests share a Set-Cookie with a lifetime",
        "optional",
        ok("max-age=3600", ("set-cookie", "a=b")),
        crowd(either(of=1), either(of=1), ran=1),
        profiles=SHARED,
    ),
]

ROWS: list[Case] = [*AUTHORIZATION, *COOKIES]
