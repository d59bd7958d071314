"""The door: who is it? By a token, by a session that a token opened, or by the user's own function.

Law: it opens for whom `allow` names and for nobody else; a doubt, an error, a wrong type are a no.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import hashlib
import hmac
import secrets
import struct
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from ..core.checks import is_async
from ..core.errors import ConfigurationError
from ..forking import OwnLock, after_fork
from .problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

COOKIE: Final = "dedup_admin"
SESSION_SECONDS: Final = 12 * 3600
_MAX_SIGNED_OUT: Final = 10_000
_MIN_TOKEN: Final = 16
_MAX_NAME: Final = 200
_THREADS: Final = 4


class Door:
    """Asks `allow`; a token also opens sessions for browsers. `warn` is the engine's: strangers fill no log."""

    def __init__(
        self,
        allow: str | Callable[[Request], Any],
        clock: Callable[[], float],
        warn: Callable[[str, str, str], None],
    ) -> None:
        self._warn = warn
        self.sessions: Sessions | None = None
        self._token: bytes | None = None
        self._function: Callable[[Request], Any] | None = None
        self._start_threads()
        after_fork(self, Door._start_threads)
        if isinstance(allow, str):
            if len(allow) < _MIN_TOKEN or not allow.isascii() or not allow.isprintable() or " " in allow:
                raise ConfigurationError(
                    "admin.allow",
                    "***",
                    f"a token of {_MIN_TOKEN} or more visible ASCII characters, such as secrets.token_urlsafe() gives",
                )
            self._token = hashlib.sha256(allow.encode()).digest()
            self.sessions = Sessions(allow.encode(), clock)
        elif callable(allow):
            self._function = allow
        else:
            raise ConfigurationError(
                "admin.allow", type(allow).__name__, "a token, or a function of the request"
            )

    def _start_threads(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "dedup-allow")  # starts none before it is used

    def session(self, request: Request) -> str | None:
        """Who it is by the session's cookie, which nobody can guess."""
        return self.sessions.who(request) if self.sessions is not None else None

    async def who(self, request: Request) -> str | None:
        """Who it is by the token or the function; None for whoever is refused."""
        if self._function is not None:
            return await self._ask(self._function, request)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return "token" if self.fits(given) and scheme.lower() == "bearer" else None

    def fits(self, given: str) -> bool:
        """Whether this is the token, in the same time whatever it is."""
        digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
        return self._token is not None and hmac.compare_digest(digest, self._token)

    async def _ask(self, function: Callable[[Request], Any], request: Request) -> str | None:
        try:
            if is_async(function):
                who = await function(request)
            else:
                run = contextvars.copy_context().run
                who = await asyncio.get_running_loop().run_in_executor(self._threads, run, function, request)
        except Exception as error:  # noqa: BLE001 - the function is the user's; who can't be told is nobody
            self._warn("allow", "the administration's allow failed with %s", type(error).__qualname__)
            return None
        if isinstance(who, str) and who:
            return who[:_MAX_NAME]
        if who is not None and who is not False:
            self._warn(
                "allow", "the administration's allow gave %s; it gives a name or None", type(who).__name__
            )
        return None


class Sessions:
    """Signed cookies: any process with the token knows them; signing out is remembered here until they are over."""

    def __init__(self, token: bytes, clock: Callable[[], float]) -> None:
        self._key = hmac.digest(token, b"dedup-middleware administration session 1", "sha256")
        self._clock = clock
        self._own = OwnLock()
        self._over: dict[bytes, float] = {}
        self._not_before = 0.0

    def open(self, request: Request) -> tuple[str, str]:
        """A new session: who it is, and the Set-Cookie that makes the browser say so."""
        now = self._clock()
        signed = secrets.token_bytes(16) + struct.pack(">d", now)
        value = _encode(signed + self._sign(signed))
        return _name(signed), _cookie(request, value, SESSION_SECONDS)

    def who(self, request: Request) -> str | None:
        """Whose session the request's cookie is, while it is open."""
        signed = self._read(request)
        return None if signed is None else _name(signed)

    def close(self, request: Request) -> str:
        """Sign out: the cookie opens nothing any more. Returns the Set-Cookie that removes it."""
        signed = self._read(request)
        if signed is not None:
            with self._own.lock:
                now = self._clock()
                self._over = {one: end for one, end in self._over.items() if end > now}
                if len(self._over) >= _MAX_SIGNED_OUT:
                    # Rather ask everybody again than forget who signed out.
                    self._over.clear()
                    self._not_before = now
                self._over[signed] = now + SESSION_SECONDS
        return _cookie(request, "", 0)

    def _read(self, request: Request) -> bytes | None:
        for line in request.headers.getlist("cookie"):
            for pair in line.split(";")[:100]:
                name, _, value = pair.strip().partition("=")
                if name == COOKIE and (signed := self._valid(value)) is not None:
                    return signed
        return None

    def _valid(self, value: str) -> bytes | None:
        raw = _decode(value)
        if len(raw) != 56 or not hmac.compare_digest(self._sign(raw[:24]), raw[24:]):
            return None
        signed, now = raw[:24], self._clock()
        (since,) = struct.unpack(">d", signed[16:])
        is_open = (
            now - SESSION_SECONDS < since <= now and since > self._not_before and signed not in self._over
        )
        return signed if is_open else None

    def _sign(self, signed: bytes) -> bytes:
        return hmac.digest(self._key, signed, "sha256")


def _name(signed: bytes) -> str:
    return f"browser {signed[:4].hex()}"


def _cookie(request: Request, value: str, seconds: int) -> str:
    # A proxy may end TLS; the page's own origin says so even where the server does not.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    path = quote(request.scope.get("root_path") or "/", safe="/-._~")
    return f"{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict" + (
        "; Secure" if secure else ""
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(value: str) -> bytes:
    if len(value) > 100:
        return b""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""


def check_origin(request: Request) -> None:
    """A browser's request that changes something comes from this very origin.

    Raises:
        Problem: 403 for any other.
    """
    site = request.headers.get("sec-fetch-site")
    if site == "same-origin":
        return
    origin = request.headers.get("origin")
    own = _host(request)
    if site is not None or (origin is not None and (own is None or _authority(origin) != own)):
        raise Problem(403, "A change comes from this page itself, not from another site.")


def _authority(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return f"{parts.hostname}:{port or _DEFAULT_PORTS[parts.scheme]}"


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _host(request: Request) -> str | None:
    origin = request.headers.get("origin", "")
    scheme = "https" if origin.startswith("https:") else "http"
    return _authority(f"{scheme}://{request.headers.get('host', '')}")


def address_of(client: tuple[str, int] | None) -> str:
    """Whom a stranger's requests are counted to: an address, of IPv6 the network that one customer gets."""
    if client is None:
        return "unknown"
    try:
        address = ip_address(client[0].partition("%")[0])
    except ValueError:
        return client[0][:100]
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return str(address)
