"""Heads of messages, read by every parser of fields, and judged by slower and plainer readings.

Law: nothing raises, no reading is larger than what was read, and what does not parse is read in the way that shares
less. An input is a head: `METHOD STATUS`, then `name: value` lines.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from itertools import pairwise

from dedup_middleware import Rule
from dedup_middleware.core import answer as answers
from dedup_middleware.core import callers, conditional, fields, ranges, settle, structured
from dedup_middleware.core.answer import Answer
from dedup_middleware.core.names import ANALYTICS_COOKIE, FOR_ALL, HOP_BY_HOP, ONE_EXCHANGE, PERSONAL_FIELDS

from .engine import untraced

Pairs = list[tuple[bytes, bytes]]

WORDS = (
    b"GET 200", b"HEAD 200", b"QUERY 404", b"GET 304", b"POST 500", b"GET 206", b"GET 401",
    b"cache-control: no-store", b"cache-control: private, max-age=60", b'Cache-Control: no-cache="set-cookie"',
    b"cache-control: s-maxage=1, public", b"cdn-cache-control: no-store", b"surrogate-control: max-age=1",
    b"vary: accept", b"vary: *", b"Vary: Accept-Encoding, origin", b"set-cookie: a=b", b"connection: close, x-a",
    b"x-a: 1", b"transfer-encoding: chunked", b"keep-alive: 1", b"content-length: 5", b"content-length: 05",
    b"content-type: text/html", b"content-type: text/event-stream", b"content-type: application/x-ndjson",
    b'etag: "a"', b'etag: W/"a"', b'if-none-match: "a", W/"b"', b"if-none-match: *",
    b"last-modified: Sun, 06 Nov 1994 08:49:37 GMT", b"if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT",
    b"age: 5", b"content-security-policy: script-src 'nonce-abc'", b"x-request-id: 7", b"www-authenticate: Basic",
    b'cookie: sid=1; _ga=2; theme="dark"', b"cookie: _gid=1", b"no-store", b"no-cache", b"private", b"max-age=0",
    b"Range: bytes=0-1, 3-", b"range: bytes=-2", b"range: bytes=4-1", b'if-range: "a"', b"bytes=", b"-", b"0-0,",
    b'cache-groups: "a", "b\\\\";c=1', b"cdn-cache-control: max-age=5, no-cache, x=(1 2);y", b"@1", b":aGk=:", b"?0",
    b'%"%c3%bc"', b"1.5", b"min-fresh=9", b"max-stale", b'no-cache="a, b"', b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994", b", ", b"; ",
    b"=", b'="', b'\\"', b'"', b"'nonce-", b"Mon, 31 Feb 2024 24:60:60 GMT", b"GMT", b'W/"', b"*",
)  # fmt: skip

RULES = (Rule(), Rule(ttl=60, negative_ttl=5), Rule(ttl=60, share_errors=False, max_response_body=100))
RESTRICTING = (b"no-store", b"no-cache", b"private")
NUMBERS = b"max-age s-maxage stale-while-revalidate stale-if-error max-stale min-fresh".split()
NOW = 1_700_000_000
DAYS = b"monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = b"jan feb mar apr may jun jul aug sep oct nov dec".split()


def run(data: bytes) -> set[str]:
    """Read a head in every way, and tell what came of it."""
    method, status, pairs = decode(data)
    found = answers.read_answer(status, pairs, method)
    check_answer(found, status, pairs, method)
    told = set(check_settled(found, status, pairs, method))
    for _, value in pairs:
        told.update(check_value(value))
        told.add(check_ranges(value, data))
    with untraced():
        check_one_more(status, pairs, method)
        lines = [value for _, value in pairs]
        check_lists(lines)
        check_directives(lines)
        check_not_modified(method, status, pairs, lines)
        check_freshened(pairs)
        check_structured(lines)
    return told


def decode(data: bytes) -> tuple[str, int, Pairs]:
    """The head that the input writes; a backslash and an n are a line feed."""
    first, *lines = data.split(b"\n")
    method, _, status = first.decode("latin-1").partition(" ")
    pairs = [line.replace(rb"\n", b"\n").partition(b":") for line in lines]
    code = int(status) if re.fullmatch("[1-9][0-9]{2}", status) else 200
    return method, code, [(name, value.removeprefix(b" ")) for name, _, value in pairs]


# -- answers ---------------------------------------------------------------------------------------------------------


def check_answer(found: Answer, status: int, pairs: Pairs, method: str) -> None:
    """What is shared is what was sent, in order, without what is one connection's or one exchange's."""
    assert (found.status, found.headers) == (status, pairs)
    named = {
        item.strip(b" \t").lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for item in value.split(b",")
    } - FOR_ALL
    assert named.isdisjoint(name.lower() for name, _ in found.shared), (
        "a field that Connection names is shared"
    )
    dropped = named | HOP_BY_HOP | ONE_EXCHANGE
    assert found.shared == [pair for pair in pairs if pair[0].lower() not in dropped]
    names = [name.lower() for name, _ in pairs]
    assert (found.personal is None) == PERSONAL_FIELDS.isdisjoint(names)
    assert found.age is None or 0 <= found.age <= 2**31
    assert (found.age is None) == (b"age" not in names)
    for field, read in ((b"cache-control", found.control), (b"vary", found.vary)):
        assert read == tuple(value.strip() for name, value in pairs if name.lower() == field)
    said = {value.strip() for name, value in pairs if name.lower() == b"content-length"}
    lengths = {int(value) if value.isdigit() and len(value) < 20 else -1 for value in said}
    if method == "HEAD" or status in (204, 304):
        lengths = set()
    assert found.length == (None if not lengths else lengths.pop() if len(lengths) == 1 else -1)


ONE_MORE = (
    (b"cache-control", b"no-store"),
    (b"Cache-Control", b"x, \tNo-Store ,"),
    (b"cache-control", b"no-store;"),
    (b"cache-control", b"private"),
    (b"cdn-cache-control", b"no-store"),
    (b"surrogate-control", b"max-age=1,no-store"),
    (b"set-cookie", b""),
    (b"vary", b"*"),
    (b"VARY", b"accept ,\t*"),
    (b"vary", b"not a token"),
    (b"content-type", b"Text/Event-Stream"),
    (b"www-authenticate", b""),
)
"""Lines any of which forbids sharing, whatever stands beside it."""


def check_settled(found: Answer, status: int, pairs: Pairs, method: str) -> Iterator[str]:
    """Every rule settles every head."""
    for number, rule in enumerate(RULES):
        settled = settle.settle(rule, method, found, one_identity=lambda: False)
        yield f"{number} {settled.reason if isinstance(settled, settle.Pass) else type(settled).__name__}"


def check_one_more(status: int, pairs: Pairs, method: str) -> None:
    """One line that forbids sharing does it in every head, at either end."""
    for line in ONE_MORE:
        for more in ([line, *pairs], [*pairs, line]):
            one_more = answers.read_answer(status, more, method)
            settled = settle.settle(RULES[1], method, one_more, one_identity=lambda: False)
            alone = isinstance(settled, settle.Pass) or line[0] in settled.stripped
            assert alone, f"shared in spite of {line}"


# -- single values ---------------------------------------------------------------------------------------------------


def check_value(value: bytes) -> Iterator[str]:
    """One value as a date, a number, a tag, cookies and directives."""
    date = fields.http_date(value, NOW)
    assert date == plain_date(value), f"{value!r} is read as {date}"
    number = fields.seconds(value)
    assert number is None or 0 <= number <= 2**31
    assert number == (min(int(value), 2**31) if re.fullmatch(rb"[0-9]+", value) else None)
    assert fields.age([value, b"7"]) == fields.seconds(value.split(b",")[0].strip(b" \t"))
    tag = fields.is_etag(value)
    if tag:
        other = value[2:] if value.startswith(b"W/") else b"W/" + value
        for lines in ([value], [other], [b'"x", ' + value + b', "y"'], [b'"x"', other]):
            assert fields.none_match(lines, value), f"{value!r} is not found in {lines}"
    check_cookies(value)
    said = fields.directives([value])
    assert len(said) <= value.count(b",") + 1 + len(fields._RESTRICTING)
    restricting = sorted(name.decode() for name in said if name in RESTRICTING)
    yield f"date {date is not None} seconds {number is not None} tag {tag} {restricting}"


def plain_date(value: bytes) -> int | None:
    """A date read word by word: its text is only read where it is a day and a time that exist."""
    words = value.lower().replace(b",", b" ,").split(b" ")
    match words:
        case [name, b",", day, month, year, clock, b"gmt"]:
            names, digits = [one[:3] for one in DAYS], 4
        case [name, b",", date, clock, b"gmt"] if date.count(b"-") == 2:
            day, month, year = date.split(b"-")
            names, digits = DAYS, 2
        case [name, month, b"", day, clock, year] if len(day) == 1:
            names, digits, day = [one[:3] for one in DAYS], 4, b"0" + day
        case [name, month, day, clock, year]:
            names, digits = [one[:3] for one in DAYS], 4
        case _:
            return None
    shapes = (len(year) == digits, len(day) == 2, re.fullmatch(rb"[0-9]{2}:[0-9]{2}:[0-9]{2}", clock))
    if name not in names or month not in MONTHS or not all(shapes) or not (year + day).isdigit():
        return None
    hour, minute, second = map(int, clock.split(b":"))
    leap = second == 60
    full = int(year)
    if digits == 2:
        full = next(one for one in range(2073, 1973, -1) if one % 100 == full)
    try:
        there = dt.datetime(
            full, MONTHS.index(month) + 1, int(day), hour, minute, second - leap, tzinfo=dt.UTC
        )
        if digits == 2 and there.timestamp() + leap > NOW + 50 * 31_556_952:
            there = there.replace(year=full - 100)
    except ValueError:
        return None
    return int((there - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()) + leap


def check_ranges(value: bytes, body: bytes) -> str:
    """What is answered in parts is the body's own bytes, and never more than was asked for."""
    answer = ranges.partial([(b"range", value)], 200, [(b"content-type", b"a/b")], body, None, None)
    if answer is None:
        return "range: whole"
    status, headers, content = answer
    said = dict(headers)
    assert int(said[b"content-length"]) == len(content)
    wanted = [text for item in value[6:].split(b",") if (text := plain_slice(item.strip(), body))]
    if status == 416:
        assert (wanted, content, said[b"content-range"]) == ([], b"", b"bytes */%d" % len(body))
        return "range: 416"
    if b"content-range" in said:
        told = [(said[b"content-range"], content)]
    else:
        separator = b"--" + said[b"content-type"].partition(b"boundary=")[2]
        assert separator not in body
        first, *parts, last = content.split(separator)
        assert (first, last) == (b"", b"--\r\n")
        told = [re.split(rb"Content-Range: |\r\n\r\n", part[:-2], maxsplit=2)[1:] for part in parts]  # type: ignore[misc] # three pieces each
    assert [text for _, text in told] == wanted, "another slice was asked for"
    assert len(told) <= ranges.MOST_RANGES
    for span, text in told:
        begin, end = map(int, span.removeprefix(b"bytes ").partition(b"/")[0].split(b"-"))
        assert text == body[begin : end + 1] != b""
        assert span == b"bytes %d-%d/%d" % (begin, end, len(body))
    return f"range: {min(len(told), 2)}"


