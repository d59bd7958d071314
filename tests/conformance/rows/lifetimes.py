"""How long a response says that it is fresh (RFC 9111 s.4.2.1, s.1.2.2, s.5.2)."""

from __future__ import annotations

from ..case import At, Case, app, case, ok, store, wait
from .given import NOW, control, lasts

LIFETIMES = [
    lasts(
        "max-age-invalid-expires",
        "9111 4.2.1",
        "A max-age that is no number is stale, whatever Expires says",
        0,
        *control("max-age=a60"),
        NOW,
        ("expires", At(60)),
        level="supported",
    ),
    lasts(
        "max-age",
        "9111 4.2.1",
        "max-age is the lifetime; at that age the response is stale",
        60,
        *control("max-age=60"),
    ),
    lasts("s-maxage", "9111 4.2.1", "s-maxage is the lifetime", 60, *control("s-maxage=60")),
    lasts(
        "s-maxage-longer",
        "9111 4.2.1",
        "s-maxage goes before a shorter max-age",
        60,
        *control("s-maxage=60, max-age=1"),
    ),
    lasts(
        "s-maxage-shorter",
        "9111 4.2.1",
        "s-maxage goes before a longer max-age",
        60,
        *control("max-age=3600, s-maxage=60"),
    ),
    lasts(
        "s-maxage-zero",
        "9111 5.2.2.10",
        "s-maxage=0 is stale at once, whatever max-age says",
        0,
        *control("max-age=60, s-maxage=0"),
    ),
    lasts(
        "s-maxage-expires",
        "9111 5.2.2.10",
        "s-maxage goes before Expires",
        60,
        *control("s-maxage=60"),
        NOW,
        ("expires", At(9999)),
    ),
    lasts(
        "max-age-expires-future",
        "9111 5.3",
        "max-age goes before a later Expires",
        60,
        *control("max-age=60"),
        NOW,
        ("expires", At(9999)),
    ),
    lasts(
        "max-age-expires-past",
        "9111 5.3",
        "max-age goes before an Expires in the past",
        60,
        *control("max-age=60"),
        NOW,
        ("expires", At(-60)),
    ),
    lasts(
        "max-age-expires-invalid",
        "9111 5.3",
        "max-age goes before an Expires that is no date",
        60,
        *control("max-age=60"),
        NOW,
        ("expires", "0"),
    ),
    lasts("max-age-zero", "9111 5.2.2.1", "max-age=0 is stale at once", 0, *control("max-age=0")),
    lasts(
        "max-age-zero-expires",
        "9111 5.3",
        "max-age=0 goes before an Expires to come",
        0,
        *control("max-age=0"),
        NOW,
        ("expires", At(60)),
    ),
    lasts("expires", "9111 4.2.1", "Expires less Date is the lifetime", 60, NOW, ("expires", At(60))),
    lasts(
        "expires-no-date",
        "9111 4.2.1",
        "Without Date it counts from when the response came",
        60,
        ("expires", At(60)),
        level="supported",
    ),
    lasts(
        "expires-slow-clock",
        "9111 4.2.1",
        "The lifetime is by the app's own clock: a Date to come",
        60,
        ("date", At(40)),
        ("expires", At(100)),
    ),
    lasts(
        "expires-fast-clock",
        "9111 4.2.3",
        "A Date in the past is an age, whatever Expires says",
        60,
        ("date", At(-40)),
        ("expires", At(60)),
    ),
    lasts("expires-now", "9111 5.3", "An Expires equal to Date is stale", 0, NOW, ("expires", At(0))),
    lasts("expires-past", "9111 5.3", "An Expires before Date is stale", 0, NOW, ("expires", At(-3600))),
    lasts("public-alone", "9111 5.2.2.9", "public is no lifetime", 0, *control("public")),
    lasts(
        "must-revalidate-alone",
        "9111 5.2.2.2",
        "must-revalidate is no lifetime",
        0,
        *control("must-revalidate"),
    ),
    lasts(
        "age-of-stale",
        "9111 4.2",
        "What was stale when it came is no hit",
        0,
        *control("max-age=60"),
        ("age", "60"),
    ),
]

