"""Analytics: what the ledger says about a window of time, as plain functions over it.

Law: each answer is one or two statements over indexed tables, bounded in rows; times are seconds since the epoch, a
window runs from `since` (included; a day before `until`) to `until` (not included; now).
"""

try:
    from .keeping import audits, memory
    from .operating import find, operations
    from .rating import rates
    from .rolling import heatmap, series, trend
    from .timing import latency
except ModuleNotFoundError as missing:
    if missing.name != "sqlalchemy":
        raise
    needed = "sqlalchemy is not installed; needed: python -m pip install 'dedup-middleware[records]'"
    raise ModuleNotFoundError(f"{__name__}: {needed}", name=missing.name) from None

__all__ = [
    "audits",
    "find",
    "heatmap",
    "latency",
    "memory",
    "operations",
    "rates",
    "series",
    "trend",
]
