import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pytest
from structlog.testing import capture_logs

from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher, MemoryRecordSource
from service.adapters.memory_store import MemoryDatabase, MemoryProjectionStore
from service.consumer.dead_letter import DeadLetterLimit
from service.consumer.lag import Lag
from service.consumer.loop import Consumer, ConsumerLimits
from service.errors import (
    BrokerUnavailable,
    FenceLost,
    ForeignCluster,
    PublishRefused,
    StoreUnavailable,
)
from service.events import ConsumedRecord, InvalidRecord, Offsets, Partition, Position, Record
from service.ports import Applied, Batch, RecordSource
from service.records import decode
from tests.contracts.projection_store import PAYMENTS, REFUNDS, SHOP, Rows, event, history, intent, oracle
from tests.support.memory_log import DEAD_LETTERS, DrainingSource, SeenByObserver, TickingClock, new_kafka, put
from tests.support.waiting import eventually

POISON = b"not an event"


def build(invalid: InvalidRecord) -> Record:
    at = f"{invalid.record.partition.topic}/{invalid.record.partition.number}/{invalid.record.offset}"
    return Record(
        "stripe.dead-letter", at.encode(), invalid.record.value or b"", (("reason", invalid.reason.encode()),)
    )


@dataclass
class Rig:
    """A consumer on a log and a database in memory; `consume` runs it until there is nothing left to fetch."""

    kafka: MemoryKafka = field(default_factory=new_kafka)
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    seen: SeenByObserver = field(default_factory=SeenByObserver)
    clock: TickingClock = field(default_factory=TickingClock)
    limits: ConsumerLimits = field(default_factory=ConsumerLimits)
    limit: DeadLetterLimit = field(default_factory=DeadLetterLimit)
    waits: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stop = asyncio.Event()
        self.store = self.other_store()
        self.dead_letters = MemoryPublisher(self.kafka)

    def other_store(self) -> MemoryProjectionStore:
        return MemoryProjectionStore(SHOP, consumer_group="group", cluster_id="cluster", database=self.database)

    @cached_property
    def source(self) -> DrainingSource:
        topics = ("stripe.payments", "stripe.refunds")
        return DrainingSource(self.kafka, self.stop, topics=topics)

    async def consume(self) -> None:
        await asyncio.wait_for(self.consumer(self.source).run(self.stop), 10)

    def consumer(self, source: RecordSource) -> Consumer:
        def no_time(low: float, high: float) -> float:
            self.waits.append((low, high))
            return 0

        return Consumer(
            "payments",
            source,
            self.store,
            self.dead_letters,
            decode=decode,
            build_dead_letter=build,
            observer=self.seen,
            clock=self.clock,
            limit=self.limit,
            limits=self.limits,
            jitter=no_time,
        )

    def stored(self, partition: Partition = PAYMENTS) -> int | None:
        found = self.database.offsets.get(("group", partition))
        return None if found is None else found[0]

    @property
    def rows(self) -> Rows:
        return {identity: row.columns for identity, row in self.database.rows.items()}

    @property
    def buried(self) -> list[bytes]:
        return [record.key or b"" for record in self.kafka.records(DEAD_LETTERS)]


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_what_is_in_the_log_is_applied_and_committed(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history()[:3])
    put(rig.kafka, REFUNDS, *history()[3:])

    await rig.consume()

    assert rig.rows == oracle(history())
    assert (rig.stored(PAYMENTS), rig.stored(REFUNDS)) == (3, 3)
    assert rig.kafka.committed["group"] == {PAYMENTS: 3, REFUNDS: 3}
    assert rig.seen.states == [frozenset()]
    assert rig.seen.lags[-1] == {PAYMENTS: Lag(0, None), REFUNDS: Lag(0, None)}


async def test_a_partition_never_read_begins_at_the_start_of_its_log(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *[POISON] * 5, *history())
    rig.kafka.delete_records(PAYMENTS, before=5)

    await rig.consume()

    assert rig.source.sought == [(PAYMENTS, 5)]
    assert rig.stored() == 11


