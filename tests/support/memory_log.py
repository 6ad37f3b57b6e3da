"""A consumer's surroundings in memory: a log that ends, an observer that remembers, a clock that ticks."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from service.adapters.memory_kafka import MemoryKafka, MemoryRecordSource
from service.consumer.lag import Lag
from service.consumer.observer import BatchReport
from service.contract import Event
from service.events import ConsumedRecord, Partition, Record

DEAD_LETTERS = "stripe.dead-letter"


def new_kafka() -> MemoryKafka:
    """A cluster with a dead-letter topic."""
    kafka = MemoryKafka(TickingClock())
    kafka.create_topic(DEAD_LETTERS)
    return kafka


def put(kafka: MemoryKafka, partition: Partition, *values: Event | bytes) -> None:
    """Append events, or bytes that are none, to a partition of a topic that is made where it is missing."""
    if not kafka.has_topic(partition.topic):
        kafka.create_topic(partition.topic)
    for value in values:
        encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
        kafka.append_to(partition, Record(partition.topic, b"key", encoded, ()))


class DrainingSource(MemoryRecordSource):
    """Sets `stop` once it has found nothing to hand out, `idle_fetches` times; remembers what it was asked."""

    def __init__(
        self, kafka: MemoryKafka, stop: asyncio.Event, *, topics: Collection[str], group: str = "group"
    ) -> None:
        super().__init__(kafka, group=group, topics=topics)
        self.idle_fetches = 1
        self.fetches = 0
        self.sought: list[tuple[Partition, int]] = []
        self._stop = stop

    def seek(self, partition: Partition, offset: int) -> None:
        self.sought.append((partition, offset))
        super().seek(partition, offset)

    async def fetch(self, *, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        self.fetches += 1
        records = await super().fetch(max_records=max_records, timeout_seconds=min(timeout_seconds, 0.001))
        if not records:
            self.idle_fetches -= 1
            if self.idle_fetches <= 0:
                self._stop.set()
        return records


@dataclass
class SeenByObserver:
    """`ConsumerObserver` that remembers."""

    reports: list[BatchReport] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    retries: list[str | None] = field(default_factory=list)
    fences_lost: int = 0
    lags: list[Mapping[Partition, Lag]] = field(default_factory=list)
    states: list[frozenset[str]] = field(default_factory=list)

    def batch_applied(self, report: BatchReport) -> None:
        self.reports.append(report)

    def dead_lettered(self, reason: str) -> None:
        self.reasons.append(reason)

    def store_retry(self, sqlstate: str | None) -> None:
        self.retries.append(sqlstate)

    def fence_lost(self) -> None:
        self.fences_lost += 1

    def lag(self, lags: Mapping[Partition, Lag]) -> None:
        self.lags.append(lags)

    def problems(self, tags: Collection[str]) -> None:
        self.states.append(frozenset(tags))


@dataclass
class TickingClock:
    """Every look at the monotonic clock is `step` seconds after the one before."""

    step: float = 0.0
    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 20, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds
