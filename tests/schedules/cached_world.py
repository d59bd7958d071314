"""A world of HTTP caching: the same loop, clients and deeds, around an app that answers conditionally and in part.

Law: each answer tells whose body it is (`x-body`) and which run vouched for it last (`x-run`).
"""

from __future__ import annotations

import asyncio
import random
import re

from .app import App
from .cached_scripts import VARY, Cached, draw
from .records import AppError, Receive, Request, Run, Send
from .scripts import Plan
from .view import View
from .world import World

BYTES = re.compile(rb"bytes=(\d*)-(\d*)")


class CachedApp(App):
    """It answers whole, in part, with a 304, wrongly, late or never, as its script says."""

    _world: CachedWorld

    async def _read(self, run: Run, receive: Receive, send: Send) -> None:
        world, script = self._world, run.script
        assert isinstance(script, Cached)
        await asyncio.sleep(script.before)
        run.version = world.versions[run.target]
        world.note("read", run.serial, run.target, run.version)
        await asyncio.sleep(script.think)
        if script.ending == "hang":
            await asyncio.sleep(7.0)
        elif script.ending == "raise-first":
            raise AppError
        seen = b".".join(part or b"-" for part in (run.target.encode(), run.language, run.credentials))
        whole = (b"%d;%d;" % (run.serial, run.version) + seen).ljust(40, b".")
        etag = b'"%d:%b"' % (run.version, seen)
        asked = run.asked.get(b"if-none-match")
        fields = [*script.fields, (b"cache-control", script.control.encode())]
        if asked is not None and script.status == 200 and (script.wrong or asked == etag):
            told = b'"wrong"' if script.wrong else etag
            world.confirmed[run.serial] = told
            await self._say(run, send, 304, [*fields, (b"etag", told)], b"")
        else:
            world.contents[run.serial] = whole
            world.tags[run.serial] = etag
            status, part = script.status, whole
            if script.validates:
                fields.append((b"etag", etag))
            if run.method == "GET":
                fields.append((b"x-body", b"%d" % run.serial))
            between = (
                slice_of(run.asked.get(b"range"), len(whole)) if script.ranges and status == 200 else None
            )
            if between is not None:
                status, part = 206, whole[between[0] : between[1] + 1]
                fields.append((b"content-range", b"bytes %d-%d/%d" % (*between, len(whole))))
            await self._say(run, send, status, fields, part if run.method == "GET" else b"")
        await asyncio.sleep(script.background)
        if script.ending == "raise-last":
            raise AppError

    async def _say(
        self, run: Run, send: Send, status: int, fields: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        run.head = self._world.note("run answers", run.serial, status, *fields)
        self._world.statuses[run.serial] = status
        headers = [(b"x-run", b"%d" % run.serial), *fields]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await self._chunk(run, send, body[:10], last=False)
        await asyncio.sleep(run.script.pause)
        await self._chunk(run, send, body[10:], last=True)


class CachedWorld(World):
    """Everything of one seed; `confirmed`, `tags`, `contents` and `statuses` tell what each run said."""

    app = CachedApp

    @staticmethod
    def draws(source: random.Random) -> Plan:
        return draw(source)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.confirmed: dict[int, bytes] = {}
        self.tags: dict[int, bytes] = {}
        self.contents: dict[int, bytes] = {}
        self.statuses: dict[int, int] = {}


def slice_of(asked: bytes | None, length: int) -> tuple[int, int] | None:
    """The first and last byte that a Range means; None where there is none, or it cannot be satisfied."""
    matched = BYTES.fullmatch(asked or b"")
    if matched is None:
        return None
    first, last = matched.groups()
    if not first:
        return max(0, length - int(last)), length - 1
    return (int(first), min(int(last or length), length - 1)) if int(first) < length else None


class CachedView(View):
    """A world of caching that has run."""

    def __init__(self, world: CachedWorld) -> None:
        super().__init__(world)
        self.cached = world
        self.varies = any(
            VARY in script.fields for scripts in world.plan.reads.values() for script in scripts
        )

    def body_of(self, request: Request) -> Run | None:
        """The run whose body answered."""
        told = request.header(b"x-body")
        return self.runs[int(told)] if told else None

    def lifetime(self, request: Request) -> float:
        """How long what a request got was fresh, by what it says itself, in seconds."""
        ttl = self.rule(request.target).ttl
        if ttl != "origin":
            return float(ttl)
        said = request.header(b"cache-control")
        return (
            0.0 if b"no-cache" in said else self.seconds(said, b"s-maxage") or self.seconds(said, b"max-age")
        )

    @staticmethod
    def seconds(said: bytes, name: bytes) -> float:
        """A directive's number."""
        matched = re.search(rb"(?:^|[ ,])" + name + rb"=(\d+)", said)
        return float(matched[1]) if matched else 0.0
