"""What was seen of a world: requests, runs of the app, calls of functions, invalidations. Nothing here decides.

Law: a moment is a place in the story, so that "before" has one meaning however many things happen at one time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .scripts import Caller, Pairs, Script

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Moment(NamedTuple):
    """A place in the story, and the loop's time in seconds."""

    tick: int
    at: float


class AppError(Exception):
    """What a scripted app or function raises."""


@dataclass(slots=True, eq=False)
class Request:
    """One request, as its server saw it. `left`: its client went away, or its server cancelled it or failed.

    `nested`: the app asked itself; `inside`: it did so in a forward of ours, not in a bypass.
    """

    serial: int
    caller: Caller
    method: str
    target: str
    language: bytes | None
    pace: float
    began: Moment
    fields: Pairs = ()
    nested: bool = False
    inside: bool = False
    off: bool = False
    head: Moment | None = None
    ended: Moment | None = None
    left: Moment | None = None
    messages: list[Message] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def is_read(self) -> bool:
        return self.method != "POST"

    def header(self, name: bytes) -> bytes:
        for key, value in self.messages[0]["headers"] if self.messages else ():
            if key == name:
                return bytes(value)
        return b""

    @property
    def run(self) -> int | None:
        """The run of the app that answered, as the head says."""
        text = self.header(b"x-run")
        return int(text) if text else None

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def is_hit(self) -> bool:
        return b"; hit" in self.header(b"cache-status")

    @property
    def is_collapsed(self) -> bool:
        return b"collapsed" in self.header(b"cache-status")

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def looks_whole(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    def here_until(self, tick: int) -> bool:
        """Whether its client still waited then."""
        return all(moment is None or moment.tick > tick for moment in (self.left, self.ended))


@dataclass(slots=True, eq=False)
class Run:
    """One run of the app; `leader` is the request in whose context it was started."""

    serial: int
    method: str
    target: str
    script: Script
    leader: Request
    credentials: bytes | None
    address: str | None
    language: bytes | None
    started: Moment
    asked: dict[bytes, bytes] = field(default_factory=dict)
    version: int = -1
    by_call: bool = False
    sent: list[bytes] = field(default_factory=list)
    head: Moment | None = None
    outgrew: Moment | None = None
    gave_last: bool = False
    complete: Moment | None = None
    ended: Moment | None = None
    heard: Moment | None = None
    error: BaseException | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.sent)

    @property
    def is_broken(self) -> bool:
        """Whether what it sent is not a whole response."""
        return self.error is not None or self.complete is None or self.script.ending == "short"


@dataclass(slots=True, eq=False)
class Asked:
    """One `dedup.call`; `above` are the works, `run` is the run in which it was made."""

    serial: int
    key: str
    above: tuple[int, ...]
    run: Run | None
    began: Moment
    ended: Moment | None = None
    value: int | None = None
    error: BaseException | None = None
    left: Moment | None = None


@dataclass(slots=True, eq=False)
class Worked:
    """One run of a function for a call; `asked` is the call that started it."""

    serial: int
    key: str
    asked: Asked
    started: Moment
    ended: Moment | None = None
    error: BaseException | None = None


class Invalidation(NamedTuple):
    """From this moment on, nothing older that has one of the names is served (None: whatever its names)."""

    moment: Moment
    names: frozenset[str] | None
    writer: Caller | None = None


asker: ContextVar[Request] = ContextVar("asker")
"""The request in whose context something runs: for a flight's task, the leader's."""
running: ContextVar[Run] = ContextVar("running")
"""The run of the app in whose context something runs."""
