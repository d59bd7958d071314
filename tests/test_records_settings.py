"""Records: their settings, the command, the migrations, the page; each wrong word is one sentence."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware
from dedup_middleware.__main__ import main as command_line
from dedup_middleware.core.status import OUTCOMES
from dedup_middleware.events import ResponseStored
from dedup_middleware.records import Execution, LedgerError, analytics, answers, open_ledger, schema
from dedup_middleware.records.commanding import migrate
from dedup_middleware.records.gathering import Gathering
from dedup_middleware.records.migrating import FOLDER
from dedup_middleware.records.outcomes import COLUMNS
from dedup_middleware.records.places import DEFAULT_AGE, DEFAULT_ROWS, place_of

from .kit import GatedApp, get
from .records_kit import FakeLedger, Postgres, chunk, run_in_thread, upgrade

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "records.md").read_text(encoding="utf-8")


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        action()
    return str(caught.value)


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "read", "driver"),
    [
        ("sqlite:///dedup.db", f"sqlite:///{Path.cwd()}/dedup.db", "sqlite3"),
        ("sqlite:////tmp/dedup.db", "sqlite:////tmp/dedup.db", "sqlite3"),
        ("postgresql://u:p@host/db", "postgresql+asyncpg://u:p@host/db", "asyncpg"),
        ("postgresql://u:p%40@host:5/db", "postgresql+asyncpg://u:p%40@host:5/db", "asyncpg"),
        (
            "postgresql:///db?host=/run/pg&sslmode=require",
            "postgresql+asyncpg:///db?host=%2Frun%2Fpg&ssl=require",
            "asyncpg",
        ),
    ],
)
def test_a_url_is_read_as_sqlalchemy_wants_it(url: str, read: str, driver: str) -> None:
    place = place_of(url)

    assert (place.url, place.drivers[0]) == (read, driver)
    assert (place.max_age, place.max_rows) == (DEFAULT_AGE, DEFAULT_ROWS)


def test_a_url_says_how_much_is_kept(tmp_path: Path) -> None:
    place = place_of(f"sqlite:///{tmp_path}/x.db?max_age=7d&max_rows=5000")

    assert (place.max_age, place.max_rows, place.url) == (7 * 86_400, 5000, f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    "url",
    [
        *("", "dedup.db", "sqlite://", "sqlite:///", "sqlite://host/x.db", "sqlite:///:memory:"),
        *("mysql://h/d", "postgres://h/d", "postgresql://", "postgresql://h", "postgresql:///d"),
        *("sqlite:///x.db?mode=ro", "sqlite:///x.db#x", "postgresql://h/d?options=x", "postgresql://h:x/d"),
        *("sqlite:///x.db?max_age=0", "sqlite:///x.db?max_age=x", "sqlite:///x.db?max_age="),
        *("sqlite:///x.db?max_rows=0", "sqlite:///x.db?max_rows=-1", "sqlite:///x.db?max_rows=1&max_rows=2"),
        *("sqlite:///tests", "sqlite:////no/such/folder/x.db", 5, b"sqlite:///x.db", ["x"]),
    ],
)
def test_what_is_no_ledger_is_refused_with_one_sentence(url: Any) -> None:
    sentence = refused(lambda: Dedup(records=url, secret="s"))

    assert sentence.startswith("Dedup.records: ")
    assert "allowed: " in sentence
    assert "\n" not in sentence


def test_a_ledger_needs_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEDUP_SECRET", raising=False)
    url = f"sqlite:///{tmp_path}/dedup.db"
    assert "DEDUP_SECRET" in refused(lambda: Dedup(records=url))
    assert "DEDUP_SECRET" in refused(lambda: Dedup(records=FakeLedger()))

    monkeypatch.setenv("DEDUP_SECRET", "s")
    assert Dedup(records=url).ledger is not None


@pytest.mark.parametrize("detail", ["tags", ["url"], 5, ["tags", "body"], [5]])
def test_details_that_there_are_none_of_are_refused(detail: Any) -> None:
    sentence = refused(lambda: Dedup(records=FakeLedger(), secret="s", records_detail=detail))

    assert sentence.startswith("Dedup.records_detail: ")
    assert sentence.endswith("allowed: a list of tags")


def test_details_need_records() -> None:
    assert "beside records" in refused(lambda: Dedup(records_detail=["tags"]))


def test_a_file_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(
        f"secret = 's'\nrecords = 'sqlite:///{tmp_path}/dedup.db'\nrecords_detail = ['tags']\n",
        encoding="utf-8",
    )

    dedup = DedupMiddleware(GatedApp(), config=file).dedup

    assert dedup.recorder is not None
    assert ResponseStored in dedup.recorder._subscription._kinds


@pytest.mark.parametrize(
    ("missing", "url", "extra"),
    [
        ("sqlalchemy", "sqlite:///x.db", "records"),
        ("alembic", "sqlite:///x.db", "records"),
        ("asyncpg", "postgresql://h/d", "postgres"),
        ("greenlet", "postgresql://h/d", "postgres"),
    ],
)
def test_a_missing_extra_says_what_to_install(
    missing: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    sentence = refused(lambda: Dedup(records=url, secret="s"))

    assert sentence == (
        f"Dedup.records: {missing} is not installed; "
        f"needed: python -m pip install 'dedup-middleware[{extra}]'"
    )


def test_questions_without_the_extra_say_what_to_install_too() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; from dedup_middleware.records import analytics"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr.endswith(
        "ModuleNotFoundError: dedup_middleware.records.analytics: sqlalchemy is not installed; "
        "needed: python -m pip install 'dedup-middleware[records]'\n"
    )


def test_without_records_no_database_is_imported() -> None:
    code = (
        "import sys, dedup_middleware as d; d.Dedup(); "
        "print([m for m in sys.modules if m.startswith(('sqlalchemy', 'alembic', 'sqlite3'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "[]\n"


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/dedup.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.empty()


def looked_at(url: str, look: Callable[[Connection], Any]) -> Any:
    async def work() -> Any:
        ledger = open_ledger(url)
        try:
            return await ledger.run(look)
        finally:
            await ledger.aclose()

    return run_in_thread(work)


def test_the_migrations_make_the_tables_of_the_code_and_no_others(empty_url: str) -> None:
    upgrade(empty_url)

    def differences(connection: Connection) -> Any:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        return compare_metadata(context, schema.metadata)

    assert looked_at(empty_url, differences) == []


def test_each_outcome_has_its_column() -> None:
    assert set(OUTCOMES) <= set(COLUMNS)
    assert {*COLUMNS, "saved"} == {column.name for column in schema.minutes.columns} - {"rule", "minute"}


def test_the_newest_migration_is_the_one_that_the_code_needs() -> None:
    assert ScriptDirectory(str(FOLDER)).get_current_head() == schema.HEAD


def test_a_downgrade_takes_back_what_an_upgrade_made_and_both_can_be_repeated(empty_url: str) -> None:
    def tables(connection: Connection) -> set[str]:
        return set(inspect(connection).get_table_names())

    for _ in range(2):
        assert migrate("upgrade", empty_url, "head") == "the ledger's tables are at 0002 now; they were none"
        assert (
            migrate("upgrade", empty_url, "head") == "the ledger's tables are at 0002 now; they were at 0002"
        )
        assert looked_at(empty_url, tables) == {
            *schema.metadata.tables,
            schema.VERSION_TABLE,
        }
        assert (
            migrate("downgrade", empty_url, "base") == "the ledger's tables are none now; they were at 0002"
        )
        assert looked_at(empty_url, tables) == {schema.VERSION_TABLE}


def test_an_older_ledger_keeps_what_it_counted_and_a_downgrade_counts_stale_answers_as_hits(
    empty_url: str,
) -> None:
    migrate("upgrade", empty_url, "0001")
    looked_at(
        empty_url,
        lambda connection: connection.exec_driver_sql(
            "INSERT INTO dedup_minutes VALUES ('a', 60, 5, 1, 2, 3, 0.5)"
        ),
    )
    migrate("upgrade", empty_url, "head")

    def fill(gathering: Gathering) -> None:
        gathering.requests("a", 60, "stale", "stale-if-error", 10, 1.0)
        gathering.requests("a", 60, "revalidated", "stale", 20, 0.0)

    async def add() -> None:
        ledger = open_ledger(empty_url)
        await ledger.write(chunk(fill))
        await ledger.aclose()

    run_in_thread(add)

    def counted(names: str) -> tuple[Any, ...]:
        row = looked_at(
            empty_url,
            lambda connection: connection.exec_driver_sql(f"SELECT {names} FROM dedup_minutes").one(),
        )
        return tuple(row)

    assert counted("hit, stale, revalidated, collapsed, forwarded, bypassed, saved") == (
        5,
        10,
        20,
        1,
        2,
        3,
        1.5,
    )
    migrate("downgrade", empty_url, "-1")
    assert counted("*") == ("a", 60, 35, 1, 2, 3, 1.5)


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    looked_at(empty_url, lambda connection: connection.exec_driver_sql("CREATE TABLE dedup_minutes (x int)"))

    with pytest.raises(LedgerError, match="nothing has changed"):
        migrate("upgrade", empty_url, "head")

    assert looked_at(empty_url, lambda connection: inspect(connection).get_table_names()) == ["dedup_minutes"]


def test_threads_of_one_process_may_each_make_a_ledger_s_tables(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        said = set(pool.map(lambda url: migrate("upgrade", url, "head"), urls))

    assert said == {"the ledger's tables are at 0002 now; they were none"}


def test_two_upgrades_at_once_are_one(empty_url: str) -> None:
    command = [sys.executable, "-m", "dedup_middleware", "records", "upgrade", "--url", empty_url]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]


@pytest.mark.parametrize("kind", ["missing", "behind", "newer"])
def test_tables_that_are_not_this_version_s_are_refused_with_the_command(kind: str, empty_url: str) -> None:
    if kind == "missing":
        looked_at(empty_url, lambda connection: connection.exec_driver_sql("CREATE TABLE theirs (x int)"))
    else:
        upgrade(empty_url)
        number = "0000" if kind == "behind" else "9999"
        looked_at(
            empty_url,
            lambda connection: connection.exec_driver_sql(
                f"UPDATE dedup_schema SET version_num = '{number}'"
            ),
        )

    sentence = refused(lambda: Dedup(records=empty_url, secret="s"))

    command = "downgrade --to 0002" if kind == "newer" else "upgrade"
    assert f"python -m dedup_middleware records {command} --url " in sentence


async def test_a_new_file_gets_its_tables_by_itself(tmp_path: Path) -> None:
    dedup = Dedup(records=f"sqlite:///{tmp_path}/dedup.db", secret="s")
    await get(DedupMiddleware(GatedApp(opened=True), dedup=dedup), "/")
    await dedup.aclose()

    with sqlite3.connect(tmp_path / "dedup.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM dedup_executions").fetchone() == (1,)
    database.close()


def test_a_postgresql_database_does_not(postgres: Postgres) -> None:
    assert "records upgrade" in refused(lambda: Dedup(records=postgres.empty(), secret="s"))


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_upgrades_and_downgrades(empty_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["records", "upgrade", "--url", empty_url]) == 0
    assert capsys.readouterr().out == "the ledger's tables are at 0002 now; they were none\n"
    assert command_line(["records", "downgrade", "--to", "base", "--url", empty_url]) == 0
    assert capsys.readouterr().out == "the ledger's tables are none now; they were at 0002\n"
    assert command_line(["records", "downgrade", "--to", "base", "--url", empty_url]) == 0
    assert capsys.readouterr().out == "the ledger's tables are none now; they were none\n"
    assert command_line(["records", "downgrade", "--url", empty_url]) == 1
    assert "the downgrade to -1 failed, nothing has changed (it has no tables)" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["-1", "base"])
def test_a_downgrade_of_a_file_that_is_not_there_makes_none(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ledgr.db"

    assert command_line(["records", "downgrade", f"--to={to}", "--url", f"sqlite:///{file}"]) == 1
    assert (
        f"the downgrade to {to} failed, nothing has changed (there is no such file)"
        in capsys.readouterr().err
    )
    assert not file.exists()


@pytest.mark.parametrize(
    "url", ["mysql://user:hunter2@h/d", "postgresql://user:hunter2@127.0.0.1:9/d", "sqlite:////no/x.db"]
)
def test_what_the_command_can_t_do_is_one_sentence_without_the_password(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["records", "upgrade", "--url", url]) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "hunter2" not in said.err


def test_the_command_asks_for_a_direction(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line(["records"])

    assert caught.value.code == 2
    assert "DIRECTION" in capsys.readouterr().err


# -- the page ----------------------------------------------------------------------------------------------------------


def table_under(heading: str) -> dict[str, list[str]]:
    """The first table under a heading: the name in a line's first cell -> its other cells."""
    text = PAGE.split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None, heading
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]
    return {row[0].strip("`| "): row[1:] for row in rows}


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("### An execution", Execution),
        ("### Operations", answers.Operation),
        ("### Rates", answers.RuleRates),
        ("### Latency", answers.Latency),
        ("### Heatmap", answers.Cell),
        ("### Trend", answers.Trend),
        ("### Series", answers.Point),
        ("### Memory", answers.MemoryPoint),
    ],
)
def test_each_table_of_fields_is_the_code_s(heading: str, struct: type[msgspec.Struct]) -> None:
    assert list(table_under(heading)) == list(struct.__struct_fields__)


