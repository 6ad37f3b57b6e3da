import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg
import pytest

from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher
from service.adapters.postgres_store import PostgresProjectionStore
from service.clock import SystemClock
from service.consumer.loop import Consumer, ConsumerLimits
from service.contract import Event, PaymentIntent
from service.events import InvalidRecord, Record
from service.projections import PROJECTIONS
from service.records import decode
from tests.contracts.projection_store import PAYMENTS, REFUNDS, event, intent, refund
from tests.support.histories import oracle_rows
from tests.support.memory_log import DEAD_LETTERS, DrainingSource, SeenByObserver, new_kafka, put

PROJECTION = PROJECTIONS["payments"]
FAST = ConsumerLimits(batch_records=40, backoff_min=0.001, backoff_max=0.01)


def build(invalid: InvalidRecord) -> Record:
    return Record(DEAD_LETTERS, str(invalid.record.offset).encode(), invalid.record.value or b"", ())


def shop_log(payments: int) -> tuple[MemoryKafka, Sequence[Event]]:
    """Payments on one topic, their refunds, which know only the charge, on the other; all shuffled."""
    dice = random.Random(7)
    kafka = new_kafka()
    on_payments, on_refunds = [], []
    for n in range(payments):
        on_payments.append(event(f"evt_{n}a", intent(n, "processing"), at=n, kind="created"))
        on_payments.append(event(f"evt_{n}b", intent(n, charge=f"ch_{n}"), at=n + 2, kind="succeeded"))
        on_refunds.append(event(f"evt_{n}c", refund(n, f"ch_{n}"), at=n + 3))
    dice.shuffle(on_payments)
    dice.shuffle(on_refunds)
    put(kafka, PAYMENTS, *on_payments)
    put(kafka, REFUNDS, *on_refunds)
    return kafka, [*on_payments, *on_refunds]


@dataclass
class Site:
    """A database and a cluster; `consume` is one consumer process."""

    url: str
    kafka: MemoryKafka
    connection: "asyncpg.Connection[asyncpg.Record]"
    seen: SeenByObserver = field(default_factory=SeenByObserver)

    async def consume(self, member_of: str = "group") -> None:
        stop = asyncio.Event()
        source = DrainingSource(self.kafka, stop, topics=[p.topic for p in (PAYMENTS, REFUNDS)], group=member_of)
        store = await PostgresProjectionStore.open(
            self.url, PROJECTION, consumer_group="group", cluster_id="cluster", lock_seconds=20
        )
        consumer = Consumer(
            PROJECTION.name,
            source,
            store,
            MemoryPublisher(self.kafka),
            decode=decode,
            build_dead_letter=build,
            observer=self.seen,
            clock=SystemClock(),
            limits=FAST,
        )
        try:
            await consumer.run(stop)
        finally:
            await source.close()
            await store.close()

    async def assert_every_event_counts_once(self, events: Sequence[Event]) -> None:
        expected = oracle_rows(PROJECTION, events)
        rows = {row["payment_id"]: row for row in await self.connection.fetch("SELECT * FROM payments")}
        assert rows.keys() == {key.object_id for _, key in expected}
        for (_, key), columns in expected.items():
            for name in ("status", "amount_minor", "amount_refunded_minor", "charge_id", "last_event_id"):
                assert rows[key.object_id][name] == columns[name], (key, name)
        assert await self.connection.fetchval("SELECT count(*) FROM payment_events") == len(events)
        offsets = await self.connection.fetch("SELECT topic, next_offset FROM consumer_offsets")
        assert {tuple(row) for row in offsets} == {(p.topic, self.kafka.log(p).end) for p in (PAYMENTS, REFUNDS)}


@asynccontextmanager
async def site_on(url: str, kafka: MemoryKafka) -> AsyncIterator[Site]:
    connection = await asyncpg.connect(url)
    try:
        yield Site(url, kafka, connection)
    finally:
        await connection.close()


async def test_a_zombie_that_reads_the_same_partitions_costs_work_and_nothing_else(database_url: str) -> None:
    kafka, events = shop_log(150)
    async with site_on(database_url, kafka) as site:
        # Two groups in Kafka, so that both are assigned everything; one in the database.
        await asyncio.gather(site.consume(), site.consume(member_of="zombies"))

        await site.assert_every_event_counts_once(events)
        assert site.seen.fences_lost > 0


async def test_backends_killed_all_the_time_lose_nothing_and_double_nothing(database_url: str) -> None:
    kafka, events = shop_log(300)
    async with site_on(database_url, kafka) as site:
        consuming = asyncio.create_task(site.consume())
        kills = 0
        while not consuming.done():
            kills += await site.connection.fetchval(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 1000)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'stripe-ingest%'"
            )
            if kills >= 20:
                break
            await asyncio.wait({consuming}, timeout=0.01)
        await consuming

        assert kills > 0
        assert None in site.seen.retries or any((state or "")[:2] in ("08", "57") for state in site.seen.retries)
        await site.assert_every_event_counts_once(events)


@pytest.mark.parametrize("seed", range(3))
async def test_a_process_that_dies_anywhere_is_followed_by_one_that_goes_on(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    kafka, events = shop_log(150)
    async with site_on(database_url, kafka) as site:
        for _ in range(12):
            life = asyncio.create_task(site.consume())
            await asyncio.wait({life}, timeout=dice.uniform(0.005, 0.12))
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life
        await site.consume()

        await site.assert_every_event_counts_once(events)


async def test_a_row_that_postgres_refuses_is_the_only_one_that_is_dead_lettered(database_url: str) -> None:
    kafka, events = shop_log(30)
    poison = event("evt_poison", PaymentIntent(payment_intent_id="pi_x", description="\x00"), at=0)
    put(kafka, PAYMENTS, poison)
    put(kafka, PAYMENTS, more := event("evt_more", intent(99), at=5))
    async with site_on(database_url, kafka) as site:
        await site.consume()

        assert [record.key for record in kafka.records(DEAD_LETTERS)] == [b"60"]
        assert site.seen.reasons == ["row_refused"]
        await site.assert_every_event_counts_once([*events, more])
