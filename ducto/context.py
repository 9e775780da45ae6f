"""Who is acting: `with ducto.acting_as("alice"):` names the user for the metered functions called inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["ActingUser", "acting_as", "acting_user"]


@dataclass(frozen=True, slots=True)
class ActingUser:
    user_id: str
    team_id: str | None = None


_acting: ContextVar[ActingUser | None] = ContextVar("ducto_acting_user", default=None)


@contextmanager
def acting_as(user_id: str, *, team_id: str | None = None) -> Iterator[ActingUser]:
    """Metered functions inside the block act as `user_id`, spending from `team_id`'s pool if it is given.

    It holds for this task (and the tasks that it starts) or thread, and nests: the innermost one counts.
    """
    user = ActingUser(user_id, team_id)
    token = _acting.set(user)
    try:
        yield user
    finally:
        _acting.reset(token)


def acting_user() -> ActingUser | None:
    """The user of the innermost `acting_as`, `None` outside of any."""
    return _acting.get()
