"""That the race with records runs and checks itself; what it measures is for the command."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from .over_http import main
from .over_http_records import Contender, met, new, ratios, render, same
from .served import Server

pytestmark = pytest.mark.slow


def contender(name: str, times: list[float], rates: list[float], *, records: bool = False) -> Contender:
    """One that has been measured."""
    server = Server(0, http="h11", loop="asyncio")
    return Contender(name, server, b"", same, records=records, times=times, rates=rates)


def test_every_contender_does_what_its_name_says_and_all_its_records_are_written(tmp_path: Path) -> None:
    """A server that gave another outcome, or dropped a record, would end the race."""
    file = tmp_path / "figures.json"

    assert main(["--records", "--rounds", "1", "--requests", "1", "--json", str(file)]) == 0

    figures = msgspec.json.decode(file.read_bytes())
    assert list(figures) == ["raw", "hit", "hit, records", "new key", "new key, records"]
    assert all(len(one["microseconds"]) == len(one["requests a second"]) == 1 for one in figures.values())


def test_records_are_judged_against_the_same_requests_without_round_by_round() -> None:
    off = contender("hit", [100.0, 10.0, 1.0], [900.0] * 3)
    on = contender("hit, records", [110.0, 11.0, 2.0], [1100.0] * 3, records=True)

    assert ratios(on, off) == [1.1, 1.1, 2.0]
    assert met([off, on])
    assert "1.10 (1.10 to 2.00)" in render([off, on])


def test_too_few_requests_a_second_with_records_are_a_miss() -> None:
    slow = contender("hit, records", [1.0], [999.0], records=True)

    assert not met([slow])
    assert "MISSED" in render([slow])


def test_a_new_key_is_a_target_that_was_never_asked_for() -> None:
    assert len({new() for _ in range(100)}) == 100
    assert {request.partition(b" HTTP/1.1")[2] for request in (new(), same())} == {
        same().partition(b" HTTP/1.1")[2]
    }
