"""Checks of the scope of a key, and of what is compared under it."""

from __future__ import annotations

from ducto.models import Outcome, ReserveResult, SpendCap
from ducto.testing.conformance.helpers import (
    books,
    charge,
    ensure,
    equal,
    expect,
    fund,
    hold,
    key,
    known,
    refused,
    rows,
    team_of,
    user,
)
from ducto.testing.conformance.kit_config import (
    FREE,
    on_plan,
)
from ducto.testing.harness import Harness


async def check_reserve_mismatch_names_every_difference(harness: Harness) -> None:
    """Compared are the amount, operation_type, model, team and member; nothing else."""
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 1000)
    expect(
        await store.reserve_credits(payer, 10, "chat", {"a": 1}, 5, idempotency_key=idempotency_key, model="m-1"),
        "reserve",
    )
    result = await store.reserve_credits(payer, 11, "embed", idempotency_key=idempotency_key, model="m-2")
    refused(result, "idempotency_mismatch", "another amount, operation and model")
    equal(
        set(known(known(result.details, "details").mismatch, "details.mismatch")),
        {"amount", "operation_type", "model"},
        "fields that differ",
    )
    without = await store.reserve_credits(payer, 10, "chat", idempotency_key=idempotency_key)
    refused(without, "idempotency_mismatch", "the same call without its model")
    same = await store.reserve_credits(
        payer,
        10,
        "chat",
        {"b": 2},
        -50,
        idempotency_key=idempotency_key,
        model="m-1",
        ttl_seconds=5,
        grace_seconds=0,
        overage="clamp",
        max_concurrent=1,
    )
    ensure(
        same.replayed,
        f"metadata, floor, ttl, overage and max_concurrent are not compared, found {same.error!r}",
    )


async def check_fingerprint_is_compared_in_place_of_the_amount(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 1000)
    first = expect(
        await store.reserve_credits(payer, 10, "chat", idempotency_key=idempotency_key, fingerprint="body-1"),
        "reserve with a fingerprint",
    )
    same = await store.reserve_credits(payer, 12, "chat", idempotency_key=idempotency_key, fingerprint="body-1")
    equal(same, first.model_copy(update={"replayed": True}), "same fingerprint, another estimate")
    other = await store.reserve_credits(payer, 10, "chat", idempotency_key=idempotency_key, fingerprint="body-2")
    refused(other, "idempotency_mismatch", "another fingerprint, same estimate")
    equal(known(other.details, "details").mismatch, ("fingerprint",), "fields that differ")


async def check_reserve_knows_its_own_attempt_again(harness: Harness) -> None:
    """Who lost the reply and asks again holds the reservation; whoever else uses the key does not."""
    store, one_key = harness.store, key()
    payer = await fund(store, 100)

    async def reserve(attempt_id: str | None, amount: int = 10) -> ReserveResult:
        return await store.reserve_credits(payer, amount, "chat", idempotency_key=one_key, attempt_id=attempt_id)

    first = expect(await reserve("attempt-1"), "reserve of the first attempt")
    equal(first.replayed, False, "replayed of the first answer")
    for other in ("attempt-2", "attempt-", None):
        equal(await reserve(other), first.model_copy(update={"replayed": True}), f"reserve of the attempt {other!r}")
    equal(await reserve("attempt-1"), first, "the same attempt again")
    refused(await reserve("attempt-1", 11), "idempotency_mismatch", "the same attempt for another amount")
    await books(store, payer, "after one reserve asked for six times", balance=100, available=90)


async def check_attempt_is_told_what_became_of_its_reservation(harness: Harness) -> None:
    store, one_key = harness.store, key()
    payer = await fund(store, 100)
    for state in ("settled", "expired"):
        made = await store.reserve_credits(
            payer, 10, "chat", idempotency_key=one_key + state, attempt_id="mine", ttl_seconds=10, grace_seconds=0
        )
        if state == "settled":
            expect(await store.deduct_credits(payer, known(made.reservation_id, "reservation_id"), 10), "deduct")
        else:
            await harness.advance(11)
        again = await store.reserve_credits(payer, 10, "chat", idempotency_key=one_key + state, attempt_id="mine")
        equal((again.replayed, again.state), (False, state), f"the attempt whose reservation is {state}")


