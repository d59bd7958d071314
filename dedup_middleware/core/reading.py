"""A rule's reading of requests: what becomes of each field, cookie, state and scope key.

Law: one classification, from which the fingerprint takes what is keyed and the app's scope what is visible; so what
the one does not hold, the other does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, cast

from . import canonical
from .callers import cookie_pairs, has_certificate, join_cookies, user_identity, without_analytics
from .memo import Memo
from .names import ADDRESS_FIELDS, ANALYTICS_COOKIE, ANALYTICS_HINT, NOISE, OVERRIDES, RELOAD, is_credential
from .rules import Anonymous

if TYPE_CHECKING:
    from .http import Headers, Scope
    from .rules import Rule
    from .status import Reason

MAX_HEADERS: Final = 256
_MEMO_HEADERS, _MEMO_NAME_BYTES = 64, 2048
_SINGLE: Final = frozenset(
    {b"host", b"content-type", b"content-length", b"authorization", b"transfer-encoding"}
)
_NEVER_DROPPED: Final = frozenset(
    {b"host", b"content-type", b"content-encoding", b"transfer-encoding", b"range", b"if-range"}
)
VALIDATORS: Final = frozenset({b"if-none-match", b"if-modified-since"})
_RELOADS: Final = frozenset({b"cache-control", b"pragma"})
_TARGET_KEYS: Final = frozenset(
    "type asgi http_version server client scheme method root_path path raw_path query_string headers "
    # What routers derive from the target, or set the same for every request of one app.
    "app router endpoint route path_params app_root_path route_root_path starlette.exception_handlers "
    "starlette.opentelemetry fastapi_inner_astack fastapi_function_astack fastapi_middleware_astack "
    "litestar_app route_handler path_template _ls_connection_state".split()
)
SPECIAL: Final = ("user", "auth", "session", "state", "extensions")
_OWN_STATE: Final = frozenset({"_ls_connection_state"})
_SCOPE_IDENTITY: Final = frozenset({"user", "auth", "session", "certificate", "client"})
"""What a rule's identity list names beside fields."""


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


class Layout:
    """What one tuple of field names means under one rule; found once and remembered."""

    def __init__(
        self, names: Sequence[bytes], parts: list[Part], doubt: Reason | None, digest: canonical.Digest
    ) -> None:
        self.doubt = doubt
        self.count = len(names)
        self.names = names
        self.parts = parts
        self.indexes = [i for i, part in enumerate(parts) if part is Part.KEYED]
        self.grammar = [
            (i, (NOISE[names[i]] if part is Part.NOISE else RELOAD).fullmatch)
            for i, part in enumerate(parts)
            if part in (Part.NOISE, Part.RELOAD)
        ]
        self.cookies = [i for i, part in enumerate(parts) if part is Part.COOKIE]
        self.whole_cookies = [i for i in self.indexes if names[i] == b"cookie"]
        self.connection = [i for i, name in enumerate(names) if name == b"connection"] if self.grammar else []
        self.length = names.index(b"content-length") if b"content-length" in names else None
        self.chunked = b"transfer-encoding" in names
        # Every field is keyed as it stands, and none raises a question.
        self.plain = len(self.indexes) == len(parts) and doubt is None and not self.chunked
        self.keyed_names = digest(canonical.encode([names[i] for i in self.indexes]))


