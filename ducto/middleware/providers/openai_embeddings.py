"""OpenAI's embeddings: input only, never streamed."""

from __future__ import annotations

from typing import ClassVar

from ducto.middleware.providers.base import (
    CallRequest,
    Dialect,
    Provider,
    UsageReading,
)
from ducto.middleware.providers.numbers import FieldReader, Problems, object_at, text_at
from ducto.middleware.providers.requests import as_object, read_model
from ducto.usage import UsageMetrics

__all__ = ["OpenAIEmbeddings"]


class OpenAIEmbeddings(Provider):
    """`/v1/embeddings`."""

    name: ClassVar[str] = "openai.embeddings"
    dialect: ClassVar[Dialect] = "openai"

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        return CallRequest(model=read_model(fields), output_limit=0, input_bytes=body_bytes)

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        problems = Problems()
        if not isinstance(body, dict):
            problems.add("the answer is no JSON object")
            return UsageReading(problems=problems.as_tuple())
        fields = FieldReader(object_at(body, "usage"), path="usage", problems=problems)
        counts = [count for name in ("prompt_tokens", "total_tokens") if (count := fields.count(name)) is not None]
        usable = bool(counts) and "prompt_tokens" not in fields.rejected
        usage = UsageMetrics(model=request.model, input_tokens=max(counts)) if usable else None
        return UsageReading(
            usage=usage,
            final=usable,
            explicit_zero=usage is not None and usage.input_tokens == 0,
            problems=problems.as_tuple(),
            model=text_at(body, "model"),
        )
