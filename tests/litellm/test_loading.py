"""What importing the hook loads, and what is said where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ducto
from ducto.testing.servers.litellm import litellm_python

ROOT = Path(ducto.__file__).parents[1]

#: Environment -> what is said of it.
WRONG = [
    ({}, "Set DUCTO_STORE"),
    ({"DUCTO_STORE": "nonsense"}, "A store is named as"),
    ({"DUCTO_LITELLM_IDENTITY": "nobody"}, "identity must be one of 'user', 'team', 'key'"),
    ({"DUCTO_LITELLM_PRICE": "mine"}, "price must be one of"),
    ({"DUCTO_LITELLM_CACHE_HITS": "yes"}, "cache_hits must be one of"),
    ({"DUCTO_LITELLM_UNMETERED": "yes"}, "unmetered must be one of"),
    ({"DUCTO_LITELLM_MISSING_USAGE": "free"}, "missing_usage must be one of"),
    ({"DUCTO_LITELLM_DEFAULT_OUTPUT_TOKENS": "-1"}, "must be a whole number of tokens"),
]
#: In one process, since it takes seconds to load LiteLLM.
TELL = """
import json, sys
from ducto.errors import ConfigError
from ducto.middleware.litellm.environment import hook_from_environment
said = []
for environment in json.load(sys.stdin):
    try:
        hook_from_environment(environment)
    except ConfigError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def run(python: str | Path, program: str, given: str = "") -> str:
    done = subprocess.run(
        [str(python), "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_importing_the_module_does_not_load_litellm() -> None:
    program = "import sys, ducto.middleware.litellm; print('litellm' in sys.modules)"
    assert run(litellm_python(), program).strip() == "False"


@pytest.mark.parametrize("name", ["DuctoHook", "hook"])
def test_without_litellm_the_extra_is_named(name: str) -> None:
    # As if it were not installed, also where it is.
    program = f"import sys; sys.modules['litellm'] = None; from ducto.middleware.litellm import {name}"
    assert "pip install 'ducto[litellm]'" in run(sys.executable, program)


def test_wrong_environment_is_told() -> None:
    environments = [{"DUCTO_STORE": "memory", **wrong} if wrong else {} for wrong, _ in WRONG]
    said = json.loads(run(litellm_python(), TELL, json.dumps(environments)))
    assert len(said) == len(WRONG)
    for message, (_, expected) in zip(said, WRONG, strict=True):
        assert expected in message
