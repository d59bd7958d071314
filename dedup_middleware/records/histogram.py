"""Histogram: durations as counts in buckets that grow by a fourth of an octave, so that counts of processes add up.

Law: a percentile is within a tenth of the true one, from a microsecond to more than an hour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST: Final = 1e-6
STEPS: Final = 4
LAST: Final = 128


def bucket(seconds: float) -> int:
    """The bucket of a duration; what is shorter than a microsecond lies in the first, what is too long in the last."""
    if seconds <= LEAST:
        return 0
    if seconds == math.inf:
        return LAST
    return min(LAST, int(math.log2(seconds / LEAST) * STEPS))


def middle(number: int) -> float:
    """The duration that stands for a bucket: its geometric middle."""
    return float(LEAST * 2 ** ((number + 0.5) / STEPS))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration that this share (0 to 1) of those counted does not exceed; None where none was counted."""
    wanted = share * sum(counts.values())
    passed = 0
    found = None
    for number in sorted(number for number, count in counts.items() if count > 0):
        passed += counts[number]
        found = middle(number)
        if passed >= wanted:
            break
    return found
