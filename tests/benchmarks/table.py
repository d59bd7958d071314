"""The marks, and the table that says which ones are met."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from .apps import SHAPES
from .race import Times


class Row(msgspec.Struct, frozen=True):
    """One line: a value in microseconds (or what `unit` says), in L0 and L1, its mark, and whether it is met."""

    what: str
    value: float
    in_l0: float | None
    in_l1: float | None
    mark: str = ""
    ok: bool | None = None
    unit: str = "us"


class Judge:
    """Turns the race's figures into rows: each a median over rounds of what one round gave."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.rows: list[Row] = []

    def over(self, values: Sequence[float], unit: str) -> float:
        """Values of each round in units of that round's L0 or L1, or as a ratio to another contender."""
        return median(value / one for value, one in zip(values, self.times[unit], strict=True))

    def less(self, name: str, bare: str) -> list[float]:
        """What one costs more than another, round by round."""
        return [more - one for more, one in zip(self.times[name], self.times[bare], strict=True)]

    def _row(self, what: str, values: Sequence[float], mark: str, l0: float | None, l1: float | None) -> None:
        in_l0, in_l1 = self.over(values, "L0"), self.over(values, "L1")
        met = (l0 is None or in_l0 <= l0) and (l1 is None or in_l1 <= l1)
        self.rows.append(Row(what, median(values), in_l0, in_l1, mark, met if mark else None))

    def cost(self, name: str, *, l0: float | None = None, l1: float | None = None) -> None:
        """What a request costs in all, against marks in L0 and L1."""
        marks = [f"{mark:g} {unit}" for mark, unit in ((l0, "L0"), (l1, "L1")) if mark is not None]
        self._row(name, self.times[name], " and ".join(marks), l0, l1)

    def adds(self, what: str, name: str, bare: str, *, l1: float) -> None:
        """What one contender costs more than another, against a mark in L1."""
        self._row(what, self.less(name, bare), f"adds {l1:g} L1", None, l1)

    def ratio(self, what: str, value: float, mark: float) -> None:
        """A plain ratio against its mark."""
        self.rows.append(Row(what, value, None, None, f"{mark:g}", value <= mark, unit="x"))


def judge(times: Times, bare_p99: float, p99: float) -> list[Row]:
    """All rows, in the order in which they are read."""
    table = Judge(times)
    table.cost("L0")
    table.cost("L1")
    table.cost("hit 1 KiB, 5 headers", l0=14, l1=0.6)
    table.cost("hit 1 KiB, a browser's 15", l0=20, l1=0.9)
    table.cost("hit 1 KiB, 15 and analytics cookies")
    for headers in ("5 headers", "a browser's 15"):
        small, large = f"hit 1 KiB, {headers}", f"hit 100 KiB, {headers}"
        table.cost(large)
        table.ratio(f"{large} / 1 KiB", table.over(times[large], small), 1.2)
    table.cost("POST 1 KiB JSON, again", l0=45)
    table.cost("POST 1 KiB JSON, first sight of its bytes")
    table.cost("POST 1 KiB JSON, never seen")
    table.cost("bypassed OPTIONS", l0=6)
    table.cost("bypassed GET, mode off", l0=6)
    table.cost("POST that invalidates, nothing stored", l0=14)
    table.cost("POST that invalidates one response", l0=14)
    table.cost("POST without a rule", l0=14)
    for kind in ("query", "path"):
        for policy in ("default rule", "storing rule"):
            for sdk, mark in (("SDK", 7), ("no SDK", 5)):
                name = f"never repeats, new {kind}, {policy}, {sdk}"
                table.adds(name, name, f"bare, new {kind}", l1=mark)
    for shape in SHAPES:
        thousand = times[f"hit, 1,000 rules: {shape}"]
        table.ratio(f"hit, 1,000 rules / 1: {shape}", table.over(thousand, f"hit, 1 rule: {shape}"), 1.2)
    for shape in SHAPES:
        name = f"new path, 1,000 rules - 1: {shape}"
        table.adds(name, f"new path, 1,000 rules: {shape}", f"new path, 1 rule: {shape}", l1=1)
    table.cost("one SDK span like a hit's")
    table.cost("hit, recording tracer")
    recorded = table.less("hit, recording tracer", "hit 1 KiB, 5 headers")
    table.ratio("(traced hit - hit) / one SDK span", table.over(recorded, "one SDK span like a hit's"), 1.3)
    table.rows.append(Row("stampede, p99 bare", bare_p99, None, None, unit="ms"))
    table.rows.append(Row("stampede, p99", p99, None, None, unit="ms"))
    table.ratio("stampede, p99 / bare", p99 / bare_p99, 1.5)
    return table.rows


def render(rows: list[Row]) -> str:
    """The table as text."""
    width = max(len(row.what) for row in rows)
    lines = [f"{'what':<{width}}  {'value':>9}     {'L0':>7} {'L1':>7}  {'mark':<18}"]
    for row in rows:
        in_l0 = "" if row.in_l0 is None else f"{row.in_l0:.2f}"
        in_l1 = "" if row.in_l1 is None else f"{row.in_l1:.2f}"
        verdict = {True: "ok", False: "MISSED", None: ""}[row.ok]
        value = f"{row.value:>9.2f} {row.unit:<2}  {in_l0:>7} {in_l1:>7}"
        lines.append(f"{row.what:<{width}}  {value}  {row.mark:<18} {verdict}".rstrip())
    missed = sum(row.ok is False for row in rows)
    met = sum(row.ok is True for row in rows)
    return "\n".join([*lines, "", f"{met} marks met, {missed} missed"])
