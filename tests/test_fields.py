"""Cache-Control, CDN-Cache-Control, dates and ages by the sentences of their RFCs: one row, one sentence."""

from __future__ import annotations

import datetime as dt
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware.core import fields, ranges, structured
from dedup_middleware.core.fields import LONGEST, Directives, directives, http_date, targeted_directives

each_case = settings(max_examples=100, derandomize=True, deadline=None, database=None)

# -- Cache-Control ---------------------------------------------------------------------------------------------------


def said(*pairs: tuple[bytes, bytes | None]) -> Directives:
    return Directives(pairs)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], said(), id="5.2: nothing"),
        pytest.param([b""], said(), id="9110 5.6.1: an empty field"),
        pytest.param([b"public"], said((b"public", None)), id="5.2: a name"),
        pytest.param([b"No-Store"], said((b"no-store", None)), id="5.2: in any case"),
        pytest.param([b"max-age=60"], said((b"max-age", b"60")), id="5.2: a token as argument"),
        pytest.param([b'max-age="60"'], said((b"max-age", b"60")), id="5.2: a quoted string as well"),
        pytest.param([b'x="a\\"b\\\\"'], said((b"x", b'a"b\\')), id="9110 5.6.4: escapes"),
        pytest.param([b'x="a,b", y=1'], said((b"x", b"a,b"), (b"y", b"1")), id="9110 5.6.4: a quoted comma"),
        pytest.param([b'x="max-age=9"'], said((b"x", b"max-age=9")), id="9110 5.6.4: a quoted directive"),
        pytest.param([b'x=""'], said((b"x", b"")), id="9110 5.6.4: an empty quoted string"),
        pytest.param([b",\t, a ,,b ,"], said((b"a", None), (b"b", None)), id="9110 5.6.1: empty members"),
        pytest.param([b"a", b"b=1"], said((b"a", None), (b"b", b"1")), id="9110 5.3: several lines"),
        pytest.param([b"x=1, X=2"], said((b"x", b"1")), id="5.2.3: of an unknown one the first"),
        pytest.param([b"immutable, a.b=c"], said((b"immutable", None), (b"a.b", b"c")), id="5.2.3: unknown"),
        pytest.param([b"max-age=9, max-age=5"], said((b"max-age", b"5")), id="4.2.1: the least"),
        pytest.param([b"max-age=5", b"max-age=9"], said((b"max-age", b"5")), id="4.2.1: the least, of lines"),
        pytest.param([b"max-age=9, max-age=x"], said((b"max-age", b"0")), id="4.2.1: one is no number"),
        pytest.param([b"stale-if-error=9, stale-if-error=5"], said((b"stale-if-error", b"5")), id="5861 4"),
        pytest.param([b"min-fresh=5, min-fresh=9"], said((b"min-fresh", b"9")), id="5.2.1.3: the most"),
        pytest.param([b"min-fresh=9, min-fresh=5"], said((b"min-fresh", b"9")), id="5.2.1.3: in any order"),
        pytest.param([b"min-fresh=x"], said((b"min-fresh", b"2147483648")), id="5.2.1.3: no number"),
        pytest.param([b"max-stale"], said((b"max-stale", b"2147483648")), id="5.2.1.2: however stale"),
        pytest.param([b"max-stale, max-stale=5"], said((b"max-stale", b"5")), id="5.2.1.2: no more than"),
        pytest.param([b"max-stale=x"], said((b"max-stale", b"0")), id="5.2.1.2: no number"),
        pytest.param([b'no-cache="B, a"'], said((b"no-cache", b"a,b")), id="5.2.2.4: of some fields"),
        pytest.param([b"no-cache=a"], said((b"no-cache", b"a")), id="5.2.2.4: as a token"),
        pytest.param([b'no-cache="a", no-cache'], said((b"no-cache", None)), id="5.2.2.4: the whole is more"),
        pytest.param([b'private, private="a"'], said((b"private", None)), id="5.2.2.7: in any order"),
        pytest.param([b"private=a", b'private="a,c"'], said((b"private", b"a,c")), id="5.2.2.7: united"),
        pytest.param([b'private=""'], said((b"private", None)), id="5.2.2.7: of no fields is of all"),
        pytest.param([b'private="a b"'], said((b"private", None)), id="5.2.2.7: no field name"),
        pytest.param([b"private=*"], said((b"private", None)), id="5.2.2.7: a star is all fields"),
    ],
)
def test_cache_control_is_read_by_its_grammar(lines: list[bytes], expected: Directives) -> None:
    """RFC 9111, where nothing else is said."""
    assert directives(lines) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"max-age =60", {b"max-age": b"0"}),
        (b"max-age= 60", {b"max-age": b"0"}),
        (b"max-age=", {b"max-age": b"0"}),
        (b"max-age: 60", {b"max-age": b"0"}),
        (b"max-age=60;", {b"max-age": b"0"}),
        (b"s-maxage=@", {b"s-maxage": b"0"}),
        (b"max-age=60 no-store", {b"max-age": b"0", b"no-store": None}),
        (b"no-store; x", {b"no-store": None}),
        (b"public no-cache", {b"no-cache": None}),
        (b"a b, max-age=5, public", {b"max-age": b"5", b"public": None}),
        (b'"no-store"', {b"no-store": None}),
        (b'x="a, private, max-age=9', {b"private": None, b"max-age": b"0"}),
        (b'x="a\\', {}),
        (b'x="a"b, must-revalidate;', {b"proxy-revalidate": None}),
        (b"public;, a/b, =", {}),
    ],
)
def test_what_is_not_in_the_grammar_counts_for_what_it_forbids(
    line: bytes, expected: dict[bytes, bytes | None]
) -> None:
    assert directives([line]) == expected


