"""What a row is: a sentence of a specification, the script of an app, and what its clients then see.

Law: rows are data, made by the words below; nothing here runs. Time is in seconds from the row's start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

Level = str
"""One of these: what a cache must do; what it should or may do, and does here; what the specification leaves open."""
LEVELS: Final = ("required", "optional", "supported")
Profile = Literal["cautious", "shared"]
Source = Literal["app", "check", "store", "rescued", "through", "either", "broken"]
"""Where an answer comes from: the app, the app asked with validators, the store, the store after the app failed, the
app past the middleware, any of these, and an answer that broke off."""

CAUTIOUS: tuple[Profile, ...] = ("cautious",)
SHARED: tuple[Profile, ...] = ("shared",)
BOTH: tuple[Profile, ...] = ("cautious", "shared")


@dataclass(frozen=True)
class At:
    """A date so many seconds after the row's start, in one of the three forms (RFC 9110 s.5.6.7)."""

    seconds: float
    form: Literal["imf", "rfc850", "asctime"] = "imf"


Value = str | At
Field = tuple[str, Value]
Wanted = Value | re.Pattern[str] | Sequence[Value] | None
"""The values of a field's lines in order, or what its one line matches; None where there is no such field."""


@dataclass(frozen=True)
class Reply:
    """One answer of the app; a body of None is a text that no other run of any row sends."""

    status: int = 200
    fields: tuple[Field, ...] = ()
    body: str | None = None
    trouble: Literal["", "raises", "breaks", "hangs"] = ""
    takes: float = 0


@dataclass(frozen=True)
class Ask:
    """One request, and what is expected of its answer.

    `of` is the run whose answer it is (counted from 1; by default as `source` implies), `ran` how often the app ran
    for it, `has` and `lacks` the answer's fields, `saw` the fields that the app saw, `says` parameters of Cache-Status.
    """

    source: Source
    fields: tuple[Field, ...] = ()
    method: str = "GET"
    suffix: str = ""
    content: str = ""
    status: int | None = None
    of: int | None = None
    body: str | re.Pattern[str] | None = None
    ran: int | None = None
    has: Mapping[str, Wanted] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    saw: Mapping[str, Wanted] = field(default_factory=dict)
    says: Mapping[str, Any] = field(default_factory=dict)
    at_once: bool = False


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Crowd:
    """Requests at the same time: the app answers none before all are there; so many answers say collapsed."""

    asks: tuple[Ask, ...]
    ran: int
    collapsed: int | None = None


@dataclass(frozen=True)
class Start:
    """A request whose run of the app is held until `Finish`; its answer is judged there, and `of` has to be told."""

    ask: Ask


@dataclass(frozen=True)
class Finish:
    """The run that is held goes on, and its answer comes."""


Step = Ask | Wait | Crowd | Start | Finish
ANY: Final = -1
"""So often as it likes: what a row says holds either way."""


@dataclass(frozen=True)
class Case:
    """A row."""

    id: str
    section: str
    sentence: str
    level: Level
    profiles: tuple[Profile, ...]
    script: tuple[Reply, ...]
    steps: tuple[Step, ...]
    rule: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def case(
    name: str,
    section: str,
    sentence: str,
    level: Level,
    script: Reply | Sequence[Reply],
    *steps: Step,
    profiles: tuple[Profile, ...] = BOTH,
    rule: Mapping[str, Any] | None = None,
) -> Case:
    """A row; `section` is like "9111 4.2.1"."""
    replies = (script,) if isinstance(script, Reply) else tuple(script)
    return Case(name, section, sentence, level, profiles, replies, tuple(steps), rule or {})


# -- what the app answers ------------------------------------------------------------------------------------------


def ok(control: str | None = None, *fields: Field, status: int = 200, **more: Any) -> Reply:
    """An answer with this Cache-Control, and these fields."""
    first: tuple[Field, ...] = () if control is None else (("cache-control", control),)
    return Reply(status, (*first, *fields), **more)


def not_modified(control: str | None = None, *fields: Field, **more: Any) -> Reply:
    """A 304."""
    return replace(ok(control, *fields, **more), status=304, body="")


RAISES = Reply(trouble="raises")
HANGS = Reply(trouble="hangs")


# -- what is asked, and where the answer comes from ----------------------------------------------------------------


def app(*fields: Field, **more: Any) -> Ask:
    """The app answers, asked without validators of the store."""
    return Ask("app", fields, **more)


def check(*fields: Field, **more: Any) -> Ask:
    """The app is asked with the stored response's validators."""
    return Ask("check", fields, **more)


def store(*fields: Field, **more: Any) -> Ask:
    """The store answers."""
    return Ask("store", fields, **more)


def rescued(*fields: Field, **more: Any) -> Ask:
    """The app fails, and the store answers."""
    return Ask("rescued", fields, **more)


def through(*fields: Field, **more: Any) -> Ask:
    """The app answers, and the middleware adds nothing."""
    return Ask("through", fields, **more)


def either(*fields: Field, **more: Any) -> Ask:
    """Whence it comes is told by `of` and `ran`."""
    return Ask("either", fields, **more)


def broken(*fields: Field, **more: Any) -> Ask:
    """The answer breaks off."""
    return Ask("broken", fields, **more)


def crowd(*asks: Ask, ran: int, collapsed: int | None = None) -> Crowd:
    """Requests at the same time; the app runs so often for all of them."""
    return Crowd(asks, ran, collapsed)


def start(ask: Ask) -> Start:
    """A request whose run of the app is held."""
    return Start(ask)


FINISH: Final = Finish()


def wait(seconds: float) -> Wait:
    """Time passes."""
    return Wait(seconds)
