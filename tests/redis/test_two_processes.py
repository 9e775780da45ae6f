"""Two real processes on one Postgres and one Redis, which write and read in turn: nobody reads what was before a write
that was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
from pathlib import Path

from ducto.testing.servers.redis import redis_server
from tests.conformance.sql_harness import migrated_database

_WORKER = Path(__file__).with_name("turns_worker.py")
_ROOT = _WORKER.parents[2]
_ROUNDS_EACH = 5_020
_LANES = 25


async def test_no_read_is_older_than_an_answered_write() -> None:
    async with migrated_database("new") as database:
        ends = socket.socketpair()
        prefix = f"turns-{secrets.token_hex(6)}"
        common = [database.url, redis_server().url, prefix, str(_ROUNDS_EACH), str(_LANES)]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                str(_WORKER),
                *common,
                first,
                str(end.fileno()),
                pass_fds=(end.fileno(),),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            for first, end in zip(("begins", "follows"), ends, strict=True)
        ]
        for end in ends:
            end.close()
        async with asyncio.timeout(180):
            said = await asyncio.gather(*(process.communicate() for process in processes))
    seen = []
    for process, (out, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err.decode()
        seen.append(json.loads(out))
    # Who ends first leaves the other with a turn less in each lane.
    assert sum(each["rounds"] for each in seen) >= 2 * _ROUNDS_EACH - _LANES >= 10_000
    for each in seen:
        assert each["stale"] == []
        assert each["fallbacks"] == each["failures"] == 0
        assert each["hits"] > _ROUNDS_EACH / 10
