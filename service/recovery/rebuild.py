"""Rebuilding: each object of a projection folded anew from its ledger, and what stands in the tables held against it.

Three walks, one after the other, each in short transactions of one page, while consumers go on:

1. `topic`, where asked for: what the topics have and the ledger lacks, or has otherwise, is laid beside the ledger.
2. `objects`: ledger entries, their marks, and the folded states.
3. `rows`: links and rows, which are made of all states that belong to a row. They come last, since by then no consumer
   folds on, or makes a row of, a state that is wrong.

Whatever is corrected is corrected for itself: to be interrupted anywhere and begun anew comes to the same end.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from service.errors import ConfigurationError, RowRefused, StoreUnavailable
from service.events import ConsumedEvent, ConsumedRecord, InvalidRecord, Partition, PassedOver
from service.ports import RebuildPage, RebuildStore, RecordLog
from service.projections.model import ObjectKey

STAGED_RECORDS: Final = 500
ATTEMPTS: Final = 8
"""How often a page is tried while the database gives a reason to try again: a lock that a consumer held for long."""
_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_SECONDS_MAX: Final = 2.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Tally:
    """What a rebuild came to so far."""

    looked_at: Counter[str] = field(default_factory=Counter)
    """By walk: records, objects, and what rows are made for."""
    differences: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By table and column; the kind in the column's place, where an entry is missing or too much."""
    invalid: Counter[str] = field(default_factory=Counter)
    """Records that no version of this contract can read, or that the database refuses, by reason."""
    ahead: int = 0
    reached: ObjectKey | None = None

    def add(self, page: RebuildPage) -> None:
        """Count a page."""
        self.looked_at[page.walk] += page.looked_at
        self.differences.update((d.table, d.column or d.kind) for d in page.differences)
        self.invalid.update(page.invalid)
        self.ahead += page.ahead
        self.reached = page.reached


@dataclass(frozen=True, slots=True)
class FromTopics:
    """Where `topic` reads: the logs, the topics' names, and what a record is to the projection's consumers."""

    log: RecordLog
    names: Sequence[str]
    decode: Callable[[ConsumedRecord], ConsumedEvent | InvalidRecord | PassedOver]


async def rebuild(
    store: RebuildStore, stop: asyncio.Event, *, topics: FromTopics | None = None
) -> AsyncIterator[RebuildPage]:
    """Walk page by page, until the end or until `stop` is set; a page that is given is done.

    Raises `StoreUnavailable` where the database cannot go on, `BrokerUnavailable`, `LedgerUnreadable`, and
    `ConfigurationError` where a topic or the tables are not there.
    """
    try:
        if topics is not None:
            async for page in _staged(store, topics, stop):
                yield page
        for walk in (store.objects, store.rows):
            after: ObjectKey | None = None
            while not stop.is_set():
                page = await _insist(partial(walk, after), stop)
                if page.looked_at == 0:
                    break
                yield page
                after = page.reached
    except _Stopped:
        return


async def records_in(topics: FromTopics) -> int:
    """How many records the topics have now, about: a log has offsets without records."""
    return sum([len(offsets) for name in topics.names for offsets in (await _ranges(topics, name)).values()])


async def _ranges(topics: FromTopics, name: str) -> Mapping[Partition, range]:
    ranges = await topics.log.ranges(name)
    if not ranges:
        raise ConfigurationError(f"kafka.topic_prefix: there is no topic {name} to read from")
    return ranges


async def _staged(store: RebuildStore, topics: FromTopics, stop: asyncio.Event) -> AsyncIterator[RebuildPage]:
    for name in topics.names:
        batch: list[ConsumedRecord] = []
        async for record in topics.log.read(await _ranges(topics, name)):
            batch.append(record)
            if len(batch) == STAGED_RECORDS:
                yield await _stage(store, topics, batch, stop)
                batch = []
            if stop.is_set():
                return
        if batch:
            yield await _stage(store, topics, batch, stop)


async def _stage(
    store: RebuildStore, topics: FromTopics, batch: Sequence[ConsumedRecord], stop: asyncio.Event
) -> RebuildPage:
    invalid: Counter[str] = Counter()
    events: list[ConsumedEvent] = []
    for record in batch:
        match topics.decode(record):
            case ConsumedEvent() as consumed:
                events.append(consumed)
            case InvalidRecord(reason=reason):
                invalid[reason] += 1
            case PassedOver():
                pass
    ahead = await _halved(store, events, invalid, stop)
    return RebuildPage("topic", looked_at=len(batch), invalid=invalid, ahead=ahead)


async def _halved(
    store: RebuildStore, events: Sequence[ConsumedEvent], invalid: Counter[str], stop: asyncio.Event
) -> int:
    """Stage events; where one is refused, halve until it stands alone and is counted. Depth: log2 of the batch."""
    if not events:
        return 0
    try:
        return await _insist(lambda: store.stage(events), stop)
    except RowRefused as refused:
        if len(events) == 1:
            invalid[refused.tag] += 1
            return 0
    middle = len(events) // 2
    return await _halved(store, events[:middle], invalid, stop) + await _halved(store, events[middle:], invalid, stop)


async def _insist(attempt: Callable[[], Awaitable[_T]], stop: asyncio.Event) -> _T:
    """Try again while the database answers that later may be better, a bounded number of times.

    Without an answer the session is gone, and with it what was laid beside the ledger: that is a matter of a new run.
    Raises `_Stopped` where it would have to try again and is to stop.
    """
    backoff = _BACKOFF_SECONDS
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except StoreUnavailable as error:
            if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
                raise
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), backoff)
        if stop.is_set():
            raise _Stopped
        backoff = min(2 * backoff, _BACKOFF_SECONDS_MAX)
    return await attempt()


class _Stopped(Exception):
    """Nothing was done, and nothing more is to be tried."""
