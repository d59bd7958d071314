"""Conditional requests: what a client's validators say of a stored response, and what an app's 304 says of it.

Law: only validators decide, entity tags before dates; one that does not parse matches nothing.
"""

from __future__ import annotations

import hashlib
from typing import Final

from .fields import http_date, names_listed, none_match
from .http import SAFE_METHODS, Headers, StoredResponse, first, values
from .names import FOR_ALL, HOP_BY_HOP, ONE_EXCHANGE

CONDITIONAL: Final = ("GET", "HEAD", "QUERY")
"""Methods to which a validator that matches brings a 304; to all others a 412 (RFC 9110 s.13.1.2, RFC 10008 s.2)."""
NOT_IN_304: Final = frozenset(
    b"content-length content-encoding content-type content-language content-range last-modified "
    b"transfer-encoding".split()
)
"""Fields about the representation, which a 304 does not carry (RFC 9110 s.15.4.5)."""
_NOT_IN_304_UNTAGGED: Final = NOT_IN_304 - {b"last-modified"}

_OF_THE_BODY: Final = frozenset(
    b"content-length content-encoding content-range content-digest content-md5".split()
)
"""Fields that describe the stored bytes: what a message without a body says there is not about them."""


def is_precondition(method: str, request: Headers) -> bool:
    """Whether If-None-Match says when a request is to be carried out at all: the app's 412 (RFC 9110 s.13.1.2)."""
    return method not in SAFE_METHODS and bool(values(request, b"if-none-match"))


def not_modified(
    method: str,
    status: int,
    request: Headers,
    etag: bytes | None,
    last_modified: bytes | None,
    *,
    dated: float | None = None,
    now: float | None = None,
) -> bool:
    """Whether a request is answered by a 304, If-None-Match before If-Modified-Since (RFC 9110 s.13.2.2).

    A part is concerned like a whole: a Range counts only where there is something new (RFC 9111 s.4.3.2).
    Without a Last-Modified the date of the response counts: `dated`, its Date or else the time at which it came, in
    seconds of the epoch (RFC 9111 s.4.3.2). `now`, in the same, reads years of two digits; without it they are near to
    the response's own date, so that none is later than it is. A date that is none is ignored, and so is one of several
    (RFC 9110 s.13.1.3).
    """
    if status not in (200, 206) or method not in CONDITIONAL:
        return False
    lines = values(request, b"if-none-match")
    if lines:
        return none_match(lines, etag)
    lines = values(request, b"if-modified-since")
    if len(lines) != 1:
        return False
    changed = dated if last_modified is None else http_date(last_modified, now)
    if changed is None:
        return False
    asked = http_date(lines[0], changed if now is None else now)
    return asked is not None and changed <= asked


def of_304(headers: Headers, etag: bytes | None) -> Headers:
    """What of a response's fields a 304 carries that stands for it (RFC 9110 s.15.4.5).

    Without an entity tag the date says what it confirms to a cache in front, which else may not use it
    (RFC 9111 s.4.3.4).
    """
    left_out = NOT_IN_304 if etag is not None else _NOT_IN_304_UNTAGGED
    return [pair for pair in headers if pair[0].lower() not in left_out]


def validators(etag: bytes | None, last_modified: bytes | None) -> Headers:
    """The request fields that ask whether a stored response still holds (RFC 9111 s.4.3.1)."""
    asked: Headers = []
    if etag is not None:
        asked.append((b"if-none-match", etag))
    if last_modified is not None and http_date(last_modified, 0.0) is not None:
        asked.append((b"if-modified-since", last_modified))
    return asked


def confirms(
    stored_etag: bytes | None,
    stored_last_modified: bytes | None,
    answer_etag: bytes | None,
    answer_last_modified: bytes | None,
) -> bool:
    """Whether a 304 speaks of the one stored response that was asked about (RFC 9111 s.4.3.4).

    A strong entity tag must be the very same; a weak one must equal weakly; where there is none to compare, the dates
    decide. A 304 without any validator answers the question that was put: no other response was named in it.
    """
    if answer_etag is not None and not answer_etag.startswith(b"W/"):
        return answer_etag == stored_etag
    if answer_etag is not None and stored_etag is not None:
        return answer_etag == b"W/" + stored_etag.removeprefix(b"W/")
    if answer_last_modified is not None:
        return answer_last_modified == stored_last_modified
    return answer_etag is None


def agrees(
    stored_etag: bytes | None,
    stored_last_modified: bytes | None,
    stored_length: int,
    answer_etag: bytes | None,
    answer_last_modified: bytes | None,
    answer_length: int | None,
) -> bool:
    """Whether a HEAD's 200 describes the stored response: whatever it says is the same (RFC 9111 s.4.3.5).

    `answer_length` is its Content-Length, `stored_length` that of the stored body, in bytes.
    """
    return (
        answer_etag in (None, stored_etag)
        and answer_last_modified in (None, stored_last_modified)
        and answer_length in (None, stored_length)
    )


def freshened(stored: Headers, update: Headers) -> Headers:
    """The stored fields with those of a 304, or of a HEAD's 200, in their places (RFC 9111 s.3.2, s.4.3.4, s.4.3.5).

    What describes the stored bytes stays, what is one connection's or one exchange's does not enter (s.3.1), and the
    Age of the message that was stored goes: it says nothing of the one that freshens it.
    """
    listed = names_listed(values(update, b"connection")) - FOR_ALL
    kept_out = _OF_THE_BODY | HOP_BY_HOP | ONE_EXCHANGE | listed
    renewed: dict[bytes, Headers] = {}
    for pair in update:
        name = pair[0].lower()
        if name not in kept_out:
            renewed.setdefault(name, []).append(pair)
    gone = renewed.keys() | {b"age"}
    result: Headers = []
    for pair in stored:
        name = pair[0].lower()
        if name not in gone:
            result.append(pair)
        else:
            result += renewed.pop(name, ())
    return result + [pair for pairs in renewed.values() for pair in pairs]


def updated(stored: StoredResponse, update: Headers) -> Headers:
    """The fields of a stored response, `freshened`; where its entity tag is ours, it is that of what they say now.

    The type of several parts in one body is that body's own, and no 304 knows its boundary (RFC 9110 s.15.3.7.2).
    """
    fields = stored.head.headers
    if (first(fields, b"content-type") or b"").lower().startswith(b"multipart/byteranges"):
        update = [pair for pair in update if pair[0].lower() != b"content-type"]
    if not stored.own_etag:
        return freshened(fields, update)
    fields = freshened([pair for pair in fields if pair[0].lower() != b"etag"], update)
    if first(fields, b"etag") is None:
        fields.append((b"etag", entity_tag(fields, stored.body)))
    return fields


def entity_tag(headers: Headers, body: bytes) -> bytes:
    """A strong entity tag for a response that has none: the same for the same bytes, type and coding, anywhere."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (b"content-type", b"content-encoding"):
        value = b"\n".join(values(headers, name))
        digest.update(b"%d:%b" % (len(value), value))
    digest.update(body)
    return b'"' + digest.hexdigest().encode() + b'"'
