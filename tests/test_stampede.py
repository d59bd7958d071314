"""Stampedes: many identical requests at once, one execution, and nobody pays for another's leaving or failing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import BODY, WHOLE, Call, GatedApp, SteppedApp, VirtualTime, call, head, settle, until

Make = Callable[..., Dedup]
COLLAPSED = b"dedup; fwd=uri-miss; collapsed"

pytestmark = pytest.mark.usefixtures("virtual_time")  # a deadlock fails


class BadWeatherError(Exception):
    pass


def crowd(app: object, count: int) -> list[Call]:
    return [call(app, "/busy?page=1") for _ in range(count)]


async def boarded(dedup: Dedup, followers: int) -> None:
    await until(lambda: [flight.followers for flight in dedup.flights.under_way.values()] == [followers])


async def outcome(one: Call) -> BaseException | None:
    return (await asyncio.gather(one.task, return_exceptions=True))[0]


@pytest.mark.parametrize("status", [200, 204, 301, 404, 422, 500, 503])
async def test_a_thousand_requests_at_once_never_run_the_app_twice(make_dedup: Make, status: int) -> None:
    dedup = make_dedup()
    bare = GatedApp(lambda _, run: (status, [(b"x-run", b"%d" % run)], b"run %d" % run))
    calls = crowd(DedupMiddleware(bare, dedup=dedup), 1000)
    await boarded(dedup, 999)
    await settle()
    assert bare.runs == 1
    bare.gate.set()
    for one in calls:
        await one.done()
        assert (one.status, one.header(b"x-run"), one.body, one.complete) == (status, b"1", b"run 1", True)
    assert bare.runs == 1
    told = Counter(one.header(b"cache-status") for one in calls)
    assert told == {b"dedup; fwd=uri-miss": 1, COLLAPSED: 999}
    assert calls[0].header(b"cache-status") == b"dedup; fwd=uri-miss"


@pytest.mark.parametrize("ttl", [0, 60])
async def test_an_error_never_sets_off_a_second_stampede(make_dedup: Make, ttl: int) -> None:
    dedup = make_dedup(default=Rule(ttl=ttl))
    error = BadWeatherError("no answer today")
    bare = SteppedApp(error)
    calls = crowd(DedupMiddleware(bare, dedup=dedup), 1000)
    await boarded(dedup, 999)
    bare.step()
    results = await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    assert bare.runs == 1
    assert results[0] is error
    followers = results[1:]
    assert {type(one) for one in followers} == {ForwardFailed}
    assert len({id(one) for one in followers}) == 999, "each follower raises an object of its own"
    assert {one.error_type for one in followers if isinstance(one, ForwardFailed)} == {"BadWeatherError"}
    assert all(
        one.__context__ is None and one.__cause__ is None
        for one in followers
        if isinstance(one, ForwardFailed)
    )
    assert not any(one.messages for one in calls)


async def test_an_error_is_not_remembered_for_the_next_request(make_dedup: Make) -> None:
    bare = SteppedApp(BadWeatherError())
    bare.finish()
    app = DedupMiddleware(bare, dedup=make_dedup(default=Rule(ttl=60)))
    for runs in (1, 2, 3):
        with pytest.raises(BadWeatherError):
            await call(app).done()
        assert bare.runs == runs


POINTS = {"before the app starts": -1, "before the head": 0, "after the head": 1, "after a chunk": 2}
LATE = {"in the middle of the body": 3, "in background work": 4}


@pytest.mark.parametrize("steps", [*POINTS.values(), *LATE.values()], ids=[*POINTS, *LATE])
@pytest.mark.parametrize("way", ["cancelled", "disconnected"])
@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_leader_that_leaves_never_costs_the_others_their_answer(
    virtual_time: VirtualTime, make_dedup: Make, way: str, steps: int, ttl: int
) -> None:
    dedup = make_dedup(default=Rule(ttl=ttl))
    background = SteppedApp(head(), *BODY, None)
    app = DedupMiddleware(background, dedup=dedup)
    leader, *followers = crowd(app, 20)
    if steps >= 0:
        await boarded(dedup, 19)
        background.step(steps)
        await virtual_time.go(0.2)
    else:
        await asyncio.sleep(0)
    if way == "cancelled":
        leader.cancel()
    else:
        leader.disconnect()
    await virtual_time.go(0.2)
    background.step(len(BODY) + 1 - max(0, steps))
    for one in followers:
        await one.done()
        assert (one.status, one.body, one.complete) == (200, WHOLE, True)
    assert background.runs == 1
    assert background.cancelled == 0
    if way == "cancelled":
        assert isinstance(await outcome(leader), asyncio.CancelledError)
    else:
        await settle()
        assert not leader.task.done(), "the leader's call returned before the app's"
        background.step()
        await leader.done()
    background.finish()
    await settle()


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_leaves_and_whenever_all_others_are_served_by_one_execution(
    virtual_time: VirtualTime, make_dedup: Make, seed: int
) -> None:
    dice = random.Random(seed)
    dedup = make_dedup()
    bare = SteppedApp(head(), *BODY, None)
    calls = crowd(DedupMiddleware(bare, dedup=dedup), 30)
    await boarded(dedup, 29)
    leaving = dice.sample(calls, dice.randint(1, 29))
    staying = [one for one in calls if one not in leaving]
    for _ in range(5):
        for one in [one for one in leaving if dice.random() < 0.4]:
            leaving.remove(one)
            dice.choice([one.cancel, one.disconnect])()
        await virtual_time.go(dice.choice([0.0, 0.001, 0.2]))
        bare.step()
    for one in staying:
        await one.done()
        assert one.body == WHOLE
        assert one.complete
    assert bare.runs == 1
    assert bare.cancelled == 0
    await asyncio.gather(*(one.task for one in calls), return_exceptions=True)


async def test_requests_that_queue_and_cancel_never_cost_more_than_one_execution(make_dedup: Make) -> None:
    dedup = make_dedup()
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    last = call(app)
    await bare.entered.wait()
    for _ in range(50):
        follower = call(app)
        await settle(5)
        last.cancel()
        await outcome(last)
        last = follower
    bare.gate.set()
    assert (await last.done()).body == b"run 1"
    assert bare.runs == 1


async def test_a_follower_that_is_cancelled_cancels_nobody_else(make_dedup: Make) -> None:
    dedup = make_dedup()
    bare = GatedApp()
    calls = crowd(DedupMiddleware(bare, dedup=dedup), 3)
    await boarded(dedup, 2)
    calls[1].cancel()
    assert isinstance(await outcome(calls[1]), asyncio.CancelledError)
    bare.gate.set()
    assert [(await one.done()).body for one in (calls[0], calls[2])] == [b"run 1"] * 2


async def test_work_of_twenty_seconds_is_not_run_again_by_those_who_come_meanwhile(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    dedup = make_dedup()
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = []
    for _ in range(10):
        calls.append(call(app))
        await virtual_time.go(2)
    bare.gate.set()
    assert {(await one.done()).body for one in calls} == {b"run 1"}


async def test_every_request_of_a_stampede_is_counted_once_whatever_became_of_it(
    virtual_time: VirtualTime, make_dedup: Make
) -> None:
    dedup = make_dedup()
    bare = SteppedApp(head(), *BODY)
    calls = crowd(DedupMiddleware(bare, dedup=dedup), 10)
    await boarded(dedup, 9)
    calls[0].cancel()
    calls[1].cancel()
    calls[2].disconnect()
    await virtual_time.go(0.2)
    bare.step(2)
    await settle()
    calls[3].cancel()
    calls[4].disconnect()
    await virtual_time.go(0.2)
    bare.finish()
    await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    counted = Counter[str]()
    for (kind, *_), number in dedup.telemetry.counts.items():
        counted[kind] += number
    assert counted == {"forwarded": 1, "collapsed": 9}
