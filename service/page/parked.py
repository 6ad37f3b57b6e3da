"""What is parked on the side topics, listed and replayed for an operator: bounded, and by the means of `redrive`."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from service.errors import IngestError, ShuttingDown
from service.events import ConsumedRecord, Partition
from service.ports import RecordLog
from service.recovery.redrive import Describe, Parked, Redriven, Search, Selection, Step, redrive, search
from service.telemetry.metrics import PageMetrics
from service.telemetry.traces import traced

SCANNED_RECORDS_MAX: Final = 5_000
"""Of a side topic, the newest so many are looked through, of each partition its share."""
SCANNED_BYTES_MAX: Final = 64 * 1024 * 1024
SCANNED_SECONDS_MAX: Final = 6.0
PLACES_MAX: Final = 100
REPLAY_SECONDS_MAX: Final = 30.0
"""After which nothing more is begun; what is in flight is waited for."""
CLOSING_SECONDS_MAX: Final = 3.0

NOT_FOUND: Final = "not_found"
"""The outcome of a place at which nothing is, or that is further back than is looked."""
NOT_DONE: Final = "not_done"
"""The outcome of a place that the time did not suffice for, or whose topic could not be read any more."""

OpenLog: TypeAlias = Callable[[], AbstractAsyncContextManager[RecordLog]]

_log: Final = structlog.get_logger("service.page")


class ReplayRunning(IngestError):
    """This process replays already."""

    tag = "replay_running"


@dataclass(frozen=True, slots=True)
class ParkingPlace:
    """A side topic: its name in metrics, where it is, and what replays its records."""

    name: str
    topic: str
    describe: Describe
    open_log: OpenLog
    step: Callable[[bool], AbstractAsyncContextManager[Step]]
    """Takes whether it is a dry run."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks: a session by its fingerprint, and the address it asks from."""

    session: str
    peer: str | None


class _Enough(Exception):
    """So much was looked through that the rest is left."""


class _Scan:
    """A search of the newest records of a topic that ends somewhere, and tells whether it left anything out."""

    def __init__(self, found: Search) -> None:
        self._seconds_left = SCANNED_SECONDS_MAX
        self._describe = found.describe
        self._records = self._bytes = 0
        ranges = _newest(found.ranges)
        self.cut = ranges != found.ranges
        self.ended = False
        """Whether it came to the end of what it was to look through."""
        self._found = replace(found, ranges=ranges, describe=self._counted)

    async def records(self) -> AsyncGenerator[Parked, None]:
        """The records, each partition's oldest first, until enough was looked through.

        Only the looking takes of its time, not what is done with a record.
        """
        loop = asyncio.get_running_loop()
        records = self._found.found()
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(self._seconds_left):
                    parked = await anext(records)
            except StopAsyncIteration:
                self.ended = True
                return
            except (_Enough, TimeoutError):
                self.cut = True
                return
            self._seconds_left -= loop.time() - began
            yield parked

    def _counted(self, record: ConsumedRecord) -> Parked:
        self._records += 1
        self._bytes += len(record.value or b"")
        if self._records > SCANNED_RECORDS_MAX or self._bytes > SCANNED_BYTES_MAX:
            raise _Enough
        return self._describe(record)


def _newest(ranges: Mapping[Partition, range]) -> Mapping[Partition, range]:
    share = SCANNED_RECORDS_MAX // max(1, sum(1 for offsets in ranges.values() if offsets))
    return {
        partition: range(max(offsets.start, offsets.stop - share), offsets.stop)
        for partition, offsets in ranges.items()
    }


