from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from service.adapters.dedupe_memory import MemoryDedupeStore
from tests.contracts.dedupe_store import DONE, IN_FLIGHT, NEW, DedupeStoreContract, claim, key

LEASE_SECONDS = 30
RETENTION_SECONDS = 31 * 86_400


@dataclass
class ManualClock:
    """Time that passes on command."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class MemoryHarness:
    """A memory store and its clock."""

    clock: ManualClock = field(default_factory=ManualClock)
    max_entries: int = 1000

    def __post_init__(self) -> None:
        self.store = MemoryDedupeStore(
            self.clock,
            lease_seconds=LEASE_SECONDS,
            retention_seconds=RETENTION_SECONDS,
            max_entries=self.max_entries,
        )

    async def let_leases_expire(self) -> None:
        self.clock.seconds += LEASE_SECONDS

    async def let_retention_pass(self) -> None:
        self.clock.seconds += RETENTION_SECONDS


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryDedupeStore(DedupeStoreContract):
    """The contract of every dedupe store."""


async def test_a_lease_holds_until_its_very_end(harness: MemoryHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    harness.clock.seconds += LEASE_SECONDS - 0.001
    assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT

    harness.clock.seconds += 0.001
    assert await claim(harness, "evt_1", owner="b") is NEW


async def test_beyond_its_bound_the_oldest_done_are_forgotten_first() -> None:
    harness = MemoryHarness(max_entries=3)
    for n in range(5):
        await harness.store.confirm([key(f"evt_{n}")])

    assert len(harness.store) == 3
    assert [await claim(harness, f"evt_{n}", owner="a") for n in (4, 3, 2, 1, 0)] == [DONE, DONE, DONE, NEW, NEW]


async def test_entries_that_ran_out_take_no_room(harness: MemoryHarness) -> None:
    for n in range(10):
        await claim(harness, f"evt_{n}", owner="a")
    await harness.store.confirm([key(f"evt_{n}") for n in range(5)])
    await harness.let_retention_pass()

    await harness.store.confirm([key("evt_new")])

    assert len(harness.store) == 1


async def test_confirming_again_starts_the_retention_again_and_of_that_key_only(harness: MemoryHarness) -> None:
    await harness.store.confirm([key("evt_1"), key("evt_2")])
    harness.clock.seconds += RETENTION_SECONDS / 2
    await harness.store.confirm([key("evt_1")])
    harness.clock.seconds += RETENTION_SECONDS / 2

    assert await claim(harness, "evt_2", owner="a") is NEW
    assert await claim(harness, "evt_1", owner="a") is DONE


async def test_a_key_takes_room_once(harness: MemoryHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    await harness.store.confirm([key("evt_1")])

    assert len(harness.store) == 1
