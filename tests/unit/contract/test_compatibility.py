"""What breaks a consumer that was written against an earlier contract, and what does not."""

import copy
import functools
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.contract.asyncapi import asyncapi
from service.contract.compatibility import NotTheContract, breaking_changes
from service.records import Topics
from tests.support.published_contract import ASYNCAPI

Document = dict[str, Any]
Change = Callable[[Document], object]

RELEASED = Path(__file__).parent / "released.json"
"""What consumers have in hand. Each release writes it: `stripe-ingest contract asyncapi --prefix stripe > released.json`"""


def test_a_consumer_of_the_released_contract_can_read_what_is_published_now() -> None:
    broken = breaking_changes(orjson.loads(RELEASED.read_bytes()), asyncapi(Topics("stripe")))

    assert broken == [], "this breaks consumers: keep what was there beside what is new, or make schema version 2"


def test_a_contract_is_compatible_with_itself() -> None:
    assert breaking_changes(ASYNCAPI, ASYNCAPI) == []


def channel(document: Document, name: str = "payments") -> Document:
    found: Document = document["channels"][name]
    return found


def component(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def field(document: Document, name: str, of: str = "Charge") -> Document:
    found: Document = component(document, of)["properties"][name]
    return found


def nullable(name: str) -> Change:
    return lambda document: field(document, name).update(type=["string", "null"])


BREAKING: dict[str, tuple[Change, list[str]]] = {
    "a topic is gone": (
        lambda d: d["channels"].pop("refunds"),
        ["refunds: the topic is gone"],
    ),
    "a topic is renamed": (
        lambda d: channel(d).update(address="stripe.money"),
        ["payments: the topic was stripe.payments and is stripe.money"],
    ),
    "the key is another": (
        lambda d: channel(d)["x-key"].reverse(),
        [
            ("payments: the key was ['data.payment_intent_id', 'data.charge_id', 'data.checkout_session_id', 'object_id',"
            " 'data.customer_id', 'account'] and is ['account', 'data.customer_id', 'object_id',"
            " 'data.checkout_session_id', 'data.charge_id', 'data.payment_intent_id']")
        ],
    ),
    "the partitioner is another": (
        lambda d: channel(d).update({"x-partitioner": "crc32"}),
        ["payments: the partitioner was murmur2 and is crc32"],
    ),
    "records are kept for less long": (
        lambda d: channel(d)["bindings"]["kafka"]["topicConfiguration"].update({"retention.ms": 1}),
        ["payments: records are kept for 1 ms, and were for 3024000000 ms"],
    ),
    "records may be larger": (
        lambda d: channel(d)["bindings"]["kafka"]["topicConfiguration"].update({"max.message.bytes": 2**24}),
        ["payments: records may have 16777216 bytes, and had at most 4194304"],
    ),
    "an object type goes to another topic": (
        lambda d: channel(d)["messages"].pop("dispute"),
        ["payments: dispute is no longer on this topic"],
    ),
    "a schema has another id": (
        lambda d: channel(d)["messages"]["charge"].update({"x-dataschema": "urn:stripe-ingest:schema:2:charge"}),
        ["payments.charge: x-dataschema was urn:stripe-ingest:schema:1:charge and is urn:stripe-ingest:schema:2:charge"],
    ),
    "a value is something else than JSON": (
        lambda d: channel(d)["messages"]["charge"].update(contentType="application/avro"),
        ["payments.charge: contentType was application/json and is application/avro"],
    ),
    "a header is gone": (
        lambda d: component(d, "EventHeaders")["properties"].pop("ce_id"),
        ["EventHeaders.ce_id: is gone"],
    ),
    "a header may be missing": (
        lambda d: component(d, "EventHeaders")["required"].remove("dedupe"),
        ["EventHeaders.dedupe: was in every record, and may now be missing"],
    ),
    "a header has another value": (
        lambda d: field(d, "ce_specversion", "EventHeaders").update(const="2.0"),
        ["EventHeaders.ce_specversion: may now be '2.0', and was one of '1.0'"],
    ),
    "a field is gone": (
        lambda d: component(d, "Charge")["properties"].pop("fee_minor"),
        ["Charge.fee_minor: is gone"],
    ),
    "a field is renamed": (
        lambda d: component(d, "Charge")["properties"].update(fees=component(d, "Charge")["properties"].pop("fee_minor")),
        ["Charge.fee_minor: is gone"],
    ),
    "a field of the envelope is gone": (
        lambda d: component(d, "ChargeRecord")["properties"].pop("request_id"),
        ["ChargeRecord.request_id: is gone"],
    ),
    "a field of an embedded object is gone": (
        lambda d: component(d, "SubscriptionItem")["properties"].pop("quantity"),
        ["SubscriptionItem.quantity: is gone"],
    ),
    "a field may be missing": (
        lambda d: component(d, "Charge")["required"].remove("charge_id"),
        ["Charge.charge_id: was in every record, and may now be missing"],
    ),
    "a field may be null": (
        nullable("charge_id"),
        ["Charge.charge_id: may now be null, and was string"],
    ),
    "a field has another type": (
        lambda d: field(d, "captured").update(type=["string", "null"]),
        ["Charge.captured: may now be string, and was boolean or null"],
    ),
    "a field has any type": (
        lambda d: field(d, "captured").pop("type"),
        ["Charge.captured: may now be array or integer or number or object or string, and was boolean or null"],
    ),
    "money has fractions": (
        lambda d: field(d, "amount_minor").update(type=["number", "null"]),
        ["Charge.amount_minor: may now be number, and was integer or null"],
    ),
    "integers may be larger": (
        lambda d: field(d, "amount_minor").update(maximum=2**64),
        ["Charge.amount_minor: maximum was 9223372036854775807 and is 18446744073709551616"],
    ),
    "integers have no bound": (
        lambda d: field(d, "amount_minor").pop("minimum"),
        ["Charge.amount_minor: minimum was -9223372036854775808 and is without bound"],
    ),
    "a time is no time": (
        lambda d: field(d, "created_at").pop("format"),
        ["Charge.created_at: format was date-time and is any"],
    ),
    "a number has another form": (
        lambda d: field(d, "original_offset", "DeadLetterHeaders").update(pattern="^0x"),
        ["DeadLetterHeaders.original_offset: pattern was ^[0-9]+$ and is ^0x"],
    ),
    "a closed set has another value": (
        lambda d: field(d, "category", "ChargeRecord")["enum"].append("payout"),
        [
            ("ChargeRecord.category: may now be 'payout', and was one of"
            " 'catalog', 'customer', 'other', 'payment', 'refund', 'subscription'")
        ],
    ),
    "a closed set is open": (
        lambda d: field(d, "schema_version", "ChargeRecord").pop("const"),
        ["ChargeRecord.schema_version: may now have any value, and was one of 1"],
    ),
    "what a missing field means": (
        lambda d: field(d, "deleted", "Customer").update(default=True),
        ["Customer.deleted: the default was False and is True"],
    ),
    "a missing field means nothing": (
        lambda d: field(d, "pending_update", "Subscription").pop("default"),
        ["Subscription.pending_update: the default was None and is 'none'"],
    ),
    "a reference may be null": (
        lambda d: component(d, "ChargeRecord")["properties"].update(
            data={"anyOf": [{"$ref": "#/components/schemas/Charge"}, {"type": "null"}]}
        ),
        ["ChargeRecord.data: may now be null, and was object"],
    ),
    "the items of a list are others": (
        lambda d: field(d, "coupon_ids", "Subscription").update(items={"type": "integer"}),
        ["Subscription.coupon_ids.*: may now be integer, and was string"],
    ),
    "the items of a list are anything": (
        lambda d: field(d, "refunds").pop("items"),
        ["Charge.refunds: items was {'$ref': '#/components/schemas/Refund'} and is True"],
    ),
    "metadata has other values": (
        lambda d: field(d, "metadata").update(additionalProperties={"type": ["string", "null"]}),
        ["Charge.metadata.*: may now be null, and was string"],
    ),
    "a keyword that is not judged": (
        lambda d: field(d, "amount_minor").update(multipleOf=0.5),
        ["Charge.amount_minor: multipleOf has changed, which nobody has judged"],
    ),
}  # fmt: skip

ALLOWED: dict[str, Change] = {
    "a topic more": lambda d: d["channels"].update(payouts=copy.deepcopy(channel(d))),
    "an object type more on a topic": lambda d: channel(d)["messages"].update(payout=channel(d)["messages"]["charge"]),
    "a header more": lambda d: component(d, "EventHeaders")["properties"].update(tenant={"type": "string"}),
    "a header that is now always there": lambda d: component(d, "EventHeaders")["required"].append("ce_subject"),
    "a field more": lambda d: component(d, "Charge")["properties"].update(
        receipt={"type": "string", "default": "none"}
    ),
    "a field that is now always there": lambda d: component(d, "Charge")["required"].append("status"),
    "a field that is never null": lambda d: field(d, "status").update(type="string"),
    "an object that is never null": lambda d: component(d, "ChargeRecord")["properties"].update(
        previous={"$ref": "#/components/schemas/PreviousCharge"}
    ),
    "an open set is closed": lambda d: field(d, "status").update(enum=["succeeded", "pending", "failed", None]),
    "a closed set has a value less": lambda d: field(d, "category", "ChargeRecord")["enum"].remove("other"),
    "bounds are narrower": lambda d: field(d, "amount_minor").update(minimum=0, maximum=99_999_999),
    "a header has a form": lambda d: field(d, "ce_id", "EventHeaders").update(pattern="^evt_"),
    "records are kept for longer": lambda d: channel(d)["bindings"]["kafka"]["topicConfiguration"].update(
        {"retention.ms": 2**40}
    ),
    "records are smaller": lambda d: channel(d)["bindings"]["kafka"]["topicConfiguration"].update(
        {"max.message.bytes": 1024}
    ),
    "other words": lambda d: field(d, "status").update(description="How it stands.", examples=["succeeded"]),
    "a component has another name": lambda d: (
        component(d, "ChargeRecord")["properties"].update(data={"$ref": "#/components/schemas/StripeCharge"}),
        d["components"]["schemas"].update(StripeCharge=component(d, "Charge")),
    ),
}


def changed(change: Change) -> Document:
    document = copy.deepcopy(ASYNCAPI)
    change(document)
    assert document != ASYNCAPI
    return document


@pytest.mark.parametrize(("change", "found"), BREAKING.values(), ids=BREAKING)
def test_what_breaks_a_consumer_is_found_and_said_once(change: Change, found: list[str]) -> None:
    assert breaking_changes(ASYNCAPI, changed(change)) == found


@pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED)
def test_what_a_consumer_can_live_with_is_allowed(change: Change) -> None:
    assert breaking_changes(ASYNCAPI, changed(change)) == []


