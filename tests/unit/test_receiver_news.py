"""What the receiver counts of the events it accepts: pings, types and values that this version does not know."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.clock import SystemClock
from service.events import Endpoint, Secret
from service.normalize.event_types import PING
from service.receiver import http
from service.signature import sign
from tests.support.receiving import ScriptedPublisher, post, receiver, serving

SHOP = Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret("whsec_0123456789abcdef"),), mode="any")


def snapshot(event_id: str, event_type: str = "payment_intent.succeeded", **fields: Any) -> dict[str, Any]:
    return {
        "id": event_id,
        "object": "event",
        "type": event_type,
        "created": 1_763_700_000,
        "livemode": True,
        "data": {"object": {"id": "pi_1", "object": "payment_intent", **fields}},
    }


def thin(event_id: str, event_type: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": event_id,
        "object": "v2.core.event",
        "type": event_type,
        "created": "2026-10-28T12:00:01.123Z",
        "livemode": True,
        **fields,
    }


class Shop:
    """A receiver with one endpoint, and a client of it."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, publisher: ScriptedPublisher, registry: CollectorRegistry
    ):
        self.session, self.url, self.publisher, self.registry = session, url, publisher, registry

    async def deliver(self, event: dict[str, Any]) -> object:
        body = orjson.dumps(event)
        signature = sign(body, SHOP.secrets[0], int(SystemClock().now().timestamp()))
        status, answer = await post(self.session, self.url + SHOP.path, body, signature)
        assert status == 200
        return answer["status"]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"stripe_ingest_{name}_total", labels) or 0.0


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    registry, publisher = CollectorRegistry(), ScriptedPublisher()
    store = MemoryDedupeStore(SystemClock(), max_entries=1000)
    given = receiver([SHOP], publisher, store, registry=registry)
    async with serving(given) as url, aiohttp.ClientSession() as session:
        yield Shop(session, url, publisher, registry)
    await given.ingest.deduplicator.close(timeout_seconds=1)


async def test_a_ping_is_answered_published_and_counted(shop: Shop) -> None:
    assert await shop.deliver(thin("evt_1", PING)) == "accepted"
    assert await shop.deliver(thin("evt_2", "v1.invoice.paid")) == "accepted"

    assert [record.topic for record in shop.publisher.records] == ["stripe.other", "stripe.other"]
    assert shop.counted("pings", endpoint="shop") == 1
    assert shop.counted("unlisted_events", endpoint="shop") == 0


async def test_the_twin_of_a_thin_event_is_a_header_of_its_record(shop: Shop) -> None:
    await shop.deliver(thin("evt_1", "v1.invoice.paid", snapshot_event="evt_twin"))
    await shop.deliver(thin("evt_2", "v1.invoice.paid", snapshot_event="in_1"))

    twins = [dict(record.headers).get("snapshot_event") for record in shop.publisher.records]
    assert twins == [b"evt_twin", None]


async def test_an_unlisted_type_goes_its_way_and_is_counted_when_it_is_accepted(shop: Shop) -> None:
    answers = [
        await shop.deliver(snapshot(event_id, "payment_intent.pondered")) for event_id in ("evt_1", "evt_1", "evt_2")
    ]
    await shop.deliver(snapshot("evt_3", "lunch.served"))
    await shop.deliver(snapshot("evt_4"))

    assert answers == ["accepted", "duplicate", "accepted"]
    assert [record.topic.rpartition(".")[2] for record in shop.publisher.records] == [
        "payments",
        "payments",
        "other",
        "payments",
    ]
    assert shop.counted("unlisted_events", endpoint="shop") == 3


async def test_an_unlisted_type_is_logged_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "NEWS_TOLD_MAX", 2)
    types = ["a.one", "a.one", "a.two", "a.three", "a.two", "a.one"]

    with capture_logs() as logs:
        for number, event_type in enumerate(types):
            await shop.deliver(snapshot(f"evt_{number}", event_type))

    told = [(log["event_type"], log["endpoint"]) for log in logs if log["event"] == "event.unlisted"]
    assert told == [("a.one", "shop"), ("a.two", "shop")]
    assert shop.counted("unlisted_events", endpoint="shop") == len(types)


async def test_a_value_that_is_news_is_counted_by_its_field_and_its_event_is_told_once(shop: Shop) -> None:
    with capture_logs() as logs:
        await shop.deliver(snapshot("evt_1", status="levitating", capture_method="telepathic"))
        await shop.deliver(snapshot("evt_2", status="succeeded", capture_method="manual"))
        await shop.deliver(snapshot("evt_3", status="levitating"))

    assert shop.counted("unknown_values", field="payment_intent.status") == 2
    assert shop.counted("unknown_values", field="payment_intent.capture_method") == 1
    assert b"levitating" in shop.publisher.records[0].value
    assert "levitating" not in str(logs)
    told = [(log["field"], log["event_id"]) for log in logs if log["event"] == "event.unknown_value"]
    assert told == [("payment_intent.status", "evt_1"), ("payment_intent.capture_method", "evt_1")]


async def test_a_flood_of_one_kind_of_news_does_not_silence_the_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "NEWS_TOLD_MAX", 2)
    news = [{"status": "levitating"}, {"capture_method": "telepathic"}, {"cancellation_reason": "moonlight"}]

    with capture_logs() as logs:
        for number in range(3):
            await shop.deliver(snapshot(f"evt_{number}", f"type.number_{number}"))
        for number, fields in enumerate(news, start=3):
            await shop.deliver(snapshot(f"evt_{number}", **fields))
        await shop.deliver(snapshot("evt_6", "type.another"))

    told = [log["event"] for log in logs if log["event"].startswith("event.")]
    assert told == ["event.unlisted"] * 2 + ["event.unknown_value"] * 2


async def test_what_was_quarantined_is_no_news(shop: Shop) -> None:
    await shop.deliver({**snapshot("evt_1", "lunch.served"), "data": {}})

    assert shop.counted("unlisted_events", endpoint="shop") == 0
