"""Targets: the names by which what depends on a target, or on a client's address, is found again.

Law: one name for one target, however its host is spelled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from .http import first

if TYPE_CHECKING:
    from .http import Headers, Scope

_LONGEST: Final = 256
"""Bytes of a host that tell it from others: no client has the memo keep more."""
_DEFAULT_PORT: Final = re.compile(r"\.?(?::(?:80|443)?)?$")


def target_name(path: str, headers: Headers) -> str:
    """The name by which a target is invalidated: host and path, whatever the query (RFC 9111 s.4.4 allows more)."""
    return f"{host_name(first(headers, b'host') or b'')}{path}"


def host_name(host: bytes) -> str:
    """How the names of all targets on a host begin, but for the slash."""
    return _host_name(host[:_LONGEST])


@lru_cache(maxsize=256)
def _host_name(host: bytes) -> str:
    return "target:" + _DEFAULT_PORT.sub("", host.decode("latin-1").lower())


def address_name(scope: Scope) -> str:
    """The name under which flights of one client address are found."""
    client = scope.get("client")
    return f"client:{client[0]}" if client else "client:"
