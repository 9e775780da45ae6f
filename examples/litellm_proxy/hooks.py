"""What config.yaml names: the metering hook, and the keys of the callers."""

from __future__ import annotations

import os

from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from ducto import CreditManager
from ducto.middleware.litellm import DuctoHook
from ducto.stores.opening import open_store


class Metering(DuctoHook):
    """A subclass is metered as its base is; here is the place for hooks of your own."""


def make_manager() -> CreditManager:
    """Called at the first request, on the event loop that the proxy serves on."""
    manager = CreditManager(open_store(os.environ["DUCTO_STORE"]))
    manager.on("credits.deducted", lambda event: print(f"{event.user_id} paid {event.data['actual']}"))
    return manager


metering = Metering(make_manager, identity="user", price="pricing_config", cache_hits="free")

KEYS = {"sk-of-alice": "alice", "sk-of-bob": "bob"}


async def authenticate(request: object, api_key: str) -> UserAPIKeyAuth:
    user = KEYS.get(api_key)
    if user is None:
        raise ProxyException("unknown key", type="auth_error", param=None, code=401)
    return UserAPIKeyAuth(api_key=f"key-of-{user}", user_id=user)
