"""Heads of messages, read by every parser of fields, and judged by slower and plainer readings.

Law: nothing raises, no reading is larger than what was read, and what does not parse is read in the way that shares
less. An input is a head: `METHOD STATUS`, then `name: value` lines.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from dedup_middleware import Rule
from dedup_middleware.core import answer as answers
from dedup_middleware.core import callers, decide, fields
from dedup_middleware.core.answer import Answer
from dedup_middleware.core.names import ANALYTICS_COOKIE, HOP_BY_HOP, ONE_EXCHANGE, PERSONAL_FIELDS

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
    b", ", b"; ", b"=", b'="', b'\\"', b'"', b"'nonce-", b"Mon, 31 Feb 2024 24:60:60 GMT", b"GMT", b'W/"', b"*",
)  # fmt: skip

RULES = (Rule(), Rule(ttl=60, negative_ttl=5), Rule(ttl=60, share_errors=False, max_response_body=100))
RESTRICTING = (b"no-store", b"no-cache", b"private")
_DATE = re.compile(
    rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) "
    rb"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def run(data: bytes) -> set[str]:
    """Read a head in every way, and tell what came of it."""
    method, status, pairs = decode(data)
    found = answers.read_answer(status, pairs, method)
    check_answer(found, status, pairs, method)
    told = set(check_settled(found, status, pairs, method))
    for _, value in pairs:
        told.update(check_value(value))
    with untraced():
        check_one_more(status, pairs, method)
        lines = [value for _, value in pairs]
        check_lists(lines)
        check_directives(lines)
        check_not_modified(method, status, pairs, lines)
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
    }
    assert named.isdisjoint(name.lower() for name, _ in found.shared), (
        "a field that Connection names is shared"
    )
    dropped = named | HOP_BY_HOP | ONE_EXCHANGE
    assert found.shared == [pair for pair in pairs if pair[0].lower() not in dropped]
    names = [name.lower() for name, _ in pairs]
    assert (found.personal is None) == PERSONAL_FIELDS.isdisjoint(names)
    assert found.age is None or 0 <= found.age <= 2**31
    assert (found.age is None) == (b"age" not in names)
    assert found.control == tuple(value for name, value in pairs if name.lower() == b"cache-control")
    assert found.vary == tuple(value for name, value in pairs if name.lower() == b"vary")
    assert found.length is None or (found.length >= 0 and method != "HEAD" and status not in (204, 304))


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
        settled = decide.settle(rule, method, found, one_identity=lambda: False)
        yield f"{number} {settled.reason if isinstance(settled, decide.Pass) else type(settled).__name__}"


def check_one_more(status: int, pairs: Pairs, method: str) -> None:
    """One line that forbids sharing does it in every head, at either end."""
    for line in ONE_MORE:
        for more in ([line, *pairs], [*pairs, line]):
            one_more = answers.read_answer(status, more, method)
            settled = decide.settle(RULES[1], method, one_more, one_identity=lambda: False)
            assert isinstance(settled, decide.Pass), f"shared in spite of {line}"


# -- single values ---------------------------------------------------------------------------------------------------


def check_value(value: bytes) -> Iterator[str]:
    """One value as a date, a number, a tag, cookies and directives."""
    date = fields.http_date(value)
    assert date == plain_date(value), f"{value!r} is read as {date}"
    number = fields.seconds(value)
    assert number is None or 0 <= number <= 2**31
    if re.fullmatch(rb"[0-9]{1,39}", value):
        assert number == min(int(value), 2**31)
    tag = fields.is_etag(value)
    if tag:
        other = value[2:] if value.startswith(b"W/") else b"W/" + value
        for lines in ([value], [other], [b'"x", ' + value + b', "y"'], [b'"x"', other]):
            assert fields.none_match(lines, value), f"{value!r} is not found in {lines}"
    check_cookies(value)
    said = fields.directives([value])
    assert len(said) <= value.count(b",") + 1 + len(RESTRICTING)
    restricting = sorted(name.decode() for name in said if name in RESTRICTING)
    yield f"date {date is not None} seconds {number is not None} tag {tag} {restricting}"


def plain_date(value: bytes) -> int | None:
    """An IMF-fixdate read by position: its text is only read where it is a day and a time that exist."""
    shape = _DATE.fullmatch(value)
    if shape is None or shape[3] not in MONTHS:
        return None
    day, year, hour, minute, second = (int(shape[group]) for group in (2, 4, 5, 6, 7))
    leap = second == 60
    try:
        there = dt.datetime(year, MONTHS.index(shape[3]) + 1, day, hour, minute, second - leap, tzinfo=dt.UTC)
    except ValueError:
        return None
    return int((there - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()) + leap


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
    for name, value in apart[0].items() if apart else ():
        assert said[name] == value or name in RESTRICTING, "the first value counts"


def named_plainly(line: bytes) -> set[bytes]:
    """Which restricting directives a line has: between commas outside of quotes; in a line of open quotes, any word."""
    items, quoted, at = [b""], False, 0
    while at < len(line):
        byte = line[at : at + 1]
        if quoted and byte == b"\\":
            at += 1
        elif byte == b'"':
            quoted = not quoted
        elif byte == b"," and not quoted:
            items.append(b"")
        elif not quoted:
            items[-1] += byte
        at += 1
    if quoted:
        return {name for name in RESTRICTING if name in line.lower()}
    names = {item.partition(b"=")[0].strip().lower() for item in items}
    return names.intersection(RESTRICTING)


# -- validators ------------------------------------------------------------------------------------------------------


def check_not_modified(method: str, status: int, pairs: Pairs, lines: list[bytes]) -> None:
    """304 only for a validator that the request has and the response too."""
    asked = {name.lower() for name, _ in pairs}
    for value in lines[:8]:
        for etag, modified in ((value if fields.is_etag(value) else None, None), (None, value)):
            if decide.not_modified(method, status, pairs, etag, modified):
                assert asked & {b"if-none-match", b"if-modified-since"}
                assert (status, method) in ((200, "GET"), (200, "HEAD"))
                assert etag is not None or b"if-none-match" not in asked
