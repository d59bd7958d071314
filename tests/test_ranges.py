"""Ranges by the sentences of RFC 9110 s.13.1.5, s.14, s.15.3.7, s.15.5.17: one row, one sentence."""

from __future__ import annotations

import email
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware.core import ranges
from dedup_middleware.core.http import Headers, first

BODY = b"0123456789"
MODIFIED = b"Tue, 15 Nov 1994 12:45:26 GMT"
MODIFIED_AT = 784_903_526
STORED = [
    (b"Date", b"Wed, 16 Nov 1994 12:45:26 GMT"),
    (b"Content-Type", b"text/plain"),
    (b"Content-Length", b"10"),
    (b"etag", b'"a"'),
    (b"last-modified", MODIFIED),
    (b"vary", b"accept"),
    (b"cache-control", b"max-age=60"),
    (b"content-digest", b"sha-256=:x:"),
    (b"access-control-allow-origin", b"*"),
]
each_case = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def ask(value: bytes, body: bytes = BODY, headers: Headers = STORED) -> tuple[int, Headers, bytes] | None:
    return ranges.partial([(b"Range", value)], 200, headers, body, b'"a"', MODIFIED, dated=MODIFIED_AT + 1)


# -- one part --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "span", "part"),
    [
        pytest.param(b"bytes=0-1", b"0-1", b"01", id="14.1.2: first and last"),
        pytest.param(b"bytes=0-0", b"0-0", b"0", id="14.1.2: one byte"),
        pytest.param(b"bytes=8-", b"8-9", b"89", id="14.1.2: to the end"),
        pytest.param(b"bytes=0-", b"0-9", BODY, id="14.1.2: all, asked as a part"),
        pytest.param(b"bytes=-3", b"7-9", b"789", id="14.1.2: the last ones"),
        pytest.param(b"bytes=-99", b"0-9", BODY, id="14.1.2: more last ones than there are"),
        pytest.param(b"bytes=8-99", b"8-9", b"89", id="14.1.2: a last one beyond the end"),
        pytest.param(b"bytes=8-%b" % (b"9" * 5000), b"8-9", b"89", id="14.1.2: far beyond the end"),
        pytest.param(b"bytes=%b1-2" % (b"0" * 5000), b"1-2", b"12", id="14.1.2: leading zeros"),
        pytest.param(b"BYTES=0-1", b"0-1", b"01", id="14.1: the unit in any case"),
        pytest.param(b"bytes= ,\t0-1 ,", b"0-1", b"01", id="5.6.1.2: empty members"),
        pytest.param(b"bytes=10-, 0-1, -0", b"0-1", b"01", id="14.2: the only one that exists"),
    ],
)
def test_one_part_is_sent_with_its_place_and_length(value: bytes, span: bytes, part: bytes) -> None:
    kept = [pair for pair in STORED if pair[0] not in (b"Content-Length", b"content-digest")]
    place = [(b"content-range", b"bytes %b/10" % span), (b"content-length", b"%d" % len(part))]

    assert ask(value) == (206, [*kept, *place], part)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"items=0-1", id="14.2: an unknown unit is ignored"),
        pytest.param(b"bytes 0-1", id="14.1.1: no equals sign"),
        pytest.param(b"bytes =0-1", id="14.1.1: a blank before it"),
        pytest.param(b" bytes=0-1", id="14.1.1: a blank before the unit"),
        pytest.param(b"bytes=", id="14.1.1: nothing"),
        pytest.param(b"bytes=,,", id="14.1.1: no range in the list"),
        pytest.param(b"bytes=-", id="14.1.1: neither first nor last"),
        pytest.param(b"bytes=1", id="14.1.1: no hyphen"),
        pytest.param(b"bytes=2-1", id="14.1.1: the last before the first"),
        pytest.param(b"bytes=0-1,2-1", id="14.1.1: one of several is invalid"),
        pytest.param(b"bytes=0-1;2-3", id="14.1.1: another separator"),
        pytest.param(b"bytes=0 - 1", id="14.1.1: blanks within"),
        pytest.param(b"bytes=--1", id="14.1.1: two hyphens"),
        pytest.param(b"bytes=0x1-2", id="14.1.1: no digits"),
        pytest.param(b"bytes=\xb2-3", id="14.1.1: digits of another alphabet"),
        pytest.param(b"bytes=0-5,3-7", id="14.2: ranges that overlap"),
        pytest.param(b"bytes=-2,9-9", id="14.2: a suffix that overlaps"),
        pytest.param(b"bytes=0-1,0-1", id="14.2: the same twice"),
        pytest.param(b"bytes=" + b"0-0," * 17, id="17.15: too many"),
        pytest.param(b"bytes=" + b"99-," * 17 + b"0-1", id="17.15: too many that do not exist"),
    ],
)
def test_whatever_else_is_asked_is_answered_by_the_whole(value: bytes) -> None:
    assert ask(value) is None


