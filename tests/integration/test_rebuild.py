"""Rebuilding on a real database: what is planted is found, and nothing else; and what is corrected stays right."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.adapters.kafka_publisher import KafkaPublisher
from service.adapters.memory_kafka import MemoryKafka, MemoryRecordLog
from service.adapters.migrations import VERSION_TABLE
from service.adapters.postgres_rebuild import PAGE_KEYS, PostgresRebuild
from service.adapters.postgres_statements import TABLES
from service.adapters.postgres_store import PostgresProjectionStore
from service.contract import (
    Charge,
    CheckoutSession,
    Event,
    Invoice,
    InvoicePayment,
    PaymentIntent,
    Price,
    Product,
    Refund,
    Subscription,
    SubscriptionItem,
)
from service.errors import LedgerUnreadable, StoreUnavailable
from service.events import ConsumedRecord, Partition, Record
from service.ports import RebuildPage
from service.projections import PROJECTIONS
from service.projections.differences import Difference
from service.projections.model import ObjectKey
from service.records import decode_for, encode
from service.recovery.rebuild import FromTopics, Tally, rebuild
from tests.contracts.projection_store import PAYMENTS, REFUNDS, batch
from tests.support.deployment import deployment
from tests.support.histories import (
    arrivals,
    catalog_histories,
    event,
    oracle_rows,
    payment_histories,
    subscription_histories,
)
from tests.support.memory_log import new_kafka, put
from tests.support.processes import CommandLine, Ended
from tests.support.stack import MIGRATED_TEMPLATE, LocalKafka, LocalPostgres, database
from tests.support.waiting import eventually

Named: TypeAlias = tuple[str, str, str, str | None, str | None]
"""(kind, table, id, event id, column)."""
Snapshot: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]

GROUP = "group"
OF_OTHERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
ALL_TABLES = """
SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = 'public' AND tablename <> $1
"""
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture(scope="module")
async def shared_database_url(migrated_postgres: LocalPostgres) -> AsyncIterator[str]:
    async with database(migrated_postgres, MIGRATED_TEMPLATE) as url:
        yield url


@pytest.fixture
async def database_url(shared_database_url: str) -> str:
    """A database without a row and without a client: to copy one for each test would take longer than most of them."""
    connection = await asyncpg.connect(shared_database_url)
    try:
        await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({OF_OTHERS}) AS others")
        await connection.execute(f"TRUNCATE {await connection.fetchval(ALL_TABLES, VERSION_TABLE)}")
    finally:
        await connection.close()
    return shared_database_url


def payment_history() -> list[Event]:
    """Two payments: of the first, most know only the charge or the invoice; the second is a charge without intent."""
    intent = PaymentIntent(payment_intent_id="pi_1", status="processing", amount_minor=1000, currency="eur")
    charge = Charge(
        charge_id="ch_1", payment_intent_id="pi_1", invoice_id="in_1", status="succeeded", amount_minor=1000
    )
    session = CheckoutSession(checkout_session_id="cs_1", invoice_id="in_1", status="complete")
    paid = InvoicePayment(invoice_payment_id="inpay_1", invoice_id="in_2", payment_intent_id="pi_1", status="paid")
    succeeded = replace(intent, status="succeeded", latest_charge_id="ch_1", metadata={"order": "7"})
    return [
        event("payment_intent.created", intent, event_id="evt_1", second=0),
        event("payment_intent.succeeded", succeeded, event_id="evt_2", second=2),
        event("payment_intent.succeeded", succeeded, event_id="evt_2b", second=2),
        event("charge.succeeded", charge, event_id="evt_3", second=2),
        event("refund.created", Refund(refund_id="re_1", charge_id="ch_1", amount_minor=5), event_id="evt_4", second=3),
        event("checkout.session.completed", session, event_id="evt_5", second=3),
        event("invoice_payment.paid", paid, event_id="evt_6", second=4),
        event("charge.succeeded", Charge(charge_id="ch_2", status="succeeded"), event_id="evt_7", second=1),
        event("refund.created", Refund(refund_id="re_2", charge_id="ch_2", amount_minor=7), event_id="evt_8", second=2),
    ]


def refund_history() -> list[Event]:
    refund = Refund(refund_id="re_1", charge_id="ch_1", amount_minor=5, status="pending")
    done = replace(refund, status="succeeded")
    embedded = Charge(charge_id="ch_2", refunds=(Refund(refund_id="re_2", charge_id="ch_2", amount_minor=7),))
    return [
        event("refund.created", refund, event_id="evt_1", second=0),
        event("refund.updated", done, event_id="evt_2", second=2, previous={"status": "pending"}),
        event("refund.updated", done, event_id="evt_2b", second=2, previous={"status": "pending"}),
        event("charge.refunded", embedded, event_id="evt_3", second=2),
    ]


def subscription_history() -> list[Event]:
    def subscription(number: int, *items: str, status: str = "active") -> Subscription:
        return Subscription(
            subscription_id=f"sub_{number}",
            status=status,
            discount_ids=("di_1",),
            items=tuple(SubscriptionItem(subscription_item_id=item, quantity=1) for item in items),
        )

    created, updated = "customer.subscription.created", "customer.subscription.updated"
    return [
        event(created, subscription(1, "si_1", "si_2", status="trialing"), event_id="evt_1", second=0),
        event(updated, subscription(1, "si_1", "si_2"), event_id="evt_2", second=2),
        event(updated, subscription(1, "si_1", "si_2"), event_id="evt_2b", second=2),
        event(created, subscription(2, "si_3"), event_id="evt_3", second=1),
        event("invoice.paid", Invoice(invoice_id="in_1", status="paid", total_minor=9), event_id="evt_4", second=3),
    ]


def catalog_history() -> list[Event]:
    gold = Product(product_id="gold", name="Gold", active=True)
    price = Price(price_id="price_1", product_id="gold", active=True, unit_amount_minor=900)
    return [
        event("product.created", gold, event_id="evt_1", second=0),
        event("product.updated", replace(gold, name="Gold!"), event_id="evt_2", second=2),
        event("product.updated", replace(gold, name="Gold!"), event_id="evt_2b", second=2),
        event("product.created", Product(product_id="prod_2", name="Two"), event_id="evt_3", second=1),
        event("price.created", price, event_id="evt_4", second=3),
        event("price.created", replace(price, price_id="gold"), event_id="evt_5", second=3),
    ]


HISTORIES = {
    "payments": payment_history,
    "refunds": refund_history,
    "subscriptions": subscription_history,
    "catalog": catalog_history,
}


@dataclass
class Site:
    """A database, one projection in it, and what rebuilds it."""

    url: str
    name: str
    connection: "asyncpg.Connection[asyncpg.Record]"

    async def apply(
        self, events: Iterable[Event], *, stored: int | None = None, partition: Partition = PAYMENTS
    ) -> None:
        store = await self.store()
        try:
            await store.apply(batch(events, stored=stored, partition=partition))
        finally:
            await store.close()

    async def consume(self, waves: Sequence[Sequence[Event]], partition: Partition = PAYMENTS) -> None:
        """Apply one batch after the other, of a partition of their own."""
        store, stored = await self.store(), None
        try:
            for some in waves:
                await store.apply(batch(some, stored=stored, partition=partition))
                stored = (stored or 0) + len(some)
        finally:
            await store.close()

    async def store(self) -> PostgresProjectionStore:
        return await PostgresProjectionStore.open(
            self.url, PROJECTIONS[self.name], consumer_group=GROUP, cluster_id="cluster", lock_seconds=20
        )

    async def open(self, *, dry_run: bool = False, page_keys: int = 2, page_entries: int = 5000) -> PostgresRebuild:
        return await PostgresRebuild.open(
            self.url,
            PROJECTIONS[self.name],
            consumer_group=GROUP,
            dry_run=dry_run,
            page_keys=page_keys,
            page_entries=page_entries,
            lock_seconds=20,
        )

    async def rebuild(
        self, *, dry_run: bool = False, kafka: MemoryKafka | None = None, page_keys: int = 2, page_entries: int = 5000
    ) -> tuple[list[Difference], Tally]:
        store = await self.open(dry_run=dry_run, page_keys=page_keys, page_entries=page_entries)
        try:
            tally, found = Tally(), list[Difference]()
            async for page in rebuild(store, asyncio.Event(), topics=None if kafka is None else topics_of(kafka)):
                tally.add(page)
                found += page.differences
            return found, tally
        finally:
            await store.close()

    async def empty(self) -> None:
        """Examples of one test share a database."""
        tables = TABLES[self.name]
        names = [
            tables.ledger,
            tables.objects,
            *tables.rows,
            *([tables.refs] if tables.refs else []),
            "consumer_offsets",
        ]
        await self.connection.execute(f"TRUNCATE {', '.join(names)}")

    async def snapshot(self) -> Snapshot:
        """All that the projection's tables say; when they were written is of no interest, nor are anchors of nothing."""
        tables = TABLES[self.name]
        contents = {
            tables.ledger: f"SELECT to_jsonb(t) - 'recorded_at' AS row FROM {tables.ledger} AS t",
            tables.objects: f"SELECT to_jsonb(t) AS row FROM {tables.objects} AS t WHERE data IS NOT NULL",
            **{table: f"SELECT to_jsonb(t) - 'applied_at' AS row FROM {table} AS t" for table in tables.rows},
        }
        if tables.refs is not None:
            contents[tables.refs] = f"SELECT to_jsonb(t) AS row FROM {tables.refs} AS t"
        return {
            table: [json.loads(row["row"]) for row in await self.connection.fetch(query + " ORDER BY row")]
            for table, query in contents.items()
        }

    async def rows(self) -> Mapping[tuple[str, ObjectKey], Mapping[str, Any]]:
        """All rows, as the projections make them."""
        rows: dict[tuple[str, ObjectKey], dict[str, Any]] = {}
        for table, id_column in TABLES[self.name].rows.items():
            for record in await self.connection.fetch(f"SELECT * FROM {table}"):
                row = dict(record)
                if row.get("metadata") is not None:
                    row["metadata"] = json.loads(row["metadata"])
                rows[table, ObjectKey(row["account"], row["livemode"], row[id_column])] = row
        return rows

    async def versions(self) -> Mapping[str, Any]:
        """Which transaction wrote each row last, of every table."""
        tables = TABLES[self.name]
        names = [
            tables.ledger,
            tables.objects,
            *tables.rows,
            *([tables.refs] if tables.refs else []),
            "consumer_offsets",
        ]
        return {
            name: await self.connection.fetch(f"SELECT ctid::text, xmin::text FROM {name} ORDER BY ctid")
            for name in names
        }

    async def plant(self, *statements: str) -> None:
        for statement in statements:
            done = await self.connection.execute(statement)
            assert not done.endswith(" 0"), f"nothing was planted by {statement}"


