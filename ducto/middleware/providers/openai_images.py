"""OpenAI's images: made from a prompt, from other images, or as variations of one.

Models that are priced by tokens tell them, and the output is image tokens; those that are priced by the image tell
nothing, and are charged by the number that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ducto.middleware.providers.base import CallRequest, Dialect, StreamReader, UsageReading
from ducto.middleware.providers.estimate import IMAGE_TOKENS, bound_text_tokens, typical_text_tokens
from ducto.middleware.providers.forms import FormProvider, file_sizes
from ducto.middleware.providers.jsontext import load_object, text_bytes
from ducto.middleware.providers.numbers import FieldReader, Problems, capped, object_at, request_count, text_at
from ducto.middleware.providers.openai_usage import usage_in_tail
from ducto.middleware.providers.requests import as_object, read_flag, read_model
from ducto.middleware.providers.splitting import split_input
from ducto.middleware.sse import SSEEvent
from ducto.usage import UsageMetrics

__all__ = ["OpenAIImages", "read_image_tokens"]

#: What an image of middle size and quality takes, to estimate by.
TYPICAL_IMAGE_TOKENS = 1_600
_TOTALS = ("input_tokens", "output_tokens")


class OpenAIImages(FormProvider):
    """`/v1/images/generations`, `/v1/images/edits` and `/v1/images/variations`."""

    name: ClassVar[str] = "openai.images"
    dialect: ClassVar[Dialect] = "openai"
    number_fields: ClassVar[frozenset[str]] = frozenset({"n", "partial_images"})

    def read_request(self, body: object, *, body_bytes: int) -> CallRequest:
        fields = as_object(body)
        model, wanted = read_model(fields), request_count(fields, "n", minimum=1) or 1
        given = len(file_sizes(fields, "image", "mask")) + _named_images(fields)
        prompt = text_bytes(fields.get("prompt"))

        def usage(text_tokens: int, image_tokens: int) -> UsageMetrics:
            return UsageMetrics(
                model=model,
                input_tokens=text_tokens,
                input_image_tokens=capped(given * image_tokens),
                output_image_tokens=capped(wanted * image_tokens),
                image_count=wanted,
            )

        return CallRequest(
            model=model,
            stream=read_flag(fields, "stream"),
            output_limit=0,
            choices=wanted,
            input_bytes=prompt,
            images=given,
            worst_case=usage(bound_text_tokens(prompt), IMAGE_TOKENS),
            typical=usage(typical_text_tokens(prompt), TYPICAL_IMAGE_TOKENS),
        )

    def usage_from_body(self, body: object, *, request: CallRequest) -> UsageReading:
        if not isinstance(body, dict):
            return UsageReading(problems=("the answer is no JSON object",))
        made = body.get("data")
        problems = Problems()
        usage = _read_usage(body, images=len(made) if isinstance(made, list) else 0, request=request, problems=problems)
        return _reading(usage, final=usage is not None, problems=problems)

    def stream_reader(self, *, request: CallRequest) -> StreamReader:
        return _ImagesStream(request=request)


class _ImagesStream(StreamReader):
    """Each image comes whole, with its usage, in an event of its own that is mostly too large to be kept."""

    def __init__(self, *, request: CallRequest) -> None:
        super().__init__(request=request)
        self._usage: UsageMetrics | None = None
        self._images = 0
        self._untold = False

    def feed(self, event: SSEEvent) -> bool:
        if not event.data or event.data.startswith(b"[DONE]"):
            return False
        body = _told_in_large(event) if event.truncated else load_object(event.data)
        if body is None:
            self.problems.add("an event of the stream is no JSON object")
            return False
        kind = text_at(body, "type") or event.event
        if kind.endswith(".completed"):
            self._images += 1
            usage = _read_usage(body, images=1, request=self.request, problems=self.problems)
            self._untold = self._untold or usage is None
            if usage is not None:
                self._usage = usage if self._usage is None else _sum(self._usage, usage)
            self.finished = self._images >= self.request.choices
        elif kind == "error" or body.get("error"):
            self.failed = True
        return False

    def reading(self) -> UsageReading:
        return _reading(self._usage, final=self._images > 0 and not self._untold, problems=self.problems)


def read_image_tokens(fields: FieldReader) -> tuple[int, int, int, int] | None:
    """`(text in, images in, text out, images out)` of a usage object; `None` where it lacks a total.

    Input without details is text, and output without details is images.
    """
    total_in, total_out = fields.count("input_tokens"), fields.count("output_tokens")
    if total_in is None or total_out is None:
        return None
    images_in = fields.nested("input_tokens_details").part("image_tokens")
    details = fields.nested("output_tokens_details")
    text_out, images_out = details.part("text_tokens"), details.count("image_tokens")
    if images_out is None:
        images_out = max(0, total_out - text_out)
    # What no detail names is taken to be an image.
    images_out += max(0, total_out - text_out - images_out)
    return max(0, total_in - images_in), images_in, text_out, images_out


def _read_usage(
    body: Mapping[str, Any], *, images: int, request: CallRequest, problems: Problems
) -> UsageMetrics | None:
    if not isinstance(body.get("usage"), dict):
        return None
    found = read_image_tokens(FieldReader(object_at(body, "usage"), path="usage", problems=problems))
    if found is None:
        problems.add("usage lacks input_tokens or output_tokens")
        return None
    text_in, images_in, text_out, images_out = found
    # Drawing by another model, which writes SVG, is told apart and is text.
    drawn = FieldReader(object_at(body, "svg_usage"), path="svg_usage", problems=problems)
    split = split_input(text_in + images_in, image=images_in, problems=problems)
    return UsageMetrics(
        model=request.model,
        input_tokens=capped(split.fresh + drawn.part("input_tokens")),
        input_image_tokens=split.image,
        output_tokens=capped(text_out + drawn.part("output_tokens")),
        output_image_tokens=images_out,
        image_count=images,
    )


def _sum(first: UsageMetrics, second: UsageMetrics) -> UsageMetrics:
    names = ("input_tokens", "input_image_tokens", "output_tokens", "output_image_tokens", "image_count")
    return first.model_copy(update={name: capped(getattr(first, name) + getattr(second, name)) for name in names})


def _reading(usage: UsageMetrics | None, *, final: bool, problems: Problems) -> UsageReading:
    used = 0 if usage is None else usage.total_input_tokens + usage.total_output_tokens + usage.image_count
    return UsageReading(usage=usage, final=final, explicit_zero=final and used == 0, problems=problems.as_tuple())


def _told_in_large(event: SSEEvent) -> dict[str, Any]:
    """The kind and the usage of an event of which only the ends were kept."""
    kind = event.event
    for name in ("image_generation.completed", "image_edit.completed"):
        if name.encode() in event.data[:512] or name.encode() in event.tail[-1024:]:
            kind = name
    usage = [usage_in_tail(piece, name="usage", totals=_TOTALS) for piece in (event.tail, event.data)]
    return {"type": kind, "usage": usage[0] or usage[1]}


def _named_images(fields: Mapping[str, Any]) -> int:
    """Images that a JSON request names by address or id."""
    images = fields.get("images")
    return (len(images) if isinstance(images, list) else 0) + isinstance(fields.get("mask"), dict)
