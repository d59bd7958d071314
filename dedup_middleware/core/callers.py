"""Who asks: cookies by name, authenticated users, certificates, and the caller as a whole.

Law: a caller is what the request carries, never an object's address or repr; what has no plain identity raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .names import ADDRESS_FIELDS, ANALYTICS_COOKIE, is_credential

if TYPE_CHECKING:
    from .http import Scope

CookiePair = tuple[bytes, bytes]


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


def address_name(scope: Scope) -> str:
    """The name under which flights of one client address are found."""
    client = scope.get("client")
    return f"client:{client[0]}" if client else "client:"


_PROOFS: Final = re.compile(rb"csrf|xsrf|dpop|signature|nonce")
"""Credentials made anew for each request: they tell requests apart, not callers."""


class Caller:
    """Who sent a request, whatever a rule's identity says; read only when somebody wants to know."""

    __slots__ = ("_parts", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope: Scope | None = scope

    @property
    def parts(self) -> dict[bytes, list[bytes]]:
        """Credential fields, cookies one by one, and what proxies say of the address."""
        if self._scope is not None:
            found: dict[bytes, list[bytes]] = {}
            for name, value in self._scope["headers"]:
                field = name.lower()
                if field == b"cookie":
                    for cookie, pair in cookie_pairs(without_analytics(value)):
                        found.setdefault(b"cookie:" + cookie, []).append(pair)
                elif _PROOFS.search(field):
                    continue
                elif field in ADDRESS_FIELDS or is_credential(field.decode("latin-1")):
                    found.setdefault(field, []).append(value)
            self._parts, self._scope = found, None
        return self._parts

    def may_be(self, other: Caller) -> bool:
        """Whether no part that both carry differs: a write often carries a token that reads do not.

        To take two callers for one only shares less.
        """
        theirs = other.parts
        return all(theirs.get(name, values) == values for name, values in self.parts.items())
