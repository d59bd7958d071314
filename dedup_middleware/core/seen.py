"""Seen: the keys of requests that were read before, so that one that comes again need not be read again.

Law: it is the same only if all of it is equal; and what may hold a secret stands here by its keyed digest alone.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from .memo import Memo
from .names import is_secret

if TYPE_CHECKING:
    from collections.abc import Hashable

BY_DIGEST: Final = 4096
AS_THEY_CAME: Final = 1024
"""Requests that are remembered, twice at most."""
_TARGETS: Final = 8192
"""Targets that came once, twice as many at most."""
_LARGEST: Final = 2048
"""Bytes of query, names and values of a request that is remembered as it came."""
_MOST: Final = 32
"""Its fields: small ones too take memory, each as much as a hundred bytes do."""
_BYTES: Final = (bytes, NoneType)
_TUPLE: Final = (tuple, NoneType)
_TEXTS: Final = frozenset({str, int, NoneType})
_NO_SECRETS: Final = frozenset(
    b"host connection user-agent accept accept-charset accept-encoding accept-language content-type cache-control "
    b"pragma range if-range if-none-match if-modified-since origin dnt save-data priority te sec-gpc "
    b"upgrade-insecure-requests x-requested-with sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-site "
    b"sec-fetch-mode sec-fetch-user sec-fetch-dest".split()
)
"""Request fields whose values are nobody's secret; what is not named here may be."""
_PLAIN: Final = b"=&-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What a query may hold for its names to be read as they stand: nothing is escaped, and no value is a URL."""


class Once:
    """What came once, of the last `_TARGETS` targets at least: their hashes, in two generations.

    Two targets of one hash are taken for one: the second is only remembered too early.
    """

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def comes_again(self, target: Hashable) -> bool:
        """Whether it has come before; from now on it has."""
        hashed = hash(target)
        if hashed in self._young or hashed in self._old:
            return True
        if len(self._young) >= _TARGETS:
            self._old, self._young = self._young, set()
        self._young.add(hashed)
        return False


class Seen:
    """Keys by the keyed digest of all that was read of a request; of those without secrets, as they came.

    The look-up as it came saves a digest, which matters behind a server, where nothing is in the processor's cache. A
    request is remembered when its target comes again: one that never does would only push others out.
    """

    def __init__(self) -> None:
        self.digests: Memo[bytes, bytes] = Memo(BY_DIGEST)
        self.open: Memo[tuple[Any, ...], bytes] = Memo(AS_THEY_CAME)
        self.once = Once()


def is_open(said: tuple[Any, ...]) -> bool:
    """Whether a request (as `Shape.read` gives it) holds nothing that may be a secret, and a memo can hold it."""
    query, scheme, version, server, headers, client = said[4:10]
    if type(query) not in _BYTES or type(server) not in _TUPLE or len(headers) > _MOST:
        return False
    host = client[0] if client else None
    if not _TEXTS.issuperset(map(type, (scheme, version, host, *(server or ())))):
        return False
    if {*map(type, headers)} != {tuple} or {*map(len, headers)} != {2}:
        return False
    names, values = zip(*headers, strict=True)
    if {*map(type, names), *map(type, values)} != {bytes} or not _NO_SECRETS.issuperset(names):
        return False
    if len(query or b"") + sum(map(len, names)) + sum(map(len, values)) > _LARGEST:
        return False
    return not query or not (query.translate(None, _PLAIN) or _names_secret(query))


def _names_secret(query: bytes) -> bool:
    return any(is_secret(pair.partition("=")[0]) for pair in query.decode("ascii").split("&"))
