from dataclasses import dataclass, field

import pytest

from service.adapters.memory_store import MemoryDatabase, MemoryProjectionStore
from service.errors import FenceLost, RowRefused, StoreUnavailable
from tests.contracts.projection_store import (
    PAYMENTS,
    SHOP,
    Rows,
    StoreContract,
    batch,
    event,
    history,
    intent,
    oracle,
)


@dataclass
class MemoryWorld:
    """A database in memory."""

    database: MemoryDatabase = field(default_factory=MemoryDatabase)

    async def store(self, *, cluster_id: str = "cluster", consumer_group: str = "group") -> MemoryProjectionStore:
        return MemoryProjectionStore(SHOP, consumer_group=consumer_group, cluster_id=cluster_id, database=self.database)

    async def rows(self) -> Rows:
        return {identity: row.columns for identity, row in self.database.rows.items()}

    async def no_ops(self) -> set[str]:
        return {event_id for _, event_id in self.database.no_ops}


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


class TestMemoryStore(StoreContract):
    """The contract."""


async def test_a_fault_before_leaves_nothing_and_one_after_leaves_everything(world: MemoryWorld) -> None:
    store = await world.store()
    await store.next_offset(PAYMENTS)
    store.fail_before.append(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await store.apply(batch(history()))
    assert await world.rows() == {}

    store.fail_after.append(StoreUnavailable("the answer to COMMIT was lost"))
    with pytest.raises(StoreUnavailable):
        await store.apply(batch(history()))
    assert await world.rows() == oracle(history())
    with pytest.raises(FenceLost):
        await store.apply(batch(history()))


async def test_a_refused_event_keeps_its_whole_batch_out(world: MemoryWorld) -> None:
    store = await world.store()
    await store.next_offset(PAYMENTS)
    store.refused.add("evt_2")

    with pytest.raises(RowRefused):
        await store.apply(batch([event("evt_1", intent(1), at=0), event("evt_2", intent(2), at=0)]))

    assert await world.rows() == {}
    assert await store.next_offset(PAYMENTS) is None
