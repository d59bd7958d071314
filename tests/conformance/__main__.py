"""Run every row, or print the table of the docs: `python -m tests.conformance [--table] [-k PART]`."""

from __future__ import annotations

import argparse
import sys
import time

from .case import Case
from .rows import ROWS
from .runner import GROUP, batches, run_all
from .table import page
from .world import Arena


def failing(rows: list[Case]) -> dict[tuple[str, str, str], list[str]]:
    """What is wrong, by row, profile and shape of the body."""
    wrong: dict[tuple[str, str, str], list[str]] = {}
    with Arena() as arena:
        for batch in batches(rows, GROUP):
            wrong |= {place: found for place, found in arena.do(run_all(arena, batch)).items() if found}
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print docs/conformance.md")
    parser.add_argument("-k", default="", metavar="PART", help="only rows whose id holds this")
    given = parser.parse_args()
    if given.table:
        sys.stdout.write(page(ROWS))
        return 0
    rows = [row for row in ROWS if given.k in row.id]
    began = time.process_time()
    wrong = failing(rows)
    sections = {row.id: (row.section, row.sentence) for row in rows}
    for (row, profile, shape), found in wrong.items():
        print(f"{row} ({profile}, {shape}) RFC {sections[row][0]}: {sections[row][1]}")
        for sentence in found:
            print(f"    {sentence}")
    bad = len({row for row, _, _ in wrong})
    print(f"{len(rows) - bad} of {len(rows)} rows hold ({time.process_time() - began:.0f} s of CPU)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
