"""Texts of rules and requests, as the fingerprint's target reads them.

An input's first line is a rule (its keywords in JSON); requests follow, parted by lines of `--`: `METHOD target`, then
fields and, with a colon before the name, parts of the scope (`:scheme https`, `:session {"a": 1}`); a body after an
empty line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from dedup_middleware import ANONYMOUS, ConfigurationError, Rule
from dedup_middleware.core.shape import SPECIAL, TARGET_KEYS

Scope = dict[str, Any]
Pairs = list[tuple[bytes, bytes]]

WORDS = (
    b"{}", b'{"ttl": 60}', b'{"vary": []}', b'{"vary": ["accept", "x-a"]}', b'{"vary": ["*", "-accept"]}',
    b'{"vary": "origin"}', b'{"vary": "origin", "identity": "shared", "ttl": 60}', b'{"identity": "credentials"}',
    b'{"vary": ["cookie:sid", "client"], "identity": "shared"}', b'{"vary": ["state:a", "scope:tenant"]}',
    b'{"identity": ["cookie:sid", "authorization"], "vary": []}', b'{"identity": ["user", "session", "certificate"]}',
    b'{"identity": "function"}', b'{"identity": "function", "vary": ["cookie:sid", "client"], "ttl": 5}',
    b'{"ignore": ["query:utm_*", "body:id", "header:x-*", "state:a", "scope:tenant"]}', b'{"ignore": ["query:*"]}',
    b'{"ignore": ["body:*", "header:*"], "vary": []}', b'{"vary": ["x-request-id", "cache-control", "cookie"]}',
    b'{"methods": ["POST", "GET"], "collapse": true, "ttl": 60}', b'{"path": "/a/{b}", "tags": ["t:{b}"]}',
    b"GET /", b"GET /a/b?utm_a=1&x=2", b"HEAD /a", b"QUERY /a", b"POST /", b"QUERY /a?token=hunter2secret", b"--",
    b"accept: a", b"Accept: a", b"x-a: 1", b"X-A: 1", b"host: h", b"range: bytes=0-1", b"te: trailers",
    b"cookie: sid=1; theme=2", b"cookie: _ga=1; sid=1", b'cookie: sid="1;_ga=2"', b"Cookie: _gid=1", b"cookie: ",
    b"authorization: Bearer hunter2secret", b"x-api-key: hunter2secret", b"x-forwarded-for: 1.2.3.4",
    b"x-forwarded-host: h", b"x-request-id: 7", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"tracestate: a=b", b"connection: close, x-a, x-request-id", b"cache-control: no-cache", b"pragma: no-cache",
    b'if-none-match: "a"', b"if-match: *", b"upgrade: h2c", b"content-length: 0", b"transfer-encoding: chunked",
    b"content-type: application/json", b"Content-Type: application/json; charset=utf-8", b"content-encoding: br",
    b"Content-Encoding: x", b"content-type: text/plain", b":scheme https", b":http 2", b":root /a", b":client 1.2.3.4",
    b":client", b":server h", b":raw /%61", b":path /a", b':user "a"', b":user 1", b':auth ["read"]', b":auth {}",
    b':session {"a": 1}', b":session {}", b':state {"a": 1}', b':state {"db": [1]}', b':tls {"client_cert_name": "a"}',
    b':scope tenant "a"', b"", b'{"a": 1, "id": 2}', b'{"id": 1, "token": "t"}', b"[1.0, 1e5, -0]", b'"\\u0061"',
    b'{"a": 1, "a": 2}', b'{"\\ud83d\\ude00": null}', b'"\\ud800"', b"true", b"NaN", b"\\n", b"&", b";", b"%2f", b"%00",
)  # fmt: skip

MAX_REQUESTS, MAX_FIELDS = 4, 300


def fields_only(scope: Mapping[str, Any]) -> Any:
    """An identity function: whoever sends the same Authorization is the same."""
    values = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    return b"\0".join(values) or ANONYMOUS


class Case(NamedTuple):
    """A rule and the requests that arrive under it."""

    rule: Rule
    requests: list[tuple[Scope, bytes]]


def decode(data: bytes) -> Case | None:
    """What the input writes; None where its rule is none."""
    first, _, rest = data.partition(b"\n")
    try:
        keywords = json.loads(first)
        if keywords.get("identity") == "function":
            keywords["identity"] = fields_only
        rule = Rule(**keywords)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, ConfigurationError):
        return None
    return Case(rule, [_request(text) for text in rest.split(b"\n--\n")[:MAX_REQUESTS]])


def _request(text: bytes) -> tuple[Scope, bytes]:
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.decode("latin-1").partition(" ")
    raw_path, _, query = target.encode("latin-1").partition(b"?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [],
        "client": ("192.0.2.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    for line in lines[:MAX_FIELDS]:
        if line.startswith(b":"):
            _set(scope, *line[1:].decode("utf-8", "surrogateescape").partition(" ")[::2])
        else:
            name, _, value = line.replace(rb"\n", b"\n").partition(b":")
            scope["headers"].append((name, value.removeprefix(b" ")))
    return scope, b"" if method in ("GET", "HEAD") else body


def _set(scope: Scope, name: str, text: str) -> None:
    match name:
        case "scheme" | "path":
            scope[name] = text
        case "http":
            scope["http_version"] = text
        case "root":
            scope["root_path"] = text
        case "raw":
            scope["raw_path"] = text.encode("utf-8", "surrogateescape") if text else None
        case "client":
            scope["client"] = (text, 50_000) if text else None
        case "server":
            scope["server"] = (text, 80) if text else None
        case "tls":
            scope["extensions"] = {"tls": _data(text), "http.response.push": {}}
        case "state":
            data = _data(text)
            scope["state"] = data if isinstance(data, dict) else {}
        case "user" | "auth" | "session":
            scope[name] = _data(text)
        case "scope":
            key, _, text = text.partition(" ")
            if key not in TARGET_KEYS and key not in SPECIAL:
                scope[key] = _data(text)


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
