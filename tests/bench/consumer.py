"""What an event costs the payments consumer, from Kafka into Postgres, beside parts of its work in the same run.

`python -m tests.bench.consumer [--rounds N] [--events N]`

The events are shops' payments and refunds as the simulator tells them, unique and out of order, normalized and encoded
as the receiver does it. Each round has an empty database; Postgres waits for the disk at every commit (fsync on).
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import asyncpg
import click
import uvloop
from rich.progress import Progress
from rich.table import Table

from service.adapters.kafka_publisher import KafkaPublisher
from service.adapters.postgres_store import PostgresProjectionStore
from service.consumer.loop import ConsumerLimits
from service.contract import Event
from service.events import ConsumedEvent, ConsumedRecord, Delivery, Endpoint, Partition, Record
from service.normalize import normalize
from service.ports import Batch
from service.projections import PROJECTIONS
from service.records import Topics, decode, encode
from service.signature import sign, verify
from tests.bench.load import bodies
from tests.bench.measuring import MICROSECONDS, Servers, Spread, console, cpu_seconds, machine, process, say, servers
from tests.support.deployment import TEST_SECRET, Deployment, deployment
from tests.support.stack import MIGRATED_TEMPLATE, database, make_template
from tests.support.waiting import eventually, free_port

PROJECTION = PROJECTIONS["payments"]
PREFIX = "bench"
PARTITION = Partition("bench.direct", 0)
ENDPOINT = Endpoint("bench", "/webhooks/bench", (TEST_SECRET,))
BATCH = ConsumerLimits().batch_records
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
SINGLES_MAX = 1_000
"""One transaction an event is slow, and soon tells how slow."""
PUBLISH_SECONDS = 30.0
CAUGHT_UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to work off events: so many, in so many seconds of time and of Python's CPU."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    @property
    def cpu(self) -> float:
        """µs of Python's CPU per event."""
        return self.cpu_seconds / self.events * MICROSECONDS


async def bench(rounds: int, events: int) -> None:
    records = list(islice(payment_records(), events))
    consumed = [as_consumed(record, offset) for offset, record in enumerate(records)]
    results: dict[str, list[Measured]] = {}
    async with servers() as running:
        await make_template(running.postgres)
        deployed = await deployment(running.kafka.bootstrap_servers, running.postgres.url, PREFIX)
        await publish(deployed, records)
        with Progress(console=console(), transient=True) as progress:
            for _ in progress.track(range(rounds), description="rounds"):
                for name, measured in (
                    ("decode only", decode_only(consumed)),
                    ("apply, 1 event a transaction", await apply(running, consumed[:SINGLES_MAX], batch=1)),
                    (f"apply, {BATCH} events a transaction", await apply(running, consumed, batch=BATCH)),
                    ("consumer process, Kafka to Postgres", await consume(running, deployed, len(records))),
                ):
                    results.setdefault(name, []).append(measured)
    show(results)
    say(
        f"{machine()}; Kafka and Postgres share them. Postgres 18 with fsync on; topics of "
        f"{deployed.config.kafka.partitions} partitions.",
        f"Medians [quartiles] of {rounds} rounds, each on an empty database; records of "
        f"{sum(len(record.value) for record in records) / len(records):,.0f} bytes on average.",
        "The consumer is measured from its first committed batch to its last, logging on (JSON at info, to a file).",
    )


def payment_records() -> Iterator[Record]:
    """Records of the payments consumer's topics, without end."""
    topics = Topics(PREFIX)
    for body in bodies():
        event = normalized(body)
        if event.category in PROJECTION.categories:
            yield encode(event, topics=topics, ingest_source="webhook", include_raw=True, traceparent=TRACEPARENT)


def normalized(body: bytes) -> Event:
    now = datetime.now(UTC)
    delivery = Delivery(ENDPOINT, body, (sign(body, TEST_SECRET, int(now.timestamp())).encode(),), now)
    event = normalize(verify(delivery, now=now, tolerance_seconds=300))
    if not isinstance(event, Event):
        raise TypeError(f"the simulator made an event that is quarantined: {event.reason}")
    return event


def as_consumed(record: Record, offset: int) -> ConsumedRecord:
    """The record as if it were read from a topic of one partition."""
    return ConsumedRecord(PARTITION, offset, record.key, record.value, record.headers, timestamp_ms=0)


