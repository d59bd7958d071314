"""An answer's head, read once: what followers may have of it, and the fields on which more than one step rests.

Law: fields stay in their order; what belongs to one connection or one exchange is neither shared nor stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .fields import is_etag, names_listed, seconds
from .http import Headers
from .names import HOP_BY_HOP, ONE_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOT_SHARED: Final = HOP_BY_HOP | ONE_EXCHANGE
_READ: Final = _NOT_SHARED | {b"etag", b"last-modified", b"age", b"content-length"}


class Answer(msgspec.Struct, eq=False):
    """A response's status and header pairs as the app sent them, and what was read of them.

    `shared` are the pairs that others may have; `length` is the Content-Length that the body must have (None where
    none is said or the method or status has no body; RFC 9110 s.8.6); `age` is in seconds.
    """

    status: int
    headers: Headers
    shared: Headers
    etag: bytes | None = None
    last_modified: bytes | None = None
    age: int | None = None
    length: int | None = None

    @property
    def validates(self) -> bool:
        """Whether it can answer a conditional request."""
        return self.etag is not None or self.last_modified is not None


def read_answer(status: int, pairs: Iterable[Iterable[bytes]], method: str) -> Answer:
    """Read a head as `http.response.start` has it."""
    headers: Headers = [
        (name, value) if type(name) is type(value) is bytes else (bytes(name), bytes(value))
        for name, value in pairs
    ]
    answer = Answer(status, headers, headers)
    dropped: frozenset[bytes] = frozenset()
    for name, value in headers:
        field = name.lower()
        if field not in _READ:
            continue
        if field == b"content-length":
            if method != "HEAD" and status not in (204, 304) and value.isdigit() and len(value) < 20:
                answer.length = int(value)
        elif field == b"etag":
            answer.etag = answer.etag or (value if is_etag(value) else None)
        elif field == b"last-modified":
            answer.last_modified = answer.last_modified or value
        elif field == b"age":
            answer.age = answer.age if answer.age is not None else seconds(value) or 0
        else:
            dropped = dropped or _NOT_SHARED
            if field == b"connection":
                dropped |= names_listed([value])
    if dropped:
        answer.shared = [pair for pair in headers if pair[0].lower() not in dropped]
    return answer
