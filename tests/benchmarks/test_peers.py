"""The comparison with other caches, as far as it goes without installing any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import peers, peers_race
from .peers import Environment, Package, install, render, rows
from .peers_race import Counted, Peer, check, measure
from .requests import Message, Receive, Scope, Send, receive_nothing, send_nowhere

TIMES = {"L0": [1.0, 2.0], "L1": [10.0, 20.0], "slow": [300.0, 600.0], "dedup-middleware": [5.0, 10.0]}


class FakeEnvironment(Environment):
    """Where some packages cannot be installed."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.installed: list[tuple[str, ...]] = []

    def install(self, *arguments: str) -> str | None:
        if arguments[-1] in self.missing:
            return f"No matching distribution found for {arguments[-1]}"
        self.installed.append(arguments)
        return None


def test_a_row_is_in_units_of_its_own_round_and_the_cheapest_comes_first() -> None:
    assert rows(TIMES) == [
        ("L0", 1.5, 1.0, 0.1),
        ("dedup-middleware", 7.5, 5.0, 0.5),
        ("L1", 15.0, 10.0, 1.0),
        ("slow", 450.0, 300.0, 30.0),
    ]


def test_the_table_has_each_version_and_each_reason() -> None:
    text = render(TIMES, {"slow": "1.2", "dedup-middleware": "0.1"}, {"other": "not installed: gone"})
    assert text.splitlines()[2:] == [
        "| raw ASGI callable (L0) | 1.50 | 1.0 | 0.10 |",
        "| **dedup-middleware 0.1** | 7.50 | 5.0 | 0.50 |",
        "| bare Starlette route (L1) | 15.00 | 10.0 | 1.00 |",
        "| slow 1.2 | 450.00 | 300.0 | 30.00 |",
        "",
        "other: not installed: gone",
    ]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cashews, endpoint returns a Response", "cashews 7, endpoint returns a Response"),
        ("hishel (SQLite in memory)", "hishel 7 (SQLite in memory)"),
        ("hishel, rfc=False (SQLite in memory)", "hishel 7, rfc=False (SQLite in memory)"),
    ],
)
def test_the_version_stands_behind_the_package(name: str, label: str) -> None:
    text = render({"L0": [1.0], "L1": [2.0], name: [3.0]}, {"cashews": "7", "hishel": "7"}, {})
    assert f"| {label} | 3.00 |" in text


def test_a_peer_that_cannot_be_installed_is_named_and_the_others_are_installed() -> None:
    environment = FakeEnvironment("one[extra]")
    packages = [Package("one[extra]"), Package("two", ("beside",), pins=False), Package("three", ("beside",))]
    failed = install(environment, packages)
    assert failed == {"one": "not installed: No matching distribution found for one[extra]"}
    assert environment.installed[1:] == [("beside",), ("--no-deps", "two"), ("beside", "three")]


def test_without_an_index_the_command_ends_with_the_reason() -> None:
    with pytest.raises(SystemExit, match="nothing can be installed"):
        install(FakeEnvironment("fastapi"))


def test_every_line_belongs_to_a_package_that_is_installed() -> None:
    names = {package.name.partition("[")[0] for package in peers.PACKAGES}
    assert {package for package, _ in peers_race.PEERS.values()} == names
    assert all(line.split(",")[0].split(" ")[0] in names for line in peers_race.PEERS)


async def _keep(inner: Counted) -> Peer:
    kept: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def keep(message: Message) -> None:
            kept.append(message)

        if not kept:
            await inner(scope, receive, keep)
        for message in kept:
            await send(message)

    return Peer(app, lambda: inner.runs)


async def test_a_peer_that_answers_from_what_it_keeps_is_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_race, "PEERS", {"a peer": ("a", lambda: _keep(Counted()))})
    figures = await measure(1, 0.002)
    assert figures["failed"] == {}
    assert {"L0", "L1", "L2", "dedup-middleware", "a peer"} < set(figures["times"])


async def test_a_peer_that_runs_its_app_again_is_named_and_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful() -> Peer:
        inner = Counted()
        return Peer(inner, lambda: inner.runs)

    async def absent() -> Peer:
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setattr(peers_race, "PEERS", {"forgetful": ("f", forgetful), "absent": ("a", absent)})
    figures = await measure(1, 0.002)
    assert figures["failed"] == {
        "forgetful": "AssertionError: it does not answer from what it keeps",
        "absent": "ModuleNotFoundError: No module named 'absent'",
    }
    assert not {"forgetful", "absent"} & set(figures["times"])


async def test_a_peer_with_another_answer_is_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    with pytest.raises(AssertionError, match="not the app's answer"):
        await check(Peer(app, lambda: 0))


async def test_a_bare_endpoint_of_each_kind_answers() -> None:
    for response in (False, True):
        peer = peers_race._endpoint(lambda endpoint: endpoint, response=response)
        scope: Any = {"type": "http", "method": "GET", "path": "/data", "query_string": b"", "headers": []}
        await peer.app(scope, receive_nothing, send_nowhere)
        assert peer.runs() == 1


def test_what_is_installed_beside_the_peers_is_what_the_project_says() -> None:
    text = (Path(peers.ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    needed = peers.requirements()
    assert needed[-1] == "fastapi"
    assert all(f'"{requirement}"' in text for requirement in needed[:-1])
