"""A client's validators, judged by the store (RFC 9111 s.4.3.2; RFC 9110 s.8.8.3, s.13.1)."""

from __future__ import annotations

from ..case import At, Case, Level, app, case, ok, store, wait
from .given import FRESH, MODIFIED, tagged

A = '"a"'


def none_match(
    name: str, section: str, sentence: str, level: Level, tag: str, *asked: str, matches: bool
) -> Case:
    """What a hit answers to these lines of If-None-Match."""
    fields = tuple(("if-none-match", line) for line in asked)
    answer = store(*fields, status=304, has={"etag": tag}) if matches else store(*fields, status=200)
    return case(name, section, sentence, level, tagged(tag), app(), answer)


NONE_MATCH = [
    none_match(
        "inm-strong",
        "9111 4.3.2",
        "If-None-Match with the stored tag gets a 304",
        "optional",
        A,
        A,
        matches=True,
    ),
    none_match(
        "inm-other",
        "9110 13.1.2",
        "If-None-Match with another tag gets the whole response",
        "required",
        A,
        '"b"',
        matches=False,
    ),
    none_match(
        "inm-weak",
        "9110 13.1.2",
        "Tags are compared weakly: both weak",
        "optional",
        'W/"a"',
        'W/"a"',
        matches=True,
    ),
    none_match(
        "inm-weak-strong",
        "9110 13.1.2",
        "Tags are compared weakly: only the stored one strong",
        "optional",
        A,
        'W/"a"',
        matches=True,
    ),
    none_match(
        "inm-strong-weak",
        "9110 13.1.2",
        "Tags are compared weakly: only the stored one weak",
        "optional",
        'W/"a"',
        A,
        matches=True,
    ),
    none_match(
        "inm-list-first",
        "9110 13.1.2",
        "Of a list the first member may match",
        "optional",
        A,
        '"a", "b", "c"',
        matches=True,
    ),
    none_match(
        "inm-list-middle",
        "9110 13.1.2",
        "Of a list one in the middle may match",
        "optional",
        A,
        '"b", "a", "c"',
        matches=True,
    ),
    none_match(
        "inm-list-last",
        "9110 13.1.2",
        "Of a list the last may match",
        "optional",
        A,
        '"b", W/"c", "a"',
        matches=True,
    ),
    none_match(
        "inm-list-none",
        "9110 13.1.2",
        "A list in which none matches gets the whole response",
        "required",
        A,
        '"b", "c"',
        matches=False,
    ),
    none_match(
        "inm-list-empty",
        "9110 5.6.1",
        "Empty members are none",
        "optional",
        A,
        ',, "b",,"a",',
        matches=True,
    ),
    none_match("inm-lines", "9110 13.1.2", "Lines are one list", "optional", A, '"b"', '"a"', matches=True),
    none_match("inm-star", "9110 13.1.2", "* matches whatever is stored", "optional", A, "*", matches=True),
    none_match(
        "inm-comma",
        "9110 8.8.3",
        "A comma in a tag is part of it",
        "optional",
        '"a,b"',
        '"x", "a,b"',
        matches=True,
    ),
    none_match("inm-empty-tag", "9110 8.8.3", "An empty tag is one", "optional", '""', '""', matches=True),
    none_match(
        "inm-obs-text",
        "9110 8.8.3",
        "A tag may hold bytes beyond ASCII",
        "optional",
        '"\xfc\xff"',
        '"\xfc\xff"',
        matches=True,
    ),
    none_match(
        "inm-case", "9110 8.8.3", "Tags are compared with their case", "required", A, '"A"', matches=False
    ),
    none_match(
        "inm-unquoted", "9110 8.8.3", "What is no tag matches none", "supported", A, "a", matches=False
    ),
    none_match(
        "inm-weak-lower",
        "9110 8.8.3",
        "A tag that begins with w/ in lower case is no weak tag",
        "supported",
        A,
        'w/"a"',
        matches=False,
    ),
    none_match(
        "inm-backslash",
        "9110 8.8.3",
        "Nothing is escaped in a tag",
        "supported",
        '"a\\b"',
        '"a\\b"',
        matches=True,
    ),
]

SINCE = [
    case(
        "ims-equal",
        "9111 4.3.2",
        "If-Modified-Since at Last-Modified gets a 304",
        "optional",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", At(-1000)), status=304),
    ),
    case(
        "ims-later",
        "9111 4.3.2",
        "If-Modified-Since after Last-Modified gets a 304",
        "optional",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", At(-1)), status=304),
    ),
    case(
        "ims-earlier",
        "9110 13.1.3",
        "If-Modified-Since before Last-Modified gets the whole response",
        "required",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", At(-1001)), status=200),
    ),
    case(
        "ims-rfc850",
        "9110 5.6.7",
        "If-Modified-Since is read in the form of RFC 850",
        "optional",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", At(-1000, "rfc850")), status=304),
    ),
    case(
        "ims-asctime",
        "9110 5.6.7",
        "If-Modified-Since is read in the form of asctime",
        "optional",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", At(-1000, "asctime")), status=304),
    ),
    case(
        "ims-invalid",
        "9110 13.1.3",
        "What is no date is ignored",
        "required",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", "yesterday"), status=200),
    ),
    case(
        "ims-lines",
        "9110 13.1.3",
        "If-Modified-Since in two lines is no date",
        "supported",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-modified-since", "x"), ("if-modified-since", At(-1000)), status=200),
    ),
    case(
        "ims-by-date",
        "9111 4.3.2",
        "Without Last-Modified the stored Date stands for it",
        "optional",
        ok(FRESH, ("date", At(0))),
        app(),
        wait(5),
        store(("if-modified-since", At(5)), status=304),
    ),
    case(
        "ims-by-date-earlier",
        "9111 4.3.2",
        "A stored Date later than If-Modified-Since gets the whole response",
        "required",
        ok(FRESH, ("date", At(0))),
        app(),
        store(("if-modified-since", At(-5)), status=200),
    ),
    case(
        "inm-first",
        "9110 13.1.3",
        "Beside If-None-Match it is ignored: the tag matches",
        "required",
        tagged(A, MODIFIED),
        app(),
        store(("if-none-match", A), ("if-modified-since", At(-5000)), status=304),
    ),
    case(
        "inm-first-not",
        "9110 13.1.3",
        "Beside If-None-Match it is ignored: the tag does not",
        "required",
        tagged(A, MODIFIED),
        app(),
        store(("if-none-match", '"b"'), ("if-modified-since", At(-1)), status=200),
    ),
    case(
        "inm-no-tag",
        "9110 13.1.2",
        "Without a stored tag nothing matches If-None-Match",
        "required",
        ok(FRESH, MODIFIED),
        app(),
        store(("if-none-match", '"b"'), ("if-modified-since", At(-1)), status=200),
    ),
]

ROWS: list[Case] = [*NONE_MATCH, *SINCE]
