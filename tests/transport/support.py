"""Clients of both libraries and of the SDKs, over a metered transport; for whichever SDKs are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import anthropic
import openai

from ducto.middleware.transport import TransportOptions, metered_transport
from tests.middleware.support import MESSAGES, Books

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 50}

LIBRARIES = [name for name in ("httpx", "httpx2") if find_spec(name) is not None]
#: The libraries whose clients the installed SDKs accept.
OPENAI_LIBRARIES = LIBRARIES if int(version("openai").partition(".")[0]) >= 2 else ["httpx"]
ANTHROPIC_LIBRARY = "httpx2" if int(version("anthropic").partition(".")[0]) >= 1 else "httpx"


def client_of(library: Any, books: Books, *, mode: Any = "async", **options: Any) -> Any:
    """A client whose calls alice pays, unless `user_id` says otherwise."""
    transport = metered_transport(
        books.manager, library=library, mode=mode, **{"user_id": "alice", "options": TransportOptions(), **options}
    )
    module = import_module(library)
    return (module.AsyncClient if mode == "async" else module.Client)(transport=transport)


def of_openai(url: str, http_client: Any, *, mode: Any = "async", **options: Any) -> Any:
    made: Callable[..., Any] = openai.AsyncOpenAI if mode == "async" else openai.OpenAI
    return made(base_url=url + "/v1", http_client=http_client, **{"api_key": "key", "max_retries": 0, **options})


def of_anthropic(url: str, http_client: Any, *, mode: Any = "async", **options: Any) -> Any:
    made: Callable[..., Any] = anthropic.AsyncAnthropic if mode == "async" else anthropic.Anthropic
    return made(base_url=url, http_client=http_client, **{"api_key": "key", "max_retries": 0, **options})


class Tally:
    """Counts what happened to holds."""

    def __init__(self, books: Books) -> None:
        self._names: list[str] = []
        books.manager.on("*", lambda event: self._names.append(event.name))

    async def counts(self, books: Books) -> tuple[int, int, int]:
        """`(reserved, released, deducted)`."""
        await books.manager.events.drain(seconds=1)
        told = [self._names.count(f"credits.{name}") for name in ("reserved", "released", "deducted")]
        return told[0], told[1], told[2]
