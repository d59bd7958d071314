"""An answer's head, read once: what followers may have of it, and the fields on which decisions rest.

Law: fields stay in their order; what belongs to one connection or one exchange is neither shared nor stored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from .fields import age as age_of
from .fields import is_etag, names_listed
from .http import Headers
from .memo import Memo
from .names import FOR_ALL, HOP_BY_HOP, ONE_EXCHANGE, PERSONAL_FIELDS
from .unseen import Unseen

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOT_SHARED: Final = HOP_BY_HOP | ONE_EXCHANGE
_POLICY: Final = frozenset({b"content-security-policy", b"content-security-policy-report-only"})
_READ: Final = (
    _NOT_SHARED
    | PERSONAL_FIELDS
    | _POLICY
    | frozenset(
        b"content-length content-type cache-control cdn-cache-control surrogate-control vary etag last-modified age "
        b"expires date cache-groups".split()
    )
)
_STREAMS: Final = re.compile(
    rb"\s*(?:text/event-stream|multipart/x-mixed-replace"
    rb"|application/(?:x-ndjson|jsonl|x-jsonlines|json-seq|stream\+json))",
    re.IGNORECASE,
)
_NONCE: Final = re.compile(rb"'nonce-", re.IGNORECASE)
_NOTHING: Final[frozenset[bytes]] = frozenset()
_SHAPE_NAMES, _SHAPE_BYTES = 64, 2048
_Shape = tuple[int | None, int | None, tuple[tuple[int, bytes], ...]]
"""Where Content-Length and Content-Type stand, if once, and all else that is read."""
_TYPE_BYTES: Final = 256
_types: Final[Memo[bytes, bool]] = Memo(256)
_shapes: Final[Memo[tuple[bytes, ...], _Shape]] = Memo(256)
_LENGTH_DIGITS: Final = 20
_lengths: Final[Memo[bytes, int]] = Memo(1024)


class Answer(Unseen, msgspec.Struct, eq=False):
    """A response's status and header pairs as the app sent them, and what was read of them.

    `shared` are the pairs that others may have; `length` is the Content-Length that the body must have (None where none
    is said or the method or status has no body, -1 where it says what no body can have; RFC 9110 s.8.6); `age` is in
    seconds. `control`, `targeted`, `surrogate`, `vary` and `groups` are lines of Cache-Control, CDN-Cache-Control,
    Surrogate-Control, Vary and Cache-Groups; `personal` is the first field that makes the response one caller's;
    `streams` says that it has no end, `nonce` that its policy is made for one answer. One that is `plain` says nothing
    of all this but its entity tag, its dates and its length.
    """

    status: int
    headers: Headers
    shared: Headers
    etag: bytes | None = None
    last_modified: bytes | None = None
    age: int | None = None
    length: int | None = None
    control: tuple[bytes, ...] = ()
    surrogate: tuple[bytes, ...] = ()
    targeted: tuple[bytes, ...] = ()
    expires: bytes | None = None
    date: bytes | None = None
    groups: tuple[bytes, ...] = ()
    vary: tuple[bytes, ...] = ()
    personal: bytes | None = None
    streams: bool = False
    nonce: bool = False
    plain: bool = True

    @property
    def validates(self) -> bool:
        """Whether it can answer a conditional request."""
        return self.etag is not None or self.last_modified is not None


def read_answer(status: int, pairs: Iterable[Iterable[bytes]], method: str) -> Answer:
    """Read a head as `http.response.start` has it."""
    headers: Headers = []
    names: list[bytes] = []
    for name, value in pairs:
        if type(name) is not bytes or type(value) is not bytes:  # ASGI allows other buffers
            name, value = bytes(memoryview(name)), bytes(memoryview(value))  # noqa: PLW2901 - the same, as bytes
        names.append(name)
        headers.append((name, value))
    answer = Answer(status, headers, headers)
    length_at, type_at, more = _shapes.young.get((*names,)) or _shape((*names,))
    if length_at is not None and method != "HEAD" and status not in (204, 304):
        length = _lengths.young.get(headers[length_at][1])
        answer.length = _length(headers[length_at][1]) if length is None else length
    if type_at is not None:
        streams = _types.young.get(headers[type_at][1])
        if streams or (streams is None and _streams(headers[type_at][1])):
            answer.streams, answer.plain = True, False
    if more:
        dropped = _NOTHING
        for i, field in more:
            dropped = _read(answer, field, headers[i][1], dropped, method)
        if dropped:
            answer.shared = [pair for pair in headers if pair[0].lower() not in dropped]
    return answer


def _streams(media_type: bytes) -> bool:
    """Whether what is of this type has no end; remembered, for an app repeats its own."""
    streams = _types.get(media_type)
    if streams is None:
        streams = _STREAMS.match(media_type) is not None
        if len(media_type) <= _TYPE_BYTES:
            _types.put(media_type, streams)
    return streams


def _length(value: bytes) -> int:
    """What a Content-Length says, -1 for what is no number; remembered, for an app repeats its own."""
    length = _lengths.get(value)
    if length is None:
        digits = value.strip(b" \t")
        length = int(digits) if digits.isdigit() and len(digits) < _LENGTH_DIGITS else -1
        if len(value) < _LENGTH_DIGITS:
            _lengths.put(value, length)
    return length


def _read(
    answer: Answer, field: bytes, value: bytes, dropped: frozenset[bytes], method: str
) -> frozenset[bytes]:
    """Read a field that stands in `more`, without what is blank around its value (RFC 9110 s.5.5).

    Returns which ones others don't get.
    """
    value = value.strip()  # a line break counts as a blank
    if field == b"etag":
        answer.etag = answer.etag or (value if is_etag(value) else None)
    elif field == b"last-modified":
        answer.last_modified = answer.last_modified or value
    elif field == b"date":
        answer.date = answer.date or value
    elif field == b"expires":
        answer.expires = answer.expires or value
    elif field == b"content-length":  # more than once
        if method != "HEAD" and answer.status not in (204, 304):
            answer.length = _length(value) if answer.length in (None, _length(value)) else -1
    elif field == b"content-type":  # so, too
        if _streams(value):
            answer.streams, answer.plain = True, False
    else:
        answer.plain = False
        return _read_more(answer, field, value, dropped)
    return dropped


def _read_more(answer: Answer, field: bytes, value: bytes, dropped: frozenset[bytes]) -> frozenset[bytes]:
    """Read a field that says who may use the answer, or one that others don't get; returns all of those."""
    if field == b"cache-control":
        answer.control += (value,)
    elif field == b"vary":
        answer.vary += (value,)
    elif field == b"age":
        answer.age = answer.age if answer.age is not None else age_of([value]) or 0
    elif field in _POLICY:
        answer.nonce = answer.nonce or _NONCE.search(value) is not None
    elif field == b"cdn-cache-control":
        answer.targeted += (value,)
    elif field == b"surrogate-control":
        answer.surrogate += (value,)
    elif field == b"cache-groups":
        answer.groups += (value,)
    else:
        if field in PERSONAL_FIELDS:
            answer.personal = answer.personal or field
        if field in _NOT_SHARED:
            dropped = dropped or _NOT_SHARED
        if field == b"connection":
            dropped |= names_listed([value]) - FOR_ALL
    return dropped


def _shape(names: tuple[bytes, ...]) -> _Shape:
    """Where among these names the fields stand that are read; remembered, for an app repeats its own."""
    shape = _shapes.get(names)
    if shape is None:
        fields = [name.lower() for name in names]
        length_at, type_at = (
            fields.index(field) if fields.count(field) == 1 else None
            for field in (b"content-length", b"content-type")
        )
        more = tuple(
            (i, field) for i, field in enumerate(fields) if field in _READ and i not in (length_at, type_at)
        )
        shape = (length_at, type_at, more)
        if len(names) <= _SHAPE_NAMES and sum(map(len, names)) <= _SHAPE_BYTES:
            _shapes.put(names, shape)
    return shape
