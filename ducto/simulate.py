"""What past calls would have come to under another pricing config: revenue then and now, and who would be refused.

Pure: ledger rows in, a comparison out. Each call is priced again from the usage that its row records. What it then
pays is worked out as the store would have: allowance of the month first, the rest from a balance that what went
before under the new prices has already made smaller, or larger, than it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ducto.errors import CapReachedError, InsufficientCreditsError, PricingError
from ducto.ledger.windows import month_of, window_of
from ducto.models import PlanDefinition, PricingConfigData, SpendCap, Transaction
from ducto.models.base import Row
from ducto.pricing import PricingEngine

__all__ = ["ModelComparison", "Refusal", "Simulation", "SimulationResult", "SpendComparison", "UserComparison"]

_SPENDS = ("deduction", "charge")


class SpendComparison(Row):
    """Credits then, and under the new config. `revenue` is what balances paid; `charged` includes what allowances paid.

    `refused` of the `calls` would not have been made; they count as 0 in what is `now`.
    """

    calls: int = 0
    refused: int = 0
    charged_then: int = 0
    charged_now: int = 0
    revenue_then: int = 0
    revenue_now: int = 0


class ModelComparison(SpendComparison):
    """`model` is `None` for calls that named none."""

    model: str | None = None


class UserComparison(SpendComparison):
    """In a team the member counts, as in all reports."""

    user_id: str


class Refusal(Row):
    """Calls of one user that would be refused with `code`; `reason` is that of the first."""

    user_id: str
    team_id: str | None = None
    code: str
    calls: int
    first_at: datetime
    reason: str


class SimulationResult(Row):
    """`without_usage` calls recorded an amount alone and keep it, whatever prices say."""

    since: datetime
    until: datetime
    total: SpendComparison
    models: tuple[ModelComparison, ...] = ()
    users: tuple[UserComparison, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    without_usage: int = 0


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    refused: int = 0
    charged_then: int = 0
    charged_now: int = 0
    revenue_then: int = 0
    revenue_now: int = 0

    def count(self, row: Transaction, bill: _Bill) -> None:
        self.calls += 1
        self.refused += bill.refused is not None
        self.charged_then += row.charged
        self.charged_now += bill.charged
        self.revenue_then += _paid(row)
        self.revenue_now += bill.paid

    def fields(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class _Bill:
    """What a call comes to under the new config: charged in all, of which `allowance`; or why it is refused."""

    charged: int = 0
    allowance: int = 0
    refused: tuple[str, str] | None = None

    @property
    def paid(self) -> int:
        return self.charged - self.allowance


@dataclass(slots=True)
class _Account:
    """What differs between then and now on the account of a user or a team."""

    #: Credits that the balance would have more by now.
    saved: int = 0
    allowance_used: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    #: Spent then and now, by cap and window.
    spent: dict[tuple[str, str | None, datetime], tuple[int, int]] = field(default_factory=dict)


class Simulation:
    """Takes ledger rows one by one, each account's in the order of the ledger, and compares.

    Rows that were booked before `since` are not compared: they tell how much of the month's allowance and of the
    windows of caps had been used by then, so give those from the start of that month on. `plans` are definitions of
    plans that the new config does not have, `caps` those of each user as they are now.

    A call counts as refused where its price is unknown, where a denying cap would be passed that was not passed
    then, or where the balance would end below the new `min_balance` and lower than it did. Under the prices of then
    nobody is refused. Credits that were returned by refunds are not taken off again.
    """

    def __init__(
        self,
        config: PricingConfigData,
        *,
        since: datetime,
        until: datetime,
        plans: Iterable[PlanDefinition] = (),
        caps: Mapping[str, Sequence[SpendCap]] | None = None,
    ) -> None:
        """Raises `PricingConfigError` or `ExpressionError` where `config` is at fault."""
        self._engine = PricingEngine(config)
        self._config = config
        self._since, self._until = since, until
        self._plans = {**{plan.id: plan for plan in plans}, **config.plans}
        self._caps = {user: tuple(cap for cap in given if cap.action == "deny") for user, given in (caps or {}).items()}
        self._accounts: dict[tuple[str | None, str | None], _Account] = defaultdict(_Account)
        self._total = _Sums()
        self._models: dict[str | None, _Sums] = defaultdict(_Sums)
        self._users: dict[str, _Sums] = defaultdict(_Sums)
        self._refused: dict[tuple[str, str | None, str], Refusal] = {}
        self._without_usage = 0

    def add(self, row: Transaction) -> None:
        """Take the next row of the ledger, of whatever type."""
        account = self._accounts[(row.team_id, None if row.team_id is not None else row.user_id)]
        compared = row.type in _SPENDS and self._since <= row.created_at < self._until
        if not compared:
            account.allowance_used[month_of(row.booked_at)] += row.allowance_consumed
            if row.type in _SPENDS:
                self._count_in_caps(account, row, row.charged)
            return
        bill = self._bill(account, row)
        account.saved += _paid(row) - bill.paid
        account.allowance_used[month_of(row.booked_at)] += bill.allowance
        self._count_in_caps(account, row, bill.charged)
        user = row.user_id or ""
        self._without_usage += row.usage is None
        for sums in (self._total, self._models[row.model], self._users[user]):
            sums.count(row, bill)
        if bill.refused is not None:
            self._refuse(row, user, *bill.refused)

    def result(self) -> SimulationResult:
        """The comparison of all rows so far: models by name, users by id, refusals by user."""
        named = sorted(self._models.items(), key=lambda item: (item[0] is None, item[0] or ""))
        return SimulationResult(
            since=self._since,
            until=self._until,
            total=SpendComparison.model_validate(self._total.fields()),
            models=tuple(ModelComparison.model_validate({"model": name, **sums.fields()}) for name, sums in named),
            users=tuple(
                UserComparison.model_validate({"user_id": user, **sums.fields()})
                for user, sums in sorted(self._users.items())
            ),
            refusals=tuple(
                refusal for _, refusal in sorted(self._refused.items(), key=lambda item: (item[0][0], item[0][2]))
            ),
            without_usage=self._without_usage,
        )

    def _bill(self, account: _Account, row: Transaction) -> _Bill:
        plan = self._plan(row)
        try:
            price = self._price(row, plan)
        except PricingError as error:
            return _Bill(refused=(error.code, str(error)))
        # What could not be collected of a call then could not be collected now either.
        charged = min(price, row.charged) if row.unbilled else price
        allowance = 0
        if row.team_id is None and plan is not None:
            left = plan.free_allowance - account.allowance_used[month_of(row.booked_at)]
            allowance = max(0, min(charged, left))
        bill = _Bill(charged=charged, allowance=allowance)
        refused = None if row.forced else self._refusal(account, row, bill)
        return bill if refused is None else _Bill(refused=refused)

    def _plan(self, row: Transaction) -> PlanDefinition | None:
        """The plan of then by its new definition; who had none gets the new default."""
        plan_id = row.plan_id if row.plan_id is not None else self._config.default_plan
        return None if plan_id is None else self._plans.get(plan_id)

    def _price(self, row: Transaction, plan: PlanDefinition | None) -> int:
        if row.usage is None:
            return row.actual
        usage = row.usage
        if usage.model is None and row.model is not None:
            usage = usage.model_copy(update={"model": row.model})
        return self._engine.calculate(usage, plan).total

    def _refusal(self, account: _Account, row: Transaction, bill: _Bill) -> tuple[str, str] | None:
        """Code and reason where the call would not be admitted."""
        for cap, key in self._caps_of(row):
            then, now = account.spent.get(key, (0, 0))
            if now + bill.charged > max(cap.limit, then + row.charged):
                of = "" if cap.model is None else f" for {cap.model}"
                return CapReachedError.code, f"the {cap.cap_type} cap{of} of {cap.limit} credits would be passed"
        ends_at = row.balance_after + account.saved + _paid(row) - bill.paid
        if ends_at < min(self._config.min_balance, row.balance_after):
            return (
                InsufficientCreditsError.code,
                f"the balance would end at {ends_at} credits, below the min_balance of {self._config.min_balance}",
            )
        return None

    def _caps_of(self, row: Transaction) -> list[tuple[SpendCap, tuple[str, str | None, datetime]]]:
        if row.team_id is not None or row.user_id is None:
            return []
        return [
            (cap, (cap.cap_type, cap.model, window_of(cap.cap_type, row.booked_at)[0]))
            for cap in self._caps.get(row.user_id, ())
            if cap.model is None or cap.model == row.model
        ]

    def _count_in_caps(self, account: _Account, row: Transaction, charged_now: int) -> None:
        for _, key in self._caps_of(row):
            then, now = account.spent.get(key, (0, 0))
            account.spent[key] = (then + row.charged, now + charged_now)

    def _refuse(self, row: Transaction, user: str, code: str, reason: str) -> None:
        known = self._refused.get((user, row.team_id, code))
        if known is None:
            known = Refusal(
                user_id=user, team_id=row.team_id, code=code, calls=0, first_at=row.created_at, reason=reason
            )
        self._refused[(user, row.team_id, code)] = known.model_copy(update={"calls": known.calls + 1})


def _paid(row: Transaction) -> int:
    """What the balance paid for a spend."""
    return row.charged - row.allowance_consumed
