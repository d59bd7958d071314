"""What the example measures and shows: timeline, check for stale answers, telemetry that can't be delivered."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

pytest.importorskip("uvicorn", reason="the example needs its extra: pip install -e '.[example]'")

from example_app.burst import MIX, REQUESTS, Answer, Pages
from example_app.folder import prepare
from example_app.load import quantile
from example_app.servers import running
from example_app.telemetry import FLUSH, Telemetry
from example_app.timeline import Recorded, draw
from example_app.writes import check_writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from example_app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return msgspec.structs.replace(prepare(tmp_path), wait_for_ready=True)


def test_quantiles_are_values_that_were_measured() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], part) for part in (0, 0.25, 0.5, 0.51, 0.95, 1)] == [
        1,
        1,
        2,
        3,
        4,
        4,
    ]
    assert quantile([7.0], 0.5) == 7


@pytest.mark.parametrize(
    ("cache_status", "outcome"),
    [
        ("dedup; hit; ttl=57", "hit"),
        ("dedup; fwd=uri-miss; collapsed", "collapsed"),
        ("dedup; fwd=uri-miss; stored; ttl=60", "forwarded"),
        ("", "bare"),
    ],
)
def test_an_outcome_is_read_from_the_wire(cache_status: str, outcome: str) -> None:
    answer = Answer("r1", 0, "chat", "/", 200, cache_status, "", 0, 0, 0, 0)
    assert answer.outcome == outcome


async def test_the_timeline_says_who_waited_for_whom(settings: Settings) -> None:
    recording = msgspec.structs.replace(settings, record=True)
    tracer = Telemetry(None, None).tracer_provider.get_tracer("test")
    async with running(recording) as server:
        pages = Pages(server.client, "demo", tracer)
        lines = []
        for _ in range(2):
            refreshes = await pages.burst(2)
            traces = "&".join(f"trace={refresh.trace}" for refresh in refreshes)
            recorded = await server.ask("GET", f"spans?{traces}", Recorded)
            lines.append(draw(refreshes, recorded, middleware=True))
    cold, warm = lines

    assert server.errors == ""
    assert (len(cold.rows), cold.executions) == (2 * REQUESTS, 4)
    assert cold.outcomes["forwarded"] == len(MIX)
    assert cold.outcomes["collapsed"] > 0
    # Where a machine has much else to do, a page comes when quick work is done already: then it hits.
    assert set(cold.outcomes) <= {"forwarded", "collapsed", "hit"}
    by_id = {row.id: row for row in cold.rows}
    for row in cold.rows:
        assert row.flight
        assert (row.outcome == "forwarded") == (not row.leader)
        if row.leader:
            assert by_id[row.leader].flight == row.flight
            assert by_id[row.leader].operation == row.operation
        else:
            waited = [other for other in cold.rows if other.leader == row.id and other.outcome == "collapsed"]
            assert row.followers == len(waited)
            assert row.stored
    work = sorted(piece.name for row in cold.rows for piece in row.work)
    assert work == ["chat extraction", "editor query", "git log", "git status"]
    assert (warm.executions, warm.outcomes) == (0, {"hit": 2 * REQUESTS})
    assert {row.flight for row in warm.rows} == {row.flight for row in cold.rows}


async def test_an_answer_that_stays_stale_is_found(settings: Settings, tmp_path: Path) -> None:
    rules = Path(settings.rules).read_text(encoding="utf-8")
    forgetful = tmp_path / "forgetful.toml"
    forgetful.write_text(re.sub(r"invalidates = .*", 'invalidates = ["nothing"]', rules), encoding="utf-8")
    async with running(msgspec.structs.replace(settings, rules=str(forgetful))) as server:
        writes = await check_writes(server.client, "demo", lambda: None)

    assert writes.stale > 0
    assert writes.failed == 0
    assert len(writes.examples) == min(writes.stale, 5)


@contextlib.contextmanager
def _collector_that_never_answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_collector_that_hangs_holds_up_an_end_no_longer_than_said() -> None:
    with _collector_that_never_answers() as url:
        telemetry = Telemetry(url, None)
        for _ in range(3):
            telemetry.tracer_provider.get_tracer("test").start_span("lost").end()
        start = time.monotonic()
        lost, _ = telemetry.close()

    assert time.monotonic() - start < FLUSH + 1
    assert lost == 3


def test_a_collector_that_is_gone_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    telemetry = Telemetry(f"http://127.0.0.1:{port}", None)
    telemetry.tracer_provider.get_tracer("test").start_span("lost").end()

    assert telemetry.close()[0] == 1
