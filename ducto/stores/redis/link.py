"""`RedisLink`: how ducto talks to Redis, which it needs for nothing and never waits for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ducto.errors import ConfigError
from ducto.stores.redis.faults import LinkCounters, RedisUnavailable, ScriptMissing
from ducto.stores.redis.wire import packed

if TYPE_CHECKING:
    import redis.asyncio

    from ducto.stores.redis.cluster import ClusterRoutes
    from ducto.stores.redis.listener import RedisListener
    from ducto.stores.redis.pipelines import RedisPipelines

__all__ = ["LinkCounters", "RedisLink", "RedisUnavailable"]

_SCRIPTS = Path(__file__).parents[1] / "redis_scripts"


class RedisLink:
    """One Redis (a server, a service behind Sentinels, or a Cluster), asked with a time budget and a circuit breaker.

    `redis` is a URL (`redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/service/database`,
    `redis+cluster://host:port,host:port`) or a client of `redis.asyncio`. Connections are the link's own in either
    case, made after the client's settings; a client that is handed in is only looked at, and stays its owner's to
    close. Nothing connects before the first command, on the loop that runs then, to which the link belongs.

    Each command has `budget_seconds` from being handed in to its answer; then, or when Redis is gone, it raises
    `RedisUnavailable`, which says nothing about whether the command was executed. After such a failure the circuit is
    open: for `open_seconds`, and until Redis has answered a probe in the background, everything raises at once.
    Connecting (TLS, AUTH, finding the master) may take `connect_seconds`, in the background.

    Concurrent commands share pipelines, of which `lanes` may be in flight at once; commands that do not await each
    other have no order among them. `scripts` is the folder that `script` takes its Lua files from.
    Raises `ConfigError` for a URL that cannot be used, and where the extra `redis` is not installed.
    """

    def __init__(
        self,
        redis: str | redis.asyncio.Redis | redis.asyncio.RedisCluster,
        *,
        budget_seconds: float = 0.05,
        open_seconds: float = 1.0,
        connect_seconds: float = 5.0,
        lanes: int = 2,
        scripts: Path = _SCRIPTS,
    ) -> None:
        _require_driver()
        if isinstance(redis, str):
            from ducto.stores.redis.urls import client_of_url

            self._client: Any = client_of_url(redis, connect_seconds=connect_seconds)
        else:
            self._client = redis
        self._owns_client = isinstance(redis, str)
        self._is_cluster = _is_cluster(self._client)
        self._budget = budget_seconds
        self._open_seconds = open_seconds
        self._connect_seconds = connect_seconds
        self._lanes = lanes
        self._folder = scripts
        self._scripts: dict[str, tuple[str, str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: RedisPipelines | None = None
        self._routes: ClusterRoutes | None = None
        self._listeners: dict[str, RedisListener] = {}
        self._closed = False
        self.counters: LinkCounters = LinkCounters()

    def __repr__(self) -> str:
        # Never the URL: it may have a password.
        return f"RedisLink(available={self.available})"

    @property
    def available(self) -> bool:
        """Whether the circuit is closed (of every server, in a cluster). True before the first command."""
        if self._closed:
            return False
        asked = self._server or self._routes
        return asked is None or asked.available

    async def command(self, *parts: str | bytes | int) -> Any:
        """The answer to one command: bytes, int, list or None, as Redis sent it, not decoded.

        In a cluster the second part is taken for the key that says where to ask. Raises `RedisUnavailable`, also
        where Redis answers with an error (out of memory, wrong type, read-only, moved).
        """
        loop = self._running_loop()
        return await self._ask(parts, parts[1] if len(parts) > 1 else "", loop.time() + self._budget)

    async def script(self, name: str, key: str, *arguments: str | bytes | int) -> Any:
        """Run the script `name`.lua on one key. A server that does not have it gets it, within the same budget."""
        deadline = self._running_loop().time() + self._budget
        text, digest = self._script(name)
        try:
            return await self._ask(("EVALSHA", digest, 1, key, *arguments), key, deadline)
        except ScriptMissing:
            return await self._ask(("EVAL", text, 1, key, *arguments), key, deadline)

    def listen(self, channel: str, heard: Callable[[str | None], None]) -> Callable[[], None]:
        """Call `heard` with what is published on `channel`, and with `None` whenever the subscription was made.

        `None` means that anything before may have been missed: it comes at the beginning and after each reconnect. A
        background task keeps the subscription, however long Redis is away. Returns the function that ends it.
        """
        from ducto.stores.redis.listener import RedisListener

        self._running_loop()
        listener = self._listeners.get(channel)
        if listener is None:
            listener = self._listeners[channel] = RedisListener(
                channel, lambda: self._new_connection(channel), connect_seconds=self._connect_seconds
            )
        return listener.add(heard)

    async def aclose(self) -> None:
        """Close the connections, and the client where it was made from a URL. Harmless when repeated.

        What still waits fails, and so does whatever is asked later.
        """
        self._closed = True
        for listener in self._listeners.values():
            await listener.aclose()
        if self._server is not None:
            await self._server.aclose()
        if self._routes is not None:
            await self._routes.aclose()
        if self._owns_client and self._loop is not None:
            await self._client.aclose()
            sentinels = getattr(getattr(self._client, "connection_pool", None), "sentinel_manager", None)
            for sentinel in getattr(sentinels, "sentinels", ()):
                await sentinel.aclose()

    async def _ask(self, parts: tuple[str | bytes | int, ...], key: str | bytes | int, deadline: float) -> Any:
        data = packed(parts)
        if self._closed:
            raise RedisUnavailable("The link to Redis is closed.")
        if self._server is not None:
            return await self._server.submit(data, deadline)
        if self._routes is None:
            self._open()
            return await self._ask(parts, key, deadline)
        server = await self._routes.server_for(key if isinstance(key, bytes) else str(key), deadline)
        return await server.submit(data, deadline)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise ConfigError("This RedisLink belongs to another event loop; make one link for each loop.")
            self._loop = loop
        return loop

    def _open(self) -> None:
        from ducto.stores.redis.cluster import ClusterRoutes
        from ducto.stores.redis.pipelines import RedisPipelines
        from ducto.stores.redis.urls import connections_of_client

        def pipelines(new_connection: Callable[[], Any], lost: Callable[[], None]) -> RedisPipelines:
            return RedisPipelines(
                new_connection,
                self.counters,
                budget_seconds=self._budget,
                open_seconds=self._open_seconds,
                connect_seconds=self._connect_seconds,
                lanes=self._lanes,
                lost=lost,
            )

        if self._is_cluster:
            self._routes = ClusterRoutes(
                self._client, pipelines, connect_seconds=self._connect_seconds, retry_seconds=self._open_seconds
            )
        else:
            self._server = pipelines(connections_of_client(self._client), lambda: None)

    async def _new_connection(self, channel: str) -> Any:
        from ducto.stores.redis.urls import connections_of_client

        if self._server is None and self._routes is None:
            self._open()
        if self._routes is not None:
            return await self._routes.connection_for(channel)
        return connections_of_client(self._client)()

    def _script(self, name: str) -> tuple[str, str]:
        """Text and digest. The digest is SHA-1 because that is how Redis names scripts."""
        found = self._scripts.get(name)
        if found is None:
            text = (self._folder / f"{name}.lua").read_text(encoding="utf-8")
            found = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            self._scripts[name] = found
        return found


def _require_driver() -> None:
    try:
        import redis.asyncio  # noqa: F401
    except ImportError:
        raise ConfigError("Redis needs an extra: pip install 'ducto[redis]'.") from None


def _is_cluster(client: object) -> bool:
    import redis.asyncio

    if isinstance(client, redis.asyncio.RedisCluster):
        return True
    if not isinstance(client, redis.asyncio.Redis):
        raise ConfigError(
            f"RedisLink needs a URL or a client of redis.asyncio (Redis, RedisCluster), not {type(client).__name__}."
        )
    return False
