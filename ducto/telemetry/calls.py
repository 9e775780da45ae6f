"""The life of metered calls as spans and metrics: a listener to what a manager does and announces."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ducto.errors import CreditError
from ducto.events import Event, EventName
from ducto.manager import CreditManager
from ducto.manager.charges import Charge, Settlement
from ducto.meter import Admission, CallTerms
from ducto.models import DeductionResult, ReleaseResult
from ducto.telemetry.attributes import Attributes, error_type, operation_attributes, shortened, usage_attributes
from ducto.telemetry.instruments import Instruments

__all__ = ["CallTelemetry"]

#: Calls whose spans are kept open here. One that is never settled in this process is closed when so many came after.
OPEN_CALLS_KEPT = 20_000

_CountedEvent = Literal[
    "credits.cap_warning",
    "credits.cap_notice",
    "credits.cap_reached",
    "credits.overage",
    "credits.late",
    "credits.suspect",
    "credits.low_balance",
    "credits.deduct_failed",
    "credits.settle_deferred",
    "credits.admitted_offline",
    "credits.reservation_expired",
    "credits.pricing_published",
    "credits.pricing_activated",
    "journal.nearly_full",
    "journal.failing",
    "journal.corrupt",
]
#: Events that are counted by name. What is as frequent as calls is measured with them instead.
COUNTED_EVENTS: tuple[EventName, ...] = get_args(_CountedEvent)


@dataclass(frozen=True, slots=True)
class _Start:
    """When a step began; a span is made of it when it is known that there is one, still in the caller's context."""

    unix_nanoseconds: int
    seconds: float

    @classmethod
    def now(cls) -> _Start:
        return cls(time.time_ns(), time.perf_counter())

    def seconds_until(self, end: float) -> float:
        return max(0.0, end - self.seconds)


@dataclass(frozen=True, slots=True)
class _OpenCall:
    span: Span
    labels: Attributes
    admitted_at_seconds: float


