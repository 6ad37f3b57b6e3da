"""How far every consumer of the deployment is: the topics' ends, by Kafka, less what the database says was applied."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, TypeAlias

import structlog

from service.errors import BrokerUnavailable, IngestError
from service.events import Partition
from service.ports import OperatorReader, RecordLog, StoredOffset
from service.telemetry.seldom import Seldom
from service.telemetry.traces import traced

CACHED_SECONDS: Final = 2.0
ASKED_SECONDS_MAX: Final = 8.0
KEPT_SECONDS: Final = 30.0
"""After the last question, the connection to Kafka is kept for so long: a page that is open asks again and again."""

OpenLog: TypeAlias = Callable[[], AbstractAsyncContextManager[RecordLog]]
Groups: TypeAlias = Mapping[str, tuple[str, Collection[str]]]
"""Projection → its consumer group, and the topics that it reads."""

NO_DATABASE: Final = "no_database"
TIMED_OUT: Final = "timed_out"

_log: Final = structlog.get_logger("service.page")


class Consumers:
    """Asks for all that look, one question at a time, and remembers the answer for two seconds."""

    def __init__(
        self,
        groups: Groups,
        open_log: OpenLog,
        reader: OperatorReader | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._groups = groups
        self._kept = _KeptLog(open_log)
        self._reader = reader
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._answer: tuple[float, Mapping[str, object]] | None = None
        self._seldom = Seldom()

    async def document(self) -> Mapping[str, object]:
        """All groups, as `/api/consumers` tells it. Raises nothing: a problem is told by its tag."""
        async with self._asking:
            if self._answer is None or self._monotonic() - self._answer[0] >= CACHED_SECONDS:
                self._answer = (self._monotonic(), await self._asked())
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
                ranges = {topic: await log.ranges(topic) for topic in topics}
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
                    _group(name, group, {p: r for topic in topics for p, r in ranges[topic].items()}, offsets)
                    for name, (group, topics) in self._groups.items()
                ],
                "problem": None,
            }
        # Whatever it is, the connection may be part of it.
        await self._kept.close()
        return _nothing(problem)


def _nothing(problem: str) -> Mapping[str, object]:
    return {"groups": [], "problem": problem}


def _group(
    projection: str,
    group: str,
    ranges: Mapping[Partition, range],
    offsets: Mapping[tuple[str, Partition], StoredOffset],
) -> Mapping[str, object]:
    partitions: list[Mapping[str, object]] = []
    lags: list[int] = []
    updated = [its.updated_at for (name, _), its in offsets.items() if name == group]
    for partition, there in sorted(ranges.items()):
        stored = offsets.get((group, partition))
        # Where nothing was applied yet, everything that the log has is to be read.
        position = there.start if stored is None else max(stored.next_offset, there.start)
        lags.append(max(0, there.stop - position))
        partitions.append(
            {
                "topic": partition.topic,
                "partition": partition.number,
                "next_offset": None if stored is None else stored.next_offset,
                "end_offset": there.stop,
                "lag": lags[-1],
            }
        )
    return {
        "projection": projection,
        "group": group,
        "lag": sum(lags),
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
            await asyncio.wait((self._task,), timeout=ASKED_SECONDS_MAX)
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