def plain_slice(spec: bytes, body: bytes) -> bytes:
    """What one range asks for, as Python slices."""
    begin, _, end = spec.partition(b"-")
    if begin:
        return body[int(begin) : int(end) + 1 if end else None]
    return body[-int(end) :] if end.strip(b"0") else b""


def check_cookies(line: bytes) -> None:
    """Cookies stand in the line as they are; those of page analytics go, and no other."""
    pairs = callers.cookie_pairs(line)
    joined = callers.join_cookies(pairs)
    assert callers.cookie_pairs(joined) == pairs
    assert all(text in line and text.startswith(name) and b";" not in text for name, text in pairs)
    cleaned = callers.without_analytics(line)
    assert callers.without_analytics(cleaned) == cleaned
    if b'"' in line:
        assert cleaned == line
    else:
        assert callers.cookie_pairs(cleaned) == [
            one for one in pairs if not ANALYTICS_COOKIE.fullmatch(one[0])
        ]


# -- lists -----------------------------------------------------------------------------------------------------------


def check_lists(lines: list[bytes]) -> None:
    """Every member of every line is there, once, in lower case, and nothing else is."""
    names = fields.names_listed(lines)
    plain = {item.strip(b" \t").lower() for line in lines for item in line.split(b",")} - {b""}
    assert names == plain, f"{lines} names {plain}, not {names}"
    assert fields.names_listed([b" ,\t".join(names)]) == names
    for line in filter(fields.is_etag, lines):
        found = fields.none_match(lines, line)
        said = any(line.removeprefix(b"W/") in one or one.strip(b" \t") == b"*" for one in lines)
        assert not found or said


