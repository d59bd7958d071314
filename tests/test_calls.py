"""Functions: one run for all who ask at once, and nobody's leaving, failing or recursion harms the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import random
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import FakeClock, VirtualTime, call, chunk, get, head, requests, settle, until

MakeDedup = Callable[..., Dedup]


class Work:
    """A function that waits at its gate and counts its runs."""

    def __init__(self, *, opened: bool = False, error: BaseException | None = None) -> None:
        self.runs = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.error = error
        if opened:
            self.gate.set()

    async def __call__(self) -> str:
        self.runs += 1
        run = self.runs
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"run {run}"


def ask(dedup: Dedup, work: Any, count: int, key: object = "k", **more: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(dedup.call(key, work, **more)) for _ in range(count)]


# -- one run ---------------------------------------------------------------------------------------------------------


async def test_a_thousand_callers_at_once_are_one_run_and_get_one_object(make_dedup: MakeDedup) -> None:
    dedup, made = make_dedup(), []

    async def work() -> list[int]:
        await settle(3)
        made.append([1])
        return made[-1]

    found = await asyncio.gather(*(dedup.call(("git", "a"), work) for _ in range(1000)))

    assert len(made) == 1
    assert all(one is made[0] for one in found)
    assert dedup.stats().requests == requests(hit=0, collapsed=999, forwarded=1, bypassed=0)


async def test_one_after_the_other_are_runs_of_their_own(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work(opened=True)

    assert [await dedup.call("k", work) for _ in range(3)] == ["run 1", "run 2", "run 3"]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
async def test_a_value_that_is_nothing_is_a_value(value: Any, make_dedup: MakeDedup) -> None:
    # "None" is an answer, not an absence.
    dedup, runs = make_dedup(), []

    async def work() -> Any:
        runs.append(1)
        await settle(2)
        return value

    assert await asyncio.gather(*(dedup.call("k", work, ttl=60) for _ in range(5))) == [value] * 5
    assert await dedup.call("k", work, ttl=60) == value
    assert len(runs) == 1


async def test_a_value_lives_for_its_ttl(make_dedup: MakeDedup, clock: FakeClock) -> None:
    dedup, work = make_dedup(), Work(opened=True)
    found = []
    for wait in (0, 0, 299.9, 0.1, 0):
        clock.advance(wait)
        found.append(await dedup.call("k", work, ttl="5m"))

    assert found == ["run 1", "run 1", "run 1", "run 2", "run 2"]


async def test_what_an_invalidation_names_is_dropped_and_flights_take_no_newcomers(
    make_dedup: MakeDedup,
) -> None:
    dedup, work = make_dedup(), Work()
    before = ask(dedup, work, 2, ttl=60, tags=["git:a", "all"])
    other = ask(dedup, work, 2, key="other", ttl=60, tags=["git:b"])
    await until(lambda: work.runs == 2)

    await dedup.invalidate("git:a")
    after = ask(dedup, work, 2, ttl=60, tags=["git:a", "all"])
    joining = ask(dedup, work, 1, key="other", ttl=60, tags=["git:b"])
    await until(lambda: work.runs == 3)
    work.gate.set()

    assert await asyncio.gather(*before, *after) == ["run 1", "run 1", "run 3", "run 3"]
    assert await asyncio.gather(*other, *joining) == ["run 2"] * 3
    assert await dedup.call("k", work, ttl=60) == "run 3"
    assert await dedup.invalidate("all") == 1
    assert await dedup.call("k", work, ttl=60) == "run 4"


@pytest.mark.parametrize("how", ["invalidate()", "clear()", "switch"])
async def test_a_value_computed_before_an_invalidation_is_not_kept_after_it(
    how: str, make_dedup: MakeDedup
) -> None:
    # A purge while a load is under way.
    dedup, work = make_dedup(), Work()
    (before,) = ask(dedup, work, 1, ttl=60, tags=["git:a"])
    await until(lambda: work.runs == 1)
    if how == "invalidate()":
        await dedup.invalidate("git:a")
    elif how == "clear()":
        dedup.clear()
    else:
        dedup.enabled = False
        dedup.enabled = True
    work.gate.set()

    assert await before == "run 1"
    assert dedup.store.responses == 0
    assert await dedup.call("k", work, ttl=60, tags=["git:a"]) == "run 2"


async def test_a_call_with_another_tag_never_joins_what_was_begun_before_that_was_invalidated(
    make_dedup: MakeDedup,
) -> None:
    dedup, work = make_dedup(), Work()
    (before,) = ask(dedup, work, 1, tags=["git:a"])
    await until(lambda: work.runs == 1)
    await dedup.invalidate("git:b")
    (alike,) = ask(dedup, work, 1, tags=["git:a"])
    (after,) = ask(dedup, work, 1, tags=["git:b"])
    await until(lambda: work.runs == 2)
    work.gate.set()

    assert [await before, await alike, await after] == ["run 1", "run 1", "run 2"]


async def test_two_routes_share_one_piece_of_work(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        text = await dedup.call(("git", "a"), work)
        await send(head())
        await send(chunk(f"{scope['path']} {text}".encode(), more=False))

    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, target) for target in ("/status", "/branch", "/status")]
    await until(lambda: work.runs > 0)
    await settle()
    work.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert [one.body for one in calls] == [b"/status run 1", b"/branch run 1", b"/status run 1"]
    assert work.runs == 1


DEEP: list[Any] = []
for _ in range(50):
    DEEP = [DEEP]


# -- keys ------------------------------------------------------------------------------------------------------------

KEYS: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -1, "1", b"1", "", b"", "k", ("k",), ["k"], [["k"]], ("k", "k")),
    *({"k": 1}, {"k": 2}, {"k": 1, "j": 1}, {}, [], (), [None], "None", ["a", "b"], ["ab"], ["a", ["b"]]),
    *(2**70, -(2**70), str(2**70), ["int", str(2**70)], 0.1, 0.2, "\x00", ["call", "k"]),
]


async def test_keys_that_differ_in_anything_never_share(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work()
    tasks = [task for key in KEYS for task in ask(dedup, work, 2, key=key, ttl=60)]
    await until(lambda: work.runs == len(KEYS))
    work.gate.set()
    found = await asyncio.gather(*tasks)

    assert work.runs == len(KEYS)
    assert found == [f"run {run}" for run in range(1, len(KEYS) + 1) for _ in range(2)]


async def test_the_order_of_a_dicts_members_is_no_difference(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work(opened=True)

    await dedup.call({"a": 1, "b": 2}, work, ttl=60)

    assert await dedup.call({"b": 2, "a": 1}, work, ttl=60) == "run 1"


@pytest.mark.parametrize(
    "key",
    [
        object(),
        {1: 2},
        {"a": object()},
        [{1}],
        float,
        "\ud800",
        [*DEEP],
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
async def test_a_key_that_is_not_plain_data_is_refused_and_nothing_runs(
    enabled: bool, key: Any, make_dedup: MakeDedup
) -> None:
    dedup, work = make_dedup(enabled=enabled), Work(opened=True)

    with pytest.raises(TypeError, match="plain data"):
        await dedup.call(key, work)

    assert work.runs == 0


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"ttl": -1}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"ttl": "origin"}, "ttl"),
        ({"ttl": None}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": [5]}, "ttl"),
        ({"max_wait": 0}, "max_wait"),
        ({"tags": "git"}, "tags"),
        ({"tags": 5}, "tags"),
        ({"tags": {"git": 1}}, "tags"),
    ],
)
async def test_a_wrong_setting_is_refused_with_the_place_the_value_and_what_is_allowed(
    wrong: dict[str, Any], place: str, make_dedup: MakeDedup
) -> None:
    dedup, work = make_dedup(), Work(opened=True)
    (value,) = wrong.values()

    with pytest.raises(ConfigurationError) as called:
        await dedup.call("k", work, **wrong)
    with pytest.raises(ConfigurationError) as decorated:
        dedup.cached(**wrong)(work)

    assert str(called.value) == str(decorated.value)
    assert str(called.value).startswith(f"call.{place}: {value!r} is not allowed here; allowed: ")
    assert work.runs == 0


@pytest.mark.parametrize("tag", [1, None, "", b"git"])
async def test_a_tag_that_is_no_text_is_refused(tag: Any, make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work(opened=True)

    with pytest.raises(ConfigurationError) as called:
        await dedup.call("k", work, tags=["git", tag])
    with pytest.raises(ConfigurationError) as decorated:
        dedup.cached(tags=["git", tag])

    sentence = f"call.tags: {tag!r} is not allowed here; allowed: a list of texts"
    assert [str(called.value), str(decorated.value)] == [sentence] * 2
    assert work.runs == 0


async def test_tags_may_come_from_a_generator(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work(opened=True)

    await dedup.call("k", work, ttl=60, tags=(f"git:{repo}" for repo in "ab"))

    assert await dedup.invalidate("git:b") == 1


# -- errors ----------------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_everybodys_answer_the_original_to_its_leader(
    make_dedup: MakeDedup, caplog: pytest.LogCaptureFixture
) -> None:
    dedup, error = make_dedup(), OSError("secret detail")
    work = Work(error=error)
    tasks = ask(dedup, work, 5, ttl=60)
    await until(lambda: work.runs == 1)
    await settle()
    work.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert found[0] is error
    assert [type(one) for one in found[1:]] == [ForwardFailed] * 4
    assert len({id(one) for one in found}) == 5
    assert all("OSError" in str(one) and "secret" not in str(one) for one in found[1:])
    assert dedup.store.responses == 0
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    work.error = None
    assert await dedup.call("k", work, ttl=60) == "run 2"


async def test_what_a_failed_run_held_is_free_once_its_callers_let_go_of_the_error(
    make_dedup: MakeDedup,
) -> None:
    """At once, without a collection of garbage."""
    dedup, held = make_dedup(), []

    class Rows:
        """A large result that was under way."""

    async def work() -> None:
        rows = Rows()
        held.append(weakref.ref(rows))
        await settle()
        raise KeyError

    async def ask_once() -> None:
        with contextlib.suppress(KeyError, ForwardFailed):
            await dedup.call("k", work)

    gc.disable()
    try:
        await asyncio.gather(ask_once(), ask_once())
        assert [rows() for rows in held] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "error", [KeyError("k"), asyncio.CancelledError(), StopAsyncIteration(), TimeoutError()]
)
async def test_whatever_a_run_raises_the_key_is_free_again(
    error: BaseException, make_dedup: MakeDedup
) -> None:
    # A leader that ends in any way frees its key.
    dedup, work = make_dedup(), Work(error=error, opened=True)

    for run in range(1, 3):
        found = await asyncio.gather(*ask(dedup, work, 3), return_exceptions=True)
        assert type(found[0]) is type(error)
        assert [type(one) for one in found[1:]] == [ForwardFailed] * 2
        assert work.runs == run


# -- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("ttl", [0, 60])
async def test_cancelling_any_caller_harms_no_other(victim: int, ttl: int, make_dedup: MakeDedup) -> None:
    # A published package cancels all three when one follower is cancelled.
    dedup, work = make_dedup(), Work()
    tasks = ask(dedup, work, 4, ttl=ttl)
    await until(lambda: work.runs == 1)
    await settle()
    tasks[victim].cancel()
    await settle()
    late = ask(dedup, work, 1, ttl=ttl)
    await settle()
    work.gate.set()
    found = await asyncio.gather(*tasks, *late, return_exceptions=True)

    assert isinstance(found.pop(victim), asyncio.CancelledError)
    assert found == ["run 1"] * 4
    assert work.cancelled == 0


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_leaves_whenever_the_others_are_served(seed: int, make_dedup: MakeDedup) -> None:
    rng = random.Random(seed)
    dedup, work = make_dedup(), Work()
    tasks: list[asyncio.Task[Any]] = []
    victims: set[int] = set()
    for _ in range(30):
        await settle(rng.randrange(3))
        act = rng.random()
        if act < 0.6:
            tasks += ask(dedup, work, 1)
        elif len(tasks) - len(victims) > 1:
            victim = rng.choice(sorted(set(range(len(tasks))) - victims))
            victims.add(victim)
            tasks[victim].cancel()
    tasks += ask(dedup, work, 1)
    await settle()
    work.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    for number, one in enumerate(found):
        assert isinstance(one, asyncio.CancelledError) if number in victims else str(one).startswith("run")
    assert work.cancelled == 0


async def test_when_all_have_left_the_work_is_cancelled_after_a_while_and_the_key_is_free_at_once(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup, work = make_dedup(), Work()
    tasks = ask(dedup, work, 3)
    await until(lambda: work.runs == 1)
    await settle()
    for task in tasks:
        task.cancel()
    await settle()
    newcomer = ask(dedup, work, 1)
    await until(lambda: work.runs == 2)
    await virtual_time.go(5)
    work.gate.set()

    assert await newcomer[0] == "run 2"
    assert work.cancelled == 1
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_that_will_be_kept_runs_on_for_nobody(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup, work = make_dedup(), Work()
    (task,) = ask(dedup, work, 1, ttl=600)
    await until(lambda: work.runs == 1)
    task.cancel()
    await virtual_time.go(10)
    work.gate.set()
    await settle()

    assert await dedup.call("k", work, ttl=600) == "run 1"
    await dedup.aclose()


async def test_a_run_that_takes_too_long_leaves_the_table_and_its_followers_join_one_successor(
    virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup, work = make_dedup(), Work()
    tasks = ask(dedup, work, 5, max_wait=2)
    await until(lambda: work.runs == 1)
    await settle()
    await virtual_time.go(2.2)
    assert work.runs == 2
    late = ask(dedup, work, 1, max_wait=2)
    await settle()
    assert work.runs == 2
    work.gate.set()

    assert await asyncio.gather(*tasks, *late) == ["run 1", *["run 2"] * 5]


# -- inside each other -----------------------------------------------------------------------------------------------


async def test_calls_nest(make_dedup: MakeDedup) -> None:
    dedup, inner = make_dedup(), Work(opened=True)

    async def middle() -> str:
        return "middle of " + await dedup.call("inner", inner)

    async def outer() -> str:
        return "outer of " + await dedup.call("middle", middle)

    found = await asyncio.gather(*(dedup.call("outer", outer) for _ in range(5)))

    assert found == ["outer of middle of run 1"] * 5
    assert inner.runs == 1


@pytest.mark.parametrize("length", [1, 2, 3, 5])
async def test_a_call_that_comes_back_to_itself_does_not_wait_for_itself(
    length: int, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup()
    runs: list[int] = []

    async def link(number: int, depth: int) -> str:
        runs.append(number)
        if depth > length:
            return "end"
        following = (number + 1) % length
        return await dedup.call(following, functools.partial(link, following, depth + 1))

    assert await asyncio.wait_for(dedup.call(0, functools.partial(link, 0, 0)), 5) == "end"
    assert len(runs) == length + 2


@pytest.mark.parametrize("seed", range(30))
async def test_cycles_across_tasks_do_not_deadlock(seed: int, make_dedup: MakeDedup) -> None:
    rng = random.Random(seed)
    dedup = make_dedup()
    names = "ABCD"

    async def work(name: str, depth: int) -> str:
        await settle(rng.randrange(4))
        if depth == 0:
            return name
        others = rng.sample(names, rng.randrange(1, 3))
        found = await asyncio.gather(
            *(dedup.call(other, functools.partial(work, other, depth - 1)) for other in others)
        )
        return name + "".join(found)

    tasks = [dedup.call(name, functools.partial(work, name, 3)) for name in names * 3]
    found = await asyncio.wait_for(asyncio.gather(*tasks), 5)

    assert [one[0] for one in found] == list(names * 3)


async def test_two_functions_that_wait_for_each_other_in_two_tasks_both_end(make_dedup: MakeDedup) -> None:
    dedup, both = make_dedup(), asyncio.Barrier(2)
    entered = {"A": 0, "B": 0}

    async def work(name: str, other: str) -> str:
        entered[name] += 1
        if entered[name] > 1:
            return f"{name} alone"
        await both.wait()
        return f"{name} of ({await dedup.call(other, functools.partial(work, other, name))})"

    found = await asyncio.wait_for(
        asyncio.gather(
            dedup.call("A", functools.partial(work, "A", "B")),
            dedup.call("B", functools.partial(work, "B", "A")),
        ),
        5,
    )

    assert list(found) in (
        ["A of (B of (A alone))", "B of (A alone)"],
        ["A of (B alone)", "B of (A of (B alone))"],
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_function_that_comes_back_over_a_request_does_not_wait_for_itself(
    method: str, virtual_time: VirtualTime, make_dedup: MakeDedup
) -> None:
    dedup, runs = make_dedup(), []

    async def work() -> str:
        runs.append(1)
        if len(runs) > 1:
            return "end"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            return "over " + (await client.request(method, "/x")).text

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        text = await dedup.call("k", work)
        await send(head())
        await send(chunk(text.encode(), more=False))

    app: Any = DedupMiddleware(bare, dedup=dedup)
    task = asyncio.ensure_future(dedup.call("k", work))
    await until(task.done, 2000)

    assert await task == "over end"


async def test_a_task_that_outlives_its_call_may_call_again(make_dedup: MakeDedup) -> None:
    dedup, work, later = make_dedup(), Work(opened=True), []

    async def parent() -> None:
        async def child() -> str:
            await settle()
            return await dedup.call("k", work)

        later.append(asyncio.ensure_future(child()))

    await dedup.call("parent", parent)

    assert await later[0] == "run 1"


# -- bounds ----------------------------------------------------------------------------------------------------------


async def test_values_are_bounded_in_number_and_bytes(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(store="memory://?max_bytes=200000")

    async def work(size: int) -> bytes:
        return b"x" * size

    for number in range(1500):
        await dedup.call(number, functools.partial(work, 10), ttl=60)
    assert dedup.store.responses <= 1000
    assert dedup.store.size <= 200_000
    for number in range(50):
        await dedup.call(("large", number), functools.partial(work, 20_000), ttl=60)
    assert dedup.store.size <= 200_000
    await dedup.call("huge", functools.partial(work, 300_000), ttl=60)
    assert dedup.stats().stored == 1550
    assert dedup.clear() > 0
    assert dedup.store.size == 0


async def test_a_value_that_nothing_can_encode_is_kept_by_reference(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()
    made: list[Any] = []

    async def work() -> Any:
        made.append((object(), lambda: 5, {1, 2}, made))
        return made[-1]

    first, second = [await dedup.call("k", work, ttl=60) for _ in range(2)]

    assert first is second is made[0]
    assert dedup.store.size > 0


class Unset(msgspec.Struct):
    """A field that was never set raises when it is read."""

    name: str


class Sizeless:
    """It raises when it is asked how large it is."""

    def __sizeof__(self) -> int:
        raise LookupError


def unset() -> Unset:
    one = Unset("")
    del one.name
    return one


@pytest.mark.usefixtures("virtual_time")  # a deadlock fails
@pytest.mark.parametrize("value", [unset(), Sizeless()], ids=["unset", "sizeless"])
async def test_a_value_that_raises_when_it_is_measured_never_keeps_anybody_waiting(
    value: object, make_dedup: MakeDedup
) -> None:
    dedup, runs = make_dedup(), count()

    async def work() -> object:
        await asyncio.sleep(0)
        next(runs)
        return value

    for _ in range(2):
        for one in await asyncio.gather(*(dedup.call("k", work, ttl=60) for _ in range(3))):
            assert one is value
    assert next(runs) == 1
    assert dedup.store.size > 0


@pytest.mark.usefixtures("virtual_time")
async def test_a_failure_while_a_value_is_kept_never_keeps_anybody_waiting(
    make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_size(value: object, names: object) -> int:
        raise OSError("our own")

    monkeypatch.setattr("dedup_middleware.function.value_size", no_size)
    dedup, work = make_dedup(), Work(opened=True)

    leader, follower = await asyncio.gather(*ask(dedup, work, 2, ttl=60), return_exceptions=True)

    assert isinstance(leader, OSError)
    assert isinstance(follower, ForwardFailed)


async def test_labels_are_bounded_however_many_functions_there_are(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()

    async def work() -> int:
        return 5

    for number in range(1000):
        one = functools.partial(work)
        work.__qualname__ = f"work_{number}"
        await dedup.call(number, one)

    labels = {label for _, _, label, _ in dedup.telemetry.counts}
    assert len(labels) <= 201
    assert sum(dedup.stats().requests.values()) == 1000


async def test_with_too_many_flights_functions_run_by_themselves(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(), Work()
    dedup.flights.max_flights = 2
    tasks = [task for key in range(5) for task in ask(dedup, work, 2, key=key)]
    await settle()
    assert work.runs == 2 + 3 * 2
    work.gate.set()
    await asyncio.gather(*tasks)

    assert dedup.stats().requests["bypassed"] == 6


async def test_switched_off_a_function_runs_for_each_caller(make_dedup: MakeDedup) -> None:
    dedup, work = make_dedup(enabled=False), Work(opened=True)

    assert await asyncio.gather(*(dedup.call("k", work, ttl=60) for _ in range(3))) == [
        "run 1",
        "run 2",
        "run 3",
    ]
    assert dedup.store.responses == 0


# -- the decorator ---------------------------------------------------------------------------------------------------


async def test_cached_is_keyed_by_the_function_and_its_arguments_however_they_are_given(
    make_dedup: MakeDedup,
) -> None:
    dedup = make_dedup()
    runs = []

    @dedup.cached(ttl=60)
    async def work(a: int, b: int = 2, *rest: int, c: str = "c", **more: int) -> str:
        """What it does."""
        runs.append(1)
        return f"{a} {b} {rest} {c} {more}"

    same = [await work(1), await work(a=1), await work(1, 2), await work(1, b=2, c="c"), await work(b=2, a=1)]
    assert same == ["1 2 () c {}"] * 5
    assert len(runs) == 1
    others = [await work(2), await work(1, 3), await work(1, 2, 3), await work(1, c="d"), await work(1, d=4)]
    assert len(set(others)) == 5
    assert len(runs) == 6
    assert (work.__name__, work.__doc__) == ("work", "What it does.")
    with pytest.raises(TypeError, match="missing"):
        await work()


async def test_two_functions_with_the_same_arguments_never_share(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()

    @dedup.cached(ttl=60)
    async def one(a: int) -> str:
        return f"one {a}"

    @dedup.cached(ttl=60)
    async def two(a: int) -> str:
        return f"two {a}"

    assert [await one(1), await two(1), await one(1)] == ["one 1", "two 1", "one 1"]


async def test_no_key_of_a_call_reaches_the_value_of_a_decorated_function(
    make_dedup: MakeDedup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A key may be what a client sent, such as a JSON body.
    monkeypatch.setattr("dedup_middleware.cached._decorated", count(7))
    dedup = make_dedup()

    @dedup.cached(ttl=60)
    async def secret_of(user: str) -> str:
        return f"secret of {user}"

    async def public() -> str:
        return "public"

    assert await secret_of("alice") == "secret of alice"
    arguments = {"user": "alice"}
    for key in (["cached", 7, arguments], ["cached", 7, ["dict", arguments]], [7, arguments], arguments):
        assert await dedup.call(key, public, ttl=60) == "public"


@pytest.mark.parametrize("how", ["by position", "by name", "deep inside"])
async def test_a_decorated_function_runs_on_the_arguments_that_its_key_was_made_of(
    how: str, make_dedup: MakeDedup
) -> None:
    # It runs a turn of the loop later than its caller asked.
    dedup = make_dedup()

    @dedup.cached(ttl=60)
    async def text(value: Any) -> str:
        return repr(value)

    def asked(inner: list[int]) -> Any:
        value = {"a": (inner,)} if how == "deep inside" else inner
        return text(value=value) if how == "by name" else text(value)

    numbers = [1]
    first = asyncio.ensure_future(asked(numbers))
    await asyncio.sleep(0)
    numbers.append(100)

    assert "100" not in await first
    assert await asked([1]) is await first
    assert "100" in await asked(numbers)


async def test_an_async_generator_is_refused_when_it_is_decorated(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()

    async def rows() -> Any:
        yield 1

    with pytest.raises(ConfigurationError, match=r"^cached: .*can be awaited"):
        dedup.cached(ttl=60)(rows)


async def test_two_functions_of_one_name_in_one_place_never_share(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()

    def make(word: str) -> Any:
        @dedup.cached(ttl=60)
        async def work(a: int) -> str:
            return f"{word} {a}"

        return work

    assert [await make("one")(1), await make("two")(1)] == ["one 1", "two 1"]


async def test_cached_fills_its_tags_from_the_arguments(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()
    runs = []

    @dedup.cached(ttl=60, tags=["git:{repo}", "all"])
    async def status(repo: str, deep: bool = False) -> int:
        runs.append(repo)
        return len(runs)

    assert [await status("a"), await status(repo="b", deep=True)] == [1, 2]
    assert await dedup.invalidate("git:a") == 1
    assert [await status("a"), await status("b", True)] == [3, 2]
    assert await dedup.invalidate("all") == 2


@pytest.mark.parametrize(
    "tag", ["git:{repository}", "{0}", "{}", "{", "{repo[x]}{nope}", "{repo.x}", "{repo[0].x}"]
)
async def test_a_tag_with_an_unknown_parameter_is_refused_when_the_function_is_decorated(
    tag: str, make_dedup: MakeDedup
) -> None:
    dedup = make_dedup()

    async def status(repo: str) -> int:
        return 5

    with pytest.raises(ConfigurationError) as caught:
        dedup.cached(tags=[tag])(status)

    assert str(caught.value).startswith(f"cached.tags: {tag!r}")
    assert "allowed: " in str(caught.value)


async def test_on_a_method_the_object_is_part_of_the_key_and_must_be_plain(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()

    class Repository:
        @dedup.cached(ttl=60)
        async def status(self, branch: str) -> str:
            return branch

        @staticmethod
        @dedup.cached(ttl=60)
        async def kinds(name: str) -> str:
            return name

    assert await Repository.kinds("a") == await Repository().kinds("a") == "a"
    with pytest.raises(TypeError, match="plain data"):
        await Repository().status("main")


async def test_a_rule_of_the_same_name_as_a_function_has_counts_of_its_own(make_dedup: MakeDedup) -> None:
    dedup = make_dedup(Rule("/x", ttl=60, name="x"))

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await send(chunk(b"", more=False))

    async def x() -> int:
        return 5

    await get(DedupMiddleware(bare, dedup=dedup), "/x")
    await dedup.call("k", x)

    assert len(dedup.stats().rules) == 2