class DoubtError(Exception):
    """A part that can't be told apart safely: no sharing."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Reading:
    """One rule's classification of everything in a request.

    `own_states` are the state dicts of the app's lifespan: what stands there belongs to the app itself.
    """

    def __init__(
        self, rule: Rule, digest: canonical.Digest, own_states: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.rule = rule
        self._digest = digest
        self._own_states = own_states
        vary = rule.vary
        items = () if vary is None or isinstance(vary, str) else tuple(vary)
        self.trusting = vary == "origin"
        self.everything = vary is None or "*" in items
        named = rule.identity if isinstance(rule.identity, tuple) else ()
        self.added = frozenset(
            i.encode() for i in items if ":" not in i and not i.startswith("-")
        ) | frozenset(i.encode() for i in named if ":" not in i and i not in _SCOPE_IDENTITY)
        self._dropped = frozenset(i[1:].encode() for i in items if i.startswith("-"))
        self._vary_cookies = frozenset(i[7:].encode() for i in items if i.startswith("cookie:"))
        self._vary_state = frozenset(i for i in items if i.startswith(("state:", "scope:")))
        self.ignored_headers = _patterns(rule.ignore, "header:")
        self.ignored_query = _patterns(rule.ignore, "query:")
        self.ignored_body = _patterns(rule.ignore, "body:")
        self._ignored_state = _patterns(rule.ignore, "state:")
        self._ignored_scope = _patterns(rule.ignore, "scope:")
        identity = rule.identity
        self.function = identity if callable(identity) else None
        self.named = frozenset(identity) if isinstance(identity, tuple) else None
        self.identity_cookies = frozenset(i[7:].encode() for i in self.named or () if i.startswith("cookie:"))
        self.by_caller = identity in ("separate", "credentials")
        self.keys_client = identity == "separate" or b"client" in self.added or "client" in (self.named or ())
        self.shows_client = self.keys_client or self.function is not None
        self.layouts: Memo[bytes, Layout] = Memo(64)
        self.usual: tuple[frozenset[str], tuple[str, ...]] = (frozenset(), ())

    # -- fields -------------------------------------------------------------------------------------------------

    def part(self, name: bytes) -> Part:
        """What becomes of a field of this name (lower case)."""
        if name in _NEVER_DROPPED or name in self.added:
            return Part.KEYED
        if name == b"content-length":
            return Part.VISIBLE
        if name in VALIDATORS:
            return Part.HIDDEN if self.rule.stores else Part.KEYED
        if name == b"cookie":
            return Part.KEYED if self.by_caller else Part.COOKIE
        text = name.decode("latin-1")
        if is_credential(text):
            return self._credential(text)
        if name in ADDRESS_FIELDS:
            return Part.KEYED if self.keys_client else Part.VISIBLE if self.function else Part.HIDDEN
        if name in _RELOADS and self.rule.stores:
            return Part.RELOAD
        if any(fnmatchcase(text, pattern) for pattern in self.ignored_headers):
            return Part.VISIBLE
        if name in NOISE:
            return Part.NOISE
        if self.trusting:
            return Part.KEYED if name in OVERRIDES else Part.VISIBLE
        return Part.KEYED if self.everything and name not in self._dropped else Part.HIDDEN

    def _credential(self, name: str) -> Part:
        if self.by_caller:
            return Part.KEYED
        if self.function is not None:
            return Part.VISIBLE
        if self.named is not None:
            return Part.KEYED if name in self.named else Part.REFUSED
        return Part.HIDDEN

    def layout(self, wire_names: tuple[bytes, ...]) -> Layout:
        """The layout of a request with these field names, in this order; found once and remembered.

        The memo's key joins the names: only names without its separator are remembered, and `count` tells apart
        what a hostile name with one could confuse.
        """
        joined = b"\n".join(wire_names)
        known = self.layouts.get(joined)
        if known is not None and known.count == len(wire_names):
            return known
        names = tuple(name.lower() for name in wire_names)
        if len(names) > MAX_HEADERS:
            return Layout((), [], "too-many-headers", self._digest)
        parts = [self.part(name) for name in names]
        doubt: Reason | None = None
        if b"upgrade" in names:
            doubt = "upgrade"
        elif b"if-match" in names or b"if-unmodified-since" in names:
            doubt = "precondition"
        elif any(names.count(name) > 1 for name in _SINGLE.intersection(names)):
            doubt = "duplicate-field"
        elif Part.REFUSED in parts:
            doubt = "credential"
        layout = Layout(names, parts, doubt, self._digest)
        small = len(names) <= _MEMO_HEADERS and len(joined) <= _MEMO_NAME_BYTES
        if small and joined.count(b"\n") == len(names) - 1:
            self.layouts.put(joined, layout)
        return layout

    def against_grammar(self, layout: Layout, values: Sequence[bytes]) -> list[int]:
        """Where noise and reload directives are none, by their grammar or because Connection names them: keyed."""
        if not layout.grammar:
            return []
        named = {token.strip().lower() for i in layout.connection for token in values[i].split(b",")}
        return [i for i, matches in layout.grammar if not matches(values[i]) or layout.names[i] in named]

    @staticmethod
    def without_analytics(headers: Headers) -> Headers:
        """The fields without the cookies of page analytics; a Cookie line of nothing else goes whole."""
        cleaned: Headers = []
        for name, value in headers:
            if name.lower() != b"cookie" or not ANALYTICS_HINT.search(value):
                cleaned.append((name, value))
            elif kept := without_analytics(value):
                cleaned.append((name, kept))
        return cleaned

    def cookies(self, lines: list[bytes]) -> tuple[list[bytes], list[bytes]] | None:
        """What of the Cookie lines is keyed, and what is visible; None where the rule's list does not name one."""
        if self.function is not None:
            named = self._vary_cookies
            kept = [join_cookies(pair for pair in cookie_pairs(line) if pair[0] in named) for line in lines]
            return [line for line in kept if line], lines
        wanted = self._vary_cookies | self.identity_cookies
        pairs = [
            [pair for pair in cookie_pairs(line) if not ANALYTICS_COOKIE.fullmatch(pair[0])] for line in lines
        ]
        if self.named is not None and (
            any(b'"' in line for line in lines)
            or any(name not in wanted for line in pairs for name, _ in line)
        ):
            return None
        shown = [text for line in pairs if (text := join_cookies(pair for pair in line if pair[0] in wanted))]
        return shown, shown

    # -- what outer layers put into the scope -------------------------------------------------------------------

    def shape(self, scope: Scope) -> tuple[str, ...]:
        """Which of a scope's keys say more than the target does; the last set of keys is remembered as the usual."""
        keys, special = self.usual
        if scope.keys() != keys:
            special = tuple(sorted(name for name in scope if name in SPECIAL or name not in _TARGET_KEYS))
            self.usual = (frozenset(scope), special)
        return special

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
            who = self.function(scope)
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
            if self.state_part(key, value) is Part.KEYED:
                keyed.append([key, _plain(value, "state")])
            elif self._is_own(key, value):
                keyed.append(key)
        return keyed

    def _is_own(self, key: str, value: Any) -> bool:
        """Whether an entry of the state stands in the lifespan's own."""
        return any(key in own and own[key] is value for own in self._own_states)

    def state_part(self, key: str, value: Any) -> Part:
        """What becomes of one entry of `scope["state"]`."""
        if f"state:{key}" in self._vary_state:
            return Part.KEYED
        if key in _OWN_STATE or self._is_own(key, value):
            return Part.VISIBLE
        if any(fnmatchcase(key, pattern) for pattern in self._ignored_state):
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


def _patterns(items: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(item.removeprefix(prefix) for item in items if item.startswith(prefix))
