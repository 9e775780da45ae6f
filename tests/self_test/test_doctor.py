"""`ducto doctor`, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

APP = """
import os

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from ducto import CreditManager, MemoryStore, MeteringMiddleware
from ducto.middleware.lifespan import credit_lifespan

PROVIDER = os.environ["OPENAI_BASE_URL"]
assert os.environ["OPENAI_API_KEY"] == "ducto-doctor"
manager = CreditManager(MemoryStore())


async def own(app):
    await manager.publish_pricing({"models": {"m": {"unit": "credits", "input": 1000000, "output": 2000000}}})
    await manager.add_credits("alice", 100_000, "grant")
    yield


def make(*paths):
    from contextlib import asynccontextmanager

    app = FastAPI(lifespan=credit_lifespan(manager, inside=asynccontextmanager(own)))
    app.add_middleware(
        MeteringMiddleware,
        manager=manager,
        identify=lambda scope: "alice" if (b"x-key", b"secret") in scope["headers"] else None,
        unmetered="log",
    )
    for path in paths:

        @app.post(path)
        async def chat(request: Request):
            body = {**await request.json(), "stream": False}
            async with httpx.AsyncClient() as client:
                answer = await client.post(PROVIDER + "/chat/completions", json=body)
            return JSONResponse(answer.json(), answer.status_code)

    return app


good = make("/v1/chat/completions")


def bad():
    return make("/v1/chat/completions", "/v1/rerank")


unmetered = FastAPI()


def broken():
    raise KeyError("SETTING")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "canary_app.py").write_text(APP, encoding="utf-8")
    return tmp_path


def doctor(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ducto", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OPENAI_API_KEY": "a real one"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_gateway_passes_with_the_prices_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCTO_STORE", "postgresql://nobody@localhost:1/none")  # Not what the file is tried out on.
    pricing = tmp_path / "pricing.json"
    pricing.write_text(json.dumps({"models": {"acme-*": {"unit": "usd", "input": "1", "output": "2"}}}))
    ended = doctor("--pricing", str(pricing))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "acme-canary" in ended.stdout
    assert "Every model route is metered, or refused." in ended.stdout


def test_the_gateway_with_a_model_that_has_no_price() -> None:
    ended = doctor("--store", "memory", "--model", "unheard-of", "--json")
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    found = {one["verdict"] for one in report["results"] if one["path"] == "/v1/chat/completions"}
    assert found == {"untested"}
    assert "price_unknown" in report["results"][0]["detail"]


@pytest.mark.parametrize(("app", "code"), [("canary_app:good", 0), ("canary_app:bad", 1)])
def test_an_app(folder: Path, app: str, code: int) -> None:
    ended = doctor(app, "--user", "alice", "--header", "x-key: secret", folder=folder)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ("unmetered" in ended.stdout) == (code == 1)
    assert ("/v1/rerank" in ended.stdout) == (code == 1)


def test_the_findings_as_json(folder: Path) -> None:
    ended = doctor("canary_app:bad", "--user", "alice", "--header", "x-key: secret", "--json", folder=folder)
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    assert not report["ok"]
    assert {one["path"] for one in report["results"] if one["problem"]} == {"/v1/rerank"}
    assert all(one["advice"] for one in report["results"] if one["problem"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["canary_app:unmetered"], "--manager"),
        (["canary_app:missing"], "cannot be loaded"),
        (["canary_app:broken"], "KeyError: 'SETTING'"),
        (["canary_app"], "module:attribute"),
        (["canary_app:good", "--header", "nonsense"], "name: value"),
        (["canary_app:good", "--pricing", "p.json"], "built-in gateway"),
        (["--pricing", "missing.yaml"], "cannot be read"),
        (["--store", "postgresql://nobody@localhost:1/none", "--pricing", "p.json"], "leave --store out"),
    ],
)
def test_what_cannot_be_tried_is_said_in_a_sentence(folder: Path, arguments: list[str], told: str) -> None:
    ended = doctor(*arguments, folder=folder)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
