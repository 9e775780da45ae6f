"""`HttpxSupabaseStore`: the SQL functions as RPC of PostgREST, over httpx."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ducto import migrate
from ducto.errors import ConfigError, StoreError
from ducto.models import SetupResult
from ducto.retrying import RetryPolicy
from ducto.stores.postgres_errors import MIGRATE_HINT, error_of_sqlstate
from ducto.stores.procedures import ProcedureStore
from ducto.stores.repeating import OutcomeUnknownError, repeated

__all__ = ["HttpxSupabaseStore"]

_REPEATS = RetryPolicy(attempts=8, first_pause_seconds=0.1, longest_pause_seconds=2.0, total_seconds=10.0)
_DRAIN_SECONDS = 10.0
#: How long PostgREST may take to see new functions after a migration.
_RELOAD_SECONDS = 15.0
#: Roles of everybody: a store with such a key could not call anything.
_PUBLIC_ROLES = ("anon", "authenticated")


class HttpxSupabaseStore(ProcedureStore):
    """A store in Supabase, or behind any PostgREST: `HttpxSupabaseStore(url="https://x.supabase.co", key=...)`.

    `key` is the service_role key: it may do everything, so it belongs on servers only, and is kept out of reprs, logs
    and errors. A bare PostgREST has `rest_path=""`. `database_url` is for `setup` alone. A `client` that is handed in
    stays its owner's to close. A call whose outcome is not known is repeated with the same key, all in all for at most
    ten seconds.
    """

    durable: bool = True

    def __init__(
        self,
        *,
        url: str,
        key: str,
        rest_path: str = "/rest/v1",
        database_url: str | None = None,
        client: httpx.AsyncClient | None = None,
        timeout_seconds: float = 5.0,
        long_timeout_seconds: float = 120.0,
        acquire_timeout_seconds: float = 1.0,
        max_connections: int = 20,
        batch_lanes: int = 2,
    ) -> None:
        super().__init__(batch_lanes=batch_lanes)
        self._base = _base_url(url) + rest_path.rstrip("/") + "/rpc/"
        _refuse_public_key(key)
        self._headers = {
            "apikey": key,
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        self._database_url = database_url
        self._owns_client = client is None
        self._client = client
        self._timeout = httpx.Timeout(timeout_seconds, read=timeout_seconds)
        self._long_timeout = httpx.Timeout(timeout_seconds, read=long_timeout_seconds)
        # Settles have connections of their own: these are as many as the other calls may have.
        self._ordinary = asyncio.Semaphore(max(1, max_connections - max(2, max_connections // 4)))
        self._max_connections = max_connections
        self._acquire_timeout = acquire_timeout_seconds

    @property
    def books_name(self) -> str:
        """The address of the project; its URL has no secret."""
        return self._base

    def __repr__(self) -> str:
        return f"HttpxSupabaseStore(host={httpx.URL(self._base).host!r})"

    async def setup(self, database_url: str | None = None) -> SetupResult:
        """Migrate the database, and wait until PostgREST has seen the functions.

        PostgREST cannot create tables, so the database's own URL is needed, here or in the constructor
        (Supabase: Settings, Database).
        """
        url = database_url or self._database_url
        if url is None:
            raise ConfigError(
                "Tables cannot be made through PostgREST: give the database's own URL, "
                "`await store.setup('postgresql://...')`, or run `ducto migrate`."
            )
        result = await migrate.migrate(url)
        if result.success:
            await migrate.reload_postgrest(url)
            await self._wait_for_functions()
        return result

    async def _wait_for_functions(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _RELOAD_SECONDS
        while True:
            try:
                return await self.ping()
            except StoreError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def aclose(self) -> None:
        await self._drain(timeout_seconds=_DRAIN_SECONDS)
        if self._client is not None and self._owns_client:
            client, self._client = self._client, None
            await client.aclose()

    # The transport

    async def _call(
        self, function: str, arguments: Mapping[str, Any], *, settle: bool = False, long: bool = False
    ) -> str | bytes:
        body = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), default=_instant).encode()
        return await repeated(lambda: self._placed(function, body, settle=settle, long=long), policy=_REPEATS)

    async def _placed(self, function: str, body: bytes, *, settle: bool, long: bool) -> bytes:
        """One attempt, in one of the places for such calls. Settles need none: theirs are what the others leave."""
        if settle:
            return await self._once(function, body, long=long)
        try:
            async with asyncio.timeout(self._acquire_timeout):
                await self._ordinary.acquire()
        except TimeoutError:
            raise StoreError(
                "All connections to PostgREST are in use; try again, or raise max_connections.", retryable=True
            ) from None
        try:
            return await self._once(function, body, long=long)
        finally:
            self._ordinary.release()

    async def _once(self, function: str, body: bytes, *, long: bool) -> bytes:
        if self._client is None:
            limits = httpx.Limits(
                max_connections=self._max_connections, max_keepalive_connections=self._max_connections
            )
            self._client = httpx.AsyncClient(limits=limits)
        timeout = self._long_timeout if long else self._timeout
        try:
            response = await self._client.post(
                self._base + function, content=body, headers=self._headers, timeout=timeout
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            # Nothing was sent. The cause is not chained: it holds the request, and so the key.
            raise StoreError(f"PostgREST cannot be reached ({type(error).__name__}).", retryable=True) from None
        except httpx.HTTPError as error:
            raise OutcomeUnknownError(f"PostgREST did not answer ({type(error).__name__}).") from None
        if response.status_code == 200:
            return response.content
        raise _error_of(response)


def _instant(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no argument of a SQL function.")


def _base_url(url: str) -> str:
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, AttributeError, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("url must be the project's address, for example https://PROJECT.supabase.co.")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError("url must be an address alone; the key goes into key=, not into the URL.")
    return str(parsed).rstrip("/")


def _refuse_public_key(key: object) -> None:
    """Plain words at once for a key that every call would be refused with. The key is only looked at, not verified."""
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("key must be the service_role key, as one line of text.")
    role = "anon" if key.startswith("sb_publishable_") else _role_of(key)
    if role in _PUBLIC_ROLES:
        raise ConfigError(
            f"This is the {role} key, which may not call ducto's functions. Give the service_role key, and keep it "
            "on the server."
        )


def _role_of(key: str) -> str | None:
    """The role that a JWT claims; `None` for a key of another form."""
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return None
    role = claims.get("role") if isinstance(claims, dict) else None
    return role if isinstance(role, str) else None


def _error_of(response: httpx.Response) -> StoreError:
    """What an answer other than 200 means: which calls were not run, which perhaps were, which never will be."""
    status = response.status_code
    try:
        body = response.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    code, message = str(body.get("code") or ""), str(body.get("message") or "")[:200]
    retry_after = _retry_after_seconds(response.headers.get("Retry-After"))
    if code in ("PGRST202", "PGRST203", "PGRST205"):
        # Also what PostgREST says until it has seen a migration, so it may pass.
        return StoreError(
            f"PostgREST does not know the function ({code}). {MIGRATE_HINT} If that was done, PostgREST has not seen "
            "it yet: NOTIFY pgrst, 'reload schema'.",
            retryable=True,
        )
    if code == "PGRST003":
        return StoreError(
            "PostgREST had no free connection to the database.", retryable=True, retry_after_seconds=retry_after
        )
    if len(code) == 5 and not code.startswith("PGR") and code != "42501":
        return error_of_sqlstate(code, message)
    if status in (401, 403) or code == "42501":
        return StoreError(
            f"PostgREST refused the key ({status} {code}): it must be the service_role key of this project, not "
            "expired, and `ducto migrate` must have run since that role exists.",
            retryable=False,
        )
    if status == 429:
        return StoreError("PostgREST asks for fewer calls (429).", retryable=True, retry_after_seconds=retry_after)
    if status == 400 and body.get("code") == "":
        # Without an SQLSTATE: the connection to the database broke under the call, which may have been carried out.
        return OutcomeUnknownError("The database went away under PostgREST's call (400).")
    if status >= 500:
        return OutcomeUnknownError(f"PostgREST failed ({status} {code}).", retry_after_seconds=retry_after)
    return StoreError(f"PostgREST refused the call ({status} {code} {message}).", retryable=False)


def _retry_after_seconds(value: str | None) -> float | None:
    """Seconds, or a date, as RFC 9110 section 10.2.3 has it; `None` for anything else."""
    if value is None:
        return None
    if value.strip().isdecimal() and len(value) < 10:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
