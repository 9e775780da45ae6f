"""What the books say of a canary, and what that means."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from ducto.errors import DuctoError
from ducto.manager import CreditManager
from ducto.middleware.found_usage import usage_in_result
from ducto.middleware.identity import Identity
from ducto.models import Transaction
from ducto.testing.coverage.canaries import Canary
from ducto.testing.coverage.report import RouteResult
from ducto.testing.coverage.sending import SocketAnswer
from ducto.testing.simulator import SimulatedRequest
from ducto.usage import UsageMetrics

__all__ = ["BookWatch", "Movement", "judge", "judge_socket"]

#: How long a charge that is not announced by a hold may come after the answer.
LATE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Movement:
    """What one canary did to the books of its user."""

    rows: tuple[Transaction, ...]
    #: What is held more than before, after the wait.
    held: int

    @property
    def charged(self) -> int:
        return sum(row.charged for row in self.rows)


class BookWatch:
    """Reads the books of the user whom the canaries call as. Nobody else may call as that user meanwhile."""

    def __init__(self, manager: CreditManager, identity: Identity, *, settle_seconds: float) -> None:
        self.manager = manager
        self.identity = identity
        self._settle_seconds = settle_seconds
        self._last = 0
        self._held = 0

    async def begin(self) -> None:
        """Note where the books stand."""
        page = await self.manager.list_transactions(self.identity.user_id, team_id=self.identity.team_id, limit=1)
        self._last = page.transactions[0].sequence if page.transactions else 0
        self._held = await self._held_now()

    async def movement(self, *, late_seconds: float = LATE_SECONDS) -> Movement:
        """What happened since `begin`, when what was held is charged or freed, or too much time has passed.

        Where nothing was held, a charge may come up to `late_seconds` later.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            held, rows = await self._held_now() - self._held, await self._rows()
            waited = loop.time() - begun
            if held <= 0 and (rows or waited >= late_seconds):
                # Read once more, because the hold may have been charged between the two reads above.
                return Movement(await self._rows(), 0)
            if waited >= self._settle_seconds:
                return Movement(rows, max(0, held))
            await asyncio.sleep(0.02)

    async def _held_now(self) -> int:
        identity = self.identity
        return (await self.manager.get_available(identity.user_id, team_id=identity.team_id)).held

    async def _rows(self) -> tuple[Transaction, ...]:
        page = await self.manager.list_transactions(self.identity.user_id, team_id=self.identity.team_id, limit=20)
        return tuple(row for row in page.transactions if row.sequence > self._last and row.type == "deduction")


async def judge(
    canary: Canary, answer: httpx.Response, watch: BookWatch, *, seen: list[SimulatedRequest], model: str
) -> RouteResult | None:
    """The verdict on a canary; `None` where the app has no such route. `seen` is what reached the provider for it."""
    code, message = _error_of(answer)
    if answer.status_code in (404, 405) and code != "unmetered_route" and not seen:
        return None
    moved = await watch.movement(late_seconds=LATE_SECONDS if answer.is_success else 0.0)

    def result(verdict: Any, *, expected: int | None = None, detail: str = "") -> RouteResult:
        return RouteResult(
            path=canary.path,
            mode=canary.mode,
            verdict=verdict,
            status=answer.status_code,
            expected=expected,
            charged=moved.charged,
            detail=detail,
        )

    if moved.held:
        return result("held", detail=f"{moved.held} credits")
    if not answer.is_success:
        if not seen and code == "unmetered_route":
            return result("refused")
        verdict = "failed" if answer.status_code >= 500 else "untested"
        return result(verdict, detail=f"{answer.status_code} {code or ''}: {message}".strip())
    expected = await _price(canary, answer, watch, seen=seen, model=_model_of(moved, model))
    if not moved.rows:
        # A call of a model that costs nothing leaves a row of amount 0 all the same.
        return result("unmetered", expected=expected)
    if len(moved.rows) > 1:
        return result("wrong_amount", expected=expected, detail=f"charged {len(moved.rows)} times")
    if canary.tells_usage and moved.rows[0].estimated:
        return result("estimated", expected=expected)
    if expected is not None and moved.charged != expected:
        return result("wrong_amount", expected=expected)
    return result("metered", expected=expected)


async def judge_socket(path: str, answer: SocketAnswer, watch: BookWatch) -> RouteResult:
    """The verdict on a WebSocket: refused before it is accepted, or charged for."""
    moved = await watch.movement(late_seconds=LATE_SECONDS if answer.accepted else 0.0)
    if not answer.accepted:
        return RouteResult(path=path, mode="websocket", verdict="refused", status=answer.status)
    if moved.held:
        return RouteResult(path=path, mode="websocket", verdict="held", detail=f"{moved.held} credits")
    if not moved.rows and not answer.spoke:
        detail = "it was accepted and said nothing"
        return RouteResult(path=path, mode="websocket", verdict="untested", detail=detail)
    return RouteResult(
        path=path, mode="websocket", verdict="metered" if moved.rows else "unmetered", charged=moved.charged
    )


def _model_of(moved: Movement, model: str) -> str:
    """The model that the ledger says; an app may call another than the client asks for."""
    return next((row.model for row in moved.rows if row.model is not None), model)


async def _price(
    canary: Canary, answer: httpx.Response, watch: BookWatch, *, seen: list[SimulatedRequest], model: str
) -> int | None:
    """The price of what was truly used: by the provider's script, else by the answer; `None` if neither says it."""
    usages: list[UsageMetrics] = []
    if seen and canary.text_only:
        usages = [
            UsageMetrics(model=model, input_tokens=one.reply.input_tokens, output_tokens=one.reply.output_tokens)
            for one in seen
            if one.reply is not None
        ]
    elif not seen and canary.mode == "plain":
        found = usage_in_result(_json(answer), model=model)
        usages = [found.usage] if found is not None else []
    if not usages:
        return None
    try:
        prices = [await watch.manager.price(usage, user_id=watch.identity.user_id) for usage in usages]
    except DuctoError:
        return None
    return sum(price.total for price in prices)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return {}


def _error_of(answer: httpx.Response) -> tuple[str | None, str]:
    """Code and message of an error body: of one of the dialects that refusals are told in, or of FastAPI."""
    body = _json(answer)
    if not isinstance(body, dict):
        return None, answer.text[:200]
    error = body.get("error", body.get("detail", body))
    if not isinstance(error, dict):
        return None, str(error)[:200]
    reasons = error.get("details")
    # In Gemini's dialect `code` is the status, and the reason stands below.
    first = reasons[0] if isinstance(reasons, list) and reasons else None
    reason = first.get("reason") if isinstance(first, dict) else None
    code = next((one for one in (reason, error.get("code")) if isinstance(one, str)), None)
    return code, str(error.get("message", ""))[:200]
