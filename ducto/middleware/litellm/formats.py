"""Which wire format a call of the proxy has, and the fields of its request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from ducto.errors import ArgumentError
from ducto.middleware.providers import (
    AnthropicMessages,
    GeminiGenerate,
    OpenAIChat,
    OpenAICompletions,
    OpenAIEmbeddings,
    OpenAIResponses,
    Provider,
)
from ducto.middleware.routes import canonical

__all__ = ["CHAT", "PASS_THROUGH", "Kind", "check_fields", "kind_of", "named_fallbacks", "request_body"]

PASS_THROUGH = "pass_through_endpoint"

#: The format in which LiteLLM logs the answers of all chat providers.
CHAT = OpenAIChat()

#: LiteLLM's call types -> their format. Some also come with an `a` in front, for async.
_FORMATS: Mapping[str, Provider] = {
    "completion": CHAT,
    "text_completion": OpenAICompletions(),
    "embedding": OpenAIEmbeddings(),
    "embeddings": OpenAIEmbeddings(),
    "responses": OpenAIResponses(),
    "anthropic_messages": AnthropicMessages(),
    "generate_content": GeminiGenerate(),
    "generate_content_stream": GeminiGenerate(stream=True),
}

#: Ends of the paths of pass-through calls -> their format.
_PASSED_THROUGH: Mapping[str, Provider] = {
    "/chat/completions": CHAT,
    "/completions": _FORMATS["text_completion"],
    "/embeddings": _FORMATS["embedding"],
    "/responses": _FORMATS["responses"],
    "/v1/messages": _FORMATS["anthropic_messages"],
}

#: Calls that no model works for: they look something up, store, list, stop or delete it, or count.
_FREE = re.compile(
    r"a?(?:get|list|retrieve|delete|cancel)_\w+|\w+_(?:list|retrieve|delete|content|cancel)|a?moderation"
    r"|a?(?:create_file|add_message|create_thread|create_assistants|vector_store_\w+|call_mcp_tool|list_mcp_tools)"
)

#: What LiteLLM, or a hook of it, puts beside the fields that the client sent.
_OWN_FIELDS = frozenset(
    {"metadata", "proxy_server_request", "secret_fields", "deployment", "call_type", "shared_session", "cache"}
)
_OWN_PREFIXES = ("litellm_", "_litellm")

#: The fields that decide what a call costs. Those of `extra_body` go over those of the request.
_DECIDING = frozenset(
    {"model", "messages", "input", "prompt", "system", "instructions", "contents", "tools", "stream", "stream_options"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "background", "modalities"}
    | {"generationConfig", "generation_config", "service_tier", "speed", "web_search_options", "extra_body"}
)

#: Where a client may name other models; LiteLLM would also take other fields for them.
_FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")

#: A call's format; `free` for one that costs nothing; `None` for one that cannot be metered.
Kind = Provider | Literal["free"] | None


def kind_of(call_type: str, *, route: str | None) -> Kind:
    """What a call of this type is. A pass-through call is told by its `route`, the path of the request."""
    if call_type == PASS_THROUGH:
        path = canonical(route or "")
        return next((provider for end, provider in _PASSED_THROUGH.items() if path.endswith(end)), None)
    known = _FORMATS.get(call_type) or _FORMATS.get(call_type.removeprefix("a"))
    if known is not None:
        return known
    return "free" if _FREE.fullmatch(call_type) else None


def check_fields(data: Mapping[str, Any]) -> None:
    """Refuse what makes LiteLLM call a provider with other fields than those that are reserved for.

    Raises `ArgumentError`.
    """
    extra = data.get("extra_body")
    if isinstance(extra, Mapping) and (taken := sorted(_DECIDING & extra.keys())):
        raise ArgumentError(f"extra_body must not hold {', '.join(taken)}; send it beside.", field="extra_body")
    if data.get("additional_drop_params"):
        raise ArgumentError("additional_drop_params is not offered here.", field="additional_drop_params")
    for name in _FALLBACKS:
        given = data.get(name)
        if isinstance(given, list) and not all(isinstance(model, str) for model in given):
            raise ArgumentError(f"{name} must be a list of names of models.", field=name)


def named_fallbacks(data: Mapping[str, Any]) -> list[str]:
    """The models that the client named for the case that the one it asks for fails."""
    given = (data.get(name) for name in _FALLBACKS)
    return [model for models in given if isinstance(models, list) for model in models if isinstance(model, str)]


def request_body(data: Mapping[str, Any], *, model: str | None) -> bytes:
    """The request as JSON with the client's fields alone, and `model` in the place of the name that it has."""
    fields = {
        name: value
        for name, value in data.items()
        if name not in _OWN_FIELDS and not name.startswith(_OWN_PREFIXES) and value is not None
    }
    if model is not None:
        fields["model"] = model
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
