"""The options of a metered transport that are seldom changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ducto.middleware.options import CallOptions
from ducto.middleware.providers import DEFAULT_ROUTES, Provider
from ducto.middleware.routes import FREE_PATHS

__all__ = ["TransportOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions(CallOptions):
    """Those of `MeteringMiddleware` that concern a call, with the same meanings and defaults.

    `routes` maps paths to wire formats. A path counts also behind a prefix, as providers have one:
    `/api/v1/chat/completions` is `/v1/chat/completions`.
    """

    routes: Mapping[str, Provider] = field(default_factory=lambda: DEFAULT_ROUTES)
    free_paths: Collection[str] = FREE_PATHS
