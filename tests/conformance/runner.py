"""Runs a row, alone or beside others, and says what is wrong.

Law: a step begins when nothing of the one before is under way, unless the row says otherwise; nothing waits for time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from tests.kit import settle

from .case import ANY, Ask, Case, Crowd, Finish, Start, Wait
from .client import Answer, Client
from .judge import collapsed, judge
from .world import SHAPES, Arena, Shape, World

GROUP = 25
"""How many rows run at once."""


async def _until(condition: Callable[[], bool]) -> None:
    """Poll until sockets have done what they do; how long is the machine's affair."""
    for turn in range(30_000):
        if condition():
            return
        await asyncio.sleep(0 if turn < 50 else 0.001)
    raise TimeoutError


async def idle(world: World) -> None:
    """Wait until nothing is under way: no request, no background run."""
    await _until(lambda: world.is_idle)


async def run(arena: Arena, row: Case, profile: str, shape: Shape) -> list[str]:
    """What is wrong with a row, in sentences; an empty list when all holds."""
    world = World(row, profile, shape)
    arena.admit(world)
    clients: list[Client] = []
    apart = arena.client()
    wrong: list[str] = []
    held: _Held | None = None
    try:
        for number, step in enumerate(row.steps, 1):
            found: list[str] = []
            try:
                if isinstance(step, Wait):
                    world.clock.advance(step.seconds)
                elif isinstance(step, Start):
                    held = await _Held.start(world, apart, step.ask)
                elif isinstance(step, Finish):
                    assert held is not None, "nothing was started"
                    found, held = await held.finish(), None
                else:
                    asks = step.asks if isinstance(step, Crowd) else (step,)
                    while len(clients) < len(asks):
                        clients.append(arena.client())
                    found = await _perform(world, clients, step, asks, alone=held is None)
            except TimeoutError:
                for client in (*clients, apart):
                    client.leave()
                found = ["no answer came, or something is still under way"]
            wrong += [f"step {number} ({profile}, body in {shape}): {sentence}" for sentence in found]
    finally:
        if held is not None:
            held.gate.set()
        world.gate.set()
        world.over.set()
        for client in (*clients, apart):
            client.leave()
        await idle(world)
        arena.dismiss(world)
    return wrong


async def run_all(
    arena: Arena, rows: Iterable[tuple[Case, str, Shape]]
) -> dict[tuple[str, str, str], list[str]]:
    """Run rows at the same time."""
    given = list(rows)
    found = await asyncio.gather(*(run(arena, *one) for one in given))
    return {
        (row.id, profile, shape): wrong for (row, profile, shape), wrong in zip(given, found, strict=True)
    }


def batches(rows: Iterable[Case], size: int) -> Iterator[list[tuple[Case, str, Shape]]]:
    """Every row under each of its profiles with each shape of a body, so many at a time."""
    every: list[tuple[Case, str, Shape]] = [
        (row, profile, shape) for row in rows for profile in row.profiles for shape in SHAPES
    ]
    for at in range(0, len(every), size):
        yield every[at : at + size]


def _send(world: World, client: Client, one: Ask) -> asyncio.Future[Answer]:
    fields = [(name, world.placed(value)) for name, value in one.fields]
    return asyncio.ensure_future(
        client.ask(one.method, world.prefix + one.suffix, fields, one.content.encode("latin-1"))
    )


@dataclass
class _Held:
    """A request whose run of the app waits at a gate of its own."""

    world: World
    one: Ask
    gate: asyncio.Event
    before: int
    sending: asyncio.Future[Answer]

    @classmethod
    async def start(cls, world: World, client: Client, one: Ask) -> Self:
        before = len(world.seen)
        gate, free = asyncio.Event(), world.gate
        world.gate = gate
        held = cls(world, one, gate, before, _send(world, client, one))
        await _until(lambda: len(world.seen) > before or (held.sending.done() and world.is_idle))
        world.gate = free
        return held

    async def finish(self) -> list[str]:
        self.gate.set()
        answer = await self.sending
        await idle(self.world)
        return judge(self.world, self.one, answer, self.before)


async def _perform(
    world: World, clients: Sequence[Client], step: Ask | Crowd, asks: Sequence[Ask], *, alone: bool
) -> list[str]:
    before, entered = len(world.seen), world.entered
    if isinstance(step, Crowd):
        world.gate.clear()
    sending = [_send(world, client, one) for client, one in zip(clients, asks, strict=False)]
    if isinstance(step, Crowd):
        await _gathered(world, entered + len(asks))
        world.gate.set()
    try:
        answers = await asyncio.gather(*sending)
    finally:
        for under_way in sending:
            under_way.cancel()
    if alone and not any(one.at_once for one in asks):
        world.over.set()  # who still hangs has been answered for
        await idle(world)
    ran = len(world.seen) - before
    expected = step.ran if isinstance(step, Crowd) else _runs(step)
    wrong = [] if expected in (ran, ANY) else [f"the app ran {ran} times, expected {expected}"]
    for one, answer in zip(asks, answers, strict=True):
        wrong += judge(world, one, answer, before)
    if isinstance(step, Crowd) and step.collapsed is not None and not wrong:
        told = sum(map(collapsed, answers))
        wrong += (
            [] if told == step.collapsed else [f"{told} answers say collapsed, expected {step.collapsed}"]
        )
    return wrong


async def _gathered(world: World, entered: int) -> None:
    """Wait until all requests have come in, and are as far as they can be."""
    await _until(lambda: world.entered >= entered)
    await settle()


def _runs(step: Ask) -> int:
    return step.ran if step.ran is not None else int(step.source not in ("store", "either"))
