"""Identical requests share one execution: ASGI middleware with rules, a store and telemetry."""

from .asgi import DedupMiddleware

__all__ = ["DedupMiddleware", "__version__"]

__version__ = "0.1.0"
