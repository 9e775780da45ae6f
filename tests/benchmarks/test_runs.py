"""The benchmarks as a program: every module measures, a run is kept and read again, and the report says what it holds.

Nothing here asserts a time.
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.figures import Effort, Section, compare, figure, show
from benchmarks.machine import Machine
from benchmarks.report import markdown
from benchmarks.runs import MODULES, ModuleRun, Run, load, measured, merged, save

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
MACHINE = Machine(AT, "abc", "x86_64", "A CPU", 2, 4096, "Linux 6", {"Python": "3.11", "Postgres": "18.1"})


def section(*, ours: float, aim: float = 0.8) -> Section:
    rates = figure("metered | us", [ours, ours, ours], unit="1/s")
    peer = figure("bare", [100.0, 200.0, 50.0], unit="1/s")
    return Section("A title", "How it is done.", [compare("requests", rates, peer, aim=aim, better="higher")])


def run_of(**sections: Section | None) -> Run:
    modules = [ModuleRun(name, AT, 1.5, 0.25, one, None if one else "it broke") for name, one in sections.items()]
    return Run(MACHINE, Effort(), modules)


def test_a_ratio_is_of_the_medians_or_of_the_rounds() -> None:
    ours, peer = figure("a", [10.0, 30.0, 20.0], unit="us"), figure("b", [10.0, 60.0, 20.0], unit="us")
    assert compare("x", ours, peer, aim=1, better="lower").reached == 1.0
    assert (
        compare("x", figure("a", [10.0, 30.0, 40.0], unit="us"), peer, aim=1, better="lower", paired=True).reached
        == 1.0
    )
    assert compare("x", figure("a", 2.0, unit="us"), peer, aim=10, better="higher", times_faster=True).reached == 10.0
    alone = compare("x", ours, aim=19, better="lower")
    assert alone.reached == 20.0
    assert not alone.met


def test_samples_of_different_rounds_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare("x", figure("a", [1, 2], unit=""), figure("b", 1, unit=""), aim=1, better="lower", paired=True)


def test_a_run_is_read_as_it_was_kept(tmp_path: Path) -> None:
    run = run_of(memory=section(ours=90), gateway=None)
    save(run, tmp_path / "new" / "run.json")
    assert load(tmp_path / "new" / "run.json") == run
    assert json.loads((tmp_path / "new" / "run.json").read_text())["machine"]["cores"] == 2


def test_the_report_tells_what_was_met_missed_and_not_measured() -> None:
    text = markdown(run_of(memory=section(ours=90), pricing=section(ours=70), gateway=None))
    assert "| requests | 90.0 1/s | bare: 100 1/s | 0.90 × | ≥ 0.80 × | met |" in text
    assert "| requests | 70.0 1/s | bare: 100 1/s | 0.70 × | ≥ 0.80 × | **missed** |" in text
    assert "| gateway | could not be measured: it broke |" in text
    assert "1 of 2 met" in text
    assert "metered \\| us" in text
    assert "A CPU, 2 cores" in text
    assert "Postgres 18.1" in text
    assert "MISSED" in show(section(ours=70))


def test_parts_of_a_run_are_put_together_by_module() -> None:
    first = run_of(memory=section(ours=1), gateway=section(ours=2))
    both = merged([first, run_of(pricing=section(ours=3), memory=section(ours=4))])
    assert [each.module for each in both.modules] == ["pricing", "memory", "gateway"]
    assert both.modules[1].section == section(ours=4)


def test_the_report_is_written_again_from_kept_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run_of(memory=section(ours=90)), tmp_path / "run.json")
    assert main(["--report-from", str(tmp_path / "run.json"), "--report", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == markdown(load(tmp_path / "run.json"))


def test_a_part_of_a_run_is_measured_kept_and_reported_where_it_is_asked_for(tmp_path: Path) -> None:
    kept, page = tmp_path / "run.json", tmp_path / "page.md"
    assert main(["--only", "gateway", "--quick", "--json", str(kept), "--report", str(page)]) == 0
    run = load(kept)
    assert [each.module for each in run.modules] == ["gateway"]
    assert run.machine.versions["Python"]
    assert page.read_text(encoding="utf-8").count("A quick run") == 1


#: The gateway is measured above; the others with their real servers, tiny.
@pytest.mark.parametrize("module", [each for each in MODULES if each != "gateway"])
def test_each_module_measures(module: str) -> None:
    found = measured(module, Effort(seconds=0.1, quick=True))
    assert found.comparisons
    assert all(math.isfinite(each.reached) for each in found.comparisons)
    # Ratios and units that a reader can follow: each row says what stands beside it, or is a figure with a unit.
    assert all(each.peer is None or each.peer.name != each.ours.name for each in found.comparisons)
    if module == "overspend":
        assert [each.reached for each in found.comparisons] == [0, 0, 0, 0]
