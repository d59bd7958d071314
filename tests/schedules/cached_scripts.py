"""What happens in a world of HTTP caching: what the app says of its answers, and what clients ask of a cache.

Law: as in `scripts`; each answer says how long it is fresh, or forbids something, and may be confirmed, rightly or not.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dedup_middleware import Rule

from .scripts import CALLERS, Caller, Deed, Leaving, Pairs, Plan, Script, Visit, tag_of

VARY: Final = (b"vary", b"accept-language")
TAME: Final = (
    "max-age=2",
    "max-age=3",
    "max-age=2, stale-while-revalidate=2",
    "max-age=2, stale-if-error=2",
    "max-age=2, stale-while-revalidate=1, stale-if-error=3",
    "max-age=2, must-revalidate",
    "max-age=2, stale-if-error=5, must-revalidate",
    "s-maxage=2, stale-if-error=5",
    "public, max-age=2",
)
"""Answers that all may use who wait for them."""
WILD: Final = (
    *TAME,
    "max-age=1",
    "no-cache",
    "max-age=0, stale-while-revalidate=2",
    "private, max-age=2",
    "no-store",
    "",
)
WAITS: Final = (0.0, 0.0, 0.05, 0.1, 0.3)
DIRECTIVES: Final = (
    "no-cache",
    "max-age=0",
    "max-age=1",
    "max-stale=2",
    "min-fresh=1",
    "only-if-cached",
    "no-store",
)


@dataclass(frozen=True, slots=True)
class Cached(Script):
    """One run of an app that lets itself be cached; `control` is its Cache-Control.

    It `validates` by an entity tag; a `wrong` one says 304 of another response than it was asked about.
    """

    control: str = ""
    validates: bool = True
    wrong: bool = False
    ranges: bool = True


def draw(source: random.Random) -> Plan:
    """Everything that will happen."""
    targets = [f"/a/{number}" for number in "12"[: source.choice((1, 1, 2))]]
    tame, varies = source.random() < 0.6, source.random() < 0.3
    rule = _rule(source)
    callers = source.choice((CALLERS, CALLERS[1:2], CALLERS[1:2]))
    every = source.choice((0.3, 0.7, 1.1, 2.2))
    moments = [every * turn for turn in range(source.randint(4, 9))]
    leaving, parts = source.choice((0.0, 0.0, 0.3)), source.choice((0.1, 0.1, 0.6))
    languages = (None, b"de", b"en") if varies else (None,)
    visits = [
        _visit(source, callers, languages, targets, moments, leaving, parts, rule)
        for _ in range(source.randint(8, 30))
    ]
    return Plan(
        rules=(rule, Rule("/a/{n}", methods=["POST"], invalidates=["a:{n}"])),
        reads={
            target: tuple(_read(source, TAME if tame else WILD, varies=varies) for _ in range(6))
            for target in targets
        },
        writes={target: tuple(_write(source) for _ in range(2)) for target in targets},
        works=dict.fromkeys(targets, ()),
        call_ttl=0.0,
        visits=tuple(visits),
        askings=(),
        deeds=tuple(_deeds(source, targets, moments)),
        store_faults=source.choice((0.0, 0.0, 0.0, 0.1)),
    )


def _rule(source: random.Random) -> Rule:
    fields: dict[str, Any] = {
        "ttl": source.choice(("origin", "origin", "origin", 2)),
        "vary": "origin",
        "identity": source.choice(("separate", "shared", "origin")),
        "stale_while_revalidate": source.choice((0, 0, 1)),
        "stale_if_error": source.choice((0, 0, 3)),
        "refresh_ahead": source.choice((0, 0, 0.5)),
        "honor_request_directives": source.random() < 0.5,
        "max_wait": source.choice((0.5, 1.0)),
    }
    if fields["ttl"] == 2 and fields["identity"] == "origin":
        fields["identity"] = "shared"
    return Rule("/a/{n}", methods=["GET", "HEAD"], tags=["a:{n}"], **fields)


def _read(source: random.Random, controls: Sequence[str], *, varies: bool) -> Cached:
    return Cached(
        before=source.choice(WAITS),
        think=source.choice(WAITS),
        pause=source.choice((0.0, 0.0, 0.1)),
        background=source.choice((0.0, 0.0, 0.1, 0.4)),
        status=source.choice((200,) * 6 + (503,)),
        fields=(VARY,) if varies else (),
        ending=source.choice(("whole",) * 8 + ("raise-first", "hang", "raise-last")),
        control=source.choice(controls),
        validates=source.random() < 0.8,
        wrong=source.random() < 0.1,
        ranges=source.random() < 0.7,
    )


def _write(source: random.Random) -> Script:
    return Script(
        before=source.choice(WAITS),
        background=source.choice((0.0, 0.1, 0.7)),
        status=source.choice((200, 200, 303, 500, 404)),
        late=source.random() < 0.4,
    )


def _visit(
    source: random.Random,
    callers: Sequence[Caller],
    languages: Sequence[bytes | None],
    targets: list[str],
    moments: list[float],
    share: float,
    parts: float,
    rule: Rule,
) -> Visit:
    leaving: Leaving | None = None
    if source.random() < share:
        leaving = source.choice(("gone", "cancel"))
    fields: Pairs = ()
    if source.random() < parts:
        fields = ((b"range", source.choice((b"bytes=0-3", b"bytes=2-9", b"bytes=-4", b"bytes=90-"))),)
    if rule.honor_request_directives and source.random() < 0.2:
        fields = (*fields, (b"cache-control", source.choice(DIRECTIVES).encode()))
    return Visit(
        at=source.choice(moments) + source.choice((0.0, 0.0, 0.0, 0.05, 0.3)),
        caller=source.choice(callers),
        method=source.choice(("GET",) * 16 + ("POST", "HEAD")),
        target=source.choice(targets),
        language=source.choice(languages),
        pace=0.0,
        leaving=leaving,
        leaves_at=source.choice((0.0, 0.05, 0.15, 0.4)),
        fields=fields,
    )


def _deeds(source: random.Random, targets: list[str], moments: list[float]) -> list[Deed]:
    deeds: list[Deed] = []
    for _ in range(source.choice((0, 0, 0, 1, 2))):
        at = source.choice(moments) + source.choice((0.0, 0.1, 0.35))
        match source.choice(("invalidate", "invalidate", "clear", "off")):
            case "invalidate":
                deeds.append(Deed(at, "invalidate", tag_of(source.choice(targets))))
            case "clear":
                deeds.append(Deed(at, "clear"))
            case _:
                deeds += [Deed(at, "off"), Deed(at + source.choice((0.0, 0.3)), "on")]
    return deeds
