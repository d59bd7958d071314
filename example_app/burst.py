"""The page refresh: eighteen requests at once, from one simulated page or from several.

Each refresh is one trace: its root span is exported here, its requests carry it as `traceparent`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from opentelemetry import propagate, trace

from .settings import PORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Client, Reply

MIX = (("controller", 2), ("chat", 2), ("status", 4), ("branch", 4), ("editors", 6))
REQUESTS = sum(count for _, count in MIX)


class Answer(msgspec.Struct, frozen=True):
    """One request of a refresh, as its page saw it: times are Unix time in nanoseconds."""

    id: str
    page: int
    operation: str
    target: str
    status: int
    cache_status: str
    age: str
    bytes: int
    start: int
    first_byte: int
    end: int

    @property
    def milliseconds(self) -> float:
        return (self.end - self.start) / 1e6

    @property
    def outcome(self) -> str:
        """What the Cache-Status field says in one word; `bare` when there is none."""
        parameters = {part.strip().partition("=")[0] for part in self.cache_status.split(";")[1:]}
        for word in ("hit", "collapsed"):
            if word in parameters:
                return word
        return "forwarded" if "fwd" in parameters else "bare"


class Refresh(msgspec.Struct, frozen=True):
    """One page's refresh: its trace and its answers."""

    trace: str
    span: str
    page: int
    answers: list[Answer]


def targets(repo: str) -> dict[str, str]:
    port = PORTS[0]
    return {
        "controller": f"/git/{repo}",
        "chat": f"/chat/{port}/history",
        "status": f"/git/{repo}/status",
        "branch": f"/git/{repo}/branch",
        "editors": f"/ide/{port}/editors",
    }


class Pages:
    """Simulated pages in front of one server."""

    def __init__(
        self, client: Client, repo: str, tracer: trace.Tracer, on_answer: Callable[[], None] | None = None
    ) -> None:
        self._client = client
        self._targets = targets(repo)
        self._tracer = tracer
        self._on_answer = on_answer or (lambda: None)
        self._made = 0

    async def burst(self, pages: int) -> list[Refresh]:
        """Every page refreshes at the same moment."""
        await self._client.open(pages * REQUESTS)
        return await asyncio.gather(*(self.refresh(page) for page in range(pages)))

    async def refresh(self, page: int = 0) -> Refresh:
        self._made += 1
        number = self._made
        with self._tracer.start_as_current_span("page refresh", kind=trace.SpanKind.CLIENT) as span:
            span.set_attribute("devtools.page", page)
            headers: dict[str, str] = {"accept": "application/json"}
            propagate.inject(headers)
            wanted = [operation for operation, count in MIX for _ in range(count)]
            asked = (
                self._ask(f"r{number}-{index:02}", page, operation, headers)
                for index, operation in enumerate(wanted)
            )
            answers = await asyncio.gather(*asked)
        context = span.get_span_context()
        return Refresh(f"{context.trace_id:032x}", f"{context.span_id:016x}", page, answers)

    async def _ask(self, identity: str, page: int, operation: str, headers: dict[str, str]) -> Answer:
        target = self._targets[operation]
        reply: Reply = await self._client.request("GET", target, headers | {"x-request-id": identity})
        self._on_answer()
        return Answer(
            id=identity,
            page=page,
            operation=operation,
            target=target,
            status=reply.status,
            cache_status=reply.headers.get("cache-status", ""),
            age=reply.headers.get("age", ""),
            bytes=len(reply.body),
            start=reply.start,
            first_byte=reply.first_byte,
            end=reply.end,
        )