@pytest.mark.parametrize("lines", [[], [b"bytes=0-1", b"bytes=0-1"]], ids=["no range", "two lines"])
def test_a_range_is_one_field_line(lines: list[bytes]) -> None:
    assert ranges.partial([(b"range", line) for line in lines], 200, STORED, BODY, None, None) is None


@pytest.mark.parametrize("status", [203, 206, 301, 404, 500])
def test_only_a_stored_200_has_parts(status: int) -> None:
    assert ranges.partial([(b"range", b"bytes=0-1")], status, STORED, BODY, None, None) is None


# -- none ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"bytes=10-", b"bytes=10-11, 99-", b"bytes=-0", b"bytes=%b-" % (b"9" * 5000)]
)
def test_what_does_not_exist_is_a_416_that_no_cache_takes_for_the_whole(value: bytes) -> None:
    """RFC 9110 s.14.4, s.15.5.17."""
    kept = [STORED[0], STORED[5], STORED[8]]
    place = [(b"content-range", b"bytes */10"), (b"content-length", b"0")]

    assert ask(value) == (416, [*kept, *place], b"")


def test_of_an_empty_body_the_last_bytes_exist_and_no_others() -> None:
    """RFC 9110 s.14.1.2."""
    assert ask(b"bytes=-1", b"") is None
    assert ask(b"bytes=-0, -1", b"") is None
    answer = ask(b"bytes=0-", b"")
    assert answer is not None
    assert (answer[0], first(answer[1], b"content-range")) == (416, b"bytes */0")


# -- If-Range --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "etag", "dated", "holds"),
    [
        pytest.param([], b'"a"', None, True, id="none"),
        pytest.param([b'"a"'], b'"a"', None, True, id="the same strong tag"),
        pytest.param([b'"b"'], b'"a"', None, False, id="another tag"),
        pytest.param([b'W/"a"'], b'"a"', None, False, id="a weak tag of theirs"),
        pytest.param([b'"a"'], b'W/"a"', None, False, id="a weak tag of ours"),
        pytest.param([b'W/"a"'], b'W/"a"', None, False, id="weak tags"),
        pytest.param([b'"a"'], None, None, False, id="no tag to compare"),
        pytest.param([b'"b", "a"'], b'"a"', None, False, id="a list"),
        pytest.param([b'"a"', b'"a"'], b'"a"', None, False, id="two lines"),
        pytest.param([b"*"], b'"a"', None, False, id="a star"),
        pytest.param([b"x"], b'"a"', None, False, id="neither tag nor date"),
        pytest.param([MODIFIED], b'"a"', MODIFIED_AT + 1, True, id="the same date, a second old: strong"),
        pytest.param([MODIFIED], b'"a"', MODIFIED_AT + 0.5, False, id="8.8.2.2: not a second old: weak"),
        pytest.param([MODIFIED], b'"a"', None, False, id="8.8.2.2: nobody knows how old: weak"),
        pytest.param([b"Wed, 16 Nov 1994 12:45:26 GMT"], b'"a"', MODIFIED_AT + 9, False, id="a later date"),
        pytest.param(
            [b"Tuesday, 15-Nov-94 12:45:26 GMT"], None, MODIFIED_AT + 9, False, id="spelled otherwise"
        ),
    ],
)
def test_a_range_counts_where_if_range_names_the_same_bytes(
    lines: list[bytes], etag: bytes | None, dated: float | None, holds: bool
) -> None:
    """RFC 9110 s.13.1.5; where it does not hold, the whole is sent."""
    request = [(b"range", b"bytes=0-1"), *((b"If-Range", line) for line in lines)]

    assert ranges.if_range_holds(lines, etag, MODIFIED, dated) is holds
    answer = ranges.partial(request, 200, STORED, BODY, etag, MODIFIED, dated=dated)
    assert (answer is not None) is holds


@pytest.mark.parametrize("modified", [None, b"yesterday"])
def test_a_date_is_compared_with_a_date(modified: bytes | None) -> None:
    assert not ranges.if_range_holds([modified or MODIFIED], None, modified, MODIFIED_AT + 9)