def topics_of(kafka: MemoryKafka) -> FromTopics:
    def decode(record: ConsumedRecord) -> Any:
        return decode_for(record, consumer_group=GROUP)

    return FromTopics(MemoryRecordLog(kafka), (PAYMENTS.topic, REFUNDS.topic), decode)


def by_name(planted: Iterable[Named]) -> list[Named]:
    return sorted(planted, key=str)


def named_of(differences: Iterable[Difference]) -> list[Named]:
    return [(d.kind, d.table, d.key.object_id, d.event_id, d.column) for d in differences]


@asynccontextmanager
async def site_on(url: str, name: str) -> AsyncIterator[Site]:
    connection = await asyncpg.connect(url)
    try:
        yield Site(url, name, connection)
    finally:
        await connection.close()


# Planted differences ---------------------------------------------------------------------------------------------------

PLANTED: Mapping[str, Mapping[str, Sequence[Named]]] = {
    "payments": {
        "UPDATE payments SET amount_minor = 1, status = 'x' WHERE payment_id = 'pi_1'": [
            ("differs", "payments", "pi_1", None, "amount_minor"),
            ("differs", "payments", "pi_1", None, "status"),
        ],
        "UPDATE payments SET metadata = '{}' WHERE payment_id = 'pi_1'": [
            ("differs", "payments", "pi_1", None, "metadata")
        ],
        "UPDATE payments SET last_event_id = 'evt_9', last_event_at = now() WHERE payment_id = 'pi_1'": [
            ("differs", "payments", "pi_1", None, "last_event_id"),
            ("differs", "payments", "pi_1", None, "last_event_at"),
        ],
        "DELETE FROM payments WHERE payment_id = 'ch_2'": [("missing", "payments", "ch_2", None, None)],
        "INSERT INTO payments (account, livemode, payment_id) VALUES ('default', true, 'pi_nobody')": [
            ("extra", "payments", "pi_nobody", None, None)
        ],
        """INSERT INTO payments (account, livemode, payment_id, last_event_id)
           SELECT account, NOT livemode, payment_id, last_event_id FROM payments WHERE payment_id = 'pi_1'""": [
            ("extra", "payments", "pi_1", None, None)
        ],
        # The charge has a payment intent, so that its own row goes; one that came back is extra.
        """INSERT INTO payments (account, livemode, payment_id, last_event_id)
           SELECT account, livemode, 'ch_1', last_event_id FROM payments WHERE payment_id = 'pi_1'""": [
            ("extra", "payments", "ch_1", None, None)
        ],
        "UPDATE payment_objects SET data = jsonb_set(data, '{status}', '\"x\"') WHERE object_id = 'ch_1'": [
            ("differs", "payment_objects", "ch_1", None, "data")
        ],
        "UPDATE payment_objects SET data = '{}' WHERE object_id = 're_1'": [
            ("differs", "payment_objects", "re_1", None, "data")
        ],
        "UPDATE payment_objects SET undecided = 4, last_event_id = 'evt_1' WHERE object_id = 'pi_1'": [
            ("differs", "payment_objects", "pi_1", None, "undecided"),
            ("differs", "payment_objects", "pi_1", None, "last_event_id"),
        ],
        "DELETE FROM payment_objects WHERE object_id = 're_2'": [("missing", "payment_objects", "re_2", None, None)],
        """INSERT INTO payment_objects (account, livemode, object_id, object_type, data)
           VALUES ('default', true, 'pi_ghost', 'payment_intent', '{"payment_intent_id": "pi_ghost"}')""": [
            ("extra", "payment_objects", "pi_ghost", None, None)
        ],
        "UPDATE payment_events SET no_op = NOT no_op WHERE event_id IN ('evt_1', 'evt_2b')": [
            ("differs", "payment_events", "pi_1", "evt_1", "no_op"),
            ("differs", "payment_events", "pi_1", "evt_2b", "no_op"),
        ],
        "UPDATE payment_events SET via = NULL WHERE event_id = 'evt_5'": [
            ("differs", "payment_events", "cs_1", "evt_5", "via")
        ],
        # A link of the object itself; one that only another object states; one that came through another.
        "DELETE FROM payment_refs WHERE ref_id = 'ch_1'": [("missing", "payment_refs", "ch_1", None, None)],
        "DELETE FROM payment_refs WHERE ref_id = 'in_2'": [("missing", "payment_refs", "in_2", None, None)],
        "DELETE FROM payment_refs WHERE ref_id = 're_1'": [("missing", "payment_refs", "re_1", None, None)],
        # Only this one states that the invoice's session belongs to the payment.
        "DELETE FROM payment_refs WHERE ref_id = 'inpay_1'": [("missing", "payment_refs", "inpay_1", None, None)],
        "DELETE FROM payment_refs WHERE ref_id = 'ch_2'": [("missing", "payment_refs", "ch_2", None, None)],
        "DELETE FROM payment_refs WHERE payment_id = 'pi_1'": [
            ("missing", "payment_refs", ref, None, None)
            for ref in ("ch_1", "cs_1", "in_1", "in_2", "inpay_1", "pi_1", "re_1")
        ],
        "INSERT INTO payment_refs VALUES ('default', true, 're_2', 'pi_1'), ('default', true, 'dp_1', 'pi_0')": [
            ("extra", "payment_refs", "re_2", None, None),
            ("extra", "payment_refs", "dp_1", None, None),
        ],
    },
    "refunds": {
        "UPDATE refunds SET status = 'failed' WHERE refund_id = 're_1'": [
            ("differs", "refunds", "re_1", None, "status")
        ],
        "DELETE FROM refunds WHERE refund_id = 're_2'": [("missing", "refunds", "re_2", None, None)],
        "INSERT INTO refunds (account, livemode, refund_id) VALUES ('default', true, 're_9')": [
            ("extra", "refunds", "re_9", None, None)
        ],
        "UPDATE refund_objects SET last_event_at = now() WHERE object_id = 're_1'": [
            ("differs", "refund_objects", "re_1", None, "last_event_at")
        ],
        "UPDATE refund_objects SET data = NULL WHERE object_id = 're_2'": [
            ("missing", "refund_objects", "re_2", None, None)
        ],
        "UPDATE refund_events SET no_op = true WHERE event_id = 'evt_3'": [
            ("differs", "refund_events", "re_2", "evt_3", "no_op")
        ],
    },
    "subscriptions": {
        "UPDATE subscriptions SET discount_ids = '{di_2}' WHERE subscription_id = 'sub_1'": [
            ("differs", "subscriptions", "sub_1", None, "discount_ids")
        ],
        "UPDATE subscription_items SET quantity = 5 WHERE subscription_item_id = 'si_2'": [
            ("differs", "subscription_items", "si_2", None, "quantity")
        ],
        "UPDATE subscription_items SET subscription_id = 'sub_2' WHERE subscription_item_id = 'si_1'": [
            ("differs", "subscription_items", "si_1", None, "subscription_id")
        ],
        "UPDATE subscription_items SET subscription_id = 'sub_0' WHERE subscription_item_id = 'si_1'": [
            ("differs", "subscription_items", "si_1", None, "subscription_id")
        ],
        "UPDATE subscription_items SET last_event_id = 'evt_0' WHERE subscription_item_id = 'si_1'": [
            ("differs", "subscription_items", "si_1", None, "last_event_id")
        ],
        "DELETE FROM subscription_items WHERE subscription_item_id = 'si_3'": [
            ("missing", "subscription_items", "si_3", None, None)
        ],
        """INSERT INTO subscription_items (account, livemode, subscription_item_id, subscription_id, last_event_id)
           VALUES ('default', true, 'si_8', 'sub_1', 'evt_2'), ('default', true, 'si_9', 'sub_nobody', NULL)""": [
            ("extra", "subscription_items", "si_8", None, None),
            ("extra", "subscription_items", "si_9", None, None),
        ],
        "UPDATE invoices SET total_minor = NULL": [("differs", "invoices", "in_1", None, "total_minor")],
        "DELETE FROM invoices": [("missing", "invoices", "in_1", None, None)],
        "INSERT INTO invoices (account, livemode, invoice_id) VALUES ('default', true, 'sub_1')": [
            ("extra", "invoices", "sub_1", None, None)
        ],
        "DELETE FROM subscriptions WHERE subscription_id = 'sub_2'": [
            ("missing", "subscriptions", "sub_2", None, None)
        ],
        "UPDATE subscription_objects SET last_event_type = 'x', object_type = 'invoice' WHERE object_id = 'sub_1'": [
            ("differs", "subscription_objects", "sub_1", None, "last_event_type"),
            ("differs", "subscription_objects", "sub_1", None, "object_type"),
        ],
        "UPDATE subscription_events SET no_op = NOT no_op WHERE event_id = 'evt_2b'": [
            ("differs", "subscription_events", "sub_1", "evt_2b", "no_op")
        ],
    },
    "catalog": {
        "UPDATE products SET name = 'x' WHERE product_id = 'gold'": [("differs", "products", "gold", None, "name")],
        "UPDATE products SET last_event_id = 'x' WHERE product_id = 'gold'": [
            ("differs", "products", "gold", None, "last_event_id")
        ],
        "DELETE FROM products WHERE product_id = 'gold'": [("missing", "products", "gold", None, None)],
        "INSERT INTO prices (account, livemode, price_id) VALUES ('default', true, 'prod_2')": [
            ("extra", "prices", "prod_2", None, None)
        ],
        "UPDATE prices SET unit_amount_minor = 1 WHERE price_id = 'gold'": [
            ("differs", "prices", "gold", None, "unit_amount_minor")
        ],
        "UPDATE catalog_objects SET data = jsonb_set(data, '{name}', '\"x\"') WHERE object_id = 'product:gold'": [
            ("differs", "catalog_objects", "product:gold", None, "data")
        ],
        "UPDATE catalog_events SET no_op = NOT no_op WHERE event_id = 'evt_2b'": [
            ("differs", "catalog_events", "product:gold", "evt_2b", "no_op")
        ],
    },
}


