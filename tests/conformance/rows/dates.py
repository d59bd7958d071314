"""Expires, and dates in their three forms (RFC 9111 s.5.3, RFC 9110 s.5.6.7)."""

from __future__ import annotations

from ..case import At, Case, app, case, ok, store, wait
from .given import NOW, lasts

DATES = [
    lasts(
        f"date-{name}",
        "9110 5.6.7",
        f"In Expires {told}",
        60 if good else 0,
        NOW,
        ("expires", value),
        level=level,
    )
    for name, told, value, good, level in (
        ("rfc850", "an RFC 850 date is read", At(60, "rfc850"), True, "required"),
        ("asctime", "a date as of asctime is read", At(60, "asctime"), True, "required"),
        ("zero", "0 is in the past", "0", False, "required"),
        ("minus-one", "-1 is in the past", "-1", False, "required"),
        ("empty", "nothing is in the past", "", False, "required"),
        ("word", "a word is in the past", "never", False, "required"),
        ("number", "seconds of the epoch are in the past", "1900000000", False, "required"),
        ("utc", "a date of zone UTC is invalid", "Thu, 18 Aug 2050 02:01:18 UTC", False, "supported"),
        ("offset", "a date with an offset is invalid", "Thu, 18 Aug 2050 02:01:18 +0000", False, "supported"),
        ("est", "a date of another zone is invalid", "Thu, 18 Aug 2050 02:01:18 EST", False, "supported"),
        ("no-zone", "a date without a zone is invalid", "Thu, 18 Aug 2050 02:01:18", False, "supported"),
        (
            "no-comma",
            "a date without its comma is invalid",
            "Thu 18 Aug 2050 02:01:18 GMT",
            False,
            "supported",
        ),
        (
            "two-digits",
            "a year of two digits in this form is invalid",
            "Thu, 18 Aug 50 02:01:18 GMT",
            False,
            "supported",
        ),
        (
            "blanks",
            "a date with more blanks is invalid",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            False,
            "supported",
        ),
        ("dashes", "a date with dashes is invalid", "Thu, 18-Aug-2050 02:01:18 GMT", False, "supported"),
        ("periods", "a time with periods is invalid", "Thu, 18 Aug 2050 02.01.18 GMT", False, "supported"),
        ("one-digit", "an hour of one digit is invalid", "Thu, 18 Aug 2050 2:01:18 GMT", False, "supported"),
        (
            "hour-25",
            "an hour that there is none of is invalid",
            "Thu, 18 Aug 2050 25:01:18 GMT",
            False,
            "required",
        ),
        (
            "31-feb",
            "a day that there is none of is invalid",
            "Mon, 31 Feb 2050 02:01:18 GMT",
            False,
            "required",
        ),
        (
            "month",
            "a month that there is none of is invalid",
            "Thu, 18 Foo 2050 02:01:18 GMT",
            False,
            "required",
        ),
    )
]

CASES = [
    case(
        f"date-case-{name}",
        "9110 5.6.7",
        f"A date is read in any case: {name}",
        "optional",
        ok(None, NOW, ("expires", value)),
        app(),
        store(),
    )
    for name, value in (
        ("weekday", "THU, 18 Aug 2050 02:01:18 GMT"),
        ("month", "Thu, 18 AUG 2050 02:01:18 GMT"),
        ("zone", "Thu, 18 Aug 2050 02:01:18 gMT"),
    )
]

EXPIRES_TWICE = [
    case(
        f"expires-twice-{name}",
        "9111 4.2.1",
        f"Of Expires in two lines {told}",
        "supported",
        ok(None, NOW, ("expires", one), ("expires", two)),
        app(),
        wait(60),
        app(),
    )
    for name, told, one, two in (
        ("rising", "the first counts, or it is stale", At(60), At(3600)),
        ("invalid", "an invalid one makes it stale", "0", At(3600)),
    )
]

OTHERS = [
    case(
        "expires-far",
        "9110 5.6.7",
        "A date past 2038 is a date",
        "required",
        ok(None, NOW, ("expires", "Sun, 21 Nov 2286 04:46:39 GMT")),
        app(),
        wait(100_000_000),
        store(),
    ),
    *(
        case(
            f"expires-of-date-{name.split()[-1]}",
            "9111 4.2.1",
            f"A Date that is {name} is none: Expires counts from when the response came",
            "supported",
            ok(None, ("date", value), ("expires", At(60))),
            app(),
            wait(59),
            store(),
            wait(1),
            app(),
        )
        for name, value in (("empty", ""), ("a word", "today"), ("a number", "0"))
    ),
]

ROWS: list[Case] = [*OTHERS, *DATES, *CASES, *EXPIRES_TWICE]
