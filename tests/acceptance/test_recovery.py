"""What was missed, parked or refused comes back: the commands as processes, against a fake Stripe, real Kafka and Postgres."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import admin_client
from service.config import EndpointConfig
from service.contract import Invoice
from service.events import ConsumedEvent, ConsumedRecord, InvalidRecord, PassedOver
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.projections import subscriptions
from service.projections.model import ObjectKey, ObjectState, Row
from service.records import decode_for
from service.simulator.fake_stripe import FakeStripe, Held, serving
from service.simulator.objects import Object
from service.simulator.shop import shop
from service.simulator.stripe_sender import StripeSender, play
from tests.support.deployment import ROWS, TEST_SECRET, Deployment, deployment
from tests.support.processes import CommandLine

pytestmark = pytest.mark.timeout(180)

ENDPOINT = EndpointConfig(name="stripe", secrets=(TEST_SECRET,))
OF_THE_LAST_EVENT = {"last_event_id", "last_event_type", "last_event_at", "applied_at"}
"""What a row says of the event that it rests on: after a backfill that is a snapshot."""


def commands_on(deployed: Deployment, url: str, key: str, **settings: str) -> CommandLine:
    """`stripe-ingest …` on a deployment and a fake Stripe."""
    config = deployed.config
    return CommandLine({
        "STRIPE_WEBHOOK_SECRET": TEST_SECRET.value,
        "STRIPE_API_KEY": key,
        "STRIPE_INGEST__STRIPE__API_BASE": url,
        "STRIPE_INGEST__STRIPE__REQUESTS_PER_SECOND": "100",
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": config.kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": config.kafka.topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": config.database_url,
    } | settings)  # fmt: skip


def crowd(shops: int, *, days: int = 28) -> list[Object]:
    """What has happened at some shops within the last weeks, in Stripe's true order."""
    now = datetime.now(UTC)
    begin, end = now - timedelta(days=days), now - timedelta(minutes=30)
    events = [
        event
        for seed in range(shops)
        for event in shop(seed, begin + (end - begin) * seed / (2 * shops)).events
        if begin <= datetime.fromtimestamp(event["created"], UTC) < end
    ]
    return sorted(events, key=lambda event: event["created"])


@asynccontextmanager
async def stripe_with(events: Sequence[Object]) -> AsyncIterator[tuple[FakeStripe, str]]:
    """A fake Stripe at which these have happened, and where it is."""
    fake = FakeStripe()
    fake.add_all(events)
    async with serving(fake) as url:
        yield fake, url


async def receive(deployed: Deployment, events: Sequence[Object]) -> None:
    """Have these delivered."""
    async with deployed.receiving() as url, StripeSender(f"{url}/webhooks/stripe", [TEST_SECRET]) as sender:
        report = await play(events, sender, concurrency=8)
    assert report.delivered == len(events)


async def applied(deployed: Deployment) -> None:
    """Return once the running consumers have caught up."""
    config = deployed.config
    caught_up = await until_caught_up(
        config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=120
    )
    assert caught_up


