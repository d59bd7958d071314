"""What every test has: Chromium when there is one, and a run in CI that fails on a skip."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dedup_middleware import Dedup, Rule
from dedup_middleware.admin.table import Table
from dedup_middleware.events import Subscription

from .kit import FakeClock, VirtualTime, settle, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .records_kit import Postgres

_skipped: dict[str, str] = {}


def keep_what_is_there() -> None:
    """No collection of garbage looks again at what is there now: it outlives the tests."""
    gc.collect()
    gc.freeze()
    gc.collect()


def pytest_configure() -> None:
    """Compile each module once for all processes that the tests start, whatever the environment says."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """A worker more than there are cores, since many tests wait for a server or a browser."""
    return (yield) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is there before the first test stays, so no collection of garbage looks at it, now or later.

    The last collection counts how much is left, almost nothing, so that what tests leave is soon collected; and a
    test makes thousands of objects at a time, for which to look at every few hundred is to look at most in vain.
    """
    gc.disable()
    found = yield
    keep_what_is_there()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts a browser or runs the example comes first, while all workers have other things to do.

    Last, it would be dealt out among workers with nothing left, each of which starts a browser and an app of its own.
    """

    def waits(item: pytest.Item) -> bool:
        return item.get_closest_marker("browser") is not None or item.path.name.startswith("test_example")

    items.sort(key=waits, reverse=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = _reason(report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped[report.nodeid] = _reason(report.longrepr)


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


def _skips_fail() -> bool:
    return os.environ.get("CI_NO_SKIPS", "") not in {"", "0"}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skips_fail() and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skips_fail() and _skipped:
        terminalreporter.section("CI_NO_SKIPS: a skipped test fails this run", red=True)
        for nodeid, reason in sorted(_skipped.items()):
            terminalreporter.line(f"{nodeid}: {reason}", red=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; the test skips where there is none."""
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium in PATH; on Debian and Ubuntu: sudo apt install chromium-headless-shell")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, driven by Playwright; a module's own, since its loop is in the way of asyncio's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        launched = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="session", autouse=True)
def nobody_listens_in_the_end() -> Iterator[None]:
    """After the last test of this process no thread of a listener or of an audit log is left."""
    yield
    wait_for(lambda: not any(one.name in ("dedup-listener", "dedup-audit") for one in threading.enumerate()))


@pytest.fixture(scope="session", autouse=True)
def what_was_there_stays_out_of_sight() -> Iterator[None]:
    """A test that thaws what was frozen would make every later collection, in every later test, a slow one."""
    frozen = gc.get_freeze_count()
    yield
    assert gc.get_freeze_count() > frozen / 2


@pytest.fixture(autouse=True)
def whoever_listens_ends() -> Iterator[None]:
    """A listener's thread, or the one that writes an audit log, is over when its test is."""
    ends: list[Callable[[], object]] = []

    def noted(begin: Callable[[Any], None], end: str) -> Callable[[Any], None]:
        def begins(one: Any) -> None:
            begin(one)
            ends.append(getattr(one, end))

        return begins

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "reset", noted(Subscription.reset, "close"))
        patch.setattr(Table, "_start", noted(Table._start, "end"))
        yield
    for end in ends:
        end()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def virtual_time(clock: FakeClock) -> AsyncIterator[VirtualTime]:
    """The test's loop and its engines on one clock; ask for it before `make_dedup`."""
    time = VirtualTime(clock)
    yield time
    time.restore()


@pytest.fixture
async def make_dedup(clock: FakeClock) -> AsyncIterator[Callable[..., Dedup]]:
    """Makes engines on the fake clock; after the test no flight, listing, name or task of theirs is left."""
    made: list[Dedup] = []

    def make(*rules: Rule, **settings: Any) -> Dedup:
        made.append(Dedup(rules, **{"clock": clock, **settings}))
        return made[-1]

    yield make
    await settle()
    for dedup in made:
        table = dedup.flights
        assert not table.under_way, [flight.key for flight in table.under_way.values()]
        assert table.is_empty


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server of this process's own."""
    if sys.platform == "win32":
        pytest.skip("the PostgreSQL of the tests is for Linux and macOS")
    from .records_kit import Postgres

    # A socket's path has to be short, and the server's own user has to reach it.
    with tempfile.TemporaryDirectory(prefix="dedup-pg-") as folder:
        server = Postgres(folder)
        yield server
        server.stop()


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger with its tables, for tests to copy: to make the tables takes longer than most of them."""
    from .records_kit import upgrade

    file = tmp_path_factory.mktemp("upgraded") / "dedup.db"
    upgrade(f"sqlite:///{file}")
    assert list(file.parent.iterdir()) == [file], "there is more to copy"
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger with its tables; each kind of database in turn."""
    if request.param == "postgresql":
        emptied: str = request.getfixturevalue("postgres").emptied()
        return emptied
    shutil.copy(request.getfixturevalue("upgraded"), tmp_path)
    return f"sqlite:///{tmp_path}/dedup.db"
