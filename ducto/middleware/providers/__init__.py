"""What providers say: from bytes and JSON to `UsageMetrics`, without I/O; a file per wire format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ducto.middleware.providers.anthropic import AnthropicMessages
from ducto.middleware.providers.base import (
    CallRequest,
    Dialect,
    Provider,
    StreamParser,
    StreamReader,
    UsageReading,
)
from ducto.middleware.providers.bedrock import BedrockConverse
from ducto.middleware.providers.estimate import Tokenizer, estimate_usage, reserve_usage
from ducto.middleware.providers.gemini import GeminiGenerate
from ducto.middleware.providers.jsontext import load_object, parse_request
from ducto.middleware.providers.openai_audio import OpenAISpeech, OpenAITranscriptions, OpenAITranslations
from ducto.middleware.providers.openai_chat import OpenAIChat, OpenAICompletions
from ducto.middleware.providers.openai_embeddings import OpenAIEmbeddings
from ducto.middleware.providers.openai_images import OpenAIImages
from ducto.middleware.providers.openai_responses import OpenAIResponses

__all__ = [
    "DEFAULT_ROUTES",
    "AnthropicMessages",
    "BedrockConverse",
    "CallRequest",
    "Dialect",
    "GeminiGenerate",
    "OpenAIChat",
    "OpenAICompletions",
    "OpenAIEmbeddings",
    "OpenAIImages",
    "OpenAIResponses",
    "OpenAISpeech",
    "OpenAITranscriptions",
    "OpenAITranslations",
    "Provider",
    "StreamParser",
    "StreamReader",
    "Tokenizer",
    "UsageReading",
    "estimate_usage",
    "load_object",
    "parse_request",
    "reserve_usage",
]

#: Path of a model route -> how to read it. `{model}` stands for the name of a model.
DEFAULT_ROUTES: Mapping[str, Provider] = MappingProxyType(
    {
        "/v1/chat/completions": OpenAIChat(),
        "/v1/completions": OpenAICompletions(),
        "/v1/responses": OpenAIResponses(),
        "/v1/embeddings": OpenAIEmbeddings(),
        "/v1/images/generations": OpenAIImages(),
        "/v1/images/edits": OpenAIImages(),
        "/v1/images/variations": OpenAIImages(),
        "/v1/audio/speech": OpenAISpeech(),
        "/v1/audio/transcriptions": OpenAITranscriptions(),
        "/v1/audio/translations": OpenAITranslations(),
        "/v1/messages": AnthropicMessages(),
        "/v1beta/models/{model}:generateContent": GeminiGenerate(),
        "/v1beta/models/{model}:streamGenerateContent": GeminiGenerate(stream=True),
        "/v1/models/{model}:generateContent": GeminiGenerate(),
        "/v1/models/{model}:streamGenerateContent": GeminiGenerate(stream=True),
        "/v1beta/openai/chat/completions": OpenAIChat(),
        "/v1beta/openai/embeddings": OpenAIEmbeddings(),
        "/model/{model}/converse": BedrockConverse(),
        "/model/{model}/converse-stream": BedrockConverse(stream=True),
    }
)
