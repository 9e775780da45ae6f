"""`python -m tests.faults`: servers, gateways and workers are killed while clients call; nothing may be lost."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from tests.faults.plants import PLANTS
from tests.faults.run import Report, run
from tests.faults.world import Setting

_KILLS_PER_MINUTE = 15
#: In a run of a minute or more; a shorter one has its share.
_ACKNOWLEDGED = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long faults happen (default: 60); with too few calls, longer"
    )
    parser.add_argument("--seed", type=int, help="repeats the schedule of another run (or: DUCTO_FAULTS_SEED)")
    parser.add_argument("--plant", choices=PLANTS, help="plant this bug; the run then has to fail")
    parser.add_argument("--no-journal", action="store_true", help="keep no journals of charges")
    parser.add_argument("--keep", type=Path, help="leave logs and lists in this folder, which must be empty")
    parser.add_argument("--least-kills", type=int, help="fail with fewer kills and stops (default: 15 a minute)")
    parser.add_argument("--least-acknowledged", type=int, help="fail with fewer calls (default: 20,000)")
    given = parser.parse_args()
    named = os.environ.get("DUCTO_FAULTS_SEED")
    seed = given.seed if given.seed is not None else int(named) if named else secrets.randbelow(2**32)
    print(f"seed {seed}; repeat with: python -m tests.faults --seconds {given.seconds:g} --seed {seed}", flush=True)
    minutes = given.seconds / 60
    kills = given.least_kills if given.least_kills is not None else int(_KILLS_PER_MINUTE * minutes)
    acknowledged = given.least_acknowledged
    if acknowledged is None:
        acknowledged = int(_ACKNOWLEDGED * min(1.0, minutes))
    setting = Setting(
        seed=seed,
        seconds=given.seconds,
        least_acknowledged=acknowledged,
        plant=given.plant,
        journal=not given.no_journal,
    )
    report = run(setting, folder=given.keep)
    print(report.table())
    return _judged(report, kills=kills, acknowledged=acknowledged)


def _judged(report: Report, *, kills: int, acknowledged: int) -> int:
    short = []
    if report.blows.total < kills:
        short.append(f"{report.blows.total} kills and stops are fewer than {kills}")
    if report.acknowledged < acknowledged:
        short.append(f"{report.acknowledged} acknowledged calls are fewer than {acknowledged}")
    if report.audits == 0:
        short.append("the books were never audited while it ran")
    for line in short:
        print(line)
    if short or report.findings.total:
        print("FAILED")
        return 1
    print("Nothing was lost, nothing was charged twice, nothing is stuck.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
