"""The kit of the leak suite: every store, every shape of a rule, every way in which requests differ, and a mirror.

The mirror answers with everything that it saw and calls that cacheable for all, so that whoever shares an answer that
is not exactly its own gets other bytes than alone: a law broken anywhere shows on the wire.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from dedup_middleware import ANONYMOUS, Dedup, DedupMiddleware, Rule
from dedup_middleware.core import names
from dedup_middleware.core.names import ADDRESS_FIELDS, NOISE, OVERRIDES, is_credential
from dedup_middleware.core.rules import SHARED_CACHE

from .kit import Call, GatedApp, call, get, settle

Make = Callable[..., Dedup]
Request = dict[str, Any]
Pairs = list[tuple[bytes, bytes]]
Shape = dict[str, Any]
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")

STORES = ["memory://"]
"""The stores that hold responses: a new one is one line here, and the whole suite runs over it."""


# -- shapes of rules -------------------------------------------------------------------------------------------------


def whole_caller(scope: Mapping[str, Any]) -> Any:
    """An identity function that keeps its oath: it names everything by which a caller is known."""
    said = [
        (name.lower(), value)
        for name, value in scope["headers"]
        if name.lower() in ADDRESS_FIELDS or is_credential(name.lower().decode("latin-1"))
    ]
    auth = scope.get("auth")
    outer = (
        identity_of(scope.get("user")),
        getattr(auth, "scopes", auth),
        scope.get("session"),
        (scope.get("extensions") or {}).get("tls"),
    )
    client = scope["client"][0] if scope.get("client") else None
    return repr((said, client, outer)) if said or client or any(outer) else ANONYMOUS


def identity_of(user: object) -> object:
    return getattr(user, "identity", user)


SHAPES: dict[str, Shape] = {
    "nothing said": {},
    "vary []": {"vary": []},
    "vary a list": {"vary": ["accept", "x-wanted"]},
    "vary all but one": {"vary": ["*", "-x-unwanted"]},
    "vary origin": {"vary": "origin"},
    "credentials, vary []": {"identity": "credentials", "vary": []},
    "credentials, origin": {"identity": "credentials", "vary": "origin"},
    "shared": {"identity": "shared"},
    "shared, vary []": {"identity": "shared", "vary": []},
    "shared, origin": {"identity": "shared", "vary": "origin"},
    "shared, the address varies": {"identity": "shared", "vary": ["client"]},
    "shared, a cookie and a credential vary": {"identity": "shared", "vary": ["cookie:sid", "x-api-key"]},
    "shared, the outer layers vary": {"identity": "shared", "vary": ["state:a", "scope:tenant"]},
    "one cookie": {"identity": ["cookie:sid"], "vary": []},
    "one credential, origin": {"identity": ["authorization"], "vary": "origin"},
    "all that a scope names": {"identity": ["user", "session", "certificate", "client"], "vary": []},
    "a function, vary []": {"identity": whole_caller, "vary": []},
    "a function, origin": {"identity": whole_caller, "vary": "origin"},
    "ignore": {"ignore": ["header:x-sworn", "query:utm_*", "body:requestId", "state:db", "scope:trace"]},
    "ignore every field": {"ignore": ["header:*"], "vary": []},
    "http cache": {"ttl": "origin", "vary": "origin"},
    "shared http cache": dict(SHARED_CACHE),
}
"""Every kind of rule, with oaths that are kept; `rule_of` makes the rule."""


def rule_of(shape: Shape, **more: Any) -> Rule:
    """A rule of this shape for every path, for the methods that are safe."""
    fields = {"ttl": 60, "max_responses": 10_000, **shape, **more}
    if fields["ttl"] == "origin":
        fields.pop("negative_ttl", None)  # the app says how long
    return Rule("/{path:path}", **fields)


# -- requests --------------------------------------------------------------------------------------------------------


class User:
    """What an authentication layer puts into the scope."""

    def __init__(self, identity: object) -> None:
        self.identity = identity
        self.is_authenticated = True


class Scopes:
    def __init__(self, *scopes: str) -> None:
        self.scopes = list(scopes)


def with_headers(*pairs: tuple[bytes, bytes], **more: Any) -> Request:
    return {"headers": pairs, **more}


def with_body(body: bytes, *pairs: tuple[bytes, bytes], **more: Any) -> Request:
    return {"method": "QUERY", "body": body, "headers": pairs, **more}


def certificate(**fields: Any) -> Request:
    return {"extensions": {"tls": fields}}


def below(prefix: str, request: Request) -> Request:
    """The same request on a target of its own, so that one engine answers many pairs."""
    if "root_path" in request:
        return request
    moved = {"target": "/", **request}
    if moved["target"].startswith("/"):
        moved["target"] = prefix + moved["target"]
    if "path" in moved:
        moved["path"] = prefix + moved["path"]
    if (moved.get("raw_path") or b"").startswith(b"/"):
        moved["raw_path"] = prefix.encode() + moved["raw_path"]
    return moved


# -- names of fields -------------------------------------------------------------------------------------------------

FIELDS: list[bytes] = (
    b"accept accept-charset accept-encoding accept-language user-agent referer origin dnt te expect save-data prefer "
    b"from forwarded-host range if-range baggage x-unknown x-requested-with rsc priority link date via warning "
    b"next-router-state-tree next-router-prefetch x-middleware-subrequest hx-request x-inertia turbo-frame "
    b"sec-fetch-site sec-fetch-user sec-ch-ua sec-gpc sec-websocket-key idempotency-key content-language "
    b"content-digest content-location content-disposition x-country max-forwards cf-ipcountry accept-version "
    b"x-api-version x-env device-memory viewport-width x-debug x-preview x-wanted x-unwanted connection trailer "
    b"proxy-connection keep-alive accept-datetime access-control-request-method upgrade-insecure-requests"
).split()
"""Request fields that matter by default, and are neither credentials, addresses nor overrides."""


_SPELLINGS = itertools.cycle(["x-{}", "my_{}_id", "acme-{}s"])
CREDENTIALS: list[bytes] = sorted(
    {
        *names._CREDENTIALS,
        *(next(_SPELLINGS).format(word.decode()).encode() for word in sorted(names._CREDENTIAL_WORDS)),
        b"sec-token-binding",
    }
)
"""Every listed credential, and names made of every word that makes one."""

EVERY_FIELD: list[bytes] = [*FIELDS, *CREDENTIALS, *sorted(ADDRESS_FIELDS), *sorted(OVERRIDES)]


# -- the mirror ------------------------------------------------------------------------------------------------------

PUBLIC: Pairs = [(b"content-type", b"text/html"), (b"cache-control", b"public, max-age=31536000")]
_FRAMING = frozenset({b"content-length"})
_SEEN = ("method", "scheme", "http_version", "server", "root_path", "path", "raw_path", "query_string")
_PLAIN = frozenset(
    (*_SEEN, "type", "asgi", "headers", "client", "extensions", "user", "auth", "session", "state")
)


def reflection(scope: Mapping[str, Any], body: bytes, sworn: Iterable[str] = ()) -> bytes:
    """Everything in a request but noise in its own grammar, framing, and the fields that `sworn` patterns name."""
    connection = {
        token.strip().lower()
        for name, value in scope["headers"]
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    fields = [
        (name.lower(), value)
        for name, value in scope["headers"]
        if name.lower() not in _FRAMING
        and not _is_noise(name.lower(), value, connection)
        and not any(is_sworn(name.lower(), pattern) for pattern in sworn)
    ]
    user, auth = scope.get("user"), scope.get("auth")
    seen = [scope.get(key) for key in _SEEN]
    seen += [fields, scope["client"][0] if scope.get("client") else None, body]
    seen += [identity_of(user), getattr(auth, "scopes", auth), scope.get("session")]
    seen += [(scope.get("extensions") or {}).get("tls"), sorted((scope.get("state") or {}).items())]
    seen += [(key, scope[key]) for key in sorted(scope) if key not in _PLAIN]
    return repr(seen).encode("utf-8", "surrogateescape")


def _is_noise(name: bytes, value: bytes, connection: set[bytes]) -> bool:
    return name in NOISE and name not in connection and NOISE[name].fullmatch(value) is not None


def is_sworn(name: bytes, pattern: str) -> bool:
    """Whether a pattern of `ignore` reaches a field: it never does a credential, an address, the host or a range."""
    text = name.decode("latin-1")
    kept = name in ADDRESS_FIELDS or is_credential(text) or name in (b"host", b"range", b"if-range")
    content = name in (b"content-type", b"content-encoding")
    return not kept and not content and fnmatchcase(text, pattern.removeprefix("header:"))


class Mirror(GatedApp):
    """A deliberately naive app: it reflects all that it sees in a response that it calls public for a year.

    `sworn` are the patterns of fields of which the operator swore that they change nothing; `varies` says, by the
    first segment of a path, which Vary the answers there tell.
    """

    def __init__(self, *, sworn: Iterable[str] = (), opened: bool = False) -> None:
        super().__init__(opened=opened)
        self.sworn = tuple(sworn)
        self.varies: dict[str, bytes] = {}

    def reflect(self, scope: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        """The answer's status and body."""
        return 200, reflection(scope, body, self.sworn)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await self.gate.wait()
        status, page = self.reflect(scope, body)
        varies = self.varies.get(scope["path"].split("/")[1]) if self.varies else None
        headers = [*PUBLIC, (b"vary", varies)] if varies else PUBLIC
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": page, "more_body": False})


