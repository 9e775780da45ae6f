"""`ProcedureStore`: every store method as a call of a SQL function, once for all stores that reach those functions.

It checks the form of arguments, as every store does, before anything is sent; it holds no money rule. A transport
implements `_call` and `setup`.
"""

from __future__ import annotations

from ducto.stores.base import CreditStore
from ducto.stores.procedures.balances import BalanceProcedures
from ducto.stores.procedures.pricing import PricingProcedures
from ducto.stores.procedures.reports import ReportProcedures
from ducto.stores.procedures.spending import SpendingProcedures
from ducto.stores.procedures.teams import TeamProcedures
from ducto.stores.procedures.upkeep import UpkeepProcedures

__all__ = ["ProcedureStore"]


class ProcedureStore(
    SpendingProcedures,
    BalanceProcedures,
    PricingProcedures,
    TeamProcedures,
    ReportProcedures,
    UpkeepProcedures,
    CreditStore,
):
    """The whole interface over SQL functions.

    Calls without an idempotency key get one from the store, so that it may repeat a call whose outcome is not known.
    """
