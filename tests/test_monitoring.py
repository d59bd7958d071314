"""Prometheus and Grafana: every query names only what a scrape of the package's own metrics brings."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.status import OUTCOMES, REASONS

from .kit import FakeClock, GatedApp, all_of, call, get, settle
from .test_docs import table
from .test_metrics import UNITS

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"
RULES: dict[str, Any] = yaml.safe_load((DOCS / "prometheus-rules.yaml").read_text(encoding="utf-8"))
BOARD: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""
WORDS = frozenset("by without on ignoring group_left group_right and or unless bool offset".split())
FUNCTIONS = frozenset(
    "sum rate increase histogram_quantile topk vector avg max min count label_values absent".split()
)
Scraped = dict[str, frozenset[str]]


@pytest.fixture
async def scraped(clock: FakeClock, make_dedup: Callable[..., Dedup]) -> AsyncIterator[Scraped]:
    """Names of series and their labels, after everything that a metric tells of has happened."""
    reader = PrometheusMetricReader()
    try:
        provider = MeterProvider([reader], shutdown_on_exit=False)
        dedup = make_dedup(Rule("/kept", ttl=60, max_responses=1), meter_provider=provider)
        gated = GatedApp()
        app = DedupMiddleware(gated, dedup=dedup)
        calls = [call(app, "/kept") for _ in range(3)]
        await settle()
        clock.advance(1)
        gated.gate.set()
        await all_of(calls)
        for target in ("/kept", "/kept?other", "/elsewhere"):
            await get(app, target)
        await get(app, method="POST")
        await dedup.invalidate("nothing")
        dedup.store_failed("put", OSError())
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(generate_latest(REGISTRY).decode()):
            for sample in family.samples:
                if sample.name.startswith("dedup_"):
                    found.setdefault(sample.name, set()).update(sample.labels)
        yield {name: frozenset(labels) for name, labels in found.items()}
    finally:
        reader.shutdown()


# -- reading PromQL --------------------------------------------------------------------------------------------------


class Selector(NamedTuple):
    """A series' name and what its labels are compared with."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


class Query(NamedTuple):
    """What a query names: selectors, labels that it groups by, functions."""

    selectors: tuple[Selector, ...]
    grouped: frozenset[str]
    functions: frozenset[str]


_MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*')
_NAME = re.compile(r"(?<![\w.])[a-zA-Z_:][\w:]*")