HIT = b"dedup; hit"
Pair = tuple[Request, Request]
Answer = tuple[int, bytes]


class Bench:
    """Pairs of requests under one rule, each on a target of its own: who gets something else than it would alone?

    Under `vary="origin"` the mirror keeps its side of the oath and names in Vary all fields of the pair; `tells` says
    otherwise, whatever the rule.
    """

    def __init__(
        self,
        make_dedup: Make,
        rule: Rule,
        pairs: Mapping[str, Pair],
        *,
        store: str = STORES[0],
        mirror: Callable[[], Mirror] | None = None,
        tells: bool | None = None,
        before: Iterable[Rule] = (),
    ) -> None:
        self.missed: set[str] = set()
        self.pairs = {
            name: (below(f"/p{number}", one), below(f"/p{number}", other))
            for number, (name, (one, other)) in enumerate(pairs.items())
        }
        self._make: Callable[[], Dedup] = lambda: make_dedup(*before, rule, store=store)
        self._mirror = mirror or (lambda: Mirror(sworn=rule.ignore))
        self._varies: dict[str, bytes] = {}
        if rule.vary == "origin" if tells is None else tells:
            for number, pair in enumerate(pairs.values()):
                fields = {name.lower() for request in pair for name, _ in request.get("headers", ())}
                self._varies[f"p{number}"] = b", ".join(sorted(fields))

    def app(self, *, opened: bool) -> tuple[Mirror, DedupMiddleware]:
        """A mirror behind an engine that has seen nothing."""
        mirror = self._mirror()
        mirror.varies = self._varies
        if opened:
            mirror.gate.set()
        return mirror, DedupMiddleware(mirror, dedup=self._make())

    async def alone(self, which: int, *, bare: bool = False) -> dict[str, Answer]:
        """What the first (0) or second (1) of each pair gets from an engine that saw nothing before, or without one."""
        mirror, app = self.app(opened=True)
        found = {}
        for name, pair in self.pairs.items():
            one = await get(mirror if bare else app, **pair[which])
            found[name] = (one.status, one.body)
        return found

    async def wronged(self, *, victims: Sequence[int] = (0, 1), bare: bool = False) -> set[str]:
        """Which victims get something else than alone: first and second at once, then second and first in turn.

        So one of them meets a flight of the other, and then what it stored. `missed` are those that in the end got
        neither a hit nor a bypass: of them the bench shows less.
        """
        expected = {which: await self.alone(which, bare=bare) for which in victims}
        mirror, app = self.app(opened=False)
        calls: list[tuple[str, int, Call]] = []
        for which in (0, 1):
            calls += [(name, which, call(app, **pair[which])) for name, pair in self.pairs.items()]
            await settle(5)
        mirror.gate.set()
        for _, _, one in calls:
            await one.done()
        again = [
            (name, which, await get(app, **pair[which]))
            for which in reversed(victims)
            for name, pair in self.pairs.items()
        ]
        self.missed = {
            name for name, _, one in again if not (one.header(b"cache-status") or HIT).startswith(HIT)
        }
        return {
            name
            for name, which, one in calls + again
            if which in victims and (one.status, one.body) != expected[which][name]
        }