@pytest.mark.parametrize(
    ("validator", "gone"), [(b'"a"', {b"last-modified"}), (MODIFIED, set())], ids=["tag", "date"]
)
def test_one_who_sends_if_range_is_not_told_again_what_the_representation_is(
    validator: bytes, gone: set[bytes]
) -> None:
    """RFC 9110 s.15.3.7; the validator by which the parts are put together is told (s.15.3.7.3)."""
    more = [
        (b"content-encoding", b"br"),
        (b"Content-Language", b"de"),
        (b"content-location", b"/a"),
        (b"expires", b"0"),
    ]
    request = [(b"range", b"bytes=0-1"), (b"if-range", validator)]
    held = [*STORED, *more]
    told = {b"date", b"etag", b"vary", b"cache-control", b"content-location", b"expires", b"last-modified"}

    whole = ranges.partial(request, 200, held, BODY, b'"a"', MODIFIED, dated=MODIFIED_AT + 1)
    part = ranges.within(
        request, [*held, (b"content-range", b"bytes 0-9/10")], BODY, b'"a"', MODIFIED, dated=MODIFIED_AT + 1
    )

    assert whole is not None
    assert whole == part
    own = {b"access-control-allow-origin", b"content-range", b"content-length"}
    assert {name.lower() for name, _ in whole[1]} == (told - gone) | own


def test_several_parts_say_what_they_are_to_one_who_sends_if_range() -> None:
    """RFC 9110 s.15.3.7.2."""
    request = [(b"range", b"bytes=0-1,4-5"), (b"if-range", b'"a"')]
    answer = ranges.partial(request, 200, STORED, BODY, b'"a"', MODIFIED)

    assert answer is not None
    assert (first(answer[1], b"content-type") or b"").startswith(b"multipart/byteranges")
    assert answer[2].count(b"Content-Type: text/plain") == 2
    assert first(answer[1], b"last-modified") is None


def test_where_if_range_does_not_hold_nothing_is_unsatisfiable() -> None:
    """RFC 9110 s.13.1.5, s.14.2."""
    request = [(b"range", b"bytes=99-"), (b"if-range", b'"b"')]
    assert ranges.partial(request, 200, STORED, BODY, b'"a"', None) is None


# -- several parts ---------------------------------------------------------------------------------------------------


def test_several_parts_are_sent_in_the_order_in_which_they_were_asked_for() -> None:
    """RFC 9110 s.14.6, s.15.3.7.2."""
    answer = ask(b"bytes=-1, 0-1")
    assert answer is not None
    status, headers, content = answer
    separator = hashlib.sha256(BODY).hexdigest()[:32].encode()

    assert status == 206
    assert content == (
        b"--%b\r\nContent-Type: text/plain\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n"
        b"--%b\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n"
        b"--%b--\r\n" % (separator, separator, separator)
    )
    kept = [STORED[0], *STORED[3:7], STORED[8]]
    kind = (b"content-type", b"multipart/byteranges; boundary=" + separator)
    assert headers == [*kept, kind, (b"content-length", b"%d" % len(content))]


def test_parts_of_nothing_known_say_no_type() -> None:
    answer = ask(b"bytes=0-0, 2-2", headers=[])
    assert answer is not None
    assert b"Content-Type" not in answer[2]


def test_parts_of_coded_bytes_are_not_put_together() -> None:
    coded = [*STORED, (b"Content-Encoding", b"gzip")]
    one = ask(b"bytes=0-1", headers=coded)
    assert one is not None
    assert (one[2], first(one[1], b"content-encoding")) == (b"01", b"gzip")
    assert ask(b"bytes=0-1, 3-4", headers=coded) is None


def test_sixteen_parts_are_sent() -> None:
    answer = ask(b"bytes=" + b",".join(b"%d-%d" % (at, at) for at in range(0, 32, 2)), bytes(32))
    assert answer is not None
    assert answer[2].count(b"Content-Range") == ranges.MOST_RANGES == 16


def test_a_separator_does_not_occur_in_the_body() -> None:
    """RFC 2046 s.5.1.1."""
    given = b"0" * 32
    following = hashlib.sha256(given).hexdigest()[:32].encode()
    last = hashlib.sha256(following).hexdigest()[:32].encode()

    assert ranges.boundary(given, b"") == given
    assert ranges.boundary(given, b"x" + given) == following
    assert ranges.boundary(given, given + following) == last
    assert ranges.boundary(b"", b"x") == ranges.boundary(b"", b"x") != ranges.boundary(b"", b"y")


# -- laws ------------------------------------------------------------------------------------------------------------

