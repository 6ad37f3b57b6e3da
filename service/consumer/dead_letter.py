"""Poison: records that can never be applied, kept on a topic of their own; and from how many on it is our fault."""

from typing import Final, Protocol

from service.errors import DeadLetterLimitReached
from service.events import ConsumedEvent, InvalidRecord, Partition, Record

ROW_REFUSED: Final = "row_refused"
"""The reason of a record that decodes but that the database refuses."""


class BuildDeadLetter(Protocol):
    """Makes the dead letter of an invalid record; it identifies group, topic, partition and offset."""

    def __call__(self, invalid: InvalidRecord, /) -> Record:
        """Pure."""
        ...


def refused(consumed: ConsumedEvent, sqlstate: str) -> InvalidRecord:
    """A record, alone in its batch, whose row the database refuses."""
    return InvalidRecord(consumed.record, ROW_REFUSED, f"SQLSTATE {sqlstate}")


class DeadLetterLimit:
    """Stops a bad deploy from dead-lettering a topic.

    Reached by more than `consecutive` dead letters of one partition with no applied record in between, or by more than
    `share` of any `window` records in a row (counted in blocks).
    """

    def __init__(self, *, consecutive: int = 100, share: float = 0.2, window: int = 1000) -> None:
        self._consecutive = consecutive
        self._window = window
        self._dead_max = share * window
        self._in_a_row: dict[Partition, int] = {}
        self._seen = 0
        self._dead = 0

    def applied(self, partition: Partition, records: int) -> None:
        """Records of the partition were applied."""
        self._in_a_row.pop(partition, None)
        self._count(records)

    def dead(self, partition: Partition) -> None:
        """One more is to be dead-lettered: raises `DeadLetterLimitReached`, before anything is published."""
        in_a_row = self._in_a_row.get(partition, 0) + 1
        if in_a_row > self._consecutive:
            raise DeadLetterLimitReached(
                f"{self._consecutive} records of {partition.topic}[{partition.number}] in a row are poison" + _WAY_OUT
            )
        if self._dead + 1 > self._dead_max:
            raise DeadLetterLimitReached(f"{self._dead} of the last {self._seen} records are poison" + _WAY_OUT)
        self._in_a_row[partition] = in_a_row
        self._dead += 1
        self._count(1)

    def _count(self, records: int) -> None:
        self._seen += records
        if self._seen >= self._window:
            self._seen = self._dead = 0


_WAY_OUT: Final = (
    ": more likely this version is wrong than all of them. Nothing is lost, the offset stays where it is. Run the "
    "version before, or raise the limit if they are meant to go to the dead-letter topic."
)
