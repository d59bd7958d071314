"""Says what is wrong with an answer.

Law: every expectation of a row is checked, and with it what holds for every answer: one Cache-Status, one Age.
"""

from __future__ import annotations

import re
from typing import Any

from .cache_status import Parameters, parse
from .case import Ask, At, Wanted
from .client import Answer
from .world import World


def collapsed(answer: Answer) -> bool:
    """Whether an answer says that another request's run brought it."""
    lines = answer.values("cache-status")
    return bool(lines) and parse(lines[-1])[-1][1].get("collapsed") is True


def judge(world: World, one: Ask, answer: Answer, before: int) -> list[str]:
    """What is wrong with an answer; `before` is how often the app had run when it was asked for."""
    if one.source == "broken":
        return [] if not answer.whole else [f"a whole answer, {answer.status}, expected one that breaks off"]
    if not answer.whole:
        return [f"the answer broke off, {answer.status} {answer.body!r}"]
    return [
        *_status_and_body(world, one, answer, before),
        *_compare("answer", answer.values, {**dict.fromkeys(one.lacks), **one.has}, world),
        *_seen(world, one, before),
        *_told(one, answer, world, before),
    ]


def _newest(world: World, upto: int) -> int:
    """The newest run that gave a whole response."""
    for number in range(upto, 0, -1):
        reply = world.reply(number)
        if reply.status not in (206, 304) and not reply.trouble and world.seen[number - 1].method != "HEAD":
            return number
    return 0


def _status_and_body(world: World, one: Ask, answer: Answer, before: int) -> list[str]:
    ran = len(world.seen)
    if one.of is not None:
        of = one.of
    elif one.source in {"store", "rescued"}:
        of = _newest(world, before)
    elif one.source == "check" and ran and world.reply(ran).status == 304:
        of = _newest(world, ran)
    else:
        of = ran
    status = one.status
    body = one.body.encode("latin-1") if isinstance(one.body, str) else None
    if 0 < of <= max(ran, 1):
        status = world.reply(of).status if status is None else status
        if body is None and status == world.reply(of).status:
            body = world.body(of)
    empty = one.method == "HEAD" or status in (204, 304)
    wrong = [] if status in (None, answer.status) else [f"status {answer.status}, expected {status}"]
    if empty and answer.body:
        wrong.append(f"body {answer.body!r}, expected none")
    if isinstance(one.body, re.Pattern):
        if not one.body.fullmatch(answer.body.decode("latin-1")):
            wrong.append(f"body {answer.body!r}, expected one like {one.body.pattern}")
    elif body is not None and not empty and answer.body != body:
        wrong.append(f"body {answer.body!r}, expected {body!r}")
    return wrong


def _compare(where: str, values: Any, wanted: dict[str, Wanted], world: World) -> list[str]:
    wrong = []
    for name, value in wanted.items():
        got = values(name.lower())
        if isinstance(value, re.Pattern):
            if len(got) != 1 or not value.fullmatch(got[0]):
                wrong.append(f"{where}: {name} is {got}, expected one line like {value.pattern}")
            continue
        lines = () if value is None else (value,) if isinstance(value, (str, At)) else value
        expected = [world.placed(line) for line in lines]
        if got != expected:
            wrong.append(f"{where}: {name} is {got}, expected {expected}")
    return wrong


def _seen(world: World, one: Ask, before: int) -> list[str]:
    if len(world.seen) == before:
        return ["the app saw nothing"] if one.saw else []
    seen = world.seen[before]
    wrong = _compare("the app", seen.values, dict(one.saw), world)
    validators = [name for name in ("if-none-match", "if-modified-since") if seen.values(name)]
    if one.source == "check" and not validators:
        wrong.append("the app was asked without validators")
    if one.source == "app" and validators:
        wrong.append(f"the app was asked with {validators}")
    return wrong


def _told(one: Ask, answer: Answer, world: World, before: int) -> list[str]:
    lines, ages = answer.values("cache-status"), answer.values("age")
    if one.source == "through":
        return [] if not lines else [f"Cache-Status {lines} on what passes the middleware by"]
    if world.dedup is None or (answer.status == 500 and world.reply(len(world.seen)).trouble):
        return []
    wrong = []
    if len(ages) > 1 and one.source in ("store", "rescued", "check"):
        wrong.append(f"Age in {len(ages)} lines: {ages}")
    try:
        members = parse(", ".join(lines))
    except ValueError as error:
        return [*wrong, f"Cache-Status is not in the grammar: {error}"]
    name, says = members[-1]
    if name != "dedup":
        wrong.append(f"the last member of Cache-Status is {name}")
    return [*wrong, *_agrees(one, says, ages, world, before, lines)]


def _is(told: object, value: Any) -> bool:
    return bool(value.fullmatch(told)) if isinstance(value, re.Pattern) else told == value


def _agrees(
    one: Ask, says: Parameters, ages: list[str], world: World, before: int, lines: list[str]
) -> list[str]:
    wanted: dict[str, Any] = {}
    if one.source == "store":
        wanted = {"hit": True}
    elif one.source == "rescued":
        wanted = {"hit": None, "fwd": "stale"}
    elif one.source == "app":
        wanted = {"hit": None}
    elif one.source == "check":
        checked = len(world.seen) > before and world.reply(before + 1).status == 304
        wanted = {"hit": None, **({"fwd-status": 304} if checked and one.ran is None else {})}
    wanted |= one.says
    wrong = [
        f"Cache-Status {lines} says {key}={says.get(key)!r}, expected {value!r}"
        for key, value in wanted.items()
        if not _is(says.get(key), value)
    ]
    if "hit" not in says and "fwd" not in says and len(world.seen) > before:
        wrong.append(f"Cache-Status {lines} says neither hit nor fwd")
    if "hit" in says and not (len(ages) == 1 and ages[0].isdigit()):
        wrong.append(f"a hit whose Age is {ages}")
    return wrong
