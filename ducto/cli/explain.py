"""`ducto explain`: the receipt of one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from ducto.cli.output import fields_table, rows_table
from ducto.cli.running import Books, store_command
from ducto.errors import NotFoundError
from ducto.explain import Receipt, explain
from ducto.models import (
    CapCheckResult,
    PlanDefinition,
    PricingConfigResult,
    Reservation,
    SpendCap,
    TeamMember,
    Transaction,
)

__all__ = ["register"]

_FACTS = ("transaction_id", "type", "user_id", "team_id", "amount", "balance_after", "model", "operation_type")
_MORE_FACTS = (
    "plan_id",
    "counterparty",
    "refunded_transaction_id",
    "expires_at",
    "idempotency_key",
    "metadata",
    "booked_at",
    "created_at",
)

_GRANT_COLUMNS = ("grant", "expires_at", "held", "moved", "given_back")
_CAP_COLUMNS = ("window", "limit", "action", "model")


def register(app: typer.Typer) -> None:
    store_command(app, "explain")(_explain)


async def _explain(
    books: Books, transaction: Annotated[str, typer.Argument(metavar="TRANSACTION", help="Id of the transaction.")]
) -> None:
    """One receipt: what was counted, by which price and version, who paid which part, and what had been held.

    Of the caps when the call was admitted it shows those that it went over, which is what is recorded; all others are
    shown as they are set now.
    """
    row = await books.manager.get_transaction(transaction)
    version = await _version(books, row)
    receipt = explain(
        row,
        pricing=version,
        plan=await _plan(books, row, version),
        reservation=await _reservation(books, row),
        caps=await _caps(books, row),
        member=await _member(books, row),
    )
    books.out.show(receipt, *_printed(receipt))


async def _version(books: Books, row: Transaction) -> PricingConfigResult | None:
    if row.pricing_version is None:
        return None
    return await books.manager.get_pricing_config(row.pricing_version)


async def _plan(books: Books, row: Transaction, version: PricingConfigResult | None) -> PlanDefinition | None:
    """The plan that the row records, as the row's version defined it, else as it was last defined."""
    if row.plan_id is None:
        return None
    if version is not None and row.plan_id in version.config.plans:
        return version.config.plans[row.plan_id]
    known = await books.manager.list_plans(include_dropped=True)
    return next((plan for plan in known if plan.id == row.plan_id), None)


async def _reservation(books: Books, row: Transaction) -> Reservation | None:
    if row.reservation_id is None or row.user_id is None:
        return None
    try:
        return await books.manager.get_reservation(row.user_id, row.reservation_id)
    except NotFoundError:
        return None


async def _caps(books: Books, row: Transaction) -> Sequence[SpendCap]:
    return () if row.user_id is None else await books.manager.list_spend_caps(row.user_id)


async def _member(books: Books, row: Transaction) -> TeamMember | None:
    if row.team_id is None or row.user_id is None:
        return None
    try:
        members = await books.manager.get_team_members(row.team_id)
    except NotFoundError:  # The team has been deleted; its ledger stays.
        return None
    return next((member for member in members if member.user_id == row.user_id), None)


def _as_admitted(found: CapCheckResult) -> dict[str, object]:
    cap = found.cap
    terms = {} if cap is None else {"window": cap.cap_type, "limit": cap.limit, "model": cap.model}
    return {**terms, "action": found.action, "spent": found.spent, "held": found.held, "resets_at": found.resets_at}


def _printed(receipt: Receipt) -> list[Table | str]:
    row = dict(receipt.transaction)
    printed: list[Table | str] = [*receipt.remarks, fields_table({name: row[name] for name in _FACTS})]
    if receipt.pricing is not None:
        pricing = dict(receipt.pricing)
        parts = pricing.pop("parts")
        if parts:
            printed.append(rows_table(parts, ("name", "quantity", "rate", "credits"), title="What was counted"))
        printed.append(fields_table(pricing, title="How it was priced"))
    if receipt.actual or receipt.charged:
        paid = {name: getattr(receipt, name) for name in ("actual", "charged", "allowance", "paid", "unbilled")}
        printed.append(fields_table({**paid, "refunded": receipt.refunded}, title="Who paid"))
    if receipt.grants:
        printed.append(rows_table(receipt.grants, _GRANT_COLUMNS, title="Grants (credits that expire)"))
        printed.append(f"Credits that do not expire moved by {receipt.base:,}.")
    if receipt.hold is not None:
        printed.append(fields_table(dict(receipt.hold), title="The hold"))
    if receipt.caps_exceeded:
        exceeded = [_as_admitted(found) for found in receipt.caps_exceeded]
        columns = (*_CAP_COLUMNS, "spent", "held", "resets_at")
        printed.append(rows_table(exceeded, columns, title="Caps that it went over when it was admitted"))
    if receipt.caps:
        shown = (*_CAP_COLUMNS, "window_start", "window_end")
        printed.append(rows_table(receipt.caps, shown, title="Caps as they are set now, not as they were then"))
    printed.append(fields_table({name: row[name] for name in _MORE_FACTS}))
    return printed
