"""Stores: one contract for all of them, what the memory store holds, and what a store that fails may not do."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.http import Head, Stored, StoredResponse, response_size
from dedup_middleware.stores import Store
from dedup_middleware.stores.memory import Bounds, MemoryStore

from .kit import GatedApp, VirtualTime, call, get, settle, until

MakeStore = Callable[..., Store]
MakeDedup = Callable[..., Dedup]


def memory_store(
    *, max_bytes: int = 1_000_000, rules: int = 3, max_responses: int = 1000, rule_bytes: int | None = None
) -> MemoryStore:
    bounds = Bounds(max_responses, max_bytes if rule_bytes is None else rule_bytes)
    return MemoryStore(dict.fromkeys(range(-1, rules), bounds), max_bytes, threading.RLock())


@pytest.fixture(params=[memory_store])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    make: MakeStore = request.param
    return make


def response(
    body: bytes = b"x",
    *,
    expires: float = 100.0,
    names: tuple[str, ...] = (),
    generation: int = 1,
    stored_at: float = 0.0,
    size: int | None = None,
) -> StoredResponse:
    charged = response_size([], body, names) if size is None else size
    return StoredResponse(
        Head(200, []), body, stored_at, expires, names, generation, seconds=0.0, size=charged
    )


def body_of(stored: Stored | None) -> bytes | None:
    assert stored is None or isinstance(stored, StoredResponse)
    return None if stored is None else stored.body


# -- the contract ----------------------------------------------------------------------------------------------------


def test_what_was_put_is_found_under_its_key_alone(make_store: MakeStore) -> None:
    store = make_store()

    assert store.get(0, b"a", 0.0) is None
    assert store.put(0, b"a", response(b"one"), 0.0)

    assert body_of(store.get(0, b"a", 0.0)) == b"one"
    assert store.get(0, b"b", 0.0) is None
    assert store.get(0, b"", 0.0) is None
    assert (store.responses, store.stored) == (1, 1)


@pytest.mark.parametrize(("now", "found"), [(99.999, True), (100.0, False), (100.001, False), (1e9, False)])
def test_a_response_is_fresh_until_the_instant_it_expires(
    now: float, found: bool, make_store: MakeStore
) -> None:
    store = make_store()
    store.put(0, b"a", response(expires=100.0), 0.0)

    assert (store.get(0, b"a", now) is not None) == found
    assert (store.responses, store.expired) == ((1, 0) if found else (0, 1))
    assert (store.size > 0) == found


def test_what_is_expired_already_is_not_stored(make_store: MakeStore) -> None:
    store = make_store()

    assert not store.put(0, b"a", response(expires=100.0), 100.0)

    assert (store.responses, store.stored, store.size) == (0, 0, 0)


def test_a_later_flights_response_replaces_and_an_older_ones_never_does(make_store: MakeStore) -> None:
    # The old call that finishes late must not undo the new one.
    store = make_store()
    store.put(0, b"a", response(b"second", generation=2), 0.0)

    assert not store.put(0, b"a", response(b"first", generation=1), 0.0)
    assert body_of(store.get(0, b"a", 0.0)) == b"second"
    assert store.put(0, b"a", response(b"third", generation=3), 0.0)
    assert body_of(store.get(0, b"a", 0.0)) == b"third"
    assert store.responses == 1


def test_discard_takes_back_this_very_response_and_no_other(make_store: MakeStore) -> None:
    store = make_store()
    older, newer = response(b"older", generation=1), response(b"newer", generation=2)
    store.put(0, b"a", older, 0.0)
    store.put(0, b"a", newer, 0.0)

    store.discard(0, b"a", older)
    store.discard(0, b"b", older)
    store.discard(1, b"a", newer)
    assert body_of(store.get(0, b"a", 0.0)) == b"newer"
    store.discard(0, b"a", newer)
    store.discard(0, b"a", newer)

    assert store.get(0, b"a", 0.0) is None
    assert (store.responses, store.size) == (0, 0)


def test_invalidate_drops_what_depends_on_any_of_the_names_in_every_rule(make_store: MakeStore) -> None:
    store = make_store()
    store.put(0, b"a", response(names=("tag:x", "target:/a")), 0.0)
    store.put(1, b"b", response(names=("tag:x", "tag:y")), 0.0)
    store.put(2, b"c", response(names=("tag:y",)), 0.0)
    store.put(2, b"d", response(), 0.0)

    assert store.invalidate(["tag:x", "tag:x", "tag:unknown"]) == 2
    assert [store.get(rule, key, 0.0) is None for rule, key in ((0, b"a"), (1, b"b"))] == [True, True]
    assert [store.get(rule, key, 0.0) is None for rule, key in ((2, b"c"), (2, b"d"))] == [False, False]
    assert store.invalidate(iter(["tag:y", "tag:x"])) == 1
    assert store.invalidate([]) == 0
    assert (store.responses, store.invalidated) == (1, 3)


def test_a_name_is_a_whole_name_and_no_prefix(make_store: MakeStore) -> None:
    store = make_store()
    store.put(0, b"a", response(names=("tag:chat:92",)), 0.0)

    assert store.invalidate(["tag:chat:9", "tag:chat:922", "tag:chat", "chat:92", ""]) == 0


def test_a_replaced_response_leaves_its_names_behind(make_store: MakeStore) -> None:
    store = make_store()
    store.put(0, b"a", response(names=("tag:x",), generation=1), 0.0)
    store.put(0, b"a", response(names=("tag:y",), generation=2), 0.0)

    assert store.invalidate(["tag:x"]) == 0
    assert store.invalidate(["tag:y"]) == 1


def test_clear_drops_everything_and_the_store_goes_on(make_store: MakeStore) -> None:
    store = make_store()
    for number in range(10):
        store.put(number % 3, b"%d" % number, response(names=("tag:x",)), 0.0)

    assert store.clear() == 10
    assert store.clear() == 0
    assert (store.responses, store.size) == (0, 0)
    assert store.invalidate(["tag:x"]) == 0
    store.sweep(1e9)
    assert store.put(0, b"0", response(b"new", generation=0), 0.0)
    assert body_of(store.get(0, b"0", 0.0)) == b"new"


def test_sweep_frees_what_has_expired_and_nothing_else(make_store: MakeStore) -> None:
    store = make_store()
    for number in range(10):
        store.put(0, b"%d" % number, response(expires=10.0 * (number + 1), size=100), 0.0)

    store.sweep(9.9)
    assert (store.responses, store.expired) == (10, 0)
    store.sweep(50.0)
    assert (store.responses, store.size, store.expired) == (5, 500, 5)
    assert [store.get(0, b"%d" % number, 50.0) is None for number in range(10)] == [True] * 5 + [False] * 5


def test_sweep_spares_a_response_that_took_the_place_of_an_expired_one(make_store: MakeStore) -> None:
    store = make_store()
    store.put(0, b"a", response(expires=10.0, generation=1), 0.0)
    store.put(0, b"a", response(expires=99.0, generation=2), 0.0)

    store.sweep(50.0)

    assert (store.responses, store.expired) == (1, 0)
    store.sweep(99.0)
    assert (store.responses, store.expired) == (0, 1)


def test_a_response_larger_than_its_rule_or_the_store_is_refused(make_store: MakeStore) -> None:
    store = make_store(max_bytes=10_000, rule_bytes=5000)
    store.put(0, b"kept", response(size=100), 0.0)

    assert store.put(0, b"fits", response(size=4900), 0.0)
    assert not store.put(0, b"large", response(size=5001), 0.0)
    assert not make_store(max_bytes=100, rule_bytes=5000).put(0, b"larger", response(size=101), 0.0)

    assert (store.responses, store.evicted) == (2, 0)


def test_a_rule_holds_no_more_responses_than_its_bound_and_the_unused_go_first(make_store: MakeStore) -> None:
    store = make_store(max_responses=3)
    for key in (b"a", b"b", b"c"):
        store.put(0, key, response(size=10), 0.0)
    store.get(0, b"a", 0.0)

    store.put(0, b"d", response(size=10), 0.0)

    assert [store.get(0, key, 0.0) is not None for key in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
    assert (store.responses, store.evicted, store.size) == (3, 1, 30)


def test_a_rule_holds_no_more_bytes_than_its_bound(make_store: MakeStore) -> None:
    store = make_store(rule_bytes=100)
    for number in range(4):
        store.put(0, b"%d" % number, response(size=25), 0.0)
    store.put(1, b"other", response(size=90), 0.0)

    assert store.put(0, b"big", response(size=60), 0.0)

    assert (store.size, store.responses, store.evicted) == (90 + 85, 3, 3)
    assert store.get(0, b"3", 0.0) is not None


def test_when_the_store_is_full_the_rule_that_holds_most_gives_way(make_store: MakeStore) -> None:
    store = make_store(max_bytes=1000)
    for number in range(8):
        store.put(0, b"busy %d" % number, response(size=100), 0.0)
    store.put(1, b"quiet", response(size=100), 0.0)
    store.put(2, b"other", response(size=100), 0.0)

    for number in range(20):
        store.put(0, b"more %d" % number, response(size=100), 0.0)
    store.put(2, b"another", response(size=250), 0.0)

    assert store.get(1, b"quiet", 0.0) is not None
    assert store.get(2, b"other", 0.0) is not None
    assert store.get(2, b"another", 0.0) is not None
    assert store.size <= 1000


def test_replacing_a_response_evicts_nothing(make_store: MakeStore) -> None:
    store = make_store(max_responses=2, rule_bytes=200)
    store.put(0, b"a", response(size=100, generation=1), 0.0)
    store.put(0, b"b", response(size=100, generation=1), 0.0)

    assert store.put(0, b"a", response(b"new", size=100, generation=2), 0.0)

    assert (store.responses, store.evicted) == (2, 0)
    assert store.get(0, b"b", 0.0) is not None


@pytest.mark.parametrize("seed", range(20))
def test_what_is_counted_is_what_is_held_whatever_happens(seed: int, make_store: MakeStore) -> None:
    rng = random.Random(seed)
    store = make_store(max_bytes=5000, max_responses=12, rule_bytes=rng.choice([2000, 5000]))
    names = [f"tag:{letter}" for letter in "abcdef"]
    put: dict[tuple[int, bytes], StoredResponse] = {}
    now = 0.0
    for generation in range(600):
        rule = rng.randrange(3)
        key = b"%d:%d" % (rule, rng.randrange(20))
        act = rng.random()
        if act < 0.55:
            one = response(
                b"%d" % generation,
                expires=now + rng.choice([0, 1, 5, 50]),
                names=tuple(rng.sample(names, rng.randrange(4))),
                generation=generation,
                size=rng.choice([50, 100, 700, 4000]),
            )
            if store.put(rule, key, one, now):
                put[rule, key] = one
        elif act < 0.75:
            found = store.get(rule, key, now)
            assert found is None or found is put[rule, key]
            assert found is None or found.expires > now
        elif act < 0.85:
            gone = rng.sample(names, 2)
            store.invalidate(gone)
            for (r, k), one in list(put.items()):
                if set(gone) & set(one.names):
                    assert store.get(r, k, now) is None
                    del put[r, k]
        elif act < 0.9:
            store.sweep(now)
        elif act < 0.93 and (rule, key) in put:
            store.discard(rule, key, put[rule, key])
            assert store.get(rule, key, now) is None
        elif act < 0.935:
            store.clear()
            put.clear()
        now += rng.random()
        assert store.size <= 5000
    store.sweep(now)
    held = [one for (r, k), one in put.items() if store.get(r, k, now) is one]
    assert store.responses == len(held)
    assert store.size == sum(one.size for one in held)
    assert store.stored >= store.evicted + store.expired + store.responses
    store.invalidate(names)
    store.clear()
    assert (store.responses, store.size) == (0, 0)


def test_threads_may_share_a_store(make_store: MakeStore) -> None:
    store = make_store(max_bytes=20_000, max_responses=50)
    wrong: list[BaseException] = []

    def churn(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for generation in range(1500):
                key = b"%d" % rng.randrange(80)
                body = b"body of " + key
                store.put(0, key, response(body, names=("tag:x",), generation=generation, size=300), 0.0)
                found = store.get(0, key, 0.0)
                assert body_of(found) in (None, body)
                if generation % 100 == 0:
                    store.invalidate(["tag:x"])
                if generation % 130 == 0:
                    store.sweep(1e9)
        except BaseException as error:  # noqa: BLE001 - shown below, in the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert store.size == 300 * store.responses
    store.clear()
    assert (store.size, store.responses) == (0, 0)


@pytest.mark.parametrize("way", ["invalidate", "discard", "replace", "evict", "sweep"])
def test_a_response_that_names_one_thing_twice_leaves_like_any_other(way: str, make_store: MakeStore) -> None:
    # A tag of the rule that is also one of the response's own groups.
    store = make_store(max_responses=1)
    twice = response(names=("target:/a", "tag:a", "tag:a"))
    store.put(0, b"a", twice, 0.0)
    match way:
        case "invalidate":
            assert store.invalidate(["tag:a"]) == 1
        case "discard":
            store.discard(0, b"a", twice)
        case "replace":
            assert store.put(0, b"a", response(b"other", generation=2), 0.0)
        case "evict":
            assert store.put(0, b"b", response(b"other"), 0.0)
        case "sweep":
            store.sweep(100.0)
    assert twice not in [stored for _, _, stored in store.items()]
    assert store.invalidate(["tag:a"]) == 0


# -- what the memory store holds -------------------------------------------------------------------------------------


def shape(store: MemoryStore) -> dict[str, int]:
    """How much the store's own structures hold."""
    return {
        "live": len(store._live),
        "partitions": sum(map(len, store._partitions.values())),
        "names": len(store._by_name),
        "ending": sum(map(len, store._ending.values())),
        "bytes": store.size,
        "responses": store.responses,
    }


