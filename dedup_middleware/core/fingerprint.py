"""Fingerprints: what says that two requests are the same.

Law: the key is one keyed digest over length-prefixed parts, of everything that the rule's reading does not leave out;
"no key" (a Reason) means no sharing, at every stage.
"""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from . import canonical, fields
from .callers import beside_addresses
from .http import MOST_BYTES
from .names import ANALYTICS_HINT
from .reading import VALIDATORS, Layout, Reading
from .seen import Seen, is_open
from .shape import CLIENT, HEADERS, QUERY, SPECIAL, shape_of
from .surroundings import DoubtError, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .http import Headers, Scope
    from .memo import Memo
    from .rules import Rule
    from .shape import Shape
    from .status import Reason

    Said = tuple[Any, ...]

_SHORT: Final = 256
"""Bytes of a plan's parts that stand as they are; longer ones by their digest."""


class Hasher:
    """The keyed digest (BLAKE2b, 128 bits): tells parts apart and says nothing about them."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=hashlib.blake2b(secret, digest_size=32).digest(), digest_size=16)
        # The key's block is digested when what follows it comes: here once, and not in every copy.
        self._keyed.update(b"\0")

    @property
    def begin(self) -> Callable[[], hashlib.blake2b]:
        """Begins a keyed digest."""
        return self._keyed.copy

    def __call__(self, data: bytes) -> bytes:
        """The digest of `data`, 16 bytes."""
        state = self._keyed.copy()
        state.update(data)
        return state.digest()


class Fingerprinter:
    """One rule's fingerprints: `key` for the table and the store."""

    def __init__(
        self,
        rule: Rule,
        ordinal: int,
        hasher: Hasher,
        own_states: Sequence[Mapping[str, Any]] = (),
        edition: int = 0,
        seen: Seen | None = None,
    ) -> None:
        self.rule = rule
        self.reading = Reading(rule, hasher, own_states)
        # A rule's place may be another one's in the next edition of the rules.
        self._place = (edition, ordinal)
        self._hash = hasher
        self._begin = hasher.begin
        self._layouts = self.reading.layouts
        # Whether a request's query and client are keyed as they stand, under this rule.
        self._keys_all = self.reading.keys_client and not self.reading.ignored_query
        seen = Seen() if seen is None else seen
        self._once, self._digests, self._open = seen.once, seen.digests, seen.open
        # Where nothing is stored, most requests come once. And as the last one was, the next one will be: with noise,
        # so that it never comes twice as it is; or without secrets, to be looked for as it came.
        self._remembers = rule.stores and self.reading.function is None
        self._repeats = False
        self._is_open = True
        self._body_salt = hasher(canonical.encode(self.reading.ignored_body))

    def prefix(self, scope: Scope, method: str, place: int = 0) -> bytes:
        """The parts that a plan fixes, made once for it; `place` numbers the app behind the engine.

        Raises:
            ValueError: for a path that no encoding holds.
        """
        path, root = scope["path"], scope.get("root_path")
        # A layer that rewrites paths may leave a kind of text, such as Starlette's URLPath, that no encoder knows.
        if type(path) is not str and isinstance(path, str):
            path = str(path)
        if type(root) is not str and isinstance(root, str):
            root = str(root)
        parts = canonical.encode((place, self._place, method, path, scope.get("raw_path"), root))
        return parts if len(parts) <= _SHORT else self._hash(parts)

    def key(self, scope: Scope, method: str, body: bytes | None) -> bytes | Reason:
        """The fingerprint's digest (16 bytes), or why there is none.

        `method` is the scope's, or GET when a HEAD looks for a stored GET; `body` is what `body_part` made of the
        body, None where the method has none.
        """
        return self.key_below(self.prefix(scope, method), scope, body)

    def key_below(
        self, prefix: bytes, scope: Scope, body: bytes | None, shape: Shape | None = None, said: Said = ()
    ) -> bytes | Reason:
        """`key` with the prefix that the plan remembers, and the scope's shape and what it read there, where known."""
        if shape is None:
            shape = shape_of(scope)
            said = shape.read(scope)
        if not self._repeats:
            return self._read(prefix, scope, body, shape, said)
        try:
            for name in shape.special:
                value = scope[name]
                if (value or type(value) is not dict or name not in SPECIAL) and not _says_nothing(
                    name, value
                ):
                    return self._read(prefix, scope, body, shape, said)
            client = said[CLIENT]
            host = client[0] if client else None
            if self._is_open:
                request = (prefix, body, host, *said[4:8], *said[HEADERS])
                key = self._open.young.get(request)
                if key is None and self._open.old:
                    key = self._open.get(request)
                if key is not None:
                    return key
                if not self._once.comes_again((prefix, body, said[QUERY])):
                    return self._read(prefix, scope, body, shape, said)
            state = self._begin()
            state.update(canonical.encode((prefix, body, host, said[4:9])))
        except Exception:  # noqa: BLE001 - as in `_read`, which says what it is
            self._is_open = False  # what can't be looked for as it came may still have a digest
            return self._read(prefix, scope, body, shape, said)
        seen = state.digest()
        found = self._digests.young.get(seen) or self._digests.get(seen)
        if found is None:
            return self._look_again(seen, prefix, scope, body, shape, said)
        self._is_open = False
        return found

    def _look_again(
        self, seen: bytes, prefix: bytes, scope: Scope, body: bytes | None, shape: Shape, said: Said
    ) -> bytes | Reason:
        """The key of a request that was not found as the last one was."""
        query = said[QUERY] if type(said[QUERY]) is bytes else None  # else it may have no hash
        if not (self._is_open or self._once.comes_again((prefix, body, query))):
            return self._read(prefix, scope, body, shape, said)
        request: tuple[Any, ...] | None = None
        if is_open(said):
            client = said[CLIENT]
            request = (prefix, body, client[0] if client else None, *said[4:8], *said[HEADERS])
            found = self._open.get(request)
            if found is not None:
                self._is_open = True
                return found
        key = self._read(prefix, scope, body, shape, said)
        if isinstance(key, bytes) and self._repeats:
            self._is_open = request is not None
            if request is not None:
                self._open.put(request, key)
            else:
                self._digests.put(seen, key)
        return key

    def _read(
        self, prefix: bytes, scope: Scope, body: bytes | None, shape: Shape, said: Said
    ) -> bytes | Reason:
        """Read every part of a request: the key, or why there is none."""
        reading = self.reading
        headers = said[HEADERS]
        names, values = zip(*headers) if headers else ((), ())  # noqa: B905 - pairs, by the ASGI specification
        layout = self._layouts.young.get(names) or reading.layout(names)
        try:
            if layout.size + sum(map(len, values)) > MOST_BYTES:
                return "too-many-headers"
            for i in layout.whole_cookies:
                if b"_" in values[i] and ANALYTICS_HINT.search(values[i]):
                    headers = reading.without_analytics(headers)
                    names, values = zip(*headers) if headers else ((), ())  # noqa: B905 - as above
                    layout = reading.layout(names)
                    break
            self._repeats = self._remembers and not layout.grammar
            client = said[CLIENT]
            parts = [prefix, body, *said[4:8], client[0] if client else None, layout.keyed_names]
            if layout.plain and self._keys_all:
                parts += values
            else:
                self._add_fields(parts, layout, values)
            for name in shape.special:
                value = scope[name]
                if not value and (value is None or type(value) is dict) and name in SPECIAL:
                    continue
                found = reading.special(name, scope)
                if found is not None:
                    parts += (name, found)
            if reading.function is not None:
                parts.append(reading.who(scope))
            state = self._begin()
            state.update(canonical.encode(parts))
            return state.digest()
        except DoubtError as doubt:
            return doubt.reason
        except Exception:  # noqa: BLE001 - what outer layers left there may raise anything when it is looked at
            return "unencodable"

    def _add_fields(self, parts: list[Any], layout: Layout, values: Sequence[bytes]) -> None:
        """The fields of a request of which not everything is keyed as it stands.

        Raises:
            DoubtError: for a field that forbids sharing.
        """
        reading = self.reading
        if layout.doubt is not None:
            raise DoubtError(layout.doubt)
        if reading.ignored_query:
            parts[2] = self._query(parts[2] or b"")
        if not reading.keys_client:
            parts[6] = None
        parts += [values[i] for i in layout.indexes]
        for i in reading.against_grammar(layout, values):
            parts.append(("odd", layout.names[i], values[i]))
        if layout.forwarded and (said := beside_addresses([values[i] for i in layout.forwarded])):
            parts.append(("forwarded", said))
        if layout.cookies:
            cookies = reading.cookies([values[i] for i in layout.cookies])
            if cookies is None:
                raise DoubtError("credential")
            if cookies[0]:
                parts.append(("cookie", cookies[0]))
        if parts[1] is None and (layout.chunked or layout.length is not None):
            if layout.chunked or values[layout.length or 0] != b"0":
                raise DoubtError("request-body")
            parts.append("content-length")

    def _query(self, query: bytes) -> bytes:
        return b"&".join(
            pair
            for pair in query.split(b"&")
            # Some parsers also split at ";": what may hide another parameter is not left out.
            if b";" in pair
            or not canonical.is_ignored(
                unquote_plus(pair.partition(b"=")[0].decode("latin-1")), self.reading.ignored_query
            )
        )

    def body_part(self, scope: Scope, body: bytes, memo: Memo[bytes, bytes]) -> bytes:
        """What of a body is keyed: the digest of its canonical form, or of its bytes.

        The memo maps the digest of the raw bytes to that of the canonical form, so that repeats are not parsed.
        """
        content_type = content_encoding = None
        for name, value in scope["headers"]:
            field = name.lower()
            if field == b"content-type":
                content_type = value
            elif field == b"content-encoding":
                content_encoding = value
        raw = self._hash(body)
        if not canonical.is_json(content_type, content_encoding):
            return b"raw" + raw
        memo_key = self._body_salt + raw
        known = memo.get(memo_key)
        if known is None:
            form = canonical.canonical(body, self.reading.ignored_body)
            known = b"raw" + raw if form is None else b"json" + self._hash(form)
            memo.put(memo_key, known)
        return known

    def unkeyed(self, names: Iterable[bytes]) -> frozenset[bytes]:
        """Those fields of a response's Vary that the key does not hold already."""
        return frozenset(name for name in names if not self._holds(name))

    def _holds(self, name: bytes) -> bool:
        reading = self.reading
        part = reading.part(name)
        if part is Part.VISIBLE and any(
            fnmatchcase(name.decode("latin-1"), pattern) for pattern in reading.ignored_headers
        ):
            return True  # `ignore` is the operator's oath
        return part is Part.KEYED or name in VALIDATORS  # which are ours to answer where a rule stores

    def variant(self, key: bytes, names: frozenset[bytes], headers: Headers) -> bytes:
        """The key of one variant: the base key and every line of the fields that Vary named (RFC 9111 s.4.1)."""
        lines: list[Any] = [key]
        rule, trusting = self.rule, self.reading.trusting
        for name in sorted(names):
            said = [value for field, value in headers if field.lower() == name]
            if trusting:
                said = fields.normal(
                    name,
                    said,
                    any_order=rule.ignore_language_order,
                    unknown_as_list=rule.ignore_field_spelling,
                )
            lines += (name, said)
        return self._hash(canonical.encode(lines))


def _says_nothing(name: str, value: Any) -> bool:
    """Whether nothing in a scope's key of outer layers counts, whatever the rule."""
    if name not in SPECIAL:
        return False
    return value is None or (
        type(value) is dict and (not value or (name == "extensions" and "tls" not in value))
    )
