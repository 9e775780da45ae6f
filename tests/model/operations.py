"""Operations on a credit store as plain values, and the strategies that produce them.

An operation names its verb and arguments; ids that a store mints (reservations, transactions, teams) are given as a
`Nth`, the n-th one minted so far, so that one operation can be sent to several stores that mint different ids. Pools of
users, keys and models are small, so that replays, mismatches and collisions happen all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

__all__ = [
    "CHANGING",
    "CONFIGS",
    "USERS",
    "Advance",
    "FromNow",
    "Nth",
    "Operation",
    "adds",
    "adjusts",
    "advances",
    "caps",
    "charges",
    "deducts",
    "housekeeping",
    "members",
    "plans",
    "prunes",
    "publishes",
    "reads",
    "refunds",
    "releases",
    "renews",
    "reports",
    "reserves",
    "team_charges",
    "teams",
    "transfers",
]


@dataclass(frozen=True)
class Nth:
    """The `number`-th id of this kind that was minted, counted round; negative numbers count from the last."""

    kind: Literal["reservation", "transaction", "team"]
    number: int


@dataclass(frozen=True)
class FromNow:
    """The moment this many seconds after the clock's."""

    seconds: int


@dataclass(frozen=True)
class Operation:
    """One call: the name of a store method and its arguments by name.

    `user_id=None` beside a reservation stands for the user that it was minted for.
    """

    verb: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Advance:
    """Move the clock; negative steps back."""

    seconds: int


USERS = ("ann", "bob", "eve")
MODELS = ("small", "large")
MINUTE, HOUR, DAY = 60, 3600, 86_400

#: What is published: plans change their allowance and limits, vanish, and return.
CONFIGS: tuple[dict[str, Any], ...] = (
    {"plans": {"free": {"free_allowance": 30}, "pro": {"free_allowance": 90, "features": ["vision"]}}},
    {"plans": {"free": {"free_allowance": 10, "max_concurrent": 2}}, "default_plan": "free"},
    {"plans": {"pro": {"free_allowance": 45, "features": ["vision", "tools"], "max_concurrent": 3}}},
    {"plans": {"free": {"free_allowance": 0}, "pro": {"free_allowance": 20}}, "default_plan": "pro"},
)

_users = st.sampled_from(USERS)
_models = st.sampled_from((None, None, *MODELS))
_amounts = st.integers(0, 40)
_keys = st.sampled_from((None, None, None, "k1", "k2", "k3", "k4"))
_floors = st.sampled_from((0, 0, 0, 5, -20))
_nth = st.integers(0, 63)
_few = st.integers(0, 2)
_flags = st.sampled_from((False, False, False, True))
_reservations = _nth.map(lambda number: Nth("reservation", number))
#: Mostly the one that was made last: `-1` counts from the end.
_recent = st.one_of(st.sampled_from((-1, -1, -2, -3)).map(lambda number: Nth("reservation", number)), _reservations)
_transactions = _nth.map(lambda number: Nth("transaction", number))
_teams = _few.map(lambda number: Nth("team", number))
_expiries = st.sampled_from((None, None, 90, 20 * MINUTE, 2 * HOUR, 3 * DAY)).map(
    lambda seconds: None if seconds is None else FromNow(seconds)
)


def _calls(verb: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Operation(verb, drawn))


