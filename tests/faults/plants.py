"""Stores with planted bugs, by which the harness shows that it finds such."""

from __future__ import annotations

from typing import Any, Literal, get_args
from uuid import uuid4

from ducto.errors import StoreError
from ducto.models import DeductionResult
from ducto.stores.base import CreditStore
from ducto.stores.forwarding import ForwardingStore

__all__ = ["PLANTS", "Plant", "planted"]

#: `gives-up`: a charge that fails is not tried again, and no journal remembers it.
#: `fresh-key`: a charge that failed, perhaps only in its reply, is repeated under a new key.
Plant = Literal["gives-up", "fresh-key"]
PLANTS: tuple[Plant, ...] = get_args(Plant)


class _GivesUp(ForwardingStore):
    async def deduct_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
        try:
            return await self.inner.deduct_credits(*args, **kwargs)
        except StoreError as error:
            raise StoreError(f"Given up: {error}", retryable=False) from None


class _FreshKey(ForwardingStore):
    def __init__(self, inner: CreditStore, *, owns_inner: bool) -> None:
        super().__init__(inner, owns_inner=owns_inner)
        self._failed: set[str] = set()

    async def deduct_credits(self, user_id: str, reservation_id: str, amount: int, **kwargs: Any) -> DeductionResult:  # type: ignore[override]
        if reservation_id in self._failed:
            return await self.inner.charge_credits(user_id, amount, force=True, idempotency_key=uuid4().hex)
        try:
            return await self.inner.deduct_credits(user_id, reservation_id, amount, **kwargs)
        except StoreError:
            self._failed.add(reservation_id)
            raise


def planted(store: CreditStore, plant: Plant | None) -> CreditStore:
    """`store`, with the bug that `plant` names."""
    if plant is None:
        return store
    return {"gives-up": _GivesUp, "fresh-key": _FreshKey}[plant](store, owns_inner=True)
