"""What the ledger knows: accounts with their grants, holds, counters and rows, and the book of them all.

Nothing here decides anything; the verbs do, one file each. The state is mutable for speed, and a verb changes it only
after all of its checks have passed, so that a refusal leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from ducto.ledger.ids import account_tag, reservation_id
from ducto.models import (
    CapCheckResult,
    MemberCapWindow,
    Outcome,
    OveragePolicy,
    PlanDefinition,
    PricingConfigResult,
    ReservationState,
    SpendCap,
    TransactionType,
)
from ducto.usage import UsageMetrics

__all__ = [
    "FAR",
    "NEVER",
    "Account",
    "AccountKind",
    "Book",
    "CapCounter",
    "Entry",
    "Grant",
    "Hold",
    "Member",
    "Row",
]

AccountKind = Literal["user", "team"]
#: Later than anything that is ever due.
FAR = datetime.max.replace(tzinfo=UTC)
#: Earlier than any clock.
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Grant:
    """Credits that expire. `held` of `remaining` belongs to open reservations; after the expiry only that is left."""

    id: int
    amount: int
    remaining: int
    held: int
    expires_at: datetime

    @property
    def free(self) -> int:
        return self.remaining - self.held


@dataclass(slots=True)
class Hold:
    """A reservation, and which credits it holds: allowance first, then grants in the order of expiry, then base."""

    id: str
    user_id: str
    team_id: str | None
    amount: int
    allowance_held: int
    base_held: int
    grant_holds: tuple[tuple[int, int], ...]
    operation_type: str
    model: str | None
    plan_id: str | None
    pricing_version: str | None
    overage: OveragePolicy
    min_balance: int
    max_settle: int
    grace: timedelta
    created_at: datetime
    expires_at: datetime
    key: str | None
    attempt_id: str | None
    metadata: dict[str, Any] | None
    #: What caps said of it when it was admitted: a warning, and notices.
    cap_warning: CapCheckResult | None = None
    cap_notices: tuple[CapCheckResult, ...] = ()
    state: ReservationState = "active"
    ended_at: datetime | None = None
    #: The transaction that settled it, and that answer, for replays without a key.
    transaction_id: str | None = None
    settled_key: str | None = None
    reply: Outcome | None = None
    settled_actual: int = 0

    @property
    def money_held(self) -> int:
        return self.amount - self.allowance_held

    @property
    def due_at(self) -> datetime:
        """When the hold ends by itself."""
        return self.expires_at + self.grace


class Row(NamedTuple):
    """One line of the ledger. `base_delta` and `grant_deltas` say which credits moved; they sum to `amount`."""

    sequence: int
    transaction_id: str
    type: TransactionType
    #: What it is called where the events of the book are listed.
    event: str
    user_id: str
    team_id: str | None
    amount: int
    base_delta: int
    grant_deltas: tuple[tuple[int, int], ...]
    balance_after: int
    created_at: datetime
    booked_at: datetime
    actual: int = 0
    charged: int = 0
    unbilled: int = 0
    allowance: int = 0
    refunded: int = 0
    reservation_id: str | None = None
    reserved: int | None = None
    refunds: int | None = None
    counterparty: str | None = None
    operation_type: str | None = None
    plan_id: str | None = None
    late: bool = False
    forced: bool = False
    suspect: bool = False
    expires_at: datetime | None = None
    #: The `min_balance` that the money was admitted with, so that the audit can explain a debt.
    floor: int = 0
    key: str | None = None
    #: What follows no rule ever reads, save that caps may be of a model.
    usage: UsageMetrics | None = None
    estimated: bool = False
    model: str | None = None
    pricing_version: str | None = None
    metadata: dict[str, Any] | None = None
    #: What caps said of a direct charge when it was admitted: a warning, and notices.
    cap_warning: CapCheckResult | None = None
    cap_notices: tuple[CapCheckResult, ...] = ()


@dataclass(slots=True)
class CapCounter:
    """A cap with what its current window has spent and what open reservations admitted in it hold.

    `inherited` is what the window had spent and held when the cap was set, which may be above its limit already.
    """

    cap: SpendCap
    start: datetime
    end: datetime
    spent: int = 0
    held: int = 0
    inherited: int = 0

    def covers(self, instant: datetime, model: str | None) -> bool:
        return self.start <= instant < self.end and (self.cap.model is None or self.cap.model == model)


@dataclass(slots=True)
class AllowanceUse:
    """Allowance of one month: what was used, and what open reservations hold."""

    used: int = 0
    held: int = 0


@dataclass(slots=True)
class MemberUse:
    spent: int = 0
    held: int = 0


@dataclass(slots=True)
class Member:
    """Somebody's standing in a team. One who left stays here inactive: what was spent remains counted."""

    user_id: str
    role: str
    spend_cap: int | None
    spend_cap_window: MemberCapWindow
    joined_at: datetime
    is_member: bool = True
    open_holds: int = 0
    lifetime: MemberUse = field(default_factory=MemberUse)
    months: dict[int, MemberUse] = field(default_factory=dict)

    def use(self, month: int) -> MemberUse:
        """Spent and held in the window that the cap limits."""
        return self.lifetime if self.spend_cap_window == "lifetime" else self.months.get(month, MemberUse())

    def book(self, month: int, *, spent: int = 0, held: int = 0) -> None:
        for use in (self.lifetime, self.months.setdefault(month, MemberUse())):
            use.spent += spent
            use.held += held


