"""Bringing a database up to date: tables once, functions whenever they changed, permissions last.

All of it is one transaction under an advisory lock, so that any number of deployments may migrate at once and a
database is never half migrated. The tables of running calls are locked for moments only: where a lock is not had
quickly, the whole is rolled back and tried again, so that no call is kept waiting. `ducto.migrations` records the
checksum of every file that was applied.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ducto.errors import ConfigError, StoreError
from ducto.migration_checks import OURS, catalogue_faults
from ducto.migration_files import PERMISSIONS, MigrationFile, migration_files
from ducto.models import SetupResult

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

__all__ = ["migrate", "migrate_over", "migration_sql", "pending", "reload_postgrest", "run_migrations"]

#: Held by whoever migrates; the number is ours alone ("ducto" in ASCII).
ADVISORY_LOCK = 0x647563746F
#: While a migration waits for a table's lock, the calls behind it wait as well. Shorter than `deadlock_timeout`, so
#: that in a deadlock with a running call it is the migration that gives way.
LOCK_TIMEOUT_MS = 250
ATTEMPTS = 60
CONNECT_TIMEOUT_SECONDS = 15.0
STATEMENT_TIMEOUT_MS = 600_000

#: Roles of a Supabase database, which permissions.sql reads: what they may do depends on which of them exist.
WELL_KNOWN_ROLES = ("anon", "authenticated", "service_role")

_RECORDS = """\
CREATE SCHEMA IF NOT EXISTS ducto;
CREATE TABLE IF NOT EXISTS ducto.migrations (
    name text COLLATE "C" PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
"""
_RECORD = (
    "INSERT INTO ducto.migrations (name, checksum) VALUES ({name}, {checksum}) "
    "ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = excluded.applied_at"
)


class _SchemaError(Exception):
    """The migration must not go through; the text says why."""


def run_migrations(database_url: str, *, grant_to: str | None = None) -> SetupResult:
    """`migrate` for programs without an event loop. Raises `ConfigError` where one is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(migrate(database_url, grant_to=grant_to))
    raise ConfigError("run_migrations cannot run inside an event loop; use: await ducto.migrate.migrate(database_url)")


async def migrate(
    database_url: str, *, grant_to: str | None = None, files: Iterable[MigrationFile] | None = None
) -> SetupResult:
    """Bring the database up to date, as its owner or a superuser. Idempotent.

    `grant_to` names an existing role that gets the right to call the functions, and nothing else. `files` are those of
    the package unless given. What the schema itself forbids (a numbered file that was changed after it was applied, an
    overload, a function that everybody may execute) and what Postgres refuses is in `errors` of a result without
    success; nothing was changed then. A database that a newer version migrated is left as it is, for that version's
    functions serve this one as well: `newer` names its files, and only the grant is made. Raises `StoreError` where the
    database cannot be reached.
    """
    connection = await _connect(database_url)
    try:
        return await migrate_over(connection, grant_to=grant_to, files=files)
    finally:
        connection.terminate()


async def migrate_over(
    connection: Any, *, grant_to: str | None = None, files: Iterable[MigrationFile] | None = None
) -> SetupResult:
    """`migrate` over an open asyncpg connection that is in no transaction."""
    import asyncpg

    wanted = migration_files() if files is None else list(files)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with connection.transaction():
                return await _apply(connection, wanted, grant_to)
        except _SchemaError as error:
            return SetupResult(success=False, errors=(str(error),))
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == ATTEMPTS:
                break
            await asyncio.sleep(random.uniform(0.05, 0.25))
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
            raise StoreError(
                f"The connection was lost during the migration ({type(error).__name__}); nothing is half done, "
                "so run it again.",
                retryable=True,
            ) from None
        except asyncpg.PostgresError as error:
            return SetupResult(success=False, errors=(f"{error.sqlstate}: {error.message}",))
    return SetupResult(
        success=False,
        errors=("The tables were locked for too long by other transactions; run the migration again.",),
    )


async def pending(database_url: str, *, files: Iterable[MigrationFile] | None = None) -> list[MigrationFile]:
    """The files that `migrate` would apply now. Raises `ConfigError` for a numbered file that was changed."""
    connection = await _connect(database_url)
    try:
        exists = await connection.fetchval("SELECT pg_catalog.to_regclass('ducto.migrations') IS NOT NULL")
        recorded = await _recorded(connection) if exists else {}
        roles = await _roles(connection)
    finally:
        connection.terminate()
    try:
        return _due(migration_files() if files is None else list(files), recorded, roles)
    except _SchemaError as error:
        raise ConfigError(str(error)) from None


async def reload_postgrest(database_url: str) -> None:
    """Tell every PostgREST on the database to look at the functions again."""
    connection = await _connect(database_url)
    try:
        await connection.execute("NOTIFY pgrst, 'reload schema'")
    finally:
        connection.terminate()


def migration_sql(
    files: Iterable[MigrationFile] | None = None, *, grant_to: str | None = None, roles: Iterable[str] = ()
) -> str:
    """The SQL of `files` (default: all, for an empty database) as one script, for those who apply it by hand.

    It records what it applies, so that `migrate` may go on from there. `roles` are those of anon, authenticated and
    service_role that exist in the database.
    """
    wanted = migration_files() if files is None else list(files)
    parts = ["BEGIN;", f"SELECT pg_catalog.pg_advisory_xact_lock({ADVISORY_LOCK});", _RECORDS]
    for file in wanted:
        record = _RECORD.format(name=_quoted(file.name), checksum=_quoted(_checksum(file, sorted(roles))))
        parts.append(f"-- {file.name}\n{file.sql.rstrip()}\n{record};")
    if grant_to is not None:
        parts.append(_GRANT_SCRIPT.format(role=_quoted(grant_to), ours=OURS))
    return "\n\n".join([*parts, "COMMIT;"]) + "\n"


async def _connect(database_url: str) -> asyncpg.Connection[Any]:
    try:
        import asyncpg
    except ImportError:
        raise ConfigError("Migrations need asyncpg; install it with: pip install 'ducto[postgres]'") from None
    try:
        # Without prepared statements, so that a pooler in transaction mode will do. No settings either: it has its own.
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            database_url, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0
        )
    except asyncpg.PostgresError as error:
        raise StoreError(f"Postgres refused the connection ({error.sqlstate}).", retryable=False) from None
    except (OSError, TimeoutError) as error:
        raise StoreError(f"Postgres cannot be reached ({type(error).__name__}).", retryable=True) from None
    except (ValueError, asyncpg.InterfaceError):
        # The driver's message may contain parts of the URL, and so of the password.
        raise ConfigError(
            "This is not a usable Postgres URL; expected postgresql://user:password@host:port/database."
        ) from None
    return connection


