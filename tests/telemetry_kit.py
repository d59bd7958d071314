"""The test kit of telemetry: what a backend saw, apps that tell, and an SDK that fails."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dedup_middleware import Dedup, DedupMiddleware

from .kit import Call, GatedApp, call, chunk, get, head, settle

Point = frozenset[tuple[str, Any]]


class Seen:
    """The spans that were exported, and the tracer of whoever is outside of us."""

    def __init__(self, **settings: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        """All of them, in the order of their start."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    def one(self, start: str) -> ReadableSpan:
        (span,) = self.named(start)
        return span


class Metrics:
    """What a metrics backend would have."""

    def __init__(self, *others: MetricReader) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader, *others], shutdown_on_exit=False)

    def all(self) -> list[Any]:
        data = self.reader.get_metrics_data()
        resources = data.resource_metrics if data is not None else []
        return [
            metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics
        ]

    def read(self) -> dict[str, dict[Point, Any]]:
        """By name and attributes: numbers, and of a histogram (count, sum)."""
        return {
            metric.name: {
                frozenset(point.attributes.items()): point.value
                if hasattr(point, "value")
                else (point.count, point.sum)
                for point in metric.data.data_points
            }
            for metric in self.all()
        }


def context(span: ReadableSpan) -> trace.SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def number(span: ReadableSpan) -> int:
    return context(span).span_id


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def links(span: ReadableSpan) -> list[int]:
    assert all(not link.attributes for link in span.links), "Jaeger drops a link's attributes"
    return [link.context.span_id for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def with_route(app: Any, template: str) -> Any:
    """The app behind a router that leaves its route in the scope."""

    class Route:
        path = template

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        await app(scope, receive, send)

    return routed


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("token=hunter2")


class Regrouping:
    """An app whose answer names a field that the rule had hidden, just when another request comes that shows it."""

    def __init__(self) -> None:
        self.app: Any = None
        self.other: Call | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.other is None:
            await asyncio.sleep(0)  # its leader sleeps by then: whom it wakes runs after the other one
            # In a context of its own, or it would be a request from inside.
            self.other = contextvars.Context().run(call, self.app, "/vary", headers=[(b"x-tenant", b"1")])
        await send(head(headers=[(b"vary", b"x-tenant")]))
        await send(chunk(dict(scope["headers"]).get(b"x-tenant", b"?"), more=False))

    async def answers(self, dedup: Dedup) -> list[bytes]:
        """What the leader that regroups and the other one get."""
        self.app = self.app or DedupMiddleware(self, dedup=dedup)
        leader = await get(self.app, "/vary", headers=[(b"x-tenant", b"1")])
        assert self.other is not None
        return [leader.body, (await self.other.done()).body]


async def story(app: Any, dedup: Dedup, bare: GatedApp) -> list[Call]:
    """A leader, a follower, a hit, a bypass, and three calls of a function: everything that telemetry tells of."""

    async def read() -> int:
        return 1

    calls = [call(app, "/kept") for _ in range(2)]
    await settle()
    bare.gate.set()
    for one in calls:
        await one.done()
    calls += [await get(app, "/kept"), await get(app, "/kept", method="POST")]
    assert await asyncio.gather(*(dedup.call("k", read, ttl=5) for _ in range(2))) == [1, 1]
    assert await dedup.call("k", read) == 1
    await dedup.invalidate("nothing")
    return calls


class BoomError(Exception):
    raised = 0


def boom(*_: object, **__: object) -> Any:
    BoomError.raised += 1
    raise BoomError("password=hunter2")


class FaultyTracers(trace.TracerProvider):
    """An SDK's provider whose spans raise at one call."""

    def __init__(self, real: TracerProvider, hook: str) -> None:
        self._real = real
        self._hook = hook

    def get_tracer(self, *arguments: Any, **settings: Any) -> trace.Tracer:
        tracer = self._real.get_tracer(*arguments, **settings)
        start, hook = tracer.start_span, self._hook

        def start_span(*arguments: Any, **settings: Any) -> trace.Span:
            span = start(*arguments, **settings)
            setattr(span, hook, boom)
            return span

        tracer.start_span = start_span  # type: ignore[method-assign] # a fault in the tracer
        return tracer
