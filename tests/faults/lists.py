"""The clients' own lists of what they asked for and what was acknowledged, which outlive the clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Call", "ClientList", "Ending", "read_lists"]

#: How a call ended for its client. `answered`: with the whole answer. `settled`: a repeated request was told that the
#: call had been charged. `left`: the client hung up in the middle of the answer. `refused`: it gave up.
Ending = Literal["answered", "settled", "left", "refused"]
ACKNOWLEDGED: frozenset[str] = frozenset({"answered", "settled"})


@dataclass(slots=True)
class Call:
    """A call as its client knows it; `ending` is `None` where the client was killed before it knew."""

    client: str
    key: str
    user_id: str
    team_id: str | None
    cost: int
    ending: str | None = None

    @property
    def acknowledged(self) -> bool:
        return self.ending in ACKNOWLEDGED


@dataclass(slots=True)
class _Waiting:
    lines: list[str] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)


class ClientList:
    """Appends lines to a file. An acknowledgement counts when `acknowledge` returns: it is then on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._next = _Waiting()
        self._syncing: asyncio.Task[None] | None = None

    def issue(self, call: Call) -> None:
        """Before a call is made. Survives the client, though not the machine."""
        line = f"issued\t{call.key}\t{call.client}\t{call.user_id}\t{call.team_id or ''}\t{call.cost}\n"
        os.write(self._file, line.encode())

    async def end(self, call: Call, ending: Ending) -> None:
        """Write how a call ended, with one fsync for all that end at the same time."""
        group = self._next
        group.lines.append(f"{ending}\t{call.key}\n")
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        await group.written.wait()

    async def _sync(self) -> None:
        while self._next.lines:
            group, self._next = self._next, _Waiting()
            os.write(self._file, "".join(group.lines).encode())
            await asyncio.to_thread(os.fsync, self._file)
            group.written.set()


def read_lists(folder: Path) -> dict[str, Call]:
    """All calls of all lists in the folder, by key. A line that was cut off by a kill was never counted on."""
    calls: dict[str, Call] = {}
    for path in sorted(folder.glob("*.list")):
        for line in _whole_lines(path):
            what, key, *more = line.split("\t")
            if what == "issued":
                client, user_id, team_id, cost = more
                calls[key] = Call(client, key, user_id, team_id or None, int(cost))
            else:
                calls[key].ending = what
    return calls


def _whole_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield line[:-1]
