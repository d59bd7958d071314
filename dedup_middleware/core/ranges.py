"""Ranges: parts of a stored response, whole or itself a part, as 206 or 416 (RFC 9110 s.14, s.15.3.7).

Law: a part is a slice of the stored bytes. What is not asked in the grammar, or asks for the same bytes twice or for
too many parts, is answered by the whole; a byte that is not stored by nobody here.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from .fields import http_date
from .http import Headers, first, values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_RANGES: Final = 16

_UNIT = re.compile(rb"bytes=", re.IGNORECASE)
_RANGE = re.compile(rb"([0-9]*+)-([0-9]*+)")
_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18}+)-([0-9]{1,18}+)/([0-9]{1,18}+|\*)", re.IGNORECASE)
_FAR: Final = 10**18
"""A position beyond the end of every body."""

_NOT_IN_PART: Final = frozenset({b"content-length", b"content-range", b"content-digest", b"content-md5"})
"""Fields that are made for each part, or describe the bytes of the whole as sent (RFC 9530 s.2)."""
_KNOWN: Final = frozenset(b"content-type content-encoding content-language last-modified".split())
"""Fields of the representation that one who sends If-Range has already (s.15.3.7)."""
_NOT_IN_416: Final = _NOT_IN_PART | frozenset(
    b"content-type content-encoding content-language content-disposition content-location etag last-modified "
    b"repr-digest cache-control expires cdn-cache-control surrogate-control cache-groups".split()
)
"""Fields about the representation and its freshness: a 416 has none and must not be stored in its place."""

Spec = tuple[int | None, int | None]
"""First and last position; (None, n): the last n bytes; (n, None): from n on."""
Part = tuple[int, int]
"""A slice's start and stop."""


def parse(value: bytes) -> list[Spec] | None:
    """A Range field of bytes (s.14.1.1, s.14.2).

    None where it is to be ignored: another unit, no such syntax, or more than `MOST_RANGES` (s.17.15).
    """
    unit = _UNIT.match(value)
    if unit is None:
        return None
    specs: list[Spec] = []
    for item in value[unit.end() :].split(b","):
        text = item.strip(b" \t")
        if not text:
            continue
        matched = _RANGE.fullmatch(text)
        if matched is None or text == b"-" or len(specs) == MOST_RANGES:
            return None
        start, end = map(_position, matched.groups())
        if start is not None and end is not None and end < start:
            return None
        specs.append((start, end))
    return specs or None


def _position(digits: bytes) -> int | None:
    if not digits:
        return None
    shortest = digits.lstrip(b"0") or b"0"
    return int(shortest) if len(shortest) < 19 else _FAR


def satisfiable(specs: Iterable[Spec], length: int) -> list[Part]:
    """The slices that exist of so many bytes, in the order in which they were asked for (s.14.1.2).

    Empty where none does: a 416. The last bytes of nothing are an empty slice, which is no error.
    """
    parts = []
    for start, end in specs:
        if start is None:
            if end:
                parts.append((max(0, length - end), length))
        elif start < length:
            parts.append((start, length if end is None else min(end + 1, length)))
    return parts


def overlapping(parts: Iterable[Part]) -> bool:
    """Whether two of them have a byte in common."""
    return any(before[1] > after[0] for before, after in pairwise(sorted(parts)))


def if_range_holds(
    lines: Sequence[bytes],
    etag: bytes | None,
    last_modified: bytes | None,
    dated: float | None,
) -> bool:
    """Whether If-Range lets a Range count: there is none, or its validator is strong and the same (s.13.1.5).

    A date is strong where the response is `dated` a second or more after it (s.8.8.2.2): its Date or else the time at
    which it came, in seconds of the epoch.
    """
    if not lines:
        return True
    if len(lines) > 1:
        return False
    if lines[0] == etag:
        return not etag.startswith(b"W/")
    if lines[0] != last_modified or dated is None:
        return False
    changed = http_date(last_modified)
    return changed is not None and changed + 1 <= dated


def _asked(
    request: Headers, etag: bytes | None, last_modified: bytes | None, dated: float | None
) -> list[Spec] | None:
    """The ranges that a request asks for, if it asks in the grammar and its If-Range holds."""
    lines = values(request, b"range")
    specs = parse(lines[0]) if len(lines) == 1 else None
    return specs if if_range_holds(values(request, b"if-range"), etag, last_modified, dated) else None


def _left_out(request: Headers, etag: bytes | None) -> frozenset[bytes]:
    """Fields of the stored response that its part has not; where a date said that it is the same, the date stays."""
    lines = values(request, b"if-range")
    if not lines:
        return _NOT_IN_PART
    return _NOT_IN_PART | (_KNOWN if lines[0] == etag else _KNOWN - {b"last-modified"})


