"""The rows that the projections make fit the tables that the migrations make."""

import re
from pathlib import Path

import pytest

from service.contract import Data, Invoice, PaymentIntent, Price, Product, Refund, Subscription, SubscriptionItem
from service.projections import PROJECTIONS
from tests.support.histories import event, oracle_rows

MIGRATIONS = Path(__file__).parents[2] / "service/sql/migrations/sql"

SUBSCRIPTION = Subscription(subscription_id="sub_1", items=(SubscriptionItem(subscription_item_id="si_1"),))


def columns_in_migrations(table: str) -> set[str]:
    sql = "".join(path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql")))
    definition = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", sql, re.DOTALL)
    assert definition is not None
    columns = set(re.findall(r'^    "?([a-z_]+)"? +[a-z]', definition[1], re.MULTILINE))
    for change in re.findall(rf"ALTER TABLE {table}\n(.*?);", sql, re.DOTALL):
        columns |= set(re.findall(r"ADD COLUMN ([a-z_]+)", change))
    return columns


@pytest.mark.parametrize(
    ("projection", "table", "id_column", "event_type", "data"),
    [
        ("payments", "payments", "payment_id", "payment_intent.created", PaymentIntent(payment_intent_id="pi_1")),
        ("refunds", "refunds", "refund_id", "refund.created", Refund(refund_id="re_1")),
        ("subscriptions", "subscriptions", "subscription_id", "customer.subscription.created", SUBSCRIPTION),
        ("subscriptions", "subscription_items", "subscription_item_id", "customer.subscription.created", SUBSCRIPTION),
        ("subscriptions", "invoices", "invoice_id", "invoice.created", Invoice(invoice_id="in_1")),
        ("catalog", "products", "product_id", "product.created", Product(product_id="prod_1")),
        ("catalog", "products", "product_id", "product.deleted", Product(product_id="prod_1")),
        ("catalog", "prices", "price_id", "price.created", Price(price_id="price_1")),
        ("catalog", "prices", "price_id", "plan.deleted", Price(price_id="gold")),
    ],
)
def test_a_row_has_exactly_its_tables_columns(
    projection: str, table: str, id_column: str, event_type: str, data: Data
) -> None:
    rows = oracle_rows(PROJECTIONS[projection], [event(event_type, data)])
    (columns,) = [columns for (name, _), columns in rows.items() if name == table]
    assert set(columns) == columns_in_migrations(table) - {"account", "livemode", id_column, "applied_at"}


def test_every_projection_is_named_as_its_ledger_and_topics_are() -> None:
    assert {name: (p.name, p.ledger, p.categories) for name, p in PROJECTIONS.items()} == {
        "payments": ("payments", "payment_events", ("payment", "refund")),
        "refunds": ("refunds", "refund_events", ("refund",)),
        "subscriptions": ("subscriptions", "subscription_events", ("subscription",)),
        "catalog": ("catalog", "catalog_events", ("catalog",)),
    }
