"""A request that was read before gets its key without being read again: the same key, always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_middleware import Rule
from dedup_middleware.core.fingerprint import Fingerprinter
from dedup_middleware.core.names import ADDRESS_FIELDS, is_credential, is_secret
from dedup_middleware.core.seen import _NO_SECRETS, Seen

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
        (b"accept-language", b"de"),
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
    st.sampled_from(["/a", "/a?x=1", "/a?utm_source=1", "/a?token=1", "/b"]),
)


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_whatever_was_read_before_a_key_is_what_a_first_reading_says(rule: Rule) -> None:
    seen = Seen()
    place = RULES.index(rule)

    @examples(100)
    @given(st.lists(st.tuples(REQUESTS, st.sampled_from([None, b"body", b"other"])), min_size=2, max_size=6))
    def check(requests: list[tuple[dict[str, Any], bytes | None]]) -> None:
        known = Fingerprinter(rule, place, HASH, (), 0, seen)
        for scope, body in requests:
            first = Fingerprinter(rule, place, HASH).key(scope, "GET", body)
            for _ in range(5):  # read, noted, remembered, and found
                assert known.key(scope, "GET", body) == first

    check()


def test_rules_that_share_the_memory_give_no_key_to_each_other() -> None:
    seen = Seen()
    readers = [Fingerprinter(rule, place, HASH, (), 0, seen) for place, rule in enumerate(RULES)]
    scope = make_scope("/a", headers=[(b"accept", b"a")])
    for _ in range(5):
        assert len({reader.key(scope, "GET", None) for reader in readers}) == len(readers)


def test_what_never_comes_twice_is_not_remembered() -> None:
    seen = Seen()
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    for number in range(100):
        reader.key(make_scope("/a", headers=[(b"x-request-id", b"%d" % number)]), "GET", None)
    assert (len(seen.digests), len(seen.open)) == (0, 0)


def test_a_line_of_more_than_a_name_and_a_value_is_read_as_it_was_at_first() -> None:
    reader = Fingerprinter(Rule(ttl=60), 0, HASH)
    scope = {**make_scope("/a"), "headers": [(b"host", b"h"), (b"accept", b"a", b"more")]}
    assert len({reader.key(scope, "GET", None) for _ in range(5)}) == 1
    assert isinstance(reader.key(scope, "GET", None), bytes)


def test_a_repeat_is_known_without_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Fingerprinter(Rule(ttl=60), 0, HASH)
    keys = {reader.key(make_scope("/a"), "GET", None) for _ in range(3)}
    monkeypatch.delattr(Fingerprinter, "_read")
    keys.add(reader.key(make_scope("/a"), "GET", None))
    assert len(keys) == 1


MANY = [(b"accept", b"%d" % number) for number in range(300)]
CLOSED: dict[str, dict[str, Any]] = {
    "a credential": {"headers": [(b"authorization", b"a")]},
    "a cookie": {"headers": [(b"accept", b"a"), (b"cookie", b"a=1")]},
    "a field that nobody knows": {"headers": [(b"x-mine", b"a")]},
    "a secret in the query": {"query_string": b"b=1&token=a"},
    "a secret in a URL in the query": {"query_string": b"next=https://ann:pass@a.test/"},
    "a secret in JSON in the query": {"query_string": b"where=%7B%22password%22%3A%22a%22%7D"},
    "a secret in what is escaped twice": {"query_string": b"next=%252Flogin%253Ftoken%253Da"},
    "a secret by a name with a blank": {"query_string": b"+token=a"},
    "much": {"headers": [(b"accept", b"a" * 3000)]},
    "many fields": {"headers": MANY[:250]},
    "many small fields": {"headers": [(b"te", b"a")] * 40},
    "lists": {"headers": [[b"accept", b"a"]]},
    "a list for the server": {"server": ["127.0.0.1", 80]},
    "a list for the version": {"http_version": [1, 1]},
    "text for the query": {"query_string": "a=1"},
    "an empty buffer for the query": {"query_string": bytearray()},
    "buffers": {"headers": [(b"accept", memoryview(b"a"))]},
}
"""Requests that no memory holds as they came."""


@pytest.mark.parametrize("request_", CLOSED.values(), ids=CLOSED)
def test_what_may_hold_a_secret_is_remembered_by_its_digest_alone(
    request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    scope = {**make_scope("/a"), **request_}
    keys = {reader.key(scope, "GET", None) for _ in range(4)}
    monkeypatch.delattr(Fingerprinter, "_read")
    keys.add(reader.key(scope, "GET", None))

    assert (len(keys), len(seen.digests), len(seen.open)) == (1, 1, 0)


def test_a_request_without_secrets_is_found_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    scope = make_scope("/a?page=2", headers=[(b"accept", b"a"), (b"user-agent", b"b")])
    keys = {reader.key(scope, "GET", None) for _ in range(3)}
    assert (len(seen.digests), len(seen.open)) == (0, 1)

    prefix = reader.prefix(scope, "GET")
    monkeypatch.delattr(reader, "_begin")
    keys.add(reader.key_below(prefix, scope, None))
    assert len(keys) == 1


def test_requests_that_come_once_push_out_none_that_comes_again() -> None:
    seen = Seen()
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    plain, secret = make_scope("/a"), make_scope("/b", headers=[(b"authorization", b"a")])
    for scope in (plain, secret) * 3:
        reader.key(scope, "GET", None)
    known = *seen.open.young, *seen.digests.young
    for number in range(20_000):
        headers = [(b"authorization", b"a")] if number % 2 else []
        reader.key(make_scope(f"/c?n={number}", headers=headers), "GET", None)

    assert [*seen.open.young, *seen.digests.young] == [*known]


def test_a_request_for_a_long_path_is_remembered_in_few_bytes() -> None:
    reader = Fingerprinter(Rule(ttl=60), 0, HASH)
    paths = ["/a", "/" + "a" * 100_000, "/" + "a" * 99_999 + "b"]
    begun = [reader.prefix(make_scope(path), "GET") for path in paths]

    assert max(map(len, begun)) <= 256
    assert len(set(begun)) == len(begun)


def test_those_with_secrets_and_those_without_are_known_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Fingerprinter(Rule(ttl=60), 0, HASH)
    scopes = [make_scope("/a", headers=[(name, b"a")]) for name in (b"accept", b"authorization")]
    keys = {reader.key(scope, "GET", None) for scope in scopes for _ in range(3)}
    monkeypatch.delattr(Fingerprinter, "_read")

    for scope in (*scopes, *scopes, *reversed(scopes)):
        keys.add(reader.key(scope, "GET", None))
    assert len(keys) == 2


def test_a_request_that_was_found_long_ago_is_found_among_the_old(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    reader = Fingerprinter(Rule(ttl=60), 0, HASH, (), 0, seen)
    scope = make_scope("/a")
    keys = {reader.key(scope, "GET", None) for _ in range(3)}
    seen.open.old, seen.open.young = seen.open.young, {}
    prefix = reader.prefix(scope, "GET")
    monkeypatch.delattr(reader, "_begin")
    keys.add(reader.key_below(prefix, scope, None))

    assert (len(keys), len(seen.open.young)) == (1, 1)


def test_no_field_that_says_who_asks_counts_as_free_of_secrets() -> None:
    assert not [name for name in _NO_SECRETS if is_credential(name.decode()) or is_secret(name.decode())]
    assert not _NO_SECRETS & {b"cookie", b"referer", b"authorization", *ADDRESS_FIELDS}


def test_an_identity_function_is_asked_each_time() -> None:
    answers = iter(["ann", "ann", "bob", "ann"])
    reader = Fingerprinter(Rule(ttl=60, identity=lambda scope: next(answers)), 0, HASH)
    first, second, third, fourth = (reader.key(make_scope("/a"), "GET", None) for _ in range(4))
    assert first == second == fourth != third
