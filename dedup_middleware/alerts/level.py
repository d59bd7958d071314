"""Levels: whether an alert is raised, with hysteresis; and the sentence that says so.

Law: time and value are arguments; between two thresholds nothing changes, and nothing changes before its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .alert import RATIOS

if TYPE_CHECKING:
    from .alert import Alert
    from .measure import Found

Turn = Literal["raised", "again", "over"]

_WHAT = {
    "executions": "executions of one fingerprint",
    "hit-rate": "hit rate",
    "collapse-ratio": "share of collapsed requests",
    "bypasses": "bypassed requests",
    "store-failures": "failures of the store",
    "ledger-failures": "failures of the ledger",
    "evictions": "evicted responses",
    "flight-age": "the oldest flight's age",
}


class Level:
    """One alert's state; `value` is what was measured last."""

    def __init__(self, alert: Alert) -> None:
        self.raised = False
        self.value = 0.0
        self._alert = alert
        self._since: float | None = None
        self._told = 0.0

    def step(self, value: float | None, now: float) -> Turn | None:
        """What is to be told, if anything."""
        alert = self._alert
        if value is not None:
            self.value = value
        turns = alert.is_calm(value) if self.raised else alert.is_passed(value)
        if not turns:
            self._since = None
        else:
            self._since = now if self._since is None else self._since
            if now - self._since >= float(alert.calm if self.raised else alert.after):
                self.raised = not self.raised
                self._since, self._told = None, now
                return "raised" if self.raised else "over"
        if self.raised and alert.repeat and now - self._told >= float(alert.repeat):
            self._told = now
            return "again"
        return None


def sentence(alert: Alert, found: Found, value: float, turn: Turn) -> str:
    """For a person: what was measured where, against what."""
    where = f" under {found.rule}" if found.rule is not None else ""
    why = f" because of {alert.reason}" if alert.reason is not None else ""
    within = f" within {alert.span:g} s" if alert.watch != "flight-age" else ""
    key = f", fingerprint {found.key}" if found.key else ""
    others = f", and {found.others} more above it" if found.others else ""
    limit = f"{'above' if alert.above is not None else 'below'} {_shown(alert, alert.threshold)}"
    measured = _shown(alert, value)
    over = f"no longer {limit}" if turn == "over" else f"still {limit}" if turn == "again" else limit
    if turn == "over" and found.value is None:  # the last value may well be past the threshold
        measured, over = "too few requests to tell", f"no longer known to be {limit}"
    return f"{alert.name}: {_WHAT[alert.watch]}{where}{why}{within}: {measured}, {over}{key}{others}"


def _shown(alert: Alert, value: float) -> str:
    if alert.watch in RATIOS:
        return f"{value:.1%}"
    return f"{value:.1f} s" if alert.watch == "flight-age" else f"{value:g}"
