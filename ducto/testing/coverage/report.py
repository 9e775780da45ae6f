"""What the self-test found, route by route."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ADVICE", "PROBLEMS", "RouteResult", "SelfTestReport", "Verdict"]

Verdict = Literal["metered", "refused", "unmetered", "estimated", "wrong_amount", "held", "failed", "untested"]

#: Verdicts that fail the test, `untested` among them: what was not tried is not known to be metered.
PROBLEMS: frozenset[Verdict] = frozenset({"unmetered", "estimated", "wrong_amount", "held", "failed", "untested"})

#: What to do about each.
ADVICE: dict[Verdict, str] = {
    "metered": "",
    "refused": "",
    "unmetered": "The call was answered and nothing was charged. Put MeteringMiddleware in front of the route and name "
    "it in `routes`, or meter its function with RequireCredits or @metered.",
    "estimated": "The call was charged by an estimate, because its usage was not read. Return the provider's answer "
    "with its usage, or record the usage on the call.",
    "wrong_amount": "The charge is not the price of what was used. Look for a second meter on the same route, another "
    "model's price, or usage that is changed on the way.",
    "held": "Credits stay held after the answer. End the call: settle it or release it on every path.",
    "failed": "The route failed, so it is not known whether it is metered. See the detail, and the app's log.",
    "untested": "The canary was refused, so it is not known whether the route is metered. Give it what the detail "
    "asks for: authentication by headers, credits, a model that has a price, or a body of its own.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteResult:
    """What became of one canary. Amounts are credits."""

    path: str
    #: `plain`, `stream` or `websocket`.
    mode: str
    verdict: Verdict
    status: int | None = None
    #: The price of what was used, where that is known.
    expected: int | None = None
    charged: int = 0
    detail: str = ""

    @property
    def is_problem(self) -> bool:
        return self.verdict in PROBLEMS

    @property
    def advice(self) -> str:
        """What to do."""
        return ADVICE[self.verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestReport:
    """`ok` if every model route was tried, and is metered or refused."""

    results: tuple[RouteResult, ...]
    #: Routes that take work and do not look like a model's: nothing was sent to them. Give one that calls a model a
    #: canary of its own.
    not_tried: tuple[str, ...]
    #: The model that the canaries asked for.
    model: str

    @property
    def problems(self) -> tuple[RouteResult, ...]:
        return tuple(result for result in self.results if result.is_problem)

    @property
    def ok(self) -> bool:
        return bool(self.results) and not self.problems

    def summary(self) -> str:
        """A line for each problem, for the message of an assertion."""
        if not self.results:
            return "no model route was found"
        return "\n".join(
            f"{one.path} ({one.mode}): {one.verdict}, charged {one.charged}"
            + (f" of {one.expected}" if one.expected is not None else "")
            + (f" ({one.detail})" if one.detail else "")
            + f". {one.advice}"
            for one in self.problems
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        results = [{**asdict(one), "problem": one.is_problem, "advice": one.advice} for one in self.results]
        return {"ok": self.ok, "model": self.model, "results": results, "not_tried": list(self.not_tried)}
