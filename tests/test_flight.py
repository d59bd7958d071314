"""A flight by itself: no request, no response, only those who wait and what they wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware.flight import Flight, Terms, Work
from dedup_middleware.flights import FlightTable
from dedup_middleware.waiter import FlightAbandonedError, WaiterGoneError

from .kit import FakeClock, VirtualTime, settle

Take = Callable[[Any], Any]


@pytest.fixture
def table(clock: FakeClock) -> FlightTable:
    return FlightTable(clock, threading.RLock(), max_flights=10)


@pytest.fixture
async def flight(table: FlightTable, virtual_time: VirtualTime) -> Flight:
    opened = table.open(asyncio.get_running_loop(), b"key", Terms(30.0, 10, 1000), Nameless(), listed=True)
    assert opened is not None
    return opened


class Nameless:
    def names(self) -> tuple[str, ...]:
        return ()


class Nothing(Work):
    async def run(self) -> None:
        return


async def nothing() -> None:
    return


async def test_work_that_is_over_before_its_task_is_known_leaves_no_task(
    table: FlightTable, flight: Flight
) -> None:
    """As with the eager tasks of Python 3.12."""

    class Done(asyncio.Future[None]):
        def set_name(self, name: object) -> None:
            """What the loop calls a task by."""

    def eager(loop: Any, work: Any, **_: Any) -> Any:
        with pytest.raises(StopIteration):
            work.send(None)
        done = Done(loop=loop)
        done.set_result(None)
        return done

    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager)
    flight.launch(Nothing())
    loop.set_task_factory(None)
    assert (flight.returned, flight.task, table.tasks) == (True, None, set())
    assert table.is_empty


async def test_a_flight_that_all_leave_before_its_work_began_is_closed_and_cancels_nothing(
    table: FlightTable, flight: Flight, virtual_time: VirtualTime
) -> None:
    flight.board(leader=True).leave()
    assert table.find(flight.loop, b"key") is None
    flight.launch(Nothing())
    await virtual_time.go(10)
    assert (flight.returned, flight.error) == (True, None)


@pytest.mark.parametrize("take", [lambda one: one.head(), lambda one: one.next()], ids=["head", "chunk"])
async def test_who_is_known_to_have_left_waits_for_nothing(flight: Flight, take: Take) -> None:
    waiter = flight.board(leader=True, listen=nothing)
    waiter.watch()
    await settle()
    with pytest.raises(WaiterGoneError):
        await take(waiter)
    waiter.leave()


async def test_a_body_that_never_ended_is_given_to_nobody_as_whole(flight: Flight) -> None:
    waiter = flight.board(leader=True)
    flight.open_head("head")
    await flight.write(b"half", last=False)
    flight.launch(Nothing())
    assert await waiter.next() == b"half"
    flight.body.advance(waiter)
    with pytest.raises(FlightAbandonedError):
        await waiter.next()
    waiter.leave()


async def test_an_app_that_asks_late_or_again_hears_at_once_that_all_is_over(flight: Flight) -> None:
    waiter = flight.board(leader=True)
    flight.open_head("head")
    await flight.write(b"whole", last=True)
    for _ in range(2):
        await flight.deserted()
    waiter.leave()


async def test_a_body_over_its_limit_is_not_kept_and_takes_no_newcomers(
    table: FlightTable, flight: Flight
) -> None:
    waiter = flight.board(leader=True)
    flight.open_head("head")
    await flight.write(b"x" * 1001, last=False)
    assert (flight.body.keeping, table.find(flight.loop, b"key")) == (False, None)
    waiter.leave()


async def test_what_is_over_is_waited_for_by_nobody(flight: Flight) -> None:
    waiter = flight.board(leader=True)
    waiter.watch()
    flight.open_head("head")
    await flight.write(b"whole", last=True)
    flight.launch(Nothing())
    await settle()
    await flight.joined()
    assert await waiter.next() == b"whole"
    flight.body.advance(waiter)
    assert await waiter.next() is None
    waiter.leave()