DIRECTIVES = [
    lasts(
        f"max-age-{name}",
        "9111 5.2",
        f"Cache-Control by its grammar: {told}",
        seconds,
        *control(*lines),
        level=level,
    )
    for name, told, lines, seconds, level in (
        ("case", "names of directives in any case", ["MaX-aGe=60"], 60, "required"),
        ("quoted", "the quoted form of a value", ['max-age="60"'], 60, "optional"),
        ("leading-zeros", "leading zeros", ["max-age=0060"], 60, "required"),
        ("extension", "what is not understood is ignored", ["foo, max-age=60, bar=1"], 60, "required"),
        (
            "in-quotes-before",
            "no directive is read in a quoted string",
            ['foo="max-age=3600", max-age=60'],
            60,
            "required",
        ),
        (
            "in-quotes-after",
            "no directive is read in a quoted string after the directive itself",
            ['max-age=60, foo="max-age=3600"'],
            60,
            "required",
        ),
        (
            "in-quotes-only",
            "no directive is read in a quoted string alone",
            ['foo="max-age=3600"'],
            0,
            "required",
        ),
        (
            "escaped-quote",
            "a quoted string with an escaped quote",
            [r'foo="a\", max-age=1, \"", max-age=60'],
            60,
            "required",
        ),
        ("empty-members", "empty members of the list", [",, max-age=60 ,"], 60, "required"),
        ("tabs", "tabs around members", ["foo\t,\tmax-age=60"], 60, "required"),
        ("lines", "several lines are one list", ["foo", "max-age=60"], 60, "required"),
        ("single-quotes", "single quotes are part of a value", ["max-age='60'"], 0, "required"),
        ("name-prefix", "a name is the whole name", ["x-max-age=60"], 0, "required"),
        ("name-suffix", "a name is the whole name, to its end", ["max-agex=60"], 0, "required"),
        ("no-value", "a value that is missing is stale", ["max-age"], 0, "supported"),
        ("empty-value", "a value that is empty is stale", ["max-age="], 0, "supported"),
        ("negative", "a negative value is stale", ["max-age=-60"], 0, "required"),
        ("alpha-before", "a value that begins with a letter is stale", ["max-age=a60"], 0, "required"),
        ("alpha-after", "a value that ends in a letter is stale", ["max-age=60a"], 0, "required"),
        ("decimal", "a decimal is stale", ["max-age=60.0"], 0, "supported"),
        ("plus", "a value with a sign is stale", ["max-age=+60"], 0, "supported"),
    )
]

TWICE = [
    lasts(
        f"twice-{name}",
        "9111 4.2.1",
        f"Of a directive given twice the strictest counts: {told}",
        seconds,
        *control(*lines),
        level=level,
    )
    for name, told, lines, seconds, level in (
        ("rising", "the first of a line", ["max-age=60, max-age=3600"], 60, "optional"),
        ("falling", "the last of a line", ["max-age=3600, max-age=60"], 60, "optional"),
        ("lines-rising", "the first of two lines", ["max-age=60", "max-age=3600"], 60, "optional"),
        ("lines-falling", "the last of two lines", ["max-age=3600", "max-age=60"], 60, "optional"),
        ("invalid", "one of them no number", ["max-age=3600, max-age=x"], 0, "optional"),
        ("s-maxage", "s-maxage too", ["s-maxage=3600, s-maxage=60, max-age=9999"], 60, "optional"),
        ("same", "twice the same", ["max-age=60, max-age=60"], 60, "required"),
    )
]

HUGE = [
    case(
        f"huge-{name}",
        "9111 1.2.2",
        f"A lifetime too large for an integer is long, not none: {told}",
        "required",
        ok(None, *fields),
        app(),
        wait(10_000_000),
        store(),
    )
    for name, told, fields in (
        ("2-31", "2147483648", control("max-age=2147483648")),
        ("11-digits", "99999999999", control("max-age=99999999999")),
        ("30-digits", "thirty digits", control(f"max-age={'9' * 30}")),
        ("s-maxage", "s-maxage", control("s-maxage=99999999999")),
        ("expires", "an Expires in the year 2286", [NOW, ("expires", "Sat, 20 Nov 2286 17:46:39 GMT")]),
    )
]

ROWS: list[Case] = [*LIFETIMES, *DIRECTIVES, *TWICE, *HUGE]
