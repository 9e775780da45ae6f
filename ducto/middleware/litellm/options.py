"""The choices that a hook leaves to whoever runs the proxy, and who pays for a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, get_args

from ducto.errors import ConfigError
from ducto.middleware.identity import Identity

__all__ = ["PAYERS", "CacheHits", "IdentifyKey", "KeyInfo", "Payer", "PriceSource", "check_choice"]

#: Who pays: the key's user; the pool of the key's team, for the user as its member (the user himself, if the key has
#: no team); or the key itself, as an account of its own.
Payer = Literal["user", "team", "key"]

#: What a call is charged by: the prices of the active pricing config, or the cost that LiteLLM reckons.
PriceSource = Literal["pricing_config", "response_cost"]

#: What an answer out of LiteLLM's cache costs: nothing, as the provider is not paid for it, or as any other answer.
CacheHits = Literal["free", "charge"]


class KeyInfo(Protocol):
    """What is read of LiteLLM's `UserAPIKeyAuth`, which its authentication made; no client can set it."""

    #: The hash of the key.
    api_key: str | None
    user_id: str | None
    team_id: str | None


#: Tells who pays for the calls of a key; `None` refuses the call with 401. May be async.
IdentifyKey = Callable[[Any], Identity | str | Awaitable[Identity | str | None] | None]


def _user(key: KeyInfo) -> Identity | None:
    return Identity(key.user_id) if key.user_id else None


def _team(key: KeyInfo) -> Identity | None:
    return Identity(key.user_id, key.team_id or None) if key.user_id else None


def _key(key: KeyInfo) -> Identity | None:
    return Identity(key.api_key) if key.api_key else None


PAYERS: Mapping[Payer, IdentifyKey] = {"user": _user, "team": _team, "key": _key}


def check_choice(value: object, choices: object, *, name: str) -> None:
    """Raises `ConfigError` unless `value` is one of the `Literal` `choices`."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
