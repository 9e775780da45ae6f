"""Receipts, simulations, usage, holds and audits from the command line, on a real Postgres that calls were made on."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from ducto import CreditManager, SpendCap, UsageMetrics
from tests.cli.conftest import Ducto

PRICING = {
    "models": {"gpt": "input_tokens * 2 + output_tokens * 10", "mini": "input_tokens"},
    "plans": {"free": {"free_allowance": 100}},
    "min_balance": 0,
}


@pytest.fixture(scope="module")
def called(database_url: str) -> str:
    """Calls of two users, one of a team's member, and a hold that is left open; the id of the first deduction."""
    return Ducto(database_url).did(_calls)


async def _calls(manager: CreditManager) -> str:
    await manager.publish_pricing(PRICING, "first")
    for user in ("alice", "bob"):
        await manager.add_credits(user, 10_000, "purchase")
    await manager.set_user_plan("alice", "free")
    await manager.set_spend_cap(SpendCap(user_id="bob", cap_type="monthly", limit=5_000))
    held = await manager.reserve("alice", UsageMetrics(model="gpt", input_tokens=50, output_tokens=50))
    usage = UsageMetrics(model="gpt", input_tokens=50, output_tokens=30)
    first = await manager.deduct("alice", usage, reservation_id=held.reservation_id)
    for _ in range(3):
        await manager.deduct("bob", UsageMetrics(model="mini", input_tokens=1_000))
    team = await manager.create_team("Red", 1_000)
    assert team.team_id is not None
    await manager.add_team_member(team.team_id, "bob")
    await manager.deduct("bob", UsageMetrics(model="mini", input_tokens=200), team_id=team.team_id)
    await manager.reserve("bob", 700, model="mini")
    assert first.transaction_id is not None
    return first.transaction_id


def test_a_receipt_tells_all_of_one_call(ducto: Ducto, called: str) -> None:
    receipt = ducto.json("explain", called)
    assert (receipt["actual"], receipt["allowance"], receipt["paid"], receipt["unbilled"]) == (400, 100, 300, 0)
    pricing = receipt["pricing"]
    assert (pricing["version"], pricing["label"], pricing["key"]) == (1, "first", "gpt")
    assert (pricing["formula"], pricing["price"]) == ("input_tokens * 2 + output_tokens * 10", 400)
    assert pricing["parts"] == [{"name": "model", "quantity": 1, "rate": None, "credits": "400"}]
    assert (receipt["hold"]["reserved"], receipt["hold"]["unused"], receipt["hold"]["policy"]) == (600, 200, "debt")
    printed = ducto.run("explain", called)
    for told in ("A reserved call was settled.", "input_tokens * 2", "unused", "alice", "free"):
        assert told in printed


def test_a_receipt_shows_the_caps_that_hold(ducto: Ducto, called: str) -> None:
    row = ducto.json("credits", "history", "bob", "--limit", "1")["transactions"][0]
    (cap,) = ducto.json("explain", row["transaction_id"])["caps"]
    assert (cap["window"], cap["limit"], cap["action"]) == ("monthly", 5_000, "deny")
    printed = ducto.run("explain", row["transaction_id"])
    assert "Caps as they are set now, not as they were then" in printed
    assert "'txn_nothing'" in ducto.refused("explain", "txn_nothing", code=1)


@pytest.fixture
def new_prices(tmp_path: Path) -> str:
    path = tmp_path / "new.json"
    path.write_text(json.dumps({**PRICING, "models": {"mini": "input_tokens * 2"}}))
    return str(path)


