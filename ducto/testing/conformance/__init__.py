"""The conformance kit: what every store must do, as checks that the author of a store runs.

Each check is a coroutine over a `Harness`; none needs pytest. Under pytest, parametrise one test over `ALL_CHECKS`
and call `run_check`; elsewhere::

    report = await run_conformance(open_harness)
    print(report.summary())

`FAILURE_MODES` names what has gone wrong in the field elsewhere, and which checks would notice.
"""

from ducto.testing.conformance.failure_modes import COVERED_ELSEWHERE, FAILURE_MODES
from ducto.testing.conformance.registry import (
    ALL_CHECKS,
    Check,
    CheckOutcome,
    ConformanceReport,
    run_check,
    run_conformance,
)

__all__ = [
    "ALL_CHECKS",
    "COVERED_ELSEWHERE",
    "FAILURE_MODES",
    "Check",
    "CheckOutcome",
    "ConformanceReport",
    "run_check",
    "run_conformance",
]
