"""Processes that are killed: no 2xx without its record, every effect once, and nobody has to be restarted by hand."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from aiokafka.protocol.group import LeaveGroupRequest

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import TopicSpec, admin_client, apply
from service.config import Config
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.signature import sign
from service.simulator.events import sample
from service.simulator.shop import STORY_SPAN, shop
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.processes import CommandLine
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

ANSWER_TIMEOUT_SECONDS = 8.0
"""The receiver's budget; an answer that comes later than this and some scheduling slack breaks the promise."""


@dataclass
class Load:
    """Deliveries posted one after the other by several clients until told to stop, and what each was answered."""

    url: str
    answers: dict[str, int] = field(default_factory=dict)
    retry_after: list[bool] = field(default_factory=list)
    slowest_seconds: float = 0.0
    sent: int = 0
    stop: bool = False

    def count(self, status: int) -> int:
        return sum(1 for answered in self.answers.values() if answered == status)

    async def client(self, session: aiohttp.ClientSession) -> None:
        while not self.stop:
            self.sent += 1
            event = sample("payment_intent.succeeded", seed=self.sent, created=int(time.time()))
            body = orjson.dumps(event)
            headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
            began = time.monotonic()
            async with session.post(f"{self.url}/webhooks/test", data=body, headers=headers) as response:
                await response.read()
                self.answers[event["id"]] = response.status
                if response.status == 503:
                    self.retry_after.append("Retry-After" in response.headers)
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            if response.status == 503:
                await asyncio.sleep(0.02)  # a refused client pauses; without it the test is a busy loop of refusals


@asynccontextmanager
async def loading(url: str, clients: int) -> AsyncIterator[Load]:
    load = Load(url)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(load.client(session))
        yield load
        load.stop = True


async def test_a_killed_broker_loses_nothing_and_nobody_restarts_the_receiver(
    deployed: Deployment, kafka: LocalKafka
) -> None:
    async with deployed.receiving() as url, loading(url, clients=8) as load:
        await eventually(lambda: load.count(200) >= 100, timeout_seconds=60, what="a hundred accepted events")
        kafka.kill()
        await eventually(lambda: load.count(503) >= 50, timeout_seconds=60, what="fifty refused while it is away")
        await kafka.start()
        accepted = load.count(200)
        await eventually(lambda: load.count(200) >= accepted + 100, timeout_seconds=60, what="a hundred more after")

    assert set(load.answers.values()) == {200, 503}
    assert all(load.retry_after)
    assert load.slowest_seconds < ANSWER_TIMEOUT_SECONDS + 2
    in_kafka = Counter(dict(record.headers)["ce_id"].decode() for record in await deployed.records())
    acknowledged = {event_id for event_id, status in load.answers.items() if status == 200}
    assert acknowledged - in_kafka.keys() == set()
    assert in_kafka.keys() - load.answers.keys() == set()


async def test_a_record_over_its_topics_limit_goes_to_quarantine_and_the_next_of_its_key_goes_through(
    deployed: Deployment, kafka: LocalKafka
) -> None:
    """Once where the limit is known beforehand, once where only the broker knows that it was lowered meanwhile."""
    payments = deployed.topics.of("payment")

    async def limit(limit_bytes: int) -> None:
        async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
            await apply(admin, [TopicSpec(payments, 3, 1, {"max.message.bytes": str(limit_bytes)})])

    def event(number: int, padding: int = 0) -> Mapping[str, Any]:
        made = sample("payment_intent.succeeded", seed=7, created=int(time.time()))
        made["data"]["object"]["metadata"] = {"padding": "x" * padding}
        return made | {"id": f"evt_size{number}"}

    async def said(session: aiohttp.ClientSession, url: str, given: Mapping[str, Any]) -> tuple[int, str, str | None]:
        body = orjson.dumps(given)
        headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
        async with session.post(f"{url}/webhooks/test", data=body, headers=headers) as response:
            answer = await response.json()
            return response.status, answer["status"], answer.get("reason")

    await limit(100_000)
    async with deployed.receiving() as url, aiohttp.ClientSession() as session:
        assert await said(session, url, event(1, padding=150_000)) == (200, "quarantined", "record_too_large")
        assert await said(session, url, event(2)) == (200, "accepted", None)
        await limit(50_000)
        assert await said(session, url, event(3, padding=30_000)) == (200, "quarantined", "record_too_large")
        assert await said(session, url, event(4)) == (200, "accepted", None)

    quarantined = await deployed.records(deployed.topics.quarantine)
    assert {dict(record.headers)["event_id"] for record in quarantined} == {b"evt_size1", b"evt_size3"}
    accepted = await deployed.records(payments)
    assert [dict(record.headers)["ce_id"] for record in accepted] == [b"evt_size2", b"evt_size4"]
    assert len({record.key for record in accepted}) == 1