def partial(
    request: Headers,
    status: int,
    headers: Headers,
    body: bytes,
    etag: bytes | None,
    last_modified: bytes | None,
    *,
    dated: float | None = None,
) -> tuple[int, Headers, bytes] | None:
    """The 206 or 416 by which a stored 200 answers a GET that has a Range; None: the whole does (s.14.2, s.15.3.7).

    `headers` and `body` are those of the stored response; `dated` as for If-Range.
    """
    specs = _asked(request, etag, last_modified, dated) if status == 200 else None
    if specs is None:
        return None
    parts = satisfiable(specs, len(body))
    if not parts:
        kept = _without(headers, _NOT_IN_416)
        unsatisfied = (b"content-range", b"bytes */%d" % len(body))
        return 416, [*kept, unsatisfied, (b"content-length", b"0")], b""
    # A content coding holds for the whole, not for parts put together; and of an empty body there is no part.
    coded = len(parts) > 1 and first(headers, b"content-encoding") is not None
    if coded or not body or overlapping(parts):
        return None
    if len(parts) == 1:
        start, stop = parts[0]
        fields = [(b"content-range", content_range(parts[0], len(body)))]
        content = body[start:stop]
        kept = _without(headers, _left_out(request, etag))
    else:
        separator = boundary(b"", body)
        content = multipart(parts, body, first(headers, b"content-type"), separator)
        fields = [(b"content-type", b"multipart/byteranges; boundary=" + separator)]
        kept = _without(headers, _left_out(request, etag) | {b"content-type"})
    return 206, [*kept, *fields, (b"content-length", b"%d" % len(content))], content


def within(
    request: Headers,
    headers: Headers,
    body: bytes,
    etag: bytes | None,
    last_modified: bytes | None,
    *,
    dated: float | None = None,
) -> tuple[int, Headers, bytes] | None:
    """The 206 by which a stored 206 answers a GET with a Range that lies wholly in it (RFC 9111 s.3.3).

    None where it does not: one range, of bytes that are all there. The arguments are those of `partial`.
    """
    specs = _asked(request, etag, last_modified, dated)
    there = enclosed(headers, body)
    if specs is None or len(specs) != 1 or there is None:
        return None
    (held_from, held_to), length = there
    # Where the length of the whole is not known, only a range with both its ends says which bytes it means.
    start, end = specs[0]
    if length is None and (start is None or end is None):
        return None
    for start, stop in satisfiable(specs, _FAR if length is None else length):
        if held_from <= start and stop <= held_to:
            content = body[start - held_from : stop - held_from]
            span = b"bytes %d-%d/%b" % (start, stop - 1, b"*" if length is None else b"%d" % length)
            size = (b"content-length", b"%d" % len(content))
            kept = _without(headers, _left_out(request, etag))
            return 206, [*kept, (b"content-range", span), size], content
    return None


def enclosed(headers: Headers, body: bytes) -> tuple[Part, int | None] | None:
    """Which bytes of the whole a 206 holds, and how many the whole has, if that is said (s.14.4, s.15.3.7.1).

    None where it does not say so in the grammar, holds several parts, or more than it says. One that holds less than it
    says has the first of them.
    """
    lines = values(headers, b"content-range")
    matched = _CONTENT_RANGE.fullmatch(lines[0].strip(b" \t")) if len(lines) == 1 else None
    if matched is None:
        return None
    start, end = int(matched[1]), int(matched[2])
    length = None if matched[3] == b"*" else int(matched[3])
    if end < start or len(body) > end + 1 - start or (length is not None and length <= end):
        return None
    return (start, start + len(body)), length


def content_range(part: Part, length: int) -> bytes:
    """Content-Range of one slice (s.14.4)."""
    return b"bytes %d-%d/%d" % (part[0], part[1] - 1, length)


def multipart(parts: Iterable[Part], body: bytes, content_type: bytes | None, separator: bytes) -> bytes:
    """The body of multipart/byteranges: each slice under its Content-Range and the whole's Content-Type (s.14.6)."""
    kind = b"" if content_type is None else b"Content-Type: %b\r\n" % content_type
    pieces = []
    for part in parts:
        span = content_range(part, len(body))
        pieces.append(b"--%b\r\n%bContent-Range: %b\r\n\r\n" % (separator, kind, span))
        pieces.append(body[part[0] : part[1]])
        pieces.append(b"\r\n")
    pieces.append(b"--%b--\r\n" % separator)
    return b"".join(pieces)


def boundary(digest: bytes, body: bytes) -> bytes:
    """A separator that does not occur in the body, the same in every process (RFC 2046 s.5.1.1).

    It is `digest`, or where that is empty one of the body, unless the body holds it; then it is digested further.
    """
    digest = digest or hashlib.sha256(body).hexdigest()[:32].encode()
    while digest in body:
        digest = hashlib.sha256(digest).hexdigest()[:32].encode()
    return digest


def _without(headers: Headers, names: frozenset[bytes]) -> Headers:
    return [pair for pair in headers if pair[0].lower() not in names]
