"""A run as a page of Markdown: the table of aims, the machine, and what each module measured beside."""

from __future__ import annotations

from benchmarks.figures import Comparison, Figure, aim_of, number
from benchmarks.machine import Machine
from benchmarks.runs import ModuleRun, Run

__all__ = ["markdown"]

_ABOUT = """# Benchmarks

Written by `make bench`; do not edit. Each figure stands beside a limit or a peer that was measured in the same run, on
the same machine, mostly in turns: compare ratios, for times differ from machine to machine and from minute to minute.
`python -m benchmarks --only memory` measures one module, `--large` the full sizes.
"""
_QUICK = "\n**A quick run, which only shows that everything runs: its figures mean nothing.**\n"


def markdown(run: Run) -> str:
    """The whole page."""
    parts = [_ABOUT + (_QUICK if run.effort.quick else ""), _aims(run), _machine(run.machine)]
    parts += [_module(each) for each in run.modules]
    return "\n".join(parts)


def _aims(run: Run) -> str:
    compared = [(each, row) for each in run.modules if each.section for row in each.section.comparisons]
    met = sum(row.met for _, row in compared)
    lines = [
        f"## Aims\n\n{met} of {len(compared)} met.\n",
        "| what | measured | limit or peer beside it | ratio | aim | |",
    ]
    lines.append("|---|---|---|---|---|---|")
    lines += [_row(row) for _, row in compared]
    lines += [
        f"| {each.module} | could not be measured: {_cell(each.error or '')} | | | | missed |"
        for each in run.modules
        if each.section is None
    ]
    return "\n".join(lines) + "\n"


def _row(row: Comparison) -> str:
    peer = "" if row.peer is None else f"{_cell(row.peer.name)}: {_value(row.peer)}"
    ratio = "" if row.peer is None else f"{number(row.reached)} ×"
    verdict = "met" if row.met else "**missed**"
    return f"| {_cell(row.what)} | {_value(row.ours)} | {peer} | {ratio} | {aim_of(row)} | {verdict} |"


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return "\n".join(
        [
            "## Machine\n",
            f"- {machine.cpu}, {machine.cores} cores ({machine.machine}), {machine.memory_mb:,} MB, {machine.kernel}",
            f"- {versions}",
            f"- {machine.started_at:%Y-%m-%d %H:%M} UTC, commit {machine.commit}\n",
        ]
    )


def _module(measured: ModuleRun) -> str:
    began = f"`benchmarks/{measured.module}.py`, {measured.started_at:%Y-%m-%d %H:%M} UTC, {measured.seconds:.0f} s"
    facts = f"{began}; load average before it {measured.load_average:.2f}"
    section = measured.section
    if section is None:
        return f"## {measured.module}\n\nFailed: {measured.error}\n\n{facts}\n"
    lines = [f"## {section.title}\n", f"{section.about}\n", f"{facts}\n"]
    peers = [row.peer for row in section.comparisons if row.peer is not None]
    # A peer that is beside several rows is told once.
    figures = dict.fromkeys([*(row.ours for row in section.comparisons), *peers, *section.figures])
    lines += ["| figure | median | spread |", "|---|---|---|"]
    lines += [f"| {_cell(each.name)} | {_value(each)} | {_spread(each)} |" for each in figures]
    lines += ["", *(f"{note}\n" for note in section.notes)]
    return "\n".join(lines)


def _value(figure: Figure) -> str:
    return f"{number(figure.value)} {figure.unit}".strip()


def _spread(figure: Figure) -> str:
    if len(figure.samples) < 2:
        return ""
    return f"{number(min(figure.samples))} to {number(max(figure.samples))}, {len(figure.samples)} rounds"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
