"""The Postgres dedupe store on a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.adapters.dedupe_postgres import POOL_SIZE_MAX, PostgresDedupeStore
from service.errors import DedupeUnavailable
from service.events import ClaimKey
from tests.contracts.dedupe_store import DONE, IN_FLIGHT, NEW, DedupeStoreContract, claim, key
from tests.support.stack import LocalPostgres
from tests.support.waiting import eventually


class PostgresHarness:
    """A store, and a second connection that can make rows older and hold locks."""

    def __init__(self, store: PostgresDedupeStore, connection: asyncpg.Connection) -> None:
        self.store = store
        self.connection = connection

    async def let_leases_expire(self) -> None:
        await self._age("1 hour")

    async def let_retention_pass(self) -> None:
        await self._age("31 days")

    async def rows(self) -> set[str]:
        return {row["id"] for row in await self.connection.fetch("SELECT id FROM dedupe_claims")}

    async def until_a_statement_waits_for_us(self) -> None:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        await eventually(lambda: self.connection.fetchval(waiting), what="a statement waits for our transaction")

    async def _age(self, interval: str) -> None:
        await self.connection.execute(
            f"UPDATE dedupe_claims SET lease_until = lease_until - interval '{interval}',"
            f" done_at = done_at - interval '{interval}'"
        )


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[PostgresHarness]:
    connection = await asyncpg.connect(database_url)
    store = await PostgresDedupeStore.connect(database_url)
    yield PostgresHarness(store, connection)
    await store.close()
    await connection.close()


class TestPostgresDedupeStore(DedupeStoreContract):
    """The contract of every dedupe store."""


async def test_a_claim_that_waited_for_another_ones_commit_finds_it_in_flight(harness: PostgresHarness) -> None:
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute(
        "INSERT INTO dedupe_claims VALUES ('event', 'evt_1', 'a', now() + interval '30 s', NULL)"
    )
    asking = asyncio.create_task(claim(harness, "evt_1", owner="b"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()

    assert await asking is IN_FLIGHT


async def test_a_claim_that_waited_for_another_ones_take_over_finds_it_in_flight(harness: PostgresHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    await harness.let_leases_expire()
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute("UPDATE dedupe_claims SET owner = 'b', lease_until = now() + interval '30 s'")
    asking = asyncio.create_task(claim(harness, "evt_1", owner="c"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()

    assert await asking is IN_FLIGHT


async def test_a_claim_that_waited_for_the_take_over_of_a_forgotten_event_finds_it_in_flight(
    harness: PostgresHarness,
) -> None:
    # To call it done, since the statement's snapshot still shows it so, would lose the event if the new holder fails.
    await harness.store.confirm([key("evt_1")])
    await harness.let_retention_pass()
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute(
        "UPDATE dedupe_claims SET owner = 'b', lease_until = now() + interval '30 s', done_at = NULL"
    )
    asking = asyncio.create_task(claim(harness, "evt_1", owner="c"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()

    assert await asking is IN_FLIGHT


async def test_a_claim_that_waited_for_a_confirm_is_not_new(harness: PostgresHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    await harness.let_leases_expire()
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute("UPDATE dedupe_claims SET done_at = now()")
    asking = asyncio.create_task(claim(harness, "evt_1", owner="b"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()

    assert await asking is IN_FLIGHT
    assert await claim(harness, "evt_1", owner="b") is DONE


async def test_a_claim_that_waited_for_a_release_is_new(harness: PostgresHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute("DELETE FROM dedupe_claims")
    asking = asyncio.create_task(claim(harness, "evt_1", owner="b"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()

    assert await asking is NEW


@pytest.mark.parametrize("change", ["owner = 'b', lease_until = now() + interval '30 s'", "done_at = now()"])
async def test_a_release_that_waited_for_a_take_over_or_a_confirm_releases_nothing(
    harness: PostgresHarness, change: str
) -> None:
    await claim(harness, "evt_1", owner="a")
    transaction = harness.connection.transaction()
    await transaction.start()
    await harness.connection.execute(f"UPDATE dedupe_claims SET {change}")
    releasing = asyncio.create_task(harness.store.release([key("evt_1")], owner="a"))
    await harness.until_a_statement_waits_for_us()
    await transaction.commit()
    await releasing

    assert await harness.rows() == {"evt_1"}


async def test_rows_are_locked_in_the_order_of_their_keys_whatever_order_they_come_in(harness: PostgresHarness) -> None:
    # Two batches that lock in different orders deadlock; the order in which rows are made is that of their locks.
    mixed = ["evt_b", "evt_Z", "evt_a", "evt_1", "evt_ü"]
    await harness.store.claim([key(id_) for id_ in mixed], owner="a")
    await harness.store.confirm([key(id_, scope="quarantine:shop") for id_ in mixed])

    made = [
        (row["scope"], row["id"]) for row in await harness.connection.fetch("SELECT * FROM dedupe_claims ORDER BY ctid")
    ]
    assert made == [(scope, id_) for scope in ("event", "quarantine:shop") for id_ in sorted(mixed)]
    assert made == [
        (row["scope"], row["id"])
        for row in await harness.connection.fetch("SELECT * FROM dedupe_claims ORDER BY scope, id")
    ]


async def test_pruning_deletes_in_bounded_batches_what_outlived_the_retention_and_nothing_else(
    harness: PostgresHarness,
) -> None:
    await harness.store.confirm([key("evt_old_done"), key("evt_old_but_done_again")])
    await claim(harness, "evt_old_lease", owner="a")
    await harness.let_retention_pass()
    await harness.let_leases_expire()
    await harness.store.confirm([key("evt_done"), key("evt_old_but_done_again")])
    await claim(harness, "evt_expired_lease", owner="a")
    await harness.let_leases_expire()
    await claim(harness, "evt_lease", owner="a")

    assert [await harness.store.prune(1) for _ in range(3)] == [1, 1, 0]
    assert await harness.rows() == {"evt_old_but_done_again", "evt_done", "evt_expired_lease", "evt_lease"}


async def test_pruning_passes_over_a_row_that_somebody_is_working_on(harness: PostgresHarness) -> None:
    await harness.store.confirm([key("evt_1"), key("evt_2")])
    await harness.let_retention_pass()
    async with harness.connection.transaction():
        await harness.connection.execute("SELECT FROM dedupe_claims WHERE id = 'evt_1' FOR UPDATE")

        assert await harness.store.prune(10) == 1
    assert await harness.rows() == {"evt_1"}


async def test_the_retention_is_the_setting(database_url: str, harness: PostgresHarness) -> None:
    shorter = await PostgresDedupeStore.connect(database_url, retention_days=0.04)
    await harness.store.confirm([key("evt_1")])
    await harness.let_leases_expire()

    assert await claim(harness, "evt_1", owner="a") is DONE
    assert await shorter.claim([key("evt_1")], owner="a") == {key("evt_1"): NEW}
    await shorter.close()


async def test_the_lease_is_the_setting(database_url: str, harness: PostgresHarness) -> None:
    longer = await PostgresDedupeStore.connect(database_url, lease_seconds=7200)
    await longer.claim([key("evt_1")], owner="a")
    await harness.let_leases_expire()

    assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT
    await longer.close()


async def test_a_confirm_stays_on_its_page_and_grows_no_index(harness: PostgresHarness) -> None:
    keys = [key(f"evt_{n}") for n in range(10)]
    await harness.store.claim(keys, owner="a")
    await harness.store.confirm(keys)
    # A server process reports what it did when it ends, at the latest.
    await harness.store.close()

    counters = "SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = $1"

    async def reported() -> bool:
        row = await harness.connection.fetchrow(counters, "dedupe_claims")
        return row is not None and row["updates"] == len(keys)

    await eventually(reported, what="the updates are counted")
    row = await harness.connection.fetchrow(counters, "dedupe_claims")
    assert row is not None
    assert row["hot"] == len(keys)


async def test_a_server_that_is_away_is_unavailable_from_the_first_call_on_and_not_before() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = await PostgresDedupeStore.connect(f"postgresql://nobody@127.0.0.1:{unused.getsockname()[1]}/nothing")
        for call in (
            store.claim([key("evt_1")], owner="a"),
            store.confirm([key("evt_1")]),
            store.release([key("evt_1")], owner="a"),
            store.prune(1),
        ):
            with pytest.raises(DedupeUnavailable) as failure:
                await call
            assert "evt_1" not in str(failure.value)
    await store.close()


async def test_a_statement_that_the_server_refuses_is_unavailable_and_the_next_one_gets_through(
    harness: PostgresHarness,
) -> None:
    await harness.connection.execute("ALTER TABLE dedupe_claims RENAME TO elsewhere")
    with pytest.raises(DedupeUnavailable):
        await claim(harness, "evt_1", owner="a")
    await harness.connection.execute("ALTER TABLE elsewhere RENAME TO dedupe_claims")

    assert await claim(harness, "evt_1", owner="a") is NEW


async def test_a_connection_that_the_server_cuts_is_replaced(harness: PostgresHarness) -> None:
    await claim(harness, "evt_1", owner="a")
    await harness.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def answered() -> bool:
        try:
            return await claim(harness, "evt_1", owner="b") is IN_FLIGHT
        except DedupeUnavailable:
            return False

    await eventually(answered, what="the store has a new connection")


async def test_connections_to_a_server_that_was_demoted_are_given_up_at_the_first_refusal(
    harness: PostgresHarness,
) -> None:
    pool = harness.store._pool
    async with pool.acquire() as one, pool.acquire() as other:
        for connection in (one, other):
            await connection.execute("SET default_transaction_read_only = on")

    with pytest.raises(DedupeUnavailable, match="ReadOnly"):
        await claim(harness, "evt_1", owner="a")

    assert await asyncio.gather(*(claim(harness, f"evt_{number}", owner="a") for number in range(2, 6))) == [NEW] * 4


async def test_a_connection_is_given_back_without_another_round_trip(harness: PostgresHarness) -> None:
    await claim(harness, "evt_1", owner="a")

    last = "SELECT query FROM pg_stat_activity WHERE application_name = 'stripe-ingest dedupe' AND datname = $1"
    database = await harness.connection.fetchval("SELECT current_database()")
    (query,) = [row["query"] for row in await harness.connection.fetch(last, database)]
    assert "INSERT INTO dedupe_claims" in query


async def test_a_call_that_is_given_up_gives_its_connection_back(harness: PostgresHarness) -> None:
    async with harness.connection.transaction():
        await harness.connection.execute("LOCK TABLE dedupe_claims")
        for n in range(10):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await claim(harness, f"evt_{n}", owner="a")

    keys = [ClaimKey("event", f"evt_{n}") for n in range(10)]
    assert set((await harness.store.claim(keys, owner="b")).values()) <= {NEW, IN_FLIGHT}


async def test_a_server_that_falls_silent_holds_nobody_for_ever_and_is_used_again_once_it_answers(
    postgres: LocalPostgres, harness: PostgresHarness
) -> None:
    await claim(harness, "evt_1", owner="a")
    postgres.pause()
    async with asyncio.timeout(20):
        for n in range(POOL_SIZE_MAX + 1):
            with pytest.raises((DedupeUnavailable, TimeoutError)):
                async with asyncio.timeout(0.1):
                    await claim(harness, f"evt_{n}", owner="b")
    postgres.resume()

    async def answered() -> bool:
        try:
            return await claim(harness, "evt_1", owner="c") is IN_FLIGHT
        except DedupeUnavailable:
            return False

    await eventually(answered, what="the store answers")
