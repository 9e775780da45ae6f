"""A credit store of one's own: books in memory, journaled in SQLite. Run it with `python examples/custom_store.py`.

The store keeps the whole state in memory and appends every write that was accepted to a file, with the moment at which
it was made; opening the file makes the same writes again at the same moments. It takes one process, and its start
takes as long as its journal is long. Teams are left out: their ids are drawn at random, so a journal of calls does not
bring them back. That it is right is shown by the conformance kit, at the end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, create_model

from ducto import CreditManager, MemoryStore, StoreError
from ducto.errors import NotSupportedError
from ducto.models import CreateTeamResult, SetupResult
from ducto.testing.clock import ManualClock
from ducto.testing.conformance import run_conformance
from ducto.testing.harness import Harness, ManualClockHarness

#: The verbs that change the books. What else there is only reads them.
WRITES = (
    *("add_credits", "adjust_credits", "charge_credits", "transfer_credits", "refund_credits"),
    *("reserve_credits", "deduct_credits", "release_reservation", "renew_reservation"),
    *("sweep_expired_credits", "reap_expired_reservations", "prune_reservations"),
    *("set_active_pricing", "activate_pricing", "set_user_plan", "increment_usage_window"),
    *("set_spend_cap", "remove_spend_cap"),
)


class JournalStore(MemoryStore):
    """`MemoryStore`, with its accepted writes in the SQLite file `path`. `setup` reads them back."""

    def __init__(self, path: str | Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._outside_clock = clock
        self._moment: datetime | None = None
        super().__init__(clock=lambda: self._moment or self._outside_clock())
        self._writing = threading.Lock()
        self._ready = self._failed = False
        self._journal = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A write is on the disk before it is acknowledged.
        self._journal.execute("pragma journal_mode = wal")
        self._journal.execute("pragma synchronous = full")
        self._journal.execute("create table if not exists writes (moment text, verb text, arguments text)")

    async def setup(self, database_url: str | None = None) -> SetupResult:
        """Make the journaled writes again. Idempotent."""
        with self._writing:
            if not self._ready:
                for moment, verb, arguments in self._journal.execute("select * from writes order by rowid"):
                    given = _MODELS[verb].model_validate_json(arguments)
                    await self._write_at(datetime.fromisoformat(moment), verb, dict(given))
                self._ready = True
        return SetupResult(success=True)

    async def create_team(
        self, name: str, initial_balance: int = 0, *, idempotency_key: str | None = None
    ) -> CreateTeamResult:
        raise NotSupportedError("JournalStore keeps no teams; use another store for them (create_team).")

    async def aclose(self) -> None:
        self._journal.close()

    async def _write(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Write in memory, then into the journal, then answer: whoever has an answer finds it after a restart."""
        # Nothing in memory waits for anything, so that this thread's other tasks cannot come in between.
        with self._writing:
            if self._failed or not self._ready:
                raise StoreError("Open the store anew, and call setup(), which reads the journal.")
            moment = self._outside_clock()
            result = await self._write_at(moment, verb, arguments)
            if getattr(result, "error", None) is None and not getattr(result, "replayed", False):
                given = _MODELS[verb].model_construct(**arguments).model_dump_json(warnings=False)
                try:
                    self._journal.execute("insert into writes values (?, ?, ?)", (moment.isoformat(), verb, given))
                except sqlite3.Error as error:
                    # Memory is ahead of the file now. A restart brings both together, and a repeated key is safe.
                    self._failed = True
                    raise StoreError(f"The journal cannot be written: {error}") from error
            return result

    async def _write_at(self, moment: datetime, verb: str, arguments: dict[str, Any]) -> Any:
        self._moment = moment
        try:
            return await getattr(MemoryStore, verb)(self, **arguments)
        finally:
            self._moment = None


def _arguments_model(verb: str) -> type[BaseModel]:
    """A model of a verb's arguments, to write them as JSON and read them back."""
    function = getattr(MemoryStore, verb)
    hints = get_type_hints(function)
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    fields: dict[str, Any] = {
        one.name: (hints[one.name], ... if one.default is inspect.Parameter.empty else one.default)
        for one in parameters
    }
    return create_model(verb, **fields)


def _journaled(verb: str) -> Callable[..., Any]:
    function = getattr(MemoryStore, verb)
    signature = inspect.signature(function)

    @functools.wraps(function)  # The manager looks at the parameters that a store takes.
    async def write(self: JournalStore, *args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        del given["self"]
        return await self._write(verb, given)

    return write


_MODELS = {verb: _arguments_model(verb) for verb in WRITES}
for _verb in WRITES:
    setattr(JournalStore, _verb, _journaled(_verb))


@asynccontextmanager
async def open_harness() -> AsyncIterator[Harness]:
    """What the conformance kit needs: the store, and a clock that it can move."""
    clock = ManualClock()
    async with JournalStore(":memory:", clock=clock) as store:
        await store.setup()
        yield ManualClockHarness(store, clock)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "books.sqlite"
        async with JournalStore(path) as store, CreditManager(store) as manager:
            await manager.setup()
            await manager.publish_pricing({"models": {"gpt-4o-mini": "input_tokens + 4 * output_tokens"}})
            await manager.add_credits("alice", 1_000, "purchase", idempotency_key="payment-1")
            async with manager.meter("alice", estimate=300, metadata={"for": "a letter"}) as call:
                call.record(120)
            print("before the restart:", (await manager.get_available("alice")).available)

        async with JournalStore(path) as store, CreditManager(store) as manager:
            await manager.setup()
            again = await manager.add_credits("alice", 1_000, "purchase", idempotency_key="payment-1")
            print("after it:", (await manager.get_available("alice")).available, "paid twice:", not again.replayed)
            print(f"the books agree: {(await manager.verify()).ok}")

    report = await run_conformance(open_harness)
    print(f"conformance: {len(report.failures)} failures, {len(report.unsupported)} checks need teams")
    print(report.summary() if report.failures else "the store conforms")


if __name__ == "__main__":
    asyncio.run(main())
