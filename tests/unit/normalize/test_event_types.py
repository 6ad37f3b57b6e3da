"""The one table from an event type to its family, and the catalogue of the types that exist."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest

from service.contract import DATA_TYPES, Category, Other
from service.normalize import category_of
from service.normalize.event_types import (
    API_VERSIONS,
    CATALOGUE,
    NEWEST_API_VERSION,
    PING,
    ROUTES,
    SNAPSHOT_TYPES,
    THIN_TYPES,
)
from service.records import Topics, encode
from service.routing import object_of, route
from tests.support import stripe_catalogue
from tests.unit.normalize.building import event, normalized

REFERENCE: Final = Path(__file__).parents[4] / "shared" / "reference" / "event_types.json"
TOPICS: Final = Topics("stripe")


@pytest.mark.parametrize(
    ("event_type", "category"),
    [
        ("payment_intent.succeeded", "payment"),
        ("payment_intent.partially_funded", "payment"),
        ("charge.succeeded", "payment"),
        ("charge.updated", "payment"),
        ("charge.dispute.created", "payment"),
        ("charge.dispute.funds_reinstated", "payment"),
        ("checkout.session.completed", "payment"),
        ("invoice_payment.paid", "payment"),
        ("charge.refunded", "refund"),
        ("charge.refund.updated", "refund"),
        ("refund.created", "refund"),
        ("refund.failed", "refund"),
        ("customer.subscription.deleted", "subscription"),
        ("customer.subscription.pending_update_expired", "subscription"),
        ("invoice.payment_failed", "subscription"),
        ("invoice.upcoming", "subscription"),
        ("customer.created", "customer"),
        ("customer.discount.created", "customer"),
        ("customer.source.updated", "customer"),
        ("product.updated", "catalog"),
        ("price.deleted", "catalog"),
        ("plan.created", "catalog"),
        ("payment_intent.snapshot", "payment"),
        ("invoiceitem.created", "other"),
        ("payment_method.attached", "other"),
        ("checkout.created", "other"),
        ("v1.charge.refunded", "other"),
        ("Charge.refunded", "other"),
        ("charge", "other"),
        ("", "other"),
    ],
)
def test_every_event_type_has_one_family(event_type: str, category: Category) -> None:
    assert category_of(event_type) == category


def test_no_two_rows_claim_the_same_prefix() -> None:
    prefixes = [prefix for prefix, _ in ROUTES]

    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize(("prefix", "category"), ROUTES)
def test_a_longer_prefix_wins_over_the_shorter_ones_before_it(prefix: str, category: Category) -> None:
    assert category_of(f"{prefix}anything") == category


@pytest.mark.parametrize(
    ("object_type", "category"),
    [
        ("payment_intent", "payment"),
        ("charge", "payment"),
        ("dispute", "payment"),
        ("checkout_session", "payment"),
        ("invoice_payment", "payment"),
        ("refund", "refund"),
        ("subscription", "subscription"),
        ("invoice", "subscription"),
        ("customer", "customer"),
        ("product", "catalog"),
        ("price", "catalog"),
        ("plan", "catalog"),
    ],
)
def test_a_snapshot_of_ours_goes_where_stripes_events_of_its_object_go(object_type: str, category: Category) -> None:
    assert category_of(f"{object_type}.snapshot") == category


def test_every_typed_object_has_a_family_for_its_snapshots() -> None:
    assert "other" not in {category_of(f"{object_type}.snapshot") for object_type in DATA_TYPES}


def known() -> Iterator[tuple[str, tuple[str, ...], frozenset[str]]]:
    """Who lists event types, with our list of the same and theirs."""
    yield "stripe package, snapshot", SNAPSHOT_TYPES, stripe_catalogue.snapshot_types()
    yield "stripe package, thin", THIN_TYPES, stripe_catalogue.thin_types()
    yield "stripe package, API versions", API_VERSIONS, stripe_catalogue.api_versions()
    if REFERENCE.is_file():
        listed = orjson.loads(REFERENCE.read_bytes())
        yield "reference, snapshot", SNAPSHOT_TYPES, frozenset(listed["snapshot"])
        yield "reference, thin", THIN_TYPES, frozenset(listed["thin"])
        yield "reference, API versions", API_VERSIONS, frozenset(listed["webhook_endpoint_api_versions_accepted"])


@pytest.mark.parametrize(
    ("who", "ours", "theirs"), list(known()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_catalogue_is_stripes(who: str, ours: tuple[str, ...], theirs: frozenset[str]) -> None:
    assert list(ours) == sorted(theirs), f"{who}: {stripe_catalogue.UPDATE}"


def test_the_catalogue_says_which_api_version_it_is_of() -> None:
    for name, text in stripe_catalogue.files():
        first = (stripe_catalogue.CATALOGUE / name).read_text(encoding="ascii").partition("\n")[0]
        assert first == text.partition("\n")[0], stripe_catalogue.UPDATE


def test_the_newest_api_version_is_the_one_the_event_types_are_of() -> None:
    assert stripe_catalogue.API_VERSION == NEWEST_API_VERSION


def test_a_type_is_listed_once() -> None:
    assert len(CATALOGUE) == len(SNAPSHOT_TYPES) + len(THIN_TYPES)
    assert PING in THIN_TYPES


def test_every_thin_type_goes_to_other() -> None:
    assert {category_of(event_type) for event_type in THIN_TYPES} == {"other"}


OWN_IDS = {"payment_intent": "pi_1", "subscription": "sub_1", "customer": "cus_1", "product": "prod_1"}
KEYS = {"payment": "pi_1", "refund": "pi_1", "subscription": "sub_1", "customer": "cus_1", "catalog": "prod_1"}


def test_every_snapshot_type_is_routed_and_keyed_by_its_familys_rule() -> None:
    for event_type in SNAPSHOT_TYPES:
        object_type = object_of(event_type).partition(" or ")[0]
        own_id = OWN_IDS.get(object_type, "obj_1")
        stripe_object = {
            "id": own_id,
            "object": "checkout.session" if object_type == "checkout_session" else object_type,
            "payment_intent": "pi_1",
            "payment": {"type": "payment_intent", "payment_intent": "pi_1"},
            "charge": "ch_1",
            "subscription": "sub_1",
            "customer": "cus_1",
            "product": "prod_1",
        }

        found = normalized(event(stripe_object, event_type))
        record = encode(found, topics=TOPICS, ingest_source="webhook", include_raw=True, traceparent="")

        assert record.topic == route(event_type, TOPICS).topic == TOPICS.of(category_of(event_type)), event_type
        assert record.key.decode() == KEYS.get(found.category, own_id), event_type
        assert dict(record.headers)["ce_subject"].decode() == own_id, event_type
        assert (type(found.data) is Other) == (found.category == "other" or object_type not in DATA_TYPES), event_type
        assert event_type in CATALOGUE, event_type


@pytest.mark.parametrize(
    ("event_type", "category"),
    [
        ("charge.reconsidered", "payment"),
        ("customer.subscription.renewed", "subscription"),
        ("invoiceitem.updated", "other"),
        ("account.created", "other"),
    ],
)
def test_a_type_that_is_not_in_the_catalogue_goes_its_familys_way(event_type: str, category: Category) -> None:
    assert event_type not in CATALOGUE
    assert normalized(event({"id": "x_1", "object": "x"}, event_type)).category == category
