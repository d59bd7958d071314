"""That the benchmarks run and check themselves; what they measure is for `python -m tests.benchmarks`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dedup_middleware import DedupMiddleware

from . import memory, requests
from .__main__ import main
from .apps import SHAPES, deduplicated, many_rules, path_of, raw
from .contenders import Contender
from .race import race
from .table import judge, render


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one smoke run of the command writes."""
    file = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    assert main(["--smoke", "--json", str(file)]) == 0
    written: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return written


def test_every_line_of_the_table_has_a_figure_and_every_mark_a_verdict(figures: dict[str, Any]) -> None:
    assert len(figures["rows"]) > 30
    for row in figures["rows"]:
        assert (row["mark"] == "") == (row["ok"] is None), row
        assert row["unit"] in ("us", "x", "ms")
    assert all(len(times) == figures["rounds"] for times in figures["times"].values())


def test_a_contender_that_did_not_do_what_its_name_says_ends_the_race() -> None:
    app = deduplicated(raw())  # stores nothing: every request is forwarded
    liar = Contender("a hit", 8, app, requests.make, outcome="hit")
    with pytest.raises(AssertionError, match="a hit: 0 of 2 hit"):
        asyncio.run(race([liar], 1, lambda _: None))


def test_ratios_are_judged_round_by_round_so_that_a_slow_machine_is_slow_for_all(
    figures: dict[str, Any],
) -> None:
    rounds = (1.0, 9.0, 2.0)  # the machine's speed
    times = {name: [speed * 10 for speed in rounds] for name in figures["times"]}
    times["L0"], times["L1"] = list(rounds), [speed * 25 for speed in rounds]
    times["hit 1 KiB, 5 headers"] = [speed * 13.9 for speed in rounds]
    times["bypassed OPTIONS"] = [speed * 6.1 for speed in rounds]
    rows = {row.what: row for row in judge(times, 50.0, 80.0)}
    assert rows["hit 1 KiB, 5 headers"].in_l0 == pytest.approx(13.9)
    assert rows["hit 1 KiB, 5 headers"].ok
    assert rows["bypassed OPTIONS"].ok is False
    assert rows["stampede, p99 / bare"].ok is False
    assert "MISSED" in render(list(rows.values()))


def test_a_request_shares_no_bytes_with_the_one_before() -> None:
    (first, _), (second, _) = requests.make(), requests.make()
    assert first == second
    assert first["path"] is not second["path"]
    assert first["raw_path"] is not second["raw_path"]
    assert not {id(part) for pair in first["headers"] for part in pair} & {
        id(part) for pair in second["headers"] for part in pair
    }


def test_a_json_body_spelled_another_way_is_other_bytes_of_the_same_size() -> None:
    body = requests.search("mark")
    others = {requests.respelled(body, number) for number in range(1, 300)}
    assert len(others) == 299
    assert {len(other) for other in others} == {len(body)}
    assert {str(msgspec.json.decode(other)) for other in others} == {str(msgspec.json.decode(body))}


@pytest.mark.parametrize("shape", SHAPES)
def test_of_many_rules_of_a_shape_the_last_one_is_met(shape: str) -> None:
    app = deduplicated(raw(), *many_rules(shape, 20))
    assert isinstance(app, DedupMiddleware)
    assert len(app.dedup.rules) == 20
    asyncio.run(app(*requests.make(path=path_of(shape, "7")), requests.send_nowhere))
    assert [label for label, rule in app.dedup.stats().rules.items() if rule.requests["forwarded"]] == [
        app.dedup.rules[-1].label
    ]


def test_the_memory_proof_runs_in_a_process_of_its_own() -> None:
    figures = memory.in_fresh_process(600, 256 * 1024)
    assert figures["responses"] + figures["evicted"] == 601
    assert figures["charged"] <= 256 * 1024
    assert "unique GETs" in memory.verdict(figures)[1]


@pytest.mark.parametrize(
    ("growth", "met"),
    [
        ([60, 80, 80, 80, 80, 80, 80, 80], True),
        ([60, 84, 84, 84, 84, 84, 84, 84], False),  # flat, but over 1.3 times the bound
        ([10, 20, 30, 40, 50, 60, 70, 80], False),  # within it, but growing
    ],
)
def test_growth_over_the_bound_or_without_end_is_a_miss(growth: list[int], *, met: bool) -> None:
    mib = 1024 * 1024
    figures = {
        "measured": True,
        "requests": 800,
        "bound": 64 * mib,
        "growth": [value * mib for value in growth],
        "charged": 64 * mib,
        "responses": 400,
        "evicted": 400,
    }
    assert memory.verdict(figures)[0] is met


def test_where_memory_cannot_be_read_the_proof_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "reader_of_memory", lambda: None)
    met, text = memory.verdict(asyncio.run(memory.measure(10, 1000)))
    assert met
    assert "not measured" in text


def test_the_commands_explain_themselves() -> None:
    root = Path(__file__).resolve().parents[2]
    for module in ("tests.benchmarks", "tests.benchmarks.memory"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=root, capture_output=True, text=True, check=True
        )
        assert "--strict" in done.stdout
