"""What goes over the wire behind every server: hits, validators, HEAD, bodies of requests, connections used again."""

from __future__ import annotations

import hashlib

import pytest

from ..kit import chunk, head
from .line import Line
from .steps import Upload, tell_scope

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
TEXT = (b"content-type", b"text/plain")
STORED = [head(200, [TEXT, (b"content-length", b"5"), (b"etag", b'"v1"')]), chunk(b"value", more=False)]


async def test_a_hit_tells_its_age_and_where_it_came_from(line: Line) -> None:
    async with line.play(*STORED, rule="stored") as play:
        await play.finish()
        first = await line.get(play.target)
        assert (first.status, first.body) == (200, b"value")
        assert first.headers["cache-status"].startswith("dedup; fwd=uri-miss; stored; ttl=3600")
        await play.until(flights=0)
        one = await line.connect()
        for _ in range(3):
            await one.ask(play.target)
            hit = await one.answer()
            assert (hit.status, hit.body, hit.headers["content-type"]) == (200, b"value", "text/plain")
            assert hit.headers["cache-status"].startswith("dedup; hit")
            assert 0 <= int(hit.headers["age"]) < 3600
        await play.until(runs=1)


async def test_validators_and_head_are_answered_from_the_store_and_leave_the_connection_usable(
    line: Line,
) -> None:
    async with line.play(*STORED, rule="stored") as play:
        await play.finish()
        await line.get(play.target)
        await play.until(flights=0)
        one = await line.connect()
        for _ in range(2):
            await one.ask(play.target, headers=[("if-none-match", '"v1"')])
            unchanged = await one.answer()
            assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", '"v1"')
            assert unchanged.headers["cache-status"].startswith("dedup; hit")
            await one.ask(play.target, "HEAD")
            lone = await one.answer()
            assert (lone.status, lone.body, lone.headers["content-length"]) == (200, b"", "5")
            await one.ask(play.target, headers=[("if-none-match", '"v0"')])
            assert (await one.answer()).body == b"value"
        await play.until(runs=1)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_shared_answers_without_a_body_never_break_the_framing_of_the_next(
    line: Line, method: str, status: int
) -> None:
    length = [(b"content-length", b"5")] if method == "HEAD" else []
    async with line.play(head(status, length), chunk(more=False)) as play:
        clients = [await line.ask(play.target, method) for _ in range(4)]
        await play.until(runs=1, followers=3)
        await play.finish()
        for _ in range(2):
            for one in clients:
                answer = await one.answer()
                assert (answer.status, answer.body) == (status, b"")
                await one.ask(play.target, method)
        for one in clients:
            assert (await one.answer()).status == status


async def test_pipelined_requests_are_answered_in_order(line: Line) -> None:
    """Twins too: none waits for itself. HTTP/2 has streams instead."""
    async with (
        line.play(head(200, [(b"content-length", b"5")]), chunk(b"first", more=False)) as play,
        line.play(head(200, [(b"content-length", b"4")]), chunk(b"next", more=False)) as other,
    ):
        await play.finish()
        await other.finish()
        one = await line.connect_h1()
        for target in (play.target, play.target, other.target, play.target):
            one.writer.write(f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        for body in (b"first", b"first", b"next", b"first"):
            one.expect()
            assert (await one.answer()).body == body
        await one.gone()


@pytest.mark.parametrize(
    ("rule", "size"), [("off", MIB), ("search", 0), ("search", MIB), ("search", 4 * MIB)]
)
async def test_the_body_of_a_request_reaches_the_app_whole(line: Line, rule: str, size: int) -> None:
    """Bypassed, shared, and over `max_request_body`, where what was read is given again."""
    sent = bytes(range(256)) * (size // 256) or b"x" * size
    async with line.play(Upload(), rule=rule) as play:
        await play.finish()
        answer = await line.get(play.target, "POST", body=sent)
        assert answer.body.decode() == f"{size} {hashlib.sha256(sent).hexdigest()}"


async def test_equal_searches_by_post_run_once_and_others_by_themselves(line: Line) -> None:
    async with line.play(Upload(), rule="search") as play:
        clients = [await line.ask(play.target, "POST", body=b"q" * MIB) for _ in range(3)]
        await play.until(runs=1, followers=2)
        other = await line.ask(play.target, "POST", body=b"r" * MIB)
        await play.until(runs=2)
        await play.finish()
        for one in clients:
            assert (await one.answer()).body.decode() == f"{MIB} {hashlib.sha256(b'q' * MIB).hexdigest()}"
        assert (await other.answer()).body.decode() == f"{MIB} {hashlib.sha256(b'r' * MIB).hexdigest()}"
        await play.until(runs=2)


async def test_the_app_sees_which_protocol_was_spoken(line: Line) -> None:
    async with line.play(tell_scope) as play:
        await play.finish()
        assert (b'"http": "2"' if line.is_h2 else b'"http": "1.1"') in (await line.get(play.target)).body