def of_account(account: str, statement: str) -> str:
    """The statement, of one account's rows only."""
    mine = f"WHERE account = '{account}'"
    if "WHERE" in statement:
        return statement.replace("WHERE", f"{mine} AND")
    return statement.replace("'default'", f"'{account}'") if statement.startswith("INSERT") else f"{statement} {mine}"


def each_alone(
    statements: Mapping[str, Sequence[Named]], events: Sequence[Event]
) -> tuple[Mapping[str, str], list[Event]]:
    """An account for each statement, with a history of its own; its statement by account, and all histories."""
    planted = {f"acct_{number:02}": statement for number, statement in enumerate(statements)}
    of_all = [replace(e, account=account) for account in planted for e in events]
    return {account: of_account(account, statement) for account, statement in planted.items()}, of_all


def by_account(differences: Iterable[Difference]) -> Mapping[str, list[Named]]:
    found: dict[str, list[Named]] = {}
    for difference in differences:
        found.setdefault(difference.key.account, []).extend(named_of([difference]))
    return {account: by_name(named) for account, named in found.items()}


@pytest.mark.parametrize("name", sorted(PLANTED))
async def test_a_dry_run_names_exactly_what_is_planted_and_a_run_puts_it_right(database_url: str, name: str) -> None:
    """Each difference in an account of its own, in which it is alone."""
    statements, events = each_alone(PLANTED[name], HISTORIES[name]())
    expected = {account: by_name(named) for account, named in zip(statements, PLANTED[name].values(), strict=True)}
    async with site_on(database_url, name) as site:
        await site.apply(events)
        right = await site.snapshot()
        await site.plant(*statements.values())
        planted, versions = await site.snapshot(), await site.versions()

        dry, dry_tally = await site.rebuild(dry_run=True)

        assert by_account(dry) == expected
        assert await site.snapshot() == planted
        assert await site.versions() == versions

        done, tally = await site.rebuild()

        assert by_account(done) == expected
        assert tally.differences == dry_tally.differences
        assert await site.snapshot() == right


