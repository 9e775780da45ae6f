"""What an operator sees of metered calls: OpenTelemetry spans and metrics, and log lines in JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ducto.manager import CreditManager
from ducto.telemetry.logs import JsonFormatter

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["JsonFormatter", "instrument"]

logger: logging.Logger = logging.getLogger("ducto.telemetry")


def instrument(
    manager: CreditManager,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    user_ids_on_spans: bool = False,
) -> Callable[[], None]:
    """Make a span of each metered call of `manager`, and measure credits, tokens and durations. Returns the function
    that ends it; spans that are open then are closed.

    The providers are OpenTelemetry's, by default the global ones, which do nothing until an SDK is set up. Without the
    package `opentelemetry-api` (extra `otel`) this does nothing. A span is a child of what is current where the call
    is admitted, whichever task settles it. Neither spans nor metrics carry prompts, answers, keys or messages of
    errors; `user_ids_on_spans` puts the user, the team, and the ids of reservation and transaction (which contain the
    user's) on spans. Metrics never carry any of these.
    """
    try:
        from ducto.telemetry.calls import CallTelemetry
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        logger.info("There are no spans and metrics; for them: pip install 'ducto[otel]'.")
        return _nothing
    telemetry = CallTelemetry(
        tracer_provider=tracer_provider, meter_provider=meter_provider, user_ids_on_spans=user_ids_on_spans
    )
    return telemetry.attach(manager)


def _nothing() -> None:
    """There is nothing to end."""
