"""How long the model test runs, and from which seed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings

__all__ = ["COMPARED", "REDIS_STEPS", "SEED", "SQL_STEPS", "STEPS", "StepCount", "examples", "steps", "summary"]

#: `DUCTO_MODEL_SEED` replays a run, `DUCTO_MODEL_STEPS` makes it shorter or longer.
SEED = int(os.environ["DUCTO_MODEL_SEED"])  # Set in any case, by tests/conftest.py.
TOTAL_STEPS = int(os.environ.get("DUCTO_MODEL_STEPS") or 106_000)  # Some examples end early: 10^5 are meant.
STEPS_PER_EXAMPLE = 100
#: How many operations at least are compared on each SQL store, all of them times `DUCTO_MODEL_SQL_SCALE`.
_SCALE = float(os.environ.get("DUCTO_MODEL_SQL_SCALE") or 1)
SQL_STEPS = {
    name: round(steps * _SCALE) for name, steps in (("postgres18", 20_000), ("postgres15", 1_500), ("postgrest", 5_000))
}
#: The same behind Redis, half of it with each fault of Redis.
REDIS_STEPS = {name: round(steps * _SCALE) for name, steps in (("memory", 3_000), ("postgres", 1_200))}


@dataclass
class StepCount:
    taken: int = 0


STEPS = StepCount()
#: How many operations were compared, by the name of the SQL store.
COMPARED: Counter[str] = Counter()


def steps(share: float) -> settings:
    """Settings for a machine that takes this share of all steps."""
    return examples(round(TOTAL_STEPS * share))


def examples(total_steps: int) -> settings:
    """Settings for a machine that takes so many steps. No example database: the seed alone decides."""
    return settings(
        max_examples=max(1, -(-total_steps // STEPS_PER_EXAMPLE)),
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def summary() -> list[str]:
    """What this process did, in words."""
    taken = [f"{STEPS.taken} steps on memory"] if STEPS.taken else []
    return taken + [f"{count} operations compared between memory and {name}" for name, count in COMPARED.items()]