EMPTY = dict.fromkeys(["live", "partitions", "names", "ending", "bytes", "responses"], 0)


@pytest.mark.slow
def test_the_indexes_do_not_grow_under_churn() -> None:
    store = memory_store(max_responses=10)

    for number in range(20_000):
        key = b"%d" % (number % 100)
        store.put(0, key, response(names=(f"tag:{number}", "tag:all"), generation=number), 0.0)
        if number % 7 == 0:
            store.invalidate([f"tag:{number}"])
        held = shape(store)
        assert held["live"] == held["partitions"] == held["ending"] == held["responses"] <= 10
        assert held["names"] <= 11

    store.invalidate(["tag:all"])
    store.sweep(1e9)
    assert shape(store) == EMPTY


def test_what_has_left_keeps_no_room_in_the_indexes() -> None:
    # Of each minute's many responses a single one stays: it must not keep the sets as large as they once were.
    store = memory_store(max_bytes=10_000_000, max_responses=300)
    stay = 100
    for minute in range(stay):
        now = 60.0 * minute
        for number in range(100):
            new = response(expires=now + 86_400, names=(f"tag:{minute}",), generation=minute)
            assert store.put(0, b"%d:%d" % (minute, number), new, now)
        for earlier in range(minute + 1):
            assert store.get(0, b"%d:0" % earlier, now) is not None
    for number in range(200):
        assert store.put(0, b"last:%d" % number, response(expires=1e6), 0.0)

    assert {key for _, key, _ in store.items()} >= {b"%d:0" % minute for minute in range(stay)}
    room = sum(sys.getsizeof(keys) for index in (store._by_name, store._ending) for keys in index.values())
    assert room < 1000 * store.responses