def test_simulate_compares_and_says_who_would_be_refused(ducto: Ducto, called: str, new_prices: str) -> None:
    told = ducto.json("simulate", "--config", new_prices, "--since", "2d")
    assert (told["total"]["calls"], told["total"]["revenue_then"]) == (5, 3_500)
    by_user = {each["user_id"]: (each["revenue_then"], each["revenue_now"]) for each in told["users"]}
    # Bob's monthly cap of 5,000 lets two of three calls at 2,000 pass; his team's pool pays the fourth.
    assert by_user == {"alice": (300, 0), "bob": (3_200, 4_400)}
    assert [(each["user_id"], each["code"], each["calls"]) for each in told["refusals"]] == [
        ("alice", "price_unknown", 1),
        ("bob", "cap_reached", 1),
    ]
    printed = ducto.run("simulate", "--config", new_prices)
    assert "Who would be refused" in printed
    assert "+25.7 %" in printed


def test_simulate_knows_what_a_cap_had_counted_before_the_window(ducto: Ducto, called: str, tmp_path: Path) -> None:
    file = tmp_path / "dear.json"
    file.write_text(json.dumps({**PRICING, "models": {"gpt": "1", "mini": "input_tokens * 4"}}))
    third = ducto.json("credits", "history", "bob", "--limit", "1")["transactions"][0]["created_at"]
    told = ducto.json("simulate", "--config", str(file), "--since", third)
    # Two calls of 1,000 before; 4,000 more are above the cap of 5,000.
    assert [(each["user_id"], each["code"]) for each in told["refusals"]] == [("bob", "cap_reached")]


def test_simulate_under_the_active_config_changes_nothing(ducto: Ducto, called: str, tmp_path: Path) -> None:
    file = tmp_path / "same.yaml"
    ducto.run("pricing", "export", "--out", str(file))
    told = ducto.json("simulate", "--config", str(file))
    assert told["total"]["revenue_now"] == told["total"]["revenue_then"] > 0
    assert told["refusals"] == []
    assert "Nobody would be refused." in ducto.run("simulate", "--config", str(file))
    nothing = ("simulate", "--config", str(file), "--since", "2001-01-01", "--until", "2001-02-01")
    assert ducto.run(*nothing) == "Nothing was spent in this window.\n"
    assert "cannot be read" in ducto.refused("simulate", "--config", "none.yaml", code=2)


def test_usage(ducto: Ducto, called: str) -> None:
    assert {row["user_id"]: row["total_spend"] for row in ducto.json("usage", "users")} == {"alice": 400, "bob": 3_200}
    assert {row["model"]: row["total_spend"] for row in ducto.json("usage", "models")} == {"gpt": 400, "mini": 3_200}
    assert [row["user_id"] for row in ducto.json("usage", "top", "--limit", "1")] == ["bob"]
    stats = ducto.json("usage", "stats", "--since", "1d")
    assert (stats["total_spend"], stats["active_users"], stats["top_model"]) == (3_600, 2, "mini")
    lines = [line for line in ducto.run("usage", "users").splitlines() if "█" in line]
    assert len(lines) == 2
    assert lines[1].count("█") == 8 * lines[0].count("█"), "3,200 is 8 times 400"


def test_usage_of_days_is_a_line_with_a_place_for_each(ducto: Ducto, called: str) -> None:
    today = datetime.now(UTC).date()
    since = (today - timedelta(days=6)).isoformat()
    printed = ducto.run("usage", "daily", "--since", since)
    assert printed.splitlines()[0] == "▁▁▁▁▁▁█"
    assert today.isoformat() in printed
    assert [row["day"] for row in ducto.json("usage", "daily", "--since", since)] == [today.isoformat()]
    assert ducto.run("usage", "daily", "--since", "2001-01-01", "--until", "2001-01-03") == (
        "Nothing was spent in this window.\n"
    )
    for wrong in ("yesterday", "99999999d", "30"):
        assert "--since takes a time ago" in ducto.refused("usage", "daily", "--since", wrong, code=2)
    assert "start must not be after end" in ducto.refused("usage", "daily", "--until", "2001-01-01", code=2)


