"""Tokens that nobody has counted: a bound before the call, an estimate after one whose usage is missing."""

from __future__ import annotations

from typing import Protocol

from ducto.middleware.providers.base import CallRequest, UsageReading, served_tier
from ducto.middleware.providers.numbers import capped
from ducto.usage import UsageMetrics

__all__ = [
    "IMAGE_TOKENS",
    "Tokenizer",
    "bound_text_tokens",
    "estimate_usage",
    "reserve_usage",
    "typical_text_tokens",
]

#: Tokens to reserve for one image: more than the usual models charge for a large one. A few count several
#: times as much, so give your own where you meter those.
IMAGE_TOKENS = 10_000

#: Text and code in English measured 3.9 to 4.3 characters a token.
TYPICAL_BYTES_PER_TOKEN = 4

_WRITE_BUCKETS = {None: "input_tokens", "5m": "cache_write_tokens", "1h": "cache_write_1h_tokens"}


class Tokenizer(Protocol):
    """Counts the tokens of a text. It must not do network I/O, which would be in the way of every request."""

    def count(self, text: str, /) -> int:
        """Tokens in `text`."""
        ...


def bound_text_tokens(size_bytes: int) -> int:
    """The most tokens that a text of so many bytes can have: no token is less than one byte."""
    return size_bytes


def typical_text_tokens(size_bytes: int) -> int:
    """What a text of so many bytes usually has, rounded up."""
    return -(-size_bytes // TYPICAL_BYTES_PER_TOKEN)


def reserve_usage(
    request: CallRequest,
    *,
    default_output_limit: int,
    input_tokens: int | None = None,
    image_tokens: int = IMAGE_TOKENS,
) -> UsageMetrics:
    """The worst case of a call, to reserve for.

    `default_output_limit` is used where the request has no limit (the model's own maximum). `input_tokens`
    replaces the bound by bytes, for a caller with a `Tokenizer`. Input is put into the dearest bucket that
    the request asks for: a cache write, where it asks for one, or sound, and then the output too. Of what
    `request.unbounded_input` names only the sound is in it: a token of it is many bytes. A request that has a
    `worst_case` of its own is reserved as that.
    """
    if request.worst_case is not None:
        return request.worst_case
    text = bound_text_tokens(request.input_bytes) if input_tokens is None else input_tokens
    limit = default_output_limit if request.output_limit is None else request.output_limit
    sound = "audio" in request.unbounded_input
    return UsageMetrics(
        model=request.model,
        **{"input_audio_tokens" if sound else _WRITE_BUCKETS[request.cache_write]: capped(text)},
        input_image_tokens=capped(request.images * image_tokens),
        **{"output_audio_tokens" if sound else "output_tokens": capped(limit * request.choices)},
        output_image_tokens=capped(request.output_images * image_tokens),
        web_search_calls=request.web_searches,
        service_tier=served_tier(None, request=request),
        speed=request.speed,
    )


def estimate_usage(
    request: CallRequest,
    *,
    delivered_bytes: int,
    known: UsageReading | None = None,
    input_tokens: int | None = None,
    image_tokens: int = IMAGE_TOKENS,
) -> UsageMetrics:
    """What a call probably used whose usage is missing, and at least what is known of it.

    `delivered_bytes` is the text that reached the client (`UsageReading.delivered_bytes`), `known` a reading
    that is not final: its input stands, and its output is the least. `input_tokens` replaces the estimate by
    bytes. A request that has a `typical` use of its own is taken to have had that.
    """
    output = typical_text_tokens(delivered_bytes)
    if known is not None and known.usage is not None:
        usage = known.usage
        missing = max(0, output - usage.total_output_tokens)
        return usage.model_copy(update={"output_tokens": capped(usage.output_tokens + missing)})
    if request.typical is not None:
        return request.typical
    text = typical_text_tokens(request.input_bytes) if input_tokens is None else input_tokens
    return UsageMetrics(
        model=request.model,
        input_tokens=capped(text),
        input_image_tokens=capped(request.images * image_tokens),
        output_tokens=capped(output),
        web_search_calls=min(1, request.web_searches),
        service_tier=served_tier(known.service_tier if known is not None else None, request=request),
        speed=request.speed,
    )