@pytest.mark.parametrize(
    ("argument", "number"),
    [
        (b"0", 0),
        (b"60", 60),
        (b"0060", 60),
        (b"2147483647", 2**31 - 1),
        (b"2147483648", LONGEST),
        (b"99999999999", LONGEST),
        (b"9" * 100_000, LONGEST),
        (b"0" * 100_000 + b"7", 7),
        (b"-1", 0),
        (b"+1", 0),
        (b"1.0", 0),
        (b"1e3", 0),
        (b"'60'", 0),
        (b"60s", 0),
        (b'" 60"', 0),
        (b'"60 "', 0),
        (b'"\\"60\\""', 0),
        (b"\xb2", 0),
    ],
)
def test_delta_seconds_are_digits_and_have_a_largest_value(argument: bytes, number: int) -> None:
    """RFC 9111 s.1.2.2, s.4.2.1."""
    assert directives([b"max-age=%b" % argument]).seconds(b"max-age") == number


def test_what_is_said_can_be_asked() -> None:
    found = directives([b'no-cache="Set-Cookie, x", private, max-age=5, x=y'])

    assert found.names(b"no-cache") == {b"set-cookie", b"x"}
    assert not found.bare(b"no-cache")
    assert found.bare(b"private")
    assert found.names(b"private") == found.names(b"public") == frozenset()
    assert not found.bare(b"public")
    assert (found.seconds(b"max-age"), found.seconds(b"s-maxage"), found.seconds(b"x")) == (5, None, None)


@pytest.mark.parametrize("directive", [b"private", b"no-cache"])
def test_the_names_of_very_many_directives_never_cost_their_square(directive: bytes) -> None:
    few = b",".join(b'%b="x%d"' % (directive, number) for number in range(fields.MOST_NAMES))
    many = b'%b,%b="more"' % (few, directive)

    assert len(directives([few]).names(directive)) == fields.MOST_NAMES
    assert directives([many]).bare(directive), "more than a response has fields: the whole of it"
    assert directives([many, few]).bare(directive)


NAMES = st.sampled_from(
    b"max-age s-maxage stale-if-error max-stale min-fresh no-cache private no-store public x".split()
)
ARGUMENTS = st.none() | st.sampled_from([b"0", b"5", b"70", b"x", b"", b"a,b", b"a, C", b'"', b"\\", b"a b"])
MEMBERS = st.lists(st.tuples(NAMES, ARGUMENTS), max_size=6)


def spelled(members: list[tuple[bytes, bytes | None]]) -> list[bytes]:
    def quoted(text: bytes) -> bytes:
        return b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", text)

    return [name if text is None else b"%b=%b" % (name, quoted(text)) for name, text in members]


@each_case
@given(MEMBERS, st.randoms(use_true_random=False))
def test_lines_and_order_change_nothing_of_what_restricts(
    members: list[tuple[bytes, bytes | None]], random: object
) -> None:
    known = [member for member in members if member[0] != b"x"]
    texts = spelled(known)
    found = directives(texts)
    random.shuffle(texts)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert directives([b", ".join(texts)]) == directives(texts)
    assert {name: found.seconds(name) for name in fields._NUMERIC} == {
        name: directives(texts).seconds(name) for name in fields._NUMERIC
    }
    for name in (b"no-cache", b"private"):
        assert (found.bare(name), found.names(name)) == (
            directives(texts).bare(name),
            directives(texts).names(name),
        )


