"""What a server offers beyond the protocol: hidden where a response may be shared, there where the rule is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from ..kit import chunk, head
from .fleet import CUT, Server
from .line import LINES, Line
from .steps import tell_scope

pytestmark = pytest.mark.slow

HINT = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
PUSH = {"type": "http.response.push", "path": "/control/-/ready", "headers": []}
TRAILERS = {
    "type": "http.response.trailers",
    "headers": [(b"x-checksum", b"abc")],
    "more_trailers": False,
}
SHARED = {"http.response.early_hint"}
"""What a flight offers: hints go to the leader alone."""


def lines_with(extension: str) -> pytest.MarkDecorator:
    """The lines whose server has the extension."""
    having = []
    for one in LINES:
        server, protocol = cast("tuple[Server, str]", one.values[0])
        if extension in server.extensions.get(protocol, set()):
            having.append(one)
    assert having
    return pytest.mark.parametrize("session_line", having, indirect=True)


@pytest.mark.parametrize("rule", ["bare", "off", "shared"])
async def test_a_flight_offers_nothing_that_followers_could_not_get(line: Line, rule: str) -> None:
    async with line.play(tell_scope, rule=rule) as play:
        await play.finish()
        offered = set(json.loads((await line.get(play.target)).body)["extensions"])
    theirs = line.server.extensions.get(line.protocol, set())
    assert offered == (theirs & SHARED if rule == "shared" else theirs)


@lines_with("http.response.pathsend")
@pytest.mark.parametrize("rule", ["bare", "off"])
async def test_a_bypassed_app_may_send_a_file_by_its_path(line: Line, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"what the file holds")
    script = [head(), {"type": "http.response.pathsend", "path": str(file)}]
    async with line.play(*script, rule=rule) as play:
        await play.finish()
        assert (await line.get(play.target)).body == b"what the file holds"


@lines_with("http.response.trailers")
@pytest.mark.parametrize("rule", ["bare", "off"])
async def test_a_bypassed_app_may_send_trailers(line: Line, rule: str) -> None:
    script = [{**head(), "trailers": True}, chunk(b"body", more=False), TRAILERS]
    async with line.play(*script, rule=rule) as play:
        await play.finish()
        answer = await line.get(play.target, headers=[("te", "trailers")])
        assert (answer.body, answer.trailers) == (b"body", {"x-checksum": "abc"})


@lines_with("http.response.push")
@pytest.mark.parametrize("rule", ["bare", "off"])
async def test_a_bypassed_app_may_push(line: Line, rule: str) -> None:
    async with line.play(PUSH, head(), chunk(b"body", more=False), rule=rule) as play:
        await play.finish()
        answer = await line.get(play.target)
        assert (answer.body, answer.pushed) == (b"body", ["/control/-/ready"])


@lines_with("http.response.early_hint")
@pytest.mark.parametrize("rule", ["bare", "off", "shared"])
async def test_early_hints_reach_the_client_that_the_app_runs_for(line: Line, rule: str) -> None:
    async with line.play(HINT, head(), chunk(b"body", more=False), rule=rule) as play:
        clients = await line.crowd(play, 1 if rule != "shared" else 3)
        await play.until(present=3 if rule == "shared" else 0)
        await play.finish()
        answers = [await one.answer() for one in clients]
    assert {answer.body for answer in answers} == {b"body"}
    assert [len(answer.hints) for answer in answers] == [1, 0, 0][: len(answers)]


async def test_an_app_that_uses_what_it_was_not_offered_fails_for_all_alike(
    line: Line, tmp_path: Path
) -> None:
    """As it does on a server that does not have it."""
    file = tmp_path / "file"
    file.write_bytes(b"what the file holds")
    script = [{"type": "http.response.pathsend", "path": str(file)}]
    async with line.play(*script) as play:
        clients = await line.crowd(play, 3)
        await play.until(runs=1, followers=2)
        await play.finish()
        expected = line.server.broken.get(line.protocol, CUT)[0]
        fates = [await one.fate(expected) for one in clients]
        assert set(fates) == {expected}
        await play.until(runs=1)
