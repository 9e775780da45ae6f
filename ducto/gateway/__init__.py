"""A metered gateway in front of OpenAI- and Anthropic-compatible providers, as a Starlette app."""

from __future__ import annotations

from ducto.gateway.app import build_gateway
from ducto.gateway.keys import GatewayKeys
from ducto.gateway.upstream import Upstream

__all__ = ["GatewayKeys", "Upstream", "build_gateway"]
