import asyncio

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from service.adapters import migrations
from service.adapters.migrations import migrate, pending

MARK_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


async def test_an_empty_database_gets_everything_and_the_next_run_finds_nothing_to_do(empty_database_url: str) -> None:
    todo = await asyncio.to_thread(pending, empty_database_url)
    first = await asyncio.to_thread(migrate, empty_database_url)
    second = await asyncio.to_thread(migrate, empty_database_url)

    assert todo[0] == "0001_projections"
    assert (first.before, first.after, first.applied) == (None, todo[-1], todo)
    assert (second.before, second.after, second.applied) == (todo[-1], todo[-1], ())
    assert await asyncio.to_thread(pending, empty_database_url) == ()


async def test_of_several_replicas_that_migrate_at_once_exactly_one_does(empty_database_url: str) -> None:
    results = await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url) for _ in range(4)))

    assert sorted(bool(result.applied) for result in results) == [False, False, False, True]
    assert len({result.after for result in results}) == 1


async def test_who_waits_too_long_for_another_replica_gives_up(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 0.05)
    holder = await asyncpg.connect(empty_database_url)
    try:
        await holder.execute(f"SELECT pg_advisory_lock({migrations._ADVISORY_LOCK})")

        with pytest.raises(DBAPIError, match="lock timeout"):
            await asyncio.to_thread(migrate, empty_database_url)
    finally:
        await holder.close()
    assert len((await asyncio.to_thread(migrate, empty_database_url)).applied) > 0


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        # In the way of a table that is created late in the file.
        await connection.execute("CREATE TABLE invoices (id integer)")

        with pytest.raises(DBAPIError):
            await asyncio.to_thread(migrate, empty_database_url)

        assert await connection.fetchval(MARK_TABLES) == 1
    finally:
        await connection.close()


async def test_a_database_that_is_away_is_an_operational_error() -> None:
    with pytest.raises(OperationalError):
        await asyncio.to_thread(pending, "postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2")


async def test_every_row_and_ledger_table_says_what_it_is_for(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        silent = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace "
            "AND relname NOT IN ('stripe_ingest_version', 'dedupe_claims') AND obj_description(oid) IS NULL"
        )
    finally:
        await connection.close()

    assert silent == []
