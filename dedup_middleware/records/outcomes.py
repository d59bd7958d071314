"""Outcomes: those that the ledger counts in a column of their own, and those that spared a run.

Law: an outcome that the engine may give has a column; a hit rate is the share of those that spared a run.
"""

from __future__ import annotations

from typing import Final

COLUMNS: Final = ("hit", "stale", "revalidated", "collapsed", "forwarded", "bypassed")
"""Another one needs a migration; a test compares them with the engine's."""
SPARING: Final = COLUMNS[:4]
"""Answered by what was stored or by another one's flight. A revalidation ran the app too, and is an execution."""
STORED: Final = ("hit", "stale")
"""Answered by what was stored: no event tells of each of these, so that they are counted and sampled."""
STOOD_IN: Final = "stale-if-error"
"""Why a stale response answered that was no hit: its request took as long as the run that failed."""
