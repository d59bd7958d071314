"""A request that was read before gets its key without being read again: the same key, always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_middleware import Rule
from dedup_middleware.core.fingerprint import Fingerprinter
from dedup_middleware.core.memo import Memo

from .kit import make_scope
from .test_fingerprint import HASH, User, examples

pytestmark = pytest.mark.slow

RULES = [
    Rule(ttl=60),
    Rule(ttl=60, vary=["accept"], identity="shared"),
    Rule(ttl=60, vary="origin", identity=["cookie:session"]),
    Rule(ttl=60, ignore=["query:utm_*"], identity="credentials"),
    Rule(ttl=60, identity=lambda scope: str(scope["client"][0])),
]
FIELDS = st.sampled_from(
    [
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"Accept", b"a"),
        (b"authorization", b"one"),
        (b"cookie", b"session=1"),
        (b"cookie", b"session=1; _ga=2"),
        (b"x", b"1"),
        (b"x1", b""),
        (b"x-request-id", b"1234"),
        (b"x-request-id", b"not\xffone"),
        (b"cache-control", b"no-cache"),
        (b"connection", b"x-request-id"),
    ]
)
MORE = st.sampled_from(
    [
        {},
        {"state": {}},
        {"state": {"a": 1}},
        {"user": None},
        {"user": User("ann")},
        {"user": User("bob", truth=False)},
        {"user": 0},
        {"session": {}},
        {"session": {"a": 1}},
        {"extensions": {"tls": {"client_cert_name": "ann"}}},
        {"extensions": {"http.response.pathsend": {}}},
        {"other": {}},
        {"other": None},
        {"other": object()},
        {"http_version": "1.0"},
        {"scheme": "https"},
        {"server": None},
        {"client": None},
        {"client": ("198.51.100.7", 1)},
    ]
)
REQUESTS = st.builds(
    lambda headers, more, target: make_scope(target, headers=headers, **more),
    st.lists(FIELDS, max_size=4),
    MORE,
    st.sampled_from(["/a", "/a?x=1", "/a?utm_source=1", "/b"]),
)


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_whatever_was_read_before_a_key_is_what_a_first_reading_says(rule: Rule) -> None:
    seen: Memo[bytes, bytes] = Memo(4096)
    place = RULES.index(rule)

    @examples(100)
    @given(st.lists(st.tuples(REQUESTS, st.sampled_from([None, b"body", b"other"])), min_size=2, max_size=6))
    def check(requests: list[tuple[dict[str, Any], bytes | None]]) -> None:
        known = Fingerprinter(rule, place, HASH, (), 0, seen)
        for scope, body in requests:
            first = Fingerprinter(rule, place, HASH).key(scope, "GET", body)
            for _ in range(3):
                assert known.key(scope, "GET", body) == first

    check()


def test_rules_that_share_the_memory_give_no_key_to_each_other() -> None:
    seen: Memo[bytes, bytes] = Memo(4096)
    readers = [Fingerprinter(rule, place, HASH, (), 0, seen) for place, rule in enumerate(RULES)]
    scope = make_scope("/a", headers=[(b"accept", b"a")])
    for _ in range(3):
        assert len({reader.key(scope, "GET", None) for reader in readers}) == len(readers)


def test_what_never_comes_twice_is_not_remembered() -> None:
    seen: Memo[bytes, bytes] = Memo(4096)
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    for number in range(100):
        reader.key(make_scope("/a", headers=[(b"x-request-id", b"%d" % number)]), "GET", None)
    assert len(seen) == 0


def test_a_repeat_is_known_without_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Fingerprinter(Rule(ttl=60), 0, HASH)
    keys = {reader.key(make_scope("/a"), "GET", None) for _ in range(2)}
    monkeypatch.delattr(Fingerprinter, "_read")
    keys.add(reader.key(make_scope("/a"), "GET", None))
    assert len(keys) == 1


def test_an_identity_function_is_asked_each_time() -> None:
    answers = iter(["ann", "ann", "bob", "ann"])
    reader = Fingerprinter(Rule(ttl=60, identity=lambda scope: next(answers)), 0, HASH)
    first, second, third, fourth = (reader.key(make_scope("/a"), "GET", None) for _ in range(4))
    assert first == second == fourth != third
