"""What one model call used: token buckets that do not overlap, so that a price is a plain sum over them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["COUNT_FIELDS", "MAX_AMOUNT", "TEXT_FIELDS", "ToolCall", "UsageMetrics"]

#: The largest count or amount anywhere: 2^53 - 1, the largest integer that JSON clients and Redis Lua keep exact.
MAX_AMOUNT = 2**53 - 1

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]


class ToolCall(BaseModel):
    """One call of a tool that the model made. `name` finds its price under `tools` of the pricing config."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str
    call_id: str | None = None


class UsageMetrics(BaseModel):
    """The measured (or estimated) use of one call.

    The token buckets do **not** overlap: `input_tokens` is fresh text input only, without cached, audio and image
    tokens; `output_tokens` is visible text only, without reasoning, audio and image tokens; `cache_write_tokens` is
    the short-lived cache write, without `cache_write_1h_tokens`. Counts are whole numbers from 0 to 2^53-1; a
    negative, fractional, NaN or boolean count is refused with pydantic's `ValidationError`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None

    input_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    cache_write_1h_tokens: Count = 0
    input_audio_tokens: Count = 0
    input_image_tokens: Count = 0

    output_tokens: Count = 0
    reasoning_tokens: Count = 0
    output_audio_tokens: Count = 0
    output_image_tokens: Count = 0

    image_count: Count = 0
    audio_milliseconds: Count = 0
    input_characters: Count = 0

    requests: Count = 1
    search_queries: Count = 0
    search_results: Count = 0
    web_search_calls: Count = 0
    code_exec_calls: Count = 0
    tool_calls: tuple[ToolCall, ...] = ()

    #: A job with a fixed price: its name under `fixed` of the pricing config.
    fixed_job: str | None = None
    #: What the provider says it served the call with; both may choose another price (`variants`).
    service_tier: str | None = None
    speed: str | None = None

    @property
    def total_input_tokens(self) -> int:
        """All input, cache included: what a long-context tier is measured by."""
        return (
            self.input_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
            + self.cache_write_1h_tokens
            + self.input_audio_tokens
            + self.input_image_tokens
        )

    @property
    def total_output_tokens(self) -> int:
        """All output, reasoning included."""
        return self.output_tokens + self.reasoning_tokens + self.output_audio_tokens + self.output_image_tokens


#: Every integer field; `tool_calls` counts as their number wherever a number is wanted.
COUNT_FIELDS: tuple[str, ...] = (
    *(name for name, field in UsageMetrics.model_fields.items() if field.annotation is int),
    "tool_calls",
)
TEXT_FIELDS: tuple[str, ...] = ("model", "service_tier", "speed", "fixed_job")
