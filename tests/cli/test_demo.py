"""`ducto demo` notices books that do not agree, also with `--json`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner

from ducto.cli import app
from ducto.demo import report
from ducto.demo.environment import Environment
from ducto.demo.scenario import Step


async def _a_charge_that_no_step_knows_of(environment: Environment) -> AsyncIterator[Step]:
    """The store's own audit finds nothing wrong with it; what the user's steps cost does not account for it."""
    await environment.store.charge_credits("bob", 5)
    steps: tuple[Step, ...] = ()
    for step in steps:
        yield step


@pytest.mark.parametrize("as_json", [True, False])
def test_each_users_balance_is_audited(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "play", _a_charge_that_no_step_knows_of)
    flags = ["--json"] if as_json else []
    ended = CliRunner().invoke(app, ["demo", "--store", "memory", *flags], env={"COLUMNS": "200"})
    assert ended.exit_code == 1, ended.output
    if as_json:
        told = json.loads(ended.stdout)
        assert (told["ok"], told["steps"], told["faults"]) == (False, [], [])
        (problem,) = told["problems"]
        assert problem.startswith("bob: ")
        assert "0 spent" in problem
    else:
        assert "The books do not agree" in ended.stdout
        assert "bob: " in ended.stdout
