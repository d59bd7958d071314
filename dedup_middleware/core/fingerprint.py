"""Fingerprints: what says that two requests are the same, and what the app may see of them.

Law: both come from one classification of the request's parts, so that what the key does not hold, the app does not
see (but noise, what frames the body, and what the operator swore to by `ignore`, a function or `vary="origin"`).
The key is one keyed digest over length-prefixed parts; "no key" (a Reason) means no sharing, at every stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from . import canonical
from .callers import certificate, cookie_pairs, join_cookies, user_identity, without_analytics
from .memo import Memo
from .names import ADDRESS_FIELDS, ANALYTICS_COOKIE, ANALYTICS_HINT, NOISE, RELOAD, is_credential
from .rules import ANONYMOUS, Rule

if TYPE_CHECKING:
    from .http import Headers, Scope
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
_SPECIAL: Final = ("user", "auth", "session", "state", "extensions")
_OWN_STATE: Final = frozenset({"_ls_connection_state"})


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

    __slots__ = (
        "chunked",
        "connection",
        "cookies",
        "doubt",
        "grammar",
        "indexes",
        "length",
        "names",
        "packed",
        "parts",
        "plain",
    )

    def __init__(self, names: Sequence[bytes], parts: list[Part], doubt: Reason | None) -> None:
        self.doubt = doubt
        self.names = names
        self.parts = parts
        self.indexes = [i for i, part in enumerate(parts) if part is Part.KEYED]
        self.plain = len(self.indexes) == len(parts)
        self.grammar = [
            (i, (NOISE[names[i]] if part is Part.NOISE else RELOAD).fullmatch)
            for i, part in enumerate(parts)
            if part in (Part.NOISE, Part.RELOAD)
        ]
        self.cookies = [i for i, part in enumerate(parts) if part is Part.COOKIE]
        self.connection = [i for i, name in enumerate(names) if name == b"connection"] if self.grammar else []
        self.length = names.index(b"content-length") if b"content-length" in names else None
        self.chunked = b"transfer-encoding" in names
        self.packed = canonical.encode([names[i] for i in self.indexes])


class Hasher:
    """The keyed digest (BLAKE2b, 128 bits): tells parts apart and says nothing about them."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=hashlib.blake2b(secret, digest_size=32).digest(), digest_size=16)

    def __call__(self, data: bytes) -> bytes:
        """The digest of `data`, 16 bytes."""
        state = self._keyed.copy()
        state.update(data)
        return state.digest()


