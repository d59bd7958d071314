"""The scripted app: it answers late, in pieces, wrongly or never, and notes all that it does.

Law: each chunk tells its run, its place and the version of the data that the run read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .records import AppError, Message, Moment, Receive, Request, Run, Send, asker, running

if TYPE_CHECKING:
    from .world import World


class App:
    """The app that the middleware of a world wraps."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One run, its beginning and end noted."""
        target, method = scope["path"], scope["method"]
        scripts = self._world.plan.writes[target] if method == "POST" else self._world.plan.reads[target]
        turn = self._turns[method + target] = self._turns.get(method + target, -1) + 1
        headers = dict(scope["headers"])
        run = Run(
            len(self._world.runs),
            method,
            target,
            scripts[turn % len(scripts)],
            asker.get(),
            headers.get(b"authorization"),
            scope["client"][0] if scope["client"] else None,
            headers.get(b"accept-language"),
            self._world.note("run", len(self._world.runs), method, target, f"for {asker.get().serial}"),
            headers,
        )
        self._world.runs.append(run)
        token = running.set(run)
        try:
            await (self._write(run, send) if method == "POST" else self._read(run, receive, send))
        except BaseException as error:
            run.error = error
            raise
        finally:
            running.reset(token)
            run.ended = self._world.note(
                "run ended", run.serial, type(run.error).__name__ if run.error else "well"
            )

    async def _write(self, run: Run, send: Send) -> None:
        script = run.script
        await asyncio.sleep(script.before)
        commits = not 400 <= script.status < 500
        if commits and not script.late:
            self._commit(run)
        if script.ending == "raise-first":
            raise AppError
        await self._start(run, send, ())
        await self._chunk(run, send, b"%d;" % run.serial, last=True)
        await asyncio.sleep(script.background)
        if commits and script.late:
            self._commit(run)
        if script.ending == "raise-last":
            raise AppError

    def _commit(self, run: Run) -> None:
        self._world.versions[run.target] += 1
        run.version = self._world.versions[run.target]
        self._world.commits.append((run, run.version))
        self._world.note("committed", run.serial, run.target, run.version)

    async def _read(self, run: Run, receive: Receive, send: Send) -> None:
        script = run.script
        await asyncio.sleep(script.before)
        if script.asks is not None and not run.leader.nested:
            await self._ask_inside(run, script.asks)
        if script.calls:
            run.by_call = True
            await self._world.functions.call(run.target)
        run.version = self._world.versions[run.target]
        self._world.note("read", run.serial, run.target, run.version)
        await asyncio.sleep(script.think)
        if script.ending == "hang":
            await asyncio.sleep(7.0)
        elif script.ending == "listen" and await self._hears(run, receive):
            return
        elif script.ending == "raise-first":
            raise AppError
        await self._answer(run, send)
        await asyncio.sleep(script.background)
        if script.ending == "raise-last":
            raise AppError

    async def _hears(self, run: Run, receive: Receive) -> bool:
        """Whether the app was told that its client has gone, within 7 s."""
        try:
            async with asyncio.timeout(7.0):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        run.heard = self._world.note("disconnect heard", run.serial)
        return True

    async def _answer(self, run: Run, send: Send) -> None:
        script = run.script
        sizes = script.sizes if run.method == "GET" else (0,)
        chunks = [
            (b"%d.%d.%d;" % (run.serial, place, run.version)).ljust(size, b".")
            if run.method == "GET"
            else b""
            for place, size in enumerate(sizes)
        ]
        length = sum(map(len, chunks))
        fields = script.fields
        if script.ending == "short":
            fields = (*fields, (b"content-length", b"%d" % (length + 5)))
        await self._start(run, send, fields)
        if script.ending == "raise-empty":
            raise AppError
        for place, chunk in enumerate(chunks):
            last = place == len(chunks) - 1
            if last and script.ending in ("raise-middle", "stop"):
                break
            await self._chunk(run, send, chunk, last=last)
            if not last:
                await asyncio.sleep(script.pause)
        if script.ending == "raise-middle":
            raise AppError

    async def _start(self, run: Run, send: Send, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        run.head = self._world.note("run answers", run.serial, run.script.status, *fields)
        headers = [(b"x-run", b"%d" % run.serial), *fields]
        await send({"type": "http.response.start", "status": run.script.status, "headers": headers})

    async def _chunk(self, run: Run, send: Send, chunk: bytes, *, last: bool) -> None:
        run.sent.append(chunk)
        run.gave_last = last
        if run.outgrew is None and len(run.body) > self._world.rule_of(run.target).max_response_body:
            run.outgrew = self._world.note("run outgrows", run.serial)
        await send({"type": "http.response.body", "body": chunk, "more_body": not last})
        if last:
            run.complete = self._world.note("run complete", run.serial)

    async def _ask_inside(self, run: Run, target: str) -> None:
        """A request of the app to itself, through the middleware."""
        leader = run.leader
        request = Request(
            len(self._world.requests), leader.caller, "GET", target, leader.language, 0.0, Moment(0, 0.0)
        )
        request.nested, request.inside = True, not leader.off

        async def receive() -> Message:
            await self._world.loop.create_future()
            raise AssertionError("nobody tells a nested request anything")

        async def send(message: Message) -> None:
            self._world.answered(request, message)

        try:
            await self._world.ask(request, receive, send)
        except Exception as error:  # noqa: BLE001 - the outer answer does not depend on it
            self._world.note("nested request failed", request.serial, type(error).__name__)
