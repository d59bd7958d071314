"""Effects: which other targets and groups an unsafe request's response concerns (RFC 9111 s.4.4, RFC 9875)."""

from __future__ import annotations

from typing import Any

import pytest

from dedup_middleware.core.effects import effects, groups, origin_of

from .kit import make_scope

HERE = "target:example.test"


def scope(path: str = "/a/b", host: bytes = b"example.test", scheme: str = "http") -> dict[str, Any]:
    return make_scope(path, "POST", [(b"host", host)], scheme=scheme)


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/x", "/x"),
        ("x", "/a/x"),
        ("../x", "/x"),
        ("./x?y=1#z", "/a/x"),
        ("?y=1", "/a/b"),
        ("", "/a/b"),
        ("  /x ", "/x"),
        ("http://example.test/x", "/x"),
        ("http://example.test", "/"),
        ("http://EXAMPLE.test:80/x", "/x"),
        ("HTTP://example.test/x", "/x"),
        ("http://user:pass@example.test/x", "/x"),
        ("//example.test/x", "/x"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/\u00e9"),
        ("https://example.test/x", None),
        ("http://example.test:8080/x", None),
        ("http://other.test/x", None),
        ("//other.test/x", None),
        ("http://example.test.other.test/x", None),
        ("http://example.test@other.test/x", None),
        ("http://example.test:port/x", None),
        ("http://[::1/x", None),
        ("mailto:a@example.test", None),
        ("urn:x", None),
    ],
)
@pytest.mark.parametrize("field", [b"location", b"content-location", b"Location"])
def test_only_what_points_to_the_same_origin_is_concerned(
    field: bytes, reference: str, path: str | None
) -> None:
    found, _ = effects(scope(), [(b"x", b"/y"), (field, reference.encode())])

    assert found == (() if path is None else (f"{HERE}{path}",))


@pytest.mark.parametrize("folder", ["/a?b", "/a#b", "/a%62", "/\u00fc", "/a;b"])
def test_a_reference_is_resolved_against_the_path_as_it_was_sent(folder: str) -> None:
    # what a decoded path holds is no delimiter, and no escape
    found, _ = effects({**scope(), "path": f"{folder}/x"}, [(b"location", b"y")])

    assert found == (f"{HERE}{folder}/y",)


@pytest.mark.parametrize(
    ("scheme", "host", "reference", "same"),
    [
        ("https", b"example.test", "https://example.test:443/x", True),
        ("https", b"example.test", "https://example.test:80/x", False),
        ("https", b"example.test", "http://example.test/x", False),
        ("http", b"example.test:80", "http://example.test/x", True),
        ("http", b"example.test:8000", "http://example.test:8000/x", True),
        ("http", b"example.test:8000", "http://example.test/x", False),
        ("http", b"[::1]:8000", "http://[::1]:8000/x", True),
        ("http", b"", "/x", True),
        ("http", b"a:b", "/x", False),
    ],
)
def test_the_origin_is_scheme_host_and_port(scheme: str, host: bytes, reference: str, same: bool) -> None:
    # RFC 9110 s.4.3.1
    assert bool(effects(scope("/", host, scheme), [(b"location", reference.encode())])[0]) is same


def test_a_request_without_scheme_or_host_still_names_its_own_targets() -> None:
    bare = scope()
    bare["scheme"], bare["headers"] = None, []

    assert effects(bare, [(b"location", b"/x")])[0] == ("target:/x",)


def test_every_line_of_both_fields_counts() -> None:
    fields = [(b"location", b"/x"), (b"content-location", b"/y"), (b"location", b"/z")]

    assert effects(scope(), fields)[0] == (f"{HERE}/x", f"{HERE}/y", f"{HERE}/z")


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        ([], ()),
        ([b'"a"'], ("tag:a",)),
        ([b'"a", "b";x=1', b'"c d"'], ("tag:a", "tag:b", "tag:c d")),
        ([b"a"], ()),
        ([b'"a", b'], ()),
        ([b'"a'], ()),
        ([b""], ()),
    ],
)
def test_groups_are_a_list_of_strings_and_what_does_not_parse_names_none(
    lines: list[bytes], tags: tuple[str, ...]
) -> None:
    # RFC 9875 s.2, s.3; RFC 9651 s.3.1
    assert groups(lines) == groups(tuple(lines)) == tags


@pytest.mark.parametrize("host", [b"example.test", b"Example.Test:80", b"example.test."])
def test_all_targets_of_an_origin_begin_alike(host: bytes) -> None:
    assert origin_of(scope(host=host)) == f"{HERE}/"
