"""The life of one metered call: reserve, run, then deduct or release exactly once.

Every door (decorator, ASGI middleware, hooks) drives a `MeteredCall`; the manager stands behind it as a
`CallBooks`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, assert_never

from ducto.errors import (
    AlreadySettledError,
    CallInFlightError,
    ConfigError,
    DuctoError,
    IdempotencyMismatchError,
    PricingError,
    ReservationReleasedError,
    StoreError,
)
from ducto.models import DeductionResult, Metadata, OveragePolicy, PlanDefinition, ReleaseResult, ReserveResult
from ducto.pricing.engine import PricingEngine
from ducto.supervisor import outcome
from ducto.usage import UsageMetrics

__all__ = ["MAX_KEY_ATTEMPTS", "Admission", "CallBooks", "CallTerms", "MeteredCall", "MissingUsage"]

logger: logging.Logger = logging.getLogger("ducto.meter")

#: What a finished call without usable usage is charged: the price of its estimate, or all that was reserved.
MissingUsage = Literal["estimate", "reserved"]

#: How often one caller's key may be tried again after attempts that ended without a charge.
MAX_KEY_ATTEMPTS = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """What a call asks for when it is admitted. `None` takes the manager's default.

    `estimate` is the worst case: usage, which is priced as an upper bound, or credits. `model` defaults to
    the estimate's. `fingerprint` (of the request) is compared in place of the amount when the key is used
    again.
    """

    user_id: str
    estimate: UsageMetrics | int
    operation_type: str = "call"
    idempotency_key: str | None = None
    team_id: str | None = None
    model: str | None = None
    feature: str | None = None
    ttl_seconds: int | None = None
    grace_seconds: int | None = None
    overage: OveragePolicy | None = None
    max_settle: int | None = None
    max_concurrent: int | None = None
    min_balance: int | None = None
    fingerprint: str | None = None
    metadata: Metadata = None

    @property
    def admitted_model(self) -> str | None:
        """The model that the call is admitted for: the one given, else the estimate's."""
        if self.model is not None:
            return self.model
        return self.estimate.model if isinstance(self.estimate, UsageMetrics) else None


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted call, with the prices it was admitted under.

    `engine` is `None` only if the estimate was given in credits and no pricing config is published.
    """

    terms: CallTerms
    result: ReserveResult
    engine: PricingEngine | None
    plan: PlanDefinition | None
    #: Was it admitted without the store, which did not answer? Then nothing is held, and it is charged later.
    offline: bool = False

    @property
    def user_id(self) -> str:
        return self.terms.user_id

    @property
    def reservation_id(self) -> str:
        """The id of the hold; of a call that was admitted offline, the key that it is charged under."""
        if self.result.reservation_id is None:
            raise StoreError("The store answered a reserve without a reservation id; its books cannot be followed.")
        return self.result.reservation_id

    @property
    def model(self) -> str | None:
        """The model that was admitted and by which the call is priced."""
        return self.terms.admitted_model


class CallBooks(Protocol):
    """What a metered call needs of the manager."""

    @property
    def missing_usage(self) -> MissingUsage: ...

    async def admit(self, terms: CallTerms) -> Admission:
        """Reserve. A hold whose caller was cancelled meanwhile is released. Raises the typed refusals."""

    def price_of(self, admission: Admission, actual: UsageMetrics | int) -> int:
        """The credits for `actual`, by the prices of the admission. Raises `PricingError`."""

    def supervise(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Run `work` in a task of its own that no caller's cancellation reaches."""

    async def settle_admitted(
        self, admission: Admission, amount: int, *, usage: UsageMetrics | None, estimated: bool
    ) -> DeductionResult:
        """Charge `amount`, retried under the same reservation. Raises the typed refusals and `StoreError`."""

    async def release_admitted(self, admission: Admission) -> ReleaseResult:
        """Free the hold, retried."""

    async def transaction_of(self, admission: Admission) -> str | None:
        """The transaction that settled the reservation, where the store can tell."""

    def keep_alive(self, admission: Admission) -> Callable[[], None]:
        """Renew the hold until the returned function is called."""


