"""The timer that gives up on a silent app: which silence counts before and after the first byte."""

from __future__ import annotations

import asyncio

import pytest

from ducto.middleware.watchdog import Watchdog


async def watched(*pauses: float, first_byte: float | None, idle: float | None) -> bool:
    """Whether an app was given up on that answered after the first pause, and wrote after each other one."""
    expired = False

    async def app() -> None:
        nonlocal expired
        watchdog = Watchdog(first_byte_seconds=first_byte, idle_seconds=idle)
        try:
            for number, pause in enumerate(pauses):
                await asyncio.sleep(pause)
                if number == 0:
                    watchdog.begin()
                else:
                    watchdog.note()
        except asyncio.CancelledError:
            assert watchdog.accept_cancellation()
        finally:
            watchdog.stop()
            expired = watchdog.expired

    await asyncio.create_task(app())
    return expired


@pytest.mark.parametrize(
    ("pauses", "first_byte", "idle", "expired"),
    [
        ((0.5,), 0.1, None, True),
        ((0.5,), 0.1, 5.0, True),
        ((0.4, 0.01), 5.0, 0.2, False),  # Before the first byte the idle time does not count.
        ((0.4, 0.8), 5.0, 0.2, True),
        ((0.01, 0.8), None, 0.2, True),
        ((0.01, 0.5), 0.2, None, False),  # After it the first byte's does not.
        ((0.01, 0.5), 0.2, 5.0, False),
        ((0.01, 0.15, 0.15, 0.15), None, 0.4, False),
        ((0.01, 0.5), None, None, False),
    ],
)
async def test_silence_that_lasts_too_long_ends_the_app(
    pauses: tuple[float, ...], first_byte: float | None, idle: float | None, expired: bool
) -> None:
    assert await watched(*pauses, first_byte=first_byte, idle=idle) is expired


async def test_nothing_is_left_of_a_watch_that_was_stopped() -> None:
    watchdog = Watchdog(first_byte_seconds=0.05, idle_seconds=0.05)
    watchdog.stop()
    watchdog.stop()
    await asyncio.sleep(0.1)
    assert not watchdog.expired
