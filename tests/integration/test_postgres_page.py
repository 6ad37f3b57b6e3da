"""What the operator's page asks a database of some size: by indexes, in bounds, and without changing anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from service.adapters import postgres_page_statements as sql
from service.adapters.postgres_page import _RELATED, PostgresOperatorReader
from service.errors import ConfigurationError, StoreUnavailable
from service.events import Partition
from service.projections.model import ObjectKey
from tests.support.waiting import free_port

LEDGERS = {
    "payment": ("pi_", "payment_intent"),
    "refund": ("re_", "refund"),
    "subscription": ("sub_", "subscription"),
    "catalog": ("prod_", "product"),
}


def filling(accounts: int, objects: int) -> Sequence[str]:
    """Statements that fill every table: so many objects for each account, each with two events."""
    events = 2 * accounts * objects
    return [
        *(
            statement
            for name, (prefix, object_type) in LEDGERS.items()
            for statement in (
                f"""INSERT INTO {name}_events (account, livemode, object_type, object_id, event_id, event_type, created_at, data)
                    SELECT 'acct_' || (n / 2 % {accounts}), true, '{object_type}', '{prefix}' || (n / 2), 'evt_{name}_' || n,
                           '{object_type}.updated', timestamptz '2026-11-01Z' + n * interval '1 s',
                           jsonb_build_object('product_id', 'prod_' || (n / 2), 'status', 'is ' || n)
                    FROM generate_series(0, {events - 1}) AS n""",
                f"""INSERT INTO {name}_objects (account, livemode, object_id, object_type)
                    SELECT DISTINCT account, livemode, object_id, object_type FROM {name}_events""",
            )
        ),
        """INSERT INTO payments (account, livemode, payment_id, customer_id, status)
           SELECT account, livemode, object_id, 'cus_' || (substr(object_id, 4)::int % 1000), 'succeeded' FROM payment_objects""",
        """INSERT INTO payment_refs SELECT account, livemode, object_id, object_id FROM payment_objects""",
        """INSERT INTO payment_refs SELECT account, livemode, 'ch_' || substr(object_id, 4), object_id FROM payment_objects""",
        """INSERT INTO refunds (account, livemode, refund_id, payment_intent_id)
           SELECT account, livemode, object_id, 'pi_' || substr(object_id, 4) FROM refund_objects""",
        """INSERT INTO subscriptions (account, livemode, subscription_id, customer_id)
           SELECT account, livemode, object_id, 'cus_' || (substr(object_id, 5)::int % 1000) FROM subscription_objects""",
        """INSERT INTO subscription_items (account, livemode, subscription_item_id, subscription_id)
           SELECT account, livemode, 'si_' || object_id, object_id FROM subscription_objects""",
        """INSERT INTO invoices (account, livemode, invoice_id, subscription_id)
           SELECT account, livemode, 'in_' || object_id, object_id FROM subscription_objects""",
        "INSERT INTO products (account, livemode, product_id) SELECT account, livemode, object_id FROM catalog_objects",
        """INSERT INTO prices (account, livemode, price_id, product_id)
           SELECT account, livemode, 'price_' || object_id, object_id FROM catalog_objects""",
        f"""INSERT INTO event_log (received_at, ingest_source, endpoint, outcome, event_id, account, livemode, object_id,
                                   object_type, customer_id)
            SELECT timestamptz '2026-11-01Z' + n * interval '1 s', 'webhook', 'shop', 'accepted', 'evt_payment_' || n,
                   'acct_' || (n / 2 % {accounts}), true, 'pi_' || (n / 2), 'payment_intent', 'cus_' || (n % 10)
            FROM generate_series(0, {events - 1}) AS n""",
        "INSERT INTO consumer_offsets VALUES ('group', 'topic', 3, 42, 'cluster')",
    ]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    made = await asyncpg.connect(database_url)
    yield made
    await made.close()


async def fill(connection: "asyncpg.Connection[asyncpg.Record]", *, accounts: int, objects: int) -> None:
    for statement in filling(accounts, objects):
        await connection.execute(statement, timeout=60)
    await connection.execute("VACUUM ANALYZE", timeout=60)


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[PostgresOperatorReader]:
    made = PostgresOperatorReader(database_url)
    yield made
    await made.close()


KEY = ("acct_7", True)
STATEMENTS: Mapping[str, tuple[str, Sequence[object]]] = {
    "newest": (sql.NEWEST, (None, 51)),
    "newest, further": (sql.NEWEST, (20_000, 51)),
    "of an id": (sql.OF_ID, ("pi_100", None, 51)),
    "of a busy customer": (sql.OF_ID, ("cus_3", None, 51)),
    "of a busy customer, further": (sql.OF_ID, ("cus_3", 20_000, 51)),
    "of an event": (sql.OF_EVENT, ("evt_payment_7", 100)),
    "own rows": (sql.OWN_ROWS, (*KEY, "pi_23")),
    "roots": (sql.ROOTS, (*KEY, "ch_23")),
    "refs": (sql.REFS, (*KEY, "pi_23")),
    "anchor": (sql.ANCHOR, (*KEY, "pi_23")),
    "of a customer": (sql.OF_CUSTOMER, (*KEY, ["cus_23"])),
    **{f"lines of {name}": (statement, (*KEY, ["pi_23", "pi_43"], 201)) for name, statement in sql.LINES.items()},
    **{f"effects in {name}": (statement, ("evt_payment_47", 100)) for name, statement in sql.EFFECTS.items()},
    **{f"related to {name}": (statement, (*KEY, ["pi_23", "sub_23"])) for name, statement in _RELATED.items()},
    "whose": (sql.WHOSE, ("ch_23", 20)),
    "whose customer": (sql.WHOSE, ("cus_3", 20)),
    "whose nobody's": (sql.WHOSE, ("pi_of_nobody", 20)),
    "offsets": (sql.OFFSETS, (["group"],)),
}
BLOCKS_MAX = 4000
"""Pages of 8 KiB that a statement may touch. Each ledger has about a thousand, and its indexes as many; most statements
touch ten, and only the search through all accounts of all tables some more for each account."""


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_no_statement_reads_a_table_through(
    connection: "asyncpg.Connection[asyncpg.Record]", reader: PostgresOperatorReader
) -> None:
    await fill(connection, accounts=40, objects=300)
    assert await connection.fetchval("SELECT count(*) FROM payment_events") == 24_000
    touched: dict[str, int] = {}
    async with reader._reading() as session:
        for name, (statement, arguments) in STATEMENTS.items():
            explained = await session.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
            plan = json.loads(explained)[0]["Plan"]
            scanned = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
            assert scanned <= {"consumer_offsets"}, f"{name} reads {scanned} through"
            touched[name] = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert max(touched.values()) < BLOCKS_MAX, touched
    assert max(blocks for name, blocks in touched.items() if not name.startswith("whose")) < 700, touched


async def test_an_id_is_found_in_the_accounts_that_have_it(
    connection: "asyncpg.Connection[asyncpg.Record]", reader: PostgresOperatorReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(connection, accounts=4, objects=50)
    await connection.execute(
        "INSERT INTO payment_objects (account, livemode, object_id) VALUES ('acct_8', false, 'pi_23')"
    )
    (row,) = await connection.fetch("SELECT account FROM payments WHERE payment_id = 'pi_23' LIMIT 1")

    known = await reader.whose("pi_23", limit=20)

    assert (row["account"], True) in known
    assert ("acct_8", False) in known
    assert list(known) == sorted(known)
    assert await reader.whose("pi_23", limit=1) == known[:1]
    assert await reader.whose("pi_of_nobody", limit=20) == []
    found = await reader.found(ObjectKey(row["account"], True, "ch_23"), limit=1)
    assert found is not None
    assert (found.kind, found.cut, len(found.lines)) == ("payment", True, 1)
    whole = await reader.found(ObjectKey(row["account"], True, "ch_23"), limit=200)
    assert whole is not None
    assert (whole.cut, len(whole.lines)) == (False, 2)
    monkeypatch.setattr("service.adapters.postgres_page.LINES_CHARACTERS_MAX", 10)
    light = await reader.found(ObjectKey(row["account"], True, "ch_23"), limit=200)
    assert light is not None
    assert (light.cut, light.lines) == (True, whole.lines[:1])
    assert [(each.table, each.id) for each in found.rows][:1] == [("payments", "pi_23")]


async def test_offsets_are_told_by_group_and_partition(
    connection: "asyncpg.Connection[asyncpg.Record]", reader: PostgresOperatorReader
) -> None:
    await connection.execute("INSERT INTO consumer_offsets VALUES ('group', 'topic', 3, 42, 'cluster')")

    told = await reader.offsets(["group", "another"])

    assert {key: stored.next_offset for key, stored in told.items()} == {("group", Partition("topic", 3)): 42}


async def test_nothing_can_be_written(reader: PostgresOperatorReader) -> None:
    with pytest.raises(StoreUnavailable):  # it is for a replica, too
        async with reader._reading() as session:
            await session.execute("DELETE FROM payment_events")


async def test_a_statement_ends_in_time(reader: PostgresOperatorReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.adapters.postgres_page.STATEMENT_SECONDS", 0.2)
    with pytest.raises(StoreUnavailable):
        async with reader._reading() as session:
            await session.execute("SELECT pg_sleep(30)")


async def test_two_connections_are_all_there_are(reader: PostgresOperatorReader, database_url: str) -> None:
    await asyncio.gather(*(reader.arrivals(limit=1) for _ in range(20)))
    other = await asyncpg.connect(database_url)
    try:
        said = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stripe-ingest page' AND datname = current_database()"
        assert await other.fetchval(said) <= 2
    finally:
        await other.close()


async def test_a_database_that_is_away_or_not_ours_is_told(empty_database_url: str) -> None:
    away = PostgresOperatorReader(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(StoreUnavailable):
        await away.arrivals(limit=1)
    await away.close()
    bare = PostgresOperatorReader(empty_database_url)
    with pytest.raises(ConfigurationError, match="migrate"):
        await bare.arrivals(limit=1)
    await bare.close()
