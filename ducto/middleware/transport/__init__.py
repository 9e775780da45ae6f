"""A metered transport for httpx and httpx2, and so for the provider SDKs that are built on them."""

from __future__ import annotations

from ducto.middleware.transport.factory import metered_transport
from ducto.middleware.transport.options import TransportOptions

__all__ = ["TransportOptions", "metered_transport"]