def check_directives(lines: list[bytes]) -> None:
    """Whoever reads no-store, no-cache or private anywhere in the lines is obeyed."""
    said = fields.directives(lines)
    for line in lines:
        for name in named_plainly(line):
            assert name in said, f"{name!r} is not found in {line!r}"
    apart = [fields.directives([line]) for line in lines]
    assert set(said) == {name for one in apart for name in one}, "every line counts for itself"
    assert fields.directives([spelled(said)]) == said, "what was read is read in the same way again"
    for name in NUMBERS:
        numbers = [number for one in apart if (number := one.seconds(name)) is not None]
        strictest = max if name == b"min-fresh" else min
        assert said.seconds(name) == (strictest(numbers) if numbers else None), "the strictest number counts"
    for name in (b"no-cache", b"private"):
        assert said.bare(name) == any(one.bare(name) for one in apart), "the whole is more than a part"
        assert said.bare(name) or said.names(name) == {field for one in apart for field in one.names(name)}


def quoted(text: bytes) -> bytes:
    """A quoted string, or a String."""
    return b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", text)


def spelled(said: fields.Directives) -> bytes:
    """Directives as a line."""

    return b", ".join(
        name if argument is None else b"%b=%b" % (name, quoted(argument)) for name, argument in said.items()
    )


