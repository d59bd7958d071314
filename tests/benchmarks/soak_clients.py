"""The soak's clients, in a process of their own: what they ask, how they leave, and how they check each answer.

Both servers get the same mix at the same time. Targets follow Zipf's law, and some are asked again soon after. An
answer is right when it is byte for byte what the app says for this target and this caller, as of a version that is not
older than the last write of the key that was finished, as seen from here, when the request was sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from array import array
from collections import Counter, deque
from itertools import accumulate
from typing import Any

import msgspec

from .soak_app import body_of
from .soak_wire import BrokenError, Connection, Head, Pool, ask, leave, read_body, read_head

KEYS = 4000
SKEW = 0.7
AGAIN = 0.35
"""How often one of the last 50 keys is asked for again."""
WORKERS = 24
PATIENCE = 30.0
"""Seconds after which a request hangs."""
USERS = [f"Bearer user-{number}-7c1e" for number in range(12)]
LANGUAGES = ("de", "en")
SHOWN = 20
"""How many wrong answers are told in words."""

_DEEDS = {
    "read": 58,
    "burst": 8,
    "write": 5,
    "leave before the head": 3,
    "leave in mid-response": 3,
    "slow reader": 0.3,
    "abandoned write": 0.5,
}
_KINDS = {"item": 50, "me": 20, "live": 15, "report": 8, "stream": 6, "large": 0.5}
_WEIGHTS = list(accumulate(1 / (rank + 1) ** SKEW for rank in range(KEYS)))


class Request(msgspec.Struct, frozen=True):
    """What is asked for, and whom the answer has to name."""

    kind: str
    key: int
    who: str
    headers: dict[str, str]

    @property
    def target(self) -> str:
        return f"/{self.kind}/{self.key}"


def fault(request: Request, floor: int, head: Head, body: bytes) -> str | None:
    """What is wrong with an answer, or None."""
    if head.status != 200:
        return f"{request.target}: status {head.status}"
    words = body[:200].partition(b"\n")[0].decode("latin-1").split(" ", 3)
    if len(words) != 4 or words[0] != request.kind or words[1] != str(request.key):
        return f"{request.target}: the answer to another request: {' '.join(words)[:80]!r}"
    if words[3] != request.who:
        return f"{request.target}: {request.who!r} got what is for {words[3]!r}"
    version = int(words[2])
    if version < floor:
        return f"{request.target}: version {version}, although the write of {floor} was finished"
    if body != body_of(request.kind, request.key, version, request.who):
        return f"{request.target}: not the bytes that the app sent ({len(body)} of them)"
    return None


def outcome_of(head: Head) -> str:
    """What the middleware says that it did; "bypassed" where it says nothing."""
    said = head.headers.get(b"cache-status", b"")
    if b"; hit" in said:
        return "hit"
    if b"; collapsed" in said:
        return "collapsed"
    return "forwarded" if said else "bypassed"


class Side:
    """The clients of one server."""

    def __init__(self, name: str, port: int, seed: int) -> None:
        self.name = name
        self.pool = Pool(port)
        self.random = random.Random(seed)
        self.written = [0] * KEYS
        """By key, the highest version whose write has been answered."""
        self.recent: deque[int] = deque(range(50), maxlen=50)
        self.done = Counter[str]()
        self.outcomes = Counter[str]()
        self.wrong: list[str] = []
        self.wrong_number = 0
        self.times: dict[str, array[float]] = {}

    # -- what to do ---------------------------------------------------------------------------------------------

    def draw(self, *kinds: str) -> Request:
        """The next request, of one of these kinds."""
        chance = self.random
        if chance.random() < AGAIN:
            key = chance.choice(self.recent)
        else:
            key = chance.choices(range(KEYS), cum_weights=_WEIGHTS)[0]
        self.recent.append(key)
        names = kinds or tuple(_KINDS)
        kind = chance.choices(names, [_KINDS[name] for name in names])[0]
        headers = {"user-agent": "soak", "x-request-id": f"{chance.getrandbits(64):016x}"}
        who = "-"
        if kind == "item":
            who = headers["accept-language"] = chance.choice(LANGUAGES)
        elif kind == "me":
            who = headers["authorization"] = chance.choice(USERS)
        return Request(kind, key, who, headers)

    async def work(self, end: float, pause: float) -> None:
        """One deed after another until the time is over."""
        chance = self.random
        names, weights = list(_DEEDS), list(_DEEDS.values())
        while time.monotonic() < end:
            await asyncio.sleep(chance.expovariate(1 / pause))
            deed = chance.choices(names, weights)[0]
            self.done[deed] += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._do(deed)
            except BrokenError as error:
                self._is_wrong(f"{deed}: {error}")
            except TimeoutError:
                self._is_wrong(f"{deed}: no whole answer within {PATIENCE:g} s")

    async def _do(self, deed: str) -> None:
        match deed:
            case "read":
                await self.read(self.draw())
            case "burst":
                await self.burst(self.draw("item", "me", "live", "stream", "report"))
            case "write":
                await self.write(self.draw("item").key)
            case "leave before the head":
                await self.leave(self.draw("item", "live", "stream", "report"), "GET", after_head=False)
            case "leave in mid-response":
                await self.leave(self.draw("stream", "large"), "GET", after_head=True)
            case "slow reader":
                await self.read(self.draw("large"), slow=True)
            case _:
                await self.leave(self.draw("item"), "POST", after_head=False)

    async def read(self, request: Request, *, slow: bool = False, together: bool = False) -> None:
        """Ask, and check the answer; `together` with others that ask the same."""
        floor = self.written[request.key]
        connection = await (self.pool.slow() if slow else self.pool.take())
        whole = False
        try:
            started = time.perf_counter()
            ask(connection, "GET", request.target, request.headers, self.pool.port)
            head = await read_head(connection)
            body = await read_body(connection, head, 0.01 if slow else 0.0)
            spent = time.perf_counter() - started
            whole = not slow
        except BrokenError as error:
            raise BrokenError(f"{request.target}: {error}") from error
        finally:
            self._let_go(connection, whole=whole)
        found = fault(request, floor, head, body)
        if found is not None:
            self._is_wrong(found)
        outcome = outcome_of(head)
        self.outcomes[outcome] += 1
        if not slow:
            name = f"{request.kind}{' in a burst' if together else ''}, {outcome}"
            self.times.setdefault(name, array("d")).append(spent * 1000)

    async def burst(self, request: Request) -> None:
        """The same request several times at once; at times one of them leaves."""
        number = self.random.randint(4, 16)
        deeds = [self.read(request, together=True) for _ in range(number)]
        if self.random.random() < 0.3:
            deeds.insert(self.random.randrange(number), self.leave(request, "GET", after_head=False))
        for result in await asyncio.gather(*deeds, return_exceptions=True):
            if isinstance(result, BrokenError):
                self._is_wrong(str(result))
            elif isinstance(result, BaseException):
                raise result

    async def write(self, key: int) -> None:
        """Change a key; what is asked from now on has to know."""
        connection = await self.pool.take()
        whole = False
        try:
            ask(connection, "POST", f"/item/{key}", {"user-agent": "soak"}, self.pool.port)
            head = await read_head(connection)
            version = int(await read_body(connection, head))
            whole = True
        finally:
            self._let_go(connection, whole=whole)
        self.written[key] = max(self.written[key], version)

    async def leave(self, request: Request, method: str, *, after_head: bool) -> None:
        """Ask, and leave before the answer is whole."""
        connection = await self.pool.take()
        try:
            ask(connection, method, request.target, request.headers, self.pool.port)
            if after_head:
                await read_head(connection)
                await connection[0].read(self.random.randint(1, 20_000))
            else:
                await asyncio.sleep(self.random.uniform(0, 0.008))
        finally:
            leave(connection, self.random.choice(("FIN", "RST")))

    def _let_go(self, connection: Connection, *, whole: bool) -> None:
        if whole:
            self.pool.give_back(connection)
        else:
            leave(connection, "FIN")

    def _is_wrong(self, sentence: str) -> None:
        self.wrong_number += 1
        if len(self.wrong) < SHOWN:
            self.wrong.append(sentence)

    # -- what became of it --------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        return {
            "requests": self.outcomes.total(),
            "outcomes": dict(self.outcomes),
            "deeds": dict(self.done),
            "wrong": self.wrong_number,
            "sentences": self.wrong,
        }

    def latencies(self) -> dict[str, dict[str, float]]:
        """Milliseconds, by kind and outcome."""
        found = {}
        for name, times in sorted(self.times.items()):
            ordered = sorted(times)
            p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
            found[name] = {"number": len(ordered), "p50": p50, "p99": p99}
        return found


async def run(ports: dict[str, int], seconds: float, interval: float, pause: float, seed: int) -> None:
    """All clients of all sides; says each interval how far they are, one JSON object a line."""
    sides = [Side(name, port, seed) for name, port in ports.items()]
    end = time.monotonic() + seconds
    workers = [asyncio.create_task(side.work(end, pause)) for side in sides for _ in range(WORKERS)]
    started = time.monotonic()
    while True:
        _, busy = await asyncio.wait(workers, timeout=interval)
        if not busy:
            break
        _tell(started, {side.name: side.told() for side in sides})
    for worker in workers:
        worker.result()
    for side in sides:
        side.pool.close()
    await asyncio.sleep(0.1)  # the connections are closed by then, and nothing tells
    _tell(started, {side.name: {**side.told(), "latencies": side.latencies()} for side in sides}, last=True)


def _tell(started: float, sides: dict[str, Any], *, last: bool = False) -> None:
    print(json.dumps({"at": time.monotonic() - started, "last": last, "sides": sides}), flush=True)


if __name__ == "__main__":
    asyncio.run(run(**json.loads(sys.argv[1])))
