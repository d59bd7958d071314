"""What is under way while something else happens (RFC 9111 s.4, s.4.4; RFC 5861 s.3; RFC 9875 s.3)."""

from __future__ import annotations

from ..case import FINISH, Case, app, case, check, either, not_modified, ok, start, store, through, wait
from .given import FRESH, HOUR, OTHER, SHORT, TAG, control

SWR = ok("max-age=60, stale-while-revalidate=60", TAG)
ANNA, BERT = ("cookie", "user=anna"), ("cookie", "user=bert")
GROUP = ("cache-groups", '"one"')
DROPPED = ok(None, ("cache-group-invalidation", '"one"'))

WRITES = [
    case(
        "write-overtakes-get",
        "9111 4.4",
        "What was asked for before a write is not stored after it",
        "supported",
        HOUR,
        start(either(of=1)),
        through(method="PUT", of=2),
        FINISH,
        app(of=3),
        store(of=3),
    ),
    case(
        "write-overtakes-join",
        "9111 4.4",
        "Who comes after a write does not join a run that began before it",
        "required",
        HOUR,
        start(either(of=1)),
        through(method="PUT", of=2),
        app(of=3),
        FINISH,
        store(of=3),
    ),
    case(
        "write-overtakes-check",
        "9111 4.4",
        "A 304 to what was asked before a write makes nothing fresh",
        "required",
        [SHORT, not_modified("max-age=60", TAG), ok(), ok("max-age=60", OTHER)],
        app(),
        wait(60),
        start(check(of=1)),
        through(method="PUT", of=3),
        FINISH,
        either(of=4, ran=1),
    ),
    case(
        "write-overtakes-background",
        "9111 4.4",
        "A call in the background that a write overtook makes nothing fresh",
        "required",
        [SWR, not_modified("max-age=60", TAG), ok(), ok("max-age=60", OTHER)],
        app(),
        wait(61),
        start(store(of=1)),
        through(method="PUT", of=3),
        FINISH,
        either(of=4, ran=1),
    ),
    case(
        "write-elsewhere",
        "9111 4.4",
        "Another caller's write to another path overtakes nothing",
        "required",
        HOUR,
        start(either(ANNA, of=1, suffix="/a")),
        through(BERT, method="PUT", suffix="/b", of=2),
        FINISH,
        store(ANNA, of=1, suffix="/a"),
    ),
    case(
        "write-own",
        "9111 4.4",
        "A caller's own write closes what it waits for, on any path: it reads what it wrote",
        "supported",
        HOUR,
        start(either(of=1, suffix="/a")),
        through(method="PUT", suffix="/b", of=2),
        app(of=3, suffix="/a"),
        FINISH,
    ),
    case(
        "location-overtakes",
        "9111 4.4",
        "What Location names is not stored by a run that began before",
        "supported",
        [HOUR, ok(None, ("location", "{here}/a"), status=201), HOUR],
        start(either(of=1, suffix="/a")),
        through(method="POST", suffix="/b", of=2),
        FINISH,
        app(of=3, suffix="/a"),
    ),
    case(
        "group-overtakes",
        "9875 3",
        "What is of an invalidated group is not stored by a run that began before",
        "supported",
        [ok(FRESH, GROUP), DROPPED, ok(FRESH, GROUP)],
        start(either(of=1, suffix="/a")),
        through(method="POST", suffix="/b", of=2),
        FINISH,
        app(of=3, suffix="/a"),
    ),
]

JOINED = [
    case(
        "background-joined",
        "5861 3",
        "While a call in the background is under way the stale response answers without another",
        "optional",
        [SWR, not_modified("max-age=60", TAG)],
        app(),
        wait(61),
        start(store(of=1)),
        store(of=1),
        store(of=1),
        FINISH,
        store(of=1, has={"age": "0"}),
    ),
    case(
        "fresh-under-way",
        "9111 5.2.1.4",
        "While a client's no-cache is under way the stored response answers the others",
        "optional",
        HOUR,
        app(),
        start(app(*control("no-cache"), of=2)),
        store(of=1),
        FINISH,
        store(of=2),
        profiles=("shared",),
    ),
    case(
        "older-does-not-replace",
        "9111 4",
        "What began first and ends last does not replace what is newer",
        "required",
        HOUR,
        start(app(*control("no-cache"), of=1)),
        app(*control("no-cache"), of=2),
        FINISH,
        store(of=2),
        profiles=("shared",),
    ),
]

ROWS: list[Case] = [*WRITES, *JOINED]
