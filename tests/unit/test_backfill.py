"""Snapshots: what they are, what they win over, and that a walk which was interrupted misses nothing."""

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from service.adapters.memory_kafka import MemoryRecordLog
from service.contract import PaymentIntent, decode
from service.contract.schema import schema, schema_name
from service.errors import StripePermissionMissing
from service.events import TrustedEvent
from service.ports import StripeList
from service.projections.ordering import fold
from service.projections.payments import PAYMENTS
from service.receiver.ingest import take
from service.recovery.backfill import Counts
from service.recovery.snapshots import LISTS
from service.recovery.ties import settle_ties
from service.simulator.events import sample
from tests.support.recovering import TOPICS, Backfilled, World, headers

PAYMENT_INTENTS: StripeList = "payment_intents"


class Killed(Exception):
    """What a test does to a walk."""


class Dying(Backfilled):
    """Has the walk end when so many pages are done and saved."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self._after = after

    def page(self, counts: Counts, reached: Any) -> None:
        super().page(counts, reached)
        if len(self.counts) == self._after:
            raise Killed


def put(world: World, name: StripeList, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """Objects as events of this type leave them."""
    now = int(world.clock.now().timestamp())
    made = [dict(sample(kind, seed=n, created=now - 3600 - n)["data"]["object"]) for n in range(count)]
    for each in made:
        world.stripe.put(name, each)
    return made


@pytest.mark.parametrize(
    ("name", "kind", "topic"),
    [
        ("payment_intents", "payment_intent.succeeded", "payments"),
        ("charges", "charge.succeeded", "payments"),
        ("refunds", "refund.created", "refunds"),
        ("subscriptions", "customer.subscription.created", "subscriptions"),
        ("invoices", "invoice.paid", "subscriptions"),
        ("customers", "customer.created", "customers"),
        ("products", "product.created", "catalog"),
        ("prices", "price.created", "catalog"),
    ],
)
async def test_an_object_becomes_a_snapshot_on_the_topic_of_its_events(name: StripeList, kind: str, topic: str) -> None:
    world = World()
    (obj,) = put(world, name, kind)

    counts = await world.backfill.walk(name, None, None, Backfilled())

    (record,) = world.records(f"stripe.{topic}")
    event = decode(record.value or b"")
    as_of = int(world.clock.now().timestamp())
    assert counts == Counts(read=1, published=1)
    assert event.event_id == f"snapshot:{obj['id']}:{as_of}"
    assert event.event_type == f"{event.object_type}.snapshot"
    assert LISTS[event.object_type] == name
    assert (event.object_id, event.account, event.livemode) == (obj["id"], "acct_1", False)
    assert int(event.created_at.timestamp()) == as_of
    assert event.previous is None
    assert msgspec.json.decode(event.raw)["data"]["object"] == obj
    assert headers(record)["ingest_source"] == "backfill"
    assert headers(record)["ce_type"] == f"com.stripe.{event.event_type}"
    Draft202012Validator(schema(schema_name(event))).validate(msgspec.json.decode(record.value or b""))


@pytest.mark.parametrize(
    ("object_id", "topic"), [("Gold plan (2019)/x", "stripe.catalog"), ("Gold-ä", "stripe.quarantine")]
)
async def test_an_id_of_somebodys_making_is_taken_where_a_header_can_have_it(object_id: str, topic: str) -> None:
    world = World()
    (obj,) = put(world, "products", "product.created")
    world.stripe.remove("products", obj["id"])
    world.stripe.put("products", {**obj, "id": object_id})

    await world.backfill.walk("products", None, None, Backfilled())

    assert len(world.records(topic)) == 1


@pytest.mark.parametrize("pages", range(1, 6))
async def test_a_walk_interrupted_after_any_page_misses_nothing_and_doubles_nothing(pages: int) -> None:
    world = World()
    objects = put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 16)
    with pytest.raises(Killed):
        await world.backfill.walk(PAYMENT_INTENTS, None, None, Dying(after=pages))
    world.clock.advance(600)
    begin = world.stripe.requests

    await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())

    seen = Counter(decode(record.value or b"").object_id for record in world.records())
    assert seen == Counter(each["id"] for each in objects)
    assert world.stripe.requests - begin == 6 - pages


async def test_a_finished_walk_begins_anew_the_next_time() -> None:
    world = World()
    put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 4)
    await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())
    world.clock.advance(60)

    counts = await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())

    assert counts == Counts(read=4, published=4)


async def test_another_window_does_not_go_on_where_the_last_one_was_interrupted() -> None:
    world = World()
    put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 9)
    with pytest.raises(Killed):
        await world.backfill.walk(PAYMENT_INTENTS, None, None, Dying(after=1))

    counts = await world.backfill.walk(PAYMENT_INTENTS, world.clock.now() - timedelta(days=1), None, Backfilled())

    assert counts.read == 9


async def test_an_object_that_is_deleted_while_the_walk_stands_at_it_costs_nothing() -> None:
    world = World()
    objects = put(world, "products", "product.created", 9)
    with pytest.raises(Killed):
        await world.backfill.walk("products", None, None, Dying(after=1))
    world.stripe.remove("products", objects[2]["id"])
    world.clock.advance(60)

    await world.backfill.walk("products", None, None, Backfilled())

    assert {decode(record.value or b"").object_id for record in world.records("stripe.catalog")} == {
        each["id"] for each in objects
    }


async def test_a_snapshot_wins_over_what_is_older_and_loses_to_what_is_of_its_second() -> None:
    world = World()
    now = int(world.clock.now().timestamp())
    older = sample("payment_intent.succeeded", seed=1, created=now - 100)
    obj = dict(older["data"]["object"])
    same = {**older, "id": "evt_same", "created": now, "data": {"object": {**obj, "description": "of its second"}}}
    world.stripe.put(PAYMENT_INTENTS, {**obj, "description": "as read"})
    for event in (older, same):
        world.stripe.add(event)
    await world.delivered(older["id"])

    await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())

    assert await description(world) == "as read"
    await world.delivered("evt_same")
    assert await description(world) == "of its second"


async def description(world: World) -> str | None:
    """What all records of the payment intent come to."""
    events = [decode(record.value or b"") for record in world.records()]
    data = fold(seen for event in events for seen in PAYMENTS.observe(event) if isinstance(seen.data, PaymentIntent))
    assert isinstance(data.state.data, PaymentIntent)
    return data.state.data.description


async def test_thin_events_become_snapshots_of_the_objects_that_they_name_once_each() -> None:
    world = World()
    customers = put(world, "customers", "customer.created", 3)
    for n, customer in enumerate([*customers, customers[0], {"id": "cus_gone"}]):
        thin = {
            "id": f"evt_thin_{n}",
            "object": "v2.core.event",
            "type": "v1.customer.updated",
            "livemode": False,
            "created": "2026-11-20T10:00:00.000Z",
            "related_object": {"id": customer["id"], "type": "customer", "url": "/v1/customers/x"},
        }
        body = TrustedEvent(world.endpoints[0], msgspec.json.encode(thin), world.clock.now())
        await take(body, "webhook", world.ingest, deadline=1e12)
    log = MemoryRecordLog(world.kafka)

    counts = await world.backfill.walk_thin(log, TOPICS.of("other"), Backfilled())

    assert counts == Counts(read=3, published=3, gone=1)
    assert {decode(record.value or b"").object_id for record in world.records("stripe.customers")} == {
        customer["id"] for customer in customers
    }
    assert await world.backfill.walk_thin(log, TOPICS.of("other"), Backfilled()) == Counts()


async def test_a_key_that_may_not_read_a_list_is_told_which_permission_it_lacks() -> None:
    world = World(permissions=frozenset({"event_read"}))

    with pytest.raises(StripePermissionMissing) as refusal:
        await world.backfill.walk("charges", None, None, Backfilled())

    assert refusal.value.scope == "charge_read"


async def test_a_tie_is_settled_by_a_read_and_only_of_so_many_at_a_time() -> None:
    world = World()
    (obj,) = put(world, PAYMENT_INTENTS, "payment_intent.succeeded")
    asked: list[int] = []

    class Objects:
        async def undecided(self, *, account: str, livemode: bool, before: Any, limit: int) -> list[tuple[str, str]]:
            assert (account, livemode, before < world.clock.now()) == ("acct_1", False, True)
            asked.append(limit)
            return [("payment_intent", obj["id"]), ("person", "person_1")]

    counts = await settle_ties(world.source, world.backfill, Objects(), world.clock)

    assert counts == Counts(read=1, published=1)
    assert asked == [100]
