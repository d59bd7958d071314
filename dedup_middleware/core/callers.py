"""Who asks: cookies by name, authenticated users, certificates, and the caller as a whole.

Law: a caller is what the request carries, never an object's address or repr; what has no plain identity raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .http import Headers, oversized
from .names import ADDRESS_FIELDS, ANALYTICS_COOKIE, is_credential
from .targets import address_name, target_name
from .unseen import Unseen

if TYPE_CHECKING:
    from .http import Scope

CookiePair = tuple[bytes, bytes]

_FORWARDED: Final = (
    re.compile(  # no blank, comma or semicolon within a value: a parser could take it for the next one
        rb'(?:[ \t]*+(?:[A-Za-z]++=(?:"[^"\\,;\s]*+"|[^"\\,;\s=]*+))?[ \t]*+(?:[,;]|\Z))++'
    )
)
_HOP_ADDRESS: Final = re.compile(rb"(?<![^,; \t])(?:for|by)=[^,; \t]*+", re.IGNORECASE)


def cookie_pairs(line: bytes) -> list[CookiePair]:
    """The cookies of one Cookie line (RFC 6265 s.4.2.1): names, and the pairs as they stand."""
    pairs = []
    for piece in line.split(b";"):
        text = piece.strip(b" \t")
        if text:
            pairs.append((text.partition(b"=")[0].strip(b" \t"), text))
    return pairs


def join_cookies(pairs: Iterable[CookiePair]) -> bytes:
    """A Cookie line of these pairs."""
    return b"; ".join(text for _, text in pairs)


def without_analytics(line: bytes) -> bytes:
    """A Cookie line without the cookies of page analytics; a line with quoted strings stays whole."""
    if b'"' in line:
        return line
    return join_cookies(pair for pair in cookie_pairs(line) if not ANALYTICS_COOKIE.fullmatch(pair[0]))


def beside_addresses(lines: list[bytes]) -> list[bytes]:
    """What Forwarded says besides addresses, such as a host and a scheme, and of which hop (RFC 7239 s.4), if anything.

    A line that is not in the grammar counts as it stands.
    """
    said = [_HOP_ADDRESS.sub(b"", line) if _FORWARDED.fullmatch(line) else line for line in lines]
    return said if any(line.strip(b" \t,;") for line in said) else []


def user_identity(user: Any) -> str | int | None:
    """What tells `scope["user"]` from others: itself if text or number, else `identity`, else `pk`.

    None is nobody (`is_authenticated` is False and there is no identity).

    Raises:
        TypeError: for a user without any of these.
    """
    if isinstance(user, (str, int)) and not isinstance(user, bool):
        return user
    for name in ("identity", "pk"):
        try:
            value: object = getattr(user, name, None)
        except Exception:  # noqa: BLE001, S112 - Starlette's base users raise NotImplementedError, others what they like
            continue
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return value
    if getattr(user, "is_authenticated", None) is False:
        return None
    raise TypeError(type(user).__name__)


def has_certificate(tls: Any) -> bool:
    """Whether the ASGI TLS extension shows a client's certificate; in doubt it does."""
    return not isinstance(tls, Mapping) or bool(
        tls.get("client_cert_chain") or tls.get("client_cert_name") or tls.get("client_cert_error")
    )


_PROOFS: Final = re.compile(rb"csrf|xsrf|dpop|signature|nonce")
"""Credentials made anew for each request: they tell requests apart, not callers."""


class Caller(Unseen, msgspec.Struct, eq=False):
    """Who sent a request, whatever a rule's identity says, and for what; read only when somebody wants to know.

    `path` and `tags` are the target's and the rule's, `client` the peer's address and port.
    """

    headers: Headers
    path: str
    client: Any
    tags: tuple[str, ...] = ()
    _parts: dict[bytes, list[bytes]] | None = None

    @classmethod
    def of(cls, scope: Scope) -> Caller:
        """The sender of a request."""
        return cls(scope["headers"], scope["path"], scope.get("client"))

    def stored_names(self) -> tuple[str, ...]:
        """The names of what its response depends on."""
        return (target_name(self.path, self.headers), *self.tags)

    def names(self) -> tuple[str, ...]:
        """The names by which its flight is found."""
        return (*self.stored_names(), address_name({"client": self.client}))

    @property
    def parts(self) -> dict[bytes, list[bytes]]:
        """Credential fields, cookies one by one, and what proxies say of the address."""
        if self._parts is None:
            found: dict[bytes, list[bytes]] = {}
            # One that says too much to be read may be anybody.
            for name, value in () if oversized(chain.from_iterable(self.headers)) else self.headers:
                field = name.lower()
                if field == b"cookie":
                    for cookie, pair in cookie_pairs(without_analytics(value)):
                        found.setdefault(b"cookie:" + cookie, []).append(pair)
                elif _PROOFS.search(field):
                    continue
                elif field in ADDRESS_FIELDS or is_credential(field.decode("latin-1")):
                    found.setdefault(field, []).append(value)
            self._parts = found
        return self._parts

    def may_be(self, other: Caller) -> bool:
        """Whether no part that both carry differs: a write often carries a token that reads do not.

        To take two callers for one only shares less.
        """
        theirs = other.parts
        return all(theirs.get(name, values) == values for name, values in self.parts.items())
