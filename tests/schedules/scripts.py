"""What happens in a world: who asks for what and when, how the app answers, what fails. All drawn from a seed.

Law: a script says nothing of the order in which things run; that is the loop's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dedup_middleware import Rule

Ending = Literal[
    "whole", "raise-first", "raise-middle", "raise-last", "stop", "short", "hang", "listen", "raise-empty"
]
Leaving = Literal["gone", "gone-raises", "cancel", "cancel-turns", "break"]
Pairs = tuple[tuple[bytes, bytes], ...]

COOKIE: Final = (b"set-cookie", b"sid=1")
NO_STORE: Final = (b"cache-control", b"no-store")
PRIVATE: Final = (b"cache-control", b"private")
VARY_LANGUAGE: Final = (b"vary", b"accept-language")
VARY_ALL: Final = (b"vary", b"*")
WAITS: Final = (0.0, 0.0, 0.05, 0.1, 0.3, 0.6, 1.5)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: credentials, or none, from an address."""

    credentials: bytes | None
    address: str


@dataclass(frozen=True, slots=True)
class Script:
    """One run of the app; times in seconds, sizes in bytes.

    A write commits `late` (after its last byte) or before its head.
    """

    before: float = 0.0
    think: float = 0.0
    pause: float = 0.0
    background: float = 0.0
    status: int = 200
    fields: Pairs = ()
    sizes: tuple[int, ...] = (12,)
    ending: Ending = "whole"
    calls: bool = False
    asks: str | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a function that is shared by `dedup.call`."""

    before: float
    raises: bool
    calls: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    """One client: when it asks for what, at which pace it reads (seconds a message), and how it leaves.

    `leaves_at` is in seconds, for "cancel-turns" in turns of the loop, for "break" in messages.
    """

    at: float
    caller: Caller
    method: str
    target: str
    language: bytes | None
    pace: float
    leaving: Leaving | None
    leaves_at: float
    fields: Pairs = ()


@dataclass(frozen=True, slots=True)
class Asking:
    """A caller of a function, outside of any request."""

    at: float
    key: str
    cancelled_after: float | None


@dataclass(frozen=True, slots=True)
class Deed:
    """What the operator does: invalidate a tag, clear, or switch."""

    at: float
    what: Literal["invalidate", "clear", "off", "on"]
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a seed decides but the order."""

    rules: tuple[Rule, ...]
    reads: dict[str, tuple[Script, ...]]
    writes: dict[str, tuple[Script, ...]]
    works: dict[str, tuple[Work, ...]]
    call_ttl: float
    visits: tuple[Visit, ...]
    askings: tuple[Asking, ...]
    deeds: tuple[Deed, ...]
    store_faults: float


ODD: Final[tuple[Ending, ...]] = (
    *("raise-first", "raise-middle", "raise-last", "stop", "short", "raise-empty"),
    *("hang", "hang", "listen", "listen", "listen"),
)
LANGUAGES: Final = (None, None, b"de", b"en")
CALLERS: Final = (
    Caller(b"Bearer a", "192.0.2.1"),
    Caller(None, "192.0.2.1"),
    Caller(b"Bearer b", "192.0.2.1"),
    Caller(b"Bearer a", "192.0.2.2"),
    Caller(None, "192.0.2.2"),
)


def draw(source: random.Random) -> Plan:
    """Everything that will happen."""
    families = "abc"[: source.choice((1, 1, 1, 2, 3))]
    targets = [f"/{family}/{number}" for family in families for number in "12"[: source.choice((1, 1, 2))]]
    rules = [rule for family in families for rule in _rules(source, family)]
    moments = sorted(source.choice((0.0, 0.5, 1.0, 2.0, 3.0, 4.5)) for _ in range(source.randint(1, 4)))
    callers = source.choice((CALLERS, CALLERS[:1], CALLERS[:2]))
    leaving = source.choice((0.0, 0.0, 0.3, 0.3, 0.9))
    number = source.randint(5, 25) if source.random() < 0.5 else source.randint(3, 8)
    languages = source.choice((LANGUAGES, (None,)))
    visits = [_visit(source, callers, languages, targets, moments, leaving) for _ in range(number)]
    if source.random() < 0.4:
        visits += _insistence(source, callers[0], languages[0], targets[0], moments[0])
    # In some worlds most runs end in one odd way: what it does to others needs company to be seen.
    odd, share = source.choice(((ODD, 0.3), (ODD, 0.3), ((source.choice(ODD),), 0.8)))
    return Plan(
        rules=tuple(rules),
        reads={target: tuple(_read(source, targets, odd, share) for _ in range(4)) for target in targets},
        writes={target: tuple(_write(source) for _ in range(3)) for target in targets},
        works={target: tuple(_work(source, targets) for _ in range(3)) for target in targets},
        call_ttl=source.choice((0.0, 0.0, 2.0)),
        visits=tuple(visits),
        askings=tuple(_asking(source, targets, moments) for _ in range(source.choice((0, 0, 3, 6)))),
        deeds=tuple(_deeds(source, targets, moments)),
        store_faults=source.choice((0.0, 0.0, 0.0, 0.3)),
    )


def tag_of(target: str) -> str:
    """The tag of a target, and of the functions that read what it shows."""
    return target[1:].replace("/", ":")


