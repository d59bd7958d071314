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
"""What a flight's scope has of its own: never copied to the leader's, but for a state that it had none of."""
_unread: Final = count()


def copy_back(
    given: dict[str, Any], scope: MutableMapping[str, Any], leaders: MutableMapping[str, Any]
) -> None:
    """What the app's router found goes to the leader's scope, so that outer layers still find it there.

    `given` is the app's `scope` as it was at first.
    """
    for name, value in scope.items():
        if given.get(name, _OWN) is not value and (
            name not in _OWN or (name == "state" and name not in leaders)
        ):
            leaders[name] = value


def session_content(scope: MutableMapping[str, Any]) -> bytes | None:
    """What a session holds, in a form that tells whether the app has changed it; what can't be read may have been.

    One that was set to what it held counts as changed, too, where it says so: its cookie is renewed by that.
    """
    session = scope.get("session")
    if session is None:
        return None
    for read in (_by_content, repr):
        try:
            return canonical.encode((read(session), getattr(session, "modified", None) is True))
        except Exception:  # noqa: BLE001, S112 - a session is whatever an outer layer made: one not loaded yet raises anything
            continue
    return b"unread %d" % next(_unread)


def session_was_read(scope: MutableMapping[str, Any]) -> bool:
    """Whether the app has looked at a session that notes it (Starlette's): then its outer layer says `Vary: Cookie`."""
    try:
        return getattr(scope.get("session"), "accessed", None) is True
    except Exception:  # noqa: BLE001 - as above
        return True


def _by_content(session: Any) -> Any:
    return canonical.plain(dict(session))