def parse(expression: str) -> Query:
    """Read a query; what is no number, no operator and no known word must be a name."""
    selectors: list[Selector] = []
    grouped: set[str] = set()
    functions: set[str] = set()

    def group(found: re.Match[str]) -> str:
        grouped.update(label.strip() for label in found[1].split(","))
        return " "

    def selector(found: re.Match[str]) -> str:
        matchers = [_MATCHER.fullmatch(one) for one in re.findall(r'[^,"]*"[^"]*"[^,"]*', found[2] or "")]
        assert all(matchers), found[0]
        selectors.append(Selector(found[1], tuple((m[1], m[2], m[3]) for m in matchers if m)))
        return " "

    text = re.sub(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", group, expression)
    text = re.sub(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", selector, text)
    text = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", text)
    assert "{" not in text, expression
    assert text.count("(") == text.count(")"), expression
    for found in _NAME.finditer(text):
        if text[found.end() :].lstrip().startswith("("):
            functions.add(found[0])
        elif found[0] not in WORDS:
            selectors.append(Selector(found[0], ()))
    return Query(tuple(selectors), frozenset(grouped), frozenset(functions - WORDS))


def test_a_query_is_read_as_it_is_written() -> None:
    query = parse(
        'histogram_quantile(0.95, sum by (le, job) (rate(a_bucket{x=~"1|2", y!=""}[5m]))) or 0 * b:c offset 5m > 1e3'
    )

    assert query == Query(
        (Selector("a_bucket", (("x", "=~", "1|2"), ("y", "!=", ""))), Selector("b:c", ())),
        frozenset({"le", "job"}),
        frozenset({"histogram_quantile", "sum", "rate"}),
    )


# -- what is queried -------------------------------------------------------------------------------------------------


def rules() -> Iterator[tuple[str, str]]:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("record") or rule["alert"], rule["expr"]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target


def variables() -> Iterator[tuple[str, str]]:
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert found is not None
            assert variable["query"]["query"] == variable["definition"]
            yield variable["name"], f"sum by ({found[2]}) ({found[1]})"


def pages() -> Iterator[tuple[str, str]]:
    for page in DOCS.glob("*.md"):
        for block in re.findall(
            r"^```promql\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            yield page.name, block


RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
QUERIES = [
    *rules(),
    *((name, target["expr"]) for name, target in panels()),
    *((f"${name}", expression) for name, expression in variables()),
    *pages(),
]


def concrete(expression: str) -> str:
    """With Grafana's own variables filled in."""
    expression = re.sub(r"\$__(?:rate_interval|range|interval)", "5m", expression)
    return re.sub(r'"\$(?:job|rule)"', '".*"', expression)


@pytest.mark.parametrize(("name", "expression"), QUERIES, ids=[name for name, _ in QUERIES])
async def test_a_query_names_only_what_is_scraped_or_recorded(
    name: str, expression: str, scraped: Scraped
) -> None:
    query = parse(concrete(expression))
    recorded = {one: parse(by).grouped for one, by in rules() if one in RECORDED}
    known = {series: labels | TARGET for series, labels in scraped.items()} | recorded
    assert "$" not in concrete(expression)
    assert query.selectors
    assert query.functions <= FUNCTIONS
    available = frozenset[str]()
    for selector in query.selectors:
        assert selector.name in known, f"{selector.name} is neither scraped nor recorded"
        labels = known[selector.name] or query.grouped  # a recorded sum of what was recorded
        for label, operator, value in selector.matchers:
            assert label in labels, f"{selector.name} has no label {label}"
            closed = {"dedup_outcome": OUTCOMES, "dedup_reason": REASONS}.get(label)
            if closed is not None and value not in {"", ".*"}:
                assert set(value.split("|") if "~" in operator else [value]) <= set(closed)
        available |= labels
    assert query.grouped <= available


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(dedup_request_total[5m])",
        "sum by (dedup_key) (rate(dedup_requests_total[5m]))",
        'rate(dedup_requests_total{rule="a"}[5m])',
        'rate(dedup_requests_total{dedup_outcome="miss"}[5m])',
        'rate(dedup_requests_total{dedup_reason=~"miss|moon"}[5m])',
        "rates(dedup_requests_total[5m])",
        "job_rule:dedup_nothing:rate5m > 1",
    ],
)
async def test_a_wrong_query_would_be_found(wrong: str, scraped: Scraped) -> None:
    with pytest.raises(AssertionError):
        await test_a_query_names_only_what_is_scraped_or_recorded("wrong", wrong, scraped)


async def test_the_page_has_every_series_with_its_labels(scraped: Scraped) -> None:
    documented: dict[str, frozenset[str]] = {}
    for cells in table("monitoring.md", "## Names"):
        name = re.findall(r"`(\w+)`", cells[1])[0]
        documented[name] = frozenset(re.findall(r"`(\w+)`", cells[2]))
    real: dict[str, frozenset[str]] = {}
    for name, labels in scraped.items():
        series = re.sub(r"_(bucket|sum|count)$", "", name)
        if not name.endswith("_created"):
            shown = {label for label in labels - {"le"} if not label.startswith("otel_scope_")}
            real[series] = real.get(series, frozenset()) | shown

    assert documented == real
    instruments = [cells[0].strip("`| ") for cells in table("monitoring.md", "## Names")]
    assert sorted(instruments) == sorted(UNITS)


# -- the rules -------------------------------------------------------------------------------------------------------


def test_the_rules_are_as_prometheus_wants_them() -> None:
    for group in RULES["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            if "record" in rule:
                assert set(rule) == {"record", "expr"}
                assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule["record"])
            else:
                assert (
                    {"alert", "expr", "labels", "annotations"}
                    <= set(rule)
                    <= {*("alert", "expr", "for", "labels", "annotations")}
                )
                assert set(rule["annotations"]) == {"summary", "description"}
                assert rule["labels"]["severity"] in {"warning", "critical"}
    names = [name for name, _ in rules()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "rule",
    [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule],
    ids=lambda r: r["alert"],
)
def test_an_alert_names_only_labels_that_its_query_leaves(rule: dict[str, Any]) -> None:
    recorded = {name: parse(expression).grouped for name, expression in rules() if name in RECORDED}
    query = parse(rule["expr"])
    left = query.grouped or frozenset().union(*(recorded[one.name] for one in query.selectors))
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= left
        assert text.count("{{") == text.count("}}")


def test_the_page_explains_every_rule_and_no_other() -> None:
    page = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([A-Z]\w+|job_[\w:]+)` \|", page, re.MULTILINE)

    assert documented == [name for name, _ in rules()]


# -- the dashboard ---------------------------------------------------------------------------------------------------


def test_the_panels_tell_themselves_apart_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    titles = [panel["title"] for panel in BOARD["panels"] if panel["type"] != "row"]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


def test_the_board_is_what_grafana_imports() -> None:
    assert BOARD["id"] is None, "Grafana gives it a number"
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", BOARD["uid"])
    assert 1 <= len(BOARD["title"]) <= 5000
    assert 36 <= BOARD["schemaVersion"] <= 42
    assert "__inputs" not in BOARD, "an export's questions; the data source is a variable instead"
    for panel in BOARD["panels"]:
        assert type(panel["id"]) is int
        assert panel["id"] > 0
        assert panel["type"] in {
            "row",
            "stat",
            "timeseries",
            "table",
            "heatmap",
            "bargauge",
            "gauge",
            "piechart",
        }
        assert set(panel["gridPos"]) == {"x", "y", "w", "h"}
        assert all(type(value) is int and value >= 0 for value in panel["gridPos"].values())
        assert min(panel["gridPos"]["w"], panel["gridPos"]["h"]) > 0
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs)
        assert all(re.fullmatch("[A-Z]", ref) for ref in refs)
        assert panel["type"] != "row" or (panel["collapsed"], panel["panels"]) == (False, [])


def test_every_variable_of_the_board_is_defined_and_used() -> None:
    defined = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    told = json.dumps(BOARD["panels"]) + json.dumps([one.get("query") for one in defined.values()])
    used = {name for name in re.findall(r"\$\{?(\w+)", told) if not name.startswith("__")}
    sources = json.dumps([one.get("datasource") for one in defined.values()])

    assert used | set(re.findall(r"\$\{(\w+)", sources)) == set(defined)
    for variable in defined.values():
        assert variable["type"] in {"datasource", "query"}
        assert variable.get("allValue") in (None, ".*") or not variable["includeAll"]


def test_every_panel_asks_the_data_source_that_is_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert BOARD["templating"]["list"][0]["type"] == "datasource"
    for panel in BOARD["panels"]:
        if panel["type"] != "row":
            assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [
                chosen
            ] * (1 + len(panel["targets"]))


@pytest.mark.parametrize("target", [target for _, target in panels()], ids=[name for name, _ in panels()])
def test_a_legend_names_only_labels_that_its_query_leaves(target: dict[str, Any]) -> None:
    query = parse(concrete(target["expr"]))
    left = query.grouped or TARGET

    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left
