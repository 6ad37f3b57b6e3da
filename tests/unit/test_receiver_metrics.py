"""What a receiver counts and times of its deliveries, and what it shows of its endpoints before there are any."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
import pytest
from prometheus_client import CollectorRegistry

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.clock import SystemClock
from service.errors import BrokerUnavailable
from service.events import Endpoint, Secret
from service.receiver.http import Receiver
from service.signature import sign
from tests.support.receiving import LIMITS, ScriptedPublisher, post, receiver, serving
from tests.support.waiting import eventually

SHOP = Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret("whsec_0123456789abcdef"),), mode="any")
OTHER = Endpoint(name="other", path="/webhooks/other", secrets=(Secret("whsec_fedcba9876543210"),), mode="any")
MINUTE = 60
DAY = 24 * 60 * MINUTE


@dataclass
class World:
    """A receiver with one endpoint, a client of it, and what it shows."""

    session: aiohttp.ClientSession
    url: str
    receiver: Receiver
    publisher: ScriptedPublisher
    registry: CollectorRegistry

    async def deliver(
        self, event_id: str = "evt_1", event_type: str = "payment_intent.succeeded", *, created: int, age: int = 0
    ) -> int:
        """A delivery of an event, signed `age` seconds ago; the status of its answer."""
        event = {
            "id": event_id,
            "object": "event",
            "type": event_type,
            "created": created,
            "livemode": True,
            "data": {"object": {"id": "pi_1", "object": "payment_intent"}},
        }
        body = orjson.dumps(event)
        signature = sign(body, SHOP.secrets[0], int(time.time()) - age)
        status, _ = await post(self.session, self.url + SHOP.path, body, signature)
        return status

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"stripe_ingest_{name}", labels)

    def traces(self, name: str) -> set[str]:
        return {
            sample.exemplar.labels["trace_id"]
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"stripe_ingest_{name}_bucket" and sample.exemplar is not None
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    registry, publisher = CollectorRegistry(), ScriptedPublisher()
    given = receiver([SHOP], publisher, MemoryDedupeStore(SystemClock(), max_entries=1000), registry=registry)
    async with serving(given) as url, aiohttp.ClientSession() as session:
        yield World(session, url, given, publisher, registry)
    await given.ingest.deduplicator.close(timeout_seconds=1)


async def test_an_endpoint_that_gets_no_event_shows_since_when_it_is_served(world: World) -> None:
    served = world.value("last_event_timestamp_seconds", endpoint="shop")
    assert served is not None
    assert served == pytest.approx(time.time(), abs=60)

    world.receiver.serve([SHOP, OTHER])
    assert world.value("last_event_timestamp_seconds", endpoint="shop") == served
    assert world.value("last_event_timestamp_seconds", endpoint="other") == pytest.approx(time.time(), abs=60)

    await world.deliver(created=int(time.time()))
    last = world.value("last_event_timestamp_seconds", endpoint="shop")
    assert last is not None
    assert last > served


async def test_an_endpoint_that_is_served_no_more_does_not_go_on_as_a_quiet_one(world: World) -> None:
    await world.deliver(created=int(time.time()))
    assert world.value("clock_skew_seconds", endpoint="shop") is not None

    world.receiver.serve([OTHER])

    assert world.value("last_event_timestamp_seconds", endpoint="shop") is None
    assert world.value("clock_skew_seconds", endpoint="shop") is None
    assert world.value("deliveries_total", endpoint="shop", outcome="accepted") == 1


async def test_a_delivery_that_ends_after_its_endpoint_is_gone_does_not_bring_it_back(world: World) -> None:
    world.publisher.gate = asyncio.Event()
    delivery = asyncio.create_task(world.deliver(created=int(time.time())))
    await eventually(world.publisher.started.is_set, what="the delivery is under way")

    world.receiver.serve([OTHER])
    world.publisher.gate.set()

    assert await delivery == 200
    assert world.value("last_event_timestamp_seconds", endpoint="shop") is None
    assert world.value("clock_skew_seconds", endpoint="shop") is None


async def test_every_outcome_is_there_before_the_first_delivery(world: World) -> None:
    for outcome in ("accepted", "signature_mismatch", "broker_unavailable", "internal_error"):
        assert world.value("deliveries_total", endpoint="shop", outcome=outcome) == 0
    assert world.value("quarantined_total", reason="malformed_json") == 0


async def test_a_first_attempt_and_a_resend_are_told_apart_by_when_they_were_signed(world: World) -> None:
    now = int(time.time())

    await world.deliver("evt_1", created=now)
    await world.deliver("evt_2", created=now - DAY, age=2 * MINUTE)
    await world.deliver("evt_2", created=now - DAY)
    await world.deliver("evt_3", created=now + MINUTE)

    name = "resend_age_seconds"
    assert world.value(f"{name}_count", endpoint="shop") == 4, "duplicates too: our answer was not seen"
    assert world.value(f"{name}_bucket", endpoint="shop", le="60.0") == 2
    assert world.value(f"{name}_sum", endpoint="shop") == pytest.approx(2 * DAY - 2 * MINUTE, abs=60)
    assert world.value("event_age_seconds_count", endpoint="shop") == 3


async def test_answers_are_timed_by_what_they_are_to_stripe(world: World) -> None:
    now = int(time.time())
    world.publisher.failures.append(BrokerUnavailable("away"))

    statuses = [
        await world.deliver("evt_1", created=now),
        await world.deliver("evt_2", created=now),
        await world.deliver("evt_3", created=now, age=10 * MINUTE),
    ]

    assert statuses == [503, 200, 400]
    for result in ("safe", "refused", "unavailable"):
        assert world.value("delivery_duration_seconds_count", endpoint="shop", result=result) == 1


async def test_times_name_the_trace_of_a_delivery_that_is_safe(world: World) -> None:
    await world.deliver(created=int(time.time()))

    (record,) = world.publisher.records
    trace_id = dict(record.headers)["traceparent"].decode().split("-")[1]
    assert world.traces("event_age_seconds") == {trace_id}
    assert world.traces("delivery_duration_seconds") == {trace_id}


async def test_types_are_counted_by_name_where_they_are_known(world: World) -> None:
    now = int(time.time())

    await world.deliver("evt_1", created=now)
    await world.deliver("evt_2", "payment_intent.pondered", created=now)
    await world.deliver("evt_3", "lunch.served", created=now)

    assert world.value("events_total", category="payment", event_type="payment_intent.succeeded") == 1
    assert world.value("events_total", category="payment", event_type="other") == 1
    assert world.value("events_total", category="other", event_type="other") == 1
    assert world.value("events_total", category="payment", event_type="payment_intent.pondered") is None


async def test_how_many_may_be_in_flight_is_shown(world: World) -> None:
    assert world.value("in_flight_limit") == LIMITS.max_in_flight
