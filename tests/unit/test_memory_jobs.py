"""The contract, in memory."""

import pytest

from service.adapters.memory_jobs import MemoryJobStore
from tests.contracts.job_store import JobStoreContract
from tests.support.memory_log import TickingClock


class MemoryJobHarness:
    """A store and its clock."""

    def __init__(self) -> None:
        self._clock = TickingClock()
        self.store = MemoryJobStore(self._clock)

    async def let_leases_expire(self) -> None:
        self._clock.seconds += 60


@pytest.fixture
def harness() -> MemoryJobHarness:
    return MemoryJobHarness()


class TestMemoryJobStore(JobStoreContract):
    """The contract, in memory."""