def test_open_holds_are_listed_and_released(ducto: Ducto, called: str) -> None:
    (hold,) = ducto.json("reservations", "list")
    assert (hold["user_id"], hold["amount"], hold["state"]) == ("bob", 700, "active")
    assert ducto.json("reservations", "list", "--user", "alice") == []
    assert hold["reservation_id"] in ducto.run("reservations", "list")
    assert "no reservation" in ducto.refused("reservations", "release", "alice", hold["reservation_id"], code=1).lower()
    assert "700 credits" in ducto.run("reservations", "release", "bob", hold["reservation_id"])
    again = ducto.json("reservations", "release", "bob", hold["reservation_id"])
    assert (again["released"], again["state"]) == (False, "released")
    assert ducto.run("reservations", "list") == "No hold is open.\n"


async def _with_grants(manager: CreditManager) -> str:
    later = datetime.now(UTC) + timedelta(days=2)
    await manager.add_credits("gwen", 500, "purchase")
    await manager.add_credits("gwen", 300, "grant", expires_at=later)
    await manager.set_spend_cap(SpendCap(user_id="gwen", cap_type="daily", limit=100, action="warn"))
    held = await manager.reserve("gwen", 250)
    settled = await manager.deduct("gwen", 120, reservation_id=held.reservation_id)
    await manager.remove_spend_cap("gwen", "daily")
    assert settled.transaction_id is not None
    return settled.transaction_id


def test_a_receipt_tells_the_grants_and_the_caps_of_then(ducto: Ducto, called: str) -> None:
    settled = ducto.did(_with_grants)
    receipt = ducto.json("explain", settled)
    (grant,) = receipt["grants"]
    assert (grant["grant"], grant["held"], grant["moved"], grant["given_back"]) == (1, 250, -120, 130)
    assert (receipt["base"], receipt["caps"]) == (0, [])
    (cap,) = receipt["caps_exceeded"]
    assert (cap["action"], cap["cap"]["limit"], cap["spent"]) == ("warn", 100, 0)
    (delta,) = receipt["transaction"]["grant_deltas"]
    assert (delta["grant"], delta["amount"], delta["expires_at"]) == (1, -120, grant["expires_at"])
    printed = ducto.run("explain", settled)
    for told in ("Grants (credits that expire)", "-120", "130", "Caps that it went over when it was admitted"):
        assert told in printed
    assert "Credits that do not expire moved by 0." in printed


def test_a_hold_that_ended_by_itself_is_not_listed(ducto: Ducto, called: str) -> None:
    """Nobody has booked its end yet, so no event tells of it."""
    held = ducto.did(lambda manager: manager.reserve("alice", 5, ttl_seconds=1, grace_seconds=0))
    assert held.reservation_id in ducto.run("reservations", "list", "--user", "alice")
    time.sleep(1.1)
    assert ducto.json("reservations", "list", "--user", "alice") == []


def test_upkeep(ducto: Ducto) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.6)).isoformat()
    ducto.run("credits", "add", "swept", "40", "--expires", soon)
    ducto.run("credits", "add", "swept", "2")
    while ducto.json("credits", "balance", "swept")["balance"] > 2:
        pass
    due = ducto.json("sweep", "--dry-run")
    assert (due["amount"], due["dry_run"]) == (40, True)
    assert "40 credits expired" in ducto.run("sweep")
    assert ducto.json("sweep")["amount"] == 0
    assert ducto.json("maintain")["skipped"] is False


def test_verify_says_what_does_not_agree(ducto: Ducto, called: str, database_url: str) -> None:
    assert ducto.run("verify") == "The books agree.\n"
    assert ducto.json("verify") == {"ok": True, "faults": []}
    change = "UPDATE ducto.accounts SET base = base + %s WHERE account_id = 'alice'"
    _execute(database_url, change % 7)
    try:
        told = ducto.json("verify", code=1)
        assert told["ok"] is False
        assert any(fault["account"] and "alice" in fault["account"] for fault in told["faults"])
        assert "The books do not agree" in ducto.run("verify", code=1)
    finally:
        _execute(database_url, change % -7)


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
