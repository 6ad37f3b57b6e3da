"""What every `Publisher` promises. A test module inherits the class and gives a harness for its publisher."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import pytest

from service.errors import BrokerUnavailable, PublishOutcomeUnknown, RecordTooLarge
from service.events import ConsumedRecord, Position, Record
from service.ports import Publisher


class PublisherHarness(Protocol):
    """A publisher, and an empty topic of several partitions that takes `max_message_bytes`."""

    @property
    def publisher(self) -> Publisher: ...

    @property
    def topic(self) -> str: ...

    @property
    def max_message_bytes(self) -> int: ...

    async def log(self) -> Sequence[ConsumedRecord]:
        """All records of the topic."""
        ...


def in_seconds(seconds: float) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


def record(topic: str, *, key: bytes = b"pi_1", value: bytes = b"{}") -> Record:
    return Record(topic=topic, key=key, value=value, headers=(("ce_id", b"evt_1"), ("dedupe", b"checked")))


def position_of(consumed: ConsumedRecord) -> Position:
    return Position(consumed.partition.topic, consumed.partition.number, consumed.offset)


class PublisherContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_a_published_record_is_in_the_log_unchanged_at_its_position(self, harness: PublisherHarness) -> None:
        sent = record(harness.topic, key=b"pi_1", value=b'{"amount": 1}')

        position = await harness.publisher.publish(sent, deadline=in_seconds(10))

        (found,) = await harness.log()
        assert position_of(found) == position
        assert (found.key, found.value, found.headers) == (sent.key, sent.value, sent.headers)

    async def test_records_of_one_key_keep_their_order_in_one_partition(self, harness: PublisherHarness) -> None:
        positions = [
            await harness.publisher.publish(record(harness.topic, value=b"%d" % n), deadline=in_seconds(10))
            for n in range(5)
        ]

        assert len({position.partition for position in positions}) == 1
        assert all(earlier.offset < later.offset for earlier, later in pairwise(positions))

    async def test_each_of_many_at_once_has_a_position_of_its_own_in_the_log(self, harness: PublisherHarness) -> None:
        values = {b"%d" % n for n in range(200)}

        positions = await asyncio.gather(
            *(
                harness.publisher.publish(record(harness.topic, key=value, value=value), deadline=in_seconds(10))
                for value in values
            )
        )

        found = await harness.log()
        assert {consumed.value for consumed in found} == values
        assert {position_of(consumed) for consumed in found} == set(positions)
        assert len({position.partition for position in positions}) > 1

    async def test_a_deadline_that_has_passed_publishes_nothing(self, harness: PublisherHarness) -> None:
        with pytest.raises(BrokerUnavailable) as caught:
            await harness.publisher.publish(record(harness.topic), deadline=in_seconds(-1))

        assert not isinstance(caught.value, PublishOutcomeUnknown)
        assert await harness.log() == []

    async def test_fits_is_false_above_the_topics_limit_only(self, harness: PublisherHarness) -> None:
        limit = harness.max_message_bytes

        assert harness.publisher.fits(record(harness.topic, value=b"v" * (limit - 512)))
        assert not harness.publisher.fits(record(harness.topic, value=b"v" * limit))

    async def test_the_largest_record_that_fits_is_taken(self, harness: PublisherHarness) -> None:
        size = harness.max_message_bytes
        while not harness.publisher.fits(largest := record(harness.topic, value=b"v" * size)):
            size -= 1

        await harness.publisher.publish(largest, deadline=in_seconds(10))

        assert [len(consumed.value or b"") for consumed in await harness.log()] == [size]

    async def test_a_record_too_large_is_refused_and_the_next_of_its_key_goes_through(
        self, harness: PublisherHarness
    ) -> None:
        with pytest.raises(RecordTooLarge):
            await harness.publisher.publish(
                record(harness.topic, value=b"v" * harness.max_message_bytes), deadline=in_seconds(10)
            )
        await harness.publisher.publish(record(harness.topic, value=b"small"), deadline=in_seconds(10))

        assert [consumed.value for consumed in await harness.log()] == [b"small"]

    async def test_a_record_for_a_missing_topic_is_not_lost_silently(self, harness: PublisherHarness) -> None:
        with pytest.raises(BrokerUnavailable):
            await harness.publisher.publish(record(f"{harness.topic}.missing"), deadline=in_seconds(1))

    async def test_a_publisher_on_a_broker_that_answers_is_available(self, harness: PublisherHarness) -> None:
        assert harness.publisher.available
