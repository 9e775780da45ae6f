"""Before the call: from a request's bytes to an admitted `MeteredCall` and the body to pass on."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

from ducto.errors import CapReachedError, InsufficientCreditsError, UnknownModelError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware.clamp import affordable_output
from ducto.middleware.idempotency import fingerprint
from ducto.middleware.identity import Identity
from ducto.middleware.options import CallOptions
from ducto.middleware.providers import CallRequest, Provider, reserve_usage
from ducto.usage import UsageMetrics

__all__ = ["AdmittedCall", "ReadRequest", "admit", "read_request"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: How often a lowered limit is tried, as other calls may take credits between the look and the reserve.
CLAMP_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request that was understood, and what it may use at most."""

    provider: Provider
    call: CallRequest
    fields: dict[str, Any]
    body: bytes
    #: Tokens of the input by the tokenizer, if there is one.
    input_tokens: int | None
    #: The output limit for one choice: the request's, else the model's, else the configured default.
    output_limit: int

    def worst_case(self, call: CallRequest) -> UsageMetrics:
        """What `call`, a variant of this one, may use at most."""
        return reserve_usage(call, default_output_limit=self.output_limit, input_tokens=self.input_tokens)

    @property
    def output_bound(self) -> int:
        """Tokens of output of all choices together."""
        return self.output_limit * self.call.choices


@dataclass(frozen=True, slots=True)
class AdmittedCall:
    """A call whose hold is made."""

    metered: MeteredCall
    request: ReadRequest
    #: What is passed on instead of the request's body; `None` if that is passed on as it came.
    new_body: bytes | None
    #: We asked for the usage of the stream, so the event that carries it is hidden from the client.
    hide_usage: bool
    clamped_tokens: int | None


async def read_request(body: bytes, *, provider: Provider, manager: CreditManager, options: CallOptions) -> ReadRequest:
    """Understand a request. Raises `ArgumentError`, `ConfigError` without a pricing config, and `StoreError`."""
    fields = provider.parse(body)
    call = provider.read_request(fields, body_bytes=len(body))
    limit = call.output_limit
    if limit is None:
        limit = await _model_limit(manager, call.model) or options.default_output_tokens
    return ReadRequest(provider, call, fields, body, _counted(body, call, options), limit)


async def admit(
    request: ReadRequest, identity: Identity, *, key: str | None, manager: CreditManager, options: CallOptions
) -> AdmittedCall:
    """Reserve for the call, with a lowered output limit if that is wanted and needed.

    Raises what `MeteredCall.start` raises.
    """
    digest = fingerprint(request.body) if key is not None else None

    async def started(call: CallRequest) -> MeteredCall:
        metered = manager.meter(
            identity.user_id,
            estimate=request.worst_case(call),
            operation_type=options.operation_type or request.provider.name,
            idempotency_key=key,
            team_id=identity.team_id,
            model=call.model,
            feature=options.feature,
            fingerprint=digest,
        )
        await metered.start()
        return metered

    try:
        return _admitted(await started(request.call), request, None, options)
    except (InsufficientCreditsError, CapReachedError) as refused:
        if options.clamp is None or request.output_limit == 0:
            raise
        refusal = refused
    floor = max(options.clamp.floor_tokens, request.provider.smallest_output_limit)
    wanted = request.output_limit
    for _ in range(CLAMP_ATTEMPTS):
        tokens = await affordable_output(
            manager,
            identity,
            request.call,
            worst_case=request.worst_case,
            wanted_tokens=wanted,
            floor_tokens=floor,
        )
        if tokens is None:
            break
        try:
            metered = await started(replace(request.call, output_limit=tokens))
        except (InsufficientCreditsError, CapReachedError):
            wanted = tokens
            continue
        return _admitted(metered, request, tokens, options)
    raise refusal


def _admitted(
    metered: MeteredCall, request: ReadRequest, clamped_tokens: int | None, options: CallOptions
) -> AdmittedCall:
    fields, provider = request.fields, request.provider
    if clamped_tokens is not None:
        fields = provider.limit_output(fields, tokens=clamped_tokens)
        request = replace(request, output_limit=clamped_tokens)
    asking = provider.ask_for_usage(fields) if options.include_usage and request.call.stream else None
    if asking is not None:
        fields = asking
    changed = fields is not request.fields
    # In ASCII, because a text may hold half of a surrogate pair, which UTF-8 cannot; JSON's escapes can.
    new_body = json.dumps(fields, separators=(",", ":")).encode("ascii") if changed else None
    return AdmittedCall(metered, request, new_body, asking is not None, clamped_tokens)


async def _model_limit(manager: CreditManager, model: str | None) -> int | None:
    """The most that the model answers with, where its price says so."""
    if model is None:
        return None
    try:
        return (await manager.pricing()).max_output_tokens(model)
    except UnknownModelError:
        # The caller's plan may price it; if not, the reserve says so.
        return None


def _counted(body: bytes, call: CallRequest, options: CallOptions) -> int | None:
    """Tokens of the body; not of one with images, whose data is no text."""
    if options.tokenizer is None or call.images:
        return None
    try:
        return options.tokenizer.count(body.decode("utf-8", "replace"))
    except Exception:
        logger.exception("The tokenizer failed; the bytes of the request are counted instead.")
        return None
