"""`make bench`: every measurement, one after the other, kept as JSON and written into the report.

Compare figures within one run only: machines are noisy. Ends with status 1 if something could not be measured; an aim
that was missed is told, and no failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.figures import add_effort, effort_of, show
from benchmarks.report import markdown
from benchmarks.runs import MODULES, Run, load, merged, run_modules, save

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REPORT = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep, report; or report what was kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_effort(parser)
    parser.add_argument("--only", metavar="MODULE", nargs="+", choices=MODULES, help=f"of {', '.join(MODULES)}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where the figures are kept; by default in results/")
    parser.add_argument(
        "--report", type=Path, metavar="PATH", help="where the report is written; by default docs/benchmarks.md if all"
    )
    parser.add_argument(
        "--report-from", type=Path, nargs="+", metavar="PATH", help="measure nothing: write the report from kept runs"
    )
    chosen = parser.parse_args(arguments)
    if chosen.report_from:
        _write_report(merged([load(path) for path in chosen.report_from]), chosen.report or REPORT)
        return 0
    run = run_modules(chosen.only or MODULES, effort_of(chosen))
    for each in run.modules:
        print(f"{each.module}: {each.error}\n" if each.section is None else f"{show(each.section)}\n")
    kept = chosen.json or RESULTS / f"{run.machine.started_at:%Y%m%dT%H%M%SZ}.json"
    save(run, kept)
    print(f"kept in {kept}")
    # A part of the figures, or figures that mean nothing, must not take the place of the page with all of them.
    whole = not chosen.only and not run.effort.quick
    if chosen.report or whole:
        _write_report(run, chosen.report or REPORT)
    return 1 if run.failed else 0


def _write_report(run: Run, path: Path) -> None:
    path.write_text(markdown(run), encoding="utf-8")
    print(f"report in {path}")


if __name__ == "__main__":
    sys.exit(main())
