"""Told: what is told of a request that is over, in its span and its log line.

Law: it is said once, by whoever knows how the request ended; what is unknown, or does not apply, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from opentelemetry.trace import Link

from ..core.status import Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator


class Told(msgspec.Struct):
    """One request, or one call of a function, whose `method` is empty.

    `flight` names the forward, `link` leads to the one that the answer came from, `head_at` is when its head was there
    (Unix time in ns). `waited` and `saved` are in seconds, and so is the `age` of a stored response.
    """

    outcome: Outcome
    reason: Reason
    label: str
    method: str
    key: object = None
    status: int = 0
    route: str | None = None
    flight: str | None = None
    link: Link | None = None
    head_at: int | None = None
    error: str | None = None
    waited: float | None = None
    saved: float | None = None
    age: float | None = None

    def seconds(self) -> Iterator[tuple[str, float]]:
        """The durations that are known, by name, to the microsecond."""
        for name, value in (("waited", self.waited), ("saved", self.saved), ("age", self.age)):
            if value is not None:
                yield name, round(value, 6)