class Fingerprinter:
    """One rule's reading of requests: `key()` for the table and the store, `visible()` for the app.

    `own_states` are the state dicts of the app's lifespan: what stands there belongs to the app itself.
    """

    def __init__(
        self, rule: Rule, ordinal: int, hasher: Hasher, own_states: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.rule = rule
        self._ordinal = ordinal
        self._hash = hasher
        self._own_states = own_states
        vary = rule.vary
        items = () if vary is None or isinstance(vary, str) else tuple(vary)
        self.trusting = vary == "origin"
        self.everything = vary is None or "*" in items
        self._added = frozenset(i.encode() for i in items if ":" not in i and not i.startswith("-"))
        self._dropped = frozenset(i[1:].encode() for i in items if i.startswith("-"))
        self._vary_cookies = frozenset(i[7:].encode() for i in items if i.startswith("cookie:"))
        self._vary_state = frozenset(i for i in items if i.startswith(("state:", "scope:")))
        self._ignored_headers = _patterns(rule.ignore, "header:")
        self.ignored_query = _patterns(rule.ignore, "query:")
        self.ignored_body = _patterns(rule.ignore, "body:")
        self._ignored_state = _patterns(rule.ignore, "state:")
        self._ignored_scope = _patterns(rule.ignore, "scope:")
        identity = rule.identity
        self._function = identity if callable(identity) else None
        self._named = frozenset(identity) if isinstance(identity, tuple) else None
        self._identity_cookies = frozenset(
            i[7:].encode() for i in self._named or () if i.startswith("cookie:")
        )
        self._by_caller = identity in ("separate", "credentials")
        self.keys_client = (
            identity == "separate" or b"client" in self._added or "client" in (self._named or ())
        )
        self._client_visible = self.keys_client or self._function is not None
        self._layouts: Memo[tuple[bytes, ...], Layout] = Memo(512)
        self._shapes: Memo[tuple[str, ...], tuple[str, ...]] = Memo(64)

    # -- the classification -------------------------------------------------------------------------------------

    def part(self, name: bytes) -> Part:
        """What becomes of a field of this name (lower case)."""
        if name in _NEVER_DROPPED or name in self._added:
            return Part.KEYED
        if name == b"content-length":
            return Part.VISIBLE
        if name in VALIDATORS:
            return Part.HIDDEN if self.rule.stores else Part.KEYED
        if name == b"cookie":
            return Part.COOKIE
        text = name.decode("latin-1")
        if is_credential(text):
            return self._credential(text)
        if name in ADDRESS_FIELDS:
            return Part.KEYED if self.keys_client else Part.VISIBLE if self._function else Part.HIDDEN
        if name in _RELOADS and self.rule.stores:
            return Part.RELOAD
        if any(fnmatchcase(text, pattern) for pattern in self._ignored_headers):
            return Part.VISIBLE
        if name in NOISE:
            return Part.NOISE
        if self.trusting:
            return Part.VISIBLE
        return Part.KEYED if self.everything and name not in self._dropped else Part.HIDDEN

    def _credential(self, name: str) -> Part:
        if self._by_caller:
            return Part.KEYED
        if self._function is not None:
            return Part.VISIBLE
        if self._named is not None:
            return Part.KEYED if name in self._named else Part.REFUSED
        return Part.HIDDEN

    def layout(self, wire_names: tuple[bytes, ...]) -> Layout:
        """The layout of a request with these field names, in this order."""
        names = tuple(name.lower() for name in wire_names)
        parts = [self.part(name) for name in names]
        doubt: Reason | None = None
        if len(names) > MAX_HEADERS:
            doubt = "too-many-headers"
        elif b"upgrade" in names:
            doubt = "upgrade"
        elif b"if-match" in names or b"if-unmodified-since" in names:
            doubt = "precondition"
        elif any(names.count(name) > 1 for name in _SINGLE.intersection(names)):
            doubt = "duplicate-field"
        elif Part.REFUSED in parts:
            doubt = "credential"
        layout = Layout(names, parts, doubt)
        if len(names) <= _MEMO_HEADERS and sum(map(len, names)) <= _MEMO_NAME_BYTES:
            self._layouts.put(wire_names, layout)
        return layout

    # -- the key ------------------------------------------------------------------------------------------------

    def key(self, scope: Scope, method: str, body: bytes | None) -> bytes | Reason:
        """The fingerprint's digest (16 bytes), or why there is none.

        `method` is the scope's, or GET when a HEAD looks for a stored GET; `body` is what `body_part` made of the
        body, None where the method has none.
        """
        headers = scope["headers"]
        names, values = zip(*headers, strict=True) if headers else ((), ())
        layout = self._layouts.get(names) or self.layout(names)
        if layout.doubt is not None:
            return layout.doubt
        get = scope.get
        parts: list[Any] = [
            self._ordinal,
            method,
            get("scheme"),
            scope["path"],
            get("raw_path"),
            self._query(scope["query_string"]) if self.ignored_query else scope["query_string"],
            get("root_path"),
            get("http_version"),
            get("server"),
            body,
            layout.packed,
        ]
        if self.keys_client:
            client = get("client")
            parts.append(client[0] if client else None)
        if layout.plain:
            parts += values
        else:
            parts += [values[i] for i in layout.indexes]
            for i in self._against_grammar(layout, values):
                parts.append(("odd", layout.names[i], values[i]))
            if layout.cookies:
                cookies = self._cookies([values[i] for i in layout.cookies])
                if cookies is None:
                    return "credential"
                if cookies[0]:
                    parts.append(("cookie", cookies[0]))
            if body is None and layout.length is not None:
                if values[layout.length] != b"0":
                    return "request-body"
                parts.append("content-length")
        if body is None and layout.chunked:
            return "request-body"
        special = self._shapes.get(tuple(scope))
        if special is None:
            special = self._shape(tuple(scope))
        try:
            if special:
                for name in special:
                    if scope[name] or name not in _SPECIAL:
                        parts += (name, self._special(name, scope))
            if self._function is not None:
                parts.append(self._called(scope))
            return self._hash(canonical.encode(parts))
        except _DoubtError as doubt:
            return doubt.reason
        except (TypeError, ValueError, OverflowError):
            return "unencodable"

    def _against_grammar(self, layout: Layout, values: Sequence[bytes]) -> list[int]:
        """Where noise and reload directives are none, by their grammar or because Connection names them: keyed."""
        if not layout.grammar:
            return []
        named = {token.strip().lower() for i in layout.connection for token in values[i].split(b",")}
        return [i for i, matches in layout.grammar if not matches(values[i]) or layout.names[i] in named]

    def _query(self, query: bytes) -> bytes:
        pairs = query.split(b"&")
        return b"&".join(
            pair
            for pair in pairs
            if not canonical.is_ignored(
                unquote_plus(pair.partition(b"=")[0].decode("latin-1")), self.ignored_query
            )
        )

    def _cookies(self, lines: list[bytes]) -> tuple[list[bytes], list[bytes]] | None:
        """What of the Cookie lines is keyed, and what is visible; None where the rule's list does not name one."""
        if self._by_caller or b"cookie" in self._added:
            shown = [without_analytics(line) if ANALYTICS_HINT.search(line) else line for line in lines]
            shown = [line for line in shown if line]
            return shown, shown
        if self._function is not None or self.trusting:
            named = self._vary_cookies
            kept = [join_cookies(pair for pair in cookie_pairs(line) if pair[0] in named) for line in lines]
            return [line for line in kept if line], lines
        wanted = self._vary_cookies | self._identity_cookies
        pairs = [
            [pair for pair in cookie_pairs(line) if not ANALYTICS_COOKIE.fullmatch(pair[0])] for line in lines
        ]
        if self._named is not None and (
            any(b'"' in line for line in lines)
            or any(name not in wanted for line in pairs for name, _ in line)
        ):
            return None
        shown = [text for line in pairs if (text := join_cookies(pair for pair in line if pair[0] in wanted))]
        return shown, shown

    def _called(self, scope: Scope) -> Any:
        assert self._function is not None  # noqa: S101 - for mypy; the caller has checked
        who = self._function(scope)
        if who is ANONYMOUS:
            return None
        if type(who) in (str, bytes) and who:
            return who
        raise _DoubtError("identity")

    def _shape(self, names: tuple[str, ...]) -> tuple[str, ...]:
        special = tuple(name for name in names if name in _SPECIAL or name not in _TARGET_KEYS)
        self._shapes.put(names, special)
        return special

    def _special(self, name: str, scope: Scope) -> Any:
        """The keyed form of what outer layers put into the scope.

        Raises:
            _DoubtError: for what cannot be told apart safely.
        """
        value = scope[name]
        if name == "state":
            return [[key, _plain(value[key], "state")] for key in sorted(self._keyed_state(value))]
        if name in ("user", "auth", "session"):
            if self._function is not None or not self.counts(name):
                if self._named is not None and not self._anonymous(name, value):
                    raise _DoubtError("credential")
                return None
            if name == "user":
                return _plain(user_identity(value), "user")
            if name == "auth":
                scopes = getattr(value, "scopes", value)
                return _plain(list(scopes) if isinstance(scopes, Iterable) else scopes, "user")
            return _plain(dict(value) if isinstance(value, Mapping) else value, "session")
        if name == "extensions":
            named = certificate(value)
            if named is None or self._function is not None:
                return None
            if not self.counts("certificate"):
                if self._named is not None:
                    raise _DoubtError("credential")
                return None
            return _plain(named, "certificate")
        if self._unknown_part(name) is Part.KEYED:
            return _plain(value, "state")
        return None

    def counts(self, name: str) -> bool:
        """Whether `user`, `auth`, `session` or `certificate` is part of the key."""
        if self._named is not None:
            return name in self._named or (name == "auth" and "user" in self._named)
        return self._by_caller

    @staticmethod
    def _anonymous(name: str, value: Any) -> bool:
        if name == "user":
            try:
                return user_identity(value) is None
            except TypeError:
                return False
        return not (getattr(value, "scopes", value) if name == "auth" else value)

    def _keyed_state(self, state: Any) -> list[str]:
        if type(state) is not dict:
            raise _DoubtError("state")
        return [key for key in state if self._state_part(key, state[key]) is Part.KEYED]

    def _state_part(self, key: str, value: Any) -> Part:
        if f"state:{key}" in self._vary_state:
            return Part.KEYED
        if any(key in own and own[key] is value for own in self._own_states) or key in _OWN_STATE:
            return Part.VISIBLE
        if any(fnmatchcase(key, pattern) for pattern in self._ignored_state):
            return Part.VISIBLE
        return Part.KEYED if self.everything or self.trusting else Part.HIDDEN

    def _unknown_part(self, key: str) -> Part:
        if f"scope:{key}" in self._vary_state:
            return Part.KEYED
        if any(fnmatchcase(key, pattern) for pattern in self._ignored_scope):
            return Part.VISIBLE
        return Part.KEYED if self.everything or self.trusting else Part.HIDDEN

    # -- the body -----------------------------------------------------------------------------------------------

    def body_part(self, scope: Scope, body: bytes, memo: Memo[bytes, bytes]) -> bytes:
        """What of a body is keyed: the digest of its canonical form, or of its bytes.

        The memo maps the digest of the raw bytes to that of the canonical form, so that repeats are not parsed.
        """
        content_type = content_encoding = None
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-encoding":
                content_encoding = value
        raw = self._hash(body)
        if not canonical.is_json(content_type, content_encoding):
            return b"raw" + raw
        memo_key = b"%d:%b" % (self._ordinal, raw)
        known = memo.get(memo_key)
        if known is None:
            form = canonical.canonical(body, self.ignored_body)
            known = b"raw" + raw if form is None else b"json" + self._hash(form)
            memo.put(memo_key, known)
        return known

    # -- Vary ---------------------------------------------------------------------------------------------------

    def unkeyed(self, names: Iterable[bytes]) -> frozenset[bytes]:
        """Those fields of a response's Vary that the key does not hold already."""
        return frozenset(name for name in names if not self._holds(name))

    def _holds(self, name: bytes) -> bool:
        if name in VALIDATORS or any(fnmatchcase(name.decode("latin-1"), p) for p in self._ignored_headers):
            return True  # validators are ours to answer where a rule stores; `ignore` is the operator's oath
        if name == b"cookie":
            return self._by_caller or b"cookie" in self._added
        return self.part(name) is Part.KEYED

    def variant(self, key: bytes, names: frozenset[bytes], headers: Headers) -> bytes:
        """The key of one variant: the base key and every line of the fields that Vary named (RFC 9111 s.4.1)."""
        lines: list[Any] = [key]
        for name in sorted(names):
            lines += (name, [value for field, value in headers if field.lower() == name])
        return self._hash(canonical.encode(lines))

    def fate(self, scope: Scope, name: bytes, value: bytes) -> Part:
        """What becomes of one header pair of this request."""
        part = self.part(name)
        if part not in (Part.NOISE, Part.RELOAD):
            return part
        pairs = [pair for pair in scope["headers"] if pair[0].lower() == b"connection"]
        layout = self.layout((*(pair[0] for pair in pairs), name))
        return Part.KEYED if self._against_grammar(layout, [*(pair[1] for pair in pairs), value]) else part

    # -- what the app sees --------------------------------------------------------------------------------------

    def visible(self, scope: Scope, shown: frozenset[bytes] = frozenset()) -> dict[str, Any]:
        """A new scope that carries what is keyed, noise and framing; `shown` are hidden fields that Vary named."""
        headers: Headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        names = tuple(name for name, _ in headers)
        layout = self._layouts.get(names) or self.layout(names)
        odd = self._against_grammar(layout, [value for _, value in headers])
        kept: Headers = []
        for i, (name, value) in enumerate(headers):
            part = layout.parts[i]
            if layout.names[i] in shown or i in odd or part in (Part.KEYED, Part.NOISE, Part.VISIBLE):
                kept.append((name, value))
            elif part is Part.COOKIE:
                cookies = self._cookies([value])
                kept += [(name, line) for line in cookies[1]] if cookies else []
        flight = dict(scope)
        flight["headers"] = kept
        if scope.get("client"):
            flight["client"] = (scope["client"][0], 0) if self._client_visible else None
        if self._function is None:
            for own in ("user", "auth", "session"):
                if own in flight and not self.counts(own):
                    del flight[own]
        state = flight.get("state")
        if type(state) is dict and any(self._state_part(k, v) is Part.HIDDEN for k, v in state.items()):
            flight["state"] = {k: v for k, v in state.items() if self._state_part(k, v) is not Part.HIDDEN}
        for key in self._shapes.get(tuple(scope)) or self._shape(tuple(scope)):
            if key not in _SPECIAL and self._unknown_part(key) is Part.HIDDEN:
                del flight[key]
        if "extensions" in flight:
            flight["extensions"] = self._extensions(flight["extensions"])
        return flight

    def _extensions(self, extensions: Any) -> dict[str, Any]:
        """Only what every follower's server could replay, and the certificate where it counts."""
        keep = {"http.response.early_hint"}
        if self._function is not None or self.counts("certificate"):
            keep.add("tls")
        return {name: value for name, value in (extensions or {}).items() if name in keep}

    def one_identity(self, scope: Scope) -> bool:
        """Whether all who share this request's key are one caller (`private`, RFC 9111 s.5.2.2.7)."""
        if self._function is not None:
            return self._function(scope) is not ANONYMOUS
        if self.rule.identity == "separate":
            return True
        if self.rule.identity == "shared":
            return False
        for name, value in scope["headers"]:
            field = name.lower()
            if field == b"cookie":
                cookies = self._cookies([value])
                if cookies and cookies[0]:
                    return True
            elif self.part(field) is Part.KEYED and is_credential(field.decode("latin-1")):
                return True
        return any(self.counts(name) and scope.get(name) for name in ("user", "session"))


class _DoubtError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _plain(value: Any, reason: Reason) -> Any:
    try:
        return canonical.plain(value)
    except TypeError:
        raise _DoubtError(reason) from None


def _patterns(items: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(item.removeprefix(prefix) for item in items if item.startswith(prefix))
