"""The metrics: their values, their few attributes, and the page for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from ducto.errors import ConfigError, CreditError, UnknownModelError
from ducto.gateway import Upstream, build_gateway
from ducto.gateway.metrics import PrometheusMetrics
from ducto.manager import CreditManager
from ducto.stores.memory import MemoryStore
from ducto.telemetry.instruments import MAX_MODELS
from ducto.testing.serving import serve
from ducto.testing.simulator import ProviderSimulator
from ducto.usage import UsageMetrics
from tests.end_to_end.conftest import open_site
from tests.middleware.support import BODIES, CHAT, cost_of, open_books
from tests.telemetry.support import CALL, Telemetry, events_handled, labels

USAGE = UsageMetrics(model="m", input_tokens=10, output_tokens=4)


@asynccontextmanager
async def gateway_of(manager: CreditManager, metrics: PrometheusMetrics) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway for `manager` with `metrics`, in front of a simulated provider."""
    async with serve(ProviderSimulator().app) as provider:
        app = build_gateway(manager, openai=Upstream(provider, api_key="p"), keys={"k": "alice"}, metrics=metrics)
        async with serve(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            yield http


async def test_credits_tokens_and_durations_of_a_call(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        for _ in range(3):
            async with books.manager.meter("alice", estimate=USAGE) as call:
                call.record(USAGE)
    assert telemetry.points("ducto.calls") == {labels(**CALL, ducto__outcome="charged"): 3}
    assert telemetry.points("ducto.credits.reserved") == {labels(**CALL): 3 * 18}
    assert telemetry.points("ducto.credits.charged") == {labels(**CALL): 3 * 18}
    assert telemetry.points("gen_ai.client.token.usage") == {
        labels(**CALL, gen_ai__token__type="input"): (3, 30),
        labels(**CALL, gen_ai__token__type="output"): (3, 12),
    }
    assert telemetry.points("gen_ai.client.operation.duration")[labels(**CALL)][0] == 3
    took = {attributes: count for attributes, (count, _) in telemetry.points("ducto.store.duration").items()}
    assert took == {labels(ducto__verb="reserve"): 3, labels(ducto__verb="settle"): 3}


async def test_refused_credits_are_counted_by_code(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        for _ in range(2):
            with pytest.raises(CreditError):
                await books.manager.reserve("alice", 500_000, model="m")
        with pytest.raises(CreditError):
            await books.manager.charge_credits("alice", 300_000, "call", model="m")
        await events_handled()
    code = "insufficient_credits"
    assert telemetry.points("ducto.credits.refused") == {labels(**CALL, error__type=code): 1_300_000}
    assert telemetry.points("ducto.calls") == {labels(**CALL, ducto__outcome=code): 3}
    assert telemetry.points("ducto.credits.reserved") == {}


async def test_rare_events_are_counted_by_name(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        async with books.manager.meter("alice", estimate=10, model="m") as call:
            call.record(15)
        await events_handled()
    assert telemetry.points("ducto.events") == {labels(ducto__event="credits.overage"): 1}


async def test_names_that_callers_invent_make_no_series(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        for number in range(20):
            with pytest.raises(UnknownModelError):
                await books.manager.reserve("alice", UsageMetrics(model=f"invented-{number}", input_tokens=1))
    assert telemetry.points("ducto.calls") == {
        labels(gen_ai__operation__name="_OTHER", gen_ai__request__model="_OTHER", ducto__outcome="price_unknown"): 20
    }


async def test_models_are_told_apart_up_to_a_number(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager)
        for number in range(MAX_MODELS + 50):
            await books.manager.charge_credits("alice", 1, "call", model=f"model-{number}")
    points = telemetry.points("ducto.credits.charged")
    assert len(points) == MAX_MODELS + 1
    assert points[labels(gen_ai__operation__name="call", gen_ai__request__model="_OTHER")] == 50


async def test_no_metric_names_a_user(telemetry: Telemetry) -> None:
    async with open_books() as books:
        telemetry.instrument(books.manager, user_ids_on_spans=True)
        await books.manager.charge_credits("alice", 1, "call", model="m")
    for name in ("ducto.calls", "ducto.credits.charged", "ducto.store.duration"):
        for attributes in telemetry.points(name):
            assert {key for key, _ in attributes} <= {
                "gen_ai.operation.name",
                "gen_ai.request.model",
                "ducto.outcome",
                "ducto.verb",
            }


async def test_the_gateway_shows_a_page_for_prometheus() -> None:
    async with open_books() as books:
        with PrometheusMetrics(books.manager, path="/figures") as metrics:
            async with gateway_of(books.manager, metrics) as http:
                body = BODIES[CHAT]
                answer = await http.post(CHAT, json=body, headers={"authorization": "Bearer k"})
                assert answer.status_code == 200
                page = await http.get("/figures")
                assert (await http.get("/metrics")).status_code == 404
    assert page.headers["content-type"].startswith("text/plain; version=")
    charged = next(line for line in page.text.splitlines() if line.startswith("ducto_credits_charged_total{"))
    assert 'gen_ai_request_model="m"' in charged
    assert 'gen_ai_operation_name="chat"' in charged
    assert float(charged.split()[-1]) == cost_of(body)
    assert "gen_ai_client_token_usage_bucket" in page.text
    assert "alice" not in page.text


async def test_the_page_may_have_a_port_of_its_own() -> None:
    async with open_books() as books:
        with PrometheusMetrics(books.manager) as metrics:
            async with serve(metrics) as url, httpx.AsyncClient(trust_env=False) as http:
                await books.manager.charge_credits("alice", 4, "call", model="m")
                page = await http.get(url + "/metrics", headers={"accept": "application/openmetrics-text"})
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    assert "ducto_credits_charged_total" in page.text


async def test_without_it_the_gateway_has_no_such_page() -> None:
    async with open_site() as site:
        assert (await site.http.get("/metrics")).status_code == 404


async def test_two_pages_do_not_mix_and_closing_ends_the_measuring() -> None:
    async with open_books() as one, open_books() as other:
        with PrometheusMetrics(one.manager), PrometheusMetrics(other.manager) as second:
            await one.manager.charge_credits("alice", 4, "call", model="m")
            async with httpx.AsyncClient(transport=httpx.ASGITransport(second), base_url="http://page") as http:
                assert "ducto_credits_charged" not in (await http.get("/")).text
        assert not one.manager.events.listening
        second.close()


def test_a_path_needs_a_slash() -> None:
    with pytest.raises(ConfigError, match="slash"):
        PrometheusMetrics(CreditManager(MemoryStore()), path="metrics")
