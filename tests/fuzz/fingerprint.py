"""Requests under a rule, their neighbours and their twins: who shares a key, and may they?

Law: no request raises; one key, one sight; a twin has the request's key; nothing that was asked before changes an
answer; canonical is canonical; an explanation says what the fingerprint does and shows no secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dedup_middleware import Rule
from dedup_middleware.core import canonical, sight
from dedup_middleware.core.ambiguity import ambiguous_query
from dedup_middleware.core.decide import Bypass, Consider, RuleBook
from dedup_middleware.core.explain import explain
from dedup_middleware.core.fingerprint import Hasher
from dedup_middleware.core.memo import Memo
from dedup_middleware.core.names import is_credential

from .engine import untraced
from .requests import Case, Scope, decode
from .sights import exactly, reads_json, respelled, spelled, twins
from .sights import sight as sight_of

HASH = Hasher(b"a secret")
Asked = tuple[Consider | Bypass, bytes | str]


def run(data: bytes) -> set[str]:
    """Ask for every request, its neighbours and twins, and compare."""
    case = decode(data)
    if case is None:
        return set()
    used, bodies = _book(case), Memo[bytes, bytes](64)
    sights: dict[bytes, tuple[dict[str, str], Scope, bytes]] = {}
    told: set[str] = set()
    for scope, body in case.requests:
        plan, key = ask(used, scope, body, bodies)
        told.add(f"{type(plan).__name__} {key if isinstance(key, str) else 'keyed'}")
        check_sight(used, scope, body, bodies, sights)
        check_explained(used, key, scope, body)
        with untraced():
            for near, near_body in neighbours(scope, body):
                check_sight(used, near, near_body, bodies, sights)
            check_twins(used, plan, key, scope, body, bodies)
            check_canonical(case, scope, body)
    for scope, body in case.requests * 2:
        with untraced():
            fresh = ask(_book(case), scope, body, Memo(1))[1]
        assert ask(used, scope, body, bodies)[1] == fresh, "what was asked before changes an answer"
    return told


def _book(case: Case) -> RuleBook:
    return RuleBook([case.rule], Rule(), HASH, [])


def ask(book: RuleBook, scope: Scope, body: bytes, bodies: Memo[bytes, bytes]) -> Asked:
    """The plan and the key, as the middleware asks for them."""
    before = repr(scope)
    plan = book.plan(scope)
    if isinstance(plan, Bypass):
        return plan, plan.reason
    if ambiguous_query(scope["query_string"]):
        return plan, "target"
    part = plan.fingerprints.body_part(scope, body, bodies) if plan.reads_body else None
    key = plan.fingerprints.key_below(plan.prefix, scope, part)
    assert isinstance(key, str) or len(key) == 16
    assert repr(scope) == before, "a request is only read"
    return plan, key


def neighbours(scope: Scope, body: bytes) -> Iterator[tuple[Scope, bytes]]:
    """The request, and others that differ from it in one part."""
    yield scope, body
    headers = scope["headers"]
    for at, (name, value) in enumerate(headers[:6]):
        rest = headers[at + 1 :]
        yield {**scope, "headers": headers[:at] + rest}, body
        changed = (value + b"x", b"1;" + value)[at % 2]
        yield {**scope, "headers": [*headers[:at], (name, changed), *rest]}, body
        yield {**scope, "headers": [*headers[:at], (name + value[:1], value[1:]), *rest]}, body
    for name, other in (
        ("client", ("192.0.2.9", 5)),
        ("scheme", "wss"),
        ("server", None),
        ("http_version", "0"),
    ):
        yield {**scope, name: other}, body
    for name in ("user", "auth", "session", "state", "extensions"):
        if scope.get(name):
            yield {other: value for other, value in scope.items() if other != name}, body
    for query in (b"&a", b"&utm_a=1;x=2", b"&token=1"):
        yield {**scope, "query_string": scope["query_string"] + query}, body
    if scope["method"] not in ("GET", "HEAD"):
        for near in (body + b" ", body[:-1], body.replace(b"1", b"1.0"), body.replace(b"1", b"2")):
            yield scope, near


def check_sight(
    book: RuleBook,
    scope: Scope,
    body: bytes,
    bodies: Memo[bytes, bytes],
    sights: dict[bytes, tuple[dict[str, str], Scope, bytes]],
) -> None:
    """Whoever has this key showed the app the same."""
    plan, key = ask(book, scope, body, bodies)
    if isinstance(plan, Bypass) or isinstance(key, str):
        return
    seen = sight.visible(plan.fingerprints.reading, scope)
    assert seen["headers"] is not scope["headers"]
    what = sight_of(plan.rule, seen, scope, body)
    known, first, first_body = sights.setdefault(key, (what, scope, body))
    if known != what:
        differ = {
            name: (known.get(name), what.get(name))
            for name in known | what
            if known.get(name) != what.get(name)
        }
        raise AssertionError(f"one key, two sights: {differ} of {first} {first_body!r} and {scope} {body!r}")


def check_twins(
    book: RuleBook, plan: Any, key: bytes | str, scope: Scope, body: bytes, bodies: Memo[bytes, bytes]
) -> None:
    """Other words, same key; where there is none, none."""
    rule = book.rules[0 if isinstance(plan, Bypass) else plan.ordinal]
    for how, twin, twin_body in twins(rule, scope, body):
        found = ask(book, twin, twin_body, bodies)[1]
        assert found == key or (isinstance(found, str) and isinstance(key, str)), (
            f"{how}: {key!r} became {found!r}"
        )


def check_explained(book: RuleBook, key: bytes | str, scope: Scope, body: bytes) -> None:
    """An explanation says what the fingerprint does, and shows no credential."""
    explained = explain(book, scope, body)
    if explained.reason != "body-too-large":  # which the fingerprint does not know of
        expected = ("consider", None, key.hex()) if isinstance(key, bytes) else ("bypass", key, None)
        assert (explained.decision, explained.reason, explained.fingerprint) == expected
    told = exactly([explained.keyed, explained.visible, explained.left_out])
    lines = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    said = exactly(
        {**scope, "headers": [name if is_credential(name) else (name, value) for name, value in lines]}
    )
    for name, value in lines:
        if is_credential(name) and len(value) > 8 and repr(value)[1:-1] not in said:
            assert repr(value)[1:-1] not in told, f"a credential shows: {name!r}"


def check_canonical(case: Case, scope: Scope, body: bytes) -> None:
    """The canonical form of a canonical form is itself, whatever was left out."""
    if not reads_json(scope):
        return
    form = canonical.canonical(body)
    assert canonical.canonical(respelled(body)) == form
    try:
        spelled(body)
    except (ValueError, RecursionError):
        assert form is None, "parsers differ, and the body still has a canonical form"
    ignored = tuple(item.removeprefix("body:") for item in case.rule.ignore if item.startswith("body:"))
    if form is not None:
        assert canonical.canonical(body, ignored) == canonical.canonical(respelled(body), ignored)
