"""One run of the harness, from its start to its report."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.audit import Alarms, Findings, put_aside, settled_down
from tests.faults.chaos import Blows, wreak
from tests.faults.lists import Call, read_lists
from tests.faults.network import BackgroundLoop
from tests.faults.schedule import GATEWAYS, LINKS, WORKERS
from tests.faults.world import Setting, World

__all__ = ["Report", "run"]

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What was done and what was found."""

    setting: Setting
    blows: Blows
    links: dict[str, dict[str, int]]
    calls: dict[str, Call]
    audits: int
    findings: Findings

    @property
    def acknowledged(self) -> int:
        return sum(call.acknowledged for call in self.calls.values())

    def table(self) -> str:
        """For people."""
        lines = [f"{'target':<20}{'kills':>8}{'stops':>8}"]
        targets = (*GATEWAYS, *WORKERS, *LINKS)
        lines += [f"{each:<20}{self.blows.kills[each]:>8}{self.blows.stops[each]:>8}" for each in targets]
        lines += ["", f"{'link':<20}{'drops':>8}{'resets':>8}{'stalls':>8}"]
        for name, happened in self.links.items():
            lines.append(f"{name:<20}{happened['drop']:>8}{happened['reset']:>8}{happened['stall']:>8}")
        endings = ("answered", "settled", "left", "refused", None)
        lines += ["", f"{'clients':<20}" + "".join(f"{ending or 'killed':>10}" for ending in endings)]
        for who, counted in _endings(self.calls.values()).items():
            lines.append(f"{who:<20}" + "".join(f"{counted[ending]:>10}" for ending in endings))
        found = self.findings.by_kind
        lines += [
            "",
            f"seed {self.setting.seed}, {self.blows.seconds:.0f} s: {self.blows.total} kills and stops, "
            f"{self.acknowledged} acknowledged calls, {self.audits} audits while it ran",
            ", ".join(f"{kind} {len(each)}" for kind, each in found.items()),
        ]
        for each in found.values():
            lines += [f"  {one}" for one in each[:_SHOWN]]
            lines += [f"  and {len(each) - _SHOWN} more"] if len(each) > _SHOWN else []
        return "\n".join(lines)


def run(setting: Setting, *, folder: Path | None = None) -> Report:
    """Start everything, let faults happen to it, and compare. In the main thread. Logs and lists are left in `folder`,
    an empty one; without it they are removed.
    """
    with tempfile.TemporaryDirectory(prefix="ducto-faults-") as temporary, BackgroundLoop() as background:
        where = folder or Path(temporary)
        with World(setting, where, background) as world:
            alarms = Alarms(world.url)
            watching = asyncio.run_coroutine_threadsafe(alarms.watch(), background.loop)
            blows = wreak(world, background, enough=lambda: _acknowledged(where) >= setting.least_acknowledged)
            world.look_for_dead()
            world.stop_clients()
            if not watching.cancel():
                watching.result()  # It never ends by itself, so this says why it did.
            world.restart_gateways()
            calls = read_lists(where / "lists")
            findings = asyncio.run(settled_down(world.url, calls, within_seconds=setting.settle_seconds))
            findings.alarms += alarms.found
            findings.aside += put_aside(world.journal)
            world.look_for_dead()
            findings.died += world.died
            happened = {name: dict(link.happened) for name, link in world.links.items()}
            return Report(setting, blows, happened, calls, alarms.audits, findings)


def _acknowledged(where: Path) -> int:
    return sum(call.acknowledged for call in read_lists(where / "lists").values())


def _endings(calls: Iterable[Call]) -> dict[str, Counter[str | None]]:
    counted: dict[str, Counter[str | None]] = {}
    for call in calls:
        who = "library" if call.client.startswith("worker") else "HTTP"
        counted.setdefault(who, Counter())[call.ending] += 1
    return counted
