"""Poison: records that can never be applied, kept on a topic of their own; and from how many on it is our fault."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Protocol

from service.events import ConsumedEvent, InvalidRecord, Partition, Record

ROW_REFUSED: Final = "row_refused"
"""The reason of a record that decodes but that the database refuses."""

LIMIT_REACHED: Final = "dead_letter_limit"
"""The problem of a partition with so much poison that the fault must be ours."""


class BuildDeadLetter(Protocol):
    """Makes the dead letter of an invalid record; it identifies group, topic, partition and offset."""

    def __call__(self, invalid: InvalidRecord, /) -> Record:
        """Pure."""
        ...


def refused(consumed: ConsumedEvent, sqlstate: str) -> InvalidRecord:
    """A record, alone in its batch, whose row the database refuses."""
    return InvalidRecord(consumed.record, ROW_REFUSED, f"SQLSTATE {sqlstate}")


@dataclass(slots=True)
class _Tally:
    """A partition's records, in this process: `seen` and `dead` are those of the block that is being counted."""

    proven: bool = False
    in_a_row: int = 0
    seen: int = 0
    dead: int = 0


class DeadLetterLimit:
    """Stops a bad deploy from dead-lettering a topic.

    A partition reaches it by `consecutive` dead letters with no applied record in between, or by `share` of any
    `window` records in a row (counted in blocks). A restart counts anew, at the very record where the process before
    it stopped; so a tenth of `consecutive` is enough until this process has applied a record of the partition, and
    who can read nothing there gets no further by being restarted again and again.
    """

    def __init__(self, *, consecutive: int = 100, share: float = 0.2, window: int = 1000) -> None:
        self._consecutive = consecutive
        self._unproven = max(1, consecutive // 10)
        self._window = window
        self._dead_max = share * window
        self._tallies: defaultdict[Partition, _Tally] = defaultdict(_Tally)

    def reached(self, partition: Partition) -> str | None:
        """Why no more of the partition may be dead-lettered; None while it may. To be asked before each."""
        tally = self._tallies[partition]
        if tally.in_a_row >= (self._consecutive if tally.proven else self._unproven):
            return f"{tally.in_a_row} records in a row are poison"
        if tally.dead >= self._dead_max:
            return f"{tally.dead} of {tally.seen} records are poison"
        return None

    def applied(self, partition: Partition, records: int) -> None:
        """Records of the partition were applied."""
        tally = self._tallies[partition]
        tally.proven = True
        tally.in_a_row = 0
        self._count(tally, records)

    def dead(self, partition: Partition) -> None:
        """A record was dead-lettered and its offset passed. One that is given back before that is not counted.

        Nor is one that was replayed: neither asked about nor told of here.
        """
        tally = self._tallies[partition]
        tally.in_a_row += 1
        tally.dead += 1
        self._count(tally, 1)

    def _count(self, tally: _Tally, records: int) -> None:
        tally.seen += records
        if tally.seen >= self._window:
            tally.seen = tally.dead = 0
