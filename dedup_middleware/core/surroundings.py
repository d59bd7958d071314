"""What outer layers put into a scope: users, sessions, state, certificates and keys that no specification names.

Law: plain data is told apart by its content, never by an object's address or repr; what has none is a doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, cast

from . import canonical
from .callers import has_certificate, user_identity
from .selectors import Anonymous

if TYPE_CHECKING:
    from .http import Scope
    from .status import Reason

_OWN_STATE: Final = frozenset({"_ls_connection_state"})
"""What a framework remembers of a request, all of its fields too, for whoever asks it next (Litestar's)."""


class Part(IntEnum):
    """What becomes of one part of a request."""

    KEYED = 0
    """in the fingerprint, and visible"""
    NOISE = 1
    """visible, in its own grammar not in the fingerprint"""
    VISIBLE = 2
    """visible, not in the fingerprint: framing, or the operator's oath"""
    HIDDEN = 3
    """neither in the fingerprint nor visible"""
    RELOAD = 4
    """a reload's directive: hidden in that grammar, else keyed"""
    COOKIE = 5
    """cookies are told apart by name"""
    REFUSED = 6
    """a credential that the rule's list does not name: no sharing"""
    PRESENT = 7
    """visible; that it is there is in the fingerprint, what it says is not (RFC 9111 s.3.5)"""


class DoubtError(Exception):
    """A part that can't be told apart safely: no sharing."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Surroundings:
    """A rule's reading of them; `Reading` sets what it needs."""

    function: Callable[[Mapping[str, Any]], str | bytes | Anonymous] | None
    named: frozenset[str] | None
    by_caller: bool
    everything: bool
    trusting: bool
    hides: bool
    _own_states: Sequence[Mapping[str, Any]]
    _vary_state: frozenset[str]
    _ignored_state: tuple[str, ...]
    _ignored_scope: tuple[str, ...]

    def special(self, name: str, scope: Scope) -> Any:
        """The keyed form of what outer layers put into the scope; None where it does not count.

        Raises:
            DoubtError: for what cannot be told apart safely.
        """
        value = scope[name]
        if name == "state":
            return self._keyed_state(value)
        if name in ("user", "auth", "session"):
            if self.function is not None or not self.counts(name):
                if self.named is not None and not self.anonymous(name, value):
                    raise DoubtError("credential")
                return None
            if name == "user":
                return (_who(value),)
            if name == "auth":
                scopes = getattr(value, "scopes", value)
                return _plain(sorted(scopes) if isinstance(scopes, (set, frozenset)) else scopes, "user")
            return _plain(dict(value) if isinstance(value, Mapping) else value, "session")
        if name == "extensions":
            tls = value.get("tls") if isinstance(value, Mapping) else None
            if tls is None or self.function is not None:
                return None
            if self.counts("certificate"):
                return _plain(tls, "certificate")
            if self.named is not None and has_certificate(tls):
                raise DoubtError("credential")
            return None
        return (_plain(value, "state"),) if self.unknown_part(name) is Part.KEYED else None

    def who(self, scope: Scope) -> str | bytes | None:
        """What the rule's identity function says; None for ANONYMOUS.

        Raises:
            DoubtError: where it says nothing that tells callers apart, or fails.
        """
        assert self.function is not None  # noqa: S101 - for mypy; the caller has checked
        try:
            who = self.function({**scope})  # its own: what it wrote would be seen, and not be keyed
        except Exception:  # noqa: BLE001 - the function is the user's; a caller who can't be told is not shared
            raise DoubtError("identity") from None
        if isinstance(who, Anonymous):
            return None
        if who and type(who) in (str, bytes):
            return who
        raise DoubtError("identity")

    def counts(self, name: str) -> bool:
        """Whether `user`, `auth`, `session` or `certificate` is part of the key."""
        if self.named is not None:
            return name in self.named or (name == "auth" and "user" in self.named)
        return self.by_caller

    @staticmethod
    def anonymous(name: str, value: Any) -> bool:
        """Whether `user`, `auth` or `session` says that the caller is nobody in particular."""
        if name == "user":
            try:
                return value is None or user_identity(value) in (None, "")
            except Exception:  # noqa: BLE001 - as for `_who`: who can't be told is somebody
                return False
        return not (getattr(value, "scopes", value) if name == "auth" else value)

    def _keyed_state(self, state: Any) -> list[Any]:
        if type(state) is not dict:
            raise DoubtError("state")
        keyed: list[Any] = []
        for key in sorted(state):
            value = state[key]
            if key in _OWN_STATE and self.hides and not self._is_sworn(key):
                raise DoubtError("state")  # with it the app would see what the rule hides
            if self.state_part(key, value) is Part.KEYED:
                keyed.append([key, _plain(value, "state")])
            elif self._is_own(key, value):
                keyed.append(key)
        return keyed

    def _is_own(self, key: str, value: Any) -> bool:
        """Whether an entry of the state stands in the lifespan's own."""
        return any(key in own and own[key] is value for own in self._own_states)

    def _is_sworn(self, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in self._ignored_state)

    def state_part(self, key: str, value: Any) -> Part:
        """What becomes of one entry of `scope["state"]`."""
        if f"state:{key}" in self._vary_state:
            return Part.KEYED
        if key in _OWN_STATE or self._is_own(key, value):
            return Part.VISIBLE
        if self._is_sworn(key):
            return Part.VISIBLE
        return Part.KEYED if self.everything or self.trusting else Part.HIDDEN

    def unknown_part(self, key: str) -> Part:
        """What becomes of a scope key that no specification names."""
        if f"scope:{key}" in self._vary_state:
            return Part.KEYED
        if any(fnmatchcase(key, pattern) for pattern in self._ignored_scope):
            return Part.VISIBLE
        return Part.KEYED if self.everything or self.trusting else Part.HIDDEN


def _who(user: Any) -> str | int | None:
    try:
        who = user_identity(user)
    except Exception:  # noqa: BLE001 - a user is whatever an outer layer made; its properties may raise anything
        raise DoubtError("user") from None
    return cast("str | int | None", _plain(who, "user"))


def _plain(value: Any, reason: Reason) -> Any:
    try:
        return canonical.plain(value)
    except TypeError:
        raise DoubtError(reason) from None
