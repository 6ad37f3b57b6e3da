"""Recovery in memory: a Stripe, a Kafka, a dedupe store and the jobs, with time that a test moves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from prometheus_client import CollectorRegistry

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.memory_jobs import MemoryJobStore
from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher
from service.adapters.memory_stripe import MemoryStripe, MemoryStripeReader
from service.events import ConsumedRecord, Endpoint, TrustedEvent
from service.ports import JobStore, StripePage
from service.receiver.dedupe import Deduplicator
from service.receiver.ingest import Ingest, take
from service.records import Topics
from service.recovery.backfill import Backfill, Counts
from service.recovery.reconcile import Missing, PageReport, Reconciler
from service.recovery.sources import Source
from service.simulator.events import render, sample
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver
from tests.support.fake_stripe import ManualClock
from tests.support.signing import SECRET

TOPICS = Topics("stripe")
GRACE = timedelta(minutes=15)
DAY = timedelta(days=1)


def endpoint(name: str = "shop", *events: str, mode: str = "test", connect: bool = False) -> Endpoint:
    """An endpoint of the account that is tested with."""
    return Endpoint(
        name=name,
        path=f"/webhooks/{name}",
        secrets=(SECRET,),
        mode="live" if mode == "live" else "test",
        account="acct_1",
        connect=connect,
        events=events,
    )


@dataclass
class Seen:
    """A watcher that remembers."""

    pages: list[PageReport] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)

    @property
    def missing(self) -> list[Missing]:
        return [each for page in self.pages for each in page.missing]


class Reconciled(Seen):
    """Watches a reconciliation."""

    def page(self, page: PageReport) -> None:
        self.pages.append(page)


class Backfilled(Seen):
    """Watches a backfill."""

    def page(self, counts: Counts, reached: datetime | None) -> None:  # noqa: ARG002 -- the watcher's
        self.counts.append(counts)


@dataclass
class SmallPages:
    """A reader of pages of so many objects: where a list is long is then a matter of few."""

    inner: MemoryStripeReader
    size: int = 3

    async def events(self, **asked: Any) -> StripePage:
        return self._cut(await self.inner.events(**asked))

    async def objects(self, name: Any, **asked: Any) -> StripePage:
        return self._cut(await self.inner.objects(name, **asked))

    async def object(self, name: Any, object_id: str) -> Any:
        return await self.inner.object(name, object_id)

    async def event(self, event_id: str) -> Any:
        return await self.inner.event(event_id)

    async def close(self) -> None:
        await self.inner.close()

    def _cut(self, page: StripePage) -> StripePage:
        if len(page.objects) <= self.size:
            return page
        return StripePage(page.objects[: self.size], page.objects[self.size - 1].id)


@dataclass
class World:
    """What a job works on."""

    endpoints: Sequence[Endpoint] = (endpoint(),)
    permissions: frozenset[str] | None = None
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.stripe = MemoryStripe(self.clock)
        self.kafka = MemoryKafka(self.clock)
        for topic in (*TOPICS.data, TOPICS.quarantine):
            self.kafka.create_topic(topic)
        self.publisher = MemoryPublisher(self.kafka)
        self.jobs: JobStore = MemoryJobStore(self.clock)
        self.dedupe = MemoryDedupeStore(self.clock, max_entries=100_000)

    @cached_property
    def ingest(self) -> Ingest:
        return Ingest(
            publisher=self.publisher,
            deduplicator=Deduplicator(
                self.dedupe,
                DedupeMetricsObserver(ReceiverMetrics(CollectorRegistry())),
                on_error="refuse",
                timeout_seconds=2,
            ),
            clock=self.clock,
            topics=TOPICS,
            include_raw=True,
            tolerance_seconds=300,
        )

    @property
    def source(self) -> Source:
        reader = SmallPages(self.stripe.reader(self.permissions))
        return Source("acct_1/test", livemode=False, reader=reader, endpoints=self.endpoints)

    @property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.source, self.ingest, self.jobs, self.clock, grace=GRACE)

    @property
    def backfill(self) -> Backfill:
        return Backfill(self.source, self.ingest, self.jobs, self.clock)

    def happens(
        self, count: int, *, ago: timedelta = timedelta(hours=1), kind: str = "payment_intent.succeeded"
    ) -> list[str]:
        """So many events, a second apart, the last so long ago; their ids, oldest first."""
        last = int((self.clock.now() - ago).timestamp())
        events = [sample(kind, seed=1000 * last + n, created=last - (count - 1 - n)) for n in range(count)]
        for event in events:
            self.stripe.add(event)
        return [event["id"] for event in events]

    async def delivered(self, event_id: str) -> None:
        """Stripe has delivered it, and a receiver has taken it."""
        body = (await self.stripe.reader().event(event_id)).body
        loop_deadline = 1e12
        await take(
            TrustedEvent(self.endpoints[0], body, self.clock.now()), "webhook", self.ingest, deadline=loop_deadline
        )

    def records(self, topic: str = "stripe.payments") -> Sequence[ConsumedRecord]:
        return self.kafka.records(topic)

    def published(self, topic: str = "stripe.payments") -> Counter[str]:
        """How often each event's record is there."""
        return Counter(dict(record.headers)["ce_id"].decode() for record in self.records(topic))


def headers(record: ConsumedRecord) -> Mapping[str, str]:
    """A record's headers, as text."""
    return {name: value.decode() for name, value in record.headers}


__all__ = ["DAY", "GRACE", "TOPICS", "Backfilled", "Reconciled", "World", "endpoint", "headers", "render"]
