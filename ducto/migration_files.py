"""The SQL that makes up the schema, in the order in which it is applied."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ducto.errors import ConfigError

__all__ = ["PERMISSIONS", "MigrationFile", "migration_files"]

Kind = Literal["table", "function", "permissions"]

PERMISSIONS = "permissions.sql"
_NUMBERED = re.compile(r"\d{4}_\w+\.sql")


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One file. A `table` file is applied once and never changes; a `function` file again whenever it changed."""

    name: str
    kind: Kind
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migration_files(folder: Path | None = None) -> list[MigrationFile]:
    """All files: the numbered ones, the functions in name order, the permissions.

    They are looked for in the installed package (`ducto/migrations`), then in the checkout (`migrations`).
    """
    root = folder or _folder()
    numbered = [
        MigrationFile(path.name, "table", path.read_text(encoding="utf-8"))
        for path in sorted(root.glob("*.sql"))
        if _NUMBERED.fullmatch(path.name)
    ]
    functions = [
        MigrationFile(f"functions/{path.name}", "function", path.read_text(encoding="utf-8"))
        for path in sorted((root / "functions").glob("*.sql"))
    ]
    permissions = root / PERMISSIONS
    if not numbered or not permissions.is_file():
        raise ConfigError(f"The SQL files of ducto are not complete in {root}; install the package again.")
    return [*numbered, *functions, MigrationFile(PERMISSIONS, "permissions", permissions.read_text(encoding="utf-8"))]


def _folder() -> Path:
    here = Path(__file__).resolve().parent
    for candidate in (here / "migrations", here.parent / "migrations"):
        if (candidate / PERMISSIONS).is_file():
            return candidate
    raise ConfigError("The SQL files of ducto were not found beside the package; install it again.")
