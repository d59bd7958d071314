"""HTTP as the engine sees it: ordered byte header pairs, response heads and stored responses.

Law: headers are ordered pairs of bytes, never a dict, and nothing here is shared with a request that may change it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import msgspec

from .unseen import Unseen

Headers = list[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
"""An ASGI http connection scope (ASGI HTTP spec 2.x): the request line, headers and peers, without the body."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""Methods that change nothing (RFC 9110 s.9.2.1; QUERY: RFC 10008); every other one, known or not, is unsafe."""

MOST_BYTES = 32 * 1024
"""Bytes of a request's target, and of its fields: more are not read here, as not every server has a bound."""

PAIR_OVERHEAD = 56 + 2 * 33
"""Bytes that CPython needs for one header pair beside its text: a tuple and two bytes objects."""

NAME_OVERHEAD = 350
"""Bytes that the store's index needs for one name of a response beside its text."""

RESPONSE_OVERHEAD = 1100
"""Bytes a stored response needs beside its fields and body: the struct, its key, LRU and index slots."""


BY_COOKIE = (b"vary", b"Cookie")
"""What the layer of a session says of a response that the session went into."""

NEVER = float("inf")
"""A time that does not come."""


class Head(Unseen, msgspec.Struct, frozen=True):
    """A response's status and header pairs, as the app sent them (`http.response.start`)."""

    status: int
    headers: Headers


class StoredResponse(Unseen, msgspec.Struct, eq=False, gc=False):
    """A complete response and what is needed to serve it again.

    Times are seconds of the injected monotonic clock. `size` counts what the store is charged for, in bytes.
    `names` are the tags and the target by which it is invalidated. `seconds` is how long its forward took, and
    `flight` the forward's span id in hex (None where it was not sampled); `link` and `told` are opaque to all but
    telemetry. `expires` is when it turns stale. It is worth keeping for `kept` seconds more: for
    `stale_while_revalidate` seconds it answers while it is fetched anew, for `stale_if_error` seconds instead of an
    error, where it is `rigid` never. From `refresh_at` on a hit fetches it anew, but not before `refresh_after`.
    `arrived` is when it was made or came, in seconds of the epoch; `line_end` ends its Cache-Status; `own_etag` says
    that its entity tag is not the app's, `of_session` that a session went into it. Where it is `contested`, what lies
    under another key may be more recent and answer the same requests.
    Of the `hits` so far `recorded` are in a ledger; `noted` says that the recorder will look at them again. `used`
    and `partition` are the store's own.
    """

    head: Head
    body: bytes
    stored_at: float
    expires: float
    names: tuple[str, ...]
    generation: int
    seconds: float
    initial_age: float = 0
    etag: bytes | None = None
    last_modified: bytes | None = None
    validates: bool = False
    route: str | None = None
    flight: str | None = None
    link: Any = None
    size: int = 0
    used: bool = False
    hits: int = 0
    recorded: int = 0
    noted: bool = False
    kept: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    rigid: bool = False
    refresh_at: float = NEVER
    refresh_after: float = 0.0
    arrived: float = 0.0
    line_end: bytes = b""
    own_etag: bool = False
    contested: bool = False
    of_session: bool = False
    tail: tuple[tuple[bytes, bytes], ...] = ()
    tail_until: float = 0.0
    told: Any = None
    partition: int = 0

    @property
    def given_etag(self) -> bytes | None:
        """The entity tag that the app gave it: ours says nothing to the app."""
        return None if self.own_etag else self.etag

    @property
    def recency(self) -> tuple[int, int]:
        """What is greater for the more recent response: its Date, to the second, then its flight (RFC 9111 s.4)."""
        return int(self.arrived), self.generation

    def retell(self, now: float) -> None:
        """Spell Age and Cache-Status for the second that began; `tail` holds until `tail_until` (RFC 9211 s.2.4)."""
        here = max(0.0, now - self.stored_at)
        age = self.initial_age + here
        left = max(0, int(self.expires - self.stored_at) - int(here))
        self.tail = (
            *((BY_COOKIE,) if self.of_session else ()),
            (b"age", b"%d" % age),
            (b"cache-status", b"dedup; hit; ttl=%d%b" % (left, self.line_end)),
        )
        self.tail_until = now + 1 - max(age % 1, here % 1)  # whichever second is over first


class StoredValue(Unseen, msgspec.Struct, eq=False):
    """What a function returned, kept by reference; the same bookkeeping as for a response, and the function's label."""

    value: Any
    stored_at: float
    expires: float
    names: tuple[str, ...]
    generation: int
    seconds: float
    flight: str | None = None
    link: Any = None
    label: str = ""
    kept: float = 0.0
    size: int = 0
    used: bool = False
    hits: int = 0
    recorded: int = 0
    noted: bool = False
    partition: int = 0


Stored = StoredResponse | StoredValue


def response_size(headers: Headers, body: bytes, names: Iterable[str]) -> int:
    """The bytes a response is charged for in the store."""
    size = RESPONSE_OVERHEAD + len(body)
    for field, value in headers:
        size += len(field) + len(value) + PAIR_OVERHEAD
    for name in names:
        size += len(name) + NAME_OVERHEAD
    return size


def value_size(value: object, names: Iterable[str]) -> int:
    """An estimate of the bytes that a value holds: its encoded size where it has one, else its shell's."""
    try:
        inner = len(msgspec.msgpack.encode(value)) * 2
    except Exception:  # noqa: BLE001 - this reads its fields, and one that was never set raises anything
        inner = _shell_size(value)
    return RESPONSE_OVERHEAD + inner + sum(NAME_OVERHEAD + len(name) for name in names)


def _shell_size(value: object) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:  # noqa: BLE001 - this asks its class, too
        return object.__sizeof__(value)


def oversized(said: Iterable[bytes]) -> bool:
    """Whether what a request's fields say is more than is read here."""
    try:
        return sum(map(len, said)) > MOST_BYTES
    except TypeError:  # of something else than bytes: who reads it says so
        return False


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of a field, one a line, in order (RFC 9110 s.5.3); `name` in lower case."""
    return [value for key, value in headers if key == name or key.lower() == name]


def first(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a field, or None."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return None
