"""What Location and Content-Location of a write invalidate (RFC 9111 s.4.4)."""

from __future__ import annotations

from typing import Any

from ..case import Case, Level, app, case, ok, store, through
from .given import HOUR


def named(
    name: str, sentence: str, field: str, value: str, goes: bool, level: Level = "required", **more: Any
) -> Case:
    """What a POST's field that names another URI does to it."""
    after = app(suffix="/b", of=3) if goes else store(suffix="/b", of=1)
    return case(
        name,
        "9111 4.4",
        sentence,
        level,
        [HOUR, ok(None, (field, value), **more), HOUR],
        app(suffix="/b"),
        through(method="POST", suffix="/a"),
        after,
    )


NAMED = [
    one
    for field in ("Location", "Content-Location")
    for short in [field.lower()]
    for one in (
        named(
            f"{short}-path",
            f"{field} as a path: that URI is invalidated",
            field,
            "{here}/b",
            True,
            "optional",
        ),
        named(f"{short}-relative", f"{field} as a relative reference", field, "b", True, "optional"),
        named(
            f"{short}-absolute",
            f"{field} as a URI of the same origin",
            field,
            "http://example.test{here}/b",
            True,
            "optional",
        ),
        named(
            f"{short}-port",
            f"{field} with the scheme's own port is the same origin",
            field,
            "http://example.test:80{here}/b",
            True,
            "optional",
        ),
        named(
            f"{short}-case",
            f"{field} with the host in another case is the same origin",
            field,
            "HTTP://EXAMPLE.test{here}/b",
            True,
            "optional",
        ),
        named(
            f"{short}-network", f"{field} without a scheme", field, "//example.test{here}/b", True, "optional"
        ),
        named(f"{short}-fragment", f"{field} with a fragment", field, "{here}/b#part", True, "optional"),
        named(
            f"{short}-other-host",
            f"{field} of another host invalidates nothing",
            field,
            "http://other.test{here}/b",
            False,
        ),
        named(
            f"{short}-other-port",
            f"{field} of another port invalidates nothing",
            field,
            "http://example.test:8080{here}/b",
            False,
        ),
        named(
            f"{short}-other-scheme",
            f"{field} of another scheme invalidates nothing",
            field,
            "https://example.test{here}/b",
            False,
        ),
        named(
            f"{short}-error",
            f"{field} of an error invalidates nothing",
            field,
            "{here}/b",
            False,
            "optional",
            status=409,
        ),
        named(
            f"{short}-invalid",
            f"A {field} that is no URI invalidates nothing and harms nothing",
            field,
            "http://[{here}/b",
            False,
        ),
    )
]

ROWS: list[Case] = [*NAMED]
