"""A hook of a module of its own: a subclass with teams, LiteLLM's costs, paid cache hits and unmetered calls."""

from __future__ import annotations

import contextlib
import signal

import httpx
import pytest

from ducto.testing.simulator import Fault
from tests.litellm.support import CHAT, START, Account, chat_body, open_account, scripted


async def test_subclass_refuses_too(own_account: Account) -> None:
    """LiteLLM calls some hooks only where an instance's own class defines them."""
    async with open_account(own_account.site, credits=0) as poor:
        assert (await poor.chat()).status_code == 402
        assert (await poor.chat(stream=True)).status_code == 402
    assert own_account.site.simulator.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "dollars"), [("m", (0.15, 0.60)), ("only-litellm-knows", (0.40, 1.60))])
async def test_cost_that_litellm_reckons(
    own_account: Account, model: str, dollars: tuple[float, float], stream: bool
) -> None:
    """A credit is a millionth of a dollar, and these are dollars for a million tokens."""
    assert (await own_account.chat(model=model, stream=stream)).status_code == 200
    reply = own_account.reply().reply
    assert reply is not None
    exact = dollars[0] * reply.input_tokens + dollars[1] * reply.output_tokens
    assert exact <= await own_account.spent() < exact + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_cost_of_0_for_a_model_that_litellm_does_not_know_is_not_believed(
    own_account: Account, stream: bool
) -> None:
    assert (await own_account.chat(model="by-deployment", stream=stream)).status_code == 200
    assert await own_account.spent() == own_account.cost(input_credits=3, output_credits=4)


async def test_model_that_nobody_can_price_is_refused(own_account: Account) -> None:
    answer = await own_account.chat(model="nobody-knows")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "price_unknown"


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_from_the_cache_is_charged_where_that_is_wanted(own_account: Account, stream: bool) -> None:
    body = chat_body(stream=stream, cache={"use-cache": True})
    for _ in range(2):
        assert "word8" in (await own_account.post(CHAT, body)).text
    assert len(own_account.site.simulator.requests) == 1
    await own_account.spent(rows=2)
    first, second = await own_account.charges()
    assert first.charged == second.charged > 0


async def test_member_spends_from_the_pool_of_the_keys_team(own_account: Account) -> None:
    manager, user = own_account.manager, own_account.user
    team = (await manager.create_team("a team", 1_000, idempotency_key=f"team-of-{user}")).team_id
    assert team is not None
    key = {"authorization": f"Bearer sk-{user}@{team}"}
    outsider = await own_account.chat(headers=key)
    assert outsider.status_code == 403
    assert outsider.json()["error"]["code"] == "not_a_member"
    await manager.add_team_member(team, user)
    assert (await own_account.chat(headers=key)).status_code == 200
    standing = await manager.get_available(user, team_id=team)
    assert standing.held == 0
    assert standing.balance < 1_000
    assert (await own_account.store.get_balance(user)).balance == START


async def test_what_cannot_be_metered_is_let_by_where_that_is_wanted(own_account: Account) -> None:
    answer = await own_account.post("/v1/images/generations", {"model": "m", "prompt": "a fish"})
    assert "unmetered_route" not in answer.text
    assert await own_account.spent(rows=0) == 0


async def test_sigterm_loses_nothing(own_account: Account) -> None:
    """The proxy is told to end within a stream, after a plain answer. The last test of this module, as it does."""
    assert (await own_account.chat()).status_code == 200
    plain = await own_account.spent()
    scripted(own_account, Fault(chunks=200, chunk_delay_seconds=0.05))
    with contextlib.suppress(httpx.HTTPError):
        async with own_account.http.stream("POST", CHAT, json=chat_body(stream=True)) as running:
            async for line in running.aiter_lines():
                if "word20" in line:
                    own_account.site.proxy.process.send(signal.SIGTERM)
    assert await own_account.spent(rows=2) > plain + 10
    assert own_account.reply().outcome in ("aborted", "completed")
