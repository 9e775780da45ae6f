"""What the processes of the harness share: where the books are, prices, users, and how a process is told its part."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ducto import CreditManager
from ducto.journal import SettleJournal
from ducto.stores.base import CreditStore
from ducto.stores.postgres import PostgresStore
from ducto.stores.redis import RedisCacheStore
from ducto.stores.supabase import HttpxSupabaseStore
from tests.faults.plants import Plant, planted

__all__ = [
    "CREDITS",
    "GRACE_SECONDS",
    "MODEL",
    "PRICING",
    "TEAMS",
    "TTL_SECONDS",
    "USERS",
    "Part",
    "cost_of",
    "open_manager",
    "open_store",
]

MODEL = "simulated"
#: In credits (millionths of a dollar): 1 for a token of input, 10 for one of output.
PRICING: dict[str, Any] = {"models": {MODEL: {"unit": "usd", "input": "1", "output": "10"}}}
USERS = tuple(f"user-{number:02}" for number in range(32))
#: Names; their ids are the store's. All users are members of all teams.
TEAMS = ("red", "blue", "green")
CREDITS = 1_000_000_000_000

#: A hold ends by itself after these two, which is longer than any client repeats a call: if it were not, a journal
#: that is replayed after a client's second attempt would charge the first one too, and rightly so.
TTL_SECONDS = 6
GRACE_SECONDS = 4

StoreKind = Literal["postgres", "postgrest", "redis"]


def cost_of(input_tokens: int, output_tokens: int) -> int:
    """What a call costs by `PRICING`."""
    return input_tokens + 10 * output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process is to do, told on its command line as JSON."""

    name: str
    seed: int
    folder: str
    #: The port that it listens on, for those that do.
    port: int = 0
    #: For gateways and workers: the books.
    store: StoreKind = "postgres"
    postgres_url: str = ""
    postgrest_url: str = ""
    postgrest_key: str = ""
    redis_url: str = ""
    #: The folder of the journals of all processes, `None` for none.
    journal: str | None = None
    plant: Plant | None = None
    #: For gateways.
    provider_url: str = ""
    #: For those who call: how many clients, the ports of the gateways, the ids of the teams.
    clients: int = 0
    gateway_ports: tuple[int, ...] = ()
    team_ids: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_command_line(cls) -> Self:
        values = json.loads(sys.argv[1])
        values["gateway_ports"], values["team_ids"] = tuple(values["gateway_ports"]), tuple(values["team_ids"])
        return cls(**values)

    @property
    def lists(self) -> Path:
        """The folder of the clients' lists."""
        return Path(self.folder) / "lists"


def open_store(part: Part) -> CreditStore:
    """The store of a gateway or worker, with few connections: there are many processes."""
    if part.store == "postgrest":
        return planted(HttpxSupabaseStore(url=part.postgrest_url, key=part.postgrest_key, rest_path=""), part.plant)
    postgres = PostgresStore(part.postgres_url, pool_size=4, settle_pool_size=3)
    if part.store == "postgres":
        return planted(postgres, part.plant)
    return planted(RedisCacheStore(postgres, part.redis_url, owns_inner=True), part.plant)


@asynccontextmanager
async def open_manager(part: Part) -> AsyncIterator[CreditManager]:
    """The manager of a gateway or worker, with holds that end soon."""
    journal = SettleJournal(part.journal, replay_every_seconds=1.0) if part.journal is not None else None
    async with (
        open_store(part) as store,
        CreditManager(
            store,
            ttl_seconds=TTL_SECONDS,
            grace_seconds=GRACE_SECONDS,
            maintain_every_seconds=3.0,
            drain_seconds=5.0,
            journal=journal,
        ) as manager,
    ):
        yield manager
