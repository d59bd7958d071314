"""The app that every server runs: it plays scripts, and is told and asked over HTTP what they do.

`/{rule}/{play}` runs a play behind the middleware, `/bare/{play}` without it; `/control/...` tells and asks.
It needs no asyncio of its own, so that it runs under trio too.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio

from dedup_middleware import Dedup, DedupMiddleware, Rule
from tests.kit import chunk, head
from tests.servers.steps import Step

MIB = 1024 * 1024
GATES = Path(os.environ["PLAYS_GATES"])
PATIENCE = float(os.environ.get("PLAYS_PATIENCE", "20"))
LIFESPAN = os.environ.get("PLAYS_LIFESPAN", "on")
dedup = Dedup(
    [
        Rule("/off/{rest:path}", mode="off", methods=["GET", "HEAD", "POST"]),
        Rule("/stored/{rest:path}", ttl=3600),
        Rule("/large/{rest:path}", max_response_body=64 * MIB),
        Rule("/search/{rest:path}", methods=["POST"], collapse=True, max_request_body=2 * MIB),
    ],
    default=Rule(max_wait=600),
)


class Play:
    """One script and what its runs have done; each step waits until it is let through."""

    def __init__(self, name: str, script: list[Step]) -> None:
        self.script = script
        self._gate = GATES / name  # opened by a file where the server takes no requests any more
        self.runs = self.began = self.ended = self.cancelled = self.sent = 0
        self.heard: list[str] = []
        self.served: list[str] = []
        self._free = False
        self._permits = 0

    def step(self, count: int) -> None:
        self._permits += count

    def finish(self) -> None:
        self._free = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        try:
            for step in self.script:
                while not (self._free or self._permits or self._gate.exists()):
                    await anyio.sleep(0.001)  # requests and files open it, of which anyio has no event
                self._permits = max(0, self._permits - 1)
                self.began += 1
                if isinstance(step, dict):
                    await send(dict(step))
                elif isinstance(step, type):
                    raise step("as the script says")
                else:
                    await step(self, scope, receive, send)  # type: ignore[operator] # an action
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.ended += 1


plays: dict[str, Play] = {}
life: list[str] = []


def state(name: str) -> dict[str, Any]:
    """All that may be asked about a play."""
    play = plays[name]
    flights = [
        flight
        for flight in dedup.flights.under_way.values()
        if any(str(one).endswith(f"/{name}") for one in flight.names)
    ]
    waiters = [waiter for flight in flights for waiter in flight.waiters]
    return {
        "runs": play.runs,
        "began": play.began,
        "ended": play.ended,
        "cancelled": play.cancelled,
        "sent": play.sent,
        "heard": play.heard,
        "served": sorted(play.served),
        "flights": len(flights),
        "present": sum(not waiter.gone for waiter in waiters),
        "followers": sum(flight.followers for flight in flights),
        "held": sum(flight.held for flight in flights),
    }


async def perform(scope: Any, receive: Any, send: Any) -> None:
    await plays[scope["path"].rpartition("/")[2]](scope, receive, send)


shared = DedupMiddleware(perform, dedup=dedup)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    _, room, name, *order = scope["path"].split("/")
    if room == "control":
        await control(name, order, scope, receive, send)
        return
    if name == "-count":
        await shared_count(scope, receive, send)
        return
    wrapped = perform if room == "bare" else shared
    served = plays[name].served
    try:
        await wrapped(scope, receive, send)
    except BaseException as error:
        served.append(type(error).__name__)
        raise
    served.append("returned")


counting = itertools.count(1)


async def count(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the number of this run in this process."""
    told = json.dumps({"pid": os.getpid(), "run": next(counting)}).encode()
    await send(head(200, [(b"content-length", b"%d" % len(told))]))
    await send(chunk(told, more=False))


shared_count = DedupMiddleware(count, dedup=dedup)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    async def events(_: Any, receive: Any, send: Any) -> None:
        if LIFESPAN == "refused":
            raise ValueError("can only handle ASGI/HTTP connections")
        for event in ("startup", "shutdown"):
            await receive()
            life.append(event)
            print(f"lifespan: {event}", file=sys.stderr, flush=True)
            await send({"type": f"lifespan.{event}.complete"})

    await DedupMiddleware(events, dedup=dedup)(scope, receive, send)


# -- what tests tell and ask ------------------------------------------------------------------------------------


async def control(name: str, order: list[str], scope: Any, receive: Any, send: Any) -> None:
    told: Any = None
    match order:
        case ["ready"]:
            told = {"token": os.environ["PLAYS_TOKEN"], "pid": os.getpid(), "life": life}
        case ["write"]:
            plays[name] = Play(name, pickle.loads(await body(receive)))
        case ["step", count]:
            plays[name].step(int(count))
        case ["finish"]:
            plays[name].finish()
        case ["until"]:
            told = await until(name, json.loads(await body(receive)))
        case ["forget"]:
            del plays[name]
        case _:
            raise LookupError(order)
    content = json.dumps(told).encode()
    await send(head(200, [(b"content-length", b"%d" % len(content)), (b"cache-control", b"no-store")]))
    await send(chunk(content, more=False))


async def body(receive: Any) -> bytes:
    read = bytearray()
    while True:
        message = await receive()
        read += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(read)


async def until(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The state once it is as asked, or as it is when it never was."""
    now = state(name)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(now[key] != value for key, value in asked.items()):
        await anyio.sleep(0.002)  # the engine's state has no event either
        now = state(name)
    return now


def end_with_the_tests() -> None:
    """A server whose tests were killed ends by itself, all its processes with it."""
    tests = int(os.environ["PLAYS_PARENT"])
    while True:
        time.sleep(1)  # nothing tells a process that its parent was killed
        try:
            os.kill(tests, 0)
        except ProcessLookupError:
            os.killpg(os.getpgrp(), signal.SIGKILL)


logging.getLogger("dedup_middleware").addHandler(logging.StreamHandler())
threading.Thread(target=end_with_the_tests, daemon=True).start()
