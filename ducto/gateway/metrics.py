"""A page of metrics for Prometheus, of one manager, for the gateway or for a port of its own."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ducto.errors import ConfigError
from ducto.manager import CreditManager
from ducto.telemetry import instrument

__all__ = ["PrometheusMetrics"]


class PrometheusMetrics:
    """Measures `manager` (see `ducto.telemetry.instrument`) and shows the figures in Prometheus' text format.

    Give it to `build_gateway` to have it at `path`, or serve it as an ASGI app of its own. It has no access control:
    the figures are totals by model, without users, but still nothing for the public. It is apart from the global
    providers of OpenTelemetry, and makes no spans.
    """

    def __init__(self, manager: CreditManager, *, path: str = "/metrics") -> None:
        """Raises `ConfigError` for a path without a leading slash, and without the extra `prometheus`."""
        if not path.startswith("/"):
            raise ConfigError(f"The path of the metrics must start with a slash, not be {path!r}.")
        try:
            from opentelemetry.exporter.prometheus import PrometheusMetricReader
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.trace import NoOpTracerProvider
            from prometheus_client import CollectorRegistry
        except ImportError as error:
            raise ConfigError(
                "Metrics for Prometheus need an exporter; install it with: pip install 'ducto[prometheus]'"
            ) from error
        self.path = path
        self._registry = CollectorRegistry(auto_describe=False)
        self._provider = MeterProvider([PrometheusMetricReader(registry=self._registry)], shutdown_on_exit=False)
        self._remove = instrument(manager, tracer_provider=NoOpTracerProvider(), meter_provider=self._provider)

    async def answer(self, request: Request) -> Response:
        """The figures, in the text format that the request asks for."""
        from prometheus_client.exposition import choose_encoder

        encoder, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._registry), headers={"content-type": media_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an app of its own, which answers every path with the figures."""
        if scope["type"] == "http":
            response = await self.answer(Request(scope, receive))
            await response(scope, receive, send)

    def close(self) -> None:
        """End the measuring. Harmless when repeated."""
        remove, self._remove = self._remove, _nothing
        if remove is not _nothing:
            remove()
            self._provider.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _nothing() -> None:
    """The measuring has ended."""
