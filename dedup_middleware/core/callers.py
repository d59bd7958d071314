"""Who asks: cookies by name, authenticated users, certificates, and the caller as a whole.

Law: a caller is what the request carries, never an object's address or repr; what has no plain identity raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .canonical import encode
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


def caller_parts(scope: Scope) -> bytes:
    """Everything by which this request's caller is known: every credential field and the client's address."""
    client = scope.get("client")
    fields = [
        (name.lower(), without_analytics(value) if name.lower() == b"cookie" else value)
        for name, value in scope["headers"]
        if name.lower() in ADDRESS_FIELDS or is_credential(name.lower().decode("latin-1"))
    ]
    fields = [field for field in fields if field != (b"cookie", b"")]  # analytics alone name nobody
    return encode([client[0] if client else None, sorted(fields)])
