"""The kit itself: it fails where a store is wrong, says why, and leaves no known failure mode out."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest

from ducto.errors import NotSupportedError
from ducto.stores.base import CreditStore
from ducto.stores.memory import MemoryStore
from ducto.testing.clock import ManualClock
from ducto.testing.conformance import (
    ALL_CHECKS,
    COVERED_ELSEWHERE,
    FAILURE_MODES,
    run_conformance,
)
from ducto.testing.harness import Harness, HarnessFactory, ManualClockHarness
from tests.conformance.mutants import MUTANTS, Mutant


def _opener(store_type: type[MemoryStore]) -> HarnessFactory:
    @asynccontextmanager
    async def open_store() -> AsyncIterator[Harness]:
        clock = ManualClock()
        async with store_type(clock=clock) as store:
            await store.setup()
            yield ManualClockHarness(store, clock)

    return open_store


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.store.__name__)
async def test_wrong_store_is_caught(mutant: Mutant) -> None:
    """Each named check fails, with a message that tells what was expected and found."""
    checks = {name: ALL_CHECKS[name] for name in mutant.caught_by}
    report = await run_conformance(_opener(mutant.store), checks=checks)
    assert [outcome.name for outcome in report.failures] == list(checks)
    for outcome in report.failures:
        assert re.search(r"expected .*found ", outcome.message, re.DOTALL), outcome.message
    assert not report.ok


async def test_right_store_passes_what_catches_the_wrong_ones() -> None:
    names = {name for mutant in MUTANTS for name in mutant.caught_by}
    report = await run_conformance(_opener(MemoryStore), checks={name: ALL_CHECKS[name] for name in names}, strict=True)
    assert report.ok, report.summary()


def test_every_failure_mode_has_a_check() -> None:
    assert len(FAILURE_MODES) + len(COVERED_ELSEWHERE) == 23
    for mode, names in FAILURE_MODES.items():
        assert names, mode
        assert set(names) <= set(ALL_CHECKS), mode
    assert not set(FAILURE_MODES) & set(COVERED_ELSEWHERE)


def test_checks_are_sorted_by_name() -> None:
    assert list(ALL_CHECKS) == sorted(ALL_CHECKS)
    assert len(ALL_CHECKS) >= 250


def test_kit_needs_no_pytest() -> None:
    """Authors of stores run it with what they like."""
    code = "import sys, ducto.testing.conformance; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


class _TickingClock(ManualClock):
    """Time goes on by itself between two calls, as that of a server does."""

    def __call__(self) -> Any:
        self.advance(0.002)
        return super().__call__()


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "in reverse order"])
async def test_checks_share_one_store_whose_time_goes_on(backwards: bool) -> None:
    """No check depends on an empty store, on the order, on the date, or on time standing still."""
    clock = _TickingClock(datetime(2026, 2, 28, 23, 59, 50, tzinfo=UTC))
    store = MemoryStore(clock=clock)

    @asynccontextmanager
    async def shared() -> AsyncIterator[Harness]:
        yield ManualClockHarness(store, clock)

    names = sorted(ALL_CHECKS, reverse=backwards)
    report = await run_conformance(shared, checks={name: ALL_CHECKS[name] for name in names}, strict=True)
    assert report.ok, report.summary()


class _WithoutTransfers(MemoryStore):
    async def transfer_credits(self, *args: Any, **options: Any) -> NoReturn:
        raise NotSupportedError("_WithoutTransfers does not implement transfer_credits; use a store that does.")


async def test_missing_method_is_told_and_not_passed() -> None:
    name = "check_transfer_keeps_the_floor_and_the_holds"
    for strict in (False, True):
        report = await run_conformance(_opener(_WithoutTransfers), checks={name: ALL_CHECKS[name]}, strict=strict)
        assert [outcome.status for outcome in report.outcomes] == ["not supported"]
        assert "transfer_credits" in report.summary()
        assert report.ok is not strict


class _Minimal(MemoryStore):
    """A store that has the abstract methods alone."""


for _name, _method in inspect.getmembers(CreditStore, inspect.iscoroutinefunction):
    if not _name.startswith("_") and _name != "aclose" and _name not in CreditStore.__abstractmethods__:
        setattr(_Minimal, _name, _method)


async def test_minimal_store_has_lacks_and_no_failures() -> None:
    """Checks of what it does not implement say so; none of them is taken for passed or for failed."""
    report = await run_conformance(_opener(_Minimal))
    assert not report.failures, report.summary()
    assert report.ok
    passed = {outcome.name for outcome in report.outcomes if outcome.status == "passed"}
    assert "check_report_windows_are_half_open" not in passed
    assert "check_add_refuses_unknown_type_and_past_expiry" not in passed
    assert "check_publish_may_name_the_version_it_replaces" in passed


class _Crashing(MemoryStore):
    async def ping(self) -> None:
        raise RuntimeError("the server is on fire")


async def test_crash_of_a_store_is_a_failure_in_the_report() -> None:
    report = await run_conformance(_opener(_Crashing), checks={"check_ping_answers": ALL_CHECKS["check_ping_answers"]})
    assert [outcome.message for outcome in report.failures] == ["RuntimeError: the server is on fire"]
    assert "0 passed, 1 failed" in report.summary()


class _CookedBooks(MemoryStore):
    async def verify(self) -> Any:
        audit = await super().verify()
        return audit.model_copy(update={"ok": False})


async def test_unsound_books_fail_a_check_that_passed() -> None:
    name = "check_ping_answers"
    report = await run_conformance(_opener(_CookedBooks), checks={name: ALL_CHECKS[name]})
    assert "verify() after the check" in report.failures[0].message


async def test_nothing_run_is_not_a_pass() -> None:
    assert not (await run_conformance(_opener(MemoryStore), checks={})).ok
