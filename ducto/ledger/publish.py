"""Publish: versions of the pricing config, of which one is active, and the plans that they define."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ducto import arguments
from ducto.errors import ArgumentError, PricingNotFoundError, VersionConflictError
from ducto.ledger.keys import check_same
from ducto.ledger.state import Book
from ducto.models import PricingConfigData, PricingConfigHistoryItem, PricingConfigResult
from ducto.pricing import compile_pricing, parse_pricing

__all__ = ["activate", "find_pricing", "history", "publish"]


def publish(
    book: Book,
    clock_now: datetime,
    config: PricingConfigData | Mapping[str, Any],
    label: str | None,
    *,
    expected_version: int | str | None,
    idempotency_key: str | None,
) -> str:
    arguments.check_optional_id(label, name="label")
    arguments.check_key(idempotency_key)
    data = parse_pricing(config)
    compile_pricing(data)
    compared = (data, label)
    earlier = None if idempotency_key is None else book.pricing_keys.get(idempotency_key)
    if earlier is not None and idempotency_key is not None:
        check_same("publish", idempotency_key, earlier[0], compared)
        return earlier[1]
    if expected_version is not None:
        active = "0" if book.active_pricing is None else book.active_pricing.id
        if version_id(expected_version) != active:
            raise VersionConflictError(
                f"The active pricing version is {active}, not {expected_version}: somebody published meanwhile. "
                "Look at the active version and publish again."
            )
    number = len(book.pricing) + 1
    published = PricingConfigResult(
        id=str(number), version=number, label=label, config=data, active=True, created_at=clock_now
    )
    book.pricing.append(published)
    _make_active(book, published)
    if idempotency_key is not None:
        book.pricing_keys[idempotency_key] = (compared, published.id)
    return published.id


def activate(book: Book, version: int | str) -> str:
    found = find_pricing(book, version)
    if found is None:
        raise PricingNotFoundError(f"There is no pricing version {version!r}.")
    _make_active(book, found)
    return found.id


def _make_active(book: Book, version: PricingConfigResult) -> None:
    book.active_pricing = version.model_copy(update={"active": True})
    # A plan that this config does not have keeps its last definition, for the users who are on it.
    book.plans.update(version.config.plans)


def find_pricing(book: Book, version: int | str) -> PricingConfigResult | None:
    wanted = version_id(version)
    for each in book.pricing:
        if each.id == wanted:
            return each.model_copy(update={"active": _is_active(book, each)})
    return None


def history(book: Book) -> list[PricingConfigHistoryItem]:
    return [
        PricingConfigHistoryItem(
            id=each.id,
            version=each.version,
            label=each.label,
            active=_is_active(book, each),
            created_at=each.created_at,
        )
        for each in reversed(book.pricing)
    ]


def _is_active(book: Book, version: PricingConfigResult) -> bool:
    return book.active_pricing is not None and book.active_pricing.id == version.id


def version_id(version: int | str) -> str:
    """A version by number or by id: the id is the number as text."""
    if isinstance(version, bool) or not isinstance(version, (int, str)):
        raise ArgumentError(f"A pricing version is a number or an id, not {type(version).__name__}.")
    return str(version)
