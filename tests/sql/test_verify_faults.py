"""The audit of the SQL functions must find what is wrong: each of its checks has a fault that is planted here.

One database with a little of everything is made once; every fault is planted in a transaction that is rolled back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.conformance.sql_harness import migrated_database

#: Checks and the statements that break what they check. Where a check has a number or name in brackets it is left out.
FAULTS: tuple[tuple[str, str], ...] = (
    ("sequence_gapless", "DELETE FROM ducto.ledger WHERE account_id = 'ann' AND sequence = 2"),
    ("balance_chain", "UPDATE ducto.ledger SET balance_after = balance_after + 1 WHERE account_id = 'ann'"),
    ("balance_is_sum", "UPDATE ducto.accounts SET base = base + 1 WHERE account_id = 'ann'"),
    ("balance_bounds", "UPDATE ducto.accounts SET base = 9007199254740992 WHERE account_id = 'bob'"),
    ("parts_sum_to_amount", "UPDATE ducto.ledger SET base_delta = base_delta + 1 WHERE account_id = 'bob'"),
    ("sign_of_type", "UPDATE ducto.ledger SET type = 'expiry' WHERE type = 'purchase'"),
    ("purchased_from_rows", "UPDATE ducto.accounts SET lifetime_purchased = 7 WHERE account_id = 'ann'"),
    ("base_from_rows", "UPDATE ducto.accounts SET base = base - 1 WHERE account_id = 'ann'"),
    ("grant_from_rows", "UPDATE ducto.grants SET remaining = remaining - 1"),
    ("held_is_open_holds", "UPDATE ducto.accounts SET held = held + 1 WHERE account_id = 'ann'"),
    ("base_held_is_open_holds", "UPDATE ducto.accounts SET base_held = base_held + 1 WHERE account_id = 'ann'"),
    ("hold_parts_sum", "UPDATE ducto.reservations SET base_held = base_held + 1 WHERE state = 'active'"),
    ("grant_held_is_open_holds", "UPDATE ducto.grants SET held = held + 1"),
    ("grant_bounds", "UPDATE ducto.grants SET held = remaining + 1"),
    ("live_grants", "UPDATE ducto.accounts SET granted = granted + 1 WHERE account_id = 'ann'"),
    ("debt_only_without_grants", "UPDATE ducto.accounts SET base = -1 WHERE account_id = 'cat'"),
    ("one_row_per_reservation", "UPDATE ducto.ledger SET reservation = 1 WHERE type = 'deduction'"),
    ("settled_has_row", "UPDATE ducto.reservations SET state = 'released' WHERE state = 'settled'"),
    ("settled_has_row", "UPDATE ducto.reservations SET settled_by = 1 WHERE state = 'settled'"),
    ("open_is_active", "UPDATE ducto.accounts SET active = active + 1 WHERE account_id = 'ann'"),
    ("key_points_at_row", "UPDATE ducto.ledger SET reply = jsonb_set(reply, '{transaction_id}', '\"txn_uYQ.9\"')"),
    ("key_unique", "UPDATE ducto.ledger SET key = 'same', operation = 'charge' WHERE account_id = 'ann'"),
    ("key_unique", "UPDATE ducto.reservations SET key = 'same' WHERE account_id = 'ann'"),
    ("refunds_at_most_charged", "UPDATE ducto.refund_tallies SET money = 9999"),
    ("refunds_from_rows", "DELETE FROM ducto.refund_tallies"),
    ("refund_to_who_paid", "UPDATE ducto.ledger SET user_id = 'bob' WHERE type = 'refund'"),
    ("charged_and_unbilled", "UPDATE ducto.ledger SET unbilled = unbilled + 1 WHERE type = 'charge'"),
    ("amount_is_charged_money", "UPDATE ducto.ledger SET charged = charged + 1 WHERE type = 'charge'"),
    ("charged_at_most_max_settle", "UPDATE ducto.reservations SET max_settle = 1 WHERE state = 'settled'"),
    ("allowance_used", "UPDATE ducto.allowance_use SET used = used - 1"),
    ("allowance_held", "UPDATE ducto.allowance_use SET held = held + 1"),
    ("allowance_within_plan", "UPDATE ducto.allowance_use SET used = 9999"),
    ("cap_spent", "UPDATE ducto.spend_caps SET spent = spent + 1"),
    ("cap_held", "UPDATE ducto.spend_caps SET held = held + 1"),
    ("cap_excess_is_explained", "UPDATE ducto.spend_caps SET cap_limit = 1, inherited = 0"),
    ("has_caps", "UPDATE ducto.accounts SET has_caps = false"),
    ("debt_is_explained", "UPDATE ducto.ledger SET forced = false"),
    ("no_team_row_in_user_ledger", "UPDATE ducto.ledger SET user_id = 'eve' WHERE account_id = 'bob'"),
    ("member_spend", "UPDATE ducto.members SET spent = spent + 1"),
    ("member_spend", "DELETE FROM ducto.member_months"),
    ("member_open_holds", "UPDATE ducto.members SET open_holds = 0"),
    ("no_stuck_hold", "UPDATE ducto.reservations SET due_at = due_at - interval '400 days' WHERE state = 'active'"),
    ("next_due_at", "UPDATE ducto.accounts SET next_due_at = 'infinity'"),
    ("issued_less_used", "DELETE FROM ducto.accounts WHERE account_id = 'bob'"),
    ("transfers_sum_to_zero", "UPDATE ducto.ledger SET amount = amount + 1 WHERE type = 'transfer_in'"),
    ("no_public_execute", "GRANT EXECUTE ON FUNCTION public.ducto_ping() TO PUBLIC"),
    ("no_public_execute", "GRANT EXECUTE ON FUNCTION ducto._clock() TO PUBLIC"),
    ("empty_search_path", "ALTER FUNCTION public.ducto_ping() RESET ALL"),
    ("empty_search_path", "ALTER FUNCTION public.ducto_ping() SECURITY INVOKER"),
    ("no_overloads", "CREATE FUNCTION public.ducto_ping(p int) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'"),
    ("row_security", "ALTER TABLE ducto.plans NO FORCE ROW LEVEL SECURITY"),
    ("no_table_grants", "GRANT SELECT ON ducto.plans TO PUBLIC"),
    ("ledger_is_append_only", "ALTER TABLE ducto.ledger DISABLE TRIGGER ledger_is_append_only"),
    ("ledger_is_append_only", "DROP TRIGGER ledger_is_append_only ON ducto.ledger"),
)

#: A little of everything, in calls of the public functions. `{...}` is what an earlier call answered.
SEED = (
    ("", 'ducto_publish_pricing(\'{"plans": {"free": {"free_allowance": 50}}, "default_plan": "free"}\')'),
    ("", "ducto_set_cap('ann', 'monthly', 100000)"),
    ("", "ducto_add('user', 'ann', 1000, 'purchase', p_idempotency_key => 'a1')"),
    ("", "ducto_add('user', 'ann', 100, 'grant', p_expires_at => now() + interval '1 day')"),
    ("", 'ducto_charge(\'[{"user_id": "ann", "amount": 70, "operation_type": "chat"}]\')'),
    ("one", 'ducto_reserve(\'[{"user_id": "ann", "amount": 40, "operation_type": "chat"}]\')'),
    ("two", 'ducto_reserve(\'[{"user_id": "ann", "amount": 40, "operation_type": "chat"}]\')'),
    ("", 'ducto_deduct(\'[{"user_id": "ann", "amount": 30, "reservation_id": "{one}"}]\')'),
    ("", 'ducto_deduct(\'[{"user_id": "ann", "amount": 30, "reservation_id": "{two}"}]\')'),
    ("", 'ducto_reserve(\'[{"user_id": "ann", "amount": 200, "operation_type": "chat", "idempotency_key": "r"}]\')'),
    ("", 'ducto_reserve(\'[{"user_id": "ann", "amount": 9, "operation_type": "chat", "idempotency_key": "s"}]\')'),
    ("", "ducto_transfer('ann', 'bob', 100, p_idempotency_key => 't1')"),
    ("", 'ducto_charge(\'[{"user_id": "deb", "amount": 500, "operation_type": "chat", "force": true}]\')'),
    ("", "ducto_add('user', 'cat', 10, 'grant', p_expires_at => now() + interval '1 day')"),
    ("team", "ducto_create_team('red', 500)"),
    ("", "ducto_add_member('{team}', 'ann')"),
    ("spend", 'ducto_charge(\'[{"user_id": "ann", "team_id": "{team}", "amount": 60, "operation_type": "chat"}]\')'),
    ("", 'ducto_reserve(\'[{"user_id": "ann", "team_id": "{team}", "amount": 60, "operation_type": "chat"}]\')'),
    ("", "ducto_refund('{spend}', 20, p_idempotency_key => 'f1')"),
)

#: What else would refuse to plant a fault.
_GUARDS = (
    "ALTER TABLE ducto.accounts DROP CONSTRAINT amounts_in_range",
    "DROP INDEX ducto.ledger_keys, ducto.reservations_keys",
)


@asynccontextmanager
async def seeded() -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection, as superuser, to a database in which all that can be planted on exists."""
    async with migrated_database("new") as database:
        connection = await asyncpg.connect(database.superuser_url)
        try:
            ids: dict[str, str] = {}
            for name, call in SEED:
                for known, minted in ids.items():
                    call = call.replace("{" + known + "}", minted)
                answer = json.loads(await connection.fetchval(f"SELECT public.{call}"))
                first = answer[0] if isinstance(answer, list) else answer
                assert first.get("error") is None, (call, first)
                if name:
                    ids[name] = first.get("reservation_id") or first.get("transaction_id") or first["team_id"]
            yield connection
        finally:
            await connection.close()


