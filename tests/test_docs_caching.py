"""The page of HTTP caching: its tables are the code's, its rows are tests, and each Cache-Status can be seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.core.status import REASONS

from .conformance.rows import ROWS
from .kit import FakeClock, GatedApp, call, get, settle
from .test_docs import table

PAGE = "http-caching.md"
SECTIONS = {row.id: row.section for row in ROWS}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- tables ----------------------------------------------------------------------------------------------------------


def test_the_two_profiles_are_as_the_page_says() -> None:
    cautious, shared = Rule("/x", ttl="origin", vary="origin"), Rule.shared_cache("/x")
    rows = table(PAGE, "## The two profiles")
    fields = [quoted(cells[0])[0] for cells in rows]
    documented = [
        Rule(
            "/x", **{field: eval(quoted(cells[column])[0]) for field, cells in zip(fields, rows, strict=True)}
        )
        for column in (1, 2)
    ]
    set_by_either = {
        field.name
        for field in msgspec.structs.fields(Rule)
        if field.name != "path" and getattr(cautious, field.name) != getattr(shared, field.name)
    }

    assert documented == [cautious, shared]
    assert set_by_either <= set(fields)


@pytest.mark.parametrize("cells", table(PAGE, "## What is supported"), ids=lambda cells: cells[0][:40])
def test_what_is_supported_has_rows_of_its_sections_and_of_no_other(cells: list[str]) -> None:
    rows = quoted(cells[2])
    stated = {
        (rfc, section)
        for rfc, sections in re.findall(r"RFC (\d+)((?:(?!RFC).)*)", cells[1])
        for section in re.findall(r"[\d.]+", sections) or [""]
    }

    assert set(rows) <= set(SECTIONS)
    if stated:
        shown = {place for row in rows for place in stated if belongs(SECTIONS[row], place)}
        assert shown == stated
        assert not [row for row in rows if not any(belongs(SECTIONS[row], place) for place in stated)]


def belongs(section: str, place: tuple[str, str]) -> bool:
    """Whether a section, such as "9111 4.2.1", is in this section of this RFC."""
    return f"{section}.".startswith(f"{place[0]} {place[1]}" + "." * bool(place[1]))


def test_each_detail_is_a_reason() -> None:
    details = [detail for cells in table(PAGE, "### Details") for detail in quoted(cells[0])]

    assert len(details) == len(set(details))
    assert set(details) <= set(REASONS)


# -- Cache-Status ----------------------------------------------------------------------------------------------------

TAG = (b"etag", b'"a"')
Head = tuple[int, list[tuple[bytes, bytes]]]
Reply = Head | Exception


def ok(control: str = "", *pairs: tuple[bytes, bytes]) -> Head:
    return 200, [*([(b"cache-control", control.encode())] if control else []), *pairs]


def error(status: int) -> Head:
    return status, []


def asking(control: str) -> list[tuple[bytes, bytes]]:
    return [(b"cache-control", control.encode())]


FRESH, AGAIN = ok("max-age=60", TAG), (304, ok("max-age=60", TAG)[1])
CAUTIOUS, SHARED = Rule("/x", ttl="origin", vary="origin"), Rule.shared_cache("/x")
CROWD = "crowd"
"""Three requests at the same time; the last one's field counts."""
STRICT = "strict"
"""The same; the first one wants nothing stale."""
Step = list[tuple[bytes, bytes]] | float | str

