"""A server's start and end: lifespan told or not, and SIGTERM while flights are under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ..kit import BODY, WHOLE, head
from .client import BrokenError, Client
from .fleet import SERVERS, Running, Server, running
from .line import Line, Play

pytestmark = pytest.mark.slow

SCRIPT = [head(), *BODY]


async def outcome(client: Client) -> str:
    try:
        return "whole" if await client.rest() == b"two,three" else "something else"
    except BrokenError:
        return "cut"


async def closing(one: Running) -> None:
    """Wait until the server takes no new requests."""
    for _ in range(2000):
        if one.process.poll() is not None:
            return
        try:
            await asyncio.wait_for(asyncio.to_thread(one.ask), 0.25)
        except (OSError, ValueError, TimeoutError):
            return
        except Exception:  # noqa: BLE001 - http.client's many ways to say that it was cut off
            return
        await asyncio.sleep(0.005)  # nothing tells that a process has heard a signal
    raise AssertionError("the server took no notice of SIGTERM")


# What they do without a lifespan, or with one that is refused, is done by the code of another in the list.
LIKE_ANOTHER = {"uvicorn-httptools", "gunicorn-uvicorn", "gunicorn-asgi-preload"}


@pytest.mark.parametrize(
    ("server", "lifespan"),
    [
        pytest.param(
            server,
            lifespan,
            id=f"{server.name}-{lifespan}",
            marks=[pytest.mark.thorough] if lifespan != "on" and server.name in LIKE_ANOTHER else [],
        )
        for server in SERVERS.values()
        for lifespan in server.lifespan
    ],
)
async def test_waiting_clients_get_at_sigterm_what_the_bare_app_would_give_them(
    server: Server, lifespan: str, tmp_path: Path
) -> None:
    """With lifespan on, off, and refused by the app, as Django does it."""
    with running(server, tmp_path, lifespan=lifespan) as one:
        line = Line(server, "h1", one)
        assert one.ask()["life"] == (["startup"] if lifespan == "on" else [])
        alone = await _put_on(line, "bare")
        shared = await _put_on(line, "shared")
        clients = [await line.ask(alone), *[await line.ask(shared) for _ in range(3)]]
        for client in clients:
            await client.head()
            await client.upto(b"one,")
        one.terminate()
        await closing(one)
        for target in (alone, shared):
            (tmp_path / target.rpartition("/")[2]).touch()
        ends = [await outcome(client) for client in clients]
        for client in clients:
            await client.gone()
        one.wait()
    rest = "whole" if server.graceful else "cut"
    assert ends == [rest] * 4
    assert ("lifespan: shutdown" in one.log) == (lifespan == "on")


async def _put_on(line: Line, rule: str) -> str:
    """A play whose head and first chunk go out at once."""
    play = Play(line, rule)
    await play.write(SCRIPT)
    await play.step(2)
    return play.target


@pytest.mark.parametrize("preload", [True, False], ids=["--preload", "without"])
async def test_each_worker_of_gunicorn_runs_once_what_is_stored(preload: bool, tmp_path: Path) -> None:
    """The engine was made before the fork, or in each worker: either way each has its own."""
    base = SERVERS["gunicorn-asgi-preload" if preload else "gunicorn-asgi"]
    two = Server("two workers", base.needs, lambda at: [*base.arguments(at), "--workers=2"])
    with running(two, tmp_path) as one:
        answers = await asyncio.gather(*(asyncio.to_thread(one.ask, "/stored/-count") for _ in range(40)))
    runs: dict[object, set[object]] = {}
    for answer in answers:
        runs.setdefault(answer["pid"], set()).add(answer["run"])
    assert set(map(frozenset, runs.values())) == {frozenset({1})}
    assert 1 <= len(runs) <= 2


async def test_under_trio_everything_is_bypassed_and_answered(tmp_path: Path) -> None:
    base = SERVERS["hypercorn"]
    trio = Server(
        "hypercorn-trio",
        {**base.needs, "trio": "hypercorn[trio]"},
        lambda at: [*base.arguments(at), "--worker-class=trio"],
    )
    with running(trio, tmp_path) as one:
        line = Line(trio, "h1", one)
        async with line.play(*SCRIPT, rule="stored") as play:
            await play.finish()
            for _ in range(3):
                answer = await line.get(play.target)
                assert (answer.status, answer.body) == (200, WHOLE)
                assert "cache-status" not in answer.headers
            await play.until(runs=3)
        assert "every request is bypassed" in one.log