@dataclass(slots=True)
class RefundTally:
    """What of a transaction has been refunded: money, and the allowance part (restored or lapsed)."""

    money: int = 0
    allowance: int = 0


class KeyRecord(NamedTuple):
    arguments: tuple[object, ...]
    reply: Outcome


class Entry(NamedTuple):
    """An event of the book that moved no credits. One that did is the row itself, which has the same fields."""

    event: str
    created_at: datetime
    user_id: str
    team_id: str | None
    amount: int
    reservation_id: str
    transaction_id: None = None


class Account:
    """A user's or a team's credits. `grants` has all grants ever, `live` those with credits left, by expiry."""

    __slots__ = (
        "allowances", "base", "base_held", "caps", "deleted", "ended", "entries", "grants", "held", "holds_made", "id",
        "keys", "kind", "last_op_at", "lifetime_purchased", "live", "members", "name", "next_due_at", "open", "origin",
        "plan_id", "prefix", "refunds", "rows", "sequence", "tag",
    )  # fmt: skip

    def __init__(self, kind: AccountKind, account_id: str, entries: list[Row | Entry], *, name: str = "") -> None:
        self.kind: AccountKind = kind
        self.id: str = account_id
        self.tag: str = account_tag(kind, account_id)
        #: How the ids of its reservations begin.
        self.prefix: str = reservation_id(self.tag, "")
        self.name: str = name
        self.deleted: bool = False
        self.plan_id: str | None = None
        self.base: int = 0
        self.base_held: int = 0
        #: All money that open holds hold, of base and grants.
        self.held: int = 0
        self.lifetime_purchased: int = 0
        self.grants: dict[int, Grant] = {}
        self.live: list[Grant] = []
        self.open: dict[str, Hold] = {}
        self.ended: dict[str, Hold] = {}
        self.holds_made: int = 0
        self.allowances: dict[int, AllowanceUse] = {}
        self.caps: list[CapCounter] = []
        self.members: dict[str, Member] = {}
        self.keys: dict[tuple[str, str, str], KeyRecord] = {}
        self.refunds: dict[int, RefundTally] = {}
        self.rows: list[Row] = []
        self.sequence: int = 0
        self.last_op_at: datetime = NEVER
        self.next_due_at: datetime = FAR
        self.entries: list[Row | Entry] = entries
        #: Set on a working copy: the account that it stands in for until it is committed.
        self.origin: Account | None = None

    @property
    def balance(self) -> int:
        return self.base + sum(grant.remaining for grant in self.live) if self.live else self.base

    @property
    def free(self) -> int:
        """What a new call may take. Only right once what is due has been booked (see `due.begin`)."""
        return self.balance - self.held

    def find_hold(self, reservation_id: str) -> Hold | None:
        hold = self.open.get(reservation_id) or self.ended.get(reservation_id)
        return self.origin.ended.get(reservation_id) if hold is None and self.origin is not None else hold

    def allowance_use(self, month: int) -> AllowanceUse:
        use = self.allowances.get(month)
        if use is None:
            use = self.allowances[month] = AllowanceUse()
        return use

    def fork(self) -> Account:
        """A working copy on which what is due can be booked before it is known whether the verb will succeed."""
        copy = object.__new__(Account)
        for name in Account.__slots__:
            setattr(copy, name, getattr(self, name))
        grants = {grant.id: replace(grant) for grant in self.live}
        copy.live = list(grants.values())
        copy.grants = {**self.grants, **grants}
        copy.open = {hold_id: replace(hold) for hold_id, hold in self.open.items()}
        copy.allowances = {month: replace(use) for month, use in self.allowances.items()}
        copy.caps = [replace(counter) for counter in self.caps]
        copy.members = {
            user_id: replace(
                member,
                lifetime=replace(member.lifetime),
                months={month: replace(use) for month, use in member.months.items()},
            )
            for user_id, member in self.members.items()
        }
        copy.ended, copy.rows, copy.entries = {}, [], []
        copy.origin = self
        return copy


class Book:
    """Everything: the accounts, the published pricing, and the entries in the order in which they were written."""

    def __init__(self) -> None:
        self.accounts: dict[tuple[AccountKind, str], Account] = {}
        self.entries: list[Row | Entry] = []
        self.pricing: list[PricingConfigResult] = []
        self.active_pricing: PricingConfigResult | None = None
        self.pricing_keys: dict[str, tuple[tuple[object, ...], str]] = {}
        self.team_keys: dict[str, KeyRecord] = {}
        #: The last definition of every plan that was ever published.
        self.plans: dict[str, PlanDefinition] = {}

    def user(self, user_id: str) -> Account:
        """The user's account; one that is not known yet is kept only when something is written to it."""
        return self.accounts.get(("user", user_id)) or Account("user", user_id, self.entries)

    def team(self, team_id: str) -> Account | None:
        account = self.accounts.get(("team", team_id))
        return None if account is None or account.deleted else account
