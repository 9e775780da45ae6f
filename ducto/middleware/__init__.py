"""Doors that meter calls where they pass: ASGI middleware, and what it is made of."""

from __future__ import annotations

from ducto.middleware.answers import AnswerCache, InProcessAnswers, KeptAnswer
from ducto.middleware.asgi import MeteringMiddleware
from ducto.middleware.clamp import ClampToAfford
from ducto.middleware.identity import Identify, Identity, trusted_header
from ducto.middleware.lifespan import credit_lifespan
from ducto.middleware.providers import DEFAULT_ROUTES, Provider, Tokenizer
from ducto.middleware.redis_answers import RedisAnswers
from ducto.middleware.routes import FREE_PATHS, Unmetered
from ducto.middleware.websocket import MeteredSocket, MeterWebSocket

__all__ = [
    "DEFAULT_ROUTES",
    "FREE_PATHS",
    "AnswerCache",
    "ClampToAfford",
    "Identify",
    "Identity",
    "InProcessAnswers",
    "KeptAnswer",
    "MeterWebSocket",
    "MeteredSocket",
    "MeteringMiddleware",
    "Provider",
    "RedisAnswers",
    "Tokenizer",
    "Unmetered",
    "credit_lifespan",
    "trusted_header",
]
