"""What served a call: LiteLLM's deployments, their models, and what LiteLLM says that a call cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ducto.usage import UsageMetrics

__all__ = ["Served", "cost_of", "dollars", "models_of", "served", "served_as_noted"]


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered a call."""

    #: Public name of the model group that answered, where that is another than the one that was asked for.
    fallback_group: str | None = None
    #: Names of the deployment's model, the one most likely to be priced first.
    models: tuple[str, ...] = ()
    #: What LiteLLM reckons, in dollars; it says 0 also where it does not know the price.
    cost_usd: float | None = None
    cache_hit: bool = False


def served(answer: object, data: Mapping[str, Any]) -> Served:
    """What is known of it from an answer, or a stream of one, and the data of its request."""
    hidden = _hidden_of(answer)
    headers = hidden.get("additional_headers")
    headers = headers if isinstance(headers, Mapping) else {}
    group = headers.get("x-litellm-model-group")
    fell_back = headers.get("x-litellm-attempted-fallbacks") not in (None, 0, "0")
    cost = hidden.get("response_cost")
    deployment = data.get("deployment")
    return Served(
        fallback_group=group if fell_back and isinstance(group, str) else None,
        # The proxy puts an object there; a dict would be what a client sent.
        models=() if isinstance(deployment, Mapping) else _names_of_deployment(deployment),
        cost_usd=cost if isinstance(cost, int | float) else None,
        cache_hit=hidden.get("cache_hit") is True,
    )


def served_as_noted(notes: Mapping[str, Any], *, cost_usd: object = None, cache_hit: bool = False) -> Served:
    """What is known of it from the router's notes, which are in the metadata of a call that it routed."""
    group = notes.get("model_group") if notes.get("attempted_fallbacks") else None
    deployment = {"litellm_params": {"model": notes.get("deployment")}, "model_info": notes.get("model_info")}
    return Served(
        fallback_group=group if isinstance(group, str) else None,
        models=_names_of_deployment(deployment),
        cost_usd=cost_usd if isinstance(cost_usd, int | float) else None,
        cache_hit=cache_hit,
    )


def models_of(public_name: str) -> list[tuple[str, ...]]:
    """The names of the models of all deployments that may serve the public name."""
    from litellm.proxy import proxy_server  # type: ignore[import-not-found]

    router = proxy_server.llm_router
    deployments = (router.get_model_list(model_name=public_name) if router is not None else None) or []
    return list(dict.fromkeys(names for one in deployments if (names := _names_of_deployment(one))))


def cost_of(model: str, usage: UsageMetrics) -> float | None:
    """What LiteLLM's own list of prices says for `usage`, in dollars; `None` where it does not know the model."""
    import litellm  # type: ignore[import-not-found]

    try:
        parts = litellm.cost_per_token(
            model=model,
            prompt_tokens=usage.total_input_tokens,
            completion_tokens=usage.total_output_tokens,
            cache_read_input_tokens=usage.cache_read_tokens,
            cache_creation_input_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
        )
    except Exception:  # noqa: BLE001 (it has no type of its own for a model that it does not know)
        return None
    return float(sum(parts))


def dollars(cost_usd: float | None) -> Decimal | None:
    """A cost that can be charged: exact, and above 0; `None` for any other."""
    if cost_usd is None or isinstance(cost_usd, bool) or not 0 < cost_usd < float("inf"):
        return None
    return Decimal(repr(float(cost_usd)))


def _hidden_of(answer: object) -> Mapping[str, Any]:
    """LiteLLM's notes on an answer. It sets them on objects that it made, whatever a provider has answered."""
    hidden = answer.get("_hidden_params") if isinstance(answer, dict) else getattr(answer, "_hidden_params", None)
    if isinstance(hidden, Mapping):
        return hidden
    dump = getattr(hidden, "model_dump", None)
    return dump() if callable(dump) else {}


def _names_of_deployment(deployment: object) -> tuple[str, ...]:
    """`base_model`, the model with its provider in front, and without it."""
    dump = getattr(deployment, "model_dump", None)
    fields = dump() if callable(dump) else deployment
    if not isinstance(fields, Mapping):
        return ()
    parameters, info = fields.get("litellm_params"), fields.get("model_info")
    model = parameters.get("model") if isinstance(parameters, Mapping) else None
    base = info.get("base_model") if isinstance(info, Mapping) else None
    names = [base, model, model.partition("/")[2] if isinstance(model, str) else None]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))
