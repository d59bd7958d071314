"""Windows: how a span of time, a rule and a page become a part of a statement.

Law: a statement is built once for each shape; what changes from question to question is a parameter, and a number on
which its plan depends (a limit, a step) stands in its text.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlalchemy import BigInteger, Integer, Select, bindparam, cast, func, literal_column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..answers import Latency, RuleRates

Answer = TypeVar("Answer", "Latency", "RuleRates")

DAY: Final = 86_400.0
MAX_LIMIT: Final = 20_000
POINTS: Final = 200
"""Points of one rule in a series, at most, unless a step is asked for."""
SHAPES: Final = 64
"""Statements that are kept of each question."""
_STEPS: Final = (60, 300, 900, 3600, 6 * 3600, 86_400)


class Window(NamedTuple):
    """From when (included) until when (not included)."""

    since: float
    until: float

    def parameters(self, rule: str | None) -> dict[str, Any]:
        """What a statement `within` a window, and perhaps `under` a rule, is asked with."""
        return {"since": int(self.since), "until": int(self.until), "rule": rule}


def window(since: float | None, until: float | None, length: float = DAY) -> Window:
    """What is asked for, or what ends with this second and is so long: what was counted just now is in it."""
    end = float(int(time.time()) + 1) if until is None else until
    return Window(end - length if since is None else since, end)


def page(limit: int, offset: int) -> tuple[int, int]:
    """Limit and offset within their bounds."""
    return max(1, min(limit, MAX_LIMIT)), max(0, offset)


def stride(asked: Window) -> int:
    """The seconds of a step, so that a window has not too many points."""
    length = asked.until - asked.since
    return next((step for step in _STEPS if length / step <= POINTS), _STEPS[-1])


def most_first(found: Iterable[Answer], limit: int, offset: int) -> dict[str, Any]:
    """The page of those with the most requests."""
    ordered = sorted(found, key=lambda one: (-one.requests, one.rule))
    return {
        "offset": offset,
        "limit": limit,
        "more": len(ordered) > offset + limit,
        "items": ordered[offset : offset + limit],
    }


def share(part: int, whole: int) -> float:
    """A part of a whole, 0 to 1; of nothing it is 0."""
    return part / whole if whole else 0.0


def whole(number: int) -> Any:
    """A number in the statement's text: as a parameter it would not be the same in a list of columns and a group."""
    return literal_column(str(int(number)), Integer)


def total(column: Any) -> Any:
    """A sum of counts that is as whole as these: PostgreSQL's own is a decimal fraction, slow to read."""
    return cast(func.sum(column), BigInteger)


def under(statement: Select[Any], table: Any, *, ruled: bool) -> Select[Any]:
    """The statement for one rule, where one is asked for."""
    return statement.where(table.c.rule == bindparam("rule", type_=table.c.rule.type)) if ruled else statement


def within(statement: Select[Any], table: Any, *, ruled: bool = False) -> Select[Any]:
    """The statement for the minutes of a window."""
    minute = table.c.minute
    since, until = bindparam("since", type_=minute.type), bindparam("until", type_=minute.type)
    return under(statement.where(minute >= since, minute < until), table, ruled=ruled)
