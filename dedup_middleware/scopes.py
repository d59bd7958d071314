"""Scopes: what an app writes into its own, as far as others see it.

Law: what belongs to the flight stays there; a session is compared, never kept or shown.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

from .core import canonical

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_OWN: Final = frozenset({"headers", "client", "state", "extensions", "user", "auth", "session"})
"""What a flight's scope has of its own: never copied to the leader's."""
_unread: Final = count()


def copy_back(
    given: dict[str, Any], scope: MutableMapping[str, Any], leaders: MutableMapping[str, Any]
) -> None:
    """What the app's router found goes to the leader's scope, so that outer layers still find it there.

    `given` is the app's `scope` as it was at first.
    """
    for name, value in scope.items():
        if given.get(name, _OWN) is not value and name not in _OWN:
            leaders[name] = value


def session_content(scope: MutableMapping[str, Any]) -> bytes | None:
    """What a session holds, in a form that tells whether the app has changed it; what can't be read may have been."""
    session = scope.get("session")
    if session is None:
        return None
    for read in (_by_content, repr):
        try:
            return canonical.encode(read(session))
        except Exception:  # noqa: BLE001, S112 - a session is whatever an outer layer made: one not loaded yet raises anything
            continue
    return b"unread %d" % next(_unread)


def _by_content(session: Any) -> Any:
    return canonical.plain(dict(session))