async def test_the_database_says_where_to_go_on(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.database.offsets["group", PAYMENTS] = (4, "cluster")

    await rig.consume()

    assert rig.source.sought == [(PAYMENTS, 4)]
    assert rig.rows == oracle(history()[4:])


async def test_a_record_that_does_not_decode_is_dead_lettered_before_its_offset_is_passed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(rig.kafka, PAYMENTS, *history()[:2], POISON, *history()[2:])
    stood_at: list[int | None] = []
    publish = rig.dead_letters.publish

    async def watched(record: Record, *, deadline: float) -> Position:
        stood_at.append(rig.stored())
        return await publish(record, deadline=deadline)

    monkeypatch.setattr(rig.dead_letters, "publish", watched)

    await rig.consume()

    assert rig.buried == [b"stripe.payments/0/2"]
    assert stood_at == [2]
    assert rig.seen.reasons == ["not_json"]
    assert rig.rows == oracle(history())
    assert rig.stored() == 7


@pytest.mark.parametrize("poison", [0, 255, 499])
async def test_of_five_hundred_records_exactly_the_one_whose_row_is_refused_is_dead_lettered(
    rig: Rig, poison: int
) -> None:
    events = [event(f"evt_{n}", intent(n), at=n) for n in range(500)]
    put(rig.kafka, PAYMENTS, *events)
    rig.store.refused.add(f"evt_{poison}")

    await rig.consume()

    assert rig.buried == [f"stripe.payments/0/{poison}".encode()]
    assert rig.seen.reasons == ["row_refused"]
    assert dict(rig.kafka.records(DEAD_LETTERS)[0].headers) == {"reason": b"row_refused"}
    assert rig.rows == oracle(e for n, e in enumerate(events) if n != poison)
    assert rig.stored() == 500


async def test_a_store_that_is_away_gets_the_same_batch_again_and_readiness_says_so_meanwhile(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())

    async def break_down(partition: Partition) -> int | None:
        assert partition == PAYMENTS
        rig.store.fail_before.extend(StoreUnavailable("away", state) for state in ("08006", "57P03", None))
        return None

    await rig.store.next_offset(PAYMENTS)
    rig.store.next_offset = break_down  # type: ignore[method-assign]

    await rig.consume()

    assert rig.rows == oracle(history())
    assert rig.seen.retries == ["08006", "57P03", None]
    assert rig.seen.states == [frozenset({"store_unavailable"}), frozenset()]
    assert len(rig.source.sought) == 1
    assert rig.source.fetches == 2


async def test_between_fetches_that_fail_the_consumer_is_never_ready(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    put(rig.kafka, PAYMENTS, *history())
    fetch = rig.source.fetch
    failures = [BrokerUnavailable("away") for _ in range(3)]

    async def fail_first(*, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        if failures:
            raise failures.pop()
        return await fetch(max_records=max_records, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(rig.source, "fetch", fail_first)

    await rig.consume()

    assert rig.seen.states == [frozenset({"broker_unavailable"}), frozenset()]


async def test_a_broker_that_hands_out_nothing_and_does_not_answer_keeps_the_consumer_unready(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    apply = rig.store.apply

    async def lose_the_broker(batch: Batch) -> Applied:
        rig.kafka.available = False
        return await apply(batch)

    rig.store.apply = lose_the_broker  # type: ignore[method-assign]
    rig.source.idle_fetches = 5

    await rig.consume()

    assert rig.seen.states == [frozenset({"broker_unavailable"})]


async def test_lag_that_cannot_be_told_slows_nothing_down_and_keeps_the_consumer_unready_until_it_can(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.limits = ConsumerLimits(batch_records=1, lag_interval=1.0)
    rig.clock.step = 0.1
    put(rig.kafka, PAYMENTS, *history())
    ends = rig.source.ends
    failures = [BrokerUnavailable("a partition has no leader") for _ in range(3)]

    async def fail_first() -> Offsets:
        if failures:
            raise failures.pop()
        return await ends()

    monkeypatch.setattr(rig.source, "ends", fail_first)
    rig.source.idle_fetches = 50

    await rig.consume()

    assert rig.waits == []
    assert rig.rows == oracle(history())
    assert rig.seen.states == [frozenset({"broker_unavailable"}), frozenset()]


async def test_what_comes_while_the_database_is_away_is_seen_to_wait(rig: Rig) -> None:
    rig.limits = ConsumerLimits(lag_interval=0.0)
    put(rig.kafka, PAYMENTS, *history()[:1])
    apply = rig.store.apply

    async def away(batch: Batch) -> Applied:
        if rig.kafka.log(PAYMENTS).end < 5:
            put(rig.kafka, PAYMENTS, *history()[:1])
            raise StoreUnavailable("away")
        return await apply(batch)

    rig.store.apply = away  # type: ignore[method-assign]

    await rig.consume()

    came = rig.clock.now().timestamp()
    assert [lags[PAYMENTS] for lags in rig.seen.lags[:4]] == [Lag(records, came) for records in (2, 3, 4, 5)]
    assert rig.seen.lags[-1][PAYMENTS] == Lag(0, None)


async def test_a_member_without_partitions_is_ready_once_the_database_answers(rig: Rig) -> None:
    rig.store.fail_before.append(StoreUnavailable("away"))

    await rig.consume()

    assert rig.source.sought == []
    assert rig.seen.states == [frozenset({"store_unavailable"}), frozenset()]


async def test_a_batch_that_is_given_back_comes_again_in_smaller_ones_until_one_goes_through(rig: Rig) -> None:
    rig.limits = ConsumerLimits(batch_records=8, hold=0.5)
    rig.clock.step = 1.0
    put(rig.kafka, PAYMENTS, *(event(f"evt_{n}", intent(n), at=n) for n in range(20)))
    apply = rig.store.apply
    sizes: list[int] = []

    async def at_most_three_in_its_time(batch: Batch) -> Applied:
        sizes.append(len(batch.events))
        if len(batch.events) > 3 and rig.stored() is None:
            raise StoreUnavailable("canceling statement due to statement timeout", "57014")
        return await apply(batch)

    rig.store.apply = at_most_three_in_its_time  # type: ignore[method-assign]

    await rig.consume()

    assert sizes == [8, 4, 2, 4, 8, 6]
    assert rig.stored() == 20


async def test_waits_grow_from_a_tenth_of_a_second_to_fifteen_seconds_and_no_further(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.store.fail_before.extend(StoreUnavailable("away") for _ in range(12))
    rig.source.idle_fetches = 100

    task = asyncio.create_task(rig.consume())
    await eventually(lambda: len(rig.waits) >= 12, what="twelve waits")
    rig.stop.set()
    await task

    assert {low for low, _ in rig.waits} == {0.1}
    ceilings = [high for _, high in rig.waits]
    assert ceilings[:3] == [0.2, 0.4, 0.8]
    assert ceilings == sorted(ceilings)
    assert ceilings[-1] == 15.0


async def test_an_answer_to_commit_that_was_lost_costs_a_fence_and_nothing_else(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.store.fail_after.append(StoreUnavailable("the connection was lost"))

    await rig.consume()

    assert rig.seen.fences_lost == 1
    assert rig.source.sought == [(PAYMENTS, 0), (PAYMENTS, 6)]
    assert rig.rows == oracle(history())
    assert rig.stored() == 6


async def test_who_loses_the_fence_goes_on_from_what_the_database_says(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    put(rig.kafka, REFUNDS, event("evt_9", intent(9), at=0))
    apply = rig.store.apply
    lost = [FenceLost("another process has moved it")]

    async def overtaken(batch: Batch) -> Applied:
        if lost:
            rig.database.offsets["group", PAYMENTS] = (5, "cluster")
            raise lost.pop()
        return await apply(batch)

    rig.store.apply = overtaken  # type: ignore[method-assign]

    await rig.consume()

    assert rig.seen.fences_lost == 1
    assert (PAYMENTS, 5) in rig.source.sought
    assert rig.rows == oracle([*history()[5:], event("evt_9", intent(9), at=0)])
    assert (rig.stored(PAYMENTS), rig.stored(REFUNDS)) == (6, 1)


@pytest.mark.parametrize("stored", [1, 9], ids=["before the log", "behind the log"])
async def test_a_partition_whose_offset_is_outside_the_log_stops_and_the_others_go_on(rig: Rig, stored: int) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.kafka.delete_records(PAYMENTS, before=2)
    put(rig.kafka, REFUNDS, event("evt_9", intent(9), at=0))
    rig.database.offsets["group", PAYMENTS] = (stored, "cluster")

    with capture_logs() as lines:
        await rig.consume()

    assert rig.stored(PAYMENTS) == stored
    assert rig.stored(REFUNDS) == 1
    assert rig.seen.states[-1] == frozenset({"offset_out_of_range"})
    (line,) = [line for line in lines if line["event"] == "partition.stopped"]
    assert (line["topic"], line["partition"]) == ("stripe.payments", 0)
    assert "delete the partition's row from consumer_offsets" in line["detail"]


async def test_a_stopped_partition_goes_on_once_its_offset_was_set_right(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.database.offsets["group", PAYMENTS] = (99, "cluster")
    rig.clock.step = 1.0
    bounds = rig.source.bounds

    async def set_right_after_the_first_look(partitions: Collection[Partition]) -> Mapping[Partition, tuple[int, int]]:
        rig.database.offsets.clear()
        return await bounds(partitions)

    rig.source.idle_fetches = 200
    rig.source.bounds = set_right_after_the_first_look  # type: ignore[method-assign]

    await rig.consume()

    assert rig.rows == oracle(history())
    assert rig.seen.states == [frozenset({"offset_out_of_range"}), frozenset()]


async def test_offsets_of_another_cluster_stop_the_consumer(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.database.offsets["group", PAYMENTS] = (1, "another")

    with pytest.raises(ForeignCluster):
        await rig.consume()

    assert rig.rows == {}


async def test_a_partition_with_more_poison_in_a_row_than_the_limit_stops_where_it_is_and_the_others_go_on(
    rig: Rig,
) -> None:
    rig.limit = DeadLetterLimit(consecutive=3)
    put(rig.kafka, PAYMENTS, event("evt_0", intent(0), at=0), *[POISON] * 9)
    put(rig.kafka, REFUNDS, *(event(f"evt_{n}", intent(n), at=n) for n in range(1, 4)))
    rig.source.idle_fetches = 3

    with capture_logs() as lines:
        await rig.consume()

    assert len(rig.buried) == 3
    assert (rig.stored(PAYMENTS), rig.stored(REFUNDS)) == (4, 3)
    assert rig.seen.states[-1] == frozenset({"dead_letter_limit"})
    (line,) = [line for line in lines if line["event"] == "partition.stopped"]
    assert (line["topic"], line["partition"], line["offset"]) == ("stripe.payments", 0, 4)
    assert (line["log_level"], line["reason"], line["last"]) == ("error", "dead_letter_limit", "not_json")
    assert "Run the version before" in line["detail"]


async def test_a_poisoned_partition_that_leaves_and_comes_back_is_not_tried_again(rig: Rig) -> None:
    rig.limit = DeadLetterLimit(consecutive=1)
    rig.limits = ConsumerLimits(batch_records=1)
    put(rig.kafka, PAYMENTS, *[POISON] * 9)
    put(rig.kafka, REFUNDS, *(event(f"evt_{n}", intent(n), at=n) for n in range(4)))
    rig.source.idle_fetches = 3
    states: list[frozenset[str]] = []
    apply = rig.store.apply

    async def rebalance_meanwhile(batch: Batch) -> Applied:
        applied = await apply(batch)
        if batch.next_offsets == {REFUNDS: 2}:
            rig.source.assign([REFUNDS])
        if batch.next_offsets == {REFUNDS: 3}:
            states.extend(rig.seen.states)
            rig.source.assign([PAYMENTS, REFUNDS])
        return applied

    rig.store.apply = rebalance_meanwhile  # type: ignore[method-assign]

    await rig.consume()

    assert len(rig.buried) == 1
    assert rig.stored(REFUNDS) == 4
    assert states[-1] == frozenset()
    assert rig.seen.states[-1] == frozenset({"dead_letter_limit"})


async def test_a_restart_at_the_limit_buries_a_tenth_of_it_before_the_partition_stops_again(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, event("evt_0", intent(0), at=0), *[POISON] * 500)
    await rig.consume()
    await rig.source.close()
    assert len(rig.buried) == 100

    for restarts in range(1, 4):
        again = Rig(kafka=rig.kafka, database=rig.database)
        await again.consume()
        await again.source.close()

        assert len(again.buried) == 100 + 10 * restarts
        assert again.seen.states[-1] == frozenset({"dead_letter_limit"})


async def test_refused_rows_reach_the_limit_too(rig: Rig) -> None:
    rig.limit = DeadLetterLimit(consecutive=30)
    events = [event(f"evt_{n}", intent(n), at=n) for n in range(64)]
    put(rig.kafka, PAYMENTS, *events)
    rig.store.refused.update(e.event_id for e in events)

    await rig.consume()

    assert rig.buried == [b"stripe.payments/0/0", b"stripe.payments/0/1", b"stripe.payments/0/2"]
    assert rig.seen.states[-1] == frozenset({"dead_letter_limit"})


async def test_a_dead_letter_that_is_given_back_is_counted_once_when_it_goes_through(rig: Rig) -> None:
    rig.limit = DeadLetterLimit(consecutive=20)
    rig.limits = ConsumerLimits(hold=0.5)
    rig.clock.step = 1.0
    rig.dead_letters.fail_next(5, BrokerUnavailable("away"))
    put(rig.kafka, PAYMENTS, POISON, POISON, *history())

    await rig.consume()

    assert rig.buried == [b"stripe.payments/0/0", b"stripe.payments/0/1"]
    assert rig.rows == oracle(history())
    assert rig.seen.states[-1] == frozenset()


async def test_a_dead_letter_topic_that_is_away_is_waited_for_and_nothing_is_skipped(rig: Rig) -> None:
    rig.dead_letters.fail_next(3, BrokerUnavailable("away"))
    put(rig.kafka, PAYMENTS, POISON, *history())

    await rig.consume()

    assert rig.buried == [b"stripe.payments/0/0"]
    assert rig.rows == oracle(history())
    assert frozenset({"broker_unavailable"}) in rig.seen.states
    assert rig.seen.states[-1] == frozenset()
    assert rig.seen.retries == []


async def test_a_dead_letter_that_is_refused_stops_the_consumer_before_its_offset(rig: Rig) -> None:
    rig.dead_letters.fail_next(1, PublishRefused("not authorized"))
    put(rig.kafka, PAYMENTS, event("evt_0", intent(0), at=0), POISON)

    with pytest.raises(PublishRefused):
        await rig.consume()

    assert rig.stored() == 1


async def test_a_batch_held_too_long_is_given_back_so_that_polling_goes_on(rig: Rig) -> None:
    rig.limits = ConsumerLimits(hold=0.5)
    rig.clock.step = 1.0
    put(rig.kafka, PAYMENTS, *history())
    apply = rig.store.apply
    failures = [StoreUnavailable("away"), StoreUnavailable("away")]

    async def fail_twice(batch: Batch) -> Applied:
        if failures:
            raise failures.pop()
        return await apply(batch)

    rig.store.apply = fail_twice  # type: ignore[method-assign]

    await rig.consume()

    assert rig.rows == oracle(history())
    assert rig.source.sought == [(PAYMENTS, 0)] * 3
    assert rig.source.fetches == 4


async def test_a_stop_does_not_wait_for_a_store_that_is_away(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history())
    rig.store.fail_before.extend(StoreUnavailable("away") for _ in range(10_000))
    task = asyncio.create_task(rig.consume())
    await eventually(lambda: rig.waits, what="the first wait")

    rig.stop.set()
    await task

    assert rig.stored() is None


async def test_a_stop_does_not_wait_for_a_dead_letter_topic_that_is_away(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, POISON, *history())
    rig.dead_letters.fail_next(10_000, BrokerUnavailable("away"))
    task = asyncio.create_task(rig.consume())
    await eventually(lambda: rig.waits, what="the first wait")

    rig.stop.set()
    await task

    assert rig.stored() is None


async def test_a_position_that_falls_out_of_the_log_while_it_is_read_stops_its_partition(rig: Rig) -> None:
    rig.limits = ConsumerLimits(batch_records=2)
    put(rig.kafka, PAYMENTS, *history())
    put(rig.kafka, REFUNDS, event("evt_9", intent(9), at=0))
    apply = rig.store.apply

    async def retention_strikes(batch: Batch) -> Applied:
        rig.kafka.delete_records(PAYMENTS, before=5)
        return await apply(batch)

    rig.store.apply = retention_strikes  # type: ignore[method-assign]
    rig.source.idle_fetches = 3

    await rig.consume()

    assert rig.stored(PAYMENTS) == 2
    assert rig.stored(REFUNDS) == 1
    assert rig.seen.states[-1] == frozenset({"offset_out_of_range"})


async def test_a_stop_lets_the_batch_in_hand_be_finished(rig: Rig) -> None:
    rig.limits = ConsumerLimits(batch_records=2)
    put(rig.kafka, PAYMENTS, *history())
    apply = rig.store.apply

    async def stop_meanwhile(batch: Batch) -> Applied:
        rig.stop.set()
        return await apply(batch)

    rig.store.apply = stop_meanwhile  # type: ignore[method-assign]

    await rig.consume()

    assert rig.stored() == 2
    assert rig.kafka.committed["group"] == {PAYMENTS: 2}


async def test_what_nobody_foresaw_is_raised(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(SHOP, "rows", broken, raising=False)
    put(rig.kafka, PAYMENTS, *history())

    with pytest.raises(ZeroDivisionError):
        await rig.consume()

    assert rig.stored() is None


async def test_each_batch_has_one_line_and_one_report(rig: Rig) -> None:
    put(rig.kafka, PAYMENTS, *history(), history()[0])

    with capture_logs() as lines:
        await rig.consume()

    (line,) = [line for line in lines if line["event"] == "batch.applied"]
    assert {name: line[name] for name in ("records", "applied", "already_applied", "ignored", "partitions")} == {
        "records": 7,
        "applied": 6,
        "already_applied": 0,
        "ignored": 0,
        "partitions": 1,
    }
    (report,) = rig.seen.reports
    assert report.records == 7
    assert report.oldest_seconds == 7199.0


def test_the_limit_in_a_row_is_counted_by_partition_and_ends_with_an_applied_record() -> None:
    limit = DeadLetterLimit(consecutive=2)
    limit.applied(PAYMENTS, 1)
    for _ in range(5):
        limit.dead(PAYMENTS)
        assert limit.reached(PAYMENTS) is None
        limit.dead(PAYMENTS)
        limit.applied(PAYMENTS, 1)
    limit.dead(PAYMENTS)
    limit.dead(PAYMENTS)
    limit.applied(REFUNDS, 100)

    assert limit.reached(PAYMENTS) == "2 records in a row are poison"
    assert limit.reached(REFUNDS) is None


def test_the_limit_is_reached_by_a_share_of_poison_that_never_comes_in_a_row() -> None:
    limit = DeadLetterLimit(consecutive=50, share=0.1, window=100)
    for _ in range(10):
        assert limit.reached(PAYMENTS) is None
        limit.dead(PAYMENTS)
        limit.applied(PAYMENTS, 3)

    assert limit.reached(PAYMENTS) == "10 of 40 records are poison"
    assert limit.reached(REFUNDS) is None


def test_a_share_of_poison_below_the_limit_is_never_reached() -> None:
    limit = DeadLetterLimit(consecutive=50, share=0.1, window=100)
    for _ in range(1000):
        limit.dead(PAYMENTS)
        limit.applied(PAYMENTS, 19)
        assert limit.reached(PAYMENTS) is None


async def test_a_failover_that_lost_what_was_applied_is_found_on_a_quiet_partition_too() -> None:
    rig = Rig(limits=ConsumerLimits(fetch_wait=0.01, lag_interval=0, recheck=0))
    put(rig.kafka, PAYMENTS, *history())
    source = MemoryRecordSource(rig.kafka, group="group", topics=("stripe.payments", "stripe.refunds"))
    running = asyncio.create_task(rig.consumer(source).run(rig.stop))
    await eventually(lambda: rig.stored() == len(history()), what="everything is applied")

    lost = MemoryDatabase()
    for name in MemoryDatabase.__slots__:
        setattr(rig.database, name, getattr(lost, name))

    await eventually(lambda: rig.rows == oracle(history()), what="everything is applied again")
    rig.stop.set()
    await running
    assert rig.seen.fences_lost


async def test_records_from_before_the_position_are_passed_over(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    put(rig.kafka, PAYMENTS, *history())
    fetched = rig.source.fetch
    given: list[ConsumedRecord] = []

    async def again(*, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        records = await fetched(max_records=max_records, timeout_seconds=timeout_seconds)
        twice = [*given, *records]
        given.extend(records)
        return twice

    monkeypatch.setattr(rig.source, "fetch", again)
    await rig.consume()

    assert rig.stored() == len(history())
    assert rig.rows == oracle(history())
    assert not rig.seen.fences_lost
