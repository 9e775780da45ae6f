"""Running the self-test on an app, or on the built-in gateway with a store's own prices."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ducto.demo.environment import PRICING, default_store_url
from ducto.doctor.loading import load, provider_in_environment
from ducto.errors import ConfigError
from ducto.gateway import Upstream, build_gateway
from ducto.manager import CreditManager
from ducto.pricing.files import load_pricing_file
from ducto.stores.memory import MemoryStore
from ducto.stores.opening import open_store
from ducto.testing.coverage import SelfTestReport, manager_of, self_test
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator

__all__ = ["AppCheck", "GatewayCheck", "check_app", "check_gateway"]

#: Whom the gateway's canaries are charged to, and what this user is lent for them.
DOCTOR_USER = "ducto-doctor"
LENT_CREDITS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCheck:
    """An app to check: its name and its manager's, and how the canaries authenticate as whom."""

    app: str
    manager: str | None = None
    user: str = "canary"
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayCheck:
    """The gateway over the books that `store_url` names, or over empty ones with the prices of a file."""

    store_url: str | None = None
    pricing_file: Path | None = None
    model: str | None = None


async def check_app(check: AppCheck) -> SelfTestReport:
    """The self-test of an app that finds its providers by environment variables. Raises `ConfigError`."""
    simulator = ProviderSimulator()
    async with serve(simulator.app) as url:
        with provider_in_environment(url):
            app = load(check.app)
            manager = load(check.manager) if check.manager is not None else manager_of(app)
            if not isinstance(manager, CreditManager):
                raise ConfigError(
                    f"No CreditManager is found in {check.app!r}, so nothing is metered there; "
                    "name the one that it uses with --manager module:attribute."
                )
            return await self_test(
                app, manager, user=check.user, headers=check.headers, provider=simulator, model=check.model
            )


async def check_gateway(check: GatewayCheck) -> SelfTestReport:
    """The self-test of the built-in gateway. Raises `ConfigError`, and `StoreError` for a store out of reach."""
    simulator = ProviderSimulator()
    key = secrets.token_hex(16)
    async with _books(check) as manager, serve(simulator.app) as url, _lent_credits(manager):
        upstream = Upstream(url, api_key="ducto-doctor")
        app = build_gateway(manager, openai=upstream, anthropic=upstream, keys={key: DOCTOR_USER})
        headers = {"authorization": f"Bearer {key}"}
        return await self_test(app, manager, user=DOCTOR_USER, headers=headers, provider=simulator, model=check.model)


@asynccontextmanager
async def _books(check: GatewayCheck) -> AsyncIterator[CreditManager]:
    """The manager of the store to check. Books in memory are new, so they get prices: the file's, or the demo's."""
    if check.pricing_file is not None and check.store_url not in (None, "memory"):
        raise ConfigError("--pricing tries a file out on books in memory; leave --store out.")
    in_file = load_pricing_file(check.pricing_file) if check.pricing_file is not None else None
    store = MemoryStore() if in_file is not None else open_store(check.store_url or default_store_url())
    async with store, CreditManager(store, maintain_every_seconds=None) as manager:
        set_up = await manager.setup()
        if not set_up.success:
            raise ConfigError(f"The store could not be set up: {'; '.join(set_up.errors)}")
        if isinstance(store, MemoryStore):
            await manager.publish_pricing(in_file if in_file is not None else PRICING)
        yield manager


@asynccontextmanager
async def _lent_credits(manager: CreditManager) -> AsyncIterator[None]:
    """Credits for the canaries, of which what is left is taken back."""
    await manager.add_credits(DOCTOR_USER, LENT_CREDITS, "grant")
    try:
        yield
    finally:
        left = (await manager.get_available(DOCTOR_USER)).available
        if left > 0:
            await manager.adjust_credits(DOCTOR_USER, left, direction="debit")
