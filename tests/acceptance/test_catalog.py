"""Products and prices on real Kafka and Postgres: told by events, read as snapshots, in either order."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest

from service.bootstrap.ingest import recovery_ingest
from service.clock import SystemClock
from service.events import Accepted
from service.local.arrivals import until_caught_up
from service.ports import StripeObject
from service.receiver.ingest import take
from service.recovery.snapshots import snapshot
from service.simulator import changes
from service.simulator.objects import Object
from service.simulator.shop import STORY_SPAN, deliveries, shop
from service.simulator.stripe_sender import StripeSender, play
from tests.support.deployment import TEST_SECRET, Deployment

pytestmark = pytest.mark.timeout(300)

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC) - STORY_SPAN
STORY = shop(4, START)
TOLD = [event for event in deliveries(STORY, 4) if event["type"].startswith(("product.", "price."))]
"""The catalog's events as they arrive."""


def last_event(object_type: str, *, active: bool) -> Object:
    """The last event of the one product or price that stays, or of the one that is withdrawn."""
    last = {
        event["data"]["object"]["id"]: event
        for event in STORY.events
        if event["data"]["object"]["object"] == object_type
    }
    (found,) = [event for event in last.values() if event["data"]["object"]["active"] is active]
    return found


PRODUCT, PRICE = last_event("product", active=True), last_event("price", active=True)
WITHDRAWN = last_event("product", active=False)


def read(stripe_object: Object, as_of: int) -> StripeObject:
    """What Stripe gives to who asks for the object at that second."""
    return StripeObject(
        id=stripe_object["id"],
        created=datetime.fromtimestamp(stripe_object["created"], UTC),
        body=orjson.dumps(stripe_object),
        as_of=datetime.fromtimestamp(as_of, UTC),
        api_version=None,
    )


def as_read(event: Object, seconds_later: int, **fields: Any) -> StripeObject:
    """The event's object as a read found it so many seconds later."""
    return read(changes.changed(event["data"]["object"], **fields), event["created"] + seconds_later)


async def sent(deployed: Deployment, events: Sequence[Object]) -> None:
    """The events are delivered."""
    async with deployed.receiving() as url, StripeSender(f"{url}/webhooks/test", [TEST_SECRET]) as sender:
        report = await play(events, sender, concurrency=8)
    assert report.delivered == report.deliveries == len(events)


async def filled_back(deployed: Deployment, reads: Sequence[StripeObject]) -> None:
    """The reads are published as snapshots."""
    endpoint = next(each for each in deployed.config.webhook_endpoints() if each.mode == "test")
    async with recovery_ingest(deployed.config) as ingest:
        for each in reads:
            known = snapshot(each, endpoint, livemode=False, clock=SystemClock())
            deadline = asyncio.get_running_loop().time() + 30
            taken = await take(known, "backfill", ingest, deadline=deadline)
            assert isinstance(taken.outcome, Accepted)


async def applied(deployed: Deployment) -> None:
    """The consumer has passed everything."""
    config = deployed.config
    async with deployed.consuming("catalog"):
        assert await until_caught_up(
            config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=120
        )


async def rows(deployed: Deployment, table: str) -> Mapping[str, Mapping[str, Any]]:
    """The rows of a table or view by its object's id."""
    connection = await asyncpg.connect(deployed.config.database_url)
    id_column = "product_id" if table == "products" else "price_id"
    try:
        return {row[id_column]: dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")}
    finally:
        await connection.close()


async def test_what_can_be_bought_is_the_active_prices_of_active_products(deployed: Deployment) -> None:
    await sent(deployed, TOLD)
    await applied(deployed)

    found = await rows(deployed, "active_prices")

    price = PRICE["data"]["object"]
    assert {name: tuple(row[column] for column in ACTIVE) for name, row in found.items()} == {
        price["id"]: ("Simulated Club", price["unit_amount"], "eur", "month", "Monthly", True)
    }
    withdrawn = (await rows(deployed, "products"))[WITHDRAWN["data"]["object"]["id"]]
    assert (withdrawn["active"], withdrawn["deleted"], withdrawn["last_event_type"]) == (False, True, "product.deleted")


ACTIVE = ("product_name", "unit_amount_minor", "currency", "interval", "nickname", "is_default")


async def test_a_price_of_an_archived_product_cannot_be_bought(deployed: Deployment) -> None:
    await sent(deployed, TOLD)
    await filled_back(deployed, [as_read(PRODUCT, 1, active=False)])
    await applied(deployed)

    assert (await rows(deployed, "prices"))[PRICE["data"]["object"]["id"]]["active"]
    assert await rows(deployed, "active_prices") == {}


@pytest.mark.parametrize("first", ["events", "snapshots"])
@pytest.mark.parametrize(
    ("seconds_later", "wins"), [(1, True), (0, False), (-1, False)], ids=["newer", "same second", "older"]
)
async def test_a_snapshot_wins_over_older_events_and_loses_to_its_own_second(
    deployed: Deployment, first: str, seconds_later: int, wins: bool
) -> None:
    reads = [
        as_read(PRODUCT, seconds_later, name="As it was read"),
        as_read(PRICE, seconds_later, nickname="As it was read"),
        # Deleted it stays, whatever a read that came too late for it may say.
        as_read(WITHDRAWN, seconds_later, name="As it was read", active=True),
    ]
    if first == "events":
        await sent(deployed, TOLD)
        await filled_back(deployed, reads)
    else:
        await filled_back(deployed, reads)
        await sent(deployed, TOLD)
    await applied(deployed)

    products, prices = await rows(deployed, "products"), await rows(deployed, "prices")

    product = products[PRODUCT["data"]["object"]["id"]]
    price = prices[PRICE["data"]["object"]["id"]]
    withdrawn = products[WITHDRAWN["data"]["object"]["id"]]
    assert product["name"] == ("As it was read" if wins else "Simulated Club")
    assert price["nickname"] == ("As it was read" if wins else "Monthly")
    assert product["last_event_type"] == ("product.snapshot" if wins else "product.updated")
    assert price["last_event_type"] == ("price.snapshot" if wins else "price.updated")
    assert (withdrawn["deleted"], withdrawn["active"], withdrawn["last_event_type"]) == (True, False, "product.deleted")
    assert withdrawn["name"] == WITHDRAWN["data"]["object"]["name"]


async def test_a_read_of_what_is_gone_deletes_it_and_leaves_what_was_known(deployed: Deployment) -> None:
    product = PRODUCT["data"]["object"]
    gone = {"id": product["id"], "object": "product", "deleted": True}
    await sent(deployed, TOLD)
    await filled_back(
        deployed,
        [
            StripeObject(
                product["id"], None, orjson.dumps(gone), datetime.fromtimestamp(PRODUCT["created"] + 9, UTC), None
            )
        ],
    )
    await applied(deployed)

    row = (await rows(deployed, "products"))[product["id"]]

    assert (row["deleted"], row["active"], row["name"]) == (True, False, "Simulated Club")
    assert await rows(deployed, "active_prices") == {}
