"""Where event types go, as it is told to people: equal to where they go, and helpful where a name is wrong."""

import json
from pathlib import Path
from typing import Final, get_args

import pytest

from service.contract import Category
from service.normalize import category_of
from service.normalize.event_types import CATALOGUE, SNAPSHOT_TYPES, THIN_TYPES
from service.records import Topics
from service.routing import advice, object_of, route, routes, suggestions
from tests.support.corpus import CORPUS, NO_CORPUS, payloads
from tests.support.stripe_catalogue import object_types, related_object

REFERENCE: Final = Path(__file__).parents[3] / "shared" / "reference" / "event_types.json"
TOPICS: Final = Topics("stripe")

SEVERAL: Final = {
    "account.external_account": {"bank_account", "card"},
    "customer.source": {"card", "source"},
}
"""Resources that are objects of several types."""

MISNOMERS: Final = (
    ("invoice.payment.failed", "invoice.payment_failed"),
    ("charge.disputed", "charge.dispute.created"),
    ("charge.dispute.won", "charge.dispute.closed"),
    ("refund.succeeded", "refund.updated"),
    ("payment_intent.failed", "payment_intent.payment_failed"),
    ("customer.subscription.canceled", "customer.subscription.deleted"),
    ("subscription.updated", "customer.subscription.updated"),
    ("checkout_sessions.completed", "checkout.session.completed"),
    ("payment_intent.succeded", "payment_intent.succeeded"),
    ("v1.refund.create", "v1.refund.created"),
)


def test_the_whole_catalogue_is_shown_once() -> None:
    shown = list(routes(TOPICS))

    assert [each.event_type for each in shown] == [*SNAPSHOT_TYPES, *THIN_TYPES]
    assert {each.form for each in shown[: len(SNAPSHOT_TYPES)]} == {"snapshot"}
    assert {each.form for each in shown[len(SNAPSHOT_TYPES) :]} == {"thin"}
    assert all(each.listed and not each.suggestions for each in shown)
    assert {each.category for each in shown} == set(get_args(Category))
    assert all(each.category == category_of(each.event_type) for each in shown)
    assert all(each.topic == TOPICS.of(each.category) for each in shown)


def test_a_route_says_topic_key_object_and_twin() -> None:
    found = route("charge.refund.updated", Topics("acme.stripe"))

    assert found.columns() == (
        "charge.refund.updated",
        "snapshot",
        "refund",
        "acme.stripe.refunds",
        "payment intent, else charge",
        "refund",
        "v1.charge.refund.updated",
        "listed",
    )


def test_twins_are_of_each_other() -> None:
    twins = {each.event_type: each.twin for each in routes(TOPICS)}

    assert twins["v1.charge.refund.updated"] == "charge.refund.updated"
    assert twins["v1.customer.subscription.past_due"] is None
    assert twins["customer.source.created"] is None
    assert twins["v2.core.account.created"] is None
    assert all(twins[twin] == event_type for event_type, twin in twins.items() if twin is not None)


def test_a_thin_events_object_is_what_stripes_package_reads_for_it() -> None:
    for event_type in THIN_TYPES:
        stripes = related_object(event_type)

        if stripes is not None:
            assert object_of(event_type) == {"checkout.session": "checkout_session"}.get(stripes, stripes), event_type


def test_a_snapshot_events_object_is_one_that_stripe_has() -> None:
    for event_type in SNAPSHOT_TYPES:
        found = object_of(event_type)

        assert set(found.split(" or ")) <= object_types() | {"checkout_session"}, event_type
        for resource, objects in SEVERAL.items():
            if event_type.startswith(f"{resource}."):
                assert set(found.split(" or ")) == objects, event_type


def test_the_corpus_has_the_objects_that_are_told() -> None:
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    for payload in payloads():
        event = payload.event
        if event["object"] == "event" and event["type"] in CATALOGUE:
            stripes = event["data"]["object"].get("object")
            if stripes is not None:
                told = object_of(event["type"]).split(" or ")
                assert {"checkout.session": "checkout_session"}.get(stripes, stripes) in told, payload.name


@pytest.mark.parametrize(("wrong", "right"), MISNOMERS)
def test_a_name_that_does_not_exist_is_told_with_the_one_that_was_meant(wrong: str, right: str) -> None:
    found = route(wrong, TOPICS)

    assert not found.listed
    assert found.suggestions[0] == right
    assert found.object_type is None
    assert found.columns()[-3:] == ("-", "-", "unlisted")
    assert right in advice(wrong)


def test_what_is_suggested_exists() -> None:
    wrong = [name for name, _ in MISNOMERS]
    if REFERENCE.is_file():
        wrong += json.loads(REFERENCE.read_bytes())["names_that_do_not_exist"]

    assert not set(wrong) & CATALOGUE
    assert {right for name in wrong for right in suggestions(name)} <= CATALOGUE
    assert {name for name in wrong if not suggestions(name)} <= {"invoiceitem.updated"}


def test_a_name_like_no_other_is_told_without_a_suggestion() -> None:
    assert suggestions("lunch.served") == ()
    assert advice("lunch.served").endswith("knows")


def test_the_twin_of_what_was_meant_is_no_suggestion() -> None:
    for wrong in ("payment_intent.succeded", "v1.payment_intent.succeded", "charge.refund.update", "v1.refund.create"):
        found = route(wrong, TOPICS)

        assert found.suggestions
        assert {route(each, TOPICS).form for each in found.suggestions} == {found.form}, wrong


def test_a_type_of_the_other_form_is_suggested_where_there_is_no_twin_of_it() -> None:
    assert "v1.customer.subscription.past_due" in suggestions("customer.subscription.past_due")
    assert "v2.core.account.created" in suggestions("core.account.created")


def test_a_listed_type_has_nothing_better() -> None:
    assert suggestions("invoice.paid") == ()
