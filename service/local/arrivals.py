"""What arrived where: records by topic and rows by table, read from Kafka and Postgres themselves."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import admin_client, describe_topics
from service.money import format_minor
from service.projections import PROJECTIONS
from service.records import Topics

POLL_SECONDS: Final = 0.2
ROWS_SHOWN_MAX: Final = 12

TABLES: Final[Mapping[str, Sequence[str]]] = {
    "payments": ("payment_id", "status", "amount_minor", "amount_received_minor", "amount_refunded_minor", "currency"),
    "refunds": ("refund_id", "status", "amount_minor", "currency", "failure_reason"),
    "subscriptions": ("subscription_id", "status", "current_period_end", "canceled_at"),
    "invoices": ("invoice_id", "status", "billing_reason", "amount_due_minor", "amount_paid_minor", "currency"),
    "products": ("product_id", "name", "active", "default_price_id"),
    "prices": ("price_id", "nickname", "active", "unit_amount_minor", "interval", "currency"),
}
"""The columns that tell a table's story."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table's newest rows, as text with amounts in their currency, and how many there are in all."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    count: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Records by topic, ledger entries by projection, rows by table."""

    records: Mapping[str, int]
    ledgers: Mapping[str, int]
    tables: Mapping[str, TableRows]


async def arrivals(bootstrap_servers: str, database_url: str, topics: Topics) -> Arrivals:
    """Read what is there now."""
    connection = await asyncpg.connect(database_url)
    try:
        ledgers = {
            projection.ledger: await connection.fetchval(f"SELECT count(*) FROM {projection.ledger}")  # noqa: S608 -- our own name
            for projection in PROJECTIONS.values()
        }
        tables = {name: await _rows(connection, name, columns) for name, columns in TABLES.items()}
    finally:
        await connection.close()
    names = (*topics.data, topics.quarantine, topics.dead_letter)
    ends = await _ends(bootstrap_servers, names)
    records = {name: sum(end for partition, end in ends.items() if partition.topic == name) for name in names}
    return Arrivals(records, ledgers, tables)


async def until_caught_up(bootstrap_servers: str, database_url: str, topics: Topics, *, timeout_seconds: float) -> bool:
    """Wait until every consumer has passed every record that is on its topics now; false when it takes too long."""
    read = {
        projection: tuple(topics.of(category) for category in PROJECTIONS[projection].categories)
        for projection in PROJECTIONS
    }
    ends = await _ends(bootstrap_servers, sorted({name for names in read.values() for name in names}))
    wanted = {
        (topics.group(projection), partition.topic, partition.partition): end
        for projection, names in read.items()
        for partition, end in ends.items()
        if partition.topic in names and end > 0
    }
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await _passed(connection, wanted):  # noqa: ASYNC110 -- other processes' progress has no event
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return False
    finally:
        await connection.close()
    return True


async def _passed(connection: "asyncpg.Connection[asyncpg.Record]", wanted: Mapping[tuple[str, str, int], int]) -> bool:
    rows = await connection.fetch("SELECT consumer_group, topic, partition, next_offset FROM consumer_offsets")
    offsets = {(row["consumer_group"], row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return all(offsets.get(key, 0) >= end for key, end in wanted.items())


async def _rows(connection: "asyncpg.Connection[asyncpg.Record]", table: str, columns: Sequence[str]) -> TableRows:
    listed = ", ".join(columns)
    rows = await connection.fetch(
        f"SELECT {listed} FROM {table} ORDER BY created_at DESC NULLS LAST, 1 LIMIT {ROWS_SHOWN_MAX}"  # noqa: S608 -- our own names
    )
    count = await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 -- our own name
    # The amounts say the currency.
    shown = [column for column in columns if column != "currency"]
    return TableRows(shown, [[_shown(column, row) for column in shown] for row in map(dict, rows)], count)


def _shown(column: str, row: Mapping[str, Any]) -> str:
    value = row[column]
    if column.endswith("_minor"):
        return format_minor(value, row["currency"])
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return "" if value is None else str(value)


async def _ends(bootstrap_servers: str, names: Sequence[str]) -> Mapping[TopicPartition, int]:
    """The end offset of every partition of the topics."""
    partitions = await _partitions(bootstrap_servers, KafkaSecurity(), names)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await consumer.start()
    try:
        return dict(await consumer.end_offsets(partitions)) if partitions else {}
    finally:
        await consumer.stop()


async def _partitions(bootstrap_servers: str, security: KafkaSecurity, names: Sequence[str]) -> list[TopicPartition]:
    async with admin_client(bootstrap_servers, security=security) as admin:
        described = await describe_topics(admin, names)
    return [
        TopicPartition(name, number)
        for name in names
        if name in described
        for number in range(described[name].partitions)
    ]
