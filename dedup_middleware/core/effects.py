"""Effects: what else an unsafe request has changed, by what its response says (RFC 9111 s.4.4, RFC 9875 s.3).

Law: only what has the same origin as the request; what does not parse says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from . import structured
from .http import first
from .targets import host_name, target_name

if TYPE_CHECKING:
    from .http import Headers, Scope

_REFERENCES = frozenset({b"location", b"content-location"})
_PORTS = {"http": 80, "https": 443}


def effects(scope: Scope, headers: Headers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what else a response's fields say is out of date: targets of the same origin, and groups.

    Targets are those of Location and Content-Location, groups those of Cache-Group-Invalidation.
    """
    targets: list[str] = []
    named: list[bytes] = []
    for pair in headers:
        try:
            name, value = (bytes(memoryview(part)) for part in pair)
        except (TypeError, ValueError):  # the server's to refuse, and no reason not to invalidate
            continue
        field = name.lower()
        if field in _REFERENCES:
            here = f"{scope.get('scheme') or 'http'}://{(first(scope['headers'], b'host') or b'').decode('latin-1')}"
            path = _same_origin(here, scope["path"], value.decode("latin-1"))
            if path is not None:
                targets.append(target_name(path, scope["headers"]))
        elif field == b"cache-group-invalidation":
            named.append(value)
    return tuple(targets), groups(named)


def _same_origin(here: str, path: str, reference: str) -> str | None:
    """The path that a reference points to on the origin `here`; None for any other origin. Paths are decoded ones."""
    try:
        own, target = urlsplit(here), urlsplit(urljoin(here + quote(path), reference.strip()))
        if (own.scheme, own.hostname, own.port or _PORTS.get(own.scheme)) != (
            target.scheme,
            target.hostname,
            target.port or _PORTS.get(target.scheme),
        ):
            return None
    except ValueError:  # no port, no host...
        return None
    return unquote(target.path) or "/"


def groups(lines: tuple[bytes, ...] | list[bytes]) -> tuple[str, ...]:
    """The tags that lines of Cache-Groups or Cache-Group-Invalidation name (RFC 9875 s.2, s.3)."""
    if not lines:
        return ()
    # Blanks around a field's value are no part of it (RFC 9110 s.5.5).
    trimmed = [line.strip(b" \t") for line in lines]
    return tuple(f"tag:{group}" for group in structured.strings(trimmed) or ())


def origin_of(scope: Scope) -> str:
    """How the names of all targets on a request's origin begin."""
    return host_name(first(scope["headers"], b"host") or b"") + "/"
