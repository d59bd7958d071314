"""The live stream: server-sent events, a tick each second and what happens as it happens.

Law: a client is a number, how far it has read; one that is too slow loses what is gone, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import StreamingResponse

from .problems import Problem
from .shapes import Overview

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from ..stats import Stats
    from .api import Api

MAX_STREAMS: Final = 50
LIFE: Final = 900.0
"""Seconds after which a stream ends; a browser opens the next one by itself."""
_TICK: Final = 1.0
_LOOK: Final = 0.1


class TickRates(msgspec.Struct, frozen=True):
    """Per second, since the last tick, which was `seconds` ago."""

    seconds: float
    requests: dict[str, float]
    duplicates: float
    saved: float


class Tick(Overview, frozen=True):
    """The figures now, and how fast they move."""

    rates: TickRates


class Streams:
    """All streams that are open."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self.open = 0

    def response(self, allowed: Callable[[], Awaitable[bool]], last: str | None) -> Stream:
        """A stream for a client that is asked about at each tick; `last` is what it read last, if it comes again."""
        recorder = self._api.recorder
        known = last is not None and last.isascii() and last.isdigit() and len(last) <= 15
        read = min(int(last or 0), recorder.number) if known else recorder.number
        return Stream(self, self._events(allowed, read))

    async def _events(self, allowed: Callable[[], Awaitable[bool]], read: int) -> AsyncIterator[bytes]:
        started = self._clock()
        before, at = self._api.dedup.stats(), started
        yield b"retry: 1000\n\n" + self._tick(before, before, 1.0)
        while self._clock() - started < LIFE:
            await asyncio.sleep(_LOOK)
            for told in self._api.recorder.since(read):
                read = told.number
                yield _message(told.kind, told.data, told.number)
            passed = self._clock() - at
            if passed < _TICK:
                continue
            if not await allowed() or _server_ends():
                return
            now, at = self._api.dedup.stats(), at + passed
            yield self._tick(now, before, passed)
            before = now

    def _tick(self, now: Stats, before: Stats, seconds: float) -> bytes:
        told = self._api.overview()
        rates = TickRates(
            seconds=seconds,
            requests={
                outcome: (number - before.requests.get(outcome, 0)) / seconds
                for outcome, number in now.requests.items()
            },
            duplicates=(now.duplicates - before.duplicates) / seconds,
            saved=(now.saved - before.saved) / seconds,
        )
        tick = Tick(told.enabled, told.stats, told.store, told.process, told.jaeger, rates)
        return _message("tick", msgspec.json.encode(tick))


class Stream(StreamingResponse):
    """One of all streams from before its first byte until it is over; 503 where there are too many."""

    def __init__(self, streams: Streams, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers={"x-accel-buffering": "no"}, media_type="text/event-stream")
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if self._streams.open >= MAX_STREAMS:
            refused = Problem(503, "Too many streams are open.", {"retry-after": "5"}).response()
            await refused(scope, receive, send)
            return
        self._streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.open -= 1


def _message(kind: str, data: bytes, number: int | None = None) -> bytes:
    line = b"" if number is None else b"id: %d\n" % number
    return line + b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _server_ends() -> bool:
    """Whether uvicorn waits for its connections to end: it tells no app, and a stream would hold it up."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
