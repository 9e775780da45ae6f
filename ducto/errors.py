"""Everything that ducto raises, and the one table from refusal code to class and HTTP status.

    DuctoError
    ├── CreditError                      an expected refusal: has a code, an HTTP status and numbers
    │   ├── ArgumentError                invalid_argument           400   (also a ValueError)
    │   │   └── InvalidAmountError       invalid_amount             400
    │   ├── InsufficientCreditsError     insufficient_credits       402
    │   ├── CapReachedError              cap_reached                402
    │   │   └── MemberCapReachedError    member_cap_reached         402
    │   ├── ConcurrencyLimitError        concurrency_limit          429
    │   ├── FeatureNotEntitledError      feature_not_entitled       403
    │   ├── NotAMemberError              not_a_member               403
    │   ├── NotFoundError                not_found                  404   (also a LookupError)
    │   │   ├── ReservationNotFoundError reservation_not_found      404
    │   │   ├── TransactionNotFoundError transaction_not_found      404
    │   │   ├── TeamNotFoundError        team_not_found             404
    │   │   ├── PlanNotFoundError        plan_not_found             404
    │   │   └── PricingNotFoundError     pricing_not_found          404
    │   ├── ConflictError                                           409
    │   │   ├── CallInFlightError        call_in_flight             409
    │   │   ├── AlreadySettledError      already_settled            409
    │   │   ├── ReservationReleasedError reservation_released       409
    │   │   ├── ReservationExpiredError  reservation_expired        409
    │   │   ├── ExceedsReservationError  exceeds_reservation        409
    │   │   ├── RenewLimitError          renew_limit                409
    │   │   ├── NotRefundableError       not_refundable             409
    │   │   ├── AlreadyRefundedError     already_refunded           409
    │   │   ├── OverRefundError          over_refund                409
    │   │   ├── TeamNotEmptyError        team_not_empty             409
    │   │   └── VersionConflictError     version_conflict           409
    │   ├── IdempotencyMismatchError     idempotency_mismatch       422
    │   └── CreditOverflowError          overflow                   422
    ├── PricingError                     a price cannot be known    400
    │   ├── UnknownModelError            price_unknown              400
    │   ├── ExpressionError              invalid_expression         400   (has text, position, suggestion)
    │   └── PricingConfigError           invalid_pricing_config     400   (also a ValueError)
    ├── StoreError                       infrastructure; `retryable` says whether the same call may pass later, 503
    │   └── NotSupportedError            a store without this method; never retryable, 501
    └── ConfigError                      the program is put together wrongly; names what to change

A store *returns* a refusal as the code in `result.error`; `error_for` is how the manager turns that into the
exception to raise. A code that the table does not know is a `StoreError`: never is an unknown answer taken for
"not enough credits".
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AlreadyRefundedError",
    "AlreadySettledError",
    "ArgumentError",
    "CallInFlightError",
    "CapReachedError",
    "ConcurrencyLimitError",
    "ConfigError",
    "ConflictError",
    "CreditError",
    "CreditOverflowError",
    "DuctoError",
    "ExceedsReservationError",
    "ExpressionError",
    "FeatureNotEntitledError",
    "IdempotencyMismatchError",
    "InsufficientCreditsError",
    "InvalidAmountError",
    "MemberCapReachedError",
    "NotAMemberError",
    "NotFoundError",
    "NotRefundableError",
    "NotSupportedError",
    "OverRefundError",
    "PlanNotFoundError",
    "PricingConfigError",
    "PricingError",
    "PricingNotFoundError",
    "RenewLimitError",
    "ReservationExpiredError",
    "ReservationNotFoundError",
    "ReservationReleasedError",
    "StoreError",
    "TeamNotEmptyError",
    "TeamNotFoundError",
    "TransactionNotFoundError",
    "UnknownModelError",
    "VersionConflictError",
    "error_for",
]


class DuctoError(Exception):
    """Base of every error that ducto raises."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500


class CreditError(DuctoError):
    """An expected refusal. `details` carries its numbers: which ones, the code decides."""

    code: ClassVar[str] = "refused"
    http_status: ClassVar[int] = 400

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = {name: value for name, value in details.items() if value is not None}


class ArgumentError(CreditError, ValueError):
    code = "invalid_argument"
    http_status = 400


class InvalidAmountError(ArgumentError):
    code = "invalid_amount"


class InsufficientCreditsError(CreditError):
    """`details`: `required`, `available`, `balance`, `min_balance`."""

    code = "insufficient_credits"
    http_status = 402


