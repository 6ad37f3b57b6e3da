"""The same fact in different API versions is the same normalized value, byte for byte."""

from collections import defaultdict
from typing import Any

import msgspec
import pytest

from service.contract import Event
from tests.oracle.judge import Verdict, judge_data
from tests.oracle.kinds import as_id
from tests.oracle.samples import outcome_of, samples_below
from tests.oracle.specimens import Node, snapshot
from tests.support.corpus import CORPUS, NO_CORPUS

COMPOSED = CORPUS / "stripe+openapi-composed"


def leaf(tree: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return as_id(tree) or tree


def rendered(tree: Any) -> dict[str, tuple[bytes, list[Any]]]:
    """Field → its bytes, and the raw leaves that say it. Elements of lists are told apart by their order."""
    event = outcome_of(tree)
    assert isinstance(event, Event)
    seen: dict[str, int] = defaultdict(int)
    said = {}
    for it in judge_data(tree, event):
        number, seen[it.field] = seen[it.field], seen[it.field] + 1
        if it.verdict is Verdict.FILLED:
            said[f"{it.field}#{number}"] = (msgspec.json.encode(it.held), [leaf(tree, path) for path in it.best])
    return said


def test_the_composed_sets_say_the_same_in_every_version() -> None:
    if not COMPOSED.is_dir():
        pytest.skip(NO_CORPUS)
    versions: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for sample in samples_below(COMPOSED):
        version, _, name = sample.name.partition("/")
        versions[name].append((version, sample.tree))
    compared: set[str] = set()
    for name, trees in versions.items():
        renderings = [(version, rendered(tree)) for version, tree in trees]
        for place, (older, one) in enumerate(renderings):
            for newer, other in renderings[place + 1 :]:
                for field in one.keys() & other.keys():
                    (bytes_, leaves), (others_bytes, others_leaves) = one[field], other[field]
                    # Where the fixture itself has another value, the two are no renderings of one fact.
                    if leaves == others_leaves:
                        assert bytes_ == others_bytes, f"{name}: {field} in {older} and {newer}"
                        compared.add(f"{name.partition('__')[0]}: {field}")

    assert len(compared) > 200


def one(stripe_object: Node, event_type: str) -> Node:
    return snapshot(stripe_object, event_type)


ITEM: Node = {"id": "si_1", "quantity": 2}
PRICE = {"id": "price_1", "object": "price", "product": "prod_1", "unit_amount": 700, "currency": "eur",
         "recurring": {"interval": "month", "interval_count": 1}}  # fmt: skip
PLAN = {"id": "price_1", "object": "plan", "product": "prod_1", "amount": 700, "currency": "eur",
        "interval": "month", "interval_count": 1}  # fmt: skip
REFUND = {"id": "re_1", "object": "refund", "amount": 300, "currency": "eur", "status": "succeeded", "charge": "ch_1"}
PAIRS: dict[str, tuple[str, Node, Node]] = {
    "period of a subscription": (
        "customer.subscription.updated",
        {"id": "sub_1", "object": "subscription", "current_period_start": 1_700_000_000,
         "current_period_end": 1_702_592_000, "items": {"object": "list", "data": [ITEM]}},
        {"id": "sub_1", "object": "subscription", "items": {"object": "list", "data": [
            {**ITEM, "current_period_start": 1_700_000_000, "current_period_end": 1_702_592_000}]}},
    ),
    "plan and price of an item": (
        "customer.subscription.updated",
        {"id": "sub_1", "object": "subscription", "items": {"object": "list", "data": [{**ITEM, "plan": PLAN}]}},
        {"id": "sub_1", "object": "subscription", "items": {"object": "list", "data": [{**ITEM, "price": PRICE}]}},
    ),
    "collection of a subscription": (
        "customer.subscription.updated",
        {"id": "sub_1", "object": "subscription", "billing": "send_invoice", "start": 1_700_000_000},
        {"id": "sub_1", "object": "subscription", "collection_method": "send_invoice", "start_date": 1_700_000_000},
    ),
    "coupon of a subscription": (
        "customer.subscription.updated",
        {"id": "sub_1", "object": "subscription", "discount": {"id": "di_1", "coupon": {"id": "ten"}}},
        {"id": "sub_1", "object": "subscription",
         "discounts": [{"id": "di_1", "source": {"type": "coupon", "coupon": "ten"}}]},
    ),
    "subscription and payment of an invoice": (
        "invoice.paid",
        {"id": "in_1", "object": "invoice", "subscription": "sub_1", "payment_intent": "pi_1"},
        {"id": "in_1", "object": "invoice",
         "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}},
         "payments": {"object": "list", "data": [
             {"id": "inpay_1", "payment": {"type": "payment_intent", "payment_intent": "pi_1"}, "is_default": True}]}},
    ),
    "tax and time of an invoice": (
        "invoice.paid",
        {"id": "in_1", "object": "invoice", "tax": 19, "date": 1_700_000_000, "billing": "send_invoice"},
        {"id": "in_1", "object": "invoice", "total_taxes": [{"amount": 12}, {"amount": 7}], "created": 1_700_000_000,
         "collection_method": "send_invoice"},
    ),
    "line of an invoice": (
        "invoice.paid",
        {"id": "in_1", "object": "invoice", "lines": [
            {"id": "sli_1", "unique_id": "il_1", "price": PRICE, "subscription": "sub_1", "subscription_item": "si_1",
             "invoice_item": "ii_1", "proration": True}]},
        {"id": "in_1", "object": "invoice", "lines": {"object": "list", "data": [
            {"id": "il_1", "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "prod_1"}},
             "parent": {"type": "subscription_item_details", "subscription_item_details": {
                 "subscription": "sub_1", "subscription_item": "si_1", "invoice_item": "ii_1", "proration": True}}}]},
         "parent": {"subscription_details": {"subscription": "sub_1"}}},
    ),
    "charge of a payment intent": (
        "payment_intent.succeeded",
        {"id": "pi_1", "object": "payment_intent", "charges": {"object": "list", "data": [
            {"id": "ch_1", "object": "charge", "payment_method_details": {"type": "ideal"}}]}},
        {"id": "pi_1", "object": "payment_intent", "latest_charge": {
            "id": "ch_1", "object": "charge", "payment_method_details": {"type": "ideal"}}},
    ),
    "refunds of a charge": (
        "charge.refunded",
        {"id": "ch_1", "object": "charge", "refunds": [REFUND]},
        {"id": "ch_1", "object": "charge", "refunds": {"object": "list", "data": [REFUND], "has_more": False}},
    ),
    "card of a charge": (
        "charge.succeeded",
        {"id": "ch_1", "object": "charge",
         "source": {"id": "card_1", "object": "card", "brand": "American Express", "last4": "0005"}},
        {"id": "ch_1", "object": "charge", "payment_method": "card_1",
         "payment_method_details": {"type": "card", "card": {"brand": "amex", "last4": "0005"}}},
    ),
    "balance of a customer": (
        "customer.updated",
        {"id": "cus_1", "object": "customer", "account_balance": -500, "default_source": "card_1"},
        {"id": "cus_1", "object": "customer", "balance": -500,
         "invoice_settings": {"default_payment_method": "card_1"}},
    ),
    "deadline of a dispute": (
        "charge.dispute.created",
        {"id": "dp_1", "object": "dispute", "evidence_due_by": 1_700_000_000},
        {"id": "dp_1", "object": "dispute", "evidence_details": {"due_by": 1_700_000_000}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fact", PAIRS)
def test_a_fact_in_its_old_and_its_new_shape_is_one_value(fact: str) -> None:
    event_type, old, new = PAIRS[fact]
    was, is_ = outcome_of(one(old, event_type)), outcome_of(one(new, event_type))
    assert isinstance(was, Event)
    assert isinstance(is_, Event)
    olds, news = (msgspec.to_builtins(it.data) for it in (was, is_))

    assert _common(olds, news) == _common(news, olds)
    assert sum(value not in (None, [], {}, False) for value in _common(olds, news).values()) > 1


def _common(one: Any, other: Any) -> Any:
    """What both say."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            name: _common(value, other[name])
            for name, value in one.items()
            if value is not None and other.get(name) is not None
        }
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [_common(mine, theirs) for mine, theirs in zip(one, other, strict=True)]
    return one


@pytest.mark.parametrize("request_", ["req_1", {"id": "req_1", "idempotency_key": None}], ids=["string", "object"])
def test_the_request_is_read_in_its_old_and_new_form(request_: Any) -> None:
    event = outcome_of(one({"id": "ch_1", "object": "charge"}, "charge.succeeded") | {"request": request_})

    assert isinstance(event, Event)
    assert event.request_id == "req_1"