class Parking:
    """The side topics of a deployment, for the operators of one process."""

    def __init__(self, metrics: PageMetrics) -> None:
        self._metrics = metrics
        self._replaying: asyncio.Task[Sequence[Mapping[str, object]]] | None = None
        self._stop = asyncio.Event()
        """Of the replay that runs, or ran last."""
        self._closed = False

    async def listing(
        self, place: ParkingPlace, *, since: datetime, limit: int, name: str | None
    ) -> Mapping[str, object]:
        """The newest records, by their headers alone; those that go by a name are looked for at any age.

        Raises `BrokerUnavailable`, and `ConfigurationError` where there is no such topic.
        """
        selection = Selection(since=since) if name is None else Selection(ids=frozenset((name,)))
        async with place.open_log() as log:
            scan = _Scan(await search(log, place.topic, place.describe, selection))
            # Told at once: a body must not be kept until all are there.
            records = [(parked.parked_at, _document(parked)) async for parked in scan.records()]
        records.sort(key=lambda each: each[0], reverse=True)
        return {
            "records": [document for _, document in records[:limit]],
            "truncated": scan.cut or len(records) > limit,
        }

    async def replay(
        self, place: ParkingPlace, places: Collection[str], *, dry_run: bool, by: Operator
    ) -> Sequence[Mapping[str, object]]:
        """Replay what is at these places, and tell what became of each, in the order that was asked.

        Goes on when nobody waits for it any more. Raises `ReplayRunning`, `ShuttingDown`; and what reading the topic
        and publishing raise, where nothing was done yet.
        """
        if self._closed:
            raise ShuttingDown("this process is stopping")
        if self._replaying is not None and not self._replaying.done():
            raise ReplayRunning("this process is replaying already: one at a time")
        self._stop = asyncio.Event()  # the one before was set where its time was up, or the broker away
        self._replaying = asyncio.create_task(self._audited(place, places, dry_run, by), name="page-replay")
        # An error that nobody waits for any more is in the log.
        self._replaying.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._replaying)

    async def close(self) -> None:
        """Begin no more, and wait a little for what is in flight: nothing is lost by what is cut off."""
        self._closed = True
        self._stop.set()
        if self._replaying is not None:
            await asyncio.wait((self._replaying,), timeout=CLOSING_SECONDS_MAX)
            self._replaying.cancel()

    async def _audited(
        self, place: ParkingPlace, places: Collection[str], dry_run: bool, by: Operator
    ) -> Sequence[Mapping[str, object]]:
        """One line tells who has had what replayed, whatever came of it."""
        told: dict[str, Redriven] = {}
        line: dict[str, object] = {}
        try:
            complete = await self._replayed(place, frozenset(places), dry_run, told)
        except Exception as error:
            line = {"reason": error.tag} if isinstance(error, IngestError) else traced(error)
            if not told:
                raise
            complete = False
        finally:
            outcomes = Counter(redriven.outcome.value for redriven in told.values())
            for outcome, count in outcomes.items():
                self._metrics.replays.labels(place.name, outcome).inc(count)
            _log.info(
                "page.replayed",
                session=by.session,
                peer=by.peer,
                topic=place.topic,
                places=len(places),
                dry_run=dry_run,
                outcomes=dict(outcomes),
                **line,
            )
        missing = NOT_FOUND if complete else NOT_DONE
        return [_result(name, told.get(name), missing) for name in dict.fromkeys(places)]

    async def _replayed(
        self, place: ParkingPlace, places: frozenset[str], dry_run: bool, told: dict[str, Redriven]
    ) -> bool:
        """Whether it came to its end. `told` gathers what became of each."""

        def tell(redriven: Redriven) -> None:
            told[redriven.parked.place] = redriven

        async def chosen(scan: _Scan) -> AsyncIterator[Parked]:
            wanted = set(places)
            async with aclosing(scan.records()) as records:
                async for parked in records:
                    # A record goes by more names than its place; only that was asked for.
                    if parked.place in wanted:
                        wanted.discard(parked.place)
                        yield parked
                    if not wanted:
                        return

        stop = self._stop
        ending = asyncio.get_running_loop().call_later(REPLAY_SECONDS_MAX, stop.set)
        try:
            async with place.open_log() as log, place.step(dry_run) as step:
                scan = _Scan(await search(log, place.topic, place.describe, Selection(ids=places)))
                await redrive(chosen(scan), step, tell, stop)
            return scan.ended and not stop.is_set()
        finally:
            ending.cancel()


def _document(parked: Parked) -> Mapping[str, object]:
    """By headers alone: no payload, and nothing of one."""
    return {
        "place": parked.place,
        "id": parked.id,
        "event_type": parked.event_type,
        "endpoint": parked.endpoint,
        "reason": parked.reason,
        "detail": parked.detail,
        "consumer_group": parked.consumer_group,
        "parked_at": parked.parked_at,
    }


def _result(place: str, redriven: Redriven | None, missing: str) -> Mapping[str, object]:
    if redriven is None:
        return {"place": place, "id": None, "outcome": missing, "detail": ""}
    return {
        "place": place,
        "id": redriven.parked.id,
        "outcome": redriven.outcome.value,
        "detail": redriven.detail,
    }
