"""What goes wrong between us and Redis, and how often. Needs no driver, so that anybody may name it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinkCounters", "RedisUnavailable", "ScriptMissing"]


class RedisUnavailable(Exception):  # noqa: N818 - a state that every caller expects and handles, not an error of his
    """Redis did not answer within the budget, refused the command, or the circuit is open.

    Never leaves ducto's Redis parts: whoever asked goes on without Redis. The message names the class of the cause,
    and never the URL, which may have a password.
    """


class ScriptMissing(RedisUnavailable):
    """The server does not know the script by its digest (NOSCRIPT)."""


@dataclass(slots=True)
class LinkCounters:
    """What a link did since it was made. Only ever counts up."""

    #: Commands that were handed in while the circuit was closed.
    commands: int = 0
    #: Round trips that carried them.
    pipelines: int = 0
    #: Commands that ended as `RedisUnavailable` although the circuit was closed when they were handed in.
    failures: int = 0
    #: Commands that the open circuit refused without asking anybody.
    skipped: int = 0