async def check_attempt_id_is_no_key(harness: Harness) -> None:
    """It only tells whose answer it is: without a key, and under two keys, one attempt makes two reservations."""
    store = harness.store
    payer = await fund(store, 100)
    for one_key in (None, None, key(), key()):
        result = await store.reserve_credits(payer, 10, "chat", idempotency_key=one_key, attempt_id="mine")
        equal(expect(result, "reserve").replayed, False, "replayed of a new reservation")
    await books(store, payer, "after four reserves of one attempt", balance=100, available=60)
    unnamed = key()
    expect(await store.reserve_credits(payer, 10, "chat", idempotency_key=unnamed), "reserve of no attempt")
    for attempt_id in ("mine", unnamed, None):
        result = await store.reserve_credits(payer, 10, "chat", idempotency_key=unnamed, attempt_id=attempt_id)
        equal(result.replayed, True, f"replayed to the attempt {attempt_id!r} of what no attempt was named for")


async def check_charge_compares_the_model_and_not_the_metadata(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    payer = await fund(store, 1000)
    expect(
        await store.charge_credits(payer, 5, "a", {"x": 1}, idempotency_key=idempotency_key, model="m-1"),
        "charge",
    )
    same = await store.charge_credits(
        payer, 5, "a", {"y": 2}, idempotency_key=idempotency_key, model="m-1", min_balance=3
    )
    ensure(same.replayed, f"metadata and floor are not compared, found {same.error!r}")
    other = await store.charge_credits(payer, 5, "a", idempotency_key=idempotency_key, model="m-2")
    refused(other, "idempotency_mismatch", "the same charge for another model")
    equal(known(other.details, "details").mismatch, ("model",), "fields that differ")


async def check_key_is_scoped_to_the_account(harness: Harness) -> None:
    store, idempotency_key = harness.store, key()
    first, second = await fund(store, 100), await fund(store, 100)
    for payer in (first, second):
        result = expect(await store.charge_credits(payer, 10, idempotency_key=idempotency_key), "charge")
        equal(result.replayed, False, "a key that another user has used")
        await books(store, payer, "after a charge", balance=90)


async def check_key_is_scoped_to_the_kind_of_movement(harness: Harness) -> None:
    """The same key may serve every verb once."""
    store, one_key, friend = harness.store, key(), user()
    payer = await fund(store, 100)
    transaction_id = await charge(store, payer, 20)
    reserve = await store.reserve_credits(payer, 10, "chat", min_balance=0, idempotency_key=one_key)
    answers: list[Outcome] = [
        reserve,
        await store.deduct_credits(payer, known(reserve.reservation_id, "reservation_id"), 10, one_key),
        await store.charge_credits(payer, 10, idempotency_key=one_key),
        await store.add_credits(payer, 10, idempotency_key=one_key),
        await store.adjust_credits(payer, 10, direction="debit", idempotency_key=one_key),
        await store.transfer_credits(payer, friend, 10, idempotency_key=one_key),
        await store.refund_credits(transaction_id, 10, idempotency_key=one_key),
    ]
    for answer in answers:
        expect(answer, "a key that another verb has used")
        equal(answer.replayed, False, f"replayed of {type(answer).__name__}")
    await books(store, payer, "after six movements", balance=60)


async def check_key_is_scoped_to_the_member(harness: Harness) -> None:
    """Two members of a team may use one key; so may a member for the team and for itself."""
    store, one_key = harness.store, key()
    first, second = await fund(store, 50), user()
    team_id = await team_of(store, first, second, credits=100)
    for member in (first, second):
        result = expect(await store.deduct_team(team_id, member, 10, idempotency_key=one_key), "deduct_team")
        equal(result.replayed, False, "a key that another member has used")
    own = expect(await store.charge_credits(first, 10, idempotency_key=one_key), "charge")
    equal(own.replayed, False, "a key that was used for the team")
    equal((await store.get_team_balance(team_id)).balance, 80, "pool after two charges")


async def check_keys_and_ids_do_not_run_together(harness: Harness) -> None:
    """(`a:b`, `c`) and (`a`, `b:c`) are two keys, whatever a store joins them with."""
    store, base = harness.store, user()
    for separator in (":", "/", "|", "-", "\u2063"):
        left, right = f"{base}{separator}b", base
        for payer in (left, right):
            await fund(store, 10, user_id=payer)
        one = await store.charge_credits(left, 1, idempotency_key="c")
        two = await store.charge_credits(right, 1, idempotency_key=f"b{separator}c")
        equal((one.replayed, two.replayed), (False, False), f"two keys around {separator!r}")


async def check_denials_are_not_kept(harness: Harness) -> None:
    """After a top-up the same key may pass, also with another amount."""
    store, idempotency_key, reserve_key = harness.store, key(), key()
    payer = await fund(store, 5)
    refused(
        await store.charge_credits(payer, 10, idempotency_key=idempotency_key),
        "insufficient_credits",
        "charge",
    )
    refused(
        await store.reserve_credits(payer, 10, "chat", idempotency_key=reserve_key),
        "insufficient_credits",
        "reserve",
    )
    await fund(store, 100, user_id=payer)
    charged = expect(await store.charge_credits(payer, 11, idempotency_key=idempotency_key), "charge after top-up")
    reserved = expect(
        await store.reserve_credits(payer, 12, "chat", idempotency_key=reserve_key), "reserve after top-up"
    )
    equal((charged.replayed, reserved.replayed), (False, False), "answers after a top-up are new")


async def check_replay_comes_before_every_refusal_but_a_bad_argument(harness: Harness) -> None:
    """A replay is answered whatever has changed since: plan, concurrency, caps, funds."""
    store, idempotency_key = harness.store, key()
    payer = await on_plan(store, FREE, credits=100)

    async def call(amount: int = 110) -> Outcome:
        return await store.reserve_credits(
            payer,
            amount,
            "chat",
            min_balance=0,
            idempotency_key=idempotency_key,
            feature="chat",
            max_concurrent=1,
        )

    first = expect(await call(), "reserve")
    expect(await store.set_user_plan(payer, None), "taking the plan away")
    await store.set_spend_cap(SpendCap(user_id=payer, cap_type="daily", limit=0))
    expect(await store.charge_credits(payer, 1000, force=True), "driving the user into debt")
    equal(await call(), first.model_copy(update={"replayed": True}), "replay after everything would refuse it")
    refused(await call(-1), "invalid_amount", "the same key with a bad amount")


async def check_replay_survives_leaving_the_team(harness: Harness) -> None:
    store, idempotency_key, member = harness.store, key(), user()
    team_id = await team_of(store, member, credits=100)
    first = expect(await store.deduct_team(team_id, member, 10, idempotency_key=idempotency_key), "deduct_team")
    await store.remove_team_member(team_id, member)
    again = await store.deduct_team(team_id, member, 10, idempotency_key=idempotency_key)
    equal(again, first.model_copy(update={"replayed": True}), "replay by a former member")
    refused(await store.deduct_team(team_id, member, 10), "not_a_member", "a new charge by a former member")


async def check_calls_without_a_key_are_all_booked(harness: Harness) -> None:
    store = harness.store
    payer = await fund(store, 100)
    for _ in range(3):
        await charge(store, payer, 10)
    await hold(store, payer, 10)
    await hold(store, payer, 10)
    await books(store, payer, "three charges and two holds without keys", balance=70, available=50)
    equal(len(await rows(store, payer)), 4, "ledger rows")


async def check_refund_key_names_one_transaction(harness: Harness) -> None:
    """The target is compared: one key for the refunds of two transactions is a mistake, and is told."""
    store, one_key = harness.store, key()
    payer = await fund(store, 100)
    first, second = await charge(store, payer, 20), await charge(store, payer, 20)
    expect(await store.refund_credits(first, 20, idempotency_key=one_key), "refund of the first")
    refused(
        await store.refund_credits(second, 20, idempotency_key=one_key),
        "idempotency_mismatch",
        "refund of the second under the first's key",
    )
    await books(store, payer, "after a mismatch", balance=80)


async def check_row_records_its_key(harness: Harness) -> None:
    store, one_key = harness.store, key()
    payer = await fund(store, 100)
    expect(await store.charge_credits(payer, 20, idempotency_key=one_key), "charge")
    newest, oldest = await rows(store, payer)
    equal((newest.idempotency_key, oldest.idempotency_key), (one_key, None), "keys of the two rows")
