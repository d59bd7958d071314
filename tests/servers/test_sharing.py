"""What requests share behind every server: one run, one stream, and nobody's harm."""

from __future__ import annotations

import asyncio

import pytest

from ..kit import BODY, WHOLE, head
from .fleet import CUT
from .line import Line
from .steps import Pieces, Step, hear

pytestmark = pytest.mark.slow

COLLAPSED = "dedup; fwd=uri-miss; collapsed"
MISS = "dedup; fwd=uri-miss"
WAYS = ["FIN", "RST", "half-close or RST_STREAM"]


async def test_a_stampede_runs_the_app_once_and_leaves_every_connection_usable(line: Line) -> None:
    async with line.play(head(), *BODY) as play:
        clients = await line.crowd(play, 30)
        for burst in (1, 2):
            await play.until(runs=burst, followers=29)
            await play.step(4)
            answers = [await one.answer() for one in clients]
            assert {(answer.status, answer.body) for answer in answers} == {(200, WHOLE)}
            told = sorted(answer.headers["cache-status"] for answer in answers)
            assert told == [MISS] + [COLLAPSED] * 29
            await play.until(flights=0)
            if burst == 1:
                for one in clients:
                    await one.ask(play.target)
        await play.until(runs=2)


async def test_followers_stream_together_with_the_leader(line: Line) -> None:
    """The app sends a chunk only after all, a follower that came late too, have read the one before."""
    async with line.play(head(), *BODY) as play:
        clients = await line.crowd(play, 3)
        await play.until(runs=1, followers=2)
        await play.began(2)
        for one in clients:
            assert (await one.head()).status == 200
            await one.upto(b"one,")
        late = await line.ask(play.target)
        await late.head()
        await late.upto(b"one,")
        for part in (b"two,", b"three"):
            await play.step()
            for one in (*clients, late):
                await one.upto(part)
        for one in (*clients, late):
            assert await one.chunk() is None
        await play.until(runs=1, ended=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 1, 2], ids=["before the head", "after the head", "after a chunk"])
async def test_a_leader_that_leaves_never_costs_the_others_their_answer(
    line: Line, way: str, steps: int
) -> None:
    async with line.play(head(), *BODY) as play:
        leader = await line.ask(play.target)
        await play.until(runs=1)
        clients = await line.crowd(play, 5)
        await play.until(followers=5)
        await play.began(steps)
        leader.leave(way)
        await play.until(present=5)
        if line.server.cancels and (line.server.cancels_h2 or not line.is_h2):
            await play.until(served=["CancelledError"])
        await play.finish()
        for one in clients:
            answer = await one.answer()
            assert (answer.status, answer.headers["cache-status"], answer.body) == (200, COLLAPSED, WHOLE)
        await play.until(runs=1, ended=1, cancelled=0)


@pytest.mark.parametrize("way", WAYS)
async def test_followers_that_leave_harm_nobody(line: Line, way: str) -> None:
    async with line.play(head(), *BODY) as play:
        clients = await line.crowd(play, 6)
        await play.until(followers=5)
        await play.began(2)
        for one in clients[1::2]:
            one.leave(way)
        await play.until(present=3)
        await play.finish()
        for one in clients[::2]:
            assert (await one.answer()).body == WHOLE
        await play.until(runs=1, cancelled=0)


@pytest.mark.parametrize("way", WAYS)
async def test_an_app_whose_clients_have_all_left_is_told(line: Line, way: str) -> None:
    async with line.play(hear, hear, head(), *BODY) as play:
        clients = await line.crowd(play, 3)
        await play.until(runs=1, followers=2)
        await play.step(2)
        await play.until(heard=["http.request"])
        for one in clients:
            one.leave(way)
        await play.until(heard=["http.request", "http.disconnect"])


async def test_a_client_that_reads_nothing_holds_up_nobody(line: Line) -> None:
    pieces = Pieces(16, 65536)
    async with line.play(head(), pieces) as play:
        slow = await line.connect(buffer=4096)
        await slow.ask(play.target)
        await play.until(runs=1)
        clients = await line.crowd(play, 4)
        await play.until(followers=4)
        await play.finish()
        for one in clients:
            assert (await one.answer()).body == pieces.whole
        await play.until(ended=1)
        assert (await slow.answer()).body == pieces.whole
        await play.until(runs=1)


@pytest.mark.parametrize("room", ["bare", "shared"])
async def test_a_download_waits_for_its_reader_where_the_server_lets_it(line: Line, room: str) -> None:
    pieces = Pieces(256, 65536)
    async with line.play(head(), pieces, rule=room) as play:
        one = await line.connect(buffer=65536)
        await one.ask(play.target)
        await play.finish()
        if line.protocol in line.server.backpressure:
            await line.idle(play)
            assert (await play.until())["sent"] < 256
        else:
            await play.until(sent=256)
        assert (await one.answer()).body == pieces.whole


@pytest.mark.parametrize(("rule", "declared"), [("shared", False), ("large", True)])
async def test_a_large_body_arrives_byte_for_byte(line: Line, rule: str, declared: bool) -> None:
    """Over `max_response_body` it is read while it is written, under it it may be held as a whole."""
    pieces = Pieces(128, 65536)
    length = [(b"content-length", b"%d" % (128 * 65536))] if declared else []
    async with line.play(head(200, length), pieces, rule=rule) as play:
        clients = await line.crowd(play, 2)
        await play.until(present=2)
        await play.finish()
        for answer in await asyncio.gather(*(one.answer() for one in clients)):
            assert answer.body == pieces.whole


@pytest.mark.parametrize("sent", range(4))
@pytest.mark.parametrize("declared", [False, True], ids=["streamed", "with its length"])
async def test_a_response_that_breaks_off_ends_as_without_us_and_never_looks_complete(
    line: Line, sent: int, declared: bool
) -> None:
    length = [(b"content-length", b"%d" % len(WHOLE))] if declared else []
    script: list[Step] = [*[head(200, length), *BODY[:2]][:sent], ValueError]
    line.spoiled = line.server.spoiled_by_broken and sent > 0
    async with line.play(*script, rule="bare") as bare, line.play(*script, rule="stored") as play:
        clients = [await line.ask(bare.target), *await line.crowd(play, 3)]
        await play.until(runs=1, followers=2)
        await bare.finish()
        await play.finish()
        await bare.until(served=["ValueError"])
        await play.until(ended=1, flights=0, served=["ForwardFailed", "ForwardFailed", "ValueError"])
        expected = line.server.broken.get(line.protocol, CUT)[sent]
        fates = await asyncio.gather(*(one.fate(expected) for one in clients))
        assert set(fates) == {expected}
        await play.until(runs=1)
