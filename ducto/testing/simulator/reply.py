"""The text and the true usage of a simulated answer, a function of the request alone.

The formula, by which a test can know the bill beforehand:

* input tokens: a quarter of the bytes, rounded up, of the input fields as compact JSON (`messages`, `system`,
  `input`, `prompt`, `instructions`, `tools`, those that are there);
* output tokens: one for each chunk of each choice, `min(chunks, the request's output limit) x n`, none for
  embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ducto.testing.simulator.fault import Fault

__all__ = ["Reply", "input_tokens_of", "reply_to"]

INPUT_FIELDS = ("messages", "system", "input", "prompt", "instructions", "tools")
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


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

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def input_tokens_of(body: Mapping[str, Any]) -> int:
    """The input tokens of a request by the formula of this module."""
    fields = {name: body[name] for name in INPUT_FIELDS if body.get(name) is not None}
    size = len(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))
    return -(-size // 4)


def reply_to(body: Mapping[str, Any], fault: Fault, *, with_text: bool = True) -> Reply:
    """The reply to a request; `with_text` is false for embeddings, which have no output."""
    limits = [value for name in LIMIT_FIELDS if isinstance(value := body.get(name), int)]
    wanted = fault.chunks if with_text else 0
    count = min([wanted, *limits])
    choices = body.get("n") if isinstance(body.get("n"), int) else 1
    return Reply(
        model=str(body.get("model")),
        pieces=_pieces(fault.text, count),
        choices=choices or 1,
        input_tokens=input_tokens_of(body),
        output_tokens=count * (choices or 1),
        stopped_by_limit=count < wanted,
    )


def _pieces(text: str | None, count: int) -> tuple[str, ...]:
    if text is None:
        return tuple(f"word{number} " for number in range(1, count + 1))
    width = -(-len(text) // count) if count else 0
    return tuple(text[number * width : (number + 1) * width] for number in range(count))
