"""What a measurement returns: figures, and comparisons of a figure with its limit or peer and with what we aim at.

Every module of this folder has `measure(effort) -> Section`; `python -m benchmarks` runs them, keeps their sections as
JSON and writes the report from them. Times are floats here, for nothing is paid by them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Better",
    "Comparison",
    "Effort",
    "Figure",
    "Section",
    "about",
    "add_effort",
    "aim_of",
    "compare",
    "effort_of",
    "figure",
    "number",
    "run_alone",
    "show",
]

Better = Literal["higher", "lower"]
DEFAULT_SECONDS = 3.0
QUICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a measurement may take.

    `seconds` is the time of one figure at one load, `quick` asks for the least that still runs everything (its figures
    mean nothing), `large` for the full size where that takes many minutes or gigabytes.
    """

    seconds: float = DEFAULT_SECONDS
    quick: bool = False
    large: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured quantity: the median of its samples, one a round."""

    name: str
    unit: str
    value: float
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the report: ours, the limit or peer of the same run, and the aim.

    With a peer, `reached` is a ratio, else a value in the unit of ours; `aim` is in the same terms.
    """

    what: str
    ours: Figure
    peer: Figure | None
    reached: float
    aim: float
    better: Better

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        return self.reached >= self.aim if self.better == "higher" else self.reached <= self.aim


@dataclass(frozen=True, slots=True)
class Section:
    """All that one module measured: rows of the report, other figures, and what a reader has to know about them."""

    title: str
    about: str
    comparisons: list[Comparison] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def figure(name: str, samples: float | Sequence[float], *, unit: str) -> Figure:
    """A figure of one sample, or of one a round."""
    taken = (float(samples),) if isinstance(samples, (int, float)) else tuple(float(each) for each in samples)
    return Figure(name, unit, statistics.median(taken), taken)


def compare(
    what: str,
    ours: Figure,
    peer: Figure | None = None,
    *,
    aim: float,
    better: Better,
    times_faster: bool = False,
    paired: bool = False,
) -> Comparison:
    """Ours by the peer's, or the peer's by ours if both are times and the aim is to be so many times faster.

    Samples that were taken in turns are `paired`: then the median of the rounds' ratios counts, so that a moment in
    which the machine is slow hits both sides of one ratio. Without a peer the aim is one for the figure itself.
    """
    if peer is None:
        return Comparison(what, ours, None, ours.value, aim, better)
    pairs = list(zip(ours.samples, peer.samples, strict=True)) if paired else [(ours.value, peer.value)]
    ratios = [theirs / own if times_faster else own / theirs for own, theirs in pairs]
    return Comparison(what, ours, peer, statistics.median(ratios), aim, better)


def about(docstring: str | None) -> str:
    """How a module measures, for its section: what its docstring says between the title and how to run it."""
    paragraphs = (docstring or "").strip().split("\n\n")[1:]
    return "\n\n".join(" ".join(each.split()) for each in paragraphs if not each.startswith("Run it"))


def number(value: float) -> str:
    """A figure as text, with three digits that mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def aim_of(comparison: Comparison) -> str:
    """What was aimed at, as text."""
    sign = "≥" if comparison.better == "higher" else "≤"
    unit = "×" if comparison.peer is not None else comparison.ours.unit
    return f"{sign} {number(comparison.aim)} {unit}"


def show(section: Section) -> str:
    """A section as text for a terminal."""
    lines = [section.title]
    for each in section.comparisons:
        peer = "" if each.peer is None else f"; {each.peer.name}: {number(each.peer.value)} {each.peer.unit}"
        ratio = "" if each.peer is None else f"; {number(each.reached)} ×"
        missed = "" if each.met else ": MISSED"
        lines.append(
            f"  {each.what}: {number(each.ours.value)} {each.ours.unit}{peer}{ratio} (aim {aim_of(each)}{missed})"
        )
    lines += [f"  {each.name}: {number(each.value)} {each.unit}" for each in section.figures]
    return "\n".join([*lines, *(f"  {note}" for note in section.notes)])


def run_alone(measure: Callable[[Effort], Section], *, description: str | None) -> None:
    """The command line of one module: measure and print."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_effort(parser)
    print(show(measure(effort_of(parser.parse_args()))))


def add_effort(parser: argparse.ArgumentParser) -> None:
    """The options that say how much work to do."""
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="how long each figure is measured")
    parser.add_argument("--quick", action="store_true", help="the least that runs everything; its figures mean nothing")
    parser.add_argument("--large", action="store_true", help="full size, where that takes many minutes or gigabytes")


def effort_of(chosen: argparse.Namespace) -> Effort:
    """The effort that was asked for."""
    return Effort(seconds=QUICK_SECONDS if chosen.quick else chosen.seconds, quick=chosen.quick, large=chosen.large)
