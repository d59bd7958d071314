"""Every row, by subject."""

from __future__ import annotations

from ..case import Case
from . import (
    age,
    callers,
    conditional,
    dates,
    directives,
    fields,
    groups,
    heuristics,
    if_error,
    invalidation,
    lifetimes,
    locations,
    methods,
    not_modified,
    overtaken,
    parts,
    query,
    ranges,
    reloads,
    requests,
    stale,
    status,
    storing,
    switches,
    targeted,
    updating,
    validated,
    validation,
    variants,
    vary,
    while_revalidate,
)

SUBJECTS = (
    *(
        storing,
        fields,
        lifetimes,
        dates,
        heuristics,
        age,
        vary,
        variants,
        directives,
        callers,
        requests,
        reloads,
    ),
    *(while_revalidate, if_error, stale, validation, validated, updating, conditional, not_modified),
    *(ranges, parts, methods, query, invalidation, locations, status, targeted, groups, switches, overtaken),
)
ROWS: list[Case] = [row for subject in SUBJECTS for row in subject.ROWS]
