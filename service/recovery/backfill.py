"""The present state of Stripe's objects to their topics, as snapshots: whole lists of them, or by their ids."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from service.errors import StripeObjectMissing
from service.events import Accepted, ConsumedEvent, ConsumedRecord, Duplicate, TrustedEvent
from service.ports import Clock, JobStore, RecordLog, StripeList, StripeObject
from service.receiver.ingest import Ingest
from service.records import decode
from service.recovery.jobs import Job, job
from service.recovery.snapshots import LISTS, is_deleted, snapshot
from service.recovery.sources import Source
from service.recovery.taking import take_all

ASKED_AT_ONCE: Final = 8
"""Objects that are read by id, at a time; the reader's own rate limit is below what this could reach."""

IDS_PER_PAGE: Final = 100

GOING_ON_MAX: Final = timedelta(days=7)
"""For how long a run goes on where it was interrupted. A later one begins anew: what was made since is newer than that
place, and the rest of the list alone would not be what was asked for."""


@dataclass(slots=True)
class Counts:
    """What a backfill came to, in objects."""

    read: int = 0
    published: int = 0
    duplicates: int = 0
    """Published by an earlier run, of the same read."""
    unprocessable: int = 0
    gone: int = 0
    """Named somewhere, and Stripe has it no more."""

    def add(self, other: "Counts") -> None:
        """Count these as well."""
        self.read += other.read
        self.published += other.published
        self.duplicates += other.duplicates
        self.unprocessable += other.unprocessable
        self.gone += other.gone


THIN_PREFIXES: Final = ("v1.", "v2.")
"""Of the types of thin events, and of no others."""


class Watcher(Protocol):
    """Whoever wants to know how it goes."""

    def page(self, counts: Counts, reached: datetime | None) -> None:
        """A page is done with; lists come newest first, and all that was created after `reached` is done."""
        ...


@dataclass(frozen=True, slots=True)
class Named:
    """An object that something has named by its id."""

    list: StripeList
    object_id: str


class ListProgress(msgspec.Struct, frozen=True):
    """How far a list was walked: `after` is the object that the last page ended with, made at `reached`."""

    asked: str = ""
    """How the window was asked for."""
    begun: datetime | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    after: str | None = None
    reached: datetime | None = None


class TopicProgress(msgspec.Struct, frozen=True):
    """How far a topic was read for the ids in it: the next offset by partition."""

    offsets: dict[int, int] = {}


