"""After the call: what it is charged, from how its answer ended and what the answer said. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ducto.meter import MissingUsage
from ducto.middleware.admitting import ReadRequest
from ducto.middleware.providers import UsageReading, estimate_usage
from ducto.middleware.providers.estimate import TYPICAL_BYTES_PER_TOKEN
from ducto.usage import UsageMetrics

__all__ = ["AnswerFacts", "Bill", "bill_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """How a successful answer (2xx) ended."""

    #: What it said about usage, `None` if it could not be read.
    reading: UsageReading | None
    #: It came to its end: the last byte, or the event that a stream ends with.
    complete: bool
    #: The provider reported an error in the stream.
    failed: bool = False
    #: The client left, or we gave up waiting: neither undoes the provider's work.
    abandoned: bool = False
    #: Bytes of the body that came from the provider.
    body_bytes: int = 0
    #: Bytes of it were passed on to the client, as they are of a stream when they come.
    passed_on: bool = False


@dataclass(frozen=True, slots=True)
class Bill:
    """What to do: release the hold (`actual` is None and not `reserved`), or charge."""

    actual: UsageMetrics | int | None = None
    estimated: bool = False
    #: Charge all that was reserved.
    reserved: bool = False

    @property
    def releases(self) -> bool:
        return self.actual is None and not self.reserved


def bill_for(facts: AnswerFacts, request: ReadRequest, *, missing_usage: MissingUsage) -> Bill:
    """The rules, in order:

    * the final figures of the provider are charged as they are, an explicit zero as nothing;
    * an answer that came to its end without them is charged by `missing_usage`;
    * an error that the provider reported before it delivered anything frees the hold;
    * an answer that broke off before anything of it was passed on frees the hold, but not where it was the client
      who left, or we who gave up on a provider that had begun;
    * anything else is charged by an estimate of what was delivered, and at least what is known of it.
    """
    reading = facts.reading
    if reading is not None and reading.final and reading.usage is not None:
        return Bill(0 if reading.explicit_zero else reading.usage)
    if facts.complete and not facts.failed:
        if missing_usage == "reserved":
            return Bill(estimated=True, reserved=True)
        return Bill(_estimate(facts, request), estimated=True)
    known = reading is not None and (reading.usage is not None or reading.delivered_bytes > 0)
    if facts.failed and not known:
        return Bill()
    if not facts.passed_on and not facts.abandoned:
        return Bill()
    return Bill(_estimate(facts, request), estimated=True)


def _estimate(facts: AnswerFacts, request: ReadRequest) -> UsageMetrics:
    reading = facts.reading
    delivered = facts.body_bytes
    if reading is not None and (reading.delivered_bytes or not reading.problems):
        delivered = reading.delivered_bytes
    # The request's own limit bounds the output better than bytes of which nobody knows what they are.
    delivered = min(delivered, request.output_bound * TYPICAL_BYTES_PER_TOKEN)
    return estimate_usage(request.call, delivered_bytes=delivered, known=reading, input_tokens=request.input_tokens)
