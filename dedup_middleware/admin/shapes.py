"""What the API takes and gives: every shape is a struct, from which the OpenAPI document is made.

Law: what a shape does not allow is refused with a sentence, never guessed.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..events import AlertRaised, ResponseInvalidated
from ..inventory import Held
from ..stats import Stats
from .process import Process
from .recorder import Burst
from .table import Entry

Text = Annotated[str, Meta(min_length=1, max_length=500)]
Latin = Annotated[str, Meta(pattern=r"^[\u0000-\u00ff]*$")]
"""What the line of a header field can hold."""
Offset = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[float, Meta(ge=0, le=1e11)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked; a field that is not named here is a mistake. `more_schema` is what the fields can't say."""

    more_schema: ClassVar[dict[str, int]] = {}


class Nothing(Strict, frozen=True):
    """No parameters."""


class Page(Strict, frozen=True):
    """A page: `limit` items, after the first `offset`."""

    offset: Offset = 0
    limit: Limit = 100


class WhichResponses(Strict, frozen=True):
    """Stored responses of one rule, with one tag."""

    rule: Text | None = None
    tag: Text | None = None
    offset: Offset = 0
    limit: Limit = 100


class Window(Strict, frozen=True, kw_only=True):
    """A time window in seconds since the epoch, one rule or all, a page."""

    rule: Text | None = None
    since: Seconds | None = None
    until: Seconds | None = None
    offset: Offset = 0
    limit: Limit = 100


class RankedWindow(Window, frozen=True, kw_only=True):
    """What comes first: most duplicates, or most executions."""

    order: Literal["duplicates", "executions"] = "duplicates"
    limit: Limit = 20


class WideWindow(Window, frozen=True, kw_only=True):
    """A longer page: for charts."""

    limit: Annotated[int, Meta(ge=1, le=20_000)] = 20_000


class SteppedWindow(WideWindow, frozen=True, kw_only=True):
    """Steps of so many seconds, in whole minutes."""

    step: Annotated[int, Meta(ge=60, le=31_536_000)] | None = None


class LocalWindow(WideWindow, frozen=True, kw_only=True):
    """Hours and days of a place that is so many minutes ahead of UTC."""

    offset_minutes: Annotated[int, Meta(ge=-840, le=840)] = 0


class MemoryWindow(Strict, frozen=True, kw_only=True):
    """A time window, a page."""

    since: Seconds | None = None
    until: Seconds | None = None
    offset: Offset = 0
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 20_000


class Token(Strict, frozen=True):
    """What opens a session."""

    token: Annotated[str, Meta(max_length=1000)]


class ToExplain(Strict, frozen=True):
    """A request to explain; header fields are pairs of name and value."""

    method: Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$")] = "GET"
    target: Annotated[str, Meta(min_length=1, max_length=8192)] = "/"
    headers: Annotated[list[tuple[Latin, Latin]], Meta(max_length=200)] = []
    body: str = ""


class ToInvalidate(Strict, frozen=True):
    """Exactly one of these: tags, a rule's label, a fingerprint's digest, or all."""

    tags: Annotated[list[Text], Meta(min_length=1, max_length=1000)] | UnsetType = UNSET
    rule: Text | UnsetType = UNSET
    key: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | UnsetType = UNSET
    all: Annotated[bool, Meta(extra_json_schema={"const": True})] | UnsetType = UNSET

    more_schema: ClassVar[dict[str, int]] = {"minProperties": 1, "maxProperties": 1}


class ToSwitch(Strict, frozen=True):
    """A rule's label, or null for everything; on or off."""

    on: bool
    rule: Text | None = None


class Session(msgspec.Struct, frozen=True):
    """Who is signed in."""

    who: str | None


class StoreState(msgspec.Struct, frozen=True):
    """What the store is charged, its bound, and how many responses it holds."""

    bytes: int
    max_bytes: int
    responses: int


class Overview(msgspec.Struct, frozen=True):
    """The figures of this process."""

    enabled: bool
    stats: Stats
    store: StoreState
    process: Process
    jaeger: str | None


class RuleInForce(msgspec.Struct, frozen=True):
    """One rule: whether it is on, what happened under it, and every field as it is in force."""

    label: str
    on: bool
    requests: dict[str, int]
    hit_rate: float
    saved: float
    fields: dict[str, Any]


class Responses(msgspec.Struct, frozen=True):
    """A page of stored responses, the youngest first."""

    total: int
    items: list[Held]


class AuditLog(msgspec.Struct, frozen=True):
    """A page of the audit log, the latest first."""

    total: int
    items: list[Entry]


class Recent(msgspec.Struct, frozen=True):
    """What happened lately, the latest first."""

    bursts: list[Burst]
    alerts: list[AlertRaised]
    invalidations: list[ResponseInvalidated]


class Dropped(msgspec.Struct, frozen=True):
    """How many stored responses went."""

    dropped: int


class Switched(msgspec.Struct, frozen=True):
    """What is switched, and how it is now."""

    rule: str | None
    on: bool


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["live"]


class Ready(msgspec.Struct, frozen=True):
    """Whether the engine's parts work; requests are answered in any case."""

    status: Literal["ready", "degraded"]
    store: Literal["ok", "failing"]
    ledger: Literal["none", "ok", "failing"]


class Error(msgspec.Struct, frozen=True):
    """What was refused, in one sentence."""

    error: str
