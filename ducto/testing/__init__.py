"""What our own tests use and ship: the conformance kit for stores, a provider simulator, a clock to move by hand,
the coverage self-test for apps.

Nothing is imported here, so that a test takes only what it names: `ducto.testing.conformance`,
`ducto.testing.simulator`, `ducto.testing.clock`, `ducto.testing.serving`, `ducto.testing.coverage`. `self_test` of the
last is here as well, and loads when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ducto.testing.coverage import self_test

__all__ = ["self_test"]


def __getattr__(name: str) -> Any:
    if name == "self_test":
        from ducto.testing.coverage import self_test

        return self_test
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
