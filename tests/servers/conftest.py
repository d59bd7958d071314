"""Every server that is installed, one at a time, started when the first test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from .fleet import SERVERS, Running, Server, running
from .line import LINES, Line

NEVER = ("never retrieved", "was destroyed but it is pending", "was never awaited")
"""What no server may log of our tasks."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one server come together, whatever their module or line: another one is another process to start."""
    names = list(SERVERS)
    places, theirs = [], []
    for place, item in enumerate(items):
        if (callspec := getattr(item, "callspec", None)) and "session_line" in callspec.params:
            server, _ = callspec.params["session_line"]
            places.append(place)
            theirs.append((names.index(server.name), item))
    for place, (_, item) in zip(places, sorted(theirs, key=lambda one: one[0]), strict=True):
        items[place] = item


class Processes:
    """The process of one server at a time; the one before it ends when another is asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._current: tuple[str, Running] | None = None
        self._stack = contextlib.ExitStack()

    def get(self, name: str) -> Running:
        if self._current is None or self._current[0] != name:
            self.end()
            folder = self._factory.mktemp(name)
            self._current = name, self._stack.enter_context(running(SERVERS[name], folder))
        return self._current[1]

    def end(self) -> None:
        self._current = None
        self._stack.pop_all().close()


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    made = Processes(tmp_path_factory)
    yield made
    made.end()


@pytest.fixture(scope="session", params=LINES)
def session_line(request: pytest.FixtureRequest) -> tuple[Server, str]:
    server, protocol = request.param
    return server, protocol


@pytest.fixture
def line(session_line: tuple[Server, str], processes: Processes) -> Iterator[Line]:
    """One protocol of one server; its log tells of no task that was lost."""
    server, protocol = session_line
    one = Line(server, protocol, processes.get(server.name))
    yield one
    log = one.running.log
    if one.spoiled:
        processes.end()
    assert not [sentence for sentence in NEVER if sentence in log], log
