"""OpenTelemetry for one process of the example: where spans and metrics go, and an end that never hangs.

Law: a collector that is gone costs a run at most `FLUSH` seconds a process and one printed sentence.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from .settings import SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor

    from .otlp import Metrics, Spans

FLUSH = 2.0


class Telemetry:
    """The providers of this process: spans to `processors` and, with `otlp`, to a collector."""

    def __init__(
        self, otlp: str | None, otlp_metrics: str | None, processors: Sequence[SpanProcessor] = ()
    ) -> None:
        # A dead collector is told once, by us; the exporters would tell it again for every batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        resource = Resource.create({"service.name": SERVICE})
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.meter_provider: MeterProvider | None = None
        self._spans: Spans | None = None
        self._metrics: Metrics | None = None
        for processor in processors:
            self.tracer_provider.add_span_processor(processor)
        if otlp:
            self._export(otlp.rstrip("/"), otlp_metrics, resource)

    def _export(self, base: str, otlp_metrics: str | None, resource: Resource) -> None:
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415  a tenth of a second to import
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415  as above

        from .otlp import Delivered, Metrics, Spans  # noqa: PLC0415  so do these

        self._spans = Spans(Delivered(endpoint=f"{base}/v1/traces", timeout=FLUSH - 0.5))
        self.tracer_provider.add_span_processor(self._spans)
        self._metrics = Metrics(endpoint=otlp_metrics or f"{base}/v1/metrics", timeout=FLUSH - 0.5)
        reader = PeriodicExportingMetricReader(self._metrics, export_interval_millis=2000)
        self.meter_provider = MeterProvider(
            resource=resource, metric_readers=[reader], shutdown_on_exit=False
        )

    def flush(self) -> tuple[int, bool]:
        """Send what there is: spans that did not arrive, and whether metrics did not."""
        self._bounded(self.tracer_provider.force_flush)
        return self._losses()

    def close(self) -> tuple[int, bool]:
        """Send what is left and end; the same answer."""
        self._bounded(self._shut_down)
        return self._losses()

    def _losses(self) -> tuple[int, bool]:
        return (self._spans.lost if self._spans else 0, self._metrics.failed if self._metrics else False)

    def _bounded(self, send: Callable[[], object]) -> None:
        """For at most `FLUSH` seconds: no timeout of the SDK's own bounds an export under way."""
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        sending.join(FLUSH)

    def _shut_down(self) -> None:
        self.tracer_provider.shutdown()
        if self.meter_provider is not None:
            self.meter_provider.shutdown(timeout_millis=FLUSH * 1000)
