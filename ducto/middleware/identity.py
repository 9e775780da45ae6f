"""Who calls: what `identify` returns, and one ready-made `identify` for services behind a trusted proxy."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.types import Scope

from ducto.errors import ArgumentError, ConfigError
from ducto.middleware.headers import header_values

__all__ = ["Identify", "Identity", "identified", "trusted_header"]


@dataclass(frozen=True, slots=True)
class Identity:
    """The user who pays, or with `team_id` the member who spends from his team's pool."""

    user_id: str
    team_id: str | None = None


#: Tells from the *authenticated* scope who calls; `None` refuses the call with 401. May be async.
Identify = Callable[[Scope], Identity | str | Awaitable[Identity | str | None] | None]


async def identified(identify: Identify, scope: Scope) -> Identity | None:
    """The answer of `identify` as an `Identity`."""
    found = identify(scope)
    if inspect.isawaitable(found):
        found = await found
    return Identity(found) if isinstance(found, str) else found


def trusted_header(
    name: str, *, peers: Sequence[str], team_header: str | None = None
) -> Callable[[Scope], Identity | None]:
    """An `identify` that takes the user from the header `name`, which a proxy in front sets.

    It is believed only from `peers`: addresses or networks, as in `["10.0.0.0/8", "::1"]`. Any other peer, and a
    request without the header, is nobody. A header that comes twice, also in a spelling that some servers take for
    the same name (`x_user_id` for `x-user-id`), is refused with `ArgumentError`, since the proxy did not set both.
    The proxy must remove the header from what clients send. Raises `ConfigError` for `peers` that are none.
    """
    if isinstance(peers, str) or not peers:
        raise ConfigError("peers must be a list of the addresses or networks of the proxies that set the header.")
    try:
        networks = [ipaddress.ip_network(peer) for peer in peers]
    except ValueError as error:
        raise ConfigError(f"peers must be IP addresses or networks: {error}.") from None

    def identify(scope: Scope) -> Identity | None:
        client = scope.get("client")
        if client is None or not _is_within(client[0], networks):
            return None
        user_id = _only_value(scope, name)
        if user_id is None:
            return None
        return Identity(user_id, _only_value(scope, team_header) if team_header is not None else None)

    return identify


def _is_within(host: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _only_value(scope: Scope, name: str) -> str | None:
    wanted = name.lower().encode("latin-1")
    alike = [
        (given, value)
        for given, value in scope["headers"]
        if given.lower().replace(b"_", b"-") == wanted.replace(b"_", b"-")
    ]
    if not alike:
        return None
    if len(alike) > 1 or not header_values(alike, wanted):
        raise ArgumentError(f"The header {name!r} must come once, and spelled so.", field=name)
    try:
        return alike[0][1].decode("utf-8") or None
    except UnicodeDecodeError:
        raise ArgumentError(f"The header {name!r} must be UTF-8.", field=name) from None
