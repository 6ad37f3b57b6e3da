"""One trace from Stripe's request to the row: what a collector gets from a real receiver and a real consumer."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import aiohttp
import asyncpg
import msgspec
import orjson
import pytest
from structlog.testing import capture_logs

from service.clock import SystemClock
from service.config import TracingConfig
from service.local.kafka import LocalKafka
from service.local.ports import free_port
from service.signature import sign
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.otlp import Collector, Received, collector
from tests.support.processes import CommandLine
from tests.support.receiving import post
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

STRANGERS = f"00-{'a' * 32}-{'b' * 16}-01"


def body(event_id: str) -> bytes:
    intent = {"id": "pi_1", "object": "payment_intent", "status": "succeeded", "receipt_email": "jenny@example.com"}
    return orjson.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": "payment_intent.succeeded",
            "created": int(SystemClock().now().timestamp()),
            "livemode": False,
            "data": {"object": intent},
        }
    )


async def deliver(
    url: str, payload: bytes, *, signed: bool = True, to: str = "/webhooks/test"
) -> tuple[int, dict[str, Any]]:
    signature = sign(payload, TEST_SECRET, int(SystemClock().now().timestamp())) if signed else None
    async with aiohttp.ClientSession(headers={"traceparent": STRANGERS}) as session:
        return await post(session, url + to, payload, signature)


def traced(deployed: Deployment, to: Collector, **settings: Any) -> Deployment:
    tracing = TracingConfig(otlp_endpoint=to.url, **settings)
    return replace(deployed, config=msgspec.structs.replace(deployed.config, tracing=tracing))


async def traceparents(deployed: Deployment, topic: str) -> Sequence[str]:
    return [dict(record.headers)["traceparent"].decode() for record in await deployed.records(topic)]


async def trace_ids(url: str) -> Sequence[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["trace_id"] for row in await connection.fetch("SELECT * FROM event_log ORDER BY arrival_id")]
    finally:
        await connection.close()


def only(spans: Sequence[Received]) -> Received:
    (span,) = spans
    return span


async def test_a_delivery_is_one_trace_from_the_request_to_the_commit(deployed: Deployment) -> None:
    payments = deployed.topics.of("payment")
    async with collector() as sink:
        tracing = traced(deployed, sink)
        with capture_logs() as lines:
            async with tracing.receiving() as url:
                assert (await deliver(url, body("evt_1")))[0] == 200
        async with tracing.consuming("payments"):
            await eventually(lambda: sink.named("commit"), what="the consumer tells of its commit", timeout_seconds=30)

    request = only(sink.named("POST"))
    claim, send = only(sink.named("dedupe claim")), only(sink.named("send"))
    process, commit = only(sink.named("process")), only(sink.named("commit"))
    # One trace, which nothing that came with the request has named.
    assert {span.trace_id for span in sink.spans} == {request.trace_id}
    assert request.trace_id != STRANGERS[3:35]
    assert [(span.name, span.kind) for span in (request, claim, send, process, commit)] == [
        ("POST /webhooks/test", "server"),
        ("dedupe claim", "internal"),
        (f"send {payments}", "producer"),
        (f"process {payments}", "consumer"),
        ("commit", "client"),
    ]
    assert [span.parent_id for span in (request, claim, send, process, commit)] == [
        "",
        request.span_id,
        request.span_id,
        send.span_id,
        process.span_id,
    ]
    assert process.links == (send.ids,)
    assert request.start <= claim.start <= claim.end <= send.start <= send.end <= request.end
    assert not any(span.failed for span in sink.spans)
    # The same ids are in the record, the log line and the event log.
    assert await traceparents(deployed, payments) == [f"00-{send.ids}-01"]
    assert await trace_ids(deployed.config.database_url) == [request.trace_id]
    assert [line["trace_id"] for line in lines if line["event"] == "delivery.accepted"] == [request.trace_id]
    # What it is about, and nothing of whom.
    assert request.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/webhooks/test",
        "url.path": "/webhooks/test",
        "stripe_ingest.endpoint": "test",
        "http.response.status_code": 200,
        "stripe_ingest.outcome": "accepted",
    }
    (record,) = await deployed.records(payments)
    assert send.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": payments,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }
    assert process.attributes["messaging.consumer.group.name"] == deployed.topics.group("payments")
    assert request.resource["service.name"] == "stripe-ingest"
    assert "jenny" not in repr(sink.spans)


async def test_what_was_sent_before_is_not_sent_again_and_a_stranger_leaves_no_trace(deployed: Deployment) -> None:
    async with collector() as sink, traced(deployed, sink).receiving() as url:
        await deliver(url, body("evt_1"))
        await deliver(url, body("evt_1"))
        await deliver(url, body("evt_2"), signed=False)

    assert sorted(str(span.attributes["stripe_ingest.outcome"]) for span in sink.named("POST")) == [
        "accepted",
        "duplicate",
    ]
    assert len(sink.named("send")) == 1
    assert len({span.trace_id for span in sink.spans}) == 2


async def test_a_delivery_that_nothing_took_says_so_under_the_trace_of_its_log_line(
    deployed: Deployment, kafka: LocalKafka
) -> None:
    async with collector() as sink:
        tracing = traced(deployed, sink)
        receiver = msgspec.structs.replace(tracing.config.receiver, answer_timeout_seconds=1.0)
        impatient = replace(tracing, config=msgspec.structs.replace(tracing.config, receiver=receiver))
        with capture_logs() as lines:
            async with impatient.receiving() as url:
                kafka.pause()
                status, _ = await deliver(url, body("evt_1"))
                kafka.resume()

    request = only(sink.named("POST"))
    assert status == 503
    assert request.failed
    assert request.attributes["http.response.status_code"] == 503
    assert request.attributes["error.type"] == "broker_unavailable"
    told = [line["trace_id"] for line in lines if line["event"] == "delivery.broker_unavailable"]
    assert told == [request.trace_id] == await trace_ids(deployed.config.database_url)


async def test_each_of_several_workers_tells_of_its_own_deliveries(deployed: Deployment) -> None:
    port, admin = free_port(), free_port()
    config = deployed.config
    async with collector() as sink:
        command = CommandLine(
            {
                "STRIPE_WEBHOOK_SECRET": TEST_SECRET.value,
                "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": config.kafka.bootstrap_servers,
                "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": config.kafka.topic_prefix,
                "STRIPE_INGEST__DATABASE__URL": config.database_url,
                "STRIPE_INGEST__RECEIVER__PORT": str(port),
                "STRIPE_INGEST__RECEIVER__WORKERS": "2",
                "STRIPE_INGEST__ADMIN__PORT": str(admin),
                "STRIPE_INGEST__TRACING__OTLP_ENDPOINT": sink.url,
            }
        )
        statuses: list[int] = []

        async def both_have_told() -> bool:
            with suppress(aiohttp.ClientConnectionError):
                path = f"http://127.0.0.1:{port}"
                statuses.append((await deliver(path, body(f"evt_{len(statuses)}"), to="/webhooks/stripe"))[0])
            return len({span.resource["service.instance.id"] for span in sink.named("POST")}) == 2

        async with command.running("receive") as master:
            await eventually(both_have_told, what="both workers have told of a delivery", timeout_seconds=60)
            master.terminate()
            assert await asyncio.wait_for(master.wait(), 30) == 0

    assert set(statuses) == {200}
    assert len(sink.named("POST")) == len({span.trace_id for span in sink.spans}) == len(statuses)


async def test_what_is_not_in_the_sample_says_so_and_goes_its_way(deployed: Deployment) -> None:
    async with collector() as sink:
        tracing = traced(deployed, sink, sample_ratio=0.0)
        async with tracing.receiving() as url, tracing.consuming("payments"):
            assert (await deliver(url, body("evt_1")))[0] == 200
            connection = await asyncpg.connect(deployed.config.database_url)
            try:
                await eventually(
                    lambda: connection.fetchval("SELECT count(*) FROM payments"), what="the row", timeout_seconds=30
                )
            finally:
                await connection.close()

    assert (sink.spans, sink.requests) == ([], 0)
    (header,) = await traceparents(deployed, deployed.topics.of("payment"))
    assert header.endswith("-00")
    assert await trace_ids(deployed.config.database_url) == [header[3:35]]


async def test_a_collector_that_refuses_everything_costs_no_delivery(deployed: Deployment) -> None:
    async with collector() as sink:
        sink.status = 500
        with capture_logs() as lines:
            async with traced(deployed, sink).receiving() as url:
                answers = [await deliver(url, body(f"evt_{number}")) for number in range(3)]

    assert [status for status, _ in answers] == [200] * 3
    assert [line for line in lines if line["event"].startswith("delivery.unforeseen")] == []
