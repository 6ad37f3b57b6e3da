"""What arrived where: records by topic and rows by table, read from Kafka and Postgres themselves."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import admin_client, describe_topics
from service.bootstrap import kafka_security
from service.config import Config
from service.errors import ConfigurationError
from service.events import ConsumedRecord, Partition
from service.money import format_minor
from service.projections import PROJECTIONS
from service.records import Topics, quarantined_body
from service.redaction import CannotUnseal, Sealing

POLL_SECONDS: Final = 0.2
READ_SECONDS_MAX: Final = 30.0
ROWS_SHOWN_MAX: Final = 12

TABLES: Final[Mapping[str, Sequence[str]]] = {
    "payments": ("payment_id", "status", "amount_minor", "amount_received_minor", "amount_refunded_minor", "currency"),
    "refunds": ("refund_id", "status", "amount_minor", "currency", "failure_reason"),
    "subscriptions": ("subscription_id", "status", "current_period_end", "canceled_at"),
    "invoices": ("invoice_id", "status", "billing_reason", "amount_due_minor", "amount_paid_minor", "currency"),
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


async def read_newest(config: Config, family: str, limit: int) -> list[str]:
    """The newest records of a topic, oldest first, as JSON lines; sealed bodies opened where the key is configured.

    Raises `ConfigurationError` for an unknown family.
    """
    topics = Topics(config.kafka.topic_prefix)
    names = {
        name.removeprefix(f"{topics.prefix}."): name for name in (*topics.data, topics.quarantine, topics.dead_letter)
    }
    if family not in names:
        raise ConfigurationError(f"there is no topic {family!r}; there are {', '.join(names)}")
    security = kafka_security(config)
    partitions = await _partitions(config.kafka.bootstrap_servers, security, [names[family]])
    consumer = AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap_servers, **security.client_arguments())
    await consumer.start()
    try:
        sealing = config.sealing()
        return [_line(_consumed(record), sealing) for record in await _newest(consumer, partitions, limit)]
    finally:
        await consumer.stop()


async def _newest(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], limit: int
) -> "list[ConsumerRecord[bytes, bytes]]":
    if not partitions:
        return []
    consumer.assign(partitions)
    first, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    missing = {partition for partition in partitions if end[partition] > first[partition]}
    for partition in partitions:
        consumer.seek(partition, max(first[partition], end[partition] - limit))
    records: list[ConsumerRecord[bytes, bytes]] = []
    async with asyncio.timeout(READ_SECONDS_MAX):
        while missing:
            for partition, batch in (await consumer.getmany(timeout_ms=500)).items():
                records += batch
                if batch[-1].offset + 1 >= end[partition]:
                    missing.discard(partition)
    return sorted(records, key=lambda record: record.timestamp)[-limit:]


def _consumed(record: "ConsumerRecord[bytes, bytes]") -> ConsumedRecord:
    partition = Partition(record.topic, record.partition)
    headers = tuple((name, value or b"") for name, value in record.headers)
    return ConsumedRecord(partition, record.offset, record.key, record.value, headers, record.timestamp)


def _line(record: ConsumedRecord, sealing: Sealing | None) -> str:
    shown = {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "key": (record.key or b"").decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in record.headers},
    }
    try:
        body = quarantined_body(record, sealing)
    except CannotUnseal as sealed:
        return json.dumps({**shown, "value_base64": _base64(record.value or b""), "sealed": str(sealed)})
    try:
        return json.dumps({**shown, "value": json.loads(body)})
    except (ValueError, RecursionError):
        return json.dumps({**shown, **_unparsed(body)})


def _unparsed(body: bytes) -> Mapping[str, str]:
    try:
        return {"value": body.decode()}
    except UnicodeDecodeError:
        return {"value_base64": _base64(body)}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


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
