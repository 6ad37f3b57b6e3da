"""Redriving on a real broker and a real database: what a bug has parked arrives after all, once, and where it belongs."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from msgspec.structs import replace

from service.bootstrap import kafka as bootstrap_kafka
from service.config import ConsumerConfig
from service.contract import Event
from service.events import (
    ConsumedEvent,
    ConsumedRecord,
    InvalidRecord,
    KnownEvent,
    PassedOver,
    QuarantineReason,
    Unprocessable,
)
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.normalize import normalize
from service.receiver import ingest as spine
from service.records import decode_for
from service.redaction import Redaction
from service.signature import sign
from service.simulator.shop import STORY_SPAN, Story, shop
from tests.support.deployment import TEST_SECRET, Deployment, deployment
from tests.support.processes import CommandLine, ended
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

SHOPS = 8
BUGGY_TYPES = ("payment_intent.succeeded", "charge.refunded")
"""The first is on a topic that only one group reads, the second on one that two groups read."""


async def kill_after(command: CommandLine, records: int, *arguments: str) -> int:
    """Kill it as soon as it has told of so many records; how many it told of in all."""
    async with command.running(*arguments) as process:
        assert process.stdout is not None
        for _ in range(records):
            assert await asyncio.wait_for(process.stdout.readline(), 60)
        process.kill()
        rest, _ = await process.communicate()
        assert process.returncode == -9
        return records + rest.count(b"\n")


@pytest.fixture
async def deployed(kafka: LocalKafka, database_url: str, topic_prefix: str) -> Deployment:
    made = await deployment(kafka.bootstrap_servers, database_url, topic_prefix)
    return Deployment(replace(made.config, consumer=ConsumerConfig(dead_letter_limit=10_000)))


@pytest.fixture
def command(deployed: Deployment, tmp_path: Path) -> CommandLine:
    config = deployed.config
    file = tmp_path / "stripe-ingest.toml"
    endpoints = "".join(
        f'[[endpoints]]\nname = "{endpoint.name}"\nmode = "{endpoint.mode}"\nsecrets = ["{endpoint.secrets[0].value}"]\n'
        for endpoint in config.endpoints
    )
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{config.kafka.bootstrap_servers}"\n'
        f'topic_prefix = "{config.kafka.topic_prefix}"\n[database]\nurl = "{config.database_url}"\n{endpoints}'
    )
    return CommandLine({"STRIPE_INGEST_CONFIG": str(file)})


@pytest.fixture
async def connection(deployed: Deployment) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    made = await asyncpg.connect(deployed.config.database_url)
    yield made
    await made.close()


def shops() -> Sequence[Story]:
    opened = datetime(2026, 11, 20, tzinfo=UTC) - STORY_SPAN
    return [shop(seed, opened) for seed in range(SHOPS)]


async def post_all(deployed: Deployment, events: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Deliver the events; how many came to what."""
    limit = asyncio.Semaphore(16)

    async def post(session: aiohttp.ClientSession, url: str, event: Mapping[str, Any]) -> str:
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
        async with limit, session.post(f"{url}/webhooks/test", data=body, headers=headers) as response:
            assert response.status == 200
            return str((await response.json())["status"])

    async with deployed.receiving() as url, aiohttp.ClientSession() as session:
        return Counter(await asyncio.gather(*(post(session, url, event) for event in events)))


async def caught_up(deployed: Deployment) -> None:
    config = deployed.config
    assert await until_caught_up(
        config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=90
    )


