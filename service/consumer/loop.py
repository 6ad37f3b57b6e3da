"""The consumer's loop: position, fetch, decode, apply, commit; on ports alone.

Where a partition is read from is decided here and by the database only: a partition that is newly assigned, or whose
fence was lost, is unpositioned, and the source hands out none of its records until it has been sought to what the
database says. The offset committed to Kafka afterwards is for lag metrics.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import structlog

from service.consumer.dead_letter import LIMIT_REACHED, BuildDeadLetter, DeadLetterLimit, refused
from service.consumer.lag import LagWatch
from service.consumer.latency import latencies
from service.consumer.observer import BatchReport, ConsumerObserver
from service.consumer.spans import BatchSpans
from service.errors import BrokerUnavailable, FenceLost, IngestError, OffsetOutOfRange, RowRefused, StoreUnavailable
from service.events import ConsumedEvent, ConsumedRecord, InvalidRecord, Partition, PassedOver
from service.ports import Applied, Batch, Clock, ProjectionStore, Publisher, RecordSource
from service.records import was_replayed

_log: Final = structlog.get_logger(__name__)

_Readable: TypeAlias = ConsumedEvent | PassedOver
_Item: TypeAlias = _Readable | InvalidRecord
_T = TypeVar("_T")


class _GivenBack(Exception):
    """A batch is left to be fetched anew: the other side is away for too long or at a stop, or a partition stopped."""


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """The bounds of everything that the loop does; seconds, unless named otherwise."""

    batch_records: int = 500
    fetch_wait: float = 1.0
    backoff_min: float = 0.1
    backoff_max: float = 15.0
    hold: float = 60.0
    """How long a batch is tried again while in hand. Then it is given back and fetched anew, so that polling goes on:
    a member that has not polled for `max.poll.interval.ms` is out of its group."""
    publish: float = 10.0
    lag_interval: float = 5.0
    recheck: float = 30.0
    """How often a partition outside its log is looked at again: a person may have set its offset right."""


class Consumer:
    """Applies a consumer group's records to one projection. `run` it once.

    What it is given stays its giver's to close.
    """

    def __init__(
        self,
        name: str,
        source: RecordSource,
        store: ProjectionStore,
        dead_letters: Publisher,
        *,
        decode: Callable[[ConsumedRecord], _Item],
        build_dead_letter: BuildDeadLetter,
        observer: ConsumerObserver,
        clock: Clock,
        limit: DeadLetterLimit | None = None,
        spans: BatchSpans | None = None,
        limits: ConsumerLimits | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source = source
        self._store = store
        self._dead_letters = dead_letters
        self._decode = decode
        self._build_dead_letter = build_dead_letter
        self._observer = observer
        self._clock = clock
        self._limit = limit or DeadLetterLimit()
        self._limits = limits or ConsumerLimits()
        self._spans = spans or BatchSpans()
        self._jitter = jitter
        self._log = _log.bind(projection=name)
        self._stop = asyncio.Event()
        self._positions: dict[Partition, int] = {}
        self._stored: dict[Partition, int | None] = {}
        """What we believe the database has; None where it has nothing yet."""
        self._out_of_range: dict[Partition, float] = {}
        self._poisoned: set[Partition] = set()
        """Those at the dead-letter limit: for the rest of this process, whoever has them in between."""
        self._batch_records = self._limits.batch_records
        self._store_reached = False
        self._problems: frozenset[str] | None = None
        self._setbacks = 0
        self._fetch_seconds = 0.0
        self._lags = LagWatch()
        self._lag_due = 0.0
        self._belief_due = 0.0
        self._lag_known = True

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish the batch in hand; where the store is away, leave it to the next.

        Raises `ForeignCluster`, which a person must decide about, and everything that nobody foresaw: a consumer that
        guesses is worse than one that stands still.
        """
        self._stop = stop
        self._belief_due = self._clock.monotonic() + self._limits.recheck
        while not stop.is_set():
            try:
                await self._position()
                started = self._clock.monotonic()
                records = await self._source.fetch(
                    max_records=self._batch_records, timeout_seconds=self._limits.fetch_wait
                )
                self._fetch_seconds = self._clock.monotonic() - started
                await self._work_off(records)
                await self._check_beliefs(await self._look_at_lag())
                self._end_cycle()
            except (StoreUnavailable, BrokerUnavailable, FenceLost, OffsetOutOfRange) as error:
                # A position that fell out of the log while we stood there is looked at again by `_position`.
                await self._set_back(error)
            except _GivenBack:
                continue

    async def _position(self) -> None:
        """Seek every partition that waits for it."""
        if not self._store_reached:
            # Not left to the first partition: a member of a group that has more members than partitions gets none.
            await self._store.check()
            self._store_reached = True
        waiting = self._source.unpositioned()
        for gone in self._out_of_range.keys() - set(waiting):
            del self._out_of_range[gone]
        now = self._clock.monotonic()
        healthy = set(waiting) - self._poisoned
        due = [partition for partition in sorted(healthy) if self._out_of_range.get(partition, 0.0) <= now]
        if due:
            # First what is stored, then the bounds: a log only grows at its end.
            stored = {partition: await self._store.next_offset(partition) for partition in due}
            for partition, (first, end) in (await self._source.bounds(due)).items():
                self._position_at(partition, stored[partition], first, end)

    def _position_at(self, partition: Partition, stored: int | None, first: int, end: int) -> None:
        if stored is not None and not first <= stored <= end:
            self._stop_partition(partition, stored, first, end)
            return
        offset = first if stored is None else stored
        self._out_of_range.pop(partition, None)
        self._positions[partition] = offset
        self._stored[partition] = stored
        self._source.seek(partition, offset)
        self._lags.at(partition, offset)
        self._log.info("partition.positioned", **_where(partition), offset=offset)

    def _stop_partition(self, partition: Partition, stored: int, first: int, end: int) -> None:
        """Leave it unpositioned: others go on, and it is looked at again, since a person may set its offset right."""
        if partition not in self._out_of_range:
            detail = (
                f"the stored offset {stored} is outside the log, which goes from {first} to {end}: records were "
                "deleted before they were read, or the topic was made anew. Other partitions go on. To go on with what "
                "is there, delete the partition's row from consumer_offsets: it is read from the log's start within "
                f"{self._limits.recheck:g} s, and nothing is applied twice."
            )
            self._log.error("partition.stopped", **_where(partition), reason=OffsetOutOfRange.tag, detail=detail)
        self._out_of_range[partition] = self._clock.monotonic() + self._limits.recheck

    async def _work_off(self, records: Sequence[ConsumedRecord]) -> None:
        """Apply or dead-letter fetched records; where that cannot be done, give them back before raising.

        What lies before our position is applied: to pass it again would move the stored offset back.
        """
        records = [record for record in records if record.offset >= self._positions[record.partition]]
        if not records:
            return
        partitions = {record.partition for record in records}
        now = self._clock.now().timestamp()
        for record in _firsts_and_lasts(records):
            self._lags.read(record.partition, record.offset, record.timestamp_ms / 1000, now)
        with self._spans.processing(records) as processing:
            try:
                await self._settle([self._decode(record) for record in records])
            except (_GivenBack, FenceLost):
                self._source.unposition(partitions)
                raise
            with self._spans.committing(processing):
                await self._source.commit({partition: self._positions[partition] for partition in partitions})

    async def _settle(self, items: Sequence[_Item]) -> None:
        """Apply what can be applied; halve what has poison in it until the poison stands alone, in order.

        Depth: log2 of the batch.
        """
        readable = [item for item in items if not isinstance(item, InvalidRecord)]
        if len(readable) == len(items):
            try:
                await self._apply(readable)
            except RowRefused as error:
                if len(readable) == 1:
                    if isinstance(readable[0], PassedOver):
                        raise  # nothing of it is a row: what is refused is our own offset
                    await self._bury(refused(readable[0], error.sqlstate))
                    return
            else:
                return
        elif len(items) == 1:
            (item,) = items
            if isinstance(item, InvalidRecord):
                await self._bury(item)
            return
        middle = len(items) // 2
        await self._settle(items[:middle])
        await self._settle(items[middle:])

    async def _apply(self, readable: Sequence[_Readable]) -> None:
        started = self._clock.monotonic()
        events = [item for item in readable if isinstance(item, ConsumedEvent)]
        passed_over = len(readable) - len(events)
        applied = await self._commit(events, [item.record for item in readable])
        counts: dict[Partition, int] = {}
        for consumed in events:
            counts[consumed.record.partition] = counts.get(consumed.record.partition, 0) + 1
        for partition, count in counts.items():
            self._limit.applied(partition, count)
        now = self._clock.now()
        report = BatchReport(
            records=len(readable),
            applied=applied,
            ignored=len({c.event.event_id for c in events}) - applied.applied - applied.already_applied + passed_over,
            fetch_seconds=self._fetch_seconds,
            apply_seconds=self._clock.monotonic() - started,
            oldest_seconds=max(((now - c.event.received_at).total_seconds() for c in events), default=0.0),
            latencies=latencies(events, applied.new_events, now),
        )
        self._observer.batch_applied(report)
        self._log.info(
            "batch.applied",
            records=report.records,
            partitions=len({item.record.partition for item in readable}),
            applied=applied.applied,
            already_applied=applied.already_applied,
            ignored=report.ignored,
            refolded=applied.refolded,
            undecided=applied.undecided,
            fetch_seconds=round(report.fetch_seconds, 4),
            apply_seconds=round(report.apply_seconds, 4),
            oldest_seconds=round(report.oldest_seconds, 3),
        )

    async def _bury(self, invalid: InvalidRecord) -> None:
        """Dead-letter a record, then pass its offset: a crash in between buries it twice, never not at all.

        One that was replayed says nothing new of this version, and is the dead letter that it was: a replay that came
        too early must not stop what is live.
        """
        partition = invalid.record.partition
        counts = not was_replayed(invalid.record)
        if counts and (reached := self._limit.reached(partition)) is not None:
            self._stop_poisoned(partition, invalid, reached)
            raise _GivenBack
        await self._insist(lambda: self._publish_dead_letter(invalid))
        await self._commit((), [invalid.record])
        if counts:
            self._limit.dead(partition)
        self._observer.dead_lettered(invalid.reason)
        self._log.error(
            "record.dead_lettered",
            **_where(partition),
            offset=invalid.record.offset,
            reason=invalid.reason,
            detail=invalid.detail,
        )

    def _stop_poisoned(self, partition: Partition, invalid: InvalidRecord, reached: str) -> None:
        """Leave it unpositioned for good: ending the process would have a supervisor start it, and the count, anew."""
        self._poisoned.add(partition)
        detail = (
            f"{reached}, and more likely this version is wrong than all of them. Nothing is lost: the offset stays "
            "where it is, and other partitions go on. Run the version before; or, where they are meant to go to the "
            "dead-letter topic, restart with a higher consumer.dead_letter_limit."
        )
        self._log.error(
            "partition.stopped",
            **_where(partition),
            offset=invalid.record.offset,
            reason=LIMIT_REACHED,
            last=invalid.reason,
            detail=detail,
        )

    async def _publish_dead_letter(self, invalid: InvalidRecord) -> None:
        deadline = asyncio.get_running_loop().time() + self._limits.publish
        await self._dead_letters.publish(self._build_dead_letter(invalid), deadline=deadline)

    async def _commit(self, events: Sequence[ConsumedEvent], records: Sequence[ConsumedRecord]) -> Applied:
        """One transaction: the events, and the offsets of the records."""
        next_offsets = {record.partition: record.next_offset for record in records}
        batch = Batch(
            events=events,
            stored={partition: self._stored[partition] for partition in next_offsets},
            next_offsets=next_offsets,
        )
        applied = await self._insist(lambda: self._store.apply(batch))
        self._positions |= next_offsets
        self._stored |= next_offsets
        for partition, offset in next_offsets.items():
            self._lags.at(partition, offset)
        self._observer.lag(self._lags.lags())
        return applied

    async def _insist(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try again while the other side is away, for as long as a batch may be held and nobody wants us to stop."""
        give_back_at = self._clock.monotonic() + self._limits.hold
        while True:
            try:
                return await attempt()
            except (StoreUnavailable, BrokerUnavailable) as error:
                await self._set_back(error)
                if self._stop.is_set() or self._clock.monotonic() >= give_back_at:
                    # A database that does not get through with so much in its time may with less.
                    self._batch_records = max(1, self._batch_records // 2)
                    raise _GivenBack from error

    async def _set_back(self, error: IngestError) -> None:
        """Say what is wrong, and wait: exponentially, with full jitter, but never longer than until the stop."""
        self._setbacks += 1
        if isinstance(error, StoreUnavailable):
            self._observer.store_retry(error.sqlstate)
        if isinstance(error, FenceLost):
            self._observer.fence_lost()
        self._report_problems(error.tag)
        if not isinstance(error, BrokerUnavailable):
            await self._look_at_lag()  # what comes meanwhile waits, and is to be seen to
        ceiling = min(self._limits.backoff_max, self._limits.backoff_min * 2 ** min(self._setbacks, 32))
        delay = self._jitter(self._limits.backoff_min, ceiling)
        self._log.warning("consumer.set_back", reason=error.tag, detail=str(error), attempt=self._setbacks, wait=delay)
        try:
            await asyncio.wait_for(self._stop.wait(), delay)
        except TimeoutError:
            return

    def _end_cycle(self) -> None:
        """Everything from the positions to the commit went well: only what lasts longer keeps us from being ready."""
        self._setbacks = 0
        self._batch_records = min(self._limits.batch_records, 2 * self._batch_records)
        self._report_problems()

    def _report_problems(self, *tags: str) -> None:
        """Tell the observer what keeps us from being ready, when that has changed."""
        standing = {
            BrokerUnavailable.tag: not self._lag_known,
            OffsetOutOfRange.tag: bool(self._out_of_range),
            LIMIT_REACHED: not self._poisoned.isdisjoint(self._source.unpositioned()),
        }
        problems = frozenset(tags) | {tag for tag, is_so in standing.items() if is_so}
        if problems != self._problems:
            self._problems = problems
            self._observer.problems(problems)

    async def _look_at_lag(self) -> Collection[Partition]:
        """Tell how far behind we are, where it is time to; the partitions that were looked at."""
        if self._clock.monotonic() < self._lag_due:
            return ()
        self._lag_due = self._clock.monotonic() + self._limits.lag_interval
        try:
            ends = await self._source.ends()
        except BrokerUnavailable as error:
            # No reason to slow down, since a single partition without a leader is enough for it; but a broker that
            # is away looks like one without news, and this question is how the two are told apart.
            self._lag_known = False
            self._log.warning("consumer.lag_unknown", reason=error.tag, detail=str(error))
            return ()
        self._lag_known = True
        self._lags.ended(ends, self._clock.now().timestamp())
        self._observer.lag(self._lags.lags())
        return ends.keys()

    async def _check_beliefs(self, partitions: Collection[Partition]) -> None:
        """Ask the database whether it still has what we believe it has.

        A failover may have lost our last transactions. The fence finds out with the next batch of the partition, which
        on a quiet one may never come, and until then the rows would lack what was applied.
        """
        if not partitions or self._clock.monotonic() < self._belief_due:
            return
        self._belief_due = self._clock.monotonic() + self._limits.recheck
        for partition in sorted(set(partitions) - set(self._source.unpositioned())):
            if await self._store.next_offset(partition) != self._stored.get(partition):
                self._source.unposition([partition])
                raise FenceLost(f"the database does not have what we applied of {partition}")


def _firsts_and_lasts(records: Sequence[ConsumedRecord]) -> Iterable[ConsumedRecord]:
    """Of each partition: what they say of their times is what its lag is known by."""
    firsts = {record.partition: record for record in reversed(records)}
    lasts = {record.partition: record for record in records}
    return (*firsts.values(), *lasts.values())


def _where(partition: Partition) -> dict[str, str | int]:
    return {"topic": partition.topic, "partition": partition.number}
