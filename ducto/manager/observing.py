"""Who watches calls as they are made: told at once and in the caller's context, which handlers of events are not."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from ducto.models import DeductionResult, ReleaseResult

if TYPE_CHECKING:
    from ducto.manager.charges import Charge, Settlement
    from ducto.meter import Admission, CallTerms

__all__ = ["CallObserver", "Observers"]

logger: logging.Logger = logging.getLogger("ducto.manager")

R = TypeVar("R")

#: Told how a step ended: with its result, or with what it raised.
Ended: TypeAlias = Callable[[R | BaseException], None]


class CallObserver(Protocol):
    """Sees the steps of every call. Each method is told that a step begins, and returns who is told how it ended.

    All run on the event loop within the step, so they must be quick. What they raise is logged and goes no further.
    """

    def admission_begins(self, terms: CallTerms) -> Ended[Admission]:
        """A call asks to be admitted, in the context of its caller."""

    def charge_begins(self, what: Settlement | Charge) -> Ended[DeductionResult]:
        """A call is charged, perhaps in another task than it was admitted in."""

    def release_begins(self, reservation_id: str) -> Ended[ReleaseResult]:
        """A hold is freed without a charge."""


class Observers:
    """The observers of one manager. Without any, a step costs no more than a test of an empty tuple."""

    def __init__(self) -> None:
        self._observers: tuple[CallObserver, ...] = ()

    def add(self, observer: CallObserver) -> Callable[[], None]:
        """Show every step from now on to `observer`. Returns the function that ends it."""
        self._observers = (*self._observers, observer)

        def remove() -> None:
            self._observers = tuple(one for one in self._observers if one is not observer)

        return remove

    async def watched(self, begins: Callable[[CallObserver], Ended[R]], work: Callable[[], Awaitable[R]]) -> R:
        """The result of `work`, one step, with the observers told of its beginning and end."""
        if not self._observers:
            return await work()
        told = [ended for one in self._observers if (ended := _begun(begins, one)) is not None]
        try:
            result = await work()
        except BaseException as error:
            _tell(told, error)
            raise
        _tell(told, result)
        return result


def _begun(begins: Callable[[CallObserver], Ended[R]], observer: CallObserver) -> Ended[R] | None:
    try:
        return begins(observer)
    except Exception:
        logger.exception("Observer %r failed; the call itself is not affected.", type(observer).__name__)
        return None


def _tell(told: list[Ended[R]], outcome: R | BaseException) -> None:
    for ended in told:
        try:
            ended(outcome)
        except Exception:
            logger.exception("An observer failed; the call itself is not affected.")
