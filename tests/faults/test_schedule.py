"""The schedule of faults, and the list of a client."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

from tests.faults.audit import compared
from tests.faults.lists import Call, ClientList, read_lists
from tests.faults.schedule import GATEWAYS, LINKS, link_faults, server_faults


def test_the_schedule_is_a_function_of_the_seed() -> None:
    assert server_faults(7, seconds=600) == server_faults(7, seconds=600)
    assert link_faults(7, seconds=600) == link_faults(7, seconds=600)
    assert server_faults(7, seconds=600) != server_faults(8, seconds=600)
    assert server_faults(7, seconds=600)[:10] == server_faults(7, seconds=60)[:10]


def test_a_minute_has_enough_faults_of_servers() -> None:
    for seed in range(200):
        faults = server_faults(seed, seconds=60)
        assert len(faults) >= 15, seed
        assert all(2 <= later.at_seconds - former.at_seconds <= 5 for former, later in pairwise(faults)), seed
        assert {fault.target for fault in faults} >= {*GATEWAYS, *LINKS}, seed


async def test_a_list_has_what_was_acknowledged(tmp_path: Path) -> None:
    ended = ClientList(tmp_path / "a.list")
    calls = [Call("a/0", f"key-{number}", "ann", None if number else "team", number) for number in range(20)]
    for call in calls:
        ended.issue(call)
    await asyncio.gather(*(ended.end(call, "answered") for call in calls[:15]), ended.end(calls[15], "refused"))
    with (tmp_path / "a.list").open("a") as file:
        file.write("answered\tkey-19")  # The client was killed within the line.
    read = read_lists(tmp_path)
    assert [call.acknowledged for call in read.values()] == [True] * 15 + [False] * 5
    assert [(call.team_id, call.cost, call.user_id) for call in read.values()] == [
        (call.team_id, call.cost, "ann") for call in calls
    ]


def charge(key: str | None, *, charged: int = 5, user_id: str = "ann", estimated: bool = False) -> dict[str, object]:
    """A row of the ledger that charges."""
    return {
        "account_kind": "u",
        "account_id": user_id,
        "user_id": user_id,
        "sequence": 1,
        "charged": charged,
        "unbilled": 0,
        "estimated": estimated,
        "type": "deduction",
        "key": key,
    }


def test_the_comparison_finds_each_kind() -> None:
    calls = {key: Call("a/0", key, "ann", None, 5) for key in ("k1", "k2", "k3")}
    calls["k1"].ending, calls["k2"].ending, calls["k3"].ending = "answered", "settled", "refused"
    well = [charge("k1:1"), charge("k2:2")]
    assert compared(calls, well).total == 0
    assert compared(calls, [*well, charge("k3:1")]).total == 0
    assert compared(calls, [*well, charge("k3:1", charged=2, estimated=True)]).total == 0
    assert len(compared(calls, well[:1]).lost) == 1
    assert len(compared(calls, [*well, charge("k1:2")]).double) == 1
    assert len(compared(calls, [*well, charge("k3:1"), charge("k3:2")]).double) == 1
    assert len(compared(calls, [*well, charge(None)]).double) == 1
    assert len(compared(calls, [charge("k1:1", charged=4), well[1]]).wrong) == 1
    assert len(compared(calls, [charge("k1:1", charged=4, estimated=True), well[1]]).wrong) == 1
    assert len(compared(calls, [charge("k1:1", user_id="bob"), well[1]]).wrong) == 1
