"""Freshness that nobody states (RFC 9111 s.4.2.2)."""

from __future__ import annotations

from ..case import CAUTIOUS, SHARED, At, Case, app, case, check, either, ok, store, wait
from .given import MODIFIED, NOW, control

HEURISTIC = [
    *(
        case(
            f"heuristic-delta-{seconds}",
            "9111 4.2.2",
            f"{seconds} seconds since the change are {seconds // 10} of freshness",
            "optional",
            ok(None, NOW, ("last-modified", At(-seconds))),
            app(),
            wait(seconds // 10 - 1),
            store(),
            wait(1),
            check(),
            profiles=SHARED,
        )
        for seconds in (60, 600, 3600, 86_400)
    ),
    case(
        "heuristic-tenth",
        "9111 4.2.2",
        "A tenth of the time since Last-Modified is a lifetime",
        "optional",
        ok(None, NOW, MODIFIED),
        app(),
        wait(99),
        store(),
        wait(1),
        check(),
        profiles=SHARED,
    ),
    case(
        "heuristic-no-date",
        "9111 4.2.2",
        "Without Date it counts to when the response came",
        "supported",
        ok(None, MODIFIED),
        app(),
        wait(99),
        store(),
        profiles=SHARED,
    ),
    case(
        "heuristic-day",
        "9111 4.2.2",
        "A heuristic lifetime is a day at most",
        "supported",
        ok(None, NOW, ("last-modified", At(-10_000_000))),
        app(),
        wait(86_399),
        store(),
        wait(1),
        check(),
        profiles=SHARED,
    ),
    case(
        "heuristic-cautious",
        "9111 4.2.2",
        "A heuristic is a choice: the cautious profile makes none",
        "supported",
        ok(None, NOW, MODIFIED),
        app(),
        either(ran=1),
        profiles=CAUTIOUS,
    ),
    *(
        case(
            f"heuristic-not-{name}",
            "9111 4.2.2",
            f"A heuristic is not used: {told}",
            level,
            ok(None, *fields),
            app(),
            either(ran=1),
            profiles=SHARED,
        )
        for name, told, fields, level in (
            ("max-age-0", "where max-age says 0", [*control("max-age=0"), NOW, MODIFIED], "required"),
            ("s-maxage-0", "where s-maxage says 0", [*control("s-maxage=0"), NOW, MODIFIED], "required"),
            (
                "max-age-invalid",
                "where max-age is no number",
                [*control("max-age=x"), NOW, MODIFIED],
                "required",
            ),
            ("expires-past", "where Expires is over", [NOW, MODIFIED, ("expires", At(-1))], "required"),
            ("expires-invalid", "where Expires is no date", [NOW, MODIFIED, ("expires", "0")], "required"),
            ("no-cache", "where no-cache says so", [*control("no-cache"), NOW, MODIFIED], "required"),
            ("future", "where Last-Modified is yet to come", [NOW, ("last-modified", At(1000))], "required"),
            ("invalid", "where Last-Modified is no date", [NOW, ("last-modified", "once")], "required"),
        )
    ),
    *(
        case(
            f"heuristic-status-{status}",
            "9111 4.2.2",
            f"{status} is heuristically cacheable",
            "optional",
            ok(None, NOW, MODIFIED, status=status),
            app(),
            store(),
            profiles=SHARED,
        )
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
    ),
    *(
        case(
            f"heuristic-not-{status}",
            "9111 4.2.2",
            f"{status} is not heuristically cacheable",
            "required",
            ok(None, NOW, MODIFIED, status=status),
            app(),
            either(ran=1),
            profiles=SHARED,
        )
        for status in (201, 202, 299, 302, 303, 307, 400, 403, 418, 429, 499, 500, 502, 503, 504, 599)
    ),
    *(
        case(
            f"heuristic-public-{status}",
            "9111 4.2.2",
            f"A {status} that is marked public is heuristically cacheable",
            "optional",
            ok("public", NOW, MODIFIED, status=status),
            app(),
            store(),
            profiles=SHARED,
        )
        for status in (201, 302, 418, 599)
    ),
]

ROWS: list[Case] = [*HEURISTIC]