async def rows(deployed: Deployment) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Every row of every table, without what it says of its last event."""
    connection = await asyncpg.connect(deployed.config.database_url)
    try:
        return {
            (table, row[key]): {name: value for name, value in row.items() if name not in OF_THE_LAST_EVENT}
            for table, key in ROWS.items()
            for row in await connection.fetch(f"SELECT * FROM {table}")
        }
    finally:
        await connection.close()


def differing(wanted: Mapping[Any, Mapping[str, Any]], found: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """Where the rows differ, a line each."""
    return [
        f"{table} {name} {column}: {found.get((table, name), {}).get(column)!r} instead of {value!r}"
        for (table, name), row in wanted.items()
        for column, value in row.items()
        if found.get((table, name), {}).get(column) != value
    ] + [f"{name}: should not be there" for name in found.keys() - wanted.keys()]


@pytest.fixture
async def one(kafka: LocalKafka, database_url: str, topic_prefix: str) -> Deployment:
    """A deployment with the endpoint of the two-variable set-up."""
    return await deployment(kafka.bootstrap_servers, database_url, topic_prefix, endpoints=[ENDPOINT])


@pytest.fixture
async def other(kafka: LocalKafka, another_database_url: str, topic_prefix: str) -> Deployment:
    """Another one, at which nothing goes wrong."""
    return await deployment(kafka.bootstrap_servers, another_database_url, f"{topic_prefix}o", endpoints=[ENDPOINT])


async def test_a_month_in_which_much_went_wrong_comes_to_the_rows_of_one_in_which_nothing_did(
    one: Deployment, other: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = crowd(16)
    chance = random.Random(7)
    await receive(other, events)
    async with other.consuming():
        await applied(other)
    wanted = await rows(other)

    # One delivery in a hundred never comes.
    dropped = {event["id"] for event in chance.sample(events, len(events) // 100)}
    await receive(one, [event for event in events if event["id"] not in dropped])
    # Of one topic the older half is deleted before anybody has read it.
    await delete_older_half(one, one.topics.of("payment"))
    # One consumer cannot read what happened on one day, and another one writes wrong rows.
    noon = chance.choice([event["created"] for event in events if event["type"].startswith("refund.")])
    refused: set[str] = set()
    with monkeypatch.context() as broken:
        broken.setattr(
            "service.bootstrap.consumer.decode_for", refusing_a_day(datetime.fromtimestamp(noon, UTC), refused)
        )
        broken.setattr(subscriptions, "_invoice_row", forgetful(subscriptions._invoice_row))
        async with one.consuming():
            await applied(one)
    assert refused
    assert await rows(one) != wanted

    async with stripe_with(events) as (fake, url):
        commands = commands_on(one, url, fake.new_key("test"))
        reconciled = await commands.run("reconcile", "--since", "30d", "--json")
        replayed = await commands.run("dead-letter", "replay", "--yes", "--json")
        lists = ("payment_intents", "charges", "refunds", "disputes", "checkout_sessions", "invoice_payments")
        backfilled = await commands.run("backfill", *lists, "--json")
        async with one.consuming():
            await applied(one)
        # What the other commands have touched is right already.
        found = await rows(one)
        forgotten = [name for name in wanted if name[0] == "invoices" and found[name] != wanted[name]]
        rebuilt = await commands.run("rebuild", "subscriptions", "--json")

    assert (reconciled.code, backfilled.code, rebuilt.code, replayed.code) == (0, 0, 0, 0), (
        reconciled.err, backfilled.err, rebuilt.err, replayed.err,
    )  # fmt: skip
    # What was found is what was planted: no more, and no less.
    *missing, summary = reconciled.lines
    assert {line["missing"]["event_id"] for line in missing} == dropped
    assert (summary["listed"], summary["known"]) == (len(events), len(events) - len(dropped))
    # Payments reads the refunds too, so each of them was refused by two groups.
    assert replayed.summary == {"total": 2 * len(refused), "outcomes": {"replayed": 2 * len(refused)}}
    assert {line["id"] for line in replayed.listed} == refused
    assert {("invoices", line["id"]) for line in rebuilt.listed} == set(forgotten)
    assert rebuilt.summary["corrected"] == len(forgotten) > 0
    objects = {line["objects"]: line["published"] for line in backfilled.lines}
    of_intents = {event["data"]["object"]["id"] for event in events if event["type"].startswith("payment_intent.")}
    assert objects["payment_intents"] == len(of_intents)
    assert differing(wanted, await rows(one)) == []


async def delete_older_half(deployed: Deployment, topic: str) -> None:
    """Kafka loses the records of the first half of each partition."""
    config = deployed.config
    async with admin_client(config.kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        records = await deployed.records(topic)
        ends = Counter(TopicPartition(topic, record.partition) for record in records)
        await admin.delete_records({tp: RecordsToDelete(before_offset=count // 2) for tp, count in ends.items()})


def refusing_a_day(noon: datetime, refused: set[str]) -> Any:
    """A `decode_for` that cannot read refunds that were made within half a day of this."""

    def reading(record: ConsumedRecord, *, consumer_group: str) -> ConsumedEvent | InvalidRecord | PassedOver:
        item = decode_for(record, consumer_group=consumer_group)
        if (
            isinstance(item, ConsumedEvent)
            and item.event.event_type.startswith("refund.")
            and abs(item.event.created_at - noon) < timedelta(hours=12)
        ):
            refused.add(item.event.event_id)
            return InvalidRecord(record, "schema_invalid", "a bug of this version")
        return item

    return reading


def forgetful(right: Any) -> Any:
    """An `_invoice_row` that forgets what is due."""

    def wrong(root: ObjectKey, state: ObjectState, invoice: Invoice) -> Row:
        row = right(root, state, invoice)
        return Row(row.table, row.key, {**row.columns, "amount_due_minor": 0})

    return wrong


@pytest.mark.parametrize(
    ("command", "path", "shops"),
    [
        (("reconcile", "--since", "30d", "--json"), "/v1/events", 20),
        (("backfill", "payment_intents", "--json"), "/v1/payment_intents", 60),
    ],
    ids=["reconcile", "backfill"],
)
async def test_a_command_killed_at_every_page_and_started_again_ends_as_if_it_never_had_been(
    one: Deployment, command: Sequence[str], path: str, shops: int
) -> None:
    events = [event for event in crowd(shops) if event["type"].startswith("payment_intent.")]
    async with stripe_with(events) as (fake, url):
        commands = commands_on(one, url, fake.new_key("test"))
        killed = 0
        while True:
            # A page is done, and the next one asked for: there the process dies.
            held = Held()
            fake.trouble.next(held, after=1, path=path)
            process = await commands.start(*command)
            ended = asyncio.create_task(process.wait())
            asked = asyncio.create_task(held.reached.wait())
            await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
            fake.trouble.clear()
            if ended.done():
                asked.cancel()
                break
            process.kill()
            await ended
            held.release.set()
            killed += 1
            await free_lease(one)

    assert process.returncode == 0
    assert killed >= 2
    published = Counter(dict(record.headers)["ce_subject"] for record in await one.records(one.topics.of("payment")))
    expected = Counter(event["data"]["object"]["id"].encode() for event in events)
    assert published == (expected if command[0] == "reconcile" else Counter(dict.fromkeys(expected, 1)))


async def free_lease(deployed: Deployment) -> None:
    """As if the time had passed after which a job whose process died is anybody's."""
    connection = await asyncpg.connect(deployed.config.database_url)
    try:
        await connection.execute("UPDATE recovery_jobs SET lease_until = now()")
    finally:
        await connection.close()


