"""The page of the docs: every row, by specification and section.

Law: nothing on the page is written by hand; a test compares it with what is made here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from .case import BOTH, Case

TITLES = {
    "9111": "HTTP caching",
    "9110": "HTTP semantics",
    "5861": "Stale answers",
    "9211": "Cache-Status",
    "9213": "Targeted Cache-Control",
    "9875": "Cache groups",
    "10008": "The QUERY method",
}


def _place(row: Case) -> tuple[int, list[int]]:
    rfc, _, section = row.section.partition(" ")
    return list(TITLES).index(rfc), [int(part) for part in section.split(".")]


def _sentence(row: Case) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", row.sentence)


def _profiles(row: Case) -> str:
    return "both" if row.profiles == BOTH else row.profiles[0]


def page(rows: Sequence[Case]) -> str:
    """The whole page."""
    levels = Counter(row.level for row in rows)
    lines = [
        "# Conformance",
        "",
        f"> {len(rows)} sentences of the specifications of HTTP caching, each with the test that shows it.",
        "> No need to read them: look here when you want to know whether a case is covered.",
        "",
        f"{levels['required']} are required of a cache, {levels['optional']} are what a cache should or may do,",
        f"and {levels['supported']} say what this one does where the specification leaves it open.",
        "",
        "- Each row runs over real sockets against uvicorn, with bodies in one event and in several.",
        "  The client sees every line of every head; a structured field is read as one.",
        "- Rows run 25 at a time too (a sixth in every run, all with `-m thorough`): no result depends on load.",
        "- A row that held for an app without a cache, and for a cache that knows no rule, would show nothing;",
        "  a test looks for such rows.",
        '- Profile *cautious* is `ttl="origin", vary="origin"`; *shared* is `Rule.shared_cache()`.',
        "",
        "```sh",
        "python -m pytest tests/conformance",
        "```",
        "",
        "One row alone is found by its name: `pytest tests/conformance -k max-age-quoted`.",
    ]
    ordered = sorted(rows, key=_place)
    for rfc, chapter in groupby(ordered, key=lambda row: row.section.partition(" ")[0]):
        lines += ["", f"## RFC {rfc}: {TITLES[rfc]}"]
        for section, found in groupby(chapter, key=lambda row: row.section.partition(" ")[2]):
            lines += ["", f"### RFC {rfc}, section {section}", ""]
            lines += ["| sentence | level | profiles | row |", "|---|---|---|---|"]
            lines += [f"| {_sentence(row)} | {row.level} | {_profiles(row)} | `{row.id}` |" for row in found]
    return "\n".join([*lines, ""])
