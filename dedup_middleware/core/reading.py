"""A rule's reading of requests: what becomes of each field, cookie, state and scope key.

Law: one classification, from which the fingerprint takes what is keyed and the app's scope what is visible; so what
the one does not hold, the other does not show.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from . import canonical
from .callers import cookie_pairs, join_cookies, without_analytics
from .http import MOST_BYTES
from .memo import Memo
from .names import (
    ADDRESS_FIELDS,
    ANALYTICS_COOKIE,
    ANALYTICS_HINT,
    NEVER_DROPPED,
    NOISE,
    OVERRIDES,
    RELOAD,
    is_credential,
)
from .surroundings import Part, Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .http import Headers
    from .rules import Rule
    from .status import Reason

MAX_HEADERS: Final = 256
_MEMO_HEADERS, _MEMO_NAME_BYTES = 64, 2048
_SINGLE: Final = frozenset(
    {b"host", b"content-type", b"content-length", b"authorization", b"transfer-encoding"}
)
VALIDATORS: Final = frozenset({b"if-none-match", b"if-modified-since"})
DIRECTIVES: Final = frozenset({b"cache-control", b"pragma"})
"""Fields in which a request says what it wants of a cache."""
_SCOPE_IDENTITY: Final = frozenset({"user", "auth", "session", "certificate", "client"})
"""What a rule's identity list names beside fields."""


class Layout:
    """What one tuple of field names means under one rule; found once and remembered."""

    def __init__(
        self, names: Sequence[bytes], parts: list[Part], doubt: Reason | None, digest: canonical.Digest
    ) -> None:
        self.doubt = doubt
        self.size = sum(map(len, names))
        self.mixed_case = False  # ASGI has names in lower case, not every server does
        self.names = names
        self.parts = parts
        self.indexes = [i for i, part in enumerate(parts) if part is Part.KEYED]
        self.grammar = [
            (i, (NOISE[names[i]] if part is Part.NOISE else RELOAD).fullmatch)
            for i, part in enumerate(parts)
            if part in (Part.NOISE, Part.RELOAD)
        ]
        self.cookies = [i for i, part in enumerate(parts) if part is Part.COOKIE]
        # It may tell an app another host and scheme, too, which is no part of who asks.
        self.forwarded = [
            i for i, part in enumerate(parts) if names[i] == b"forwarded" and part is Part.VISIBLE
        ]
        self.whole_cookies = [i for i in self.indexes if names[i] == b"cookie"]
        self.connection = [i for i, name in enumerate(names) if name == b"connection"] if self.grammar else []
        self.length = names.index(b"content-length") if b"content-length" in names else None
        self.chunked = b"transfer-encoding" in names
        # Every field is keyed as it stands, and none raises a question.
        self.plain = len(self.indexes) == len(parts) and doubt is None and not self.chunked
        told = [i for i, part in enumerate(parts) if part in (Part.KEYED, Part.PRESENT)]
        self.keyed_names = digest(canonical.encode([names[i] for i in told]))


class Reading(Surroundings):
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
        self.hides = bool(identity != "separate" or self._dropped or not (self.everything or self.trusting))
        self.by_caller = identity in ("separate", "credentials")
        self.keys_client = identity == "separate" or b"client" in self.added or "client" in (self.named or ())
        self.shows_client = self.keys_client or self.function is not None
        self.layouts: Memo[tuple[bytes, ...], Layout] = Memo(64)

    # -- fields -------------------------------------------------------------------------------------------------

    def part(self, name: bytes) -> Part:
        """What becomes of a field of this name (lower case)."""
        if name in VALIDATORS:  # also one that the rule names: where it stores, they are ours
            return Part.HIDDEN if self.rule.stores else Part.KEYED
        if name in NEVER_DROPPED or name in self.added:
            return Part.KEYED
        if name == b"content-length":
            return Part.VISIBLE
        if name == b"cookie":
            return Part.KEYED if self.by_caller else Part.COOKIE
        text = name.decode("latin-1")
        if is_credential(text):
            return self._credential(text)
        if name in ADDRESS_FIELDS:
            return Part.KEYED if self.keys_client else Part.VISIBLE if self.function else Part.HIDDEN
        if name in DIRECTIVES and self.rule.stores:
            if self.rule.honor_request_directives:  # heeded here, and passed on to an origin that is trusted
                return Part.VISIBLE if self.trusting else Part.HIDDEN
            return Part.HIDDEN if self.trusting else Part.RELOAD
        if any(fnmatchcase(text, pattern) for pattern in self.ignored_headers):
            return Part.VISIBLE
        if name in NOISE:
            return Part.NOISE
        if self.trusting:
            # Some servers read X_FORWARDED_HOST as if it had hyphens: no Vary names what the app takes it for.
            return Part.KEYED if b"_" in name or name in OVERRIDES else Part.VISIBLE
        return Part.KEYED if self.everything and name not in self._dropped else Part.HIDDEN

    def _credential(self, name: str) -> Part:
        if self.by_caller:
            return Part.KEYED
        if self.function is not None:
            return Part.VISIBLE
        if self.rule.identity == "origin" and name == "authorization":
            return Part.PRESENT
        if self.named is not None:
            return Part.KEYED if name in self.named else Part.REFUSED
        return Part.HIDDEN

    def layout_of(self, headers: Headers) -> Layout:
        """The layout of these fields."""
        names = next(zip(*headers), ())  # noqa: B905 - pairs, by the ASGI specification
        return self.layouts.young.get(names) or self.layout(names)

    def layout(self, wire_names: tuple[bytes, ...]) -> Layout:
        """The layout of a request with these field names, in this order; found once and remembered."""
        known = self.layouts.get(wire_names)
        if known is not None:
            return known
        names = tuple(name.lower() for name in wire_names)
        if len(names) > MAX_HEADERS or sum(map(len, names)) > MOST_BYTES:
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
        layout.mixed_case = names != wire_names
        if len(names) <= _MEMO_HEADERS and layout.size <= _MEMO_NAME_BYTES:
            self.layouts.put(wire_names, layout)
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


def _patterns(items: Sequence[str], prefix: str) -> tuple[str, ...]:
    """What follows the prefix, in which only `*` is special: `filter[name]` is a name as forms have it."""
    return tuple(
        item.removeprefix(prefix).replace("[", "[[]").replace("?", "[?]")
        for item in items
        if item.startswith(prefix)
    )
