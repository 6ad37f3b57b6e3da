"""What a consumer tells whoever measures it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.consumer.lag import Lag
from service.consumer.latency import Latency
from service.events import Partition
from service.ports import Applied


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One committed batch. `ignored` events say nothing about this projection's objects, or are another group's.

    `fetch_seconds` is the wait for the records, `apply_seconds` the transaction with its retries, `oldest_seconds` the
    time from the oldest event's reception to now. `latencies` are those of the webhooks' events that are new.
    """

    records: int
    applied: Applied
    ignored: int
    fetch_seconds: float
    apply_seconds: float
    oldest_seconds: float
    latencies: Sequence[Latency]


class ConsumerObserver(Protocol):
    """Counts. Calls are cheap and never raise; labels come from closed sets (tags, SQLSTATEs, assigned partitions)."""

    def batch_applied(self, report: BatchReport) -> None:
        """A transaction has committed events."""
        ...

    def dead_lettered(self, reason: str) -> None:
        """A record is on the dead-letter topic, and its offset passed."""
        ...

    def store_retry(self, sqlstate: str | None) -> None:
        """The database could not take a batch now."""
        ...

    def fence_lost(self) -> None:
        """Another process had moved a partition's offset; nothing was applied."""
        ...

    def lag(self, lags: Mapping[Partition, Lag]) -> None:
        """What waits, by assigned partition; a partition not named is no longer ours."""
        ...

    def problems(self, tags: Collection[str]) -> None:
        """What keeps the consumer from being ready, as error tags; nothing: it is ready."""
        ...
