"""What every `RecordLog` promises. A test module inherits the class and gives a harness for its log."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from service.events import ConsumedRecord, Partition
from service.ports import RecordLog

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class LogHarness(Protocol):
    """A topic of two partitions with nothing in it, and a log to read it with."""

    @property
    def log(self) -> RecordLog: ...

    @property
    def partitions(self) -> tuple[Partition, Partition]: ...

    async def append(self, partition: Partition, *values: bytes, at: datetime = NOON) -> None:
        """Put records at the end of a partition, made at this time."""
        ...

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        """Let the log start at `before`."""
        ...


async def values(records: AsyncIterator[ConsumedRecord]) -> list[bytes | None]:
    return [record.value async for record in records]


class RecordLogContract:
    """The suite."""

    async def test_all_records_come_one_partition_after_the_other(self, harness: LogHarness) -> None:
        first, second = harness.partitions
        await harness.append(second, b"d")
        await harness.append(first, b"a", b"b", b"c")

        ranges = await harness.log.ranges(first.topic)

        assert ranges == {first: range(3), second: range(1)}
        read = [record async for record in harness.log.read(ranges)]
        assert [(r.partition, r.offset, r.value) for r in read] == [
            (first, 0, b"a"), (first, 1, b"b"), (first, 2, b"c"), (second, 0, b"d"),
        ]  # fmt: skip

    async def test_only_the_ranges_are_read_and_again_from_their_beginning(self, harness: LogHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, b"a", b"b", b"c", b"d")
        await harness.append(second, b"e")
        ranges = {first: range(1, 3), second: range(0)}

        assert await values(harness.log.read(ranges)) == [b"b", b"c"]
        assert await values(harness.log.read(ranges)) == [b"b", b"c"]

    async def test_what_comes_later_is_not_among_them(self, harness: LogHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, b"a")
        ranges = await harness.log.ranges(first.topic)
        await harness.append(first, b"b")

        assert await values(harness.log.read(ranges)) == [b"a"]

    async def test_a_log_may_have_lost_its_beginning_before_and_since(self, harness: LogHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, b"a", b"b", b"c", b"d")
        await harness.append(second, b"e")
        await harness.delete_records(first, before=1)

        ranges = await harness.log.ranges(first.topic)
        assert ranges[first] == range(1, 4)
        await harness.delete_records(first, before=2)
        assert await values(harness.log.read(ranges)) == [b"c", b"d", b"e"]
        await harness.delete_records(first, before=4)
        assert await values(harness.log.read(ranges)) == [b"e"]

    async def test_a_time_is_found_in_each_partition_that_has_it(self, harness: LogHarness) -> None:
        first, second = harness.partitions
        for hour in range(3):
            await harness.append(first, b"x", at=NOON + timedelta(hours=hour))
        await harness.append(second, b"y", at=NOON)

        found = await harness.log.offsets_at(harness.partitions, NOON + timedelta(minutes=30))

        assert found == {first: 1}
        assert await harness.log.offsets_at(harness.partitions, NOON) == {first: 0, second: 0}
        before_all_time = datetime(1969, 12, 31, tzinfo=UTC)
        assert await harness.log.offsets_at(harness.partitions, before_all_time) == {first: 0, second: 0}
        assert await harness.log.offsets_at([], NOON) == {}

    async def test_there_is_nothing_in_a_topic_that_is_not_there(self, harness: LogHarness) -> None:
        assert await harness.log.ranges("nowhere") == {}
        assert await values(harness.log.read({})) == []

    async def test_a_reading_may_be_left_in_the_middle(self, harness: LogHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, *[b"a"] * 5)
        await harness.append(second, b"b")
        ranges = await harness.log.ranges(first.topic)

        async for record in harness.log.read(ranges):
            assert record.offset == 0
            break

        assert await values(harness.log.read({second: ranges[second]})) == [b"b"]