def referring(**schemas: object) -> Change:
    return lambda document: document["components"]["schemas"].update(schemas)


STRANGE: dict[str, Change] = {
    "channels that are null": lambda d: d.update(channels=None),
    "a channel that is a list": lambda d: d["channels"].update(payments=[]),
    "bindings of another protocol": lambda d: channel(d).update(bindings={"amqp": {}}),
    "a retention in words": lambda d: channel(d)["bindings"]["kafka"]["topicConfiguration"].update(
        {"retention.ms": "a month"}
    ),
    "components that are text": lambda d: d.update(components="x"),
    "a schema that is null": lambda d: d["components"]["schemas"].update(Charge=None),
    "a schema that is a list": lambda d: d["components"]["schemas"].update(Charge=[]),
    "a field that is null": lambda d: component(d, "Charge")["properties"].update(captured=None),
    "a type that is a number": lambda d: field(d, "captured").update(type=7),
    "no alternatives": lambda d: field(d, "captured").update(anyOf=[]),
    "alternatives that are none": lambda d: field(d, "captured").update(anyOf=[None]),
    "an enumeration of no list": lambda d: field(d, "category", "ChargeRecord").update(enum="payment"),
    "a bound in words": lambda d: field(d, "amount_minor").update(minimum="zero"),
    "items that are null": lambda d: field(d, "coupon_ids", "Subscription").update(items=None),
    "a reference to nothing": referring(Charge={"$ref": "#/components/schemas/Nothing"}),
    "a reference to elsewhere": referring(Charge={"$ref": "#/info"}),
    "a reference to itself": referring(Charge={"$ref": "#/components/schemas/Charge"}),
    "an alternative to itself": referring(Charge={"anyOf": [{"$ref": "#/components/schemas/Charge"}]}),
    "references in a circle": referring(
        Charge={"$ref": "#/components/schemas/Refund"}, Refund={"$ref": "#/components/schemas/Charge"}
    ),
    "another title": lambda d: d["info"].update(title="Orders"),
}


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE)
def test_what_is_another_document_is_refused_in_a_line(change: Change) -> None:
    with pytest.raises(NotTheContract) as refused:
        breaking_changes(changed(change), ASYNCAPI)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        ("info",),
        ("info", "title"),
        ("channels",),
        *(
            ("channels", "payments", *path)
            for path in (
                ("address",),
                ("x-key",),
                ("x-partitioner",),
                ("messages",),
                ("messages", "charge", "headers"),
                ("messages", "charge", "payload"),
                ("bindings",),
                ("bindings", "kafka"),
                ("bindings", "kafka", "topicConfiguration"),
                ("bindings", "kafka", "topicConfiguration", "retention.ms"),
                ("bindings", "kafka", "topicConfiguration", "max.message.bytes"),
            )
        ),
        ("components",),
        ("components", "schemas"),
    ],
    ids=".".join,
)
def test_a_document_without_what_is_compared_is_refused(path: tuple[str, ...]) -> None:
    *within, last = path

    def remove(document: Document) -> None:
        functools.reduce(operator.getitem, within, document).pop(last)

    with pytest.raises(NotTheContract, match=f"missing required field `{re.escape(last)}`"):
        breaking_changes(changed(remove), ASYNCAPI)


def test_every_change_is_listed_not_only_the_first() -> None:
    document = copy.deepcopy(ASYNCAPI)
    del document["channels"]["refunds"], component(document, "Charge")["properties"]["paid"]
    component(document, "Customer")["properties"].pop("email")

    assert breaking_changes(ASYNCAPI, document) == [
        "Charge.paid: is gone",
        "refunds: the topic is gone",
        "Customer.email: is gone",
    ]
