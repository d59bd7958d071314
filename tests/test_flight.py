"""A flight by itself: no request, no response, only those who wait and what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dedup_middleware import Dedup
from dedup_middleware.flight import Flight
from dedup_middleware.flights import FlightTable
from dedup_middleware.waiter import FlightAbandonedError, WaiterGoneError
from dedup_middleware.work import Work

from .kit import FakeClock, VirtualTime, make_table, open_flight, settle

Take = Callable[[Any], Any]


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
def table(clock: FakeClock, failures: list[Exception]) -> FlightTable:
    return make_table(clock, failures.append)


@pytest.fixture
async def flight(table: FlightTable, virtual_time: VirtualTime) -> Flight:
    return open_flight(table)


class Nothing(Work):
    def start(self) -> Awaitable[None]:
        return nothing()


class Helpless(Work):
    """Work that goes on until it is told to end, and fails where it is asked for anything else."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    def start(self) -> Awaitable[object]:
        return self.end.wait()

    def release(self) -> bool:
        raise OSError("no release")

    def late(self) -> None:
        raise OSError("never late")


def launch(flight: Flight, work: Work) -> None:
    flight.work = work
    flight.launch()


async def nothing() -> None:
    return


async def gone() -> bool:
    return True


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
    launch(flight, Nothing())
    loop.set_task_factory(None)
    assert (flight.returned, flight.task) == (True, None)
    assert table.is_empty


async def test_a_flight_that_all_leave_before_its_work_began_is_closed_and_cancels_nothing(
    table: FlightTable, flight: Flight, virtual_time: VirtualTime
) -> None:
    flight.board(leader=True).leave()
    assert table.find(flight.loop, b"key") is None
    launch(flight, Nothing())
    await virtual_time.go(10)
    assert (flight.returned, flight.error) == (True, None)


async def test_nobody_waits_for_ever_for_work_whose_task_was_cancelled_before_it_began(
    table: FlightTable, flight: Flight, virtual_time: VirtualTime
) -> None:
    waiter = flight.board(leader=True)
    launch(flight, Helpless())
    assert flight.task is not None
    flight.task.cancel()
    waiting = asyncio.ensure_future(waiter.head())
    await virtual_time.go(1)
    assert waiting.done()
    assert (await waiting, flight.error_type) == (None, "CancelledError")
    waiter.leave()
    assert table.is_empty


@pytest.mark.parametrize("take", [lambda one: one.head(), lambda one: one.next()], ids=["head", "chunk"])
async def test_who_is_known_to_have_left_waits_for_nothing(flight: Flight, take: Take) -> None:
    waiter = flight.board(leader=True, listen=gone)
    waiter.watch()
    await settle()
    with pytest.raises(WaiterGoneError):
        await take(waiter)
    waiter.leave()


async def test_who_left_in_its_sleep_is_held_by_no_flight_that_sleeps_on(flight: Flight) -> None:
    waiter = flight.board(leader=False, listen=gone)
    waiter.watch()
    with pytest.raises(WaiterGoneError):
        await waiter.head()
    waiter.leave()
    assert not flight.asleep


async def test_a_body_that_never_ended_is_given_to_nobody_as_whole(flight: Flight) -> None:
    waiter = flight.board(leader=True)
    flight.open_head("head")
    await flight.write(b"half", last=False)
    launch(flight, Nothing())
    assert await waiter.next() == b"half"
    flight.advance(waiter)
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
    assert (flight.keeping, table.find(flight.loop, b"key")) == (False, None)
    waiter.leave()


async def test_what_is_over_is_waited_for_by_nobody(flight: Flight) -> None:
    waiter = flight.board(leader=True)
    waiter.watch()
    flight.open_head("head")
    await flight.write(b"whole", last=True)
    launch(flight, Nothing())
    await settle()
    await flight.joined()
    assert await waiter.next() == b"whole"
    flight.advance(waiter)
    assert await waiter.next() is None
    waiter.leave()


@pytest.mark.parametrize("landed", [False, True], ids=["without a head", "landed"])
async def test_work_that_fails_when_it_is_late_harms_no_other_flight_and_is_told_of(
    table: FlightTable, flight: Flight, virtual_time: VirtualTime, failures: list[Exception], *, landed: bool
) -> None:
    work = Helpless()
    leader, follower = flight.board(leader=True), flight.board(leader=False)
    launch(flight, work)
    if landed:
        flight.open_head("head")
        await flight.write(b"whole", last=True)
    other = open_flight(table, b"other")
    left = other.board(leader=True, listen=gone)  # who leaves is noticed by the watch alone
    await virtual_time.go(31)
    assert [type(error) for error in failures] == [OSError]
    assert table.find(flight.loop, b"key") is None, (
        "newcomers are not kept waiting, nor given what was not kept"
    )
    if not landed:
        with pytest.raises(FlightAbandonedError):
            await follower.head()
    assert left.gone
    later = open_flight(table, b"later").board(leader=True, listen=gone)
    await virtual_time.go(1)
    assert later.gone, "the watch goes on"
    for waiter in (leader, follower, left, later):
        waiter.leave()
    work.end.set()
    await settle()


async def test_a_flight_that_could_not_be_helped_costs_a_log_line(
    make_dedup: Callable[..., Dedup], virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    work = Helpless()
    flight = open_flight(make_dedup().flights, b"key")
    launch(flight, work)
    await virtual_time.go(31)
    assert [record.getMessage() for record in caplog.records] == [
        "a flight that is late could not be helped (OSError)"
    ]
    work.end.set()
    await settle()