class Backfill:
    """Backfills one source."""

    def __init__(self, source: Source, ingest: Ingest, jobs: JobStore, clock: Clock) -> None:
        self._source = source
        self._ingest = ingest
        self._jobs = jobs
        self._clock = clock

    async def walk(
        self,
        name: StripeList,
        created_from: datetime | None,
        created_to: datetime | None,
        watcher: Watcher,
        *,
        asked: str | None = None,
    ) -> Counts:
        """Publish every object of a list that was created in this time. Raises `JobHeld`.

        Where a run over the same time was interrupted within the last week, it goes on there. `asked` is how somebody
        has put that time: a month until now is another one in each run, and goes on where it was all the same.
        """
        counts = Counts()
        now = self._clock.now()
        beginning = ListProgress(asked or f"{created_from} {created_to}", now, created_from, created_to)
        async with job(f"backfill:{self._source.name}:{name}", self._jobs, ListProgress()) as mine:
            left = mine.progress
            if left.asked != beginning.asked or left.begun is None or now - left.begun > GOING_ON_MAX:
                await mine.save(beginning)
            more = True
            while more:
                page_counts, more = await self._page(name, mine)
                counts.add(page_counts)
                watcher.page(page_counts, mine.progress.reached)
            await mine.save(ListProgress())
        return counts

    async def walk_thin(self, log: RecordLog, topic: str, watcher: Watcher) -> Counts:
        """Publish the present state of every object that a thin event on the topic names. Raises `JobHeld`.

        An object is read once for each page of records that names it. A later run begins where this one ended.
        """
        counts = Counts()
        async with job(f"backfill:{self._source.name}:{topic}", self._jobs, TopicProgress()) as mine:
            for partition, offsets in sorted((await log.ranges(topic)).items()):
                begin = max(offsets.start, mine.progress.offsets.get(partition.number, 0))
                if begin > offsets.stop:  # the topic was made anew
                    begin = offsets.start
                async for page in _pages(log.read({partition: range(begin, offsets.stop)})):
                    named = dict.fromkeys(each for record in page if (each := self._named(record)) is not None)
                    page_counts = await self.read_named(list(named))
                    await mine.save(TopicProgress({**mine.progress.offsets, partition.number: page[-1].next_offset}))
                    counts.add(page_counts)
                    watcher.page(page_counts, None)
        return counts

    def _named(self, record: ConsumedRecord) -> Named | None:
        """The object that a thin event of this source's account and mode is about, where it has a list."""
        item = decode(record)
        if not isinstance(item, ConsumedEvent) or not item.event.event_type.startswith(THIN_PREFIXES):
            return None
        event = item.event
        its_list = LISTS.get(event.object_type)
        ours = event.livemode == self._source.livemode and event.account == self._source.account
        return Named(its_list, event.object_id) if ours and its_list is not None and event.object_id else None

    async def read_named(self, named: Sequence[Named]) -> Counts:
        """Publish the present state of these objects. Where one cannot be read, the reading of all ends with that."""
        slots = asyncio.Semaphore(ASKED_AT_ONCE)

        async def read(each: Named) -> StripeObject | None:
            async with slots:
                try:
                    return await self._source.reader.object(each.list, each.object_id)
                except StripeObjectMissing:
                    return None

        try:
            async with asyncio.TaskGroup() as readings:
                tasks = [readings.create_task(read(each)) for each in named]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        found = [task.result() for task in tasks]
        return await self._publish([each for each in found if each is not None], gone=found.count(None))

    async def _page(self, name: StripeList, mine: Job[ListProgress]) -> tuple[Counts, bool]:
        progress = mine.progress
        try:
            page = await self._source.reader.objects(
                name, created_from=progress.created_from, created_to=progress.created_to, after=progress.after
            )
        except StripeObjectMissing:
            if progress.after is None or progress.reached is None:
                raise
            # The object that the page before ended with was deleted meanwhile. Others may be of its second.
            page = await self._source.reader.objects(
                name, created_from=progress.created_from, created_to=progress.reached + timedelta(seconds=1)
            )
        counts = await self._publish(page.objects, gone=0)
        reached = min((each.created for each in page.objects if each.created), default=progress.reached)
        # Only what is acknowledged is behind us: after a crash before this the page is read once more.
        await mine.save(msgspec.structs.replace(progress, after=page.next_after, reached=reached))
        return counts, page.next_after is not None

    async def _publish(self, objects: Iterable[StripeObject], *, gone: int) -> Counts:
        counts = Counts(gone=gone)
        bodies: list[TrustedEvent] = []
        for each in objects:
            counts.read += 1
            if is_deleted(each):
                counts.gone += 1
                continue
            bodies.append(snapshot(each, self._source.main_endpoint, livemode=self._source.livemode, clock=self._clock))
        for taken in await take_all(bodies, "backfill", self._ingest):
            match taken.outcome:
                case Accepted():
                    counts.published += 1
                case Duplicate():
                    counts.duplicates += 1
                case _:
                    counts.unprocessable += 1
        return counts


async def _pages(records: AsyncIterator[ConsumedRecord]) -> AsyncIterator[Sequence[ConsumedRecord]]:
    page: list[ConsumedRecord] = []
    async for record in records:
        page.append(record)
        if len(page) == IDS_PER_PAGE:
            yield page
            page = []
    if page:
        yield page
