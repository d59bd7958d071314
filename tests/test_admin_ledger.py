"""The administration with a ledger: analytics as JSON and as CSV, the audit log's table, and a ledger that fails."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dedup_middleware import Dedup, Rule
from dedup_middleware.admin import analytics
from dedup_middleware.admin.analytics import KINDS, _cell
from dedup_middleware.admin.audit import Audit
from dedup_middleware.admin.table import MAX_WAITING, Entry, Table, table_of
from dedup_middleware.records import analytics as ledger_s
from dedup_middleware.records.analytics import windows

from .admin_kit import BEARER, House, logged
from .kit import FakeClock, eventually, get

pytestmark = pytest.mark.slow

FORMULA = '=HYPERLINK("http://evil.test")'


@pytest.fixture
async def house(ledger_url: str) -> AsyncIterator[House]:
    """Under a rule whose name is a formula, with requests in the ledger, on SQLite and on PostgreSQL."""
    dedup = Dedup(
        [Rule("/items/{item}", ttl=60, name=FORMULA, tags=["item:{item}"])],
        records=ledger_url,
        secret="a secret of the tests",
    )
    house = House(dedup=dedup)
    async with house.client() as client:
        for item in "aab":
            await client.get(f"http://app.test/items/{item}")
    assert dedup.recorder is not None
    assert await asyncio.wrap_future(dedup.recorder.flush())
    yield house
    thread = house.inside.api.audit._table.end()
    if thread is not None:  # its connection is closed while there is a server
        await asyncio.to_thread(thread.join, 30)
    await dedup.aclose()


async def test_analytics_are_json_in_pages(house: House) -> None:
    async with house.owner() as owner:
        for kind in KINDS:
            path = f"api/analytics/{kind.name}"
            whole = (await owner.get(path)).json()
            page = (await owner.get(path, params={"offset": 1, "limit": 1})).json()
            wrong = await owner.get(path, params={"limit": 20_001})

            assert whole[kind.rows], kind
            assert page[kind.rows] == whole[kind.rows][1:2]
            assert wrong.status_code == 400


async def test_analytics_are_a_table_that_no_spreadsheet_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics, "_PIECE", 1)  # so that there are several pages
    async with house.owner() as owner:
        for kind in KINDS:
            answer = await owner.get(f"api/analytics/{kind.name}.csv")
            whole = (await owner.get(f"api/analytics/{kind.name}")).json()
            rows = list(csv.DictReader(io.StringIO(answer.text)))

            assert answer.headers["content-type"].startswith("text/csv")
            assert answer.headers["content-disposition"] == f'attachment; filename="dedup-{kind.name}.csv"'
            assert len(rows) == len(whole[kind.rows])
            assert rows[0].get("rule", f"'{FORMULA}") == f"'{FORMULA}"


@pytest.mark.parametrize("kind", ["rates", "latency", "series"])
async def test_a_table_is_of_one_window_however_long_its_download_takes(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async with house.client() as client:
        await client.get("http://app.test/of/another/rule")
    assert house.dedup.recorder is not None
    assert await asyncio.wrap_future(house.dedup.recorder.flush())
    now, days = time.time(), itertools.count()
    monkeypatch.setattr(windows, "time", SimpleNamespace(time=lambda: now + windows.DAY * next(days)))
    monkeypatch.setattr(analytics, "_PIECE", 1)  # each page is asked for a day after the one before it
    async with house.owner() as owner:
        answer = await owner.get(f"api/analytics/{kind}.csv")

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["rule"] for row in rows} == {f"'{FORMULA}", "default"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_is_no_formula(start: str) -> None:
    assert _cell(f"{start}x") == f"'{start}x"
    assert (_cell("x"), _cell(-1), _cell(None), _cell(["=a"])) == ("x", -1, None, '["=a"]')
    assert (_cell(("=a", "b")), _cell(())) == ('["=a","b"]', "[]")


async def test_a_table_that_cannot_be_read_to_its_end_breaks_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = ledger_s.operations

    async def fail_later(*given: Any, **more: Any) -> Any:
        if more["offset"]:
            raise OSError("the disk is gone")
        return await operations(*given, **more)

    monkeypatch.setattr(ledger_s, "operations", fail_later)
    monkeypatch.setattr(analytics, "_PIECE", 1)
    bearer = [(name.lower().encode(), value.encode()) for name, value in BEARER.items()]
    with pytest.raises(RuntimeError, match="broke off at row 1"):
        await get(house.app, "/_dedup/api/analytics/operations.csv", headers=bearer)


async def test_without_a_ledger_it_says_so() -> None:
    house = House()
    async with house.owner() as owner:
        for name in ("rates", "rates.csv"):
            answer = await owner.get(f"api/analytics/{name}")
            assert (answer.status_code, list(answer.json())) == (404, ["error"])


async def test_a_ledger_that_fails_or_hangs_costs_a_sentence(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("geheim: the disk is gone")

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ledger_s, "rates", fail)
    monkeypatch.setattr(ledger_s, "latency", hang)
    monkeypatch.setattr(analytics, "_PATIENCE", 0.01)
    with logged("dedup_middleware.parts") as records:
        async with house.owner() as owner:
            answers = [await owner.get(f"api/analytics/{name}") for name in ("rates", "rates.csv", "latency")]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "geheim" not in answer.text
    assert "geheim" not in str([one.getMessage() for one in records])


async def test_the_audit_log_is_in_the_ledger_for_all_who_come_later(house: House) -> None:
    async with house.client() as stranger:
        await stranger.get("api/stats")
    async with house.owner() as owner:
        await owner.post("api/invalidate", json={"all": True})
        told = (await owner.get("api/audit")).json()
        page = (await owner.get("api/audit", params={"offset": 1, "limit": 1})).json()
    stored = await ledger_s.audits(house.dedup.ledger)  # type: ignore[arg-type] # the house has an SQL ledger

    assert [(one["what"], one["target"], one["result"]) for one in told["items"]] == [
        ("invalidate", "all", "2 dropped"),
        ("refused", "stats", "401 Unauthorized"),
    ]
    assert page == {"total": 2, "items": told["items"][1:]}
    assert [one.what for one in stored.items] == ["invalidate", "refused"]


async def test_a_ledger_that_fails_leaves_the_log_in_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(house.dedup.ledger), "note", fail)
    monkeypatch.setattr(ledger_s, "audits", fail)
    async with house.owner() as owner:
        assert (await owner.post("api/switch", json={"on": True})).status_code == 200
        told = (await owner.get("api/audit")).json()
    assert [(one["what"], one["target"]) for one in told["items"]] == [("switch on", "all")]


async def test_readiness_says_that_the_ledger_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(house.dedup.recorder), "trouble", "the disk is gone")
    async with house.owner() as owner:
        answer = await owner.get("api/health/ready")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "degraded", "store": "ok", "ledger": "failing"},
    )


class Stuck:
    """A ledger that takes nothing before it is let."""

    def __init__(self) -> None:
        import threading

        self.go = threading.Event()
        self.rows: list[dict[str, Any]] = []

    async def note(self, **row: Any) -> None:
        self.go.wait(30)
        self.rows.append(row)

    async def aclose(self) -> None: ...


async def ended(table: Table) -> bool:
    """End it, let its ledger take what waits, and say whether its thread is gone."""
    thread = table.end()
    table._ledger.go.set()  # type: ignore[attr-defined] # it is one of the above
    assert thread is not None
    await asyncio.to_thread(thread.join, 30)
    return not thread.is_alive()


async def test_a_stuck_ledger_holds_up_nobody_and_what_it_does_not_take_is_counted(clock: FakeClock) -> None:
    ledger = Stuck()
    table = Table(ledger)
    audit = Audit(clock, table)
    for number in range(MAX_WAITING + 500):
        audit.changed("token", "invalidate", f"tags {number}", "0 dropped")
    dropped = table.dropped
    ledger.go.set()
    await eventually(lambda: len(ledger.rows) + dropped == MAX_WAITING + 500)
    assert await ended(table)
    assert dropped >= 499
    assert table.end() is None


@pytest.mark.parametrize("what", ["refused", "invalidated"])
async def test_no_flood_keeps_what_people_change_out_of_the_table(clock: FakeClock, what: str) -> None:
    ledger = Stuck()
    table = Table(ledger)
    audit = Audit(clock, table)
    for number in range(MAX_WAITING + 100):
        if what == "refused":
            audit.refused(f"caller {number}", "stats", "429 Too Many Requests")
        else:
            audit.dropped("code", f"tags {number}", "0 dropped")
    audit.changed("token", "switch off", "all", "done")
    assert await ended(table)
    assert [row["what"] for row in ledger.rows[-2:]] == [what, "switch off"]
    assert len(ledger.rows) + table.dropped == MAX_WAITING + 101


async def test_a_table_that_is_full_is_ended_all_the_same() -> None:
    table = Table(Stuck())
    for number in range(MAX_WAITING + 2):
        table.add(Entry(1.0, "token", "invalidate", f"tags {number}", "0 dropped"))
    assert await ended(table)


async def test_a_repeat_is_a_row_with_its_number(clock: FakeClock) -> None:
    ledger = Stuck()
    ledger.go.set()
    table = Table(ledger)
    table.add(Entry(1.0, "a", "refused", "stats", "401", 10))
    await eventually(lambda: ledger.rows)
    table.end()
    assert ledger.rows == [
        {"at": 1.0, "who": "a", "what": "refused", "target": "stats", "result": "401 (10 times)"}
    ]


def test_what_comes_after_the_end_starts_nothing_anew() -> None:
    table = Table(Stuck())
    table.end()
    table.add(Entry(1.0, "a", "refused", "stats", "401"))
    assert table.dropped == 1
    assert table.end() is None


def test_a_ledger_without_such_a_table_keeps_none() -> None:
    assert table_of(object()) is None
    assert table_of(None) is None
