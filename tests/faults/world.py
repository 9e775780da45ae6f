"""All processes of a run: real servers, gateways, workers and clients, each of which can be killed and come back."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg  # type: ignore[import-untyped]

from ducto import CreditManager
from ducto.stores.postgres import PostgresStore
from ducto.testing.servers import Database, PostgresServer, PostgrestServer
from ducto.testing.servers.databases import create_supabase_roles
from ducto.testing.servers.postgres import postgres_binaries
from ducto.testing.servers.processes import ChildProcess, free_port
from ducto.testing.servers.redis import RedisServer
from tests.faults.books import CREDITS, GRACE_SECONDS, PRICING, TEAMS, TTL_SECONDS, USERS, Part, StoreKind
from tests.faults.network import BackgroundLoop, Link
from tests.faults.plants import Plant
from tests.faults.python_process import START_SECONDS, PythonProcess
from tests.faults.schedule import GATEWAYS, LINKS, WORKERS

__all__ = ["SETTLE_SECONDS", "Setting", "World"]

_DATABASE = "faults"
#: Past its time to live and grace a hold is ended by the managers' maintenance, which runs every 3 seconds.
SETTLE_SECONDS = TTL_SECONDS + GRACE_SECONDS + 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run is made of."""

    seed: int
    seconds: float
    #: With fewer calls it goes on, for at most `LONGEST_FACTOR` times as long: machines differ.
    least_acknowledged: int = 0
    http_clients: int = 16
    #: In all workers together.
    library_clients: int = 48
    plant: Plant | None = None
    journal: bool = True
    #: How long after the run what is owed may still be charged, and what is held may end.
    settle_seconds: float = SETTLE_SECONDS


