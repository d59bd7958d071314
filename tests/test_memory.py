"""Memory: what is over is gone at once, without waiting for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dedup_middleware import DedupMiddleware, Rule
from dedup_middleware.exchange import Exchange
from dedup_middleware.flight import Flight
from dedup_middleware.forward import Forward

from .kit import FakeClock, GatedApp, chunk, head, make_scope, settle


def alive() -> dict[str, int]:
    objects = gc.get_objects()
    return {kind.__name__: sum(type(one) is kind for one in objects) for kind in (Flight, Forward, Exchange)}


@pytest.fixture
def new() -> Iterator[Callable[[], int]]:
    """How many are alive beyond those that other tests left behind; nothing is collected meanwhile."""
    gc.collect()
    gc.disable()
    before = sum(alive().values())
    yield lambda: sum(alive().values()) - before
    gc.enable()


async def request(app: Any, target: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """A server's call, without a kit that remembers."""
    waiting = asyncio.Event()

    async def receive() -> Any:
        await waiting.wait()

    async def send(message: Any) -> None:
        pass

    await app(make_scope(target, headers=headers), receive, send)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("no")


async def test_flights_that_are_over_are_not_kept_alive_by_cycles(new: Callable[[], int]) -> None:
    app = DedupMiddleware(GatedApp(opened=True), rules=[Rule("/kept/{x}", ttl=60)])
    for number in range(20):
        await request(app, f"/passing/{number}")
        await request(app, f"/kept/{number}")
        await asyncio.gather(*(request(app, f"/shared/{number}") for _ in range(3)))
    await asyncio.sleep(0)

    assert new() <= 1, "at most what the event loop still has in its hand"


@pytest.mark.parametrize("window", [0, 60], ids=["revalidated", "refreshed"])
async def test_what_was_stored_is_not_kept_alive_by_the_flight_that_asked_for_it_anew(
    new: Callable[[], int], window: int
) -> None:
    clock = FakeClock()
    rule = Rule(ttl=1, stale_while_revalidate=window, stale_if_error=60)
    app = DedupMiddleware(GatedApp(opened=True), default=rule, clock=clock)
    for _ in range(20):
        clock.advance(2)
        await request(app, "/")
        await settle()

    assert new() <= 1, "at most what the event loop still has in its hand"


async def test_failed_flights_are_not_kept_alive_by_their_tracebacks(new: Callable[[], int]) -> None:
    app = DedupMiddleware(failing)
    for number in range(20):
        with pytest.raises(ValueError, match="no"):
            await request(app, f"/{number}")
    await asyncio.sleep(0)

    assert new() <= 2, "at most what the last exception still refers to"


@pytest.mark.parametrize("ttl", [0, 60], ids=["it follows another", "it was answered from the store"])
async def test_a_flight_that_was_left_for_a_variant_and_fails_later_is_not_kept_alive_by_its_traceback(
    new: Callable[[], int], ttl: int
) -> None:
    async def story() -> None:
        late, runs = asyncio.Event(), iter(range(9))

        async def varied(scope: Any, receive: Any, send: Any) -> None:
            run = next(runs)
            if run == 2 and not ttl:  # what the first is to follow
                await late.wait()
            await send(head(200, [(b"vary", b"x")]))
            if run >= 2:
                await late.wait()
                raise ValueError("late")
            await send(chunk(more=False))

        app = DedupMiddleware(varied, default=Rule(ttl=ttl, vary=["accept"]))
        await request(app, "/", [(b"x", b"1")])  # from now on the variants are known
        other = asyncio.ensure_future(request(app, "/", [(b"x", b"1")]))
        await settle()
        app.dedup.variants.clear()
        first = asyncio.ensure_future(request(app, "/", [(b"x", b"1")]))
        await settle()
        assert next(runs) == (3 if ttl else 4), "it has led one flight, and left it"
        first.cancel()
        await settle()
        late.set()
        await asyncio.wait([first, other])
        assert first.cancelled()
        assert (other.exception() is None) is (ttl > 0)

    for _ in range(5):
        await story()

    assert new() <= 6, (
        "no more than the flights alone, each in the hand of the timer that would have cancelled it"
    )