@pytest.mark.parametrize("way", ["expiry", "sweep", "invalidation", "clear", "discard", "eviction"])
def test_every_way_out_leaves_nothing_behind(way: str) -> None:
    import weakref

    class Link:
        """What can be watched."""

    store = memory_store(max_responses=1)
    stored = response(names=("tag:x",), expires=10.0)
    stored.link = Link()
    alive = weakref.ref(stored.link)
    store.put(0, b"a", stored, 0.0)
    if way == "discard":
        store.discard(0, b"a", stored)
    del stored
    if way == "expiry":
        store.get(0, b"a", 10.0)
    elif way == "sweep":
        store.sweep(10.0)
    elif way == "invalidation":
        store.invalidate(["tag:x"])
    elif way == "clear":
        store.clear()
    elif way == "eviction":
        store.put(0, b"b", response(), 0.0)
        assert alive() is None
        store.clear()

    assert alive() is None
    assert shape(store) == EMPTY


def test_an_often_used_response_outlives_a_flood_of_others() -> None:
    store = memory_store(max_responses=10)
    store.put(0, b"hot", response(), 0.0)

    for number in range(1000):
        assert store.get(0, b"hot", 0.0) is not None
        store.put(0, b"%d" % number, response(), 0.0)


def test_a_responses_charge_covers_what_it_holds() -> None:
    import tracemalloc

    store = memory_store(max_bytes=100_000_000, max_responses=10_000)

    def fill(number: int) -> None:
        headers = [(b"content-type" + b"", b"text/plain; n=%d" % number), (b"x-%d" % number, b"y" * 50)]
        names = (f"target:example.test/items/{number}", f"tag:item:{number}")
        body = b"%d" % number * 200
        one = StoredResponse(Head(200, headers), body, 0.0, 100.0, names, number, 0.1)
        one.size = response_size(headers, body, names)
        store.put(0, b"%016d" % number, one, 0.0)

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        fill(number)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert store.responses == 2000
    assert held <= store.size * 1.1


