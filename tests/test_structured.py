"""Structured fields by the sentences of RFC 9651: one row, one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_middleware.core.structured import Value, _Reader, dictionary, strings

each_case = settings(max_examples=100, derandomize=True, deadline=None, database=None)

# -- dictionaries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], {}, id="3.2: absent is empty"),
        pytest.param([b""], {}, id="4.2: empty"),
        pytest.param([b"   "], {}, id="4.2: blanks"),
        pytest.param([b"a"], {b"a": True}, id="3.2: no value is true"),
        pytest.param([b"a;x=1;y"], {b"a": True}, id="3.2: true with parameters"),
        pytest.param([b"a=1, b=2"], {b"a": b"1", b"b": b"2"}, id="3.2: members"),
        pytest.param([b"a=1 \t,\t b=2"], {b"a": b"1", b"b": b"2"}, id="4.2.2: blanks around commas"),
        pytest.param([b"  a  "], {b"a": True}, id="4.2: blanks around the whole"),
        pytest.param([b"a\t"], {b"a": True}, id="4.2.2: a tab at the end"),
        pytest.param([b"a", b"b=1"], {b"a": True, b"b": b"1"}, id="4.2: lines are joined"),
        pytest.param([b'a="x', b'y"'], {b"a": "x, y"}, id="4.2: even within a String"),
        pytest.param([b"a=1, a=2"], {b"a": b"2"}, id="4.2.2: the last of a key"),
        pytest.param([b"*a_-.*9=1"], {b"*a_-.*9": b"1"}, id="4.2.3.3: keys"),
        pytest.param([b"a=-0"], {b"a": b"-0"}, id="4.2.4: Integers"),
        pytest.param([b"a=999999999999999"], {b"a": b"999999999999999"}, id="4.2.4: of 15 digits"),
        pytest.param([b"a=-123456789012.123"], {b"a": None}, id="4.2.4: Decimals"),
        pytest.param([b'a="x \\"y\\\\"'], {b"a": 'x "y\\'}, id="4.2.5: Strings"),
        pytest.param([b'a=""'], {b"a": ""}, id="4.2.5: the empty String"),
        pytest.param([b"a=*x:/y%"], {b"a": b"*x:/y%"}, id="4.2.6: Tokens"),
        pytest.param([b"a=:aGk=:"], {b"a": None}, id="4.2.7: Byte Sequences"),
        pytest.param([b"a=?0, b=?1"], {b"a": False, b"b": True}, id="4.2.8: Booleans"),
        pytest.param([b"a=@-1659578233"], {b"a": None}, id="4.2.9: Dates"),
        pytest.param([b'a=%"f%c3%bc r"'], {b"a": None}, id="4.2.10: Display Strings"),
        pytest.param([b'a=( 1  "b";x c;y=2 )'], {b"a": None}, id="4.2.1.2: inner lists"),
        pytest.param([b"a=(), b"], {b"a": None, b"b": True}, id="4.2.1.2: empty ones"),
        pytest.param([b"a=(1);x"], {b"a": None}, id="4.2.1.2: with parameters"),
        pytest.param([b"a;  x"], {b"a": True}, id="4.2.3.2: blanks before a parameter"),
    ],
)
def test_a_dictionary_is_read_by_its_grammar(lines: list[bytes], expected: dict[bytes, Value]) -> None:
    found = dictionary(lines)
    assert found == expected
    assert {key: type(value) for key, value in (found or {}).items()} == {
        key: type(value) for key, value in expected.items()
    }


BROKEN = [
    b"a,", b"a,,b", b",a", b"\t", b"a b", b"a ;x", b"A", b"-a", b"9", b"a=", b"a =1", b"a= 1", b"a;", b"a;=1",
    b"a;x=", b"a=1;X", b"a=1.", b"a=.5", b"a=1.2345", b"a=1234567890123.1", b"a=1234567890123456", b"a=--1", b"a=-",
    b"a=+1", b"a=1x", b'a="', b'a="x', b'a="\\x"', b'a="\x7f"', b'a="\xc3\xbc"', b"a='x'", b"a=\xc3\xbc", b"a=:a b:",
    b"a=:aGk=", b"a=:a=b:", b"a=?2", b"a=?", b"a=?true", b"a=@1.5", b"a=@", b"a=@x", b'a=%"%c3"', b'a=%"%C3%BC"',
    b'a=%"%zz"', b"a=%x", b'a=%"x', b"a=(1", b"a=(", b'a=(1"b")', b"a=(1,2)", b"a=((1))", b"a=(1 x", b"a=)", b"a=[1]",
    b"a=1;x=(1)", b"a\x00", b"a\n,b", b"a\xa0",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_broken_anywhere_is_not_there_at_all(text: bytes) -> None:
    """RFC 9651 s.4.2."""
    assert dictionary([text]) is None
    assert dictionary([b"z=1", text]) is None
    assert strings([b'"z"', text]) is None


def test_an_empty_line_is_a_comma_too_many() -> None:
    assert dictionary([b"a", b""]) is None
    assert strings([b"", b'"a"']) is None


# -- lists of strings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="absent"),
        pytest.param([b""], [], id="empty"),
        pytest.param([b'"a"'], ["a"], id="one"),
        pytest.param([b'"a", "B b"\t, ""'], ["a", "B b", ""], id="several, opaque"),
        pytest.param([b'"a"', b'"b"'], ["a", "b"], id="lines"),
        pytest.param([b'"a";x=1;y="z", "b"'], ["a", "b"], id="9875 2: unrecognised parameters"),
        pytest.param([b'"a", "a"'], ["a", "a"], id="the same twice"),
        pytest.param([b'"a,b", "c\\"d\\\\"'], ["a,b", 'c"d\\'], id="escapes"),
        pytest.param(
            [b", ".join(b'"%b"' % (b"%032d" % n) for n in range(100))],
            [f"{n:032}" for n in range(100)],
            id="9875 2: 32 groups of 32 characters, and more",
        ),
        pytest.param([b"a"], None, id="a Token"),
        pytest.param([b'"a", 1'], None, id="an Integer among Strings"),
        pytest.param([b'("a" "b")'], None, id="an inner list"),
        pytest.param([b'a="b"'], None, id="a Dictionary"),
        pytest.param([b'"a" "b"'], None, id="no comma"),
        pytest.param([b'%"a"'], None, id="a Display String"),
    ],
)
def test_groups_are_a_list_of_strings(lines: list[bytes], expected: list[str] | None) -> None:
    """RFC 9875 s.2, s.3."""
    assert strings(lines) == expected


# -- laws ------------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,3}", fullmatch=True)
PARAMETERS = st.sampled_from(["", ";x", ";x=1;y=?0", "; z=(", ";"])
BLANKS = st.sampled_from([", ", ",", " ,\t", "\t,  "])
ITEMS = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1).map(lambda number: (str(number), str(number).encode())),
    st.booleans().map(lambda value: (f"?{value:d}", value)),
    TEXT.map(lambda text: (quoted(text), text)),
    st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]{0,5}", fullmatch=True).map(
        lambda token: (token, token.encode())
    ),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=3).map(lambda number: (f"{number:.3f}", None)),
    st.lists(TEXT.map(quoted), max_size=3).map(lambda texts: (f"({' '.join(texts)})", None)),
)


@each_case
@given(st.lists(st.tuples(KEYS, ITEMS, PARAMETERS), max_size=5), BLANKS)
def test_a_dictionary_that_was_written_is_read(
    members: list[tuple[str, tuple[str, Value], str]], comma: str
) -> None:
    text = comma.join(f"{key}={spelled}{parameters}" for key, (spelled, _), parameters in members)
    whole = all(parameters in ("", ";x", ";x=1;y=?0") for _, _, parameters in members)
    expected = {key.encode(): value for key, (_, value), _ in members} if whole else None
    assert dictionary([text.encode()]) == expected


@each_case
@given(st.lists(TEXT, max_size=5), st.integers(0, 5), BLANKS)
def test_strings_that_were_written_are_read_from_any_lines(texts: list[str], at: int, comma: str) -> None:
    lines = [comma.join(map(quoted, part)).encode() for part in (texts[:at], texts[at:]) if part]
    assert strings(lines) == texts


# -- hostile input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [dictionary, strings])
@pytest.mark.parametrize(
    "unit",
    [b"a,", b"a=(1 ", b'"a",', b'"a";x', b"a;x;", b'a=("b" ', b" ", b"\t,", b'"', b"(", b"a=:", b"?1,"],
)
def test_twice_the_text_is_at_most_twice_the_work(
    read: Callable[[list[bytes]], Any], unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each match begins where the last one ended, and none gives back what it has taken."""
    begun: list[int] = []
    match = _Reader.match

    def counted(self: _Reader, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        begun.append(self.at)
        return match(self, pattern)

    monkeypatch.setattr(_Reader, "match", counted)
    steps = []
    for count in (100, 200):
        begun.clear()
        read([unit * count])
        assert begun == sorted(begun)
        steps.append(len(begun))
    assert steps[1] <= 2 * steps[0] + 10