def check_structured(lines: list[bytes]) -> None:
    """Lines that parse alone parse together, and whoever reads a String finds it in the text."""
    for before, after in pairwise(lines):
        one, other = structured.dictionary([before]), structured.dictionary([after])
        if one and other:
            assert structured.dictionary([before, after]) == {**one, **other}
        few, more = structured.strings([before]), structured.strings([after])
        if few and more:
            assert structured.strings([before, after]) == few + more
    for line in lines:
        found = structured.strings([line])
        if found is not None:
            assert all(len(text) <= len(line) and text.isascii() for text in found)
            assert structured.strings([b", ".join(quoted(text.encode()) for text in found)]) == found
        printable = bytes(byte for byte in line if 0x20 <= byte <= 0x7E)
        assert structured.strings([quoted(printable)]) == [printable.decode()], "a String is what was written"
        targeted = fields.targeted_directives([line])
        assert targeted is None or fields.directives([spelled(targeted)]) == targeted


def named_plainly(line: bytes) -> set[bytes]:
    """Which restricting directives a line has: between commas outside of quotes; where quotes stay open, any word."""
    items, quoted, at = [b""], False, 0
    begin = 0
    while at < len(line):
        byte = line[at : at + 1]
        if quoted and byte == b"\\":
            at += 1
        elif byte == b'"':
            quoted = not quoted
            items[-1] += byte
        elif byte == b"," and not quoted:
            items.append(b"")
            begin = at
        elif not quoted:
            items[-1] += byte
        at += 1
    names = {item.partition(b"=")[0].strip().lower() for item in items}
    if quoted:
        names |= {name for name in RESTRICTING if name in line[begin:].lower()}
    return names.intersection(RESTRICTING)


# -- validators ------------------------------------------------------------------------------------------------------


def check_not_modified(method: str, status: int, pairs: Pairs, lines: list[bytes]) -> None:
    """304 only for a validator that the request has and the response too."""
    asked = {name.lower() for name, _ in pairs}
    for value in lines[:8]:
        for etag, modified in ((value if fields.is_etag(value) else None, None), (None, value)):
            if conditional.not_modified(method, status, pairs, etag, modified):
                assert asked & {b"if-none-match", b"if-modified-since"}
                assert (status, method) in ((200, "GET"), (200, "HEAD"))
                assert etag is not None or b"if-none-match" not in asked or b"*" in b"".join(lines)


def check_freshened(pairs: Pairs) -> None:
    """A stored response takes from an update what is not about its body, and keeps the rest in its order."""
    half = len(pairs) // 2
    stored, update = pairs[:half], pairs[half:]
    result = conditional.freshened(stored, update)
    assert conditional.freshened(result, update) == result, "once is enough"
    named = {name.lower() for name, _ in update}
    kept = [pair for pair in stored if pair[0].lower() not in named | {b"age"}]
    assert [pair for pair in result if pair in kept] == kept
    assert set(result) <= {*stored, *update}
    for name, value in pairs:
        if name.lower() == b"content-length":
            assert ((name, value) in result) == ((name, value) in stored)
