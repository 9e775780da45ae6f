"""Stores with one fault each, and the checks that have to notice it."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ducto.models import SpendCap
from ducto.stores.memory import MemoryStore
from tests.conformance.listing_mutants import (
    GrantsHaveNoSign,
    HoldsForgetTheirGrants,
    LedgerEndsWithoutACursor,
    LedgerLeavesTeamsOut,
    LedgerTakesAnyCursor,
    LedgerWindowsAreClosed,
    ListsEndedReservations,
    ListsNoTeamReservations,
    ListsOnlyBookedExpiries,
    RefundsNameTheFirstGrant,
    ReservationPagesAreByNumber,
    RollUpCountsTwice,
    RollUpTakesAnyLimit,
    RowsForgetTheirGrants,
    TakesTheLettersOfAState,
)

# The overrides take what they do not look at as `*args, **options`: they stand between a check and the real store.


class ChargeIgnoresHolds(MemoryStore):
    async def charge_credits(self, user_id: str, amount: int, *args: Any, **options: Any) -> Any:
        result = await super().charge_credits(user_id, amount, *args, **options)
        if result.error == "insufficient_credits" and result.details and result.details.balance >= amount:
            return await super().charge_credits(user_id, amount, *args, **{**options, "force": True})
        return result


class ReplayIgnoresTheAmount(MemoryStore):
    async def charge_credits(self, user_id: str, amount: int, *args: Any, **options: Any) -> Any:
        result = await super().charge_credits(user_id, amount, *args, **options)
        if result.error == "idempotency_mismatch":
            return result.model_copy(update={"error": None, "details": None, "replayed": True})
        return result


class PlanSwitchMintsAllowance(MemoryStore):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.used_before: dict[str, int] = {}

    async def set_user_plan(self, user_id: str, plan_id: str | None) -> Any:
        self.used_before[user_id] = (await super().check_allowance(user_id)).used
        return await super().set_user_plan(user_id, plan_id)

    async def check_allowance(self, user_id: str) -> Any:
        found = await super().check_allowance(user_id)
        used = found.used - self.used_before.get(user_id, 0)
        return found.model_copy(update={"used": used, "remaining": max(0, found.allowance - used - found.held)})


class AcceptsFloats(MemoryStore):
    async def add_credits(self, user_id: str, amount: Any, *args: Any, **options: Any) -> Any:
        whole = int(amount) if isinstance(amount, float) and amount == amount and abs(amount) < 2**53 else amount
        return await super().add_credits(user_id, whole, *args, **options)


class AcceptsForeignReservations(MemoryStore):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.owners: dict[str, str] = {}

    async def reserve_credits(self, user_id: str, *args: Any, **options: Any) -> Any:
        result = await super().reserve_credits(user_id, *args, **options)
        if result.reservation_id:
            self.owners[result.reservation_id] = user_id
        return result

    async def deduct_credits(self, user_id: str, reservation_id: Any, *args: Any, **options: Any) -> Any:
        owner = self.owners.get(reservation_id, user_id)
        return await super().deduct_credits(owner, reservation_id, *args, **options)


class CapIgnoresHolds(MemoryStore):
    async def reserve_credits(self, user_id: str, amount: Any, *args: Any, **options: Any) -> Any:
        result = await super().reserve_credits(user_id, amount, *args, **options)
        found = result.details
        if result.error == "cap_reached" and found.spent + amount <= found.limit:
            caps = await self.list_spend_caps(user_id)
            for cap in caps:
                await self.remove_spend_cap(user_id, cap.cap_type, model=cap.model)
            result = await super().reserve_credits(user_id, amount, *args, **options)
            for cap in caps:
                await self.set_spend_cap(cap)
        return result


class TopUpIgnoresItsKey(MemoryStore):
    async def add_credits(self, *args: Any, idempotency_key: str | None = None, **options: Any) -> Any:
        return await super().add_credits(*args, **options)


class LateWorkIsFree(MemoryStore):
    async def deduct_credits(self, user_id: str, reservation_id: Any, amount: int, *args: Any, **options: Any) -> Any:
        try:
            gone = (await self.get_reservation(user_id, reservation_id)).state == "expired"
        except LookupError:
            gone = False
        return await super().deduct_credits(user_id, reservation_id, 0 if gone else amount, *args, **options)


class TeamRefundGoesToTheMember(MemoryStore):
    async def refund_credits(self, *args: Any, **options: Any) -> Any:
        result = await super().refund_credits(*args, **options)
        if result.team_id and result.ok and not result.replayed:
            await super().deduct_team(result.team_id, result.user_id, result.amount, force=True)
            await super().add_credits(result.user_id, result.amount)
        return result


class AcceptsAnyTtl(MemoryStore):
    async def reserve_credits(self, *args: Any, ttl_seconds: Any = 600, **options: Any) -> Any:
        bounded = min(max(ttl_seconds, 1), 86_400) if type(ttl_seconds) is int else ttl_seconds
        return await super().reserve_credits(*args, ttl_seconds=bounded, **options)


class ReadsKeysFromMetadata(MemoryStore):
    async def charge_credits(
        self, user_id: str, amount: int, operation_type: str = "charge", metadata: Any = None, **options: Any
    ) -> Any:
        if isinstance(metadata, Mapping) and "idempotency_key" in metadata:
            options.setdefault("idempotency_key", metadata["idempotency_key"])
        return await super().charge_credits(user_id, amount, operation_type, metadata, **options)


class TrimsIds(MemoryStore):
    async def add_credits(self, user_id: Any, *args: Any, **options: Any) -> Any:
        trimmed = user_id.strip() if isinstance(user_id, str) else user_id
        return await super().add_credits(trimmed, *args, **options)


class NormalisesIds(MemoryStore):
    async def add_credits(self, user_id: Any, *args: Any, **options: Any) -> Any:
        folded = unicodedata.normalize("NFC", user_id) if isinstance(user_id, str) else user_id
        return await super().add_credits(folded, *args, **options)


class ReplayShowsTheBalanceOfToday(MemoryStore):
    async def charge_credits(self, user_id: str, *args: Any, **options: Any) -> Any:
        result = await super().charge_credits(user_id, *args, **options)
        if result.replayed:
            return result.model_copy(update={"balance_after": (await self.get_balance(user_id)).balance})
        return result


class KeepsDenials(MemoryStore):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.denied: dict[tuple[str, str], Any] = {}

    async def charge_credits(self, user_id: str, *args: Any, idempotency_key: Any = None, **options: Any) -> Any:
        kept = self.denied.get((user_id, idempotency_key)) if isinstance(idempotency_key, str) else None
        if kept is not None:
            return kept
        result = await super().charge_credits(user_id, *args, idempotency_key=idempotency_key, **options)
        if result.error == "insufficient_credits" and idempotency_key is not None:
            self.denied[user_id, idempotency_key] = result
        return result


class DryRunWrites(MemoryStore):
    async def sweep_expired_credits(self, dry_run: bool = False) -> Any:
        return (await super().sweep_expired_credits()).model_copy(update={"dry_run": dry_run})


class FloorIsExclusive(MemoryStore):
    async def reserve_credits(
        self,
        user_id: Any,
        amount: Any,
        operation_type: Any,
        metadata: Any = None,
        min_balance: Any = 5,
        **options: Any,
    ) -> Any:
        floor = min_balance + 1 if type(min_balance) is int and type(amount) is int and amount > 0 else min_balance
        return await super().reserve_credits(user_id, amount, operation_type, metadata, floor, **options)


class RefundReopensCaps(MemoryStore):
    async def refund_credits(self, *args: Any, **options: Any) -> Any:
        result = await super().refund_credits(*args, **options)
        if result.ok and result.user_id and not result.team_id:
            for cap in await self.list_spend_caps(result.user_id):
                wider = cap.limit + result.amount
                await self.set_spend_cap(SpendCap(**{**cap.model_dump(), "limit": wider}))
        return result


class RenewAddsUp(MemoryStore):
    async def renew_reservation(self, user_id: str, reservation_id: str, *, ttl_seconds: int = 600) -> Any:
        result = await super().renew_reservation(user_id, reservation_id, ttl_seconds=ttl_seconds)
        if result.expires_at:
            return result.model_copy(update={"expires_at": result.expires_at + timedelta(seconds=ttl_seconds)})
        return result


class WindowsAreClosed(MemoryStore):
    async def spend_by_user(self, start: datetime, end: datetime) -> Any:
        return await super().spend_by_user(start, end + timedelta(microseconds=1))


class PagesRepeatARow(MemoryStore):
    async def list_transactions(self, *args: Any, cursor: str | None = None, **options: Any) -> Any:
        page = await super().list_transactions(*args, cursor=cursor, **options)
        if cursor is not None and page.transactions:
            return page.model_copy(update={"transactions": (page.transactions[0], *page.transactions)})
        return page


class ChecksAndBooksInTwoSteps(MemoryStore):
    """Reads, lets others run, then books whatever has happened meanwhile."""

    async def charge_credits(self, user_id: str, amount: int, *args: Any, **options: Any) -> Any:
        if type(amount) is int and amount > 0 and (await self.get_available(user_id)).available >= amount:
            await asyncio.sleep(0)
            return await super().charge_credits(user_id, amount, *args, **{**options, "force": True})
        return await super().charge_credits(user_id, amount, *args, **options)


class SettlesWithoutOverage(MemoryStore):
    async def reserve_credits(self, *args: Any, overage: Any = "debt", **options: Any) -> Any:
        return await super().reserve_credits(*args, overage="clamp" if overage == "debt" else overage, **options)


class DenialsLeaveARow(MemoryStore):
    async def charge_credits(self, user_id: str, *args: Any, **options: Any) -> Any:
        result = await super().charge_credits(user_id, *args, **options)
        if result.error == "insufficient_credits":
            await super().charge_credits(user_id, 0, force=True)
        return result


class EmptyKeyIsNoKey(MemoryStore):
    async def charge_credits(self, *args: Any, idempotency_key: Any = None, **options: Any) -> Any:
        return await super().charge_credits(*args, idempotency_key=idempotency_key or None, **options)


class ForgetsTheAttempt(MemoryStore):
    async def reserve_credits(self, *args: Any, attempt_id: Any = None, **options: Any) -> Any:
        result = await super().reserve_credits(*args, attempt_id=attempt_id, **options)
        return result if result.error else await super().reserve_credits(*args, **options)


class AnyAttemptIsTheFirst(MemoryStore):
    async def reserve_credits(self, *args: Any, attempt_id: Any = None, **options: Any) -> Any:
        result = await super().reserve_credits(*args, attempt_id=attempt_id, **options)
        return result.model_copy(update={"replayed": False}) if attempt_id is not None else result


class AttemptIsAKey(MemoryStore):
    async def reserve_credits(
        self, *args: Any, idempotency_key: Any = None, attempt_id: Any = None, **options: Any
    ) -> Any:
        given = {**options, "attempt_id": attempt_id}
        return await super().reserve_credits(*args, idempotency_key=idempotency_key or attempt_id, **given)


class AttemptHearsTheFirstState(MemoryStore):
    async def reserve_credits(self, *args: Any, **options: Any) -> Any:
        result = await super().reserve_credits(*args, **options)
        return result if result.replayed or result.error else result.model_copy(update={"state": "active"})


@dataclass(frozen=True)
class Mutant:
    store: type[MemoryStore]
    caught_by: tuple[str, ...]


MUTANTS: tuple[Mutant, ...] = (
    Mutant(ChargeIgnoresHolds, ("check_charge_counts_holds",)),
    Mutant(
        ReplayIgnoresTheAmount,
        ("check_charge_happens_once_per_key", "check_mismatch_comes_before_missing_funds"),
    ),
    Mutant(PlanSwitchMintsAllowance, ("check_plan_switch_mints_no_second_allowance",)),
    Mutant(AcceptsFloats, ("check_bad_amounts_are_refused_everywhere",)),
    Mutant(AcceptsForeignReservations, ("check_foreign_reservations_look_unknown",)),
    Mutant(CapIgnoresHolds, ("check_cap_counts_spent_and_held",)),
    Mutant(TopUpIgnoresItsKey, ("check_add_happens_once_per_key", "check_one_top_up_of_64_deliveries")),
    Mutant(LateWorkIsFree, ("check_deduct_after_grace_is_charged_late",)),
    Mutant(TeamRefundGoesToTheMember, ("check_team_refund_returns_to_the_pool",)),
    Mutant(AcceptsAnyTtl, ("check_ttl_and_grace_are_bounded",)),
    Mutant(ReadsKeysFromMetadata, ("check_metadata_is_plain_data",)),
    Mutant(TrimsIds, ("check_bad_user_ids_are_refused",)),
    Mutant(NormalisesIds, ("check_ids_are_compared_byte_by_byte",)),
    Mutant(ReplayShowsTheBalanceOfToday, ("check_charge_happens_once_per_key",)),
    Mutant(KeepsDenials, ("check_denials_are_not_kept",)),
    Mutant(DryRunWrites, ("check_dry_run_writes_nothing",)),
    Mutant(FloorIsExclusive, ("check_reserve_floor_is_inclusive",)),
    Mutant(RefundReopensCaps, ("check_refund_does_not_reopen_a_cap",)),
    Mutant(RenewAddsUp, ("check_renew_extends_to_the_maximum",)),
    Mutant(WindowsAreClosed, ("check_report_windows_are_half_open",)),
    Mutant(PagesRepeatARow, ("check_transactions_are_listed_page_by_page",)),
    Mutant(ChecksAndBooksInTwoSteps, ("check_64_charges_at_a_balance_for_10",)),
    Mutant(SettlesWithoutOverage, ("check_debt_goes_below_zero",)),
    Mutant(DenialsLeaveARow, ("check_reads_and_denials_create_no_row",)),
    Mutant(EmptyKeyIsNoKey, ("check_bad_keys_are_refused",)),
    Mutant(
        RowsForgetTheirGrants,
        ("check_charge_tells_which_grants_it_burned", "check_every_listing_tells_the_same_of_grants"),
    ),
    Mutant(GrantsHaveNoSign, ("check_charge_tells_which_grants_it_burned", "check_expiry_tells_its_grant")),
    Mutant(RefundsNameTheFirstGrant, ("check_refund_tells_which_grants_it_filled",)),
    Mutant(HoldsForgetTheirGrants, ("check_reservation_tells_which_grants_it_holds",)),
    Mutant(LedgerLeavesTeamsOut, ("check_ledger_lists_every_row_once_page_by_page",)),
    Mutant(LedgerEndsWithoutACursor, ("check_ledger_goes_on_after_its_cursor",)),
    Mutant(LedgerWindowsAreClosed, ("check_ledger_windows_are_half_open",)),
    Mutant(LedgerTakesAnyCursor, ("check_bad_ledger_pages_are_refused",)),
    Mutant(RollUpCountsTwice, ("check_roll_up_changes_no_report",)),
    Mutant(RollUpTakesAnyLimit, ("check_bad_roll_ups_are_refused",)),
    Mutant(ListsEndedReservations, ("check_open_reservations_are_listed", "check_reservations_are_listed_by_state")),
    Mutant(ListsNoTeamReservations, ("check_open_reservations_are_listed",)),
    Mutant(ReservationPagesAreByNumber, ("check_reservations_are_listed_page_by_page",)),
    Mutant(ListsOnlyBookedExpiries, ("check_reservations_are_listed_by_state",)),
    Mutant(TakesTheLettersOfAState, ("check_bad_reservation_pages_are_refused",)),
    Mutant(ForgetsTheAttempt, ("check_reserve_knows_its_own_attempt_again",)),
    Mutant(AnyAttemptIsTheFirst, ("check_attempt_id_is_no_key", "check_reserve_knows_its_own_attempt_again")),
    Mutant(AttemptIsAKey, ("check_attempt_id_is_no_key",)),
    Mutant(AttemptHearsTheFirstState, ("check_attempt_is_told_what_became_of_its_reservation",)),
)