class World:
    """Everything that runs. Started on entering, with funded users; ended on leaving."""

    def __init__(self, setting: Setting, folder: Path, background: BackgroundLoop) -> None:
        self.setting = setting
        self.folder = folder
        self._background = background
        self.links: dict[str, Link] = {}
        self.processes: dict[str, PythonProcess] = {}
        self.postgres = PostgresServer(postgres_binaries("new"), durable=True)
        self.redis = RedisServer()
        #: What ended by itself, with the end of its log.
        self.died: list[str] = []
        self._postgrest: PostgrestServer | None = None
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The database, past the proxies."""
        return self.postgres.database_url(_DATABASE)

    @property
    def journal(self) -> Path:
        """The folder of the journals, which the processes share, as on one machine they should."""
        return self.folder / "journal"

    @property
    def postgrest(self) -> PostgrestServer:
        assert self._postgrest is not None
        return self._postgrest

    def __enter__(self) -> Self:
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    # Faults

    def kill(self, target: str) -> None:
        """SIGKILL to a server, gateway or worker with all that it started, and a new start."""
        self.look_for_dead(target)
        self._child(target).kill_family()
        self._start_again(target)

    def pause(self, target: str) -> None:
        self._child(target).send_to_family(signal.SIGSTOP)

    def resume(self, target: str) -> None:
        self._child(target).send_to_family(signal.SIGCONT)

    def look_for_dead(self, *targets: str) -> None:
        """Note which of `targets`, by default of all, are not there any more, though nobody killed them."""
        for target in targets or (*LINKS, *self.processes):
            child = self._child(target)
            if not child.running:
                self.died.append(f"{target}: {child.log_tail()}")

    # The end

    def stop_clients(self) -> None:
        """Let the last calls end. Whatever still runs then is killed."""
        calling = [self.processes[name] for name in ("http", *WORKERS)]
        for process in calling:
            process.child.send(signal.SIGTERM)
        for process in calling:
            process.stop()
        del self.processes["http"]

    def restart_gateways(self) -> None:
        """Kill the gateways, and start them and the workers again, without clients, so that journals are replayed."""
        for name in GATEWAYS:
            self.processes[name].child.kill_family()
            self.processes[name].start()
        for name in WORKERS:
            process = self.processes[name]
            process.part = replace(process.part, clients=0)
            process.start()

    # Starting

    def _start(self) -> None:
        (self.folder / "lists").mkdir()
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        team_ids = asyncio.run(self._make_books())
        self._open_link("postgres", self.postgres.port)
        # PostgREST, too, may lose what the database says.
        server = PostgresServer(None, f"postgresql://postgres@127.0.0.1:{self.links['postgres'].port}/postgres")
        self._postgrest = PostgrestServer(Database(server, _DATABASE, self.url, self.url))
        self._stack.callback(self._postgrest.stop)
        self._postgrest.start()
        self._open_link("postgrest", self._postgrest.port)
        self._stack.callback(self.redis.stop)
        self.redis.start()
        self._open_link("redis", self.redis.port)
        self._start_processes(team_ids)

    def _start_processes(self, team_ids: tuple[str, ...]) -> None:
        provider = self._add("provider_process", "provider", port=free_port())
        provider.wait_until_listening()
        for name in GATEWAYS:
            self._add("gateway_process", name, port=free_port(), provider_url=_url(provider.part.port))
        for name in GATEWAYS:
            self.processes[name].wait_until_listening()
        for name, clients in _shared_out(self.setting.library_clients).items():
            self._add("worker_process", name, clients=clients, team_ids=team_ids)
        ports = tuple(self.processes[name].part.port for name in GATEWAYS)
        self._add("http_process", "http", clients=self.setting.http_clients, gateway_ports=ports, team_ids=team_ids)
        self._wait_until_calling()

    def _add(
        self,
        module: str,
        name: str,
        *,
        port: int = 0,
        provider_url: str = "",
        clients: int = 0,
        gateway_ports: tuple[int, ...] = (),
        team_ids: tuple[str, ...] = (),
    ) -> PythonProcess:
        link = {link: each.port for link, each in self.links.items()}
        has_books = name in GATEWAYS or name in WORKERS
        part = Part(
            name=name,
            seed=self.setting.seed,
            folder=str(self.folder),
            port=port,
            store=_store_of(name),
            postgres_url=f"postgresql://postgres@127.0.0.1:{link['postgres']}/{_DATABASE}",
            postgrest_url=_url(link["postgrest"]),
            postgrest_key=self.postgrest.key(),
            redis_url=f"redis://127.0.0.1:{link['redis']}/0",
            journal=str(self.journal) if has_books and self.setting.journal else None,
            plant=self.setting.plant if has_books else None,
            provider_url=provider_url,
            clients=clients,
            gateway_ports=gateway_ports,
            team_ids=team_ids,
        )
        process = self.processes[name] = PythonProcess(module, part)
        self._stack.callback(process.stop, timeout_seconds=2.0)
        process.start()
        return process

    def _wait_until_calling(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for name in ("http", *WORKERS):
            lists = self.processes[name].part.lists
            while not any(path.stat().st_size for path in lists.glob(f"{name}-*.list")):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not begin: {self.processes[name].child.log_tail()}")
                time.sleep(0.05)

    async def _make_books(self) -> tuple[str, ...]:
        """An empty database with prices, users and teams; the ids of the teams."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await connection.close()
        await create_supabase_roles(self.postgres)
        async with PostgresStore(self.url) as store, CreditManager(store) as manager:
            made = await manager.setup()
            assert made.success, made.errors
            await manager.publish_pricing(PRICING)
            for user_id in USERS:
                await manager.add_credits(user_id, CREDITS, "purchase", idempotency_key="start")
            team_ids = []
            for name in TEAMS:
                team_id = (await manager.create_team(name, CREDITS, idempotency_key=name)).team_id
                assert team_id is not None
                team_ids.append(team_id)
                for user_id in USERS:
                    await manager.add_team_member(team_id, user_id)
            return tuple(team_ids)

    def _open_link(self, name: str, port: int) -> None:
        link = self.links[name] = Link(port)
        self._background.run(link.open())
        self._stack.callback(lambda: self._background.run(link.close()))

    def _child(self, target: str) -> ChildProcess:
        match target:
            case "postgres":
                return self.postgres.process
            case "postgrest":
                return self.postgrest.process
            case "redis":
                return self.redis.process
            case _:
                return self.processes[target].child

    def _start_again(self, target: str) -> None:
        match target:
            case "postgres":
                self.postgres.start()
            case "postgrest":
                self.postgrest.start(wait=False)
            case "redis":
                self.redis.start()
            case _:
                self.processes[target].start()


def _shared_out(clients: int) -> dict[str, int]:
    """How many library clients each worker has. Through PostgREST a call is dearest, so a twelfth of them is enough."""
    few = max(1, clients // 12)
    half = (clients - few) // 2
    return {"worker-postgres": half, "worker-postgrest": few, "worker-redis": clients - few - half}


def _store_of(name: str) -> StoreKind:
    kinds: tuple[StoreKind, ...] = ("postgres", "postgrest", "redis")
    return next((kind for kind in kinds if name.endswith(f"-{kind}")), "postgres")


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