Spec = tuple[int | None, int | None]
POSITION = st.integers(0, 40)
SPEC: st.SearchStrategy[Spec] = st.one_of(
    st.tuples(POSITION, POSITION).map(lambda two: (min(two), max(two))),
    st.tuples(POSITION, st.none()),
    st.tuples(st.none(), POSITION),
)
SPECS = st.lists(SPEC, min_size=1, max_size=ranges.MOST_RANGES)


def spelled(specs: list[Spec]) -> bytes:
    texts = ("-".join("" if one is None else str(one) for one in spec) for spec in specs)
    return b"bytes=" + ", ".join(texts).encode()


@each_case
@given(SPECS)
def test_what_was_written_is_read(specs: list[Spec]) -> None:
    assert ranges.parse(spelled(specs)) == specs


@each_case
@given(SPECS, st.binary(max_size=32))
def test_every_part_is_the_slice_that_it_names(specs: list[Spec], body: bytes) -> None:
    def plain(start: int | None, end: int | None) -> bytes:
        if start is None:
            return body[-(end or 0) :] if end else b""
        return body[start:] if end is None else body[start : end + 1]

    wanted = [text for spec in specs if (text := plain(*spec))]
    answer = ranges.partial([(b"range", spelled(specs))], 200, [(b"content-type", b"a/b")], body, None, None)
    if answer is None:
        parts = ranges.satisfiable(specs, len(body))
        assert sum(map(len, wanted)) > len({at for part in parts for at in range(*part)}) or not body
        return
    status, headers, content = answer
    said = dict(headers)
    assert int(said[b"content-length"]) == len(content)
    if status == 416:
        assert wanted == []
    elif len(wanted) == 1:
        assert [content] == wanted
    else:
        message = email.message_from_bytes(b"Content-Type: %b\r\n\r\n%b" % (said[b"content-type"], content))
        found = message.get_payload()
        spans = [part["content-range"].removeprefix("bytes ").partition("/")[0].split("-") for part in found]  # type: ignore[index] # a multipart message
        assert [body[int(begin) : int(end) + 1] for begin, end in spans] == wanted
        assert all(content.count(b"\r\n\r\n" + text + b"\r\n--") for text in wanted)


@each_case
@given(SPEC, st.binary(min_size=1, max_size=32), POSITION, POSITION)
def test_a_stored_part_answers_as_the_whole_would_where_it_holds_what_is_asked_and_else_not_at_all(
    spec: Spec, body: bytes, one: int, other: int
) -> None:
    # RFC 9111 s.3.3
    begin, end = (at % len(body) for at in (one, other))
    begin, end = min(begin, end), max(begin, end)
    asked = [(b"range", spelled([spec]))]
    kind = (b"content-type", b"a/b")
    span = (b"content-range", b"bytes %d-%d/%d" % (begin, end, len(body)))

    of_part = ranges.within(asked, [kind, span], body[begin : end + 1], None, None)
    of_whole = ranges.partial(asked, 200, [kind], body, None, None)

    wanted = ranges.satisfiable([spec], len(body))
    held = bool(wanted) and begin <= wanted[0][0] and wanted[0][1] <= end + 1
    assert of_part == (of_whole if held else None)


@pytest.mark.parametrize(
    ("lines", "body", "found"),
    [
        pytest.param([b"bytes 2-4/10"], b"234", ((2, 5), 10), id="14.4: all that is said"),
        pytest.param([b"Bytes 2-4/*"], b"234", ((2, 5), None), id="14.4: of an unknown length"),
        pytest.param([b"\tbytes 2-4/10 "], b"234", ((2, 5), 10), id="5.5: blanks around it"),
        pytest.param([b"bytes 2-4/10"], b"23", ((2, 4), 10), id="less than is said: the first of them"),
        pytest.param([b"bytes 2-4/10"], b"2345", None, id="more than is said"),
        pytest.param([b"bytes 2-4/4"], b"234", None, id="14.4: past the end"),
        pytest.param([b"bytes 4-2/10"], b"", None, id="14.4: the last before the first"),
        pytest.param([b"bytes */10"], b"", None, id="14.4: of a 416"),
        pytest.param([b"lines 2-4/10"], b"234", None, id="14.4: another unit"),
        pytest.param([b"bytes 2-4/10", b"bytes 2-4/10"], b"234", None, id="two lines"),
        pytest.param([b"bytes 2-%b/*" % (b"9" * 30)], b"234", None, id="no body is so long"),
        pytest.param([], b"234", None, id="15.3.7.2: several parts, or none said"),
    ],
)
def test_a_206_holds_what_it_says_that_it_encloses(
    lines: list[bytes], body: bytes, found: tuple[tuple[int, int], int | None] | None
) -> None:
    assert ranges.enclosed([(b"Content-Range", line) for line in lines], body) == found