def decoded(records: Iterable[ConsumedRecord]) -> list[ConsumedEvent]:
    events = [decode(record) for record in records]
    return [event for event in events if isinstance(event, ConsumedEvent)]


async def publish(deployed: Deployment, records: Sequence[Record]) -> None:
    """Put them on their topics, a thousand at a time."""
    kafka = deployed.config.kafka
    publisher = KafkaPublisher(kafka.bootstrap_servers, topics=deployed.topics.data)
    await publisher.start()
    try:
        for begin in range(0, len(records), 1000):
            deadline = asyncio.get_running_loop().time() + PUBLISH_SECONDS
            await asyncio.gather(
                *(publisher.publish(record, deadline=deadline) for record in records[begin : begin + 1000])
            )
    finally:
        await publisher.close()


def timer(cpu: Callable[[], float]) -> Callable[[int], Measured]:
    """Starts now; call it with how many events were worked off since."""
    began, spent = time.perf_counter(), cpu()
    return lambda events: Measured(events, time.perf_counter() - began, cpu() - spent)


def decode_only(records: Sequence[ConsumedRecord]) -> Measured:
    """The least that any consumer does."""
    measured = timer(time.process_time)
    return measured(len(decoded(records)))


async def apply(running: Servers, records: Sequence[ConsumedRecord], *, batch: int) -> Measured:
    """Decode and apply without Kafka and without the loop, in transactions of so many events."""
    async with database(running.postgres, MIGRATED_TEMPLATE) as url:
        store = await PostgresProjectionStore.open(url, PROJECTION, consumer_group="bench", cluster_id="bench")
        try:
            await store.next_offset(PARTITION)
            measured, applied = timer(time.process_time), 0
            for begin in range(0, len(records), batch):
                events = decoded(records[begin : begin + batch])
                end = begin + len(events)
                applied += (await store.apply(Batch(events, {PARTITION: begin or None}, {PARTITION: end}))).applied
            return measured(applied)
        finally:
            await store.close()


async def consume(running: Servers, deployed: Deployment, total: int) -> Measured:
    """`stripe-ingest consume payments` from the topics' start until it has caught up.

    Where to read from is in the database: with an empty one the same group begins anew.
    """
    async with database(running.postgres, MIGRATED_TEMPLATE) as url:
        connection = await asyncpg.connect(url)
        env = {
            "PATH": os.environ["PATH"],
            "STRIPE_INGEST__ADMIN__PORT": str(free_port()),
            "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": deployed.config.kafka.bootstrap_servers,
            "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": deployed.config.kafka.topic_prefix,
            "STRIPE_INGEST__DATABASE__URL": url,
            "STRIPE_INGEST__LOGGING__FORMAT": "json",
        }

        async def passed() -> int:
            return int(await connection.fetchval("SELECT COALESCE(sum(next_offset), 0) FROM consumer_offsets"))

        async def caught_up() -> bool:
            return await passed() == total

        try:
            log = running.folder / "consumer.log"
            async with process("-m", "service", "consume", PROJECTION.name, env=env, log=log) as pid:
                await eventually(passed, timeout_seconds=CAUGHT_UP_SECONDS, what="the first batch is committed")
                before = await passed()
                measured = timer(lambda: cpu_seconds(pid))
                await eventually(caught_up, timeout_seconds=CAUGHT_UP_SECONDS, what="the consumer has caught up")
                return measured(total - before)
        finally:
            await connection.close()


def show(results: dict[str, list[Measured]]) -> None:
    table = Table(title=f"{PROJECTION.name} consumer", title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    for heading in ("events", "events/s", "Python CPU µs/event"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, rounds in results.items():
        table.add_row(
            name,
            f"{rounds[0].events:,}",
            Spread([measured.per_second for measured in rounds]).shown(),
            Spread([measured.cpu for measured in rounds]).shown(),
        )
    console().print(table)
    console().print()


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--events", default=20_000, show_default=True, type=click.IntRange(5_000, 1_000_000))
def main(rounds: int, events: int) -> None:
    """Events per second and CPU per event of the payments consumer."""
    uvloop.run(bench(rounds, events))


if __name__ == "__main__":
    main()
