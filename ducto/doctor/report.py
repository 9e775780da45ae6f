"""The doctor's findings, as a table for people or as JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from ducto.testing.coverage import RouteResult, SelfTestReport

__all__ = ["print_json", "print_report"]


def print_json(report: SelfTestReport) -> None:
    """The report as one JSON object on standard output."""
    print(json.dumps(report.as_dict(), indent=2))


def print_report(console: Console, report: SelfTestReport) -> None:
    """A row for each route, and what to do about those that are wrong."""
    table = Table(title=f"A call through each model route, for the model {report.model} (credits)")
    for name in ("route", "mode", "status"):
        table.add_column(name)
    for name in ("expected", "charged"):
        table.add_column(name, justify="right")
    table.add_column("")
    table.add_column("what to do", overflow="fold")
    for one in report.results:
        table.add_row(
            one.path,
            one.mode,
            "-" if one.status is None else str(one.status),
            "-" if one.expected is None else f"{one.expected:,}",
            f"{one.charged:,}",
            f"[{'red' if one.is_problem else 'green'}]{one.verdict}[/]",
            _to_do(one),
        )
    console.print(table)
    if report.not_tried:
        console.print("\nNot tried, because they do not look like a model's route:", highlight=False)
        for name in report.not_tried:
            console.print(f"  {name}", highlight=False, markup=False)
        console.print("Try one that calls a model with a canary of its own, by ducto.testing.self_test.")
    if not report.results:
        console.print("\n[bold red]No model route was found.[/bold red]")
    elif report.problems:
        console.print(f"\n[bold red]{len(report.problems)} of {len(report.results)} calls are not right.[/bold red]")
    else:
        console.print("\n[bold green]Every model route is metered, or refused.[/bold green]")


def _to_do(result: RouteResult) -> str:
    # Details are of the app's making; in brackets they would be taken for markup.
    detail = result.detail.replace("[", "\\[")
    return f"{detail}. {result.advice}" if detail and result.advice else detail or result.advice
