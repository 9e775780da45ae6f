"""The text and the true usage of a simulated answer, a function of the request alone.

The formula, by which a test can know the bill beforehand:

* input tokens: a quarter of the bytes, rounded up, of the input fields as compact JSON (those of `INPUT_FIELDS` that
  are there);
* output tokens: one for each chunk of each choice, `min(chunks, the request's output limit) x n`, none for
  embeddings, `IMAGE_TOKENS` for each image;
* recordings: `RECORDING_BYTES_PER_SECOND` and `AUDIO_TOKENS_PER_SECOND` give their seconds and their input tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ducto.testing.simulator.fault import Fault

__all__ = ["AUDIO_TOKENS_PER_SECOND", "IMAGE_TOKENS", "Reply", "input_tokens_of", "recording_reply", "reply_to"]

INPUT_FIELDS = (
    *("messages", "system", "input", "prompt", "instructions", "tools"),
    *("contents", "systemInstruction", "toolConfig"),
)
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens")
CHOICE_FIELDS = ("n", "candidateCount")
#: Objects of a request in which these fields may be, besides its top.
CONFIGS = ("generationConfig", "inferenceConfig")
IMAGE_TOKENS = 100
RECORDING_BYTES_PER_SECOND = 2_000
AUDIO_TOKENS_PER_SECOND = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What the simulated model says, one piece of text for each token of one choice, and what it used."""

    model: str
    pieces: tuple[str, ...]
    choices: int
    input_tokens: int
    output_tokens: int
    #: The output limit ended the answer.
    stopped_by_limit: bool
    #: Length of a recording that was given.
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def input_tokens_of(body: Mapping[str, Any]) -> int:
    """The input tokens of a request by the formula of this module."""
    fields = {name: body[name] for name in INPUT_FIELDS if body.get(name) is not None}
    size = len(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))
    return -(-size // 4)


def reply_to(body: Mapping[str, Any], fault: Fault, *, with_text: bool = True, model: str | None = None) -> Reply:
    """The reply to a request; `with_text` is false for embeddings, which have no output.

    `model` is the one that the path names, where the body names none.
    """
    places = [body, *(config for name in CONFIGS if isinstance(config := body.get(name), dict))]
    limits = [value for place in places for name in LIMIT_FIELDS if isinstance(value := place.get(name), int)]
    wanted = fault.chunks if with_text else 0
    count = min([wanted, *limits])
    told = [value for place in places for name in CHOICE_FIELDS if isinstance(value := place.get(name), int)]
    choices = max(told, default=1) or 1
    return Reply(
        model=str(body.get("model") if model is None else model),
        pieces=_pieces(fault.text, count),
        choices=choices,
        input_tokens=input_tokens_of(body),
        output_tokens=count * choices,
        stopped_by_limit=count < wanted,
    )


def recording_reply(body: Mapping[str, Any], fault: Fault, *, size_bytes: int) -> Reply:
    """The reply to a recording of `size_bytes`."""
    seconds = size_bytes / RECORDING_BYTES_PER_SECOND
    return Reply(
        model=str(body.get("model")),
        pieces=_pieces(fault.text, fault.chunks),
        choices=1,
        input_tokens=math.ceil(seconds * AUDIO_TOKENS_PER_SECOND),
        output_tokens=fault.chunks,
        stopped_by_limit=False,
        seconds=seconds,
    )


def _pieces(text: str | None, count: int) -> tuple[str, ...]:
    if text is None:
        return tuple(f"word{number} " for number in range(1, count + 1))
    width = -(-len(text) // count) if count else 0
    return tuple(text[number * width : (number + 1) * width] for number in range(count))
