"""Functions shared by `dedup.call`, which call others and themselves, and fail.

Law: a value is the number of the work that computed it.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from .records import AppError, Asked, Moment, Worked, running
from .scripts import tag_of

if TYPE_CHECKING:
    from .world import World

_asked: ContextVar[Asked] = ContextVar("asked")
_above: ContextVar[tuple[int, ...]] = ContextVar("above", default=())


class Functions:
    """The functions of a world, one for each target."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def call(self, key: str) -> None:
        """A function, shared by `dedup.call`; what it raises is the caller's."""
        asked = Asked(
            len(self._world.asked),
            key,
            _above.get(),
            running.get(None),
            self._world.note("call", len(self._world.asked), key),
        )
        self._world.asked.append(asked)
        token = _asked.set(asked)
        try:
            asked.value = await self._world.dedup.call(
                ["work", key],
                partial(self._work, key),
                ttl=self._world.plan.call_ttl,
                tags=[tag_of(key)],
                max_wait=1.0,
            )
        except BaseException as error:
            asked.error = error
            if isinstance(error, asyncio.CancelledError):
                asked.left = Moment(len(self._world.story), self._world.loop.time())
            raise
        finally:
            _asked.reset(token)
            asked.ended = self._world.note(
                "call ended", asked.serial, asked.value, type(asked.error).__name__
            )

    async def _work(self, key: str) -> int:
        asked = _asked.get()
        worked = Worked(
            len(self._world.worked),
            key,
            asked,
            self._world.note("work", len(self._world.worked), f"for {asked.serial}"),
        )
        self._world.worked.append(worked)
        scripts = self._world.plan.works[key]
        script = scripts[worked.serial % len(scripts)]
        token = _above.set((*_above.get(), worked.serial))
        try:
            await asyncio.sleep(script.before)
            if script.calls is not None and len(_above.get()) < 4:
                await self.call(script.calls)
            if script.raises:
                raise AppError  # noqa: TRY301 - it is noted below, as any other end
        except BaseException as error:
            worked.error = error
            raise
        finally:
            _above.reset(token)
            worked.ended = self._world.note("work ended", worked.serial, type(worked.error).__name__)
        return worked.serial

    async def call_alone(self, key: str) -> None:
        try:
            await self.call(key)
        except Exception as error:  # noqa: BLE001 - the laws look at it
            self._world.note("call failed", key, type(error).__name__)
