"""Where the journal is, and its bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from ducto.errors import ConfigError

__all__ = ["JOURNAL_VARIABLE", "OFF", "SettleJournal", "journal_of_environment"]

#: Names the folder of the journal for managers that are not told one; `off` for none.
JOURNAL_VARIABLE = "DUCTO_JOURNAL"
OFF = "off"

#: Some 300,000 settles: an outage of the store of most of an hour at a hundred calls a second.
MAX_BYTES = 64 * 1024 * 1024
#: Less could not hold what calls that run at the same time owe.
LEAST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SettleJournal:
    """A journal in `folder`, where each set of books has a folder of its own.

    `books_name` says which books they are, for a store that cannot tell (one on a pool that was handed in): any text
    that is another one for every database. `max_bytes` bounds what is outstanding; beyond it calls are settled without
    a journal, and that is logged as an error. What other processes left is looked for every `replay_every_seconds`.
    Raises `ConfigError` for a value out of range.
    """

    folder: str | Path
    _: KW_ONLY
    books_name: str | None = None
    max_bytes: int = MAX_BYTES
    replay_every_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not str(self.folder):
            raise ConfigError("The settle journal needs a folder; its name is empty.")
        if self.books_name == "":
            raise ConfigError("books_name of the settle journal must not be empty; leave it out if the store knows it.")
        if type(self.max_bytes) is not int or self.max_bytes < LEAST_BYTES:
            raise ConfigError(
                f"max_bytes of the settle journal must be at least {LEAST_BYTES}, not {self.max_bytes!r}."
            )
        if not self.replay_every_seconds > 0:
            raise ConfigError(f"replay_every_seconds must be above 0, not {self.replay_every_seconds!r}.")


def journal_of_environment(environment: Mapping[str, str] = os.environ) -> tuple[Path | None, bool]:
    """The folder of the environment, `None` for `off`, and whether somebody named it.

    It is `DUCTO_JOURNAL`, else `$XDG_STATE_HOME/ducto/journal`, else `~/.local/state/ducto/journal` (the XDG Base
    Directory Specification's place for what outlives a restart but is nobody's document).
    """
    named = environment.get(JOURNAL_VARIABLE)
    if named:
        return (None if named == OFF else Path(named)), True
    state = environment.get("XDG_STATE_HOME")
    home = Path(state) if state and Path(state).is_absolute() else Path("~/.local/state").expanduser()
    return home / "ducto" / "journal", False
