"""Ending a call's books by its bill, without holding up the answer for long, or failing it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ducto.errors import DuctoError
from ducto.meter import MeteredCall
from ducto.middleware.billing import Bill
from ducto.models import DeductionResult
from ducto.usage import UsageMetrics

__all__ = ["SETTLE_WAIT_SECONDS", "close_books"]

logger: logging.Logger = logging.getLogger("ducto.middleware")

#: An answer waits at most so long for its charge; the charge then goes on by itself.
SETTLE_WAIT_SECONDS = 5.0


async def close_books(
    metered: MeteredCall,
    bill: Bill,
    *,
    settle: Callable[[UsageMetrics | int | None, bool], Awaitable[DeductionResult]],
) -> DeductionResult | None:
    """Charge by `settle(actual, estimated)`, or release; the result if it was charged, and in time.

    What fails is logged and not raised: an answer is not taken away because its charge could not be booked.
    """
    try:
        async with asyncio.timeout(SETTLE_WAIT_SECONDS):
            if bill.releases:
                await metered.release()
                return None
            return await settle(metered.reservation.amount if bill.reserved else bill.actual, bill.estimated)
    except TimeoutError:
        logger.warning("The books of reservation %s close late.", metered.admission.reservation_id)
    except DuctoError as error:
        logger.warning("Reservation %s could not be ended: %s", metered.admission.reservation_id, error)
    return None