TOGETHER: Mapping[str, tuple[str, ...]] = {
    "payments": (
        "UPDATE payments SET amount_minor",
        "DELETE FROM payments",
        "INSERT INTO payments (account, livemode, payment_id) VALUES",
        "UPDATE payment_objects SET data = jsonb_set",
        "UPDATE payment_objects SET data = '{}'",
        "DELETE FROM payment_objects",
        "INSERT INTO payment_objects",
        "UPDATE payment_events SET no_op",
        "UPDATE payment_events SET via",
        "DELETE FROM payment_refs WHERE payment_id",
        "INSERT INTO payment_refs",
    ),
    "subscriptions": (
        "UPDATE subscriptions",
        "UPDATE subscription_items SET quantity",
        "DELETE FROM subscription_items",
        "INSERT INTO subscription_items",
        "DELETE FROM invoices",
        "INSERT INTO invoices",
        "UPDATE subscription_objects",
    ),
    "refunds": ("UPDATE refunds", "INSERT INTO refunds", "UPDATE refund_objects SET data", "UPDATE refund_events"),
    "catalog": ("UPDATE products SET name", "INSERT INTO prices", "UPDATE prices", "UPDATE catalog_objects"),
}


def planted_together(name: str) -> tuple[list[str], list[Named]]:
    chosen = [(s, found) for s, found in PLANTED[name].items() if s.startswith(TOGETHER[name])]
    assert len(chosen) >= len(TOGETHER[name])
    return [statement for statement, _ in chosen], [each for _, found in chosen for each in found]


@pytest.mark.parametrize("page_keys", [1, 3, 200])
@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_everything_planted_at_once_is_named_once_whatever_the_pages(
    database_url: str, name: str, page_keys: int
) -> None:
    statements, expected = planted_together(name)
    async with site_on(database_url, name) as site:
        await site.apply(HISTORIES[name]())
        right = await site.snapshot()
        await site.plant(*statements)

        dry, _ = await site.rebuild(dry_run=True, page_keys=page_keys)
        done, _ = await site.rebuild(page_keys=page_keys)
        again, _ = await site.rebuild(dry_run=True, page_keys=page_keys)

        assert by_name(named_of(dry)) == by_name(expected)
        # Rows of what was wrong in one walk are put right in it; nothing is found that was not there.
        assert by_name(named_of(done)) == by_name(expected)
        assert again == []
        assert await site.snapshot() == right


async def test_values_say_what_stands_and_what_should_be(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.plant(
            "UPDATE payments SET status = 'x' WHERE payment_id = 'pi_1'",
            "UPDATE payment_objects SET data = jsonb_set(data, '{status}', '\"y\"') WHERE object_id = 'ch_1'",
            "DELETE FROM payment_refs WHERE ref_id = 'ch_2'",
        )

        found, _ = await site.rebuild(dry_run=True)

        assert {(d.table, d.column): (d.stands, d.should_be) for d in found} == {
            ("payments", "status"): ("x", "succeeded"),
            ("payment_objects", "data"): ({"status": "y"}, {"status": "succeeded"}),
            ("payment_refs", None): (None, {"payment_id": "ch_2"}),
        }
        assert {d.key for d in found if d.table == "payment_refs"} == {ObjectKey("default", True, "ch_2")}
        assert "succeeded" not in repr(found)


# Tables that are right -------------------------------------------------------------------------------------------------

_ACCOUNTS = 5
_EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    max_examples=6,  # of a history in each account
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the examples share a database
)


def drawn_waves(data: st.DataObject, name: str) -> list[list[Event]]:
    """A history of each account, each in an order of its own; a wave is what arrives together."""
    histories = {"subscriptions": subscription_histories, "catalog": catalog_histories}.get(name, payment_histories)
    ways: list[list[list[Event]]] = []
    for number in range(_ACCOUNTS):
        of_all = [replace(e, account=f"acct_{number}") for e in data.draw(histories)]
        events = [e for e in of_all if e.category in PROJECTIONS[name].categories]
        ways.append(data.draw(arrivals(events)) if events else [])
    return [[e for some in wave for e in some] for wave in zip_longest(*ways, fillvalue=())]


