"""What a receiver's and a consumer's process tell Prometheus, as it asks for it."""

import asyncio
import subprocess
import time
from collections.abc import Mapping, Sequence

import aiohttp
import orjson
import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.local.ports import free_port
from service.signature import sign
from service.simulator.events import sample
from service.telemetry.catalogue import METRICS, PYTHON_METRICS
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.processes import CommandLine
from tests.support.waiting import eventually
from tests.tools import promtool

pytestmark = pytest.mark.timeout(180)

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
PROJECTION = {"projection": "payments"}
DELIVERIES = 5


def environment(deployed: Deployment, *, port: int, admin: int) -> Mapping[str, str]:
    config = deployed.config
    return {
        "STRIPE_WEBHOOK_SECRET": TEST_SECRET.value,
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": config.kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": config.kafka.topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": config.database_url,
        "STRIPE_INGEST__RECEIVER__PORT": str(port),
        "STRIPE_INGEST__ADMIN__PORT": str(admin),
    }


class Scraped:
    """What a process exposed when it was asked."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = families

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"stripe_ingest_{name}" and sample.labels.items() >= labels.items()
        ]
        return sum(found) if found else None

    def traces(self, name: str) -> set[str]:
        return {
            sample.exemplar.labels["trace_id"]
            for family in self.families
            for sample in family.samples
            if sample.name == f"stripe_ingest_{name}_bucket" and sample.exemplar is not None
        }


async def scrape(session: aiohttp.ClientSession, port: int) -> Scraped:
    try:
        async with session.get(f"http://127.0.0.1:{port}/metrics", headers=OPENMETRICS) as response:
            text = await response.text()
    except aiohttp.ClientConnectionError:
        return Scraped(())
    return Scraped(list(text_string_to_metric_families(text)))  # type: ignore[no-untyped-call]


async def linted(session: aiohttp.ClientSession, port: int) -> str:
    """What promtool has to say of the text format."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.read()
    return await asyncio.to_thread(lint, text)


def lint(text: bytes) -> str:
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    return (checked.stdout + checked.stderr).decode()


async def deliver(session: aiohttp.ClientSession, port: int, seed: int) -> int:
    body = orjson.dumps(sample("payment_intent.succeeded", seed=seed, created=int(time.time())))
    headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
    async with session.post(f"http://127.0.0.1:{port}/webhooks/stripe", data=body, headers=headers) as response:
        await response.read()
        return response.status


async def test_a_receiver_and_a_consumer_tell_what_is_declared(deployed: Deployment) -> None:
    port, receiver_admin, consumer_admin = free_port(), free_port(), free_port()
    receiver_env = environment(deployed, port=port, admin=receiver_admin)
    consumer_env = environment(deployed, port=port, admin=consumer_admin)

    async with aiohttp.ClientSession() as session, CommandLine(receiver_env).running("receive") as receiving:

        async def up() -> bool:
            return (await scrape(session, receiver_admin)).value("producer_up") == 1

        async def applied() -> bool:
            return (await scrape(session, consumer_admin)).value("end_to_end_seconds_count") == DELIVERIES

        async def caught_up() -> bool:
            return (await scrape(session, consumer_admin)).value("consumer_lag_records") == 0

        await eventually(up, timeout_seconds=60, what="the receiver is up")
        assert [await deliver(session, port, seed) for seed in range(DELIVERIES)] == [200] * DELIVERIES
        async with CommandLine(consumer_env).running("consume", "payments") as consuming:
            await eventually(applied, timeout_seconds=90, what="all events are applied")
            await eventually(caught_up, timeout_seconds=60, what="the lag is known")
            receiver, consumer = await scrape(session, receiver_admin), await scrape(session, consumer_admin)
            lints = [await linted(session, admin) for admin in (receiver_admin, consumer_admin)]
            consuming.terminate()
            assert await asyncio.wait_for(consuming.wait(), 60) == 0
        receiving.terminate()
        assert await asyncio.wait_for(receiving.wait(), 60) == 0

    declared = METRICS.keys() | PYTHON_METRICS.keys()
    for scraped in (receiver, consumer):
        assert {f"{each.name}_total" if each.type == "counter" else each.name for each in scraped.families} <= declared
        assert scraped.value("build_info") == 1
        assert (scraped.value("event_loop_lag_seconds_count") or 0) > 0
    assert lints == ["", ""]

    assert receiver.value("deliveries_total", outcome="accepted") == DELIVERIES
    assert receiver.value("deliveries_total", outcome="signature_mismatch") == 0
    assert receiver.value("delivery_duration_seconds_count", result="safe") == DELIVERIES
    assert receiver.value("resend_age_seconds_count") == DELIVERIES
    assert receiver.value("publish_duration_seconds_count", outcome="acknowledged") == DELIVERIES
    assert receiver.value("in_flight_limit") == deployed.config.receiver.max_in_flight

    assert consumer.value("consumer_ready", **PROJECTION) == 1
    assert consumer.value("consumer_problem", **PROJECTION) == 0
    assert consumer.value("consumer_lag_seconds", **PROJECTION) == 0
    assert (consumer.value("rebalances_total", **PROJECTION) or 0) >= 1
    assert consumer.value("records_total", outcome="applied") == DELIVERIES
    # Wherever one begins, the trace is that of the record.
    records = await deployed.records(deployed.topics.of("payment"))
    traces = {dict(record.headers)["traceparent"].decode().split("-")[1] for record in records}
    for scraped, name in (
        (receiver, "delivery_duration_seconds"),
        (receiver, "event_age_seconds"),
        (receiver, "publish_duration_seconds"),
        (consumer, "end_to_end_seconds"),
    ):
        assert scraped.traces(name)
        assert scraped.traces(name) <= traces
