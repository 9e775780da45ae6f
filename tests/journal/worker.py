"""A process with a manager, a Postgres and a journal, that is killed at a marked point.

`python -m tests.journal.worker URL FOLDER POINT CALLS`: makes CALLS calls at once, prints what it comes to, and hangs
where POINT says; with `replay` it works the journal off, prints its report, and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ducto.journal import SettleJournal
from ducto.journal import segment as segment_module
from ducto.manager import CreditManager
from ducto.models import DeductionResult
from ducto.stores.postgres import PostgresStore
from tests.journal.support import put_aside

USER = "alice"
COST = 7


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class HangingStore(PostgresStore):
    point = ""

    async def deduct_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
        if self.point == "journal written":
            say("hangs")
            await asyncio.Event().wait()
        result = await super().deduct_credits(*args, **kwargs)
        if self.point == "deducted":
            say("hangs")
            await asyncio.Event().wait()
        return result


def hang_within_the_write() -> None:
    """The journal's thread writes all but the last record whole, and that one to the middle."""
    real = os.write

    def half(descriptor: int, data: Any) -> int:
        if threading.current_thread().name != "ducto journal" or b"\n+ " not in bytes(data):
            return real(descriptor, data)
        real(descriptor, bytes(data)[:-40])
        real(1, b"hangs\n")
        threading.Event().wait()
        return 0

    segment_module.os = type("os", (), {**vars(os), "write": staticmethod(half)})  # type: ignore[assignment]


async def main(url: str, folder: str, point: str, calls: int) -> None:
    store = HangingStore(url)
    store.point = point
    journal = SettleJournal(folder, replay_every_seconds=0.1)
    async with store, CreditManager(store, maintain_every_seconds=None, journal=journal) as manager:
        if point == "replay":
            while put_aside(Path(folder), "*.journal"):  # noqa: ASYNC110 - other processes write there as well
                await asyncio.sleep(0.05)
            say("done")
            return
        metered = [manager.meter(USER, estimate=100, metadata={"source": point}) for _ in range(calls)]
        for call in metered:
            await call.start()
        if point == "within the write":
            # A first one, so that the file is there and the write that is cut off has the others.
            hang_within_the_write()
        await asyncio.gather(*(call.settle(COST) for call in metered))
        say("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