def _rules(source: random.Random, family: str) -> list[Rule]:
    ttl = source.choice((0, 0, 2, 5))
    fields: dict[str, Any] = {
        "ttl": ttl,
        "negative_ttl": source.choice((0, 0, 2)) if ttl else 0,
        "identity": source.choice(("separate", "separate", "credentials", "shared")),
        "vary": source.choice((None, None, (), ("accept-language",), "origin")),
        "max_wait": source.choice((0.5, 1.0, 3.0)),
        "max_followers": source.choice((1000, 1000, 1000, 1, 2)),
        "max_response_body": source.choice((100_000, 100_000, 40)),
        "share_errors": source.random() < 0.7,
        "collapse": source.choice((None, None, None, None, None, False)),
    }
    path = f"/{family}/{{n}}"
    rules = [Rule(path, methods=["GET", "HEAD"], tags=[f"{family}:{{n}}"], **fields)]
    if source.random() < 0.7:
        rules.append(Rule(path, methods=["POST"], invalidates=[f"{family}:{{n}}"]))
    return rules


def _read(source: random.Random, targets: list[str], odd: Sequence[Ending], share: float) -> Script:
    ending: Ending = source.choice(odd) if source.random() < share else "whole"
    fields: Pairs = ()
    if source.random() < 0.35:
        fields = (source.choice((COOKIE, COOKIE, NO_STORE, PRIVATE, VARY_LANGUAGE, VARY_LANGUAGE, VARY_ALL)),)
    return Script(
        before=source.choice(WAITS),
        think=source.choice(WAITS),
        pause=source.choice((0.0, 0.0, 0.05, 0.4)),
        background=source.choice((0.0, 0.0, 0.1, 0.2, 0.7)),
        status=source.choice((200,) * 8 + (404, 500, 401)),
        fields=fields,
        sizes=tuple(source.choice((0, 9, 12, 20)) for _ in range(source.choice((1, 2, 3, 4, 5, 10)))),
        ending=ending,
        calls=source.random() < 0.25,
        asks=source.choice(targets) if source.random() < 0.12 else None,
    )


def _write(source: random.Random) -> Script:
    return Script(
        before=source.choice(WAITS),
        think=source.choice(WAITS),
        background=source.choice((0.0, 0.1, 0.7)),
        status=source.choice((200, 200, 200, 303, 500, 404)),
        ending=source.choice(("whole", "whole", "whole", "raise-first", "raise-last")),
        late=source.random() < 0.4,
    )


def _work(source: random.Random, targets: list[str]) -> Work:
    nested = source.choice(targets) if source.random() < 0.25 else None
    return Work(source.choice(WAITS), source.random() < 0.15, nested)


def _visit(
    source: random.Random,
    callers: Sequence[Caller],
    languages: Sequence[bytes | None],
    targets: list[str],
    moments: list[float],
    share: float,
) -> Visit:
    leaving: Leaving | None = None
    leaves_at = 0.0
    if source.random() < share:
        leaving = source.choice(("gone", "gone", "gone-raises", "cancel", "cancel", "cancel-turns", "break"))
        leaves_at = source.choice((0.0, 0.05, 0.15, 0.4, 0.9, 1.6))
        if leaving == "cancel-turns":
            leaves_at = source.randint(0, 12)
        elif leaving == "break":
            leaves_at = source.randint(1, 3)
    return Visit(
        at=source.choice(moments) + source.choice((0.0, 0.0, 0.0, 0.05, 0.3, 0.7, 1.2)),
        caller=source.choice(callers),
        method=source.choice(("GET",) * 9 + ("POST", "POST", "HEAD")),
        target=source.choice(targets),
        language=source.choice(languages),
        pace=source.choice((0.0,) * 6 + (0.05, 0.3, 3.0, 12.0)),
        leaving=leaving,
        leaves_at=leaves_at,
    )


def _insistence(
    source: random.Random, caller: Caller, language: bytes | None, target: str, at: float
) -> list[Visit]:
    """One client that asks for the same thing again and again, so that somebody comes at every moment of a run."""
    every = source.choice((0.1, 0.15, 0.3))
    return [Visit(at + every * turn, caller, "GET", target, language, 0.0, None, 0.0) for turn in range(10)]


def _asking(source: random.Random, targets: list[str], moments: list[float]) -> Asking:
    at = source.choice(moments) + source.choice((0.0, 0.0, 0.3))
    return Asking(at, source.choice(targets), source.choice((None, None, 0.0, 0.1, 0.5)))


def _deeds(source: random.Random, targets: list[str], moments: list[float]) -> list[Deed]:
    deeds: list[Deed] = []
    for _ in range(source.choice((0, 0, 1, 2, 4))):
        at = source.choice(moments) + source.choice((0.0, 0.1, 0.35, 0.8, 1.5))
        what = source.choice(("invalidate", "invalidate", "invalidate", "invalidate", "clear", "off"))
        if what == "invalidate":
            deeds.append(Deed(at, "invalidate", tag_of(source.choice(targets))))
        elif what == "clear":
            deeds.append(Deed(at, "clear"))
        else:
            deeds += [Deed(at, "off"), Deed(at + source.choice((0.0, 0.3)), "on")]
    return deeds
