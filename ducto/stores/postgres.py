"""`PostgresStore`: the SQL functions over asyncpg."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ducto import migrate
from ducto.errors import ConfigError, StoreError
from ducto.models import SetupResult
from ducto.retrying import RetryPolicy
from ducto.stores.connections import Connections, OwnConnections, PooledConnections
from ducto.stores.postgres_errors import error_of_sqlstate
from ducto.stores.pricing_listener import PricingListener
from ducto.stores.procedures import ProcedureStore
from ducto.stores.repeating import OutcomeUnknownError, repeated

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

    from ducto.stores.embedded import EmbeddedServer

__all__ = ["PostgresStore"]

#: Short: who waits longer for an admission is better told to come back, and settles are repeated by the manager.
_REPEATS = RetryPolicy(attempts=5, first_pause_seconds=0.02, longest_pause_seconds=0.5, total_seconds=2.0)
_DRAIN_SECONDS = 10.0
#: How much longer than the server's own limit the client waits, for a server that does not answer at all.
_SLACK_SECONDS = 2.0
#: JSON as it is sent; made once, since `json.dumps` makes an encoder for every call that is not by default.
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class PostgresStore(ProcedureStore):
    """A store in Postgres 15 or newer: `PostgresStore("postgresql://user:password@host/database")`.

    The pool opens with the first call, on the loop that runs then; a pool that is handed in stays its owner's to close.
    Of the pool's connections `settle_pool_size` are kept for calls that record work that was done (deduct, release,
    refund, forced charge), so that reserves never keep them waiting; a handed-in pool is shared in the same way, and
    must have more connections than that. Who waits a second for a connection gets a retryable `StoreError`.

    `statement_cache=False` is for poolers in transaction mode (PgBouncer, Supavisor): nothing then depends on the
    session. `lock_timeout_seconds` is how long a locked account is waited for (then `StoreError(busy=True)`),
    `statement_timeout_seconds` bounds every call, `long_statement_timeout_seconds` reports, audits and sweeps.
    """

    durable: bool = True

    def __init__(
        self,
        dsn: str | asyncpg.Pool[Any],
        *,
        pool_size: int = 8,
        settle_pool_size: int = 5,
        connect_timeout_seconds: float = 5.0,
        acquire_timeout_seconds: float = 1.0,
        lock_timeout_seconds: float = 2.0,
        statement_timeout_seconds: float = 10.0,
        long_statement_timeout_seconds: float = 600.0,
        statement_cache: bool = True,
        batch_lanes: int = 3,
    ) -> None:
        super().__init__(batch_lanes=batch_lanes)
        _require_driver()
        self._dsn = dsn if isinstance(dsn, str) else None
        self._embedded: EmbeddedServer | None = None
        self._connections: Connections
        if isinstance(dsn, str):
            self._connections = OwnConnections(self._connect)
        else:
            # There is a place for each, so that all that may take time is opening a new connection.
            self._connections = PooledConnections(
                dsn, acquire_timeout_seconds=acquire_timeout_seconds + connect_timeout_seconds
            )
            pool_size = dsn.get_max_size() - settle_pool_size
        if pool_size < 1 or settle_pool_size < 1:
            raise ConfigError("PostgresStore needs at least one connection for settles and one for all other calls.")
        self._ordinary = asyncio.Semaphore(pool_size)
        self._settling = asyncio.Semaphore(settle_pool_size)
        self._connect_timeout = connect_timeout_seconds
        self._acquire_timeout = acquire_timeout_seconds
        self._lock_timeout_ms = round(lock_timeout_seconds * 1000)
        self._statement_timeout = statement_timeout_seconds
        self._long_timeout = long_statement_timeout_seconds
        self._statement_cache = statement_cache
        # Only in a session of our own can the timeouts be set once; else each call brings them along.
        self._brings_settings = not isinstance(dsn, str) or not statement_cache
        self._most_connections = pool_size + settle_pool_size
        self._statements: dict[tuple[str, ...], str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: PricingListener | None = None

    @classmethod
    def embedded(cls, path: str | Path, *, pool_size: int = 8, settle_pool_size: int = 5) -> PostgresStore:
        """A store in a Postgres of its own, kept in the folder `path` and run as long as the store is open.

        For laptops, demos and tests; the books are still there the next time. Needs the extra `embedded`.
        """
        from ducto.stores.embedded import EmbeddedServer

        server = EmbeddedServer(path)
        store = cls("", pool_size=pool_size, settle_pool_size=settle_pool_size)
        store._embedded = server
        return store

    def __repr__(self) -> str:
        # Never the URL: it has the password.
        return f"PostgresStore(connections={self._most_connections})"

    # The store itself

    @property
    def books_name(self) -> str | None:
        """Host, port and database of the URL, or the folder of an embedded server; `None` on a pool handed in."""
        if self._embedded is not None:
            return f"embedded:{self._embedded.path}"
        return None if self._dsn is None else _books_name(self._dsn)

    async def setup(self, database_url: str | None = None) -> SetupResult:
        """Bring tables and functions up to date, as `database_url` (default: as the store's own login)."""
        url = database_url or await self._url()
        if url is not None:
            return await migrate.migrate(url)
        async with self._connection(settle=False) as connection:
            return await migrate.migrate_over(connection)

    async def aclose(self) -> None:
        await self._drain(timeout_seconds=_DRAIN_SECONDS)
        if self._listener is not None:
            await self._listener.aclose()
            self._listener = None
        await self._connections.aclose(timeout_seconds=_DRAIN_SECONDS)
        if self._embedded is not None:
            await self._embedded.stop()

    def on_pricing_published(self, heard: Callable[[str | None], None]) -> Callable[[], None]:
        """As every store's. Listens (`LISTEN`) on one connection more than the pool has, while anybody hears.

        A store on a pool that was handed in, or behind a pooler in transaction mode (`statement_cache=False`), has no
        session of its own to listen with: it never calls.
        """
        if self._dsn is None or not self._statement_cache:
            return super().on_pricing_published(heard)
        if self._listener is None:
            self._listener = PricingListener(self._connect)
        return self._listener.add(heard)

    # The transport

    async def _call(
        self, function: str, arguments: Mapping[str, Any], *, settle: bool = False, long: bool = False
    ) -> str | bytes:
        statement = self._statement(function, arguments)
        values = [_encoded(value) if isinstance(value, (dict, list)) else value for value in arguments.values()]
        return await repeated(
            lambda: self._once(statement, values, settle=settle, long=long),
            policy=_REPEATS,
        )

    def _statement(self, function: str, arguments: Mapping[str, Any]) -> str:
        """The text of a call. Names come from this package alone; values are always parameters."""
        shape = (function, *arguments)
        text = self._statements.get(shape)
        if text is None:
            named = ", ".join(f"{name} => ${number}" for number, name in enumerate(arguments, start=1))
            text = f"SELECT public.{function}({named})"
            if self._brings_settings:
                # For this statement alone, and before the function runs: it needs the setting's row.
                setting = f"pg_catalog.set_config('lock_timeout', '{self._lock_timeout_ms}', true)"
                text = f"SELECT public.{function}({named}) FROM (SELECT {setting} AS value OFFSET 0) AS setting"
            self._statements[shape] = text
        return text

    async def _once(self, statement: str, values: list[Any], *, settle: bool, long: bool) -> str:
        limit = self._long_timeout if long else self._statement_timeout
        async with self._connection(settle=settle) as connection:
            if not long and not self._brings_settings:
                return str(await connection.fetchval(statement, *values, timeout=limit + _SLACK_SECONDS))
            if not long:
                # Without a setting of the session the client alone keeps the limit.
                return str(await connection.fetchval(statement, *values, timeout=limit))
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = {round(limit * 1000)}")
                return str(await connection.fetchval(statement, *values, timeout=limit + _SLACK_SECONDS))

    @asynccontextmanager
    async def _connection(self, *, settle: bool) -> AsyncIterator[Any]:
        """A connection, with the driver's errors turned into ours."""
        import asyncpg

        places = self._settling if settle else self._ordinary
        await self._placed(places)
        try:
            connection = await self._taken()
            usable = False
            try:
                yield connection
                usable = True
            except asyncpg.PostgresError as error:
                usable = True
                raise error_of_sqlstate(error.sqlstate or "?????", error.message or type(error).__name__) from None
            except (TimeoutError, OSError):
                raise OutcomeUnknownError("Postgres did not answer in time.") from None
            except asyncpg.InterfaceError as error:
                raise _interface_error(error, connection) from None
            except asyncpg.InternalClientError:
                # Seen when the server is killed: the driver has lost track of the session, so it is not used again.
                connection.terminate()
                raise OutcomeUnknownError("The connection to Postgres broke.") from None
            finally:
                await self._connections.give_back(connection, usable=usable)
        finally:
            places.release()

    async def _placed(self, places: asyncio.Semaphore) -> None:
        if not places.locked():
            await places.acquire()  # At once, so that no timer is needed.
            return
        try:
            async with asyncio.timeout(self._acquire_timeout):
                await places.acquire()
        except TimeoutError:
            raise _exhausted() from None

    async def _taken(self) -> Any:
        import asyncpg

        loop = asyncio.get_running_loop()
        if self._dsn is not None and self._loop is not loop:
            if self._loop is not None:
                raise ConfigError("This PostgresStore belongs to another event loop; make one store for each loop.")
            self._loop = loop
        try:
            return await self._connections.take()
        except TimeoutError:
            raise StoreError("No connection to Postgres could be opened in time.", retryable=True) from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise _connect_error(error) from None

    async def _connect(self) -> asyncpg.Connection[Any]:
        """A new connection to the database that the URL names."""
        import asyncpg

        connection: asyncpg.Connection[Any] = await asyncpg.connect(await self._url(), **self._connect_options())
        return connection

    def _connect_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": self._connect_timeout}
        if not self._statement_cache:
            return {**options, "statement_cache_size": 0}
        settings = {
            "application_name": "ducto",
            "lock_timeout": str(self._lock_timeout_ms),
            "statement_timeout": str(round(self._statement_timeout * 1000)),
        }
        return {**options, "server_settings": settings}

    async def _url(self) -> str | None:
        return self._dsn if self._embedded is None else await self._embedded.url()


def _books_name(dsn: str) -> str:
    """Whom a URL leads to, without login and options. Where libpq would ask the environment, so is here."""
    try:
        parts = urlsplit(dsn)
        options = dict(parse_qsl(parts.query))
        hosts = parts.netloc.rpartition("@")[2]
    except ValueError:
        raise ConfigError(
            "This is not a usable Postgres URL; expected postgresql://user:password@host:port/database."
        ) from None
    host = hosts or options.get("host") or os.environ.get("PGHOST") or "localhost"
    port = options.get("port") or os.environ.get("PGPORT") or "5432"
    if not re.search(r":\d+$", hosts):
        host = f"{host}:{port}"
    database = parts.path.strip("/") or options.get("dbname") or options.get("database") or os.environ.get("PGDATABASE")
    return f"postgresql://{host.lower()}/{unquote(database or parts.username or '')}"


def _require_driver() -> None:
    try:
        import asyncpg  # noqa: F401
    except ImportError:
        raise ConfigError("PostgresStore needs asyncpg; install it with: pip install 'ducto[postgres]'") from None


def _exhausted() -> StoreError:
    return StoreError("All connections to Postgres are in use; try again, or raise pool_size.", retryable=True)


def _connect_error(error: Exception) -> StoreError | ConfigError:
    """What was met while connecting. Messages of the driver may contain parts of the URL, so only codes are told."""
    import asyncpg

    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(f"Postgres refused the login ({sqlstate}): check user and password.", retryable=False)
    if sqlstate == "3D000":
        return StoreError("The database that the Postgres URL names does not exist.", retryable=False)
    if isinstance(error, asyncpg.ClientConfigurationError) or (
        isinstance(error, ValueError) and not isinstance(error, OSError)
    ):
        return ConfigError("This is not a usable Postgres URL; expected postgresql://user:password@host:port/database.")
    if isinstance(error, asyncpg.InterfaceError):
        return StoreError("This store is closed, or its pool is.", retryable=False)
    return StoreError(f"Postgres cannot be reached ({sqlstate or type(error).__name__}).", retryable=True)


def _interface_error(error: Exception, connection: Any) -> StoreError:
    if connection.is_closed():
        return OutcomeUnknownError("The connection to Postgres was lost.")
    return StoreError(f"asyncpg refused the call ({type(error).__name__}: {error}).", retryable=False)
