"""What every `RecordSource` promises. A test module inherits the class and gives a harness for its source."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import pytest

from service.errors import OffsetOutOfRange
from service.events import ConsumedRecord, Partition
from service.ports import RecordSource
from tests.support.waiting import eventually


class SourceHarness(Protocol):
    """A topic of two partitions with nothing in it, and sources of one group that read it."""

    @property
    def partitions(self) -> tuple[Partition, Partition]: ...

    async def source(self) -> RecordSource:
        """Another member of the group; closed after the test."""
        ...

    async def append(self, partition: Partition, *values: bytes) -> None:
        """Put records at the end of a partition."""
        ...

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        """Let the log start at `before`."""
        ...

    async def committed(self, partition: Partition) -> int | None:
        """What the group has committed."""
        ...


async def fetch_until(
    source: RecordSource, enough: Callable[[Sequence[ConsumedRecord]], object], *, what: str
) -> list[ConsumedRecord]:
    """Fetch until `enough` says so of all that came."""
    records: list[ConsumedRecord] = []

    async def fetched() -> bool:
        records.extend(await source.fetch(max_records=100, timeout_seconds=0.2))
        return bool(enough(records))

    await eventually(fetched, timeout_seconds=30, what=what)
    return records


async def values(source: RecordSource, count: int) -> list[bytes | None]:
    """The values of the next records, `count` of them."""
    records = await fetch_until(source, lambda got: len(got) >= count, what=f"{count} records")
    return [record.value for record in records]


async def nothing(source: RecordSource) -> bool:
    """Whether several fetches give nothing."""
    return not any([await source.fetch(max_records=100, timeout_seconds=0.2) for _ in range(4)])


async def assigned(source: RecordSource, partitions: Collection[Partition]) -> None:
    """Wait until these, and only these, wait for a `seek`."""

    async def waiting() -> bool:
        await source.fetch(max_records=100, timeout_seconds=0.05)
        return set(source.unpositioned()) == set(partitions)

    await eventually(waiting, timeout_seconds=30, what=f"unpositioned: {sorted(partitions)}")


class RecordSourceContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_no_record_comes_before_its_partition_was_sought(self, harness: SourceHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, b"a")
        await harness.append(second, b"b")
        source = await harness.source()
        await assigned(source, harness.partitions)

        assert await nothing(source)

        source.seek(second, 0)
        assert await values(source, 1) == [b"b"]
        assert await nothing(source)
        assert source.unpositioned() == {first}

    async def test_records_come_in_order_from_where_was_sought(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, *(b"%d" % n for n in range(10)))
        source = await harness.source()
        await assigned(source, harness.partitions)

        source.seek(first, 3)
        records = await fetch_until(source, lambda got: len(got) >= 7, what="seven records")

        assert [(record.offset, record.value) for record in records] == [(n, b"%d" % n) for n in range(3, 10)]
        assert {record.partition for record in records} == {first}

    async def test_a_fetch_gives_no_more_than_asked_for(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, *(b"%d" % n for n in range(10)))
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)

        sizes: list[int] = []
        while sum(sizes) < 10:
            sizes.append(len(await source.fetch(max_records=4, timeout_seconds=5)))

        assert max(sizes) <= 4

    async def test_a_fetch_wakes_up_for_a_record_that_comes_while_it_waits(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)

        waiting = asyncio.create_task(source.fetch(max_records=10, timeout_seconds=30))
        await harness.append(first, b"late")

        assert [record.value for record in await waiting] == [b"late"]

    async def test_seeking_again_gives_records_again(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, b"0", b"1", b"2")
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)
        await values(source, 3)

        source.seek(first, 1)

        assert await values(source, 2) == [b"1", b"2"]

    async def test_an_unpositioned_partition_gives_nothing_until_it_is_sought_again(
        self, harness: SourceHarness
    ) -> None:
        first, second = harness.partitions
        await harness.append(first, *(b"%d" % n for n in range(6)))
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)
        source.seek(second, 0)
        assert len(await source.fetch(max_records=2, timeout_seconds=10)) == 2

        source.unposition([first])
        await harness.append(second, b"other")

        assert await values(source, 1) == [b"other"]
        assert source.unpositioned() == {first}
        source.seek(first, 1)
        assert await values(source, 5) == [b"1", b"2", b"3", b"4", b"5"]

    async def test_bounds_and_ends_follow_the_log(self, harness: SourceHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, b"0", b"1", b"2")
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 1)

        assert await source.bounds([first, second]) == {first: (0, 3), second: (0, 0)}
        assert await source.ends() == {first: 3, second: 0}

        await harness.append(second, b"0")
        assert await source.ends() == {first: 3, second: 1}

    async def test_a_commit_is_told_to_the_group_and_positions_nobody(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        await harness.append(first, b"0", b"1")
        source = await harness.source()
        await assigned(source, harness.partitions)

        await source.commit({first: 1})
        assert await harness.committed(first) == 1
        await source.close()

        successor = await harness.source()
        await assigned(successor, harness.partitions)
        assert await nothing(successor)
        successor.seek(first, 0)
        assert await values(successor, 2) == [b"0", b"1"]

    async def test_committing_what_is_not_assigned_raises_nothing(self, harness: SourceHarness) -> None:
        first, _ = harness.partitions
        source = await harness.source()
        await assigned(source, harness.partitions)

        await source.commit({Partition(first.topic, 99): 1})

    async def test_a_second_member_takes_a_partition_and_all_are_unpositioned(self, harness: SourceHarness) -> None:
        first, second = harness.partitions
        for partition in harness.partitions:
            await harness.append(partition, b"0", b"1")
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)
        source.seek(second, 0)
        await values(source, 4)

        other = await harness.source()

        async def shared() -> bool:
            came = await asyncio.gather(*(s.fetch(max_records=100, timeout_seconds=0.05) for s in (source, other)))
            assert not any(came), "a record came before its partition was sought"
            ours, theirs = set(source.unpositioned()), set(other.unpositioned())
            return len(ours) == len(theirs) == 1 and ours | theirs == {first, second}

        await eventually(shared, timeout_seconds=30, what="one partition each")
        (kept,) = source.unpositioned()
        (moved,) = other.unpositioned()

        # The one that is gone is nobody's business here any more.
        source.seek(moved, 0)
        assert await nothing(source)
        source.seek(kept, 1)
        other.seek(moved, 0)
        assert await values(source, 1) == [b"1"]
        assert await values(other, 2) == [b"0", b"1"]

    async def test_the_partitions_of_a_member_that_closes_go_to_the_other(self, harness: SourceHarness) -> None:
        source = await harness.source()
        await assigned(source, harness.partitions)
        other = await harness.source()

        async def shared() -> bool:
            await asyncio.gather(*(s.fetch(max_records=100, timeout_seconds=0.05) for s in (source, other)))
            return len(source.unpositioned()) == len(other.unpositioned()) == 1

        await eventually(shared, timeout_seconds=30, what="one partition each")

        await source.close()

        await assigned(other, harness.partitions)

    async def test_a_position_outside_the_log_stops_that_partition_and_no_other(self, harness: SourceHarness) -> None:
        first, second = harness.partitions
        await harness.append(first, b"0", b"1", b"2")
        await harness.append(second, b"other")
        await harness.delete_records(first, before=2)
        source = await harness.source()
        await assigned(source, harness.partitions)

        source.seek(first, 0)
        with pytest.raises(OffsetOutOfRange, match=f"{first.topic}, partition {first.number}"):
            await fetch_until(source, lambda _: False, what="the error")
        source.seek(second, 0)

        assert await values(source, 1) == [b"other"]
        assert source.unpositioned() == {first}
        assert await source.bounds([first]) == {first: (2, 3)}
        source.seek(first, 2)
        assert await values(source, 1) == [b"2"]
