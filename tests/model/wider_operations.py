"""Operations for comparing stores beyond the books: many calls at once, reads of rows and lists, versions of prices."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from hypothesis import strategies as st

from ducto.models import ReservationState
from ducto.stores.base import CreditStore
from ducto.usage import UsageMetrics
from tests.model import operations as ops
from tests.model.operations import CONFIGS, USERS, Nth, Operation

__all__ = ["PLAIN_USERS", "batches", "everything", "holds_and_settles", "housekeeping", "lookups", "noted", "versions"]

#: Users whose accounts mostly stay plain (money without expiry, no caps, no plan of their own), and what they get.
PLAIN_USERS = {"pam": 200, "pat": 60, "pip": 20, "pol": 1000}

#: What is written down beside a movement, each where the verb has such an argument.
_NOTES: tuple[Mapping[str, Any], ...] = (
    {"metadata": {"team": "rot & grün 🟢", "tries": [1, -2.5, None, True, {"deep": ""}], "k1": 2**53 - 1}},
    {"metadata": {}, "operation_type": "image", "reason": "bad answer", "pricing_version": "7"},
    {"usage": UsageMetrics(model="large", input_tokens=12, output_tokens=3), "estimated": True},
    {"pricing_version": "1", "reason": "", "metadata": {"idempotency_key": "k1"}},
)

_who = st.sampled_from((None, *PLAIN_USERS, *PLAIN_USERS))


def _for_others(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Operation]:
    return st.tuples(operations, _who).map(_moved)


def _moved(drawn: tuple[Operation, str | None]) -> Operation:
    """The operation as it is, or for a plain user, from whom no team and no feature is asked."""
    operation, user_id = drawn
    if user_id is None:
        return operation
    plain = {"user_id": user_id, "team_id": None, "feature": None}
    own = {name: value for name, value in plain.items() if name in operation.arguments}
    return Operation(operation.verb, {**operation.arguments, **own})


def _noted(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Operation]:
    """Half of them with what a call may say besides."""
    return st.tuples(operations, st.sampled_from((None, *_NOTES))).map(
        lambda drawn: Operation(drawn[0].verb, {**drawn[0].arguments, **_fitting(drawn[0].verb, drawn[1] or {})})
    )


def _fitting(verb: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(getattr(CreditStore, verb)).parameters
    return {name: value for name, value in notes.items() if name in known}


def _unforced(operation: Operation) -> Operation:
    """Forced charges travel apart from the others, so that the order among them is not kept."""
    return Operation(operation.verb, {**operation.arguments, "force": False})


_reservations = st.integers(-8, -1).map(lambda number: Nth("reservation", number))


def _of_one_user(operations: Sequence[Operation]) -> Sequence[Operation]:
    """All of them for the user of the first."""
    return [_moved((operation, operations[0].arguments["user_id"])) for operation in operations]


def _of_recent(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Operation]:
    """For the reservations made last, each by its own user, so that several of a batch are found."""
    return st.tuples(operations, _reservations).map(
        lambda drawn: Operation(
            drawn[0].verb, {**drawn[0].arguments, "reservation_id": drawn[1], "user_id": drawn[0].arguments["user_id"]}
        )
    )


def _together(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Sequence[Operation]]:
    return st.lists(operations, min_size=2, max_size=8)


_some_reserves = _together(_noted(_for_others(ops.reserves)))
_some_charges = _together(_noted(_for_others(ops.charges)).map(_unforced))
#: Calls of one verb, sent at the same time: for several users, or all on one account.
batches: st.SearchStrategy[Sequence[Operation]] = st.one_of(
    _some_reserves,
    _some_reserves.map(_of_one_user),
    _together(_noted(_of_recent(ops.deducts))),
    _together(_of_recent(ops.deducts)),
    _together(_of_recent(ops.releases)),
    _some_charges,
    _some_charges.map(_of_one_user),
)


def _hold(drawn: tuple[Operation, str]) -> Operation:
    operation, user_id = drawn
    small = {"amount": operation.arguments["amount"] // 4, "min_balance": 0, "max_concurrent": None}
    return _moved((Operation(operation.verb, {**operation.arguments, **small, "idempotency_key": None}), user_id))


def _settle(operation: Operation) -> Operation:
    return Operation(operation.verb, {**operation.arguments, "user_id": None})


#: Some small holds of one poor user, and then what settles some of them, at the same time.
holds_and_settles: st.SearchStrategy[tuple[Sequence[Operation], Sequence[Operation]]] = st.tuples(
    st.lists(st.tuples(ops.reserves, st.sampled_from(("pat", "pip"))).map(_hold), min_size=2, max_size=5).map(
        _of_one_user
    ),
    st.lists(_of_recent(ops.deducts).map(_settle), min_size=2, max_size=5),
)

#: All of what is due: which part a smaller limit takes is not said.
housekeeping = st.one_of(
    st.sampled_from((False, True)).map(lambda dry: Operation("sweep_expired_credits", {"dry_run": dry})),
    st.sampled_from(("reap_expired_reservations", "prune_reservations")).map(
        lambda verb: Operation(verb, {"limit": 1000})
    ),
)

#: What other verbs write, with notes and for all users.
noted = _noted(st.one_of(_for_others(ops.adds), ops.adjusts, ops.transfers, ops.refunds, ops.team_charges))

_users = st.sampled_from(USERS)
_teams = st.integers(0, 2).map(lambda number: Nth("team", number))
_limits = st.sampled_from((1, 3, 50))
_cursors = st.sampled_from((None, None, "0", "2", "5", "nothing"))
_versions = st.sampled_from((1, "2", "3", "nothing", "0"))


def _calls(verb: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: Operation(verb, drawn))


#: Reads of what is written, as it is written.
lookups = st.one_of(
    _calls("get_balance", user_id=_users),
    _calls("list_transactions", user_id=_users, limit=_limits, cursor=_cursors),
    _calls("list_transactions", team_id=_teams, limit=_limits, cursor=_cursors),
    _calls("get_transaction", transaction_id=st.integers(0, 63).map(lambda number: Nth("transaction", number))),
    _calls("list_spend_caps", user_id=_users),
    _calls("list_plans", include_dropped=st.booleans()),
    _calls("get_active_pricing"),
    _calls("get_pricing_history"),
    _calls("get_pricing_config", version=_versions),
)
versions = st.one_of(
    _calls("activate_pricing", version=_versions),
    _calls(
        "set_active_pricing",
        config=st.sampled_from(CONFIGS),
        label=st.sampled_from((None, "spring", "")),
        expected_version=st.sampled_from((None, 0, 1, "2")),
        idempotency_key=st.sampled_from((None, "k1", "k2")),
    ),
)


def everything(teams: Sequence[str]) -> Iterable[Operation]:
    """Reads that together show all there is of users, teams and prices."""
    for user_id in (*USERS, *PLAIN_USERS):
        for verb in ("get_balance", "get_available", "check_allowance", "get_user_plan", "list_spend_caps"):
            yield Operation(verb, {"user_id": user_id})
        yield Operation("list_transactions", {"user_id": user_id, "limit": 1000})
    for user_id in PLAIN_USERS:
        # Of the others some are in teams, whose ids, by which the listing is ordered, each store makes up.
        for states in (("active",), get_args(ReservationState)):
            yield Operation("list_reservations", {"user_id": user_id, "states": states, "limit": 1000})
    for number in range(len(teams)):
        for verb in ("get_team_balance", "get_team_members", "list_transactions"):
            yield Operation(verb, {"team_id": Nth("team", number)})
    yield Operation("list_plans", {"include_dropped": True})
    yield Operation("get_pricing_history", {})
