"""Comparing the clients' lists with the ledger, and asking `verify`, during a run and after it."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ducto.stores.postgres import PostgresStore
from tests.faults.lists import Call

__all__ = ["Alarms", "Findings", "compared", "put_aside", "settled_down"]

#: Rows of the ledger that charge, with the key of the call whose reservation they settle.
_CHARGES = """
SELECT l.account_kind, l.account_id, l.user_id, l.sequence, l.charged, l.unbilled, l.estimated, l.type, r.key
FROM ducto.ledger AS l LEFT JOIN ducto.reservations AS r
    ON r.account_kind = l.account_kind AND r.account_id = l.account_id AND r.number = l.reservation
WHERE l.type NOT IN ('purchase', 'grant')
"""
_OPEN = "SELECT account_id, number, key, due_at FROM ducto.reservations WHERE state = 'active'"
_VERIFY = "SELECT public.ducto_verify($1, $2, $3)"
_TOTALS = "SELECT public.ducto_verify_totals()"
#: Accounts that are audited at a time while the run goes on.
_BATCH = 4
#: Between two audits, and at least so many times as long as the last one took: a long run has many rows.
_AUDIT_PAUSE_SECONDS = 1.0
_AUDIT_PAUSE_TIMES = 4.0


@dataclass(slots=True)
class Findings:
    """What is wrong, each as a line that says of whom and how."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    #: Charged another amount than the call cost, or to another account.
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    #: What the journals put aside: charges that were refused for good, and records that could not be read.
    aside: list[str] = field(default_factory=list)
    #: What `verify` found, while it ran and after.
    alarms: list[str] = field(default_factory=list)
    #: Processes that ended though nobody killed them.
    died: list[str] = field(default_factory=list)

    @property
    def by_kind(self) -> dict[str, list[str]]:
        return {
            "lost": self.lost,
            "double": self.double,
            "wrong": self.wrong,
            "stuck": self.stuck,
            "put aside": self.aside,
            "false alarms": self.alarms,
            "died": self.died,
        }

    @property
    def total(self) -> int:
        return sum(map(len, self.by_kind.values()))


class Alarms:
    """Audits all the time, some accounts after the others, past the proxies. It counts what it finds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.found: list[str] = []
        self.audits = 0
        #: The last account that was audited.
        self._after: tuple[str | None, str | None] = (None, None)

    async def watch(self) -> None:
        """Until cancelled. A server that is away is no finding."""
        while True:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                await self._audit()
            await asyncio.sleep(_AUDIT_PAUSE_SECONDS)

    async def _audit(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=2)
        try:
            while True:
                began = asyncio.get_running_loop().time()
                told = await connection.fetchval(
                    "SELECT public.ducto_verify($1, $2, $3)", *self._after, _BATCH, timeout=60
                )
                answer = json.loads(told)
                self._note(answer)
                self.audits += 1
                self._after = (answer["next_kind"], answer["next_id"])
                if self._after == (None, None):
                    self._note(json.loads(await connection.fetchval(_TOTALS, timeout=60)))
                took = asyncio.get_running_loop().time() - began
                await asyncio.sleep(max(_AUDIT_PAUSE_SECONDS, _AUDIT_PAUSE_TIMES * took))
        finally:
            connection.terminate()

    def _note(self, answer: Mapping[str, Any]) -> None:
        self.found += [f"during the run: {fault}" for fault in answer["faults"]]


async def settled_down(url: str, calls: Mapping[str, Call], *, within_seconds: float) -> Findings:
    """The findings as soon as there are none and no hold is left, or those that are left after `within_seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_seconds
    connection = await asyncpg.connect(url)
    try:
        while True:
            held = await connection.fetch(_OPEN)
            over = loop.time() > deadline
            if over or not held:
                findings = compared(calls, await connection.fetch(_CHARGES))
                if over or not findings.lost:
                    break
            await asyncio.sleep(0.5)
        findings.stuck += [
            f"hold {row['number']} of {row['account_id']} for {row['key']}, due {row['due_at']}" for row in held
        ]
    finally:
        await connection.close()
    async with PostgresStore(url) as store:
        findings.alarms += [f"after the run: {fault}" for fault in (await store.verify()).faults]
    return findings


def put_aside(journal: Path) -> list[str]:
    """What the journals could not charge."""
    refused = [f"{path.name}: {line}" for path in journal.rglob("*.jsonl") for line in path.read_text().splitlines()]
    return refused + [f"{path.name}: {path.stat().st_size} bytes" for path in journal.rglob("*.corrupt")]


def compared(calls: Mapping[str, Call], charges: list[Any]) -> Findings:
    """The clients' lists against the rows that charge.

    Each acknowledged call has one row, each other call at most one, and there is no row of no call. A call whose client
    hung up may be charged by an estimate; every other row is what the call costs, of the account that pays for it.
    """
    findings = Findings()
    rows: dict[str, list[Any]] = defaultdict(list)
    for row in charges:
        key = (row["key"] or "").rpartition(":")[0]
        if key in calls:
            rows[key].append(row)
        else:
            findings.double.append(f"{_named(row)} charges {row['charged']} for no call that was made")
    for key, call in calls.items():
        of_call = rows.get(key, [])
        if not of_call and call.acknowledged:
            findings.lost.append(f"{key} of {call.user_id}, {call.cost} credits, {call.ending}: no row")
        if len(of_call) > 1:
            findings.double.append(f"{key} of {call.user_id}, {call.ending}: {', '.join(map(_named, of_call))}")
        findings.wrong += [found for row in of_call for found in _wrong(call, row)]
    return findings


def _wrong(call: Call, row: Any) -> list[str]:
    account = ("t", call.team_id) if call.team_id is not None else ("u", call.user_id)
    found = []
    if (row["account_kind"], row["account_id"]) != account or row["user_id"] != call.user_id:
        found.append(f"{call.key} is of {account}, but {_named(row)} paid for {row['user_id']}")
    by_estimate = row["estimated"] and not call.acknowledged
    if not by_estimate and (row["charged"] != call.cost or row["unbilled"] != 0):
        found.append(f"{call.key} ({call.ending}) cost {call.cost}, but {_named(row)} charged {row['charged']}")
    return found


def _named(row: Any) -> str:
    return f"row {row['sequence']} of {row['account_kind']}:{row['account_id']}"
