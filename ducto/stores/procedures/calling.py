"""How a store method becomes a call of a SQL function, and the function's JSON an answer."""

from __future__ import annotations

import functools
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ducto.arguments import check_id
from ducto.errors import CreditError, ReservationNotFoundError, StoreError, TransactionNotFoundError, error_for
from ducto.ledger.ids import account_of
from ducto.models import Outcome, RefusalDetails
from ducto.models.base import Row
from ducto.stores.batching import AccountTurns, Answers, Batcher

__all__ = [
    "ProcedureCaller",
    "account_key",
    "account_of_reservation",
    "check_transaction_id",
    "filled",
    "first_answer",
    "is_minted",
    "mint_attempt",
    "mint_key",
    "returns_refusals",
    "without_minted_key",
]

P = ParamSpec("P")
Result = TypeVar("Result", bound=Outcome)
Model = TypeVar("Model", bound=BaseModel)
Kept = TypeVar("Kept", bound=Row)

#: A call that comes without a key gets one of these, so that it can be repeated when its outcome is not known. They
#: are the store's own affair: reads do not show them.
_MINTED = "ducto-minted-"


def mint_key() -> str:
    return _MINTED + secrets.token_hex(16)


def mint_attempt(key: str | None) -> str | None:
    """An id for one call under its caller's own `key`, so that the store's repetition of it is told apart from a
    replay. A call under a minted key needs none: nobody else has the key.
    """
    return None if key is None else secrets.token_hex(8)


def is_minted(key: object) -> bool:
    return isinstance(key, str) and key.startswith(_MINTED)


def without_minted_key(row: Kept) -> Kept:
    """A row as the caller wrote it: without the key that the store gave it."""
    if is_minted(getattr(row, "idempotency_key", None)):
        shown: Kept = row.model_copy(update={"idempotency_key": None})
        return shown
    return row


def returns_refusals(
    result: type[Result],
) -> Callable[[Callable[P, Awaitable[Result]]], Callable[P, Coroutine[Any, Any, Result]]]:
    """For a method whose result has `error`: what its checks of arguments raise becomes that code."""

    def decorate(method: Callable[P, Awaitable[Result]]) -> Callable[P, Coroutine[Any, Any, Result]]:
        @functools.wraps(method)
        async def answering(*args: P.args, **kwargs: P.kwargs) -> Result:
            try:
                return await method(*args, **kwargs)
            except CreditError as error:
                details = RefusalDetails.model_validate(error.details) if error.details else None
                return result(error=error.code, message=error.message, details=details)

        return answering

    return decorate


_NO_DEFAULTS: Mapping[str, object] = {}


def filled(arguments: dict[str, Any], defaults: Mapping[str, object] = _NO_DEFAULTS) -> dict[str, Any]:
    """The arguments that say something: what is absent is the function's default, or null."""
    return {
        name: value
        for name, value in arguments.items()
        if value is not None and value is not False and value != defaults.get(name)
    }


def account_key(user_id: str, team_id: str | None) -> str:
    """The account that a call locks, in a form that sorts as accounts are locked: teams first, then by id."""
    return f"user:{user_id}" if team_id is None else f"team:{team_id}"


def account_of_reservation(reservation_id: object) -> str:
    """The account that a reservation is held on, as `account_key` has it.

    Raises `ReservationNotFoundError` for what cannot be one of our ids, and perhaps not even be sent.
    """
    if not isinstance(reservation_id, str):
        check_id(reservation_id, name="reservation_id")
    text = str(reservation_id)
    minted = account_of(text) if text.isascii() and text.isprintable() else None
    if minted is None:
        raise ReservationNotFoundError(f"There is no reservation {text[:80]!r} of this user.")
    return f"{minted[0]}:{minted[1]}"


def check_transaction_id(transaction_id: object) -> None:
    """Raise `TransactionNotFoundError` for what cannot be one of our ids, and perhaps not even be sent."""
    if not isinstance(transaction_id, str):
        check_id(transaction_id, name="transaction_id")
    text = str(transaction_id)
    if not text.isascii() or not text.isprintable() or account_of(text) is None:
        raise TransactionNotFoundError(f"There is no transaction {text[:80]!r}.")


def _not_understood(function: str) -> StoreError:
    return StoreError(
        f"The answer of {function} was not understood; the functions in the database may be of another version. "
        "Run `ducto migrate`.",
        retryable=False,
    )