@_EXAMPLES
@given(st.data())
@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_what_consumers_have_written_in_any_order_has_no_differences(
    database_url: str, name: str, data: st.DataObject
) -> None:
    async with site_on(database_url, name) as site:
        await site.empty()
        await site.consume(drawn_waves(data, name))

        found, _ = await site.rebuild(dry_run=True, page_keys=7)

        assert found == []


# Interruptions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_killed_after_any_page_and_run_again_it_comes_to_the_same_end(database_url: str, name: str) -> None:
    statements, expected = planted_together(name)
    async with site_on(database_url, name) as site:
        await site.apply(HISTORIES[name]())
        right = await site.snapshot()
        await site.plant(*statements)
        found: list[Difference] = []
        pages, finished = 0, False
        while not finished:
            pages += 1
            store = await site.open(page_keys=2)
            walk = rebuild(store, asyncio.Event())
            finished = True
            async for number, page in enumerated(walk):
                found += page.differences
                if number == pages:
                    finished = False
                    break
            store._connection.terminate()

        assert pages > 3
        # Each difference was corrected once, by whichever run came to it; what others depend on may be found with it.
        assert by_name(named_of(found)) == by_name(expected)
        assert await site.snapshot() == right


async def enumerated(walk: AsyncIterator[RebuildPage]) -> AsyncIterator[tuple[int, RebuildPage]]:
    number = 0
    async for page in walk:
        number += 1
        yield number, page


async def test_killed_inside_a_page_it_leaves_the_page_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements, expected = planted_together("payments")
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        right = await site.snapshot()
        await site.plant(*statements)
        planted = await site.snapshot()
        store = await site.open(page_keys=200)

        async def die(*_: object) -> None:
            pid = store._connection.get_server_pid()
            assert await site.connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

        with monkeypatch.context() as patch:
            patch.setattr(store, "_keep_states", die)
            with pytest.raises(StoreUnavailable):
                async for _ in rebuild(store, asyncio.Event()):
                    pass
        await store.close()
        assert await site.snapshot() == planted

        done, _ = await site.rebuild()

        assert by_name(named_of(done)) == by_name(expected)
        assert await site.snapshot() == right


