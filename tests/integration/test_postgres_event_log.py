"""The event log on a real Postgres: bounded whatever the database does, and nobody waits for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import CollectorRegistry

from service.adapters import postgres_event_log as module
from service.adapters.postgres_event_log import BATCH_ARRIVALS_MAX, PostgresEventLog
from service.bootstrap import event_log as bootstrap
from service.config import Config, DatabaseConfig
from service.errors import StoreUnavailable
from service.events import Arrival, Secret
from service.telemetry.metrics import EventLogMetrics
from tests.contracts.event_log import EventLogContract
from tests.support.arrivals import NOON, arrival
from tests.support.stack import LocalPostgres
from tests.support.waiting import eventually

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"


class Told(Counter[str]):
    """What a log has told of its arrivals."""

    def written(self, count: int) -> None:
        self["written"] += count

    def dropped(self, count: int) -> None:
        self["dropped"] += count


class PostgresEventLogHarness:
    """A log, its table, and what it tells."""

    def __init__(self, log: PostgresEventLog, connection: "asyncpg.Connection[asyncpg.Record]", told: Told) -> None:
        self.log = log
        self.connection = connection
        self.told = told

    async def written(self, count: int) -> Sequence[Arrival]:
        await eventually(lambda: self.told["written"] >= count, what=f"{count} arrivals are written")
        return await self.rows()

    async def rows(self) -> Sequence[Arrival]:
        found = await self.connection.fetch(f"SELECT {', '.join(Arrival._fields)} FROM event_log ORDER BY arrival_id")
        return [Arrival(*row) for row in found]

    async def ids(self) -> list[str | None]:
        return [row.event_id for row in await self.rows()]


@asynccontextmanager
async def logging(url: str, told: Told, **options: Any) -> AsyncIterator[PostgresEventLog]:
    log = await PostgresEventLog.open(
        url, **{"retention_days": 7} | options, on_written=told.written, on_dropped=told.dropped
    )
    try:
        yield log
    finally:
        await log.close(timeout_seconds=5)


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[PostgresEventLogHarness]:
    connection = await asyncpg.connect(database_url)
    told = Told()
    async with logging(database_url, told) as log:
        yield PostgresEventLogHarness(log, connection, told)
    await connection.close()


class TestPostgresEventLog(EventLogContract):
    """The contract, on a real database."""


async def test_what_comes_together_is_written_in_bounded_batches(
    harness: PostgresEventLogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    copy = PoolConnectionProxy.copy_records_to_table

    async def measured(self: Any, name: str, *, records: Sequence[Arrival], **options: Any) -> str:
        sizes.append(len(records))
        return str(await copy(self, name, records=records, **options))

    monkeypatch.setattr(PoolConnectionProxy, "copy_records_to_table", measured)

    for number in range(2 * BATCH_ARRIVALS_MAX + 1):
        harness.log.note(arrival(f"evt_{number}"))
    rows = await harness.written(2 * BATCH_ARRIVALS_MAX + 1)

    assert sizes == [BATCH_ARRIVALS_MAX, BATCH_ARRIVALS_MAX, 1]
    assert [row.event_id for row in rows] == [f"evt_{number}" for number in range(2 * BATCH_ARRIVALS_MAX + 1)]


async def test_what_the_queue_has_no_room_for_is_dropped_and_counted_at_once(database_url: str) -> None:
    told = Told()
    async with logging(database_url, told, queue_max=3) as log:
        for number in range(5):
            log.note(arrival(f"evt_{number}"))

        assert told == {"dropped": 2}
        await eventually(lambda: told["written"] == 3, what="the others are written")


async def test_the_end_writes_what_waits_and_takes_nothing_new(harness: PostgresEventLogHarness) -> None:
    harness.log.note(arrival("evt_1"))
    await harness.log.close(timeout_seconds=5)
    harness.log.note(arrival("evt_2"))

    assert await harness.ids() == ["evt_1"]
    assert harness.told == {"written": 1, "dropped": 1}


async def test_the_end_has_a_bound_and_counts_what_it_leaves(
    harness: PostgresEventLogHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    async with harness.connection.transaction():
        await harness.connection.execute("LOCK TABLE event_log IN ACCESS EXCLUSIVE MODE")
        for number in range(BATCH_ARRIVALS_MAX + 1):
            harness.log.note(arrival(f"evt_{number}"))
        started = loop.time()
        await harness.log.close(timeout_seconds=0.2)

        assert loop.time() - started < 3
    assert await harness.ids() == []
    assert harness.told == {"dropped": BATCH_ARRIVALS_MAX + 1}
    assert [(record.message, vars(record)["arrivals"]) for record in caplog.records] == [
        ("event_log.dropped_at_the_end", BATCH_ARRIVALS_MAX + 1)
    ]


async def test_the_end_has_its_bound_where_the_database_has_fallen_silent(
    postgres: LocalPostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "CLOSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(bootstrap, "PRUNE_INTERVAL_SECONDS", 2.5)
    prune = PostgresEventLog.prune
    pruning = asyncio.Event()

    async def noticed(self: PostgresEventLog, limit: int) -> int:
        pruning.set()
        return await prune(self, limit)

    monkeypatch.setattr(PostgresEventLog, "prune", noticed)
    loop = asyncio.get_running_loop()
    config = Config(database=DatabaseConfig(url=Secret(database_url)))
    try:
        async with bootstrap.event_log(config, EventLogMetrics(CollectorRegistry())) as log:
            assert isinstance(log, PostgresEventLog)
            # Both connections are there when the server falls silent: each has then to be given back.
            await asyncio.gather(log.prune(1), log.prune(1))
            postgres.pause()
            pruning.clear()
            log.note(arrival("evt_1"))
            await eventually(lambda: pruning.is_set() and log._in_hand, what="it is pruned, and a batch is in hand")
            started = loop.time()

        assert loop.time() - started < 2
    finally:
        postgres.resume()


async def test_a_database_that_is_away_for_longer_than_arrivals_are_kept_costs_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS_FIRST", 0.01)
    told = Told()
    async with logging(NOWHERE, told, keep_seconds=0.1) as log:
        log.note(arrival("evt_1"))
        await eventually(lambda: told["dropped"] == 1, what="the arrival is dropped")
        log.note(arrival("evt_2"))
        await eventually(lambda: told["dropped"] == 2, what="the next one is dropped")

    assert [record.message for record in caplog.records] == ["event_log.not_written"]
    assert told == {"dropped": 2}


async def test_a_database_that_comes_back_gets_what_was_kept_once(
    postgres: LocalPostgres, harness: PostgresEventLogHarness, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS_FIRST", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS_MAX", 0.1)
    harness.log.note(arrival("evt_1"))
    await harness.written(1)
    await harness.connection.close()

    postgres.kill()
    harness.log.note(arrival("evt_2"))
    await eventually(lambda: harness.log._failing, what="the log finds the database away")
    harness.log.note(arrival("evt_3"))
    await postgres.start()

    await eventually(lambda: harness.told["written"] == 3, what="what came meanwhile is written", timeout_seconds=30)
    harness.connection = await asyncpg.connect(database_url)
    # Commits are not waited for: the server that was killed may have forgotten the first.
    assert (await harness.ids())[-2:] == ["evt_2", "evt_3"]
    assert harness.told["dropped"] == 0


async def test_a_database_that_has_fallen_silent_is_not_waited_for_for_ever(
    postgres: LocalPostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {
        "STATEMENT_SECONDS_MAX": 0.3,
        "CONNECTION_SECONDS_MAX": 0.3,
        "RETRY_SECONDS_FIRST": 0.01,
    }.items():
        monkeypatch.setattr(module, name, seconds)
    told = Told()
    async with logging(database_url, told, keep_seconds=0.1) as log:
        log.note(arrival("evt_1"))
        await eventually(lambda: told["written"] == 1, what="a connection is made")

        postgres.pause()
        log.note(arrival("evt_2"))
        await eventually(lambda: told["dropped"] == 1, what="what a silent database does not take is dropped")
        postgres.resume()

        log.note(arrival("evt_3"))
        await eventually(lambda: told["written"] == 2, what="what comes later is written")


async def test_a_batch_whose_answer_was_lost_is_not_written_twice(
    harness: PostgresEventLogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS_FIRST", 0.01)
    copy = PoolConnectionProxy.copy_records_to_table
    lost: list[str] = []

    async def lose_the_first_answer(self: Any, name: str, **options: Any) -> str:
        answer = str(await copy(self, name, **options))
        if not lost:
            lost.append(answer)
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(PoolConnectionProxy, "copy_records_to_table", lose_the_first_answer)

    for number in range(3):
        harness.log.note(arrival(f"evt_{number}"))

    await harness.written(3)
    assert lost == ["COPY 3"]
    assert await harness.ids() == ["evt_0", "evt_1", "evt_2"]
    assert harness.told == {"written": 3}


async def test_pruning_deletes_in_bounded_batches_what_is_past_the_retention(
    database_url: str, harness: PostgresEventLogHarness
) -> None:
    now = datetime.now(UTC)
    for days in (1, 6.9, 7.1, 8, 30):
        harness.log.note(arrival(f"evt_{days}", received_at=now - timedelta(days=days)))
    await harness.written(5)

    assert [await harness.log.prune(2) for _ in range(3)] == [2, 1, 0]
    assert await harness.ids() == ["evt_1", "evt_6.9"]

    async with logging(database_url, Told(), retention_days=2) as shorter:
        assert await shorter.prune(10) == 1
    assert await harness.ids() == ["evt_1"]


async def test_replicas_that_prune_at_once_are_not_in_each_others_way(
    database_url: str, harness: PostgresEventLogHarness
) -> None:
    for number in range(4):
        harness.log.note(arrival(f"evt_{number}", received_at=NOON - timedelta(days=400 + number)))
    await harness.written(4)
    async with harness.connection.transaction():
        await harness.connection.execute("SELECT FROM event_log WHERE event_id IN ('evt_0', 'evt_1') FOR UPDATE")

        assert await harness.log.prune(10) == 2
    async with logging(database_url, Told()) as another:
        deleted = await asyncio.gather(harness.log.prune(10), another.prune(10))
    assert sum(deleted) == 2
    assert await harness.ids() == []


async def test_pruning_a_database_that_is_away_is_unavailable() -> None:
    async with logging(NOWHERE, Told()) as log:
        with pytest.raises(StoreUnavailable):
            await log.prune(10)


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("received_at < now()", "event_log_received_at"),
        ("event_id = 'evt_1'", "event_log_event"),
        ("object_id = 'pi_1' ORDER BY received_at DESC", "event_log_object"),
        ("customer_id = 'cus_1' ORDER BY received_at DESC", "event_log_customer"),
        ("true ORDER BY arrival_id DESC", "event_log_pkey"),
    ],
)
async def test_every_question_has_its_index(harness: PostgresEventLogHarness, condition: str, index: str) -> None:
    await harness.connection.execute("SET enable_seqscan = off; SET enable_sort = off")

    plan = await harness.connection.fetch(f"EXPLAIN SELECT * FROM event_log WHERE {condition} LIMIT 50")

    assert index in "\n".join(row[0] for row in plan)


async def test_a_process_counts_what_it_writes_and_forgets_what_is_old(
    harness: PostgresEventLogHarness, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PRUNE_INTERVAL_SECONDS", 0.01)
    harness.log.note(arrival("evt_old", received_at=datetime.now(UTC) - timedelta(days=8)))
    await harness.written(1)
    registry = CollectorRegistry()
    config = Config(database=DatabaseConfig(url=Secret(database_url)))

    async with bootstrap.event_log(config, EventLogMetrics(registry)) as log:
        assert log is not None
        for number in range(3):
            log.note(arrival(f"evt_{number}", received_at=datetime.now(UTC)))

        async def old_is_gone() -> bool:
            return "evt_old" not in await harness.ids()

        await eventually(old_is_gone, what="the old row is gone")

    def counted(result: str) -> float | None:
        return registry.get_sample_value("stripe_ingest_event_log_arrivals_total", {"result": result})

    assert (counted("written"), counted("dropped")) == (3, 0)
    assert await harness.ids() == ["evt_0", "evt_1", "evt_2"]
