"""How far a consumer is behind: in records, and since when the oldest of them has been there.

A broker says where a log ends, not since when. What is known are points: at one time it ended here, at another there;
and a record that was read says itself when it was put there. In between, records are taken to have come evenly. Pure;
times are Unix time, in seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.events import Offsets, Partition

POINTS_MAX: Final = 64
"""Of a partition: where more are needed, every other is given up, and what came between is less exactly known."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What is on a partition and not applied: so many records, the oldest of them there since then.

    `since` is None where there are none.
    """

    records: int
    since: float | None


@dataclass(slots=True)
class _Point:
    """A log's end, and from when to when it is known to have been there."""

    end: int
    first: float
    last: float


class LagWatch:
    """Knows the lag of each partition whose position it has been told.

    After a restart, and until the record at the position is read, it is as if that had come when it was first seen.
    """

    def __init__(self) -> None:
        self._positions: dict[Partition, int] = {}
        self._points: dict[Partition, list[_Point]] = {}
        self._ended: frozenset[Partition] = frozenset()
        """Those whose logs' ends are known: what was read says nothing of what else is there."""

    def at(self, partition: Partition, position: int) -> None:
        """All records before this offset are applied."""
        self._positions[partition] = position
        points = self._points.setdefault(partition, [])
        # The last of those that are passed is kept: the record at the position came after it.
        del points[: max(0, bisect_right(points, position, key=_end) - 1)]

    def ended(self, ends: Offsets, now: float) -> None:
        """The logs of the assigned partitions end here now; those that are not named are somebody else's."""
        for gone in self._positions.keys() - ends.keys():
            del self._positions[gone], self._points[gone]
        for partition in self._positions:
            self._add_end(partition, ends[partition], now)
        self._ended = frozenset(self._positions)

    def read(self, partition: Partition, offset: int, came_at: float, now: float) -> None:
        """The record at this offset was put there then."""
        if partition in self._positions and came_at > 0:
            self._add(self._points[partition], offset + 1, min(came_at, now))

    def lags(self) -> Mapping[Partition, Lag]:
        """Of every partition whose position and end are known."""
        return {
            partition: _lag(self._points[partition], position)
            for partition, position in self._positions.items()
            if partition in self._ended
        }

    def _add_end(self, partition: Partition, end: int, now: float) -> None:
        points = self._points[partition]
        if points and end < points[-1].end:
            points.clear()  # the topic was made anew, or has lost its end: what was known is of another log
        if points and end == points[-1].end:
            points[-1].last = max(points[-1].last, now)
        else:
            self._add(points, end, now)

    def _add(self, points: list[_Point], end: int, at: float) -> None:
        index = bisect_left(points, end, key=_end)
        # Clocks differ, and records of several producers are not in the order of their times; ends are.
        if index > 0:
            at = max(at, points[index - 1].last)
        if index < len(points) and points[index].end == end:
            points[index].first = min(at, points[index].first)
            return
        if index < len(points):
            at = min(at, points[index].first)
        points.insert(index, _Point(end, at, at))
        if len(points) > POINTS_MAX:
            del points[2:-1:2]


def _lag(points: list[_Point], position: int) -> Lag:
    index = bisect_right(points, position, key=_end)
    if index == len(points):
        return Lag(0, None)
    after = points[index]
    since = after.first
    if index > 0:
        before = points[index - 1]
        share = (position + 1 - before.end) / (after.end - before.end)
        since = before.last + share * (after.first - before.last)
    return Lag(points[-1].end - position, since)


def _end(point: _Point) -> int:
    return point.end
