"""A shop's life through the real receiver, Kafka and Postgres: rows that are right, whatever the order of arrival."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.simulator.objects import Object
from service.simulator.shop import STORY_SPAN, Story, deliveries, shop
from service.simulator.stripe_sender import Answer, Report, StripeSender, play
from tests.support.deployment import ROWS, TEST_SECRET, Deployment, deployment

pytestmark = pytest.mark.timeout(300)

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC) - STORY_SPAN


async def played(deployed: Deployment, arriving: Sequence[Object]) -> Report:
    """Deliver everything and wait until the consumers have applied it."""
    async with deployed.receiving() as url, deployed.consuming():
        async with StripeSender(f"{url}/webhooks/test", [TEST_SECRET]) as sender:
            report = await play(arriving, sender, concurrency=8)
        caught_up = await until_caught_up(
            deployed.config.kafka.bootstrap_servers, deployed.config.database_url, deployed.topics, timeout_seconds=120
        )
    assert caught_up
    return report


async def rows(deployed: Deployment) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Every row of every table by its id, `applied_at` aside."""
    connection = await asyncpg.connect(deployed.config.database_url)
    try:
        return {
            table: {
                row[key]: {name: value for name, value in row.items() if name != "applied_at"}
                for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY {key}")
            }
            for table, key in ROWS.items()
        }
    finally:
        await connection.close()


def differences(story: Story, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Where the rows say something else than the story."""
    return [
        f"{table} {object_id} {column}: {found[table].get(object_id, {}).get(column)!r} instead of {value!r}"
        for table, objects in story.expected.items()
        if table in found
        for object_id, facts in objects.items()
        for column, value in facts.items()
        if found[table].get(object_id, {}).get(column) != value
    ]


async def test_the_rows_are_right_to_the_cent_and_the_status(deployed: Deployment) -> None:
    story = shop(1, START)
    arriving = deliveries(story, 1)

    report = await played(deployed, arriving)
    found = await rows(deployed)

    assert report.answers[Answer.ACCEPTED] == len(story.events)
    assert report.answers[Answer.DUPLICATE] == len(arriving) - len(story.events)
    assert report.delivered == report.deliveries
    assert differences(story, found) == []
    for table in ("payments", "refunds", "subscriptions", "invoices", "products", "prices"):
        assert found[table].keys() == story.expected[table].keys()


async def test_rows_are_the_same_whatever_the_order_and_the_number_of_arrivals(
    kafka: LocalKafka, database_url: str, topic_prefix: str, another_database_url: str
) -> None:
    story = shop(2, START)
    shuffled = [*story.events, *story.events]
    random.Random(2).shuffle(shuffled)

    in_order = await deployment(kafka.bootstrap_servers, database_url, f"{topic_prefix}a", partitions=1)
    await played(in_order, story.events)
    out_of_order = await deployment(kafka.bootstrap_servers, another_database_url, f"{topic_prefix}b", partitions=3)
    await played(out_of_order, shuffled)

    assert await rows(out_of_order) == await rows(in_order)


async def test_what_kafka_hands_out_twice_counts_once(deployed: Deployment) -> None:
    story = shop(3, START)
    await played(deployed, story.events)
    before = await rows(deployed)

    # As after a restore from yesterday's backup of the offsets alone: everything is read again.
    connection = await asyncpg.connect(deployed.config.database_url)
    await connection.execute("UPDATE consumer_offsets SET next_offset = 0")
    await connection.close()
    async with deployed.consuming():
        assert await until_caught_up(
            deployed.config.kafka.bootstrap_servers, deployed.config.database_url, deployed.topics, timeout_seconds=120
        )

    assert await rows(deployed) == before
