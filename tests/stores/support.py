"""A real database with the functions of `functions.sql`, and a look at what they booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ducto.testing.servers import Database, new_database, postgres_server

FUNCTIONS = Path(__file__).with_name("functions.sql").read_text(encoding="utf-8")


@dataclass
class TransportDatabase:
    database: Database
    admin: Any

    @property
    def url(self) -> str:
        return self.database.url

    async def booked(self) -> list[str]:
        return [row[0] for row in await self.admin.fetch("SELECT account FROM transport.booked ORDER BY 1")]

    async def calls(self) -> list[tuple[int, bool, list[str]]]:
        """Number of items, whether it waited, and the accounts, of every call that was committed."""
        found = await self.admin.fetch("SELECT items, waits, accounts FROM transport.calls ORDER BY number")
        return [(row["items"], row["waits"], row["accounts"]) for row in found]

    async def attempts(self) -> int:
        return int(await self.admin.fetchval("SELECT last_value FROM transport.attempts"))

    async def sessions(self) -> list[int]:
        """The backends of everybody else on this database."""
        found = await self.admin.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return [row[0] for row in found]

    async def terminate(self) -> None:
        for pid in await self.sessions():
            await self.admin.execute("SELECT pg_terminate_backend($1)", pid)


@asynccontextmanager
async def transport_database() -> AsyncIterator[TransportDatabase]:
    async with new_database(postgres_server()) as database:
        admin = await asyncpg.connect(database.superuser_url)
        try:
            await admin.execute(FUNCTIONS)
            yield TransportDatabase(database, admin)
        finally:
            await admin.close()
