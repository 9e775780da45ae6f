"""The options of the doors that meter HTTP, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ducto.errors import ConfigError
from ducto.meter import MissingUsage
from ducto.middleware.answers import AnswerCache
from ducto.middleware.clamp import ClampToAfford
from ducto.middleware.identity import Identify
from ducto.middleware.providers import Tokenizer
from ducto.middleware.routes import Unmetered

__all__ = ["CallOptions", "MeteringOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What a door needs to reserve for a request and to charge its answer. See `MeteringMiddleware` for each."""

    unmetered: Unmetered = "refuse"
    max_body_bytes: int = 10_000_000
    max_answer_bytes: int = 10_000_000
    default_output_tokens: int = 16_384
    tokenizer: Tokenizer | None = None
    clamp: ClampToAfford | None = None
    missing_usage: MissingUsage | None = None
    include_usage: bool = True
    feature: str | None = None
    operation_type: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_answer_bytes", "default_output_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}.")
        _check_choice(self.unmetered, Unmetered, name="unmetered")
        if self.missing_usage is not None:
            _check_choice(self.missing_usage, MissingUsage, name="missing_usage")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringOptions(CallOptions):
    """See `MeteringMiddleware` for what each means."""

    identify: Identify
    answers: AnswerCache | None
    drain_seconds: float
    first_byte_seconds: float | None
    idle_seconds: float | None

    def __post_init__(self) -> None:
        # By name, since `super()` does not find its way in a dataclass with slots.
        CallOptions.__post_init__(self)
        if not callable(self.identify):
            raise ConfigError("identify must be a callable that takes the ASGI scope and returns the user, or None.")
        if not self.drain_seconds >= 0:
            raise ConfigError(f"drain_seconds must be at least 0, not {self.drain_seconds!r}.")
        for name in ("first_byte_seconds", "idle_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name} must be above 0 seconds, or None for no limit, not {seconds!r}.")


def _check_choice(value: object, choices: object, *, name: str) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
