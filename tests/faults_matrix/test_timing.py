"""What a stranger could learn from how long an answer takes. Times are noisy: they are printed, and bounded widely."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable

from ducto.gateway import GatewayKeys
from ducto.models import DeductionResult
from ducto.stores.memory import MemoryStore

SAMPLES = 10_000


async def median_seconds(one: Callable[[], Awaitable[object]], other: Callable[[], Awaitable[object]]) -> list[float]:
    """The medians of two calls that take turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(SAMPLES):
        for call, times in zip((one, other), taken, strict=True):
            begun = time.perf_counter()
            await call()
            times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]


async def test_a_foreign_reservation_takes_as_long_as_one_that_never_was() -> None:
    async with MemoryStore() as store:
        await store.add_credits("alice", 100)
        await store.add_credits("mallory", 100)
        held = await store.reserve_credits("alice", 10, "chat", min_balance=0)
        known = held.reservation_id or ""
        unknown = known[:-1] + "99"

        async def guess(reservation: str) -> DeductionResult:
            return await store.deduct_credits("mallory", reservation, 1)

        answers = [await guess(known), await guess(unknown)]
        assert {one.error for one in answers} == {"reservation_not_found"}
        told = [str(one).replace(asked, "") for one, asked in zip(answers, (known, unknown), strict=True)]
        assert told[0] == told[1]
        foreign, never = await median_seconds(lambda: guess(known), lambda: guess(unknown))
    print(f"foreign reservation {foreign * 1e6:.1f} us, unknown {never * 1e6:.1f} us")
    assert 1 / 2 < foreign / never < 2


async def test_a_key_that_is_nearly_right_takes_as_long_as_one_that_is_not() -> None:
    key = "k" * 64
    keys = GatewayKeys({key: "alice", **{f"{number}-other": "bob" for number in range(100)}})

    def asking(given: str) -> Callable[[], Awaitable[object]]:
        scope = {"headers": [(b"authorization", b"Bearer " + given.encode())]}

        async def ask() -> object:
            return keys(scope)

        return ask

    nearly, wrong = await median_seconds(asking(key[:-1] + "x"), asking("x" * 64))
    print(f"nearly right {nearly * 1e6:.1f} us, wrong {wrong * 1e6:.1f} us")
    assert 1 / 2 < nearly / wrong < 2
    assert await asking(key)() is not None
