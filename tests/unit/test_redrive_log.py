"""The twin of the log keeps the port's contract."""

from dataclasses import dataclass, field
from datetime import datetime

import pytest

from service.adapters.memory_kafka import MemoryKafka, MemoryRecordLog
from service.errors import BrokerUnavailable
from service.events import Partition, Record
from tests.contracts.record_log import NOON, RecordLogContract, values

TOPIC = "t.quarantine"


@dataclass
class SetClock:
    """A clock that is set."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


@dataclass
class MemoryLogHarness:
    """A topic of two partitions in this process."""

    clock: SetClock = field(default_factory=SetClock)
    partitions: tuple[Partition, Partition] = (Partition(TOPIC, 0), Partition(TOPIC, 1))

    def __post_init__(self) -> None:
        self.kafka = MemoryKafka(self.clock)
        self.kafka.create_topic(TOPIC, partitions=2)
        self.log = MemoryRecordLog(self.kafka)

    async def append(self, partition: Partition, *given: bytes, at: datetime = NOON) -> None:
        self.clock.time = at
        for value in given:
            self.kafka.append_to(partition, Record(TOPIC, b"k", value, ()))

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        self.kafka.delete_records(partition, before=before)


class TestMemoryRecordLog(RecordLogContract):
    """The contract."""

    @pytest.fixture
    async def harness(self) -> MemoryLogHarness:
        return MemoryLogHarness()

    async def test_a_broker_that_is_away_is_told(self, harness: MemoryLogHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, b"a")
        ranges = await harness.log.ranges(TOPIC)
        harness.kafka.available = False

        with pytest.raises(BrokerUnavailable):
            await harness.log.ranges(TOPIC)
        with pytest.raises(BrokerUnavailable):
            await harness.log.offsets_at(harness.partitions, NOON)
        with pytest.raises(BrokerUnavailable):
            await values(harness.log.read(ranges))
