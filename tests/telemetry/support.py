"""OpenTelemetry's own SDK, with exporters that keep what they get."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ducto.manager import CreditManager
from ducto.telemetry import instrument


class Telemetry:
    """Providers of one test, and what came out of them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("test")

    def instrument(self, manager: CreditManager, **options: Any) -> Any:
        return instrument(manager, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The finished spans of ducto."""
        scoped = self._exporter.get_finished_spans()
        return [
            span
            for span in scoped
            if span.instrumentation_scope is not None and span.instrumentation_scope.name == "ducto"
        ]

    @property
    def span(self) -> ReadableSpan:
        (only,) = self.spans
        return only

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The values of a metric by their attributes: the sum of a counter; count and sum of a histogram."""
        data = self._reader.get_metrics_data()
        found: dict[frozenset[tuple[str, Any]], Any] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name != name:
                        continue
                    for point in metric.data.data_points:
                        value = point.value if hasattr(point, "value") else (point.count, point.sum)
                        found[frozenset((point.attributes or {}).items())] = value
        return found

    def everything(self) -> str:
        """All that was exported, as text, to search it."""
        data = self._reader.get_metrics_data()
        spans = "\n".join(span.to_json() for span in self._exporter.get_finished_spans())
        return spans + "\n" + (data.to_json() if data is not None else "")

    def shutdown(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


def labels(**attributes: Any) -> frozenset[tuple[str, Any]]:
    """`error__type="x"` stands for the attribute `error.type`."""
    return frozenset((name.replace("__", "."), value) for name, value in attributes.items())


#: The attributes of a call of the model `m` from own code.
CALL = {"gen_ai__operation__name": "call", "gen_ai__request__model": "m"}


async def events_handled() -> None:
    """Handlers of events run in tasks of their own."""
    for _ in range(20):
        await asyncio.sleep(0)
