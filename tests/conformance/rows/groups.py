"""Cache-Groups and Cache-Group-Invalidation (RFC 9875)."""

from __future__ import annotations

from ..case import Case, app, case, crowd, ok, store, through
from .given import FRESH

GROUP = ("cache-groups", '"one", "two"')


def dropped(*groups: str) -> tuple[str, str]:
    return ("cache-group-invalidation", ", ".join(groups))


MANY = ", ".join(f'"group-{number}"' for number in range(128))
LONG = f'"{"x" * 128}"'

GROUPS = [
    case(
        "groups-many",
        "9875 2",
        "A response may be of 128 groups",
        "required",
        [ok(FRESH, ("cache-groups", MANY)), ok(None, dropped('"group-127"')), ok(FRESH)],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-long",
        "9875 2",
        "A group's name may have 128 characters",
        "required",
        [ok(FRESH, ("cache-groups", LONG)), ok(None, dropped(LONG)), ok(FRESH)],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-escaped",
        "9875 2.1",
        "Escapes in a string are read",
        "required",
        [ok(FRESH, ("cache-groups", r'"a\"b, c"')), ok(None, dropped(r'"a\"b, c"')), ok(FRESH)],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups",
        "9875 3",
        "Cache-Group-Invalidation of an unsafe request drops the responses of the group",
        "optional",
        [ok(FRESH, GROUP), ok(None, dropped('"two"')), ok(FRESH)],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-other",
        "9875 3",
        "Cache-Group-Invalidation drops the responses of no other group",
        "required",
        [ok(FRESH, GROUP), ok(None, dropped('"three"'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-several",
        "9875 3",
        "Several groups at once",
        "optional",
        [
            ok(FRESH, ("cache-groups", '"one"')),
            ok(FRESH, ("cache-groups", '"two"')),
            ok(None, dropped('"one"', '"two"')),
            ok(FRESH),
        ],
        app(suffix="/a"),
        app(suffix="/b"),
        through(method="POST", suffix="/c"),
        app(suffix="/a"),
        app(suffix="/b"),
    ),
    case(
        "groups-case",
        "9875 2.1",
        "Groups are compared character by character",
        "required",
        [ok(FRESH, GROUP), ok(None, dropped('"ONE"'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-safe",
        "9875 3",
        "It is ignored in an answer to a safe request",
        "required",
        [ok(FRESH, GROUP), ok(None, dropped('"one"'))],
        app(suffix="/a"),
        app(suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-host",
        "9875 2.1",
        "A group is of one origin: another host's stays",
        "required",
        [ok(FRESH, GROUP), ok(None, dropped('"one"'))],
        app(("host", "a.test"), suffix="/a"),
        through(("host", "b.test"), method="POST", suffix="/b"),
        store(("host", "a.test"), suffix="/a", of=1),
    ),
    case(
        "groups-token",
        "9875 2",
        "A member that is no string is no group",
        "required",
        [ok(FRESH, ("cache-groups", "one")), ok(None, dropped('"one"'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-invalid",
        "9875 2",
        "A field that does not parse is ignored as a whole",
        "required",
        [ok(FRESH, GROUP), ok(None, ("cache-group-invalidation", '"one", &&'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-parameters",
        "9875 2",
        "Parameters of a member are ignored",
        "required",
        [ok(FRESH, ("cache-groups", '"one";x=1')), ok(None, dropped('"one";y'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-lines",
        "9875 2",
        "Lines are one list",
        "required",
        [ok(FRESH, ("cache-groups", '"one"'), ("cache-groups", '"two"')), ok(None, dropped('"two"'))],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-crowd",
        "9875 3",
        "What was asked for before the invalidation is not stored after it",
        "supported",
        [ok(FRESH, GROUP), ok(None, dropped('"one"')), ok(FRESH)],
        app(suffix="/a"),
        crowd(through(method="POST", suffix="/b", of=2), ran=1),
        app(suffix="/a", of=3),
    ),
    case(
        "groups-error",
        "9875 3",
        "An answer that tells of an error drops no group",
        "supported",
        [ok(FRESH, GROUP), ok(None, dropped('"one"'), status=409)],
        app(suffix="/a"),
        through(method="POST", suffix="/b"),
        store(suffix="/a", of=1),
    ),
    case(
        "groups-kept",
        "9875 2",
        "Both fields go on to the client",
        "required",
        ok(FRESH, GROUP),
        app(),
        store(has={"cache-groups": '"one", "two"'}),
    ),
]

ROWS: list[Case] = [*GROUPS]