class CapReachedError(CreditError):
    """`details`: `limit`, `spent`, `held`, `resets_at` of the cap that refused."""

    code = "cap_reached"
    http_status = 402


class MemberCapReachedError(CapReachedError):
    code = "member_cap_reached"


class ConcurrencyLimitError(CreditError):
    code = "concurrency_limit"
    http_status = 429


class FeatureNotEntitledError(CreditError):
    code = "feature_not_entitled"
    http_status = 403


class NotAMemberError(CreditError):
    code = "not_a_member"
    http_status = 403


class NotFoundError(CreditError, LookupError):
    code = "not_found"
    http_status = 404


class ReservationNotFoundError(NotFoundError):
    code = "reservation_not_found"


class TransactionNotFoundError(NotFoundError):
    code = "transaction_not_found"


class TeamNotFoundError(NotFoundError):
    code = "team_not_found"


class PlanNotFoundError(NotFoundError):
    code = "plan_not_found"


class PricingNotFoundError(NotFoundError):
    code = "pricing_not_found"


class ConflictError(CreditError):
    code = "conflict"
    http_status = 409


class CallInFlightError(ConflictError):
    """The first call with this idempotency key is still running; retry after a moment."""

    code = "call_in_flight"


class AlreadySettledError(ConflictError):
    """`details["transaction_id"]` is the transaction that settled it."""

    code = "already_settled"


class ReservationReleasedError(ConflictError):
    code = "reservation_released"


class ReservationExpiredError(ConflictError):
    code = "reservation_expired"


class ExceedsReservationError(ConflictError):
    code = "exceeds_reservation"


class RenewLimitError(ConflictError):
    code = "renew_limit"


class NotRefundableError(ConflictError):
    code = "not_refundable"


class AlreadyRefundedError(ConflictError):
    code = "already_refunded"


class OverRefundError(ConflictError):
    code = "over_refund"


class TeamNotEmptyError(ConflictError):
    code = "team_not_empty"


class VersionConflictError(ConflictError):
    """Another publish came first: the active version is not the expected one."""

    code = "version_conflict"


class IdempotencyMismatchError(CreditError):
    """The key was used before with other arguments; `details["mismatch"]` names the fields that differ."""

    code = "idempotency_mismatch"
    http_status = 422


class CreditOverflowError(CreditError):
    code = "overflow"
    http_status = 422


class PricingError(DuctoError):
    code = "pricing_error"
    http_status = 400


class UnknownModelError(PricingError):
    """No price is known for this model, so the call is refused; nothing is ever free by omission."""

    code = "price_unknown"

    def __init__(self, message: str, *, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class ExpressionError(PricingError):
    """A pricing expression is malformed or cannot be evaluated.

    `position` is the 0-based offset in `text` where the fault starts, `suggestion` a name that was probably meant.
    """

    code = "invalid_expression"

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        position: int | None = None,
        suggestion: str | None = None,
    ) -> None:
        super().__init__(message)
        self.text = text
        self.position = position
        self.suggestion = suggestion


class PricingConfigError(PricingError, ValueError):
    code = "invalid_pricing_config"


class StoreError(DuctoError):
    """The store could not answer. An error says nothing about the outcome: retry with the *same* key.

    `retryable` tells whether the same call may pass later; `code` is `store_unavailable`, or `busy` when a lock
    was not had in time. `retry_after_seconds`, where known, is what the server asked for.
    """

    code = "store_unavailable"
    http_status = 503

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        busy: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.busy = busy
        self.retry_after_seconds = retry_after_seconds


class NotSupportedError(StoreError):
    """This store does not implement the method that the message names."""

    code = "not_supported"
    http_status = 501


class ConfigError(DuctoError):
    """The program is put together wrongly; the message says what to change."""

    code = "config_error"


def _subclasses(cls: type[CreditError]) -> list[type[CreditError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _subclasses(child))]


#: code -> class, derived from the tree itself so that the two cannot differ.
CREDIT_ERRORS: dict[str, type[CreditError]] = {cls.code: cls for cls in _subclasses(CreditError)}


def error_for(code: str, message: str, **details: Any) -> DuctoError:
    """The exception for a refusal `code` that a store returned; `StoreError` for a code that is not known."""
    cls = CREDIT_ERRORS.get(code)
    if cls is None:
        return StoreError(f"The store answered with the unknown code {code!r}: {message}", retryable=False)
    return cls(message, **details)
