"""Snapshots: what they are, what they win over, and that a walk which was interrupted misses nothing."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from service.adapters.memory_kafka import MemoryRecordLog
from service.adapters.memory_stripe import MemoryStripeReader
from service.contract import PaymentIntent, decode
from service.contract.schema import schema, schema_name
from service.errors import StripePermissionMissing, StripeUnavailable
from service.events import TrustedEvent
from service.ports import StripeList, StripeObject
from service.projections.ordering import fold
from service.projections.payments import PAYMENTS
from service.receiver.ingest import take
from service.recovery.backfill import Backfill, Counts, Named
from service.recovery.snapshots import LISTS
from service.recovery.ties import Ties
from service.simulator.events import sample
from tests.support.recovering import TOPICS, Backfilled, World, endpoint, headers

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


async def thin(world: World, number: int, customer_id: str) -> None:
    """A thin event about a customer comes."""
    event = {
        "id": f"evt_thin_{number}",
        "object": "v2.core.event",
        "type": "v1.customer.updated",
        "livemode": False,
        "created": "2026-11-20T10:00:00.000Z",
        "related_object": {"id": customer_id, "type": "customer", "url": "/v1/customers/x"},
    }
    body = TrustedEvent(world.endpoints[0], msgspec.json.encode(event), world.clock.now())
    await take(body, "webhook", world.ingest, deadline=1e12)


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    before, world = World(), World()
    for n in range(3):
        await thin(before, n, "cus_gone")
    await before.backfill.walk_thin(MemoryRecordLog(before.kafka), TOPICS.of("other"), Backfilled())
    world.jobs = before.jobs
    (customer,) = put(world, "customers", "customer.created")
    await thin(world, 1, customer["id"])

    counts = await world.backfill.walk_thin(MemoryRecordLog(world.kafka), TOPICS.of("other"), Backfilled())

    assert counts == Counts(read=1, published=1)


async def test_thin_events_become_snapshots_of_the_objects_that_they_name_once_each() -> None:
    world = World()
    customers = put(world, "customers", "customer.created", 3)
    for n, customer in enumerate([*customers, customers[0], {"id": "cus_gone"}]):
        await thin(world, n, customer["id"])
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


class Undecided:
    """Says of these objects, up to the limit, that they are undecided."""

    def __init__(self, world: World, objects: list[tuple[str, str]]) -> None:
        self.objects = objects
        self._world = world

    async def undecided(self, *, account: str, livemode: bool, before: Any, limit: int) -> list[tuple[str, str]]:
        assert (account, livemode, before < self._world.clock.now()) == ("acct_1", False, True)
        return self.objects[:limit]


async def settled(world: World, ties: Ties, objects: Undecided) -> Counter[str]:
    """One run; what came to nothing is left out."""
    return +await ties.settle(await ties.found(world.source, objects), world.backfill)


async def test_a_tie_is_settled_by_a_read() -> None:
    world = World()
    (obj,) = put(world, PAYMENT_INTENTS, "payment_intent.succeeded")
    objects = Undecided(world, [("payment_intent", obj["id"]), ("person", "person_1")])

    assert await settled(world, Ties(world.clock), objects) == {"published": 1}
    assert len(world.records()) == 1


async def test_only_so_many_are_read_at_a_time_and_those_that_are_gone_keep_none_from_its_turn() -> None:
    world = World()
    (obj,) = put(world, PAYMENT_INTENTS, "payment_intent.succeeded")
    ties = Ties(world.clock)
    objects = Undecided(
        world, [*(("payment_intent", f"pi_gone_{n}") for n in range(250)), ("payment_intent", obj["id"])]
    )

    came = [await settled(world, ties, objects) for _ in range(4)]

    assert came == [{"gone": 100}, {"gone": 100}, {"gone": 50, "published": 1}, {}]
    world.clock.advance(86_400)
    assert await settled(world, ties, objects) == {"gone": 100}


async def test_a_list_that_the_key_may_not_read_leaves_the_others_to_be_settled() -> None:
    world = World(permissions=frozenset({"payment_intent_read"}))
    (obj,) = put(world, PAYMENT_INTENTS, "payment_intent.succeeded")
    objects = Undecided(world, [("charge", "ch_1"), ("charge", "ch_2"), ("payment_intent", obj["id"])])

    assert await settled(world, Ties(world.clock), objects) == {"not_permitted": 2, "published": 1}


async def test_a_read_that_fails_leaves_none_behind_that_goes_on_with_a_closed_client() -> None:
    world = World()
    objects = put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 20)
    reading: set[str] = set()

    class Slow(MemoryStripeReader):
        async def object(self, name: StripeList, object_id: str) -> StripeObject:
            if (name, object_id) == (PAYMENT_INTENTS, objects[0]["id"]):
                raise StripeUnavailable("away")
            reading.add(object_id)
            try:
                await asyncio.Event().wait()
            finally:
                reading.discard(object_id)
            raise AssertionError

    source = replace(world.source, reader=Slow(world.stripe, None))
    backfill = Backfill(source, world.ingest, world.jobs, world.clock)

    with pytest.raises(StripeUnavailable):
        await backfill.read_named([Named(PAYMENT_INTENTS, each["id"]) for each in objects])
    assert reading == set()


async def test_a_snapshot_is_of_the_account_that_an_endpoint_says_whichever_endpoint_comes_first() -> None:
    nameless = replace(endpoint("first"), account=None)
    world = World(endpoints=(nameless, endpoint("second")))
    put(world, PAYMENT_INTENTS, "payment_intent.succeeded")

    await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())

    (record,) = world.records()
    assert decode(record.value or b"").account == world.source.account == "acct_1"


async def test_a_time_counted_from_now_goes_on_where_it_was_interrupted() -> None:
    world = World()
    objects = put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 9)
    day = timedelta(days=1)
    with pytest.raises(Killed):
        await world.backfill.walk(PAYMENT_INTENTS, world.clock.now() - day, None, Dying(after=1), asked="1d")
    world.clock.advance(60)

    counts = await world.backfill.walk(PAYMENT_INTENTS, world.clock.now() - day, None, Backfilled(), asked="1d")

    assert counts.read == 6
    assert len(world.records()) == len(objects)


async def test_a_run_that_was_interrupted_long_ago_is_begun_anew() -> None:
    world = World()
    put(world, PAYMENT_INTENTS, "payment_intent.succeeded", 9)
    with pytest.raises(Killed):
        await world.backfill.walk(PAYMENT_INTENTS, None, None, Dying(after=1))
    world.clock.advance(30 * 86_400)

    assert (await world.backfill.walk(PAYMENT_INTENTS, None, None, Backfilled())).read == 9