@each_case
@given(MEMBERS, MEMBERS)
def test_saying_more_never_shares_more(
    few: list[tuple[bytes, bytes | None]], more: list[tuple[bytes, bytes | None]]
) -> None:
    before, after = directives(spelled(few)), directives(spelled(few + more))
    assert before.keys() <= after.keys()
    for name in before.keys() & fields._NUMERIC:
        smaller, larger = (after, before) if name != b"min-fresh" else (before, after)
        assert (smaller.seconds(name) or 0) <= (larger.seconds(name) or 0)
    for name in before.keys() & {b"no-cache", b"private"}:
        assert after.bare(name) or (not before.bare(name) and before.names(name) <= after.names(name))


@each_case
@given(MEMBERS)
def test_what_was_read_is_read_in_the_same_way_again(members: list[tuple[bytes, bytes | None]]) -> None:
    found = directives(spelled(members))
    assert directives(spelled(list(found.items()))) == found


# -- CDN-Cache-Control -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"max-age=60"], {b"max-age": b"60"}, id="2.1: an Integer"),
        pytest.param([b"no-store"], {b"no-store": None}, id="2.1: true"),
        pytest.param([b"max-age=60", b"public"], {b"max-age": b"60", b"public": None}, id="9651 4.2: lines"),
        pytest.param([b"max-age=60, max-age=90"], {b"max-age": b"90"}, id="9651 3.2: the last of a key"),
        pytest.param([b"max-age=60;x=1"], {b"max-age": b"60"}, id="2.1: parameters are ignored"),
        pytest.param([b'no-cache="A, b"'], {b"no-cache": b"a,b"}, id="2.1: a String"),
        pytest.param([b"x=y"], {b"x": b"y"}, id="2.1: a Token"),
        pytest.param([b"max-age=1.5"], {b"max-age": b"0"}, id="2.1: a type that it has not"),
        pytest.param([b"max-age"], {b"max-age": b"0"}, id="2.1: no number"),
        pytest.param([b"max-age=-5"], {b"max-age": b"0"}, id="2.1: a number below zero"),
        pytest.param([b'private=("a" "b")'], {b"private": None}, id="2.1: an inner list"),
        pytest.param([b"no-store=?0"], {b"no-store": None}, id="2.1: false"),
        pytest.param([], None, id="2.2: absent"),
        pytest.param([b""], None, id="2.2: empty"),
        pytest.param([b"max-age=60,"], None, id="2.2: it does not parse"),
        pytest.param([b"Max-Age=60"], None, id="9651 3.1.2: a key has no capitals"),
        pytest.param([b"max-age =60"], None, id="9651 3.2: a blank"),
    ],
)
def test_a_targeted_field_is_a_dictionary_or_nothing(
    lines: list[bytes], expected: dict[bytes, bytes | None] | None
) -> None:
    """RFC 9213, where nothing else is said."""
    assert targeted_directives(lines) == expected


# -- dates -----------------------------------------------------------------------------------------------------------

