"""What a consumer tells of its batches, as spans that follow from the sending of their records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.events import ConsumedRecord
from service.records import header
from service.tracing import NO_TRACING, Attributes, Span, Tracing

_KAFKA: Final[Attributes] = {"messaging.system": "kafka"}


@dataclass(frozen=True, slots=True)
class BatchSpans:
    """The spans of one consumer group's batches."""

    tracing: Tracing = NO_TRACING
    consumer_group: str = ""

    def processing(self, records: Sequence[ConsumedRecord]) -> Span:
        """From a batch's decoding to its commit. The batch is one transaction, whatever topics its records are from."""
        partitions = {record.partition for record in records}
        topics = ", ".join(sorted({partition.topic for partition in partitions}))
        attributes = {
            **_KAFKA,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topics,
            "messaging.consumer.group.name": self.consumer_group,
            "messaging.batch.message_count": len(records),
        }
        if len(partitions) == 1:
            (partition,) = partitions
            attributes["messaging.destination.partition.id"] = str(partition.number)
            attributes["messaging.kafka.offset"] = records[0].offset
        return self.tracing.following(f"process {topics}", "consumer", attributes, map(_traceparent, records))

    def committing(self, processing: Span) -> Span:
        """Telling Kafka how far the database is."""
        attributes = {
            **_KAFKA,
            "messaging.operation.name": "commit",
            "messaging.operation.type": "settle",
            "messaging.consumer.group.name": self.consumer_group,
        }
        return processing.child("commit", "client", attributes)


def _traceparent(record: ConsumedRecord) -> str | None:
    value = header(record, "traceparent")
    return None if value is None else value.decode("ascii", "replace")
