"""A scripted client and the server's side of it, and a store that fails.

Law: a client that has left takes nothing any more; how its server tells so (silence, an error, a cancellation) differs.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from .records import Message, Moment, Request
from .scripts import Visit

if TYPE_CHECKING:
    from .world import World


class Client:
    """One visit."""

    def __init__(self, world: World, visit: Visit) -> None:
        self._world = world
        self._visit = visit
        self._gone = asyncio.Event()
        self._body_given = False
        self._sends = 0
        self._task: asyncio.Task[None] | None = None
        self._request: Request | None = None

    def start(self) -> asyncio.Task[None]:
        """Send the request; what the client does later happens by itself."""
        loop, visit = self._world.loop, self._visit
        self._task = loop.create_task(self._run())
        if visit.leaving in ("gone", "gone-raises"):
            loop.call_later(visit.leaves_at, self._disconnect)
        elif visit.leaving == "cancel":
            loop.call_later(visit.leaves_at, self._cancel)
        elif visit.leaving == "cancel-turns":
            loop.call_soon(self._cancel_in, int(visit.leaves_at))
        return self._task

    async def _run(self) -> None:
        world, visit = self._world, self._visit
        self._request = request = Request(
            len(world.requests),
            visit.caller,
            visit.method,
            visit.target,
            visit.language,
            visit.pace,
            Moment(0, 0.0),
            visit.fields,
        )
        if self._gone.is_set():
            request.left = world.note("gone before it began", request.serial)
        try:
            await world.ask(request, self._receive, self._send)
        except Exception:  # noqa: BLE001 - noted there, and judged by the laws
            return

    def _leave(self, how: str) -> None:
        request = self._request
        if request is not None and request.left is None and request.ended is None:
            request.left = self._world.note(how, request.serial)

    def _disconnect(self) -> None:
        self._leave("gone")
        self._gone.set()

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._leave("cancelled")
            self._task.cancel()

    def _cancel_in(self, turns: int) -> None:
        if turns:
            self._world.loop.call_soon(self._cancel_in, turns - 1)
        else:
            self._cancel()

    async def _receive(self) -> Message:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        visit, request = self._visit, self._request
        assert request is not None
        if self._gone.is_set():
            if visit.leaving == "gone-raises":
                raise OSError("the client has gone")
            return
        self._sends += 1
        if visit.leaving == "break" and self._sends == visit.leaves_at:
            self._leave("send failed")
            raise OSError("the connection broke")
        self._world.answered(request, message)
        if visit.pace:
            try:
                async with asyncio.timeout(visit.pace):
                    await self._gone.wait()
            except TimeoutError:
                pass


class FaultyStore:
    """A store that raises now and then, whatever it is asked."""

    def __init__(self, store: Any, faults: random.Random, share: float) -> None:
        self._store = store
        self._faults = faults
        self._share = share

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("get", "stale", "put", "invalidate", "clear", "discard"):
            return found

        def sometimes(*arguments: Any) -> Any:
            if self._faults.random() < self._share:
                raise ConnectionError(f"the store cannot {name}")
            return found(*arguments)

        return sometimes
