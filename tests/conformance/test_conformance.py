"""The rows, one by one and many at a time; the kit itself; and the page that lists them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from .cache_status import parse
from .case import LEVELS, Case, case, check, not_modified, ok, wait
from .case import app as asked
from .case import store as stored
from .rows import ROWS
from .runner import GROUP, batches, run, run_all
from .table import page
from .world import SHAPES, Arena, Shape

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with Arena() as one:
        yield one


# -- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_holds_in_each_profile_whether_the_body_comes_in_one_event_or_in_several(
    arena: Arena, row: Case
) -> None:
    (batch,) = batches([row], GROUP)
    wrong = [sentence for found in arena.do(run_all(arena, batch)).values() for sentence in found]

    assert not wrong, f"RFC {row.section}: {row.sentence}"


@pytest.mark.slow
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.thorough)])
def test_no_result_depends_on_load(arena: Arena, every: int) -> None:
    """So many rows at once that each is in the others' way; every sixth crowd of them shows it."""
    wrong: dict[tuple[str, str, str], list[str]] = {}
    for batch in islice(batches(ROWS, GROUP), 0, None, every):
        wrong |= {place: found for place, found in arena.do(run_all(arena, batch)).items() if found}

    assert not wrong


def test_rows_are_told_apart_by_their_ids_and_sentences() -> None:
    doubled = [name for name, count in Counter(row.id for row in ROWS).items() if count > 1]

    assert not doubled
    assert not [row.id for row in ROWS if not re.fullmatch(r"[a-z0-9-]+", row.id)]
    assert not [row.id for row in ROWS if row.level not in LEVELS]
    assert not [row.id for row in ROWS if not row.sentence or row.sentence.endswith(".")]


# -- each row can fail -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_row_holds_both_without_a_cache_and_with_one_that_knows_no_rule() -> None:
    rows = list(ROWS)
    with Arena(patience=2) as arena:  # a row that is answered too late does not hold: all the better
        for profile in ("bare", "naive"):
            failed: set[str] = set()
            for at in range(0, len(rows), GROUP):
                batch = [(row, profile, SHAPES[0]) for row in rows[at : at + GROUP]]
                done = arena.do(run_all(arena, batch))
                failed |= {name for (name, _, _), wrong in done.items() if wrong}
            rows = [row for row in rows if row.id not in failed]

    assert [row.id for row in rows] == []


# -- the kit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_cache_every_script_s_first_answer_goes_out_as_it_is_written(
    arena: Arena, shape: Shape
) -> None:
    plain = [row for row in ROWS if not row.script[0].trouble]
    told = [
        case(row.id, row.section, row.sentence, row.level, row.script, asked(has=_lines(row), of=1))
        for row in plain
    ]
    wrong: dict[tuple[str, str, str], list[str]] = {}
    for at in range(0, len(told), GROUP):
        batch = [(row, "bare", shape) for row in told[at : at + GROUP]]
        wrong |= {place: found for place, found in arena.do(run_all(arena, batch)).items() if found}

    assert not wrong


def _lines(row: Case) -> dict[str, list[object]]:
    lines: dict[str, list[object]] = {}
    for name, value in row.script[0].fields:
        lines.setdefault(name.lower(), []).append(value)
    return lines


NUMERIC = {"ttl": 60, "vary": None}
"""A rule of another kind: what the rows rest on is told by the kit, whatever the rule."""


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kit_tells_a_hit_from_a_run_and_moves_the_clock(arena: Arena, shape: Shape) -> None:
    right = case(
        "right", "9111 4", "-", "required", ok(), asked(), wait(59), stored(), wait(1), asked(), rule=NUMERIC
    )
    no_hit = case("no-hit", "9111 4", "-", "required", ok(), asked(), wait(60), stored(), rule=NUMERIC)
    no_run = case("no-run", "9111 4", "-", "required", ok(), asked(), asked(), rule=NUMERIC)
    no_check = case(
        "no-check",
        "9111 4",
        "-",
        "required",
        [ok(), not_modified()],
        asked(),
        wait(60),
        check(),
        rule=NUMERIC,
    )
    found = arena.do(run_all(arena, [(row, "cautious", shape) for row in (right, no_hit, no_run, no_check)]))

    assert [bool(wrong) for wrong in found.values()] == [False, True, True, True]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"status": 201}, "status 200, expected 201"),
        ({"body": "no"}, "expected b'no'"),
        ({"has": {"x-a": "2"}}, "x-a is ['1'], expected ['2']"),
        ({"has": {"x-a": ["1", "1"]}}, "x-a is ['1'], expected ['1', '1']"),
        ({"lacks": ("x-a",)}, "x-a is ['1'], expected []"),
        ({"saw": {"x-b": "1"}}, "the app: x-b is [], expected ['1']"),
        ({"says": {"fwd": "bypass"}}, "expected 'bypass'"),
        ({"ran": 2}, "the app ran 1 times, expected 2"),
    ],
)
def test_the_kit_finds_what_is_not_as_a_row_wants_it(
    arena: Arena, wanted: dict[str, object], sentence: str
) -> None:
    row = case("x", "9111 4", "-", "required", ok(None, ("x-a", "1")), asked(**wanted), rule=NUMERIC)
    (wrong,) = arena.do(run(arena, row, "cautious", "one"))

    assert sentence in wrong


@pytest.mark.parametrize(
    ("line", "members"),
    [
        ("dedup; hit", [("dedup", {"hit": True})]),
        ("dedup; fwd=uri-miss; stored; ttl=60", [("dedup", {"fwd": "uri-miss", "stored": True, "ttl": 60})]),
        ('a;hit, "b c" ; x="y, \\" z"', None),
        ('a;hit, "b c"; detail="y, \\" z"', [("a", {"hit": True}), ("b c", {"detail": 'y, " z'})]),
        ("dedup; hit=?0; ttl=-3", [("dedup", {"hit": False, "ttl": -3})]),
        ("dedup; hit; fwd=miss", None),
        ("dedup; fwd=sometimes", None),
        ("dedup; ttl=x", None),
        ("dedup; Hit", None),
        ("dedup hit", None),
        ("dedup,", None),
        ("", None),
    ],
)
def test_cache_status_is_read_as_a_structured_field(line: str, members: object) -> None:
    if members is None:
        with pytest.raises(ValueError, match=r"."):
            parse(line)
    else:
        assert parse(line) == members


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_rows() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(ROWS), (
        "python -m tests.conformance --table > docs/conformance.md"
    )
