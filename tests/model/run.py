"""Sending operations to a store, and making the answers of different stores comparable.

A session keeps the ids that its store has minted, in the order in which they were minted, and writes answers down with
names such as `reservation#3` in their place, also within messages. Two stores that obey the same rules give the same
answers, word for word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from ducto.errors import DuctoError
from ducto.ledger.ids import account_tag
from ducto.models import SpendCap
from ducto.stores.base import CreditStore
from ducto.testing.clock import ManualClock
from tests.model.operations import Advance, FromNow, Nth, Operation

__all__ = ["Answer", "Session"]

#: The field of an answer that has a newly minted id, and what kind of id that is.
_MINTED = {"reservation_id": "reservation", "transaction_id": "transaction", "team_id": "team"}
#: A bound, which each store knows as exactly as it can.
_NOT_COMPARED = frozenset({"stable_until"})
_UNKNOWN = {"reservation": "rsv_unknown", "transaction": "txn_unknown", "team": "team_unknown"}


@dataclass(frozen=True)
class Answer:
    """What a call gave: `value` with minted ids by name, `error` where refused, `arguments` as they were sent."""

    value: Any
    error: str | None
    arguments: Mapping[str, Any]
    raw: Any = None

    @property
    def replayed(self) -> bool:
        return getattr(self.raw, "replayed", False)


@dataclass
class Session:
    """One store with its clock and the names of what it minted."""

    store: CreditStore
    clock: ManualClock
    minted: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _UNKNOWN})
    names: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    #: How a team is spelled within other texts: by its id, and by its tag in the ids of its reservations and rows.
    spellings: dict[str, str] = field(default_factory=dict)

    def advance(self, step: Advance) -> None:
        self.clock.advance(step.seconds)

    async def apply(self, operation: Operation) -> Answer:
        """Send the operation as it is meant now."""
        return await self.send(operation.verb, self.resolve(operation.arguments))

    async def apply_together(self, operations: Sequence[Operation]) -> list[Answer]:
        """Send them all at the same time, each as it is meant now; the answers in their order."""
        calls = [(operation.verb, self.resolve(operation.arguments)) for operation in operations]
        raw = await asyncio.gather(*(self._call(verb, arguments) for verb, arguments in calls))
        return [self._answer(arguments, each) for (_, arguments), each in zip(calls, raw, strict=True)]

    async def apply_in_turn(self, operations: Sequence[Operation]) -> list[Answer]:
        """The same one after another: what a reservation of the first mints, the second does not mean."""
        calls = [(operation.verb, self.resolve(operation.arguments)) for operation in operations]
        return [self._answer(arguments, await self._call(verb, arguments)) for verb, arguments in calls]

    async def send(self, verb: str, arguments: Mapping[str, Any]) -> Answer:
        """Send a call with its final arguments: also a call that was sent before, again."""
        return self._answer(arguments, await self._call(verb, arguments))

    async def _call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """What the store answers, or the error that it raises."""
        sent = {"cap": SpendCap(**arguments)} if verb == "set_spend_cap" else arguments
        try:
            return await getattr(self.store, verb)(**sent)
        except DuctoError as error:
            return error

    def _answer(self, arguments: Mapping[str, Any], raw: Any) -> Answer:
        if isinstance(raw, DuctoError):
            told = {"raised": type(raw).__name__, "message": str(raw), "details": getattr(raw, "details", {})}
            return Answer(self._named(told), raw.code, arguments)
        error = getattr(raw, "error", None)
        if error is None:
            self._learn(raw)
        return Answer(self._named(raw), error, arguments, raw)

    def resolve(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        resolved = {name: self._resolved(value) for name, value in arguments.items()}
        if "reservation_id" in resolved and resolved.get("user_id") is None:
            resolved["user_id"] = self.owners.get(resolved["reservation_id"], "ann")
        return resolved

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Nth):
            known = self.minted[value.kind]
            return known[value.number % len(known)] if known else _UNKNOWN[value.kind]
        return self.clock() + timedelta(seconds=value.seconds) if isinstance(value, FromNow) else value

    def _learn(self, raw: Any) -> None:
        for attribute, kind in _MINTED.items():
            minted = getattr(raw, attribute, None)
            if minted is not None and minted not in self.names:
                self.names[minted] = f"{kind}#{len(self.minted[kind])}"
                self.minted[kind].append(minted)
                if kind == "reservation":
                    self.owners[minted] = raw.user_id
                if kind == "team":
                    self.spellings |= {minted: self.names[minted], account_tag("team", minted): self.names[minted]}

    def _named(self, value: Any) -> Any:
        """The answer as plain data with names for minted ids."""
        if isinstance(value, BaseModel):
            names = [name for name in type(value).model_fields if name not in _NOT_COMPARED]
            return {name: self._named(getattr(value, name)) for name in names}
        if isinstance(value, str):
            return self.names.get(value) or self._spelled(value)
        if isinstance(value, Mapping):
            return {key: self._named(each) for key, each in value.items()}
        return [self._named(each) for each in value] if isinstance(value, (Sequence, frozenset)) else value

    def _spelled(self, text: str) -> str:
        for spelling, name in self.spellings.items():
            text = text.replace(spelling, name)
        return text
