"""Reserve: hold what a call may cost, in full or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from ducto import arguments
from ducto.ledger import ids
from ducto.ledger.admission import account_of, admit, party_of
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.spending import warning_of
from ducto.ledger.state import Account, Book, Entry, Hold
from ducto.ledger.windows import month_of
from ducto.models import Metadata, OveragePolicy, ReserveResult
from ducto.usage import MAX_AMOUNT

__all__ = ["MAX_LIFE", "MAX_TTL_SECONDS", "reserve"]

MAX_TTL_SECONDS = 86_400
MAX_GRACE_SECONDS = 3_600
#: However often it is renewed, a reservation lives no longer.
MAX_LIFE = timedelta(hours=24)


def reserve(
    book: Book,
    clock_now: datetime,
    user_id: str,
    amount: int,
    operation_type: str,
    metadata: Metadata,
    min_balance: int,
    *,
    idempotency_key: str | None,
    ttl_seconds: int,
    grace_seconds: int,
    model: str | None,
    team_id: str | None,
    overage: OveragePolicy,
    max_settle: int | None,
    max_concurrent: int | None,
    feature: str | None,
    pricing_version: str | None,
    fingerprint: str | None,
) -> ReserveResult:
    arguments.check_amount(amount)
    arguments.check_id(user_id)
    arguments.check_key(idempotency_key)
    arguments.check_id(operation_type, name="operation_type")
    for name, value in (
        ("model", model),
        ("team_id", team_id),
        ("feature", feature),
        ("pricing_version", pricing_version),
        ("fingerprint", fingerprint),
    ):
        if value is not None:
            arguments.check_id(value, name=name)
    arguments.check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
    arguments.check_int(ttl_seconds, minimum=1, maximum=MAX_TTL_SECONDS, name="ttl_seconds")
    arguments.check_int(grace_seconds, minimum=0, maximum=MAX_GRACE_SECONDS, name="grace_seconds")
    arguments.check_choice(overage, arguments.OVERAGE_POLICIES, name="overage")
    if max_settle is not None:
        arguments.check_amount(max_settle, name="max_settle")
    if max_concurrent is not None:
        arguments.check_int(max_concurrent, minimum=0, maximum=MAX_AMOUNT, name="max_concurrent")
    noted = arguments.check_metadata(metadata)

    account, acting = account_of(book, user_id, team_id)
    now = time_for(account, clock_now)
    # A fingerprint of the request stands in for the amount: an estimate may differ between a call and its retry.
    compared = (amount if fingerprint is None else None, fingerprint, operation_type, model)
    earlier = recall(account, acting, "reserve", idempotency_key, compared)
    work = begin(account, now)
    if earlier is not None:
        return _again(work, cast(ReserveResult, earlier))
    party = party_of(work, user_id)
    admission = admit(
        book,
        party,
        now,
        amount,
        min_balance=min_balance,
        model=model,
        feature=feature,
        max_concurrent=max_concurrent,
        counts_as_open=True,
    )

    account = commit(book, work, now)
    account.holds_made += 1
    hold = Hold(
        id=ids.reservation_id(account.tag, account.holds_made),
        user_id=user_id,
        team_id=team_id,
        amount=amount,
        allowance_held=admission.allowance,
        base_held=admission.money,
        grant_holds=(),
        operation_type=operation_type,
        model=model,
        plan_id=admission.plan_id,
        pricing_version=pricing_version,
        overage=overage,
        min_balance=min_balance,
        max_settle=min(max(10 * amount, 1_000_000), MAX_AMOUNT) if max_settle is None else max_settle,
        grace=timedelta(seconds=grace_seconds),
        created_at=now,
        expires_at=now + timedelta(seconds=ttl_seconds),
        key=idempotency_key,
        metadata=noted,
        **warning_of(admission.findings),
    )
    _hold_credits(account, hold)
    account.entries.append(Entry("credits.reserved", now, user_id, team_id, amount, None, hold.id))
    balance = account.balance
    reply = ReserveResult(
        reservation_id=hold.id,
        user_id=user_id,
        team_id=team_id,
        amount=amount,
        held=admission.money,
        balance=balance,
        available=balance - account.held,
        state="active",
        expires_at=hold.expires_at,
        plan_id=admission.plan_id,
        pricing_version=pricing_version,
        cap_warning=hold.cap_warning,
        cap_notices=hold.cap_notices,
    )
    remember(account, acting, "reserve", idempotency_key, compared, reply)
    return reply


def _again(work: Account, earlier: ReserveResult) -> ReserveResult:
    """The first answer, and what has become of the reservation since."""
    hold = work.find_hold(earlier.reservation_id or "")
    return replayed(earlier, state=earlier.state if hold is None else hold.state)


def _hold_credits(account: Account, hold: Hold) -> None:
    """Allocate: allowance, then grants by expiry, then base; and count the hold everywhere that it counts."""
    account.open[hold.id] = hold
    account.next_due_at = min(account.next_due_at, hold.due_at)
    money = hold.base_held
    account.held += money
    if account.live:
        holds = []
        for grant in account.live:
            taken = min(grant.free, money)
            if taken > 0:
                grant.held += taken
                holds.append((grant.id, taken))
                money -= taken
        hold.grant_holds = tuple(holds)
        hold.base_held = money
    account.base_held += money
    if hold.allowance_held:
        account.allowance_use(month_of(hold.created_at)).held += hold.allowance_held
    if hold.team_id is not None:
        member = account.members[hold.user_id]
        member.open_holds += 1
        member.book(month_of(hold.created_at), held=hold.amount)
    for counter in account.caps:
        if counter.covers(hold.created_at, hold.model):
            counter.held += hold.amount
