"""Parts of a stored response (RFC 9110 s.14, s.15.3.7, s.15.5.17)."""

from __future__ import annotations

import re

from ..case import Case, Level, app, case, ok, store
from .given import FRESH, TAG, TEN


def part(name: str, sentence: str, asked: str, body: str, where: str, level: Level = "optional") -> Case:
    """A range from the stored whole."""
    return case(
        name,
        "9110 14.2",
        sentence,
        level,
        TEN,
        app(),
        store(
            ("range", asked),
            status=206,
            body=body,
            has={
                "content-range": where,
                "content-length": str(len(body)),
                "etag": '"a"',
                "content-type": "text/plain",
            },
        ),
    )


SINGLE = [
    part(
        "range-first-last",
        "A range of a stored whole response is answered from it",
        "bytes=2-4",
        "234",
        "bytes 2-4/10",
    ),
    part(
        "range-one",
        "A range of a single byte is answered from the stored whole",
        "bytes=0-0",
        "0",
        "bytes 0-0/10",
    ),
    part("range-open", "An open range is answered from the stored whole", "bytes=7-", "789", "bytes 7-9/10"),
    part("range-suffix", "A suffix is answered from the stored whole", "bytes=-3", "789", "bytes 7-9/10"),
    part(
        "range-suffix-long",
        "A suffix longer than the whole is the whole",
        "bytes=-99",
        "0123456789",
        "bytes 0-9/10",
    ),
    part("range-past-end", "A range past the end is cut there", "bytes=8-99", "89", "bytes 8-9/10"),
    part("range-whole", "The whole may be asked for as a range", "bytes=0-", "0123456789", "bytes 0-9/10"),
    part("range-unit-case", "The unit of a range is read in any case", "Bytes=2-4", "234", "bytes 2-4/10"),
    part(
        "range-huge",
        "A range has numbers too large for an integer",
        f"bytes=8-{'9' * 30}",
        "89",
        "bytes 8-9/10",
    ),
    part(
        "range-members-empty",
        "Empty members of a list of ranges are none",
        "bytes=, 2-4,",
        "234",
        "bytes 2-4/10",
    ),
]


def whole(
    name: str, sentence: str, *asked: tuple[str, str], level: Level = "required", section: str = "9110 14.2"
) -> Case:
    """The whole response, whatever Range says."""
    return case(
        name,
        section,
        sentence,
        level,
        TEN,
        app(),
        store(*asked, status=200, body="0123456789", lacks=("content-range",)),
    )


WHOLE = [
    whole("range-unit-unknown", "A unit that is not understood is ignored", ("range", "lines=1-2")),
    whole(
        "range-invalid",
        "A range that is not in the grammar is ignored",
        ("range", "bytes=a-b"),
        level="supported",
    ),
    whole("range-reversed", "A range that ends before it begins is ignored", ("range", "bytes=4-2")),
    whole(
        "range-no-equals",
        "A range without its equals sign is ignored",
        ("range", "bytes 2-4"),
        level="supported",
    ),
    whole("range-negative", "A range with two signs is ignored", ("range", "bytes=--2"), level="supported"),
    whole(
        "range-many",
        "More than sixteen ranges get the whole: they cost more than they bring",
        ("range", "bytes=" + ",".join(f"{n % 10}-{n % 10}" for n in range(17))),
        level="supported",
    ),
    whole(
        "if-range-other",
        "If-Range with another tag gets the whole",
        ("range", "bytes=2-4"),
        ("if-range", '"b"'),
        section="9110 13.1.5",
    ),
    whole(
        "if-range-weak",
        "A weak tag in If-Range never matches",
        ("range", "bytes=2-4"),
        ("if-range", 'W/"a"'),
        section="9110 13.1.5",
    ),
]


def _part(content: str, where: str) -> str:
    return rf"(?i:content-type): text/plain\r\n(?i:content-range): bytes {where}/10\r\n\r\n{content}\r\n"


TWO_PARTS = re.compile(
    r"(?:\r\n)?--(.+)\r\n" + _part("01", "0-1") + r"--\1\r\n" + _part("89", "8-9") + r"--\1--(?:\r\n)?"
)
MULTIPART = [
    case(
        "range-overlap",
        "9110 14.2",
        "Ranges that overlap get the whole: they ask for more than there is",
        "supported",
        TEN,
        app(),
        store(("range", "bytes=0-5,3-8,0-9"), status=200, body="0123456789"),
    ),
    case(
        "range-two",
        "9110 15.3.7.2",
        "Several ranges are multipart/byteranges, each part with its place",
        "optional",
        TEN,
        app(),
        store(
            ("range", "bytes=0-1,8-9"),
            status=206,
            lacks=("content-range",),
            has={"content-type": re.compile("multipart/byteranges; boundary=.+")},
            body=TWO_PARTS,
        ),
    ),
    case(
        "range-two-one-out",
        "9110 14.2",
        "Of several ranges those past the end are left out",
        "optional",
        TEN,
        app(),
        store(("range", "bytes=0-1,20-30"), status=206),
    ),
]

UNSATISFIED = [
    case(
        "range-416",
        "9110 15.5.17",
        "A range past the end gets a 416, with the length",
        "optional",
        TEN,
        app(),
        store(("range", "bytes=10-"), status=416, has={"content-range": "bytes */10"}),
    ),
    case(
        "range-416-suffix",
        "9110 14.1.2",
        "A suffix of no bytes gets a 416",
        "optional",
        TEN,
        app(),
        store(("range", "bytes=-0"), status=416, has={"content-range": "bytes */10"}),
    ),
    case(
        "range-416-empty",
        "9110 14.1.2",
        "Any range of an empty response gets a 416",
        "supported",
        ok(FRESH, TAG, body=""),
        app(),
        store(("range", "bytes=0-"), status=416),
    ),
    case(
        "range-416-then",
        "9110 15.5.17",
        "It changes nothing of what is stored",
        "required",
        TEN,
        app(),
        store(("range", "bytes=10-"), status=416),
        store(body="0123456789"),
    ),
]

ROWS: list[Case] = [*SINGLE, *WHOLE, *MULTIPART, *UNSATISFIED]