# -- a store that fails ----------------------------------------------------------------------------------------------


class FaultyStore:
    """A memory store whose named operations raise, or refuse, as long as the fault lasts."""

    def __init__(self, inner: Store, *faults: str) -> None:
        self._inner = inner
        self.faults = set(faults)
        self.asked: list[str] = []

    def _ask(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self.faults:
            raise ConnectionResetError(f"no {operation} today")

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def responses(self) -> int:
        return self._inner.responses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, partition: int, key: bytes, now: float) -> Stored | None:
        self._ask("get")
        return self._inner.get(partition, key, now)

    def put(self, partition: int, key: bytes, stored: Stored, now: float) -> bool:
        self._ask("put")
        return "refuse" not in self.faults and self._inner.put(partition, key, stored, now)

    def discard(self, partition: int, key: bytes, stored: Stored) -> None:
        self._ask("discard")
        self._inner.discard(partition, key, stored)

    def invalidate(self, names: Iterable[str], within: str = "") -> int:
        self._ask("invalidate")
        return self._inner.invalidate(names, within)

    def clear(self) -> int:
        self._ask("clear")
        return self._inner.clear()

    def sweep(self, now: float) -> None:
        self._ask("sweep")
        self._inner.sweep(now)


Faulty = Callable[..., tuple[Dedup, FaultyStore]]


