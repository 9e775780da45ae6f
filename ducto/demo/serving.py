"""`ducto gateway`: the demo's gateway, kept running."""

from __future__ import annotations

import asyncio
import signal

from rich.console import Console

from ducto.demo.environment import gateway_environment
from ducto.demo.scenario import OPENAI_MODEL

__all__ = ["serve_until_stopped"]


async def serve_until_stopped(console: Console, *, store_url: str | None, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, having said how to call it."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopped.set)
    async with gateway_environment(store_url=store_url, host=host, port=port) as environment:
        console.print(f"Gateway at [bold]{environment.url}[/bold]. Books in {environment.store!r}.", highlight=False)
        console.print("Ctrl-C stops it. Its users and their keys:")
        for user, key in environment.key_of.items():
            standing = await environment.store.get_available(user)
            console.print(f"  {user}: {key} ({standing.available:,} credits)")
        console.print("\nTry it:", highlight=False)
        console.print(
            f"  curl -i {environment.url}/v1/chat/completions -H 'Authorization: Bearer {environment.key_of['alice']}' "
            f"-H 'Content-Type: application/json' "
            f"""-d '{{"model": "{OPENAI_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        await stopped.wait()