adds = _calls(
    "add_credits",
    user_id=_users,
    amount=st.sampled_from((1, 10, 25, 60, 100, 0, -1, 2**53 - 1)),
    type=st.sampled_from(("purchase", "grant", "bonus", "adjustment")),
    expires_at=_expiries,
    idempotency_key=_keys,
)
reserves = _calls(
    "reserve_credits",
    user_id=_users,
    amount=_amounts,
    operation_type=st.sampled_from(("chat", "chat", "embed")),
    min_balance=_floors,
    idempotency_key=_keys,
    ttl_seconds=st.sampled_from((1, 30, 600, HOUR, 2 * DAY)),
    grace_seconds=st.sampled_from((0, 60, HOUR)),
    model=_models,
    team_id=st.one_of(st.none(), st.none(), _teams),
    overage=st.sampled_from(("debt", "debt", "clamp", "reject")),
    max_settle=st.sampled_from((None, None, 0, 20, 50)),
    max_concurrent=st.sampled_from((None, None, None, 1, 3)),
    feature=st.sampled_from((None, None, None, "vision")),
    fingerprint=st.sampled_from((None, None, None, "f1", "f2")),
    attempt_id=st.sampled_from((None, "a1", "a1", "a2")),
)
deducts = _calls(
    "deduct_credits",
    user_id=st.sampled_from((None, None, None, None, *USERS)),
    reservation_id=_recent,
    amount=st.one_of(_amounts, st.sampled_from((0, 5, 90, -1))),
    idempotency_key=_keys,
    model=st.sampled_from((None, None, None, "large")),
)
releases = _calls("release_reservation", user_id=st.sampled_from((None, None, None, *USERS)), reservation_id=_recent)
renews = _calls(
    "renew_reservation",
    user_id=st.sampled_from((None, None, None, *USERS)),
    reservation_id=_recent,
    ttl_seconds=st.sampled_from((1, 600, HOUR, DAY)),
)
charges = _calls(
    "charge_credits",
    user_id=_users,
    amount=_amounts,
    idempotency_key=_keys,
    min_balance=_floors,
    force=_flags,
    model=_models,
    feature=st.sampled_from((None, None, None, "tools")),
)
adjusts = _calls(
    "adjust_credits",
    user_id=_users,
    amount=st.integers(1, 40),
    direction=st.sampled_from(("credit", "debit")),
    min_balance=_floors,
    force=_flags,
    idempotency_key=_keys,
)
transfers = _calls(
    "transfer_credits",
    from_user_id=_users,
    to_user_id=_users,
    amount=st.integers(1, 40),
    min_balance=_floors,
    idempotency_key=_keys,
)
refunds = _calls(
    "refund_credits",
    transaction_id=_transactions,
    amount=st.sampled_from((None, None, 1, 5, 15, 0)),
    idempotency_key=_keys,
)
plans = st.one_of(
    _calls("set_user_plan", user_id=_users, plan_id=st.sampled_from((None, "free", "pro", "gone"))),
    _calls(
        "increment_usage_window",
        user_id=_users,
        plan_id=st.sampled_from(("free", "pro")),
        amount=_amounts,
        idempotency_key=_keys,
    ),
)
publishes = _calls(
    "set_active_pricing", config=st.sampled_from(CONFIGS), idempotency_key=st.sampled_from((None, None, "k1"))
)
_cap_types = st.sampled_from(("hourly", "daily", "monthly"))
caps = st.one_of(
    _calls(
        "set_spend_cap",
        user_id=_users,
        cap_type=_cap_types,
        limit=st.sampled_from((0, 20, 50, 100)),
        action=st.sampled_from(("deny", "deny", "warn", "notify")),
        model=_models,
    ),
    _calls("remove_spend_cap", user_id=_users, cap_type=_cap_types, model=_models),
)
teams = st.one_of(
    _calls(
        "create_team",
        name=st.sampled_from(("red", "blue")),
        initial_balance=st.sampled_from((0, 50, 200)),
        idempotency_key=st.sampled_from(("k1", "k2", None)),
    ),
    _calls(
        "add_team_credits",
        team_id=_teams,
        amount=st.integers(1, 100),
        type=st.sampled_from(("purchase", "grant")),
        expires_at=_expiries,
        idempotency_key=_keys,
    ),
    _calls("delete_team", team_id=_teams),
)
_windows = st.sampled_from(("lifetime", "month"))
_member_caps = st.sampled_from((None, None, 0, 30, 80))
members = st.one_of(
    _calls("add_team_member", team_id=_teams, user_id=_users, spend_cap=_member_caps, spend_cap_window=_windows),
    _calls("set_member_cap", team_id=_teams, user_id=_users, spend_cap=_member_caps, spend_cap_window=_windows),
    _calls("remove_team_member", team_id=_teams, user_id=_users),
)
team_charges = _calls(
    "deduct_team",
    team_id=_teams,
    user_id=_users,
    amount=_amounts,
    idempotency_key=_keys,
    min_balance=_floors,
    force=_flags,
    model=_models,
)
prunes = _calls("prune_reservations", limit=st.sampled_from((1, 1000)))
housekeeping = st.one_of(
    _calls("sweep_expired_credits", dry_run=st.booleans()),
    _calls("reap_expired_reservations", limit=st.sampled_from((1, 1000))),
    prunes,
)
#: Reads that show an account as if all that is due had been booked.
reads = st.one_of(
    _calls("get_available", user_id=_users, team_id=st.one_of(st.none(), _teams)),
    _calls("check_spend_cap", user_id=_users, model=_models, amount=st.sampled_from((None, 0, 10))),
    _calls("check_allowance", user_id=_users),
    _calls("get_team_balance", team_id=_teams),
    _calls("get_team_members", team_id=_teams),
    _calls("get_user_plan", user_id=_users),
    _calls("get_reservation", user_id=st.sampled_from((None, None, *USERS)), reservation_id=_recent),
)
_moments = st.sampled_from((-40 * DAY, -DAY, -HOUR, 0)).map(FromNow)
reports = st.one_of(
    _calls("spend_by_user", start=_moments, end=st.just(FromNow(1))),
    _calls("spend_by_model", start=_moments, end=st.just(FromNow(1))),
    _calls("daily_spend", start=_moments, end=st.just(FromNow(1))),
    _calls("top_users", limit=st.sampled_from((1, 10)), start=_moments, end=st.just(FromNow(1))),
    _calls("aggregate_stats", start=_moments, end=st.just(FromNow(1))),
)
_forward = (1, 29, 60, 61, 600, 1300, HOUR, HOUR, 6 * HOUR, DAY, 31 * DAY)


def advances(*, backwards: bool) -> st.SearchStrategy[Advance]:
    steps = (*_forward, -1, -600, -2 * DAY) if backwards else _forward
    return st.sampled_from(steps).map(Advance)


#: Verbs that write where they succeed; all others leave the books as they are.
CHANGING = frozenset(
    {
        "activate_pricing",
        "add_credits",
        "add_team_credits",
        "add_team_member",
        "adjust_credits",
        "charge_credits",
        "create_team",
        "deduct_credits",
        "deduct_team",
        "delete_team",
        "increment_usage_window",
        "prune_reservations",
        "reap_expired_reservations",
        "refund_credits",
        "release_reservation",
        "remove_spend_cap",
        "remove_team_member",
        "renew_reservation",
        "reserve_credits",
        "set_active_pricing",
        "set_member_cap",
        "set_spend_cap",
        "set_user_plan",
        "sweep_expired_credits",
        "transfer_credits",
    }
)
