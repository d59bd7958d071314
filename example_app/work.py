"""Every piece of work that the backend does goes through `Work.step`: counted, logged, timed, traced.

Nothing else counts executions, so the figures are the same thing with and without the middleware.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec
from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""The x-request-id of the request that is being served; a flight inherits its leader's."""


class Step(msgspec.Struct, frozen=True):
    """One piece of work that ran: times are Unix time in nanoseconds."""

    name: str
    key: str
    request_id: str
    start: int
    end: int


class Work:
    def __init__(
        self, log_file: Path | None = None, tracer_provider: trace.TracerProvider | None = None
    ) -> None:
        self.executions: Counter[str] = Counter()
        self.steps: deque[Step] = deque(maxlen=2000)
        self.log_lines = 0
        self._tracer = trace.get_tracer("example_app", tracer_provider=tracer_provider)
        self._log = logging.Logger("devtools")  # noqa: LOG001  its own: nobody else's lines are counted
        self._log.addFilter(self._count)
        handler = logging.FileHandler(log_file, encoding="utf-8") if log_file else logging.NullHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.addHandler(handler)

    @contextmanager
    def step(self, name: str, *parts: object) -> Iterator[None]:
        """One execution of `name` for `parts`; it counts when it starts, however it ends."""
        key = ":".join([name, *map(str, parts)])
        self.executions[key] += 1
        start = time.time_ns()
        outcome = "failed"
        try:
            with self._tracer.start_as_current_span(name):
                yield
            outcome = "done"
        finally:
            end = time.time_ns()
            self.steps.append(Step(name, key, REQUEST_ID.get(), start, end))
            self._log.info("%s %s in %.1f ms", key, outcome, (end - start) / 1e6)

    def reset(self) -> None:
        self.executions.clear()
        self.steps.clear()
        self.log_lines = 0

    def close(self) -> None:
        for handler in self._log.handlers:
            handler.close()

    def _count(self, _record: logging.LogRecord) -> bool:
        self.log_lines += 1
        return True