NOVEMBER_1994 = 784_111_777
NOW = 1_700_000_000  # 14 November 2023


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", NOVEMBER_1994, id="IMF-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", NOVEMBER_1994, id="RFC 850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", NOVEMBER_1994, id="asctime"),
        pytest.param(b"Wed Nov 16 08:49:37 1994", NOVEMBER_1994 + 864_000, id="asctime, two digits"),
        pytest.param(b"SUN, 06 nov 1994 08:49:37 gmt", NOVEMBER_1994, id="9111 4.2: any case"),
        pytest.param(b"sUNDAY, 06-NOV-94 08:49:37 gMt", NOVEMBER_1994, id="9111 4.2: any case, RFC 850"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", NOVEMBER_1994, id="another day of the week"),
        pytest.param(b"Sat, 20 Nov 2286 17:46:40 GMT", 10_000_000_000, id="2286"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799, id="9999"),
        pytest.param(b"Thu, 01 Jan 1970 00:00:00 GMT", 0, id="the epoch"),
        pytest.param(b"Mon, 01 Jan 0001 00:00:00 GMT", -62_135_596_800, id="year 1"),
        pytest.param(b"Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800, id="a leap day"),
        pytest.param(b"Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800, id="a leap second"),
        pytest.param(b"Tuesday, 14-Nov-73 00:00:00 GMT", 3_277_843_200, id="fifty years ahead"),
        pytest.param(b"Thursday, 16-Nov-73 00:00:00 GMT", 122_256_000, id="more than fifty years ahead"),
        pytest.param(b"Monday, 01-Jan-74 00:00:00 GMT", 126_230_400, id="next year's digits: the past"),
        pytest.param(b"Saturday, 01-Jan-00 00:00:00 GMT", 946_684_800, id="00"),
    ],
)
def test_a_date_is_in_one_of_three_formats(text: bytes, seconds: int) -> None:
    """RFC 9110 s.5.6.7."""
    assert http_date(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b"", b"0", b"-1", b"GMT", b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 AEST", b"Sun, 06 Nov 1994 08:49:37 +0000", b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT", b"Sun, 06 Nov 1994 8:49:37 GMT", b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT", b"Sun 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994  08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT", b" Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 November 1994 08:49:37 GMT",
        b"Sunday, 06 Nov 1994 08:49:37 GMT", b"Son, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Okt 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49 GMT", b"Sun, 06 Nov 19944 08:49:37 GMT", b"Sun, 06 Nov 10000 08:49:37 GMT",
        b"Sun, 31 Feb 2024 08:49:37 GMT", b"Sun, 00 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT", b"Sun, 06 Nov 1994 08:60:37 GMT", b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Wed, 29 Feb 2023 00:00:00 GMT", b"Sun, 06-Nov-94 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37",
        b"Wednesday, 29-Feb-73 00:00:00 GMT",
        b"Sun Nov 6 08:49:37 1994", b"Sun Nov 06 08:49:37 94", b"Sun Nov  6 08:49:37 1994 GMT",
        b"Sun Nov  0 08:49:37 1994",
        b"Sun, \xb206 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 199\xb2 08:49:37 GMT", b"S\xfcn, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT\n", "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
    ],
)  # fmt: skip
def test_nothing_else_is_a_date(text: bytes) -> None:
    assert http_date(text, NOW) is None


def test_a_year_of_two_digits_needs_to_know_the_time() -> None:
    assert http_date(b"Sunday, 06-Nov-94 08:49:37 GMT") is None
    assert http_date(b"Sunday, 06-Nov-94 08:49:37 GMT", 4_000_000_000) == NOVEMBER_1994 + 3_155_760_000


MOMENTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)).map(  # noqa: DTZ001 - hypothesis wants naive limits
    lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC)
)


@each_case
@given(MOMENTS)
def test_a_date_that_was_written_is_read(moment: dt.datetime) -> None:
    for form in ("%a, %d %b {year:04} %H:%M:%S GMT", "%a %b {day:2} %H:%M:%S {year:04}"):
        text = moment.strftime(form.format(year=moment.year, day=moment.day))
        assert http_date(text.encode()) == int(moment.timestamp())


@each_case
@given(st.integers(0, 8_000_000_000), st.integers(-49 * 365, 49 * 365))
def test_a_year_of_two_digits_within_fifty_years_is_read(now: int, days: int) -> None:
    moment = dt.datetime.fromtimestamp(now, dt.UTC) + dt.timedelta(days)
    assert http_date(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode(), now) == moment.timestamp()


# -- ages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([b"7"], 7),
        ([b"0"], 0),
        ([b"7, 9"], 7),
        ([b"7 ,9"], 7),
        ([b"7", b"9"], 7),
        ([b"99999999999"], LONGEST),
        ([], None),
        ([b""], None),
        ([b"x"], None),
        ([b"x, 7"], None),
        ([b"-7"], None),
        ([b"7.0"], None),
        ([b'"7"'], None),
        ([b"7;a=b"], None),
    ],
)
def test_an_age_is_the_first_of_its_list_or_nothing(lines: list[bytes], seconds: int | None) -> None:
    """RFC 9111 s.5.1."""
    assert fields.age(lines) == seconds


