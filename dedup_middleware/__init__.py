"""Identical requests share one execution: ASGI middleware with rules, a store and telemetry.

`app = DedupMiddleware(app)` collapses identical concurrent GET, HEAD and QUERY requests of one caller and stores
nothing; a `Rule` says for a route how long a response lives and who may share it.
"""

from __future__ import annotations

__version__ = "0.1.0"

from .alerts import Alert
from .asgi import DedupMiddleware
from .core.errors import ConfigurationError, ForwardFailed
from .core.explain import Explanation
from .core.rules import Rule
from .core.selectors import ANONYMOUS
from .dedup import Dedup
from .marks import deduplicate
from .stats import RuleStats, Stats

__all__ = [
    "ANONYMOUS",
    "Alert",
    "ConfigurationError",
    "Dedup",
    "DedupMiddleware",
    "Explanation",
    "ForwardFailed",
    "Rule",
    "RuleStats",
    "Stats",
    "__version__",
    "deduplicate",
]