@pytest.fixture
def faulty(make_dedup: MakeDedup) -> Faulty:
    def make(*faults: str, rules: Iterable[Rule] = ()) -> tuple[Dedup, FaultyStore]:
        dedup = make_dedup(*rules, default=Rule(ttl=60))
        store = FaultyStore(dedup.store, *faults)
        dedup.store = store
        return dedup, store

    return make


@pytest.mark.parametrize("faults", [("get",), ("put",), ("get", "put"), ("refuse",), ("get", "refuse")])
async def test_with_a_store_that_fails_every_request_is_answered_by_its_own_call(
    faults: tuple[str, ...], faulty: Faulty
) -> None:
    dedup, _ = faulty(*faults)
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)

    answers = [await get(app, "/x") for _ in range(5)]

    assert [answer.body for answer in answers] == [b"run %d" % run for run in range(1, 6)]
    assert all(answer.complete and answer.status == 200 for answer in answers)
    assert dedup.stats().requests["forwarded"] == 5


@pytest.mark.parametrize("fault", ["get", "put", "refuse"])
async def test_a_store_that_fails_does_not_stop_identical_requests_from_sharing_a_flight(
    fault: str, faulty: Faulty
) -> None:
    dedup, _ = faulty(fault)
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app, "/x") for _ in range(10)]
    await until(lambda: bool(bare.runs))
    await settle()
    bare.gate.set()
    await asyncio.gather(*(one.task for one in calls))

    assert bare.runs == 1
    assert {one.body for one in calls} == {b"run 1"}


async def test_a_store_that_heals_stores_again(faulty: Faulty) -> None:
    dedup, store = faulty("get", "put")
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)
    await get(app, "/x")
    store.faults.clear()

    first, second = await get(app, "/x"), await get(app, "/x")

    assert (first.body, second.body, bare.runs) == (b"run 2", b"run 2", 2)