async def test_under_429s_the_rate_stays_within_the_limit_and_the_run_ends(one: Deployment) -> None:
    events = [event for event in crowd(60) if event["type"].startswith("payment_intent.")]
    async with stripe_with(events) as (fake, url):
        fake.trouble.limit(4, burst=1)
        commands = commands_on(one, url, fake.new_key("test"), STRIPE_INGEST__STRIPE__REQUESTS_PER_SECOND="10")

        ended = await commands.run("reconcile", "--since", "30d", "--json")

        assert (ended.code, ended.err) == (0, "")
        assert ended.summary["missing"] == Counter(event["type"] for event in events)
        assert fake.trouble.rate_limited > 0
        assert fake.most_within(1.0) <= 10


async def test_a_key_that_may_not_read_events_is_told_what_it_needs(one: Deployment) -> None:
    async with stripe_with(crowd(1)) as (fake, url):
        commands = commands_on(one, url, fake.new_key("test", frozenset({"payment_intent_write"})))

        reconciled, backfilled = await asyncio.gather(commands.run("reconcile"), commands.run("backfill", "charges"))

    assert (reconciled.code, backfilled.code) == (1, 1)
    assert "event_read" in reconciled.err
    assert "reconcile.api_key_file" in reconciled.err
    assert "charge_read" in backfilled.err


async def test_ctrl_c_keeps_what_was_done_and_says_so(one: Deployment) -> None:
    events = [event for event in crowd(20) if event["type"].startswith("payment_intent.")]
    async with stripe_with(events) as (fake, url):
        commands = commands_on(one, url, fake.new_key("test"))
        held = Held()
        fake.trouble.next(held, after=1, path="/v1/events")
        process = await commands.start("reconcile", "--since", "30d")
        async with asyncio.timeout(60):
            await held.reached.wait()
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
        held.release.set()
        fake.trouble.clear()

        again = await commands.run("reconcile", "--since", "30d", "--json")

    assert process.returncode == 130
    assert b"run it again" in said
    assert again.code == 0
    assert again.summary["listed"] == len(events) - 100


async def test_a_receiver_with_a_key_finds_what_it_missed_by_itself(one: Deployment) -> None:
    events = crowd(2, days=1)
    async with stripe_with(events) as (fake, url):
        commands = commands_on(
            one,
            url,
            fake.new_key("test"),
            STRIPE_INGEST__RECEIVER__PORT="0",
            STRIPE_INGEST__RECEIVER__HOST="127.0.0.1",
            STRIPE_INGEST__ADMIN__PORT="0",
            STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS="1",
            STRIPE_INGEST__RECONCILE__LOOKBACK_HOURS="48",
        )
        process = await commands.start("receive")
        try:
            async with asyncio.timeout(60):
                while len(found := await one.records(*one.topics.data)) < len(events):
                    assert process.returncode is None
        finally:
            process.terminate()
            await process.communicate()

    assert Counter(dict(record.headers)["ce_id"].decode() for record in found) == Counter(e["id"] for e in events)
    assert {dict(record.headers)["ingest_source"] for record in found} == {b"reconcile"}