async def test_a_stop_ends_it_after_the_page_in_hand(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        store, stop, pages = await site.open(page_keys=2), asyncio.Event(), 0
        async for _ in rebuild(store, stop):
            pages += 1
            stop.set()
        await store.close()

    assert pages == 1


# Others at work --------------------------------------------------------------------------------------------------------


@_EXAMPLES
@given(st.data())
@pytest.mark.parametrize("name", ["payments", "subscriptions"])
async def test_beside_consumers_and_another_rebuild_damage_is_repaired_and_nothing_is_lost(
    database_url: str, name: str, data: st.DataObject
) -> None:
    waves = drawn_waves(data, name)
    before, later = waves[: len(waves) // 2], waves[len(waves) // 2 :]
    tables = TABLES[name]
    async with site_on(database_url, name) as site:
        await site.empty()
        await site.consume(before, Partition("before", 0))
        await site.connection.execute(f"UPDATE {tables.objects} SET last_event_id = 'evt_x', undecided = 9")
        for table in tables.rows:
            await site.connection.execute(f"DELETE FROM {table} WHERE random() < 0.5")
            await site.connection.execute(f"UPDATE {table} SET last_event_id = 'evt_y'")
        if tables.refs is not None:
            await site.connection.execute(f"DELETE FROM {tables.refs} WHERE random() < 0.5")
        await asyncio.gather(
            site.consume(later[::2], Partition("later", 0)),
            site.consume(later[1::2], Partition("later", 1)),
            site.rebuild(page_keys=2),
            site.rebuild(page_keys=3),
        )
        expected = oracle_rows(PROJECTIONS[name], [e for wave in waves for e in wave])
        rows = await site.rows()
        assert {i: {n: row[n] for n in expected.get(i, row)} for i, row in rows.items()} == expected
        again, _ = await site.rebuild(dry_run=True, page_keys=200)
        assert again == []


async def blocked(site: Site) -> bool:
    return int(await site.connection.fetchval(BLOCKED)) > 0


async def test_an_event_that_states_a_link_waits_for_the_rebuild_that_removes_it_and_makes_it_anew(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = payment_history()
    states_it = event(
        "charge.updated",
        Charge(charge_id="ch_1", payment_intent_id="pi_1", invoice_id="in_9"),
        event_id="evt_z",
        second=9,
    )
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        await site.plant("INSERT INTO payment_refs VALUES ('default', true, 'in_9', 'pi_1')")
        store = await site.open(page_keys=200)
        reached, go_on, correct = asyncio.Event(), asyncio.Event(), store._correct_rows

        async def paused(*args: Any) -> None:
            reached.set()
            await asyncio.wait_for(go_on.wait(), 20)
            await correct(*args)

        monkeypatch.setattr(store, "_correct_rows", paused)
        rebuilding = asyncio.create_task(exhausted(rebuild(store, asyncio.Event())))
        await asyncio.wait_for(reached.wait(), 20)
        applying = asyncio.create_task(site.apply([states_it], stored=len(events)))
        await eventually(lambda: blocked(site), what="the consumer waits for the rebuild")
        go_on.set()
        found, _ = await asyncio.gather(rebuilding, applying)
        await store.close()

        assert named_of(found) == [("extra", "payment_refs", "in_9", None, None)]
        links = await site.connection.fetch("SELECT payment_id FROM payment_refs WHERE ref_id = 'in_9'")
        assert [row["payment_id"] for row in links] == ["pi_1"]
        assert (await site.rebuild(dry_run=True))[0] == []


async def test_what_waits_for_a_link_that_the_rebuild_restores_is_linked_whichever_of_them_comes_first(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_charge = event("refund.created", Refund(refund_id="re_9", charge_id="ch_1"), event_id="evt_z", second=9)
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.plant("DELETE FROM payment_refs WHERE ref_id IN ('ch_1', 're_1')")
        store = await site.open(page_keys=200)
        reached, go_on, correct = asyncio.Event(), asyncio.Event(), store._correct_rows

        async def paused(*args: Any) -> None:
            reached.set()
            await asyncio.wait_for(go_on.wait(), 20)
            await correct(*args)

        monkeypatch.setattr(store, "_correct_rows", paused)
        rebuilding = asyncio.create_task(exhausted(rebuild(store, asyncio.Event())))
        await asyncio.wait_for(reached.wait(), 20)
        applying = asyncio.create_task(site.apply([by_charge], stored=len(payment_history())))
        await eventually(lambda: blocked_or_done(site, applying), what="the consumer waits, or has overtaken it")
        go_on.set()
        await asyncio.gather(rebuilding, applying)
        await store.close()

        links = await site.connection.fetch("SELECT payment_id FROM payment_refs WHERE ref_id = 're_9'")
        assert [row["payment_id"] for row in links] == ["pi_1"]
        assert (await site.rebuild(dry_run=True))[0] == []


async def blocked_or_done(site: Site, task: "asyncio.Task[Any]") -> bool:
    return task.done() or await blocked(site)


async def exhausted(walk: AsyncIterator[RebuildPage]) -> list[Difference]:
    return [difference async for page in walk for difference in page.differences]


async def test_a_lock_that_a_consumer_holds_for_long_is_waited_for_again(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.plant("UPDATE payments SET status = 'x' WHERE payment_id = 'pi_1'")
        store = await PostgresRebuild.open(
            database_url, PROJECTIONS["payments"], consumer_group=GROUP, dry_run=False, lock_seconds=0.05
        )
        async with site.connection.transaction():
            await site.connection.execute("SELECT FROM payment_objects WHERE object_id = 'pi_1' FOR UPDATE")
            rebuilding = asyncio.create_task(exhausted(rebuild(store, asyncio.Event())))
            await eventually(lambda: blocked(site), what="the rebuild waits for the lock")
            await eventually(lambda: not_blocked(site), what="the rebuild's wait has ended")
        found = await rebuilding
        await store.close()

        assert named_of(found) == [("differs", "payments", "pi_1", None, "status")]


async def not_blocked(site: Site) -> bool:
    return not await blocked(site)


# From the topics -------------------------------------------------------------------------------------------------------


def log_of(*events: Event, first: int = 0) -> MemoryKafka:
    """A log with the events on the payments' topic; before `first` its records are gone."""
    kafka = new_kafka()
    put(kafka, REFUNDS)
    put(kafka, PAYMENTS, *events)
    if first:
        kafka.log(PAYMENTS).first = first
        kafka.log(PAYMENTS).records[:] = [r for r in kafka.log(PAYMENTS).records if r.offset >= first]
    return kafka


FROM_TOPIC: Mapping[str, Sequence[Named]] = {
    "DELETE FROM payment_events WHERE event_id = 'evt_1'": [("missing", "payment_events", "pi_1", "evt_1", None)],
    "DELETE FROM payment_events WHERE event_id = 'evt_2'": [("missing", "payment_events", "pi_1", "evt_2", None)],
    "DELETE FROM payment_events WHERE event_id = 'evt_4'": [("missing", "payment_events", "re_1", "evt_4", None)],
    "UPDATE payment_events SET data = jsonb_set(data, '{amount_minor}', '1') WHERE event_id = 'evt_7'": [
        ("differs", "payment_events", "ch_2", "evt_7", "data")
    ],
    "UPDATE payment_events SET data = '[]' WHERE event_id = 'evt_3'": [
        ("differs", "payment_events", "ch_1", "evt_3", "data")
    ],
    "UPDATE payment_events SET event_type = 'payment_intent.canceled' WHERE event_id = 'evt_1'": [
        ("differs", "payment_events", "pi_1", "evt_1", "event_type")
    ],
    # What it says cannot be read as that.
    "UPDATE payment_events SET object_type = 'charge' WHERE event_id = 'evt_2'": [
        ("differs", "payment_events", "pi_1", "evt_2", "object_type")
    ],
    "UPDATE payment_events SET previous = '{\"status\": \"x\"}' WHERE event_id = 'evt_2b'": [
        ("differs", "payment_events", "pi_1", "evt_2b", "previous")
    ],
}


async def test_ledger_entries_come_back_from_the_topics_as_they_were(database_url: str) -> None:
    """Each difference in an account of its own, in which it is alone."""
    statements, events = each_alone(FROM_TOPIC, payment_history())
    expected = {account: by_name(named) for account, named in zip(statements, FROM_TOPIC.values(), strict=True)}
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        kafka = log_of(*events)
        right = await site.snapshot()
        offsets = await site.connection.fetch("SELECT * FROM consumer_offsets")
        await site.plant(*statements.values())
        versions = await site.versions()

        dry, _ = await site.rebuild(dry_run=True, kafka=kafka)
        assert by_account(dry) == expected
        assert await site.versions() == versions

        done, tally = await site.rebuild(kafka=kafka)

        assert by_account(done) == expected
        assert tally.looked_at["topic"] == len(events)
        assert await site.snapshot() == right
        assert await site.connection.fetch("SELECT * FROM consumer_offsets") == offsets


async def test_what_a_consumer_has_got_wrong_for_a_day_is_refolded_from_the_topics(database_url: str) -> None:
    events = payment_history()
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        right = await site.snapshot()
        for table in right:
            await site.connection.execute(f"DELETE FROM {table}")
        wrong = [
            replace(e, data=replace(e.data, payment_intent_id="pi_wrong")) if isinstance(e.data, Charge) else e
            for e in events
            if e.event_id != "evt_2"
        ]
        await site.apply(wrong, stored=len(events))
        assert await site.snapshot() != right

        dry, _ = await site.rebuild(dry_run=True, kafka=log_of(*events, *wrong))
        done, _ = await site.rebuild(kafka=log_of(*events, *wrong))

        assert by_name(named_of(dry)) == by_name(named_of(done))
        assert ("extra", "payment_refs", "ch_1", None, None) in named_of(done)
        assert ("extra", "payments", "pi_wrong", None, None) in named_of(done)
        assert await site.snapshot() == right
        assert (await site.rebuild(dry_run=True, kafka=log_of(*events, *wrong)))[0] == []


async def test_a_ledger_that_goes_further_back_than_its_topic_keeps_what_it_has(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        right = await site.snapshot()

        found, tally = await site.rebuild(kafka=log_of(*payment_history(), first=5))

        assert found == []
        assert tally.looked_at["topic"] == len(payment_history()) - 5
        assert await site.snapshot() == right


@pytest.mark.parametrize("staged_records", [1, 500])
async def test_of_an_events_renderings_the_ledgers_own_counts_and_of_its_repetitions_the_first(
    database_url: str, staged_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.recovery.rebuild.STAGED_RECORDS", staged_records)
    events = payment_history()
    first = events[0]
    other_version = replace(first, api_version="2020-08-27", data=PaymentIntent(payment_intent_id="pi_1"))
    repeated = replace(first, data=PaymentIntent(payment_intent_id="pi_1", status="canceled"))
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        right = await site.snapshot()
        kafka = log_of(other_version, *events, repeated, other_version)
        await site.connection.execute("UPDATE consumer_offsets SET next_offset = 100")

        assert (await site.rebuild(kafka=kafka))[0] == []
        await site.plant("DELETE FROM payment_events WHERE event_id = 'evt_2'")
        await site.rebuild(kafka=kafka)

        assert await site.snapshot() == right


async def test_what_no_consumer_has_come_to_is_left_to_it_and_is_no_difference(database_url: str) -> None:
    events = payment_history()
    async with site_on(database_url, "payments") as site:
        await site.apply(events[:5])
        before = await site.snapshot()

        found, tally = await site.rebuild(kafka=log_of(*events))

        assert (found, tally.ahead) == ([], 4)
        assert await site.snapshot() == before


async def test_a_database_without_anything_is_made_anew_from_the_topics(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        right = await site.snapshot()
        for table in (*right, "consumer_offsets"):
            await site.connection.execute(f"DELETE FROM {table}")

        await site.rebuild(kafka=log_of(*payment_history()))

        assert await site.snapshot() == right
        assert await site.connection.fetchval("SELECT count(*) FROM consumer_offsets") == 0


def long_id(seed: int, length: int) -> str:
    """An id that does not get shorter when it is compressed."""
    return random.Random(seed).randbytes(length // 2).hex()


POISON = [
    pytest.param(b"no JSON", "not_json", id="not JSON"),
    pytest.param(b"{}", "schema_mismatch", id="not of the contract"),
    *(
        pytest.param(event("payment_intent.created", data, event_id="evt_p"), "row_refused", id=name)
        for name, data in {
            "NUL in a text": PaymentIntent(payment_intent_id="pi_p", description="\x00"),
            "NUL in an id": PaymentIntent(payment_intent_id="pi_\x00"),
            "over a bigint": PaymentIntent(payment_intent_id="pi_p", amount_minor=2**63),
            "an id too long": PaymentIntent(payment_intent_id=long_id(1, 8000)),
            "ids too long for a link": PaymentIntent(payment_intent_id=long_id(1, 2000), invoice_id=long_id(2, 2000)),
        }.items()
    ),
]


@pytest.mark.parametrize(("poison", "reason"), POISON)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_poison_on_a_topic_is_counted_and_keeps_nothing_else_out(
    database_url: str, poison: Event | bytes, reason: str, dry_run: bool
) -> None:
    events = payment_history()
    kafka = new_kafka()
    put(kafka, REFUNDS)
    put(kafka, PAYMENTS, *events[:4], poison, *events[4:])
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        right = await site.snapshot()
        await site.plant("DELETE FROM payment_events WHERE event_id IN ('evt_3', 'evt_4')")
        await site.connection.execute("UPDATE consumer_offsets SET next_offset = 100")

        found, tally = await site.rebuild(kafka=kafka, dry_run=dry_run)

        assert tally.invalid == {reason: 1}
        assert by_name(named_of(found)) == [
            ("missing", "payment_events", "ch_1", "evt_3", None),
            ("missing", "payment_events", "re_1", "evt_4", None),
        ]
        assert dry_run or await site.snapshot() == right


async def test_killed_after_any_page_of_a_run_from_the_topics_and_run_again_it_comes_to_the_same_end(
    database_url: str,
) -> None:
    events = payment_history()
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        right = await site.snapshot()
        await site.plant("DELETE FROM payment_events WHERE event_id IN ('evt_2', 'evt_4', 'evt_7')")
        pages, finished = 0, False
        while not finished:
            pages += 1
            store = await site.open(page_keys=2)
            finished = True
            async for number, _ in enumerated(rebuild(store, asyncio.Event(), topics=topics_of(log_of(*events)))):
                if number == pages:
                    finished = False
                    break
            store._connection.terminate()

        assert pages > 4
        assert await site.snapshot() == right


# Bounds ----------------------------------------------------------------------------------------------------------------


TEN_THOUSAND = """
INSERT INTO payment_events (account, livemode, object_type, object_id, event_id, event_type, created_at, no_op, data)
SELECT 'default', true, 'payment_intent', 'pi_1', 'evt_' || lpad(n::text, 5, '0'), 'payment_intent.updated',
       '2026-11-20T10:00:00Z'::timestamptz + n * interval '1 s', n = 7,
       jsonb_build_object('payment_intent_id', 'pi_1', 'status', 'processing', 'amount_minor', n)
FROM generate_series(0, 9999) AS n
"""


async def test_an_object_with_ten_thousand_events_is_rebuilt_like_any_other(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply([event("charge.succeeded", Charge(charge_id="ch_9"), event_id="evt_c")])
        await site.plant(
            TEN_THOUSAND,
            "INSERT INTO payments (account, livemode, payment_id) VALUES ('default', true, 'pi_1')",
            "UPDATE payments SET (status, amount_minor, amount_refunded_minor) = ('processing', 0, 0), disputed = false,"
            "  amount_disputed_minor = 0, metadata = '{}', last_event_id = 'evt_09999',"
            "  last_event_at = '2026-11-20T12:46:39Z' WHERE payment_id = 'pi_1'",
        )

        found, _ = await site.rebuild(page_keys=200)

        assert by_name(named_of(found)) == [
            ("differs", "payment_events", "pi_1", "evt_00007", "no_op"),
            ("differs", "payments", "pi_1", None, "amount_minor"),
            ("missing", "payment_objects", "pi_1", None, None),
            ("missing", "payment_refs", "pi_1", None, None),
        ]
        (amount,) = [d.should_be for d in found if d.column == "amount_minor"]
        assert amount == 9999
        assert (await site.rebuild(dry_run=True, page_keys=200))[0] == []


async def test_rows_are_counted_no_further_than_a_progress_bar_needs(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.postgres_rebuild.COUNTED_MAX", 3)
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        store = await site.open()
        totals = await store.totals()
        await store.close()

    assert totals == {"objects": 3, "rows": 2}


async def test_a_page_ends_before_its_ledgers_hold_too_many_entries(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        store = await site.open(dry_run=True, page_keys=200, page_entries=4)
        pages = [page async for page in rebuild(store, asyncio.Event())]
        await store.close()

    objects = [page.looked_at for page in pages if page.walk == "objects"]
    assert len(objects) > 1
    # ch_1, ch_2, cs_1 and inpay_1 have an entry each; pi_1 has three, and a refund more would be the fourth.
    assert objects == [4, 2, 1]
    assert [page.looked_at for page in pages if page.walk == "rows"] == [1, 1]


async def test_a_ledger_entry_that_cannot_be_read_is_named_without_being_quoted(database_url: str) -> None:
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.plant("UPDATE payment_events SET data = '{\"secret\": 4242}' WHERE event_id = 'evt_3'")

        late = event("charge.updated", Charge(charge_id="ch_1"), event_id="evt_late", second=1)
        for read in (site.rebuild(), site.apply([late], stored=len(payment_history()))):
            with pytest.raises(LedgerUnreadable, match="evt_3 says of ch_1") as unreadable:
                await read

            assert "4242" not in str(unreadable.value)
            assert unreadable.value.__suppress_context__


async def test_a_state_that_cannot_be_read_stops_a_consumer_until_it_is_made_anew(database_url: str) -> None:
    later = event("charge.updated", Charge(charge_id="ch_1"), event_id="evt_later", second=9)
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.plant("UPDATE payment_objects SET data = '{\"secret\": 4242}' WHERE object_id = 'ch_1'")

        with pytest.raises(LedgerUnreadable, match="the state of ch_1") as unreadable:
            await site.apply([later], stored=len(payment_history()))
        assert "4242" not in str(unreadable.value)

        await site.rebuild()
        await site.apply([later], stored=len(payment_history()))
        assert (await site.rebuild(dry_run=True))[0] == []


async def test_what_no_row_can_hold_is_named_as_the_ledgers_fault(database_url: str) -> None:
    """Each refund is possible; the two of them are more than a bigint."""
    refunds = [
        event(
            "refund.created",
            Refund(refund_id=f"re_b{n}", charge_id="ch_2", status="succeeded", amount_minor=2**62),
            event_id=f"evt_r{n}",
        )
        for n in range(2)
    ]
    async with site_on(database_url, "payments") as site:
        await site.apply(payment_history())
        await site.connection.execute("UPDATE consumer_offsets SET next_offset = 100")

        with pytest.raises(LedgerUnreadable, match=r"payment_events.*22003"):
            await site.rebuild(kafka=log_of(*payment_history(), *refunds))


# The command -----------------------------------------------------------------------------------------------------------


def named(ended: Ended) -> list[Named]:
    """What the command has told of, by name."""
    keys = ("kind", "table", "id", "event_id", "column")
    return [cast("Named", tuple(line[key] for key in keys)) for line in ended.listed]


async def test_the_command_reads_kafkas_topics_and_says_by_its_exit_code_whether_something_differs(
    kafka: LocalKafka, database_url: str, topic_prefix: str
) -> None:
    deployed = await deployment(kafka.bootstrap_servers, database_url, topic_prefix, partitions=2)
    group = deployed.topics.group("payments")
    command = CommandLine({
        "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": topic_prefix,
        "STRIPE_INGEST__DATABASE__URL": database_url,
    })  # fmt: skip
    publisher = KafkaPublisher(kafka.bootstrap_servers, topics=deployed.topics.data)
    await publisher.start()
    for e in payment_history():
        record = encode(e, topics=deployed.topics, ingest_source="webhook", include_raw=True, traceparent="00")
        await publisher.publish(record, deadline=asyncio.get_running_loop().time() + 20)
    poison = Record(deployed.topics.of("payment"), b"key", b"no JSON", ())
    await publisher.publish(poison, deadline=asyncio.get_running_loop().time() + 20)
    await publisher.close()
    async with site_on(database_url, "payments") as site:
        async with deployed.consuming("payments"):
            done = "SELECT sum(next_offset) FROM consumer_offsets WHERE consumer_group = $1"
            await eventually(
                lambda: has_come_to(site, done, group, len(payment_history()) + 1),
                timeout_seconds=60,
                what="the consumer has read everything",
            )
        right = await site.snapshot()
        offsets = await site.connection.fetch("SELECT * FROM consumer_offsets ORDER BY 1, 2, 3")
        await site.plant("DELETE FROM payment_events WHERE event_id IN ('evt_2', 'evt_4')", "DELETE FROM payments")

        dry = await command.run("rebuild", "payments", "--from-topic", "--dry-run", "--json")
        done_now = await command.run("rebuild", "payments", "--from-topic", "--json")

        expected = [
            ("missing", "payment_events", "pi_1", "evt_2", None),
            ("missing", "payment_events", "re_1", "evt_4", None),
            ("missing", "payments", "ch_2", None, None),
            ("missing", "payments", "pi_1", None, None),
        ]
        assert (dry.code, done_now.code) == (1, 0), dry.err + done_now.err
        assert by_name(named(dry)) == by_name(named(done_now)) == expected
        summary = done_now.summary
        assert (summary["corrected"], summary["invalid_records"]) == (4, {"not_json": 1})
        assert dry.summary["corrected"] == 0
        assert await site.snapshot() == right
        assert await site.connection.fetch("SELECT * FROM consumer_offsets ORDER BY 1, 2, 3") == offsets
        # Nothing personal goes where logs go.
        assert "succeeded" not in dry.err


async def has_come_to(site: Site, query: str, group: str, records: int) -> bool:
    return int(await site.connection.fetchval(query, group) or 0) == records


LOCKED = "SELECT FROM payment_objects WHERE object_id ="


@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
async def test_a_process_that_is_ended_in_the_middle_is_followed_by_one_that_comes_to_the_end(
    database_url: str, end: signal.Signals, code: int
) -> None:
    events = [
        event("payment_intent.created", PaymentIntent(payment_intent_id=f"pi_{n:04}"), event_id=f"evt_{n}")
        for n in range(4 * PAGE_KEYS)
    ]
    command = CommandLine({"STRIPE_INGEST__DATABASE__URL": database_url})
    async with site_on(database_url, "payments") as site:
        await site.apply(events)
        right = await site.snapshot()
        await site.plant("UPDATE payment_objects SET undecided = 1", "UPDATE payments SET status = 'x'")

        async with command.running("rebuild", "payments", "--json") as process:
            assert process.stdout is not None
            async with site.connection.transaction():  # it comes no further than to its second page
                await site.connection.execute(f"{LOCKED} 'pi_{PAGE_KEYS:04}' FOR UPDATE")
                line = await asyncio.wait_for(process.stdout.readline(), 60)
                assert json.loads(line)["kind"] == "differs"
                process.send_signal(end)
            rest, errors = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == code
            interrupted = rest.splitlines()[-1:] if end is signal.SIGINT else []
            assert all(json.loads(each)["interrupted"] for each in interrupted)
            assert (b"stopped after" in errors) is (end is signal.SIGINT)
        left = await site.connection.fetchval("SELECT count(*) FROM payment_objects WHERE undecided = 1")
        assert 0 < left < len(events)

        again, _ = await site.rebuild(page_keys=PAGE_KEYS)

        assert len([d for d in again if d.table == "payment_objects"]) == left
        assert await site.snapshot() == right
