"""Starting and stopping the books with an app: the `lifespan` of Starlette and FastAPI apps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from ducto.errors import ConfigError
from ducto.manager import CreditManager

__all__ = ["credit_lifespan"]

#: What Starlette and FastAPI take as `lifespan`. The state that it yields is the app's matter.
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def credit_lifespan(manager: CreditManager, *, inside: Lifespan | None = None) -> Lifespan:
    """A `lifespan` that opens the manager's store and sets it up, and at the end closes first the manager, then it.

    `inside` is the app's own lifespan, which runs between the two and may use the manager. When the manager closes
    it waits for charges that are under way. The store and the manager belong to the app from then on: an app that is
    started twice needs new ones. An app that shares them with others enters them where all of them are started.
    Starting raises `ConfigError` if the store cannot be set up, and `StoreError` if it cannot be reached.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(manager.store)
            await stack.enter_async_context(manager)
            set_up = await manager.setup()
            if not set_up.success:
                raise ConfigError(f"The store could not be set up: {'; '.join(set_up.errors)}")
            yield await stack.enter_async_context(inside(app)) if inside is not None else None

    return lifespan
