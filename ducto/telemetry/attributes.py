"""Names and values that spans and metrics are marked with.

`gen_ai.*` and `error.type` are those of OpenTelemetry's semantic conventions for generative AI; `ducto.*` is what they
have no name for.
"""

from __future__ import annotations

from ducto.errors import DuctoError
from ducto.usage import UsageMetrics

__all__ = [
    "OTHER",
    "Attributes",
    "BoundedLabels",
    "error_type",
    "operation_attributes",
    "shortened",
    "usage_attributes",
]

#: Of a metric or span, as OpenTelemetry takes them.
Attributes = dict[str, str | int | bool]

#: What the conventions call a value that is not told because there would be too many.
OTHER = "_OTHER"

#: The longest name of a model or an operation that is passed on.
MAX_NAME_CHARACTERS = 200

#: Operation types of ducto's own routes -> operation and provider by the conventions.
_KNOWN_OPERATIONS = {
    "openai.chat": ("chat", "openai"),
    "openai.completions": ("text_completion", "openai"),
    "openai.responses": ("chat", "openai"),
    "openai.embeddings": ("embeddings", "openai"),
    "openai.images": ("generate_content", "openai"),
    "openai.speech": ("generate_content", "openai"),
    "openai.transcriptions": ("generate_content", "openai"),
    "openai.translations": ("generate_content", "openai"),
    "anthropic.messages": ("chat", "anthropic"),
    "gemini.generate": ("generate_content", "gcp.gemini"),
    "bedrock.converse": ("chat", "aws.bedrock"),
}


def shortened(name: str) -> str:
    return name[:MAX_NAME_CHARACTERS]


def operation_attributes(operation_type: str) -> Attributes:
    """The operation by the conventions; one that they do not know keeps the caller's name for it."""
    operation, provider = _KNOWN_OPERATIONS.get(operation_type, (shortened(operation_type), None))
    attributes: Attributes = {"gen_ai.operation.name": operation}
    if provider is not None:
        attributes["gen_ai.provider.name"] = provider
    return attributes


def usage_attributes(usage: UsageMetrics) -> Attributes:
    """Tokens as the conventions count them: all input with the cached part, all output with reasoning."""
    attributes: Attributes = {
        "gen_ai.usage.input_tokens": usage.total_input_tokens,
        "gen_ai.usage.output_tokens": usage.total_output_tokens,
    }
    parts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens + usage.cache_write_1h_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    attributes.update({name: count for name, count in parts.items() if count > 0})
    return attributes


def error_type(error: BaseException) -> str:
    """The code of a refusal, else the name of the class: never the message, which may quote anything."""
    return error.code if isinstance(error, DuctoError) else type(error).__name__


class BoundedLabels:
    """Lets so many different values through, so that callers who invent names cannot fill the memory of a collector."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def of(self, value: str, *, trusted: bool) -> str:
        """`value` if it is known, or `trusted` and one of the first; else `OTHER`."""
        value = shortened(value)
        if value not in self._known:
            if not trusted or len(self._known) >= self._limit:
                return OTHER
            self._known.add(value)
        return value
