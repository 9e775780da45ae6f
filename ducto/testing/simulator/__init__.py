"""A provider of language models to test against: correct wire formats, known usage, and faults on demand."""

from __future__ import annotations

from ducto.testing.simulator.app import Outcome, ProviderSimulator, SimulatedRequest
from ducto.testing.simulator.fault import Fault
from ducto.testing.simulator.reply import Reply, input_tokens_of

__all__ = ["Fault", "Outcome", "ProviderSimulator", "Reply", "SimulatedRequest", "input_tokens_of"]
