"""Reserve: hold what a call may cost, in full or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import cast

from ducto.arguments import OVERAGE_POLICIES, check_amount, check_choice, check_id, check_int, check_key, check_metadata
from ducto.ledger.admission import account_of, admit, member_of
from ducto.ledger.due import begin, commit, time_for
from ducto.ledger.ids import reservation_id
from ducto.ledger.keys import recall, remember, replayed
from ducto.ledger.state import Account, Book, Entry, Hold
from ducto.ledger.windows import month_of
from ducto.models import Metadata, OveragePolicy, ReserveResult
from ducto.models.base import unvalidated
from ducto.usage import MAX_AMOUNT

__all__ = ["MAX_LIFE", "MAX_TTL_SECONDS", "reserve"]

_new_result = unvalidated(ReserveResult)

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
    attempt_id: str | None,
) -> ReserveResult:
    check_amount(amount)
    check_id(user_id)
    check_key(idempotency_key)
    check_id(operation_type, name="operation_type")
    if model is not None:
        check_id(model, name="model")
    if team_id is not None:
        check_id(team_id, name="team_id")
    if feature is not None:
        check_id(feature, name="feature")
    if pricing_version is not None:
        check_id(pricing_version, name="pricing_version")
    if fingerprint is not None:
        check_id(fingerprint, name="fingerprint")
    if attempt_id is not None:
        check_id(attempt_id, name="attempt_id")
    check_int(min_balance, minimum=-MAX_AMOUNT, maximum=MAX_AMOUNT, name="min_balance")
    check_int(ttl_seconds, minimum=1, maximum=MAX_TTL_SECONDS, name="ttl_seconds")
    check_int(grace_seconds, minimum=0, maximum=MAX_GRACE_SECONDS, name="grace_seconds")
    check_choice(overage, OVERAGE_POLICIES, name="overage")
    if max_settle is not None:
        check_amount(max_settle, name="max_settle")
    if max_concurrent is not None:
        check_int(max_concurrent, minimum=0, maximum=MAX_AMOUNT, name="max_concurrent")
    noted = check_metadata(metadata)

    account, acting = account_of(book, user_id, team_id)
    now = time_for(account, clock_now)
    # A fingerprint of the request stands in for the amount: an estimate may differ between a call and its retry.
    compared = (amount if fingerprint is None else None, fingerprint, operation_type, model)
    earlier = recall(account, acting, "reserve", idempotency_key, compared)
    work = begin(account, now)
    if earlier is not None:
        return _again(work, cast(ReserveResult, earlier), attempt_id)
    admission = admit(
        book,
        work,
        member_of(work, user_id),
        now,
        amount,
        min_balance,
        model,
        feature,
        max_concurrent,
        counts_as_open=True,
    )

    account = commit(book, work, now)
    account.holds_made += 1
    findings = admission.findings
    # In the order of the fields, as so many names would take longer than the object.
    hold = Hold(
        reservation_id(account.tag, account.holds_made),
        user_id,
        team_id,
        amount,
        admission.allowance,
        admission.money,
        (),
        operation_type,
        model,
        admission.plan_id,
        pricing_version,
        overage,
        min_balance,
        min(max(10 * amount, 1_000_000), MAX_AMOUNT) if max_settle is None else max_settle,
        _seconds(grace_seconds),
        now,
        now + _seconds(ttl_seconds),
        idempotency_key,
        attempt_id,
        noted,
        None if findings is None else findings.warning,
        () if findings is None else findings.notices,
    )
    _hold_credits(account, hold)
    account.entries.append(Entry("credits.reserved", now, user_id, team_id, amount, hold.id))
    balance = account.balance
    reply = _new_result(
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


@lru_cache
def _seconds(number: int) -> timedelta:
    """An interval; calls ask for few different ones."""
    return timedelta(seconds=number)


def _again(work: Account, earlier: ReserveResult, attempt_id: str | None) -> ReserveResult:
    """The first answer, and what has become of the reservation since. To the attempt that made it, it is no replay."""
    hold = work.find_hold(earlier.reservation_id or "")
    if hold is None:
        return replayed(earlier)
    is_own = attempt_id is not None and hold.attempt_id == attempt_id
    return earlier.model_copy(update={"replayed": not is_own, "state": hold.state})


def _hold_credits(account: Account, hold: Hold) -> None:
    """Allocate: allowance, then grants by expiry, then base; and count the hold everywhere that it counts."""
    account.open[hold.id] = hold
    due_at = hold.due_at
    if due_at < account.next_due_at:
        account.next_due_at = due_at
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