def test_each_table_of_the_database_is_on_the_page() -> None:
    assert set(table_under("## Tables")) == {*schema.metadata.tables, schema.VERSION_TABLE}


def test_each_function_is_on_the_page_with_its_parameters() -> None:
    import inspect as inspecting

    documented = table_under("## Questions")
    functions = {
        name: function
        for name, function in vars(analytics).items()
        if inspecting.iscoroutinefunction(function)
    }
    assert set(documented) == set(functions)
    for name, cells in documented.items():
        parameters = list(inspecting.signature(functions[name]).parameters)[1:]
        assert re.findall(r"`(\w+)`", cells[0]) == parameters, name


def test_the_page_names_the_bounds_of_the_code() -> None:
    from dedup_middleware.records import gathering, recorder

    for said in (
        f"`max_age={int(DEFAULT_AGE // 86400)}d`",
        f"`max_rows={DEFAULT_ROWS}`",
        f"{gathering.MAX_EXECUTIONS:,} fingerprints",
        f"{gathering.MAX_ROLLUPS:,} rows of the time series",
        f"{recorder.CLOSING:g} seconds",
        f"{recorder.PATIENCE:g} seconds",
    ):
        assert said in PAGE, said


def test_the_wheel_carries_the_migrations() -> None:
    assert sorted(file.name for file in (FOLDER / "versions").glob("r*.py")) == [
        "r0001_records.py",
        "r0002_outcomes.py",
    ]
    assert shutil.which("alembic") is None or not (FOLDER.parent / "alembic.ini").exists()
