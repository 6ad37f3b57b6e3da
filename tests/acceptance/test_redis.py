"""Receivers that share a Redis: each event is published once, whatever arrives where and when."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import aiohttp
import msgspec
import orjson
import pytest

from service.adapters.dedupe_redis import RedisDedupeStore
from service.config import DedupeConfig
from service.events import ClaimKey, ClaimState, Secret
from service.signature import sign
from service.simulator.events import sample
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.stack import LocalRedis

EVENTS = 40
DELIVERIES = 20


@pytest.fixture
def sharing_redis(deployed: Deployment, redis: LocalRedis) -> Deployment:
    """The deployment, with its dedupe store in Redis."""
    dedupe = DedupeConfig(url=Secret(redis.url), timeout_seconds=2.0)
    return Deployment(msgspec.structs.replace(deployed.config, dedupe=dedupe))


async def deliver(session: aiohttp.ClientSession, url: str, body: bytes) -> str:
    headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
    async with session.post(f"{url}/webhooks/test", data=body, headers=headers) as response:
        assert response.status == 200
        status: str = (await response.json())["status"]
        return status


async def test_of_many_deliveries_at_once_to_two_receivers_one_publishes_each_event(
    sharing_redis: Deployment, redis: LocalRedis
) -> None:
    events = [sample("payment_intent.succeeded", seed=n, created=int(time.time())) for n in range(EVENTS)]
    bodies = [orjson.dumps(event) for event in events]
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(sharing_redis.receiving()) for _ in range(2)]
        connector = aiohttp.TCPConnector(limit=100)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        answers = await asyncio.gather(
            *(deliver(session, urls[n % 2], body) for n in range(DELIVERIES) for body in bodies)
        )

    assert Counter(answers) == {"accepted": EVENTS, "duplicate": EVENTS * (DELIVERIES - 1)}
    records = await sharing_redis.records()
    published = Counter(dict(record.headers)["ce_id"].decode() for record in records)
    assert published == Counter(event["id"] for event in events)
    assert {dict(record.headers)["dedupe"] for record in records} == {b"checked"}

    # Receivers that drain have told the store: a later one starts where they ended.
    store = RedisDedupeStore.at(redis.url, key_prefix=sharing_redis.config.kafka.topic_prefix)
    keys = [ClaimKey("event", event["id"]) for event in events]
    assert set((await store.claim(keys, owner="a later one")).values()) == {ClaimState.DONE}
    await store.close()


async def test_a_receiver_starts_and_publishes_while_redis_is_away_and_finds_it_when_it_is_back(
    sharing_redis: Deployment, redis: LocalRedis
) -> None:
    redis.kill()
    bodies = [orjson.dumps(sample("refund.created", seed=n, created=int(time.time()))) for n in range(3)]
    async with sharing_redis.receiving() as url, aiohttp.ClientSession() as session:
        assert await deliver(session, url, bodies[0]) == "accepted"
        await redis.start()
        assert await deliver(session, url, bodies[1]) == "accepted"
        assert await deliver(session, url, bodies[1]) == "duplicate"
    async with sharing_redis.receiving() as url, aiohttp.ClientSession() as session:
        # What was published unchecked is confirmed all the same, once there is somebody to tell.
        assert [await deliver(session, url, body) for body in bodies] == ["duplicate", "duplicate", "accepted"]

    marks = [dict(record.headers)["dedupe"] for record in await sharing_redis.records()]
    assert Counter(marks) == {b"unchecked": 1, b"checked": 2}