async def wrong_rows(connection: "asyncpg.Connection[asyncpg.Record]", table: str, key: str) -> set[str]:
    """The ids of rows that are not what the shops' stories come to."""
    rows = {row[key]: dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")}
    return {
        object_id
        for each in shops()
        for object_id, facts in each.expected[table].items()
        if {name: rows.get(object_id, {}).get(name) for name in facts} != facts
    }


def refuses(*event_types: str, group: str) -> Callable[..., ConsumedEvent | InvalidRecord | PassedOver]:
    """A consumer group's bug."""

    def decoded(record: ConsumedRecord, *, consumer_group: str) -> ConsumedEvent | InvalidRecord | PassedOver:
        read = decode_for(record, consumer_group=consumer_group)
        if consumer_group == group and isinstance(read, ConsumedEvent) and read.event.event_type in event_types:
            return InvalidRecord(record, "schema_mismatch", "$.data")
        return read

    return decoded


def events_of(given: Sequence[Story]) -> Sequence[Mapping[str, Any]]:
    return [event for each in given for event in each.events]


async def test_what_a_consumers_bug_has_dead_lettered_is_applied_once_the_bug_is_mended(
    deployed: Deployment,
    command: CommandLine,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = deployed.topics.group("payments")
    events = events_of(shops())
    planted = {event["id"]: event["type"] for event in events if event["type"] in BUGGY_TYPES}
    assert len(planted) >= 20
    assert set(planted.values()) == set(BUGGY_TYPES)
    assert set(await post_all(deployed, events)) <= {"accepted", "duplicate"}

    with monkeypatch.context() as bug:
        bug.setattr("service.bootstrap.consumer.decode_for", refuses(*BUGGY_TYPES, group=group))
        async with deployed.consuming():
            await caught_up(deployed)
    assert await wrong_rows(connection, "payments", "payment_id")

    chosen, listed, planned = await asyncio.gather(
        command.run("dead-letter", "list", "--json", "--type", "charge.*", "--group", group, "--since", "1h"),
        command.run("dead-letter", "list", "--json"),
        command.run("dead-letter", "replay", "--json", "--dry-run"),
    )
    assert listed.code == 0
    assert {record["id"] for record in listed.listed} == set(planted)
    assert listed.summary == {"total": len(planted), "reasons": {"schema_mismatch": len(planted)}}
    assert {record["id"] for record in chosen.listed} == {i for i, kind in planted.items() if kind == BUGGY_TYPES[1]}
    assert (planned.code, planned.summary["outcomes"]) == (0, {"would_replay": len(planted)})

    others = ("refunds", "refund_events", "subscriptions", "subscription_events", "invoices")
    before = {table: await contents(connection, table) for table in others}
    async with deployed.consuming():
        for _ in range(2):
            replayed = await command.run("dead-letter", "replay", "--json", "--yes")
            assert (replayed.code, replayed.summary["outcomes"]) == (0, {"replayed": len(planted)})
            assert all(record["position"] for record in replayed.listed)
        await caught_up(deployed)
        assert (await command.run("dead-letter", "list", "--json")).summary["total"] == len(planted)

    assert await wrong_rows(connection, "payments", "payment_id") == set()
    assert await wrong_rows(connection, "refunds", "refund_id") == set()
    assert {table: await contents(connection, table) for table in others} == before
    assert await connection.fetchval("SELECT count(*) = count(DISTINCT (event_id, object_id)) FROM payment_events")


async def contents(connection: "asyncpg.Connection[asyncpg.Record]", table: str) -> Sequence[str]:
    """Every row of a table, `applied_at` included."""
    return sorted(str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {table}"))


async def test_a_replay_of_dead_letters_that_is_killed_and_started_again_comes_to_the_same(
    deployed: Deployment,
    command: CommandLine,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = deployed.topics.group("payments")
    await post_all(deployed, events_of(shops()))
    bug = refuses("payment_intent.succeeded", group=group)
    monkeypatch.setattr("service.bootstrap.consumer.decode_for", bug)
    async with deployed.consuming("payments"):
        await until_passed(deployed, connection)
        # With the bug still there: what is replayed is dead-lettered again, and is still the same dead letters.
        first = await command.run("dead-letter", "replay", "--json")
        await until_passed(deployed, connection)
        again = await command.run("dead-letter", "replay", "--json")
        await until_passed(deployed, connection)
    assert first.summary["outcomes"] == again.summary["outcomes"]
    monkeypatch.undo()

    for records in (1, 5):
        await kill_after(command, records, "dead-letter", "replay", "--json")
    async with deployed.consuming():
        last = await command.run("dead-letter", "replay", "--json")
        await caught_up(deployed)

    assert last.summary["outcomes"] == first.summary["outcomes"]
    assert await wrong_rows(connection, "payments", "payment_id") == set()
    assert await connection.fetchval("SELECT count(*) = count(DISTINCT (event_id, object_id)) FROM payment_events")


async def until_passed(deployed: Deployment, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until the payments consumer has passed all of its topics."""
    topics = deployed.topics
    ends: Counter[tuple[str, int]] = Counter()
    async with bootstrap_kafka.record_log(deployed.config) as log:
        for topic in (topics.of("payment"), topics.of("refund")):
            for partition, offsets in (await log.ranges(topic)).items():
                if offsets:
                    ends[partition.topic, partition.number] = offsets.stop

    async def passed() -> bool:
        rows = await connection.fetch(
            "SELECT topic, partition, next_offset FROM consumer_offsets WHERE consumer_group = $1",
            topics.group("payments"),
        )
        stored = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        return all(stored.get(where, 0) >= end for where, end in ends.items())

    await eventually(passed, timeout_seconds=60, what="the payments consumer has passed its topics")


# --- quarantine ------------------------------------------------------------------------------------------------------


def cannot_read(*event_types: str) -> Callable[..., Event | Unprocessable]:
    """The normalizer of an earlier day."""

    def normalized(known: KnownEvent, redaction: Redaction | None = None) -> Event | Unprocessable:
        event = normalize(known, redaction)
        if isinstance(event, Unprocessable) or event.event_type not in event_types:
            return event
        return Unprocessable(
            QuarantineReason.OBJECT_MALFORMED, "data.object.amount", event.event_id, known.endpoint, known.body,
            known.received_at, event.event_type,
        )  # fmt: skip

    return normalized


async def test_what_an_earlier_normalizer_could_not_read_is_replayed_and_arrives_once(
    deployed: Deployment,
    command: CommandLine,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the replay is killed and started again, and where some of it is unfit for ever."""
    events = events_of(shops())
    unfit = {"id": "evt_unfit", "object": "event", "type": "charge.failed", "created": 1, "livemode": False}
    planted = {event["id"] for event in events if event["type"] in BUGGY_TYPES}
    with monkeypatch.context() as old:
        old.setattr(spine, "normalize", cannot_read(*BUGGY_TYPES))
        statuses = await post_all(deployed, [*events, unfit])
    assert statuses["quarantined"] >= len(planted) + 1
    quarantine = await deployed.records(deployed.topics.quarantine)

    planned = await command.run("quarantine", "replay", "--json", "--dry-run")
    assert (planned.code, planned.summary["outcomes"]) == (1, {"would_replay": len(planted), "unfit": 1})
    assert not planted & set(await arrived(deployed))

    await kill_after(command, 3, "quarantine", "replay", "--json")
    # What the killed one has claimed and not confirmed is not given up, and not taken while its lease lasts: some of the
    # leases last until everything else is told.
    await connection.execute("UPDATE dedupe_claims SET lease_until = now() WHERE done_at IS NULL")
    held = {
        row["id"]
        for row in await connection.fetch(
            "UPDATE dedupe_claims SET lease_until = now() + interval '1 hour'"
            " WHERE id IN (SELECT id FROM dedupe_claims WHERE done_at IS NULL LIMIT 5) RETURNING id"
        )
    }
    assert held <= planted
    process = await command.start("quarantine", "replay", "--json")
    assert process.stdout is not None
    told = b"".join([await process.stdout.readline() for _ in range(len(planted) + 1 - len(held))])
    assert not held & {json.loads(line)["id"] for line in told.splitlines()}
    await connection.execute("UPDATE dedupe_claims SET lease_until = now() WHERE done_at IS NULL")
    replayed = await ended(process, told)
    assert replayed.code == 1
    assert replayed.summary["outcomes"]["unfit"] == 1
    assert {record["id"] for record in replayed.listed if record["outcome"] == "replayed"} >= held
    assert {record["id"] for record in replayed.listed if record["outcome"] in ("replayed", "duplicate")} == planted
    assert len(replayed.listed) == len(planted) + 1
    (reported,) = [record for record in replayed.listed if record["outcome"] == "unfit"]
    assert (reported["id"], reported["outcome_detail"]) == ("evt_unfit", "object_missing: data.object")
    async with deployed.consuming():
        again = await command.run(
            "quarantine", "replay", "--json", "--type", "payment_intent.*", "--type", "charge.refunded"
        )
        await caught_up(deployed)
    assert (again.code, again.summary["outcomes"]) == (0, {"duplicate": len(planted)})
    assert await wrong_rows(connection, "payments", "payment_id") == set()
    assert await wrong_rows(connection, "refunds", "refund_id") == set()
    assert len(await deployed.records(deployed.topics.quarantine)) == len(quarantine)
    on_topics = await arrived(deployed)
    assert planted <= set(on_topics)
    # What was acknowledged when the kill came, but not yet confirmed to the dedupe store: the ledger absorbs it.
    assert sum(on_topics[event_id] - 1 for event_id in planted) <= 64
    assert await connection.fetchval("SELECT count(*) = count(DISTINCT (event_id, object_id)) FROM payment_events")


async def arrived(deployed: Deployment) -> Counter[str]:
    """The events on the topics of events, by id."""
    return Counter(dict(record.headers)["ce_id"].decode() for record in await deployed.records(*deployed.topics.data))


async def test_a_record_is_shown_with_its_payload_and_what_is_not_there_is_told(
    deployed: Deployment, command: CommandLine
) -> None:
    unfit = {"id": "evt_unfit", "object": "event", "type": "charge.failed", "created": 1, "livemode": False}
    await post_all(deployed, [unfit])

    shown = await command.run("quarantine", "show", "evt_unfit")
    assert shown.code == 0
    assert [line["value"] for line in shown.lines] == [unfit]
    assert shown.lines[0]["headers"]["reason"] == "object_missing"
    place = "/".join(str(shown.lines[0][name]) for name in ("topic", "partition", "offset"))

    by_place, missing, nothing = await asyncio.gather(
        command.run("quarantine", "show", place),
        command.run("dead-letter", "show", "evt_unfit"),
        command.run("dead-letter", "replay", "--json"),
    )
    assert by_place.lines == shown.lines
    assert (missing.code, missing.lines) == (1, [])
    assert "evt_unfit" in missing.err
    assert (nothing.code, nothing.lines) == (0, [{"total": 0, "outcomes": {}}])
