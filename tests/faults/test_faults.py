"""Short runs of the harness: nothing is lost or charged twice, and planted bugs are found.

`make faults` and `make faults-long` run it for a minute and for half an hour, with higher thresholds.
"""

from __future__ import annotations

import os
import secrets
from itertools import count

from tests.faults.plants import Plant
from tests.faults.run import Report, run
from tests.faults.schedule import server_faults
from tests.faults.world import SETTLE_SECONDS, Setting


def short_run(seed: int, *, seconds: float, plant: Plant | None = None, journal: bool = True) -> Report:
    """With fewer clients than have their place in a minute. What a planted bug loses is not waited for."""
    return run(
        Setting(
            seed=seed,
            seconds=seconds,
            http_clients=8,
            library_clients=24,
            plant=plant,
            journal=journal,
            settle_seconds=SETTLE_SECONDS if plant is None else 1.0,
        )
    )


def seed_that_kills_postgres(*, within_seconds: float) -> int:
    """By which charges fail, whatever else happens."""

    def kills(seed: int) -> bool:
        faults = server_faults(seed, seconds=within_seconds)
        return any(fault.target == "postgres" and fault.blow == "kill" for fault in faults)

    return next(seed for seed in count(secrets.randbelow(2**32)) if kills(seed))


def test_nothing_is_lost_and_nothing_charged_twice() -> None:
    named = os.environ.get("DUCTO_FAULTS_SEED")
    report = short_run(int(named) if named else secrets.randbelow(2**32), seconds=12.0)
    assert report.findings.total == 0, report.table()
    assert report.blows.total >= 2, report.table()
    assert report.audits > 0, report.table()
    # So many also on a machine that is busy with other tests.
    assert report.acknowledged >= 300, report.table()


def test_charges_that_are_given_up_are_found() -> None:
    seed = seed_that_kills_postgres(within_seconds=5.0)
    report = short_run(seed, seconds=8.0, plant="gives-up", journal=False)
    assert report.findings.lost, report.table()


def test_charges_that_are_repeated_under_a_fresh_key_are_found() -> None:
    seed = seed_that_kills_postgres(within_seconds=5.0)
    report = short_run(seed, seconds=8.0, plant="fresh-key")
    assert report.findings.double, report.table()
