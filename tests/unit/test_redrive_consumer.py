"""What was replayed for another consumer group is passed over: no event, no dead letter, and its offset moves."""

import asyncio
from dataclasses import dataclass, field
from functools import partial

import pytest

from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher
from service.adapters.memory_store import MemoryDatabase, MemoryProjectionStore
from service.consumer.dead_letter import DeadLetterLimit
from service.consumer.loop import Consumer, ConsumerLimits
from service.contract import Event
from service.errors import RowRefused
from service.events import Record
from service.ports import Applied, Batch
from service.records import Topics, dead_letter, decode_for, encode
from tests.contracts.projection_store import PAYMENTS, SHOP, event, intent
from tests.support.memory_log import DrainingSource, SeenByObserver, TickingClock, new_kafka

TOPICS = Topics("stripe")
OURS, THEIRS = TOPICS.group("payments"), TOPICS.group("refunds")


@dataclass
class Rig:
    """A consumer of one group; `consume` runs it until there is nothing left."""

    kafka: MemoryKafka = field(default_factory=new_kafka)
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    seen: SeenByObserver = field(default_factory=SeenByObserver)
    limit: DeadLetterLimit = field(default_factory=DeadLetterLimit)

    def __post_init__(self) -> None:
        self.kafka.create_topic(PAYMENTS.topic)
        self.store = MemoryProjectionStore(SHOP, consumer_group=OURS, cluster_id="c", database=self.database)

    def put(self, given: Event | bytes, *, replayed_for: str | None = None) -> None:
        headers = (("replay_group", replayed_for.encode()),) if replayed_for else ()
        value = given if isinstance(given, bytes) else encoded(given).value
        self.kafka.append_to(PAYMENTS, Record(PAYMENTS.topic, b"k", value, headers))

    async def consume(self) -> None:
        stop = asyncio.Event()
        source = DrainingSource(self.kafka, stop, topics=(PAYMENTS.topic,), group=OURS)
        consumer = Consumer(
            "payments",
            source,
            self.store,
            MemoryPublisher(self.kafka),
            decode=partial(decode_for, consumer_group=OURS),
            build_dead_letter=partial(dead_letter, topics=TOPICS, consumer_group=OURS),
            observer=self.seen,
            clock=TickingClock(),
            limit=self.limit,
            limits=ConsumerLimits(),
        )
        await asyncio.wait_for(consumer.run(stop), 10)

    @property
    def stored(self) -> int | None:
        found = self.database.offsets.get((OURS, PAYMENTS))
        return None if found is None else found[0]

    @property
    def buried(self) -> list[bytes | None]:
        return [record.value for record in self.kafka.records(TOPICS.dead_letter)]


def encoded(given: Event) -> Record:
    return encode(given, topics=TOPICS, ingest_source="replay", include_raw=False, traceparent="")


def payment(number: int) -> Event:
    return event(f"evt_{number}", intent(number), at=number)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_what_is_for_another_group_is_counted_as_ignored_and_no_more(rig: Rig) -> None:
    rig.put(payment(1), replayed_for=THEIRS)
    rig.put(payment(2), replayed_for=OURS)
    rig.put(payment(3))
    rig.put(b"poison", replayed_for=THEIRS)

    await rig.consume()

    assert {key.object_id for _, key in rig.database.rows} == {"pi_2", "pi_3"}
    assert rig.stored == 4
    assert sum(report.records for report in rig.seen.reports) == 4
    assert sum(report.ignored for report in rig.seen.reports) == 2
    assert sum(report.applied.applied for report in rig.seen.reports) == 2
    assert rig.buried == []


async def test_a_batch_of_nothing_else_moves_the_offset(rig: Rig) -> None:
    for number in range(5):
        rig.put(payment(number), replayed_for=THEIRS)

    await rig.consume()

    assert rig.stored == 5
    assert rig.database.rows == {}
    assert [report.ignored for report in rig.seen.reports] == [5]
    assert [report.oldest_seconds for report in rig.seen.reports] == [0.0]


async def test_poison_among_it_is_found_and_everything_else_applied(rig: Rig) -> None:
    rig.put(payment(1), replayed_for=THEIRS)
    rig.put(b"poison")
    rig.put(payment(2), replayed_for=THEIRS)
    rig.put(payment(3))
    rig.put(b"poison for us", replayed_for=OURS)
    rig.put(payment(4), replayed_for=THEIRS)

    await rig.consume()

    assert rig.buried == [b"poison", b"poison for us"]
    assert {key.object_id for _, key in rig.database.rows} == {"pi_3"}
    assert rig.stored == 6


async def test_a_refused_row_among_it_is_dead_lettered_alone(rig: Rig) -> None:
    rig.store.refused = {"evt_2"}
    rig.put(payment(1), replayed_for=THEIRS)
    rig.put(payment(2))
    rig.put(payment(3), replayed_for=THEIRS)
    rig.put(payment(4))

    await rig.consume()

    assert rig.seen.reasons == ["row_refused"]
    assert {key.object_id for _, key in rig.database.rows} == {"pi_4"}
    assert rig.stored == 4


async def test_it_proves_nothing_to_the_dead_letter_limit(rig: Rig) -> None:
    """Who can read nothing gets no further by passing over what is for others."""
    rig.limit = DeadLetterLimit(consecutive=10)
    for _ in range(3):
        rig.put(b"poison")
        rig.put(payment(1), replayed_for=THEIRS)

    await rig.consume()

    assert len(rig.buried) == 1


async def test_what_comes_after_a_refused_row_is_passed_over_too(rig: Rig) -> None:
    rig.store.refused = {"evt_1"}
    rig.put(payment(1))
    rig.put(payment(2), replayed_for=THEIRS)

    await rig.consume()

    assert rig.seen.reasons == ["row_refused"]
    assert rig.stored == 2


async def test_a_replay_that_came_too_early_does_not_stop_what_is_live(rig: Rig) -> None:
    """It is dead-lettered again, as what it was, however much of it there is."""
    rig.limit = DeadLetterLimit(consecutive=10)
    for _ in range(20):
        rig.put(b"poison still", replayed_for=OURS)
    rig.put(payment(1))

    await rig.consume()

    assert rig.buried == [b"poison still"] * 20
    assert {key.object_id for _, key in rig.database.rows} == {"pi_1"}
    assert rig.stored == 21


async def test_what_is_live_is_counted_behind_a_replay_too(rig: Rig) -> None:
    rig.limit = DeadLetterLimit(consecutive=20)
    rig.put(b"poison")
    rig.put(b"poison still", replayed_for=OURS)
    rig.put(b"poison")
    rig.put(b"poison still", replayed_for=OURS)
    rig.put(b"poison")

    await rig.consume()

    assert rig.buried == [b"poison", b"poison still", b"poison", b"poison still"]
    assert rig.stored == 4


async def test_an_offset_that_the_database_refuses_is_nobodys_poison(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: Batch) -> Applied:
        raise RowRefused("a row is refused: SQLSTATE 23514", "23514")

    monkeypatch.setattr(rig.store, "apply", refuse)
    rig.put(payment(1), replayed_for=THEIRS)

    with pytest.raises(RowRefused):
        await rig.consume()
    assert rig.buried == []
