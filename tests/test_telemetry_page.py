"""The page about telemetry names what the package really emits, all of it and nothing else."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule, RuleStats, Stats
from dedup_middleware.events import AlertRaised

from .kit import FakeClock, GatedApp, call, get, settle
from .telemetry_kit import FaultyTracers, Metrics, Seen, attributes, failing, story, with_route

Make = Callable[..., Dedup]


PAGE = (Path(__file__).parent.parent / "docs/telemetry.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def table(heading: str, first: str) -> list[list[set[str]]]:
    """What stands in code style in each cell of a heading's table that begins with such a column."""
    rows = section(heading).split(f"| {first} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[set(re.findall(r"`([^`]+)`", cell)) for cell in row.strip("|").split(" | ")] for row in rows]


def confirmed(_scope: object, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """A response that lives for ten seconds; later runs confirm it."""
    fields = [(b"cache-control", b"max-age=10"), (b"etag", b'"a"')]
    return (200, fields, b"body") if run == 1 else (304, fields, b"")


class Everything(logging.Handler):
    """All that is emitted while requests of every kind are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.metrics = Metrics()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    async def happen(self, make: Make, clock: FakeClock) -> None:
        settings: dict[str, Any] = {"meter_provider": self.metrics.provider}
        dedup = make(Rule("/kept", ttl=60), tracer_provider=self.seen.provider, **settings)

        def slow(*_: object) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
            clock.advance(1)
            return 200, [], b""

        bare = GatedApp(slow)
        await story(DedupMiddleware(with_route(bare, "/kept"), dedup=dedup), dedup, bare)
        app = DedupMiddleware(failing, dedup=dedup)
        await asyncio.gather(*(one.task for one in [call(app), call(app)]), return_exceptions=True)
        aging = make(
            Rule("/", ttl="origin", stale_while_revalidate=9), tracer_provider=self.seen.provider, **settings
        )
        app = DedupMiddleware(GatedApp(confirmed, opened=True), dedup=aging)
        for wait in (0, 11, 30):  # stored, then stale and renewed in the background, then confirmed
            clock.advance(wait)
            await get(app)
            await settle()
        broken = make(tracer_provider=FaultyTracers(self.seen.provider, "end"), **settings)
        await get(DedupMiddleware(GatedApp(opened=True), dedup=broken))
        dedup.store_failed("get", OSError())

    def extras(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for record in self.records:
            names = {name for name in record.__dict__ if name.startswith("dedup_")}
            found.setdefault(record.name, set()).update(names)
        return found


@pytest.fixture
async def everything(make_dedup: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Everything:
    everything = Everything()
    logger = logging.getLogger("dedup_middleware")
    monkeypatch.setattr(logger, "handlers", [everything])
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    for name in ("", ".requests", ".flights", ".parts"):
        logging.getLogger(f"dedup_middleware{name}")._cache.clear()  # type: ignore[attr-defined] # logging's memory of levels, which the stubs leave out
    await everything.happen(make_dedup, clock)
    return everything


async def test_the_page_names_every_span_and_event_and_no_other(everything: Everything) -> None:
    rows = table("Spans", "name")
    documented = {(name.removesuffix(" {place}"), bool(row[-1])) for row in rows for name in row[0]}
    emitted: dict[str, bool] = {}
    for span in everything.seen.spans:
        assert {event.name for event in span.events} <= {"head"}
        kind = span.name.split()[0]
        emitted[kind] = emitted.get(kind, False) or bool(span.events)
    assert documented == set(emitted.items())


async def test_the_page_names_every_attribute_of_a_span_and_no_other(everything: Everything) -> None:
    documented = {name for row in table("Spans", "attribute") for name in row[0]}
    assert documented == {name for span in everything.seen.spans for name in attributes(span)}


async def test_the_page_names_every_instrument_with_its_kind_unit_and_attributes(
    everything: Everything,
) -> None:
    kinds = {True: "counter", False: "up-down counter", None: "histogram"}
    emitted = {
        metric.name: (
            kinds[getattr(metric.data, "is_monotonic", None)],
            metric.unit,
            {name for point in metric.data.data_points for name in point.attributes},
        )
        for metric in everything.metrics.all()
    }
    documented = {}
    for row in re.findall(r"^\| `.*\|$", section("Metrics"), re.MULTILINE):
        name, kind, unit, names, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        documented[name.strip("`")] = (kind, unit.strip("`"), set(re.findall(r"`([^`]+)`", names)))
    assert documented == emitted


async def test_the_page_names_every_logger_and_extra_field_and_no_other(everything: Everything) -> None:
    documented = {name: row[-1] for row in table("Log lines", "logger") for name in row[0]}
    assert documented.pop("dedup_middleware") == set(), "tells of a configuration at start only"
    raised = AlertRaised(at=2e9, alert="few hits", message="few", value=0.1, threshold=0.5, rule="git")
    Dedup().telemetry.alert(0.0, raised, "raised")
    assert documented == everything.extras()


def test_the_page_names_every_statistic_and_no_other() -> None:
    documented = {name for row in table("Numbers without a backend", "field") for name in row[0]}
    assert documented == {field.name for field in msgspec.structs.fields(Stats)}
    of_rules = {field.name for field in msgspec.structs.fields(RuleStats)}
    assert (
        next(row[1] for row in table("Numbers without a backend", "field") if "rules" in row[0]) == of_rules
    )