# -- variants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param(b"accept", [b"1, 2"], [b"1,2"], id="blanks around commas"),
        pytest.param(b"te", [b" 1\t,2 "], [b"1,2"], id="tabs and blanks at the ends"),
        pytest.param(b"prefer", [b"1", b"2"], [b"1, 2"], id="lines"),
        pytest.param(b"accept-language", [b"de, en;q=0.5"], [b"en;q=0.5,de"], id="languages by weight"),
        pytest.param(b"accept-language", [b"EN-gb"], [b"en-GB"], id="languages in any case"),
        pytest.param(b"accept-language", [b"de ;\tq=0.5, en"], [b"en, , de;q=0.5"], id="blanks in a weight"),
        pytest.param(b"accept-language", [b"en", b"de;q=0.1"], [b"de;q=0.1, en"], id="languages over lines"),
    ],
)
def test_two_spellings_of_one_value_choose_one_variant(
    name: bytes, one: list[bytes], other: list[bytes]
) -> None:
    """RFC 9111 s.4.1."""
    assert fields.normal(name, one) == fields.normal(name, other)
    assert fields.normal(name, fields.normal(name, one)) == fields.normal(name, one)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param(b"x", [], [b""], id="a missing field and an empty one"),
        pytest.param(b"accept", [b"1,2"], [b"2,1"], id="another order"),
        pytest.param(b"accept", [b"1 2"], [b"12"], id="blanks within a member"),
        pytest.param(b"accept", [b"a"], [b"A"], id="another case"),
        pytest.param(b"accept", [b"1,,2"], [b"1,2"], id="an empty member"),
        pytest.param(b"accept", [b'"a, b"'], [b'"a,b"'], id="blanks within quotes"),
        pytest.param(b"accept", [b'"a', b'b"'], [b'"a,b"'], id="quotes over lines"),
        pytest.param(b"user-agent", [b"x (a, b)"], [b"x (a,b)"], id="blanks in what is no list"),
        pytest.param(b"x", [b"Doe, John"], [b"Doe,John"], id="blanks in what nobody knows"),
        pytest.param(b"cookie", [b"a=1", b"b=2"], [b"a=1,b=2"], id="cookies over lines"),
        pytest.param(b"referer", [b"/?a", b"b"], [b"/?a,b"], id="lines of what is no list"),
        pytest.param(b"accept-language", [b"e n"], [b"en"], id="blanks within a language"),
        pytest.param(b"accept-language", [b"de, en"], [b"en, de"], id="languages of one weight"),
        pytest.param(b"accept-language", [b"de;q=0.5"], [b"de"], id="another weight"),
    ],
)
def test_two_values_choose_two_variants(name: bytes, one: list[bytes], other: list[bytes]) -> None:
    """RFC 9111 s.4.1: a missing field matches only a missing one."""
    assert fields.normal(name, one) != fields.normal(name, other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([b"de, en"], [b"en, de"], True),
        ([b"de, en;q=0.5, fr;q=0.5"], [b"fr;q=0.5", b"EN; q=0.5, de"], True),
        ([b"de, en;q=0.5"], [b"en, de;q=0.5"], False),
        ([b"de, en"], [b"de"], False),
        ([b"de, de"], [b"de"], False),
        ([], [b""], False),
    ],
)
def test_languages_of_one_weight_may_come_in_any_order_where_that_is_asked_for(
    one: list[bytes], other: list[bytes], same: bool
) -> None:
    """RFC 9110 s.12.5.4."""
    told, otherwise = (fields.normal(b"accept-language", lines, any_order=True) for lines in (one, other))

    assert (told == otherwise) is same
    assert fields.normal(b"accept-language", told, any_order=True) == told
    assert fields.normal(b"accept", [b"a,b"], any_order=True) != fields.normal(
        b"accept", [b"b,a"], any_order=True
    )


# -- hostile input ---------------------------------------------------------------------------------------------------

PARSER: Any = importlib.import_module("re._parser")  # no stub has it
PATTERNS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": pattern
    for module in (fields, ranges, structured)
    for name, pattern in vars(module).items()
    if isinstance(pattern, re.Pattern)
}


def repetitions(parsed: Any) -> Iterator[tuple[str, int]]:
    """Every repetition of a parsed pattern: its kind and its largest count."""
    for kind, value in parsed:
        if str(kind).endswith("REPEAT"):
            yield str(kind), int(value[1])
        for part in value if isinstance(value, (tuple, list)) else [value]:
            for inner in part if isinstance(part, list) else [part]:
                if isinstance(inner, PARSER.SubPattern):
                    yield from repetitions(inner)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_gives_back_what_it_has_taken(name: str) -> None:
    """So each reads its text once, however it ends."""
    parsed = PARSER.parse(PATTERNS[name].pattern, PATTERNS[name].flags)
    greedy = [count for kind, count in repetitions(parsed) if kind != "POSSESSIVE_REPEAT"]
    assert all(count <= 4 for count in greedy)


@pytest.mark.parametrize("pattern", ["(a*)b", "(?:a|b+c)", "(?>a*?)"])
def test_a_repetition_is_seen_wherever_it_is(pattern: str) -> None:
    assert max(count for _, count in repetitions(PARSER.parse(pattern))) > 4
