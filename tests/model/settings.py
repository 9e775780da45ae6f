"""How long the model test runs, and from which seed."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings

__all__ = ["SEED", "STEPS", "StepCount", "steps"]

#: `DUCTO_MODEL_SEED` replays a run, `DUCTO_MODEL_STEPS` makes it shorter or longer.
SEED = int(os.environ.get("DUCTO_MODEL_SEED") or random.SystemRandom().randrange(2**32))
TOTAL_STEPS = int(os.environ.get("DUCTO_MODEL_STEPS") or 106_000)  # Some examples end early: 10^5 are meant.
STEPS_PER_EXAMPLE = 100


@dataclass
class StepCount:
    taken: int = 0


STEPS = StepCount()


def steps(share: float) -> settings:
    """Settings for a machine that takes this share of all steps. No example database: the seed alone decides."""
    return settings(
        max_examples=max(1, round(TOTAL_STEPS * share / STEPS_PER_EXAMPLE)),
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