SEEN: dict[str, tuple[Rule, list[Reply], list[Step]]] = {
    "dedup; hit; ttl=42": (CAUTIOUS, [FRESH], [[], 18, []]),
    "dedup; hit; ttl=-3; detail=stale-while-revalidate": (
        CAUTIOUS,
        [ok("max-age=60, stale-while-revalidate=9")],
        [[], 63, []],
    ),
    "dedup; hit; ttl=-3; detail=max-stale": (SHARED, [FRESH], [[], 63, asking("max-stale")]),
    "dedup; fwd=uri-miss; stored; ttl=60": (CAUTIOUS, [FRESH], [[]]),
    "dedup; fwd=uri-miss; stored; ttl=0": (CAUTIOUS, [ok("", TAG)], [[]]),
    "dedup; fwd=uri-miss; stored; ttl=0; detail=no-cache": (CAUTIOUS, [ok("no-cache", TAG)], [[]]),
    "dedup; fwd=uri-miss": (CAUTIOUS, [ok()], [[]]),
    "dedup; fwd=uri-miss; detail=...": (CAUTIOUS, [ok("no-store")], [[]]),
    "dedup; fwd=vary-miss; stored; ttl=60": (
        CAUTIOUS,
        [ok("max-age=60", (b"vary", b"accept"))],
        [[(b"accept", b"a")], [(b"accept", b"b")]],
    ),
    "dedup; fwd=stale; fwd-status=304; stored; ttl=60": (CAUTIOUS, [FRESH, AGAIN], [[], 61, []]),
    "dedup; fwd=stale; fwd-status=304; stored; ttl=0; detail=no-cache": (
        CAUTIOUS,
        [ok("no-cache", TAG), (304, [TAG])],
        [[], []],
    ),
    "dedup; fwd=stale; stored; ttl=60": (CAUTIOUS, [FRESH, FRESH], [[], 61, []]),
    "dedup; fwd=stale; fwd-status=503; detail=stale-if-error": (SHARED, [FRESH, error(503)], [[], 61, []]),
    "dedup; fwd=stale; detail=stale-if-error": (SHARED, [FRESH, RuntimeError("down")], [[], 61, []]),
    "dedup; fwd=stale; collapsed; detail=stale-if-error": (SHARED, [FRESH, error(503)], [[], 61, CROWD]),
    "dedup; hit; ttl=-3; detail=stale-if-error": (SHARED, [FRESH, error(503)], [[], 63, STRICT]),
    "dedup; fwd=stale; detail=...": (CAUTIOUS, [FRESH, ok("no-store")], [[], 61, []]),
    "dedup; fwd=request; stored; ttl=60": (SHARED, [FRESH, FRESH], [[], asking("no-cache")]),
    "dedup; fwd=request; fwd-status=304; stored; ttl=60": (
        SHARED,
        [FRESH, AGAIN],
        [[], asking("no-cache")],
    ),
    "dedup; fwd=partial; stored; ttl=60": (
        CAUTIOUS,
        [(206, [*FRESH[1], (b"content-range", b"bytes 0-3/9")]), FRESH],
        [[(b"range", b"bytes=0-3")], []],
    ),
    "dedup; fwd=uri-miss; collapsed": (CAUTIOUS, [FRESH], [CROWD]),
    "dedup; fwd=stale; collapsed": (CAUTIOUS, [FRESH, FRESH], [[], 61, CROWD]),
    "dedup; detail=only-if-cached": (SHARED, [FRESH], [asking("only-if-cached")]),
}


def documented() -> list[str]:
    lines = table(PAGE, "## What you see, what happened, what to change")
    return [quoted(cells[0])[0] for cells in lines if cells[0].startswith("`dedup; ")]


def test_every_line_of_the_table_is_one_of_those_below() -> None:
    assert documented() == list(SEEN)


@pytest.mark.parametrize("line", SEEN)
async def test_each_cache_status_of_the_table_is_seen_as_it_says(
    line: str, make_dedup: Callable[..., Dedup], clock: FakeClock
) -> None:
    rule, replies, steps = SEEN[line]

    def answer(_scope: Any, run: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        reply = replies[min(run, len(replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return (*reply, b"" if reply[0] == 304 else b"body")

    bare = GatedApp(answer, opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(rule))
    told: bytes | None = None
    for step in steps:
        if isinstance(step, int | float):
            clock.advance(step)
        elif isinstance(step, str):
            bare.gate.clear()
            firsts = asking("max-age=99") if step == STRICT else []
            waiting = [call(app, "/x", headers=fields) for fields in (firsts, [], [])]
            await settle()
            bare.gate.set()
            told = (await asyncio.gather(*(one.done() for one in waiting)))[-1].header(b"cache-status")
        else:
            told = (await get(app, "/x", headers=step)).header(b"cache-status")

    assert told is not None
    assert re.fullmatch(re.escape(line).replace(re.escape("..."), "[a-z-]+"), told.decode())
