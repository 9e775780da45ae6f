"""Looks at what every test has printed and logged: secrets that tests use must not be in it.

`tests/conftest.py` imports the hook. It searches what pytest has captured anyway, so that it costs nothing; run with
`--log-level=DEBUG` it searches the lines of all libraries at that level.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

__all__ = ["SUITE_CANARIES", "pytest_runtest_makereport"]

#: Secrets of the whole suite: the provider's key behind gateways, the login of PostgREST, and what is called a canary.
SUITE_CANARIES = ("provider-key-canary", "canary-of-", "for-tests-only")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that has passed and whose output has a secret in it."""
    report = yield
    if report.passed:
        told = "\n".join(text for title, text in report.sections if title.startswith("Captured"))
        found = [canary for canary in SUITE_CANARIES if canary in told]
        if found:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} ({report.when}): {', '.join(found)} is in what was printed or logged"
    return report
