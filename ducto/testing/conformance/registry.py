"""All checks by name, and the runner for those who do not use pytest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from ducto.errors import NotSupportedError
from ducto.testing.conformance import (
    allowance,
    analytics,
    arguments,
    balances,
    caps,
    concurrency,
    events,
    grant_records,
    grants,
    idempotency,
    keys,
    lifetimes,
    listings,
    overage,
    plans,
    precedence,
    pricing,
    refunds,
    reservations,
    security,
    settlement,
    teams,
    transfers,
    upkeep,
)
from ducto.testing.harness import Harness, HarnessFactory

__all__ = ["ALL_CHECKS", "Check", "CheckOutcome", "ConformanceReport", "run_check", "run_conformance"]

#: A check passes by returning. It raises `AssertionError` where the store does not do what it has to, and
#: `NotSupportedError` where the store (or the harness) lacks an optional method.
Check = Callable[[Harness], Awaitable[None]]

_MODULES: tuple[ModuleType, ...] = (
    allowance,
    analytics,
    arguments,
    balances,
    caps,
    concurrency,
    events,
    grant_records,
    grants,
    idempotency,
    keys,
    lifetimes,
    listings,
    overage,
    plans,
    precedence,
    pricing,
    refunds,
    reservations,
    security,
    settlement,
    teams,
    transfers,
    upkeep,
)


def _collect() -> dict[str, Check]:
    found: dict[str, Check] = {}
    for module in _MODULES:
        for name, value in vars(module).items():
            if name.startswith("check_") and getattr(value, "__module__", None) == module.__name__:
                if name in found:
                    raise RuntimeError(f"Two checks are named {name}; rename the one in {module.__name__}.")
                found[name] = value
    return dict(sorted(found.items()))


#: Every check by its name, sorted.
ALL_CHECKS: Mapping[str, Check] = _collect()


@dataclass(frozen=True)
class CheckOutcome:
    """How one check ended; `message` tells what was expected and found, or which method is not supported."""

    name: str
    status: Literal["passed", "failed", "not supported"]
    message: str = ""


@dataclass(frozen=True)
class ConformanceReport:
    """The outcome of every check. `ok` is true when none failed and, in a strict run, all were supported."""

    outcomes: tuple[CheckOutcome, ...]
    strict: bool = False

    @property
    def failures(self) -> tuple[CheckOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    @property
    def unsupported(self) -> tuple[CheckOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "not supported")

    @property
    def ok(self) -> bool:
        return bool(self.outcomes) and not self.failures and not (self.strict and self.unsupported)

    def summary(self) -> str:
        """One line per check that did not pass, and the counts."""
        bad = (*self.failures, *self.unsupported)
        passed = len(self.outcomes) - len(bad)
        lines = [f"{outcome.status}: {outcome.name}: {outcome.message}" for outcome in bad]
        lines.append(
            f"{passed} passed, {len(self.failures)} failed, {len(self.unsupported)} not supported"
            f" of {len(self.outcomes)} checks"
        )
        return "\n".join(lines)


async def run_check(check: Check, harness: Harness) -> None:
    """Run one check, then audit the books. Raises `AssertionError`, or `NotSupportedError`.

    A store without `verify` is judged by the check alone.
    """
    await check(harness)
    try:
        audit = await harness.store.verify()
    except NotSupportedError:
        return
    if not audit.ok:
        faults = "\n".join(repr(fault) for fault in audit.faults)
        raise AssertionError(f"verify() after the check: expected sound books, found\n{faults}")


async def run_conformance(
    harness_factory: HarnessFactory, *, checks: Mapping[str, Check] | None = None, strict: bool = False
) -> ConformanceReport:
    """Run the checks (all of them by default), each in its own harness, and report; never raises for a failing check.

    `strict` counts a method that the store does not support as a failure of the run, not as a lack that is told.
    """
    outcomes: list[CheckOutcome] = []
    for name, check in (ALL_CHECKS if checks is None else checks).items():
        try:
            async with harness_factory() as harness:
                await run_check(check, harness)
        except NotSupportedError as lack:
            outcomes.append(CheckOutcome(name, "not supported", str(lack)))
        except AssertionError as failure:
            outcomes.append(CheckOutcome(name, "failed", str(failure)))
        except Exception as crash:  # noqa: BLE001 - whatever a store raises belongs in its report
            outcomes.append(CheckOutcome(name, "failed", f"{type(crash).__name__}: {crash}"))
        else:
            outcomes.append(CheckOutcome(name, "passed"))
    return ConformanceReport(tuple(outcomes), strict)