class ProcedureCaller(ABC):
    """What the methods of all concerns need: to call a function, by itself or in a batch."""

    def __init__(self, *, batch_lanes: int = 2) -> None:
        self._batch_lanes = batch_lanes
        self._turns = AccountTurns()
        self._batchers: dict[tuple[str, bool], Batcher[Any]] = {}

    @abstractmethod
    async def _call(
        self, function: str, arguments: Mapping[str, Any], *, settle: bool = False, long: bool = False
    ) -> str | bytes:
        """Call `public.<function>` with named arguments and return its JSON as text.

        Arguments are `None`, `bool`, `int`, `str`, aware `datetime`, or lists and dicts for JSON. A call whose outcome
        is not known is repeated as it is, so every call must be safe to repeat. `settle` marks calls that record work
        that was done: no other call may keep them waiting. `long` marks reads and upkeep over many accounts.
        """

    async def _call_batched(
        self, function: str, account: str, item: dict[str, Any], model: type[Result], *, settle: bool
    ) -> Result:
        """One item of a batched function; every call of `function` must name the same `model`."""
        batcher: Batcher[Result] | None = self._batchers.get((function, settle))
        if batcher is None:
            batcher = Batcher(
                self._sender(function, model, settle=settle),
                self._turns,
                lanes=self._batch_lanes,
                drop_abandoned=not settle,
            )
            self._batchers[function, settle] = batcher
        return await batcher.submit(account, item)

    async def _drain(self, *, timeout_seconds: float) -> None:
        """Wait for the batches that are under way."""
        for batcher in list(self._batchers.values()):
            await batcher.drain(timeout_seconds=timeout_seconds)

    def _sender(
        self, function: str, model: type[Result], *, settle: bool
    ) -> Callable[[Sequence[Any], bool], Coroutine[Any, Any, Answers[Result]]]:
        whole = TypeAdapter(list[model])  # type: ignore[valid-type]

        async def send(items: Sequence[Any], wait: bool) -> Answers[Result]:
            text = await self._call(function, {"p_items": items, "p_wait": wait}, settle=settle)
            return _BatchAnswer(function, text, len(items), model, whole)

        return send

    async def _outcome(
        self,
        model: type[Result],
        function: str,
        arguments: Mapping[str, Any],
        *,
        settle: bool = False,
    ) -> Result:
        """Call a function whose refusals are part of its answer."""
        text = await self._call(function, arguments, settle=settle)
        try:
            result = model.model_validate_json(text)
        except ValidationError:
            raise _not_understood(function) from None
        return first_answer(result, arguments.get("p_idempotency_key"))

    async def _json(self, function: str, arguments: Mapping[str, Any], *, long: bool = False) -> Any:
        """Call a function whose refusals are raised; the answer as plain data."""
        text = await self._call(function, arguments, long=long)
        try:
            answer = json.loads(text)
        except ValueError:
            raise _not_understood(function) from None
        if isinstance(answer, dict) and answer.get("error") is not None:
            try:
                details = RefusalDetails.model_validate(answer.get("details") or {}).model_dump(exclude_none=True)
            except ValidationError:
                raise _not_understood(function) from None
            raise error_for(str(answer["error"]), str(answer.get("message") or answer["error"]), **details)
        return answer

    async def _read(
        self, model: type[Model], function: str, arguments: Mapping[str, Any], *, long: bool = False
    ) -> Model:
        """Call a function that answers one object, or a refusal to raise."""
        return self._parsed(model, function, await self._json(function, arguments, long=long))

    async def _rows(
        self, model: type[Model], function: str, arguments: Mapping[str, Any], *, long: bool = False
    ) -> list[Model]:
        """Call a function that answers `{"rows": [...]}`, or a refusal to raise."""
        rows = self._field(function, await self._json(function, arguments, long=long), "rows")
        if not isinstance(rows, list):
            raise _not_understood(function)
        return [self._parsed(model, function, row) for row in rows]

    async def _value(self, function: str, arguments: Mapping[str, Any], *, long: bool = False) -> Any:
        """Call a function that answers `{"value": ...}`, or a refusal to raise."""
        return self._field(function, await self._json(function, arguments, long=long), "value")

    @staticmethod
    def _field(function: str, answer: Any, name: str) -> Any:
        if not isinstance(answer, dict) or name not in answer:
            raise _not_understood(function)
        return answer[name]

    @staticmethod
    def _parsed(model: type[Model], function: str, data: Any) -> Model:
        try:
            return model.model_validate(data)
        except ValidationError:
            raise _not_understood(function) from None


class _BatchAnswer(Generic[Result]):
    """The text that a batched function answered."""

    def __init__(
        self, function: str, text: str | bytes, items: int, model: type[Result], whole: TypeAdapter[list[Result]]
    ) -> None:
        self._function = function
        self._text = text
        self._items = items
        self._model = model
        self._whole = whole
        # A user's text may contain the word as well; then the slower way is taken for nothing.
        self.all_served = (b"deferred" if isinstance(text, bytes) else "deferred") not in text  # type: ignore[operator]

    def read(self) -> Sequence[Result | None]:
        replies: Sequence[Result | None]
        try:
            if self.all_served:
                replies = self._whole.validate_json(self._text)
            else:
                replies = [
                    None if each.get("deferred") is True else self._model.model_validate(each)
                    for each in json.loads(self._text)
                ]
        except (ValidationError, ValueError, AttributeError, TypeError):
            raise _not_understood(self._function) from None
        if len(replies) != self._items:
            raise _not_understood(self._function)
        return replies


def first_answer(result: Result, key: object) -> Result:
    """Under a key that the store gave itself, a replay is the store's own repetition: the caller's first answer."""
    if result.replayed and is_minted(key):
        return result.model_copy(update={"replayed": False})
    return result
