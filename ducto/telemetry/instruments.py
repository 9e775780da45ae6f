"""The metrics. Their attributes are few: model, operation, and a code that says how a call ended; never a user."""

from __future__ import annotations

from opentelemetry.metrics import Counter, Histogram, Meter

from ducto.telemetry.attributes import Attributes, BoundedLabels, operation_attributes
from ducto.usage import UsageMetrics

__all__ = ["Instruments"]

#: Different models, and different operations, that are told apart.
MAX_MODELS = 200
MAX_OPERATIONS = 50

#: The buckets that the semantic conventions for generative AI advise.
TOKEN_BUCKETS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
DURATION_BUCKETS_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
#: A store answers sooner than a model.
STORE_BUCKETS_SECONDS = [
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.256,
    0.512,
    1.024,
    4.096,
    16.384,
]


class Instruments:
    """Made once for each manager that is instrumented."""

    def __init__(self, meter: Meter) -> None:
        self._models = BoundedLabels(MAX_MODELS)
        self._operations = BoundedLabels(MAX_OPERATIONS)
        self.tokens: Histogram = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens that a call used, as it was charged for them.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self.duration: Histogram = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="From the admission of a call until its charge or release begins.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self.store_duration: Histogram = meter.create_histogram(
            "ducto.store.duration",
            unit="s",
            description="What an admission, a charge or a release takes, retries included.",
            explicit_bucket_boundaries_advisory=STORE_BUCKETS_SECONDS,
        )
        self.calls: Counter = meter.create_counter(
            "ducto.calls", unit="{call}", description="Calls that ended, by outcome: charged, released, or why not."
        )
        self.reserved: Counter = meter.create_counter(
            "ducto.credits.reserved", unit="{credit}", description="Credits that admitted calls may cost."
        )
        self.charged: Counter = meter.create_counter(
            "ducto.credits.charged", unit="{credit}", description="Credits charged, allowance included."
        )
        self.unbilled: Counter = meter.create_counter(
            "ducto.credits.unbilled", unit="{credit}", description="Credits that calls cost and nobody was charged for."
        )
        self.refused: Counter = meter.create_counter(
            "ducto.credits.refused", unit="{credit}", description="Credits asked for and refused, by code."
        )
        self.events: Counter = meter.create_counter(
            "ducto.events", unit="{event}", description="Events that an operator may want to be told of, by name."
        )

    def labels(self, operation_type: str, model: str | None, *, trusted: bool = True) -> Attributes:
        """The attributes of a call. A name that only a caller vouches for (not `trusted`) makes no new series."""
        labels = operation_attributes(operation_type)
        labels["gen_ai.operation.name"] = self._operations.of(str(labels["gen_ai.operation.name"]), trusted=trusted)
        if model is not None:
            labels["gen_ai.request.model"] = self._models.of(model, trusted=trusted)
        return labels

    def count_tokens(self, usage: UsageMetrics, labels: Attributes) -> None:
        for kind, count in (("input", usage.total_input_tokens), ("output", usage.total_output_tokens)):
            if count > 0:
                self.tokens.record(count, {**labels, "gen_ai.token.type": kind})