async def faults(connection: asyncpg.Connection[Any]) -> list[dict[str, Any]]:
    accounts = json.loads(await connection.fetchval("SELECT public.ducto_verify()"))
    totals = json.loads(await connection.fetchval("SELECT public.ducto_verify_totals()"))
    return [*accounts["faults"], *totals["faults"]]


def base_name(fault: dict[str, Any]) -> str:
    return str(fault["invariant"]).partition("[")[0]


async def test_each_planted_fault_is_found_and_sound_books_raise_none() -> None:
    async with seeded() as connection:
        assert await faults(connection) == []
        missed = []
        for invariant, statement in FAULTS:
            transaction = connection.transaction()
            await transaction.start()
            for guard in _GUARDS:
                await connection.execute(guard)
            if "ducto.ledger" in statement and "TRIGGER" not in statement:
                await connection.execute("ALTER TABLE ducto.ledger DISABLE TRIGGER USER")
            changed = await connection.execute(statement)
            found = await faults(connection)
            await transaction.rollback()
            assert not changed.endswith(" 0"), f"planted nothing: {statement}"
            if invariant not in {base_name(fault) for fault in found}:
                missed.append((invariant, statement, [fault["invariant"] for fault in found]))
        assert missed == []
        assert await faults(connection) == []


@pytest.mark.parametrize(
    "statement", ["UPDATE ducto.ledger SET metadata = NULL", "DELETE FROM ducto.ledger", "TRUNCATE ducto.ledger"]
)
async def test_the_ledger_refuses_to_be_changed_even_by_its_owner(statement: str) -> None:
    async with migrated_database("new") as database:
        connection = await asyncpg.connect(database.url)
        try:
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await connection.execute(statement)
        finally:
            await connection.close()
