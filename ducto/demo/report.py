"""What the demo came to: a row for each step, and whether the books agree. Printed, or as a document."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ducto.demo.environment import USERS, Environment, gateway_environment
from ducto.demo.scenario import Step, play
from ducto.models import VerifyFault

__all__ = ["DemoOutcome", "play_and_audit", "run_demo"]


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The steps, the faults that the store's own audit found, and in sentences all that is not as it should be."""

    steps: list[Step]
    faults: list[VerifyFault]
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems


async def play_and_audit(environment: Environment) -> DemoOutcome:
    """Play all steps, then audit the books: by the store's own audit, and for each user by what the steps cost."""
    bought = {user: (await environment.store.get_balance(user)).balance for user, _ in USERS.values()}
    steps = [step async for step in play(environment)]
    audit = await environment.store.verify()
    problems = [f"{step.title}: not as expected" for step in steps if not step.as_expected]
    problems += [f"{fault.invariant} of {fault.account}: {fault.found}, not {fault.expected}" for fault in audit.faults]
    for user, balance in bought.items():
        problems += await _of_user(environment, steps, user, balance)
    return DemoOutcome(steps, list(audit.faults), problems)


async def _of_user(environment: Environment, steps: list[Step], user: str, at_start: int) -> list[str]:
    """What is wrong with the balance of `user`, if anything."""
    spent = sum(step.actual or 0 for step in steps if step.user == user)
    standing = await environment.store.get_available(user)
    if standing.balance == at_start - spent and not standing.held:
        return []
    return [f"{user}: {at_start} at the start and {spent} spent, but {standing.balance} left"]


async def run_demo(console: Console, *, store_url: str | None = None) -> bool:
    """Play the demo, print what happened; true if every step went as it should and the books agree."""
    async with gateway_environment(store_url=store_url) as environment:
        console.print(
            f"Gateway at [bold]{environment.url}[/bold], in front of a simulated provider; "
            f"books in {environment.store!r}.\n",
            highlight=False,
        )
        outcome = await play_and_audit(environment)
        console.print(_table(outcome.steps))
    if not outcome.ok:
        console.print("\n[bold red]The books do not agree:[/bold red]")
        for problem in outcome.problems:
            console.print(f"  {problem}")
    else:
        console.print("\n[bold green]The books agree:[/bold green] every call charged once, no hold left, audit clean.")
    return outcome.ok


def _table(steps: list[Step]) -> Table:
    table = Table(title="What happened (credits; 1 credit = 1 micro-dollar)")
    table.add_column("step")
    table.add_column("user")
    for name in ("hold", "actual", "balance", "provider calls"):
        table.add_column(name, justify="right")
    table.add_column("what the client saw", overflow="fold")
    table.add_column("")
    for step in steps:
        table.add_row(
            step.title,
            step.user,
            _number(step.hold),
            _number(step.actual),
            _number(step.balance),
            str(step.provider_calls),
            step.seen,
            "[green]ok[/green]" if step.as_expected else "[red]WRONG[/red]",
        )
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