@asynccontextmanager
async def consumer_process(config: Config, projection: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A consumer as a process of its own, ended with the block."""
    assert config.database.url is not None
    command = CommandLine({
        "STRIPE_INGEST__ADMIN__PORT": "0",
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": config.kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": config.kafka.topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": config.database.url.value,
    })  # fmt: skip
    async with command.running("consume", projection) as process:
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)


async def forget_members(config: Config, group: str) -> None:
    """Tell the broker what it would find out by a session's timeout: that the group's members are no more."""
    async with admin_client(config.kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        coordinator = await admin.find_coordinator(group)
        (described,) = await admin.describe_consumer_groups([group])
        members = [member for found in described.groups for member in found[5]]
        assert members
        for member in members:
            left = await admin._send_request(LeaveGroupRequest(group, member[0]), coordinator)
            assert left.error_code == 0


async def test_a_consumer_killed_in_mid_batch_applies_every_event_once(deployed: Deployment) -> None:
    events = [
        event
        for seed in range(30)
        for event in shop(seed, datetime(2026, 11, 20, tzinfo=UTC) - STORY_SPAN).events
    ]  # fmt: skip
    async with deployed.receiving() as url:
        await post_all(url, events)
    connection = await asyncpg.connect(deployed.config.database_url)

    async def until_entries(at_least: int) -> None:
        """Asks without a pause: the kill is to come in the middle of the work."""
        async with asyncio.timeout(60):
            while await connection.fetchval("SELECT count(*) FROM payment_events") < at_least:
                pass

    try:
        kills = 0
        for at_least in (1, 501, 1_001):  # one batch of 500 after another
            async with consumer_process(deployed.config, "payments") as process:
                await until_entries(at_least)
                process.kill()
                await process.wait()
                kills += 1
            if kills < 3:  # after the last one its successor waits until the broker has missed it by itself
                await forget_members(deployed.config, deployed.topics.group("payments"))
        async with (
            consumer_process(deployed.config, "payments"),
            deployed.consuming("refunds", "subscriptions", "catalog"),
        ):
            caught_up = await until_caught_up(
                deployed.config.kafka.bootstrap_servers,
                deployed.config.database_url,
                deployed.topics,
                timeout_seconds=120,
            )
        assert caught_up
        assert kills == 3
        once = await connection.fetchval("SELECT count(*) = count(DISTINCT (event_id, object_id)) FROM payment_events")
        found = {row["payment_id"]: dict(row) for row in await connection.fetch("SELECT * FROM payments")}
    finally:
        await connection.close()
    assert once
    for seed in range(30):
        for payment_id, facts in (
            shop(seed, datetime(2026, 11, 20, tzinfo=UTC) - STORY_SPAN).expected["payments"].items()
        ):
            assert {name: found[payment_id][name] for name in facts} == facts, payment_id


async def post_all(url: str, events: list[dict[str, Any]]) -> None:
    limit = asyncio.Semaphore(32)

    async def post(session: aiohttp.ClientSession, event: Mapping[str, Any]) -> int:
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
        async with limit, session.post(f"{url}/webhooks/test", data=body, headers=headers) as response:
            await response.read()
            return response.status

    async with aiohttp.ClientSession() as session:
        assert set(await asyncio.gather(*(post(session, event) for event in events))) == {200}
