"""Exporters to a collector that know what did not arrive. Only `--otlp` loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan


class Delivered(OTLPSpanExporter):
    spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.spans += len(spans)
        return result


class Spans(BatchSpanProcessor):
    def __init__(self, exporter: Delivered) -> None:
        super().__init__(exporter, max_queue_size=20_000, schedule_delay_millis=500)
        self._delivered = exporter
        self._ended = 0

    @property
    def lost(self) -> int:
        return self._ended - self._delivered.spans

    def on_end(self, span: ReadableSpan) -> None:
        self._ended += 1
        super().on_end(span)


class Metrics(OTLPMetricExporter):
    failed = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self.failed = result is not MetricExportResult.SUCCESS
        return result
