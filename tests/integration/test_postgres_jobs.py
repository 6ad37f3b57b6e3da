"""The job store on real Postgres."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.adapters.postgres_jobs import PostgresJobStore
from service.errors import StoreUnavailable
from tests.contracts.job_store import JobStoreContract


class PostgresJobHarness:
    """An empty table of its own."""

    def __init__(self, store: PostgresJobStore, url: str) -> None:
        self.store = store
        self._url = url

    async def let_leases_expire(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("UPDATE recovery_jobs SET lease_until = now() - interval '1 second'")
        finally:
            await connection.close()


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[PostgresJobHarness]:
    store = await PostgresJobStore.open(database_url)
    yield PostgresJobHarness(store, database_url)
    await store.close()


class TestPostgresJobStore(JobStoreContract):
    """The contract, on a real database."""


async def test_a_database_that_is_away_is_unavailable() -> None:
    store = await PostgresJobStore.open("postgresql://nobody@127.0.0.1:9/nothing")
    try:
        with pytest.raises(StoreUnavailable):
            await store.begin("reconcile", owner="a", lease_seconds=30)
    finally:
        await store.close()
