"""The contract, in memory."""

from collections.abc import Sequence

import pytest

from service.adapters.memory_event_log import MemoryEventLog
from service.events import Arrival
from tests.contracts.event_log import EventLogContract


class MemoryEventLogHarness:
    """A log that has everything at once."""

    def __init__(self) -> None:
        self.log = MemoryEventLog()

    async def written(self, count: int) -> Sequence[Arrival]:
        assert len(self.log.arrivals) == count
        return self.log.arrivals


@pytest.fixture
def harness() -> MemoryEventLogHarness:
    return MemoryEventLogHarness()


class TestMemoryEventLog(EventLogContract):
    """The contract, in memory."""
