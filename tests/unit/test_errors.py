"""The tree of errors, its drawing, and the way from a code to an exception."""

from __future__ import annotations

import re

import pytest

from ducto import errors
from ducto.errors import CREDIT_ERRORS, CreditError, DuctoError, NotSupportedError, StoreError, error_for

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DuctoError)]

STATUSES = {
    "invalid_argument": 400,
    "invalid_amount": 400,
    "insufficient_credits": 402,
    "cap_reached": 402,
    "member_cap_reached": 402,
    "concurrency_limit": 429,
    "feature_not_entitled": 403,
    "not_a_member": 403,
    "not_found": 404,
    "reservation_not_found": 404,
    "transaction_not_found": 404,
    "team_not_found": 404,
    "plan_not_found": 404,
    "pricing_not_found": 404,
    "call_in_flight": 409,
    "already_settled": 409,
    "reservation_released": 409,
    "reservation_expired": 409,
    "exceeds_reservation": 409,
    "renew_limit": 409,
    "not_refundable": 409,
    "already_refunded": 409,
    "over_refund": 409,
    "team_not_empty": 409,
    "version_conflict": 409,
    "idempotency_mismatch": 422,
    "overflow": 422,
    "price_unknown": 400,
    "invalid_expression": 400,
    "invalid_pricing_config": 400,
    "store_unavailable": 503,
    "not_supported": 501,
}


def drawn() -> list[tuple[int, str, str | None, int | None]]:
    """Depth, class, code and status of each line of the drawing."""
    found = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ├└─]*)(\w*Error)\b(.*)$", line)
        if match:
            rest = match.group(3)
            code = re.match(r"\s+([a-z]+(?:_[a-z]+)+|overflow)\b", rest)
            status = re.search(r"\b([45]\d\d)\b", rest)
            found.append(
                (
                    len(match.group(1)) // 4,
                    match.group(2),
                    code.group(1) if code else None,
                    int(status.group(1)) if status else None,
                )
            )
    return found


def test_the_drawing_is_the_tree() -> None:
    above: dict[int, str] = {}
    pictured = {}
    for depth, name, code, status in drawn():
        above[depth] = name
        pictured[name] = above.get(depth - 1)
        cls = getattr(errors, name)
        assert code is None or cls.code == code, name
        assert status is None or cls.http_status == status, name
    assert pictured.pop("DuctoError") is None
    real = {cls.__name__: cls.__bases__[0].__name__ for cls in ALL if cls is not DuctoError}
    assert pictured == real


@pytest.mark.parametrize(("code", "status"), STATUSES.items())
def test_each_code_has_its_status(code: str, status: int) -> None:
    assert {cls.http_status for cls in ALL if cls.code == code} == {status}


def test_no_two_classes_share_a_code() -> None:
    codes = [cls.code for cls in ALL if cls is not errors.PricingError]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("code", CREDIT_ERRORS)
def test_a_known_code_becomes_its_class_with_its_numbers(code: str) -> None:
    error = error_for(code, "why", limit=3, spent=None)
    assert type(error) is CREDIT_ERRORS[code]
    assert isinstance(error, CreditError)
    assert (error.code, error.message, str(error), error.details) == (code, "why", "why", {"limit": 3})


def test_an_unknown_code_is_never_taken_for_a_refusal() -> None:
    error = error_for("something_new", "why")
    assert type(error) is StoreError
    assert not error.retryable
    assert "something_new" in str(error)


def test_builtin_kin() -> None:
    assert issubclass(errors.ArgumentError, ValueError)
    assert issubclass(errors.NotFoundError, LookupError)
    assert issubclass(errors.PricingConfigError, ValueError)
    assert issubclass(NotSupportedError, StoreError)


def test_all_is_sorted_and_complete() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert {cls.__name__ for cls in ALL} | {"error_for"} == set(errors.__all__)
