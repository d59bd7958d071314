"""`python -m tests.benchmarks.over_http`: what a hit costs a real server, against the raw callable behind the same one.

Two uvicorn processes, one with a raw ASGI callable, one with the middleware around it answering hits. In every round
each answers its requests in several short turns, in an order drawn anew, over the same number of keep-alive
connections. The figure is the server process's own processor time (user and system) a request; the ratio is the median
of each round's own, so that a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from dedup_middleware import Rule

from .apps import HOUR, KIB, deduplicated, raw
from .requests import FIVE
from .served import Server, Service, serving

MARK = 1.25
TURNS = 10
CONNECTIONS = 16
REQUEST = b"".join(
    [b"GET /data HTTP/1.1\r\n", *(name + b": " + value + b"\r\n" for name, value in FIVE), b"\r\n"]
)


def raw_service() -> Service:
    """The raw callable alone."""
    return Service(raw())


def hit_service() -> Service:
    """The middleware around it, with an SDK's metrics."""
    return Service(deduplicated(raw(), default=Rule(ttl=HOUR)))


class Connection(asyncio.Protocol):
    """Sends the next request when the last one's answer is whole; every answer is checked."""

    transport: asyncio.Transport
    done: asyncio.Future[None]

    def __init__(self, expected: bytes, request: Callable[[], bytes]) -> None:
        self.expected = expected
        self.request = request
        self.left = 0
        self.received = b""

    def ask(self, number: int) -> asyncio.Future[None]:
        """Send so many requests, one after another."""
        self.done = asyncio.get_running_loop().create_future()
        self.left = number
        self.transport.write(self.request())
        return self.done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < len(KIB):
            return
        self.received = b""
        self.left -= 1
        if not (head.startswith(b"HTTP/1.1 200 ") and self.expected in head and body == KIB):
            self.done.set_exception(AssertionError(f"not what was expected: {head!r}"))
        elif self.left:
            self.transport.write(self.request())
        else:
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.left and not self.done.done():
            self.done.set_exception(AssertionError(f"the server closed the connection: {error}"))


@asynccontextmanager
async def connected(
    port: int, expected: bytes, request: Callable[[], bytes] = lambda: REQUEST
) -> AsyncIterator[list[Connection]]:
    """Connections to one server, and what each of them asks for."""
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(partial(Connection, expected, request), "127.0.0.1", port)
        for _ in range(CONNECTIONS)
    ]
    try:
        yield [connection for _, connection in made]
    finally:
        for transport, _ in made:
            transport.close()
        await asyncio.sleep(0)  # they close in the loop's next turn


async def ask(connections: Sequence[Connection], number: int) -> None:
    """Send so many requests over each of the connections."""
    await asyncio.gather(*(connection.ask(number) for connection in connections))


class Contender(msgspec.Struct):
    """One server, what its answers' heads must hold, and microseconds of processor time a request, by round."""

    name: str
    server: Server
    expected: bytes
    times: list[float] = []

    async def turn(self, number: int) -> float:
        """Microseconds in all of `number` requests over each connection; a server closes those that wait for long."""
        async with connected(self.server.port, self.expected) as connections:
            before = self.server.ask("process")["cpu"]
            await ask(connections, number)
            spent: float = self.server.ask("process")["cpu"] - before
        return spent * 1e6


async def race(field: Sequence[Contender], rounds: int, number: int) -> None:
    """Run all rounds, and one more at first which does not count."""
    order = random.Random(1)
    each = max(1, number // (TURNS * CONNECTIONS))
    for contender in field:
        async with connected(contender.server.port, b"") as connections:
            await ask(connections, 1)  # whoever stores has stored now
    for done in range(-1, rounds):
        spent = {contender.name: 0.0 for contender in field}
        turns = [contender for contender in field for _ in range(TURNS)]
        order.shuffle(turns)
        for contender in turns:
            spent[contender.name] += await contender.turn(each)
        if done >= 0:
            for contender in field:
                contender.times.append(spent[contender.name] / (each * TURNS * CONNECTIONS))


def render(raw: Contender, hit: Contender, ratios: Sequence[float]) -> str:
    """The result in words and figures."""
    server = hit.server
    ratio = median(ratios)
    verdict = "ok" if ratio <= MARK else "MISSED"
    return "\n".join(
        [
            f"uvicorn with {server.http} and {server.loop}, {CONNECTIONS} connections, {len(ratios)} rounds",
            f"raw callable  {median(raw.times):7.2f} us of the server's processor time a request",
            f"hit           {median(hit.times):7.2f} us",
            f"hit / raw     {ratio:7.2f}    ({min(ratios):.2f} to {max(ratios):.2f}), mark {MARK:g}: {verdict}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.over_http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    parser.add_argument("--requests", type=int, default=10_000, help="a round and server (default: 10000)")
    parser.add_argument(
        "--records", action="store_true", help="what records cost: hits and new keys with and without"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when the mark is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    chosen = parser.parse_args(arguments)
    if chosen.records:
        from .over_http_records import report

        ok = report(chosen.rounds, chosen.requests, chosen.json)
        return 1 if chosen.strict and not ok else 0
    with ExitStack() as stack:
        here = f"{__package__}.over_http"
        bare = Contender("raw", stack.enter_context(serving(f"{here}:raw_service")), b"")
        hit = Contender(
            "hit", stack.enter_context(serving(f"{here}:hit_service")), b"\r\ncache-status: dedup; hit;"
        )
        asyncio.run(race([bare, hit], chosen.rounds, chosen.requests))
    ratios = [more / one for more, one in zip(hit.times, bare.times, strict=True)]
    print(render(bare, hit, ratios))
    if chosen.json is not None:
        figures = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "http": hit.server.http,
            "loop": hit.server.loop,
            "raw": bare.times,
            "hit": hit.times,
            "ratio": median(ratios),
            "mark": MARK,
        }
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 1 if chosen.strict and median(ratios) > MARK else 0


if __name__ == "__main__":
    sys.exit(main())
