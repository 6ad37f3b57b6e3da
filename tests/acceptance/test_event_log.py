"""The event log of a real receiver: what Stripe delivered, how often, and what became of it each time."""

from dataclasses import replace
from typing import Any

import aiohttp
import asyncpg
import msgspec
import orjson
import pytest

from service.clock import SystemClock
from service.config import DedupeConfig, EventLogConfig
from service.events import Secret
from service.local.kafka import LocalKafka
from service.signature import fingerprint, sign
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.receiving import post
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def body(event_id: str, **changes: Any) -> bytes:
    intent = {"id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 100, "customer": "cus_1"}
    event = {
        "id": event_id,
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(SystemClock().now().timestamp()),
        "livemode": False,
        "data": {"object": intent},
    }
    return orjson.dumps(event | changes)


async def deliver(url: str, payload: bytes, secret: Secret = TEST_SECRET) -> object:
    signature = sign(payload, secret, int(SystemClock().now().timestamp()))
    async with aiohttp.ClientSession() as session:
        status, answer = await post(session, f"{url}/webhooks/test", payload, signature)
    return answer["status"] if status == 200 else status


async def rows(url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch("SELECT * FROM event_log ORDER BY arrival_id"))
    finally:
        await connection.close()


async def test_each_delivery_is_found_with_its_outcome_and_where_its_record_is(deployed: Deployment) -> None:
    async with deployed.receiving() as url:
        answers = [
            await deliver(url, body("evt_1")),
            await deliver(url, body("evt_1")),
            await deliver(url, body("evt_2", livemode=True)),
            await deliver(url, body("evt_3"), Secret("whsec_a_stranger")),
        ]

    assert answers == ["accepted", "duplicate", "quarantined", 400]
    accepted, duplicate, quarantined = await rows(deployed.config.database_url)
    (record,) = await deployed.records(deployed.topics.of("payment"))
    (kept,) = await deployed.records(deployed.topics.quarantine)
    assert [row["outcome"] for row in (accepted, duplicate, quarantined)] == answers[:3]
    assert {row["secret"] for row in (accepted, duplicate, quarantined)} == {fingerprint(TEST_SECRET)}
    assert (accepted["topic"], accepted["partition"], accepted["record_offset"]) == (
        record.topic,
        record.partition,
        record.offset,
    )
    assert dict(record.headers)["traceparent"].decode().split("-")[1] == accepted["trace_id"]
    assert (accepted["event_id"], accepted["object_id"], accepted["customer_id"]) == ("evt_1", "pi_1", "cus_1")
    assert (duplicate["event_id"], duplicate["topic"], duplicate["record_offset"]) == ("evt_1", None, None)
    assert (quarantined["reason"], quarantined["event_id"]) == ("mode_mismatch", "evt_2")
    assert (quarantined["topic"], quarantined["record_offset"]) == (kept.topic, kept.offset)


async def test_a_delivery_that_kafka_did_not_take_is_found_beside_the_one_that_it_took(
    deployed: Deployment, kafka: LocalKafka
) -> None:
    receiver = msgspec.structs.replace(deployed.config.receiver, answer_timeout_seconds=1.0)
    impatient = replace(deployed, config=msgspec.structs.replace(deployed.config, receiver=receiver))
    async with impatient.receiving() as url:
        kafka.pause()
        refused = await deliver(url, body("evt_1"))
        kafka.resume()
        tries: list[object] = []

        async def taken() -> bool:
            tries.append(await deliver(url, body("evt_1")))
            return tries[-1] in ("accepted", "duplicate")

        await eventually(taken, what="Kafka takes the event", timeout_seconds=30)

    outcomes = [row["outcome"] for row in await rows(deployed.config.database_url)]
    assert refused == 503
    assert outcomes[0] == "broker_unavailable"
    assert outcomes[-1] == tries[-1]
    assert len(outcomes) == 1 + len(tries)


async def test_a_receiver_that_keeps_nothing_or_has_no_database_takes_events_all_the_same(deployed: Deployment) -> None:
    nothing_kept = msgspec.structs.replace(deployed.config, event_log=EventLogConfig(retention_days=0))
    without = msgspec.structs.replace(
        deployed.config,
        database=msgspec.structs.replace(deployed.config.database, url=None),
        dedupe=DedupeConfig(url=Secret("memory://")),
    )
    for number, config in enumerate((nothing_kept, without)):
        async with replace(deployed, config=config).receiving() as url:
            assert await deliver(url, body(f"evt_{number}")) == "accepted"

    assert await rows(deployed.config.database_url) == []