@pytest.mark.parametrize("faults", [("invalidate",), ("invalidate", "clear"), ("clear",)])
@pytest.mark.parametrize("by", ["POST", "invalidate()", "clear()", "switch"])
async def test_a_store_that_cannot_invalidate_never_serves_what_should_have_gone(
    by: str, faults: tuple[str, ...], faulty: Faulty
) -> None:
    dedup, _ = faulty(*faults, rules=[Rule("/x", ttl=60, tags=["x"])])
    bare = GatedApp(opened=True)
    app = DedupMiddleware(bare, dedup=dedup)
    assert (await get(app, "/x")).body == b"run 1"
    assert (await get(app, "/x")).body == b"run 1"

    if by == "POST":
        written = await get(app, "/x", "POST")
        assert (written.status, written.body) == (200, b"run 2")
    elif by == "invalidate()":
        await dedup.invalidate("x")
    elif by == "clear()":
        dedup.clear()
    else:
        dedup.enabled = False
        dedup.enabled = True

    read = await get(app, "/x")
    assert read.body == b"run %d" % bare.runs
    assert (await get(app, "/x")).body == read.body


async def test_a_store_that_cannot_take_back_never_serves_a_response_whose_app_failed_after_it(
    virtual_time: VirtualTime, faulty: Faulty
) -> None:
    dedup, store = faulty("discard")
    fail = asyncio.Event()
    runs = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": False})
        await fail.wait()
        raise OSError("the rest never came")

    app = DedupMiddleware(bare, dedup=dedup)
    first = call(app, "/x")
    await virtual_time.go(0.5)
    assert "put" in store.asked
    assert (await get(app, "/x")).body == b"half"
    fail.set()
    with pytest.raises(OSError, match="the rest"):
        await first.done()
    with pytest.raises(OSError, match="the rest"):
        await get(app, "/x")

    assert len(runs) == 2


async def test_a_store_that_fails_warns_once_a_minute(
    faulty: Faulty, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("dedup_middleware.telemetry.time.monotonic", lambda: now[0])
    dedup, _ = faulty("get", "put", "invalidate")
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)

    def warnings() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.levelno >= logging.WARNING]

    for _ in range(20):
        await get(app, "/x")
    (record,) = warnings()
    assert record.name.startswith("dedup_middleware")
    assert "the store failed" in record.getMessage()
    assert "ConnectionResetError" in record.getMessage()
    now[0] += 59.9
    await get(app, "/x")
    assert len(warnings()) == 1
    now[0] += 0.2
    await get(app, "/x")
    await get(app, "/x")
    assert len(warnings()) == 2


@pytest.mark.parametrize("fault", ["get", "put", "refuse"])
async def test_with_a_store_that_fails_a_function_still_runs_for_its_callers(
    fault: str, faulty: Faulty
) -> None:
    dedup, _ = faulty(fault)
    ran = []

    async def work() -> int:
        ran.append(1)
        return len(ran)

    assert await dedup.call("k", work, ttl=60) == 1
    assert await dedup.call("k", work, ttl=60) == 2
    assert await asyncio.gather(*(dedup.call("k", work, ttl=60) for _ in range(5))) == [3] * 5


async def test_a_sweep_that_fails_is_tried_again(virtual_time: VirtualTime, faulty: Faulty) -> None:
    dedup, store = faulty("sweep")
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/x")

    await virtual_time.go(95)
    assert store.asked.count("sweep") == 3
    assert store.responses == 1
    store.faults.clear()
    await virtual_time.go(60)

    assert store.responses == 0
    await dedup.aclose()


async def test_putting_and_looking_for_an_invalidation_are_one_step_for_other_threads(
    faulty: Faulty,
) -> None:
    # Between the look at the flight and the put, another thread's invalidation would find nothing to drop.
    dedup, store = faulty()
    held: list[bool] = []
    ask = store._ask

    def asked(operation: str) -> None:
        ask(operation)
        if operation == "put":
            taken: list[bool] = []
            other = threading.Thread(target=lambda: taken.append(dedup.lock.acquire(blocking=False)))
            other.start()
            other.join()
            held.append(not taken[0])

    store._ask = asked  # type: ignore[method-assign] # a spy

    async def work() -> int:
        return 5

    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/x")
    await dedup.call("k", work, ttl=60)

    assert held == [True, True]


async def test_no_lock_is_held_while_a_function_runs(make_dedup: MakeDedup) -> None:
    dedup = make_dedup()
    free: list[bool] = []

    def elsewhere() -> None:
        free.append(dedup.lock.acquire(blocking=False))
        if free[-1]:
            dedup.lock.release()

    async def work() -> int:
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        return 5

    assert await dedup.call("k", work) == 5
    assert free == [True]
