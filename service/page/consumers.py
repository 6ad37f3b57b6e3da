"""How far every consumer of the deployment is: the topics' ends, by Kafka, less what the database says was applied.

That records wait says little: they may have only just come. So those that are older than a minute are told apart, and
each partition has a time of its own, since one that stands still is not seen among others that move.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import structlog

from service.errors import BrokerUnavailable, IngestError, OffsetOutOfRange
from service.events import Partition
from service.ports import Clock, OperatorReader, RecordLog, StoredOffset
from service.telemetry.seldom import Seldom
from service.telemetry.traces import traced

CACHED_SECONDS: Final = 2.0
ASKED_SECONDS_MAX: Final = 8.0
OVERDUE_SECONDS: Final = 60
"""A record that has waited for so long should have been applied."""
PARKED_HOURS: Final = 24
"""What was parked on the side topics is counted for so long."""
CLOSED_SECONDS_MAX: Final = 2.0
"""A broker that is away is not waited for when its connection is given back."""
KEPT_SECONDS: Final = 30.0
"""After the last question, the connection to Kafka is kept for so long: a page that is open asks again and again."""

OpenLog: TypeAlias = Callable[[], AbstractAsyncContextManager[RecordLog]]
Groups: TypeAlias = Mapping[str, tuple[str, Collection[str]]]
"""Projection → its consumer group, and the topics that it reads."""

NO_DATABASE: Final = "no_database"
TIMED_OUT: Final = "timed_out"
OUT_OF_RANGE: Final = OffsetOutOfRange.tag
"""The problem of a partition whose stored offset is outside the log: its consumer stops there."""

_log: Final = structlog.get_logger("service.page")


class Consumers:
    """Asks for all that look, one question at a time, and remembers the answer for two seconds."""

    def __init__(
        self,
        groups: Groups,
        open_log: OpenLog,
        reader: OperatorReader | None,
        clock: Clock,
        side_topics: Mapping[str, str],
    ) -> None:
        """`side_topics`: what is parked there is counted, by these names."""
        self._groups = groups
        self._kept = _KeptLog(open_log)
        self._reader = reader
        self._clock = clock
        self._side_topics = side_topics
        self._asking = asyncio.Lock()
        self._answer: tuple[float, Mapping[str, object]] | None = None
        self._seldom = Seldom()

    async def document(self) -> Mapping[str, object]:
        """All groups, as `/api/consumers` tells it. Raises nothing: a problem is told by its tag."""
        async with self._asking:
            if self._answer is None or self._clock.monotonic() - self._answer[0] >= CACHED_SECONDS:
                answer = await self._asked()
                # Timed from its end: what took seconds to fail must not be asked again by each who has waited for it.
                self._answer = (self._clock.monotonic(), answer)
            return self._answer[1]

    async def close(self) -> None:
        """Give back the connection to Kafka."""
        await self._kept.close()

    async def _asked(self) -> Mapping[str, object]:
        if self._reader is None:
            return _nothing(NO_DATABASE)
        try:
            async with asyncio.timeout(ASKED_SECONDS_MAX):
                offsets = await self._reader.offsets([group for group, _ in self._groups.values()])
                log = await self._kept.log()
                topics = sorted({topic for _, topics in self._groups.values() for topic in topics})
                ranges: dict[Partition, range] = {}
                for topic in topics:
                    ranges |= await log.ranges(topic)
                overdue = await log.offsets_at(ranges, self._clock.now() - timedelta(seconds=OVERDUE_SECONDS))
                since = self._clock.now() - timedelta(hours=PARKED_HOURS)
                parked = {name: await _parked(log, topic, since) for name, topic in self._side_topics.items()}
        except IngestError as error:
            problem = error.tag
        except TimeoutError:
            problem = TIMED_OUT
        except Exception as error:  # noqa: BLE001 -- the rest of the page works
            problem = IngestError.tag
            if (unsaid := self._seldom.due()) is not None:
                _log.error("page.consumers_unforeseen", unsaid=unsaid, **traced(error))
        else:
            return {
                "groups": [
                    _group(name, group, {p: r for p, r in ranges.items() if p.topic in topics}, overdue, offsets)
                    for name, (group, topics) in self._groups.items()
                ],
                "parked": parked,
                "problem": None,
            }
        # Whatever it is, the connection may be part of it.
        await self._kept.close()
        return _nothing(problem)


def _nothing(problem: str) -> Mapping[str, object]:
    return {"groups": [], "problem": problem}


async def _parked(log: RecordLog, topic: str, since: datetime) -> int:
    """How many records a side topic has got since then; none where there is no such topic."""
    ranges = await log.ranges(topic)
    first = await log.offsets_at(ranges, since)
    return sum(max(0, there.stop - first[partition]) for partition, there in ranges.items() if partition in first)


def _group(
    projection: str,
    group: str,
    ranges: Mapping[Partition, range],
    recent: Mapping[Partition, int],
    offsets: Mapping[tuple[str, Partition], StoredOffset],
) -> Mapping[str, object]:
    """`recent`: of each partition, the first record that is not overdue yet."""
    partitions: list[Mapping[str, object]] = []
    lags: list[int] = []
    overdue: list[int] = []
    updated = [its.updated_at for (name, _), its in offsets.items() if name == group]
    for partition, there in sorted(ranges.items()):
        stored = offsets.get((group, partition))
        # Where nothing was applied yet, everything that the log has is to be read.
        position = there.start if stored is None else max(stored.next_offset, there.start)
        lags.append(max(0, there.stop - position))
        overdue.append(max(0, min(recent.get(partition, there.stop), there.stop) - position))
        # Its records were deleted before they were read, or the log is another one: see `errors.OffsetOutOfRange`.
        is_outside = stored is not None and not there.start <= stored.next_offset <= there.stop
        partitions.append(
            {
                "topic": partition.topic,
                "partition": partition.number,
                "next_offset": None if stored is None else stored.next_offset,
                "end_offset": there.stop,
                "lag": lags[-1],
                "overdue": overdue[-1],
                "updated_at": None if stored is None else stored.updated_at.timestamp(),
                "problem": OUT_OF_RANGE if is_outside else None,
            }
        )
    return {
        "projection": projection,
        "group": group,
        "lag": sum(lags),
        "overdue": sum(overdue),
        "updated_at": max(updated).timestamp() if updated else None,
        "partitions": partitions,
    }


class _KeptLog:
    """A log that is opened when somebody asks, and closed when for a while nobody did.

    It is opened and closed by one task of its own, since what opens a block has to close it.
    """

    def __init__(self, open_log: OpenLog) -> None:
        self._open_log = open_log
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._opened: asyncio.Future[RecordLog] | None = None

    async def log(self) -> RecordLog:
        """The log. Raises what opening it raises."""
        self._asked.set()
        if self._task is None or self._task.done() or self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            # An error that nobody waits for any more is nobody's.
            self._opened.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._task = asyncio.create_task(self._keep(self._opened), name="page-log")
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Close it now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CLOSED_SECONDS_MAX)
            self._task = None

    async def _keep(self, opened: "asyncio.Future[RecordLog]") -> None:
        try:
            async with self._open_log() as log:
                opened.set_result(log)
                with suppress(TimeoutError):
                    while True:
                        self._asked.clear()
                        async with asyncio.timeout(KEPT_SECONDS):
                            await self._asked.wait()
                self._opened = None  # who asks from here on gets a new one
        except Exception as error:  # noqa: BLE001 -- it is raised where the log is awaited
            if not opened.done():
                opened.set_exception(error)
        finally:
            if not opened.done():
                opened.set_exception(BrokerUnavailable("the page is closing"))