class CallTelemetry:
    """A `CallObserver`. A span is opened when a call is admitted and closed by whatever ends it first, in any task.

    A reservation that was made elsewhere has no span here; charging it makes one of its own.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        user_ids_on_spans: bool,
    ) -> None:
        self._tracer = trace.get_tracer("ducto", tracer_provider=tracer_provider)
        self._instruments = Instruments(metrics.get_meter("ducto", meter_provider=meter_provider))
        self._with_ids = user_ids_on_spans
        self._open: OrderedDict[str, _OpenCall] = OrderedDict()

    def attach(self, manager: CreditManager) -> Callable[[], None]:
        """Listen to `manager`. Returns the function that ends it and closes the spans that are open."""
        removers = [
            manager.observers.add(self),
            manager.on("credits.denied", self._denied),
            manager.on("credits.reservation_expired", self._expired),
            *(manager.on(name, self._counted) for name in COUNTED_EVENTS),
        ]

        def detach() -> None:
            while removers:
                removers.pop()()
            while self._open:
                self._abandon(self._open.popitem()[1])

        return detach

    # What a manager does: see CallObserver

    def admission_begins(self, terms: CallTerms) -> Callable[[Admission | BaseException], None]:
        start = _Start.now()

        def ended(outcome: Admission | BaseException) -> None:
            now = time.perf_counter()
            refused = isinstance(outcome, BaseException)
            # A call that was refused for its price names a model that perhaps nobody knows.
            trusted = not refused or isinstance(outcome, CreditError)
            labels = self._instruments.labels(terms.operation_type, terms.admitted_model, trusted=trusted)
            self._took("reserve", start.seconds_until(now), outcome)
            if isinstance(outcome, BaseException):
                span = self._start(start, terms.operation_type, terms.admitted_model, terms.user_id, terms.team_id)
                self._fail(span, labels, error_type(outcome))
                return
            # A replay is another call's reservation: nothing was admitted.
            if not outcome.result.replayed:
                self._admitted(start, outcome, labels, now)

        return ended

    def charge_begins(self, what: Settlement | Charge) -> Callable[[DeductionResult | BaseException], None]:
        start = _Start.now()

        def ended(outcome: DeductionResult | BaseException) -> None:
            settles = isinstance(what, Settlement)
            self._took("settle" if settles else "charge", start.seconds_until(time.perf_counter()), outcome)
            call = self._open.pop(what.reservation_id, None) if isinstance(what, Settlement) else None
            if call is None:
                # Charged before, by whoever counted it then. Where the call is open here, the store's answer was lost
                # and asked for again, and nobody has counted it.
                if isinstance(outcome, DeductionResult) and outcome.replayed:
                    return
                call = self._unopened(start, what)
            else:
                self._instruments.duration.record(max(0.0, start.seconds - call.admitted_at_seconds), call.labels)
            if isinstance(outcome, BaseException):
                self._fail(call.span, call.labels, error_type(outcome))
            else:
                self._charged(call, what, outcome)

        return ended

    def release_begins(self, reservation_id: str) -> Callable[[ReleaseResult | BaseException], None]:
        start = _Start.now()

        def ended(outcome: ReleaseResult | BaseException) -> None:
            self._took("release", start.seconds_until(time.perf_counter()), outcome)
            call = self._open.pop(reservation_id, None)
            if call is None:
                return
            self._instruments.duration.record(max(0.0, start.seconds - call.admitted_at_seconds), call.labels)
            if isinstance(outcome, BaseException):
                self._fail(call.span, call.labels, error_type(outcome))
            else:
                self._end(call, "released" if outcome.released else outcome.state or "released")

        return ended

    # What a manager announces

    def _denied(self, event: Event) -> None:
        labels = self._instruments.labels(str(event.data.get("operation_type", "call")), event.data.get("model"))
        amount = event.data.get("amount")
        if isinstance(amount, int) and amount > 0:
            self._instruments.refused.add(amount, {**labels, "error.type": str(event.data["code"])})

    def _expired(self, event: Event) -> None:
        call = self._open.pop(str(event.data.get("reservation_id")), None)
        if call is not None:
            self._end(call, "expired")

    def _counted(self, event: Event) -> None:
        self._instruments.events.add(1, {"ducto.event": event.name})

    # Spans

    def _start(self, start: _Start, operation_type: str, model: str | None, user_id: str, team_id: str | None) -> Span:
        attributes = operation_attributes(operation_type)
        attributes["ducto.operation_type"] = shortened(operation_type)
        name = str(attributes["gen_ai.operation.name"])
        if model is not None:
            attributes["gen_ai.request.model"] = shortened(model)
            name = f"{name} {shortened(model)}"
        if self._with_ids:
            attributes["user.id"] = user_id
            if team_id is not None:
                attributes["ducto.team_id"] = team_id
        return self._tracer.start_span(
            name,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_time=start.unix_nanoseconds,
            record_exception=False,
        )

    def _admitted(self, start: _Start, admission: Admission, labels: Attributes, now_seconds: float) -> None:
        terms, result = admission.terms, admission.result
        span = self._start(start, terms.operation_type, admission.model, terms.user_id, terms.team_id)
        span.set_attributes({"ducto.credits.reserved": result.amount, "ducto.credits.held": result.held})
        if self._with_ids:
            span.set_attribute("ducto.reservation_id", admission.reservation_id)
        self._instruments.reserved.add(result.amount, labels)
        self._open[admission.reservation_id] = _OpenCall(span, labels, now_seconds)
        if len(self._open) > OPEN_CALLS_KEPT:
            self._abandon(self._open.popitem(last=False)[1])

    def _unopened(self, start: _Start, what: Settlement | Charge) -> _OpenCall:
        """A span for a charge alone."""
        usage_model = what.usage.model if what.usage is not None else None
        model = what.model or usage_model
        operation_type = what.operation_type if isinstance(what, Charge) else "settle"
        span = self._start(start, operation_type, model, what.user_id, what.team_id)
        if self._with_ids and isinstance(what, Settlement):
            span.set_attribute("ducto.reservation_id", what.reservation_id)
        return _OpenCall(span, self._instruments.labels(operation_type, model), start.seconds)

    def _charged(self, call: _OpenCall, what: Settlement | Charge, result: DeductionResult) -> None:
        charged = result.actual - result.unbilled
        attributes: Attributes = {
            "ducto.credits.charged": charged,
            "ducto.credits.from_allowance": result.allowance_consumed,
            "ducto.credits.unbilled": result.unbilled,
            "ducto.credits.overage": result.overage,
            "ducto.estimated": what.estimated,
            "ducto.late": result.late,
            "ducto.suspect": result.suspect,
        }
        if what.usage is not None:
            attributes.update(usage_attributes(what.usage))
            self._instruments.count_tokens(what.usage, call.labels)
        if self._with_ids and result.transaction_id is not None:
            attributes["ducto.transaction_id"] = result.transaction_id
        call.span.set_attributes(attributes)
        self._instruments.charged.add(charged, call.labels)
        if result.unbilled > 0:
            self._instruments.unbilled.add(result.unbilled, call.labels)
        self._end(call, "charged")

    def _end(self, call: _OpenCall, outcome: str) -> None:
        call.span.set_attribute("ducto.outcome", outcome)
        call.span.end()
        self._instruments.calls.add(1, {**call.labels, "ducto.outcome": outcome})

    def _fail(self, span: Span, labels: Attributes, code: str) -> None:
        span.set_attributes({"ducto.outcome": code, "error.type": code})
        span.set_status(Status(StatusCode.ERROR, code))
        span.end()
        self._instruments.calls.add(1, {**labels, "ducto.outcome": code})

    @staticmethod
    def _abandon(call: _OpenCall) -> None:
        """What became of the call is not seen here: another process may charge it, so it is not counted."""
        call.span.set_attribute("ducto.outcome", "unknown")
        call.span.end()

    def _took(self, verb: str, seconds: float, outcome: object) -> None:
        labels: Attributes = {"ducto.verb": verb}
        if isinstance(outcome, BaseException):
            labels["error.type"] = error_type(outcome)
        self._instruments.store_duration.record(seconds, labels)
