"""Credits, plans, caps and teams from the command line, on a real Postgres."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Ducto


def test_what_comes_in_goes_out_and_comes_back(ducto: Ducto) -> None:
    added = ducto.json("credits", "add", "alice", "50000", "--type", "purchase", "--key", "payment-1")
    assert (added["amount"], added["new_balance"], added["key"]) == (50_000, 50_000, "payment-1")
    again = ducto.json("credits", "add", "alice", "50000", "--type", "purchase", "--key", "payment-1")
    assert (again["replayed"], again["transaction_id"]) == (True, added["transaction_id"])

    charged = ducto.json("credits", "charge", "alice", "1200", "--model", "gpt", "--operation", "import")
    assert (charged["amount"], charged["balance_after"]) == (1_200, 48_800)
    part = ducto.json("credits", "refund", charged["transaction_id"], "--amount", "200", "--reason", "late")
    rest = ducto.json("credits", "refund", charged["transaction_id"])
    assert (part["amount"], rest["amount"], rest["balance_after"]) == (200, 1_000, 50_000)

    standing = ducto.json("credits", "balance", "alice")
    assert (standing["balance"], standing["available"], standing["lifetime_purchased"]) == (50_000, 50_000, 50_000)
    assert "50,000" in ducto.run("credits", "balance", "alice")


def test_a_key_is_made_printed_and_works_again(ducto: Ducto) -> None:
    printed = ducto.run("credits", "add", "keyed", "10")
    found = re.search(r"key +(cli-[0-9a-f]{32})", printed)
    assert found, printed
    assert ducto.json("credits", "add", "keyed", "10", "--key", found[1])["replayed"]
    assert ducto.json("credits", "add", "keyed", "10")["key"] != found[1]
    assert ducto.json("credits", "balance", "keyed")["balance"] == 20


def test_history_goes_on_from_its_cursor(ducto: Ducto) -> None:
    for amount in ("1", "2", "3"):
        ducto.run("credits", "add", "paged", amount)
    first = ducto.json("credits", "history", "paged", "--limit", "2")
    assert [row["amount"] for row in first["transactions"]] == [3, 2]
    second = ducto.json("credits", "history", "paged", "--cursor", first["next_cursor"])
    assert ([row["amount"] for row in second["transactions"]], second["next_cursor"]) == ([1], None)
    printed, said = ducto.ended("credits", "history", "paged", "--limit", "2")
    assert printed.count("adjustment") == 2
    assert f"--cursor {first['next_cursor']}" in said


def test_credits_expire_on_their_day(ducto: Ducto) -> None:
    added = ducto.json("credits", "add", "brief", "10", "--expires", "2099-01-31")
    (row,) = ducto.json("credits", "history", "brief")["transactions"]
    assert (row["transaction_id"], row["expires_at"]) == (added["transaction_id"], "2099-01-31T00:00:00Z")


def test_an_unknown_user_has_nothing_and_a_note_says_why(ducto: Ducto) -> None:
    printed, said = ducto.ended("credits", "balance", "nobody", "--json")
    assert json.loads(printed)["balance"] == 0
    assert said == "Nothing was ever booked for 'nobody'.\n"


def test_ids_cannot_steer_the_terminal_or_the_markup(ducto: Ducto) -> None:
    ducto.run("credits", "add", "[red]o[/]", "10")
    assert "[red]o[/]" in ducto.run("credits", "balance", "[red]o[/]")
    noted = ducto.did(lambda manager: manager.add_credits("[red]o[/]", 1, metadata={"note": "\x1b[31mred"}))
    assert noted.transaction_id is not None
    printed = ducto.run("explain", noted.transaction_id)
    assert "\x1b" not in printed
    assert "\\x1b[31mred" in printed


def test_plans(ducto: Ducto, tmp_path: Path) -> None:
    config = tmp_path / "plans.json"
    config.write_text(json.dumps({"plans": {"free": {"free_allowance": 500}, "pro": {}}, "default_plan": "free"}))
    ducto.run("pricing", "set", str(config))
    assert [plan["id"] for plan in ducto.json("plans", "list")] == ["free", "pro"]
    assert "500" in ducto.run("plans", "list")
    assigned = ducto.json("plans", "assign", "alice", "pro")
    assert (assigned["plan_id"], assigned["previous_plan_id"]) == ("pro", "free")
    assert ducto.json("credits", "balance", "alice")["plan_id"] == "pro"
    assert ducto.json("plans", "assign", "alice", "--default")["plan_id"] == "free"
    assert ducto.json("credits", "balance", "alice")["allowance_remaining"] == 500
    assert "name the plan" in ducto.refused("plans", "assign", "alice", code=2).lower()
    assert "'gold'" in ducto.refused("plans", "assign", "alice", "gold", code=1)


def test_caps(ducto: Ducto) -> None:
    ducto.run("credits", "add", "capped", "1000")
    assert ducto.run("caps", "list", "capped") == "'capped' has no caps.\n"
    ducto.run("caps", "set", "capped", "100", "--window", "daily")
    ducto.run("caps", "set", "capped", "5", "--window", "hourly", "--model", "gpt", "--action", "warn")
    caps = ducto.json("caps", "list", "capped")
    assert [(cap["cap_type"], cap["limit"], cap["action"], cap["model"]) for cap in caps] == [
        ("hourly", 5, "warn", "gpt"),
        ("daily", 100, "deny", None),
    ]
    said = json.loads(ducto.refused("credits", "charge", "capped", "101", "--json", code=1))
    assert (said["error"], said["details"]["limit"]) == ("cap_reached", 100)
    assert ducto.json("caps", "remove", "capped", "--window", "daily") == {"removed": True}
    assert ducto.json("caps", "remove", "capped", "--window", "daily", code=1) == {"removed": False}
    ducto.run("credits", "charge", "capped", "101")


def test_teams(ducto: Ducto) -> None:
    team = ducto.json("teams", "create", "Red", "--credits", "500", "--key", "team-1")
    assert ducto.json("teams", "create", "Red", "--credits", "500", "--key", "team-1")["team_id"] == team["team_id"]
    assert ducto.json("teams", "fund", team["team_id"], "250")["new_balance"] == 750
    ducto.run("teams", "add-member", team["team_id"], "alice", "--cap", "100", "--cap-window", "month")
    assert ducto.json("credits", "charge", "alice", "60", "--team", team["team_id"])["balance_after"] == 690
    assert "60" in ducto.refused("credits", "charge", "alice", "60", "--team", team["team_id"], code=1)
    told = ducto.json("teams", "members", team["team_id"])
    assert (told["team"]["balance"], told["members"][0]["spent"], told["members"][0]["spend_cap"]) == (690, 60, 100)
    assert "alice" in ducto.run("teams", "members", team["team_id"])
    assert ducto.json("credits", "balance", "alice", "--team", team["team_id"])["balance"] == 690
    (row,) = ducto.json("credits", "history", "alice", "--team", team["team_id"])["transactions"]
    assert row["charged"] == 60


@pytest.mark.parametrize("form", ["jsonl", "csv", "json"])
def test_export_has_every_row_of_every_account(ducto: Ducto, form: str, tmp_path: Path) -> None:
    for user in ("exported-1", "exported-2"):
        ducto.run("credits", "add", user, "10", "--key", "once")
    printed = ducto.run("credits", "export", "--format", form)
    rows = {
        "jsonl": lambda: [json.loads(line) for line in printed.splitlines()],
        "csv": lambda: list(csv.DictReader(io.StringIO(printed))),
        "json": lambda: json.loads(printed),
    }[form]()
    mine = [(row["user_id"], int(row["amount"])) for row in rows if (row["user_id"] or "").startswith("exported")]
    assert sorted(mine) == [("exported-1", 10), ("exported-2", 10)]
    file = tmp_path / f"ledger.{form}"
    told = ducto.json("credits", "export", "--format", form, "--out", str(file))
    assert (told["rows"], told["written"], told["format"]) == (len(rows), str(file), form)
    assert file.read_bytes().decode().replace("\r\n", "\n") == printed  # The runner reads lines as text.
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert ducto.json("credits", "export", "--until", "2000-01-01", "--out", str(file))["rows"] == 0


def test_export_of_one_account_and_from_a_cursor_on(ducto: Ducto, tmp_path: Path) -> None:
    ducto.run("credits", "add", "own-export", "10")
    rows = [json.loads(line) for line in ducto.run("credits", "export", "--user", "own-export").splitlines()]
    assert [row["amount"] for row in rows] == [10]
    file = tmp_path / "ledger.jsonl"
    cursor = ducto.json("credits", "export", "--out", str(file))["next_cursor"]
    ducto.run("credits", "add", "own-export", "11")
    later = ducto.run("credits", "export", "--cursor", cursor)
    assert [json.loads(line)["amount"] for line in later.splitlines()] == [11]
    assert "--out" in ducto.refused("credits", "export", "--json", code=2)
    assert "cannot be written" in ducto.refused("credits", "export", "--out", str(tmp_path / "no" / "f"), code=2)
