"""Which server of a Redis Cluster has a key, and the pipelines to it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ducto.stores.redis.faults import RedisUnavailable
from ducto.stores.redis.pipelines import RedisPipelines
from ducto.stores.redis.urls import connections_of_node

if TYPE_CHECKING:
    from redis.asyncio import RedisCluster

__all__ = ["ClusterRoutes"]

logger: logging.Logger = logging.getLogger("ducto.stores.redis")


class ClusterRoutes:
    """The servers of a cluster, each with its own pipelines and its own circuit.

    The map of slots is read in the background: first when the first command is handed in, again when a server says
    that a key has moved or does not answer.
    """

    def __init__(
        self,
        cluster: RedisCluster,
        new_pipelines: Callable[[Callable[[], Any], Callable[[], None]], RedisPipelines],
        *,
        connect_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._new_pipelines = new_pipelines
        self._connect_seconds = connect_seconds
        self._retry_seconds = retry_seconds
        self._servers: dict[str, RedisPipelines] = {}
        self._mapped = False
        self._mapping: asyncio.Task[None] | None = None
        #: A caller has waited for the map in vain: the next ones do not wait.
        self._overdue = False

    @property
    def available(self) -> bool:
        return not self._overdue and all(server.available for server in self._servers.values())

    async def server_for(self, key: str | bytes, deadline: float) -> RedisPipelines:
        """The pipelines to the server that has `key`. Raises `RedisUnavailable` where that is not known in time."""
        await self._wait_for_map(deadline)
        node = self._node_for(key)
        server = self._servers.get(node.name)
        if server is None:
            server = self._servers[node.name] = self._new_pipelines(connections_of_node(node), self.refresh)
        return server

    async def connection_for(self, key: str) -> Any:
        """A new connection, not connected yet, to the server that has `key`."""
        await self._wait_for_map(asyncio.get_running_loop().time() + self._connect_seconds)
        return connections_of_node(self._node_for(key))()

    def refresh(self) -> None:
        """Read the map of slots again, in the background; nothing happens where that is already under way."""
        if self._mapping is None:
            loop = asyncio.get_running_loop()
            self._mapping = loop.create_task(self._read_map(), context=contextvars.Context())

    async def aclose(self) -> None:
        if self._mapping is not None:
            self._mapping.cancel()
            await asyncio.gather(self._mapping, return_exceptions=True)
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    def _node_for(self, key: str | bytes) -> Any:
        try:
            return self._cluster.get_node_from_key(key)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the driver raises several for a slot that nobody serves
            self.refresh()
            raise RedisUnavailable(f"No server of the cluster has the key ({type(error).__name__}).") from None

    async def _wait_for_map(self, deadline: float) -> None:
        if self._mapped:
            return
        self.refresh()
        assert self._mapping is not None
        if not self._overdue:
            loop = asyncio.get_running_loop()
            await asyncio.wait([self._mapping], timeout=max(0.0, deadline - loop.time()))
        if not self._mapped:
            self._overdue = True
            raise RedisUnavailable("The map of the Redis Cluster is not known yet.")

    async def _read_map(self) -> None:
        """Until it could be read; a server that is in it no more is let go."""
        while True:
            try:
                async with asyncio.timeout(self._connect_seconds):
                    if self._mapped:
                        await self._cluster.nodes_manager.initialize()
                    else:
                        await self._cluster.initialize()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old map is all there is
                logger.debug("The map of the Redis Cluster could not be read (%s).", type(error).__name__)
                await asyncio.sleep(self._retry_seconds)
                continue
            break
        self._mapped, self._overdue = True, False
        self._mapping = None
        names = {node.name for node in self._cluster.get_nodes()}
        gone = [self._servers.pop(name) for name in list(self._servers) if name not in names]
        await asyncio.gather(*(server.aclose() for server in gone))
