"""Conditional requests by the sentences of RFC 9110 s.13 and RFC 9111 s.3.2, s.4.3: one row, one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware.core.conditional import (
    NOT_IN_304,
    agrees,
    confirms,
    entity_tag,
    freshened,
    not_modified,
    validators,
)
from dedup_middleware.core.fields import is_etag
from dedup_middleware.core.http import Headers
from dedup_middleware.core.names import HOP_BY_HOP, ONE_EXCHANGE

EARLY, MIDDLE, LATE = (b"Mon, %d Nov 1994 12:45:26 GMT" % day for day in (14, 15, 16))
AT_MIDDLE = 784_903_526
each_case = settings(max_examples=100, derandomize=True, deadline=None, database=None)


def inm(*lines: bytes) -> Headers:
    return [(b"If-None-Match", line) for line in lines]


def ims(*lines: bytes) -> Headers:
    return [(b"if-modified-since", line) for line in lines]


# -- what a client's validators say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_fields", "etag", "last_modified"),
    [
        pytest.param(inm(b'"a"'), b'"a"', None, id="9110 13.1.2: the tag is listed"),
        pytest.param(inm(b'W/"a"'), b'"a"', None, id="9110 13.1.2: weak comparison, theirs is weak"),
        pytest.param(inm(b'"a"'), b'W/"a"', None, id="9110 13.1.2: weak comparison, ours is weak"),
        pytest.param(inm(b'"x", "a"'), b'"a"', None, id="9110 5.6.1: a list"),
        pytest.param(inm(b',, "x"\t,W/"a" ,'), b'"a"', None, id="9110 5.6.1.2: empty members"),
        pytest.param(inm(b'"x"', b'"a"'), b'"a"', None, id="9110 5.3: several lines"),
        pytest.param(inm(b'"a,b"'), b'"a,b"', None, id="9110 8.8.3: a comma within a tag"),
        pytest.param(inm(b'"\xc3\xbc"'), b'"\xc3\xbc"', None, id="9110 8.8.3: obs-text within a tag"),
        pytest.param(inm(b'""'), b'""', None, id="9110 8.8.3: the empty tag"),
        pytest.param(inm(b"*"), b'"a"', None, id="9110 13.1.2: any representation"),
        pytest.param(inm(b" * "), None, None, id="9110 13.1.2: any, of a response without validators"),
        pytest.param(inm(b'"a"') + ims(EARLY), b'"a"', LATE, id="9110 13.1.3: the date is ignored"),
        pytest.param(ims(MIDDLE), None, MIDDLE, id="9110 13.1.3: the same date"),
        pytest.param(ims(LATE), b'"a"', MIDDLE, id="9110 13.1.3: a later date"),
        pytest.param(ims(b"Tuesday, 15-Nov-94 12:45:26 GMT"), None, MIDDLE, id="9110 5.6.7: RFC 850"),
        pytest.param(ims(b"Tue Nov 15 12:45:26 1994"), None, MIDDLE, id="9110 5.6.7: asctime"),
        pytest.param(ims(MIDDLE), None, None, id="9111 4.3.2: the response's Date, or when it came"),
    ],
)
def test_a_stored_response_that_the_client_has_is_not_sent_again(
    request_fields: Headers, etag: bytes | None, last_modified: bytes | None
) -> None:
    for method in ("GET", "HEAD"):
        assert not_modified(
            method, 200, request_fields, etag, last_modified, dated=AT_MIDDLE, now=AT_MIDDLE + 1
        )


@pytest.mark.parametrize(("year", "unchanged"), [("94", True), ("93", False), ("45", False)])
def test_a_year_of_two_digits_is_read_without_a_clock_too_and_never_as_later_than_it_may_be(
    year: str, unchanged: bool
) -> None:
    """RFC 9110 s.5.6.7: all three formats must be accepted; 45 is 1945 to what was modified in 1994."""
    asked = ims(f"Tuesday, 15-Nov-{year} 12:45:26 GMT".encode())

    assert not_modified("GET", 200, asked, None, MIDDLE) is unchanged
    assert not not_modified("GET", 200, asked, None, None)


@pytest.mark.parametrize(
    ("request_fields", "etag", "last_modified"),
    [
        pytest.param([], b'"a"', MIDDLE, id="9110 13.2: no precondition"),
        pytest.param([(b"if-match", b'"b"')], b'"a"', MIDDLE, id="9111 4.3.2: If-Match is not for caches"),
        pytest.param(
            [(b"if-unmodified-since", EARLY)], None, MIDDLE, id="9111 4.3.2: nor If-Unmodified-Since"
        ),
        pytest.param(inm(b'"b"'), b'"a"', None, id="9110 13.1.2: another tag"),
        pytest.param(inm(b'"a"'), None, MIDDLE, id="9110 13.1.2: no tag to compare"),
        pytest.param(inm(b'"A"'), b'"a"', None, id="9110 8.8.3: tags are opaque"),
        pytest.param(inm(b'w/"a"'), b'"a"', None, id="9110 8.8.3: W is a capital"),
        pytest.param(inm(b"a"), b'"a"', None, id="9110 8.8.3: no quotes"),
        pytest.param(inm(b'"a'), b'"a"', None, id="9110 8.8.3: open quotes"),
        pytest.param(inm(b'"x "a"'), b'"a"', None, id="9110 8.8.3: a blank within a tag"),
        pytest.param(inm(b""), b'"a"', MIDDLE, id="9110 13.1.2: an empty list"),
        pytest.param(inm(b'*, "b"'), b'"a"', None, id="9110 13.1.2: a star in a list"),
        pytest.param(inm(b"*", b'"b"'), b'"a"', None, id="9110 13.1.2: a star beside another line"),
        pytest.param(inm(b'"b"') + ims(LATE), b'"a"', MIDDLE, id="9110 13.1.3: the date is ignored"),
        pytest.param(ims(EARLY), b'"a"', MIDDLE, id="9110 13.1.3: changed since"),
        pytest.param(ims(EARLY), b'"a"', None, id="9111 4.3.2: made since"),
        pytest.param(ims(b"yesterday"), None, MIDDLE, id="9110 13.1.3: no date"),
        pytest.param(ims(LATE, LATE), None, MIDDLE, id="9110 13.1.3: more than one date"),
        pytest.param(ims(LATE + b", " + LATE), None, MIDDLE, id="9110 13.1.3: more than one member"),
        pytest.param(ims(LATE), None, b"yesterday", id="9110 13.1.3: no modification date"),
    ],
)
def test_every_other_response_is_sent(
    request_fields: Headers, etag: bytes | None, last_modified: bytes | None
) -> None:
    assert not not_modified(
        "GET", 200, request_fields, etag, last_modified, dated=AT_MIDDLE, now=AT_MIDDLE + 1
    )


def test_without_a_date_of_its_own_or_a_time_of_storing_no_date_matches() -> None:
    assert not not_modified("GET", 200, ims(LATE), b'"a"', None)


@pytest.mark.parametrize(("method", "status"), [("POST", 200), ("GET", 404), ("GET", 416)])
def test_only_a_200_or_206_to_a_safe_method_becomes_a_304(method: str, status: int) -> None:
    assert not not_modified(method, status, inm(b'"a"'), b'"a"', None)


def test_a_304_keeps_what_a_200_would_say_of_caching() -> None:
    """RFC 9110 s.15.4.5."""
    assert NOT_IN_304.isdisjoint(b"content-location date etag vary cache-control expires".split())


# -- asking the app --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etag", "last_modified", "asked"),
    [
        (b'W/"a"', MIDDLE, [(b"if-none-match", b'W/"a"'), (b"if-modified-since", MIDDLE)]),
        (b'"a"', None, [(b"if-none-match", b'"a"')]),
        (None, MIDDLE, [(b"if-modified-since", MIDDLE)]),
        (None, None, []),
    ],
)
def test_the_app_is_asked_about_every_validator_that_it_gave(
    etag: bytes | None, last_modified: bytes | None, asked: Headers
) -> None:
    """RFC 9111 s.4.3.1."""
    assert validators(etag, last_modified) == asked
    assert not asked or not_modified("GET", 200, asked, etag, last_modified)


A, B, WEAK_A, WEAK_B = b'"a"', b'"b"', b'W/"a"', b'W/"b"'


@pytest.mark.parametrize(
    ("stored", "answer", "confirmed"),
    [
        pytest.param((A, MIDDLE), (A, MIDDLE), True, id="the same strong tag"),
        pytest.param((A, MIDDLE), (A, LATE), True, id="the same strong tag, whatever the date"),
        pytest.param((A, MIDDLE), (B, MIDDLE), False, id="another strong tag, whatever the date"),
        pytest.param((WEAK_A, None), (A, None), False, id="a strong tag that only weakly matches"),
        pytest.param((None, MIDDLE), (A, MIDDLE), False, id="a strong tag that nothing stored has"),
        pytest.param((WEAK_A, None), (WEAK_A, None), True, id="the same weak tag"),
        pytest.param((A, None), (WEAK_A, LATE), True, id="a weak tag that weakly matches"),
        pytest.param((A, MIDDLE), (WEAK_B, MIDDLE), False, id="another weak tag, whatever the date"),
        pytest.param((None, MIDDLE), (WEAK_A, MIDDLE), True, id="a weak tag to compare with none: the date"),
        pytest.param((None, MIDDLE), (WEAK_A, None), False, id="a weak tag to compare with nothing"),
        pytest.param((A, MIDDLE), (None, MIDDLE), True, id="the same date"),
        pytest.param((A, MIDDLE), (None, LATE), False, id="another date"),
        pytest.param((A, None), (None, MIDDLE), False, id="a date to compare with none"),
        pytest.param((A, MIDDLE), (None, None), True, id="nothing: it can mean no other"),
    ],
)
def test_a_304_confirms_what_it_names(
    stored: tuple[bytes | None, bytes | None], answer: tuple[bytes | None, bytes | None], confirmed: bool
) -> None:
    """RFC 9111 s.4.3.4."""
    assert confirms(*stored, *answer) is confirmed


@pytest.mark.parametrize(
    ("answer", "agreed"),
    [
        pytest.param((A, MIDDLE, 5), True, id="all the same"),
        pytest.param((None, None, None), True, id="nothing said"),
        pytest.param((A, None, None), True, id="only the tag"),
        pytest.param((None, None, 5), True, id="only the length"),
        pytest.param((B, MIDDLE, 5), False, id="another tag"),
        pytest.param((A, LATE, 5), False, id="another date"),
        pytest.param((A, MIDDLE, 6), False, id="another length"),
    ],
)
def test_a_head_agrees_when_whatever_it_says_is_the_same(
    answer: tuple[bytes | None, bytes | None, int | None], agreed: bool
) -> None:
    """RFC 9111 s.4.3.5."""
    assert agrees(A, MIDDLE, 5, *answer) is agreed


# -- a tag of our own ------------------------------------------------------------------------------------------------

HTML, GZIP = (b"Content-Type", b"text/html"), (b"content-encoding", b"gzip")
REPRESENTATIONS: list[tuple[Headers, bytes]] = [
    ([], b""),
    ([], b"x"),
    ([], b"9:text/html0:"),
    ([HTML], b""),
    ([HTML], b"x"),
    ([(b"content-type", b"text/htmlx")], b""),
    ([GZIP], b""),
    ([HTML, GZIP], b"x"),
    ([(b"content-type", b"gzip")], b""),
    ([(b"content-encoding", b"text/html")], b""),
]


def test_two_representations_have_two_strong_tags_and_one_has_one() -> None:
    """RFC 9110 s.8.8.1, s.8.8.3.3."""
    tags = [entity_tag(headers, body) for headers, body in REPRESENTATIONS]
    assert len(set(tags)) == len(tags)
    assert all(is_etag(tag) and not tag.startswith(b"W/") for tag in tags)
    more = [(b"date", MIDDLE), GZIP, (b"content-type", b"text/html"), (b"x-own", b"1")]
    assert entity_tag(more, b"x") == entity_tag([HTML, GZIP], b"x")


# -- updating stored fields ------------------------------------------------------------------------------------------

STORED = [
    (b"ETag", A),
    (b"cache-control", b"max-age=1"),
    (b"x-old", b"1"),
    (b"link", b"</a>"),
    (b"content-length", b"5"),
    (b"link", b"</b>"),
    (b"age", b"7"),
    (b"content-type", b"text/plain"),
]


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        pytest.param([], [*STORED[:6], STORED[7]], id="3.2: what is not renewed stays, but for Age"),
        pytest.param(
            [(b"Cache-Control", b"max-age=9"), (b"Date", MIDDLE)],
            [STORED[0], (b"Cache-Control", b"max-age=9"), *STORED[2:6], STORED[7], (b"Date", MIDDLE)],
            id="3.2: in the place of the old, or at the end",
        ),
        pytest.param(
            [(b"Link", b"</c>"), (b"link", b"</d>")],
            [*STORED[:3], (b"Link", b"</c>"), (b"link", b"</d>"), STORED[4], STORED[7]],
            id="3.2: all lines of a field for all lines",
        ),
        pytest.param(
            [(b"age", b"2")], [*STORED[:6], (b"age", b"2"), STORED[7]], id="4.2.3: the Age of the update"
        ),
        pytest.param(
            [(b"Content-Length", b"0"), (b"content-encoding", b"gzip"), (b"content-range", b"bytes 0-1/5")],
            [*STORED[:6], STORED[7]],
            id="3.2: nothing about the stored bytes",
        ),
        pytest.param(
            [(b"content-digest", b"x"), (b"content-md5", b"x")],
            [*STORED[:6], STORED[7]],
            id="3.2: nor about a body that is not there",
        ),
        pytest.param(
            [(b"connection", b"x-old, close"), (b"X-Old", b"2"), (b"keep-alive", b"1"), (b"TE", b"x")],
            [*STORED[:6], STORED[7]],
            id="3.1: nothing of one connection",
        ),
        pytest.param(
            [(b"content-location", b"/c"), (b"content-language", b"en"), (b"content-security-policy", b"x")],
            [
                *STORED[:6],
                STORED[7],
                (b"content-location", b"/c"),
                (b"content-language", b"en"),
                (b"content-security-policy", b"x"),
            ],
            id="3.2: the prefix Content- says nothing",
        ),
    ],
)
def test_an_update_replaces_the_fields_that_it_has(update: Headers, expected: Headers) -> None:
    assert freshened(STORED, update) == expected


NAMES = [b"a", b"A", b"b", b"age", b"connection", b"content-length", b"etag", b"keep-alive", b"x-request-id"]
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([b"1", b"2", b"b", b"c"])), max_size=8)


@each_case
@given(PAIRS, PAIRS)
def test_after_an_update_every_field_has_the_lines_of_one_message(stored: Headers, update: Headers) -> None:
    result = freshened(stored, update)

    def lines(headers: Headers, name: bytes) -> list[bytes]:
        return [value for key, value in headers if key.lower() == name]

    named = {value for key, value in update if key == b"connection"}
    for name in {key.lower() for key, _ in stored + update}:
        refused = name in named | HOP_BY_HOP | ONE_EXCHANGE | {b"content-length"}
        renewed = [] if refused else lines(update, name)
        kept = [] if name == b"age" else lines(stored, name)
        assert lines(result, name) == (renewed or kept)
    assert freshened(result, update) == result