async def _apply(connection: Any, files: list[MigrationFile], grant_to: str | None) -> SetupResult:
    """Within a transaction: apply what is due, check the result, say what was changed."""
    await connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; SET LOCAL lock_timeout = 0")
    await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({ADVISORY_LOCK})")
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    if not await connection.fetchval("SELECT pg_catalog.to_regclass('ducto.migrations') IS NOT NULL"):
        await connection.execute(_RECORDS)
    roles = await _roles(connection)
    recorded = await _recorded(connection)
    due = _due(files, recorded, roles)
    granted = await _grantees(connection)
    for file in due:
        await connection.execute(file.sql)
        await connection.execute(_RECORD.format(name="$1", checksum="$2"), file.name, _checksum(file, roles))
    applied = [file.name for file in due]
    if grant_to is not None and grant_to not in granted:
        applied.append(f"grant to {grant_to}")
    if due or grant_to is not None:
        await _grant(connection, {*granted, grant_to} - {None})
    faults = await catalogue_faults(connection)
    if faults:
        raise _SchemaError("; ".join(faults))
    return SetupResult(success=True, applied=tuple(applied), newer=tuple(_newer(files, recorded)))


def _newer(files: list[MigrationFile], recorded: Mapping[str, str]) -> list[str]:
    """Numbered files that were applied to the database beyond the last one that we know."""
    last = max((file.name for file in files if file.kind == "table"), default="")
    return sorted(name for name in recorded if name[0].isdigit() and name > last)


def _due(files: list[MigrationFile], recorded: Mapping[str, str], roles: list[str]) -> list[MigrationFile]:
    """What is not applied yet, or has changed. Where anything is due, so are the permissions.

    Nothing where a newer version was here: an older process that starts during a deployment must not put back the
    functions of its own version.
    """
    due: list[MigrationFile] = []
    if _newer(files, recorded):
        return due
    for file in files:
        known = recorded.get(file.name)
        if known == _checksum(file, roles) and not (file.kind == "permissions" and due):
            continue
        if known is not None and file.kind == "table":
            raise _SchemaError(
                f"{file.name} was changed after it had been applied to this database. Numbered files are never "
                "changed: restore it, and put the change into a new file."
            )
        due.append(file)
    return due


def _checksum(file: MigrationFile, roles: list[str]) -> str:
    """What the permissions do depends on the roles that exist, so they are due again when one appears."""
    return f"{file.checksum} {','.join(roles)}".rstrip() if file.name == PERMISSIONS else file.checksum


async def _recorded(connection: Any) -> dict[str, str]:
    return {row[0]: row[1] for row in await connection.fetch("SELECT name, checksum FROM ducto.migrations")}


async def _roles(connection: Any) -> list[str]:
    found = await connection.fetch(
        "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY($1::text[]) ORDER BY 1",
        list(WELL_KNOWN_ROLES),
    )
    return [row[0] for row in found]


async def _grantees(connection: Any) -> set[str | None]:
    """The roles of applications that may call the functions now: they are to have new functions too."""
    found = await connection.fetch(
        f"""SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) AS acl
            JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
            WHERE n.nspname = 'public' AND {OURS} AND acl.grantee <> p.proowner
            AND r.rolname <> ALL($1::text[])""",
        list(WELL_KNOWN_ROLES),
    )
    return {row[0] for row in found}


#: Gives a role the functions. Names of roles and functions are quoted by the server.
_GRANT_SCRIPT = """\
DO $grant$
DECLARE
    v_role text := {role};
    v_function regprocedure;
BEGIN
    IF NOT pg_catalog.has_schema_privilege(v_role, 'public', 'USAGE') THEN
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA public TO %I', v_role);
    END IF;
    FOR v_function IN
        SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public' AND {ours}
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_role);
    END LOOP;
END
$grant$;"""


async def _grant(connection: Any, roles: set[str | None]) -> None:
    for role in sorted(name for name in roles if name is not None):
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", role):
            raise _SchemaError(f"There is no role {role!r} to grant the functions to; create it first.")
        await connection.execute(_GRANT_SCRIPT.format(role=_quoted(role), ours=OURS))


def _quoted(text: str) -> str:
    """A literal, whatever `standard_conforming_strings` says. Raises `ConfigError` for NUL, which none can have."""
    if "\x00" in text:
        raise ConfigError("A role's name cannot contain NUL.")
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
