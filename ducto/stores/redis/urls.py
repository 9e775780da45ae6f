"""From a URL to a client of redis-py, and from a client to the connections that a link makes for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedSSLConnection
from redis.backoff import NoBackoff

from ducto.errors import ConfigError

__all__ = ["client_of_url", "connections_of_client", "connections_of_node"]

_FORMS = (
    "redis://, rediss:// (TLS), unix://, redis+sentinel://host:port,host:port/service/database, "
    "redis+cluster://host:port,host:port; and rediss+sentinel://, rediss+cluster://"
)


def client_of_url(url: str, *, connect_seconds: float) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A client that has not connected yet. Query options are those of redis-py's own URLs.

    `redis+sentinel://` takes `sentinel_username` and `sentinel_password` besides, for the sentinels themselves; user
    and password before the `@` are those of Redis. Raises `ConfigError`, without the URL, for what is not usable.
    """
    try:
        parts = urlsplit(url)
        match parts.scheme:
            case "redis" | "rediss" | "unix":
                return redis.asyncio.Redis.from_url(url)
            case "redis+sentinel" | "rediss+sentinel":
                return _behind_sentinels(parts, connect_seconds=connect_seconds)
            case "redis+cluster" | "rediss+cluster":
                return _cluster(parts)
    except (ValueError, TypeError, redis.RedisError) as error:
        # Not the cause itself: its text may contain parts of the URL.
        raise ConfigError(f"The URL of Redis cannot be used ({type(error).__name__}). Forms: {_FORMS}.") from None
    raise ConfigError(f"The URL of Redis has an unknown scheme. Forms: {_FORMS}.")


def _options(parts: SplitResult) -> dict[str, Any]:
    """Login and query options, as redis-py reads them."""
    login = parts.netloc.rpartition("@")[0]
    options: dict[str, Any] = dict(parse_url(f"redis://{login}@host?{parts.query}"))
    del options["host"]
    return options


def _hosts(parts: SplitResult, *, default_port: int) -> list[tuple[str, int]]:
    found = []
    for each in parts.netloc.rpartition("@")[2].split(","):
        address = urlsplit(f"//{each}")
        if not address.hostname:
            raise ValueError("a host is missing")
        found.append((address.hostname, address.port or default_port))
    return found


def _behind_sentinels(parts: SplitResult, *, connect_seconds: float) -> redis.asyncio.Redis:
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigError("The URL of Redis names no service: redis+sentinel://host:port,host:port/service/database.")
    options = _options(parts)
    # A sentinel that is gone must not use up the time in which the next one could be asked.
    asking: dict[str, Any] = {
        "socket_timeout": connect_seconds / 4,
        "socket_connect_timeout": connect_seconds / 4,
        "retry": Retry(NoBackoff(), 0),
    }
    for name in ("username", "password"):
        if f"sentinel_{name}" in options:
            asking[name] = options.pop(f"sentinel_{name}")
    if parts.scheme == "rediss+sentinel":
        options["connection_class"] = SentinelManagedSSLConnection
        asking |= {"ssl": True} | {name: value for name, value in options.items() if name.startswith("ssl_")}
    if database:
        options["db"] = int(unquote(database))
    hosts = _hosts(parts, default_port=26379)
    sentinel = Sentinel(hosts, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
    client: redis.asyncio.Redis = sentinel.master_for(unquote(service))
    return client


def _cluster(parts: SplitResult) -> redis.asyncio.RedisCluster:
    options = _options(parts)
    if parts.path.strip("/"):
        raise ConfigError("A Redis Cluster has one database only: redis+cluster://host:port,host:port, without a path.")
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts, default_port=6379)]
    return redis.asyncio.RedisCluster(
        startup_nodes=nodes, ssl=parts.scheme == "rediss+cluster", require_full_coverage=False, **options
    )


def connections_of_client(client: redis.asyncio.Redis) -> Callable[[], Any]:
    """Makes connections after a client's settings, which belong to whoever calls it and not to the client's pool."""
    pool = client.connection_pool
    return _maker(pool.connection_class, pool.connection_kwargs)


def connections_of_node(node: ClusterNode) -> Callable[[], Any]:
    """As `connections_of_client`, for a node of a cluster."""
    return _maker(node.connection_class, node.connection_kwargs)


def _maker(connection_class: Any, settings: Mapping[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        # The link keeps the time itself, and never sends a command again behind its caller's back. Version 2 of the
        # protocol, so that every server answers in one form and pushes nothing in between.
        ours = {"socket_timeout": None, "retry": Retry(NoBackoff(), 0), "protocol": 2}
        return connection_class(**{**settings, **ours})

    return make
