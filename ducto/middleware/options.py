"""The options of the metering middleware, checked once."""

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

__all__ = ["MeteringOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringOptions:
    """See `MeteringMiddleware` for what each means."""

    identify: Identify
    unmetered: Unmetered
    max_body_bytes: int
    max_answer_bytes: int
    default_output_tokens: int
    tokenizer: Tokenizer | None
    clamp: ClampToAfford | None
    answers: AnswerCache | None
    missing_usage: MissingUsage | None
    include_usage: bool
    drain_seconds: float
    first_byte_seconds: float | None
    idle_seconds: float | None
    feature: str | None
    operation_type: str | None

    def __post_init__(self) -> None:
        if not callable(self.identify):
            raise ConfigError("identify must be a callable that takes the ASGI scope and returns the user, or None.")
        for name in ("max_body_bytes", "max_answer_bytes", "default_output_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if not self.drain_seconds >= 0:
            raise ConfigError(f"drain_seconds must be at least 0, not {self.drain_seconds!r}.")
        for name in ("first_byte_seconds", "idle_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name} must be above 0 seconds, or None for no limit, not {seconds!r}.")
        _check_choice(self.unmetered, Unmetered, name="unmetered")
        if self.missing_usage is not None:
            _check_choice(self.missing_usage, MissingUsage, name="missing_usage")


def _check_choice(value: object, choices: object, *, name: str) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