class MeteredCall:
    """One metered call. `async with` it, or drive it with `start`, `record`, `settle` and `release`.

    On leaving the block: with recorded usage it is charged (also when the block raised: the work was done);
    without usage it is charged by the missing-usage policy, flagged as estimated; if the block raised and
    recorded nothing, the hold is released. It ends once: whichever of `settle` and `release` comes first
    decides.

    That the *charge* fails for want of a store does not take the caller's answer away: leaving the block then
    sets `settle_error`, and the charge is in the manager's journal, to be made when the store answers
    (`credits.settle_deferred`); without a journal it is logged and emitted as `credits.deduct_failed`. An explicit
    `settle()` raises.
    """

    def __init__(self, books: CallBooks, terms: CallTerms) -> None:
        self._books = books
        self._terms = terms
        self._admission: Admission | None = None
        self._started = False
        self._usage: UsageMetrics | int | None = None
        self._usage_estimated = False
        self._delivered = False
        self._settling: asyncio.Task[DeductionResult] | None = None
        self._releasing: asyncio.Task[ReleaseResult] | None = None
        self._stop_renewing: Callable[[], None] | None = None
        #: Why the charge failed on leaving the block, if it did.
        self.settle_error: StoreError | None = None

    @property
    def terms(self) -> CallTerms:
        """What the call asks for."""
        return self._terms

    @property
    def admission(self) -> Admission:
        """The admitted call and its prices. Raises `ConfigError` before `start`."""
        if self._admission is None:
            raise ConfigError("This call has not been admitted; enter it with `async with`, or await `start()`.")
        return self._admission

    @property
    def reservation(self) -> ReserveResult:
        """What was reserved. Raises `ConfigError` before `start`."""
        return self.admission.result

    @property
    def offline(self) -> bool:
        """Was it admitted while the store did not answer, as `FailOpen` allows? It is charged when the store does."""
        return self.admission.offline

    @property
    def usage(self) -> UsageMetrics | int | None:
        """The usage recorded so far."""
        return self._usage

    @property
    def ended(self) -> bool:
        """Has `settle` or `release` begun? It then completes whatever becomes of its caller."""
        return self._settling is not None or self._releasing is not None

    async def start(self) -> ReserveResult:
        """Reserve, and renew the hold from now on.

        With an idempotency key `k` the hold is made under `k:1`; while earlier attempts ended without a
        charge, under `k:2` to `k:10`, so that a retry after a failure runs. Raises `CallInFlightError` while
        the first call with the key runs, `AlreadySettledError` (`details`: reservation_id, transaction_id)
        when it was charged, `ReservationReleasedError` when all attempts are used up, and the refusals of
        `reserve`.
        """
        if self._started:
            raise ConfigError("A metered call runs once; make a new one for the next call.")
        self._started = True
        self._admission = await self._admit()
        self._stop_renewing = self._books.keep_alive(self._admission)
        return self._admission.result

    async def _admit(self) -> Admission:
        key = self._terms.idempotency_key
        if key is None:
            return await self._books.admit(self._terms)
        for attempt in range(1, MAX_KEY_ATTEMPTS + 1):
            try:
                admission = await self._books.admit(replace(self._terms, idempotency_key=f"{key}:{attempt}"))
            except IdempotencyMismatchError as error:  # told of the caller's key, not of ours
                raise IdempotencyMismatchError(
                    f"The idempotency key {key!r} was used before for another call; use a new key for a new call.",
                    **error.details,
                ) from None
            if not admission.result.replayed:
                return admission
            match admission.result.state:
                case "released" | "expired":
                    continue
                case "settled":
                    raise AlreadySettledError(
                        f"The call with the key {key!r} was charged already; use a new key for a new call.",
                        reservation_id=admission.reservation_id,
                        transaction_id=await self._books.transaction_of(admission),
                    )
                case _:
                    raise CallInFlightError(
                        f"A call with the key {key!r} is still running; retry after a moment.",
                        reservation_id=admission.reservation_id,
                    )
        raise ReservationReleasedError(
            f"The key {key!r} was tried {MAX_KEY_ATTEMPTS} times without a charge; use a new key."
        )

    def record(self, usage: UsageMetrics | int, *, estimated: bool = False) -> None:
        """Note what the call used, as usage or in credits; the last note counts."""
        self._usage = usage
        self._usage_estimated = estimated

    def note_delivery(self) -> None:
        """Something of the answer is there: if the call fails from now on, it is charged and not released."""
        self._delivered = True

    async def settle(self, actual: UsageMetrics | int | None = None, *, estimated: bool = False) -> DeductionResult:
        """Charge the call: for `actual`, else for the recorded usage, else by the missing-usage policy.

        It runs in a task of its own: once called it completes though the caller is cancelled. A second call
        returns the first one's result. Usage that cannot be priced counts as missing, since the work was
        done. Raises `ReservationReleasedError` after `release`, the typed refusals, and `StoreError` when all
        retries failed.
        """
        if self._releasing is not None:
            raise ReservationReleasedError("This call was released, so it cannot be charged any more.")
        if self._settling is None:
            admission = self.admission
            if actual is None:
                actual, estimated = self._usage, estimated or self._usage_estimated
            amount, usage, guessed = self._bill(actual)
            self._end()
            self._settling = self._books.supervise(
                lambda: self._books.settle_admitted(admission, amount, usage=usage, estimated=estimated or guessed)
            )
        return await outcome(self._settling)

    async def release(self) -> ReleaseResult:
        """Free the hold without a charge. After `settle` it changes nothing and says so (`released` is
        false).

        Like `settle` it completes though the caller is cancelled.
        """
        if self._settling is not None:
            return ReleaseResult(reservation_id=self.admission.reservation_id, state="settled")
        if self._releasing is None:
            admission = self.admission
            self._end()
            self._releasing = self._books.supervise(lambda: self._books.release_admitted(admission))
        return await outcome(self._releasing)

    def _end(self) -> None:
        if self._stop_renewing is not None:
            self._stop_renewing()
            self._stop_renewing = None

    def _bill(self, actual: UsageMetrics | int | None) -> tuple[int, UsageMetrics | None, bool]:
        """Amount, usage to record, and whether the amount is only an estimate."""
        admission = self.admission
        if actual is not None:
            try:
                amount = self._books.price_of(admission, actual)
            except PricingError:
                logger.exception(
                    "The usage of reservation %s cannot be priced; it is charged by the missing-usage policy.",
                    admission.reservation_id,
                )
            else:
                return amount, actual if isinstance(actual, UsageMetrics) else None, False
        usage = actual if isinstance(actual, UsageMetrics) else None
        match self._books.missing_usage:
            case "reserved":
                return admission.result.amount, usage, True
            case "estimate":
                return self._estimated_price(), usage, True
            case other:
                assert_never(other)

    def _estimated_price(self) -> int:
        try:
            return self._books.price_of(self.admission, self._terms.estimate)
        except PricingError:
            return self.admission.result.amount

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.finish(exc)

    async def finish(self, failure: BaseException | None = None) -> None:
        """End the call as leaving its block does, with the exception that the block raised if it did.

        Does nothing if the call has ended. Raises the typed refusals, unless there is a `failure`.
        """
        if self.ended:
            return
        if failure is None:
            await self._settle_on_exit()
        else:
            await self._end_after_failure(failure)

    async def _settle_on_exit(self) -> None:
        try:
            await self.settle()
        except StoreError as error:
            self.settle_error = error

    async def _end_after_failure(self, exc: BaseException) -> None:
        """The block's own exception goes on its way; what fails here is logged and emitted, not raised over
        it.
        """
        try:
            if self._usage is not None or self._delivered:
                await self.settle()
            else:
                await self.release()
        except DuctoError as error:
            logger.warning(
                "Reservation %s could not be ended after %s: %s",
                self.admission.reservation_id,
                type(exc).__name__,
                error,
            )
