"""What providers say: from bytes and JSON to `UsageMetrics`, without I/O; a file per wire format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ducto.middleware.providers.anthropic import AnthropicMessages
from ducto.middleware.providers.base import (
    CallRequest,
    Dialect,
    Provider,
    StreamReader,
    UsageReading,
)
from ducto.middleware.providers.estimate import Tokenizer, estimate_usage, reserve_usage
from ducto.middleware.providers.jsontext import load_object, parse_request
from ducto.middleware.providers.openai_chat import OpenAIChat, OpenAICompletions
from ducto.middleware.providers.openai_embeddings import OpenAIEmbeddings
from ducto.middleware.providers.openai_responses import OpenAIResponses

__all__ = [
    "DEFAULT_ROUTES",
    "AnthropicMessages",
    "CallRequest",
    "Dialect",
    "OpenAIChat",
    "OpenAICompletions",
    "OpenAIEmbeddings",
    "OpenAIResponses",
    "Provider",
    "StreamReader",
    "Tokenizer",
    "UsageReading",
    "estimate_usage",
    "load_object",
    "parse_request",
    "reserve_usage",
]

#: Path of a model route -> how to read it.
DEFAULT_ROUTES: Mapping[str, Provider] = MappingProxyType(
    {
        "/v1/chat/completions": OpenAIChat(),
        "/v1/completions": OpenAICompletions(),
        "/v1/responses": OpenAIResponses(),
        "/v1/embeddings": OpenAIEmbeddings(),
        "/v1/messages": AnthropicMessages(),
    }
)
